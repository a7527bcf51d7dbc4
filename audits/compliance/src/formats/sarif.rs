//! SARIF 2.1.0: what code scanning shows beside the lines of manifests. `mesh authz lint` and `diff` write it with these
//! parts too.

use crate::evidence::metric::metric;
use crate::evidence::{Finding, Place, Severity};
use crate::report::Report;
use mesh_policy::snapshot::Source;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A whole log: one run with these rules and results, and what else belongs to the run.
pub fn log(version: &str, rules: Vec<Value>, results: Vec<Value>, run: Value) -> Value {
    let driver = json!({ "name": "mesh", "version": version, "rules": rules });
    let mut whole = json!({ "tool": { "driver": driver }, "results": results });
    if let (Value::Object(whole), Value::Object(run)) = (&mut whole, run) {
        whole.extend(run);
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [whole],
    })
}

/// A place of a file.
pub fn location(file: &str, line: u32, column: Option<u32>, end_line: Option<u32>) -> Value {
    let mut region = Map::new();
    region.insert("startLine".to_owned(), json!(line));
    if let Some(column) = column {
        region.insert("startColumn".to_owned(), json!(column));
    }
    if let Some(end) = end_line {
        region.insert("endLine".to_owned(), json!(end));
    }
    json!({ "physicalLocation": { "artifactLocation": { "uri": uri(file) }, "region": region } })
}

/// The place of a source; none for what is built in.
pub fn location_of(source: &Source) -> Option<Value> {
    match source {
        Source::File {
            file,
            line,
            column,
            end_line,
        } => Some(location(file, *line, Some(*column), Some(*end_line))),
        Source::BuiltIn(_) => None,
    }
}

/// A path as a URI reference (RFC 3986): what may not stand in one is escaped.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The report as SARIF: one result for each finding, with the controls it speaks against.
pub fn write(report: &Report) -> Value {
    let mut controls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for framework in &report.frameworks {
        for control in &framework.controls {
            for id in &control.findings {
                let name = format!("{} {}", framework.framework, control.id);
                controls.entry(id).or_default().push(name);
            }
        }
    }
    let checks: BTreeSet<&str> = report
        .findings
        .iter()
        .map(|one| one.check.as_str())
        .collect();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|one| {
            result(
                one,
                controls.get(one.id.as_str()).map_or(&[][..], Vec::as_slice),
            )
        })
        .collect();
    let scope = &report.scope;
    let run = json!({
        "properties": {
            "since": scope.since, "until": scope.until, "trustDomain": scope.trust_domain,
            "bundleSha256": report.bundle_sha256, "unmeshed": scope.unmeshed,
            "sampling": scope.namespaces.iter().map(|one| json!({ "namespace": one.namespace, "onRecord": one.sampling, "missing": one.missing })).collect::<Vec<_>>(),
        },
    });
    log(
        &report.generator,
        checks.into_iter().map(rule).collect(),
        results,
        run,
    )
}

fn rule(check: &str) -> Value {
    let about = metric(check).map_or(check, |metric| metric.about);
    json!({
        "id": check,
        "shortDescription": { "text": about },
        "fullDescription": { "text": format!("Counts {about}.") },
        "help": { "text": format!("`mesh audit evidence {}` prints what it is counted from; docs/guides/audit-reports.md says what to do.", evidence_of(check)) },
    })
}

fn evidence_of(check: &str) -> String {
    check
        .split_once('.')
        .map_or(check, |(evidence, _)| evidence)
        .to_ascii_uppercase()
}

fn result(finding: &Finding, controls: &[String]) -> Value {
    let level = match finding.severity {
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    };
    let text = if finding.hint.is_empty() {
        finding.message.clone()
    } else {
        format!("{} ({})", finding.message, finding.hint)
    };
    let mut out = json!({
        "ruleId": finding.check,
        "level": level,
        "message": { "text": text },
        "partialFingerprints": { "meshFinding/v1": finding.id },
        "properties": { "scope": finding.scope, "subject": finding.subject, "controls": controls },
    });
    if let (Value::Object(out), Some(place)) = (&mut out, &finding.place) {
        let place_value = location(&place.file, place.line, None, Some(place.end_line));
        out.insert("locations".to_owned(), json!([place_value]));
        if let Some(fix) = fix(finding, place) {
            out.insert("fixes".to_owned(), json!([fix]));
        }
    }
    out
}

/// The fix of a finding: whole lines go, others may come in their place.
fn fix(finding: &Finding, place: &Place) -> Option<Value> {
    let fix = finding.fix.as_ref()?;
    let deleted = json!({
        "startLine": fix.line, "startColumn": 1, "endLine": fix.end_line.saturating_add(1), "endColumn": 1,
    });
    let mut replacement = json!({ "deletedRegion": deleted });
    if let (Value::Object(replacement), false) = (&mut replacement, fix.text.is_empty()) {
        replacement.insert("insertedContent".to_owned(), json!({ "text": fix.text }));
    }
    Some(json!({
        "description": { "text": fix.what },
        "artifactChanges": [{
            "artifactLocation": { "uri": uri(&place.file) },
            "replacements": [replacement],
        }],
    }))
}
