//! Routes on Services: where requests of clients go, what of a route is refused, and what its author is told.

use crate::world::{SERVER, SHOP, World, route};
use mesh_policy::snapshot::PathMatch;
use mesh_policy::traffic::{HeaderChange, PathChange, ServiceRoute, TrafficFilter};
use mesh_policy_index::RouteStatus;

/// Service `front` of two ports, and two Services behind it; one more in another namespace.
pub(crate) const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {app: front}, clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {selector: {app: v1}, ports: [{port: 80}, {port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {selector: {app: v2}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: away}
spec: {selector: {app: far}, ports: [{port: 80}]}
";

pub(crate) const FRONT: &str = "{group: '', kind: Service, name: front}";

/// An HTTPRoute of Gateway API in namespace `shop`, with one rule.
pub(crate) fn http(name: &str, parent: &str, rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop, generation: 7}}\nspec:\n  parentRefs: [{parent}]\n  rules: [{{{rule}}}]\n"
    )
}

fn grpc(name: &str, rule: &str) -> String {
    http(name, FRONT, rule).replace("HTTPRoute", "GRPCRoute")
}

pub(crate) fn routes(world: &World, port: u16) -> Vec<ServiceRoute> {
    let services = world.index.services();
    let front = services
        .into_iter()
        .find(|one| (one.name.as_str(), one.port) == ("front", port));
    front.expect("the Service has this port").routes
}

pub(crate) fn codes(world: &World) -> Vec<&str> {
    let findings = world.index.findings().iter();
    findings.map(|one| one.code.as_str()).collect()
}

fn status(world: &World) -> RouteStatus {
    let mut all = world.index.route_statuses();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Reasons of `Accepted` and `ResolvedRefs` for the first parent.
pub(crate) fn reasons(world: &World) -> (&'static str, &'static str) {
    let status = status(world);
    let parent = status.parents.first().expect("a parent");
    (parent.accepted.reason, parent.resolved.reason)
}

#[test]
fn a_route_sends_the_requests_of_a_service_to_its_backends_by_weight() {
    let rule = "name: canary, matches: [{path: {value: /a//b}, method: GET, headers: [{name: X-Canary, value: 'yes'}], queryParams: [{name: q, value: '1'}]}], backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}, {name: v1, port: 80, weight: 0}], timeouts: {request: 10s, backendRequest: 2s}";
    let world = World::of(&[SERVICES, &http("r", FRONT, rule)]);
    assert_eq!(codes(&world), [""; 0]);
    let found = routes(&world, 80);
    assert_eq!(found, routes(&world, 81), "without a port it is for all");
    let [route] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (
            route.kind.as_str(),
            route.namespace.as_str(),
            route.name.as_str()
        ),
        ("HTTPRoute", "shop", "r")
    );
    let rule = route.rules.first().unwrap();
    let shares: Vec<(&str, u16, u32)> = rule
        .backends
        .iter()
        .map(|one| (one.name.as_str(), one.port, one.weight))
        .collect();
    assert_eq!(shares, [("v1", 80, 90), ("v2", 80, 10), ("v1", 80, 0)]);
    assert!(rule.backends.iter().all(|one| one.invalid.is_none()));
    let one = rule.matches.first().unwrap();
    assert_eq!(
        one.path,
        PathMatch::Prefix("/a/b".to_owned()),
        "as requests have it when they are matched"
    );
    assert_eq!((one.headers.len(), one.query.len()), (1, 1));
    assert_eq!(one.headers.first().unwrap().name, "x-canary");
    assert_eq!(
        (rule.timeouts.request_ms, rule.timeouts.backend_request_ms),
        (Some(10_000), Some(2_000))
    );
    let status = status(&world);
    assert_eq!(status.generation, Some(7));
    assert_eq!(reasons(&world), ("Accepted", "ResolvedRefs"));
}

