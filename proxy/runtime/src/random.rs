//! Random numbers for choices where nobody gains by guessing: which endpoint, which allow is sampled. Not for secrets.

use mesh_platform::Platform;
use std::cell::Cell;

/// xorshift64*, seeded from the operating system.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn seeded(platform: &dyn Platform) -> Self {
        let mut seed = [0; 8];
        platform.fill_random(&mut seed);
        Self(Cell::new(u64::from_le_bytes(seed) | 1)) // the state must not be zero
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// True in `share` of all cases; 0 is never, 1 is always.
    pub(crate) fn happens(&self, share: f64) -> bool {
        // 53 bits, as many as a double holds.
        share >= 1.0 || (share > 0.0 && ((self.next() >> 11) as f64) < share * (1_u64 << 53) as f64)
    }
}
