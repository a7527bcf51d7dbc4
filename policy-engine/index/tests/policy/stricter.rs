//! Where Linkerd fails open or stays silent, and this mesh does not: one test for each such trap.

use crate::world::{Ask, MESHED, SERVER, SHOP, World, join, policy, route};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, Mode, load};

const DENIED: &str = "permit 403";

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

#[test]
fn an_invalid_object_that_slipped_past_admission_is_refused_again() {
    let invalid = MESHED.replace("'*'", "'x.*'");
    let world = World::of(&[SHOP, SERVER, &invalid, &meshed_policy()]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
    assert_eq!(
        world.errors(),
        ["MESH-0359", "MESH-0365"],
        "the object and the policy that needs it are both reported"
    );
}

#[test]
fn an_exact_path_ranks_before_a_prefix_and_a_prefix_before_every_regular_expression() {
    let exact = route("exact", "{type: Exact, value: /admin}");
    let prefix = route("prefix", "{type: PathPrefix, value: /admin}");
    let broad = route("broad", "{type: RegularExpression, value: '/.*'}");
    let on_broad = policy("p", "HTTPRoute broad", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &prefix, &exact, &broad, &on_broad]);
    for (path, route, want) in [
        ("/admin", "exact", DENIED),
        ("/admin/x", "prefix", DENIED),
        ("/other", "broad", "allow"),
    ] {
        let ask = Ask::meshed("shop/web").path(path);
        assert_eq!(world.answer(&ask), want, "{path}");
        assert_eq!(world.decide(&ask).route.unwrap().name, route, "{path}");
    }
}

#[test]
fn a_less_protected_route_that_takes_over_is_reported() {
    let admin = route("admin", "{value: /admin}");
    let host = route("host", "{value: /}").replace("rules:", "hostnames: [shop.example]\n  rules:");
    let (near, web) = (
        policy("a", "HTTPRoute admin", &["ServiceAccount web"]),
        policy("b", "HTTPRoute host", &["MeshTLSAuthentication meshed"]),
    );
    let world = World::of(&[SHOP, SERVER, MESHED, &admin, &host, &near, &web]);
    assert_eq!(
        world.answer(
            &Ask::meshed("shop/other")
                .path("/admin")
                .host("shop.example")
        ),
        "allow",
        "as Gateway API has it"
    );
    let found = world.findings("MESH-0372");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found.first().unwrap().object.as_ref().unwrap().name, "host");
}

#[test]
fn a_regular_expression_behind_a_catch_all_is_reported() {
    let regex = route("regex", "{type: RegularExpression, value: '/admin.*'}");
    let all = route("all", "{value: /}");
    let open = policy("p", "HTTPRoute all", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &regex, &all, &open]);
    assert_eq!(world.findings("MESH-0372").len(), 1);
}

#[test]
fn an_update_that_breaks_a_policy_or_its_authentication_takes_the_grant_away() {
    let good = [SHOP, SERVER, MESHED, &meshed_policy()].map(str::to_owned);
    assert_eq!(
        World::of(&good.each_ref().map(String::as_str)).answer(&Ask::meshed("shop/web")),
        "allow"
    );
    for (part, from, to) in [
        (2, "identities: ['*']", "identities: []"),
        (2, "identities: ['*']", "identites: ['*']"),
        (
            2,
            "identities: ['*']",
            "identities: ['*'], identities: ['*']",
        ),
        (2, "v1alpha1", "v2"),
        (2, "spec:", "spec: !x"),
        (2, "spec:", "spec: ["),
        (3, "targetRef:", "targetReference:"),
        (3, "name: meshed", "name: [meshed]"),
        (3, "name: meshed", "name: meshed, sectionName: x"),
        (3, "kind: Server", "kind: Sever"),
    ] {
        let mut broken = good.clone();
        broken[part] = broken[part].replacen(from, to, 1);
        assert_ne!(broken[part], good[part], "{from}");
        let world = World::of(&broken.each_ref().map(String::as_str));
        assert_ne!(world.answer(&Ask::meshed("shop/web")), "allow", "{to}");
        assert!(!world.errors().is_empty(), "{to} is reported");
    }
}

#[test]
fn a_dangling_reference_names_the_policy_its_line_and_what_is_missing() {
    let world = World::of(&[SHOP, SERVER, &meshed_policy()]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
    let found = world.findings("MESH-0364");
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
    let snapshot = world.snapshot("shop", "cart");
    assert!(
        snapshot.findings.contains(finding),
        "explain shows the dead policy"
    );
}

#[test]
fn every_grant_that_holds_is_a_reason_and_audit_is_said_only_of_audit_alone() {
    let server = SERVER.replace("port: http", "port: http, accessPolicy: audit");
    let world = World::of(&[
        SHOP,
        &server,
        MESHED,
        &meshed_policy(),
        &policy("a", "Namespace shop", &["ServiceAccount web"]),
    ]);
    let record = world.decide(&Ask::meshed("shop/web"));
    assert_eq!(
        record.reasons,
        [
            "AuthorizationPolicy/shop/a/0",
            "AuthorizationPolicy/shop/p/0",
            "default/audit"
        ]
    );
    assert!(!record.audit);
    assert!(world.decide(&Ask::plain()).audit);
}

#[test]
fn paths_are_judged_in_canonical_form() {
    let public = route("public", "{value: /public}");
    let private = route("private", "{value: /private}");
    let on_public = policy("p", "HTTPRoute public", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &public, &private, &on_public]);
    for (path, want) in [
        ("/public/x", "allow"),
        ("/public/../private", DENIED),
        ("/public/%2e%2e/private", DENIED),
        ("/public/.%2E/private", DENIED),
        ("//public", "allow"),
        ("/%70ublic", "allow"),
        ("/public%2F..%2Fprivate", "request 400"),
        ("/public/..;/private", "request 400"),
        ("/public\\..\\private", "request 400"),
        ("/publicity", "route 404"),
    ] {
        assert_eq!(
            world.answer(&Ask::meshed("shop/web").path(path)),
            want,
            "{path}"
        );
    }
}

