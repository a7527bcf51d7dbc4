//! Settled reading 8: which route takes a request. Gateway API's order, one criterion per row.
//!
//! In each pair the better route is the younger one and later by name, so that nothing but the criterion can choose it.
//! Only the better route has a grant: `allow` means that it took the request.

use crate::linkerd_model::Says::{Allow, Forbidden, NotFound};
use crate::side_by_side::Scene;
use crate::why::{METHOD_ORDER, ROUTE_ORDER, SAME, Why};
use crate::world::{Ask, DENIED, MESHED, SERVER, SHOP, World, dated, policy, route};

/// Hostnames and one match of a route.
type Half = (&'static str, &'static str);

fn half(name: &str, (hostnames, one): Half) -> String {
    let whole = format!("rules: [{{matches: [{one}]}}]");
    let rules = format!("hostnames: [{hostnames}]\n  {whole}");
    let text =
        route(name, "{value: /}").replace("rules: [{matches: [{path: {value: /}}]}]", &rules);
    assert!(text.contains(one), "{text}");
    text
}

fn scene(better: Half, worse: Half) -> Scene {
    let better = dated("2030", &half("z-better", better));
    let worse = dated("2020", &half("a-worse", worse));
    let grant = policy("p", "HTTPRoute z-better", &["MeshTLSAuthentication meshed"]);
    Scene::of(&[SHOP, SERVER, MESHED, &better, &worse, &grant])
}

fn ask() -> Ask {
    Ask::meshed("shop/web")
        .path("/a/b?q=1&r=2")
        .host("cart.shop.example")
        .header("x-a", &["1"])
        .header("x-b", &["2"])
}

/// A path match; [`ask`] asks for `/a/b`.
const ROOT: &str = "{path: {value: /}}";
const EXACT: &str = "{path: {type: Exact, value: /a/b}}";
const REGEX: &str = "{path: {type: RegularExpression, value: '/a/.*'}}";
const METHOD: &str = "{path: {value: /}, method: GET}";
const HEADER: &str = "{path: {value: /}, headers: [{name: x-a, value: '1'}]}";
const HEADERS: &str =
    "{path: {value: /}, headers: [{name: x-a, value: '1'}, {name: X-B, value: '2'}]}";
const QUERY: &str = "{path: {value: /}, queryParams: [{name: q, value: '1'}]}";
const QUERIES: &str =
    "{path: {value: /}, queryParams: [{name: q, value: '1'}, {name: r, value: '2'}]}";
const EVERYTHING: &str = "{path: {value: /a}, method: GET, headers: [{name: x-a, value: '1'}], queryParams: [{name: q, value: '1'}]}";

