//! Writes what became of an object into its status.

use crate::error::KubernetesError;
use crate::kinds::Kind;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Yes,
    /// The object changed meanwhile, or is gone: whoever watches it learns of it, and decides again.
    Overtaken,
}

/// Sets field `field` of the status of an object to `value`, if the object is still of `resource_version`. Other fields
/// stay.
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
    let resource = kind.api_resource(version);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let patch = json!({
        "metadata": { "resourceVersion": resource_version },
        "status": { field: value },
    });
    let answer = api
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    match answer {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Overtaken),
        Err(error) => {
            let what = format!("write the status of {} {namespace}/{name}", kind.kind);
            Err(KubernetesError::of(what, &error))
        }
    }
}
