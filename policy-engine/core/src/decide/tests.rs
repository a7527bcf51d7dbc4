//! Each settled reading that this crate decides, by number; then the traps and orders that have none.

use super::*;
use crate::fixtures::*;
use crate::request::{ClientRecord, RequestRecord};
use crate::snapshot::*;

mod probes;

const EVERYONE: &str = "AuthorizationPolicy/shop/open/0";
const WEB: &str = "AuthorizationPolicy/shop/web/0";

fn open() -> World {
    World::http().grant(grant(EVERYONE, on_server("http"), Who::Anyone))
}

fn raw(protocol: ServerProtocol) -> World {
    World::new(protocol).web_may("web", on_server("http"))
}

#[test]
fn silence_is_no() {
    assert_eq!(
        short(&World::http().get(&meshed("web"), "/")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(&raw(ServerProtocol::Opaque).tcp(&meshed("api"))),
        "deny permit - []"
    );
}

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

fn who_matches(member: IdentityPattern, federated: &[&str]) -> impl Fn(&str) -> bool {
    let mut world = World::http().identities("set", vec![member]).grant(grant(
        WEB,
        on_server("http"),
        Who::Identities("set".into()),
    ));
    world.0.wildcard_domains = federated.iter().map(|name| domain(name)).collect();
    move |id| {
        world
            .get(
                &caller(&mesh_trust::SpiffeId::parse(id).unwrap(), "10.0.0.9"),
                "/",
            )
            .verdict
            == Verdict::Allow
    }
}

#[test]
fn reading_09_any_identity_means_our_domain_and_listed_federations() {
    let matches = who_matches(IdentityPattern::Any, &["partner.example"]);
    assert!(
        matches("spiffe://cluster.local/ns/a/sa/b") && matches("spiffe://cluster.local/anything")
    );
    assert!(matches("spiffe://partner.example/ns/a/sa/b"));
    assert!(
        !matches("spiffe://evil.example/ns/a/sa/b")
            && !matches("spiffe://cluster.local.evil/ns/a/sa/b")
    );
    let any = World::http()
        .identities("set", vec![IdentityPattern::Any])
        .grant(grant(WEB, on_server("http"), Who::Identities("set".into())));
    for client in [plaintext("10.0.0.9"), anonymous_tls()] {
        assert_eq!(
            short(&any.get(&client, "/")),
            "deny permit 403 []",
            "{client:?}"
        );
    }
}

#[test]
fn reading_09_a_namespace_means_its_service_accounts_in_that_domain() {
    let matches = who_matches(
        IdentityPattern::Namespace {
            trust_domain: domain("cluster.local"),
            namespace: "shop".into(),
        },
        &["partner.example"],
    );
    assert!(matches("spiffe://cluster.local/ns/shop/sa/web"));
    for id in [
        "spiffe://partner.example/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop2/sa/web",
        "spiffe://cluster.local/ns/shop",
        "spiffe://cluster.local/ns/shop/sa/web/x",
        "spiffe://cluster.local/x/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/other/web",
    ] {
        assert!(!matches(id), "{id}");
    }
}

#[test]
fn reading_09_an_exact_foreign_identity_matches_and_its_like_does_not() {
    let id = mesh_trust::SpiffeId::parse("spiffe://partner.example/ns/shop/sa/web").unwrap();
    let matches = who_matches(IdentityPattern::Exact(id), &[]);
    assert!(matches("spiffe://partner.example/ns/shop/sa/web"));
    assert!(
        !matches("spiffe://cluster.local/ns/shop/sa/web")
            && !matches("spiffe://partner.example/ns/shop/sa/Web")
    );
    let nobody = who_matches(IdentityPattern::Nobody("*.other.suffix".into()), &[]);
    assert!(!nobody("spiffe://cluster.local/ns/shop/sa/web"));
}

#[test]
fn reading_10_opaque_and_tls_ports_are_judged_as_bytes() {
    for protocol in [ServerProtocol::Opaque, ServerProtocol::Tls] {
        let world = raw(protocol)
            .route(route("r", "/only"))
            .web_may("routed", on_route("r"));
        assert_eq!(
            short(&world.tcp(&meshed("web"))),
            format!("allow permit - [{WEB}]")
        );
        let request = world.get(&meshed("web"), "/%2f;/elsewhere");
        assert_eq!(
            short(&request),
            format!("allow permit - [{WEB}]"),
            "routes and paths are without effect"
        );
        assert!(request.route.is_none() && request.canonical_path("/").is_none());
        assert_eq!(
            short(&world.get(&meshed("api"), "/only")),
            "deny permit - []"
        );
    }
}

#[test]
fn reading_11_raw_bytes_do_not_pass_where_policy_is_made_for_requests() {
    for protocol in [
        ServerProtocol::Http1,
        ServerProtocol::Http2,
        ServerProtocol::Grpc,
    ] {
        assert_eq!(
            short(&raw(protocol).tcp(&meshed("web"))),
            "deny server - []"
        );
    }
    let unknown = || raw(ServerProtocol::Unknown);
    assert_eq!(
        short(&unknown().tcp(&meshed("web"))),
        format!("allow permit - [{WEB}]")
    );
    let broken = Route {
        rules: Vec::new(),
        invalid: Some("unreadable".into()),
        ..route("r", "/")
    };
    for world in [
        unknown().route(route("r", "/")),
        unknown().route(broken),
        unknown().port(|port| port.l7_limits = true),
        unknown().port(|port| {
            port.rate_limit = Some(RateLimit {
                namespace: "shop".into(),
                name: "l".into(),
                total: Some(1),
                identity: None,
                overrides: Vec::new(),
            });
        }),
    ] {
        assert_eq!(short(&world.tcp(&meshed("web"))), "deny server - []");
    }
}

#[test]
fn reading_14_mapped_addresses_are_ipv4_and_holes_are_holes() {
    let limited = Grant {
        networks: Some("nets".into()),
        ..grant(WEB, on_server("http"), Who::Anyone)
    };
    let world = World::http()
        .networks(
            "nets",
            &[("10.0.0.0/8", &["10.1.0.0/16"]), ("2001:db8::/32", &[])],
        )
        .grant(limited);
    for (ip, allowed) in [
        ("10.0.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("10.1.2.3", false),
        ("::ffff:10.1.2.3", false),
        ("11.0.0.1", false),
        ("2001:db8::1", true),
        ("::1", false),
    ] {
        assert_eq!(
            world.get(&plaintext(ip), "/").verdict == Verdict::Allow,
            allowed,
            "{ip}"
        );
    }
    let none = World::http().networks("nets", &[]).grant(Grant {
        networks: Some("nets".into()),
        ..grant(WEB, on_server("http"), Who::Anyone)
    });
    assert_eq!(
        short(&none.get(&plaintext("10.0.0.1"), "/")),
        "deny permit 403 []",
        "an empty list is nobody"
    );
}

#[test]
fn reading_14_an_exception_of_one_block_leaves_another_block_alone() {
    let limited = Grant {
        networks: Some("nets".into()),
        ..grant(WEB, on_server("http"), Who::Anyone)
    };
    let world = World::http()
        .networks(
            "nets",
            &[("10.0.0.0/8", &["10.1.0.0/16"]), ("10.1.1.0/24", &[])],
        )
        .grant(limited);
    assert_eq!(
        world.get(&plaintext("10.1.1.1"), "/").verdict,
        Verdict::Allow
    );
    assert_eq!(
        world.get(&plaintext("10.1.2.1"), "/").verdict,
        Verdict::Deny
    );
}

#[test]
fn reading_15_reasons_are_complete_and_sorted_and_without_doubles() {
    let world = World::http()
        .probe(ProbeKind::Http("/healthz".into()))
        .web_may("web", on_server("http"))
        .grant(grant(
            "ServerAuthorization/shop/z/0",
            on_server("http"),
            Who::AnyTls,
        ))
        .grant(grant(
            "AuthorizationPolicy/shop/a/0",
            Scope::NamespaceServers {
                namespace: "shop".into(),
            },
            Who::Anyone,
        ))
        .grant(grant(
            "default/all-authenticated",
            on_server("http"),
            Who::AnyTls,
        ))
        .grant(grant(
            "default/all-authenticated",
            Scope::Default,
            Who::AnyTls,
        ));
    let all = "AuthorizationPolicy/shop/a/0 AuthorizationPolicy/shop/web/0 ServerAuthorization/shop/z/0 default/all-authenticated";
    assert_eq!(
        short(&world.get(&meshed("web"), "/")),
        format!("allow permit 200 [{all}]")
    );
    assert_eq!(
        short(&world.get(&meshed("web"), "/healthz")),
        format!("allow permit 200 [{all} default/probe]")
    );
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.9"), "/")),
        "allow permit 200 [AuthorizationPolicy/shop/a/0]"
    );
}

#[test]
fn reading_15_a_deny_names_the_forbids_that_hold_and_no_permit() {
    let forbid = |id, who| Grant {
        effect: Effect::Forbid,
        ..grant(id, on_server("http"), who)
    };
    let world = open()
        .grant(forbid("CedarPolicy/shop/b/0", Who::Anyone))
        .grant(forbid("CedarPolicy/shop/a/0", Who::AnyTls));
    assert_eq!(
        short(&world.get(&meshed("web"), "/")),
        "deny forbid 403 [CedarPolicy/shop/a/0 CedarPolicy/shop/b/0]"
    );
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.9"), "/")),
        "deny forbid 403 [CedarPolicy/shop/b/0]"
    );
}

