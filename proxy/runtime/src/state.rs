//! What all threads of a proxy share: identity, policy, discovery, and the word that one of them changed.
//!
//! Cores read through atomic pointers and never wait. Writers are the tasks of the control thread.

use crate::audit::Records;
use crate::config::ProxyConfig;
use crate::cross_check::CrossChecks;
use crate::identity::Identity;
use crate::services::Services;
use crate::shadow::Policy;
use crate::tap::Taps;
use crate::telemetry::Telemetry;
use crate::traces::Queue;
use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_api::discovery::Discovery;
use mesh_api::slices::Slices;
use mesh_platform::Platform;
use mesh_policy::Snapshot;
use mesh_policy::snapshot::RateLimit;
use mesh_proxy_core::limit::Limiter;
use mesh_trust::tls::PeerRefusal;
use mesh_trust::{Denials, SpiffeId, Timestamp, TrustBundles};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Shared by the control thread and all cores.
pub(crate) struct Shared {
    pub(crate) config: ProxyConfig,
    pub(crate) platform: Arc<dyn Platform>,
    /// `None` until the first SVID came.
    pub(crate) identity: ArcSwapOption<Identity>,
    /// What the trust stream said last, with its generation: applied in place of what comes with an SVID.
    streamed_bundles: Mutex<Option<(u64, TrustBundles)>>,
    /// From the trust stream to whoever asks a CA on the network for our SVID.
    pub(crate) steering: mesh_ca_client::Steering,
    /// Handshakes refused because the peer's chain leads to no anchor.
    pub(crate) refused_handshakes: AtomicU64,
    /// `None` until the first policy came: everything is denied then (fault F2).
    pub(crate) policy: ArcSwapOption<Policy>,
    /// Whom the CA's operator denied; nobody until a list came.
    pub(crate) denials: ArcSwap<Denials>,
    pub(crate) policy_is: ArcSwap<InForce>,
    pub(crate) discovery: ArcSwap<Services>,
    pub(crate) records: Records,
    /// Spans on their way to a collector, if there is one.
    pub(crate) traces: Option<Queue>,
    /// Who looks at requests now.
    pub(crate) taps: Taps,
    /// Decisions that Cedar is to make again.
    pub(crate) cross_checks: CrossChecks,
    pub(crate) telemetry: Telemetry,
    pub(crate) started_at: Timestamp,
    /// Whether the controller's stream stands (or static files were read).
    pub(crate) control_connected: AtomicBool,
    /// Rate limits by port: of the whole proxy, so that more cores do not allow more. Ports without a policy of their own
    /// share the one at 0.
    limiters: ArcSwap<Limiters>,
    /// Panics caught so far.
    pub(crate) panics: AtomicU64,
    /// Connections open; a drain waits for them.
    pub(crate) busy: AtomicUsize,
    changes: watch::Sender<Changes>,
    stopping: watch::Sender<bool>,
}

type Limiters = BTreeMap<u16, Arc<Mutex<Option<Limiter>>>>;

/// What is known of the policy in force besides itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct InForce {
    /// Since when.
    pub(crate) since: Timestamp,
    /// SHA-256 of its JSON, lower-case hex.
    pub(crate) digest: String,
    /// The same of the candidate that came with it, usable or not.
    pub(crate) candidate: Option<String>,
}

impl InForce {
    /// Whether it came as JSON of these digests: of policy and candidate.
    pub(crate) fn is_of(&self, (digest, candidate): &(String, Option<String>)) -> bool {
        (&self.digest, &self.candidate) == (digest, candidate)
    }
}

/// Counts of changes, so that a core sees which of them it has not dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) policy: u64,
    pub(crate) identity: u64,
}

impl Shared {
    pub(crate) fn new(config: ProxyConfig, platform: Arc<dyn Platform>, records: Records) -> Self {
        Self {
            limiters: ArcSwap::default(),
            telemetry: Telemetry::new(&config.workload_name(), config.cores),
            started_at: platform.wall_clock(),
            traces: Queue::of(config.traces.as_ref()),
            taps: Taps::default(),
            config,
            platform,
            identity: ArcSwapOption::empty(),
            streamed_bundles: Mutex::default(),
            steering: mesh_ca_client::Steering::default(),
            refused_handshakes: AtomicU64::new(0),
            policy: ArcSwapOption::empty(),
            denials: ArcSwap::default(),
            policy_is: ArcSwap::default(),
            discovery: ArcSwap::default(),
            records,
            cross_checks: CrossChecks::default(),
            control_connected: AtomicBool::new(false),
            panics: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            changes: watch::Sender::new(Changes::default()),
            stopping: watch::Sender::new(false),
        }
    }

