//! Solvers that are none.

use crate::world::{grant, index, pod};
use crate::{by_classes, by_solver, cedar, invariant};
use mesh_policy_analysis::prove::Proof;
use mesh_policy_index::Index;
use mesh_policy_symbolic::{Outcome, Session, SolverFault, Verdict, outcome};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn fake(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/symbolic/fakes");
    PathBuf::from(folder).join(name)
}

/// A mesh whose one claim no solver settles by looking at it: the policy that allows looks at the path.
fn mesh(path: &str) -> Index {
    let policy = cedar(
        "payments",
        &format!(
            "permit(principal is Mesh::Workload, action == Mesh::Action::\"request\", resource) when {{ context.req.path like \"{path}\" }};"
        ),
    );
    let claim = invariant(
        "forbid: 'forbid(principal, action == Mesh::Action::\"request\", resource) when { context.req.path like \"/admin/*\" };'",
    );
    index(&(pod("payments", "ledger") + &policy + &claim))
}

fn unknown(name: &str, patience: Duration) -> String {
    match by_solver(&mesh("/public/*"), &fake(name), patience) {
        Verdict::Unknown { why } => why,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn who_calls_everything_impossible_proves_nothing() {
    let why = unknown("unsat", PATIENCE);
    assert!(why.contains("no request is possible at all"), "{why}");
}

#[test]
fn who_calls_everything_impossible_is_caught_where_classes_know_better() {
    let open = mesh("/admin/*");
    let classes = by_classes(&open);
    assert!(matches!(classes, Proof::Violated { .. }), "{classes:?}");
    let verdict = by_solver(&open, &fake("unsat"), PATIENCE);
    assert!(!matches!(verdict, Verdict::Proved { .. }), "{verdict:?}");
    assert_eq!(outcome(&classes, &verdict), Outcome::Violated);
}

#[test]
fn what_is_no_request_is_no_counterexample() {
    for name in ["rubbish", "half"] {
        let why = unknown(name, PATIENCE);
        assert!(
            why.contains("no request") || why.contains("ended"),
            "{name}: {why}"
        );
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn who_does_not_answer_in_time_proves_nothing() {
    let begun = Instant::now();
    let why = unknown("hang", Duration::from_millis(300));
    assert!(why.contains("no answer within 300 ms"), "{why}");
    // A few questions, each with its time, and no more.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn who_fails_proves_nothing() {
    for (name, said) in [
        ("crash", "ended (exit status: 3)"),
        ("error", "Parse Error"),
        ("unknown", "does not know"),
    ] {
        let why = unknown(name, PATIENCE);
        assert!(why.contains(said), "{name}: {why}");
    }
}

#[test]
fn who_prints_without_end_is_not_listened_to() {
    for name in ["noise", "line"] {
        let why = unknown(name, Duration::from_secs(20));
        assert!(why.contains("more than 1048576 bytes"), "{name}: {why}");
    }
}

#[test]
fn who_is_no_solver_is_not_started_with() {
    for (name, said) in [
        ("old", "version 1.0.3; 1.3.1 is the oldest"),
        ("other", "it calls itself"),
        ("liar", "wrongly"),
        ("yes-sayer", "wrongly"),
    ] {
        match Session::open(&fake(name), PATIENCE) {
            Err(SolverFault::Unbelieved { why, .. }) => {
                assert!(why.contains(said), "{name}: {why}")
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name} was believed"),
        }
    }
    for name in ["mute", "nothing of this name"] {
        let opened = Session::open(&fake(name), PATIENCE);
        assert!(
            matches!(opened, Err(SolverFault::Unusable { .. })),
            "{name}"
        );
    }
}

/// What a solver is not needed for it cannot spoil, but a mesh in which nothing is allowed still is asked for one request.
#[test]
fn a_solver_that_knows_nothing_proves_nothing_even_where_nothing_is_allowed() {
    let claim = invariant("deny: {from: {namespaces: [dev]}, to: {namespaces: [payments]}}");
    let closed = index(&(pod("dev", "tool") + &pod("payments", "ledger") + &claim));
    let verdict = by_solver(&closed, &fake("unknown"), PATIENCE);
    assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
    let open = index(
        &(pod("dev", "tool")
            + &pod("payments", "ledger")
            + &claim
            + &grant(
                "payments",
                "g",
                "Server ledger",
                &["ServiceAccount dev/tool"],
            )),
    );
    let verdict = by_solver(&open, &fake("unsat"), PATIENCE);
    assert!(matches!(verdict, Verdict::Unknown { .. }), "{verdict:?}");
}
