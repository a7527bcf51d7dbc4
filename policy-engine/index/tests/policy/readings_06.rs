//! Settled reading 6: an invalid object never opens access.

use crate::linkerd_model::Says::{Allow, Forbidden, NotFound};
use crate::side_by_side::{Scene, refusals};
use crate::why::{INVALID_ROUTE, INVALID_SERVER, NEWER_FIELD, SAME, UNKNOWN_FIELD};
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, NOW, SERVER, SHOP, World, config, join, policy, route,
    server_authorization,
};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, Mode, load};

const ALL: Mode = Mode::AllUnauthenticated;

fn meshed_policy() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn web() -> Ask {
    Ask::meshed("shop/web")
}

#[test]
fn reading_06_an_invalid_server_claims_its_port_and_denies_all_probes_included() {
    let probed = SHOP.replace(
        "- name: app\n    ports:",
        "- name: app\n    livenessProbe: {httpGet: {path: /live, port: http}}\n    ports:",
    );
    let probe = || Ask::plain().path("/live");
    assert_eq!(
        World::of(&[&probed, SERVER]).reasons(&probe()),
        ["default/probe"]
    );
    for invalid in [
        SERVER.replace("HTTP/1", "HTTP"),
        SERVER.replace("port: http", "port: http, accessPolicy: everyone"),
        SERVER.replace("port: http", "port: http, extra: 1"),
        SERVER.replace("v1beta3", "v1beta1").replace(
            "port: http",
            "port: http, accessPolicy: all-unauthenticated",
        ),
        SERVER.replace("v1beta3", "v7"),
        SERVER.replace(
            "podSelector: {",
            "externalWorkloadSelector: {}, podSelector: {",
        ),
        format!("{SERVER}---{SERVER}"),
    ] {
        let world = World::default_policy(ALL, &[&probed, &invalid, MESHED, &meshed_policy()]);
        for ask in [probe(), web(), web().path("/live")] {
            assert_eq!(world.answer(&ask), "server 403", "{invalid}");
        }
        assert_eq!(world.answer(&web().tcp()), "server -", "{invalid}");
        assert_eq!(
            world.answer(&Ask::plain().port(9090)),
            "allow",
            "other ports are not concerned"
        );
        assert!(world.errors().contains(&"MESH-0383"));
    }
}

#[test]
fn reading_06_with_linkerd_an_invalid_server_leaves_the_default_policy_to_speak() {
    let misspelt = SERVER.replace("HTTP/1", "HTTP");
    Scene::default_policy(ALL, &[SHOP, &misspelt]).answers(&[(
        Ask::plain(),
        Allow,
        "server 403",
        INVALID_SERVER,
    )]);
    let unknown = SERVER.replace("port: http", "port: http, acessPolicy: deny");
    Scene::default_policy(ALL, &[SHOP, &unknown, MESHED, &meshed_policy()]).answers(&[(
        web(),
        Allow,
        "server 403",
        UNKNOWN_FIELD,
    )]);
    let newer = SERVER
        .replace("v1beta3", "v1beta2")
        .replace("port: http", "port: http, accessPolicy: all-authenticated");
    Scene::of(&[SHOP, &newer]).answers(&[(web(), Allow, "server 403", NEWER_FIELD)]);
}

#[test]
fn reading_06_an_invalid_server_claims_as_any_server_does_by_age() {
    let valid = |meta: &str| SERVER.replace("name: cart,", &format!("name: cart{meta},"));
    let invalid = |meta: &str| {
        SERVER
            .replace("name: cart,", &format!("name: zart{meta},"))
            .replace("HTTP/1", "HTTP")
    };
    let (old, young) = (
        ", creationTimestamp: '2020-01-01T00:00:00Z'",
        ", creationTimestamp: '2021-01-01T00:00:00Z'",
    );
    for (good, bad, want) in [
        (valid(old), invalid(young), "allow"),
        (valid(young), invalid(old), "server 403"),
        // A time that cannot be read might be the oldest.
        (
            valid(old),
            invalid(", creationTimestamp: yesterday"),
            "server 403",
        ),
    ] {
        let world = World::of(&[SHOP, &good, &bad, MESHED, &meshed_policy()]);
        assert_eq!(world.answer(&web()), want, "{bad}");
    }
}

