//! When to renew a certificate, and what to do when that fails. The clock and the dice are arguments.
//!
//! ```text
//! Fresh --due--> Renewing --issued--> Fresh
//! Renewing --failed--> Renewing (later)      Renewing --not_after--> Expired --issued--> Fresh
//! ```
//! Renewals of a fleet that started in one minute spread over a fifth of the lifetime. Retries wait a random part of a
//! ceiling that doubles from 1 s to 5 min (full jitter), and never longer than a quarter of what is left, so that a
//! short life too has several tries.

use mesh_trust::Timestamp;

/// Ceiling of the first wait after a failure, microseconds.
const RETRY_MICROS_MIN: i64 = 1_000_000;
/// Ceiling of all waits, microseconds: 5 min.
const RETRY_MICROS_MAX: i64 = 300_000_000;
/// Shortest wait, microseconds: a CA that refuses at once is not asked in a loop.
const RETRY_MICROS_FLOOR: i64 = 100_000;

/// Where a certificate stands between two issuances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// In force; nothing to do before `renew_at`.
    Fresh {
        /// When to ask for the next.
        renew_at: Timestamp,
        /// When it ends.
        not_after: Timestamp,
    },
    /// In force, and the next is being asked for.
    Renewing {
        /// Failures so far.
        failures: u32,
        /// When to ask (again).
        retry_at: Timestamp,
        /// When it ends.
        not_after: Timestamp,
    },
    /// Ended; the next is still being asked for.
    Expired {
        /// Failures so far.
        failures: u32,
        /// When to ask again.
        retry_at: Timestamp,
        /// When it ended.
        since: Timestamp,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A certificate was issued at `issued_at`, which is not its backdated `notBefore`.
    Issued {
        /// When.
        issued_at: Timestamp,
        /// Its last moment.
        not_after: Timestamp,
    },
    /// The authority did not issue.
    Failed,
}

/// A random point of 50 to 70 % of the life between `issued_at` and `not_after`; `random` is uniform over all values.
pub fn renew_at(issued_at: Timestamp, not_after: Timestamp, random: u64) -> Timestamp {
    let life = not_after
        .unix_micros()
        .saturating_sub(issued_at.unix_micros())
        .max(0);
    Timestamp::from_unix_micros(
        issued_at
            .unix_micros()
            .saturating_add(life / 2)
            .saturating_add(part(life / 5, random)),
    )
}

impl Renewal {
    /// The state after a certificate was issued.
    pub fn issued(issued_at: Timestamp, not_after: Timestamp, random: u64) -> Self {
        Self::Fresh {
            renew_at: renew_at(issued_at, not_after, random),
            not_after,
        }
    }

    /// The state after `event`.
    #[must_use]
    pub fn step(self, event: Event, now: Timestamp, random: u64) -> Self {
        match (self, event) {
            (
                _,
                Event::Issued {
                    issued_at,
                    not_after,
                },
            ) => Self::issued(issued_at, not_after, random),
            (
                Self::Fresh {
                    renew_at,
                    not_after,
                },
                Event::Tick,
            ) if now >= renew_at => Self::Renewing {
                failures: 0,
                retry_at: now,
                not_after,
            }
            .ended(now),
            (
                Self::Fresh {
                    renew_at,
                    not_after,
                },
                Event::Tick | Event::Failed,
            ) => Self::Fresh {
                renew_at,
                not_after,
            },
            (
                Self::Renewing {
                    failures,
                    not_after,
                    ..
                },
                Event::Failed,
            ) => Self::Renewing {
                failures: failures.saturating_add(1),
                retry_at: later(now, failures, Some(not_after), random),
                not_after,
            }
            .ended(now),
            (
                Self::Expired {
                    failures, since, ..
                },
                Event::Failed,
            ) => Self::Expired {
                failures: failures.saturating_add(1),
                retry_at: later(now, failures, None, random),
                since,
            },
            (state, Event::Tick) => state.ended(now),
        }
    }

    fn ended(self, now: Timestamp) -> Self {
        match self {
            Self::Renewing {
                failures,
                retry_at,
                not_after,
            } if now > not_after => Self::Expired {
                failures,
                retry_at,
                since: not_after,
            },
            state => state,
        }
    }

