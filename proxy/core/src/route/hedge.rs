//! Hedges: a second try at another endpoint beside a first that takes unusually long. The first good answer counts (Dean
//! and Barroso, "The Tail at Scale", 2013).
//!
//! Which requests may be sent twice, and to whom, is the caller's to say; here is how long the first is waited for.

use mesh_policy::traffic;

/// Latencies that are remembered of one service: enough that the 99th of a hundred is one of them.
const REMEMBERED: usize = 128;

/// Latencies without which a percentile means nothing.
const NEEDED: usize = 20;

/// New latencies after which a percentile is looked up again.
const LOOKED_UP_EVERY: u8 = 16;

/// When a second try is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// So many microseconds after the first.
    AfterUs(u64),
    /// Once the first has taken longer than so many percent of those before it, 50 to 99.
    Percentile(u8),
}

impl Hedge {
    /// From data.
    pub fn compile(data: &traffic::Hedge) -> Self {
        match data {
            traffic::Hedge::AfterMs(ms) => Self::AfterUs(ms.saturating_mul(1_000)),
            traffic::Hedge::Percentile(percent) => Self::Percentile((*percent).clamp(50, 99)),
        }
    }

    /// How long the first try is waited for, in microseconds; `None`: until it ends, for too little is known.
    pub fn after_us(self, latencies: &mut Latencies) -> Option<u64> {
        match self {
            Self::AfterUs(us) => Some(us),
            Self::Percentile(percent) => latencies.percentile(percent),
        }
    }
}

/// How long the answers of one service took last, on one core.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// In microseconds; a ring.
    seen: [u32; REMEMBERED],
    /// How many of `seen` are filled.
    count: usize,
    next: usize,
    /// What was looked up last, for which percentile.
    known: Option<(u8, u64)>,
    /// How many came since.
    since: u8,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            seen: [0; REMEMBERED],
            count: 0,
            next: 0,
            known: None,
            since: 0,
        }
    }
}

impl Latencies {
    /// An answer took so many microseconds.
    pub fn observe(&mut self, us: u64) {
        if let Some(place) = self.seen.get_mut(self.next) {
            *place = u32::try_from(us).unwrap_or(u32::MAX);
        }
        self.next = (self.next + 1) % REMEMBERED;
        self.count = (self.count + 1).min(REMEMBERED);
        self.since = self.since.saturating_add(1);
    }

    /// So many percent of them took at most this long.
    fn percentile(&mut self, percent: u8) -> Option<u64> {
        if self.count < NEEDED {
            return None;
        }
        match self.known {
            Some((known, us)) if known == percent && self.since < LOOKED_UP_EVERY => Some(us),
            _ => {
                let mut all = self.seen;
                let all = all.get_mut(..self.count)?;
                let place = (self.count * usize::from(percent)).div_ceil(100).max(1) - 1;
                let (_, us, _) = all.select_nth_unstable(place.min(self.count - 1));
                let us = u64::from(*us);
                (self.known, self.since) = (Some((percent, us)), 0);
                Some(us)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(all: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        all.into_iter().for_each(|us| latencies.observe(us));
        latencies
    }

    #[test]
    fn nothing_is_said_of_little() {
        assert_eq!(of(0..19).percentile(95), None);
        assert_eq!(of(0..20).percentile(95), Some(18));
        let hedge = Hedge::compile(&traffic::Hedge::Percentile(95));
        assert_eq!(hedge.after_us(&mut of(0..19)), None);
        let fixed = Hedge::compile(&traffic::Hedge::AfterMs(7));
        assert_eq!(fixed.after_us(&mut of([])), Some(7_000));
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_is_long_has_room() {
        let mut latencies = of((0..128).map(|_| 5).chain((0..128).map(|_| u64::MAX)));
        assert_eq!(latencies.percentile(50), Some(u64::from(u32::MAX)));
        let mut slower = of((0..128).map(|_| 5));
        assert_eq!(slower.percentile(99), Some(5));
        (0..15).for_each(|_| slower.observe(900));
        assert_eq!(slower.percentile(99), Some(5), "looked up a moment ago");
        slower.observe(900);
        assert_eq!(slower.percentile(99), Some(900));
        assert_eq!(slower.percentile(50), Some(5), "another is looked up");
    }

    proptest! {
        #[test]
        fn a_percentile_is_that_of_the_sorted_list(
            all in prop::collection::vec(0_u64..100_000, NEEDED..REMEMBERED),
            percent in 50_u8..=99,
        ) {
            let found = of(all.clone()).percentile(percent).unwrap();
            let at_most = all.iter().filter(|us| **us <= found).count();
            let below = all.iter().filter(|us| **us < found).count();
            prop_assert!(at_most * 100 >= all.len() * usize::from(percent));
            prop_assert!(below * 100 < all.len() * usize::from(percent));
        }
    }
}
