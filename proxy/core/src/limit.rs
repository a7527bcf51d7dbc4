//! Local rate limits of a Server: the generic cell rate algorithm (GCRA), burst as large as the rate.
//!
//! Order: the total first, which is spent even if the next bucket then refuses (as Linkerd does); then the override that
//! names the client, else the limit for each identity. All clients without an identity share one bucket. Asked after the
//! decision: a denied peer must not spend the tokens of an allowed one.
//! Buckets are bounded ([`IDENTITIES_MAX`]): identities beyond share one, so that making up identities gains nothing.

use indexmap::IndexMap;
use mesh_policy::snapshot::RateLimit;
use mesh_trust::SpiffeId;

/// Identities with a bucket of their own. At about 100 bytes each this bounds a limit near 1 MB.
pub const IDENTITIES_MAX: usize = 10_000;

/// How often full buckets may be cleared out, since that visits all of them.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// Which bucket refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// All clients together.
    Total,
    /// The override that names the client; its place in the policy.
    Override(usize),
    /// The client's own, or the one that unauthenticated clients share.
    Identity,
}

impl LimitScope {
    /// Short text for metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Override(_) => "override",
            Self::Identity => "identity",
        }
    }
}

/// A request over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which bucket refused.
    pub scope: LimitScope,
    /// When the same request would pass, if nobody else asked meanwhile.
    pub retry_after_us: u64,
}

/// One GCRA cell: the time at which it will be as good as new.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Spends one request of `rate` per second, or says how many nanoseconds to wait.
    fn spend(&mut self, rate: u32, now_ns: u64) -> Result<(), u64> {
        // A rate of 0 is refused at admission; here it would mean never.
        let Some(interval) = 1_000_000_000_u64.checked_div(u64::from(rate)) else {
            return Err(u64::MAX);
        };
        let full_at = self.full_at_ns.max(now_ns).saturating_add(interval);
        let burst_ns = interval.saturating_mul(u64::from(rate));
        match full_at.saturating_sub(now_ns).checked_sub(burst_ns) {
            None | Some(0) => {
                self.full_at_ns = full_at;
                Ok(())
            }
            Some(over) => Err(over),
        }
    }
}

/// The buckets of one Server. One per proxy; cores share it.
#[derive(Debug)]
pub struct Limiter {
    policy: RateLimit,
    total: Bucket,
    /// Per override and identity in it: an override's rate is that of each client it names.
    overrides: IndexMap<SpiffeId, (usize, u32, Bucket)>,
    identities: IndexMap<SpiffeId, Bucket>,
    unauthenticated: Bucket,
    beyond: Bucket,
    identities_max: usize,
    sweep_after_ns: u64,
}

impl Limiter {
    /// Full buckets for a policy.
    pub fn new(policy: &RateLimit) -> Self {
        Self::bounded(policy, IDENTITIES_MAX)
    }

    fn bounded(policy: &RateLimit, identities_max: usize) -> Self {
        let mut overrides = IndexMap::new();
        for (place, (clients, rate)) in policy.overrides.iter().enumerate() {
            for client in clients {
                // The first override that names a client counts.
                overrides
                    .entry(client.clone())
                    .or_insert((place, *rate, Bucket::default()));
            }
        }
        Self {
            policy: policy.clone(),
            total: Bucket::default(),
            overrides,
            identities: IndexMap::new(),
            unauthenticated: Bucket::default(),
            beyond: Bucket::default(),
            identities_max,
            sweep_after_ns: 0,
        }
    }

    /// The policy that these buckets are for: a snapshot with an equal one keeps them.
    pub fn policy(&self) -> &RateLimit {
        &self.policy
    }

    /// Spends one request.
    ///
    /// # Errors
    /// [`Limited`] with the bucket that refused.
    pub fn check(&mut self, client: Option<&SpiffeId>, now_us: u64) -> Result<(), Limited> {
        let now_ns = now_us.saturating_mul(1_000);
        let limited = |scope| {
            move |wait_ns: u64| Limited {
                scope,
                retry_after_us: wait_ns.div_ceil(1_000),
            }
        };
        if let Some(rate) = self.policy.total {
            self.total
                .spend(rate, now_ns)
                .map_err(limited(LimitScope::Total))?;
        }
        if let Some((place, rate, bucket)) = client.and_then(|id| self.overrides.get_mut(id)) {
            return bucket
                .spend(*rate, now_ns)
                .map_err(limited(LimitScope::Override(*place)));
        }
        match self.policy.identity {
            Some(rate) => self
                .bucket(client, now_ns)
                .spend(rate, now_ns)
                .map_err(limited(LimitScope::Identity)),
            None => Ok(()),
        }
    }

