//! Compiled forms held against Cedar, and policies against their namespaces; by fakes, and by cvc5 where it is installed.

use crate::fakes::{PATIENCE, fake};
use crate::real::solver;
use crate::world::{NOW, clients, grant, index, key, network, pod, route};
use crate::{cedar, invariant};
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Generation, decide, decide_by_cedar};
use mesh_policy::fuzzing::miscompiled;
use mesh_policy::request::Client;
use mesh_policy::snapshot::{Severity, SnapshotData, Who};
use mesh_policy_analysis::survey::compile;
use mesh_policy_symbolic::{Confinement, Equality, Prover, Session, Verifier};

/// Policy of a pod with routes, grants to identities, networks and anybody, and one policy written in Cedar.
fn ledger(condition: &str, more: &str) -> Snapshot {
    let text = [
        pod("payments", "ledger"),
        pod("shop", "cart"),
        route(
            "payments",
            "all",
            "ledger",
            "{path: {type: PathPrefix, value: /}}",
        ),
        route(
            "payments",
            "read",
            "ledger",
            "{path: {type: PathPrefix, value: /read}}",
        ),
        clients(
            "payments",
            "them",
            &[
                "spiffe://cluster.local/ns/shop/*",
                "spiffe://cluster.local/other",
            ],
        ),
        network("payments", "nets", "10.0.0.0/8", &["10.1.0.0/16"]),
        grant(
            "payments",
            "read",
            "HTTPRoute read",
            &["MeshTLSAuthentication them", "NetworkAuthentication nets"],
        ),
        grant(
            "payments",
            "all",
            "Server ledger",
            &["ServiceAccount shop/cart"],
        ),
        cedar(
            "payments",
            &format!(
                "permit(principal is Mesh::Workload, action == Mesh::Action::\"request\", resource) when {{ {condition} }};"
            ),
        ),
        more.to_owned(),
    ];
    let key = key("payments", "ledger");
    let data = index(&text.concat())
        .snapshot(&key, Generation::default())
        .unwrap();
    let snapshot = compile(&key, data).unwrap();
    assert_eq!(
        snapshot.data().cedar_policies.len(),
        1,
        "{:?}",
        snapshot.findings()
    );
    let errors = snapshot.findings().iter();
    assert!(
        !errors
            .map(|one| one.severity)
            .any(|one| one == Severity::Error),
        "{:?}",
        snapshot.findings()
    );
    snapshot
}

fn verify(session: Session, snapshot: &Snapshot) -> Equality {
    Verifier::new(session).verify(&key("payments", "ledger"), snapshot)
}

/// Conditions with every part that a program can consist of, as far as validation lets it be.
const CONDITIONS: [&str; 16] = [
    "context.req.path like \"/a*b\\\\**\" && !(context.req.path like \"*/admin/*\")",
    "[\"GET\", \"HEAD\"].contains(context.req.method)",
    "context.req has host && context.req.host == \"a.example\" || context.conn.port == 8080",
    "context.conn.ip.isInRange(ip(\"10.0.0.0/9\")) || context.conn.ip.isLoopback() || context.conn.ip == ip(\"::1\")",
    "context.conn.ip.isIpv6() && !context.conn.ip.isMulticast()",
    "principal in Mesh::Namespace::\"cluster.local/shop\" || principal == Mesh::Workload::\"spiffe://cluster.local/other\"",
    "principal in Mesh::TrustDomain::\"cluster.local\" && principal has sa && principal.sa like \"c*\"",
    "principal has ns && [\"shop\", \"pay\", \"dev\"].contains(principal.ns)",
    "resource in Mesh::Server::\"payments/ledger\" && !(resource in Mesh::RouteObj::\"HTTPRoute/payments/other\")",
    "resource.name == \"read\" && resource.rule < 1 && resource.kind != \"GRPCRoute\"",
    "context.now < datetime(\"2027-01-01\") && context.now.toTime() < duration(\"12h\")",
    "context.conn has certNotAfter && context.conn.certNotAfter.durationSince(context.now).toHours() >= 1",
    "context.req.headers.hasTag(\"x-a\") && context.req.headers.getTag(\"x-a\").containsAny([\"one\", \"two\"])",
    "context.req.headers.hasTag(\"x-a\") && context.req.headers.getTag(\"x-a\") == [\"one\"]",
    "if context.req.grpc then context.req has grpcService && context.req.grpcService == \"shop.Cart\" else context.conn.tls",
    "context.conn.port * 2 - 1 <= 65535 && -context.conn.port != 7",
];

#[test]
fn what_is_compiled_is_proved_to_be_cedars() {
    let test = "what_is_compiled_is_proved_to_be_cedars";
    for condition in CONDITIONS {
        let Some(session) = solver(test) else { return };
        let equality = verify(session, &ledger(condition, ""));
        assert!(
            matches!(equality, Equality::Equal { policies, formulas } if policies == 16 && formulas > 20),
            "{condition}: {equality:?}"
        );
    }
}

