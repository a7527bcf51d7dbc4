//! A small world that tests share.

use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy_index::index::IndexConfig;
use mesh_policy_index::{Index, Loaded, load};
use mesh_trust::{Timestamp, TrustDomain};

pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

pub(crate) const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: shop, labels: {app: orders}}
spec: {containers: [{name: app, ports: [{containerPort: 8080}]}]}
---
";

pub(crate) const POLICY: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: http, namespace: shop}
spec: {podSelector: {matchLabels: {app: orders}}, port: 8080, proxyProtocol: HTTP/1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: read, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: http}]
  rules: [{matches: [{path: {type: PathPrefix, value: /orders}, method: GET}, {path: {type: Exact, value: /health}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: web, namespace: shop}
spec: {identities: ['spiffe://cluster.local/ns/shop/sa/web', 'spiffe://cluster.local/ns/shop/sa/admin']}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: local, namespace: shop}
spec: {networks: [{cidr: 127.0.0.0/8}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: read}
  requiredAuthenticationRefs:
  - {group: policy.linkerd.io, kind: MeshTLSAuthentication, name: web}
  - {group: policy.linkerd.io, kind: NetworkAuthentication, name: local}
---
";

pub(crate) fn loaded_of(parts: &[&str]) -> Loaded {
    load([("policy.yaml".to_owned(), parts.concat().into_bytes())])
}

pub(crate) fn index_of(parts: &[&str]) -> Index {
    let loaded = loaded_of(parts);
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    Index::build(&loaded, &IndexConfig::new(domain))
}

pub(crate) fn index() -> Index {
    index_of(&[POD, POLICY])
}

pub(crate) fn request(account: &str, path: &str) -> RequestRecord {
    RequestRecord {
        client: ClientRecord {
            spiffe_id: Some(format!("spiffe://cluster.local/ns/shop/sa/{account}")),
            ip: None,
            tls: None,
        },
        server: TargetRecord {
            namespace: "shop".to_owned(),
            pod: Some("orders".to_owned()),
            service: None,
            port: 8080,
        },
        protocol: Protocol::Http,
        method: Some("GET".to_owned()),
        path: Some(path.to_owned()),
        host: None,
        headers: Default::default(),
    }
}

pub(crate) fn case(
    account: &str,
    path: &str,
    verdict: mesh_policy::decide::Verdict,
) -> crate::cases::Case {
    crate::cases::Case {
        name: format!("{account} {path}"),
        place: "cases.yaml:1".to_owned(),
        request: request(account, path),
        at: None,
        expect: crate::cases::Expectation::verdict(verdict),
    }
}

pub(crate) fn decide(
    index: &Index,
    request: &RequestRecord,
) -> mesh_policy::record::DecisionRecord {
    mesh_policy_index::replay::Replay::new(index, NOW).decide(request)
}