#[test]
fn reading_06_an_unreadable_server_makes_the_default_deny_until_it_is_mended() {
    for (from, to) in [
        ("port: http", "port: [http]"),
        ("port: http", "port: 0"),
        ("port: http", "port: Http"),
        (", port: http", ""),
        ("{matchLabels: {app: cart}}", "[]"),
        ("{matchLabels: {app: cart}}", "{matchLabels: {app: 1}}"),
        (
            "{matchLabels: {app: cart}}",
            "{matchExpressions: [{key: app, operator: Is}]}",
        ),
        ("podSelector: {matchLabels: {app: cart}}, ", ""),
    ] {
        let unreadable = SERVER
            .replace("name: cart,", "name: other,")
            .replace(from, to);
        assert_ne!(
            unreadable,
            SERVER.replace("name: cart,", "name: other,"),
            "{from}"
        );
        let world =
            World::default_policy(ALL, &[SHOP, SERVER, &unreadable, MESHED, &meshed_policy()]);
        assert_eq!(world.answer(&Ask::plain().port(9090)), DENIED, "{to}");
        assert_eq!(
            world.answer(&Ask::plain().pod("web").port(1)),
            DENIED,
            "{to}: every workload of the namespace"
        );
        assert_eq!(
            world.answer(&web()),
            "allow",
            "{to}: Servers that can be read work on"
        );
        let mended = World::default_policy(ALL, &[SHOP, SERVER, MESHED, &meshed_policy()]);
        assert_eq!(mended.answer(&Ask::plain().port(9090)), "allow");
    }
    let open = SHOP.replace("{name: web, namespace: shop, labels", "{annotations: {mesh.internal/default-inbound-policy: all-unauthenticated}, name: web, namespace: shop, labels");
    let unreadable = SERVER.replace("port: http", "port: [http]");
    assert_eq!(
        World::of(&[&open]).answer(&Ask::plain().pod("web")),
        "allow"
    );
    assert_eq!(
        World::of(&[&open, &unreadable]).answer(&Ask::plain().pod("web")),
        DENIED,
        "annotations do not reopen"
    );
}

#[test]
fn reading_06_a_document_that_might_be_a_server_closes_the_defaults() {
    let open = |parts: &[&str]| World::default_policy(ALL, parts).answer(&Ask::plain());
    assert_eq!(open(&[SHOP]), "allow");
    let server = "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: x, namespace: shop}\nspec: {podSelector: {}, port: 1}";
    for (broken, why) in [
        ("kind: [".to_owned(), "any namespace"),
        (
            server.replace("namespace: shop", "namespace: [shop]"),
            "no namespace can be read",
        ),
        (
            server.replace("podSelector: {}", "podSelector: []"),
            "no selector",
        ),
        (server.replace(", port: 1", ""), "no port"),
        (server.replace("port: 1", "port: 1, port: 2"), "two ports"),
        (server.replace("kind: Server\n", ""), "no kind"),
        (
            server.replace("kind: Server", "kind: server"),
            "kind in lower case",
        ),
    ] {
        assert_eq!(open(&[SHOP, &broken]), DENIED, "{why}");
    }
    let elsewhere = server
        .replace("namespace: shop", "namespace: other")
        .replace(", port: 1", "");
    assert_eq!(
        open(&[SHOP, &elsewhere]),
        "allow",
        "another namespace is none of ours"
    );
}

#[test]
fn reading_06_a_broken_file_never_stops_the_others() {
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
            let index = Index::build(&load(files), &config());
            let record = Replay::new(&index, NOW).decide(&web().0);
            assert_eq!(
                record.reasons,
                ["AuthorizationPolicy/shop/p/0"],
                "{broken:?}"
            );
            let reported = index
                .findings()
                .iter()
                .any(|f| f.source.to_string().starts_with(first));
            assert!(reported, "{broken:?} is reported");
        }
    }
}

