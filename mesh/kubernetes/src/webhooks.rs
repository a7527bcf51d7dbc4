//! The authorities by which API servers know a webhook: `caBundle` of the two kinds of webhook configurations.

use crate::error::{KubernetesError, root_cause};
use futures_util::stream::{BoxStream, StreamExt};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::fmt::Debug;

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Webhooks that may change what is stored.
    Mutating,
    /// Webhooks that may only refuse it.
    Validating,
}

/// A configuration as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Its version, for [`set_bundles`].
    pub version: String,
    /// Name and `caBundle`, PEM, of each webhook.
    pub bundles: Vec<(String, Vec<u8>)>,
}

impl Kind {
    /// `MutatingWebhookConfiguration`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }
}

/// Configuration `name` as it is, and again after each change; `None` while there is none. It goes on after an error.
pub fn watch(
    client: &Client,
    kind: Kind,
    name: &str,
) -> BoxStream<'static, Result<Option<Configuration>, KubernetesError>> {
    let what = format!("watch {} {name}", kind.name());
    match kind {
        Kind::Mutating => watch_as::<MutatingWebhookConfiguration>(client, name, what, |object| {
            let all = object.webhooks.into_iter().flatten();
            all.map(|w| (w.name, w.client_config.ca_bundle.unwrap_or_default().0))
                .collect()
        }),
        Kind::Validating => {
            watch_as::<ValidatingWebhookConfiguration>(client, name, what, |object| {
                let all = object.webhooks.into_iter().flatten();
                all.map(|w| (w.name, w.client_config.ca_bundle.unwrap_or_default().0))
                    .collect()
            })
        }
    }
}

/// Name and `caBundle` of each webhook.
type Bundles = Vec<(String, Vec<u8>)>;

fn watch_as<K>(
    client: &Client,
    name: &str,
    what: String,
    bundles: fn(K) -> Bundles,
) -> BoxStream<'static, Result<Option<Configuration>, KubernetesError>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + serde::de::DeserializeOwned + 'static,
{
    let stream = watch_object(Api::<K>::all(client.clone()), name);
    let read = move |object: K| Configuration {
        version: object.resource_version().unwrap_or_default(),
        bundles: bundles(object),
    };
    stream
        .map(move |event| match event {
            Ok(object) => Ok(object.map(read)),
            Err(error) => Err(KubernetesError::Failed {
                what: what.clone(),
                why: root_cause(&error),
            }),
        })
        .boxed()
}

/// Sets `caBundle` (PEM) of the webhooks that are named, if the configuration still has `version`. Whether it had.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn set_bundles(
    client: &Client,
    kind: Kind,
    name: &str,
    version: &str,
    bundles: &[(String, String)],
) -> Result<bool, KubernetesError> {
    let webhooks: Vec<Value> = bundles
        .iter()
        .map(|(name, pem)| {
            let bundle = k8s_openapi::ByteString(pem.clone().into_bytes());
            json!({ "name": name, "clientConfig": { "caBundle": bundle } })
        })
        .collect();
    let patch = json!({ "metadata": { "resourceVersion": version }, "webhooks": webhooks });
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&patch));
    let done = match kind {
        Kind::Mutating => {
            let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
            api.patch(name, &parameters, &patch).await.map(drop)
        }
        Kind::Validating => {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
            api.patch(name, &parameters, &patch).await.map(drop)
        }
    };
    match done {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(KubernetesError::of(
            format!("change {} {name}", kind.name()),
            &error,
        )),
    }
}
