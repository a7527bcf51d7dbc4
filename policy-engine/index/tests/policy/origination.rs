//! Routes on EgressNetworks that have the proxy begin TLS: what becomes of the annotations, and that none that is wrong lets
//! anything out in plaintext.

use crate::world::{SHOP, World};
use mesh_policy::Snapshot;
use mesh_policy::egress::{EgressDecision, Seen, TlsRoots, TlsVersion};
use mesh_policy::request::Head;
use std::collections::BTreeMap;

/// A root that has signed nothing.
const ROOT: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBeTCCAR+gAwIBAgIUTqIjkMMga5ahD4qGr8+bueggFTMwCgYIKoZIzj0EAwIw\n\
ETEPMA0GA1UEAwwGYSByb290MCAXDTI2MTIwMTAyMDI1NFoYDzIxMjYxMTA3MDIw\n\
MjU0WjARMQ8wDQYDVQQDDAZhIHJvb3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
AATcGo5ZyqSmg0dMTKJ2fss6W04TcTphQ32NSIiYJO571czRg7lcMcSU+qUqnIbQ\n\
2ZZXMwdPq+1YdIXl1qGz3Rdlo1MwUTAdBgNVHQ4EFgQUlmr+qBxeXphiheeSxEwk\n\
04b4W5AwHwYDVR0jBBgwFoAUlmr+qBxeXphiheeSxEwk04b4W5AwDwYDVR0TAQH/\n\
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBeFZLtnaXss5Bn1GwlYpNcScmTLfM4\n\
ib9y8U5jw6np/gIhANFnvHZZPyT9/jzAPTaou38WvvBJwe1S57qWm6hrYfrk\n\
-----END CERTIFICATE-----\n";

const TO: &str = "203.0.113.9:80";
const BEGIN: &str = "mesh.internal/originate-tls: '443'";
const SYSTEM: &str = "mesh.internal/tls-roots: system";

fn network(traffic: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{name: all, namespace: shop}}\nspec: {{trafficPolicy: {traffic}}}\n"
    )
}

fn route(kind: &str, name: &str, annotations: &str, hostname: &str) -> String {
    let version = if kind == "TLSRoute" { "v1alpha2" } else { "v1" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}\nspec: {{parentRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 80}}], hostnames: [{hostname}], rules: [{{backendRefs: []}}]}}\n"
    )
}

fn with_root(text: &str) -> String {
    format!(
        "mesh.internal/tls-roots: {}",
        serde_json::to_string(text).unwrap()
    )
}

fn decided(world: &World, seen: &Seen<'_>) -> EgressDecision {
    let snapshot = Snapshot::compile(world.snapshot("shop", "web")).unwrap();
    snapshot.egress().at(TO.parse().unwrap()).decide(seen)
}

/// What becomes of a request to a host.
fn asked(world: &World, host: &str) -> EgressDecision {
    let headers = BTreeMap::new();
    decided(
        world,
        &Seen::Http(Head {
            method: "GET",
            target: "/",
            host: Some(host),
            grpc: false,
            headers: &headers,
        }),
    )
}

fn world(traffic: &str, routes: &[&str]) -> World {
    let network = network(traffic);
    let mut all = vec![SHOP, &network];
    all.extend(routes);
    World::of(&all)
}

#[test]
fn a_route_says_to_which_port_by_whom_and_by_which_version_tls_is_begun() {
    for (annotations, roots, version) in [
        (
            format!("{BEGIN}, {SYSTEM}"),
            TlsRoots::System,
            TlsVersion::V1_3,
        ),
        (
            format!(
                "{BEGIN}, {}, mesh.internal/tls-min-version: '1.2'",
                with_root(ROOT)
            ),
            TlsRoots::Pem(ROOT.trim().into()),
            TlsVersion::V1_2,
        ),
        (
            format!("{BEGIN}, {SYSTEM}, mesh.internal/tls-min-version: '1.3'"),
            TlsRoots::System,
            TlsVersion::V1_3,
        ),
    ] {
        for kind in ["HTTPRoute", "GRPCRoute"] {
            let world = world("Deny", &[&route(kind, "api", &annotations, "api.example")]);
            assert!(world.errors().is_empty(), "{:?}", world.errors());
            let decision = asked(&world, "api.example");
            // A call of gRPC alone is what a GRPCRoute takes.
            if kind == "HTTPRoute" {
                let tls = decision.tls().expect("TLS");
                assert_eq!(
                    (tls.server_name.as_str(), tls.origin.port),
                    ("api.example", 443)
                );
                assert_eq!(
                    (&tls.origin.roots, tls.origin.min_version),
                    (&roots, version)
                );
            }
            let networks = world.snapshot("shop", "web").egress;
            assert_eq!(networks[0].ports[&80].tls.len(), 1);
            assert!(asked(&world, "b.example").permit().is_err());
        }
    }
}

