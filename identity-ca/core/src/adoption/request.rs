//! What becomes of a cert-manager CertificateRequest that may name us as its issuer (`MeshIssuer`, `MeshClusterIssuer`).
//!
//! Who asks is what the API server noted in `spec.username`, never what the request for a certificate says: of that, only
//! the key counts. We act on approved requests, and never approve any.
//!
//! ```text
//! JSON ──facts──▶ decide ──▶ Leave, NoteDenied, Pend, Fail
//!                        └─▶ Candidate ──live facts──▶ Granted ──▶ the pipeline of every issuance
//! ```
//! - [`object`]: from the objects of the Kubernetes API to facts, and back to what is written into their status
//! - [`rules`]: what an issuer says of who may use it; start at [`rules::IssuerRules::read`]
//! - [`guard`]: whether the API server vouches for the names in requests; start at [`guard::guarded_since`]

pub mod guard;
pub mod object;
pub mod rules;

use crate::attestation::kubernetes::{BoundPod, Pod, ServiceAccount, outside};
use crate::csr::{self, CsrError};
use crate::issue;
use crate::key::PublicKey;
use guard::GuardError;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use rules::{IssuerError, IssuerRules};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;

/// API group of our kinds.
pub const GROUP: &str = "mesh.internal";

/// Kinds of issuer that are ours.
pub const ISSUER_KINDS: [&str; 2] = ["MeshIssuer", "MeshClusterIssuer"];

/// What the Kubernetes API says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// The Certificate that it was made for, as its annotation says.
    pub certificate: Option<String>,
    /// `spec.issuerRef`.
    pub issuer: IssuerRef,
    /// Whether a condition `Approved` is true.
    pub approved: bool,
    /// Whether a condition `Denied` is true.
    pub denied: bool,
    /// Reason of the condition `Ready`, if it is there.
    pub ready_reason: Option<String>,
    /// Who asks, noted by the API server.
    pub user: User,
    /// `spec.request`, PEM.
    pub csr_pem: Vec<u8>,
    /// `spec.isCA`.
    pub is_ca: bool,
    /// `spec.duration`.
    pub duration: Wish,
    /// `spec.usages`.
    pub usages: Vec<String>,
}

/// The issuer that a request names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuerRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// `spec.username` and its like, noted by the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:<namespace>:<name>` for a service account.
    pub name: String,
    /// UID; of a service account its object's.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else is known of it: the pod of a bound token.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A duration that somebody wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing was said.
    #[default]
    None,
    /// So many seconds.
    Secs(u64),
    /// Something was said that is no duration.
    Unreadable,
}

/// What there is of the issuer that a request names.
#[derive(Clone, Copy, Debug)]
pub enum IssuerState<'a> {
    /// Nothing yet.
    Absent,
    /// It cannot be read.
    Invalid(&'a IssuerError),
    /// What it says.
    Rules(&'a IssuerRules),
}

/// What holds for all requests.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Whose identities are issued.
    pub domain: &'a TrustDomain,
    /// Namespace of the control plane: its identities are given to nobody over this way.
    pub own_namespace: &'a str,
    /// Longest life that is granted, seconds: that of every SVID.
    pub leaf_secs: u64,
}

/// What to do with a request.
#[derive(Debug)]
pub enum RequestDecision {
    /// Not ours, done, or not approved by anybody yet: leave it as it is.
    Leave,
    /// Somebody denied it: note `Ready=False, reason Denied`, with the time.
    NoteDenied,
    /// Note `Ready=False, reason Pending` and this message; decide again when something changes.
    Pend(Pending),
    /// Note `Ready=False, reason Failed`, with the time and this message.
    Fail(RequestError),
    /// Ask the API server about whoever asks; then [`Candidate::grant`].
    Ask(Box<Candidate>),
}