#[test]
fn audit_is_said_only_if_every_permit_that_holds_is_an_audit_one() {
    let audit = Grant {
        audit: true,
        ..grant("default/audit", on_server("http"), Who::Anyone)
    };
    let world = World::http().grant(audit).web_may("web", on_server("http"));
    let strange = world.get(&plaintext("10.0.0.9"), "/");
    assert_eq!(
        (short(&strange).as_str(), strange.audit),
        ("allow permit 200 [default/audit]", true)
    );
    let known = world.get(&meshed("web"), "/");
    assert_eq!((known.reasons().len(), known.audit), (2, false));
    assert!(!World::http().get(&meshed("web"), "/").audit);
}

fn record(json: &str) -> RequestRecord {
    serde_json::from_str(json).unwrap()
}

#[test]
fn reading_16_a_malformed_client_is_denied_in_transport() {
    let snapshot = open().compile();
    for client in [
        r#"{"spiffe_id":"web"}"#,
        r#"{"spiffe_id":""}"#,
        r#"{"spiffe_id":"spiffe://cluster.local/ns//sa/web"}"#,
        r#"{"spiffe_id":"SPIFFE://cluster.local/ns/shop/sa/web"}"#,
        r#"{"ip":"10.0.0"}"#,
        r#"{"ip":""}"#,
        r#"{"ip":"10.0.0.1:80"}"#,
        r#"{"ip":"fe80::1%eth0"}"#,
        r#"{"spiffe_id":"spiffe://cluster.local/ns/shop/sa/web","tls":false}"#,
    ] {
        let text = format!(
            r#"{{"client":{client},"server":{{"namespace":"shop","pod":"cart-0","port":8080}},"method":"GET","path":"/"}}"#
        );
        let answer = crate::record::decide_record(&snapshot, &record(&text), PORT, NOW);
        let seen = (
            answer.verdict,
            answer.phase,
            answer.status,
            answer.grpc_status,
            answer.reasons.len(),
        );
        assert_eq!(
            seen,
            (Verdict::Deny, Phase::Transport, None, None, 0),
            "{client}"
        );
    }
}

