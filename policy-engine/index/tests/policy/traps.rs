//! Where Linkerd fails open or stays silent, and this mesh does not: traps 1 to 12, in the order of the list they come from.

use crate::linkerd_model::Says::{Allow, Forbidden, NotFound};
use crate::side_by_side::Scene;
use crate::why::{
    CANONICAL_PATH, DEFAULT_DENY, EMPTY_REFS, EXACT_NAMES, INVALID_UPDATE, METHOD_ORDER,
    MISSED_DELETION, REFUSED_HEAD, ROUTE_ORDER, SAME, SPIFFE_WILDCARD, UNCHECKED, UNKNOWN_FIELD,
};
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, dated, join, policy, route,
    server_authorization,
};
use mesh_policy_index::Mode;

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn web() -> Ask {
    Ask::meshed("shop/web")
}

#[test]
fn trap_01_an_invalid_object_that_slipped_past_admission_grants_nothing() {
    let both = server_authorization(
        "{name: cart}",
        "{unauthenticated: true, meshTLS: {identities: ['*']}}",
    );
    let parts = [SHOP, SERVER, &both];
    Scene::of(&parts).answers(&[(Ask::plain(), Forbidden, DENIED, SAME)]);
    Scene::without_webhook(&parts).answers(&[(Ask::plain(), Allow, DENIED, UNCHECKED)]);
    let two = policy(
        "p",
        "Server cart",
        &["NetworkAuthentication near", "NetworkAuthentication far"],
    );
    let far = NETWORK
        .replace("near", "far")
        .replace("10.1.2.3", "203.0.113.9");
    let parts = [SHOP, SERVER, NETWORK, &far, &two];
    Scene::without_webhook(&parts).answers(&[(
        Ask::plain().ip("203.0.113.9"),
        Allow,
        DENIED,
        UNCHECKED,
    )]);
}

#[test]
fn trap_01_the_invalid_object_and_the_policy_that_needs_it_are_both_reported() {
    let invalid = MESHED.replace("'*'", "'x.*'");
    let world = World::of(&[SHOP, SERVER, &invalid, &meshed_policy()]);
    assert_eq!(world.answer(&web()), DENIED);
    assert_eq!(world.errors(), ["MESH-0359", "MESH-0365"]);
}

#[test]
fn trap_02_an_exact_path_ranks_before_an_older_prefix_of_equal_length() {
    let prefix = dated("2020", &route("prefix", "{value: /admin}"));
    let exact = dated("2021", &route("exact", "{type: Exact, value: /admin}"));
    let on_prefix = policy("p", "HTTPRoute prefix", &["MeshTLSAuthentication meshed"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, &prefix, &exact, &on_prefix]);
    scene.answers(&[
        (web().path("/admin"), Allow, DENIED, ROUTE_ORDER),
        (web().path("/admin/x"), Allow, "allow", SAME),
    ]);
    assert_eq!(
        scene
            .world
            .decide(&web().path("/admin"))
            .route
            .unwrap()
            .name,
        "exact"
    );
}

#[test]
fn trap_02_a_broad_regular_expression_does_not_take_over_a_stricter_prefix() {
    let prefix = route("prefix", "{value: /admin}");
    let broad = route("broad", "{type: RegularExpression, value: '/.*'}");
    let on_broad = policy("p", "HTTPRoute broad", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &prefix, &broad, &on_broad]).answers(&[
        (web().path("/admin/x"), Allow, DENIED, ROUTE_ORDER),
        (web().path("/admin"), Allow, DENIED, ROUTE_ORDER),
        (web().path("/other"), Allow, "allow", SAME),
    ]);
}

#[test]
fn trap_02_a_method_ranks_before_headers() {
    let by_method = route("method", "{value: /}, method: GET");
    let by_header = route("header", "{value: /}, headers: [{name: x-a, value: '1'}]");
    let on_header = policy("p", "HTTPRoute header", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &by_method, &by_header, &on_header]).answers(&[
        (web().header("x-a", &["1"]), Allow, DENIED, METHOD_ORDER),
        (
            web().header("x-a", &["1"]).method("POST"),
            Allow,
            "allow",
            SAME,
        ),
        (web(), Forbidden, DENIED, SAME),
    ]);
}

