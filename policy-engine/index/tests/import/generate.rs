//! A small world: two namespaces of workloads, and random policies and requests about them.

use crate::istio_model::{
    Field, Hidden, Http, Mesh, Peer, Policy, ROOT, Request, Rule, Speaks, When, Workload,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const PORTS: &[(u16, Speaks)] = &[
    (8080, Speaks::Http),
    (9090, Speaks::Tcp),
    (7070, Speaks::Detected),
];

/// The workloads; [`cluster`] has the same as manifests.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        namespace: "shop",
        name: "cart-v1",
        labels: &[("app", "cart"), ("version", "v1")],
        ports: PORTS,
    },
    Workload {
        namespace: "shop",
        name: "cart-v2",
        labels: &[("app", "cart"), ("version", "v2")],
        ports: PORTS,
    },
    Workload {
        namespace: "shop",
        name: "db",
        labels: &[("app", "db")],
        ports: PORTS,
    },
    Workload {
        namespace: "ops",
        name: "desk",
        labels: &[("app", "desk"), ("version", "v2")],
        ports: PORTS,
    },
];

/// Deployments and Services of some of the workloads.
pub(crate) fn cluster(known: &[usize]) -> String {
    let mut out = String::from("# workloads\n");
    for workload in known.iter().map(|place| &WORKLOADS[*place]) {
        let labels: Vec<String> = workload
            .labels
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect();
        let (namespace, name, labels) = (workload.namespace, workload.name, labels.join(", "));
        let _ = write!(
            out,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  template:\n    metadata: {{labels: {{{labels}}}}}\n    spec: {{containers: [{{name: app, ports: [{{containerPort: 7070}}]}}]}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: {{{labels}}}\n  ports: [{{name: http-web, port: 80, targetPort: 8080}}, {{name: tcp-db, port: 9090}}]\n"
        );
    }
    out
}

const PRINCIPALS: &[&str] = &[
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/ops/sa/admin",
    "cluster.local/ns/shop/*",
    "cluster.local/ns/ops/sa/*",
    "*",
    "*/sa/web",
    "cluster.local/*",
    "other.example/ns/shop/sa/web",
    "cluster.local/ns/sh*",
    "no identity",
];
const NAMESPACES: &[&str] = &["shop", "ops", "sh*", "s*p", "*", "none"];
const ACCOUNTS: &[&str] = &["web", "ops/admin", "shop/web", "none/none"];
const BLOCKS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "192.168.0.0/16",
    "fd00::/8",
    "0.0.0.0/0",
];
const METHODS: &[&str] = &["GET", "POST", "PURGE", "P*", "*"];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/*",
    "/a*",
    "/a/b",
    "/a/b/*",
    "*.html",
    "*",
    "/*",
    "/a/{*}",
    "/{*}/b",
    "/a/{**}",
    "/{**}/c",
    "/{*}/b/{**}",
    "/a//b",
    "/x y",
];
const HOSTS: &[&str] = &[
    "shop.example",
    "*.example",
    "Shop.example:8080",
    "shop.*",
    "*",
];
const PORT_TEXTS: &[&str] = &["8080", "9090", "7070", "5050"];
const TOKENS: &[&str] = &["*", "issuer/user"];

fn values(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(of, 1..3).prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

/// Fields with their vocabulary and how often they are used.
fn fields(
    all: &[(&'static str, &'static str, &'static [&'static str], f64)],
) -> BoxedStrategy<Vec<Field>> {
    let mut parts = Vec::new();
    for (yes, no, words, often) in all.iter().copied() {
        parts
            .push(prop::option::weighted(often, values(words).prop_map(move |v| (yes, v))).boxed());
        parts.push(
            prop::option::weighted(often / 4.0, values(words).prop_map(move |v| (no, v))).boxed(),
        );
    }
    parts
        .prop_map(|fields| fields.into_iter().flatten().collect())
        .boxed()
}

fn source() -> impl Strategy<Value = Vec<Field>> {
    fields(&[
        ("principals", "notPrincipals", PRINCIPALS, 0.4),
        ("namespaces", "notNamespaces", NAMESPACES, 0.3),
        ("ipBlocks", "notIpBlocks", BLOCKS, 0.3),
        ("requestPrincipals", "notRequestPrincipals", TOKENS, 0.03),
        ("remoteIpBlocks", "notRemoteIpBlocks", BLOCKS, 0.03),
    ])
    .prop_flat_map(|fields| {
        // Service accounts exclude principals and namespaces; no source is empty.
        if fields.is_empty() {
            values(ACCOUNTS)
                .prop_map(|v| vec![("serviceAccounts", v)])
                .boxed()
        } else {
            Just(fields).boxed()
        }
    })
}

fn operation() -> impl Strategy<Value = Vec<Field>> {
    fields(&[
        ("methods", "notMethods", METHODS, 0.4),
        ("paths", "notPaths", PATHS, 0.5),
        ("hosts", "notHosts", HOSTS, 0.15),
        ("ports", "notPorts", PORT_TEXTS, 0.2),
    ])
    .prop_map(|fields| {
        if fields.is_empty() {
            vec![("ports", vec!["8080".to_owned()])]
        } else {
            fields
        }
    })
}

fn when() -> impl Strategy<Value = When> {
    let keys: &'static [(&'static str, &'static [&'static str])] = &[
        (
            "request.headers[X-Tier]",
            &["gold", "silver", "gold,silver", "*", "go*", "*old"],
        ),
        ("request.headers[x-tier]", &["gold", "silver"]),
        ("source.ip", BLOCKS),
        ("source.namespace", NAMESPACES),
        ("source.principal", PRINCIPALS),
        ("destination.port", PORT_TEXTS),
        ("connection.sni", &["*", "a"]),
        ("request.auth.principal", TOKENS),
        ("remote.ip", BLOCKS),
    ];
    (select(keys), any::<u8>()).prop_flat_map(|((key, words), shape)| {
        let none = Just(Vec::new()).boxed();
        let (yes, no) = match shape % 8 {
            0..=4 => (values(words).boxed(), none),
            5 | 6 => (none, values(words).boxed()),
            _ => (values(words).boxed(), values(words).boxed()),
        };
        (yes, no).prop_map(move |(values, not_values)| When {
            key: key.to_owned(),
            values,
            not_values,
        })
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(source(), 1..3)],
        prop_oneof![1 => Just(Vec::new()), 2 => prop::collection::vec(operation(), 1..3)],
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(when(), 1..3)],
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

const SELECTORS: &[&[(&str, &str)]] = &[
    &[],
    &[],
    &[("app", "cart")],
    &[("app", "cart"), ("version", "v2")],
    &[("version", "v2")],
    &[("app", "none")],
];

fn namespace() -> impl Strategy<Value = String> {
    select(&["shop", "shop", "shop", "ops", ROOT][..]).prop_map(str::to_owned)
}

fn policy() -> impl Strategy<Value = Policy> {
    let action = select(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"][..]);
    let rules = prop::collection::vec(rule(), 0..3);
    (
        namespace(),
        action,
        select(SELECTORS),
        rules,
        prop::bool::weighted(0.05),
    )
        .prop_map(|(namespace, action, selector, rules, dry_run)| Policy {
            namespace,
            name: String::new(),
            action,
            selector: selector.to_vec(),
            rules,
            dry_run,
        })
}

const MODES: &[&str] = &["STRICT", "STRICT", "PERMISSIVE", "DISABLE", "UNSET"];

fn peer() -> impl Strategy<Value = Peer> {
    let ports = prop::collection::vec((select(&[8080u16, 9090, 7070][..]), select(MODES)), 0..2);
    (namespace(), select(SELECTORS), select(MODES), ports).prop_map(
        |(namespace, selector, mode, ports)| Peer {
            namespace,
            name: String::new(),
            ports: if selector.is_empty() {
                Vec::new()
            } else {
                ports
            },
            selector: selector.to_vec(),
            mode,
        },
    )
}

/// Whether this mesh can say all of it.
fn is_plain(policy: &Policy) -> bool {
    let fields = policy
        .rules
        .iter()
        .flat_map(|r| r.from.iter().chain(&r.to).flatten());
    let plain_field = |(field, values): &Field| {
        !field.ends_with("equestPrincipals")
            && !field.ends_with("emoteIpBlocks")
            && !values
                .iter()
                .any(|v| ["/a//b", "/x y", "/{*}/b/{**}", "s*p"].contains(&v.as_str()))
    };
    let mut when = policy.rules.iter().flat_map(|r| &r.when);
    let plain_when = |w: &When| {
        !["connection.sni", "request.auth.principal", "remote.ip"].contains(&w.key.as_str())
            && !w
                .values
                .iter()
                .chain(&w.not_values)
                .any(|v| ["go*", "*old", "gold,silver", "s*p"].contains(&v.as_str()))
    };
    policy.action != "CUSTOM" && fields.into_iter().all(plain_field) && when.all(plain_when)
}

/// Policies, each with a name of its own; at most one PeerAuthentication for each scope, as Istio advises. Of every two
/// meshes one has only what this mesh can say.
pub(crate) fn mesh() -> impl Strategy<Value = Mesh> {
    let parts = (
        prop::collection::vec(policy(), 0..5),
        prop::collection::vec(peer(), 0..3),
        any::<bool>(),
    );
    parts.prop_map(|(mut policies, mut peers, plain)| {
        policies.retain(|policy| !plain || is_plain(policy));
        for (number, policy) in policies.iter_mut().enumerate() {
            policy.name = format!("p{number}");
        }
        let mut seen: Vec<(String, bool)> = Vec::new();
        peers.retain(|peer| {
            let scope = (peer.namespace.clone(), peer.selector.is_empty());
            let first = !seen.contains(&scope);
            seen.push(scope);
            first
        });
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.name = format!("m{number}");
        }
        Mesh { policies, peers }
    })
}

/// A request and the place of its workload.
pub(crate) fn request() -> impl Strategy<Value = (usize, Request)> {
    let principal = select(
        &[
            None,
            None,
            Some("cluster.local/ns/shop/sa/web"),
            Some("cluster.local/ns/shop/sa/web"),
            Some("cluster.local/ns/ops/sa/admin"),
            Some("cluster.local/ns/shopping/sa/web"),
            Some("other.example/ns/shop/sa/web"),
            Some("cluster.local/x/ns/shop/y"),
        ][..],
    );
    let ip = select(
        &[
            "10.1.2.3",
            "10.2.0.1",
            "192.168.1.1",
            "203.0.113.9",
            "fd00::1",
        ][..],
    );
    let header = select(
        &[
            None,
            None,
            Some("gold"),
            Some("silver"),
            Some("golden"),
            Some("bold"),
            // Sent twice.
            Some("gold,silver"),
        ][..],
    );
    let http = (
        select(&["GET", "GET", "POST", "PURGE", "HEAD"][..]),
        select(
            &[
                "/",
                "/a",
                "/a/",
                "/ab",
                "/a/b",
                "/a/b/c",
                "/x/b",
                "/x/b/c",
                "/x/y/c",
                "/a/x.html",
                "/c",
                "/a/b/",
                "/a/<b>",
            ][..],
        ),
        select(
            &[
                "shop.example",
                "shop.example:8080",
                "a.example",
                "shop.other",
                "other",
            ][..],
        ),
        header,
    );
    let hidden = (
        select(&[None, Some("issuer/user")][..]),
        select(&[None, Some("a")][..]),
        select(&["10.1.2.3", "203.0.113.9"][..]),
    );
    let place = 0..WORKLOADS.len();
    let port = select(&[8080u16, 8080, 9090, 7070][..]);
    (
        place,
        principal,
        ip,
        port,
        prop::bool::weighted(0.8),
        http,
        hidden,
    )
        .prop_map(
            |(
                place,
                principal,
                ip,
                port,
                is_http,
                (method, path, host, header),
                (token, sni, remote_ip),
            )| {
                let headers: BTreeMap<String, Vec<String>> = header
                    .map(|v| {
                        (
                            "x-tier".to_owned(),
                            v.split(',').map(str::to_owned).collect(),
                        )
                    })
                    .into_iter()
                    .collect();
                let http = is_http.then(|| Http {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    host: host.to_owned(),
                    headers,
                });
                let hidden = Hidden {
                    token: token.map(str::to_owned),
                    sni: sni.map(str::to_owned),
                    remote_ip: remote_ip.to_owned(),
                };
                let request = Request {
                    principal: principal.map(str::to_owned),
                    ip: ip.to_owned(),
                    port,
                    http,
                    hidden,
                };
                (place, request)
            },
        )
}

/// The mesh as manifests.
pub(crate) fn manifests(mesh: &Mesh) -> String {
    let mut out = String::new();
    for policy in &mesh.policies {
        let dry_run = if policy.dry_run {
            ", annotations: {istio.io/dry-run: 'true'}"
        } else {
            ""
        };
        let provider = if policy.action == "CUSTOM" {
            ", provider: {name: ext}"
        } else {
            ""
        };
        let rules: Vec<String> = policy.rules.iter().map(rule_text).collect();
        let _ = write!(
            out,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {}, namespace: {}{dry_run}}}\nspec: {{action: {}{provider}{}, rules: [{}]}}\n",
            policy.name,
            policy.namespace,
            policy.action,
            selector_text(&policy.selector),
            rules.join(", "),
        );
    }
    for peer in &mesh.peers {
        let ports: Vec<String> = peer
            .ports
            .iter()
            .map(|(p, m)| format!("{p}: {{mode: {m}}}"))
            .collect();
        let ports = if ports.is_empty() {
            String::new()
        } else {
            format!(", portLevelMtls: {{{}}}", ports[0])
        };
        let _ = write!(
            out,
            "---\napiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{name: {}, namespace: {}}}\nspec: {{mtls: {{mode: {}}}{}{ports}}}\n",
            peer.name,
            peer.namespace,
            peer.mode,
            selector_text(&peer.selector),
        );
    }
    out
}

fn selector_text(selector: &[(&str, &str)]) -> String {
    if selector.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}: {v}")).collect();
    format!(", selector: {{matchLabels: {{{}}}}}", labels.join(", "))
}

fn list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("'{v}'")).collect();
    format!("[{}]", quoted.join(", "))
}

fn fields_text(fields: &[Field]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(f, v)| format!("{f}: {}", list(v)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn rule_text(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (key, inner, all) in [
        ("from", "source", &rule.from),
        ("to", "operation", &rule.to),
    ] {
        let all: Vec<String> = all
            .iter()
            .map(|f| format!("{{{inner}: {}}}", fields_text(f)))
            .collect();
        if !all.is_empty() {
            parts.push(format!("{key}: [{}]", all.join(", ")));
        }
    }
    let when = rule.when.iter().map(|w| {
        let mut fields = vec![format!("key: '{}'", w.key)];
        fields.extend((!w.values.is_empty()).then(|| format!("values: {}", list(&w.values))));
        fields.extend(
            (!w.not_values.is_empty()).then(|| format!("notValues: {}", list(&w.not_values))),
        );
        format!("{{{}}}", fields.join(", "))
    });
    let when: Vec<String> = when.collect();
    if !when.is_empty() {
        parts.push(format!("when: [{}]", when.join(", ")));
    }
    format!("{{{}}}", parts.join(", "))
}
