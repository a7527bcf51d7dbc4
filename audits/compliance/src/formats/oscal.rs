//! OSCAL 1.2: assessment-results, with the minimal assessment-plan that they import, a component-definition for authors of
//! security plans, and a plan of action and milestones with what is to be mended.
//!
//! UUIDs are made of names, so the same subject has the same one in every report. A status of a control becomes a
//! `finding`: OSCAL knows `satisfied` and `not-satisfied` alone, so `partial` and `insufficient-data` are not satisfied
//! for another reason than a failure, and say so; what is not applicable has no finding.

mod parts;

use crate::evidence::{Evidence, Finding};
use crate::framework::Framework;
use crate::judge::{ControlResult, FrameworkResult, Status};
use crate::report::Report;
use parts::{Names, component, metadata, observation_of, prop, resource, risk, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The files of the report, by name. Without anything to mend there is no plan of action.
pub fn write(report: &Report, frameworks: &[Framework]) -> Vec<(&'static str, Value)> {
    let mut out = vec![
        ("oscal-assessment-results.json", assessment_results(report)),
        ("oscal-assessment-plan.json", assessment_plan(report)),
        (
            "oscal-component-definition.json",
            component_definition(report, frameworks),
        ),
    ];
    if let Some(plan) = plan_of_action(report) {
        out.push(("oscal-poam.json", plan));
    }
    out
}

fn assessment_results(report: &Report) -> Value {
    let names = Names::of(report);
    let results: Vec<Value> = report
        .frameworks
        .iter()
        .map(|one| result(report, one))
        .collect();
    json!({
        "assessment-results": {
            "uuid": names.uuid(&["assessment-results"]),
            "metadata": metadata(report, "Results of the assessment of a service mesh"),
            "import-ap": { "href": "oscal-assessment-plan.json" },
            "results": results,
            "back-matter": { "resources": [bundle_resource(report)] },
        }
    })
}

fn bundle_resource(report: &Report) -> Value {
    resource(
        &Names::of(report).uuid(&["bundle"]),
        "Snapshot bundle",
        "All that the results were computed from. `mesh audit run --bundle` computes them again.",
        "bundle.jsonl",
        Some(&report.bundle_sha256),
    )
}

fn result(report: &Report, framework: &FrameworkResult) -> Value {
    let names = Names::of(report).within(&framework.framework);
    let scope = &report.scope;
    let used: BTreeSet<&str> = framework
        .controls
        .iter()
        .flat_map(|one| one.evidence.iter().map(String::as_str))
        .collect();
    let cited: BTreeSet<&str> = framework
        .controls
        .iter()
        .flat_map(|one| one.findings.iter().map(String::as_str))
        .collect();
    let evidence = report
        .evidence
        .iter()
        .filter(|one| used.contains(one.id.as_str()));
    let found: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|one| cited.contains(one.id.as_str()))
        .collect();
    let mut observations: Vec<Value> = evidence.map(|one| measured(report, &names, one)).collect();
    observations.extend(found.iter().map(|one| observation_of(report, &names, one)));
    let findings: Vec<Value> = framework
        .controls
        .iter()
        .filter(|one| one.status != Status::NotApplicable)
        .map(|one| finding(&names, framework, one))
        .collect();
    let risks: Vec<Value> = found.iter().map(|one| risk(&names, one)).collect();
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("uuid", json!(names.uuid(&["result"])));
    put(
        "title",
        json!(text(&format!("{} {}", framework.title, framework.version))),
    );
    put("description", json!(description(report)));
    put("start", json!(scope.since));
    put("end", json!(scope.until));
    put("props", json!(props(report, framework)));
    put(
        "local-definitions",
        json!({ "components": [component(&names)] }),
    );
    put("reviewed-controls", reviewed(framework));
    put("observations", json!(observations));
    if !risks.is_empty() {
        put("risks", json!(risks));
    }
    if !findings.is_empty() {
        put("findings", json!(findings));
    }
    put("remarks", json!(remarks(report, framework)));
    Value::Object(out)
}

fn description(report: &Report) -> String {
    text(&format!(
        "Evidence of the service mesh of trust domain {} from {} to {}, held against the controls that it speaks to.",
        report.scope.trust_domain, report.scope.since, report.scope.until
    ))
}

fn props(report: &Report, framework: &FrameworkResult) -> Vec<Value> {
    let scope = &report.scope;
    let mut out = vec![
        prop("bundle-sha256", &report.bundle_sha256),
        prop("policy-sha256", &scope.policy_sha256),
        prop("policy-generation", &scope.generation.to_string()),
        prop("mapping-revision", &framework.mapping_revision.to_string()),
        prop("unmeshed-workloads", &scope.unmeshed.len().to_string()),
    ];
    for one in &scope.namespaces {
        out.push(prop(
            "sampling",
            &format!("{}: {}", one.namespace, one.sampling),
        ));
        let missing = one.missing.iter();
        out.extend(
            missing.map(|why| prop("missing-telemetry", &format!("{}: {why}", one.namespace))),
        );
    }
    out
}

