//! What proxies say of the policy that they hold: whether its compiled form decides as Cedar does.
//!
//! The last word of each workload is kept with the generation that it is about, as long as the workload is there. A proxy
//! says it again whenever it connects, so nothing of this needs to outlive the controller.

use mesh_api::admin::EquivalenceStatus;
use mesh_policy::equivalence::Assurance;
use mesh_policy_index::index::WorkloadKey;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last report of each workload.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<WorkloadKey, EquivalenceStatus>>);

impl Reports {
    /// Takes a report. Of two about one generation the one that found a difference stands: several proxies may serve one
    /// workload. An older one says nothing about what is in force.
    pub(crate) fn take(&self, key: WorkloadKey, report: EquivalenceStatus) {
        let mut reports = self.lock();
        if let Some(known) = reports.get(&key) {
            let differs = matches!(known.found, Assurance::Differs { .. });
            if known.generation > report.generation
                || (known.generation == report.generation && differs)
            {
                return;
            }
        }
        reports.insert(key, report);
    }

    /// The last report of a workload.
    pub(crate) fn of(&self, key: &WorkloadKey) -> Option<EquivalenceStatus> {
        self.lock().get(key).cloned()
    }

    /// Forgets the workloads that are gone.
    pub(crate) fn keep(&self, is_there: impl Fn(&WorkloadKey) -> bool) {
        self.lock().retain(|key, _| is_there(key));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadKey, EquivalenceStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_trust::Timestamp;

    fn key(name: &str) -> WorkloadKey {
        WorkloadKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    fn report(generation: u64, differs: bool) -> EquivalenceStatus {
        let found = match differs {
            true => Assurance::Differs {
                port: 80,
                grant: "g".to_owned(),
                case: "c".to_owned(),
            },
            false => Assurance::Exhaustive {
                grants: 1,
                questions: 2,
            },
        };
        EquivalenceStatus {
            generation,
            at: Timestamp::from_unix_secs(1_790_000_000),
            found,
        }
    }

    #[test]
    fn the_newest_generation_counts_and_in_it_a_difference() {
        let reports = Reports::default();
        for (next, stands) in [
            (report(1, true), report(1, true)),
            (report(1, false), report(1, true)),
            (report(2, false), report(2, false)),
            (report(1, true), report(2, false)),
            (report(2, true), report(2, true)),
        ] {
            reports.take(key("cart"), next);
            assert_eq!(reports.of(&key("cart")), Some(stands));
        }
        assert_eq!(reports.of(&key("other")), None);
    }

    #[test]
    fn workloads_that_are_gone_are_forgotten() {
        let reports = Reports::default();
        reports.take(key("cart"), report(1, false));
        reports.take(key("web"), report(1, false));
        reports.keep(|known| *known == key("web"));
        assert_eq!(reports.of(&key("cart")), None);
        assert!(reports.of(&key("web")).is_some());
    }
}
