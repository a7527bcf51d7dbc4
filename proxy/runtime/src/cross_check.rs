//! A few live decisions, decided again by Cedar, off the data path.
//!
//! The compiled matcher decides; Cedar is what it must be equal to. One decision in ten thousand is taken aside and made
//! again by a thread of its own. If the two differ, the port denies everything until the next policy comes: a wrong denial
//! is an outage, a wrong permission is a breach.

use crate::audit::Records;
use crate::error::ProxyError;
use crate::state::Shared;
use mesh_policy::equivalence::Sample;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The share of decisions that Cedar makes again. At about a millisecond each this is 0.1 µs a decision.
pub(crate) const CROSS_CHECKED_SHARE: f64 = 1.0 / 10_000.0;

/// Decisions that wait to be made again; more are let go and counted. About 2 KiB each.
const WAITING_MAX: usize = 64;

/// Where cores put decisions aside.
pub(crate) struct CrossChecks {
    sender: SyncSender<Sample>,
    /// Taken by the thread that checks, once.
    receiver: Mutex<Option<Receiver<Sample>>>,
}

impl Default for CrossChecks {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl CrossChecks {
    /// Puts a decision aside, if there is room. `false`: there was none.
    pub(crate) fn offer(&self, sample: Sample) -> bool {
        self.sender.try_send(sample).is_ok()
    }
}

/// Starts the thread that has Cedar decide again. It ends with the process.
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
        for sample in receiver {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            check(&shared, &sample);
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
