//! All that a check of a cluster looks at. The questions are asked side by side: one after the other they would take
//! seconds.

use super::super::Scope;
use crate::cluster;
use crate::cluster::exposition::Metrics;
use crate::cluster::proxies::{self, ProxyPod, has_proxy};
use mesh_cluster::inject::policy;
use mesh_cluster::install::values::BY_POLICY;
use mesh_cluster::install::{self, Values};
use mesh_cluster::names::{INJECT, NAMESPACE, TRUST_CONFIG_MAP, WEBHOOKS};
use mesh_kubernetes::kinds::{Kind, POLICY_SOURCES};
use mesh_kubernetes::read::{self, Objects, Server};
use mesh_kubernetes::{Client, KubernetesError};
use mesh_platform::{Platform as _, System};
use mesh_trust::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Proxies that are asked; more say nothing that these do not, and would take seconds.
pub(super) const PROXIES_MAX: usize = 500;

/// Parts of the control plane.
pub(super) const PARTS: [&str; 3] = ["identity", "controller", "injector"];

/// What is known of a cluster.
pub(super) struct Facts {
    /// How kubectl is called for it.
    pub(super) kubectl: String,
    pub(super) now: Timestamp,
    pub(super) server: Server,
    /// Policy, pods, Services and namespaces, as the API server has them.
    pub(super) objects: Objects,
    /// The same, read.
    pub(super) values: BTreeMap<String, Value>,
    /// What this version would install with the values that are installed, and what is there instead.
    pub(super) installed: Vec<(Value, Result<Option<Value>, KubernetesError>)>,
    pub(super) settings: Values,
    /// Whether anything is installed.
    pub(super) is_installed: bool,
    pub(super) bundles: Result<Vec<Value>, KubernetesError>,
    /// Leases of nodes: their clocks.
    pub(super) leases: Result<Vec<Value>, KubernetesError>,
    /// Whether the API server has policies that change what is made.
    pub(super) serves_policies: Result<bool, KubernetesError>,
    /// What became of a pod that asks for a proxy, if that was tried.
    pub(super) tried: Option<Result<Value, KubernetesError>>,
    /// By part of the control plane: pods and what they count.
    pub(super) parts: Vec<(String, String, Result<Metrics, KubernetesError>)>,
    pub(super) proxies: Vec<(ProxyPod, Result<Metrics, KubernetesError>)>,
    /// Proxies that were not asked.
    pub(super) unasked: usize,
}

/// Everything of an object: its status counts too.
fn whole(kind: &str, api_version: &str, mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    object
}

impl Facts {
    /// Looks at everything that `scope` needs.
    ///
    /// # Errors
    /// [`KubernetesError`] if the API server does not answer, or not about policy, pods and namespaces.
    pub(super) async fn gather(
        client: &Client,
        kubectl: String,
        scope: Scope,
    ) -> Result<Self, KubernetesError> {
        let all = scope == Scope::All;
        // Without an answer to this, all others would only be late.
        let server = read::server(client).await?;
        let now = System::new().wall_clock();
        let settings = settings(client).await?;
        let is_installed = settings.is_some();
        let settings = settings.unwrap_or_default();
        let bundle = format!("metadata.name={TRUST_CONFIG_MAP}");
        let (objects, installed, bundles, leases, serves_policies, tried) = tokio::join!(
            read::objects(client, POLICY_SOURCES, whole),
            installed(client, &settings),
            read::list(client, ("v1", "ConfigMap"), (&bundle, "")),
            read::list(
                client,
                ("coordination.k8s.io/v1", "Lease"),
                ("metadata.namespace=kube-node-lease", "")
            ),
            serves_policies(client),
            tried(client, &settings, all),
        );
        let objects = objects?;
        let values: BTreeMap<String, Value> = objects
            .files
            .iter()
            .filter_map(|(name, json)| Some((name.clone(), serde_json::from_slice(json).ok()?)))
            .collect();
        let ask_proxies = all || scope == Scope::Proxy;
        let mut pods: Vec<ProxyPod> = pods(&values)
            .filter_map(ProxyPod::of)
            .filter(|pod| ask_proxies && pod.running)
            .collect();
        let unasked = pods.len().saturating_sub(PROXIES_MAX);
        pods.truncate(PROXIES_MAX);
        let (parts, metrics) =
            tokio::join!(parts(client, &values), proxies::metrics(client, &pods));
        Ok(Self {
            kubectl,
            now,
            server,
            objects,
            installed,
            settings,
            is_installed,
            bundles,
            leases,
            serves_policies,
            tried,
            parts,
            proxies: pods.into_iter().zip(metrics).collect(),
            unasked,
            values,
        })
    }