    /// The state in which the next certificate is asked for at once: this one was denied.
    #[must_use]
    pub fn due_now(self, now: Timestamp) -> Self {
        match self {
            Self::Fresh { not_after, .. } | Self::Renewing { not_after, .. } => Self::Renewing {
                failures: 0,
                retry_at: now,
                not_after,
            }
            .ended(now),
            Self::Expired { since, .. } => Self::Expired {
                failures: 0,
                retry_at: now,
                since,
            },
        }
    }

    /// Whether to ask the authority now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Fresh { renew_at, .. } => now >= *renew_at,
            Self::Renewing { retry_at, .. } | Self::Expired { retry_at, .. } => now >= *retry_at,
        }
    }

    /// When to look again.
    pub fn wake_at(&self) -> Timestamp {
        match self {
            Self::Fresh { renew_at, .. } => *renew_at,
            Self::Renewing {
                retry_at,
                not_after,
                ..
            } => (*retry_at).min(not_after.plus_secs(1)),
            Self::Expired { retry_at, .. } => *retry_at,
        }
    }
}

/// A uniformly random part of `whole`.
fn part(whole: i64, random: u64) -> i64 {
    let scaled = (i128::from(whole) * i128::from(random)) >> 64;
    i64::try_from(scaled).unwrap_or(whole)
}

