//! New documents: a grant to exactly one identity or address, a Server, a route.

use mesh_policy_index::edit::{flow, scalar};
use mesh_trust::{SpiffeId, TrustDomain};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

const POLICY: &str = "policy.linkerd.io";

/// What a grant is for: group, kind and name of the object.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// A document of the usual form; `spec` is indented already.
fn document(api: &str, kind: &str, (namespace, name): (&str, &str), spec: &str) -> String {
    let (namespace, name) = (scalar(namespace), scalar(name));
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{spec}"
    )
}

/// A policy that grants a target to whoever all of these references admit.
pub(super) fn authorization(place: (&str, &str), target: &Target, references: &[Value]) -> String {
    let mut spec = format!(
        "  targetRef:\n    group: {}\n    kind: {}\n    name: {}\n  requiredAuthenticationRefs:\n",
        target.group,
        target.kind,
        scalar(&target.name)
    );
    for reference in references {
        spec += &format!("    - {}\n", flow(reference));
    }
    document(
        &format!("{POLICY}/v1alpha1"),
        "AuthorizationPolicy",
        place,
        &spec,
    )
}

/// An authentication of exactly one identity.
pub(super) fn identity(place: (&str, &str), id: &SpiffeId) -> String {
    let spec = format!("  identities:\n    - {}\n", scalar(&id.to_string()));
    document(
        &format!("{POLICY}/v1alpha1"),
        "MeshTLSAuthentication",
        place,
        &spec,
    )
}

/// An authentication of exactly one address.
pub(super) fn address(place: (&str, &str), ip: IpAddr) -> String {
    let spec = format!("  networks:\n    - cidr: {}\n", scalar(&block(ip)));
    document(
        &format!("{POLICY}/v1alpha1"),
        "NetworkAuthentication",
        place,
        &spec,
    )
}

/// A Server for a port of the pods with these labels.
pub(super) fn server(
    place: (&str, &str),
    labels: &BTreeMap<String, String>,
    port: u16,
    (protocol, mode): (Option<&str>, &str),
) -> String {
    let mut spec = if labels.is_empty() {
        "  podSelector: {}\n".to_owned()
    } else {
        "  podSelector:\n    matchLabels:\n".to_owned()
    };
    for (key, value) in labels {
        spec += &format!("      {}: {}\n", scalar(key), scalar(value));
    }
    spec += &format!("  port: {port}\n");
    if let Some(protocol) = protocol {
        spec += &format!("  proxyProtocol: {protocol}\n");
    }
    if mode != "deny" {
        spec += &format!("  accessPolicy: {mode}\n");
    }
    document(&format!("{POLICY}/v1beta3"), "Server", place, &spec)
}

/// A route of one match on a Server.
pub(super) fn route(place: (&str, &str), server: &str, matched: &Value, grpc: bool) -> String {
    let spec = format!(
        "  parentRefs:\n    - {}\n  rules:\n    - matches:\n        - {}\n",
        flow(&json!({"group": POLICY, "kind": "Server", "name": server})),
        flow(matched)
    );
    match grpc {
        true => document("gateway.networking.k8s.io/v1", "GRPCRoute", place, &spec),
        false => document(&format!("{POLICY}/v1beta3"), "HTTPRoute", place, &spec),
    }
}

/// A reference to the service account of an identity of our trust domain; `None`: it is of another form, or domain.
pub(super) fn account(id: &SpiffeId, home: &TrustDomain) -> Option<Value> {
    let (namespace, name) = id.service_account()?;
    (id.trust_domain() == home)
        .then(|| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
}

/// A reference to an authentication.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({"group": POLICY, "kind": kind, "name": name})
}

/// The block of one address.
pub(super) fn block(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(_) => format!("{ip}/32"),
        IpAddr::V6(_) => format!("{ip}/128"),
    }
}

/// A name made of parts that is a name in Kubernetes: lower-case letters, digits and hyphens, at most 63.
pub(super) fn name(parts: &[&str]) -> String {
    let joined = parts.join("-").to_ascii_lowercase();
    let mut out = String::new();
    for c in joined.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !(out.is_empty() || out.ends_with('-')) {
            out.push(c);
        }
    }
    out.truncate(63);
    let out = out.trim_end_matches('-').to_owned();
    if out.is_empty() {
        "fix".to_owned()
    } else {
        out
    }
}
