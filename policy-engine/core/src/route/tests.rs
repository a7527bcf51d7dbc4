//! Which route takes a request: Gateway API precedence, case by case.

use super::*;
use std::collections::BTreeMap;

type HeaderMap = BTreeMap<String, Vec<String>>;

fn source() -> Source {
    Source::BuiltIn("test".to_owned())
}

fn prefix(text: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(text.to_owned()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn exact(text: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Exact(text.to_owned()),
        ..prefix("/")
    }
}

fn regex(text: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Regex(text.to_owned()),
        ..prefix("/")
    }
}

fn value(name: &str, text: &str) -> ValueMatch {
    ValueMatch {
        name: name.to_owned(),
        value: TextMatch::Exact(text.to_owned()),
    }
}

fn pattern(name: &str, text: &str) -> ValueMatch {
    ValueMatch {
        name: name.to_owned(),
        value: TextMatch::Regex(text.to_owned()),
    }
}

fn route(name: &str, hostnames: &[&str], rules: Vec<Vec<RouteMatch>>) -> Route {
    let rules = rules.into_iter().map(|matches| crate::snapshot::RouteRule {
        matches,
        filters: Vec::new(),
    });
    Route {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: None,
        hostnames: hostnames.iter().map(ToString::to_string).collect(),
        rules: rules.collect(),
        invalid: None,
        source: source(),
    }
}

struct Ask {
    method: &'static str,
    target: &'static str,
    host: Option<&'static str>,
    headers: HeaderMap,
}

fn ask(target: &'static str) -> Ask {
    Ask {
        method: "GET",
        target,
        host: Some("cart.shop"),
        headers: HeaderMap::new(),
    }
}

impl Ask {
    fn header(mut self, name: &str, values: &[&str]) -> Self {
        self.headers.insert(
            name.to_owned(),
            values.iter().map(ToString::to_string).collect(),
        );
        self
    }

    fn on(self, routes: &[Route]) -> Option<String> {
        let (table, _) = RouteTable::compile(routes);
        let host = self.host.map(|host| canonical::host(host).unwrap());
        let (path, query) = self
            .target
            .split_once('?')
            .map_or((self.target, None), |(path, query)| (path, Some(query)));
        let request = RouteRequest {
            method: self.method,
            path,
            query,
            host: host.as_ref(),
            headers: &self.headers,
        };
        let chosen = table.choose(&request);
        let first = table.candidates(&request).into_iter().next();
        let name = |taken: &RouteTaken| format!("{}/{}", taken.name, taken.rule);
        let chosen = chosen.map(|chosen| name(chosen.taken));
        let first = first.map(|first| name(&first.taken));
        assert_eq!(chosen, first, "explain lists the winner first");
        chosen
    }
}

/// The winner among routes named `0`, `1`, … of one rule with one match each, in both orders of the list.
fn winner_of_two(better: RouteMatch, worse: RouteMatch, target: &'static str) {
    let routes = |first: &RouteMatch, second: &RouteMatch, names: [&str; 2]| {
        [
            route(names[0], &[], vec![vec![first.clone()]]),
            route(names[1], &[], vec![vec![second.clone()]]),
        ]
    };
    let request = || ask(target).header("x-a", &["1"]).header("x-b", &["2"]);
    assert_eq!(
        request()
            .on(&routes(&better, &worse, ["better", "worse"]))
            .as_deref(),
        Some("better/0")
    );
    assert_eq!(
        request()
            .on(&routes(&worse, &better, ["worse", "better"]))
            .as_deref(),
        Some("better/0")
    );
}

#[test]
fn exact_beats_prefix_beats_regex() {
    winner_of_two(exact("/a/b"), prefix("/a/b"), "/a/b");
    winner_of_two(prefix("/"), regex("/a/b/c/.*"), "/a/b/c/d");
    winner_of_two(exact("/a/b"), regex("/a/b"), "/a/b");
}

#[test]
fn the_longer_prefix_wins_whatever_else_matches() {
    let wordy = RouteMatch {
        method: Some("GET".to_owned()),
        headers: vec![value("x-a", "1")],
        ..prefix("/a")
    };
    winner_of_two(prefix("/a/b"), wordy, "/a/b/c");
}

