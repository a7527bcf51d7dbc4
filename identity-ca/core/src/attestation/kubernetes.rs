//! From a TokenReview and a pod to an identity.
//!
//! A token is a bearer's: whoever copies it off a node has it. So it must be for us and nobody else, it must be bound to
//! a pod, and that pod must be alive as the API server sees it now, by UID, not by name: names are used again. A token
//! that says less than that, the long-lived ones of Secrets for instance, gives no identity.

use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeMap;

/// The audience that a token must be for, and that the API server must confirm.
pub const AUDIENCE: &str = "identity.mesh.internal";

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

const USER_PREFIX: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";

/// Most octets of a token; those of Kubernetes have about 1,200.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What the API server answered (`TokenReviewStatus`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Whether it knows the token.
    pub authenticated: bool,
    /// Audiences that it confirms.
    pub audiences: Vec<String>,
    /// User name.
    pub username: String,
    /// UID of the service account.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else it says of the user.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Why it does not know the token.
    pub error: Option<String>,
}

/// The pod that a token is bound to, as the API server has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// UID.
    pub uid: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Service account that it runs as.
    pub service_account: String,
    /// Node that it was bound to; empty: to none yet.
    pub node: String,
}

/// A token that may be good: what must be asked before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Namespace of pod and service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
    pod_uid: String,
    node: Option<String>,
    credential: Option<String>,
}

/// Who a workload is, and why we believe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Its identity.
    pub identity: SpiffeId,
    /// For the issuance log.
    pub evidence: String,
    /// The pod, the same for each of its tokens: [`BoundPod`] as text.
    pub instance: String,
    /// The node that it runs on.
    pub node: Option<String>,
}

/// A service account by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceAccount {
    /// The account that a user name is of; none if it is somebody else's.
    pub fn of_user(username: &str) -> Option<Self> {
        let (namespace, name) = username.strip_prefix(USER_PREFIX)?.split_once(':')?;
        let named = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
        named.then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Whether these groups are those that the API server gives to every service account of its namespace.
    pub fn is_in(&self, groups: &[String]) -> bool {
        let of_namespace = format!("{GROUP}:{}", self.namespace);
        [GROUP, &of_namespace]
            .iter()
            .all(|group| groups.iter().any(|found| found == group))
    }
}

/// A pod that holds SVIDs. Its UID is never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl std::fmt::Display for BoundPod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            namespace,
            name,
            uid,
        } = self;
        write!(f, "pod {namespace}/{name} uid {uid}")
    }
}

/// What the instance of a holder begins with who takes certificates from the Kubernetes API: it has no trust stream, so it
/// never says which roots it trusts, and it may show what it was given until that ends.
const OUTSIDE: &str = "outside: ";

/// The instance of a holder that takes certificates from the Kubernetes API.
pub fn outside(what: &str) -> String {
    format!("{OUTSIDE}{what}")
}

/// Whether an instance is one that [`outside`] made.
pub fn is_outside(instance: &str) -> bool {
    instance.starts_with(OUTSIDE)
}

impl BoundPod {
    /// Reads what [`Attested::instance`] says, or [`outside`] of that; none if it names no pod.
    pub fn parse(instance: &str) -> Option<Self> {
        let instance = instance.strip_prefix(OUTSIDE).unwrap_or(instance);
        let (place, uid) = instance.strip_prefix("pod ")?.split_once(" uid ")?;
        let (namespace, name) = place.split_once('/')?;
        let [namespace, name, uid] = [namespace, name, uid].map(str::to_owned);
        Some(Self {
            namespace,
            name,
            uid,
        })
    }

    /// Whether it has certainly ended, by what the API server says of the pod of its name.
    pub fn has_ended(&self, found: Option<&Pod>) -> bool {
        found.is_none_or(|pod| {
            pod.uid != self.uid || matches!(pod.phase.as_str(), "Succeeded" | "Failed")
        })
    }
}