#[test]
fn trap_02_a_less_protected_route_that_takes_over_is_reported() {
    let admin = route("admin", "{value: /admin}");
    let host = route("host", "{value: /}").replace("rules:", "hostnames: [shop.example]\n  rules:");
    let on_admin = policy("a", "HTTPRoute admin", &["ServiceAccount web"]);
    let on_host = policy("b", "HTTPRoute host", &["MeshTLSAuthentication meshed"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, &admin, &host, &on_admin, &on_host]);
    // The more specific hostname comes before the path, with Gateway API as with Linkerd.
    let other = Ask::meshed("shop/other")
        .path("/admin")
        .host("shop.example");
    scene.answers(&[(other, Allow, "allow", SAME)]);
    let found = scene.world.findings("MESH-0372");
    let about: Vec<&str> = found
        .iter()
        .map(|f| f.object.as_ref().unwrap().name.as_str())
        .collect();
    assert_eq!(about, ["host"]);
    let regex = route("regex", "{type: RegularExpression, value: '/admin.*'}");
    let all = route("all", "{value: /}");
    let open = policy("p", "HTTPRoute all", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &regex, &all, &open]);
    assert_eq!(
        world.findings("MESH-0372").len(),
        1,
        "a regular expression behind a catch-all"
    );
}

#[test]
fn trap_02_a_less_protected_grpc_route_that_takes_over_is_reported_too() {
    let server = SERVER.replace("HTTP/1", "gRPC");
    let grpc = |name: &str, hostnames: &str, one: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]\n  hostnames: [{hostnames}]\n  rules: [{{matches: [{one}]}}]\n"
        )
    };
    let delete = grpc(
        "delete",
        "",
        "{method: {service: shop.Cart, method: Delete}}",
    );
    let on_delete = policy("a", "GRPCRoute delete", &["ServiceAccount admin"]);
    for (other, reported) in [
        (
            grpc("other", "shop.example", "{method: {service: shop.Cart}}"),
            1,
        ),
        (grpc("other", "shop.example", "{}"), 1),
        (
            dated(
                "2020",
                &grpc(
                    "other",
                    "",
                    "{method: {service: shop.Cart, method: Delete}}",
                ),
            ),
            1,
        ),
        (grpc("other", "", "{method: {service: shop.Cart}}"), 0),
        (
            grpc("other", "shop.example", "{method: {service: shop.Stock}}"),
            0,
        ),
    ] {
        let on_other = policy("b", "GRPCRoute other", &["MeshTLSAuthentication meshed"]);
        let world = World::of(&[
            SHOP, &server, MESHED, &delete, &other, &on_delete, &on_other,
        ]);
        assert_eq!(world.findings("MESH-0372").len(), reported, "{other}");
    }
}

#[test]
fn trap_03_an_invalid_update_takes_the_grant_away() {
    let good = [SHOP, SERVER, MESHED, &meshed_policy()].map(str::to_owned);
    for (part, from, to, why) in [
        (2, "identities: ['*']", "identities: []", INVALID_UPDATE),
        (2, "identities: ['*']", "identites: ['*']", INVALID_UPDATE),
        (
            2,
            "identities: ['*']",
            "identities: ['*'], identities: ['*']",
            INVALID_UPDATE,
        ),
        (
            2,
            "identities: ['*']",
            "identities: ['*', 'x.*']",
            INVALID_UPDATE,
        ),
        (2, "spec:", "spec: [", INVALID_UPDATE),
        (3, "targetRef:", "targetReference:", INVALID_UPDATE),
        (3, "name: meshed", "name: [meshed]", INVALID_UPDATE),
        (3, "kind: Server", "kind: Sever", INVALID_UPDATE),
        (
            3,
            "name: meshed",
            "name: meshed, sectionName: x",
            UNKNOWN_FIELD,
        ),
    ] {
        let mut broken = good.clone();
        broken[part] = broken[part].replacen(from, to, 1);
        assert_ne!(broken[part], good[part], "{from}");
        let before = Scene::of(&good.each_ref().map(String::as_str));
        before.answers(&[(web(), Allow, "allow", SAME)]);
        let after = before.becomes(&broken.each_ref().map(String::as_str));
        after.answers(&[(web(), Allow, DENIED, why)]);
        assert!(!after.world.errors().is_empty(), "{to} is reported");
    }
    for (part, from, to) in [
        (2, "v1alpha1", "v2"),
        (2, "spec:", "spec: !x"),
        (3, "v1alpha1", "v1beta1"),
    ] {
        let mut broken = good.clone();
        broken[part] = broken[part].replacen(from, to, 1);
        let world = World::of(&broken.each_ref().map(String::as_str));
        assert_eq!(world.answer(&web()), DENIED, "{to}");
        assert!(!world.errors().is_empty(), "{to} is reported");
    }
}

