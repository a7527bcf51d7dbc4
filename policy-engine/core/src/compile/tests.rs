//! Snapshots compiled: limits, references that lead nowhere, equal slices shared.

use super::*;
use crate::fixtures::*;
use crate::limits::{CEDAR_TEXTS_MAX, GRANTS_MAX, MEMBERS_MAX, PORT_GRANTS_MAX};
use crate::snapshot::{CedarText, Effect, IdentityPattern, Who};

fn shared<T: Send + Sync + 'static>(_: &T) {}

#[test]
fn snapshots_are_shared_between_threads() {
    shared(&World::http().compile());
}

#[test]
fn a_port_that_refers_to_a_missing_grant_makes_no_snapshot() {
    let world = World::http().port(|port| port.grants.push(3));
    assert_eq!(
        Snapshot::compile(world.0).err(),
        Some(SnapshotError::NoSuchGrant {
            port: PORT,
            grant: 3
        })
    );
}

#[test]
fn a_reference_just_past_the_last_grant_makes_no_snapshot() {
    let world = World::http().web_may("web", on_server("http"));
    assert!(Snapshot::compile(world.0.clone()).is_ok());
    let past = world.port(|port| port.grants.push(1));
    let refused = Snapshot::compile(past.0).err();
    assert!(matches!(
        refused,
        Some(SnapshotError::NoSuchGrant { grant: 1, .. })
    ));
}

#[test]
fn a_grant_is_reported_for_a_set_that_is_not_there_and_for_no_other() {
    let limited = |set: &str| {
        let mut data = World::http()
            .networks("near", &[("10.0.0.0/8", &[])])
            .web_may("web", on_server("http"))
            .0;
        data.grants[0].networks = Some(set.to_owned());
        Snapshot::compile(data).unwrap()
    };
    assert_eq!(limited("near").findings(), []);
    let [finding] = limited("far").findings().to_vec().try_into().unwrap();
    let finding: Finding = finding;
    assert!(finding.message.contains("network set `far`"), "{finding:?}");
}

#[test]
fn as_many_as_the_limit_are_no_more_than_the_limit() {
    let text = |n: usize| CedarText {
        id: format!("CedarPolicy/shop/p/{n}"),
        effect: Effect::Permit,
        text: String::new(),
        confined_to: None,
        invalid: Some("not read".to_owned()),
        audit: false,
        term: crate::snapshot::Term::default(),
        source: at(1),
    };
    let with = |count: usize| {
        let mut data = World::http().0;
        data.cedar_policies = (0..count).map(text).collect();
        Snapshot::compile(data).is_ok()
    };
    assert!(with(CEDAR_TEXTS_MAX) && !with(CEDAR_TEXTS_MAX + 1));
}

#[test]
fn a_text_that_cannot_be_evaluated_is_a_finding() {
    let mut data = World::http().0;
    data.cedar_policies.push(CedarText {
        id: "CedarPolicy/shop/p/no".to_owned(),
        effect: Effect::Permit,
        text: "permit(principal, action, resource) when { principal.nothing };".to_owned(),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: crate::snapshot::Term::default(),
        source: at(1),
    });
    let snapshot = Snapshot::compile(data).unwrap();
    let found: Vec<_> = snapshot
        .findings()
        .iter()
        .map(|one| (&*one.code, &*one.message))
        .collect();
    let [("MESH-0311", message)] = found[..] else {
        panic!("{found:?}")
    };
    assert!(
        message.contains("CedarPolicy/shop/p/no` grants nothing"),
        "{message}"
    );
}

#[test]
fn cp01_oversized_snapshots_are_refused() {
    let many = |count: usize| {
        let mut data = World::http().0;
        data.grants = vec![
            grant(
                "AuthorizationPolicy/shop/x/0",
                on_server("http"),
                Who::Anyone
            );
            count
        ];
        data
    };
    assert!(matches!(
        Snapshot::compile(many(GRANTS_MAX + 1)),
        Err(SnapshotError::TooLarge { what: "grants", .. })
    ));
    let mut data = World::http().0;
    data.ports.get_mut(&PORT).unwrap().grants = vec![0; PORT_GRANTS_MAX + 1];
    assert!(matches!(
        Snapshot::compile(data),
        Err(SnapshotError::TooLarge { .. })
    ));
    let members = vec![IdentityPattern::Any; MEMBERS_MAX + 1];
    let data = World::http().identities("set", members).0;
    assert!(matches!(
        Snapshot::compile(data),
        Err(SnapshotError::TooLarge { .. })
    ));
}

