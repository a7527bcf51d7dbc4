//! How endpoints share requests: by requests under way, by weight, while they are new, by key; and what a breaker on the
//! share of successes leaves.

use super::tests::even;
use super::*;
use proptest::prelude::*;

const SEC: u64 = 1_000_000;

fn balancer(count: usize) -> Balancer<usize> {
    let mut balancer = Balancer::new(BalanceConfig::default());
    balancer.update(even(0..count), 0);
    balancer
}

/// Gives each endpoint its share.
fn weigh(balancer: &mut Balancer<usize>, weight_of: impl Fn(usize) -> u32) {
    balancer.update((0..balancer.len()).map(|one| (one, weight_of(one))), 0);
}

/// What 20,000 requests that are over at once get, by endpoint.
fn counted(balancer: &Balancer<usize>, now_us: u64) -> Vec<f64> {
    let mut counts = vec![0.0; balancer.len()];
    for number in 0..20_000_u64 {
        let Pick::Endpoint(id) = balancer.pick(mixed(number), now_us) else {
            panic!("none is open")
        };
        counts[*balancer.get(id).unwrap()] += 1.0 / 20_000.0;
    }
    counts
}

#[test]
fn least_request_looks_at_requests_alone() {
    let mut balancer = balancer(2);
    let (slow, fast) = (balancer.endpoints[0].id, balancer.endpoints[1].id);
    balancer.on_start(slow);
    balancer.on_end(slow, Outcome::Answered, 0, 5 * SEC, 0);
    balancer.on_start(fast);
    for random in 0..64 {
        let pick = balancer.pick(random << 58, 5 * SEC);
        assert_eq!(pick, Pick::Endpoint(fast), "by latency");
    }
    balancer.set_load(Load::Requests, 0);
    for random in 0..64 {
        let pick = balancer.pick(random << 58, 5 * SEC);
        assert_eq!(pick, Pick::Endpoint(slow), "by requests");
    }
}

#[test]
fn weights_share_what_comes_while_nothing_waits() {
    for load in [Load::PeakEwma, Load::Requests] {
        let mut balancer = balancer(3);
        balancer.set_load(load, 0);
        weigh(&mut balancer, |one| [1, 3, 0][one]);
        let shares = counted(&balancer, 0);
        for (share, want) in shares.iter().zip([0.2, 0.6, 0.2]) {
            assert!((share - want).abs() < 0.02, "{load:?}: {shares:?}");
        }
        // Three requests under way make a share of three a share of less than one.
        let heavy = balancer.endpoints[1].id;
        (0..3).for_each(|_| balancer.on_start(heavy));
        let shares = counted(&balancer, 0);
        assert!(shares[1] < shares[0] + 0.02, "{load:?}: {shares:?}");
        weigh(&mut balancer, |_| 1);
        assert!(!balancer.uneven, "two choices again");
    }
}

#[test]
fn shares_hold_however_long_nobody_asked() {
    let mut balancer = balancer(3);
    weigh(&mut balancer, |one| [1, 3, 1][one]);
    let after = 3 * 3_600 * SEC;
    let shares = counted(&balancer, after);
    for (share, want) in shares.iter().zip([0.2, 0.6, 0.2]) {
        assert!((share - want).abs() < 0.02, "{shares:?}");
    }
    // Requests under way count, though the latency is forgotten.
    let heavy = balancer.endpoints[1].id;
    (0..11).for_each(|_| balancer.on_start(heavy));
    let shares = counted(&balancer, after);
    assert!(shares[1] < 0.15, "a twelfth of three: {shares:?}");
    weigh(&mut balancer, |_| 1);
    let shares = counted(&balancer, after);
    assert_eq!(shares[1], 0.0, "of two the one with less load");
}

#[test]
fn an_endpoint_that_joins_gets_more_as_it_grows_old() {
    let mut balancer = balancer(2);
    balancer.set_load(Load::Requests, 100 * SEC);
    assert!((counted(&balancer, 0)[0] - 0.5).abs() < 0.02, "none joined");
    balancer.update(even(0..3), 1_000 * SEC);
    for (age, want) in [(0, 0.1 / 2.1), (10, 0.1 / 2.1), (50, 0.5 / 2.5), (99, 0.33)] {
        let shares = counted(&balancer, (1_000 + age) * SEC);
        assert!((shares[2] - want).abs() < 0.02, "{age} s: {shares:?}");
    }
    let shares = counted(&balancer, 1_100 * SEC);
    assert!((shares[2] - 0.333).abs() < 0.02, "{shares:?}");
}

