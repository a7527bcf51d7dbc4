//! Snapshots compiled: limits, references that lead nowhere, equal slices shared.

use super::*;
use crate::fixtures::*;
use crate::snapshot::{IdentityPattern, Who};

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
    assert_eq!(snapshot.findings()[0].code, "MESH-0312");
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