#[test]
fn a_parent_means_all_ports_of_a_service_or_those_of_its_number_and_name() {
    for (parent, ports, accepted) in [
        (
            "{group: '', kind: Service, name: front}",
            vec![80, 81],
            "Accepted",
        ),
        (
            "{group: core, kind: Service, name: front, namespace: shop, port: 80}",
            vec![80],
            "Accepted",
        ),
        (
            "{group: '', kind: Service, name: front, sectionName: admin}",
            vec![81],
            "Accepted",
        ),
        (
            "{group: '', kind: Service, name: front, sectionName: http, port: 80}",
            vec![80],
            "Accepted",
        ),
        (
            "{group: '', kind: Service, name: front, sectionName: http, port: 81}",
            vec![],
            "NoMatchingParent",
        ),
        (
            "{group: '', kind: Service, name: front, sectionName: other}",
            vec![],
            "NoMatchingParent",
        ),
        (
            "{group: '', kind: Service, name: front, port: 82}",
            vec![],
            "NoMatchingParent",
        ),
        (
            "{group: '', kind: Service, name: v1, port: 53}",
            vec![],
            "NoMatchingParent",
        ),
        (
            "{group: '', kind: Service, name: ghost}",
            vec![],
            "NoMatchingParent",
        ),
        (
            "{group: '', kind: Service, name: front, namespace: away}",
            vec![],
            "NoMatchingParent",
        ),
    ] {
        let world = World::of(&[
            SERVICES,
            &http("r", parent, "backendRefs: [{name: v1, port: 80}]"),
        ]);
        let found: Vec<u16> = [80, 81]
            .into_iter()
            .filter(|port| !routes(&world, *port).is_empty())
            .collect();
        assert_eq!(found, ports, "{parent}");
        assert_eq!(reasons(&world).0, accepted, "{parent}");
        assert_eq!(
            codes(&world).contains(&"MESH-0778"),
            accepted != "Accepted",
            "{parent}"
        );
    }
}

#[test]
fn clients_of_a_headless_service_dial_its_pods_so_no_route_applies() {
    let headless = SERVICES.replace("clusterIP: 10.96.0.1", "clusterIP: None");
    let world = World::of(&[
        &headless,
        &http("r", FRONT, "backendRefs: [{name: v1, port: 80}]"),
    ]);
    assert_eq!(routes(&world, 80), []);
    assert_eq!(reasons(&world).0, "NoMatchingParent");
}

#[test]
fn a_backend_that_cannot_be_used_keeps_its_share_and_says_why() {
    for (backend, code, reason) in [
        ("name: ghost, port: 80", "MESH-0775", "BackendNotFound"),
        ("name: v1, port: 8080", "MESH-0775", "BackendNotFound"),
        ("name: v1, port: 53", "MESH-0775", "BackendNotFound"),
        (
            "name: far, namespace: away, port: 80",
            "MESH-0776",
            "RefNotPermitted",
        ),
        // Nothing is said of what is there.
        (
            "name: ghost, namespace: away, port: 80",
            "MESH-0776",
            "RefNotPermitted",
        ),
        ("name: v1, kind: Pod, port: 80", "MESH-0777", "InvalidKind"),
        (
            "name: v1, group: multicluster.x-k8s.io, kind: ServiceImport",
            "MESH-0777",
            "InvalidKind",
        ),
    ] {
        let rule = format!("backendRefs: [{{name: v1, port: 80}}, {{{backend}}}]");
        let world = World::of(&[SERVICES, &http("r", FRONT, &rule)]);
        assert_eq!(codes(&world), [code], "{backend}");
        assert_eq!(reasons(&world), ("Accepted", reason), "{backend}");
        let found = routes(&world, 80);
        let backends = &found.first().unwrap().rules.first().unwrap().backends;
        let invalid: Vec<bool> = backends.iter().map(|one| one.invalid.is_some()).collect();
        assert_eq!(invalid, [false, true], "{backend}");
    }
}

#[test]
fn a_service_that_cannot_be_read_is_no_backend_and_no_parent() {
    let broken = SERVICES.replacen(
        "ports: [{port: 80}, {port: 53",
        "ports: [{port: 80}, {port: 0",
        1,
    );
    let rule = "backendRefs: [{name: v1, port: 80}]";
    let world = World::of(&[&broken, &http("r", FRONT, rule)]);
    assert_eq!(reasons(&world), ("Accepted", "BackendNotFound"));
    let world = World::of(&[
        &broken,
        &http("r", "{group: '', kind: Service, name: v1}", rule),
    ]);
    assert_eq!(reasons(&world), ("NoMatchingParent", "BackendNotFound"));
}