/// A mesh with a wide route `all`, one invalid route, and grants on both and on the Server.
fn beside(invalid: &str) -> World {
    let all = route("all", "{value: /}");
    let policies = [
        policy("a", "HTTPRoute all", &["MeshTLSAuthentication meshed"]),
        policy("b", "HTTPRoute bad", &["MeshTLSAuthentication meshed"]),
        meshed_policy(),
    ]
    .concat();
    World::of(&[SHOP, SERVER, MESHED, invalid, &all, &policies])
}

#[test]
fn reading_06_an_invalid_route_takes_what_can_be_read_of_it_and_denies() {
    let bad = route("bad", "{value: /admin}").replace(
        "rules: [",
        "rules: [{matches: [{path: {value: relative}}, {path: {value: /ops}, method: get}]}, ",
    );
    let world = beside(&bad);
    for (path, want) in [
        ("/admin/x", "route 403"),
        ("/ops", "route 403"),
        ("/relative", "allow"),
        ("/", "allow"),
    ] {
        assert_eq!(world.answer(&web().path(path)), want, "{path}");
    }
    assert!(world.errors().contains(&"MESH-0359"));
}

#[test]
fn reading_06_with_linkerd_an_invalid_route_hands_its_requests_to_wider_ones() {
    let bad = route("bad", "{value: /admin}").replace(
        "rules: [",
        "rules: [{matches: [{path: {value: relative}}]}, ",
    );
    let all = route("all", "{value: /}");
    let on_all = policy("a", "HTTPRoute all", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &bad, &all, &on_all]).answers(&[
        (web().path("/admin"), Allow, "route 403", INVALID_ROUTE),
        (web().path("/other"), Allow, "allow", SAME),
    ]);
    Scene::of(&[SHOP, SERVER, MESHED, &bad, &meshed_policy()]).answers(&[
        (web().path("/admin"), Allow, "route 403", INVALID_ROUTE),
        // It counts as attached: what no route takes is not found, whatever the Server grants.
        (web().path("/other"), Allow, "route 404", INVALID_ROUTE),
        (
            Ask::plain().path("/other"),
            Forbidden,
            "route 404",
            INVALID_ROUTE,
        ),
    ]);
    let typo = route("bad", "{value: /admin, typ: Exact}");
    Scene::of(&[SHOP, SERVER, MESHED, &typo, &meshed_policy()]).answers(&[
        (web().path("/admin/x"), Allow, "route 403", UNKNOWN_FIELD),
        (web().path("/"), NotFound, "route 404", SAME),
    ]);
}

#[test]
fn reading_06_every_way_to_spoil_a_route_denies_what_it_was_written_for() {
    let good = route("bad", "{value: /admin}");
    for (from, to) in [
        (
            "path: {value: /admin}",
            "path: {value: /admin}, method: get",
        ),
        (
            "path: {value: /admin}",
            "path: {value: /admin}, headers: [{name: 'a b', value: c}]",
        ),
        (
            "path: {value: /admin}",
            "path: {value: /admin}, queryParams: [{name: a}]",
        ),
        ("rules:", "hostnames: ['UPPER.example']\n  rules:"),
        ("name: cart}", "name: cart, port: 80}"),
        ("name: cart}", "name: cart, sectionName: x}"),
        ("kind: Server", "kind: [Server]"),
        ("group: policy.linkerd.io", "group: 1"),
        ("matches:", "filters: [{type: URLRewrite}], matches:"),
        ("matches:", "timeouts: {request: soon}, matches:"),
        (
            "matches:",
            "timeouts: {request: 1s, backendRequest: 2s}, matches:",
        ),
        ("matches:", "backendRefs: [{name: x}], matches:"),
        (
            "matches:",
            "backendRefs: [{name: x, port: 80, weight: -1}], matches:",
        ),
        ("spec:", "spec:\n  novelty: 1"),
        ("metadata: {", "metadata: {creationTimestamp: soon, "),
        ("v1beta3", "v9"),
    ] {
        let spoilt = good.replacen(from, to, 1);
        assert_ne!(spoilt, good, "{from}");
        let world = beside(&spoilt);
        assert_eq!(world.answer(&web().path("/admin")), "route 403", "{to}");
        assert!(!world.errors().is_empty(), "{to} is reported");
    }
}