/// What is not applicable, and what stands outside.
fn remarks(report: &Report, framework: &FrameworkResult) -> String {
    let none: Vec<&str> = framework
        .controls
        .iter()
        .filter(|one| one.status == Status::NotApplicable)
        .map(|one| one.id.as_str())
        .collect();
    let outside = match report.scope.unmeshed.as_slice() {
        [] => "No workload is known to stand outside the mesh.".to_owned(),
        all => format!("Outside the mesh, and not assessed: {}.", all.join(", ")),
    };
    match none.as_slice() {
        [] => outside,
        none => format!("{outside} Not applicable: {}.", none.join(", ")),
    }
}

fn reviewed(framework: &FrameworkResult) -> Value {
    let ids: Vec<Value> = framework
        .controls
        .iter()
        .map(|one| json!({ "control-id": parts::control_id(&framework.framework, &one.id) }))
        .collect();
    json!({ "control-selections": [{ "include-controls": ids }] })
}

/// The readings of one kind of evidence, as an observation.
fn measured(report: &Report, names: &Names, evidence: &Evidence) -> Value {
    let props: Vec<Value> = evidence
        .metrics
        .iter()
        .map(|one| {
            let said = match one.reading.why() {
                Some(why) => format!(
                    "{} in {}: {} ({why})",
                    one.metric,
                    one.scope,
                    one.reading.text()
                ),
                None => format!("{} in {}: {}", one.metric, one.scope, one.reading.text()),
            };
            prop("reading", &said)
        })
        .collect();
    json!({
        "uuid": names.uuid(&["evidence", &evidence.id]),
        "title": text(&format!("{} {}", evidence.id, evidence.title)),
        "description": text(&evidence.notes.join(" ")),
        "props": props,
        "methods": ["EXAMINE", "TEST"],
        "types": ["control-objective"],
        "subjects": [parts::subject(names)],
        "relevant-evidence": [{
            "href": format!("#{}", Names::of(report).uuid(&["bundle"])),
            "description": text(&format!("`mesh audit evidence {}` prints the rows that it is counted from.", evidence.id)),
        }],
        "collected": report.scope.until,
    })
}

fn finding(names: &Names, framework: &FrameworkResult, control: &ControlResult) -> Value {
    let (state, reason) = match control.status {
        Status::Satisfied => ("satisfied", "pass"),
        Status::NotSatisfied => ("not-satisfied", "fail"),
        Status::Partial | Status::InsufficientData | Status::NotApplicable => {
            ("not-satisfied", "other")
        }
    };
    let related = control
        .evidence
        .iter()
        .map(|id| names.uuid(&["evidence", id]))
        .chain(
            control
                .findings
                .iter()
                .map(|id| names.uuid(&["finding", id])),
        )
        .map(|uuid| json!({ "observation-uuid": uuid }))
        .collect::<Vec<_>>();
    let risks: Vec<Value> = control
        .findings
        .iter()
        .map(|id| json!({ "risk-uuid": names.uuid(&["risk", id]) }))
        .collect();
    let mut props = vec![prop("status", control.status.text())];
    props.extend(
        control
            .stage
            .iter()
            .map(|stage| prop("stage", &stage.reached)),
    );
    for scope in &control.scopes {
        props.push(prop(
            "scope-status",
            &format!("{}: {}", scope.scope, scope.status.text()),
        ));
        props.extend(
            scope
                .because
                .iter()
                .map(|why| prop("because", &format!("{}: {why}", scope.scope))),
        );
    }
    let mut out = json!({
        "uuid": names.uuid(&["control", &control.id]),
        "title": text(&format!("{}: {}", control.id, control.title)),
        "description": text(&format!("Status: {}. Not covered by the mesh: {}", control.status.text(), control.not_covered)),
        "props": props,
        "target": {
            "type": "statement-id",
            "target-id": format!("{}_smt", parts::control_id(&framework.framework, &control.id)),
            "status": { "state": state, "reason": reason },
        },
        "related-observations": related,
    });
    if let (Value::Object(out), false) = (&mut out, risks.is_empty()) {
        out.insert("related-risks".to_owned(), json!(risks));
    }
    out
}