#[test]
fn reading_08_each_criterion_of_gateway_api_in_its_order() {
    let rows: &[(&str, Half, Half, Why)] = &[
        (
            "exact hostname > wildcard",
            ("cart.shop.example", ROOT),
            ("'*.shop.example'", ROOT),
            SAME,
        ),
        (
            "longer wildcard > shorter",
            ("'*.shop.example'", ROOT),
            ("'*.example'", ROOT),
            SAME,
        ),
        (
            "any hostname > none",
            ("'*.example'", ROOT),
            ("", ROOT),
            SAME,
        ),
        (
            "best of several hostnames",
            ("other.example, cart.shop.example", ROOT),
            ("'*.shop.example'", ROOT),
            SAME,
        ),
        ("hostname > path", ("'*.example'", ROOT), ("", EXACT), SAME),
        (
            "hostname > everything else",
            ("'*.example'", ROOT),
            ("", EVERYTHING),
            SAME,
        ),
        (
            "exact path > prefix",
            ("", EXACT),
            ("", "{path: {value: /a/b}}"),
            ROUTE_ORDER,
        ),
        (
            "exact path > prefix with all the rest",
            ("", EXACT),
            ("", EVERYTHING),
            SAME,
        ),
        (
            "exact path > regular expression",
            ("", EXACT),
            ("", REGEX),
            ROUTE_ORDER,
        ),
        (
            "longer prefix > shorter",
            ("", "{path: {value: /a/b}}"),
            ("", "{path: {value: /a}}"),
            SAME,
        ),
        (
            "longer prefix > shorter with all the rest",
            ("", "{path: {value: /a/b}}"),
            ("", EVERYTHING),
            SAME,
        ),
        (
            "prefix > regular expression",
            ("", "{path: {value: /a}}"),
            ("", REGEX),
            ROUTE_ORDER,
        ),
        (
            "the shortest prefix > the longest expression",
            ("", ROOT),
            ("", "{path: {type: RegularExpression, value: '/a/b'}}"),
            ROUTE_ORDER,
        ),
        (
            "method > headers",
            ("", METHOD),
            ("", HEADERS),
            METHOD_ORDER,
        ),
        ("method > query", ("", METHOD), ("", QUERIES), METHOD_ORDER),
        ("method > none", ("", METHOD), ("", ROOT), SAME),
        ("more headers > fewer", ("", HEADERS), ("", HEADER), SAME),
        ("a header > none", ("", HEADER), ("", ROOT), SAME),
        (
            "a header > more of the query",
            ("", HEADER),
            ("", QUERIES),
            SAME,
        ),
        ("more of the query > less", ("", QUERIES), ("", QUERY), SAME),
        ("a query parameter > none", ("", QUERY), ("", ROOT), SAME),
    ];
    for (what, better, worse, why) in rows {
        println!("{what}");
        let says = if why.is_some() { Forbidden } else { Allow };
        scene(*better, *worse).answers(&[(ask(), says, "allow", *why)]);
        // Alone, each takes the request: so it was a choice.
        for half_of in [*better, *worse] {
            let alone = World::of(&[SHOP, SERVER, &half("r", half_of)]);
            assert_eq!(alone.decide(&ask()).route.unwrap().name, "r", "{what}");
        }
    }
}

/// Name of the route and number of the rule that took the request.
fn taken(parts: &[&str], ask: &Ask) -> Option<(String, u32)> {
    let mut all = vec![SHOP, SERVER];
    all.extend(parts);
    World::of(&all).decide(ask).route.map(|r| (r.name, r.rule))
}

#[test]
fn reading_08_equal_ranks_go_to_the_older_then_by_name_then_by_group() {
    let gateway = |r: &str| r.replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1");
    let (a, b) = (route("a", "{value: /a}"), route("b", "{value: /a}"));
    for (what, first, second) in [
        ("the older", dated("2020", &b), dated("2021", &a)),
        ("of one age, by name", dated("2020", &a), dated("2020", &b)),
        ("a date before none", dated("2030", &b), a.clone()),
        ("of no age, by name", a.clone(), b.clone()),
        (
            "the older of two groups",
            dated("2020", &b),
            dated("2021", &gateway(&a)),
        ),
        (
            "of one age and two groups, by name",
            dated("2020", &a),
            dated("2020", &gateway(&b)),
        ),
    ] {
        let name = if first.contains("name: a,") { "a" } else { "b" };
        for order in [[&first, &second], [&second, &first]] {
            let got = taken(&[order[0], order[1]], &ask()).unwrap();
            assert_eq!(got.0, name, "{what}");
        }
    }
    // Of one name and age: gateway.networking.k8s.io is before policy.linkerd.io.
    let on_gateway = policy("p", "HTTPRoute a", &["MeshTLSAuthentication meshed"]).replace(
        "group: 'policy.linkerd.io', kind: HTTPRoute",
        "group: gateway.networking.k8s.io, kind: HTTPRoute",
    );
    let world = World::of(&[SHOP, SERVER, MESHED, &a, &gateway(&a), &on_gateway]);
    assert_eq!(world.answer(&ask()), "allow");
}

