//! Latencies in buckets: two per power of two from 50 µs to 10 s, so that any quantile is off by less than half its value
//! and usually by a tenth.

/// Upper ends of the buckets in microseconds, inclusive; one more bucket is above the last.
pub const BOUNDS_US: [u64; 36] = bounds();

const fn bounds() -> [u64; 36] {
    let mut bounds = [0; 36];
    let (mut at, mut step) = (0, 0);
    while at < 36 {
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated at compile time, where a wrong index does not compile"
        )]
        {
            bounds[at] = if at % 2 == 0 { 50 << step } else { 75 << step };
        }
        step += at % 2;
        at += 1;
    }
    bounds
}

/// Counts of durations by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BOUNDS_US.len() + 1],
            sum_us: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration_us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(duration_us);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Counts by bucket, not cumulative; the last one is above all bounds.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .iter_mut()
            .zip(other.counts)
            .for_each(|(own, more)| *own += more);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Puts back what [`Histogram::counts`] gave, as scraped text has it: cumulative, by upper bound in microseconds.
    /// Bounds that are not ours are ignored; `None` if the counts fall.
    pub fn from_cumulative(buckets: &[(f64, u64)], sum_us: u64) -> Option<Self> {
        let mut histogram = Self {
            sum_us,
            ..Self::default()
        };
        let mut below = 0;
        let bounds = BOUNDS_US
            .iter()
            .map(|bound| *bound as f64)
            .chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(&mut histogram.counts) {
            let same = |known: f64| known == bound || (known - bound).abs() < 0.5;
            let Some((_, up_to)) = buckets.iter().find(|(known, _)| same(*known)) else {
                continue;
            };
            *count = up_to.checked_sub(below)?;
            below = *up_to;
        }
        Some(histogram)
    }

    /// The duration in microseconds below which a share `q` (0 to 1) of them lies, interpolated within its bucket;
    /// `None` without any. Above the last bound it is the last bound: at least so much.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = (q.clamp(0.0, 1.0) * total as f64).max(1.0);
        let (mut below, mut low) = (0.0, 0);
        for (count, high) in self.counts.iter().zip(BOUNDS_US) {
            let within = *count as f64;
            if within > 0.0 && below + within >= wanted {
                let share = (wanted - below) / within;
                return Some(low + ((high - low) as f64 * share).round() as u64);
            }
            below += within;
            low = high;
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_rise_by_less_than_the_half_from_50_us_to_10_s() {
        assert_eq!(BOUNDS_US[..6], [50, 75, 100, 150, 200, 300]);
        assert!(
            BOUNDS_US
                .windows(2)
                .all(|pair| pair[0] < pair[1] && 2 * pair[1] <= 3 * pair[0]),
            "{BOUNDS_US:?}"
        );
        assert!(BOUNDS_US[35] >= 9_800_000);
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn counts_that_fall_are_refused() {
        assert_eq!(Histogram::from_cumulative(&[(50.0, 3), (75.0, 2)], 0), None);
    }

    #[test]
    fn what_is_above_the_last_bound_is_at_least_that() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(
            (histogram.quantile_us(0.99), histogram.sum_us()),
            (Some(BOUNDS_US[35]), u64::MAX)
        );
    }

    proptest! {
        /// The plain oracle: sort the durations.
        #[test]
        fn quantiles_are_within_their_bucket(mut durations in proptest::collection::vec(1u64..9_000_000, 1..300), q in 0.01f64..1.0) {
            let mut histogram = Histogram::default();
            durations.iter().for_each(|duration| histogram.record(*duration));
            durations.sort_unstable();
            let rank = ((q * durations.len() as f64).ceil() as usize).clamp(1, durations.len());
            let exact = durations[rank - 1];
            let estimate = histogram.quantile_us(q).unwrap();
            let bucket = BOUNDS_US.partition_point(|bound| *bound < exact);
            let low = if bucket == 0 { 0 } else { BOUNDS_US[bucket - 1] };
            prop_assert!((low..=BOUNDS_US[bucket]).contains(&estimate), "{} in ({}, {}]", estimate, low, BOUNDS_US[bucket]);
        }

        #[test]
        fn merging_is_recording_both(a in proptest::collection::vec(any::<u32>(), 0..50), b in proptest::collection::vec(any::<u32>(), 0..50)) {
            let of = |durations: &[u32]| {
                let mut histogram = Histogram::default();
                durations.iter().for_each(|duration| histogram.record(u64::from(*duration)));
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
