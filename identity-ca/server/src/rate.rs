//! How often one identity may ask: a bucket of tokens each. The clock is an argument.

use crate::limits::RATE_IDENTITIES_MAX;
use mesh_platform::Tick;
use mesh_trust::SpiffeId;
use std::collections::HashMap;
use std::time::Duration;

/// Buckets by identity.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: u32,
    refill: Duration,
    // When the bucket will be full again; one that is full needs no entry.
    full_at: HashMap<SpiffeId, Tick>,
}

impl RateLimit {
    /// Buckets of `burst` tokens that earn one each `refill`.
    pub(crate) fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            full_at: HashMap::new(),
        }
    }

    /// Takes a token of `id`, or says that there is none.
    pub(crate) fn take(&mut self, id: &SpiffeId, now: Tick) -> bool {
        if self.full_at.len() >= RATE_IDENTITIES_MAX && !self.full_at.contains_key(id) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= RATE_IDENTITIES_MAX {
                return false;
            }
        }
        let full_at = self.full_at.get(id).copied().unwrap_or(now).max(now);
        let after = full_at.plus(self.refill);
        if after.since(now) > self.refill.saturating_mul(self.burst) {
            return false;
        }
        self.full_at.insert(id.clone(), after);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/s{n}")).unwrap()
    }

    #[test]
    fn ten_at_once_then_one_a_second_each_identity_for_itself() {
        let mut limit = RateLimit::new(10, Duration::from_secs(1));
        let start = Tick::from_micros(5_000_000);
        assert_eq!((0..20).filter(|_| limit.take(&id(1), start)).count(), 10);
        assert!(
            limit.take(&id(2), start),
            "another identity has its own bucket"
        );
        assert!(!limit.take(&id(1), start.plus(Duration::from_millis(999))));
        assert!(limit.take(&id(1), start.plus(Duration::from_secs(1))));
        assert!(!limit.take(&id(1), start.plus(Duration::from_secs(1))));
        let later = start.plus(Duration::from_secs(3_600));
        assert_eq!(
            (0..20).filter(|_| limit.take(&id(1), later)).count(),
            10,
            "a bucket never holds more"
        );
    }

    #[test]
    fn memory_is_bounded_and_full_buckets_make_room() {
        let mut limit = RateLimit::new(10, Duration::from_secs(1));
        for n in 0..RATE_IDENTITIES_MAX {
            assert!(limit.take(&id(n), Tick::default()));
        }
        assert!(!limit.take(&id(RATE_IDENTITIES_MAX), Tick::default()));
        assert!(limit.take(
            &id(RATE_IDENTITIES_MAX),
            Tick::default().plus(Duration::from_secs(2))
        ));
        assert_eq!(limit.full_at.len(), 1);
    }
}