#[test]
fn reading_08_times_are_compared_as_instants() {
    let at = |name: &str, time: &str| {
        route(name, "{value: /a}").replace(
            "metadata: {",
            &format!("metadata: {{creationTimestamp: '{time}', "),
        )
    };
    for (older, younger) in [
        ("2021-01-01T00:30:00+01:00", "2021-01-01T00:00:00Z"),
        ("2020-12-31T23:59:59Z", "2021-01-01T00:00:00Z"),
        ("2021-01-01T00:00:00Z", "2021-01-01T00:00:01Z"),
    ] {
        assert_eq!(
            taken(&[&at("z", older), &at("a", younger)], &ask())
                .unwrap()
                .0,
            "z",
            "{older}"
        );
    }
}

#[test]
fn reading_08_within_a_route_the_better_rule_then_the_first() {
    let rules =
        |rules: &str| route("r", "{value: /}").replace("[{matches: [{path: {value: /}}]}]", rules);
    for (text, want) in [
        (
            "[{matches: [{path: {value: /a}}]}, {matches: [{path: {value: /a/b}}]}]",
            1,
        ),
        (
            "[{matches: [{path: {value: /}}, {path: {type: Exact, value: /a/b}}]}, {matches: [{path: {value: /a/b}}]}]",
            0,
        ),
        (
            "[{matches: [{path: {value: /a}}]}, {matches: [{path: {value: /a}}]}]",
            0,
        ),
        ("[{matches: [{path: {value: /x}}]}, {}]", 1),
        ("[{}, {matches: []}]", 0),
    ] {
        assert_eq!(
            taken(&[&rules(text)], &ask()),
            Some(("r".to_owned(), want)),
            "{text}"
        );
    }
    assert_eq!(
        taken(&[&rules("[{matches: [{path: {value: /x}}]}]")], &ask()),
        None
    );
    let none = route("r", "{value: /}").replace("  rules: [{matches: [{path: {value: /}}]}]\n", "");
    assert_eq!(
        taken(&[&none], &ask()),
        Some(("r".to_owned(), 0)),
        "no rules are one that takes all"
    );
}

#[test]
fn reading_08_only_hostnames_of_routes_that_match_the_request_compete() {
    let elsewhere = half("z", ("cart.shop.example", "{path: {value: /other}}"));
    let any = half("a", ("", ROOT));
    assert_eq!(taken(&[&elsewhere, &any], &ask()).unwrap().0, "a");
    assert_eq!(
        taken(&[&elsewhere, &any], &ask().path("/other")).unwrap().0,
        "z"
    );
}

#[test]
fn reading_08_hostnames_and_wildcards() {
    for (hostname, host, taken) in [
        ("shop.example", "shop.example", true),
        ("shop.example", "SHOP.Example", true),
        ("shop.example", "shop.example.", true),
        ("shop.example", "shop.example:8080", true),
        ("shop.example", "a.shop.example", false),
        ("shop.example", "shop.example.evil", false),
        ("shop.example", "shopxexample", false),
        ("'*.shop.example'", "a.shop.example", true),
        ("'*.shop.example'", "a.b.shop.example", true),
        ("'*.shop.example'", "shop.example", false),
        ("'*.shop.example'", "ashop.example", false),
        ("'*.shop.example'", "A.SHOP.EXAMPLE:1", true),
    ] {
        let r = half("r", (hostname, ROOT));
        let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
        let (says, ours) = if taken {
            (Allow, "allow")
        } else {
            (NotFound, "route 404")
        };
        Scene::of(&[SHOP, SERVER, MESHED, &r, &on_r]).answers(&[(
            ask().host(host),
            says,
            ours,
            SAME,
        )]);
    }
    let r = half("r", ("shop.example", ROOT));
    let mut hostless = ask();
    hostless.0.host = None;
    assert_eq!(
        taken(&[&r], &hostless),
        None,
        "without a host only routes without hostnames match"
    );
    assert_eq!(taken(&[&half("r", ("", ROOT))], &hostless).unwrap().0, "r");
}