#[test]
fn trap_04_deleting_any_part_of_a_grant_revokes_it() {
    let refs = ["MeshTLSAuthentication meshed", "NetworkAuthentication near"];
    let both = policy("p", "Server cart", &refs);
    let all = [SHOP, SERVER, MESHED, NETWORK, both.as_str()];
    for (gone, what) in [
        (2, "MeshTLSAuthentication"),
        (3, "NetworkAuthentication"),
        (4, "AuthorizationPolicy"),
    ] {
        let before = Scene::of(&all);
        before.answers(&[(web(), Allow, "allow", SAME)]);
        let mut rest = all.to_vec();
        rest.remove(gone);
        // Linkerd is not told: the defect was that the event reached the wrong map.
        let after = before.becomes(&rest);
        after.answers(&[(web(), Allow, DENIED, MISSED_DELETION)]);
        assert!(after.world.reasons(&web()).is_empty(), "{what}");
    }
    let authorization = server_authorization("{name: cart}", "{meshTLS: {identities: ['*']}}");
    assert_eq!(
        World::of(&[SHOP, SERVER, &authorization]).answer(&web()),
        "allow"
    );
    assert_eq!(
        World::of(&[SHOP, SERVER]).answer(&web()),
        DENIED,
        "ServerAuthorization"
    );
}

#[test]
fn trap_05_a_dangling_reference_names_the_policy_its_line_and_what_is_missing() {
    let scene = Scene::of(&[SHOP, SERVER, &meshed_policy()]);
    scene.answers(&[(web(), Forbidden, DENIED, SAME)]);
    let found = scene.world.findings("MESH-0364");
    let finding = found.first().unwrap();
    assert_eq!(
        finding.message,
        "AuthorizationPolicy shop/p grants nothing: it requires MeshTLSAuthentication shop/meshed, which does not exist"
    );
    let text = join(&[SHOP, SERVER, &meshed_policy()]);
    let line = 1 + text
        .lines()
        .position(|l| l.contains("requiredAuthenticationRefs"))
        .unwrap();
    assert_eq!(finding.source.to_string(), format!("all.yaml:{line}"));
    let snapshot = scene.world.snapshot("shop", "cart");
    assert!(
        snapshot.findings.contains(finding),
        "explain shows the dead policy"
    );
}

#[test]
fn trap_05_every_kind_of_reference_to_nothing_is_an_error() {
    for (parts, what) in [
        (
            vec![policy("p", "Server cart", &["NetworkAuthentication near"])],
            "NetworkAuthentication",
        ),
        (
            vec![policy("p", "Server ghost", &["ServiceAccount web"])],
            "Server",
        ),
        (
            vec![policy("p", "HTTPRoute ghost", &["ServiceAccount web"])],
            "HTTPRoute",
        ),
        (
            vec![policy("p", "GRPCRoute ghost", &["ServiceAccount web"])],
            "GRPCRoute",
        ),
        (
            vec![server_authorization(
                "{name: ghost}",
                "{unauthenticated: true}",
            )],
            "Server of a ServerAuthorization",
        ),
        (
            vec![route("r", "{value: /}").replace("name: cart}", "name: ghost}")],
            "Server of a route",
        ),
    ] {
        let mut all = vec![SHOP, SERVER];
        all.extend(parts.iter().map(String::as_str));
        assert_eq!(World::of(&all).errors(), ["MESH-0364"], "{what}");
    }
}

#[test]
fn trap_06_empty_references_admit_nobody_on_any_target() {
    let a = route("a", "{value: /}");
    for target in ["Server cart", "Namespace shop", "HTTPRoute a"] {
        let open = policy("p", target, &[]);
        let scene = Scene::of(&[SHOP, SERVER, &a, &open]);
        scene.answers(&[
            (Ask::plain(), Allow, DENIED, EMPTY_REFS),
            (web(), Allow, DENIED, EMPTY_REFS),
        ]);
        assert_eq!(scene.world.errors(), ["MESH-0366"], "{target}");
    }
}

