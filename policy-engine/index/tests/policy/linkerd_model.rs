//! Linkerd's policy, small and slow: the second opinion in the tables of these tests.
//!
//! It says what Linkerd answers, traps included, so that a table can show where this mesh differs. It shares nothing
//! with our engine: manifests are read by another YAML library, and nothing is compiled or cached. What no table needs is
//! left out: Services, rate limits, filters, and regular expressions in headers.

mod admission;
mod routes;

use crate::world::Ask;
use ipnet::IpNet;
use mesh_policy::request::Protocol;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Allow,
    /// 403, or gRPC status 7.
    Forbidden,
    /// 404, or gRPC status 5.
    NotFound,
    /// 400: this mesh alone refuses heads.
    BadRequest,
    /// A closed connection.
    Closed,
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Forbidden => "403",
            Self::NotFound => "404",
            Self::BadRequest => "400",
            Self::Closed => "closed",
        })
    }
}

/// A cluster with Linkerd in it.
pub(crate) struct Linkerd {
    /// By kind and group, namespace, name.
    objects: BTreeMap<[String; 3], Value>,
    default_policy: String,
    /// Whether the validating webhook answers; by default an installation admits everything while it does not.
    webhook: bool,
}

/// One authorization: a client must satisfy both.
struct Authorization {
    networks: Vec<(IpNet, Vec<IpNet>)>,
    tls: Tls,
}

enum Tls {
    Unauthenticated,
    Any,
    /// Exact names, and suffixes with `*` in front.
    Identities(Vec<String>),
}

struct Client {
    ip: IpAddr,
    tls: bool,
    /// DNS name or SPIFFE URI.
    id: Option<String>,
}

const CLUSTER_NETWORKS: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fd00::/8",
];

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn list<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

impl Linkerd {
    pub(crate) fn new(default_policy: &str) -> Self {
        Self {
            objects: BTreeMap::new(),
            default_policy: default_policy.to_owned(),
            webhook: true,
        }
    }

    /// The same with its webhook away (`failurePolicy: Ignore`): invalid objects are stored.
    pub(crate) fn without_webhook(self) -> Self {
        Self {
            webhook: false,
            ..self
        }
    }

    /// Writes documents, each if it is admitted. A refused write leaves in force what was there before.
    pub(crate) fn apply(&mut self, documents: &str) {
        let Ok(documents) = serde_saphyr::from_multiple::<Value>(documents) else {
            return;
        };
        for document in documents.into_iter().filter(|d| !d.is_null()) {
            if self.webhook && admission::admit(&document).is_err() {
                continue;
            }
            self.objects.insert(key(&document), document);
        }
    }

