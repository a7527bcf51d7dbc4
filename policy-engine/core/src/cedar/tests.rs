//! Generated policies, their validation, and Cedar against a plain oracle.

use super::generate::{policy_ids, refuse_invalid};
use super::*;
use crate::compile::generated;
use crate::fixtures::*;
use crate::question::{Asker, HeaderNames, SetNames, Target};
use crate::snapshot::Severity;

#[test]
fn the_schema_is_sound_and_has_four_request_environments() {
    let vocabulary = vocabulary().unwrap();
    assert_eq!(vocabulary.schema.request_envs().count(), 4);
}

#[test]
fn policies_are_printed_with_their_source() {
    let limited = Grant {
        networks: Some("NetworkAuthentication/shop/office".into()),
        audit: true,
        ..grant(
            "ServerAuthorization/shop/tls/0",
            Scope::NamespaceServers {
                namespace: "shop".into(),
            },
            Who::AnyTls,
        )
    };
    let world = World::http()
        .networks("NetworkAuthentication/shop/office", &[("10.0.0.0/8", &[])])
        .web_may("web", on_route("cart"))
        .grant(limited);
    let snapshot = world.compile();
    let [web, tls] = generated(&snapshot) else {
        panic!("two policies")
    };
    assert_eq!(
        (web.id.as_str(), web.source.as_str()),
        ("AuthorizationPolicy/shop/web/0", "policy.yaml:40")
    );
    for part in [
        "@src(\"policy.yaml:40\")",
        "principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/web\"",
        "action == Mesh::Action::\"request\"",
        "resource in Mesh::RouteObj::\"HTTPRoute/shop/cart\"",
    ] {
        assert!(web.cedar.contains(part), "{part} in {}", web.cedar);
    }
    for part in [
        "@audit(\"true\")",
        "resource in Mesh::NamedServers::\"shop\"",
        "context.conn.nets).contains",
        "context.conn).tls",
    ] {
        let plain = tls.cedar.replace("([", "[");
        assert!(
            plain.contains(part)
                || plain
                    .replace(['(', ')'], "")
                    .contains(&part.replace(['(', ')'], "")),
            "{part} in {}",
            tls.cedar
        );
    }
    let parsed: PolicySet = format!("{}\n{}", web.cedar, tls.cedar).parse().unwrap();
    assert_eq!(parsed.num_of_policies(), 2);
}

#[test]
fn annotations_say_what_a_grant_is_and_nothing_that_it_is_not() {
    let mut glass = grant(
        "AuthorizationPolicy/shop/glass/0",
        on_server("http"),
        Who::Anyone,
    );
    glass.term.break_glass = Some("an incident".into());
    let snapshot = World::http()
        .web_may("web", on_server("http"))
        .grant(glass)
        .compile();
    let [web, glass] = generated(&snapshot) else {
        panic!("two policies")
    };
    assert!(
        !web.cedar.contains("@audit") && !web.cedar.contains("@breakGlass"),
        "{}",
        web.cedar
    );
    assert!(
        glass.cedar.contains("@breakGlass(\"an incident\")"),
        "{}",
        glass.cedar
    );
}

#[test]
fn names_cannot_escape_into_policy_text() {
    let evil = "x\") when { true }; permit(principal, action, resource); //\\\n\u{202e}";
    let world = World::http()
        .identities(
            evil,
            vec![crate::snapshot::IdentityPattern::Exact(account("web"))],
        )
        .grant(Grant {
            source: crate::snapshot::Source::BuiltIn(evil.into()),
            ..grant(evil, on_server(evil), Who::Identities(evil.into()))
        });
    let snapshot = world.compile();
    let [one] = generated(&snapshot) else {
        panic!("one policy")
    };
    let parsed: PolicySet = one.cedar.parse().unwrap();
    assert_eq!(parsed.num_of_policies(), 1);
    assert_eq!(short(&world.get(&meshed("web"), "/")), "deny permit 403 []");
    let own = world.port(|port| port.server.name = evil.into());
    assert_eq!(own.get(&meshed("web"), "/").reasons().len(), 1);
    assert_eq!(short(&own.get(&meshed("api"), "/")), "deny permit 403 []");
}

