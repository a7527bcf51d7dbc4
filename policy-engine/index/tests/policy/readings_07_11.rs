//! Settled readings 7 and 9 to 11: localhost, identities, protocols, raw bytes. Reading 8 is in `routes`.

use crate::linkerd_model::Says::{Allow, Closed, Forbidden};
use crate::side_by_side::Scene;
use crate::why::{
    CONTROL_PLANE, LOCALHOST, RAW_ON_ROUTES, SAME, SPIFFE_NAMESPACE, SPIFFE_WILDCARD, SUFFIX,
};
use crate::world::{
    Ask, DENIED, MESHED, SERVER, SHOP, World, annotated_pod, policy, route, server_authorization,
};
use mesh_policy_index::Mode;

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn web() -> Ask {
    Ask::meshed("shop/web")
}

#[test]
fn reading_07_localhost_has_no_permit_of_its_own() {
    for ip in ["127.0.0.1", "::1"] {
        for parts in [vec![SHOP], vec![SHOP, SERVER], vec![SHOP, SERVER, MESHED]] {
            Scene::of(&parts).answers(&[(Ask::plain().ip(ip), Allow, DENIED, LOCALHOST)]);
        }
        let opaque = SERVER.replace("HTTP/1", "opaque");
        Scene::of(&[SHOP, &opaque]).answers(&[(
            Ask::plain().ip(ip).tcp(),
            Allow,
            "permit -",
            LOCALHOST,
        )]);
    }
    let near = "{unauthenticated: true, networks: [{cidr: 127.0.0.0/8}]}";
    let world = World::of(&[SHOP, SERVER, &server_authorization("{name: cart}", near)]);
    assert_eq!(
        world.answer(&Ask::plain().ip("127.0.0.1")),
        "allow",
        "a grant that says so is one"
    );
}

/// Answers to `id` where one identity is listed.
fn listed(identity: &str, more: &[&str]) -> Scene {
    let listed = MESHED.replace("'*'", &format!("'{identity}'"));
    let grant = meshed_policy();
    let mut parts = vec![SHOP, SERVER, &listed, &grant];
    parts.extend(more);
    Scene::of(&parts)
}

#[test]
fn reading_09_dns_forms_of_any_control_plane_namespace_in_our_trust_domain_only() {
    for (identity, linkerd, ours, why) in [
        (
            "web.shop.serviceaccount.identity.linkerd.cluster.local",
            Allow,
            "allow",
            SAME,
        ),
        (
            "web.shop.serviceaccount.identity.mesh-system.cluster.local",
            Forbidden,
            "allow",
            CONTROL_PLANE,
        ),
        (
            "web.shop.serviceaccount.identity.linkerd.other.local",
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            "web.shop.serviceaccount.identity.linkerd.evil.cluster.local",
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            "web.shop.serviceaccount.identity.cluster.local",
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            "*.shop.serviceaccount.identity.linkerd.cluster.local",
            Allow,
            "allow",
            SAME,
        ),
        (
            "*.shop.serviceaccount.identity.other.cluster.local",
            Forbidden,
            "allow",
            CONTROL_PLANE,
        ),
    ] {
        listed(identity, &[]).answers(&[(web(), linkerd, ours, why)]);
    }
    let dotted = "a.b.shop.serviceaccount.identity.linkerd.cluster.local";
    assert_eq!(
        listed(dotted, &[]).world.answer(&Ask::meshed("shop/a.b")),
        "allow",
        "a service account may have dots"
    );
    assert_eq!(
        listed(dotted, &[]).world.answer(&Ask::meshed("b.shop/a")),
        DENIED
    );
}

#[test]
fn reading_09_other_suffixes_are_valid_and_match_nobody() {
    for suffix in [
        "*.local",
        "*.cluster.local",
        "*.linkerd.cluster.local",
        "*.serviceaccount.identity.linkerd.cluster.local",
    ] {
        let scene = listed(suffix, &[]);
        scene.answers(&[(web(), Allow, DENIED, SUFFIX)]);
        assert_eq!(
            scene.world.errors(),
            Vec::<&str>::new(),
            "{suffix} is valid"
        );
        assert_eq!(
            scene.world.findings("MESH-0378").len(),
            1,
            "{suffix} is reported"
        );
    }
    listed("*.x", &[]).answers(&[(web(), Forbidden, DENIED, SAME)]);
}

