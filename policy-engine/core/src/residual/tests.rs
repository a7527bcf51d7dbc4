//! Programs beside Cedar, by random policies; each operator alone is in [`operators`].

use super::*;
use crate::fuzzing::{Tally, compare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

mod operators;
mod speed;

/// Bytes that a random policy and its questions use up, about.
const BYTES: std::ops::Range<usize> = 0..320;

/// Random policies beside Cedar. Fails with the bytes, shrunk, and with both answers.
fn against_cedar(policies: u32) -> Tally {
    let config = Config {
        cases: policies,
        failure_persistence: None,
        ..Config::default()
    };
    let tally = std::cell::RefCell::new(Tally::default());
    TestRunner::new(config)
        .run(&proptest::collection::vec(any::<u8>(), BYTES), |bytes| {
            compare(&bytes, &mut tally.borrow_mut());
            Ok(())
        })
        .unwrap();
    tally.into_inner()
}

#[test]
fn programs_answer_as_cedar_does() {
    let tally = against_cedar(10_000);
    println!("{tally:#?}");
    let answers = |name: &str| tally.answers.get(name).copied().unwrap_or_default();
    assert!(tally.answers.values().sum::<u64>() >= 20_000, "too few");
    assert!(tally.valid * 2 > tally.policies, "most are valid");
    let unsupported: u64 = tally.unsupported.values().sum();
    assert!(unsupported * 20 < tally.valid, "most valid ones compile");
    for kind in ["Holds(true)", "Holds(false)", "Absent", "Overflow", "Extension", "Type"] {
        assert!(answers(kind) > 50, "{kind} was hardly seen");
    }
    assert_eq!(answers("Unexpected"), 0);
}

#[test]
#[ignore = "half an hour"]
fn programs_answer_as_cedar_does_two_million_times() {
    let tally = against_cedar(600_000);
    println!("{tally:#?}");
    assert!(tally.answers.values().sum::<u64>() >= 2_000_000);
}
