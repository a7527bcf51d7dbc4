//! Evidence that a Kubernetes API server judges, the objects by which pods learn whom to trust, objects in which others keep
//! root and issuer, and requests for certificates that stand in objects.
//!
//! - `bundle`: the trust bundle as a ClusterTrustBundle
//! - `issuer`: cert-manager's CertificateRequests; `pod_certificates`: those of kubelets
//! - `signing`, `backlog`: what both take
//! - [`KeptObjects`]: root and issuer of others

mod backlog;
mod bundle;
mod issuer;
mod kept;
mod pod_certificates;
mod signing;

pub use bundle::TRUST_BUNDLE;
pub use kept::KeptObjects;

use crate::issuing::Issuing;
use crate::limits::API_LOOK;
use crate::network::Cluster;
use mesh_issuance::attestation::kubernetes::{AUDIENCE, Pod, Review};
use mesh_kubernetes::kinds::Kind;
use mesh_kubernetes::watch::served_version;
use mesh_kubernetes::{Client, config_map, review};
use mesh_platform::Platform;
use mesh_trust::TrustDomain;
use signing::Signing;
use std::convert::Infallible;
use std::sync::Arc;

/// Name of the ConfigMap that holds the trust bundle, in every namespace that needs it.
pub const BUNDLE_CONFIG_MAP: &str = "mesh-trust-bundle";

/// Key in that ConfigMap, as trust-manager and cert-manager name it.
pub const BUNDLE_KEY: &str = "ca-bundle.crt";

/// What the CA does for a cluster beside serving pods on the network.
#[derive(Clone)]
pub struct ClusterWork {
    /// The API server.
    pub client: Client,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Whether cert-manager's requests that name a mesh issuer are answered.
    pub external_issuer: bool,
}

impl ClusterWork {
    /// Publishes the trust bundle and answers requests, for as long as it is polled.
    pub(crate) async fn run(
        self,
        issuing: Issuing,
        platform: Arc<dyn Platform>,
        (domain, leaf_secs): (TrustDomain, u64),
    ) -> Infallible {
        let cluster = Arc::new(ApiServer::new(self.client.clone(), &self.namespace));
        let api = (self.client, cluster as Arc<dyn Cluster>, &*self.namespace);
        let signing = Signing::new(api, issuing, platform, (domain, leaf_secs));
        let issuer = async {
            match self.external_issuer {
                true => issuer::serve(signing.clone()).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            never = issuer => never,
            never = pod_certificates::serve(signing.clone()) => never,
            never = bundle::keep(signing.clone()) => never,
        }
    }
}

/// The version in which the API server has a kind; waits until it has one. `without` says what that means until then.
async fn served(client: &Client, kind: &'static Kind, without: &str) -> &'static str {
    let mut said = false;
    loop {
        match served_version(client, kind).await {
            Ok(Some(version)) => return version,
            Ok(None) if said => {}
            Ok(None) => {
                said = true;
                tracing::info!("the API server has no {}: {without}", kind.resource());
            }
            Err(error) => {
                let kind = kind.resource();
                tracing::warn!(%error, kind, "cannot find out whether the API server has it");
            }
        }
        tokio::time::sleep(API_LOOK).await;
    }
}

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

#[cfg(test)]
mod tests;