#[test]
fn reading_09_a_spiffe_namespace_means_its_service_accounts_and_nothing_below() {
    let scene = listed("spiffe://partner.example/ns/x/*", &[]);
    for (id, ours) in [
        ("spiffe://partner.example/ns/x/sa/y", true),
        ("spiffe://partner.example/ns/x/sa/z", true),
        ("spiffe://partner.example/ns/x/sa/y/z", false),
        ("spiffe://partner.example/ns/x/job/y", false),
        ("spiffe://partner.example/ns/x", false),
        ("spiffe://partner.example/ns/xx/sa/y", false),
        ("spiffe://partner.example/ns/w/sa/y", false),
        ("spiffe://cluster.local/ns/x/sa/y", false),
    ] {
        let (answer, why) = if ours {
            ("allow", SPIFFE_NAMESPACE)
        } else {
            (DENIED, SAME)
        };
        scene.answers(&[(Ask::identity(id), Forbidden, answer, why)]);
    }
}

fn federation(fields: &str) -> String {
    format!(
        "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {{name: f}}\nspec: {{{fields}}}\n"
    )
}

#[test]
fn reading_09_the_wildcard_covers_a_federated_domain_only_if_it_says_so() {
    let foreign = || Ask::identity("spiffe://partner.example/any/path");
    for (fields, wildcard) in [
        (
            "trustDomain: partner.example, includeInWildcards: true",
            true,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: false",
            false,
        ),
        ("trustDomain: partner.example", false),
        (
            "trustDomain: other.example, includeInWildcards: true",
            false,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: 'true'",
            false,
        ),
        (
            "trustDomain: partner.example, includeInWildcards: true, more: 1",
            false,
        ),
        (
            "trustDomain: Partner.example, includeInWildcards: true",
            false,
        ),
        ("includeInWildcards: true", false),
    ] {
        let federation = federation(fields);
        let (answer, why) = if wildcard {
            ("allow", SPIFFE_WILDCARD)
        } else {
            (DENIED, SAME)
        };
        listed("*", &[&federation]).answers(&[
            (foreign(), Forbidden, answer, why),
            (web(), Allow, "allow", SAME),
            (Ask::bare_tls(), Forbidden, DENIED, SAME),
        ]);
        // The authenticated modes mean the same `*`.
        let modes = World::default_policy(Mode::AllAuthenticated, &[SHOP, &federation]);
        assert_eq!(modes.answer(&foreign()), answer, "{fields}");
    }
    let twice = [
        federation("trustDomain: partner.example, includeInWildcards: true"),
        federation("trustDomain: other.example"),
    ]
    .join("---\n");
    assert_eq!(
        listed("*", &[&twice]).world.answer(&foreign()),
        DENIED,
        "one name, two objects: neither counts"
    );
}

#[test]
fn reading_09_a_listed_foreign_identity_matches_exactly() {
    let scene = listed("spiffe://partner.example/ns/x/sa/y", &[]);
    scene.answers(&[
        (
            Ask::identity("spiffe://partner.example/ns/x/sa/y"),
            Allow,
            "allow",
            SAME,
        ),
        (
            Ask::identity("spiffe://cluster.local/ns/x/sa/y"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            Ask::identity("spiffe://partner.example/ns/x/sa/Y"),
            Forbidden,
            DENIED,
            SAME,
        ),
        (
            Ask::identity("spiffe://partner.example.evil/ns/x/sa/y"),
            Forbidden,
            DENIED,
            SAME,
        ),
    ]);
}

#[test]
fn reading_09_a_service_account_needs_no_object_but_lint_warns() {
    let ghost = policy("p", "Server cart", &["ServiceAccount ghost"]);
    let scene = Scene::of(&[SHOP, SERVER, &ghost]);
    scene.answers(&[
        (Ask::meshed("shop/ghost"), Allow, "allow", SAME),
        (Ask::meshed("other/ghost"), Forbidden, DENIED, SAME),
    ]);
    assert_eq!(scene.world.findings("MESH-0377").len(), 1);
    let known = World::of(&[
        SHOP,
        SERVER,
        &policy("p", "Server cart", &["ServiceAccount web"]),
    ]);
    assert_eq!(known.findings("MESH-0377").len(), 0);
    let refs = MESHED.replace(
        "identities: ['*']",
        "identityRefs: [{kind: ServiceAccount, name: ghost, namespace: other}]",
    );
    let world = World::of(&[SHOP, SERVER, &refs, &meshed_policy()]);
    assert_eq!(world.answer(&Ask::meshed("other/ghost")), "allow");
    assert_eq!(world.findings("MESH-0377").len(), 1);
}

fn grpc_route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: g, namespace: shop}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]\n  rules: [{rule}]\n"
    )
}