#[test]
fn trap_07_every_grant_that_holds_is_a_reason_and_audit_is_said_only_of_audit_alone() {
    let server = SERVER.replace("port: http", "port: http, accessPolicy: audit");
    let on_namespace = policy("a", "Namespace shop", &["ServiceAccount web"]);
    let authorization = server_authorization("{name: cart}", "{meshTLS: {identities: ['*']}}");
    let scene = Scene::of(&[
        SHOP,
        &server,
        MESHED,
        &meshed_policy(),
        &on_namespace,
        &authorization,
    ]);
    scene.answers(&[
        (web(), Allow, "allow", SAME),
        (Ask::plain(), Allow, "allow", SAME),
    ]);
    let record = scene.world.decide(&web());
    let all = [
        "AuthorizationPolicy/shop/a/0",
        "AuthorizationPolicy/shop/p/0",
        "ServerAuthorization/shop/s/0",
        "default/audit",
    ];
    assert_eq!(
        (record.reasons.as_slice(), record.audit),
        (all.map(str::to_owned).as_slice(), false)
    );
    let record = scene.world.decide(&Ask::plain());
    assert_eq!(
        (record.reasons.as_slice(), record.audit),
        (["default/audit".to_owned()].as_slice(), true)
    );
}

#[test]
fn trap_08_paths_are_judged_in_canonical_form() {
    let public = route("public", "{value: /public}");
    let private = route("private", "{value: /private}");
    let on_public = policy("p", "HTTPRoute public", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &public, &private, &on_public]).answers(&[
        (web().path("/public/x"), Allow, "allow", SAME),
        (web().path("/private"), Forbidden, DENIED, SAME),
        (web().path("/publicity"), NotFound, "route 404", SAME),
        (
            web().path("/public/../private"),
            Allow,
            DENIED,
            CANONICAL_PATH,
        ),
        (
            web().path("/public/%2e%2e/private"),
            Allow,
            DENIED,
            CANONICAL_PATH,
        ),
        (
            web().path("/public/.%2E/private"),
            Allow,
            DENIED,
            CANONICAL_PATH,
        ),
        (web().path("//public"), NotFound, "allow", CANONICAL_PATH),
        (web().path("/%70ublic"), NotFound, "allow", CANONICAL_PATH),
        (
            web().path("/public%2F..%2Fprivate"),
            NotFound,
            "request 400",
            REFUSED_HEAD,
        ),
        (
            web().path("/public/..;/private"),
            Allow,
            "request 400",
            REFUSED_HEAD,
        ),
        (
            web().path("/public\\..\\private"),
            NotFound,
            "request 400",
            REFUSED_HEAD,
        ),
    ]);
}

#[test]
fn trap_08_a_route_path_is_read_in_the_form_that_requests_have() {
    let escaped = route("r", "{type: Exact, value: '/%7Euser//x'}");
    let on_route = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &escaped, &on_route]);
    assert_eq!(world.answer(&web().path("/~user/x")), "allow");
    let dead = route("r", "{type: Exact, value: '/a%2Fb'}");
    let world = World::of(&[SHOP, SERVER, &dead]);
    assert_eq!(
        world.findings("MESH-0380").len(),
        1,
        "no request can have that path"
    );
    let kept = SERVER.replace(
        "name: cart, namespace",
        "annotations: {mesh.internal/path-escapes: keep}, name: cart, namespace",
    );
    let world = World::of(&[SHOP, &kept, MESHED, &dead, &on_route]);
    assert_eq!(world.findings("MESH-0380").len(), 0);
    assert_eq!(world.answer(&web().path("/a%2Fb")), "allow");
}

#[test]
fn trap_09_spiffe_identities_are_covered_by_the_wildcard() {
    let external = || Ask::identity("spiffe://cluster.local/any/path");
    let foreign = || Ask::identity("spiffe://other.example/ns/shop/sa/web");
    let rows = |scene: Scene| {
        scene.answers(&[
            (web(), Allow, "allow", SAME),
            (external(), Forbidden, "allow", SPIFFE_WILDCARD),
            (foreign(), Forbidden, DENIED, SAME),
            (Ask::plain(), Forbidden, DENIED, SAME),
        ]);
    };
    rows(Scene::of(&[SHOP, SERVER, MESHED, &meshed_policy()]));
    rows(Scene::default_policy(Mode::AllAuthenticated, &[SHOP]));
    rows(Scene::default_policy(Mode::ClusterAuthenticated, &[SHOP]));
}

#[test]
fn trap_09_an_external_workload_is_the_identity_that_it_declares() {
    let machine = "apiVersion: workload.linkerd.io/v1beta1\nkind: ExternalWorkload\nmetadata: {name: vm, namespace: shop}\nspec: {meshTLS: {identity: 'spiffe://root.example/vm/7', serverName: vm.example}, workloadIPs: [{ip: 192.0.2.7}]}\n";
    let exact = MESHED.replace("'*'", "spiffe://root.example/vm/7");
    for (authentication, says, ours) in [
        (exact.as_str(), Allow, "allow"),
        (MESHED, Forbidden, DENIED),
    ] {
        // Its trust domain is foreign: without a Federation the wildcard leaves it out here too.
        Scene::of(&[SHOP, SERVER, machine, authentication, &meshed_policy()]).answers(&[
            (
                Ask::identity("spiffe://root.example/vm/7").ip("192.0.2.7"),
                says,
                ours,
                SAME,
            ),
            (Ask::plain().ip("192.0.2.7"), Forbidden, DENIED, SAME),
        ]);
    }
}