#[test]
fn a_key_has_one_endpoint_and_a_weight_its_part_of_the_keys() {
    let mut balancer = balancer(4);
    weigh(&mut balancer, |one| if one == 2 { 3 } else { 1 });
    let place = |address: &usize| mixed(*address as u64 + 77);
    let mut counts = [0.0_f64; 4];
    for key in 0..20_000 {
        let pick = balancer.pick_by_key(mixed(key), 0, place);
        assert_eq!(pick, balancer.pick_by_key(mixed(key), 9, place));
        let Pick::Endpoint(id) = pick else { panic!() };
        counts[*balancer.get(id).unwrap()] += 1.0 / 20_000.0;
    }
    for (share, want) in counts.iter().zip([1.0, 1.0, 3.0, 1.0]) {
        assert!((share - want / 6.0).abs() < 0.02, "{counts:?}");
    }
    assert_eq!(
        Balancer::<usize>::new(BalanceConfig::default()).pick_by_key(1, 0, place),
        Pick::Empty
    );
}

#[test]
fn another_than_one_is_drawn_of_the_others() {
    let balancer = balancer(3);
    let one = balancer.endpoints[1].id;
    for random in 0..1_000 {
        let other = balancer.pick_other(one, mixed(random), 0);
        assert!(other.is_some_and(|id| id != one));
    }
    let alone = self::balancer(1);
    assert_eq!(alone.pick_other(alone.endpoints[0].id, 3, 0), None);
}

#[test]
fn who_was_outrun_counts_as_slow_and_has_not_failed() {
    let mut balancer = balancer(1);
    let id = balancer.endpoints[0].id;
    balancer.on_outrun(id, 9 * SEC, 9 * SEC);
    assert!(balancer.endpoints[0].rtt_us >= 9e6);
    balancer.on_outrun(id, 1, 10 * SEC);
    assert!(
        balancer.endpoints[0].rtt_us >= 9e6,
        "it says no less than was known"
    );
    assert_eq!(balancer.endpoints[0].health, Health::Ready);
    assert_eq!(balancer.endpoints[0].strikes, 0);
}

#[test]
fn who_never_answers_in_time_is_not_preferred_for_that() {
    // One endpoint hangs, the other answers in 5 ms. A first client waits 30 s, all later ones 1 s.
    let mut balancer = balancer(2);
    let (hangs, answers) = (balancer.endpoints[0].id, balancer.endpoints[1].id);
    balancer.on_outrun(hangs, 30 * SEC, 30 * SEC);
    let (mut now, mut to_hanging, mut random) = (30 * SEC, 0, 7);
    for _ in 0..3_000 {
        now += SEC / 10;
        random = mixed(random);
        let Pick::Endpoint(id) = balancer.pick(random, now) else {
            panic!("there are endpoints");
        };
        balancer.on_start(id);
        if id == hangs {
            to_hanging += 1;
            balancer.on_end(id, Outcome::Cancelled, now, now + SEC, random);
            balancer.on_outrun(id, SEC, now + SEC);
        } else {
            balancer.on_end(answers, Outcome::Answered, now, now + 5_000, random);
        }
    }
    // What is left of a second is less than 5 ms after 53 s: it is asked again now and then.
    assert!(to_hanging < 60, "{to_hanging} of 3,000");
}

const BREAKER: Breaker = Breaker {
    failures_max: 1_000,
    penalty_min_us: SEC,
    penalty_max_us: 60 * SEC,
    jitter_percent: 0,
    success_rate: Some(SuccessRate {
        percent_min: 80,
        window_us: 10 * SEC,
        requests_min: 5,
    }),
    ejected_percent_max: 100,
};

fn exchange(balancer: &mut Balancer<usize>, id: EndpointId, good: bool, now_us: u64) {
    balancer.on_start(id);
    let outcome = if good {
        Outcome::Answered
    } else {
        Outcome::Rejected
    };
    balancer.on_end(id, outcome, now_us, now_us, 0);
}

