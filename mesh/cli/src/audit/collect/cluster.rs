//! A bundle of a Kubernetes cluster: its objects, the generation in force, and what proxies count.
//!
//! Logs stay in their pods and nothing signs what a proxy counts in memory. So whatever rests on traffic is insufficient
//! data, and says why; what was seen to be wrong is shown all the same.

use super::super::source::CollectedArgs;
use super::{Given, empty_log};
use crate::cluster;
use crate::cluster::exposition::Metrics;
use crate::cluster::proxies::{self, has_proxy};
use crate::fault::Fault;
use crate::live;
use crate::parts::api_server;
use mesh_cluster::install::Values;
use mesh_cluster::names::{CONFIG, NAMESPACE};
use mesh_compliance::bundle::{
    Broken, Bundle, Log, LogKind, ManifestFile, Scope, Traffic, Workload,
};
use mesh_kubernetes::kinds::POLICY_SOURCES;
use mesh_kubernetes::{Client, object, read};
use mesh_platform::{Platform as _, System};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use mesh_trust::TrustDomain;
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a cluster gives no bundle.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum ClusterError {
    #[error("no mesh is installed in namespace `{NAMESPACE}` of this cluster: {why}")]
    #[diagnostic(
        code("MESH-0672"),
        help("`mesh install` prints what to apply; `--context NAME` names another cluster")
    )]
    NoMesh { why: String },
}

/// Collects what a cluster shows.
///
/// # Errors
/// If the API server does not list everything, or no mesh is there.
pub(super) fn collect(args: &CollectedArgs, given: &Given) -> Result<Bundle, Fault> {
    live::wait(async {
        let client = api_server(&args.api_server).await?;
        let values = values(&client).await?;
        let objects = read::objects(&client, POLICY_SOURCES, object::essence)
            .await?
            .files;
        let pods: Vec<Pod> = objects
            .iter()
            .filter(|(name, _)| name.starts_with("Pod/"))
            .filter_map(|(_, json)| Pod::of(json))
            .collect();
        let until = System::new().wall_clock();
        let trust_domain = TrustDomain::parse(&values.trust_domain)
            .map_err(|error| no_mesh(format!("its trust domain is none: {error}")))?;
        let mut bundle = Bundle::of(Scope {
            since: args.since.time(until).min(until),
            until,
            trust_domain,
            default_policy: values.default_policy.clone(),
            generation: 0,
            collected_from: "cluster".to_owned(),
            collector: env!("CARGO_PKG_VERSION").to_owned(),
            leaf_lifetime_secs_max: args.leaf_lifetime.as_secs(),
        });
        let (controllers, pods): (Vec<Pod>, Vec<Pod>) =
            pods.into_iter().partition(|pod| pod.namespace == NAMESPACE);
        control_plane(&client, &controllers, &mut bundle).await;
        workloads(&client, &pods, &mut bundle).await;
        bundle.files = objects
            .into_iter()
            .map(|(name, json)| ManifestFile {
                name,
                text: String::from_utf8_lossy(&json).into_owned(),
            })
            .collect();
        bundle.zones.clone_from(&given.zones);
        sort(&mut bundle);
        Ok(bundle)
    })
}

async fn values(client: &Client) -> Result<Values, Fault> {
    let text = cluster::values_text(client).await?;
    let text = text
        .filter(|text| !text.is_empty())
        .ok_or_else(|| no_mesh(format!("it has no ConfigMap `{CONFIG}`")))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| no_mesh(format!("its ConfigMap `{CONFIG}`: {error}")))
}

fn no_mesh(why: String) -> Fault {
    Fault::from(ClusterError::NoMesh { why })
}

/// A pod that is not over.
struct Pod {
    namespace: String,
    name: String,
    service_account: String,
    meshed: bool,
    controller: bool,
}

