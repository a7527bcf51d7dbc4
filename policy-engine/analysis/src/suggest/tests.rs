//! Suggestions from small worlds: what they allow, and what they do not.

use super::*;
use crate::testing::{NOW, POD, POLICY, decide, index_of, loaded_of, request};
use mesh_policy::decide::Verdict;
use mesh_policy::record::DecisionRecord;
use mesh_policy_index::{Index, IndexConfig, Loaded, load};
use mesh_trust::TrustDomain;

const SETTINGS: Settings = Settings {
    words_max: 3,
    few: 2,
};

/// A Server that lets everybody in: what traffic was like before there was policy.
fn open(policy: &str) -> String {
    policy.replace(
        "port: 8080, ",
        "port: 8080, accessPolicy: all-unauthenticated, ",
    )
}

/// Policy of one Server alone.
fn server_alone() -> String {
    open(POLICY)
        .split("---")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn home() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

fn seen(index: &Index, account: &str, method: &str, path: &str) -> DecisionRecord {
    let mut asked = request(account, path);
    asked.method = Some(method.to_owned());
    decide(index, &asked)
}

/// What is suggested over `base` from these requests, and what is wrong with it.
fn suggest(
    base: &Loaded,
    live: &Index,
    asked: &[(&str, &str, &str)],
) -> (Index, Suggested, Verified) {
    let mut observed = Observed::new(live);
    for (account, method, path) in asked {
        observed.add(&seen(live, account, method, path), false);
    }
    observed.settle(SETTINGS);
    let suggested = manifests(&observed, &home(), SETTINGS);
    let list =
        serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": suggested.objects });
    let text = list.to_string().into_bytes();
    let ours = load([("suggested.json".to_owned(), text)]);
    let all = base.without_grants().and(ours);
    let index = Index::build(&all, &IndexConfig::new(home()));
    let verified = verify(&index, &mut observed, NOW).expect("an answer");
    (index, suggested, verified)
}

const ASKED: &[(&str, &str, &str)] = &[
    ("web", "GET", "/orders/1"),
    ("web", "GET", "/orders/2"),
    ("web", "POST", "/orders"),
    ("admin", "DELETE", "/orders/3"),
    ("admin", "GET", "/orders/4"),
];

#[test]
fn a_workload_without_a_server_gets_one_and_nothing_beyond_what_was_seen() {
    let live = Index::build(
        &loaded_of(&[POD]),
        &IndexConfig {
            default_policy: mesh_policy_index::Mode::AllUnauthenticated,
            ..IndexConfig::new(home())
        },
    );
    let (index, suggested, verified) = suggest(&loaded_of(&[POD]), &live, ASKED);
    let errors = index.findings().iter();
    let errors = errors.filter(|one| one.severity == mesh_policy::snapshot::Severity::Error);
    assert_eq!(errors.count(), 0, "{suggested:#?}");
    assert!(
        verified.excess.is_empty() && verified.missing.is_empty(),
        "{verified:#?}"
    );
    assert_eq!(suggested.objects[0]["kind"], "Server");
    for (account, method, path, want) in [
        ("web", "GET", "/orders/99", Verdict::Allow),
        ("web", "POST", "/orders", Verdict::Allow),
        ("admin", "DELETE", "/orders/7", Verdict::Allow),
        ("admin", "POST", "/orders", Verdict::Deny),
        ("web", "DELETE", "/orders/7", Verdict::Deny),
        ("web", "GET", "/orders", Verdict::Deny),
        ("web", "GET", "/orders/1/x", Verdict::Deny),
        ("intruder", "GET", "/orders/1", Verdict::Deny),
    ] {
        let verdict = seen(&index, account, method, path).verdict;
        assert_eq!(verdict, want, "{account} {method} {path}");
    }
}

#[test]
fn denied_and_anonymous_records_suggest_nothing() {
    let live = index_of(&[POD, POLICY]);
    let mut observed = Observed::new(&live);
    observed.add(&seen(&live, "intruder", "GET", "/orders"), false);
    let mut nobody = seen(&live, "web", "GET", "/orders");
    observed.add(&nobody, true);
    nobody.client.spiffe_id = None;
    observed.add(&nobody, false);
    nobody.client.spiffe_id = Some("web".to_owned());
    observed.add(&nobody, false);
    let mut stranger = seen(&live, "web", "GET", "/orders");
    stranger.server.workload = Some("gone".to_owned());
    observed.add(&stranger, false);
    let mut refused = seen(&live, "web", "GET", "/orders");
    refused.request.as_mut().expect("a request").path = None;
    observed.add(&refused, false);
    let mut probe = seen(&live, "web", "GET", "/orders");
    probe.reasons = vec!["default/probe".to_owned()];
    observed.add(&probe, false);
    let want = Skipped {
        denied: 1,
        probes: 1,
        anonymous: 2,
        strangers: 1,
        cut: 2,
        ..Skipped::default()
    };
    assert_eq!((&observed.skipped, observed.records), (&want, 0));
    observed.settle(SETTINGS);
    assert!(manifests(&observed, &home(), SETTINGS).objects.is_empty());
}

#[test]
fn a_server_that_stays_open_is_an_excess() {
    let base = loaded_of(&[POD, &server_alone()]);
    let live = index_of(&[POD, &server_alone()]);
    let (_, _, verified) = suggest(&base, &live, ASKED);
    assert!(!verified.excess.is_empty());
    // Strangers, and clients that were seen asking for something else.
    for who in [None, Some("spiffe://cluster.local/ns/shop/sa/web")] {
        let found = |one: &Excess| one.witness.client.spiffe_id.as_deref() == who;
        assert!(verified.excess.iter().any(found), "{who:?}: {verified:#?}");
    }
    let reasons = &verified.excess[0].reasons;
    assert!(
        reasons.contains(&"default/all-unauthenticated".to_owned()),
        "{reasons:?}"
    );
}

#[test]
fn few_records_and_wide_patterns_are_warned_of() {
    let live = index_of(&[POD, &server_alone()]);
    let words = ["/u/ann", "/u/bob", "/u/cid", "/u/dan", "/u/ann"];
    let asked: Vec<_> = words.iter().map(|path| ("web", "GET", *path)).collect();
    let (_, suggested, _) = suggest(&loaded_of(&[POD, &server_alone()]), &live, &asked);
    assert!(
        suggested
            .warnings
            .iter()
            .any(|w| w.contains("more than 3 words")),
        "{suggested:?}"
    );
    let (_, suggested, _) = suggest(&loaded_of(&[POD]), &live, &asked[..1]);
    assert!(
        suggested
            .warnings
            .iter()
            .any(|w| w.contains("only 1 times")),
        "{suggested:?}"
    );
}

#[test]
fn many_classes_of_one_client_stay_within_what_gateway_api_allows() {
    let live = index_of(&[POD, &server_alone()]);
    let paths: Vec<String> = (0..150)
        .map(|n| format!("/{}/{}", "a".repeat(n % 3 + 1), "x".repeat(n / 3 + 1)))
        .collect();
    let asked: Vec<_> = paths
        .iter()
        .map(|path| ("web", "GET", path.as_str()))
        .collect();
    let mut observed = Observed::new(&live);
    for (account, method, path) in &asked {
        observed.add(&seen(&live, account, method, path), false);
    }
    let settings = Settings {
        words_max: 1_000,
        few: 0,
    };
    observed.settle(settings);
    let suggested = manifests(&observed, &home(), settings);
    let routes: Vec<_> = suggested
        .objects
        .iter()
        .filter(|one| one["kind"] == "HTTPRoute")
        .collect();
    assert_eq!(routes.len(), 2);
    for route in routes {
        let rules = route["spec"]["rules"].as_array().expect("rules");
        assert!(rules.len() <= 16);
        for rule in rules {
            assert!(rule["matches"].as_array().is_some_and(|all| all.len() <= 8));
        }
    }
}

#[test]
fn grpc_methods_are_named_one_by_one_however_many() {
    let server = server_alone().replace("HTTP/1", "gRPC");
    let live = index_of(&[POD, &server]);
    let paths: Vec<String> = (0..9).map(|n| format!("/shop.v1.Orders/M{n}x")).collect();
    let asked: Vec<_> = paths
        .iter()
        .map(|path| ("web", "POST", path.as_str()))
        .collect();
    let closed = server.replace("accessPolicy: all-unauthenticated, ", "");
    let (index, suggested, verified) = suggest(&loaded_of(&[POD, &closed]), &live, &asked);
    assert!(
        verified.excess.is_empty() && verified.missing.is_empty(),
        "{verified:#?}"
    );
    assert!(
        suggested
            .objects
            .iter()
            .any(|one| one["kind"] == "GRPCRoute")
    );
    for (path, want) in [
        ("/shop.v1.Orders/M8x", Verdict::Allow),
        ("/shop.v1.Orders/M9x", Verdict::Deny),
    ] {
        assert_eq!(seen(&index, "web", "POST", path).verdict, want, "{path}");
    }
}

#[test]
fn what_no_route_can_name_grants_nothing_instead_of_the_whole_server() {
    let server = server_alone().replace("HTTP/1", "gRPC");
    let live = index_of(&[POD, &server]);
    let closed = server.replace("accessPolicy: all-unauthenticated, ", "");
    let (index, _, verified) = suggest(
        &loaded_of(&[POD, &closed]),
        &live,
        &[("web", "POST", "/not-a-method"), ("web", "POST", "/a/b/c")],
    );
    assert!(verified.excess.is_empty(), "{verified:#?}");
    assert_eq!(verified.missing.len(), 2);
    assert_eq!(seen(&index, "web", "POST", "/other").verdict, Verdict::Deny);
}