#[test]
fn a_route_path_is_read_in_the_form_that_requests_have() {
    let escaped = route("r", "{type: Exact, value: '/%7Euser//x'}");
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &escaped,
        &policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").path("/~user/x")),
        "allow"
    );
    let dead = route("r", "{type: Exact, value: '/a%2Fb'}");
    assert_eq!(
        World::of(&[SHOP, SERVER, &dead])
            .findings("MESH-0380")
            .len(),
        1
    );
    let kept = SERVER.replace(
        "name: cart, namespace",
        "annotations: {mesh.internal/path-escapes: keep}, name: cart, namespace",
    );
    let world = World::of(&[
        SHOP,
        &kept,
        MESHED,
        &dead,
        &policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(world.findings("MESH-0380").len(), 0);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").path("/a%2Fb")),
        "allow"
    );
}

#[test]
fn spiffe_identities_are_covered_by_the_wildcard() {
    let world = World::of(&[SHOP, SERVER, MESHED, &meshed_policy()]);
    assert_eq!(
        world.answer(&Ask::identity("spiffe://cluster.local/any/path")),
        "allow"
    );
    assert_eq!(
        world.answer(&Ask::identity("spiffe://other.example/ns/shop/sa/web")),
        DENIED
    );
}

#[test]
fn the_cluster_default_is_deny() {
    assert_eq!(World::of(&[SHOP]).answer(&Ask::meshed("shop/web")), DENIED);
}

#[test]
fn references_to_routes_and_servers_are_compared_exactly() {
    let a = route("admin", "{value: /}");
    let world = World::of(&[
        SHOP,
        SERVER,
        MESHED,
        &a,
        &policy("p", "HTTPRoute Admin", &["MeshTLSAuthentication meshed"]),
    ]);
    assert_eq!(world.answer(&Ask::meshed("shop/web")), DENIED);
    assert!(!world.errors().is_empty());
}

#[test]
fn a_policy_for_one_group_of_httproute_is_none_for_the_other() {
    let linkerd = route("r", "{value: /linkerd}");
    let gateway = route("r", "{value: /gateway}")
        .replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1");
    let on_linkerd = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &linkerd, &gateway, &on_linkerd]);
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").path("/linkerd")),
        "allow"
    );
    assert_eq!(
        world.answer(&Ask::meshed("shop/web").path("/gateway")),
        DENIED
    );
}

#[test]
fn an_unparsable_list_of_ports_that_require_identity_means_every_port() {
    let pod = SHOP.replace(
        "metadata: {name: cart, namespace: shop,",
        "metadata: {name: cart, annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: '8080;9090'}, namespace: shop,",
    );
    let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
    for port in [8080, 9090, 12345] {
        assert_eq!(world.answer(&Ask::plain().port(port)), DENIED, "{port}");
        assert_eq!(
            world.reasons(&Ask::meshed("shop/web").port(port)),
            ["default/all-authenticated"],
            "{port}"
        );
    }
    assert_eq!(world.errors(), ["MESH-0363"]);
}

#[test]
fn a_wide_list_of_ports_that_require_identity_costs_no_snapshot_of_its_size() {
    let pod = SHOP.replace(
        "metadata: {name: cart, namespace: shop,",
        "metadata: {name: cart, annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: '1-65535'}, namespace: shop,",
    );
    let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
    assert!(world.snapshot("shop", "cart").ports.len() < 10);
    assert_eq!(world.answer(&Ask::plain().port(4444)), DENIED);
}

#[test]
fn a_broken_file_never_stops_the_others() {
    let good = join(&[SHOP, SERVER, MESHED, &meshed_policy()]);
    for broken in [
        "kind: [",
        "\u{0}",
        "a: &a [*a]",
        "just text",
        "- 1\n- 2",
        "{\"a\": 1,}",
    ] {
        for (first, second) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
            let files = [
                (first.to_owned(), broken.as_bytes().to_vec()),
                (second.to_owned(), good.clone().into_bytes()),
            ];
            let index = Index::build(&load(files), &crate::world::config());
            let record = Replay::new(&index, crate::world::NOW).decide(&Ask::meshed("shop/web").0);
            assert_eq!(
                record.reasons,
                ["AuthorizationPolicy/shop/p/0"],
                "{broken:?}"
            );
            assert!(
                index
                    .findings()
                    .iter()
                    .any(|f| f.source.to_string().starts_with(first)),
                "{broken:?} is reported"
            );
        }
    }
}

#[test]
fn a_document_that_might_be_a_server_closes_the_defaults() {
    let open = |parts: &[&str]| {
        World::default_policy(Mode::AllUnauthenticated, parts).answer(&Ask::plain())
    };
    assert_eq!(open(&[SHOP]), "allow");
    for (broken, why) in [
        ("kind: [", "any namespace"),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: [shop]}\nspec: {podSelector: {}, port: 1}",
            "no namespace can be read",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: [], port: 1}",
            "no selector",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}}",
            "no port",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, port: 1, port: 2}",
            "two ports",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, port: 1}",
            "no kind",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: server\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, port: 1}",
            "kind in lower case",
        ),
    ] {
        assert_eq!(open(&[SHOP, broken]), DENIED, "{why}");
    }
    let elsewhere = "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: other}\nspec: {podSelector: {}}";
    assert_eq!(
        open(&[SHOP, elsewhere]),
        "allow",
        "another namespace is none of ours"
    );
}
