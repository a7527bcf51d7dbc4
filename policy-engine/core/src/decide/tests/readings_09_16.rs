//! Settled readings 9 to 16, as far as this crate decides them; reading 12 is in [`super::probes`].

use super::*;
use crate::request::{ClientRecord, RequestRecord};

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
