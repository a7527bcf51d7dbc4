//! Heads that a connection remembers: never another answer, never an allocation.

use super::*;
use allocation_counter::measure;
use proptest::prelude::*;
use std::collections::BTreeMap;

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

fn routed() -> World {
    World::http()
        .route(route("r", "/r"))
        .web_may("web", on_route("r"))
}

/// Allocations of one decision, and of dropping it.
fn allocations(atoms: &ConnectionAtoms, target: &str, host: Option<&str>) -> u64 {
    let headers = BTreeMap::new();
    let call = Call::Http(Head {
        method: "GET",
        target,
        host,
        grpc: false,
        headers: &headers,
    });
    let one = measure(|| drop(decide_on(atoms, PORT, &call, NOW)));
    one.count_total
}

#[test]
fn no_head_allocates_be_it_new_known_long_or_refused() {
    let snapshot = routed().compile();
    let atoms = ConnectionAtoms::of(&snapshot, &meshed("web"));
    assert!(
        allocations(&atoms, "/r", Some("cart")) > 0,
        "the first settles what holds on the port, and the measure works"
    );
    let long = format!("/r/{}", "x".repeat(1_000));
    let many: Vec<String> = (0..64).map(|n| format!("/r/{n}?page={n}")).collect();
    let targets = many.iter().map(String::as_str);
    for target in targets.chain(["/r", &long, "/other", "/r/%2f", "no slash"]) {
        for host in [None, Some("cart.shop.svc:8080"), Some("bad host")] {
            assert_eq!(allocations(&atoms, target, host), 0, "{target} {host:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_head_is_answered_as_on_a_connection_of_its_own(
        heads in prop::collection::vec(
            (
                prop::sample::select(&["GET", "GE", "POST", "P", ""][..]),
                prop::sample::select(&["/", "/r", "/rr", "r", "/r/r", "*", ""][..]),
                prop::option::of(prop::sample::select(&["", "r", "/r", "cart"][..])),
                any::<bool>(),
                prop::sample::select(&[PORT, 1][..]),
            ),
            1..40,
        ),
        filler in 0usize..160,
    ) {
        let snapshot = routed().compile();
        let (client, headers) = (meshed("web"), BTreeMap::new());
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        let filler = "x".repeat(filler);
        for (method, target, host, grpc, port) in heads {
            for target in [target.to_owned(), format!("{target}{filler}")] {
                let call = Call::Http(Head { method, target: &target, host, grpc, headers: &headers });
                let known = decide_on(&atoms, port, &call, NOW);
                let fresh = decide(&snapshot, port, &client, &call, NOW);
                prop_assert_eq!(
                    known.record(None, &client, &call),
                    fresh.record(None, &client, &call)
                );
            }
        }
    }
}
