//! Pods that have a proxy, and what these say of themselves: asked by the API server, so that no port of a pod needs to be
//! reachable from here.

use super::exposition::Metrics;
use futures_util::stream::{StreamExt, iter};
use mesh_cluster::names::{INJECTED_BY, MESHED_LABEL, PROXY, ports};
use mesh_kubernetes::{Client, KubernetesError, read};
use serde_json::Value;

/// Pods that are asked at a time.
const ASKED_AT_ONCE: usize = 32;

/// A pod with a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyPod {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its service account.
    pub(crate) service_account: String,
    /// Whether it runs: others cannot be asked.
    pub(crate) running: bool,
    /// Whether its proxy's container is ready.
    pub(crate) ready: bool,
    /// Version of the mesh that added the proxy.
    pub(crate) injected_by: String,
}

impl ProxyPod {
    /// Reads a Pod; `None` if it has no proxy.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        has_proxy(pod).then_some(())?;
        let text = |path: &str| {
            let found = pod.pointer(path).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let annotation = pod
            .pointer("/metadata/annotations")
            .and_then(|all| all.get(INJECTED_BY))
            .and_then(Value::as_str);
        let account = match text("/spec/serviceAccountName") {
            empty if empty.is_empty() => "default".to_owned(),
            name => name,
        };
        Some(Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            service_account: account,
            running: text("/status/phase") == "Running"
                && pod.pointer("/metadata/deletionTimestamp").is_none(),
            ready: container_ready(pod),
            injected_by: annotation.unwrap_or_default().to_owned(),
        })
    }

    /// `namespace/name`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Whether a container of the pod is the mesh's proxy.
pub(crate) fn has_proxy(pod: &Value) -> bool {
    let lists = ["/spec/initContainers", "/spec/containers"];
    let mut containers = lists
        .into_iter()
        .filter_map(|path| pod.pointer(path)?.as_array())
        .flatten();
    containers.any(|one| one.get("name").and_then(Value::as_str) == Some(PROXY))
}

fn container_ready(pod: &Value) -> bool {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let mut statuses = lists
        .into_iter()
        .filter_map(|path| pod.pointer(path)?.as_array())
        .flatten();
    statuses.any(|one| {
        one.get("name").and_then(Value::as_str) == Some(PROXY)
            && one.get("ready").and_then(Value::as_bool) == Some(true)
    })
}

/// All pods with a proxy, sorted by namespace and name; of one namespace if one is named, and those with `labels` if some
/// are.
///
/// # Errors
/// [`KubernetesError`] if pods cannot be listed.
pub(crate) async fn list(
    client: &Client,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<ProxyPod>, KubernetesError> {
    let labels = labels.map(|labels| format!("{MESHED_LABEL},{labels}"));
    let labels = labels.as_deref().unwrap_or(MESHED_LABEL);
    let pods = read::list_in(client, ("v1", "Pod"), namespace, ("", labels)).await?;
    let mut out: Vec<ProxyPod> = pods.iter().filter_map(ProxyPod::of).collect();
    out.sort_by_key(ProxyPod::title);
    Ok(out)
}

/// What the proxies of these count, in their order.
pub(crate) async fn metrics(
    client: &Client,
    pods: &[ProxyPod],
) -> Vec<Result<Metrics, KubernetesError>> {
    let named = pods.iter();
    ask(client, named.map(|pod| (&*pod.namespace, &*pod.name))).await
}

/// What these pods count on their admin port, by namespace and name, in their order.
pub(crate) async fn ask<'a>(
    client: &Client,
    pods: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<Result<Metrics, KubernetesError>> {
    let asked = pods.into_iter().map(|(namespace, name)| async move {
        let text = read::ask_pod(client, (namespace, name, ports::ADMIN), "/metrics").await?;
        Ok(Metrics::read(&text))
    });
    iter(asked.collect::<Vec<_>>())
        .buffered(ASKED_AT_ONCE)
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_with_a_proxy_is_known_wherever_its_container_stands() {
        let mut pod = json!({
            "metadata": { "namespace": "shop", "name": "cart-0", "annotations": { INJECTED_BY: "0.1.0" } },
            "spec": { "initContainers": [{ "name": PROXY }], "containers": [{ "name": "app" }] },
            "status": { "phase": "Running", "initContainerStatuses": [{ "name": PROXY, "ready": true }] },
        });
        let read = ProxyPod::of(&pod).expect("a proxy");
        assert_eq!(
            (read.title().as_str(), read.service_account.as_str()),
            ("shop/cart-0", "default")
        );
        assert!(read.running && read.ready);
        pod["metadata"]["deletionTimestamp"] = "now".into();
        assert!(!ProxyPod::of(&pod).expect("a proxy").running);
        pod["spec"]["initContainers"] = json!([]);
        assert_eq!(ProxyPod::of(&pod), None);
    }
}