fn assessment_plan(report: &Report) -> Value {
    let names = Names::of(report);
    let ids: Vec<Value> = report
        .frameworks
        .iter()
        .flat_map(|framework| {
            let controls = framework.controls.iter();
            controls.map(
                |one| json!({ "control-id": parts::control_id(&framework.framework, &one.id) }),
            )
        })
        .collect();
    let plan = names.uuid(&["security-plan"]);
    let note = "The plan of the system that the mesh is a part of is for its owner to give.";
    json!({
        "assessment-plan": {
            "uuid": names.uuid(&["assessment-plan"]),
            "metadata": metadata(report, "Plan of the assessment of a service mesh"),
            "import-ssp": { "href": format!("#{plan}") },
            "reviewed-controls": { "control-selections": [{ "include-controls": ids }] },
            "assessment-subjects": [{ "type": "component", "include-all": {} }],
            "back-matter": { "resources": [resource(&plan, "System security plan", note, "system-security-plan.json", None)] },
        }
    })
}

fn component_definition(report: &Report, frameworks: &[Framework]) -> Value {
    let names = Names::of(report);
    let implementations: Vec<Value> = frameworks
        .iter()
        .map(|framework| {
            let names = names.within(&framework.id);
            let source = names.uuid(&["source"]);
            let requirements: Vec<Value> = framework
                .controls
                .iter()
                .map(|one| {
                    let needs: Vec<Value> = one.all_needs().map(|need| prop("need", &need.to_string())).collect();
                    json!({
                        "uuid": names.uuid(&["requirement", &one.id]),
                        "control-id": parts::control_id(&framework.id, &one.id),
                        "description": text(&format!("{}. Not covered by the mesh: {}", one.title, one.not_covered)),
                        "props": needs,
                    })
                })
                .collect();
            json!({
                "uuid": names.uuid(&["implementation"]),
                "source": format!("#{source}"),
                "description": text(&format!("What the mesh gives evidence of under {} {}.", framework.title, framework.version)),
                "implemented-requirements": requirements,
            })
        })
        .collect();
    let sources: Vec<Value> = frameworks
        .iter()
        .map(|framework| {
            let uuid = names.within(&framework.id).uuid(&["source"]);
            let title = format!("{} {}", framework.title, framework.version);
            json!({ "uuid": uuid, "title": text(&title), "citation": { "text": text(&framework.source) } })
        })
        .collect();
    let mut mesh = json!({
        "uuid": names.uuid(&["component"]),
        "type": "software",
        "title": "mesh",
        "description": "A zero-trust service mesh: identities of workloads, mutual TLS between them, authorization of every request, and a log of decisions.",
    });
    let mut out = json!({
        "uuid": names.uuid(&["component-definition"]),
        "metadata": metadata(report, "What a service mesh gives evidence of"),
    });
    if let (Value::Object(mesh), Value::Object(out), false) =
        (&mut mesh, &mut out, frameworks.is_empty())
    {
        mesh.insert("control-implementations".to_owned(), json!(implementations));
        out.insert("back-matter".to_owned(), json!({ "resources": sources }));
    }
    if let Value::Object(out) = &mut out {
        out.insert("components".to_owned(), json!([mesh]));
    }
    json!({ "component-definition": out })
}

fn plan_of_action(report: &Report) -> Option<Value> {
    let names = Names::of(report).within("plan-of-action");
    let cited: BTreeSet<&str> = report
        .frameworks
        .iter()
        .flat_map(|one| &one.controls)
        .flat_map(|one| one.findings.iter().map(String::as_str))
        .collect();
    let found: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|one| cited.contains(one.id.as_str()))
        .collect();
    if found.is_empty() {
        return None;
    }
    let items: Vec<Value> = found
        .iter()
        .map(|one| {
            json!({
                "uuid": names.uuid(&["item", &one.id]),
                "title": text(&format!("{}: {}", one.check, one.subject)),
                "description": text(&format!("{} {}", one.message, one.hint)),
                "related-risks": [{ "risk-uuid": names.uuid(&["risk", &one.id]) }],
            })
        })
        .collect();
    let risks: Vec<Value> = found.iter().map(|one| risk(&names, one)).collect();
    let observations: Vec<Value> = found
        .iter()
        .map(|one| observation_of(report, &names, one))
        .collect();
    Some(json!({
        "plan-of-action-and-milestones": {
            "uuid": names.uuid(&["plan"]),
            "metadata": metadata(report, "What is to be mended in a service mesh"),
            "system-id": { "identifier-type": "http://ietf.org/rfc/rfc4122", "id": Names::fixed(&["system", &report.scope.trust_domain]) },
            "local-definitions": { "components": [component(&names)] },
            "observations": observations,
            "risks": risks,
            "poam-items": items,
        }
    }))
}