#[test]
fn method_beats_headers_beats_query() {
    let method = RouteMatch {
        method: Some("GET".to_owned()),
        ..prefix("/")
    };
    let headers = RouteMatch {
        headers: vec![value("x-a", "1"), value("x-b", "2")],
        ..prefix("/")
    };
    let header = RouteMatch {
        headers: vec![value("x-a", "1")],
        ..prefix("/")
    };
    let query = RouteMatch {
        query: vec![value("q", "1"), value("r", "2")],
        ..prefix("/")
    };
    winner_of_two(method, headers.clone(), "/?q=1&r=2");
    winner_of_two(headers, header.clone(), "/?q=1&r=2");
    winner_of_two(header, query.clone(), "/?q=1&r=2");
    winner_of_two(query, prefix("/"), "/?q=1&r=2");
}

#[test]
fn equal_ranks_go_to_the_first_route_then_the_first_rule() {
    let one = route(
        "one",
        &[],
        vec![vec![prefix("/x")], vec![prefix("/")], vec![prefix("/")]],
    );
    let two = route("two", &[], vec![vec![prefix("/")]]);
    assert_eq!(
        ask("/a").on(&[one.clone(), two.clone()]).as_deref(),
        Some("one/1")
    );
    assert_eq!(ask("/a").on(&[two, one]).as_deref(), Some("two/0"));
}

#[test]
fn regexes_rank_alike_so_the_older_wins() {
    let routes = [
        route("older", &[], vec![vec![regex("/.*")]]),
        route("longer", &[], vec![vec![regex("/a/b/c")]]),
    ];
    assert_eq!(ask("/a/b/c").on(&routes).as_deref(), Some("older/0"));
}

#[test]
fn the_best_hostname_among_routes_that_match_wins_before_the_path() {
    let exact_host = route("exact", &["cart.shop"], vec![vec![prefix("/")]]);
    let wildcard = route("wildcard", &["*.shop"], vec![vec![exact("/a")]]);
    let any = route("any", &[], vec![vec![exact("/a")]]);
    assert_eq!(
        ask("/a")
            .on(&[any.clone(), wildcard.clone(), exact_host.clone()])
            .as_deref(),
        Some("exact/0")
    );
    assert_eq!(
        ask("/a").on(&[any.clone(), wildcard.clone()]).as_deref(),
        Some("wildcard/0")
    );
    let elsewhere = route("elsewhere", &["cart.shop"], vec![vec![prefix("/other")]]);
    assert_eq!(
        ask("/a").on(&[elsewhere, any]).as_deref(),
        Some("any/0"),
        "a host whose route does not match is no host"
    );
}

#[test]
fn the_longer_wildcard_wins_and_covers_many_labels_but_not_its_own_name() {
    let short = route("short", &["*.example.com"], vec![vec![prefix("/")]]);
    let long = route("long", &["*.a.example.com"], vec![vec![prefix("/")]]);
    let to = |host| Ask { host, ..ask("/") }.on(&[short.clone(), long.clone()]);
    assert_eq!(to(Some("x.a.example.com")).as_deref(), Some("long/0"));
    assert_eq!(to(Some("x.y.example.com")).as_deref(), Some("short/0"));
    assert_eq!(to(Some("example.com")), None);
    assert_eq!(to(Some("badexample.com")), None);
    assert_eq!(
        to(None),
        None,
        "without a host only routes without hostnames match"
    );
}

#[test]
fn hostnames_ignore_case_port_and_trailing_dot() {
    let routes = [route("r", &["cart.shop"], vec![vec![prefix("/")]])];
    for host in ["CART.Shop", "cart.shop.", "cart.shop:8080"] {
        assert_eq!(
            Ask {
                host: Some(host),
                ..ask("/")
            }
            .on(&routes)
            .as_deref(),
            Some("r/0"),
            "{host}"
        );
    }
    assert_eq!(
        Ask {
            host: Some("cart.shop.evil"),
            ..ask("/")
        }
        .on(&routes),
        None
    );
}

#[test]
fn pa13_prefixes_cover_whole_segments() {
    let routes = [route("r", &[], vec![vec![prefix("/adm")]])];
    for (target, taken) in [
        ("/adm", true),
        ("/adm/", true),
        ("/adm/x", true),
        ("/admin", false),
        ("/", false),
        ("/Adm", false),
    ] {
        assert_eq!(ask(target).on(&routes).is_some(), taken, "{target}");
    }
    let slash = [route("r", &[], vec![vec![prefix("/adm/")]])];
    assert!(ask("/adm").on(&slash).is_some() && ask("/admin").on(&slash).is_none());
    assert!(
        ask("*")
            .on(&[route("r", &[], vec![vec![prefix("/")]])])
            .is_none()
    );
}