#[test]
fn data_survives_the_wire() {
    let data = World::http()
        .route(route("r", "/"))
        .web_may("web", on_route("r"))
        .networks("n", &[("10.0.0.0/8", &["10.1.0.0/16"])])
        .0;
    let text = serde_json::to_string(&data).unwrap();
    let back: crate::snapshot::SnapshotData = serde_json::from_str(&text).unwrap();
    assert_eq!(back, data);
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    let odd = text.replacen("\"generation\"", "\"surprise\":1,\"generation\"", 1);
    assert!(serde_json::from_str::<crate::snapshot::SnapshotData>(&odd).is_err());
}

#[test]
fn an_unreadable_regex_is_a_finding() {
    let mut bad = route("r", "/");
    bad.rules[0].matches[0].path = crate::snapshot::PathMatch::Regex("(".into());
    let snapshot = World::http().route(bad).compile();
    let finding = &snapshot.findings()[0];
    assert_eq!(finding.code, "MESH-0312");
    assert!(finding.message.contains("unclosed group"), "{finding:?}");
}

#[test]
fn so_is_one_on_what_leaves_the_mesh() {
    let mut bad = route("r", "/");
    bad.rules[0].matches[0].path = crate::snapshot::PathMatch::Regex("(".into());
    let port = crate::egress::EgressPort {
        speaks: crate::egress::Speaks::Http,
        routes: vec![bad],
        unbound: Default::default(),
        tls: std::collections::BTreeMap::new(),
    };
    let mut world = World::http();
    let mut network = crate::egress::closed_to_all("a test", at(1));
    network.ports.insert(443, port);
    world.0.egress.push(network);
    let compiled = world.compile();
    let codes: Vec<&str> = compiled
        .findings()
        .iter()
        .map(|one| one.code.as_str())
        .collect();
    assert_eq!(codes, ["MESH-0312"]);
}

#[test]
fn ten_thousand_grants_compile_and_decide() {
    let mut world = World::http();
    for index in 0..10_000 {
        world = world.identities(
            &format!("s{index}"),
            vec![IdentityPattern::Exact(account(&format!("c{index}")))],
        );
        let id = format!("AuthorizationPolicy/shop/g{index}/0");
        let one = grant(&id, on_server("http"), Who::Identities(format!("s{index}")));
        let at = u32::try_from(world.0.grants.len()).unwrap();
        world.0.grants.push(one);
        world.0.ports.get_mut(&PORT).unwrap().grants.push(at);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the figure is printed for people, nothing depends on it"
    )]
    let clock = std::time::Instant::now;
    let before = clock();
    let snapshot = world.compile();
    let compiled = before.elapsed();
    let atoms = crate::connection::ConnectionAtoms::of(&snapshot, &meshed("c9999"));
    let headers = BTreeMap::new();
    let head = crate::request::Head {
        method: "GET",
        target: "/a",
        host: Some("cart"),
        grpc: false,
        headers: &headers,
    };
    let call = crate::request::Call::Http(head);
    let before = clock();
    let first = crate::decide::decide_on(&atoms, PORT, &call, NOW);
    let once = before.elapsed();
    let before = clock();
    for _ in 0..1_000_000 {
        let again = crate::decide::decide_on(&atoms, PORT, &call, NOW);
        assert_eq!(again.verdict, crate::decide::Verdict::Allow);
    }
    let again = before.elapsed() / 1_000_000;
    println!("10,000 grants: compile {compiled:?}, first decision {once:?}, then {again:?} each");
    assert_eq!(
        short(&first),
        "allow permit 200 [AuthorizationPolicy/shop/g9999/0]"
    );
}
