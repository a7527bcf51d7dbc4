//! What becomes of a cert-manager CertificateRequest that may name us as its issuer (`MeshIssuer`, `MeshClusterIssuer`).
//!
//! Who asks is what the API server noted in `spec.username`, never what the request for a certificate says: of that, only
//! the key counts. We act on approved requests, and never approve any.

use crate::csr::{self, CsrError};
use crate::key::PublicKey;
use crate::limits::{REQUEST_LIFETIME_SECS, REQUEST_LIFETIME_SECS_MIN};
use mesh_trust::{SpiffeId, TrustDomain};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;

/// Kinds of issuer that are ours.
pub const ISSUER_KINDS: [&str; 2] = ["MeshIssuer", "MeshClusterIssuer"];

/// What the Kubernetes API says of a request, and of its issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `spec.issuerRef.group`.
    pub issuer_group: String,
    /// `spec.issuerRef.kind`.
    pub issuer_kind: String,
    /// Whether an issuer of that kind and name exists where the request may use it.
    pub issuer_exists: bool,
    /// Whether a condition `Approved` is true.
    pub approved: bool,
    /// Whether a condition `Denied` is true.
    pub denied: bool,
    /// Reason of the condition `Ready`, if it is there.
    pub ready_reason: Option<String>,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `spec.username`, noted by the API server.
    pub username: String,
    /// `spec.extra`, noted by the API server.
    pub extra: BTreeMap<String, Vec<String>>,
    /// `spec.request`, PEM.
    pub csr_pem: Vec<u8>,
    /// `spec.isCA`.
    pub is_ca: bool,
    /// `spec.duration`, seconds.
    pub duration_secs: Option<u64>,
    /// `spec.usages`.
    pub usages: Vec<String>,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestDecision {
    /// Not ours, or done: leave it as it is.
    Leave,
    /// Nobody has approved it yet: note `Ready=False, reason Pending`.
    Wait,
    /// Somebody denied it: note `Ready=False, reason Denied`, with the time.
    NoteDenied,
    /// Note `Ready=False, reason Failed`, with the time and this message.
    Fail(RequestError),
    /// Sign, then note `Ready=True, reason Issued` with leaf and intermediates, and the root as `status.ca`.
    Issue {
        /// Who asked.
        id: SpiffeId,
        /// The key to certify; its possession is proven.
        key: PublicKey,
        /// Granted, seconds; the profile and the issuer clamp it further.
        lifetime_secs: u64,
        /// For the issuance log.
        evidence: String,
    },
}

/// Why a request fails for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum RequestError {
    /// It asks for what a mesh issuer does not give.
    #[error("the certificate request fails: {0}")]
    #[diagnostic(
        code("MESH-0949"),
        help(
            "a mesh issuer signs SVIDs of service accounts: `isCA: false`, usages of TLS, created by the workload itself in its namespace"
        )
    )]
    Refused(Refusal),
    /// The request for a certificate is refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Csr(#[from] CsrError),
}

/// What a mesh issuer does not give, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The issuer that it names is not there.
    #[error("its issuer does not exist")]
    NoIssuer,
    /// A CA is asked for.
    #[error("it asks for a certificate authority")]
    Authority,
    /// Whoever asks has no SPIFFE ID.
    #[error("`{username}` is no service account")]
    NoServiceAccount {
        /// As the API server noted it.
        username: String,
    },
    /// A service account of another namespace.
    #[error("a service account of namespace `{asks}` asks in namespace `{asked_in}`")]
    OtherNamespace {
        /// The service account's.
        asks: String,
        /// The request's.
        asked_in: String,
    },
    /// A usage that an SVID has not.
    #[error("it asks for the usage `{usage}`")]
    Usage {
        /// The usage.
        usage: String,
    },
    /// Not PEM, or not one request.
    #[error("`spec.request` is not one certificate request in PEM")]
    NotPem,
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Usages that an SVID has; cert-manager's default `key encipherment` means nothing for elliptic keys and is left out.
const USAGES: [&str; 4] = [
    "digital signature",
    "server auth",
    "client auth",
    "key encipherment",
];

/// Decides about a request. `group` is our API group.
pub fn decide(facts: &RequestFacts, group: &str, domain: &TrustDomain) -> RequestDecision {
    let ours = facts.issuer_group == group && ISSUER_KINDS.contains(&facts.issuer_kind.as_str());
    let done = matches!(
        facts.ready_reason.as_deref(),
        Some("Issued" | "Failed" | "Denied")
    );
    if !ours || done {
        return RequestDecision::Leave;
    }
    // A denial counts more than an approval: both can only be there by mistake.
    match (facts.denied, facts.approved) {
        (true, _) => RequestDecision::NoteDenied,
        (false, false) => RequestDecision::Wait,
        (false, true) => grant(facts, domain).unwrap_or_else(RequestDecision::Fail),
    }
}

fn grant(facts: &RequestFacts, domain: &TrustDomain) -> Result<RequestDecision, RequestError> {
    if !facts.issuer_exists {
        return Err(Refusal::NoIssuer.into());
    }
    if facts.is_ca {
        return Err(Refusal::Authority.into());
    }
    if let Some(usage) = facts
        .usages
        .iter()
        .find(|usage| !USAGES.contains(&usage.as_str()))
    {
        return Err(Refusal::Usage {
            usage: usage.clone(),
        }
        .into());
    }
    let id = identity(facts, domain)?;
    let key = key(&facts.csr_pem)?;
    let wished = facts.duration_secs.unwrap_or(REQUEST_LIFETIME_SECS);
    let lifetime_secs = wished.max(REQUEST_LIFETIME_SECS_MIN);
    let evidence = format!(
        "certificate request of {}{}",
        facts.username,
        pod(&facts.extra)
    );
    Ok(RequestDecision::Issue {
        id,
        key,
        lifetime_secs,
        evidence,
    })
}

fn identity(facts: &RequestFacts, domain: &TrustDomain) -> Result<SpiffeId, RequestError> {
    let nobody = || Refusal::NoServiceAccount {
        username: facts.username.clone(),
    };
    let account = facts
        .username
        .strip_prefix("system:serviceaccount:")
        .ok_or_else(nobody)?;
    let (namespace, name) = account.split_once(':').ok_or_else(nobody)?;
    if namespace != facts.namespace {
        let (asks, asked_in) = (namespace.to_owned(), facts.namespace.clone());
        return Err(Refusal::OtherNamespace { asks, asked_in }.into());
    }
    Ok(SpiffeId::for_service_account(domain, namespace, name).map_err(|_| nobody())?)
}

fn key(pem: &[u8]) -> Result<PublicKey, RequestError> {
    let mut all = CertificateSigningRequestDer::pem_slice_iter(pem);
    match (all.next(), all.next()) {
        (Some(Ok(der)), None) => Ok(csr::parse(&der)?),
        _ => Err(Refusal::NotPem.into()),
    }
}

/// The pod behind a bound token, as the API server noted it.
fn pod(extra: &BTreeMap<String, Vec<String>>) -> String {
    let first = |key: &str| extra.get(key).and_then(|values| values.first());
    match (
        first("authentication.kubernetes.io/pod-name"),
        first("authentication.kubernetes.io/pod-uid"),
    ) {
        (Some(name), Some(uid)) => format!(" pod={name} uid={uid}"),
        _ => String::new(),
    }
}
