//! A share of what `trials` runs for longer, and that it can fail at all.

use mesh_policy_trials::equality::{self, Tally, try_bytes, try_seed};
use mesh_policy_trials::{laws, random::Random};

#[test]
fn matcher_cedar_and_the_plain_reading_agree_and_all_outcomes_occur() {
    let mut tally = Tally::default();
    for seed in 1..=60 {
        try_seed(seed, 200, &mut tally).unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(tally.triples > 8_000, "{tally:?}");
    assert!(tally.plain > tally.triples / 2, "{tally:?}");
    assert!(tally.audit > 20 && tally.break_glass > 10, "{tally:?}");
    for outcome in [
        "allow in permit",
        "deny in transport",
        "deny in server",
        "deny in request",
        "deny in route",
        "deny in forbid",
        "deny in permit",
    ] {
        let share = tally.outcomes.get(outcome).copied().unwrap_or_default();
        assert!(share > tally.triples / 500, "{outcome}: {tally:?}");
    }
}

#[test]
fn every_law_holds_and_every_change_changes_something() {
    let mut tally = laws::Tally::default();
    for seed in 1..=60 {
        laws::try_seed(seed, 30, &mut tally).unwrap_or_else(|why| panic!("{why}"));
    }
    assert_eq!(tally.compared.len(), 8, "{tally:?}");
    assert!(tally.changed > 100, "{tally:?}");
}

#[test]
fn any_bytes_make_a_mesh() {
    try_bytes(&[]).unwrap();
    for seed in 0..20 {
        let bytes = Random::new(seed).bytes(equality::MESH_BYTES);
        for length in [1, 7, 99, bytes.len()] {
            try_bytes(&bytes[..length]).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}