#[test]
fn a_reference_grant_permits_exactly_what_it_names() {
    let far = "backendRefs: [{name: far, namespace: away, port: 80}]";
    let good = "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]";
    let permitted = |spec: &str, namespace: &str| {
        let grant = format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        );
        let world = World::of(&[SERVICES, &grant, &http("r", FRONT, far)]);
        reasons(&world).1 == "ResolvedRefs"
    };
    assert!(permitted(good, "away"));
    assert!(!permitted(good, "shop"), "the backend's namespace grants");
    for (from, to, permits) in [
        ("kind: Service}", "kind: Service, name: far}", true),
        ("kind: Service}", "kind: Service, name: ''}", true),
        ("kind: Service}", "kind: Service, name: other}", false),
        ("kind: Service}", "kind: Secret}", false),
        ("group: ''", "group: other.example", false),
        ("namespace: shop", "namespace: away", false),
        ("kind: HTTPRoute", "kind: GRPCRoute", false),
        (
            "group: gateway.networking.k8s.io",
            "group: policy.linkerd.io",
            false,
        ),
        // Invalid as a whole: it grants nothing.
        ("to: [", "novelty: 1, to: [", false),
        ("to: [{group: '', kind: Service}]", "to: []", false),
        (", namespace: shop", "", false),
        ("{group: '', kind: Service}", "{kind: Service}", false),
        (
            "{group: '', kind: Service}",
            "{group: '', kind: Service}, {group: ''}",
            false,
        ),
    ] {
        let spoilt = good.replacen(from, to, 1);
        assert_ne!(spoilt, good, "{from}");
        assert_eq!(permitted(&spoilt, "away"), permits, "{to}");
    }
}

#[test]
fn a_consumer_route_needs_nobodys_leave_to_reach_the_service_that_is_called() {
    let consumer = |backend: &str| {
        http(
            "r",
            "{group: '', kind: Service, name: front, namespace: shop}",
            &format!("backendRefs: [{backend}]"),
        )
        .replace("{name: r, namespace: shop", "{name: r, namespace: home")
    };
    let world = World::of(&[
        SERVICES,
        &consumer("{name: front, namespace: shop, port: 81}"),
    ]);
    assert_eq!(reasons(&world), ("Accepted", "ResolvedRefs"));
    let found = routes(&world, 80);
    assert_eq!(found.first().unwrap().namespace, "home");
    let world = World::of(&[SERVICES, &consumer("{name: v1, namespace: shop, port: 80}")]);
    assert_eq!(reasons(&world), ("Accepted", "RefNotPermitted"));
    let world = World::of(&[SERVICES, &consumer("{name: v1, port: 80}")]);
    assert_eq!(
        reasons(&world),
        ("Accepted", "BackendNotFound"),
        "its own namespace is meant"
    );
}

#[test]
fn without_backends_requests_go_to_the_service_itself_and_with_none_nowhere() {
    let backends = |rule: &str, port| {
        let world = World::of(&[SERVICES, &http("r", FRONT, rule)]);
        let found = routes(&world, port);
        let rule = found.first().unwrap().rules.first().unwrap();
        let names = rule.backends.iter();
        let names: Vec<_> = names.map(|one| (one.name.clone(), one.port)).collect();
        (names, world.findings("MESH-0780").len())
    };
    let itself = |port| (vec![("front".to_owned(), port)], 0);
    assert_eq!(backends("timeouts: {request: 1s}", 80), itself(80));
    assert_eq!(backends("timeouts: {request: 1s}", 81), itself(81));
    assert_eq!(backends("backendRefs: []", 80), (vec![], 1));
    assert_eq!(
        backends("backendRefs: [{name: v1, port: 80, weight: 0}]", 80),
        (vec![("v1".to_owned(), 80)], 1)
    );
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]";
    assert_eq!(backends(redirect, 80), (vec![], 0));
}

