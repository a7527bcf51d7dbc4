//! The catalogue of attacks: hosts and headers.

use crate::catalogue::{guarded, web};
use crate::world::{Ask, DENIED, MESHED, SERVER, SHOP, World, policy, route};
use mesh_policy_index::Mode;

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
