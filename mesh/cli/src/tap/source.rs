//! Which proxies are asked, and what each of them tells: over its admin socket on this machine; on a cluster by a command in
//! its container, so that who may look is who may run commands there.

use crate::cluster::ClusterArgs;
use crate::cluster::proxies::{self, ProxyPod};
use crate::fault::Fault;
use crate::live::{Live, LiveArgs};
use mesh_api::admin_http;
use mesh_api::tap::{PATH, TapLine};
use mesh_cluster::names::PROXY;
use mesh_kubernetes::{Client, KubernetesError, exec, read};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Proxies that are looked at at once: each costs a connection, and on a cluster a process beside the proxy.
const PROXIES_MAX: usize = 50;

/// What runs the pods of a selector, and how else each is called.
const KINDS: [(&str, &str, &[&str]); 5] = [
    (
        "apps/v1",
        "Deployment",
        &["deploy", "deployment", "deployments"],
    ),
    (
        "apps/v1",
        "StatefulSet",
        &["sts", "statefulset", "statefulsets"],
    ),
    ("apps/v1", "DaemonSet", &["ds", "daemonset", "daemonsets"]),
    (
        "apps/v1",
        "ReplicaSet",
        &["rs", "replicaset", "replicasets"],
    ),
    ("batch/v1", "Job", &["job", "jobs"]),
];
const POD: [&str; 3] = ["po", "pod", "pods"];

/// Why nobody is looked at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum TapError {
    #[error("`{asked}` names nothing that has pods")]
    #[diagnostic(
        code("MESH-0430"),
        help(
            "on a cluster write `deploy/NAME`, `sts/NAME`, `ds/NAME`, `rs/NAME`, `job/NAME` or `pod/NAME`"
        )
    )]
    NoKind { asked: String },
    #[error("`-l {selector}` selects pods of a cluster, and this is a mesh on one machine")]
    #[diagnostic(
        code("MESH-0430"),
        help(
            "name workloads as `namespace/name`, a namespace with `-n`, or a cluster with `--cluster`"
        )
    )]
    NoLabels { selector: String },
    #[error("there is no proxy to look at{}", .asked.as_ref().map(|asked| format!(" of `{asked}`")).unwrap_or_default())]
    #[diagnostic(
        code("MESH-0431"),
        help("`mesh stat` lists the workloads with a proxy; pods are looked at while they run")
    )]
    NoProxy { asked: Option<String> },
    #[error("{found} proxies are too many to look at at once: at most {PROXIES_MAX}")]
    #[diagnostic(
        code("MESH-0432"),
        help("name a workload, a namespace with `-n`, or labels with `-l`")
    )]
    TooMany { found: usize },
    #[error("{proxy} cannot be looked at: {why}")]
    #[diagnostic(
        code("MESH-0433"),
        help(
            "see whether its proxy is ready, with `mesh stat`, and of this version; docs/reference/tap.md says what a tap takes"
        )
    )]
    NoTap { proxy: String, why: String },
}

/// Whose proxies are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) live: &'a LiveArgs,
    pub(crate) cluster: &'a ClusterArgs,
    /// Workloads by name; empty: all that the rest leaves.
    pub(crate) workloads: &'a [String],
    pub(crate) namespace: Option<&'a str>,
    /// Labels of pods.
    pub(crate) selector: Option<&'a str>,
}

/// One proxy that is to tell.
pub(crate) struct Proxy {
    /// `namespace/name` of its workload, or of its pod.
    pub(crate) name: String,
    way: Way,
}

enum Way {
    Socket(PathBuf),
    Pod { client: Client, pod: ProxyPod },
}

