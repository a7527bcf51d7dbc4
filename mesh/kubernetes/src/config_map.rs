//! Small texts that pods mount.

use crate::error::KubernetesError;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// Owner of what we write, in the words of server-side apply.
const FIELD_MANAGER: &str = "mesh";

/// Writes `text` under `key` of ConfigMap `namespace/name`, which is made if it is not there. Other keys stay.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn apply(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    text: &str,
) -> Result<(), KubernetesError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app.kubernetes.io/part-of": "mesh" } },
        "data": { key: text },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &parameters, &Patch::Apply(&map))
        .await
        .map(drop)
        .map_err(|error| KubernetesError::of(format!("write ConfigMap {namespace}/{name}"), &error))
}

/// The text under `key` of ConfigMap `namespace/name`; `None` if there is none.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, KubernetesError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = api.get_opt(name).await.map_err(|error| {
        KubernetesError::of(format!("read ConfigMap {namespace}/{name}"), &error)
    })?;
    Ok(map.and_then(|map| map.data?.remove(key)))
}