#[test]
fn routes_are_sorted_by_age_namespace_and_name_and_invalid_ones_are_not_accepted() {
    let rule = "backendRefs: [{name: v1, port: 80}]";
    let named = |name: &str| http(name, FRONT, rule);
    let dated = |name: &str, year: &str| {
        named(name).replace(
            "generation: 7",
            &format!("creationTimestamp: '{year}-01-01T00:00:00Z'"),
        )
    };
    let elsewhere = named("a")
        .replace("namespace: shop", "namespace: another")
        .replace("name: front", "name: front, namespace: shop");
    let invalid = dated("bad", "2019")
        .replace("weight", "")
        .replace("port: 80", "port: 0");
    let world = World::of(&[
        SERVICES,
        &named("b"),
        &named("a"),
        &elsewhere,
        &dated("z", "2021"),
        &dated("y", "2022"),
        &invalid,
    ]);
    let found = routes(&world, 80);
    let names: Vec<_> = found
        .iter()
        .map(|one| format!("{}/{}", one.namespace, one.name))
        .collect();
    assert_eq!(names, ["shop/z", "shop/y", "another/a", "shop/a", "shop/b"]);
    let statuses = world.index.route_statuses();
    let refused = statuses.iter().find(|one| one.name == "bad").unwrap();
    let accepted = &refused.parents.first().unwrap().accepted;
    assert_eq!(
        (accepted.holds, accepted.reason),
        (false, "UnsupportedValue")
    );
    assert!(accepted.message.contains("port"), "{}", accepted.message);
}

#[test]
fn a_service_takes_so_many_routes_and_no_more() {
    let rule = "backendRefs: [{name: v1, port: 80}]";
    let many: Vec<String> = (0..257)
        .map(|number| http(&format!("r{number:03}"), FRONT, rule))
        .collect();
    let mut parts = vec![SERVICES];
    parts.extend(many.iter().map(String::as_str));
    let world = World::of(&parts);
    assert_eq!(routes(&world, 80).len(), 256);
    assert_eq!(world.findings("MESH-0778").len(), 1);
    let statuses = world.index.route_statuses();
    let refused: Vec<_> = statuses
        .iter()
        .filter(|one| !one.parents.iter().all(|parent| parent.accepted.holds))
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(refused, ["r256"]);
}

#[test]
fn every_filter_of_a_client_is_carried() {
    let filters = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], add: [{name: c, value: d}], remove: [E]}}, {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}, {type: URLRewrite, urlRewrite: {hostname: v1.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}, {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}, percent: 5}}, {type: RequestMirror, requestMirror: {backendRef: {name: ghost, port: 80}, fraction: {numerator: 1, denominator: 8}}}], backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: own, value: 'yes'}]}}]}]";
    let world = World::of(&[SERVICES, &http("r", FRONT, filters)]);
    assert_eq!(codes(&world), ["MESH-0775"], "the mirror that is not there");
    assert_eq!(reasons(&world), ("Accepted", "BackendNotFound"));
    let found = routes(&world, 80);
    let rule = found.first().unwrap().rules.first().unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let [
        TrafficFilter::RequestHeaders(request),
        TrafficFilter::ResponseHeaders(response),
        TrafficFilter::Rewrite { hostname, path },
        TrafficFilter::Mirror {
            to,
            numerator: 5,
            denominator: 100,
        },
        TrafficFilter::Mirror {
            to: ghost,
            numerator: 1,
            denominator: 8,
        },
    ] = &rule.filters[..]
    else {
        panic!("{:?}", rule.filters)
    };
    assert_eq!(
        *request,
        HeaderChange {
            set: vec![pair("a", "b")],
            add: vec![pair("c", "d")],
            remove: vec!["e".to_owned()],
        }
    );
    assert_eq!(response.remove, ["x"]);
    assert_eq!(hostname.as_deref(), Some("v1.example"));
    assert_eq!(*path, Some(PathChange::Prefix("/new".to_owned())));
    assert_eq!((to.name.as_str(), to.invalid.is_none()), ("v2", true));
    assert!(ghost.invalid.is_some());
    let own = &rule.backends.first().unwrap().filters;
    assert!(
        matches!(&own[..], [TrafficFilter::RequestHeaders(_)]),
        "{own:?}"
    );

    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}]";
    let world = World::of(&[SERVICES, &http("r", FRONT, redirect)]);
    let found = routes(&world, 80);
    assert_eq!(
        found.first().unwrap().rules.first().unwrap().filters,
        [TrafficFilter::Redirect {
            scheme: Some("https".to_owned()),
            hostname: None,
            port: Some(8443),
            path: Some(PathChange::Prefix(String::new())),
            status: 308,
        }]
    );
}

