//! Linkerd's own suite, cases 23 to 25: identities of clients, running connections, rate limits.

use crate::linkerd_model::Says::{Allow, Closed, Forbidden};
use crate::side_by_side::{Admission, Row, Scene, admissions};
use crate::why::{
    CONTROL_PLANE, SAME, SPIFFE_NAMESPACE, SPIFFE_OWN, SPIFFE_UPPER_CASE, SPIFFE_WILDCARD, SUFFIX,
    Why,
};
use crate::world::{Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, policy};
use mesh_policy::snapshot::RateLimit;

/// Who is admitted by a Server whose policy lists one identity.
fn listing(identity: &str) -> Scene {
    let listed = MESHED.replace("'*'", &format!("'{identity}'"));
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, &listed, &on_server])
}

#[test]
fn case_23_identities_of_the_mesh_are_matched_exactly_or_by_namespace() {
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    for (identity, linkerd, ours, why) in [
        (
            "web.shop.serviceaccount.identity.linkerd.cluster.local",
            true,
            true,
            SAME,
        ),
        (
            "*.shop.serviceaccount.identity.linkerd.cluster.local",
            true,
            true,
            SAME,
        ),
        ("*", true, true, SAME),
        (web, false, true, SPIFFE_OWN),
        (
            "SPIFFE://Cluster.Local/ns/shop/sa/web",
            false,
            true,
            SPIFFE_UPPER_CASE,
        ),
        (
            "spiffe://cluster.local/ns/shop/*",
            false,
            true,
            SPIFFE_NAMESPACE,
        ),
        (
            "web.shop.serviceaccount.identity.mesh-system.cluster.local",
            false,
            true,
            CONTROL_PLANE,
        ),
        ("*.cluster.local", true, false, SUFFIX),
        ("*.local", true, false, SUFFIX),
        (
            "*.serviceaccount.identity.linkerd.cluster.local",
            true,
            false,
            SUFFIX,
        ),
        ("spiffe://cluster.local/ns/shop/sa/we", false, false, SAME),
        ("spiffe://cluster.local/ns/shop/sa/webb", false, false, SAME),
        ("spiffe://cluster.local/ns/sho/*", false, false, SAME),
        ("spiffe://other.example/ns/shop/sa/web", false, false, SAME),
        (
            "web.shop.serviceaccount.identity.linkerd.other.example",
            false,
            false,
            SAME,
        ),
        (
            "eb.shop.serviceaccount.identity.linkerd.cluster.local",
            false,
            false,
            SAME,
        ),
    ] {
        let says = if linkerd { Allow } else { Forbidden };
        let answer = if ours { "allow" } else { DENIED };
        listing(identity).answers(&[(Ask::meshed("shop/web"), says, answer, why)]);
    }
}

#[test]
fn case_23_a_suffix_never_matches_a_spiffe_uri_and_an_exact_one_does() {
    let external = "spiffe://cluster.local/external/vm";
    let foreign = "spiffe://partner.example/ns/x/sa/y";
    for (identity, id, linkerd, ours, why) in [
        (external, external, true, true, SAME),
        (foreign, foreign, true, true, SAME),
        ("*", external, false, true, SPIFFE_WILDCARD),
        ("*", foreign, false, false, SAME),
        ("*.local", external, false, false, SAME),
        ("*.external", external, false, false, SAME),
        (
            "spiffe://partner.example/ns/x/*",
            foreign,
            false,
            true,
            SPIFFE_NAMESPACE,
        ),
        (
            "spiffe://cluster.local/external/v",
            external,
            false,
            false,
            SAME,
        ),
        (
            "spiffe://cluster.local/external",
            external,
            false,
            false,
            SAME,
        ),
        (
            foreign,
            "spiffe://partner.example/ns/x/sa/y/z",
            false,
            false,
            SAME,
        ),
    ] {
        let says = if linkerd { Allow } else { Forbidden };
        let answer = if ours { "allow" } else { DENIED };
        listing(identity).answers(&[(Ask::identity(id), says, answer, why)]);
    }
}

#[test]
fn case_24_a_policy_that_goes_ends_connections_that_it_allowed() {
    let server = SERVER.replace("HTTP/1", "opaque");
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let bytes = || Ask::meshed("shop/web").tcp();
    let scene = Scene::of(&[SHOP, &server, MESHED, &on_server]);
    scene.answers(&[
        (bytes(), Allow, "allow", SAME),
        (Ask::plain().tcp(), Closed, "permit -", SAME),
    ]);
    // The proxy asks again, of the new snapshot, for every connection that stands; this is the answer it gets.
    let after = scene.without("AuthorizationPolicy", "p", &[SHOP, &server, MESHED]);
    after.answers(&[(bytes(), Closed, "permit -", SAME)]);
    let record = after.world.decide(&bytes());
    assert_eq!(
        (record.status, record.grpc_status, record.reasons.len()),
        (None, None, 0)
    );
}