    fn bucket(&mut self, client: Option<&SpiffeId>, now_ns: u64) -> &mut Bucket {
        let Some(client) = client else {
            return &mut self.unauthenticated;
        };
        let full = self.identities.len() >= self.identities_max;
        if full && now_ns >= self.sweep_after_ns && !self.identities.contains_key(client) {
            // A bucket that is full again is as good as a new one.
            self.identities
                .retain(|_, bucket| bucket.full_at_ns > now_ns);
            self.sweep_after_ns = now_ns.saturating_add(SWEEP_EVERY_NS);
        }
        if self.identities.len() >= self.identities_max && !self.identities.contains_key(client) {
            return &mut self.beyond;
        }
        self.identities.entry(client.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEC: u64 = 1_000_000;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    fn policy(
        total: Option<u32>,
        identity: Option<u32>,
        overrides: Vec<(Vec<SpiffeId>, u32)>,
    ) -> RateLimit {
        RateLimit {
            namespace: "shop".into(),
            name: "limit".into(),
            total,
            identity,
            overrides,
        }
    }

    fn allowed(limiter: &mut Limiter, client: Option<&SpiffeId>, now_us: u64, tries: u32) -> u32 {
        (0..tries)
            .map(|_| u32::from(limiter.check(client, now_us).is_ok()))
            .sum()
    }

    #[test]
    fn what_is_over_the_burst_is_refused_and_told_when_to_return() {
        let mut limiter = Limiter::new(&policy(Some(10), None, vec![]));
        assert_eq!(allowed(&mut limiter, None, 0, 30), 10);
        let refused = limiter.check(None, 0).unwrap_err();
        assert_eq!(
            refused,
            Limited {
                scope: LimitScope::Total,
                retry_after_us: 100_000
            }
        );
        assert!(limiter.check(None, 99_999).is_err());
        assert!(limiter.check(None, 100_000).is_ok());
        assert_eq!(
            allowed(&mut limiter, None, 10 * SEC, 30),
            10,
            "never more than the burst, however long the rest"
        );
    }

    #[test]
    fn unauthenticated_clients_share_one_bucket_and_identities_do_not() {
        let mut limiter = Limiter::new(&policy(None, Some(2), vec![]));
        assert_eq!(allowed(&mut limiter, None, 0, 5), 2);
        assert_eq!(allowed(&mut limiter, Some(&id("a")), 0, 5), 2);
        assert_eq!(allowed(&mut limiter, Some(&id("b")), 0, 5), 2);
        assert_eq!(
            limiter.check(Some(&id("b")), 0).unwrap_err().scope,
            LimitScope::Identity
        );
    }

    #[test]
    fn an_override_stands_in_place_of_the_identity_limit() {
        let mut limiter = Limiter::new(&policy(
            None,
            Some(10),
            vec![(vec![id("a"), id("b")], 1), (vec![id("b")], 9)],
        ));
        assert_eq!(allowed(&mut limiter, Some(&id("a")), 0, 5), 1);
        assert_eq!(
            limiter.check(Some(&id("a")), 0).unwrap_err().scope,
            LimitScope::Override(0)
        );
        assert_eq!(
            allowed(&mut limiter, Some(&id("b")), 0, 5),
            1,
            "each named client has its own; the first override counts"
        );
        assert_eq!(allowed(&mut limiter, Some(&id("c")), 0, 20), 10);
    }

    #[test]
    fn the_total_is_asked_first_and_spent_by_those_that_are_refused_later() {
        let mut limiter = Limiter::new(&policy(Some(5), Some(1), vec![]));
        assert_eq!(allowed(&mut limiter, Some(&id("a")), 0, 5), 1);
        assert_eq!(
            limiter.check(Some(&id("b")), 0).unwrap_err().scope,
            LimitScope::Total
        );
    }

    #[test]
    fn a_rate_of_zero_never_lets_anything_through() {
        let mut limiter = Limiter::new(&policy(Some(0), None, vec![]));
        assert_eq!(
            allowed(&mut limiter, None, 0, 5) + allowed(&mut limiter, None, 3_600 * SEC, 5),
            0
        );
    }

    #[test]
    fn making_up_identities_gains_one_bucket_and_no_memory() {
        let mut limiter = Limiter::bounded(&policy(None, Some(2), vec![]), 3);
        let passed: u32 = (0..100)
            .map(|n| allowed(&mut limiter, Some(&id(&format!("x{n}"))), 0, 5))
            .sum();
        assert_eq!(passed, 3 * 2 + 2, "three own buckets and the shared one");
        assert_eq!(limiter.identities.len(), 3);
        assert_eq!(
            allowed(&mut limiter, Some(&id("x1")), 0, 5),
            0,
            "those that have a bucket are not pushed out"
        );
        assert_eq!(
            allowed(&mut limiter, Some(&id("late")), 2 * SEC, 5),
            2,
            "full buckets make room"
        );
        assert_eq!(limiter.identities.len(), 1);
    }

    proptest! {
        /// The plain oracle: in any window, no more than burst + rate × window.
        #[test]
        fn no_window_lets_more_through_than_rate_and_burst(rate in 1u32..50, steps in proptest::collection::vec(0u64..200_000, 1..300)) {
            let mut limiter = Limiter::new(&policy(Some(rate), None, vec![]));
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                if limiter.check(None, now).is_ok() {
                    passed.push(now);
                }
            }
            for (from, start) in passed.iter().enumerate() {
                for (to, end) in passed.iter().enumerate().skip(from) {
                    let bound = f64::from(rate) + f64::from(rate) * (end - start) as f64 / 1e6 + 1.0;
                    prop_assert!(((to - from + 1) as f64) <= bound);
                }
            }
        }

        #[test]
        fn a_steady_client_within_the_rate_is_never_refused(rate in 1u32..1_000, count in 1u64..500) {
            let mut limiter = Limiter::new(&policy(Some(rate), None, vec![]));
            let gap = 1_000_000_u64.div_ceil(u64::from(rate));
            for n in 0..count {
                prop_assert!(limiter.check(None, n * gap).is_ok());
            }
        }
    }
}
