//! From a PodCertificateRequest (KEP-4317) and a pod to an identity.
//!
//! The API server asserts it: only a node may ask, for a pod that is bound to it, and it checked that the node holds the
//! key. No bearer token is involved. We look at the pod all the same, by UID, as for a token.

use super::kubernetes::{Bound, Pod, Refused, outside};
use crate::adoption::request::Granted;
use crate::csr::{self, CsrError};
use crate::issue;
use crate::key::{KeyError, PublicKey};
use mesh_trust::TrustDomain;
use serde_json::Value;

/// Name of our signer.
pub const SIGNER: &str = "mesh.internal/identity";

/// Shortest life of what the API server takes, from `notBefore` to `notAfter`, seconds.
pub const LIFE_SECS_MIN: u64 = 3_600;

/// How far `notBefore` may lie in the past, seconds. The API server refuses more than five minutes, which is what other
/// SVIDs have.
const BACKDATE_SECS: u64 = 120;

/// What to do with a request.
#[derive(Debug)]
pub enum PodDecision {
    /// Another signer's, or done.
    Leave,
    /// It is to be written into the status, for good.
    Refuse(PodRefusal),
    /// Ask for the pod; then [`PodCandidate::grant`].
    Ask(Box<PodCandidate>),
}

/// Why a request gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum PodRefusal {
    /// It lacks what every one has.
    #[error("the request lacks {field}")]
    #[diagnostic(
        code("MESH-0289"),
        help(
            "the API server makes such fields mandatory: is its version newer than the mesh knows?"
        )
    )]
    Incomplete {
        /// What.
        field: &'static str,
    },
    /// Annotations of the user for the signer: there are none that we know.
    #[error("annotation `{key}` means nothing to this signer")]
    #[diagnostic(
        code("MESH-0289"),
        help("leave `userAnnotations` out of the projected volume: the identity is the pod's")
    )]
    Annotation {
        /// The first of them.
        key: String,
    },
    /// RSA, Ed25519, another curve.
    #[error("{0}: set `keyType: ECDSAP256` or `ECDSAP384`")]
    #[diagnostic(transparent)]
    KeyType(#[source] KeyError),
    /// The key is refused otherwise.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] CsrError),
    /// SVIDs live too shortly.
    #[error("SVIDs live {granted_secs} s here; a pod certificate lives {LIFE_SECS_MIN} s or more")]
    #[diagnostic(
        code("MESH-0289"),
        help("raise `identity.svidTtl` to an hour or more, or take SVIDs from the Workload API")
    )]
    TooShort {
        /// What would be granted.
        granted_secs: u64,
    },
    /// The pod is not what the request says.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pod(#[from] Refused),
}

impl PodRefusal {
    /// Type and reason of the condition that says so.
    pub fn condition(&self) -> (&'static str, &'static str) {
        match self {
            Self::Annotation { .. } => ("Denied", "InvalidUnverifiedUserAnnotations"),
            Self::KeyType(_) => ("Denied", "UnsupportedKeyType"),
            Self::Key(_) => ("Denied", "KeyRefused"),
            Self::Incomplete { .. } => ("Failed", "Incomplete"),
            Self::TooShort { .. } => ("Failed", "LifeTooShort"),
            Self::Pod(_) => ("Failed", "PodNotAttested"),
        }
    }
}

/// A request that can be granted if its pod is there.
#[derive(Debug)]
pub struct PodCandidate {
    bound: Bound,
    name: String,
    uid: String,
    key: PublicKey,
    lifetime_secs: u64,
}

/// Decides about a request, as JSON. `leaf_secs` is the life of SVIDs.
pub fn decide(request: &Value, leaf_secs: u64) -> PodDecision {
    if !is_open(request) {
        return PodDecision::Leave;
    }
    match candidate(request, leaf_secs) {
        Ok(candidate) => PodDecision::Ask(Box::new(candidate)),
        Err(why) => PodDecision::Refuse(why),
    }
}

/// Whether a request is ours to answer and has no answer yet, by its signer and its conditions alone.
pub fn is_open(request: &Value) -> bool {
    let signer = request.pointer("/spec/signerName").and_then(Value::as_str);
    signer == Some(SIGNER) && !is_done(request)
}