#[test]
fn reading_08_paths_by_kind() {
    for (kind, value, path, taken) in [
        ("Exact", "/adm", "/adm", true),
        ("Exact", "/adm", "/adm/", false),
        ("Exact", "/adm", "/adm?x", true),
        ("Exact", "/adm", "/Adm", false),
        ("PathPrefix", "/adm", "/adm", true),
        ("PathPrefix", "/adm", "/adm/x", true),
        ("PathPrefix", "/adm", "/admin", false),
        ("PathPrefix", "/adm/", "/adm", true),
        ("PathPrefix", "/adm/", "/adm/x", true),
        ("PathPrefix", "/", "/anything", true),
        ("RegularExpression", "/a.m", "/adm", true),
        ("RegularExpression", "/a.m", "/adm/x", false),
        ("RegularExpression", "/a.m", "/x/adm", false),
        ("RegularExpression", "/a|/b", "/b", true),
        ("RegularExpression", "/a|/b", "/b/c", false),
    ] {
        let r = route("r", &format!("{{type: {kind}, value: '{value}'}}"));
        let on_r = policy("p", "HTTPRoute r", &["MeshTLSAuthentication meshed"]);
        let (says, ours) = if taken {
            (Allow, "allow")
        } else {
            (NotFound, "route 404")
        };
        Scene::of(&[SHOP, SERVER, MESHED, &r, &on_r]).answers(&[(
            ask().path(path),
            says,
            ours,
            SAME,
        )]);
    }
    // A trailing slash adds nothing: `/a/` and `/a` are one prefix, and the older route takes it.
    let (short, long) = (
        dated("2020", &half("short", ("", "{path: {value: /a}}"))),
        half("long", ("", "{path: {value: /a/}}")),
    );
    assert_eq!(taken(&[&short, &long], &ask()).unwrap().0, "short");
}

#[test]
fn reading_08_among_regular_expressions_length_counts_for_nothing() {
    let long = half(
        "z-long",
        ("", "{path: {type: RegularExpression, value: '/a/[a-z]'}}"),
    );
    let short = half(
        "a-short",
        ("", "{path: {type: RegularExpression, value: '.*'}}"),
    );
    assert_eq!(
        taken(&[&dated("2020", &long), &dated("2021", &short)], &ask())
            .unwrap()
            .0,
        "z-long"
    );
    assert_eq!(
        taken(&[&dated("2021", &long), &dated("2020", &short)], &ask())
            .unwrap()
            .0,
        "a-short"
    );
    let by_method = half(
        "z",
        (
            "",
            "{path: {type: RegularExpression, value: '.*'}, method: GET}",
        ),
    );
    assert_eq!(
        taken(
            &[&dated("2021", &by_method), &dated("2020", &short)],
            &ask()
        )
        .unwrap()
        .0,
        "z",
        "then the method"
    );
}

/// A GRPCRoute with one match.
fn grpc(name: &str, one: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]\n  rules: [{{matches: [{one}]}}]\n"
    )
}

fn call(path: &str) -> Ask {
    Ask::meshed("shop/web").grpc(path).header("x-a", &["1"])
}

fn grpc_taken(parts: &[&str], ask: &Ask) -> Option<String> {
    let server = SERVER.replace("HTTP/1", "gRPC");
    let mut all = vec![SHOP, &server];
    all.extend(parts);
    World::of(&all).decide(ask).route.map(|r| r.name)
}

