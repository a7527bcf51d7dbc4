//! Explanations: the same decision, with every layer, near miss and place.

use super::*;
use crate::fixtures::*;
use crate::snapshot::*;

fn record(from: Option<&str>, path: &str) -> RequestRecord {
    let value = serde_json::json!({
        "client": {"spiffe_id": from.map(|name| format!("spiffe://cluster.local/ns/shop/sa/{name}")), "ip": "10.0.0.9"},
        "server": {"namespace": "shop", "pod": "cart-0", "port": 8080},
        "method": "GET", "path": path, "host": "cart",
    });
    serde_json::from_value(value).unwrap()
}

fn world() -> World {
    let mut world = World::http()
        .route(route("narrow", "/admin/deep"))
        .route(route("wide", "/"))
        .networks(
            "NetworkAuthentication/shop/office",
            &[("192.168.0.0/16", &[])],
        )
        .web_may("web", on_route("narrow"))
        .port(|port| {
            let source = at(99);
            port.server.shadowed = vec![ObjectRef {
                kind: "Server".into(),
                namespace: "shop".into(),
                name: "old".into(),
                source,
            }];
        });
    let set = "MeshTLSAuthentication/shop/web".to_owned();
    let office = Some("NetworkAuthentication/shop/office".to_owned());
    world = world.grant(Grant {
        networks: office,
        ..grant(
            "AuthorizationPolicy/shop/office/0",
            on_server("http"),
            Who::Identities(set),
        )
    });
    world.grant(grant(
        "AuthorizationPolicy/shop/dead/0",
        on_server("http"),
        Who::Identities("MeshTLSAuthentication/shop/gone".into()),
    ))
}

fn explained(from: Option<&str>, path: &str) -> Explanation {
    explain(&world().compile(), &record(from, path), PORT, NOW)
}

fn layer<'a>(explanation: &'a Explanation, name: &str) -> &'a Layer {
    explanation
        .layers
        .iter()
        .find(|layer| layer.layer == name)
        .unwrap()
}

#[test]
fn an_explanation_decides_as_the_data_path_does() {
    let snapshot = world().compile();
    for (from, path) in [
        (Some("web"), "/admin/deep"),
        (Some("api"), "/admin/deep"),
        (None, "/x"),
        (Some("web"), "/%2f"),
        (Some("web"), "/.."),
    ] {
        let record = record(from, path);
        let explained = explain(&snapshot, &record, PORT, NOW).decision;
        let decided = decide_record(&snapshot, &record, PORT, NOW);
        assert_eq!(
            DecisionRecord {
                near_misses: Vec::new(),
                ..explained
            },
            decided
        );
    }
}

#[test]
fn layers_come_in_order_and_stop_at_the_one_that_denied() {
    let names = |explanation: &Explanation| -> Vec<(&str, Outcome)> {
        explanation
            .layers
            .iter()
            .map(|layer| (layer.layer, layer.outcome))
            .collect()
    };
    let refused = explained(Some("web"), "/%2f");
    use Outcome::{Denied, Info, Ok, Skipped};
    let want = [
        ("transport", Ok),
        ("server", Ok),
        ("request", Denied),
        ("route", Skipped),
        ("forbid", Skipped),
        ("permit", Skipped),
        ("dead", Info),
    ];
    assert_eq!(names(&refused), want);
    let allowed = explained(Some("web"), "/admin/deep");
    assert_eq!(layer(&allowed, "permit").outcome, Ok);
    assert_eq!(
        layer(&allowed, "permit").notes[0].source.as_deref(),
        Some("policy.yaml:40")
    );
}

#[test]
fn near_misses_name_the_clauses_that_hold_and_fail() {
    let denied = explained(Some("web"), "/x");
    let misses = &denied.decision.near_misses;
    let office = misses
        .iter()
        .find(|miss| miss.policy.contains("/office/"))
        .unwrap();
    assert_eq!(
        office.fails,
        ["network in NetworkAuthentication shop/office"]
    );
    assert_eq!(
        office.holds,
        [
            "on Server shop/http",
            "identity in MeshTLSAuthentication shop/web"
        ]
    );
    assert_eq!(office.source, "policy.yaml:40");
    let web = misses
        .iter()
        .find(|miss| miss.policy.contains("/web/"))
        .unwrap();
    assert_eq!(web.fails, ["on route HTTPRoute shop/narrow"]);
    assert!(misses.is_sorted_by_key(|miss| miss.fails.len()));
    assert!(
        explained(Some("web"), "/admin/deep")
            .decision
            .near_misses
            .is_empty(),
        "an allow has none"
    );
}