#[test]
fn reading_16_tls_without_an_identity_is_tls_without_an_identity() {
    let world = World::http().grant(grant(
        "ServerAuthorization/shop/tls/0",
        on_server("http"),
        Who::AnyTls,
    ));
    let snapshot = world.compile();
    let ask = |tls: Option<bool>| {
        let client = ClientRecord {
            spiffe_id: None,
            ip: None,
            tls,
        };
        let text = r#"{"client":{},"server":{"namespace":"shop","pod":"cart-0","port":8080},"method":"GET","path":"/"}"#;
        crate::record::decide_record(
            &snapshot,
            &RequestRecord {
                client,
                ..record(text)
            },
            PORT,
            NOW,
        )
        .verdict
    };
    assert_eq!(ask(Some(true)), Verdict::Allow);
    assert_eq!(
        (ask(Some(false)), ask(None)),
        (Verdict::Deny, Verdict::Deny)
    );
}

#[test]
fn an_identity_without_tls_is_believed_by_nobody() {
    let liar = Client {
        tls: false,
        ..meshed("web")
    };
    assert_eq!(short(&open().get(&liar, "/")), "deny transport - []");
    assert_eq!(short(&open().tcp(&liar)), "deny transport - []");
}

#[test]
fn route_grants_add_to_server_grants_and_open_nothing_else() {
    let world = World::http()
        .route(route("a", "/a"))
        .route(route("b", "/b"))
        .web_may("web", on_route("a"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/a")),
        format!("allow permit 200 [{WEB}]")
    );
    assert_eq!(
        short(&world.get(&plaintext("10.0.0.9"), "/a")),
        "deny permit 403 []"
    );
    assert_eq!(
        short(&world.get(&meshed("web"), "/b")),
        "deny permit 403 []"
    );
    assert_eq!(short(&world.get(&meshed("web"), "/c")), "deny route 404 []");
    let world = world.web_may("server", on_server("http"));
    assert_eq!(
        short(&world.get(&meshed("web"), "/b")),
        "allow permit 200 [AuthorizationPolicy/shop/server/0]"
    );
    assert_eq!(world.get(&meshed("web"), "/a").reasons().len(), 2);
}

#[test]
fn identity_and_network_of_one_grant_must_both_hold() {
    let both = Grant {
        networks: Some("nets".into()),
        ..grant(WEB, on_server("http"), Who::Identities("ids".into()))
    };
    let world = World::http()
        .identities("ids", vec![IdentityPattern::Exact(account("web"))])
        .networks("nets", &[("10.0.0.9/32", &[])])
        .grant(both);
    assert_eq!(world.get(&meshed("web"), "/").verdict, Verdict::Allow);
    for client in [
        meshed("api"),
        plaintext("10.0.0.9"),
        caller(&account("web"), "10.0.0.8"),
        anonymous_tls(),
    ] {
        assert_eq!(
            short(&world.get(&client, "/")),
            "deny permit 403 []",
            "{client:?}"
        );
    }
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies() {
    let forbid = Grant {
        effect: Effect::Forbid,
        ..grant(
            "CedarPolicy/shop/x/0",
            on_server("http"),
            Who::Identities("gone".into()),
        )
    };
    let world = open()
        .probe(ProbeKind::Http("/healthz".into()))
        .grant(forbid);
    let denied = world.get(&meshed("web"), "/");
    assert_eq!(short(&denied), "deny forbid 403 []");
    assert!(matches!(denied.cause, Cause::Undecidable(_)));
    assert_eq!(
        short(&world.get(&meshed("web"), "/healthz")),
        "deny forbid 403 []"
    );
}

#[test]
fn only_an_allowed_decision_yields_a_permit() {
    let permit = open().get(&meshed("web"), "/").permit().expect("allowed");
    assert_eq!(permit.generation, Generation(7));
    let denial = World::http()
        .get(&meshed("web"), "/")
        .permit()
        .expect_err("denied");
    assert_eq!(
        (denial.status, denial.into_decision().verdict),
        (Some(403), Verdict::Deny)
    );
}

#[test]
fn remembered_answers_are_those_of_fresh_ones() {
    let world = World::http()
        .route(route("a", "/a"))
        .route(route("b", "/b"))
        .web_may("web", on_route("a"));
    let snapshot = world.compile();
    let headers = std::collections::BTreeMap::new();
    for client in [meshed("web"), meshed("api"), plaintext("10.0.0.9")] {
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        for _ in 0..3 {
            for target in ["/a", "/b", "/c", "/a/x"] {
                let call = Call::Http(Head {
                    method: "GET",
                    target,
                    host: None,
                    grpc: false,
                    headers: &headers,
                });
                for port in [PORT, 1, 2] {
                    let (kept, fresh) = (
                        decide_on(&atoms, port, &call, NOW),
                        decide(&snapshot, port, &client, &call, NOW),
                    );
                    assert_eq!(short(&kept), short(&fresh));
                }
            }
        }
    }
}

#[test]
fn records_say_what_was_decided() {
    let world = World::http()
        .route(route("all", "/"))
        .web_may("web", on_server("http"));
    let headers = std::collections::BTreeMap::new();
    let call = Call::Http(Head {
        method: "GET",
        target: "/a//b?q",
        host: Some("Cart.:8080"),
        grpc: false,
        headers: &headers,
    });
    let decision = decide(&world.compile(), PORT, &meshed("web"), &call, NOW);
    let record = serde_json::to_value(decision.record(None, &meshed("web"), &call)).unwrap();
    let want = serde_json::json!({
        "time": null, "generation": 7,
        "client": {"spiffe_id": "spiffe://cluster.local/ns/shop/sa/web", "ip": "10.0.0.9", "tls": true, "serial": null, "expires": null},
        "server": {"namespace": "shop", "name": "http", "workload": "cart-0", "port": 8080, "default": false},
        "route": {"kind": "HTTPRoute", "namespace": "shop", "name": "all", "rule": 0},
        "request": {"method": "GET", "path": "/a/b", "raw_path": "/a//b?q", "host": "cart:8080"},
        "verdict": "allow", "status": 200, "grpc_status": null, "phase": "permit",
        "reasons": ["AuthorizationPolicy/shop/web/0"], "audit": false, "near_misses": [], "shadow": null,
    });
    assert_eq!(record, want);
}

#[test]
fn a_proxy_without_policy_denies_everything() {
    let snapshot = Snapshot::deny_all(World::http().0.workload, domain("cluster.local")).unwrap();
    let headers = std::collections::BTreeMap::new();
    let http = Call::Http(Head {
        method: "GET",
        target: "/",
        host: None,
        grpc: false,
        headers: &headers,
    });
    for client in [meshed("web"), plaintext("127.0.0.1")] {
        assert_eq!(
            short(&decide(&snapshot, 80, &client, &http, NOW)),
            "deny server 403 []"
        );
        assert_eq!(
            short(&decide(&snapshot, 80, &client, &Call::Tcp, NOW)),
            "deny server - []"
        );
    }
}