#[test]
fn what_a_client_cannot_do_makes_the_route_unacceptable() {
    let backend = "backendRefs: [{name: v1, port: 80}]";
    let rewrite = |inner: &str| {
        format!("filters: [{{type: URLRewrite, urlRewrite: {{{inner}}}}}], {backend}")
    };
    let mirror = |inner: &str| {
        format!("filters: [{{type: RequestMirror, requestMirror: {{{inner}}}}}], {backend}")
    };
    let to = "backendRef: {name: v2, port: 80}";
    for (rule, says) in [
        (format!("filters: [{{type: ExtensionRef, extensionRef: {{group: a.example, kind: B, name: c}}}}], {backend}"), "not supported on a Service"),
        (format!("filters: [{{type: CORS, cors: {{}}}}], {backend}"), "not supported on a Service"),
        (format!("filters: [{{type: Novelty}}], {backend}"), "not supported on a Service"),
        (format!("filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: l5d-client-id, value: me}}]}}}}], {backend}"), "may not change"),
        (format!("filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{remove: [Mesh-Error]}}}}], {backend}"), "may not change"),
        (format!("filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{remove: [Upgrade]}}}}], {backend}"), "may not change"),
        (format!("filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: X_Client_Cert, value: me}}]}}}}], {backend}"), "may not change"),
        (format!("filters: [{{type: RequestRedirect, requestRedirect: {{port: 81}}}}], {backend}"), "get no request"),
        ("filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {hostname: a.example}}]".to_owned(), "more than once"),
        ("filters: [{type: RequestRedirect, requestRedirect: {hostname: '*.example'}}]".to_owned(), "one name"),
        (rewrite("path: {type: ReplacePrefixMatch, replacePrefixMatch: new}"), "begins with `/`"),
        (rewrite("path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}"), "without query"),
        (rewrite("path: {type: ReplaceFullPath, replaceFullPath: ''}"), "begins with `/`"),
        (rewrite("path: {type: ReplaceFullPath, replaceFullPath: \"/a\\nb\"}"), "begins with `/`"),
        (rewrite("path: {type: ReplaceFullPath, replacePrefixMatch: /a}"), "is missing"),
        (rewrite("path: {replaceFullPath: /a}"), "is missing"),
        (rewrite("path: {type: Other, replaceFullPath: /a}"), "must be one of"),
        (format!("matches: [{{path: {{type: Exact, value: /a}}}}], {}", rewrite("path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}")), "not every match is a `PathPrefix`"),
        (mirror(&format!("{to}, percent: 101")), "from 0 to 100"),
        (mirror(&format!("{to}, percent: 5, fraction: {{numerator: 1}}")), "twice"),
        (mirror(&format!("{to}, fraction: {{numerator: 101}}")), "greater than"),
        (mirror(&format!("{to}, fraction: {{numerator: 1, denominator: 0}}")), "from 1 to"),
        (mirror("percent: 5"), "is missing"),
        (mirror("backendRef: {name: v2}"), "is referred to with its port"),
        ("backendRefs: [{name: v1, port: 80, filters: [{type: RequestRedirect, requestRedirect: {}}]}]".to_owned(), "does not redirect"),
        ("backendRefs: [{name: v1, port: 80, filters: [{type: ExtensionRef, extensionRef: {}}]}]".to_owned(), "not supported on a Service"),
        (format!("retry: {{codes: [399]}}, {backend}"), "from 400 to 599"),
        (format!("retry: {{attempts: 0}}, {backend}"), "from 1 to 10"),
        (format!("retry: {{attempts: 11}}, {backend}"), "from 1 to 10"),
        (format!("retry: {{backoff: soon}}, {backend}"), "not a duration"),
        (format!("retry: {{novelty: 1}}, {backend}"), "unknown field"),
    ] {
        let world = World::of(&[SERVICES, &http("r", FRONT, &rule)]);
        let errors = world.errors();
        let found = world.index.findings().iter().any(|one| one.message.contains(says));
        assert!(found, "{rule}: wanted `{says}`, found {errors:?} {:?}", world.index.findings());
        assert_eq!(routes(&world, 80), [], "{rule}");
        assert_eq!(reasons(&world).0, "UnsupportedValue", "{rule}");
    }
}