    /// All pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Value> {
        pods(&self.values)
    }

    /// All namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Value> {
        let all = self.values.range("Namespace/".to_owned()..);
        all.take_while(|(name, _)| name.starts_with("Namespace/"))
            .map(|(_, value)| value)
    }

    /// An object that this version installs, and what is there instead.
    pub(super) fn of_kind(
        &self,
        kind: &str,
    ) -> impl Iterator<Item = (&Value, &Result<Option<Value>, KubernetesError>)> {
        let kind = kind.to_owned();
        let all = self.installed.iter().map(|(wanted, found)| (wanted, found));
        all.filter(move |(wanted, _)| text(wanted, "/kind") == kind)
    }
}

/// A text in an object; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn pods(values: &BTreeMap<String, Value>) -> impl Iterator<Item = &Value> {
    let all = values.range("Pod/".to_owned()..);
    all.take_while(|(name, _)| name.starts_with("Pod/"))
        .map(|(_, value)| value)
}

async fn settings(client: &Client) -> Result<Option<Values>, KubernetesError> {
    let found = cluster::values_text(client).await?;
    // Values of another version that cannot be read are told of with the ConfigMap.
    Ok(found.map(|text| Values::read(&text).unwrap_or_default()))
}

async fn installed(
    client: &Client,
    settings: &Values,
) -> Vec<(Value, Result<Option<Value>, KubernetesError>)> {
    let wanted = install::objects(settings).unwrap_or_default();
    let asked = wanted.iter().map(|one| read::named(client, one));
    let found = futures_util::future::join_all(asked.collect::<Vec<_>>()).await;
    wanted.iter().cloned().zip(found).collect()
}

/// Whether the kind with which `injector.by: policy` adds proxies is served.
pub(super) async fn serves_policies(client: &Client) -> Result<bool, KubernetesError> {
    let version = policy::API_VERSION.split_once('/').unwrap_or_default();
    read::is_served(client, version, "mutatingadmissionpolicies").await
}

/// A pod that asks for a proxy, made as far as the API server would take it: the one proof that the webhook answers, or that
/// the policies are in force.
async fn tried(
    client: &Client,
    settings: &Values,
    asked: bool,
) -> Option<Result<Value, KubernetesError>> {
    let kind = match settings.injector.by == BY_POLICY {
        true => "MutatingAdmissionPolicy",
        false => "MutatingWebhookConfiguration",
    };
    let like = json!({
        "apiVersion": policy::API_VERSION, "kind": kind,
        "metadata": { "name": WEBHOOKS },
    });
    if !asked || !matches!(read::named(client, &like).await, Ok(Some(_))) {
        return None;
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "mesh-check", "namespace": "default", "annotations": { INJECT: "enabled" } },
        "spec": { "containers": [{ "name": "check", "image": "mesh-check" }] },
    });
    Some(read::try_create(client, &pod).await)
}

/// What each pod of the control plane counts: part, name, metrics.
async fn parts(
    client: &Client,
    values: &BTreeMap<String, Value>,
) -> Vec<(String, String, Result<Metrics, KubernetesError>)> {
    let parts = || {
        pods(values).filter_map(|pod| {
            let part = text(pod, "/metadata/labels/app.kubernetes.io~1component");
            let here = text(pod, "/metadata/namespace") == NAMESPACE && PARTS.contains(&part);
            (here && text(pod, "/status/phase") == "Running" && !has_proxy(pod))
                .then(|| (part, text(pod, "/metadata/name")))
        })
    };
    let metrics = proxies::ask(client, parts().map(|(_, name)| (NAMESPACE, name))).await;
    let named = parts().map(|(part, name)| (part.to_owned(), name.to_owned()));
    named
        .zip(metrics)
        .map(|((part, name), metrics)| (part, name, metrics))
        .collect()
}

/// Kinds that policy is written in, and that come with definitions of ours.
pub(super) fn policy_kinds() -> impl Iterator<Item = &'static Kind> {
    mesh_kubernetes::kinds::WITH_STATUS
        .iter()
        .filter(|kind| kind.group != "gateway.networking.k8s.io")
}
