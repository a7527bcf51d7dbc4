//! The catalogue of attacks: objects of policy, and protocols.

use crate::catalogue::web;
use crate::side_by_side::refusals;
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, policy, route, server_authorization,
};
use mesh_policy_index::{Mode, load};

#[test]
fn cp01_huge_deep_and_cyclic_texts_are_refused() {
    let huge = format!("{MESHED}# {}\n", "x".repeat(11 * 1024 * 1024));
    assert_eq!(
        refusals(&huge).first().map(String::as_str),
        Some("MESH-0351"),
        "11 MiB"
    );
    let deep = format!(
        "{SERVER}x: {}{}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(!refusals(&deep).is_empty(), "100,000 levels");
    let many = MESHED.replace("['*']", &format!("[{}'*']", "'*', ".repeat(1_000_000)));
    assert!(!refusals(&many).is_empty(), "a million identities");
    assert!(!refusals("a: &a [*a]\n").is_empty(), "a cycle");
}

#[test]
fn cp03_a_policy_that_refers_to_nothing_grants_nothing_and_is_an_error() {
    for (parts, what) in [
        (
            policy("p", "Server cart", &["MeshTLSAuthentication ghost"]),
            "an authentication",
        ),
        (
            policy("p", "Server ghost", &["ServiceAccount web"]),
            "a Server",
        ),
        (
            policy("p", "HTTPRoute ghost", &["ServiceAccount web"]),
            "a route",
        ),
        (
            server_authorization("{name: ghost}", "{unauthenticated: true}"),
            "a Server, by ServerAuthorization",
        ),
    ] {
        let world = World::of(&[SHOP, SERVER, &parts]);
        assert_eq!(world.answer(&web()), DENIED, "{what}");
        assert_eq!(world.errors(), ["MESH-0364"], "{what}");
    }
}

#[test]
fn cp04_regular_expressions_are_bounded_and_a_bad_one_makes_its_route_deny() {
    let all = route("all", "{value: /}");
    let on_all = policy("p", "HTTPRoute all", &["MeshTLSAuthentication meshed"]);
    for (regex, what) in [
        ("a".repeat(1024 * 1024), "1 MiB"),
        ("a".repeat(1025), "over 1 KiB"),
        ("(a{1000}){1000}".to_owned(), "large once compiled"),
        (format!("{}a{}", "(".repeat(500), "*)".repeat(500)), "deep"),
        ("(".to_owned(), "syntax"),
        ("a)|(.*".to_owned(), "out of its group"),
        ("(?P<x".to_owned(), "syntax of a group"),
    ] {
        let bad = route(
            "bad",
            &format!("{{type: RegularExpression, value: '{regex}'}}"),
        )
        .replace("rules: [", "rules: [{matches: [{path: {value: /admin}}]}, ");
        let world = World::of(&[SHOP, SERVER, MESHED, &bad, &all, &on_all]);
        assert!(!world.errors().is_empty(), "{what}");
        assert_eq!(world.answer(&web().path("/admin")), "route 403", "{what}");
    }
}

#[test]
fn cp05_a_literal_with_dots_is_no_expression() {
    let exact = route(
        "r",
        "{type: Exact, value: /v1.2}, headers: [{name: x-v, value: a.b}]",
    )
    .replace("rules:", "hostnames: [a.example]\n  rules:");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &exact, &on_r]);
    let ask =
        |path: &str, host: &str, header: &str| web().path(path).host(host).header("x-v", &[header]);
    assert_eq!(world.answer(&ask("/v1.2", "a.example", "a.b")), "allow");
    assert_eq!(world.answer(&ask("/v1x2", "a.example", "a.b")), "route 404");
    assert_eq!(world.answer(&ask("/v1.2", "axexample", "a.b")), "route 404");
    assert_eq!(world.answer(&ask("/v1.2", "a.example", "axb")), "route 404");
}

#[test]
fn cp06_yaml_that_manifests_have_no_use_for_is_refused() {
    let bomb = (1..9).fold(
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(),
        |text, n| {
            let last = n - 1;
            text + &format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{last}"); 10].join(", ")
            )
        },
    );
    let spoil = |from: &str, to: &str| MESHED.replace(from, to);
    for (text, what) in [
        (bomb, "alias bomb"),
        (
            spoil("spec:", "spec: {identities: ['*']}\nspec:"),
            "duplicate key",
        ),
        (
            spoil(
                "{identities: ['*']}",
                "{identities: ['*'], identities: ['*']}",
            ),
            "duplicate key inside",
        ),
        (spoil("spec:", "spec: !!python/object"), "tag"),
        (spoil("['*']", "[!!str '*']"), "tag of a value"),
        (spoil("['*']", "[.nan]"), "NaN"),
        (spoil("['*']", "['\u{feff}*']"), "byte order mark inside"),
        (
            spoil("['*']", &format!("['{}']", "x".repeat(1536 * 1024))),
            "1.5 MiB",
        ),
        (spoil("['*']", "['\u{1}']"), "control character"),
        (
            spoil(
                "['*']",
                &format!("{}'*'{}", "[".repeat(100), "]".repeat(100)),
            ),
            "100 levels",
        ),
    ] {
        assert!(!refusals(&text).is_empty(), "{what}");
        let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
        let world = World::of(&[SHOP, SERVER, &text, &grant]);
        assert_ne!(world.answer(&web()), "allow", "{what}");
    }
    let marked = format!("\u{feff}{MESHED}");
    assert_eq!(
        refusals(&marked),
        Vec::<String>::new(),
        "one at the start is the encoding's name, not text"
    );
}