impl Pod {
    fn of(json: &[u8]) -> Option<Self> {
        let object: Value = serde_json::from_slice(json).ok()?;
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        if matches!(text("/status/phase"), Some("Succeeded" | "Failed")) {
            return None;
        }
        let account = text("/spec/serviceAccountName");
        Some(Self {
            namespace: text("/metadata/namespace")?.to_owned(),
            name: text("/metadata/name")?.to_owned(),
            service_account: account.unwrap_or("default").to_owned(),
            meshed: has_proxy(&object),
            controller: account == Some("mesh-controller"),
        })
    }

    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// Generation of the policy in force; and that the control plane's logs were not read.
async fn control_plane(client: &Client, pods: &[Pod], bundle: &mut Bundle) {
    let controllers = pods.iter().filter(|pod| pod.controller).map(Pod::key);
    for metrics in proxies::ask(client, controllers).await.iter().flatten() {
        let newest = metrics.count("mesh_controller_generation");
        bundle.scope.generation = bundle.scope.generation.max(newest.unwrap_or_default());
    }
    for (origin, records) in [
        ("controller", LogKind::Changes),
        ("issuance", LogKind::Issuance),
    ] {
        let why = "it stays in its pod, and was not read".to_owned();
        bundle.logs.push(unread(empty_log(origin, records), why));
    }
}

/// Who runs; and of those with a proxy what it counts, and that its log was not read.
async fn workloads(client: &Client, pods: &[Pod], bundle: &mut Bundle) {
    bundle.workloads.extend(pods.iter().map(|pod| Workload {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        service_account: pod.service_account.clone(),
        meshed: pod.meshed,
        allow_sample_ppm: 0,
    }));
    let meshed = || pods.iter().filter(|pod| pod.meshed);
    let told = proxies::ask(client, meshed().map(Pod::key)).await;
    for (pod, told) in meshed().zip(told) {
        let why = match told {
            Ok(metrics) => {
                bundle.traffic.extend(traffic(pod, &metrics));
                "it stays in its pod; what its proxy counts since it started was read, which nothing proves".to_owned()
            }
            Err(error) => {
                format!("it stays in its pod, and what its proxy counts was not told: {error}")
            }
        };
        let log = Log {
            namespace: Some(pod.namespace.clone()),
            workload: Some(pod.name.clone()),
            ..empty_log(
                &format!("{}.{}", pod.namespace, pod.name),
                LogKind::Decisions,
            )
        };
        bundle.logs.push(unread(log, why));
    }
}

fn unread(log: Log, message: String) -> Log {
    Log {
        broken: Some(Broken {
            code: "MESH-0676".to_owned(),
            message,
            line: 0,
        }),
        ..log
    }
}

/// Decisions as a proxy counts them. It names one policy of those that allow.
fn traffic(pod: &Pod, metrics: &Metrics) -> Vec<Traffic> {
    let mut out: BTreeMap<String, Traffic> = BTreeMap::new();
    for (one, count) in metrics.counts().filter(|(_, count)| *count > 0) {
        let (protocol, verdict) = match one.name.as_str() {
            "inbound_http_authz_allow_total" => (Protocol::Http, Verdict::Allow),
            "inbound_http_authz_deny_total" => (Protocol::Http, Verdict::Deny),
            "inbound_tcp_authz_allow_total" => (Protocol::Tcp, Verdict::Allow),
            "inbound_tcp_authz_deny_total" => (Protocol::Tcp, Verdict::Deny),
            _ => continue,
        };
        let label = |name: &str| match one.label(name) {
            "" => None,
            text => Some(text.to_owned()),
        };
        let Some(port) = label("target_port").and_then(|port| port.parse().ok()) else {
            continue;
        };
        let tls = label("tls").as_deref() == Some("true");
        let reasons = match (
            label("authz_kind"),
            label("authz_namespace"),
            label("authz_name"),
        ) {
            (Some(kind), _, Some(name)) if kind == "default" => vec![format!("default/{name}")],
            (Some(kind), Some(namespace), Some(name)) => {
                vec![format!("{kind}/{namespace}/{name}/0")]
            }
            _ => Vec::new(),
        };
        let class = Traffic {
            namespace: pod.namespace.clone(),
            workload: pod.name.clone(),
            port,
            server: label("srv_name").filter(|_| label("srv_kind").as_deref() == Some("server")),
            client: label("client_id").filter(|_| tls),
            tls,
            ip: None,
            protocol,
            method: None,
            route: None,
            verdict,
            phase: Phase::Permit,
            status: None,
            reasons,
            audit: false,
            count,
            first: None,
            last: None,
        };
        // Series that differ in labels which make no class are one.
        let mut alone = class.clone();
        alone.count = 0;
        let key = serde_json::to_string(&alone).unwrap_or_default();
        match out.get_mut(&key) {
            Some(same) => same.count = same.count.saturating_add(class.count),
            None => drop(out.insert(key, class)),
        }
    }
    out.into_values().collect()
}

fn sort(bundle: &mut Bundle) {
    bundle
        .workloads
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    bundle.logs.sort_by(|a, b| a.origin.cmp(&b.origin));
    bundle.files.sort_by(|a, b| a.name.cmp(&b.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: "cart-0".to_owned(),
            service_account: "cart".to_owned(),
            meshed: true,
            controller: false,
        }
    }

    #[test]
    fn what_a_proxy_counts_becomes_classes() {
        let text = "# HELP x y\n\
            inbound_http_authz_allow_total{target_port=\"8080\",tls=\"true\",client_id=\"spiffe://d/ns/a/sa/b\",srv_group=\"policy.linkerd.io\",srv_kind=\"server\",srv_namespace=\"shop\",srv_name=\"cart\",srv_port=\"8080\",authz_group=\"policy.linkerd.io\",authz_kind=\"AuthorizationPolicy\",authz_namespace=\"shop\",authz_name=\"w\"} 3\n\
            inbound_tcp_authz_deny_total{target_port=\"9000\",tls=\"false\",client_id=\"\",srv_group=\"\",srv_kind=\"default\",srv_namespace=\"shop\",srv_name=\"default\",srv_port=\"9000\"} 1\n\
            inbound_tcp_authz_deny_total{target_port=\"1\",tls=\"false\"} 0\n";
        let found = traffic(&pod(), &Metrics::read(text));
        let allowed = found
            .iter()
            .find(|one| one.verdict == Verdict::Allow)
            .unwrap();
        assert_eq!(
            (allowed.count, allowed.server.as_deref()),
            (3, Some("cart"))
        );
        assert_eq!(allowed.reasons, ["AuthorizationPolicy/shop/w/0"]);
        assert_eq!(allowed.client.as_deref(), Some("spiffe://d/ns/a/sa/b"));
        let denied = found
            .iter()
            .find(|one| one.verdict == Verdict::Deny)
            .unwrap();
        assert_eq!(
            (denied.port, denied.server.as_deref(), denied.tls),
            (9000, None, false)
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_label_cannot_end_itself_or_begin_another() {
        let text = r#"inbound_tcp_authz_deny_total{target_port="1",tls="true",client_id="a\",tls=\"false\\"} 2"#;
        let found = traffic(&pod(), &Metrics::read(text));
        assert_eq!(found[0].client.as_deref(), Some(r#"a",tls="false\"#));
        for broken in [
            "x{a=\"1} 1",
            "x{a=1} 1",
            "x{a=\"1\" 1",
            "x 1.5",
            "x",
            "x{a=\"\\",
        ] {
            assert_eq!(Metrics::read(broken).counts().count(), 0, "{broken}");
        }
    }
}
