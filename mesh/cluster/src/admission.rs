//! Answers to an API server's AdmissionReviews.
//!
//! [`mutate`] adds a proxy to a new pod or refuses it; [`validate`] says about a policy what `mesh authz lint` says about its
//! file. Validation is a convenience: the controller reads every object again with the same code, and what is invalid there
//! grants nothing.

use crate::inject::{self, Decision, Namespace, Outcome, Settings};
use mesh_policy::snapshot::{Finding, Severity};
use mesh_policy_index::load;
use miette::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json};

/// Bytes of one review. An API server stores 1.5 MiB at most, and a review of a change holds the object twice.
pub const REVIEW_BYTES_MAX: usize = 4 << 20;

/// Characters of one warning that an API server passes on, and warnings of one answer.
const WARNING_CHARS_MAX: usize = 256;
const WARNINGS_MAX: usize = 16;

/// What an API server asks.
#[derive(Clone, Debug, Deserialize)]
pub struct Review {
    request: Request,
}

/// The question.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Repeated in the answer.
    pub uid: String,
    /// Namespace of the object; absent for cluster-wide ones.
    #[serde(default)]
    pub namespace: String,
    /// `CREATE`, `UPDATE`.
    #[serde(default)]
    pub operation: String,
    /// The object as it shall be.
    #[serde(default)]
    pub object: Value,
    /// The object as it is.
    #[serde(default)]
    pub old_object: Value,
}

/// A review that cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("this is no AdmissionReview of `admission.k8s.io/v1`: {why}")]
#[diagnostic(
    code("MESH-0736"),
    help("only API servers ask here; compare its version with those that this mesh supports")
)]
pub struct ReviewError {
    why: String,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`ReviewError`]
    pub fn read(body: &[u8]) -> Result<Request, ReviewError> {
        let review: Self = serde_json::from_slice(body).map_err(|error| ReviewError {
            why: error.to_string(),
        })?;
        Ok(review.request)
    }
}

/// The answer about a new pod, and what was decided.
pub fn mutate(request: &Request, namespace: &Namespace, settings: &Settings) -> (Value, Decision) {
    let decision = inject::decide(&request.object, namespace, settings);
    let answer = match &decision.outcome {
        Outcome::Skip(_) => allowed(request, &decision.warnings, None),
        Outcome::Inject(addition) => allowed(request, &decision.warnings, Some(&addition.patch())),
        Outcome::Refuse(refusal) => denied(request, &sentence(refusal), &decision.warnings),
    };
    (answer, decision)
}

/// The answer about a policy. `file` names it in findings.
pub fn validate(request: &Request) -> (Value, Vec<Finding>) {
    if request.operation == "UPDATE" && same_policy(&request.object, &request.old_object) {
        // A finalizer must be removable from an object that is invalid already.
        return (allowed(request, &[], None), Vec::new());
    }
    let text = request.object.to_string();
    let findings = load([("object".to_owned(), text)]).findings;
    let line = |finding: &Finding| match &finding.hint {
        Some(hint) => format!("{}: {} ({hint})", finding.code, finding.message),
        None => format!("{}: {}", finding.code, finding.message),
    };
    let of = |severity| {
        findings
            .iter()
            .filter(move |f| f.severity == severity)
            .map(line)
            .collect::<Vec<_>>()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let answer = if errors.is_empty() {
        allowed(request, &warnings, None)
    } else {
        denied(request, &errors.join("\n"), &warnings)
    };
    (answer, findings)
}

/// Whether nothing changed that policy is made of.
fn same_policy(new: &Value, old: &Value) -> bool {
    let part = |of: &Value, path| of.pointer(path).cloned().unwrap_or_default();
    ["/spec", "/metadata/annotations", "/apiVersion"]
        .iter()
        .all(|path| part(new, path) == part(old, path))
}

/// `CODE: what (what to do)`.
pub(crate) fn sentence(error: &dyn Diagnostic) -> String {
    let code = error
        .code()
        .map(|code| format!("{code}: "))
        .unwrap_or_default();
    let help = error
        .help()
        .map(|help| format!(" ({help})"))
        .unwrap_or_default();
    format!("{code}{error}{help}")
}

/// The answer where no decision can be made: the pod must not start without its proxy by mistake.
pub fn undecided(request: &Request, error: &dyn Diagnostic) -> Value {
    response(
        request,
        json!({ "allowed": false, "status": { "code": 500, "message": sentence(error) } }),
        &[],
    )
}

fn denied(request: &Request, message: &str, warnings: &[String]) -> Value {
    let status = json!({ "code": 422, "reason": "Invalid", "message": message });
    response(
        request,
        json!({ "allowed": false, "status": status }),
        warnings,
    )
}

fn allowed(request: &Request, warnings: &[String], patch: Option<&[Value]>) -> Value {
    let mut out = json!({ "allowed": true });
    if let (Some(patch), Some(map)) = (patch, out.as_object_mut()) {
        let patch = Value::from(patch.to_vec()).to_string();
        map.insert("patchType".to_owned(), "JSONPatch".into());
        map.insert("patch".to_owned(), base64(patch.as_bytes()).into());
    }
    response(request, out, warnings)
}

fn response(request: &Request, mut response: Value, warnings: &[String]) -> Value {
    if let Some(map) = response.as_object_mut() {
        map.insert("uid".to_owned(), request.uid.as_str().into());
        if !warnings.is_empty() {
            let cut = |text: &String| text.chars().take(WARNING_CHARS_MAX).collect::<String>();
            let warnings: Vec<String> = warnings.iter().take(WARNINGS_MAX).map(cut).collect();
            map.insert("warnings".to_owned(), warnings.into());
        }
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

#[cfg(test)]
mod tests;
