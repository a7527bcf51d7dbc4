//! Settled readings 1 to 8, as far as this crate decides them.

use super::*;

#[test]
fn reading_01_ports_without_server_follow_the_default_policy_alone() {
    let world = World::http().web_may("web", on_server("http")).grant(grant(
        "AuthorizationPolicy/shop/ns/0",
        Scope::NamespaceServers {
            namespace: "shop".into(),
        },
        Who::Anyone,
    ));
    let other = |world: &World| {
        short(&decide(
            &world.compile(),
            9999,
            &meshed("web"),
            &Call::Tcp,
            NOW,
        ))
    };
    assert_eq!(
        other(&world),
        "deny permit - []",
        "a Namespace target reaches named Servers only"
    );
    let world = world.grant(grant(
        "default/all-unauthenticated",
        Scope::Default,
        Who::Anyone,
    ));
    assert_eq!(
        other(&world),
        "allow permit - [default/all-unauthenticated]"
    );
    let named = short(&world.get(&meshed("web"), "/"));
    assert_eq!(
        named,
        "allow permit 200 [AuthorizationPolicy/shop/ns/0 AuthorizationPolicy/shop/web/0]"
    );
}

#[test]
fn a_server_named_default_is_not_the_default_policy() {
    let world = World::http()
        .port(|port| port.server.name = "default".into())
        .grant(grant(
            "default/all-unauthenticated",
            Scope::Default,
            Who::Anyone,
        ));
    assert_eq!(short(&world.get(&meshed("web"), "/")), "deny permit 403 []");
    let world = World::http().grant(grant(EVERYONE, on_server("default"), Who::Anyone));
    assert_eq!(
        short(&decide(
            &world.compile(),
            1,
            &meshed("web"),
            &Call::Tcp,
            NOW
        )),
        "deny permit - []"
    );
}

#[test]
fn reading_02_a_grant_without_authentication_is_for_everyone_only_if_the_index_says_so() {
    assert_eq!(
        short(&open().get(&plaintext("203.0.113.9"), "/")),
        format!("allow permit 200 [{EVERYONE}]")
    );
}

#[test]
fn reading_03_the_canonical_path_is_matched_and_recorded() {
    let world = World::http()
        .route(route("public", "/public"))
        .web_may("web", on_route("public"));
    for target in [
        "/public/../private",
        "/public/%2e%2e/private",
        "/public/.%2E/private",
        "/public//../private",
    ] {
        let decision = world.get(&meshed("web"), target);
        let seen = (short(&decision), decision.canonical_path(target));
        assert_eq!(
            seen,
            ("deny route 404 []".to_owned(), Some("/private")),
            "{target}"
        );
    }
    let decision = world.get(&meshed("web"), "/x/../public/%7ea?q=/..");
    assert_eq!(short(&decision), format!("allow permit 200 [{WEB}]"));
    assert_eq!(decision.rewritten_path(), Some("/public/~a"));
    assert_eq!(
        decision.forward_target("/x/../public/%7ea?q=/.."),
        "/public/~a?q=/.."
    );
}

#[test]
fn reading_03_ambiguous_paths_are_refused_even_where_everyone_is_allowed() {
    for target in [
        "/..", "/a%2fb", "/a%5Cb", "/%00", "/a\\b", "/%zz", "/a#b", "/a b", "/\u{e9}", "/%0a",
        "/%c0%af", "/a;b", "a", "*", "",
    ] {
        let decision = open().get(&meshed("web"), target);
        assert_eq!(
            (short(&decision).as_str(), decision.canonical_path(target)),
            ("deny request 400 []", None),
            "{target}"
        );
    }
}

#[test]
fn reading_03_a_server_may_opt_out() {
    let keep = |escapes, parameters| {
        open().port(|port| {
            port.paths = PathOptions {
                keep_escapes: escapes,
                keep_parameters: parameters,
            }
        })
    };
    assert_eq!(
        keep(true, false)
            .get(&meshed("web"), "/a%2fb")
            .canonical_path("/a%2fb"),
        Some("/a%2fb")
    );
    assert_eq!(
        keep(false, true)
            .get(&meshed("web"), "/a;b")
            .canonical_path("/a;b"),
        Some("/a;b")
    );
    assert_eq!(
        short(&keep(true, false).get(&meshed("web"), "/a;b")),
        "deny request 400 []"
    );
    assert_eq!(
        short(&keep(false, true).get(&meshed("web"), "/a%2fb")),
        "deny request 400 []"
    );
}

