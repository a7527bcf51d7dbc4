//! When an endpoint is left out for its answers, and for how long: by failures in a row, and by the share of successes.

/// A breaker. The two rules stand beside each other: either opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row; 0 counts as 1.
    pub failures_max: u32,
    /// How long the endpoint is left out the first time, in microseconds; doubled each time that its trial fails.
    pub penalty_min_us: u64,
    /// The longest time, before jitter.
    pub penalty_max_us: u64,
    /// Up to this share of each penalty is added at random, in percent.
    pub jitter_percent: u32,
    /// The share of successes, if that counts.
    pub success_rate: Option<SuccessRate>,
    /// The share of all endpoints that may be left out for their answers at one time, in percent: what would be more
    /// stays, however it answers.
    pub ejected_percent_max: u32,
}

/// The share of successes below which an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// In percent of the requests of the window; 1 to 100.
    pub percent_min: u32,
    /// How far back requests count, in microseconds.
    pub window_us: u64,
    /// Requests below which their share means nothing.
    pub requests_min: u32,
}

impl Breaker {
    /// How long an endpoint is left out after `penalties` others in a row.
    pub(super) fn penalty_us(&self, penalties: u32, random: u64) -> u64 {
        let doubled = self.penalty_min_us.saturating_mul(1 << penalties.min(30));
        let longest = doubled.min(self.penalty_max_us.max(self.penalty_min_us));
        let jitter = longest.saturating_mul(u64::from(self.jitter_percent)) / 100;
        longest.saturating_add(random % (jitter + 1))
    }

    /// Whether one more of `all` endpoints may be left out where `others` are.
    pub(super) fn may_eject(&self, others: usize, all: usize) -> bool {
        let (others, all) = (others as u64, all as u64);
        (others + 1) * 100 <= all * u64::from(self.ejected_percent_max)
    }
}

/// Parts of a window: what counts is at most a tenth of it too much or too little.
const PARTS: usize = 10;

/// What became of the requests of a window that goes along with time.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    parts: [Part; PARTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Which one, counted from the beginning of time.
    number: u64,
    succeeded: u32,
    failed: u32,
}

impl Outcomes {
    /// A request ended.
    pub(super) fn add(&mut self, succeeded: bool, rate: &SuccessRate, now_us: u64) {
        let number = now_us / part_us(rate);
        let place = usize::try_from(number % PARTS as u64).unwrap_or_default();
        let Some(part) = self.parts.get_mut(place) else {
            return;
        };
        if part.number != number {
            *part = Part {
                number,
                ..Part::default()
            };
        }
        let count = if succeeded {
            &mut part.succeeded
        } else {
            &mut part.failed
        };
        *count = count.saturating_add(1);
    }

    /// Whether too few of them succeeded.
    pub(super) fn too_few(&self, rate: &SuccessRate, now_us: u64) -> bool {
        let now = now_us / part_us(rate);
        let live = self.parts.iter();
        let live = live.filter(|part| now.saturating_sub(part.number) < PARTS as u64);
        let (succeeded, failed) = live.fold((0_u64, 0_u64), |(succeeded, failed), part| {
            (
                succeeded + u64::from(part.succeeded),
                failed + u64::from(part.failed),
            )
        });
        let all = succeeded + failed;
        all >= u64::from(rate.requests_min.max(1))
            && succeeded * 100 < all * u64::from(rate.percent_min)
    }
}

fn part_us(rate: &SuccessRate) -> u64 {
    (rate.window_us / PARTS as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: SuccessRate = SuccessRate {
        percent_min: 80,
        window_us: 10_000_000,
        requests_min: 5,
    };

    fn of(all: &[(u64, bool)]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for (at, succeeded) in all {
            outcomes.add(*succeeded, &RATE, *at);
        }
        outcomes
    }

    #[test]
    fn a_share_needs_requests_and_is_compared_exactly() {
        let four = [(0, false); 4];
        assert!(!of(&four).too_few(&RATE, 0), "too few requests");
        assert!(of(&[(0, false); 5]).too_few(&RATE, 0));
        let eighty = [(0, true), (0, true), (0, true), (0, true), (0, false)];
        assert!(!of(&eighty).too_few(&RATE, 0), "80 % is enough");
        let less = [eighty.as_slice(), &[(0, false)]].concat();
        assert!(of(&less).too_few(&RATE, 0));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let old = of(&[(0, false); 9]);
        assert!(old.too_few(&RATE, 9_999_999));
        assert!(!old.too_few(&RATE, 10_000_000));
    }

    #[test]
    fn the_bound_is_never_passed() {
        let breaker = |ejected_percent_max| Breaker {
            failures_max: 1,
            penalty_min_us: 1,
            penalty_max_us: 1,
            jitter_percent: 0,
            success_rate: None,
            ejected_percent_max,
        };
        assert!(breaker(100).may_eject(0, 1));
        assert!(!breaker(50).may_eject(0, 1), "the only one stays");
        assert!(breaker(50).may_eject(0, 2) && !breaker(50).may_eject(1, 2));
        assert!(breaker(34).may_eject(0, 3) && !breaker(33).may_eject(0, 3));
        assert!(!breaker(0).may_eject(0, 1_000));
    }

    proptest! {
        /// Against the plain count of all that ended in the parts of the window.
        #[test]
        fn the_window_counts_what_a_list_counts(
            steps in prop::collection::vec((0_u64..3_000_000, any::<bool>()), 1..60),
        ) {
            let (mut now, mut all) = (0, Vec::new());
            let mut outcomes = Outcomes::default();
            for (pause, succeeded) in steps {
                now += pause;
                outcomes.add(succeeded, &RATE, now);
                all.push((now / 1_000_000, succeeded));
                let live: Vec<bool> = all
                    .iter()
                    .filter(|(part, _)| now / 1_000_000 - part < 10)
                    .map(|(_, succeeded)| *succeeded)
                    .collect();
                let good = live.iter().filter(|succeeded| **succeeded).count();
                let want = live.len() >= 5 && good * 100 < live.len() * 80;
                prop_assert_eq!(outcomes.too_few(&RATE, now), want);
            }
        }
    }
}