    /// Deletes the one object of a kind and name.
    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        let before = self.objects.len();
        self.objects
            .retain(|key, _| !(key[0].starts_with(kind) && key[2] == name));
        assert_eq!(self.objects.len() + 1, before, "{kind} {name}");
    }

    /// Whether admission takes a document.
    pub(crate) fn admits(document: &str) -> Result<(), String> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(document).map_err(|e| e.to_string())?;
        documents
            .iter()
            .filter(|d| !d.is_null())
            .try_for_each(admission::admit)
    }

    fn all<'a>(&'a self, kind: &str, namespace: &str) -> Vec<&'a Value> {
        let objects = self.objects.iter();
        let here = objects.filter(|(key, _)| key[0].starts_with(kind) && key[1] == namespace);
        let mut out: Vec<&Value> = here.map(|(_, value)| value).collect();
        let age = |v: &Value| text(v, "/metadata/creationTimestamp").map(str::to_owned);
        out.sort_by_key(|v| (age(v).is_none(), age(v), key(v)[2].clone()));
        out
    }

    fn one(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.all(kind, namespace)
            .into_iter()
            .find(|v| text(v, "/metadata/name") == Some(name))
    }

    /// The answer to a request.
    pub(crate) fn says(&self, ask: &Ask) -> Says {
        let (namespace, port) = (ask.0.server.namespace.as_str(), ask.0.server.port);
        let pod = self
            .one("Pod", namespace, ask.0.server.pod.as_deref().unwrap())
            .unwrap();
        let client = Client::of(ask);
        let servers = self.all("Server.", namespace);
        let server = servers.into_iter().find(|s| selects(s, pod, port));
        let protocol = match server {
            Some(server) => text(server, "/spec/proxyProtocol").unwrap_or("unknown"),
            None if ports(annotation(pod, "config.linkerd.io/opaque-ports")).contains(&port) => {
                "opaque"
            }
            None => "unknown",
        };
        let mut grants = match server {
            Some(server) => self.server_grants(server, namespace),
            None => self.mode_grants(&self.default_mode(pod, namespace, port)),
        };
        grants.push(Authorization::localhost());
        let allowed = |grants: &[Authorization]| grants.iter().any(|g| g.holds(&client));
        let bytes = ask.0.protocol == Protocol::Tcp;
        if bytes || matches!(protocol, "opaque" | "TLS") {
            // Detection that finds no HTTP falls back to the grants of the Server, whatever routes there are.
            let carried = !bytes || !matches!(protocol, "HTTP/1" | "HTTP/2" | "gRPC");
            return if carried && allowed(&grants) {
                Says::Allow
            } else {
                Says::Closed
            };
        }
        let routes = self.routes(server, namespace, protocol);
        if routes.is_empty() {
            let probed = routes::is_probe(pod, port, ask);
            return if probed || allowed(&grants) {
                Says::Allow
            } else {
                Says::Forbidden
            };
        }
        let Some(route) = routes::best(&routes, ask) else {
            return Says::NotFound;
        };
        grants.extend(self.route_grants(route, namespace));
        if allowed(&grants) {
            Says::Allow
        } else {
            Says::Forbidden
        }
    }

    /// Pod annotation, else that of the namespace (copied at injection), else the cluster's; an invalid one is passed over.
    fn default_mode(&self, pod: &Value, namespace: &str, port: u16) -> String {
        let name = "config.linkerd.io/default-inbound-policy";
        let of_namespace = self
            .one("Namespace", "", namespace)
            .and_then(|n| annotation(n, name));
        let given = annotation(pod, name)
            .or(of_namespace)
            .filter(|m| admission::MODES.contains(m));
        let mode = given.unwrap_or(&self.default_policy);
        let required = ports(annotation(
            pod,
            "config.linkerd.io/proxy-require-identity-inbound-ports",
        ));
        match mode {
            "all-unauthenticated" if required.contains(&port) => "all-authenticated".to_owned(),
            "cluster-unauthenticated" if required.contains(&port) => {
                "cluster-authenticated".to_owned()
            }
            _ => mode.to_owned(),
        }
    }

    fn mode_grants(&self, mode: &str) -> Vec<Authorization> {
        let networks = if mode.starts_with("cluster-") {
            cluster_networks()
        } else {
            everywhere()
        };
        let tls = match mode {
            "deny" => return Vec::new(),
            "all-authenticated" | "cluster-authenticated" => Tls::Identities(vec!["*".to_owned()]),
            _ => Tls::Unauthenticated,
        };
        vec![Authorization { networks, tls }]
    }

    fn server_grants(&self, server: &Value, namespace: &str) -> Vec<Authorization> {
        let name = text(server, "/metadata/name").unwrap();
        let mut out = self.mode_grants(text(server, "/spec/accessPolicy").unwrap_or("deny"));
        for policy in self.all("ServerAuthorization.", namespace) {
            let named = text(policy, "/spec/server/name") == Some(name);
            let selector = policy.pointer("/spec/server/selector");
            if named || selector.is_some_and(|s| matches_labels(s, server)) {
                out.extend(server_authorization(policy, namespace));
            }
        }
        for policy in self.all("AuthorizationPolicy.", namespace) {
            let (kind, target) = (
                text(policy, "/spec/targetRef/kind"),
                text(policy, "/spec/targetRef/name"),
            );
            if kind == Some("Namespace") || (kind == Some("Server") && target == Some(name)) {
                out.extend(self.policy(policy, namespace));
            }
        }
        out
    }

    /// What is granted on a route alone; the names of routes are compared without case.
    fn route_grants(&self, route: &Value, namespace: &str) -> Vec<Authorization> {
        let name = text(route, "/metadata/name").unwrap();
        let on_it = |policy: &&Value| {
            let target =
                |field: &str| text(policy, &format!("/spec/targetRef/{field}")).unwrap_or("");
            target("kind").eq_ignore_ascii_case(text(route, "/kind").unwrap())
                && target("group").eq_ignore_ascii_case(group(route))
                && target("name").eq_ignore_ascii_case(name)
        };
        let policies = self.all("AuthorizationPolicy.", namespace);
        policies
            .into_iter()
            .filter(on_it)
            .filter_map(|p| self.policy(p, namespace))
            .collect()
    }

    /// All references must hold; one that leads nowhere drops the policy; none at all is everyone.
    fn policy(&self, policy: &Value, namespace: &str) -> Option<Authorization> {
        let mut out = Authorization {
            networks: everywhere(),
            tls: Tls::Unauthenticated,
        };
        for reference in list(policy, "/spec/requiredAuthenticationRefs") {
            let namespace = text(reference, "/namespace").unwrap_or(namespace);
            let name = text(reference, "/name").unwrap();
            match text(reference, "/kind").unwrap() {
                "ServiceAccount" => out.tls = Tls::Identities(vec![account(namespace, name)]),
                "MeshTLSAuthentication" => {
                    let found = self.one("MeshTLSAuthentication.", namespace, name)?;
                    out.tls = Tls::Identities(identities(found, namespace));
                }
                _ => {
                    let found = self.one("NetworkAuthentication.", namespace, name)?;
                    out.networks = list(found, "/spec/networks").map(network).collect();
                }
            }
        }
        Some(out)
    }

    /// Routes that are attached to the Server and that its protocol takes, oldest first.
    fn routes(&self, server: Option<&Value>, namespace: &str, protocol: &str) -> Vec<&Value> {
        let Some(server) = server else {
            return Vec::new();
        };
        let kind = if protocol == "gRPC" {
            "GRPCRoute."
        } else {
            "HTTPRoute."
        };
        let parent = |p: &Value| {
            text(p, "/kind") == Some("Server") && text(p, "/name") == text(server, "/metadata/name")
        };
        let routes = self.all(kind, namespace).into_iter();
        routes
            .filter(|r| list(r, "/spec/parentRefs").any(parent))
            .collect()
    }
}