#[test]
fn reading_06_invalid_policies_and_authentications_grant_nothing() {
    let refs = ["MeshTLSAuthentication meshed", "NetworkAuthentication near"];
    let both = policy("p", "Server cart", &refs);
    let authorization = server_authorization("{name: cart}", "{meshTLS: {identities: ['*']}}");
    let good = [SHOP, SERVER, MESHED, NETWORK, &both];
    assert_eq!(World::of(&good).answer(&web()), "allow");
    for (at, from, to) in [
        (2, "identities: ['*']", "identities: ['*'], novelty: 1"),
        (3, "10.1.2.3", "10.1.2.0/33"),
        (4, "spec:", "spec:\n  novelty: 1"),
        (4, "metadata: {", "metadata: {creationTimestamp: soon, "),
    ] {
        let broken = good[at].replacen(from, to, 1);
        assert_ne!(broken, good[at]);
        let mut parts = good;
        parts[at] = &broken;
        assert_eq!(World::of(&parts).answer(&web()), DENIED, "{to}");
    }
    assert_eq!(
        World::of(&[SHOP, SERVER, &authorization]).answer(&web()),
        "allow"
    );
    for (from, to) in [
        ("identities", "identites"),
        ("v1beta1", "v1beta2"),
        ("client:", "novelty: 1, client:"),
    ] {
        let broken = authorization.replacen(from, to, 1);
        assert_eq!(
            World::of(&[SHOP, SERVER, &broken]).answer(&web()),
            DENIED,
            "{to}"
        );
    }
}

#[test]
fn reading_06_unknown_fields_make_policy_kinds_and_routes_invalid_and_core_kinds_not() {
    let refused = [
        SERVER.to_owned(),
        server_authorization("{name: cart}", "{unauthenticated: true}"),
        policy("p", "Server cart", &["ServiceAccount web"]),
        MESHED.to_owned(),
        NETWORK.to_owned(),
        route("r", "{value: /}"),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\nspec: {parentRefs: []}\n".to_owned(),
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, total: {requestsPerSecond: 1}}\n".to_owned(),
        "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {name: f}\nspec: {trustDomain: a.example}\n".to_owned(),
    ];
    for document in &refused {
        assert_eq!(refusals(document), Vec::<String>::new(), "{document}");
        let spec = if document.contains("spec: {") {
            document.replacen("spec: {", "spec: {novelty: 1, ", 1)
        } else {
            document.replacen("spec:\n", "spec:\n  novelty: 1\n", 1)
        };
        assert_eq!(refusals(&spec), ["MESH-0358"], "{spec}");
        assert_eq!(
            refusals(&format!("{document}novelty: 1\n")),
            ["MESH-0358"],
            "{document}"
        );
    }
    for core in [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, novelty: 1}\nspec: {novelty: 1}\nnovelty: 1\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {novelty: 1, containers: [{novelty: 1}]}\nnovelty: 1\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {novelty: 1, ports: [{port: 1, novelty: 1}]}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {novelty: 1, template: {spec: {novelty: 1}}}\n",
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nnovelty: 1\n",
    ] {
        assert_eq!(refusals(core), Vec::<String>::new(), "{core}");
    }
}

#[test]
fn reading_06_an_invalid_pod_denies_on_every_port_and_an_invalid_namespace_by_default() {
    let pod = SHOP.replace(
        "{containerPort: 9090, name: admin}",
        "{containerPort: ninety, name: admin}",
    );
    let world = World::default_policy(ALL, &[&pod, SERVER, MESHED, &meshed_policy()]);
    assert_eq!(world.answer(&web()), "server 403");
    assert_eq!(world.answer(&web().port(1)), "server 403");
    let namespace = SHOP.replace(
        "metadata: {name: shop}",
        "metadata: {name: shop, annotations: {a: 1}}",
    );
    let world = World::default_policy(ALL, &[&namespace]);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
}