/// Why a request waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pending {
    /// The issuer that it names is not there.
    #[error("there is no {0} of this name here yet")]
    NoIssuer(String),
    /// The issuer that it names is not ready.
    #[error("its issuer is not ready: {0}")]
    InvalidIssuer(#[source] IssuerError),
    /// Nobody vouches for its user name now.
    #[error("its issuer is not ready: {0}")]
    Unguarded(#[source] GuardError),
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
            "a mesh issuer signs SVIDs of service accounts: `isCA: false`, usages of TLS, created by the workload itself in its namespace, or by whom the issuer maps"
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
    /// A CA is asked for.
    #[error("it asks for a certificate authority")]
    Authority,
    /// Whoever asks has no SPIFFE ID.
    #[error("`{username}` is no service account, and the issuer maps it to none")]
    NoServiceAccount {
        /// As the API server noted it.
        username: String,
    },
    /// The issuer maps whoever asks, but not here.
    #[error("the issuer maps `{username}` to no service account for this request")]
    NotMapped {
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
    /// The issuer is not for this namespace.
    #[error("the issuer is not for namespace `{namespace}`")]
    NotForNamespace {
        /// The request's.
        namespace: String,
    },
    /// An identity of the control plane.
    #[error("identities of the control plane are not given over certificate requests")]
    ControlPlane,
    /// A usage that an SVID has not.
    #[error("it asks for the usage `{usage}`")]
    Usage {
        /// The usage.
        usage: String,
    },
    /// A duration that cannot be read.
    #[error("`spec.duration` cannot be read")]
    Duration,
    /// Not PEM, or not one request.
    #[error("`spec.request` is not one certificate request in PEM")]
    NotPem,
    /// Made before the API server vouched for user names.
    #[error(
        "it was made before the API server vouched for names in requests ({since}); make it anew"
    )]
    BeforeGuard {
        /// Since when it does.
        since: Timestamp,
    },
    /// The service account is not there, or another one by now.
    #[error("service account `{namespace}/{name}` {why}")]
    Account {
        /// Where.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The pod that asked is not there any more.
    #[error("pod `{pod}`, which asked, {why}")]
    Pod {
        /// Its name.
        pod: String,
        /// What is wrong with it.
        why: &'static str,
    },
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

/// A request that can be granted if the API server still knows whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who it will be.
    pub id: SpiffeId,
    /// Whose account that is.
    pub account: ServiceAccount,
    /// The service account that asks, with the UID that it had; none: somebody else, whom the issuer maps.
    pub asks: Option<(ServiceAccount, String)>,
    /// The pod that asks, if its token was bound to one.
    pub pod: Option<BoundPod>,
    key: PublicKey,
    lifetime_secs: u64,
    evidence: String,
    instance: String,
}

/// What the API server says now.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// UID of [`Candidate::account`].
    pub account_uid: Option<String>,
    /// UID of the account that asks.
    pub asks_uid: Option<String>,
    /// The pod of the name of [`Candidate::pod`].
    pub pod: Option<Pod>,
}

/// What is to be issued, and on whose behalf.
#[derive(Debug)]
pub struct Granted {
    /// For the pipeline of every issuance.
    pub request: issue::Request,
    /// For the issuance log.
    pub evidence: String,
    /// Who holds it, in the roster of a rotation.
    pub instance: String,
    /// The machine that it goes to, where that is known.
    pub node: Option<String>,
}

/// Whether it names us as its issuer.
pub fn is_ours(issuer: &IssuerRef) -> bool {
    issuer.group == GROUP && ISSUER_KINDS.contains(&issuer.kind.as_str())
}

/// How a request stands with those who decide before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not ours, answered, or approved by nobody yet.
    NotOpen,
    /// Somebody denied it.
    Denied,
    /// It is for us to answer.
    Approved,
}

