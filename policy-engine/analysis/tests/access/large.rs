//! Ten thousand grants over a thousand workloads: a seeded violation is found, and in time.

use crate::world::{NOW, SETTING, home, index, key, large, seeded};
use mesh_policy::Snapshot;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy_analysis::access::{matrix, who_can};
use mesh_policy_analysis::diff::diff;
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::replay::Replay;

#[test]
fn one_grant_among_ten_thousand_is_found_by_diff_and_by_prove() {
    let text = large(1_000, 10_000);
    let (before, after) = (index(&text), index(&(text + &seeded())));
    let found = diff(&before, &after, SETTING).unwrap();
    assert_eq!(
        (found.gained.len(), found.lost.len(), found.exact),
        (1, 0, true)
    );
    let gained = &found.gained[0].access;
    assert_eq!(gained.who, ["dev/laptop"]);
    assert_eq!(
        gained.reasons[0].policy,
        "AuthorizationPolicy/payments/quick-fix/0"
    );
    assert_eq!(
        Replay::new(&after, NOW).decide(&gained.witness).verdict,
        Verdict::Allow
    );
    assert_eq!(
        Replay::new(&before, NOW).decide(&gained.witness).verdict,
        Verdict::Deny
    );

    let question = Question::NoPath(
        Selector::parse("dev").unwrap(),
        Selector::parse("payments").unwrap(),
    );
    assert!(matches!(
        prove(&before, &question, NOW),
        Proof::Holds { .. }
    ));
    let Proof::Violated { witness, .. } = prove(&after, &question, NOW) else {
        panic!("not found")
    };
    assert_eq!(
        Replay::new(&after, NOW).decide(&witness[0].request).verdict,
        Verdict::Allow
    );
}

#[test]
#[ignore = "prints times, asserts nothing"]
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the real clock"
)]
fn times_at_ten_thousand_grants() {
    let start = std::time::Instant::now();
    let at = |what: &str| {
        println!(
            "{what}: {:.2} s since the start",
            start.elapsed().as_secs_f64()
        )
    };
    let text = large(1_000, 10_000);
    let before = index(&text);
    at("first set read");
    let after = index(&(text.clone() + &seeded()));
    at("second set read");
    diff(&before, &after, SETTING).unwrap();
    at("diff, one grant more");
    let other = index(&large(1_000, 9_000));
    at("third set read");
    let found = diff(&before, &other, SETTING).unwrap();
    at(&format!(
        "diff, a thousand workloads changed ({} lost)",
        found.lost.len()
    ));
    let data = after
        .snapshot(&key("payments", "ledger"), Generation::default())
        .unwrap();
    who_can(
        &key("payments", "ledger"),
        &Snapshot::compile(data).unwrap(),
        8080,
        SETTING,
        None,
    )
    .unwrap();
    at("who can");
    let question = Question::NoPath(
        Selector::parse("dev").unwrap(),
        Selector::parse("payments").unwrap(),
    );
    prove(&before, &question, NOW);
    at("no path");
    matrix(&before, &home(), SETTING).unwrap();
    at("matrix");
}
