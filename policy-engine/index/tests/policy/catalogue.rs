//! The catalogue of attacks, as far as policy answers them: paths, hosts, headers, policy objects, protocols.
//!
//! Each entry has its number. What happens on the wire before a head is read (two `Host` fields, framing, detection) is
//! tested with the proxy; that a head reads in one way is tested with the decision.

use crate::side_by_side::refusals;
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, policy, route, server_authorization,
};
use mesh_policy_index::{Mode, load};

fn web() -> Ask {
    Ask::meshed("shop/web")
}

/// Everybody may ask for `/open` and below; `/admin` and below is for nobody.
fn guarded(server: &str) -> World {
    let (open, admin) = (
        route("open", "{value: /open}"),
        route("admin", "{value: /admin}"),
    );
    let on_open = policy("p", "HTTPRoute open", &["MeshTLSAuthentication meshed"]);
    World::of(&[SHOP, server, MESHED, &open, &admin, &on_open])
}

/// Each path, what becomes of it, and the path that is judged.
fn paths(rows: &[(&str, &str, Option<&str>)]) {
    let world = guarded(SERVER);
    for (path, want, judged) in rows {
        let ask = web().path(path);
        assert_eq!(world.answer(&ask), *want, "{path}");
        let request = world.decide(&ask).request.unwrap();
        assert_eq!(
            (request.path.as_deref(), request.raw_path.as_str()),
            (*judged, *path)
        );
    }
}

const REFUSED: (&str, Option<&str>) = ("request 400", None);

fn refused(rows: &[&str]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|path| (*path, REFUSED.0, REFUSED.1))
        .collect();
    paths(&rows);
}

#[test]
fn pa01_dot_segments_are_removed_before_anything_is_judged() {
    paths(&[
        ("/open/../admin", DENIED, Some("/admin")),
        ("/open/./x", "allow", Some("/open/x")),
        ("/admin/..", "route 404", Some("/")),
    ]);
    refused(&["/../admin", "/open/../../admin"]);
}

#[test]
fn pa02_slashes_are_one() {
    paths(&[
        ("//admin", DENIED, Some("/admin")),
        ("/open//x", "allow", Some("/open/x")),
        ("/open//../admin", DENIED, Some("/admin")),
    ]);
}

#[test]
fn pa03_escapes_of_dots_and_letters_are_decoded_once_and_then_removed() {
    paths(&[
        ("/open/%2e%2e/admin", DENIED, Some("/admin")),
        ("/open/%2E/x", "allow", Some("/open/x")),
        ("/%61dmin", DENIED, Some("/admin")),
    ]);
}

#[test]
fn pa04_nothing_is_decoded_twice() {
    paths(&[
        (
            "/open/%252e%252e/admin",
            "allow",
            Some("/open/%252e%252e/admin"),
        ),
        ("/%2561dmin", "route 404", Some("/%2561dmin")),
    ]);
}

#[test]
fn pa05_hidden_separators_are_refused() {
    refused(&[
        "/open%2fadmin",
        "/open%2F..%2Fadmin",
        "/open%5cadmin",
        "/open\\admin",
    ]);
}

#[test]
fn pa06_control_characters_are_refused() {
    refused(&[
        "/open%00",
        "/open%0d%0aadmin",
        "/open%7F",
        "/open\u{1}",
        "/open\u{7f}",
    ]);
}

#[test]
fn pa07_path_parameters_are_refused() {
    refused(&["/admin;x=y/act;z", "/..;/admin", "/.;/", "/open;a"]);
}

#[test]
fn pa08_a_fragment_in_the_request_line_is_refused() {
    refused(&["/admin#f", "/open#/../admin"]);
}

#[test]
fn pa09_a_query_is_no_path_and_an_escaped_question_mark_is() {
    paths(&[
        ("/admin?/open", DENIED, Some("/admin")),
        ("/open?x=/../admin", "allow", Some("/open")),
        ("/admin%3fopen", "route 404", Some("/admin%3Fopen")),
        ("/open/%3Fadmin", "allow", Some("/open/%3Fadmin")),
    ]);
}

#[test]
fn pa10_what_is_not_utf8_in_shortest_form_is_refused() {
    refused(&[
        "/open/%c0%af",
        "/open/%e0%80%af",
        "/open/%ff",
        "/open/%c3",
        "/open/\u{e9}",
    ]);
}

#[test]
fn pa11_look_alikes_are_other_paths() {
    // A fullwidth `a`, and `é` composed and not: bytes are compared.
    paths(&[
        ("/%EF%BD%81dmin", "route 404", Some("/%EF%BD%81dmin")),
        ("/open/%C3%A9", "allow", Some("/open/%C3%A9")),
        ("/open/e%CC%81", "allow", Some("/open/e%CC%81")),
    ]);
}

#[test]
fn pa12_case_counts() {
    paths(&[
        ("/Admin", "route 404", Some("/Admin")),
        ("/OPEN", "route 404", Some("/OPEN")),
    ]);
}