/// How a request stands. What was signed for it is given away only if that is still [`Standing::Approved`].
pub fn standing(facts: &RequestFacts) -> Standing {
    let answered = facts.ready_reason.as_deref().is_some_and(is_answer);
    if !is_ours(&facts.issuer) || answered {
        return Standing::NotOpen;
    }
    // A denial counts more than an approval: both can only be there by mistake.
    match (facts.denied, facts.approved) {
        (true, _) => Standing::Denied,
        (false, false) => Standing::NotOpen,
        (false, true) => Standing::Approved,
    }
}

/// Whether the reason of `Ready` is one after which nothing more happens to a request.
fn is_answer(reason: &str) -> bool {
    matches!(reason, "Issued" | "Failed" | "Denied")
}

/// Decides about a request whose issuer is as `issuer` says.
pub fn decide(
    facts: &RequestFacts,
    issuer: IssuerState<'_>,
    guard: &Result<Timestamp, GuardError>,
    terms: Terms<'_>,
) -> RequestDecision {
    match standing(facts) {
        Standing::NotOpen => return RequestDecision::Leave,
        Standing::Denied => return RequestDecision::NoteDenied,
        Standing::Approved => {}
    }
    let rules = match issuer {
        IssuerState::Absent => {
            let kind = facts.issuer.kind.clone();
            return RequestDecision::Pend(Pending::NoIssuer(kind));
        }
        IssuerState::Invalid(why) => {
            return RequestDecision::Pend(Pending::InvalidIssuer(why.clone()));
        }
        IssuerState::Rules(rules) => rules,
    };
    let since = match guard {
        Ok(since) => *since,
        Err(why) => return RequestDecision::Pend(Pending::Unguarded(why.clone())),
    };
    match candidate(facts, rules, since, terms) {
        Ok(candidate) => RequestDecision::Ask(Box::new(candidate)),
        Err(why) => RequestDecision::Fail(why),
    }
}

fn candidate(
    facts: &RequestFacts,
    rules: &IssuerRules,
    since: Timestamp,
    terms: Terms<'_>,
) -> Result<Candidate, RequestError> {
    if facts.created < since {
        return Err(Refusal::BeforeGuard { since }.into());
    }
    if facts.is_ca {
        return Err(Refusal::Authority.into());
    }
    let unknown = |usage: &&String| !USAGES.contains(&usage.as_str());
    if let Some(usage) = facts.usages.iter().find(unknown) {
        let usage = usage.clone();
        return Err(Refusal::Usage { usage }.into());
    }
    let wished = match facts.duration {
        Wish::None => terms.leaf_secs,
        Wish::Secs(secs) => secs,
        Wish::Unreadable => return Err(Refusal::Duration.into()),
    };
    let asks = asking_account(&facts.user)?;
    let account = account(facts, rules, asks.as_ref(), terms)?;
    let id = SpiffeId::for_service_account(terms.domain, &account.namespace, &account.name)
        .map_err(|_| nobody(&facts.user))?;
    let key = key(&facts.csr_pem)?;
    let pod = asks
        .as_ref()
        .and_then(|(account, _)| bound_pod(&facts.user, account));
    Ok(Candidate {
        evidence: evidence(facts, pod.as_ref()),
        instance: outside(&format!(
            "certificate request {}/{} uid {}",
            facts.namespace, facts.name, facts.uid
        )),
        lifetime_secs: wished.min(terms.leaf_secs),
        id,
        account,
        asks,
        pod,
        key,
    })
}

fn nobody(user: &User) -> RequestError {
    let username = user.name.clone();
    Refusal::NoServiceAccount { username }.into()
}

/// The service account that asks; none if it is no service account. A name without its groups is no account's.
fn asking_account(user: &User) -> Result<Option<(ServiceAccount, String)>, RequestError> {
    let Some(account) = ServiceAccount::of_user(&user.name) else {
        return Ok(None);
    };
    if !account.is_in(&user.groups) || user.uid.is_empty() {
        return Err(nobody(user));
    }
    Ok(Some((account, user.uid.clone())))
}

