//! Evidence that a Kubernetes API server judges, the ConfigMap by which pods learn whom to trust, and objects in which
//! others keep root and issuer.

mod kept;

pub use kept::KeptObjects;

use crate::network::Cluster;
use mesh_issuance::attestation::kubernetes::{AUDIENCE, Pod, Review};
use mesh_kubernetes::{Client, config_map, review};

/// Name of the ConfigMap that holds the trust bundle, in every namespace that needs it.
pub const BUNDLE_CONFIG_MAP: &str = "mesh-trust-bundle";

/// Key in that ConfigMap, as trust-manager and cert-manager name it.
pub const BUNDLE_KEY: &str = "ca-bundle.crt";

/// An API server, and the namespace of the CA.
pub struct ApiServer {
    client: Client,
    namespace: String,
}

impl ApiServer {
    /// The API server that `client` reaches; the CA runs in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
        }
    }
}

#[tonic::async_trait]
impl Cluster for ApiServer {
    async fn review(&self, token: &str) -> Result<Review, String> {
        let answer = review::review(&self.client, token, AUDIENCE)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Review {
            authenticated: answer.authenticated,
            audiences: answer.audiences,
            username: answer.username,
            uid: answer.uid,
            groups: answer.groups,
            extra: answer.extra,
            error: answer.error,
        })
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, String> {
        let pod = review::pod(&self.client, namespace, name)
            .await
            .map_err(|error| error.to_string())?;
        Ok(pod.map(|pod| Pod {
            uid: pod.uid,
            phase: pod.phase,
            deleting: pod.deleting,
            service_account: pod.service_account,
            node: pod.node,
        }))
    }

    async fn publish(&self, bundle_pem: &str) -> Result<(), String> {
        config_map::apply(
            &self.client,
            &self.namespace,
            BUNDLE_CONFIG_MAP,
            BUNDLE_KEY,
            bundle_pem,
        )
        .await
        .map_err(|error| error.to_string())
    }
}