#[test]
fn every_grant_without_failing_clause_is_a_reason_and_no_near_miss() {
    for (from, path) in [
        (Some("web"), "/x"),
        (None, "/x"),
        (Some("api"), "/admin/deep"),
    ] {
        for miss in &explained(from, path).decision.near_misses {
            assert!(!miss.fails.is_empty());
        }
    }
}

#[test]
fn shadowed_servers_runners_up_and_dead_objects_are_named_with_their_place() {
    let denied = explained(Some("api"), "/admin/deep");
    let note = |name: &str| {
        (
            layer(&denied, name).notes[0].text.clone(),
            layer(&denied, name).notes[0].source.clone(),
        )
    };
    assert_eq!(
        note("server"),
        (
            "shadowed: Server shop/old".into(),
            Some("policy.yaml:99".into())
        )
    );
    assert_eq!(
        note("route"),
        (
            "runner-up: HTTPRoute shop/wide rule 0, shorter path".into(),
            Some("policy.yaml:20".into())
        )
    );
    assert!(
        note("dead")
            .0
            .starts_with("MESH-0311 `AuthorizationPolicy/shop/dead/0` grants nothing"),
        "{:?}",
        note("dead")
    );
}

#[test]
fn an_unreadable_client_is_the_transport_layers_finding() {
    let mut odd = record(None, "/");
    odd.client.ip = Some("ten".into());
    let explanation = explain(&world().compile(), &odd, PORT, NOW);
    assert_eq!(explanation.layers[0].outcome, Outcome::Denied);
    assert!(explanation.layers[0].summary.contains("`ten`"));
    assert!(explanation.to_text().starts_with("DENIED at transport"));
}

#[test]
fn json_is_the_decision_record_with_layers_beside() {
    let value = serde_json::to_value(explained(Some("web"), "/x")).unwrap();
    for key in [
        "generation",
        "client",
        "server",
        "route",
        "request",
        "verdict",
        "status",
        "phase",
        "reasons",
        "near_misses",
        "layers",
        "cause",
    ] {
        assert!(value.get(key).is_some(), "{key}");
    }
    assert_eq!(value["layers"][0]["outcome"], "ok");
}

#[test]
fn text_reads_like_a_table() {
    let text = explained(Some("web"), "/x").to_text();
    let want = "\
DENIED at permit (no grant covers it)  status 403  generation 7
  transport  ok     mTLS, spiffe://cluster.local/ns/shop/sa/web from 10.0.0.9
  server     ok     Server shop/http  (policy.yaml:1)
                    shadowed: Server shop/old  (policy.yaml:99)
  request    ok     GET /x
                    host cart
  route      ok     HTTPRoute shop/wide rule 0  (policy.yaml:20)
  forbid     none   none holds
  permit     DENIED 0 of 3 hold
  near miss         AuthorizationPolicy/shop/office/0  (policy.yaml:40)  2 of 3 hold
                    fails: network in NetworkAuthentication shop/office
                    holds: on Server shop/http
                    holds: identity in MeshTLSAuthentication shop/web
";
    assert!(text.starts_with(want), "{text}");
}

#[test]
fn text_is_never_wider_than_a_hundred_columns_and_carries_no_control_characters() {
    let mut world = world();
    let long = "x".repeat(250);
    world.0.ports.get_mut(&PORT).unwrap().server.name = format!("{long} \u{1b}[31m {long}");
    let snapshot = world.compile();
    for path in ["/x", &format!("/{long}/../%7e/{long}"), "/%00\u{1b}[2J"] {
        let text = explain(&snapshot, &record(Some("web"), path), PORT, NOW).to_text();
        for line in text.lines() {
            assert!(
                line.chars().count() <= 100 && !line.contains('\u{1b}'),
                "{line:?}"
            );
        }
        assert!(text.contains("near miss") || !path.starts_with("/x"));
    }
}

#[test]
fn rate_limits_are_told_where_the_request_is_allowed() {
    let limit = RateLimit {
        namespace: "shop".into(),
        name: "calm".into(),
        total: Some(100),
        identity: Some(20),
        overrides: vec![(vec![account("web")], 50)],
    };
    let world = world().port(|port| port.rate_limit = Some(limit));
    let told = |from| {
        let answer = explain(
            &world.compile(),
            &record(Some(from), "/admin/deep"),
            PORT,
            NOW,
        );
        layer(&answer, "rate-limit").summary.clone()
    };
    assert_eq!(
        told("web"),
        "shop/calm: 100/s in all, 50/s for this identity"
    );
    assert_eq!(told("api"), "not reached");
}

#[test]
fn bytes_are_explained_as_bytes() {
    let world = World::new(ServerProtocol::Opaque).web_may("web", on_server("http"));
    let mut raw = record(Some("web"), "/");
    raw.protocol = Protocol::Tcp;
    let answer = explain(&world.compile(), &raw, PORT, NOW);
    assert_eq!(
        (answer.decision.verdict, layer(&answer, "request").outcome),
        (Verdict::Allow, Outcome::None)
    );
    let http = explain(&world.compile(), &record(Some("web"), "/"), PORT, NOW);
    assert!(layer(&http, "request").summary.contains("opaque"));
}

