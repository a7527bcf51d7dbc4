//! EgressNetworks, the mesh's and a namespace's, and routes on them.

use super::APPS;
use crate::mesh::{NAMESPACES, Names};
use mesh_policy::fuzzing::choices::Choices;
use serde_json::{Value, json};

/// Where networks of the whole mesh are.
const MESH_NAMESPACE: &str = "mesh-system";

/// Names of networks.
const NETWORKS: [&str; 3] = ["guard", "open", "far"];

/// Blocks, some inside others; the last one is the cluster's own.
const BLOCKS: [&str; 8] = [
    "203.0.113.0/24",
    "203.0.113.0/25",
    "203.0.113.128/25",
    "203.0.113.7/32",
    "198.51.100.0/24",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "10.1.0.0/16",
];

/// What blocks are without.
const HOLES: [&str; 5] = [
    "203.0.113.64/26",
    "203.0.113.7/32",
    "203.0.113.255/32",
    "198.51.100.128/25",
    "2001:db8:1:2::/64",
];

/// Ports that routes name, one of them twice as often.
const PORTS: [u16; 4] = [443, 443, 80, 5432];

/// Hostnames of routes.
const HOSTNAMES: [&str; 6] = [
    "api.example",
    "*.example",
    "*.cdn.example",
    "a.cdn.example",
    "API.example",
    "other.test",
];

/// Kinds of routes, and their versions.
const KINDS: [(&str, &str); 6] = [
    ("HTTPRoute", "v1"),
    ("HTTPRoute", "v1"),
    ("TLSRoute", "v1alpha2"),
    ("TLSRoute", "v1alpha2"),
    ("GRPCRoute", "v1"),
    ("TCPRoute", "v1alpha2"),
];

/// Networks and routes of the mesh and of every namespace.
pub fn egress(names: Names, choices: &mut Choices<'_>) -> Vec<Value> {
    let own = (0..NAMESPACES.len()).map(|number| names.namespace(number));
    let mut out = Vec::new();
    for namespace in own.chain([MESH_NAMESPACE.to_owned()]) {
        for name in NETWORKS {
            if choices.below(2) == 0 {
                out.push(network(&namespace, name, choices));
            }
        }
        for number in 0..choices.below(6) {
            out.push(route(&namespace, number, choices));
        }
    }
    out
}

fn network(namespace: &str, name: &str, choices: &mut Choices<'_>) -> Value {
    let mut spec = json!({ "trafficPolicy": if choices.once_in(3) { "Allow" } else { "Deny" } });
    if choices.below(3) != 0 {
        let blocks: Vec<Value> = (0..=choices.below(2)).map(|_| block(choices)).collect();
        merge(&mut spec, "networks", json!(blocks));
    }
    let annotations = match choices.below(8) {
        0 => json!({ "mesh.internal/namespaces-decide": "true" }),
        1 => json!({ "mesh.internal/service-accounts": choices.pick(&APPS) }),
        _ => json!({}),
    };
    object(
        ("policy.linkerd.io/v1alpha1", "EgressNetwork"),
        (namespace, name, &annotations),
        &spec,
    )
}

fn block(choices: &mut Choices<'_>) -> Value {
    // The cluster's makes a network invalid: seldom.
    let known = BLOCKS.len() - usize::from(!choices.once_in(6));
    let cidr = BLOCKS.get(choices.below(known));
    match choices.below(3) {
        0 => json!({ "cidr": cidr, "except": [choices.pick(&HOLES)] }),
        _ => json!({ "cidr": cidr }),
    }
}

fn route(namespace: &str, number: usize, choices: &mut Choices<'_>) -> Value {
    let (kind, version) = choices.pick(&KINDS).unwrap_or_default();
    let parent = json!({
        "group": "policy.linkerd.io", "kind": "EgressNetwork",
        "name": choices.pick(&NETWORKS), "port": choices.pick(&PORTS),
    });
    let mut spec = json!({ "parentRefs": [parent] });
    if kind != "TCPRoute" && (kind == "TLSRoute" || choices.below(3) != 0) {
        let names: Vec<_> = (0..=choices.below(2))
            .map(|_| choices.pick(&HOSTNAMES))
            .collect();
        merge(&mut spec, "hostnames", json!(names));
    }
    let rules: Vec<Value> = (0..=choices.below(2))
        .map(|_| rule(kind, choices))
        .collect();
    let rules = match kind {
        "TLSRoute" | "TCPRoute" => json!([{ "backendRefs": [] }]),
        _ => json!(rules),
    };
    merge(&mut spec, "rules", rules);
    let annotations = match choices.below(12) {
        0 | 1 => json!({ "mesh.internal/service-accounts": choices.pick(&APPS) }),
        // On a route that takes no requests it is an error, and the route is invalid.
        2 | 3 => json!({
            "mesh.internal/originate-tls": choices.pick(&PORTS).unwrap_or_default().to_string(),
            "mesh.internal/tls-roots": "system",
        }),
        _ => json!({}),
    };
    object(
        (&format!("gateway.networking.k8s.io/{version}"), kind),
        (
            namespace,
            &format!("{}{number}", kind.to_ascii_lowercase()),
            &annotations,
        ),
        &spec,
    )
}

fn rule(kind: &str, choices: &mut Choices<'_>) -> Value {
    let matches: Vec<Value> = (0..choices.below(3))
        .map(|_| match kind {
            "GRPCRoute" => grpc_match(choices),
            _ => http_match(choices),
        })
        .collect();
    // A filter is not applied to what leaves: the route is invalid.
    match choices.once_in(12) {
        true => {
            json!({ "matches": matches, "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["x"] } }] })
        }
        false => json!({ "matches": matches }),
    }
}

fn http_match(choices: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    let path = match choices.below(16) {
        0 => Some(json!({ "type": "RegularExpression", "value": "/a(/.*)?" })),
        1..6 => Some(json!({ "type": "PathPrefix", "value": choices.pick(&["/", "/a", "/a/b"]) })),
        6..10 => Some(json!({ "type": "Exact", "value": choices.pick(&["/a", "/a/b", "/a/"]) })),
        _ => None,
    };
    if let Some(path) = path {
        merge(&mut out, "path", path);
    }
    if choices.once_in(3) {
        merge(&mut out, "method", json!(choices.pick(&["GET", "POST"])));
    }
    if choices.once_in(4) {
        let value = choices.pick(&["red", "blue"]);
        merge(
            &mut out,
            "headers",
            json!([{ "name": "X-Team", "value": value }]),
        );
    }
    if choices.once_in(5) {
        merge(
            &mut out,
            "queryParams",
            json!([{ "name": "q", "value": choices.pick(&["1", "2"]) }]),
        );
    }
    out
}

fn grpc_match(choices: &mut Choices<'_>) -> Value {
    let method = match choices.below(3) {
        0 => json!({ "service": "a" }),
        1 => json!({ "method": "b" }),
        _ => json!({ "service": "shop.Cart", "method": "Get" }),
    };
    json!({ "method": method })
}

fn object(
    (api, kind): (&str, &str),
    (namespace, name, annotations): (&str, &str, &Value),
    spec: &Value,
) -> Value {
    json!({
        "apiVersion": api, "kind": kind, "spec": spec,
        "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
    })
}

fn merge(into: &mut Value, name: &str, value: Value) {
    if let Some(into) = into.as_object_mut() {
        into.insert(name.to_owned(), value);
    }
}