#[test]
fn reading_08_grpc_service_then_method_then_headers() {
    let order = [
        "{method: {service: shop.Cart, method: Add}, headers: [{name: x-a, value: '1'}]}",
        "{method: {service: shop.Cart, method: Add}}",
        "{method: {service: shop.Cart}, headers: [{name: x-a, value: '1'}]}",
        "{method: {service: shop.Cart}}",
        "{method: {type: RegularExpression, service: 'shop[.].*', method: Add}}",
        "{method: {type: RegularExpression, service: 'shop[.].*'}}",
        "{method: {method: Add}, headers: [{name: x-a, value: '1'}]}",
        "{method: {method: Add}}",
        "{method: {type: RegularExpression, method: '.*'}}",
        "{headers: [{name: x-a, value: '1'}]}",
        "{}",
    ];
    for (at, better) in order.iter().enumerate() {
        for worse in &order[at + 1..] {
            let (young, old) = (
                dated("2030", &grpc("z", better)),
                dated("2020", &grpc("a", worse)),
            );
            let got = grpc_taken(&[&young, &old], &call("/shop.Cart/Add"));
            assert_eq!(got.as_deref(), Some("z"), "{better} before {worse}");
        }
    }
    let twins = [
        dated("2020", &grpc("z", order[1])),
        dated("2021", &grpc("a", order[1])),
    ];
    assert_eq!(
        grpc_taken(&[&twins[0], &twins[1]], &call("/shop.Cart/Add")).as_deref(),
        Some("z"),
        "then the older"
    );
}

#[test]
fn reading_08_grpc_matches_whole_calls() {
    for (one, path, taken) in [
        ("{method: {service: shop.Cart}}", "/shop.Cart/Add", true),
        ("{method: {service: shop.Cart}}", "/shop.Cart/Add/x", false),
        ("{method: {service: shop.Cart}}", "/shop.Cart", false),
        ("{method: {service: shop.Cart}}", "/shop.cart/Add", false),
        ("{method: {service: shop.Cart}}", "/shopxCart/Add", false),
        ("{method: {service: shop.Cart}}", "/shop.Cart2/Add", false),
        ("{method: {method: Add}}", "/any.Service/Add", true),
        ("{method: {method: Add}}", "/any.Service/AddAll", false),
        (
            "{method: {type: RegularExpression, service: 'a|b', method: 'C|D'}}",
            "/b/D",
            true,
        ),
        (
            "{method: {type: RegularExpression, service: 'a|b', method: 'C|D'}}",
            "/bb/D",
            false,
        ),
        ("{}", "/any.Service/Any", true),
        ("{}", "/", false),
    ] {
        assert_eq!(
            grpc_taken(&[&grpc("r", one)], &call(path)).is_some(),
            taken,
            "{one} {path}"
        );
    }
    let post = Ask::meshed("shop/web").path("/shop.Cart/Add");
    assert_eq!(
        grpc_taken(&[&grpc("r", "{}")], &post.clone().method("POST")).as_deref(),
        Some("r")
    );
    assert_eq!(
        grpc_taken(&[&grpc("r", "{}")], &post),
        None,
        "a GET is no call"
    );
}

#[test]
fn reading_08_grpc_matches_that_name_nothing_or_no_name_are_refused() {
    for (one, valid) in [
        ("{method: {service: shop.Cart, method: Add}}", true),
        ("{method: {}}", false),
        ("{method: {type: Exact}}", false),
        ("{method: {service: 'shop/Cart'}}", false),
        ("{method: {service: ''}}", false),
        ("{method: {method: 'Add.All'}}", false),
        ("{method: {type: Prefix, service: shop}}", false),
        ("{method: {type: RegularExpression, service: '('}}", false),
        ("{path: {value: /}}", false),
    ] {
        let server = SERVER.replace("HTTP/1", "gRPC");
        let world = World::of(&[SHOP, &server, &grpc("r", one)]);
        assert_eq!(world.errors().is_empty(), valid, "{one}");
        let got = world.answer(&call("/shop.Cart/Add"));
        assert_ne!(got, "allow");
        assert_eq!(got == DENIED, valid, "{one}: {got}");
    }
}
