//! One policy beside another: the same requests decided by both, differing verdicts counted by what they have in common.

use crate::cases::route_text;
use crate::records::{phase, request, target};
use mesh_policy::decide::Verdict;
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::RequestRecord;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which way a verdict turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// The candidate allows what the live policy denies.
    Gained,
    /// The candidate denies what the live policy allows.
    Lost,
}

/// Why a policy decides so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Why {
    /// Layer that decided.
    pub phase: String,
    /// The route that took the request: `kind/namespace/name/rule`.
    pub route: Option<String>,
    /// Reasons, sorted.
    pub reasons: Vec<String>,
}

/// Requests whose verdict turns, alike in client, target and reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Which way.
    pub turn: Turn,
    /// Identity of the client, if any.
    pub from: Option<String>,
    /// `namespace/workload:port`.
    pub to: String,
    /// Under the live policy.
    pub live: Why,
    /// Under the candidate.
    pub candidate: Why,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub witness: RequestRecord,
}

type Key = (Turn, Option<String>, String, Why, Why);

/// Differences so far.
#[derive(Debug, Default)]
pub struct Shadow {
    requests: u64,
    found: BTreeMap<Key, (u64, RequestRecord)>,
}

impl Shadow {
    /// Counts one request with both decisions.
    pub fn add(
        &mut self,
        request: &RequestRecord,
        live: &DecisionRecord,
        candidate: &DecisionRecord,
    ) {
        self.count(request, live, candidate.verdict, || why(candidate));
    }

    /// Counts one request by its record alone, which has what a candidate in the proxy decided otherwise.
    pub fn add_recorded(&mut self, record: &DecisionRecord) {
        let Some(shadow) = &record.shadow else {
            self.requests = self.requests.saturating_add(1);
            return;
        };
        self.count(&request(record), record, shadow.verdict, || Why {
            phase: phase(shadow.phase),
            route: None,
            reasons: shadow.reasons.clone(),
        });
    }

    fn count(
        &mut self,
        request: &RequestRecord,
        live: &DecisionRecord,
        candidate: Verdict,
        why_candidate: impl FnOnce() -> Why,
    ) {
        self.requests = self.requests.saturating_add(1);
        let turn = match (live.verdict, candidate) {
            (Verdict::Allow, Verdict::Deny) => Turn::Lost,
            (Verdict::Deny, Verdict::Allow) => Turn::Gained,
            (Verdict::Allow, Verdict::Allow) | (Verdict::Deny, Verdict::Deny) => return,
        };
        let from = live.client.spiffe_id.clone();
        let key = (turn, from, target(live), why(live), why_candidate());
        let (count, _) = self
            .found
            .entry(key)
            .or_insert_with(|| (0, request.clone()));
        *count = count.saturating_add(1);
    }

    /// Requests that were compared.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// What differs: what is gained first.
    pub fn differences(&self) -> Vec<Difference> {
        let all = self.found.iter();
        all.map(
            |((turn, from, to, live, candidate), (count, witness))| Difference {
                turn: *turn,
                from: from.clone(),
                to: to.clone(),
                live: live.clone(),
                candidate: candidate.clone(),
                count: *count,
                witness: witness.clone(),
            },
        )
        .collect()
    }
}

fn why(decision: &DecisionRecord) -> Why {
    Why {
        phase: phase(decision.phase),
        route: route_text(decision),
        reasons: decision.reasons.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{POD, POLICY, decide, index, index_of, request};

    #[test]
    fn both_turns_are_told_apart_and_counted() {
        let (live, candidate) = (
            index(),
            index_of(&[POD, &POLICY.replace("sa/admin", "sa/batch")]),
        );
        let mut shadow = Shadow::default();
        for account in ["web", "admin", "admin", "batch"] {
            let request = request(account, "/orders");
            shadow.add(
                &request,
                &decide(&live, &request),
                &decide(&candidate, &request),
            );
        }
        let all = shadow.differences();
        let found: Vec<_> = all.iter().map(|d| (d.turn, d.count)).collect();
        assert_eq!(found, [(Turn::Gained, 1), (Turn::Lost, 2)]);
        assert_eq!(shadow.requests(), 4);
        let reasons = ["AuthorizationPolicy/shop/read/0"];
        assert_eq!(
            (all[0].live.reasons.len(), &all[0].candidate.reasons[..]),
            (0, &reasons.map(str::to_owned)[..])
        );
        for one in &all {
            let verdicts = (
                decide(&live, &one.witness).verdict,
                decide(&candidate, &one.witness).verdict,
            );
            assert_ne!(verdicts.0, verdicts.1);
        }
    }
}
