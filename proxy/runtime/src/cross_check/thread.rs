//! The thread that asks Cedar.
//!
//! Policy lies packed in memory while nobody looks at it, and Cedar needs it whole. So decisions that wait are made again
//! together, and after that the thread rests many times as long as reading took: large policies are read seldom, small
//! ones at once. What was read is dropped between.

use super::{CrossChecks, WAITING_MAX, Work};
use crate::error::ProxyError;
use crate::state::Shared;
use mesh_audits::entry::Equivalence;
use mesh_platform::Tick;
use mesh_policy::Snapshot;
use mesh_policy::equivalence::{self, Assurance, Sample};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// Questions for one policy, about 20 µs each: a second at most. Grants have some dozens of cases each.
const QUESTIONS_MAX: u64 = 50_000;

/// How many times as long as asking Cedar took the thread rests: it takes some 2 % of a core at most. Ten thousand grants
/// are read in 60 ms.
const REST: u32 = 50;

/// Cedar refuses to evaluate with less than 100 KiB of stack left.
const STACK_BYTES: usize = 2 << 20;

/// Starts the thread. It ends with the process.
///
/// # Errors
/// [`ProxyError::Start`] if the system gives no thread.
pub(crate) fn spawn(shared: &Arc<Shared>) -> Result<(), ProxyError> {
    let checks = &shared.cross_checks;
    let receiver = checks.receiver.lock();
    let receiver = receiver.unwrap_or_else(PoisonError::into_inner).take();
    let Some(receiver) = receiver else {
        return Ok(());
    };
    let checker = Checker {
        shared: Arc::downgrade(shared),
        waiting: Vec::new(),
        rests_until: Tick::default(),
    };
    let shared = Arc::downgrade(shared);
    let run = move || {
        // What the thread left half done ends with it, but for what is behind locks, which is whole.
        if let Err(why) = caught(|| checker.run(&receiver))
            && let Some(shared) = shared.upgrade()
        {
            report_failure(&shared.cross_checks, why);
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

/// Does something; a panic in it becomes an error with its message. The caller sees to it that nobody looks at what was
/// left half done.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without message".to_owned())
}

/// The compiled policy goes on deciding, but nobody compares it with Cedar any more: the status says so.
fn report_failure(checks: &CrossChecks, why: String) {
    tracing::error!(
        code = "MESH-0336",
        why,
        "decisions and policies are not compared with Cedar any more; restart the proxy"
    );
    *checks.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
}

/// The thread's state.
struct Checker {
    shared: Weak<Shared>,
    /// Decisions to be made again.
    waiting: Vec<Sample>,
    rests_until: Tick,
}

impl Checker {
    fn run(mut self, receiver: &Receiver<Work>) {
        loop {
            let work = match self.rest() {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(rest) => receiver.recv_timeout(rest),
            };
            let Some(shared) = self.shared.upgrade() else {
                return;
            };
            match work {
                Ok(Work::Again(sample)) => self.keep(&shared, *sample),
                Ok(Work::Policy) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(policy) = shared.cross_checks.take_policy() {
                try_policy(&shared, policy);
            }
            if self.rest().is_some_and(|rest| rest.is_zero()) {
                self.check_all(&shared);
            }
        }
    }

    /// How long decisions that wait have to wait yet; `None` if none does.
    fn rest(&self) -> Option<Duration> {
        let shared = self.shared.upgrade()?;
        let now = shared.platform.monotonic();
        (!self.waiting.is_empty()).then(|| self.rests_until.since(now))
    }

    fn keep(&mut self, shared: &Shared, sample: Sample) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(sample);
        } else {
            let skipped = "mesh_policy_cross_checks_skipped_total";
            shared.telemetry.count(skipped);
        }
    }

    fn check_all(&mut self, shared: &Shared) {
        let begun = shared.platform.monotonic();
        // Those of one policy come together, so that it is read once.
        let mut held = None;
        for sample in self.waiting.drain(..) {
            held = Some(sample.snapshot().data());
            check(shared, &sample);
        }
        drop(held);
        let now = shared.platform.monotonic();
        self.rests_until = now.plus(now.since(begun).saturating_mul(REST));
    }
}

/// Tries the grants of a policy, and remembers what came of it: in the status, in the metrics and in the audit log. Then
/// the policy is packed: from now on its data is asked for seldom.
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
    if !policy.pack() {
        tracing::warn!(
            generation,
            "the policy cannot be packed and takes more memory"
        );
    }
    let tried = &shared.cross_checks.tried;
    *tried.lock().unwrap_or_else(PoisonError::into_inner) = Some((policy, found));
    shared.cross_checks.tried_anew.send_replace(());
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
    // What Cedar decides goes to the log beside what was decided.
    shared.records.send(mismatch.cedar.clone());
    sample.snapshot().distrust(sample.port());
    shared.policy_doubted();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::resume_unwind;

    fn end(panic: Box<dyn Any + Send>) {
        resume_unwind(panic)
    }

    #[test]
    fn a_panic_is_said_and_stays_said() {
        let checks = CrossChecks::default();
        assert_eq!(caught(|| ()), Ok(()));
        assert_eq!(checks.failed(), None);
        let panics: [(Box<dyn Any + Send>, &str); 3] = [
            (Box::new("as text"), "as text"),
            (Box::new("made of 2".to_owned()), "made of 2"),
            (Box::new(7), "a panic without message"),
        ];
        for (panic, said) in panics {
            report_failure(&checks, caught(|| end(panic)).unwrap_err());
            assert_eq!(checks.failed().as_deref(), Some(said));
        }
    }
}