#[test]
fn cp07_unknown_fields_and_newer_versions_are_never_read_as_no_rule() {
    let grant = policy(
        "p",
        "Server cart",
        &["MeshTLSAuthentication meshed", "NetworkAuthentication near"],
    );
    let good = [SHOP, SERVER, MESHED, NETWORK, grant.as_str()];
    assert_eq!(World::of(&good).answer(&web()), "allow");
    for (at, from, to) in [
        (1, "port: http", "port: http, mode: strict"),
        (1, "v1beta3", "v1"),
        (2, "identities:", "notIdentities: ['x'], identities:"),
        (3, "v1alpha1", "v1alpha2"),
        (4, "spec:", "spec:\n  conditions: []"),
        (4, "v1alpha1", "v1"),
    ] {
        let newer = good[at].replacen(from, to, 1);
        assert_ne!(newer, good[at]);
        let mut parts = good;
        parts[at] = &newer;
        let world = World::of(&parts);
        assert_ne!(world.answer(&web()), "allow", "{to}");
        assert!(!world.errors().is_empty(), "{to}");
    }
}

#[test]
fn cp12_a_label_that_changes_moves_the_workload_out_of_the_selector() {
    let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let moved = SHOP.replace("labels: {app: cart}", "labels: {app: basket}");
    for (mode, before, after) in [
        (Mode::Deny, "allow", DENIED),
        (Mode::AllUnauthenticated, "allow", "allow"),
    ] {
        let (old, new) = (
            World::default_policy(mode, &[SHOP, SERVER, MESHED, &grant]),
            World::default_policy(mode, &[&moved, SERVER, MESHED, &grant]),
        );
        assert_eq!(
            (old.answer(&web()).as_str(), new.answer(&web()).as_str()),
            (before, after),
            "{mode}"
        );
        assert_eq!(
            new.findings("MESH-0370").len(),
            1,
            "a Server of nobody is told"
        );
    }
    let renamed = SERVER.replace("name: cart, namespace", "name: kart, namespace");
    assert_eq!(
        World::of(&[SHOP, &renamed, MESHED, &grant]).answer(&web()),
        DENIED,
        "and so is a rename"
    );
}

#[test]
fn cp13_names_are_those_of_their_namespace_and_look_alikes_are_none() {
    let elsewhere = |text: &str| text.replace("namespace: shop", "namespace: other");
    let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    for (parts, what) in [
        (
            [SERVER.to_owned(), elsewhere(MESHED), grant.clone()],
            "an authentication of another namespace",
        ),
        (
            [SERVER.to_owned(), MESHED.to_owned(), elsewhere(&grant)],
            "a policy of another namespace",
        ),
        (
            [elsewhere(SERVER), MESHED.to_owned(), grant.clone()],
            "a Server of another namespace",
        ),
    ] {
        let mut all = vec![SHOP];
        all.extend(parts.iter().map(String::as_str));
        assert_eq!(World::of(&all).answer(&web()), DENIED, "{what}");
    }
    let named = grant.replace("name: meshed}", "name: meshed, namespace: other}");
    let world = World::of(&[SHOP, SERVER, &elsewhere(MESHED), &named]);
    assert_eq!(
        world.answer(&web()),
        "allow",
        "a reference may name another namespace"
    );
    let alike = ["p\u{440}", "\u{440}", "p\u{200b}", "P"];
    for name in alike {
        let text = grant.replace("name: p,", &format!("name: \"{name}\","));
        assert!(!refusals(&text).is_empty(), "{name:?}");
        assert_eq!(
            World::of(&[SHOP, SERVER, MESHED, &text]).answer(&web()),
            DENIED,
            "{name:?}"
        );
    }
    let both = [grant.clone(), elsewhere(&grant).replace("\n---\n", "")]
        .map(|t| t.trim_start_matches("\n---\n").to_owned());
    let loaded = load([("a.yaml".to_owned(), both.join("---\n").into_bytes())]);
    assert!(
        loaded.findings.is_empty(),
        "one name in two namespaces is two objects: {:?}",
        loaded.findings
    );
}

#[test]
fn pd01_bytes_that_are_no_request_do_not_skip_the_routes() {
    let server = SERVER.replace("HTTP/1", "unknown");
    let a = route("a", "{value: /a}");
    let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, &server, MESHED, &a, &grant]);
    assert_eq!(world.answer(&web().tcp()), "server -");
    assert_eq!(world.answer(&web().path("/b")), "route 404");
}

#[test]
fn pd09_tls_inside_the_meshs_tls_is_bytes() {
    let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    for (protocol, want) in [
        ("TLS", "allow"),
        ("opaque", "allow"),
        ("HTTP/1", "server -"),
        ("gRPC", "server -"),
    ] {
        let server = SERVER.replace("HTTP/1", protocol);
        assert_eq!(
            World::of(&[SHOP, &server, MESHED, &grant]).answer(&web().tcp()),
            want,
            "{protocol}"
        );
    }
}

#[test]
fn pd11_plaintext_is_denied_where_an_identity_is_required() {
    let world = World::default_policy(Mode::AllAuthenticated, &[SHOP]);
    assert_eq!(world.answer(&Ask::plain()), DENIED);
    assert_eq!(world.answer(&Ask::plain().tcp()), "permit -");
    assert_eq!(
        world.answer(&Ask::bare_tls()),
        DENIED,
        "TLS alone is no identity"
    );
}

#[test]
fn pd12_who_speaks_first_is_bytes_and_needs_a_grant_of_the_server() {
    let server = SERVER.replace("HTTP/1", "unknown");
    let grant = policy("p", "Server cart", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, &server, MESHED, &grant]);
    assert_eq!(
        (
            world.answer(&web().tcp()).as_str(),
            world.answer(&Ask::plain().tcp()).as_str()
        ),
        ("allow", "permit -")
    );
}