/// Why a token gives no identity. The requester learns none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Refused {
    /// Unknown to the API server: forged, expired, or its pod or service account was deleted.
    #[error("the API server does not know the token: {why}")]
    #[diagnostic(
        code("MESH-0290"),
        help(
            "it expired, or its pod or service account is gone; a running pod gets a new one by itself"
        )
    )]
    NotAuthenticated {
        /// In the API server's words.
        why: String,
    },
    /// For somebody else. An API server that ignores audiences confirms none, which is the same.
    #[error("the token is not for `identity.mesh.internal` but for {found:?}")]
    #[diagnostic(
        code("MESH-0291"),
        help("project a token with this audience: `mesh inject` does")
    )]
    Audience {
        /// What was confirmed.
        found: Vec<String>,
    },
    /// Not a service account's.
    #[error("`{username}` is no service account")]
    #[diagnostic(
        code("MESH-0292"),
        help("only pods get identities here, each that of its service account")
    )]
    NotServiceAccount {
        /// Who it is.
        username: String,
    },
    /// Not bound to a pod.
    #[error("the token of `{username}` is not bound to a pod")]
    #[diagnostic(
        code("MESH-0293"),
        help(
            "tokens from Secrets and from `kubectl create token` are not; a projected volume's is"
        )
    )]
    NotBound {
        /// Whose.
        username: String,
    },
    /// Bound to a pod that is not there, or is another one by now.
    #[error("pod `{namespace}/{pod}` that the token is bound to {why}")]
    #[diagnostic(
        code("MESH-0294"),
        help("the token outlived its pod, or was copied from it")
    )]
    Pod {
        /// Where.
        namespace: String,
        /// Its name.
        pod: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Names that make no SPIFFE ID.
    #[error("`{namespace}/{service_account}` makes no SPIFFE ID: {why}")]
    #[diagnostic(
        code("MESH-0295"),
        help("names in a SPIFFE ID have letters, digits, dots, dashes and underscores")
    )]
    NoIdentity {
        /// Where.
        namespace: String,
        /// Whose.
        service_account: String,
        /// The rule broken.
        why: String,
    },
}

/// What a review says, if it is enough to go on: the pod must still be looked at.
///
/// # Errors
/// [`Refused`] with what is missing.
pub fn bound(review: &Review) -> Result<Bound, Refused> {
    if !review.authenticated || review.error.as_ref().is_some_and(|why| !why.is_empty()) {
        return Err(Refused::NotAuthenticated {
            why: review
                .error
                .clone()
                .unwrap_or_else(|| "it gives no reason".to_owned()),
        });
    }
    if review.audiences != [AUDIENCE] {
        return Err(Refused::Audience {
            found: review.audiences.clone(),
        });
    }
    let not_account = || Refused::NotServiceAccount {
        username: review.username.clone(),
    };
    let account = ServiceAccount::of_user(&review.username).ok_or_else(not_account)?;
    if !account.is_in(&review.groups) || review.uid.is_empty() {
        return Err(not_account());
    }
    let not_bound = || Refused::NotBound {
        username: review.username.clone(),
    };
    Ok(Bound {
        namespace: account.namespace,
        service_account: account.name,
        pod: single(review, POD_NAME).ok_or_else(not_bound)?,
        pod_uid: single(review, POD_UID).ok_or_else(not_bound)?,
        node: single(review, NODE_NAME),
        credential: single(review, CREDENTIAL),
    })
}

/// The one value of a key; none and several are the same: nothing that can be relied on.
fn single(review: &Review, key: &str) -> Option<String> {
    match review.extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}

impl Bound {
    /// What an API server asserts of a pod by itself, without a token: `pod` is its name and UID.
    pub(crate) fn asserted(
        namespace: String,
        service_account: String,
        (pod, pod_uid): (String, String),
        node: String,
    ) -> Self {
        Self {
            namespace,
            service_account,
            pod,
            pod_uid,
            node: Some(node),
            credential: None,
        }
    }

    /// The identity, if the pod is what the token says and alive. `pod` is what the API server has under that name now.
    ///
    /// # Errors
    /// [`Refused::Pod`], [`Refused::NoIdentity`].
    pub fn attest(
        self,
        pod: Option<&Pod>,
        trust_domain: &TrustDomain,
    ) -> Result<Attested, Refused> {
        if let Some(why) = self.amiss(pod) {
            return Err(Refused::Pod {
                namespace: self.namespace,
                pod: self.pod,
                why,
            });
        }
        let identity =
            SpiffeId::for_service_account(trust_domain, &self.namespace, &self.service_account);
        match identity {
            Ok(identity) => Ok(Attested {
                identity,
                evidence: self.evidence(),
                instance: self.pod().to_string(),
                // The token agrees, where it says.
                node: pod.map(|pod| pod.node.clone()),
            }),
            Err(error) => Err(Refused::NoIdentity {
                namespace: self.namespace,
                service_account: self.service_account,
                why: error.to_string(),
            }),
        }
    }

