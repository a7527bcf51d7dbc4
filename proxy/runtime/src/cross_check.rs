//! Each policy, and a few live decisions, held against Cedar, off the data path.
//!
//! The compiled matcher decides; Cedar is what it must be equal to. When a policy comes into force, a thread of its own
//! tries its grants on every combination of what they ask; and one decision in ten thousand is taken aside and made again.
//! If the two differ, the port denies everything until the next policy comes: a wrong denial is an outage, a wrong
//! permission is a breach.

use crate::audit::Records;
use crate::error::ProxyError;
use crate::state::Shared;
use mesh_audits::entry::Equivalence;
use mesh_policy::Snapshot;
use mesh_policy::equivalence::{self, Assurance, Sample};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The share of decisions that Cedar makes again. At about a millisecond each this is 0.1 µs a decision.
pub(crate) const CROSS_CHECKED_SHARE: f64 = 1.0 / 10_000.0;

/// Decisions that wait to be made again; more are let go and counted. About 2 KiB each.
const WAITING_MAX: usize = 64;

/// Questions for one policy, about 20 µs each: a second at most. Grants have some dozens of cases each.
const QUESTIONS_MAX: u64 = 50_000;

/// Where cores put decisions aside.
pub(crate) struct CrossChecks {
    sender: SyncSender<Work>,
    /// Taken by the thread that checks, once.
    receiver: Mutex<Option<Receiver<Work>>>,
    /// The newest policy that waits to be tried. It replaces an older one, which is not in force any more.
    policy: Mutex<Option<Snapshot>>,
    /// What came of the last one that was tried.
    tried: Mutex<Option<(Snapshot, Assurance)>>,
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

    fn take_policy(&self) -> Option<Snapshot> {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        policy.take()
    }
}

/// Starts the thread that asks Cedar. It ends with the process.
///
/// # Errors
/// [`ProxyError::Start`] if the system gives no thread.
pub(crate) fn spawn(shared: &Arc<Shared>) -> Result<(), ProxyError> {
    let receiver = shared
        .cross_checks
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(receiver) = receiver else {
        return Ok(());
    };
    let shared = Arc::downgrade(shared);
    let run = move || {
        for work in receiver {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if let Some(policy) = shared.cross_checks.take_policy() {
                try_policy(&shared, policy);
            }
            if let Work::Again(sample) = work {
                check(&shared, &sample);
            }
        }
    };
    std::thread::Builder::new()
        .name("cross-check".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
        .map_err(|error| ProxyError::Start {
            part: "the cross-check thread",
            why: error.to_string(),
        })
}

/// Cedar refuses to evaluate with less than 100 KiB of stack left.
const STACK_BYTES: usize = 2 << 20;

/// Tries the grants of a policy, and remembers what came of it: in the status, in the metrics and in the audit log.
fn try_policy(shared: &Shared, policy: Snapshot) {
    let found = equivalence::check(&policy, QUESTIONS_MAX);
    let generation = policy.generation().0;
    shared
        .telemetry
        .count("mesh_policy_equivalence_checks_total");
    if let Assurance::Differs { port, grant, case } = &found {
        shared.telemetry.count("mesh_policy_mismatches_total");
        tracing::error!(
            code = "MESH-0429",
            generation,
            port,
            grant,
            case,
            "the compiled policy and Cedar differ; the port denies everything until the next policy"
        );
        policy.distrust(*port);
        shared.policy_doubted();
    } else {
        tracing::info!(generation, ?found, "the compiled policy is Cedar's");
    }
    shared.records.send_equivalence(Equivalence {
        time: shared.platform.wall_clock(),
        generation,
        found: found.clone(),
    });
    let tried = &shared.cross_checks.tried;
    *tried.lock().unwrap_or_else(PoisonError::into_inner) = Some((policy, found));
}

fn check(shared: &Shared, sample: &Sample) {
    shared.telemetry.count("mesh_policy_cross_checks_total");
    let Err(mismatch) = sample.check() else {
        return;
    };
    shared.telemetry.count("mesh_policy_mismatches_total");
    tracing::error!(
        code = "MESH-0429",
        generation = sample.generation().0,
        port = sample.port(),
        matcher = ?mismatch.matcher,
        cedar = ?mismatch.cedar,
        "the compiled policy and Cedar decide differently; the port denies everything until the next policy"
    );
    record(&shared.records, &mismatch.cedar);
    sample.snapshot().distrust(sample.port());
    shared.policy_doubted();
}

/// What Cedar decides goes to the log beside what was decided.
fn record(records: &Records, cedar: &mesh_policy::record::DecisionRecord) {
    records.send(cedar.clone());
}