/// What a proxy tells.
pub(crate) enum Told {
    Socket(admin_http::Lines),
    Pod(Box<exec::Lines>),
    #[cfg(test)]
    Test(tokio::sync::mpsc::Receiver<&'static str>),
}

/// The proxies that are meant.
///
/// # Errors
/// If there are none, or too many, or the cluster does not answer.
pub(crate) async fn proxies(wanted: Wanted<'_>) -> Result<Vec<Proxy>, Fault> {
    let found = match wanted.cluster.is_meant(wanted.live) {
        true => of_cluster(wanted).await?,
        false => of_machine(wanted)?,
    };
    match found.len() {
        0 => Err(TapError::NoProxy { asked: None }.into()),
        1..=PROXIES_MAX => Ok(found),
        found => Err(Fault::usage(&TapError::TooMany { found })),
    }
}

fn of_machine(wanted: Wanted<'_>) -> Result<Vec<Proxy>, Fault> {
    if let Some(selector) = wanted.selector.map(str::to_owned) {
        return Err(Fault::usage(&TapError::NoLabels { selector }));
    }
    let live = Live::find(wanted.live)?;
    let all = match wanted.workloads.is_empty() {
        true => live.proxies().collect(),
        false => {
            let named = wanted.workloads.iter().map(|asked| live.proxy(asked));
            named.collect::<Result<Vec<_>, _>>()?
        }
    };
    let is_in = |namespace: &str| wanted.namespace.is_none_or(|wanted| wanted == namespace);
    let all = all.into_iter().filter(|(one, _)| is_in(&one.namespace));
    let mut found: Vec<Proxy> = all
        .map(|(one, proxy)| Proxy {
            name: format!("{}/{}", one.namespace, one.name),
            way: Way::Socket(proxy.socket.clone()),
        })
        .collect();
    once_each(&mut found);
    Ok(found)
}

/// What is meant twice is looked at once.
fn once_each(proxies: &mut Vec<Proxy>) {
    proxies.sort_by(|a, b| a.name.cmp(&b.name));
    proxies.dedup_by(|a, b| a.name == b.name);
}

async fn of_cluster(wanted: Wanted<'_>) -> Result<Vec<Proxy>, Fault> {
    // Read before anything is asked: a word that means nothing needs no cluster.
    let named = wanted.workloads.iter().map(|asked| Meant::read(asked));
    let named = named
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Fault::usage(&error))?;
    let client = wanted.cluster.connect().await?;
    let mut pods = Vec::new();
    if named.is_empty() {
        pods = proxies::list(&client, wanted.namespace, wanted.selector).await?;
    }
    for one in named {
        // As kubectl takes it: a name belongs to a namespace, that of the context unless another is named.
        let namespace = wanted.namespace.unwrap_or(client.default_namespace());
        let found = one.pods(&client, namespace).await?;
        if !found.iter().any(|pod| pod.running) {
            let asked = Some(format!("{}/{} in {namespace}", one.kind(), one.name));
            return Err(TapError::NoProxy { asked }.into());
        }
        pods.extend(found);
    }
    let running = pods.into_iter().filter(|pod| pod.running);
    let mut found: Vec<Proxy> = running
        .map(|pod| Proxy {
            name: pod.title(),
            way: Way::Pod {
                client: client.clone(),
                pod,
            },
        })
        .collect();
    once_each(&mut found);
    Ok(found)
}

/// What a word of the command line means on a cluster.
#[derive(Debug, PartialEq)]
struct Meant<'a> {
    /// `apiVersion` and `kind` of what runs the pods; none: it is a pod itself.
    of: Option<(&'static str, &'static str)>,
    name: &'a str,
}

impl<'a> Meant<'a> {
    fn read(asked: &'a str) -> Result<Self, TapError> {
        let nothing = || TapError::NoKind {
            asked: asked.to_owned(),
        };
        let (kind, name) = asked.split_once('/').ok_or_else(nothing)?;
        let kind = kind.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(nothing());
        }
        if POD.contains(&kind.as_str()) {
            return Ok(Self { of: None, name });
        }
        let known = KINDS
            .iter()
            .find(|(.., names)| names.contains(&kind.as_str()));
        let (version, kind, _) = known.ok_or_else(nothing)?;
        Ok(Self {
            of: Some((version, kind)),
            name,
        })
    }

    fn kind(&self) -> &'static str {
        self.of.map_or("Pod", |(_, kind)| kind)
    }

    async fn pods(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Result<Vec<ProxyPod>, KubernetesError> {
        let (version, kind) = self.of.unwrap_or(("v1", "Pod"));
        let like = json!({
            "apiVersion": version, "kind": kind, "metadata": { "namespace": namespace, "name": self.name },
        });
        let Some(found) = read::named(client, &like).await? else {
            return Ok(Vec::new());
        };
        match self.of {
            None => Ok(ProxyPod::of(&found).into_iter().collect()),
            Some(_) => match labels(&found) {
                Some(labels) => proxies::list(client, Some(namespace), Some(&labels)).await,
                None => Ok(Vec::new()),
            },
        }
    }
}

/// The selector of pods of a Deployment or the like, as the API server reads one; none if it selects nothing, or in a way
/// that is not known here: half of a selector selects more than the whole.
fn labels(of: &Value) -> Option<String> {
    let selector = of.pointer("/spec/selector")?;
    let mut out = Vec::new();
    for (name, value) in selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        out.push(format!("{name}={}", value.as_str()?));
    }
    for one in selector
        .get("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let key = one.get("key")?.as_str()?;
        let values = one.get("values").and_then(Value::as_array);
        let values = values.into_iter().flatten().map(Value::as_str);
        let values = values.collect::<Option<Vec<_>>>()?.join(",");
        out.push(match one.get("operator")?.as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!out.is_empty()).then(|| out.join(","))
}

