//! What a namespace says about itself.

use crate::error::KubernetesError;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::Api;
use std::collections::BTreeMap;

/// Annotations and labels of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The marks of namespace `name` as the API server has them now, not from a cache.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer, or has no such namespace.
pub async fn marks(client: &Client, name: &str) -> Result<Marks, KubernetesError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api
        .get(name)
        .await
        .map_err(|error| KubernetesError::of(format!("read Namespace {name}"), &error))?;
    Ok(Marks {
        annotations: namespace.metadata.annotations.unwrap_or_default(),
        labels: namespace.metadata.labels.unwrap_or_default(),
    })
}
