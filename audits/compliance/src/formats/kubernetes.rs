//! The report as resources of Kubernetes: `openreports.io/v1alpha1` and the older `wgpolicyk8s.io/v1alpha2`. Policy
//! Reporter and others show them.

use crate::evidence::{Finding, MESH, Severity};
use crate::judge::Status;
use crate::report::{Report, by_scope};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which of the two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `openreports.io/v1alpha1`.
    OpenReports,
    /// `wgpolicyk8s.io/v1alpha2`.
    WgPolicy,
}

/// Results of one kind, as a summary counts them.
#[derive(Default)]
struct Counts {
    by_result: BTreeMap<&'static str, u64>,
}

/// One object a framework and namespace; what is of no namespace is a cluster-wide one.
pub fn objects(report: &Report, group: Group) -> Vec<Value> {
    let mut results: BTreeMap<(String, String), (Counts, Vec<Value>)> = BTreeMap::new();
    let known = report.by_id();
    for framework in &report.frameworks {
        for control in &framework.controls {
            let by_scope = by_scope(&known, &control.findings);
            for scope in &control.scopes {
                let key = (scope.scope.clone(), framework.framework.clone());
                let entry = results.entry(key).or_default();
                let found = by_scope
                    .get(scope.scope.as_str())
                    .map_or(&[][..], Vec::as_slice);
                let result = word(scope.status);
                *entry.0.by_result.entry(result).or_default() += 1;
                let message = if scope.because.is_empty() {
                    control.title.clone()
                } else {
                    scope.because.join("; ")
                };
                entry.1.push(one(
                    report,
                    &framework.framework,
                    &control.id,
                    result,
                    &message,
                    found,
                ));
            }
        }
    }
    results
        .into_iter()
        .map(|((scope, framework), (counts, results))| {
            object(report, group, &scope, &framework, &counts, results)
        })
        .collect()
}

fn one(
    report: &Report,
    framework: &str,
    control: &str,
    result: &str,
    message: &str,
    found: &[&Finding],
) -> Value {
    let worst = found.iter().map(|one| one.severity).min();
    let until = report.scope.until.unix_micros();
    let mut properties = Map::new();
    for (at, finding) in found.iter().take(10).enumerate() {
        properties.insert(format!("finding-{}", at + 1), json!(finding.message));
    }
    if found.len() > 10 {
        properties.insert(
            "more-findings".to_owned(),
            json!((found.len() - 10).to_string()),
        );
    }
    json!({
        "source": "mesh",
        "policy": framework,
        "rule": control,
        "category": framework,
        "result": result,
        "severity": match worst {
            Some(Severity::High) => "high",
            Some(Severity::Medium) => "medium",
            Some(Severity::Low) => "low",
            None => "info",
        },
        "timestamp": { "seconds": until.div_euclid(1_000_000), "nanos": until.rem_euclid(1_000_000) * 1_000 },
        "message": message,
        "properties": properties,
    })
}

fn object(
    report: &Report,
    group: Group,
    scope: &str,
    framework: &str,
    counts: &Counts,
    results: Vec<Value>,
) -> Value {
    let cluster = scope == MESH;
    let (api, kind) = match (group, cluster) {
        (Group::OpenReports, false) => ("openreports.io/v1alpha1", "Report"),
        (Group::OpenReports, true) => ("openreports.io/v1alpha1", "ClusterReport"),
        (Group::WgPolicy, false) => ("wgpolicyk8s.io/v1alpha2", "PolicyReport"),
        (Group::WgPolicy, true) => ("wgpolicyk8s.io/v1alpha2", "ClusterPolicyReport"),
    };
    let mut metadata = json!({
        "name": format!("mesh-audit-{}", name(framework)),
        "labels": { "app.kubernetes.io/managed-by": "mesh" },
        "annotations": {
            "mesh.internal/bundle-sha256": report.bundle_sha256,
            "mesh.internal/since": report.scope.since,
            "mesh.internal/until": report.scope.until,
        },
    });
    if let (Value::Object(metadata), false) = (&mut metadata, cluster) {
        metadata.insert("namespace".to_owned(), json!(scope));
    }
    let count = |word: &str| counts.by_result.get(word).copied().unwrap_or_default();
    let summary = json!({
        "pass": count("pass"), "fail": count("fail"), "warn": count("warn"), "error": count("error"), "skip": count("skip"),
    });
    let mut out = json!({ "apiVersion": api, "kind": kind, "metadata": metadata });
    if let Value::Object(out) = &mut out {
        if group == Group::OpenReports {
            out.insert("source".to_owned(), json!("mesh"));
        }
        out.insert("summary".to_owned(), summary);
        out.insert("results".to_owned(), json!(results));
    }
    out
}

/// A name as objects may have it (RFC 1123).
fn name(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mapped = lower.chars().map(|c| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    });
    mapped.collect()
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Satisfied => "pass",
        Status::Partial => "warn",
        Status::NotSatisfied => "fail",
        Status::InsufficientData => "error",
        Status::NotApplicable => "skip",
    }
}
