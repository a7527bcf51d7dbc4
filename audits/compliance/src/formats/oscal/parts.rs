//! What several OSCAL documents have in common.

use crate::evidence::{Finding, Severity};
use crate::formats::uuid::uuid;
use crate::report::Report;
use serde_json::{Value, json};

/// The version that is written. Later 1.2 versions read it too.
const OSCAL_VERSION: &str = "1.2.1";
/// Namespace of properties that OSCAL does not know.
const NAMESPACE: &str = "urn:mesh.internal:audit";

/// Names from which UUIDs are made: the mesh, and the part of the document.
pub(super) struct Names {
    trust_domain: String,
    part: String,
}

impl Names {
    /// Of the whole report.
    pub(super) fn of(report: &Report) -> Self {
        Self {
            trust_domain: report.scope.trust_domain.clone(),
            part: String::new(),
        }
    }

    /// Of a part of it.
    pub(super) fn within(&self, part: &str) -> Self {
        Self {
            trust_domain: self.trust_domain.clone(),
            part: part.to_owned(),
        }
    }

    /// The UUID of a subject.
    pub(super) fn uuid(&self, name: &[&str]) -> String {
        let mut parts = vec![self.trust_domain.as_str(), self.part.as_str()];
        parts.extend(name);
        uuid(&parts)
    }

    /// A UUID of a name alone.
    pub(super) fn fixed(name: &[&str]) -> String {
        uuid(name)
    }
}

/// A text of one line that is not empty, as OSCAL wants its texts.
pub(super) fn text(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        "-".to_owned()
    } else {
        line
    }
}

/// A property of our own.
pub(super) fn prop(name: &str, value: &str) -> Value {
    json!({ "name": name, "ns": NAMESPACE, "value": text(value) })
}

/// What stands at the head of each document. Its time is the end of the window: the same report has the same bytes.
pub(super) fn metadata(report: &Report, title: &str) -> Value {
    json!({
        "title": title,
        "last-modified": report.scope.until,
        "version": format!("{}-{}", report.version, report.scope.generation),
        "oscal-version": OSCAL_VERSION,
        "props": [prop("generator", &format!("mesh {}", report.generator))],
    })
}

/// A resource of the back matter.
pub(super) fn resource(
    uuid: &str,
    title: &str,
    description: &str,
    href: &str,
    sha256: Option<&str>,
) -> Value {
    let link = match sha256 {
        None => json!({ "href": href }),
        Some(sha256) => {
            json!({ "href": href, "hashes": [{ "algorithm": "SHA-256", "value": sha256 }] })
        }
    };
    json!({ "uuid": uuid, "title": title, "description": description, "rlinks": [link] })
}

/// The mesh, as a component.
pub(super) fn component(names: &Names) -> Value {
    json!({
        "uuid": names.uuid(&["component"]),
        "type": "software",
        "title": "mesh",
        "description": text(&format!("The service mesh of trust domain {}.", names.trust_domain)),
        "status": { "state": "operational" },
    })
}

/// The same as a subject.
pub(super) fn subject(names: &Names) -> Value {
    json!({ "subject-uuid": names.uuid(&["component"]), "type": "component" })
}

/// An id of a control as a token: 800-53's as NIST writes them, others behind the name of their framework.
pub(super) fn control_id(framework: &str, id: &str) -> String {
    let token: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '-'
            }
        })
        .collect();
    if framework == "nist-800-53" {
        token
    } else {
        format!("{framework}_{}", token.trim_end_matches('-'))
    }
}

/// A finding as an observation.
pub(super) fn observation_of(report: &Report, names: &Names, finding: &Finding) -> Value {
    let mut props = vec![
        prop("check", &finding.check),
        prop("scope", &finding.scope),
        prop("subject", &finding.subject),
        prop("severity", finding.severity.text()),
        prop("finding", &finding.id),
    ];
    props.extend(
        finding
            .place
            .iter()
            .map(|place| prop("place", &place.text())),
    );
    json!({
        "uuid": names.uuid(&["finding", &finding.id]),
        "title": text(&format!("{}: {}", finding.check, finding.subject)),
        "description": text(&finding.message),
        "props": props,
        "methods": ["TEST"],
        "types": ["finding"],
        "subjects": [subject(names)],
        "collected": report.scope.until,
    })
}

/// A finding as a risk, with what would mend it.
pub(super) fn risk(names: &Names, finding: &Finding) -> Value {
    let weight = match finding.severity {
        Severity::High => "high",
        Severity::Medium => "moderate",
        Severity::Low => "low",
    };
    let mend = if finding.hint.is_empty() {
        "mend what the finding names"
    } else {
        &finding.hint
    };
    json!({
        "uuid": names.uuid(&["risk", &finding.id]),
        "title": text(&format!("{}: {}", finding.check, finding.subject)),
        "description": text(&finding.message),
        "statement": text(&finding.message),
        "props": [prop("risk-level", weight)],
        "status": "open",
        "remediations": [{
            "uuid": names.uuid(&["remediation", &finding.id]),
            "lifecycle": "recommendation",
            "title": text(&format!("Clear {}", finding.check)),
            "description": text(mend),
        }],
        "related-observations": [{ "observation-uuid": names.uuid(&["finding", &finding.id]) }],
    })
}
