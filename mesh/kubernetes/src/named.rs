//! One Secret, ConfigMap or ClusterTrustBundle that somebody named: its data as they are, and word of changes.
//!
//! A Role can give exactly this: `get`, `list` and `watch` of one name, nothing else of its kind.

use crate::error::{KubernetesError, root_cause};
use crate::kinds::CLUSTER_TRUST_BUNDLE;
use crate::trust_bundle;
use crate::watch::served_version;
use futures_util::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Pause before an API server is asked again whether it has ClusterTrustBundles.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its kind.
    pub kind: DataKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A kind of objects that hold data by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Secret.
    Secret,
    /// ConfigMap.
    ConfigMap,
    /// ClusterTrustBundle: its anchors stand under `ca-bundle.crt`. It has no namespace.
    ClusterTrustBundle,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DataKind::Secret => "Secret",
            DataKind::ConfigMap => "ConfigMap",
            DataKind::ClusterTrustBundle => {
                return write!(f, "ClusterTrustBundle {}", self.name);
            }
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

impl Named {
    /// Its data; none if there is no such object.
    ///
    /// # Errors
    /// [`KubernetesError`] if the API server does not answer.
    pub async fn data(
        &self,
        client: &Client,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, KubernetesError> {
        let failed = |error: kube::Error| KubernetesError::of(format!("read {self}"), &error);
        match self.kind {
            DataKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
                let found = api.get_opt(&self.name).await.map_err(failed)?;
                Ok(found.map(|secret| {
                    let data = secret.data.unwrap_or_default();
                    data.into_iter()
                        .map(|(key, value)| (key, value.0))
                        .collect()
                }))
            }
            DataKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
                let found = api.get_opt(&self.name).await.map_err(failed)?;
                Ok(found.map(|map| {
                    let text = map.data.unwrap_or_default();
                    let text = text
                        .into_iter()
                        .map(|(key, value)| (key, value.into_bytes()));
                    let binary = map.binary_data.unwrap_or_default();
                    text.chain(binary.into_iter().map(|(key, value)| (key, value.0)))
                        .collect()
                }))
            }
            DataKind::ClusterTrustBundle => {
                let Some(version) = served_version(client, &CLUSTER_TRUST_BUNDLE).await? else {
                    return Ok(None);
                };
                let found = trust_bundle::read(client, version, &self.name).await?;
                Ok(found.map(|pem| BTreeMap::from([trust_bundle::as_data(pem)])))
            }
        }
    }

    /// Calls `tell` at once and whenever the object may have changed, for as long as it is polled. A watch that breaks is
    /// begun again; what happened meanwhile is told once, with the list that begins it.
    pub async fn watch(&self, client: &Client, tell: impl Fn()) {
        match self.kind {
            DataKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
                let events = watcher::watch_object(api, &self.name);
                follow_object(&self.to_string(), events, |_| tell()).await;
            }
            DataKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
                let events = watcher::watch_object(api, &self.name);
                follow_object(&self.to_string(), events, |_| tell()).await;
            }
            DataKind::ClusterTrustBundle => loop {
                // It is read from time to time as well, so an API that is not there yet costs no more than that.
                if let Ok(Some(version)) = served_version(client, &CLUSTER_TRUST_BUNDLE).await {
                    trust_bundle::follow(client, version, &self.name, |_| tell()).await;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            },
        }
    }
}

/// Tells one object (none while there is none) with each event of its watch. A watch that breaks is said once, and begun
/// again.
pub(crate) async fn follow_object<K>(
    object: &str,
    events: impl Stream<Item = Result<Option<K>, watcher::Error>> + Send,
    tell: impl Fn(Option<&K>),
) {
    let events = events.default_backoff();
    pin_mut!(events);
    let mut troubled = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(found) => {
                troubled = false;
                tell(found.as_ref());
            }
            Err(error) if !troubled => {
                troubled = true;
                let why = root_cause(&error);
                tracing::warn!(object, why, "cannot be watched; trying again");
            }
            Err(_) => {}
        }
    }
}