#[test]
fn exact_paths_are_exact() {
    let routes = [route("r", &[], vec![vec![exact("/a")]])];
    for target in ["/a/", "/a/b", "/A", "/", "/a."] {
        assert!(ask(target).on(&routes).is_none(), "{target}");
    }
    assert!(ask("/a?b=c").on(&routes).is_some());
}

#[test]
fn cp05_a_literal_with_dots_is_no_regex() {
    assert!(
        ask("/axb")
            .on(&[route("r", &[], vec![vec![exact("/a.b")]])])
            .is_none()
    );
    let header = RouteMatch {
        headers: vec![value("x-v", "1.2")],
        ..prefix("/")
    };
    assert!(
        ask("/")
            .header("x-v", &["1x2"])
            .on(&[route("r", &[], vec![vec![header]])])
            .is_none()
    );
}

#[test]
fn regexes_cover_the_whole_path() {
    for (text, target, taken) in [
        ("/a", "/a", true),
        ("/a", "/ab", false),
        ("/a", "/b/a", false),
        ("/a|/b", "/a/x", false),
        ("/a|/b", "/x/b", false),
        ("/a$", "/a", true),
    ] {
        assert_eq!(
            ask(target)
                .on(&[route("r", &[], vec![vec![regex(text)]])])
                .is_some(),
            taken,
            "{text} on {target}"
        );
    }
}

#[test]
fn cp04_a_regex_that_cannot_be_compiled_makes_its_route_deny() {
    for bad in [
        "(a{1000}){1000}",
        "(",
        "a)|(.*",
        "(?P<x",
        &"a".repeat(2_000),
    ] {
        assert!(check_regex(bad).is_err(), "{bad}");
        let routes = [route("r", &[], vec![vec![regex(bad)], vec![prefix("/")]])];
        let (table, problems) = RouteTable::compile(&routes);
        assert_eq!(problems.len(), 1);
        let headers = HeaderMap::new();
        let request = RouteRequest {
            method: "GET",
            path: "/a",
            query: None,
            host: None,
            headers: &headers,
        };
        assert!(
            table.choose(&request).unwrap().invalid.is_some(),
            "its other rule still takes requests, to deny them"
        );
    }
    assert!(check_regex("/v[0-9]+/.*").is_ok());
}

#[test]
fn reading_13_every_value_of_a_matched_header_must_match() {
    let one = RouteMatch {
        headers: vec![value("x-role", "reader")],
        ..prefix("/")
    };
    let routes = [route("r", &[], vec![vec![one]])];
    let with = |values: &[&str]| ask("/").header("x-role", values).on(&routes).is_some();
    assert!(with(&["reader"]) && with(&["reader", "reader"]));
    assert!(
        !with(&["reader", "admin"])
            && !with(&["admin", "reader"])
            && !with(&["reader,reader"])
            && !with(&["reader, admin"])
    );
    assert!(!with(&[]) && ask("/").on(&routes).is_none() && !with(&[""]) && !with(&["Reader"]));
}

#[test]
fn reading_13_values_are_never_joined_for_a_regex() {
    let one = RouteMatch {
        headers: vec![pattern("x-role", "a, ?b|a")],
        ..prefix("/")
    };
    let routes = [route("r", &[], vec![vec![one]])];
    assert!(ask("/").header("x-role", &["a", "b"]).on(&routes).is_none());
    assert!(ask("/").header("x-role", &["a, b"]).on(&routes).is_some());
}

#[test]
fn header_names_ignore_case() {
    let one = RouteMatch {
        headers: vec![value("X-Role", "reader")],
        ..prefix("/")
    };
    assert!(
        ask("/")
            .header("x-role", &["reader"])
            .on(&[route("r", &[], vec![vec![one]])])
            .is_some()
    );
}

#[test]
fn hd03_header_values_are_bytes() {
    struct Raw;
    impl Headers for Raw {
        fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            if name == "x-role" {
                each(b"adm\xffin");
            }
        }
    }
    let one = RouteMatch {
        headers: vec![pattern("x-role", "[a-z.]+|.*")],
        ..prefix("/")
    };
    let (table, _) = RouteTable::compile(&[route("r", &[], vec![vec![one]])]);
    let request = RouteRequest {
        method: "GET",
        path: "/",
        query: None,
        host: None,
        headers: &Raw,
    };
    assert!(
        table.choose(&request).is_none(),
        "a byte that is no text matches no text"
    );
}