#[test]
fn case_24_bytes_are_refused_where_a_server_names_a_version_of_http() {
    let on_server = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    for (protocol, linkerd, ours) in [
        ("HTTP/1", Closed, "server -"),
        ("HTTP/2", Closed, "server -"),
        ("gRPC", Closed, "server -"),
        ("unknown", Allow, "allow"),
        ("opaque", Allow, "allow"),
        ("TLS", Allow, "allow"),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        let rows: &[Row] = &[(Ask::meshed("shop/web").tcp(), linkerd, ours, SAME as Why)];
        Scene::of(&[SHOP, &server, MESHED, &on_server]).answers(rows);
    }
}

fn limit(spec: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {{name: l, namespace: shop}}\nspec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: cart}}, {spec}}}\n"
    )
}

/// The limit in force on port 8080.
fn in_force(parts: &[&str]) -> Option<RateLimit> {
    World::of(parts)
        .snapshot("shop", "cart")
        .ports
        .get(&8080)
        .unwrap()
        .rate_limit
        .clone()
}

#[test]
fn case_25_rate_limits_are_positive_and_none_exceeds_the_total() {
    let web = "clientRefs: [{kind: ServiceAccount, name: web}]";
    let rows: Vec<(String, bool)> = vec![
        (
            format!(
                "total: {{requestsPerSecond: 100}}, identity: {{requestsPerSecond: 5}}, overrides: [{{requestsPerSecond: 10, {web}}}]"
            ),
            true,
        ),
        ("total: {requestsPerSecond: 70}".to_owned(), true),
        ("identity: {requestsPerSecond: 5}".to_owned(), true),
        (
            "total: {requestsPerSecond: 5}, identity: {requestsPerSecond: 5}".to_owned(),
            true,
        ),
        (
            "total: {requestsPerSecond: 4}, identity: {requestsPerSecond: 5}".to_owned(),
            false,
        ),
        (
            format!(
                "total: {{requestsPerSecond: 4}}, overrides: [{{requestsPerSecond: 10, {web}}}]"
            ),
            false,
        ),
        ("total: {requestsPerSecond: 0}".to_owned(), false),
        ("identity: {requestsPerSecond: 0}".to_owned(), false),
        (
            format!("overrides: [{{requestsPerSecond: 0, {web}}}]"),
            false,
        ),
        ("total: {requestsPerSecond: -1}".to_owned(), false),
        ("total: {}".to_owned(), false),
        ("total: {requestsPerSecond: 5.5}".to_owned(), false),
        (
            "overrides: [{requestsPerSecond: 1, clientRefs: [{kind: Pod, name: web}]}]".to_owned(),
            false,
        ),
        ("overrides: [{requestsPerSecond: 1}]".to_owned(), false),
    ];
    let table: Vec<Admission<'_>> = rows
        .iter()
        .map(|(spec, valid)| (spec.as_str(), *valid, *valid, SAME))
        .collect();
    admissions(limit, &table);
    for (spec, _) in &rows {
        let snapshot = World::of(&[SHOP, SERVER, &limit(spec)]).snapshot("shop", "cart");
        assert!(
            snapshot.ports.get(&8080).unwrap().l7_limits,
            "{spec}: bytes stay refused"
        );
    }
    let elsewhere = limit("total: {requestsPerSecond: 1}").replace("kind: Server", "kind: Pod");
    admissions(
        |_| elsewhere.clone(),
        &[("a target that is no Server", false, false, SAME)],
    );
}

#[test]
fn case_25_total_and_identity_and_override_reach_the_proxy_as_written() {
    let spec = "total: {requestsPerSecond: 100}, identity: {requestsPerSecond: 5}, overrides: [{requestsPerSecond: 10, clientRefs: [{kind: ServiceAccount, name: web}, {kind: ServiceAccount, name: a, namespace: b}]}]";
    let found = in_force(&[SHOP, SERVER, &limit(spec)]).unwrap();
    assert_eq!((found.total, found.identity), (Some(100), Some(5)));
    let overrides: Vec<(Vec<&str>, u32)> = found
        .overrides
        .iter()
        .map(|(ids, rate)| (ids.iter().map(|i| i.as_str()).collect(), *rate))
        .collect();
    let ids = vec![
        "spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/b/sa/a",
    ];
    assert_eq!(overrides, [(ids, 10)]);
}

#[test]
fn case_25_grpc_servers_are_limited_too_and_byte_servers_are_not() {
    for (protocol, limited) in [
        ("unknown", true),
        ("HTTP/1", true),
        ("HTTP/2", true),
        // Linkerd does not carry the limit for `gRPC`: a limit that was written and does nothing is worse than none.
        ("gRPC", true),
        ("opaque", false),
        ("TLS", false),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        let found = in_force(&[SHOP, &server, &limit("total: {requestsPerSecond: 9}")]);
        assert_eq!(found.is_some(), limited, "{protocol}");
    }
}

#[test]
fn case_25_a_limit_never_admits_whom_policy_denies() {
    let spec = limit("total: {requestsPerSecond: 100}");
    let on_server = policy("p", "Server cart", &["NetworkAuthentication near"]);
    let world = World::of(&[SHOP, SERVER, NETWORK, &on_server, &spec]);
    assert_eq!(world.answer(&Ask::plain()), "allow");
    assert_eq!(world.answer(&Ask::plain().ip("10.9.9.9")), DENIED);
}
