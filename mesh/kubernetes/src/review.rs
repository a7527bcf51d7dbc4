//! Whose is a service account token? The API server's word, and the pod that the token is bound to.
//!
//! Only asked here. What an answer must say for an identity to be issued is decided where identities are
//! (`mesh_issuance::attestation::kubernetes`).

use crate::error::KubernetesError;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use std::collections::BTreeMap;

/// What the API server says of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Whether it is a token of its own, unexpired, for one of the audiences.
    pub authenticated: bool,
    /// Those of the audiences asked for that it is good for.
    pub audiences: Vec<String>,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub username: String,
    /// UID of the service account.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Pod, node and credential that it is bound to, by `authentication.kubernetes.io/…`.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Why it is not authenticated, in the API server's words.
    pub error: Option<String>,
}

/// A pod, as far as identities depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviewedPod {
    /// Its UID.
    pub uid: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its service account.
    pub service_account: String,
    /// Its node.
    pub node: String,
}

/// Asks the API server about a token, for one audience.
///
/// # Errors
/// [`KubernetesError`] if it does not answer; that a token is bad is an answer.
pub async fn review(
    client: &Client,
    token: &str,
    audience: &str,
) -> Result<Review, KubernetesError> {
    let api: Api<TokenReview> = Api::all(client.clone());
    let request = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        },
        ..TokenReview::default()
    };
    let answer = api
        .create(&PostParams::default(), &request)
        .await
        .map_err(|error| KubernetesError::of("review a token", &error))?;
    Ok(Review::from(answer.status.unwrap_or_default()))
}

impl From<TokenReviewStatus> for Review {
    fn from(status: TokenReviewStatus) -> Self {
        let user = status.user.unwrap_or_default();
        Self {
            authenticated: status.authenticated.unwrap_or(false),
            audiences: status.audiences.unwrap_or_default(),
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
            error: status.error,
        }
    }
}

/// UID of a service account; `None` if there is none of that name.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn service_account_uid(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, KubernetesError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = || format!("read service account {namespace}/{name}");
    let account = api
        .get_opt(name)
        .await
        .map_err(|error| KubernetesError::of(what(), &error))?;
    Ok(account.and_then(|account| account.metadata.uid))
}

/// Reads a pod; `None` if there is none of that name.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<ReviewedPod>, KubernetesError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = api
        .get_opt(name)
        .await
        .map_err(|error| KubernetesError::of(format!("read pod {namespace}/{name}"), &error))?;
    Ok(pod.map(|pod| {
        let spec = pod.spec.unwrap_or_default();
        ReviewedPod {
            uid: pod.metadata.uid.unwrap_or_default(),
            phase: pod
                .status
                .and_then(|status| status.phase)
                .unwrap_or_default(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            service_account: spec.service_account_name.unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
        }
    }))
}
