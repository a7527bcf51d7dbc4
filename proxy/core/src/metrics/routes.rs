//! Requests to Services by the rule that took them and the backend that got them: what a canary is judged by.

use super::{Histogram, OTHER};
use indexmap::IndexMap;
use std::sync::Arc;

/// Rules and backends with a series of their own. At about 500 bytes each this bounds a registry near 500 KB.
pub const ROUTES_MAX: usize = 1_000;

/// Where a request to a Service went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The Service that was called, `namespace/name:port`.
    pub service: Arc<str>,
    /// The route that took the request, `HTTPRoute/<namespace>/<name>`; `none` where none did.
    pub route: Arc<str>,
    /// Its rule, by its place.
    pub rule: u32,
    /// The backend, `namespace/name:port`; `none` where the answer came from the route itself.
    pub backend: Arc<str>,
}

/// How one request that took a route ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Status of the answer; `None`: the client left before.
    pub status: Option<u16>,
    /// Tries after the first.
    pub retries: u32,
    /// Limits of time that ran out.
    pub timeouts: u32,
    /// Time from its head to that of its answer, all tries together; `None`: the client left before.
    pub duration_us: Option<u64>,
}

/// Counts of one rule and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSeries {
    /// Requests by the first digit of their status; place 0 is what has none.
    pub answers: [u64; 6],
    /// Tries after the first.
    pub retries: u64,
    /// Limits of time that ran out.
    pub timeouts: u64,
    /// Time from head to head.
    pub duration: Histogram,
}

/// All series, bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCounts(IndexMap<RouteKey, RouteSeries>);

impl RouteCounts {
    pub(super) fn add(&mut self, key: &RouteKey, routed: Routed) {
        let series = self.series(key);
        let class = usize::from(routed.status.unwrap_or(0) / 100);
        if let Some(count) = series.answers.get_mut(if class <= 5 { class } else { 0 }) {
            *count += 1;
        }
        series.retries += u64::from(routed.retries);
        series.timeouts += u64::from(routed.timeouts);
        if let Some(took_us) = routed.duration_us {
            series.duration.record(took_us);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (key, theirs) in &other.0 {
            let series = self.series(key);
            super::add_each(&mut series.answers, &theirs.answers);
            series.retries += theirs.retries;
            series.timeouts += theirs.timeouts;
            series.duration.merge(&theirs.duration);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RouteKey, &RouteSeries)> {
        self.0.iter()
    }

    fn series(&mut self, key: &RouteKey) -> &mut RouteSeries {
        if self.0.len() >= ROUTES_MAX && !self.0.contains_key(key) {
            let other = RouteKey {
                service: OTHER.into(),
                route: OTHER.into(),
                rule: 0,
                backend: OTHER.into(),
            };
            return self.0.entry(other).or_default();
        }
        self.0.entry(key.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    fn key(rule: u32) -> RouteKey {
        RouteKey {
            service: "shop/cart:80".into(),
            route: "HTTPRoute/shop/canary".into(),
            rule,
            backend: "shop/cart-v2:80".into(),
        }
    }

    fn ended(status: Option<u16>) -> Routed {
        Routed {
            status,
            retries: 2,
            timeouts: 1,
            duration_us: status.map(|_| 700),
        }
    }

    #[test]
    fn series_of_two_cores_are_added() {
        let mut cores = [Registry::new("shop/web"), Registry::new("shop/web")];
        for core in &mut cores {
            core.on_routed(&key(0), ended(Some(200)));
            core.on_routed(&key(0), ended(None));
        }
        let [mut all, other] = cores;
        all.merge(&other);
        let series: Vec<_> = all.routes().collect();
        let mut duration = Histogram::default();
        (0..2).for_each(|_| duration.record(700));
        let want = RouteSeries {
            answers: [2, 0, 2, 0, 0, 0],
            retries: 8,
            timeouts: 4,
            duration,
        };
        assert_eq!(series, [(&key(0), &want)]);
    }

    #[test]
    fn past_the_bound_counts_go_on_together() {
        let mut registry = Registry::new("shop/web");
        for rule in 0..5_000 {
            registry.on_routed(&key(rule), ended(Some(503)));
        }
        assert_eq!(registry.routes().count(), ROUTES_MAX + 1);
        let total: u64 = registry.routes().map(|(_, series)| series.answers[5]).sum();
        assert_eq!(total, 5_000);
    }
}
