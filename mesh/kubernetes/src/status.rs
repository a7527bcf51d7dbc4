//! Writes what became of an object into its status.

use crate::error::KubernetesError;
use crate::kinds::Kind;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

/// What we are called among those who write a status, in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "mesh.internal/controller";

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Yes,
    /// The object changed meanwhile: whoever watches it learns of it, and decides again.
    Overtaken,
    /// The object is gone, or its definition has no status that can be written: [`is_served`] tells which.
    NotFound,
}

/// Sets field `field` of the status of an object to `value`, if the object is still of `resource_version`. Other fields
/// stay. The namespace is empty for kinds that have none.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn write(
    client: &Client,
    (kind, version): (&Kind, &str),
    (namespace, name): (&str, &str),
    resource_version: &str,
    (field, value): (&str, &Value),
) -> Result<Written, KubernetesError> {
    let status = json!({ field: value });
    merge(
        client,
        (kind, version),
        (namespace, name),
        resource_version,
        &status,
    )
    .await
}

/// The same for several fields: those of `status`.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn merge(
    client: &Client,
    (kind, version): (&Kind, &str),
    (namespace, name): (&str, &str),
    resource_version: &str,
    status: &Value,
) -> Result<Written, KubernetesError> {
    let resource = kind.api_resource(version);
    let api: Api<DynamicObject> = if kind.namespaced {
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let patch = json!({
        "metadata": { "resourceVersion": resource_version },
        "status": status,
    });
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let answer = api
        .patch_status(name, &parameters, &Patch::Merge(&patch))
        .await;
    match answer {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Overtaken),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::NotFound),
        Err(error) => {
            let what = format!("write the status of {} {namespace}/{name}", kind.kind);
            Err(KubernetesError::of(what, &error))
        }
    }
}

/// Whether the definition of a kind has a status that is written apart from the rest.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn is_served(
    client: &Client,
    kind: &Kind,
    version: &str,
) -> Result<bool, KubernetesError> {
    let answer = client
        .list_api_group_resources(&kind.api_version(version))
        .await;
    let wanted = format!("{}/status", kind.plural);
    match answer {
        Ok(list) => Ok(list.resources.iter().any(|one| one.name == wanted)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => {
            let what = format!("list versions of {}", kind.resource());
            Err(KubernetesError::of(what, &error))
        }
    }
}