fn is_done(request: &Value) -> bool {
    let conditions = request.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions.any(|one| {
        let kind = one.get("type").and_then(Value::as_str);
        matches!(kind, Some("Issued" | "Denied" | "Failed"))
    })
}

fn candidate(request: &Value, leaf_secs: u64) -> Result<PodCandidate, PodRefusal> {
    let text = |path: &str, field: &'static str| {
        let found = request.pointer(path).and_then(Value::as_str);
        let found = found.filter(|text| !text.is_empty());
        found
            .map(str::to_owned)
            .ok_or(PodRefusal::Incomplete { field })
    };
    let annotations = request.pointer("/spec/unverifiedUserAnnotations");
    let annotations = annotations.and_then(Value::as_object);
    if let Some(key) = annotations.and_then(|all| all.keys().next()) {
        return Err(PodRefusal::Annotation { key: key.clone() });
    }
    let bound = Bound::asserted(
        text("/metadata/namespace", "its namespace")?,
        text("/spec/serviceAccountName", "serviceAccountName")?,
        (
            text("/spec/podName", "podName")?,
            text("/spec/podUID", "podUID")?,
        ),
        text("/spec/nodeName", "nodeName")?,
    );
    let max_secs = request
        .pointer("/spec/maxExpirationSeconds")
        .and_then(Value::as_u64)
        .ok_or(PodRefusal::Incomplete {
            field: "maxExpirationSeconds",
        })?;
    let lifetime_secs = leaf_secs.min(max_secs.saturating_sub(BACKDATE_SECS));
    let granted_secs = lifetime_secs + BACKDATE_SECS;
    if granted_secs < LIFE_SECS_MIN {
        return Err(PodRefusal::TooShort { granted_secs });
    }
    Ok(PodCandidate {
        bound,
        name: text("/metadata/name", "its name")?,
        uid: text("/metadata/uid", "its UID")?,
        key: key(request)?,
        lifetime_secs,
    })
}

/// The key: in a request without names (`stubPKCS10Request`), or by itself as API servers up to 1.36 have it.
fn key(request: &Value) -> Result<PublicKey, PodRefusal> {
    let octets = |path: &str| {
        let text = request.pointer(path)?.as_str()?;
        let octets = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
        (!octets.is_empty()).then_some(octets)
    };
    let (stub, alone) = (
        octets("/spec/stubPKCS10Request"),
        octets("/spec/pkixPublicKey"),
    );
    match (stub, alone) {
        (Some(stub), _) => csr::parse(&stub).map_err(|error| match error {
            CsrError::Key(key) => of_key(key),
            other => other.into(),
        }),
        (None, Some(alone)) => PublicKey::from_spki(&alone).map_err(of_key),
        (None, None) => Err(PodRefusal::Incomplete {
            field: "a public key",
        }),
    }
}

fn of_key(error: KeyError) -> PodRefusal {
    match error {
        KeyError::Algorithm { .. } => PodRefusal::KeyType(error),
        other => PodRefusal::Key(other.into()),
    }
}

impl PodCandidate {
    /// Namespace and name of the pod that is to be looked at.
    pub fn pod(&self) -> (&str, &str) {
        (&self.bound.namespace, &self.bound.pod)
    }

    /// What is issued, if the pod is what the request says, and alive. `pod` is what the API server has under its name.
    ///
    /// # Errors
    /// [`PodRefusal::Pod`].
    pub fn grant(self, pod: Option<&Pod>, domain: &TrustDomain) -> Result<Granted, PodRefusal> {
        let place = self.bound.namespace.clone();
        let attested = self.bound.attest(pod, domain)?;
        let mut evidence = format!(
            "pod certificate request {place}/{} uid {}: {}",
            self.name, self.uid, attested.instance
        );
        if let Some(node) = &attested.node {
            evidence.push_str(&format!(", node {node}"));
        }
        Ok(Granted {
            request: issue::Request {
                id: attested.identity,
                key: self.key,
                lifetime_secs: Some(self.lifetime_secs),
                backdate_secs_max: Some(BACKDATE_SECS),
            },
            evidence,
            // Not the instance of the pod's proxy: that one acknowledges, and whoever reads the volume does not.
            instance: outside(&attested.instance),
            node: attested.node,
        })
    }
}

#[cfg(test)]
mod tests;
