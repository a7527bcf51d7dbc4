//! What the parts of a running controller share.

use crate::config::ControllerConfig;
use crate::discovery::Recent;
use crate::identity::Identity;
use crate::publish::Published;
use crate::reports::Reports;
use mesh_platform::Platform;
use mesh_platform::audit_log::AuditHandle;
use mesh_policy_index::index::WorkloadKey;
use mesh_trust::{Timestamp, TrustBundles};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Shared by all tasks; whatever changes is behind a channel or a short lock.
pub(crate) struct Shared {
    pub(crate) config: ControllerConfig,
    pub(crate) platform: Arc<dyn Platform>,
    /// `None` until the sources could be read for the first time.
    pub(crate) published: watch::Sender<Option<Arc<Published>>>,
    /// Discovery that proxies may still be reading.
    pub(crate) recent: Recent,
    /// `None` until the first SVID.
    pub(crate) identity: watch::Sender<Option<Arc<Identity>>>,
    /// What the trust stream said last, with its generation.
    pub(crate) streamed_bundles: Mutex<Option<(u64, TrustBundles)>>,
    /// From the trust stream to whoever asks a CA on the network for our SVID.
    pub(crate) steering: mesh_ca_client::Steering,
    /// Why the newest sources are not in force.
    pub(crate) held_back: Mutex<Option<String>>,
    pub(crate) audit: AuditHandle,
    pub(crate) watchers: Mutex<BTreeMap<WorkloadKey, u64>>,
    /// What proxies say of the policy that they hold.
    pub(crate) reports: Reports,
    pub(crate) started_at: Timestamp,
}

impl Shared {
    /// The policy in force.
    pub(crate) fn current(&self) -> Option<Arc<Published>> {
        self.published.borrow().clone()
    }

    /// Bundles of the trust stream, with their generation. Whoever changes the identity holds this meanwhile.
    pub(crate) fn streamed_bundles(&self) -> MutexGuard<'_, Option<(u64, TrustBundles)>> {
        self.streamed_bundles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the newest sources are not in force, if so.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.held_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says so, loudly when it begins and when it ends.
    pub(crate) fn set_held_back(&self, why: Option<String>) {
        let mut held_back = self
            .held_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (&*held_back, &why) {
            (old, Some(why)) if old.as_ref() != Some(why) => {
                tracing::error!(%why, "the newest manifests are not in force; the policy before stays");
            }
            (Some(_), None) => tracing::warn!("the newest manifests are in force again"),
            _ => {}
        }
        *held_back = why;
    }

    /// Counts a watcher for as long as the value lives.
    pub(crate) fn watcher(self: &Arc<Self>, key: &WorkloadKey) -> WatcherCount {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        *watchers.entry(key.clone()).or_default() += 1;
        WatcherCount {
            shared: Arc::clone(self),
            key: key.clone(),
        }
    }

    /// Proxies that watch, by workload.
    pub(crate) fn watcher_counts(&self) -> BTreeMap<WorkloadKey, u64> {
        self.watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One proxy that watches one workload.
pub(crate) struct WatcherCount {
    shared: Arc<Shared>,
    key: WorkloadKey,
}

impl Drop for WatcherCount {
    fn drop(&mut self) {
        let mut watchers = self
            .shared
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watchers.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watchers.remove(&self.key);
            }
        }
    }
}