#[test]
fn reading_10_each_protocol_takes_its_kind_of_route_and_says_what_it_leaves() {
    let http = route("h", "{value: /}");
    let grpc = grpc_route("{}");
    for (protocol, routes) in [
        ("unknown", "h"),
        ("HTTP/1", "h"),
        ("HTTP/2", "h"),
        ("gRPC", "g"),
        ("opaque", ""),
        ("TLS", ""),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        let world = World::of(&[SHOP, &server, &http, &grpc]);
        let snapshot = world.snapshot("shop", "cart");
        let names: String = snapshot
            .ports
            .get(&8080)
            .unwrap()
            .routes
            .iter()
            .map(|r| r.name.as_str())
            .collect();
        assert_eq!(names, routes, "{protocol}");
        assert_eq!(
            world.findings("MESH-0371").len(),
            2 - routes.len(),
            "{protocol}"
        );
    }
}

#[test]
fn reading_10_opaque_and_tls_ports_are_judged_as_bytes_by_the_grants_of_the_server() {
    let h = route("h", "{value: /}");
    let on_route = policy("r", "HTTPRoute h", &["MeshTLSAuthentication meshed"]);
    for protocol in ["opaque", "TLS"] {
        let server = SERVER.replace("HTTP/1", protocol);
        // A grant on a route opens no bytes; the route is without effect.
        Scene::of(&[SHOP, &server, MESHED, &h, &on_route]).answers(&[
            (web().tcp(), Closed, "permit -", SAME),
            (web(), Closed, "permit -", SAME),
        ]);
        Scene::of(&[SHOP, &server, MESHED, &h, &meshed_policy()]).answers(&[
            (web().tcp(), Allow, "allow", SAME),
            // Whatever it looks like: no path is read there, so none is refused or missed.
            (web(), Allow, "allow", SAME),
            (web().path("/%2F"), Allow, "allow", SAME),
            (Ask::plain().tcp(), Closed, "permit -", SAME),
        ]);
        let on_namespace = policy(
            "on-namespace",
            "Namespace shop",
            &["MeshTLSAuthentication meshed"],
        );
        Scene::of(&[SHOP, &server, MESHED, &on_namespace]).answers(&[(
            web().tcp(),
            Allow,
            "allow",
            SAME,
        )]);
    }
}

#[test]
fn reading_11_raw_bytes_are_refused_where_requests_are_judged() {
    let limit = "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, total: {requestsPerSecond: 1}}\n";
    let valid = route("r", "{value: /}");
    let invalid = route("r", "{value: relative}");
    for (protocol, more, linkerd, ours, why) in [
        ("HTTP/1", "", Closed, "server -", SAME),
        ("HTTP/2", "", Closed, "server -", SAME),
        ("gRPC", "", Closed, "server -", SAME),
        ("unknown", "", Allow, "allow", SAME),
        ("unknown", valid.as_str(), Allow, "server -", RAW_ON_ROUTES),
        (
            "unknown",
            invalid.as_str(),
            Allow,
            "server -",
            RAW_ON_ROUTES,
        ),
        ("unknown", limit, Allow, "server -", RAW_ON_ROUTES),
        (
            "unknown",
            &limit.replace("1}", "0}"),
            Allow,
            "server -",
            RAW_ON_ROUTES,
        ),
        ("opaque", limit, Allow, "allow", SAME),
        ("TLS", valid.as_str(), Allow, "allow", SAME),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        let scene = Scene::of(&[SHOP, &server, MESHED, &meshed_policy(), more]);
        scene.answers(&[(web().tcp(), linkerd, ours, why)]);
    }
}

#[test]
fn reading_11_a_port_without_server_takes_bytes_by_its_default_policy() {
    Scene::default_policy(Mode::AllAuthenticated, &[SHOP]).answers(&[
        (web().tcp(), Allow, "allow", SAME),
        (Ask::plain().tcp(), Closed, "permit -", SAME),
        (web().port(7070).tcp(), Allow, "allow", SAME),
    ]);
    let pod = annotated_pod("config.linkerd.io/default-inbound-policy: deny");
    Scene::default_policy(Mode::AllAuthenticated, &[&pod]).answers(&[(
        web().tcp(),
        Closed,
        "permit -",
        SAME,
    )]);
}