#[test]
fn reading_03_the_query_opens_no_route() {
    let world = World::http()
        .route(route("admin", "/admin"))
        .web_may("web", on_route("admin"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/?/admin")),
        "deny route 404 []"
    );
}

#[test]
fn reading_04_refusals_come_before_routes_and_grants_and_have_no_reasons() {
    let world = open().route(route("all", "/"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/%2f")),
        "deny request 400 []"
    );
    let headers = std::collections::BTreeMap::new();
    let ask = |method, host| {
        Call::Http(Head {
            method,
            target: "/",
            host,
            grpc: false,
            headers: &headers,
        })
    };
    let snapshot = world.compile();
    for call in [
        ask("GET", Some("a@b")),
        ask("GET", Some("")),
        ask("G T", Some("a")),
        ask("", Some("a")),
    ] {
        assert_eq!(
            short(&decide(&snapshot, PORT, &meshed("web"), &call, NOW)),
            "deny request 400 []",
            "{call:?}"
        );
    }
    assert_eq!(
        decide(&snapshot, PORT, &meshed("web"), &ask("GET", None), NOW).status,
        Some(200),
        "no host is no fault"
    );
}

#[test]
fn reading_05_statuses_of_http_and_grpc_and_none_for_bytes() {
    let world = World::http().route(route("cart", "/shop.Cart"));
    for (target, status, grpc) in [
        ("/%2f", 400, 3),
        ("/other.Service/Do", 404, 5),
        ("/shop.Cart/Add", 403, 7),
    ] {
        let http = world.get(&meshed("web"), target);
        assert_eq!(
            (http.status, http.grpc_status),
            (Some(status), None),
            "{target}"
        );
        let called = world.send(&meshed("web"), "POST", target, true);
        assert_eq!(
            (called.status, called.grpc_status),
            (Some(status), Some(grpc)),
            "{target}"
        );
    }
    let allowed = open().send(&meshed("web"), "POST", "/shop.Cart/Add", true);
    assert_eq!((allowed.status, allowed.grpc_status), (Some(200), None));
    let limited = allowed.rate_limited();
    assert_eq!(short(&limited), "deny rate-limit 429/8 []");
    assert_eq!(
        short(&raw(ServerProtocol::Opaque).tcp(&meshed("api"))),
        "deny permit - []"
    );
}

#[test]
fn a_rate_limit_never_opens_a_denial() {
    assert_eq!(
        short(&World::http().get(&meshed("web"), "/").rate_limited()),
        "deny permit 403 []"
    );
    assert!(
        open()
            .get(&meshed("web"), "/")
            .rate_limited()
            .permit()
            .is_err()
    );
}

#[test]
fn reading_06_an_invalid_server_claims_its_port_and_denies_all_probes_included() {
    let world = open()
        .probe(ProbeKind::Http("/healthz".into()))
        .probe(ProbeKind::Tcp);
    assert_eq!(
        world.get(&plaintext("10.0.0.9"), "/healthz").verdict,
        Verdict::Allow
    );
    let world = world.port(|port| port.server.invalid = Some("unknown field `prot`".into()));
    for target in ["/healthz", "/", "/%2f"] {
        assert_eq!(
            short(&world.get(&meshed("web"), target)),
            "deny server 403 []",
            "{target}"
        );
    }
    assert_eq!(short(&world.tcp(&meshed("web"))), "deny server - []");
    assert_eq!(
        short(&world.send(&meshed("web"), "POST", "/a.B/C", true)),
        "deny server 403/7 []"
    );
    let snapshot = world.compile();
    assert!(!empty_connection_is_probe(
        &ConnectionAtoms::of(&snapshot, &plaintext("10.0.0.9")),
        PORT
    ));
}

#[test]
fn reading_06_an_invalid_route_takes_its_requests_and_denies_them() {
    let invalid = Route {
        invalid: Some("unknown field `pathh`".into()),
        ..route("narrow", "/admin")
    };
    let world = open().route(route("wide", "/")).route(invalid);
    assert_eq!(
        short(&world.get(&meshed("web"), "/public")),
        format!("allow permit 200 [{EVERYONE}]")
    );
    let denied = world.get(&meshed("web"), "/admin/x");
    assert_eq!(short(&denied), "deny route 403 []");
    assert_eq!(
        denied.route.as_ref().map(|route| route.name.as_str()),
        Some("narrow")
    );
}

#[test]
fn reading_06_an_invalid_route_without_readable_matches_still_counts_as_attached() {
    let invalid = Route {
        rules: Vec::new(),
        invalid: Some("no rules".into()),
        ..route("broken", "/")
    };
    assert_eq!(
        short(&open().route(invalid).get(&meshed("web"), "/")),
        "deny route 404 []"
    );
}

#[test]
fn reading_06_a_grant_whose_authentication_is_missing_grants_nothing() {
    let nobody = grant(
        WEB,
        on_server("http"),
        Who::Identities("MeshTLSAuthentication/shop/gone".into()),
    );
    assert_eq!(
        short(&World::http().grant(nobody).get(&meshed("web"), "/")),
        "deny permit 403 []"
    );
    let nowhere = Grant {
        networks: Some("NetworkAuthentication/shop/gone".into()),
        ..grant(WEB, on_server("http"), Who::Anyone)
    };
    let world = World::http().grant(nowhere);
    assert_eq!(short(&world.get(&meshed("web"), "/")), "deny permit 403 []");
    assert_eq!(world.compile().findings().len(), 1);
}

#[test]
fn reading_07_localhost_has_no_standing_permit() {
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(
            short(&World::http().get(&plaintext(ip), "/")),
            "deny permit 403 []"
        );
    }
}

#[test]
fn reading_08_route_choice_decides_whose_grants_count() {
    let regex = Route {
        rules: vec![RouteRule {
            matches: vec![RouteMatch {
                path: PathMatch::Regex("/.*".into()),
                ..route("x", "/").rules[0].matches[0].clone()
            }],
            filters: Vec::new(),
        }],
        ..route("regex", "/")
    };
    let world = World::http()
        .route(regex)
        .route(route("narrow", "/admin"))
        .grant(grant(
            "AuthorizationPolicy/shop/regex/0",
            on_route("regex"),
            Who::Anyone,
        ))
        .web_may("web", on_route("narrow"));
    assert_eq!(
        short(&world.get(&meshed("api"), "/admin")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(&world.get(&meshed("web"), "/admin")),
        format!("allow permit 200 [{WEB}]")
    );
    assert_eq!(
        short(&world.get(&meshed("api"), "/x")),
        "allow permit 200 [AuthorizationPolicy/shop/regex/0]"
    );
}