fn later(now: Timestamp, failures: u32, not_after: Option<Timestamp>, random: u64) -> Timestamp {
    let ceiling = RETRY_MICROS_MIN
        .saturating_mul(1i64 << failures.min(20))
        .min(RETRY_MICROS_MAX);
    let left = not_after.map_or(i64::MAX, |end| {
        end.unix_micros().saturating_sub(now.unix_micros()).max(0) / 4
    });
    let wait = part(ceiling.min(left), random).max(RETRY_MICROS_FLOOR);
    Timestamp::from_unix_micros(now.unix_micros().saturating_add(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_secs(1_795_260_000);
    const DAY: i64 = 86_400;

    /// Dice with a seed (SplitMix64).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    #[test]
    fn renewal_falls_into_half_to_seven_tenths_of_the_life() {
        let mut dice = Dice(1);
        let end = START.plus_secs(DAY);
        assert_eq!(renew_at(START, end, 0), START.plus_secs(DAY / 2));
        assert!(renew_at(START, end, u64::MAX) <= START.plus_secs(DAY * 7 / 10));
        for _ in 0..10_000 {
            let at = renew_at(START, end, dice.roll());
            assert!(
                at >= START.plus_secs(DAY / 2) && at <= START.plus_secs(DAY * 7 / 10),
                "{at}"
            );
        }
        assert_eq!(
            renew_at(end, START, u64::MAX),
            end,
            "a life that is over is renewed at once"
        );
    }

    #[test]
    fn ten_thousand_renewals_of_one_minute_spread_evenly() {
        let mut dice = Dice(2);
        let mut minutes = std::collections::BTreeMap::<i64, u32>::new();
        for n in 0..10_000 {
            let issued = START.plus_secs(n % 60);
            let at = renew_at(issued, issued.plus_secs(DAY), dice.roll());
            *minutes.entry(at.unix_secs() / 60).or_default() += 1;
        }
        let mean = 10_000.0 / (0.2 * 24.0 * 60.0);
        assert!(
            f64::from(*minutes.values().max().unwrap()) <= 3.0 * mean,
            "{:?}",
            minutes.values().max()
        );
    }

    /// Lives a day by the machine's own wake times; `works` says whether the authority issues at that moment.
    fn live(lifetime_secs: i64, seed: u64, works: impl Fn(Timestamp) -> bool) -> (u32, u32, bool) {
        let mut dice = Dice(seed);
        let (mut issued, mut failed, mut expired) = (1, 0, false);
        let mut state = Renewal::issued(START, START.plus_secs(lifetime_secs), dice.roll());
        let mut now = START;
        loop {
            let next = state
                .wake_at()
                .max(Timestamp::from_unix_micros(now.unix_micros() + 1));
            assert!(
                next.unix_micros() - now.unix_micros() <= lifetime_secs * 1_000_000,
                "it sleeps for ever"
            );
            if next >= START.plus_secs(DAY) {
                return (issued, failed, expired);
            }
            now = next;
            state = state.step(Event::Tick, now, dice.roll());
            expired |= matches!(state, Renewal::Expired { .. });
            if !state.is_due(now) {
                continue;
            }
            let event = if works(now) {
                issued += 1;
                Event::Issued {
                    issued_at: now,
                    not_after: now.plus_secs(lifetime_secs),
                }
            } else {
                failed += 1;
                Event::Failed
            };
            state = state.step(event, now, dice.roll());
        }
    }

    #[test]
    fn a_quiet_day_needs_one_renewal_of_a_day_and_dozens_of_an_hour() {
        for seed in 0..50 {
            assert!(matches!(live(DAY, seed, |_| true), (2, 0, false)));
            let (issued, failed, expired) = live(3_600, seed, |_| true);
            assert!(
                (34..=49).contains(&issued) && failed == 0 && !expired,
                "{issued}"
            );
        }
    }

    #[test]
    fn an_outage_of_seven_hours_is_survived_and_does_not_flood_the_authority() {
        for seed in 0..50 {
            let outage = |now: Timestamp| {
                !(START.plus_secs(DAY / 2)..START.plus_secs(DAY / 2 + 7 * 3_600)).contains(&now)
            };
            let (issued, failed, expired) = live(DAY, seed, outage);
            assert_eq!((issued, expired), (2, false), "seed {seed}");
            assert!(failed <= 400, "{failed} tries");
        }
    }

    #[test]
    fn an_outage_beyond_the_life_expires_and_recovers() {
        for seed in 0..50 {
            let outage = |now: Timestamp| now >= START.plus_secs(3 * 3_600);
            let (issued, failed, expired) = live(3_600, seed, outage);
            assert!(issued >= 2 && expired, "seed {seed}: {issued} {failed}");
        }
    }

    #[test]
    fn a_life_of_a_minute_has_several_tries_before_it_ends() {
        for seed in 0..50 {
            let mut dice = Dice(seed);
            let end = START.plus_secs(60);
            let mut state = Renewal::issued(START, end, dice.roll());
            let mut tries = 0;
            loop {
                let now = state.wake_at();
                state = state.step(Event::Tick, now, dice.roll());
                if matches!(state, Renewal::Expired { .. }) {
                    break;
                }
                if state.is_due(now) {
                    tries += 1;
                    state = state.step(Event::Failed, now, dice.roll());
                }
            }
            assert!(tries >= 5, "seed {seed}: {tries}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_a_renewal_due_at_once() {
        let state = Renewal::issued(START, START.plus_secs(DAY), 7);
        let later = START.plus_secs(2 * DAY);
        let state = state.step(Event::Tick, later, 7);
        assert!(
            matches!(state, Renewal::Expired { failures: 0, .. }) && state.is_due(later),
            "{state:?}"
        );
    }

    #[test]
    fn a_certificate_that_was_denied_is_replaced_at_once_in_every_state() {
        let fresh = Renewal::issued(START, START.plus_secs(DAY), 7);
        let renewing = fresh.step(Event::Tick, START.plus_secs(DAY * 8 / 10), 7);
        let expired = fresh.step(Event::Tick, START.plus_secs(2 * DAY), 7);
        for (state, now) in [
            (fresh, START),
            (
                renewing.step(Event::Failed, START.plus_secs(DAY * 8 / 10), u64::MAX),
                START.plus_secs(DAY * 8 / 10),
            ),
            (
                expired.step(Event::Failed, START.plus_secs(2 * DAY), u64::MAX),
                START.plus_secs(2 * DAY),
            ),
        ] {
            assert!(!state.is_due(now), "{state:?}");
            assert!(state.due_now(now).is_due(now), "{state:?}");
        }
    }

    #[test]
    fn a_failure_that_belongs_to_no_request_changes_nothing() {
        let state = Renewal::issued(START, START.plus_secs(DAY), 7);
        assert_eq!(state.step(Event::Failed, START, 7), state);
        assert_eq!(state.step(Event::Tick, START, 7), state);
    }
}