#[test]
fn query_parameters_are_decoded_and_every_value_must_match() {
    let one = RouteMatch {
        query: vec![value("q", "a b")],
        ..prefix("/")
    };
    let routes = [route("r", &[], vec![vec![one]])];
    for (target, taken) in [
        ("/?q=a+b", true),
        ("/?q=a%20b&x", true),
        ("/?%71=a+b", true),
        ("/?q=a+b&q=c", false),
        ("/?q=a%2bb", false),
        ("/?Q=a+b", false),
        ("/?q", false),
        ("/", false),
        ("/?q=a%2", false),
    ] {
        assert_eq!(ask(target).on(&routes).is_some(), taken, "{target}");
    }
}

#[test]
fn methods_are_compared_byte_for_byte() {
    let one = RouteMatch {
        method: Some("GET".to_owned()),
        ..prefix("/")
    };
    let routes = [route("r", &[], vec![vec![one]])];
    assert!(
        Ask {
            method: "get",
            ..ask("/")
        }
        .on(&routes)
        .is_none()
    );
    assert!(
        Ask {
            method: "POST",
            ..ask("/")
        }
        .on(&routes)
        .is_none()
    );
    assert!(ask("/").on(&routes).is_some());
}

/// A gRPC match; `~` in front makes a part a regular expression.
fn rpc(service: Option<&str>, method: Option<&str>) -> RouteMatch {
    let part = |text: &str| match text.strip_prefix('~') {
        Some(pattern) => TextMatch::Regex(pattern.to_owned()),
        None => TextMatch::Exact(text.to_owned()),
    };
    let (service, method) = (service.map(part), method.map(part));
    RouteMatch {
        path: PathMatch::Rpc { service, method },
        ..prefix("/")
    }
}

#[test]
fn grpc_routes_rank_by_service_then_method_and_regexes_below_names() {
    let order = [
        rpc(Some("shop.Cart"), Some("Add")),
        rpc(Some("shop.Cart"), Some("~A.*")),
        rpc(Some("shop.Cart"), None),
        rpc(Some("~shop.*"), Some("Add")),
        rpc(Some("~shop.*"), Some("~Add")),
        rpc(Some("~shop.*"), None),
        rpc(None, Some("Add")),
        rpc(None, Some("~.*")),
        rpc(None, None),
    ];
    for (at, better) in order.iter().enumerate() {
        for worse in &order[at + 1..] {
            winner_of_two(better.clone(), worse.clone(), "/shop.Cart/Add");
        }
    }
}

#[test]
fn grpc_routes_take_whole_names_of_service_and_method_alone() {
    for (one, target, taken) in [
        (rpc(Some("shop.Cart"), None), "/shop.Cart/Add", true),
        (rpc(Some("shop.Cart"), None), "/shop.CartX/Add", false),
        (rpc(Some("shop.Cart"), None), "/shop.cart/Add", false),
        (rpc(Some("shop.Cart"), None), "/shop.Cart", false),
        (rpc(Some("shop.Cart"), None), "/shop.Cart/", false),
        (rpc(Some("shop.Cart"), None), "/shop.Cart/Add/x", false),
        (rpc(None, Some("Add")), "/any/Add", true),
        (rpc(None, Some("Add")), "/any/AddAll", false),
        (rpc(Some("~shop.*"), None), "/x.shop.Cart/Add", false),
        (rpc(Some("a.b"), None), "/axb/Add", false),
        (rpc(None, None), "/any/Add", true),
        (rpc(None, None), "/", false),
        (rpc(None, None), "/any", false),
    ] {
        let routes = [route("r", &[], vec![vec![one.clone()]])];
        assert_eq!(
            ask(target).on(&routes).is_some(),
            taken,
            "{one:?} on {target}"
        );
    }
}

#[test]
fn runners_up_say_why_they_lost() {
    let routes = [
        route("winner", &[], vec![vec![prefix("/a/b")]]),
        route("shorter", &[], vec![vec![prefix("/a")]]),
        route("regex", &[], vec![vec![regex("/.*")]]),
    ];
    let (table, _) = RouteTable::compile(&routes);
    let headers = HeaderMap::new();
    let request = RouteRequest {
        method: "GET",
        path: "/a/b",
        query: None,
        host: None,
        headers: &headers,
    };
    let all = table.candidates(&request);
    let why: Vec<_> = all[1..]
        .iter()
        .map(|one| (one.taken.name.as_str(), one.why_behind(&all[0])))
        .collect();
    assert_eq!(
        why,
        [
            ("shorter", "shorter path"),
            ("regex", "weaker kind of path match")
        ]
    );
}