#[test]
fn too_few_successes_leave_an_endpoint_out_though_no_two_failures_are_in_a_row() {
    let mut balancer = balancer(1);
    balancer.set_breaker(Some(BREAKER));
    let id = balancer.endpoints[0].id;
    for good in [true, false, true] {
        exchange(&mut balancer, id, good, 0);
    }
    assert_eq!(balancer.ready(0), 1, "too few requests");
    exchange(&mut balancer, id, true, 0);
    exchange(&mut balancer, id, false, 0);
    assert_eq!(balancer.ready(0), 0, "three of five");
    assert_eq!(balancer.ready(SEC), 1, "its trial");
    exchange(&mut balancer, id, false, SEC);
    assert_eq!(balancer.ready(2 * SEC), 0, "twice as long, for one failure");
    assert_eq!(balancer.ready(3 * SEC), 1);
    exchange(&mut balancer, id, true, 3 * SEC);
    exchange(&mut balancer, id, false, 3 * SEC);
    assert_eq!(
        balancer.ready(3 * SEC),
        1,
        "what was before its trial is forgotten"
    );
}

#[test]
fn no_more_endpoints_are_left_out_than_the_bound_says() {
    let mut balancer = balancer(4);
    balancer.set_breaker(Some(Breaker {
        failures_max: 1,
        ejected_percent_max: 50,
        ..BREAKER
    }));
    let ids: Vec<EndpointId> = balancer.endpoints.iter().map(|one| one.id).collect();
    for id in &ids {
        exchange(&mut balancer, *id, false, 0);
    }
    assert_eq!(balancer.ready(0), 2, "half of them stay, though all fail");
    // Those that were left out come back, and others may go.
    for id in &ids {
        exchange(&mut balancer, *id, true, 2 * SEC);
    }
    assert_eq!(balancer.ready(2 * SEC), 4);
    exchange(&mut balancer, ids[3], false, 2 * SEC);
    assert_eq!(balancer.ready(2 * SEC), 3);
}

proptest! {
    /// One endpoint that comes or goes moves no keys but those that it gets or had.
    #[test]
    fn keys_stay_where_they_are(
        members in prop::collection::btree_set(0_usize..40, 2..12),
        one in 0_usize..40,
        keys in prop::collection::vec(any::<u64>(), 50),
        weights in prop::collection::vec(1_u32..5, 40),
    ) {
        let place = |address: &usize| mixed(*address as u64);
        let owners = |members: &std::collections::BTreeSet<usize>| -> Vec<usize> {
            let mut balancer = Balancer::new(BalanceConfig::default());
            balancer.update(members.iter().map(|one| (*one, weights[*one])), 0);
            let of = |key: &u64| match balancer.pick_by_key(*key, 0, place) {
                Pick::Endpoint(id) => *balancer.get(id).unwrap(),
                other => panic!("{other:?}"),
            };
            keys.iter().map(of).collect()
        };
        let before = owners(&members);
        let mut changed = members.clone();
        if !changed.remove(&one) {
            changed.insert(one);
        }
        for (before, after) in before.into_iter().zip(owners(&changed)) {
            prop_assert!(before == after || before == one || after == one);
        }
    }

    /// Whatever happens, the bound holds.
    #[test]
    fn any_history_keeps_within_the_bound(
        events in prop::collection::vec((0_usize..6, any::<bool>(), 0_u64..2_000_000), 1..200),
        percent in 0_u32..=100,
    ) {
        let mut balancer = balancer(6);
        balancer.set_breaker(Some(Breaker {
            failures_max: 2,
            ejected_percent_max: percent,
            ..BREAKER
        }));
        let mut now = 0;
        for (at, good, pause) in events {
            now += pause;
            let one = &balancer.endpoints[at];
            if one.is_open(now) {
                let id = one.id;
                exchange(&mut balancer, id, good, now);
            }
            let out = 6 - balancer.ready(now);
            prop_assert!(out * 100 <= 6 * percent as usize, "{out} of 6 are out, {percent} % may be");
        }
    }
}