fn written(id: &str, effect: Effect, text: &str) -> CedarText {
    CedarText {
        id: format!("CedarPolicy/shop/own/{id}"),
        effect,
        text: text.to_owned(),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: Term::default(),
        source: at(7),
    }
}

fn with_texts(texts: Vec<CedarText>) -> World {
    let mut world = World::http();
    world.0.cedar_policies = texts;
    world
}

#[test]
fn a_permit_in_cedar_that_nearly_holds_names_the_clause_that_fails() {
    let text = "permit(principal is Mesh::Workload, action == Mesh::Action::\"request\", resource)\n\
                when { principal has sa && principal.sa == \"web\" && context.req.method == \"POST\" }\n\
                unless { context.req.path == \"/x\" || context.req.path == \"/a\" };";
    let world = with_texts(vec![written("p", Effect::Permit, text)]);
    let explained = explain(&world.compile(), &record(Some("web"), "/a"), PORT, NOW);
    let [miss] = explained.decision.near_misses.as_slice() else {
        panic!("{:?}", explained.decision.near_misses)
    };
    assert_eq!(miss.policy, "CedarPolicy/shop/own/p");
    assert!(miss.source.ends_with(":7"));
    assert_eq!(
        miss.fails,
        [
            "context.req.method == \"POST\"",
            "unless context.req.path == \"/a\""
        ]
    );
    for clause in [
        "principal is Mesh::Workload",
        "action == Mesh::Action::\"request\"",
        "resource in Mesh::Namespace::\"cluster.local/shop\"",
        "principal has sa",
        "principal.sa == \"web\"",
        "unless context.req.path == \"/x\"",
    ] {
        assert!(
            miss.holds.iter().any(|one| one == clause),
            "{clause}: {:?}",
            miss.holds
        );
    }
}

#[test]
fn a_clause_that_cannot_be_evaluated_alone_fails_and_says_why() {
    let text = "permit(principal, action, resource)\nwhen { principal has sa && principal.sa == \"web\" };";
    let world = with_texts(vec![written("p", Effect::Permit, text)]);
    let explained = explain(&world.compile(), &record(None, "/a"), PORT, NOW);
    let fails = &explained.decision.near_misses[0].fails;
    assert_eq!(fails[0], "principal has sa");
    assert!(
        fails[1].starts_with("principal.sa == \"web\" (") && fails[1].contains("absent"),
        "{fails:?}"
    );
}

#[test]
fn a_forbid_in_cedar_that_struck_shows_its_place_and_its_clauses() {
    let forbid = "forbid(principal, action, resource)\nwhen { context.req.path == \"/a\" };";
    let other = "forbid(principal, action, resource)\nwhen { context.req.path == \"/b\" };";
    let bytes = forbid.replace("action,", "action == Mesh::Action::\"request\",");
    let others = other.replace("action,", "action == Mesh::Action::\"request\",");
    let world = with_texts(vec![
        written("no-a", Effect::Forbid, &bytes),
        written("no-b", Effect::Forbid, &others),
    ]);
    let explained = explain(&world.compile(), &record(Some("web"), "/a"), PORT, NOW);
    let forbid = layer(&explained, "forbid");
    assert_eq!(forbid.outcome, Outcome::Denied);
    let texts: Vec<&str> = forbid.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(texts[0], "CedarPolicy/shop/own/no-a");
    assert!(
        texts.contains(&"CedarPolicy/shop/own/no-a holds: context.req.path == \"/a\""),
        "{texts:?}"
    );
    assert!(!texts.iter().any(|text| text.contains("no-b")), "{texts:?}");
    assert!(
        forbid
            .notes
            .iter()
            .all(|note| note.source.as_deref().is_some_and(|s| s.ends_with(":7")))
    );
}

#[test]
fn a_forbid_that_cannot_be_evaluated_is_pointed_at() {
    let text = "forbid(principal, action == Mesh::Action::\"request\", resource)\n\
                when { context.now.offset(duration(\"9223372036854775807ms\")) < context.now };";
    let world = with_texts(vec![written("f", Effect::Forbid, text)]);
    let explained = explain(&world.compile(), &record(Some("web"), "/a"), PORT, NOW);
    let forbid = layer(&explained, "forbid");
    assert_eq!(forbid.outcome, Outcome::Denied, "{explained:?}");
    assert!(
        forbid
            .notes
            .iter()
            .any(|note| note.text == "CedarPolicy/shop/own/f could not be evaluated"),
        "{forbid:?}"
    );
}