#[test]
fn pa13_near_paths_are_distinct_and_prefixes_end_at_segments() {
    paths(&[
        ("/admin/", DENIED, Some("/admin/")),
        ("/adm", "route 404", Some("/adm")),
        ("/administrator", "route 404", Some("/administrator")),
        ("/admin.", "route 404", Some("/admin.")),
        ("/admin%20", "route 404", Some("/admin%20")),
    ]);
    let exact = route("r", "{type: Exact, value: /x}");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &exact, &on_r]);
    for near in ["/x/", "/x.", "/X", "/x%20"] {
        assert_eq!(world.answer(&web().path(near)), "route 404", "{near}");
    }
}

#[test]
fn pa14_a_missing_leading_slash_is_refused() {
    refused(&["admin", "open/x", "", "?x", "%2Fopen"]);
    let server = SERVER.replace("HTTP/1", "gRPC");
    let world = World::of(&[SHOP, &server]);
    assert_eq!(
        world.decide(&web().grpc("shop.Cart/Add")).grpc_status,
        Some(3)
    );
}

#[test]
fn pa15_an_asterisk_is_for_options_alone() {
    refused(&["*", "**"]);
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP]);
    assert_eq!(
        world.answer(&Ask::plain().method("OPTIONS").path("*")),
        "allow"
    );
    assert_eq!(
        world.answer(&Ask::plain().method("OPTIONS").path("**")),
        "request 400"
    );
}

#[test]
fn pa16_an_asterisk_inside_a_path_is_a_letter() {
    paths(&[
        ("/admin/*", DENIED, Some("/admin/*")),
        ("/*/open", "route 404", Some("/*/open")),
    ]);
    let literal = route("r", "{value: '/x*'}");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &literal, &on_r]);
    assert_eq!(
        world.answer(&web().path("/xy")),
        "route 404",
        "nor does a route's asterisk match anything else"
    );
    assert_eq!(world.answer(&web().path("/x*")), "allow");
}

#[test]
fn pa17_an_absolute_target_is_refused_where_a_path_is_judged() {
    // The proxy takes `http://authority/path` apart before; what is left of it here is no path.
    refused(&["http://evil/admin", "http://cart/open", "https://cart"]);
}

#[test]
fn pa18_long_targets_are_refused_and_many_segments_cost_nothing() {
    let world = guarded(SERVER);
    let long = format!("/open/{}", "a".repeat(64 * 1024));
    assert_eq!(world.answer(&web().path(&long)), "request 400");
    let deep = format!("/open{}/admin", "/x/..".repeat(1_000));
    assert_eq!(
        world.answer(&web().path(&deep)),
        "allow",
        "which is /open/admin"
    );
}

/// A route for one host, granted to everybody meshed.
fn hosted() -> World {
    let text =
        route("r", "{value: /}").replace("rules:", "hostnames: [cart.shop.example]\n  rules:");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    World::of(&[SHOP, SERVER, MESHED, &text, &on_r])
}

fn hosts(rows: &[(&str, &str)]) {
    let world = hosted();
    for (host, want) in rows {
        assert_eq!(world.answer(&web().host(host)), *want, "{host}");
    }
}

#[test]
fn ho01_a_list_of_hosts_is_refused() {
    hosts(&[
        ("cart.shop.example, evil", "request 400"),
        ("cart.shop.example,evil", "request 400"),
        ("evil, cart.shop.example", "request 400"),
    ]);
}

#[test]
fn ho02_the_authority_is_judged_and_no_header_of_that_name() {
    // The proxy refuses a head whose `:authority` and `Host` differ; whatever reached policy, one value decides.
    let world = hosted();
    assert_eq!(
        world.answer(&web().host("evil").header("host", &["cart.shop.example"])),
        "route 404"
    );
    assert_eq!(
        world.answer(&web().host("cart.shop.example").header("host", &["evil"])),
        "allow"
    );
}

#[test]
fn ho03_case_does_not_count() {
    hosts(&[
        ("CART.Shop.EXAMPLE", "allow"),
        ("cart.shop.examplE", "allow"),
    ]);
}

#[test]
fn ho04_one_trailing_dot_does_not_count() {
    hosts(&[
        ("cart.shop.example.", "allow"),
        ("cart.shop.example..", "request 400"),
        (".cart.shop.example", "request 400"),
    ]);
}

#[test]
fn ho05_ports_are_read_once_and_bad_ones_refused() {
    hosts(&[
        ("cart.shop.example:80", "allow"),
        ("cart.shop.example:080", "allow"),
        ("cart.shop.example:", "allow"),
        ("cart.shop.example:0", "request 400"),
        ("cart.shop.example:99999", "request 400"),
        ("cart.shop.example:80:80", "request 400"),
        ("cart.shop.example:+80", "request 400"),
    ]);
}