impl Proxy {
    /// Why it is not looked at, or no longer.
    pub(crate) fn no_tap(&self, why: impl Into<String>) -> Fault {
        let (proxy, why) = (self.name.clone(), why.into());
        TapError::NoTap { proxy, why }.into()
    }

    /// Whether this is its to tell. Whoever makes a pod names its containers: what it says of other namespaces is no
    /// more than its word.
    pub(crate) fn may_tell(&self, line: &TapLine) -> bool {
        let Way::Pod { pod, .. } = &self.way else {
            return true;
        };
        let workload = match line {
            TapLine::Request(request) => &request.workload,
            TapLine::Connection(stream) => &stream.workload,
            TapLine::Missed { .. } | TapLine::Open | TapLine::Idle => return true,
        };
        is_of(workload, &pod.namespace)
    }

    #[cfg(test)]
    pub(crate) fn for_test(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            way: Way::Socket(PathBuf::new()),
        }
    }

    /// Asks for a tap.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) async fn ask(&self, query: &str) -> Result<Told, Fault> {
        match &self.way {
            Way::Socket(socket) => {
                let lines = admin_http::follow(socket, &format!("{PATH}?{query}")).await?;
                Ok(Told::Socket(lines))
            }
            Way::Pod { client, pod } => {
                let container = (pod.namespace.as_str(), pod.name.as_str(), PROXY);
                let lines = exec::lines(client, container, &command(query)).await?;
                Ok(Told::Pod(Box::new(lines)))
            }
        }
    }
}

/// Whether a workload, as `namespace/name`, is of this namespace.
fn is_of(workload: &str, namespace: &str) -> bool {
    workload
        .split_once('/')
        .is_some_and(|(of, _)| of == namespace)
}

/// What runs in the container of a proxy: its own configuration says where its admin socket is.
fn command(query: &str) -> [&str; 6] {
    [
        "/mesh-proxy",
        "tap",
        "--config",
        "env:MESH_PROXY_CONFIG",
        "--until-stdin-ends",
        query,
    ]
}

impl Told {
    /// The next line; `None`: there are no more.
    ///
    /// # Errors
    /// Why it broke off.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match self {
            Self::Socket(lines) => Ok(lines.next().await?),
            Self::Pod(lines) => Ok(lines.next().await?),
            #[cfg(test)]
            Self::Test(lines) => Ok(lines.recv().await.map(|line| line.as_bytes().to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_pods_or_what_runs_them() {
        for (word, want) in [
            ("pod/web-0", Some((None, "web-0"))),
            ("po/web-0", Some((None, "web-0"))),
            ("deploy/web", Some((Some(("apps/v1", "Deployment")), "web"))),
            (
                "Deployment/web",
                Some((Some(("apps/v1", "Deployment")), "web")),
            ),
            ("job/x", Some((Some(("batch/v1", "Job")), "x"))),
            ("web", None),
            ("shop/web", None),
            ("deploy/", None),
            ("pod/../secrets", None),
            ("pod/a?b", None),
        ] {
            let meant = Meant::read(word).ok().map(|meant| (meant.of, meant.name));
            assert_eq!(meant, want, "{word}");
        }
    }

    #[test]
    fn a_selector_is_taken_whole_or_not_at_all() {
        let of = |selector: Value| labels(&json!({ "spec": { "selector": selector } }));
        assert_eq!(
            of(json!({
                "matchLabels": { "app": "cart" },
                "matchExpressions": [
                    { "key": "tier", "operator": "In", "values": ["a", "b"] },
                    { "key": "old", "operator": "DoesNotExist" },
                ],
            }))
            .as_deref(),
            Some("app=cart,tier in (a,b),!old")
        );
        for odd in [
            json!({}),
            json!({ "matchLabels": { "app": "cart" }, "matchExpressions": [{ "key": "x", "operator": "Near" }] }),
            json!({ "matchLabels": { "app": 7 } }),
        ] {
            assert_eq!(of(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn a_workload_is_of_one_namespace() {
        assert!(is_of("shop/web", "shop"));
        for (workload, namespace) in [
            ("bank/web", "shop"),
            ("shop", "shop"),
            ("", ""),
            ("shopper/web", "shop"),
            ("bank/shop/web", "shop"),
        ] {
            assert!(!is_of(workload, namespace), "{workload} in {namespace}");
        }
    }

    #[test]
    fn what_is_meant_twice_is_looked_at_once() {
        let mut all = Vec::from(["shop/web", "shop/cart", "shop/web"].map(Proxy::for_test));
        once_each(&mut all);
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["shop/cart", "shop/web"]);
    }
}
