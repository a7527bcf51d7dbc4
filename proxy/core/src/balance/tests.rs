//! Distribution, herd, ejection and return; any history against the plain rules.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: u64 = 1_000;
const SEC: u64 = 1_000_000;

/// SplitMix64: enough randomness for tests, the same each time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Endpoints with one share each.
pub(super) fn even<E>(all: impl IntoIterator<Item = E>) -> impl Iterator<Item = (E, u32)> {
    all.into_iter().map(|one| (one, 1))
}

fn balancer(count: usize) -> Balancer<usize> {
    let mut balancer = Balancer::new(BalanceConfig::default());
    balancer.update(even(0..count), 0);
    balancer
}

fn picked(balancer: &Balancer<usize>, random: u64, now_us: u64) -> EndpointId {
    match balancer.pick(random, now_us) {
        Pick::Endpoint(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_endpoints_there_is_none_to_pick() {
    let mut balancer = balancer(0);
    assert_eq!(balancer.pick(7, 0), Pick::Empty);
    assert!(balancer.update(even([1]), 0).is_empty());
    assert_eq!(balancer.update([], 0), vec![1]);
    assert_eq!(balancer.pick(u64::MAX, 0), Pick::Empty);
}

#[test]
fn reports_about_endpoints_that_left_change_nothing() {
    let mut balancer = balancer(1);
    let gone = picked(&balancer, 0, 0);
    balancer.on_start(gone);
    balancer.update(even([9]), 1);
    balancer.on_end(gone, Outcome::Answered, 0, 2, 0);
    balancer.on_connect_failed(gone, 0, 2);
    assert_eq!(balancer.get(gone), None);
    assert_eq!(balancer.get(picked(&balancer, 0, 2)), Some(&9));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_left_out_for_longer_each_time() {
    let mut balancer = balancer(2);
    let id = balancer.endpoints[0].id;
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        balancer.on_connect_failed(id, 0, now);
        let Health::Ejected { until_us, .. } = balancer.endpoints[0].health else {
            panic!("not ejected")
        };
        waits.push((until_us - now) / MS);
        for random in 0..64 {
            assert_ne!(
                picked(&balancer, random << 58, until_us - 1),
                id,
                "left out"
            );
        }
        now = until_us;
        assert_eq!(balancer.ready(now), 2, "may be tried");
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
}

#[test]
fn many_failures_of_one_connect_count_once() {
    let mut balancer = balancer(1);
    let id = balancer.endpoints[0].id;
    for _ in 0..100 {
        balancer.on_connect_failed(id, 0, 5);
    }
    assert_eq!(
        balancer.pick(0, 5),
        Pick::AllEjected {
            retry_at_us: 5 + 100 * MS
        }
    );
}

#[test]
fn a_returning_endpoint_gets_one_trial_before_all_requests() {
    let mut balancer = balancer(1);
    let id = balancer.endpoints[0].id;
    balancer.on_connect_failed(id, 0, 0);
    let back = 100 * MS;
    assert_eq!(
        balancer.pick(0, back - 1),
        Pick::AllEjected { retry_at_us: back }
    );
    assert_eq!(balancer.pick(0, back), Pick::Endpoint(id));
    balancer.on_start(id);
    assert!(
        matches!(balancer.pick(0, back), Pick::AllEjected { .. }),
        "the trial is under way"
    );
    balancer.on_end(id, Outcome::Cancelled, back, back + 1, 0);
    assert_eq!(
        balancer.pick(0, back + 1),
        Pick::Endpoint(id),
        "a cancelled trial says nothing: the next may try"
    );
    balancer.on_start(id);
    balancer.on_end(id, Outcome::Answered, back + 1, back + 2, 0);
    balancer.on_start(id);
    assert_eq!(
        balancer.pick(0, back + 2),
        Pick::Endpoint(id),
        "ready again"
    );
}

#[test]
fn returns_are_spread() {
    let until = |random| {
        let mut balancer = balancer(1);
        let id = balancer.endpoints[0].id;
        balancer.on_connect_failed(id, random, 0);
        match balancer.pick(0, 0) {
            Pick::AllEjected { retry_at_us } => retry_at_us,
            other => panic!("{other:?}"),
        }
    };
    let mut rng = Rng(1);
    let times: std::collections::BTreeSet<u64> = (0..50).map(|_| until(rng.next())).collect();
    assert!(times.len() > 40, "{times:?}");
    assert!(
        times.iter().all(|time| (50 * MS..=100 * MS).contains(time)),
        "{times:?}"
    );
}

#[test]
fn survivors_keep_their_load_and_health() {
    let mut balancer = balancer(3);
    let ids: Vec<EndpointId> = balancer
        .endpoints
        .iter()
        .map(|endpoint| endpoint.id)
        .collect();
    balancer.on_start(ids[0]);
    balancer.on_connect_failed(ids[2], 0, 0);
    assert_eq!(balancer.update(even([2, 0, 7, 7]), 10), vec![1]);
    assert_eq!(balancer.len(), 3);
    assert_eq!(
        (balancer.get(ids[0]), balancer.get(ids[2])),
        (Some(&0), Some(&2))
    );
    assert_eq!(balancer.endpoints[0].pending, 1);
    assert_eq!(balancer.ready(10), 2, "the failed one is still left out");
}

#[test]
fn equal_endpoints_share_evenly() {
    let mut rng = Rng(3);
    let balancer = balancer(5);
    let mut counts = BTreeMap::new();
    for _ in 0..50_000 {
        *counts.entry(picked(&balancer, rng.next(), 0)).or_insert(0) += 1;
    }
    assert!(
        counts.values().all(|count| (9_500..10_500).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn a_slow_endpoint_gets_little() {
    let mut rng = Rng(4);
    let mut balancer = balancer(4);
    let mut counts = BTreeMap::new();
    for step in 0..4_000 {
        let now = step * MS;
        let id = picked(&balancer, rng.next(), now);
        balancer.on_start(id);
        let address = *balancer.get(id).unwrap();
        *counts.entry(address).or_insert(0) += 1;
        let took = if address == 0 { 200 * MS } else { MS };
        balancer.on_end(id, Outcome::Answered, now, now + took, 0);
    }
    assert!(counts[&0] < 100, "{counts:?}");
}

#[test]
fn requests_that_arrive_together_do_not_run_to_one_endpoint() {
    let mut rng = Rng(5);
    let mut balancer = balancer(10);
    // One endpoint has answered fast, the others are unknown: least-loaded would give it everything until it answers.
    let idle = balancer.endpoints[0].id;
    balancer.on_start(idle);
    balancer.on_end(idle, Outcome::Answered, 0, 100, 0);
    balancer.endpoints[0].rtt_us = 15_000.0;
    let mut counts = BTreeMap::new();
    for _ in 0..1_000 {
        let id = picked(&balancer, rng.next(), 100);
        balancer.on_start(id);
        *counts.entry(id).or_insert(0) += 1;
    }
    assert!(counts[&idle] < 250, "{counts:?}");
    assert!(counts.values().all(|count| *count > 50), "{counts:?}");
}

#[test]
fn a_slow_answer_is_forgotten_with_time() {
    let mut balancer = balancer(2);
    let id = balancer.endpoints[0].id;
    balancer.on_start(id);
    balancer.on_end(id, Outcome::Answered, 0, SEC, 0);
    let config = balancer.config;
    let (soon, late) = (
        balancer.endpoints[0].expected_wait(SEC, &config),
        balancer.endpoints[0].expected_wait(60 * SEC, &config),
    );
    assert!(soon >= 1_000_000.0 && late < 10_000.0, "{soon} {late}");
}

const BREAKER: Breaker = Breaker {
    failures_max: 3,
    penalty_min_us: SEC,
    penalty_max_us: 60 * SEC,
    jitter_percent: 0,
    success_rate: None,
    ejected_percent_max: 100,
};

/// One endpoint with a breaker.
fn guarded() -> (Balancer<usize>, EndpointId) {
    let mut balancer = balancer(1);
    balancer.set_breaker(Some(BREAKER));
    let id = balancer.endpoints[0].id;
    (balancer, id)
}

/// One request at `now_us`, at once over.
fn exchange(balancer: &mut Balancer<usize>, id: EndpointId, outcome: Outcome, now_us: u64) {
    balancer.on_start(id);
    balancer.on_end(id, outcome, now_us, now_us, 0);
}

fn opens_at(balancer: &Balancer<usize>, now_us: u64) -> Option<u64> {
    match balancer.pick(0, now_us) {
        Pick::AllEjected { retry_at_us } => Some(retry_at_us),
        Pick::Endpoint(_) => None,
        Pick::Empty => panic!("there is one"),
    }
}

#[test]
fn failures_in_a_row_open_the_breaker_and_others_do_not() {
    for (outcomes, open) in [
        (&[Outcome::Rejected; 2][..], false),
        (&[Outcome::Rejected; 3], true),
        (&[Outcome::Failed; 3], true),
        (
            &[Outcome::Rejected, Outcome::Failed, Outcome::Rejected],
            true,
        ),
        (
            &[
                Outcome::Rejected,
                Outcome::Rejected,
                Outcome::Answered,
                Outcome::Rejected,
            ],
            false,
        ),
        (
            &[
                Outcome::Rejected,
                Outcome::Cancelled,
                Outcome::Rejected,
                Outcome::Rejected,
            ],
            true, // who left says nothing
        ),
    ] {
        let (mut balancer, id) = guarded();
        for outcome in outcomes {
            exchange(&mut balancer, id, *outcome, 5);
        }
        assert_eq!(
            opens_at(&balancer, 5),
            open.then_some(5 + SEC),
            "{outcomes:?}"
        );
    }
}

#[test]
fn an_answer_is_a_failure_of_its_endpoint_or_of_its_request() {
    for (status, code, want) in [
        (200, None, Outcome::Answered),
        (404, None, Outcome::Answered),
        (499, None, Outcome::Answered),
        (500, None, Outcome::Rejected),
        (503, None, Outcome::Rejected),
        (200, Some(0), Outcome::Answered),
        (200, Some(7), Outcome::Answered),
        (200, Some(12), Outcome::Answered),
        (200, Some(14), Outcome::Rejected),
        (200, Some(4), Outcome::Rejected),
    ] {
        assert_eq!(Outcome::of_answer(status, code), want, "{status} {code:?}");
    }
}

#[test]
fn without_a_breaker_answers_leave_nobody_out() {
    let mut balancer = balancer(1);
    let id = balancer.endpoints[0].id;
    for _ in 0..100 {
        exchange(&mut balancer, id, Outcome::Rejected, 5);
    }
    assert_eq!(opens_at(&balancer, 5), None);
}

#[test]
fn probation_is_one_request_and_penalties_double() {
    let (mut balancer, id) = guarded();
    for _ in 0..3 {
        exchange(&mut balancer, id, Outcome::Rejected, 0);
    }
    let mut now = 0;
    for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(opens_at(&balancer, now), Some(now + secs * SEC));
        now += secs * SEC;
        balancer.on_start(id);
        assert!(opens_at(&balancer, now).is_some(), "only one may try");
        balancer.on_end(id, Outcome::Rejected, now, now, 0);
    }
    now += 60 * SEC;
    exchange(&mut balancer, id, Outcome::Answered, now);
    assert_eq!(opens_at(&balancer, now), None, "closed again");
    for _ in 0..3 {
        exchange(&mut balancer, id, Outcome::Rejected, now);
    }
    assert_eq!(
        opens_at(&balancer, now),
        Some(now + SEC),
        "as the first time"
    );
}

#[test]
fn what_began_before_the_breaker_opened_neither_closes_it_nor_spends_the_trial() {
    let (mut balancer, id) = guarded();
    balancer.on_start(id);
    balancer.on_start(id);
    for _ in 0..3 {
        exchange(&mut balancer, id, Outcome::Rejected, 10);
    }
    balancer.on_end(id, Outcome::Answered, 5, 20, 0);
    assert_eq!(opens_at(&balancer, 20), Some(10 + SEC));
    let trial = 10 + SEC;
    balancer.on_start(id);
    balancer.on_end(id, Outcome::Rejected, 6, trial, 0);
    assert!(
        opens_at(&balancer, trial).is_some(),
        "the trial is under way"
    );
    balancer.on_end(id, Outcome::Answered, trial, trial + 1, 0);
    assert_eq!(opens_at(&balancer, trial + 1), None);
}

#[test]
fn penalties_are_spread_upwards() {
    let breaker = Breaker {
        jitter_percent: 50,
        ..BREAKER
    };
    let mut rng = Rng(9);
    let waits: std::collections::BTreeSet<u64> =
        (0..50).map(|_| breaker.penalty_us(1, rng.next())).collect();
    assert!(waits.len() > 40, "{waits:?}");
    assert!(
        waits.iter().all(|wait| (2 * SEC..=3 * SEC).contains(wait)),
        "{waits:?}"
    );
    let odd = Breaker {
        penalty_max_us: 1,
        ..BREAKER
    };
    assert_eq!(
        odd.penalty_us(0, 7),
        SEC,
        "a maximum below the minimum is the minimum"
    );
}

proptest! {
    #[test]
    fn two_places_are_different_and_below_the_count(count in 1usize..200, random in any::<u64>()) {
        let (first, second) = two_of(count, random);
        prop_assert!(first < count);
        match second {
            Some(second) => prop_assert!(second < count && second != first),
            None => prop_assert_eq!(count, 1),
        }
    }

    /// The plain oracle: a pick is always a member that is ready, or there is none.
    #[test]
    fn any_history_picks_an_open_member_or_says_why(events in proptest::collection::vec((0u8..8, any::<u64>(), 0u64..400_000), 0..80)) {
        let mut balancer = balancer(3);
        let mut now = 0;
        let mut running: Vec<(EndpointId, u64)> = Vec::new();
        for (kind, random, step) in events {
            now += step;
            match kind {
                0 => { balancer.update(even((0..5).filter(|bit| random >> bit & 1 == 1)), now); }
                1 => { if let Some((id, started)) = running.pop() { balancer.on_end(id, Outcome::Answered, started, now, 0); } }
                2 => { if let Some((id, started)) = running.pop() { balancer.on_connect_failed(id, random, now); balancer.on_end(id, Outcome::Failed, started, now, 0); } }
                6 => balancer.set_breaker((random % 3 > 0).then_some(BREAKER)),
                7 => { if let Some((id, started)) = running.pop() { balancer.on_end(id, Outcome::Rejected, started, now, random); } }
                3 => { if let Some((id, started)) = running.pop() { balancer.on_end(id, Outcome::Cancelled, started, now, 0); } }
                _ => match balancer.pick(random, now) {
                    Pick::Endpoint(id) => {
                        prop_assert!(balancer.get(id).is_some());
                        prop_assert!(balancer.endpoints.iter().any(|e| e.id == id && e.is_open(now)));
                        balancer.on_start(id);
                        running.push((id, now));
                    }
                    Pick::AllEjected { retry_at_us } => {
                        prop_assert!(retry_at_us > now);
                        prop_assert_eq!(balancer.ready(now), 0);
                    }
                    Pick::Empty => prop_assert!(balancer.is_empty()),
                },
            }
        }
    }
}