#[test]
fn trap_10_a_mesh_that_was_told_nothing_denies() {
    Scene::untold(&[SHOP]).answers(&[
        (web(), Allow, DENIED, DEFAULT_DENY),
        (Ask::plain(), Allow, DENIED, DEFAULT_DENY),
        (Ask::plain().port(9090), Allow, DENIED, DEFAULT_DENY),
    ]);
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    assert_eq!(
        world.answer(&Ask::plain().pod("not-yet-seen")),
        "server 403",
        "no snapshot, no access"
    );
}

#[test]
fn trap_11_the_head_that_opened_a_stream_is_denied_by_the_next_snapshot() {
    // A proxy keeps the head of each running request and connection, and asks again with every snapshot. What it asks
    // is what is asked here; that it asks, and ends what is denied, is tested beside it.
    let a = route("a", "{value: /feed}");
    let on_route = policy("p", "HTTPRoute a", &["MeshTLSAuthentication meshed"]);
    let grpc_server = SERVER.replace("HTTP/1", "gRPC");
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\nspec:\n  parentRefs: [{group: policy.linkerd.io, kind: Server, name: cart}]\n";
    let on_grpc = policy("p", "GRPCRoute g", &["MeshTLSAuthentication meshed"]);
    let bytes = SERVER.replace("HTTP/1", "opaque");
    for (ask, server, route, grant) in [
        (web().path("/feed"), SERVER, a.as_str(), &on_route),
        (web().grpc("/shop.Cart/Watch"), &grpc_server, grpc, &on_grpc),
        (web().tcp(), &bytes, "", &meshed_policy()),
    ] {
        let before = World::of(&[SHOP, server, MESHED, route, grant]);
        assert_eq!(before.answer(&ask), "allow", "{}", ask.describe());
        for rest in [
            [SHOP, server, MESHED, route, ""],
            [SHOP, server, "", route, grant],
            [SHOP, server, &MESHED.replace("'*'", "'x.*'"), route, grant],
        ] {
            assert!(
                World::of(&rest).answer(&ask).starts_with("permit"),
                "{}",
                ask.describe()
            );
        }
    }
}

#[test]
fn trap_12_references_are_compared_exactly_and_lint_says_what_was_nearly_meant() {
    let admin = route("admin", "{value: /}");
    let on_route = policy("p", "HTTPRoute Admin", &["MeshTLSAuthentication meshed"]);
    let scene = Scene::of(&[SHOP, SERVER, MESHED, &admin, &on_route]);
    scene.answers(&[(web(), Allow, DENIED, EXACT_NAMES)]);
    assert!(!scene.world.errors().is_empty());
    let lower = policy("p", "HTTPRoute admin", &["MeshTLSAuthentication meshed"]);
    let kind = lower.replace("kind: HTTPRoute", "kind: httproute");
    Scene::of(&[SHOP, SERVER, MESHED, &admin, &kind]).answers(&[(
        web(),
        Allow,
        DENIED,
        EXACT_NAMES,
    )]);
    let on_server = policy("p", "Server Cart", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &on_server]).answers(&[(web(), Forbidden, DENIED, SAME)]);
}

#[test]
fn trap_12_a_policy_for_one_group_of_httproute_is_none_for_the_other() {
    let linkerd = route("r", "{value: /linkerd}");
    let gateway = route("g", "{value: /gateway}")
        .replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1");
    let twin = gateway.replace("name: g,", "name: r,");
    let on_linkerd = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &linkerd, &twin, &on_linkerd]).answers(&[
        (web().path("/linkerd"), Allow, "allow", SAME),
        (web().path("/gateway"), Forbidden, DENIED, SAME),
    ]);
    let on_gateway = on_linkerd.replace(
        "group: 'policy.linkerd.io', kind: HTTPRoute",
        "group: gateway.networking.k8s.io, kind: HTTPRoute",
    );
    Scene::of(&[SHOP, SERVER, MESHED, &linkerd, &twin, &on_gateway]).answers(&[
        (web().path("/linkerd"), Forbidden, DENIED, SAME),
        (web().path("/gateway"), Allow, "allow", SAME),
    ]);
}