    fn amiss(&self, pod: Option<&Pod>) -> Option<&'static str> {
        let Some(pod) = pod else {
            return Some("does not exist");
        };
        if pod.uid != self.pod_uid {
            return Some("is another pod of the same name");
        }
        if pod.deleting {
            return Some("is being deleted");
        }
        if !matches!(pod.phase.as_str(), "Pending" | "Running") {
            return Some("has ended");
        }
        if pod.service_account != self.service_account {
            return Some("runs as another service account");
        }
        if pod.node.is_empty() {
            return Some("was not bound to a node");
        }
        if self.node.as_ref().is_some_and(|node| *node != pod.node) {
            return Some("runs on another node");
        }
        None
    }

    fn pod(&self) -> BoundPod {
        BoundPod {
            namespace: self.namespace.clone(),
            name: self.pod.clone(),
            uid: self.pod_uid.clone(),
        }
    }

    /// What the issuance log keeps: who vouched for what, and which credential it was; not the token.
    fn evidence(&self) -> String {
        let mut text = format!("kubernetes token review: {}", self.pod());
        for (what, value) in [("node", &self.node), ("credential", &self.credential)] {
            if let Some(value) = value {
                text.push_str(&format!(", {what} {value}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review() -> Review {
        let extra = [
            (POD_NAME, "cart-0"),
            (POD_UID, "uid-1"),
            (NODE_NAME, "node-a"),
            (CREDENTIAL, "JTI=7"),
        ];
        Review {
            authenticated: true,
            audiences: vec![AUDIENCE.to_owned()],
            username: "system:serviceaccount:shop:cart".to_owned(),
            uid: "sa-uid".to_owned(),
            groups: [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated",
            ]
            .map(str::to_owned)
            .to_vec(),
            extra: extra
                .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
                .into(),
            error: None,
        }
    }

    fn pod() -> Pod {
        Pod {
            uid: "uid-1".to_owned(),
            phase: "Running".to_owned(),
            deleting: false,
            service_account: "cart".to_owned(),
            node: "node-a".to_owned(),
        }
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    fn attest(review: &Review, pod: Option<&Pod>) -> Result<Attested, Refused> {
        bound(review)?.attest(pod, &domain())
    }

    #[test]
    fn a_pod_is_the_same_one_under_each_of_its_tokens_until_it_ends() {
        let one = attest(&review(), Some(&pod())).unwrap().instance;
        let mut renewed = review();
        let credential = renewed.extra.get_mut(CREDENTIAL).unwrap();
        *credential = vec!["JTI=8".to_owned()];
        assert_eq!(attest(&renewed, Some(&pod())).unwrap().instance, one);
        let named = BoundPod::parse(&one).unwrap();
        assert_eq!(
            (named.namespace.as_str(), named.name.as_str()),
            ("shop", "cart-0")
        );
        assert!(!named.has_ended(Some(&pod())));
        let other = Pod {
            uid: "uid-2".to_owned(),
            ..pod()
        };
        let done = Pod {
            phase: "Succeeded".to_owned(),
            ..pod()
        };
        let leaving = Pod {
            deleting: true,
            ..pod()
        };
        assert!(
            named.has_ended(None) && named.has_ended(Some(&other)) && named.has_ended(Some(&done))
        );
        assert!(
            !named.has_ended(Some(&leaving)),
            "it still verifies its peers"
        );
        for text in [
            "17.23",
            "pod shop/cart-0",
            "pod cart-0 uid 1",
            "shop/cart-0 uid 1",
        ] {
            assert_eq!(BoundPod::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_live_pod_with_a_bound_token_is_its_service_account() {
        let attested = attest(&review(), Some(&pod())).unwrap();
        assert_eq!(
            attested.identity.to_string(),
            "spiffe://cluster.local/ns/shop/sa/cart"
        );
        assert_eq!(
            attested.evidence,
            "kubernetes token review: pod shop/cart-0 uid uid-1, node node-a, credential JTI=7"
        );
        let starting = Pod {
            phase: "Pending".to_owned(),
            ..pod()
        };
        assert!(
            attest(&review(), Some(&starting)).is_ok(),
            "sidecars start before the pod runs"
        );
    }

    #[test]
    fn tokens_that_say_less_give_nothing() {
        type Change = fn(&mut Review);
        let cases: &[(&str, Change, &str)] = &[
            ("unknown", |r| r.authenticated = false, "MESH-0290"),
            (
                "an error beside the yes",
                |r| r.error = Some("odd".into()),
                "MESH-0290",
            ),
            (
                "no audience confirmed",
                |r| r.audiences.clear(),
                "MESH-0291",
            ),
            (
                "the API server's audience",
                |r| r.audiences = vec!["https://kubernetes.default.svc".into()],
                "MESH-0291",
            ),
            (
                "ours among others",
                |r| r.audiences.push("vault".into()),
                "MESH-0291",
            ),
            ("a user", |r| r.username = "admin".into(), "MESH-0292"),
            (
                "a node",
                |r| r.username = "system:node:node-a".into(),
                "MESH-0292",
            ),
            (
                "no name",
                |r| r.username = "system:serviceaccount:shop:".into(),
                "MESH-0292",
            ),
            (
                "no namespace",
                |r| r.username = "system:serviceaccount::cart".into(),
                "MESH-0292",
            ),
            (
                "a name with a colon",
                |r| r.username = "system:serviceaccount:shop:cart:x".into(),
                "MESH-0292",
            ),
            (
                "not in the group",
                |r| drop(r.groups.remove(0)),
                "MESH-0292",
            ),
            (
                "in another namespace's group",
                |r| r.groups[1] = "system:serviceaccounts:dev".into(),
                "MESH-0292",
            ),
            ("no UID", |r| r.uid.clear(), "MESH-0292"),
            ("a Secret's token", |r| r.extra.clear(), "MESH-0293"),
            ("no pod UID", |r| drop(r.extra.remove(POD_UID)), "MESH-0293"),
            (
                "two pods",
                |r| r.extra.get_mut(POD_NAME).unwrap().push("other".into()),
                "MESH-0293",
            ),
            (
                "an empty pod name",
                |r| r.extra.get_mut(POD_NAME).unwrap()[0].clear(),
                "MESH-0293",
            ),
            (
                "names that make no ID",
                |r| {
                    r.username = "system:serviceaccount:shop:cart space".into();
                },
                "MESH-0294",
            ),
        ];
        for (what, change, code) in cases {
            let mut review = review();
            change(&mut review);
            let refused = attest(&review, Some(&pod())).unwrap_err();
            let found = miette::Diagnostic::code(&refused).map(|code| code.to_string());
            assert_eq!(found.as_deref(), Some(*code), "{what}: {refused}");
        }
    }

    #[test]
    fn pods_that_are_not_the_tokens_give_nothing() {
        type Change = fn(&mut Pod);
        let cases: &[(Change, &str)] = &[
            (
                |p| p.uid = "uid-2".into(),
                "is another pod of the same name",
            ),
            (|p| p.deleting = true, "is being deleted"),
            (|p| p.phase = "Succeeded".into(), "has ended"),
            (|p| p.phase = "Failed".into(), "has ended"),
            (|p| p.phase.clear(), "has ended"),
            (
                |p| p.service_account = "admin".into(),
                "runs as another service account",
            ),
            (|p| p.node.clear(), "was not bound to a node"),
            (|p| p.node = "node-b".into(), "runs on another node"),
        ];
        for (change, want) in cases {
            let mut pod = pod();
            change(&mut pod);
            match attest(&review(), Some(&pod)) {
                Err(Refused::Pod { why, .. }) => assert_eq!(why, *want),
                other => panic!("{want}: {other:?}"),
            }
        }
        assert!(matches!(
            attest(&review(), None),
            Err(Refused::Pod {
                why: "does not exist",
                ..
            })
        ));
    }
}
