//! Which routes a client follows, which rule takes its requests, and which backend gets them: the cases of Gateway API's
//! conformance tests for meshes, and what they leave out.

use super::*;
use crate::http_hygiene::HeaderView;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_policy::snapshot::{PathMatch, Source, TextMatch, ValueMatch};
use mesh_policy::traffic::{HeaderChange, PathChange, Timeouts};

pub(super) fn every() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".to_owned()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

pub(super) fn prefix(path: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(path.to_owned()),
        ..every()
    }
}

fn values(all: &[(&str, &str)]) -> Vec<ValueMatch> {
    let one = |(name, value): &(&str, &str)| ValueMatch {
        name: (*name).to_owned(),
        value: TextMatch::Exact((*value).to_owned()),
    };
    all.iter().map(one).collect()
}

fn headers(all: &[(&str, &str)]) -> RouteMatch {
    RouteMatch {
        headers: values(all),
        ..every()
    }
}

fn query(all: &[(&str, &str)]) -> RouteMatch {
    RouteMatch {
        query: values(all),
        ..every()
    }
}

fn backend(name: &str, weight: u32) -> traffic::Backend {
    traffic::Backend {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 8080,
        weight,
        filters: Vec::new(),
        invalid: None,
    }
}

fn rule(matches: &[RouteMatch], to: &str) -> ServiceRule {
    ServiceRule {
        matches: matches.to_vec(),
        backends: vec![backend(to, 1)],
        ..ServiceRule::default()
    }
}

fn route(namespace: &str, name: &str, rules: Vec<ServiceRule>) -> ServiceRoute {
    ServiceRoute {
        kind: "HTTPRoute".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        created: None,
        rules,
        source: Source::BuiltIn("test".to_owned()),
    }
}

fn producer(rules: Vec<ServiceRule>) -> ServiceRoutes {
    ServiceRoutes::compile(&[route("shop", "r", rules)], "shop", "web").expect("a route")
}

/// Where a GET goes: the first backend's name, or why it goes nowhere.
fn goes(routes: &ServiceRoutes, target: &str, headers: &[(&str, &str)]) -> String {
    asked(routes, "GET", target, headers)
}

fn asked(routes: &ServiceRoutes, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let request = RouteRequest {
        method,
        path,
        query,
        host: None,
        headers: &HeaderView(&map),
    };
    let Some(rule) = routes.choose(&request) else {
        return "404".to_owned();
    };
    match &rule.plan {
        Err(why) => format!("unusable: {why}"),
        Ok(plan) => match plan.backend(0) {
            None => "500".to_owned(),
            Some(backend) => routes.services()[backend.service].name.clone(),
        },
    }
}

#[test]
fn consumer_routes_stand_in_for_all_others() {
    let all = [
        route(
            "shop",
            "producer",
            vec![rule(&[prefix("/a")], "by-producer")],
        ),
        route(
            "web",
            "consumer",
            vec![rule(&[prefix("/b")], "by-consumer")],
        ),
        route("other", "third", vec![rule(&[every()], "by-third")]),
    ];
    for (client, target, want) in [
        ("web", "/b", "by-consumer"),
        ("web", "/a", "404"), // not the producer's: its own routes replace them all
        ("shop", "/a", "by-producer"),
        ("shop", "/b", "404"),
        ("orders", "/a", "by-producer"),
        ("orders", "/c", "404"), // never a third namespace's
        ("other", "/c", "by-third"),
    ] {
        let routes = ServiceRoutes::compile(&all, "shop", client).expect("routes");
        assert_eq!(goes(&routes, target, &[]), want, "{client} {target}");
    }
}

#[test]
fn routes_of_others_alone_are_no_routes() {
    let third = [route("other", "third", vec![rule(&[every()], "x")])];
    assert!(ServiceRoutes::compile(&third, "shop", "web").is_none());
    assert!(ServiceRoutes::compile(&[], "shop", "web").is_none());
}

#[test]
fn paths_and_headers_match_as_mesh_http_route_matching_has_it() {
    let routes = producer(vec![
        rule(&[every(), headers(&[("version", "one")])], "v1"),
        rule(&[prefix("/v2"), headers(&[("version", "two")])], "v2"),
    ]);
    for (target, headers, want) in [
        ("/", &[][..], "v1"),
        ("/example", &[], "v1"),
        ("/", &[("Version", "one")], "v1"),
        ("/v2", &[], "v2"),
        ("/v2/", &[], "v2"),
        ("/v2/example", &[], "v2"),
        ("/v2example", &[], "v1"),
        ("/foo/v2/example", &[], "v1"),
        ("/", &[("version", "two")], "v2"),
        ("/", &[("version", "two"), ("version", "three")], "v1"), // each value must match
    ] {
        assert_eq!(goes(&routes, target, headers), want, "{target} {headers:?}");
    }
}

