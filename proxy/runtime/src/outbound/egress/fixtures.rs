//! Policy about what leaves, and a request that does, for the tests beside.

use super::What;
use crate::live::{JudgedHead, JudgedHeaders};
use mesh_policy::Snapshot;
use mesh_policy::decide::Generation;
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, manifest};
use mesh_trust::TrustDomain;
use std::rc::Rc;

/// A network that denies and speaks for that block, and a route for `api.example` at port 80 with these annotations.
pub(super) fn policy(block: &str, annotations: &str) -> Snapshot {
    let manifests = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: web, namespace: shop }}
spec: {{ serviceAccountName: web, containers: [{{ name: app }}] }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {{ name: all, namespace: shop }}
spec: {{ trafficPolicy: Deny, networks: [{{ cidr: {block} }}] }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: api, namespace: shop, annotations: {{ {annotations} }} }}
spec:
  parentRefs: [{{ group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 80 }}]
  hostnames: [api.example]
  rules: [{{ backendRefs: [{{ group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 80 }}] }}]
"
    );
    let loaded = manifest::load([("a.yaml".to_owned(), manifests.as_str())]);
    let mut config = IndexConfig::new(TrustDomain::parse("cluster.local").expect("a domain"));
    // A block of a network may be any.
    config.cluster_networks = Vec::new();
    let key = WorkloadKey {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    let data = Index::build(&loaded, &config).snapshot(&key, Generation(1));
    Snapshot::compile(data.expect("a policy")).expect("one that compiles")
}

/// A request for `api.example`.
pub(super) fn get() -> What {
    What::Http(Rc::new(JudgedHead {
        method: http::Method::GET,
        uri: http::Uri::from_static("/"),
        host: Some(http::uri::Authority::from_static("api.example")),
        grpc: false,
        headers: JudgedHeaders(http::HeaderMap::new()),
    }))
}