/// Other conditions than the policy's, some of which differ in one request alone.
#[test]
fn what_is_compiled_to_something_else_is_found_with_a_request_that_shows_it() {
    let test = "what_is_compiled_to_something_else_is_found_with_a_request_that_shows_it";
    for (right, wrong) in [
        (
            "context.req.path like \"/pay/*\"",
            "context.req.path like \"/pay*\"",
        ),
        ("context.conn.port <= 8080", "context.conn.port < 8080"),
        (
            "context.conn.ip.isInRange(ip(\"10.0.0.0/8\"))",
            "context.conn.ip.isInRange(ip(\"10.0.0.0/9\"))",
        ),
        (
            "principal has ns && principal.ns == \"shop\"",
            "principal has sa && principal.sa == \"shop\"",
        ),
        (
            "[\"GET\", \"HEAD\"].contains(context.req.method)",
            "[\"GET\"].contains(context.req.method)",
        ),
    ] {
        let Some(session) = solver(test) else { return };
        let snapshot = miscompiled(&ledger(right, ""), &ledger(wrong, "")).unwrap();
        let Equality::Differs { request, .. } = verify(session, &snapshot) else {
            panic!("{right}, compiled as {wrong}, was not found");
        };
        let client = Client::try_from(&request.client).unwrap();
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        let both = [
            decide(
                &snapshot,
                request.server.port,
                &client,
                &request.call(),
                NOW,
            )
            .reasons()
            .len(),
            decide_by_cedar(&atoms, request.server.port, &request.call(), NOW)
                .reasons()
                .len(),
        ];
        assert_ne!(both[0], both[1], "{request:?}");
    }
}

#[test]
fn grants_that_are_compiled_to_others_are_found() {
    let test = "grants_that_are_compiled_to_others_are_found";
    let right = ledger("true", "");
    // The first is of the Server, the other of the route and of a network.
    let changes: [fn(&mut SnapshotData); 5] = [
        |data| data.grants[0].scope = data.grants[1].scope.clone(),
        |data| data.grants[1].scope = data.grants[0].scope.clone(),
        |data| data.grants[1].networks = None,
        |data| data.grants[0].who = Who::AnyTls,
        |data| data.grants[0].term.expires = Some(NOW),
    ];
    assert!(right.data().grants[1].networks.is_some());
    for (number, change) in changes.iter().enumerate() {
        let Some(session) = solver(test) else { return };
        let mut data = right.data().clone();
        change(&mut data);
        assert_ne!(data, *right.data());
        let wrong = miscompiled(&right, &Snapshot::compile(data).unwrap()).unwrap();
        let equality = verify(session, &wrong);
        assert!(
            matches!(equality, Equality::Differs { .. }),
            "change {number}: {equality:?}"
        );
    }
}

#[test]
fn who_lies_or_fails_proves_nothing_equal() {
    let right = ledger("context.req.path like \"/a*\"", "");
    for name in [
        "unsat",
        "crash",
        "error",
        "half",
        "mute",
        "noise",
        "rubbish",
        "unknown",
        "yes-sayer",
    ] {
        let Ok(session) = Session::open(&fake(name), PATIENCE) else {
            continue;
        };
        let equality = verify(session, &right);
        assert!(
            matches!(equality, Equality::Unknown { .. }),
            "{name}: {equality:?}"
        );
    }
}

fn boundaries(session: Session, text: &str) -> Vec<(String, Confinement)> {
    let index = index(
        &(pod("payments", "ledger")
            + &pod("payments", "other")
            + text
            + &invariant("deny: {from: {namespaces: [dev]}, to: {namespaces: [payments]}}")),
    );
    Prover::new(&index, NOW, session).confined()
}

#[test]
fn policies_in_cedar_are_proved_to_stay_in_their_namespaces() {
    let test = "policies_in_cedar_are_proved_to_stay_in_their_namespaces";
    for text in [
        "permit(principal, action, resource);",
        "forbid(principal, action, resource) when { context.conn.port * 9223372036854775807 > 0 };",
        "permit(principal, action, resource in Mesh::Namespace::\"cluster.local/shop\");",
    ] {
        let Some(session) = solver(test) else { return };
        let found = boundaries(session, &cedar("payments", text));
        let [(id, Confinement::Proved { .. })] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(id, "CedarPolicy/payments/written/0");
    }
}

#[test]
fn who_lies_proves_no_boundary() {
    for name in ["unsat", "crash", "unknown", "yes-sayer"] {
        let Ok(session) = Session::open(&fake(name), PATIENCE) else {
            continue;
        };
        let found = boundaries(
            session,
            &cedar("payments", "permit(principal, action, resource);"),
        );
        assert!(
            matches!(found[..], [(_, Confinement::Unknown { .. })]),
            "{name}: {found:?}"
        );
    }
}