#[test]
fn queries_match_as_mesh_http_route_query_param_matching_has_it() {
    let path1 = RouteMatch {
        query: values(&[("animal", "whale")]),
        ..prefix("/path1")
    };
    let with_header = RouteMatch {
        headers: values(&[("version", "one")]),
        ..query(&[("animal", "whale")])
    };
    let routes = producer(vec![
        rule(&[query(&[("animal", "whale")])], "v1"),
        rule(&[query(&[("animal", "dolphin")])], "v2"),
        rule(&[query(&[("animal", "dolphin"), ("color", "blue")])], "v3"),
        rule(&[query(&[("ANIMAL", "Whale")])], "v4"),
        rule(&[path1], "v5"),
        rule(&[with_header], "v6"),
    ]);
    for (target, headers, want) in [
        ("/?animal=whale", &[][..], "v1"),
        ("/?animal=dolphin", &[], "v2"),
        ("/?animal=dolphin&color=blue", &[], "v3"),
        ("/?color=blue&animal=dolphin", &[], "v3"),
        ("/?ANIMAL=Whale", &[], "v4"),
        ("/?animal=whale&otherparam=irrelevant", &[], "v1"),
        ("/?animal=dolphin&color=yellow", &[], "v2"),
        ("/path1?animal=whale", &[], "v5"),
        ("/?animal=whale", &[("version", "one")], "v6"),
        ("/", &[], "404"),
        ("/?animal=dog", &[], "404"),
        ("/?animal=whaledolphin", &[], "404"),
        ("/?color=blue", &[], "404"),
        ("/?animal=Whale", &[], "404"),
        ("/?animal=%77hale", &[], "v1"),
    ] {
        assert_eq!(goes(&routes, target, headers), want, "{target} {headers:?}");
    }
}

#[test]
fn a_named_rule_is_a_rule_and_older_routes_win() {
    // Names of rules are the controller's; what is left of them here is their order.
    let first = route("shop", "older", vec![rule(&[prefix("/a")], "older")]);
    let second = route("shop", "younger", vec![rule(&[prefix("/a")], "younger")]);
    let routes = ServiceRoutes::compile(&[first, second], "shop", "web").expect("routes");
    assert_eq!(goes(&routes, "/a", &[]), "older");
}

#[test]
fn methods_of_grpc_match_by_service_and_method() {
    let rpc = |service: Option<&str>, method: Option<&str>| RouteMatch {
        path: PathMatch::Rpc {
            service: service.map(|text| TextMatch::Exact(text.to_owned())),
            method: method.map(|text| TextMatch::Exact(text.to_owned())),
        },
        ..every()
    };
    let routes = producer(vec![
        rule(&[rpc(Some("say.Say"), None)], "v1"),
        rule(&[rpc(Some("say.Say"), Some("Once"))], "v2"),
    ]);
    for (path, want) in [
        ("/say.Say/Once", "v2"),
        ("/say.Say/Twice", "v1"),
        ("/say.say/Once", "404"),
        ("/say.Say", "404"),
        ("/say.Say/Once/More", "404"),
    ] {
        assert_eq!(asked(&routes, "POST", path, &[]), want, "{path}");
    }
}

#[test]
fn weights_are_shares() {
    let mut rule = rule(&[every()], "v1");
    rule.backends = vec![backend("v1", 70), backend("none", 0), backend("v2", 30)];
    let routes = producer(vec![rule]);
    let plan = routes.rules[0][0].plan.as_ref().expect("a plan");
    let mut counts = [0_u32; 3];
    for step in 0..10_000_u64 {
        let backend = plan.backend(step * (u64::MAX / 10_000)).expect("a backend");
        counts[backend.service] += 1;
    }
    assert_eq!(counts[1], 0, "weight 0 gets nothing");
    assert!((6_990..=7_010).contains(&counts[0]), "{counts:?}");
    let last = plan.backend(u64::MAX).expect("a backend");
    assert_eq!(&*last.name, "shop/v2:8080");
}

