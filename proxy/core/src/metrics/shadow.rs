//! What a candidate policy would have decided otherwise, counted by where and why.

use super::OTHER;
use indexmap::IndexMap;
use mesh_policy::decide::{Phase, Verdict};
use std::sync::Arc;

/// Series of their own; what is more goes on in one named `other` for each way that a verdict turns.
pub const SHADOW_MAX: usize = 500;

/// Where and why a candidate decides otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShadowKey {
    /// Port of the pod.
    pub port: u16,
    /// Whether the default policy speaks there for the candidate, not a Server.
    pub default: bool,
    /// Namespace of the Server that does.
    pub server_namespace: Arc<str>,
    /// Its name.
    pub server_name: Arc<str>,
    /// What the candidate says; the policy in force says the other.
    pub candidate: Verdict,
    /// Which layer of the candidate decided.
    pub phase: Phase,
    /// Its first reason, or in words of a bounded set what it lacks.
    pub reason: Arc<str>,
}

/// Differing decisions by what they have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowCounts(IndexMap<ShadowKey, u64>);

impl ShadowCounts {
    pub(super) fn add(&mut self, key: ShadowKey, count: u64) {
        let full = self.0.len() >= SHADOW_MAX && !self.0.contains_key(&key);
        let key = if full { other(key.candidate) } else { key };
        *self.0.entry(key).or_default() += count;
    }

    pub(super) fn merge(&mut self, others: &Self) {
        for (key, count) in &others.0 {
            self.add(key.clone(), *count);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ShadowKey, u64)> {
        self.0.iter().map(|(key, count)| (key, *count))
    }
}

fn other(candidate: Verdict) -> ShadowKey {
    ShadowKey {
        port: 0,
        default: false,
        server_namespace: OTHER.into(),
        server_name: OTHER.into(),
        candidate,
        phase: Phase::Permit,
        reason: OTHER.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::render;
    use crate::metrics::Registry;

    fn key(port: u16, candidate: Verdict) -> ShadowKey {
        ShadowKey {
            port,
            default: false,
            server_namespace: "shop".into(),
            server_name: "cart".into(),
            candidate,
            phase: Phase::Forbid,
            reason: "CedarPolicy/shop/\"x\"/0".into(),
        }
    }

    #[test]
    fn series_of_two_cores_are_added_and_say_both_verdicts() {
        let mut cores = [Registry::new("shop/cart"), Registry::new("shop/cart")];
        for core in &mut cores {
            core.on_shadow(key(80, Verdict::Deny));
        }
        let [mut all, other] = cores;
        all.merge(&other);
        let text = render(&all);
        let line = "mesh_shadow_decisions_total{target_port=\"80\",srv_kind=\"server\",srv_namespace=\"shop\",srv_name=\"cart\",live=\"allow\",candidate=\"deny\",phase=\"forbid\",reason=\"CedarPolicy/shop/\\\"x\\\"/0\"} 2\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn past_the_bound_counts_go_on_together() {
        let mut registry = Registry::new("shop/cart");
        for port in 0..5_000 {
            registry.on_shadow(key(port, Verdict::Deny));
            registry.on_shadow(key(port, Verdict::Allow));
        }
        assert_eq!(registry.shadow().count(), SHADOW_MAX + 2);
        let total: u64 = registry.shadow().map(|(_, count)| count).sum();
        assert_eq!(total, 10_000);
    }
}