#[test]
fn a_route_of_a_gateway_alone_is_none_of_ours() {
    let rule = "filters: [{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}, {type: CORS, cors: {}}], backendRefs: [{name: ghost, port: 80}]";
    let world = World::of(&[SERVICES, &http("r", "{name: edge}", rule)]);
    assert_eq!(codes(&world), [""; 0]);
    assert_eq!(status(&world).parents, []);
}

#[test]
fn a_filter_that_only_clients_apply_stays_refused_on_a_server() {
    let server = "{group: policy.linkerd.io, kind: Server, name: cart}";
    let backend = "backendRefs: [{name: v1, port: 80}]";
    for (filter, backends) in [
        (
            "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
            backend,
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}",
            backend,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}",
            "",
        ),
    ] {
        for (parents, valid) in [
            (FRONT.to_owned(), true),
            (server.to_owned(), false),
            (format!("{FRONT}, {server}"), false),
            (format!("{server}, {FRONT}"), false),
        ] {
            let text = http("r", &parents, &format!("filters: [{filter}], {backends}"));
            let world = World::of(&[SHOP, SERVER, SERVICES, &text]);
            assert_eq!(
                world.errors().is_empty(),
                valid,
                "{parents} {filter} {:?}",
                world.errors()
            );
            if parents.contains("Server") {
                let snapshot = world.snapshot("shop", "cart");
                let routes = &snapshot.ports.get(&8080).unwrap().routes;
                assert!(
                    routes.first().unwrap().invalid.is_some(),
                    "{parents} {filter}"
                );
            }
            assert_eq!(
                routes(&world, 80).is_empty(),
                !valid || !parents.contains("Service"),
                "{parents} {filter}"
            );
        }
    }
}

#[test]
fn a_route_with_parents_of_both_kinds_works_for_both() {
    let text = route("r", "{value: /}").replace(
        "kind: Server, name: cart}",
        "kind: Server, name: cart}, {group: core, kind: Service, name: front, port: 80}",
    );
    let world = World::of(&[SHOP, SERVER, SERVICES, &text]);
    assert_eq!(world.errors(), [""; 0]);
    let snapshot = world.snapshot("shop", "cart");
    assert_eq!(snapshot.ports.get(&8080).unwrap().routes.len(), 1);
    assert_eq!((routes(&world, 80).len(), routes(&world, 81).len()), (1, 0));
    assert_eq!(status(&world).group, "policy.linkerd.io");
}

#[test]
fn a_grpc_route_is_carried_with_its_methods_and_knows_no_rewrite() {
    let rule =
        "matches: [{method: {service: a.B, method: C}}], backendRefs: [{name: v1, port: 80}]";
    let world = World::of(&[SERVICES, &grpc("r", rule)]);
    assert_eq!(codes(&world), [""; 0]);
    let found = routes(&world, 80);
    let route = found.first().unwrap();
    assert_eq!(route.kind, "GRPCRoute");
    let one = route.rules.first().unwrap().matches.first().unwrap();
    assert!(matches!(one.path, PathMatch::Rpc { .. }), "{one:?}");
    for filter in [
        "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
        "{type: RequestRedirect, requestRedirect: {}}",
    ] {
        let rule = format!("filters: [{filter}], backendRefs: [{{name: v1, port: 80}}]");
        let world = World::of(&[SERVICES, &grpc("r", &rule)]);
        assert_eq!(reasons(&world).0, "UnsupportedValue", "{filter}");
    }
}

