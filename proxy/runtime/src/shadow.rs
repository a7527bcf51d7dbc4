//! A candidate policy, tried beside the one in force on what really happens: it decides the same requests by the same code.
//!
//! What counts is decided before the candidate is asked, and nothing that it does changes that: its verdict is counted and
//! recorded where it differs, and no more. It takes no tokens of a rate limit, and what is over a limit is not compared. A
//! panic retires it on that core. One that is slow rests after each try, so that it has at most a tenth of a core's time.

use crate::core::Core;
use crate::cross_check::caught;
use crate::limits::{TRIAL_REST, TRIAL_SLOW};
use crate::live::Peer;
use mesh_policy::Snapshot;
use mesh_policy::decide::{Decision, Phase};
use mesh_policy::request::Call;
use mesh_proxy_core::first_use::{FirstUses, Use};
use mesh_trust::Timestamp;
use std::cell::{Cell, RefCell};
use std::ops::Deref;

/// Decisions that the candidate was not asked for.
const SKIPPED: &str = "mesh_shadow_skipped_total";
/// Panics of the candidate.
const FAILED: &str = "mesh_shadow_failed_total";

/// The policy in force, and what is tried beside it. One pointer to both: no decision is compared with that of a candidate
/// for another policy.
pub(crate) struct Policy {
    pub(crate) snapshot: Snapshot,
    pub(crate) candidate: Option<Snapshot>,
}

impl Policy {
    /// A policy with nothing beside it.
    pub(crate) fn alone(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            candidate: None,
        }
    }
}

/// What is in force.
impl Deref for Policy {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// How trying goes on one core.
#[derive(Default)]
pub(crate) struct Trials {
    /// Until when, on the clock that never goes back, a slow candidate rests.
    rests_until_us: Cell<u64>,
    /// The candidate that failed here, and is not asked again.
    failed: RefCell<Option<Snapshot>>,
    /// What was recorded of the newest candidate in this hour.
    uses: RefCell<(Option<Snapshot>, FirstUses)>,
}

impl Trials {
    /// Whether this hour has no record yet of such a decision of this candidate.
    pub(crate) fn is_first(&self, decision: &Decision, of: &Use<'_>, now: Timestamp) -> bool {
        let mut uses = self.uses.borrow_mut();
        let (candidate, seen) = &mut *uses;
        if !candidate
            .as_ref()
            .is_some_and(|one| one.is(decision.snapshot()))
        {
            (*candidate, *seen) = (Some(decision.snapshot().clone()), FirstUses::default());
        }
        seen.is_first(of, now)
    }

    /// What `decide` comes to, if the candidate is to be asked now and does not fail; else which counter says so.
    fn attempt(
        &self,
        candidate: &Snapshot,
        now_us: impl Fn() -> u64,
        decide: impl FnOnce() -> Decision,
    ) -> Result<Decision, &'static str> {
        let began_us = now_us();
        if self.has_failed(candidate) || began_us < self.rests_until_us.get() {
            return Err(SKIPPED);
        }
        // What a panic leaves half done are atoms of the candidate, which nobody asks again.
        let decided = caught(decide);
        self.took(began_us, now_us());
        decided.map_err(|why| {
            tracing::error!(
                code = "MESH-0422",
                why,
                "the candidate failed and is not tried any more on this core; the policy in force is not concerned"
            );
            self.failed.replace(Some(candidate.clone()));
            FAILED
        })
    }

    fn has_failed(&self, candidate: &Snapshot) -> bool {
        let failed = self.failed.borrow();
        failed.as_ref().is_some_and(|one| one.is(candidate))
    }

    /// A try took from `began_us` to `ended_us`.
    fn took(&self, began_us: u64, ended_us: u64) {
        let took_us = ended_us.saturating_sub(began_us);
        if u128::from(took_us) >= TRIAL_SLOW.as_micros() {
            let rest_us = took_us.saturating_mul(TRIAL_REST);
            self.rests_until_us.set(ended_us.saturating_add(rest_us));
        }
    }
}

/// What the candidate decides about `call`, counted; `None` where that is what counts too, and where there is none.
pub(crate) fn otherwise(
    core: &Core,
    peer: &Peer,
    policy: &Policy,
    counts: &Decision,
    call: &Call<'_>,
    now: Timestamp,
) -> Option<Decision> {
    let candidate = policy.candidate.as_ref()?;
    // The limit was asked for a request that policy allows; whether the candidate would have asked is another question.
    if counts.phase == Phase::RateLimit {
        return None;
    }
    let decide = || peer.decide_beside(candidate, call, now);
    let decided = core.trials.attempt(candidate, || core.now_us(), decide);
    let decision = decided
        .map_err(|counter| core.meter.untried(counter))
        .ok()?;
    let turned = decision.verdict != counts.verdict;
    core.meter.tried(turned.then_some(&*decision));
    turned.then_some(decision)
}

#[cfg(test)]
mod tests;
