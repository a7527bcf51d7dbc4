//! A ClusterTrustBundle (KEP-3257): anchors that kubelets put into volumes, under the name of a signer.
//!
//! Not every API server has them, and those that do in `v1` or `v1beta1`: [`crate::watch::served_version`] of
//! [`CLUSTER_TRUST_BUNDLE`] says which.

use crate::error::KubernetesError;
use crate::kinds::CLUSTER_TRUST_BUNDLE;
use crate::named::follow_object;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;

/// Owner of what we write, in the words of server-side apply.
const FIELD_MANAGER: &str = "mesh";

/// Annotation with the generation of the bundle, for people.
const GENERATION: &str = "mesh.internal/generation";

/// A bundle as we want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Name of the object: the signer's with `:` for `/`, and one more word.
    pub name: String,
    /// Name of the signer. An object never changes it.
    pub signer: String,
    /// Its anchors, PEM.
    pub pem: String,
    /// Which generation of the mesh's trust this is.
    pub generation: u64,
}

fn api(client: &Client, version: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &CLUSTER_TRUST_BUNDLE.api_resource(version))
}

/// What stands in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its anchors, PEM.
    pub pem: String,
    /// Which generation it says that this is.
    pub generation: Option<u64>,
}

impl Bundle {
    /// Whether an object says just this.
    pub fn is(&self, held: &Held) -> bool {
        held.pem == self.pem && held.generation == Some(self.generation)
    }
}

fn held(object: &DynamicObject) -> Option<Held> {
    let pem = object.data.pointer("/spec/trustBundle")?.as_str()?;
    let notes = object.metadata.annotations.as_ref();
    let generation = notes.and_then(|notes| notes.get(GENERATION)?.parse().ok());
    Some(Held {
        pem: pem.to_owned(),
        generation,
    })
}

/// Writes a bundle, which is made if it is not there.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn apply(client: &Client, version: &str, bundle: &Bundle) -> Result<(), KubernetesError> {
    let object = json!({
        "apiVersion": CLUSTER_TRUST_BUNDLE.api_version(version),
        "kind": CLUSTER_TRUST_BUNDLE.kind,
        "metadata": {
            "name": bundle.name,
            "labels": { "app.kubernetes.io/part-of": "mesh" },
            "annotations": { GENERATION: bundle.generation.to_string() },
        },
        "spec": { "signerName": bundle.signer, "trustBundle": bundle.pem },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api(client, version)
        .patch(&bundle.name, &parameters, &Patch::Apply(&object))
        .await
        .map(drop)
        .map_err(|error| {
            KubernetesError::of(format!("write ClusterTrustBundle {}", bundle.name), &error)
        })
}

/// The anchors of a bundle, PEM; none if there is no such object, or no such kind in this version.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn read(
    client: &Client,
    version: &str,
    name: &str,
) -> Result<Option<String>, KubernetesError> {
    let what = || format!("read ClusterTrustBundle {name}");
    let found = api(client, version)
        .get_opt(name)
        .await
        .map_err(|error| KubernetesError::of(what(), &error))?;
    Ok(found.as_ref().and_then(held).map(|held| held.pem))
}

/// Tells what stands in a bundle (none while there is none) at once and whenever it may have changed, for as long
/// as it is polled.
pub async fn follow(client: &Client, version: &str, name: &str, tell: impl Fn(Option<Held>)) {
    let place = format!("ClusterTrustBundle {name}");
    let events = watcher::watch_object(api(client, version), name);
    follow_object(&place, events, |object: Option<&DynamicObject>| {
        tell(object.and_then(held));
    })
    .await;
}

/// The bundle under the key that a ConfigMap of trust-manager has.
pub(crate) fn as_data(pem: String) -> (String, Vec<u8>) {
    ("ca-bundle.crt".to_owned(), pem.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_bundle_of_another_text_or_generation_is_another_one() {
        let resource = CLUSTER_TRUST_BUNDLE.api_resource("v1");
        let wanted = Bundle {
            name: "b".to_owned(),
            signer: "s".to_owned(),
            pem: "x".to_owned(),
            generation: 7,
        };
        let mut object = DynamicObject::new("b", &resource);
        assert_eq!(held(&object), None);
        object.data = json!({ "spec": { "trustBundle": Value::Null } });
        assert_eq!(held(&object), None);
        object.data = json!({ "spec": { "trustBundle": "x" } });
        assert!(!wanted.is(&held(&object).unwrap()), "no generation");
        let mut note = |text: &str| {
            let notes = [(GENERATION.to_owned(), text.to_owned())];
            object.metadata.annotations = Some(notes.into());
            held(&object).unwrap()
        };
        assert!(wanted.is(&note("7")));
        assert!(!wanted.is(&note("6")));
        assert!(!wanted.is(&note("seven")));
        object.data = json!({ "spec": { "trustBundle": "y" } });
        assert!(!wanted.is(&held(&object).unwrap()));
    }
}