#[test]
fn retries_are_those_of_the_rule_or_of_linkerds_annotations() {
    let retry = |services: &str, route: &str| {
        let world = World::of(&[services, route]);
        let found = routes(&world, 80);
        let rule = found.first().unwrap().rules.first().unwrap().clone();
        (rule.timeouts, rule.retry)
    };
    let rule = "retry: {codes: [503, 500, 503], attempts: 3, backoff: 100ms}, backendRefs: [{name: v1, port: 80}]";
    let plain = http("r", FRONT, rule);
    let (_, found) = retry(SERVICES, &plain);
    let found = found.unwrap();
    assert_eq!(
        (found.attempts, found.statuses, found.backoff_ms),
        (3, vec![500, 503], 100)
    );
    let bare = http("r", FRONT, "retry: {}, backendRefs: [{name: v1, port: 80}]");
    let found = retry(SERVICES, &bare).1.unwrap();
    assert_eq!(
        (found.attempts, found.statuses.len(), found.backoff_ms),
        (1, 0, 25)
    );

    let annotated = SERVICES.replace(
        "{name: front, namespace: shop}",
        "{name: front, namespace: shop, annotations: {retry.linkerd.io/http: 5xx, retry.linkerd.io/limit: '2', retry.linkerd.io/timeout: 400ms, timeout.linkerd.io/request: 3s}}",
    );
    assert_eq!(
        retry(&annotated, &plain).1.unwrap().attempts,
        3,
        "the rule comes first"
    );
    let unhurried = http("r", FRONT, "backendRefs: [{name: v1, port: 80}]");
    let (timeouts, found) = retry(&annotated, &unhurried);
    assert_eq!(found.unwrap().attempts, 2);
    assert_eq!(
        (timeouts.request_ms, timeouts.backend_request_ms),
        (Some(3_000), Some(400))
    );
    let eager = unhurried.replace(
        "generation: 7",
        "annotations: {retry.linkerd.io/http: '418'}",
    );
    assert_eq!(retry(&annotated, &eager).1.unwrap().statuses, [418]);
}

#[test]
fn annotations_of_a_service_without_routes_are_a_route_to_itself() {
    let annotated = |annotations: &str| {
        SERVICES.replace(
            "{name: front, namespace: shop}",
            &format!("{{name: front, namespace: shop, annotations: {{{annotations}}}}}"),
        )
    };
    let asked =
        annotated("retry.linkerd.io/grpc: unavailable, retry.linkerd.io/http: gateway-error");
    let world = World::of(&[&asked]);
    let found = routes(&world, 81);
    let [own] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((own.kind.as_str(), own.name.as_str()), ("Service", "front"));
    let rule = own.rules.first().unwrap();
    assert_eq!(rule.backends.first().unwrap().port, 81);
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!(
        (retry.statuses.len(), retry.grpc_codes.as_slice()),
        (3, &[14][..])
    );

    // A consumer route says nothing of the requests of others.
    let consumer = http(
        "r",
        "{group: '', kind: Service, name: front, namespace: shop}",
        "timeouts: {request: 1s}",
    )
    .replace("{name: r, namespace: shop", "{name: r, namespace: home");
    let world = World::of(&[&asked, &consumer]);
    let kinds = |world: &World| -> Vec<String> {
        routes(world, 80).into_iter().map(|one| one.kind).collect()
    };
    assert_eq!(kinds(&world), ["HTTPRoute", "Service"]);
    let producer = http("r", FRONT, "timeouts: {request: 1s}");
    assert_eq!(kinds(&World::of(&[&asked, &producer])), ["HTTPRoute"]);

    let broken = World::of(&[&annotated("retry.linkerd.io/http: often")]);
    assert_eq!(codes(&broken), ["MESH-0779"]);
    assert_eq!(routes(&broken, 80), []);
    let idle = World::of(&[&annotated("timeout.linkerd.io/idle: 1s")]);
    assert_eq!(codes(&idle), ["MESH-0379"]);
    assert_eq!(routes(&idle, 80), []);
}

#[test]
fn hostnames_say_nothing_on_a_service() {
    let text = http("r", FRONT, "backendRefs: [{name: v1, port: 80}]")
        .replace("spec:\n", "spec:\n  hostnames: [a.example]\n");
    let world = World::of(&[SERVICES, &text]);
    assert_eq!(codes(&world), ["MESH-0379"]);
    assert_eq!(routes(&world, 80).len(), 1);
}

#[test]
fn a_breaker_is_that_of_the_services_annotations() {
    let annotated = |kind: &str| {
        let notes = format!("annotations: {{balancer.linkerd.io/failure-accrual: {kind}}}");
        World::of(&[&SERVICES.replace(
            "{name: front, namespace: shop}",
            &format!("{{name: front, namespace: shop, {notes}}}"),
        )])
    };
    let world = annotated("consecutive");
    for service in world.index.services() {
        let wanted = service.name == "front";
        assert_eq!(
            service.failure_accrual.is_some(),
            wanted,
            "{}",
            service.name
        );
    }
    assert_eq!(codes(&world), [""; 0]);
    assert_eq!(codes(&annotated("sometimes")), ["MESH-0779"]);
    assert_eq!(codes(&annotated("unified")), [""; 0]);
}