#[test]
fn a_runner_up_names_the_first_criterion_on_which_it_is_worse() {
    let with = |change: fn(&mut RouteMatch)| {
        let mut one = prefix("/a");
        change(&mut one);
        one
    };
    let header = with(|one| one.headers = vec![value("x", "1")]);
    let query = with(|one| one.query = vec![value("q", "1")]);
    let method = with(|one| one.method = Some("GET".to_owned()));
    let plain = || vec![vec![prefix("/a")]];
    for (better, worse, why) in [
        (
            route("b", &["cart.shop"], plain()),
            route("w", &[], plain()),
            "less specific hostname",
        ),
        (
            route("b", &[], vec![vec![method]]),
            route("w", &[], plain()),
            "no method match",
        ),
        (
            route("b", &[], vec![vec![header]]),
            route("w", &[], plain()),
            "fewer header matches",
        ),
        (
            route("b", &[], vec![vec![query]]),
            route("w", &[], plain()),
            "fewer query matches",
        ),
        (
            route("b", &[], plain()),
            route("w", &[], plain()),
            "younger, or later by name",
        ),
    ] {
        let (table, _) = RouteTable::compile(&[better, worse]);
        let headers = HeaderMap::from([("x".to_owned(), vec!["1".to_owned()])]);
        let host = canonical::host("cart.shop").unwrap();
        let request = RouteRequest {
            method: "GET",
            path: "/a",
            query: Some("q=1"),
            host: Some(&host),
            headers: &headers,
        };
        let all = table.candidates(&request);
        let said: Vec<_> = all.iter().map(|one| one.why_behind(&all[0])).collect();
        assert_eq!((all[0].taken.name.as_str(), said[1]), ("b", why));
    }
    let twice = route("r", &[], vec![vec![prefix("/a")], vec![prefix("/a")]]);
    let (table, _) = RouteTable::compile(&[twice]);
    let headers = HeaderMap::new();
    let request = RouteRequest {
        method: "GET",
        path: "/a",
        query: None,
        host: None,
        headers: &headers,
    };
    let all = table.candidates(&request);
    assert_eq!(all[1].why_behind(&all[0]), "later rule of the same route");
}

#[test]
fn of_several_matches_of_one_header_or_parameter_the_first_counts() {
    let one = RouteMatch {
        headers: vec![value("X-Role", "a"), value("x-role", "b")],
        query: vec![value("q", "1"), value("q", "2")],
        ..prefix("/")
    };
    let (table, _) = RouteTable::compile(&[route("r", &[], vec![vec![one]])]);
    let taken = |role: &str, query| {
        let headers = HeaderMap::from([("x-role".to_owned(), vec![role.to_owned()])]);
        let request = RouteRequest {
            method: "GET",
            path: "/",
            query: Some(query),
            host: None,
            headers: &headers,
        };
        table.choose(&request).is_some()
    };
    assert!(taken("a", "q=1"));
    assert!(!taken("b", "q=1") && !taken("a", "q=2"));
}

#[test]
fn a_regex_may_be_as_long_as_the_limit_and_no_longer() {
    use crate::limits::REGEX_BYTES_MAX;
    assert!(check_regex(&"a".repeat(REGEX_BYTES_MAX)).is_ok());
    let long = check_regex(&"a".repeat(REGEX_BYTES_MAX + 1));
    assert!(
        matches!(long, Err(RegexRefusal::TooLong { .. })),
        "{long:?}"
    );
}

#[test]
fn an_unreadable_hostname_matches_nothing_and_makes_the_route_deny() {
    let routes = [route("r", &["*", "cart.shop"], vec![vec![prefix("/")]])];
    let (table, problems) = RouteTable::compile(&routes);
    assert_eq!(problems.len(), 1);
    let (headers, host) = (HeaderMap::new(), canonical::host("cart.shop").unwrap());
    let request = RouteRequest {
        method: "GET",
        path: "/",
        query: None,
        host: Some(&host),
        headers: &headers,
    };
    assert!(table.choose(&request).unwrap().invalid.is_some());
}