#[test]
fn ids_are_stable_and_distinct() {
    let modes = [
        on_server("a"),
        on_server("b"),
        Scope::Default,
        on_server("a"),
        on_server("a"),
    ];
    let grants: Vec<Grant> = modes
        .into_iter()
        .map(|scope| grant("default/audit", scope, Who::Anyone))
        .collect();
    let ids = policy_ids(&grants);
    assert_eq!(
        ids,
        [
            "default/audit@Server/shop/a",
            "default/audit@Server/shop/b",
            "default/audit",
            "default/audit@Server/shop/a#2",
            "default/audit@Server/shop/a#3"
        ]
    );
}

#[test]
fn a_grant_that_cannot_become_a_policy_is_reported_and_the_others_stand() {
    let gone = grant(
        "AuthorizationPolicy/shop/gone/0",
        on_server("http"),
        Who::Identities("nowhere".into()),
    );
    let world = World::http().grant(gone).web_may("web", on_server("http"));
    let snapshot = world.compile();
    let [finding] = snapshot.findings() else {
        panic!("one finding")
    };
    assert_eq!(
        (finding.code.as_str(), finding.severity),
        ("MESH-0311", Severity::Error)
    );
    assert_eq!(
        finding.object.as_ref().map(|object| object.name.as_str()),
        Some("gone")
    );
    assert_eq!(generated(&snapshot).len(), 1);
    assert_eq!(
        short(&world.get(&meshed("web"), "/")),
        "allow permit 200 [AuthorizationPolicy/shop/web/0]"
    );
}

#[test]
fn policies_that_strict_validation_refuses_grant_nothing() {
    let vocabulary = vocabulary().unwrap();
    let bad = [
        r#"permit(principal, action, resource) when { context.conn.ip == "x" };"#,
        r#"permit(principal in Mesh::Nobody::"x", action, resource);"#,
        r#"permit(principal, action == Mesh::Action::"fly", resource);"#,
        r#"permit(principal, action, resource) when { context.conn.tls == "yes" };"#,
    ];
    for text in bad {
        let mut policies =
            [Policy::parse(Some(PolicyId::new("p")), text).map_err(|error| error.to_string())];
        assert!(policies[0].is_ok(), "{text}");
        refuse_invalid(vocabulary, &mut policies);
        assert!(policies[0].is_err(), "{text}");
    }
    let mut good = [Policy::parse(
        Some(PolicyId::new("p")),
        "permit(principal, action, resource);",
    )
    .map_err(|e| e.to_string())];
    refuse_invalid(vocabulary, &mut good);
    assert!(good[0].is_ok());
}

/// What Cedar says to bytes from a plaintext client.
fn ask(text: &str) -> Answer {
    let policies: PolicySet = text.parse().unwrap();
    let references: Vec<(Policy, PolicyRef)> = policies
        .policies()
        .map(|policy| {
            let effect = match policy.effect() {
                cedar_policy::Effect::Forbid => Effect::Forbid,
                cedar_policy::Effect::Permit => Effect::Permit,
            };
            let reference = PolicyRef {
                id: policy.id().to_string().into(),
                audit: false,
                break_glass: false,
                effect,
            };
            (policy.clone(), reference)
        })
        .collect();
    let (names, headers) = (SetNames::default(), HeaderNames::new());
    let setting = Setting {
        names: &names,
        headers: &headers,
    };
    let ours = domain("cluster.local");
    let question = Question {
        asker: Asker {
            id: None,
            ip: "10.0.0.1".parse().unwrap(),
            tls: false,
            cert_not_after: None,
            identity_sets: &[],
            network_sets: &[],
        },
        target: Target {
            trust_domain: &ours,
            namespace: "shop",
            server: Some("http"),
            port: PORT,
            route: None,
        },
        request: None,
        now: NOW,
    };
    let policies = references
        .iter()
        .map(|(policy, reference)| (policy, reference));
    answer(vocabulary().unwrap(), &setting, &question, policies)
}

#[test]
fn cp02_a_forbid_that_errors_denies_though_cedar_would_skip_it() {
    let allow = "permit(principal, action, resource);";
    assert!(matches!(ask(allow), Answer::Permitted { .. }));
    for broken in [
        "forbid(principal, action, resource) when { context.gone == 1 };",
        "forbid(principal, action, resource) when { 9223372036854775807 + 1 == 0 };",
    ] {
        assert!(
            matches!(ask(&format!("{allow}{broken}")), Answer::Undecidable { .. }),
            "{broken}"
        );
    }
}

#[test]
fn any_error_denies_a_permit_that_errors_too() {
    let text = "permit(principal, action, resource); permit(principal, action, resource) when { context.gone };";
    assert!(matches!(ask(text), Answer::Undecidable { .. }));
}
