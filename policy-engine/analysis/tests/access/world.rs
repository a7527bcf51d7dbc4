//! Meshes out of text.

use mesh_policy_analysis::survey::Setting;
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, load};
use mesh_trust::{Timestamp, TrustDomain};
use std::fmt::Write as _;

/// When decisions are made: 2026-01-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

pub(crate) const SETTING: Setting<'static> = Setting {
    now: NOW,
    known: &[],
    texts: &[],
    structural: false,
};

pub(crate) fn home() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

pub(crate) fn index(text: &str) -> Index {
    let loaded = load([("all.yaml".to_owned(), text.as_bytes().to_vec())]);
    Index::build(&loaded, &IndexConfig::new(home()))
}

pub(crate) fn key(namespace: &str, name: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A pod `name` with a service account of its name, port 8080 and a Server of its name on it.
pub(crate) fn pod(namespace: &str, name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec: {{serviceAccountName: {name}, containers: [{{name: app, ports: [{{containerPort: 8080, name: http}}]}}]}}\n---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{podSelector: {{matchLabels: {{app: {name}}}}}, port: http, proxyProtocol: HTTP/1}}\n"
    )
}

/// A MeshTLSAuthentication of identities.
pub(crate) fn clients(namespace: &str, name: &str, identities: &[&str]) -> String {
    let list: Vec<String> = identities.iter().map(|id| format!("'{id}'")).collect();
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{identities: [{}]}}\n",
        list.join(", ")
    )
}

/// A NetworkAuthentication of one block with holes.
pub(crate) fn network(namespace: &str, name: &str, cidr: &str, except: &[&str]) -> String {
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{networks: [{{cidr: '{cidr}', except: [{}]}}]}}\n",
        except.join(", ")
    )
}

/// A grant on `Server cart` or `HTTPRoute read` to `MeshTLSAuthentication x`, `ServiceAccount ns/x` and the like.
pub(crate) fn grant(namespace: &str, name: &str, target: &str, refs: &[&str]) -> String {
    let (kind, of) = target.split_once(' ').unwrap();
    let mut list = String::new();
    for one in refs {
        let (kind, of) = one.split_once(' ').unwrap();
        let group = if kind == "ServiceAccount" {
            "''"
        } else {
            "policy.linkerd.io"
        };
        let (place, of) = match of.split_once('/') {
            Some((place, of)) => (format!(", namespace: {place}"), of),
            None => (String::new(), of),
        };
        write!(
            list,
            "{{group: {group}, kind: {kind}, name: {of}{place}}}, "
        )
        .unwrap();
    }
    format!(
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  targetRef: {{group: policy.linkerd.io, kind: {kind}, name: {of}}}\n  requiredAuthenticationRefs: [{}]\n",
        list.trim_end_matches(", ")
    )
}

/// An HTTPRoute on a Server; `matches` is what stands in its one rule's list of matches.
pub(crate) fn route(namespace: &str, name: &str, server: &str, matches: &str) -> String {
    format!(
        "---\napiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: {server}}}]\n  rules: [{{matches: [{matches}]}}]\n"
    )
}

/// `count` grants over `workloads` workloads in ten namespaces, each from one service account to one Server; and a pod
/// of `dev` and one of `payments`, with nothing between them.
pub(crate) fn large(workloads: usize, count: usize) -> String {
    let mut text = pod("dev", "laptop") + &pod("payments", "ledger");
    let place = |n: usize| (format!("team{}", n % 10), format!("app{n}"));
    for n in 0..workloads {
        let (namespace, name) = place(n);
        text += &pod(&namespace, &name);
    }
    for n in 0..count {
        let (namespace, name) = place(n % workloads);
        let (of, account) = place((n.wrapping_mul(7) + n / workloads + 1) % workloads);
        text += &grant(
            &namespace,
            &format!("g{n}"),
            &format!("Server {name}"),
            &[&format!("ServiceAccount {of}/{account}")],
        );
    }
    text
}

/// The grant that must not be.
pub(crate) fn seeded() -> String {
    grant(
        "payments",
        "quick-fix",
        "Server ledger",
        &["ServiceAccount dev/laptop"],
    )
}
