//! A bundle of a Kubernetes cluster: its objects, the generation in force, and what proxies count.
//!
//! Logs stay in their pods and nothing signs what a proxy counts in memory. So whatever rests on traffic is insufficient
//! data, and says why; what was seen to be wrong is shown all the same.

use super::super::source::CollectedArgs;
use super::{Given, empty_log};
use crate::fault::Fault;
use crate::live;
use crate::parts::api_server;
use mesh_cluster::install::Values;
use mesh_cluster::names::{NAMESPACE, PROXY, ports};
use mesh_compliance::bundle::{
    Broken, Bundle, Log, LogKind, ManifestFile, Scope, Traffic, Workload,
};
use mesh_kubernetes::kinds::POLICY_SOURCES;
use mesh_kubernetes::{Client, config_map, object, read};
use mesh_platform::{Platform as _, System};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use mesh_trust::TrustDomain;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// ConfigMap of what was installed, and its key.
const CONFIG: (&str, &str) = ("mesh-config", "values.yaml");

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
        for pod in &pods {
            workload(&client, pod, &mut bundle).await;
        }
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
    let text = config_map::read(client, NAMESPACE, CONFIG.0, CONFIG.1).await?;
    let text = text.ok_or_else(|| no_mesh(format!("it has no ConfigMap `{}`", CONFIG.0)))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| no_mesh(format!("its ConfigMap `{}`: {error}", CONFIG.0)))
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
        let lists = ["/spec/containers", "/spec/initContainers"];
        let containers = lists
            .iter()
            .filter_map(|path| object.pointer(path)?.as_array());
        let mut names = containers
            .flatten()
            .filter_map(|one| one.get("name")?.as_str());
        let account = text("/spec/serviceAccountName");
        Some(Self {
            namespace: text("/metadata/namespace")?.to_owned(),
            name: text("/metadata/name")?.to_owned(),
            service_account: account.unwrap_or("default").to_owned(),
            meshed: names.any(|name| name == PROXY),
            controller: account == Some("mesh-controller"),
        })
    }
}

/// Generation of the policy in force; and that the control plane's logs were not read.
async fn control_plane(client: &Client, pods: &[Pod], bundle: &mut Bundle) {
    for pod in pods.iter().filter(|pod| pod.controller) {
        let at = (pod.namespace.as_str(), pod.name.as_str(), ports::ADMIN);
        if let Ok(text) = read::ask_pod(client, at, "/metrics").await {
            let of = samples(&text).filter(|one| one.name == "mesh_controller_generation");
            let newest = of.map(|one| one.value).max().unwrap_or_default();
            bundle.scope.generation = bundle.scope.generation.max(newest);
        }
    }
    for (origin, records) in [
        ("controller", LogKind::Changes),
        ("issuance", LogKind::Issuance),
    ] {
        let why = "it stays in its pod, and was not read".to_owned();
        bundle.logs.push(unread(empty_log(origin, records), why));
    }
}

async fn workload(client: &Client, pod: &Pod, bundle: &mut Bundle) {
    bundle.workloads.push(Workload {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        service_account: pod.service_account.clone(),
        meshed: pod.meshed,
        allow_sample_ppm: 0,
    });
    if !pod.meshed {
        return;
    }
    let at = (pod.namespace.as_str(), pod.name.as_str(), ports::ADMIN);
    let why = match read::ask_pod(client, at, "/metrics").await {
        Ok(text) => {
            bundle.traffic.extend(traffic(pod, &text));
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

/// One line of Prometheus' text format.
struct Sample<'t> {
    name: &'t str,
    labels: HashMap<&'t str, String>,
    value: u64,
}

/// Lines that are whole numbers; others are not looked at.
fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = match series.split_once('{') {
                None => (series, HashMap::new()),
                Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
            };
            Some(Sample {
                name,
                labels,
                value: value.parse().ok()?,
            })
        })
}

/// `a="1",b="2"`, with `\\`, `\"` and `\n` in values.
fn labels(mut text: &str) -> Option<HashMap<&str, String>> {
    let mut out = HashMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        out.insert(name, value);
        let rest = rest.get(end + 1..)?;
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(out)
}

/// Decisions as a proxy counts them. It names one policy of those that allow.
fn traffic(pod: &Pod, text: &str) -> Vec<Traffic> {
    let mut out: BTreeMap<String, Traffic> = BTreeMap::new();
    for one in samples(text).filter(|one| one.value > 0) {
        let (protocol, verdict) = match one.name {
            "inbound_http_authz_allow_total" => (Protocol::Http, Verdict::Allow),
            "inbound_http_authz_deny_total" => (Protocol::Http, Verdict::Deny),
            "inbound_tcp_authz_allow_total" => (Protocol::Tcp, Verdict::Allow),
            "inbound_tcp_authz_deny_total" => (Protocol::Tcp, Verdict::Deny),
            _ => continue,
        };
        let label = |name: &str| {
            one.labels
                .get(name)
                .filter(|text| !text.is_empty())
                .cloned()
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
            count: one.value,
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
        let found = traffic(&pod(), text);
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
        let found = traffic(&pod(), text);
        assert_eq!(found[0].client.as_deref(), Some(r#"a",tls="false\"#));
        for broken in [
            "x{a=\"1} 1",
            "x{a=1} 1",
            "x{a=\"1\" 1",
            "x 1.5",
            "x",
            "x{a=\"\\",
        ] {
            assert_eq!(samples(broken).count(), 0, "{broken}");
        }
    }
}