#[test]
fn ho06_user_information_paths_and_spaces_are_refused() {
    hosts(&[
        ("a@cart.shop.example", "request 400"),
        ("cart.shop.example/x", "request 400"),
        ("cart.shop.example x", "request 400"),
        ("cart.shop.example#x", "request 400"),
        ("cart%2eshop.example", "request 400"),
    ]);
}

#[test]
fn ho07_an_empty_host_is_refused_and_a_missing_one_is_no_host() {
    hosts(&[
        ("", "request 400"),
        (":80", "request 400"),
        (".", "request 400"),
    ]);
    let mut missing = web();
    missing.0.host = None;
    assert_eq!(
        hosted().answer(&missing),
        "route 404",
        "no route that names hosts takes it"
    );
    assert_eq!(
        guarded(SERVER).answer(&{ missing.path("/open") }),
        "allow",
        "a route without hostnames does"
    );
}

#[test]
fn ho08_ipv6_literals_are_read_and_zones_refused() {
    let world = guarded(SERVER);
    for (host, want) in [
        ("[2001:db8::1]:8080", "allow"),
        ("[::1]", "allow"),
        ("[fe80::1%25eth0]", "request 400"),
        ("[fe80::1%eth0]", "request 400"),
        ("fe80::1", "request 400"),
        ("[::1", "request 400"),
    ] {
        assert_eq!(
            world.answer(&web().path("/open").host(host)),
            want,
            "{host}"
        );
    }
}

#[test]
fn ho09_international_names_are_compared_as_a_labels_and_malformed_ones_refused() {
    let text =
        route("r", "{value: /}").replace("rules:", "hostnames: [xn--mnchen-3ya.example]\n  rules:");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &text, &on_r]);
    for (host, want) in [
        ("XN--mnchen-3ya.example", "allow"),
        ("m\u{fc}nchen.example", "request 400"),
        ("xn--99999999.example", "request 400"),
        ("munchen.example", "route 404"),
    ] {
        assert_eq!(world.answer(&web().host(host)), want, "{host}");
    }
}

#[test]
fn ho12_an_authority_that_nobody_fronts_is_denied() {
    hosts(&[
        ("evil.example", "route 404"),
        ("cart.shop.example.evil", "route 404"),
        ("169.254.169.254", "route 404"),
    ]);
    // The target is the port of a pod, whatever the authority says: there is nothing to relay to.
    let world = World::default_policy(Mode::AllUnauthenticated, &[SHOP, SERVER]);
    assert_eq!(world.answer(&Ask::plain().host("web.shop")), DENIED);
}

#[test]
fn hd02_each_value_of_a_matched_header_must_satisfy_and_values_are_never_joined() {
    let one = route("r", "{value: /}, headers: [{name: x-role, value: reader}]");
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &one, &on_r]);
    for (values, want) in [
        (vec!["reader"], "allow"),
        (vec!["reader", "reader"], "allow"),
        (vec!["reader", "admin"], "route 404"),
        (vec!["admin", "reader"], "route 404"),
        (vec!["reader,reader"], "route 404"),
    ] {
        assert_eq!(
            world.answer(&web().header("x-role", &values)),
            want,
            "{values:?}"
        );
    }
}

#[test]
fn hd03_bytes_above_ascii_match_byte_for_byte_or_not_at_all() {
    let exact = route(
        "r",
        "{value: /}, headers: [{name: x-role, value: \"caf\\u00e9\"}]",
    );
    let regex = route(
        "r",
        "{value: /}, headers: [{name: x-role, type: RegularExpression, value: '[a-z]+'}]",
    );
    let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
    for (text, value, want) in [
        (&exact, "caf\u{e9}", "allow"),
        (&exact, "cafe", "route 404"),
        (&exact, "cafe\u{301}", "route 404"),
        (&regex, "admin", "allow"),
        (&regex, "adm\u{ff}in", "route 404"),
    ] {
        let world = World::of(&[SHOP, SERVER, MESHED, text, &on_r]);
        assert_eq!(
            world.answer(&web().header("x-role", &[value])),
            want,
            "{value}"
        );
    }
}

#[test]
fn hd11_only_the_real_method_counts() {
    let delete = route("delete", "{value: /}, method: DELETE");
    let get = route("get", "{value: /}, method: GET");
    let on_delete = policy("p", "HTTPRoute delete", &["MeshTLSAuthentication meshed"]);
    let world = World::of(&[SHOP, SERVER, MESHED, &delete, &get, &on_delete]);
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        assert_eq!(
            world.answer(&web().header(name, &["DELETE"])),
            DENIED,
            "{name}"
        );
        assert_eq!(
            world.answer(&web().method("DELETE").header(name, &["GET"])),
            "allow",
            "{name}"
        );
    }
    assert_eq!(world.answer(&web().path("/?_method=DELETE")), DENIED);
    assert_eq!(
        world.answer(&web().method("delete")),
        "route 404",
        "methods are compared byte for byte"
    );
}

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
