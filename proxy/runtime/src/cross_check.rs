//! Each policy, and a few live decisions, held against Cedar, off the data path.
//!
//! The compiled matcher decides; Cedar is what it must be equal to. When a policy comes into force, a thread of its own
//! tries its grants on every combination of what they ask; and one decision in ten thousand is taken aside and made again.
//! If the two differ, the port denies everything until the next policy comes: a wrong denial is an outage, a wrong
//! permission is a breach.
//!
//! - `thread`: the thread that asks Cedar

mod thread;

pub(crate) use thread::{caught, spawn};

use mesh_policy::Snapshot;
use mesh_policy::equivalence::{Assurance, Sample};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The share of decisions that Cedar makes again. At about a millisecond each this is 0.1 µs a decision.
pub(crate) const CROSS_CHECKED_SHARE: f64 = 1.0 / 10_000.0;

/// Decisions that wait to be made again; more are let go and counted. About 2 KiB each.
const WAITING_MAX: usize = 64;

/// Where cores put decisions aside.
pub(crate) struct CrossChecks {
    sender: SyncSender<Work>,
    /// Taken by the thread that checks, once.
    receiver: Mutex<Option<Receiver<Work>>>,
    /// The newest policy that waits to be tried. It replaces an older one, which is not in force any more.
    policy: Mutex<Option<Snapshot>>,
    /// What came of the last one that was tried.
    tried: Mutex<Option<(Snapshot, Assurance)>>,
    /// Tells that `tried` is new.
    tried_anew: watch::Sender<()>,
    /// Why nothing is checked any more, if the thread has failed.
    failed: Mutex<Option<String>>,
}

/// What the thread is woken for.
enum Work {
    /// A decision to be made again.
    Again(Box<Sample>),
    /// There is a policy to try.
    Policy,
}

impl Default for CrossChecks {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            policy: Mutex::new(None),
            tried: Mutex::new(None),
            tried_anew: watch::Sender::default(),
            failed: Mutex::new(None),
        }
    }
}

impl CrossChecks {
    /// Puts a decision aside, if there is room. `false`: there was none.
    pub(crate) fn offer(&self, sample: Sample) -> bool {
        self.sender.try_send(Work::Again(Box::new(sample))).is_ok()
    }

    /// Has a policy tried that comes into force.
    pub(crate) fn offer_policy(&self, snapshot: Snapshot) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
        // Full: the thread is awake, and looks for a policy before it takes what waits.
        let _ = self.sender.try_send(Work::Policy);
    }

    /// What came of trying `policy`; `None` as long as that is not done.
    pub(crate) fn assurance(&self, policy: &Snapshot) -> Option<Assurance> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, assurance) = tried.as_ref()?;
        snapshot.is(policy).then(|| assurance.clone())
    }

    /// Wakes whenever another policy was tried.
    pub(crate) fn watch_tried(&self) -> watch::Receiver<()> {
        self.tried_anew.subscribe()
    }

    /// Why nothing is checked any more, if so.
    pub(crate) fn failed(&self) -> Option<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone()
    }

    fn take_policy(&self) -> Option<Snapshot> {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        policy.take()
    }
}
