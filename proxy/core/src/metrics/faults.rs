//! Faults that were injected, by the object that asked for them: what a failure that nobody expects is first held against.

use super::OTHER;
use indexmap::IndexMap;
use std::sync::Arc;

/// Series of their own; what is more goes on under `other`.
pub const FAULTS_MAX: usize = 200;

/// Which fault, and what it did: `delay`, `abort` or `bandwidth`.
pub type FaultKey = (Arc<str>, &'static str);

/// Injected faults, bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultCounts(IndexMap<FaultKey, u64>);

impl FaultCounts {
    pub(super) fn add(&mut self, fault: &str, kind: &'static str, count: u64) {
        let key: FaultKey = (Arc::from(fault), kind);
        let full = self.0.len() >= FAULTS_MAX && !self.0.contains_key(&key);
        let key = if full { (OTHER.into(), kind) } else { key };
        *self.0.entry(key).or_default() += count;
    }

    pub(super) fn merge(&mut self, others: &Self) {
        for ((fault, kind), count) in &others.0 {
            self.add(fault, kind, *count);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FaultKey, u64)> {
        self.0.iter().map(|(key, count)| (key, *count))
    }
}

#[cfg(test)]
mod tests {
    use crate::exposition::render;
    use crate::metrics::Registry;
    use crate::metrics::faults::FAULTS_MAX;

    #[test]
    fn series_of_two_cores_are_added_and_past_the_bound_go_on_together() {
        let mut cores = [Registry::new("shop/cart"), Registry::new("shop/cart")];
        for core in &mut cores {
            core.on_fault("shop/slow", "delay");
        }
        let [mut all, other] = cores;
        all.merge(&other);
        let line = "mesh_faults_injected_total{fault=\"shop/slow\",kind=\"delay\"} 2\n";
        assert!(render(&all).contains(line), "{}", render(&all));
        for number in 0..5_000 {
            all.on_fault(&format!("shop/f{number}"), "abort");
        }
        assert_eq!(all.faults().count(), FAULTS_MAX + 1);
        let total: u64 = all.faults().map(|(_, count)| count).sum();
        assert_eq!(total, 5_002);
    }
}
