//! What proxies say of the policy that they hold: whether its compiled form decides as Cedar does.
//!
//! The last word of each workload is kept with the generation that it is about, as long as the workload is there. A proxy
//! says it again whenever it connects, so nothing of this needs to outlive the controller.

use mesh_api::admin::EquivalenceStatus;
use mesh_policy::equivalence::Assurance;
use mesh_policy_index::index::WorkloadKey;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The last report of each workload.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    found: Mutex<BTreeMap<WorkloadKey, EquivalenceStatus>>,
    /// By workload, the digest of the policy that its proxy said last it holds.
    held: watch::Sender<Held>,
}

/// Digests of the policies that proxies hold, by workload.
pub(crate) type Held = BTreeMap<WorkloadKey, String>;

impl Reports {
    /// Takes what a proxy calls the policy that it holds; the newest word counts, for a controller that begins anew may
    /// number lower than the one before.
    pub(crate) fn take_held(&self, key: &WorkloadKey, digest: String) {
        self.held.send_if_modified(|held| {
            let same = held.get(key) == Some(&digest);
            if !same {
                held.insert(key.clone(), digest);
            }
            !same
        });
    }

    /// What proxies hold, now and after each change.
    pub(crate) fn watch_held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

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
        self.held.send_if_modified(|held| {
            let before = held.len();
            held.retain(|key, _| is_there(key));
            held.len() != before
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadKey, EquivalenceStatus>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn the_newest_word_says_what_a_proxy_holds() {
        let reports = Reports::default();
        let mut held = reports.watch_held();
        for digest in ["b", "a"] {
            reports.take_held(&key("cart"), digest.to_owned());
            assert!(held.has_changed().unwrap());
            assert_eq!(
                held.borrow_and_update().get(&key("cart")),
                Some(&digest.to_owned())
            );
        }
        reports.take_held(&key("cart"), "a".to_owned());
        assert!(!held.has_changed().unwrap(), "nothing new");
        reports.keep(|_| false);
        assert!(held.borrow_and_update().is_empty());
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
