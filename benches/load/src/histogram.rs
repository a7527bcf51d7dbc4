//! Latencies: 64 buckets per power of two, so quantiles are off by less than 2 %.

use std::time::Duration;

const SUB: u64 = 64;

/// Counts by tenth of a microsecond.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; (40 * SUB) as usize], total: 0, max: Duration::ZERO }
    }

    pub fn record(&mut self, latency: Duration) {
        let tenths = (latency.as_nanos() / 100) as u64;
        let at = if tenths < SUB {
            tenths
        } else {
            let exponent = u64::from(63 - tenths.leading_zeros());
            (exponent - 5) * SUB + ((tenths >> (exponent - 6)) & (SUB - 1))
        };
        let last = self.counts.len() - 1;
        self.counts[(at as usize).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(latency);
    }

    /// Microseconds below which a share `q` lies.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let wanted = (q * self.total as f64) as u64;
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count;
            if below > wanted {
                let at = at as u64;
                let tenths =
                    if at < SUB { at } else { (1 << (at / SUB + 5)) | ((at % SUB) << (at / SUB - 1)) };
                return tenths as f64 / 10.0;
            }
        }
        self.max.as_nanos() as f64 / 1e3
    }

    pub fn json(&self) -> String {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|q| self.quantile_us(q));
        let max = self.max.as_nanos() as f64 / 1e3;
        format!("\"p50_us\":{p50:.1},\"p90_us\":{p90:.1},\"p99_us\":{p99:.1},\"p999_us\":{p999:.1},\"max_us\":{max:.1}")
    }
}