    /// Bundles of the trust stream. Whoever changes the identity holds this meanwhile.
    pub(crate) fn streamed_bundles(&self) -> MutexGuard<'_, Option<(u64, TrustBundles)>> {
        // Whoever panicked in between left whole values.
        self.streamed_bundles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a handshake that failed because the peer's chain leads to no anchor.
    pub(crate) fn count_refusal(&self, refusal: &PeerRefusal) {
        if refusal.lacks_anchor() {
            self.refused_handshakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells every core that [`Shared::identity`] is new.
    pub(crate) fn identity_changed(&self) {
        self.changes.send_modify(|changes| changes.identity += 1);
    }

    /// Puts a policy into force, with the candidate beside it, and tells every core, so that what runs is decided anew.
    /// `digests` are those of the JSON that they came as.
    pub(crate) fn install_policy(&self, policy: Policy, digests: (String, Option<String>)) {
        self.cross_checks.offer_policy((*policy).clone());
        self.limiters
            .store(Arc::new(with_limits(&self.limiters.load(), &policy)));
        self.policy.store(Some(Arc::new(policy)));
        let since = self.platform.wall_clock();
        let (digest, candidate) = digests;
        self.policy_is.store(Arc::new(InForce {
            since,
            digest,
            candidate,
        }));
        self.changes.send_modify(|changes| changes.policy += 1);
    }

    /// Tells every core that the policy in force allows less than it did: what runs is decided anew.
    pub(crate) fn policy_doubted(&self) {
        self.changes.send_modify(|changes| changes.policy += 1);
    }

    /// Puts a whole discovery into force; cores compare versions when they use it.
    pub(crate) fn install_discovery(&self, mut data: Discovery) {
        let zone = data.zone.take();
        self.replace_discovery(Some(data.into()), zone);
    }

    /// The same, as a controller tells it: the zone, which it says elsewhere, stays.
    pub(crate) fn install_slices(&self, slices: Slices) {
        let zone = self.discovery.load().zone.clone();
        self.replace_discovery(Some(slices), zone);
    }

    /// Says which zone this proxy is in. That alone is no word of who is in the mesh.
    pub(crate) fn install_zone(&self, zone: Option<String>) {
        self.replace_discovery(None, zone);
    }

    /// Only tasks of the control thread come here, so that nobody is overtaken.
    fn replace_discovery(&self, slices: Option<Slices>, zone: Option<String>) {
        let current = self.discovery.load();
        let first = slices.is_some() && current.version == 0;
        let slices = slices.unwrap_or_else(|| current.slices.clone());
        if !first && slices.digest() == current.slices.digest() && zone == current.zone {
            return;
        }
        let version = match current.version {
            0 if !first => 0,
            before => before + 1,
        };
        let services = Services::new(version, slices, zone);
        let services = services.with_routes(&self.config.namespace, &current);
        self.discovery.store(Arc::new(services));
    }

    pub(crate) fn watch_changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Spends one request's tokens. `policy` is the limit in force: a changed one starts full.
    pub(crate) fn within_limit(
        &self,
        port: u16,
        policy: &RateLimit,
        client: Option<&SpiffeId>,
        now_us: u64,
    ) -> bool {
        let limiters = self.limiters.load();
        let Some(limiter) = limiters.get(&port).or_else(|| limiters.get(&0)) else {
            return false;
        };
        // Whoever panicked in between left whole numbers.
        let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *limiter {
            Some(current) if current.policy() == policy => current.check(client, now_us).is_ok(),
            stale => stale
                .insert(Limiter::new(policy))
                .check(client, now_us)
                .is_ok(),
        }
    }

    /// Whether the proxy is ending.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Begins the drain.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn watch_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Marks a connection as busy until the mark is dropped.
    pub(crate) fn mark_busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

/// The limiters of `old`, and those that `snapshot` needs besides. None is dropped: decisions under the policy before may
/// be under way, and ports are bounded.
fn with_limits(old: &Limiters, snapshot: &Snapshot) -> Limiters {
    let data = snapshot.data();
    let own = data.ports.iter().map(|(port, policy)| (*port, policy));
    let all = own.chain([(0, &data.other_ports)]);
    let limited = all.filter(|(_, policy)| policy.rate_limit.is_some());
    let mut limiters = old.clone();
    for (port, _) in limited {
        limiters.entry(port).or_default();
    }
    limiters
}

/// One connection that a drain waits for.
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

/// Resolves once an identity newer than `version` is in force.
pub(crate) async fn superseded(shared: &Shared, version: u64) {
    let mut changes = shared.watch_changes();
    let is_newer = || {
        let identity = shared.identity.load();
        identity.as_ref().is_some_and(|own| own.version > version)
    };
    while !is_newer() {
        if changes.changed().await.is_err() {
            return std::future::pending().await; // the proxy has ended
        }
    }
}

/// Resolves once the proxy is stopping.
pub(crate) async fn stopping(receiver: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: the proxy has ended.
    let _ended = receiver.wait_for(|stop| *stop).await.is_err();
}
