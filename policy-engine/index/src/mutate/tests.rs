//! Every change of a small policy, by name and by what it does to a snapshot.

use super::*;
use crate::{Index, IndexConfig, load};
use mesh_policy::decide::Generation;
use mesh_trust::TrustDomain;
use std::collections::BTreeSet;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: shop, labels: {app: orders, tier: back}}
spec: {containers: [{name: app, ports: [{containerPort: 8080}]}]}
---
";
const POLICY: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: http, namespace: shop}
spec: {podSelector: {matchLabels: {app: orders, tier: back}}, port: 8080, proxyProtocol: HTTP/1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: read, namespace: shop}
spec:
  hostnames: [orders]
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: http}]
  rules: [{matches: [{path: {type: PathPrefix, value: /orders}, method: GET}, {path: {type: Exact, value: /health}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: web, namespace: shop}
spec: {identities: ['spiffe://cluster.local/ns/shop/sa/web']}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: local, namespace: shop}
spec: {networks: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}
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
apiVersion: policy.linkerd.io/v1beta1
kind: ServerAuthorization
metadata: {name: batch, namespace: shop}
spec:
  server: {name: http}
  client: {meshTLS: {serviceAccounts: [{name: batch}]}}
";

fn loaded(text: &str) -> Loaded {
    load([("policy.yaml".to_owned(), text.as_bytes().to_vec())])
}

fn snapshots(loaded: &Loaded) -> Vec<String> {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let index = Index::build(loaded, &IndexConfig::new(domain));
    let keys: Vec<_> = index.workloads().map(|(key, _)| key.clone()).collect();
    let all = keys.iter().map(|key| {
        let mut data = index.snapshot(key, Generation::default());
        if let Some(data) = &mut data {
            data.findings.clear();
        }
        format!("{data:?}")
    });
    all.collect()
}

#[test]
fn every_mutant_has_a_place_and_changes_the_policy_in_its_own_way() {
    let base = loaded(&format!("{POD}{POLICY}"));
    let before = snapshots(&base);
    let all = mutants(&base);
    let names: BTreeSet<String> = all.iter().map(|one| format!("{one:?}")).collect();
    assert_eq!(names.len(), all.len(), "{names:#?}");
    for one in &all {
        assert!(one.object.source.to_string().starts_with("policy.yaml:"));
        let after = snapshots(&one.apply(&base));
        // A Server that selects by one label less selects the same pods here.
        let same = one.change.contains("podSelector");
        assert_eq!(after == before, same, "{one:?}");
    }
    assert_eq!(all.len(), 29, "{names:#?}");
}

#[test]
fn each_kind_of_change_is_made() {
    let base = loaded(&format!("{POD}{POLICY}"));
    let all: Vec<String> = mutants(&base).iter().map(|m| format!("{m:?}")).collect();
    for want in [
        "Server shop/http dropped",
        "Server shop/http with accessPolicy all-unauthenticated for deny",
        "Server shop/http with podSelector without `app: orders`",
        "HTTPRoute shop/read in rule 0, match 0 takes every path",
        "HTTPRoute shop/read in rule 0, match 0 takes every method",
        "HTTPRoute shop/read in rule 0, match 1 takes all below /health",
        "HTTPRoute shop/read without its hostnames",
        "AuthorizationPolicy shop/read does not require NetworkAuthentication shop/local",
        "AuthorizationPolicy shop/read targets every Server",
        "MeshTLSAuthentication shop/web admits spiffe://cluster.local/ns/shop/*",
        "NetworkAuthentication shop/local without the exception 10.1.0.0/16",
        "ServerAuthorization shop/batch admits whoever speaks TLS",
        "ServerAuthorization shop/batch admits every network",
    ] {
        assert!(
            all.iter().any(|one| one.starts_with(want)),
            "{want}: {all:#?}"
        );
    }
}

#[test]
fn an_invalid_object_has_no_mutant() {
    let broken = POLICY.replace("proxyProtocol: HTTP/1", "proxyProtocol: HTTP/9");
    let base = loaded(&format!("{POD}{broken}"));
    assert!(mutants(&base).iter().all(|one| one.object.kind != "Server"));
    assert!(mutants(&loaded("")).is_empty());
}

#[test]
fn what_stands_without_grants_grants_nothing() {
    let base = loaded(&format!("{POD}{POLICY}")).without_grants();
    assert!(
        snapshots(&base)
            .iter()
            .all(|text| text.contains("grants: []") && text.contains("http"))
    );
}

#[test]
fn a_file_of_tests_beside_manifests_is_no_finding() {
    let tests = "apiVersion: mesh.internal/v1alpha1\nkind: PolicyTest\nmetadata: {name: a}\n";
    assert_eq!(loaded(tests).findings, []);
}