fn group(document: &Value) -> &str {
    text(document, "/apiVersion")
        .unwrap()
        .split_once('/')
        .map_or("", |(group, _)| group)
}

fn key(document: &Value) -> [String; 3] {
    let kind = text(document, "/kind").unwrap();
    let namespace = if kind == "Namespace" {
        ""
    } else {
        text(document, "/metadata/namespace").unwrap_or("default")
    };
    let name = text(document, "/metadata/name").unwrap();
    [
        format!("{kind}.{}", group(document)),
        namespace.to_owned(),
        name.to_owned(),
    ]
}

fn annotation<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Numbers and ranges; one entry that is neither empties the whole list.
fn ports(annotation: Option<&str>) -> Vec<u16> {
    let entries = annotation
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|e| !e.is_empty());
    let ranges = entries.map(|e| {
        let (first, last) = e.split_once('-').unwrap_or((e, e));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    let ranges: Option<Vec<std::ops::RangeInclusive<u16>>> = ranges.collect();
    ranges.into_iter().flatten().flatten().collect()
}

fn matches_labels(selector: &Value, object: &Value) -> bool {
    let label = |key: &str| object.pointer("/metadata/labels")?.get(key)?.as_str();
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    wanted
        .into_iter()
        .flatten()
        .all(|(k, v)| label(k) == v.as_str())
        && list(selector, "/matchExpressions").all(|e| {
            let value = label(text(e, "/key").unwrap());
            let listed = list(e, "/values").any(|v| v.as_str() == value);
            match text(e, "/operator").unwrap() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// TCP ports of containers and initContainers: name and number.
fn container_ports(pod: &Value) -> Vec<(Option<&str>, u64)> {
    let containers = list(pod, "/spec/containers").chain(list(pod, "/spec/initContainers"));
    let ports = containers.flat_map(|c| list(c, "/ports"));
    ports
        .filter(|p| text(p, "/protocol").is_none_or(|p| p == "TCP"))
        .map(|p| (text(p, "/name"), p["containerPort"].as_u64().unwrap()))
        .collect()
}

fn selects(server: &Value, pod: &Value, port: u16) -> bool {
    let selector = server.pointer("/spec/podSelector");
    let on_port = match &server["spec"]["port"] {
        Value::String(name) => container_ports(pod).contains(&(Some(name), port.into())),
        number => number.as_u64() == Some(port.into()),
    };
    on_port && selector.is_some_and(|s| matches_labels(s, pod))
}

fn everywhere() -> Vec<(IpNet, Vec<IpNet>)> {
    ["0.0.0.0/0", "::/0"]
        .map(|n| (n.parse().unwrap(), Vec::new()))
        .into()
}

fn cluster_networks() -> Vec<(IpNet, Vec<IpNet>)> {
    CLUSTER_NETWORKS
        .map(|n| (n.parse().unwrap(), Vec::new()))
        .into()
}

fn block(value: &Value) -> IpNet {
    let text = value.as_str().unwrap();
    text.parse()
        .unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
}

fn network(value: &Value) -> (IpNet, Vec<IpNet>) {
    (
        block(&value["cidr"]),
        list(value, "/except").map(block).collect(),
    )
}

fn account(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.serviceaccount.identity.linkerd.cluster.local")
}

fn identities(authentication: &Value, own: &str) -> Vec<String> {
    let given = list(authentication, "/spec/identities").map(|i| i.as_str().unwrap().to_owned());
    let referred = list(authentication, "/spec/identityRefs").map(|r| {
        let name = text(r, "/name").unwrap();
        match text(r, "/kind").unwrap() {
            "Namespace" => account(name, "*"),
            _ => account(text(r, "/namespace").unwrap_or(own), name),
        }
    });
    given.chain(referred).collect()
}

/// Omitted networks are the cluster's. `unauthenticated` is looked at first: only admission keeps it and `meshTLS` apart.
fn server_authorization(policy: &Value, own: &str) -> Option<Authorization> {
    let client = &policy["spec"]["client"];
    let networks = match client.get("networks") {
        Some(_) => list(client, "/networks").map(network).collect(),
        None => cluster_networks(),
    };
    let ids = list(client, "/meshTLS/identities").map(|i| i.as_str().unwrap().to_owned());
    let accounts = list(client, "/meshTLS/serviceAccounts");
    let accounts = accounts.map(|a| {
        account(
            text(a, "/namespace").unwrap_or(own),
            text(a, "/name").unwrap(),
        )
    });
    let ids: Vec<String> = ids.chain(accounts).collect();
    let tls = if client["unauthenticated"] == true {
        Tls::Unauthenticated
    } else if client["meshTLS"]["unauthenticatedTLS"] == true {
        Tls::Any
    } else if ids.is_empty() {
        return None;
    } else {
        Tls::Identities(ids)
    };
    Some(Authorization { networks, tls })
}

impl Client {
    /// Workloads of the mesh have DNS names with Linkerd; any other SPIFFE ID is that of an external workload.
    fn of(ask: &Ask) -> Self {
        let client = &ask.0.client;
        let id = client.spiffe_id.as_deref().map(|id| {
            let path = id
                .strip_prefix("spiffe://cluster.local/ns/")
                .and_then(|p| p.split_once("/sa/"));
            path.map_or(id.to_owned(), |(namespace, name)| account(namespace, name))
        });
        Self {
            ip: client.ip.as_deref().unwrap().parse().unwrap(),
            tls: client.tls.unwrap_or(id.is_some()),
            id,
        }
    }
}

impl Authorization {
    fn localhost() -> Self {
        let networks = ["127.0.0.1/32", "::1/128"].map(|n| (n.parse().unwrap(), Vec::new()));
        Self {
            networks: networks.into(),
            tls: Tls::Unauthenticated,
        }
    }

    fn holds(&self, client: &Client) -> bool {
        let near = |(cidr, except): &(IpNet, Vec<IpNet>)| {
            cidr.contains(&client.ip) && !except.iter().any(|e| e.contains(&client.ip))
        };
        self.networks.iter().any(near)
            && match &self.tls {
                Tls::Unauthenticated => true,
                Tls::Any => client.tls,
                Tls::Identities(ids) => client
                    .id
                    .as_ref()
                    .is_some_and(|id| ids.iter().any(|i| identity_matches(i, id))),
            }
    }
}

/// `*` and suffixes match DNS names alone; a SPIFFE URI is matched exactly or not at all.
fn identity_matches(pattern: &str, id: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => !id.starts_with("spiffe://") && id.ends_with(suffix),
        None => pattern == id,
    }
}
