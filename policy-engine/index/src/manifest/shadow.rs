//! The candidate beside what is in force: `mesh.internal/shadow`, an annotation of policy objects.
//!
//! An object of the candidate alone is not there for what is in force, faulty or not. That takes an annotation that was
//! read for certain: where it says something else, or part of the document cannot be read, the object is in force, and
//! invalid, so that it closes what it closes.

use super::kinds::Kind;
use super::object::Input;
use super::read::{Problem, Reading, near};
use super::tree::Node;
use crate::finding::Code;
use std::collections::BTreeMap;

/// The annotation.
pub(crate) const SHADOW: &str = "mesh.internal/shadow";

/// Which of the two sets an object is part of: what is in force, and the candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shadow {
    /// Both.
    #[default]
    No,
    /// The candidate alone: `add`.
    Add,
    /// What is in force alone: `remove`.
    Remove,
}

/// What the annotation of an object says, with a note if it says something; or what is wrong with it.
pub(super) fn read_shadow(
    reading: &mut Reading,
    (input, kind): (&Input<'_>, Kind),
    annotations: &BTreeMap<String, String>,
) -> Result<Shadow, Problem> {
    let Some((name, value)) = annotation(annotations) else {
        return Ok(Shadow::No);
    };
    let node = input
        .root
        .get("metadata")
        .and_then(|m| m.get("annotations"));
    let node = node.and_then(|annotations| annotations.get(name));
    let at = node.map_or(input.root.at, |node: &Node| node.at);
    let wrong = |message: String| Problem {
        at,
        code: Code::BadShadow,
        message,
        hint: None,
    };
    if name != SHADOW {
        let message = format!("annotation `{name}` says nothing; `{SHADOW}` is nearly the same");
        return Err(wrong(message));
    }
    if !decides_callers(kind) {
        let message = format!(
            "annotation `{SHADOW}` stands on an object that the candidate cannot leave out or add"
        );
        return Err(wrong(message));
    }
    let (shadow, note) = match value {
        "add" => (Shadow::Add, "it is a candidate only and not in force"),
        "remove" => (
            Shadow::Remove,
            "it is in force, and not part of the candidate",
        ),
        other => {
            let shown: String = other.chars().take(64).collect();
            let message = format!("annotation `{SHADOW}: {shown}` is neither `add` nor `remove`");
            return Err(wrong(message));
        }
    };
    if !input.is_whole() {
        return Ok(Shadow::No);
    }
    reading.doubt(at, Code::Shadowed, format!("`{SHADOW}: {value}`: {note}"));
    Ok(shadow)
}

/// The annotation, or one that was meant to be it: taken for nothing, a grant of the candidate would be in force.
fn annotation(annotations: &BTreeMap<String, String>) -> Option<(&str, &str)> {
    let is_meant = |name: &str| {
        let begins = name.starts_with("mesh.internal/") || name.ends_with("/shadow");
        begins && near(SHADOW, name)
    };
    let stands = annotations.get_key_value(SHADOW);
    let found = stands.or_else(|| annotations.iter().find(|(name, _)| is_meant(name)));
    found.map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Whether objects of a kind say who may call, or count in that: nothing else is decided by the candidate.
fn decides_callers(kind: Kind) -> bool {
    match kind {
        Kind::Server
        | Kind::ServerAuthorization
        | Kind::AuthorizationPolicy
        | Kind::MeshTls
        | Kind::NetworkAuthentication
        | Kind::RateLimit
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::Federation
        | Kind::CedarPolicy
        | Kind::ClusterCedarPolicy => true,
        Kind::Namespace
        | Kind::ServiceAccount
        | Kind::Pod
        | Kind::Node
        | Kind::Template
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::EgressNetwork
        | Kind::HttpFault
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::ReferenceGrant
        | Kind::ServiceProfile
        | Kind::ExternalWorkload
        | Kind::Invariant => false,
    }
}