#[test]
fn without_weight_there_is_no_backend() {
    let mut none = rule(&[prefix("/none")], "x");
    none.backends.clear();
    let mut zero = rule(&[prefix("/zero")], "x");
    zero.backends = vec![backend("v1", 0), backend("v2", 0)];
    let routes = producer(vec![none, zero]);
    for path in ["/none", "/zero"] {
        assert_eq!(goes(&routes, path, &[]), "500", "{path}");
    }
}

#[test]
fn an_invalid_backend_keeps_its_share() {
    let mut split = rule(&[every()], "v1");
    split.backends.push(traffic::Backend {
        invalid: Some("no such Service".to_owned()),
        ..backend("gone", 1)
    });
    let routes = producer(vec![split]);
    let plan = routes.rules[0][0].plan.as_ref().expect("a plan");
    assert_eq!(plan.backend(0).expect("a backend").invalid, None);
    let other = plan.backend(u64::MAX).expect("a backend");
    assert_eq!(other.invalid.as_deref(), Some("no such Service"));
}

#[test]
fn what_cannot_be_applied_keeps_its_requests_from_wider_rules() {
    let change = TrafficFilter::RequestHeaders(HeaderChange {
        set: vec![("mesh-client-id".to_owned(), "me".to_owned())],
        ..HeaderChange::default()
    });
    let mut narrow = rule(&[prefix("/admin")], "x");
    narrow.filters = vec![change];
    let routes = producer(vec![narrow, rule(&[every()], "wide")]);
    assert_eq!(goes(&routes, "/a", &[]), "wide");
    assert_eq!(
        goes(&routes, "/admin", &[]),
        "unusable: a filter may not change the header `mesh-client-id`"
    );
    assert_eq!(routes.unusable().count(), 1);
}

#[test]
fn a_route_with_an_expression_that_cannot_be_read_serves_nothing() {
    let broken = RouteMatch {
        path: PathMatch::Regex("(".to_owned()),
        ..every()
    };
    let routes = producer(vec![rule(&[broken], "x"), rule(&[every()], "v1")]);
    let why = goes(&routes, "/a", &[]);
    assert!(why.starts_with("unusable: "), "{why}");
}

#[test]
fn a_prefix_is_replaced_only_where_every_match_has_one() {
    let rewrite = TrafficFilter::Rewrite {
        hostname: None,
        path: Some(PathChange::Prefix("/new".to_owned())),
    };
    let exact = RouteMatch {
        path: PathMatch::Exact("/b".to_owned()),
        ..every()
    };
    let mut mixed = rule(&[prefix("/a"), exact], "x");
    mixed.filters = vec![rewrite];
    let why = goes(&producer(vec![mixed]), "/a", &[]);
    assert!(why.starts_with("unusable: a prefix"), "{why}");
}

#[test]
fn timeouts_of_nothing_are_none() {
    for (data, want) in [
        (None, None),
        (Some(0), None),
        (Some(250), Some(Duration::from_millis(250))),
        (Some(u64::MAX), Some(Duration::from_millis(TIMEOUT_MAX_MS))),
    ] {
        let mut timed = rule(&[every()], "x");
        timed.timeouts = Timeouts {
            request_ms: data,
            backend_request_ms: data,
        };
        let routes = producer(vec![timed]);
        let plan = routes.rules[0][0].plan.as_ref().expect("a plan");
        assert_eq!(
            (plan.request_limit, plan.try_limit),
            (want, want),
            "{data:?}"
        );
    }
}

#[test]
fn copies_are_a_share_too() {
    for (numerator, denominator, want) in
        [(1, 1, 100), (1, 4, 25), (0, 5, 0), (7, 5, 100), (1, 0, 0)]
    {
        let mut copied = rule(&[every()], "x");
        copied.filters = vec![TrafficFilter::Mirror {
            to: backend("copy", 0),
            numerator,
            denominator,
        }];
        let routes = producer(vec![copied]);
        let mirror = &routes.rules[0][0].plan.as_ref().expect("a plan").mirrors[0];
        let wanted = (0..100_u64).filter(|step| mirror.wants((2 * step + 1) * (u64::MAX / 200)));
        assert_eq!(wanted.count(), want, "{numerator}/{denominator}");
    }
}

#[test]
fn each_service_is_listed_once() {
    let routes = producer(vec![
        rule(&[prefix("/a")], "v1"),
        rule(&[prefix("/b")], "v2"),
        rule(&[prefix("/c")], "v1"),
    ]);
    let names: Vec<String> = routes.services().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["shop/v1:8080", "shop/v2:8080"]);
}
