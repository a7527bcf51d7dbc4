//! What signing on behalf of the Kubernetes API takes: questions to the API server, the pipeline of every issuance, and
//! answers in an object's status.

use super::backlog::{Outcome, Signed};
use crate::error::IssuanceError;
use crate::issuing::{Chain, Issuing, Turn};
use crate::limits::REVIEW_TIMEOUT;
use crate::network::Cluster;
use crate::trust::Requester;
use mesh_issuance::adoption::request::Granted;
use mesh_issuance::attestation::kubernetes::{BoundPod, Pod};
use mesh_issuance::issue::IssueError;
use mesh_issuance::rotation::AuthorityId;
use mesh_kubernetes::kinds::Kind;
use mesh_kubernetes::status::{self, Written};
use mesh_kubernetes::{Client, KubernetesError, review};
use mesh_platform::Platform;
use mesh_trust::{SpiffeId, TrustDomain};
use serde_json::{Map, Value};
use std::sync::Arc;

/// All that it takes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Signing {
    pub(crate) client: Client,
    pub(crate) cluster: Arc<dyn Cluster>,
    /// Namespace of the control plane.
    pub(crate) namespace: Arc<str>,
    pub(crate) issuing: Issuing,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) domain: TrustDomain,
    /// Life of SVIDs, seconds.
    pub(crate) leaf_secs: u64,
}

/// Why something is not signed.
#[derive(Debug)]
pub(crate) enum NotSigned {
    /// Not now; the same may succeed later.
    Now(String),
    /// Never.
    Ever(IssuanceError),
}

impl Signing {
    pub(crate) fn new(
        (client, cluster, namespace): (Client, Arc<dyn Cluster>, &str),
        issuing: Issuing,
        platform: Arc<dyn Platform>,
        (domain, leaf_secs): (TrustDomain, u64),
    ) -> Self {
        Self {
            client,
            cluster,
            namespace: namespace.into(),
            issuing,
            platform,
            domain,
            leaf_secs,
        }
    }