#[test]
fn what_cannot_be_read_denies_what_the_route_takes_and_is_told() {
    let begun = |roots: &str, more: &str| format!("{BEGIN}, {roots}{more}");
    let two = format!("{ROOT}{ROOT}");
    let torn = ROOT.replacen("MII", "MIX", 1);
    let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for (annotations, valid) in [
        (begun(&with_root(&two), ""), true),
        (begun(SYSTEM, ""), true),
        (BEGIN.to_owned(), false),
        (SYSTEM.to_owned(), false),
        ("mesh.internal/tls-min-version: '1.2'".to_owned(), false),
        (
            begun(SYSTEM, ", mesh.internal/tls-min-version: '1.1'"),
            false,
        ),
        (begun(SYSTEM, ", mesh.internal/tls-min-version: ''"), false),
        (begun("mesh.internal/tls-roots: SYSTEM", ""), false),
        (begun("mesh.internal/tls-roots: ''", ""), false),
        (begun(&with_root(&torn), ""), false),
        (begun(&with_root(key), ""), false),
        (begun(&with_root(&format!("{ROOT}{key}")), ""), false),
        (format!("mesh.internal/originate-tls: '0', {SYSTEM}"), false),
        (
            format!("mesh.internal/originate-tls: '65536', {SYSTEM}"),
            false,
        ),
        (format!("mesh.internal/originate-tls: '', {SYSTEM}"), false),
        (
            format!("mesh.internal/originate-tls: 'true', {SYSTEM}"),
            false,
        ),
    ] {
        for traffic in ["Deny", "Allow"] {
            let good = route("HTTPRoute", "b", "", "b.example");
            let one = route("HTTPRoute", "a", &annotations, "a.example");
            let world = world(traffic, &[&one, &good]);
            let decision = asked(&world, "a.example");
            assert_eq!(decision.tls().is_some(), valid, "{annotations}");
            let word = if valid {
                "granted"
            } else {
                "egress-invalid-route"
            };
            assert_eq!(decision.cause.word(), word, "{traffic}: {annotations}");
            let found = world.findings("MESH-0407").len();
            assert_eq!(found, usize::from(!valid), "{annotations}");
            let other = asked(&world, "b.example");
            assert_eq!((other.cause.word(), other.tls()), ("granted", None));
        }
    }
}

#[test]
fn tls_is_begun_for_requests_alone() {
    let begins = format!("{BEGIN}, {SYSTEM}");
    let one = route("TLSRoute", "api", &begins, "api.example");
    let world = world("Deny", &[&one]);
    let through = decided(&world, &Seen::Tls(Some("api.example")));
    assert_eq!(through.cause.word(), "egress-invalid-route");
    let found = world.findings("MESH-0407");
    assert!(
        found[0].message.contains("passes through as it is"),
        "{found:?}"
    );
    // Nor by a network, nor by a route that is on none.
    let network = network("Deny").replace(
        "{name: all,",
        &format!("{{name: all, annotations: {{{begins}}},"),
    );
    let elsewhere = route("HTTPRoute", "api", &begins, "api.example").replace(
        "group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 80",
        "group: policy.linkerd.io, kind: Server, name: web-http",
    );
    let world = World::of(&[SHOP, &network, &elsewhere]);
    let found = world.findings("MESH-0407");
    let said = |what: &str| found.iter().any(|one| one.message.contains(what));
    assert!(said("annotations of the network do nothing"), "{found:?}");
    assert!(said("attached to none"), "{found:?}");
}

#[test]
fn a_network_that_allows_reads_only_where_tls_is_begun() {
    let begins = format!("{BEGIN}, {SYSTEM}");
    let one = route("HTTPRoute", "api", &begins, "api.example");
    let other = route("HTTPRoute", "b", "", "b.example");
    let elsewhere = route("HTTPRoute", "c", "", "c.example").replace("port: 80", "port: 81");
    let world = world("Allow", &[&one, &other, &elsewhere]);
    let networks = world.snapshot("shop", "web").egress;
    let ports: Vec<u16> = networks[0].ports.keys().copied().collect();
    assert_eq!(ports, [80]);
    assert_eq!(networks[0].ports[&80].routes.len(), 2);
    let idle: Vec<_> = world.findings("MESH-0399");
    assert_eq!(idle.len(), 1, "the one at the other port: {idle:?}");
    assert!(asked(&world, "api.example").tls().is_some());
    assert_eq!(asked(&world, "z.example").cause.word(), "granted");
    assert_eq!(decided(&world, &Seen::Bytes).cause.word(), "granted");
}