/// Whose identity it is about: always of the namespace that the request stands in.
fn account(
    facts: &RequestFacts,
    rules: &IssuerRules,
    asks: Option<&(ServiceAccount, String)>,
    terms: Terms<'_>,
) -> Result<ServiceAccount, RequestError> {
    let namespace = facts.namespace.as_str();
    if namespace == terms.own_namespace {
        return Err(Refusal::ControlPlane.into());
    }
    if !rules.is_for(namespace) {
        let namespace = namespace.to_owned();
        return Err(Refusal::NotForNamespace { namespace }.into());
    }
    if rules.maps(&facts.user.name) {
        let mapped = rules.mapped(&facts.user.name, namespace, facts.certificate.as_deref());
        let name = mapped.ok_or_else(|| Refusal::NotMapped {
            username: facts.user.name.clone(),
        })?;
        return Ok(ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
    }
    let (account, _) = asks.ok_or_else(|| nobody(&facts.user))?;
    if account.namespace != namespace {
        let (asks, asked_in) = (account.namespace.clone(), namespace.to_owned());
        return Err(Refusal::OtherNamespace { asks, asked_in }.into());
    }
    Ok(account.clone())
}

fn key(pem: &[u8]) -> Result<PublicKey, RequestError> {
    let mut all = CertificateSigningRequestDer::pem_slice_iter(pem);
    match (all.next(), all.next()) {
        (Some(Ok(der)), None) => Ok(csr::parse(&der)?),
        _ => Err(Refusal::NotPem.into()),
    }
}

/// The pod behind a bound token, as the API server noted it.
fn bound_pod(user: &User, account: &ServiceAccount) -> Option<BoundPod> {
    let first = |key: &str| user.extra.get(key).and_then(|values| values.first());
    Some(BoundPod {
        namespace: account.namespace.clone(),
        name: first("authentication.kubernetes.io/pod-name")?.clone(),
        uid: first("authentication.kubernetes.io/pod-uid")?.clone(),
    })
}

/// What the issuance log keeps: who vouched for what.
fn evidence(facts: &RequestFacts, pod: Option<&BoundPod>) -> String {
    let IssuerRef { kind, name, .. } = &facts.issuer;
    let mut text = format!(
        "certificate request {}/{} uid {} to {kind} {name}, asked for by {}",
        facts.namespace, facts.name, facts.uid, facts.user.name
    );
    if let Some(pod) = pod {
        text.push_str(&format!(", {pod}"));
    }
    text
}

impl Candidate {
    /// What is issued, if whoever asks and whoever it is for are still there: by UID, since names are used again.
    ///
    /// # Errors
    /// [`Refusal::Account`], [`Refusal::Pod`].
    pub fn grant(self, live: &Live) -> Result<Granted, RequestError> {
        let absent = |account: &ServiceAccount, why| Refusal::Account {
            namespace: account.namespace.clone(),
            name: account.name.clone(),
            why,
        };
        if let Some((account, uid)) = &self.asks {
            match &live.asks_uid {
                None => return Err(absent(account, "does not exist").into()),
                Some(found) if found != uid => {
                    return Err(absent(account, "is another one of the same name").into());
                }
                Some(_) => {}
            }
        }
        if live.account_uid.is_none() {
            return Err(absent(&self.account, "does not exist").into());
        }
        if let Some(pod) = &self.pod
            && pod.has_ended(live.pod.as_ref())
        {
            let pod = pod.name.clone();
            let why = "is not there any more";
            return Err(Refusal::Pod { pod, why }.into());
        }
        Ok(Granted {
            request: issue::Request {
                id: self.id,
                key: self.key,
                lifetime_secs: Some(self.lifetime_secs),
                backdate_secs_max: None,
            },
            evidence: self.evidence,
            instance: self.instance,
            // Of whoever asks with a token that is bound to no pod it is not known.
            node: self.pod.and(live.pod.as_ref()).map(|pod| pod.node.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