    /// The answer of the API server, if it comes in time.
    pub(crate) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, question).await;
        answer.unwrap_or_else(|_elapsed| Err("the API server did not answer in time".to_owned()))
    }

    /// The pod as it is now.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, String> {
        self.ask(self.cluster.pod(namespace, name)).await
    }

    /// The pod that a token was bound to, if it was bound to one.
    pub(crate) async fn bound_pod(&self, pod: Option<&BoundPod>) -> Result<Option<Pod>, String> {
        match pod {
            Some(pod) => self.pod(&pod.namespace, &pod.name).await,
            None => Ok(None),
        }
    }

    /// UID of a service account.
    pub(crate) async fn account_uid(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, String> {
        let asked = async {
            let uid = review::service_account_uid(&self.client, namespace, name).await;
            uid.map_err(|error| error.to_string())
        };
        self.ask(asked).await
    }

    /// Issues as for everybody else: within the same rate, past the same deny list, lint and log.
    pub(crate) async fn issue(&self, granted: Granted) -> Result<Chain, NotSigned> {
        let id = granted.request.id.clone();
        if !self.issuing.within_rate(&id, self.platform.monotonic()) {
            return Err(NotSigned::Now(
                IssuanceError::RateLimited { id }.to_string(),
            ));
        }
        let requester = Requester {
            evidence: granted.evidence,
            instance: Some(granted.instance),
            node: granted.node,
        };
        let issued = self
            .issuing
            .issue(granted.request, requester, Turn::First)
            .await;
        issued.map_err(|error| sorted(error, &id))
    }

    /// Leaf and issuers, PEM.
    pub(crate) fn chain_pem(chain: &Chain) -> String {
        mesh_trust::bundle::to_pem(&chain.whole())
    }

    /// The anchors of our domain, PEM: first the one that `chain` leads to, then others that are trusted beside it.
    pub(crate) fn anchors_pem(&self, chain: &Chain) -> String {
        let published = self.issuing.published().borrow().clone();
        let bundle = published.bundles.get(&self.domain);
        let mut anchors = bundle.map_or_else(Vec::new, |bundle| bundle.anchors().to_vec());
        anchors.sort_by_key(|anchor| AuthorityId::of_certificate(anchor) != chain.authority);
        mesh_trust::bundle::to_pem(&anchors)
    }

    /// Writes what was signed, into a status that says so; if that fails, it is kept for the next try.
    pub(crate) async fn write_issued(
        &self,
        kind: (&Kind, &str),
        object: &Value,
        (mut status, signed): (Map<String, Value>, Arc<Signed>),
    ) -> Outcome {
        status.extend(signed.fields.clone());
        match self.write(kind, object, status).await {
            Outcome::Settled => Outcome::Settled,
            _ => Outcome::Unwritten(signed),
        }
    }

    /// Writes any status.
    pub(crate) async fn write(
        &self,
        kind: (&Kind, &str),
        object: &Value,
        status: Map<String, Value>,
    ) -> Outcome {
        match self.try_write(kind, object, status).await {
            Ok(Written::Yes | Written::NotFound) => Outcome::Settled,
            // The object as it is now comes by itself; should it not, it is tried again.
            Ok(Written::Overtaken) | Err(_) => Outcome::Again,
        }
    }

    async fn try_write(
        &self,
        (kind, version): (&Kind, &str),
        object: &Value,
        status: Map<String, Value>,
    ) -> Result<Written, ()> {
        let place = (
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name"),
        );
        let written = self.ask(async {
            let status = Value::Object(status);
            let revision = text(object, "/metadata/resourceVersion");
            let merged =
                status::merge(&self.client, (kind, version), place, revision, &status).await;
            merged.map_err(|error: KubernetesError| error.to_string())
        });
        written.await.map_err(|why| {
            let (namespace, name) = place;
            tracing::warn!(
                why,
                kind = kind.kind,
                namespace,
                name,
                "a status could not be written; trying again"
            );
        })
    }
}

/// A text of an object; empty if it is not there.
pub(crate) fn text<'o>(object: &'o Value, path: &str) -> &'o str {
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether the same request may succeed later.
fn sorted(error: IssuanceError, id: &SpiffeId) -> NotSigned {
    let ever = match &error {
        IssuanceError::Denied { .. } | IssuanceError::Log(_) => true,
        // An issuer that ends is renewed. A signer may work again too, but by then the key is in the log as one that was
        // certified, and is never certified again: whoever asked makes another.
        IssuanceError::Issue(error) => !matches!(error, IssueError::Profile(_)),
        _ => false,
    };
    tracing::warn!(%id, %error, "no certificate");
    match ever {
        true => NotSigned::Ever(error),
        false => NotSigned::Now(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;
    use mesh_issuance::SignerFailed;
    use mesh_issuance::log::LogError;
    use mesh_issuance::profile::ProfileError;
    use mesh_trust::Timestamp;

    #[test]
    fn what_fails_after_the_key_was_recorded_fails_for_good() {
        let signer = || SignerFailed("it ended".to_owned());
        let authority = "the issuer".to_owned();
        let ended = ProfileError::IssuerEnds {
            issuer_not_after: Timestamp::from_unix_secs(0),
            secs_min: 1,
        };
        for (error, ever) in [
            (IssuanceError::from(IssueError::Profile(ended)), false),
            (IssuanceError::Busy, false),
            (IssuanceError::Stopped, false),
            (IssueError::Signer(signer()).into(), true),
            (IssueError::WrongSigner { authority }.into(), true),
            (IssuanceError::Log(LogError::Reused { what: "key" }), true),
            (
                IssuanceError::Denied {
                    id: id("ns/a/sa/b"),
                },
                true,
            ),
        ] {
            let text = error.to_string();
            let sorted = sorted(error, &id("ns/a/sa/b"));
            assert_eq!(matches!(sorted, NotSigned::Ever(_)), ever, "{text}");
        }
    }
}
