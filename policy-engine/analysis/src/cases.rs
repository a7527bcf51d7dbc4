//! Policy tests: requests, what is expected of each, and what was found.

use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::RequestRecord;
use mesh_policy_index::Index;
use mesh_policy_index::replay::Replay;
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One request with its expectation.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called in reports.
    pub name: String,
    /// `file:line` of the case.
    pub place: String,
    /// What is asked.
    pub request: RequestRecord,
    /// When; `None`: at the time of the run.
    pub at: Option<Timestamp>,
    /// What must come of it.
    pub expect: Expectation,
}

/// What must come of a request; what is absent is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Allowed or not.
    pub verdict: Verdict,
    /// The layer that decides.
    pub phase: Option<Phase>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// Whether audit grants alone allow it.
    pub audit: Option<bool>,
    /// The route that takes it: `kind/namespace/name`, `kind/namespace/name/rule`, or `none`.
    pub route: Option<String>,
    /// One of the reasons: `kind/namespace/name`, with its part or without.
    pub policy: Option<String>,
    /// Exactly these reasons.
    pub reasons: Option<BTreeSet<String>>,
}

impl Expectation {
    /// Nothing but a verdict.
    pub fn verdict(verdict: Verdict) -> Self {
        Self {
            verdict,
            phase: None,
            status: None,
            audit: None,
            route: None,
            policy: None,
            reasons: None,
        }
    }

    /// What of `decision` is not as expected, one sentence each.
    pub fn faults(&self, decision: &DecisionRecord) -> Vec<String> {
        let mut faults = Vec::new();
        let mut compare = |what: &str, want: String, got: String| {
            if want != got {
                faults.push(format!("{what} is {got}, expected {want}"));
            }
        };
        compare("verdict", text(&self.verdict), text(&decision.verdict));
        if let Some(phase) = &self.phase {
            compare("phase", text(phase), text(&decision.phase));
        }
        if let Some(status) = self.status {
            compare("status", text(&Some(status)), text(&decision.status));
        }
        if let Some(audit) = self.audit {
            compare("audit", text(&audit), text(&decision.audit));
        }
        let found: BTreeSet<String> = decision.reasons.iter().cloned().collect();
        if let Some(reasons) = &self.reasons {
            compare("the set of reasons", text(reasons), text(&found));
        }
        if let Some(policy) = &self.policy
            && !found.iter().any(|reason| is_or_below(reason, policy))
        {
            faults.push(format!(
                "`{policy}` is not among the reasons {}",
                text(&found)
            ));
        }
        if let Some(want) = &self.route {
            let got = route_text(decision).unwrap_or_else(|| "none".to_owned());
            if !is_or_below(&got, want) {
                faults.push(format!("route is {got}, expected {want}"));
            }
        }
        faults
    }
}

/// Whether `id` is `wanted`, or a part of it.
fn is_or_below(id: &str, wanted: &str) -> bool {
    id.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `kind/namespace/name/rule` of the route that took the request.
pub fn route_text(decision: &DecisionRecord) -> Option<String> {
    let route = decision.route.as_ref()?;
    Some(format!(
        "{}/{}/{}/{}",
        route.kind, route.namespace, route.name, route.rule
    ))
}

/// What came of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the case.
    pub name: String,
    /// Where it stands.
    pub place: String,
    /// What is not as expected; empty: it passed.
    pub faults: Vec<String>,
    /// Nobody has the name of its target: it tests nothing, whatever it expects.
    pub unknown_target: bool,
    /// The decision.
    pub decision: DecisionRecord,
}

impl Outcome {
    /// Whether all is as expected.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Decides cases, each at its time, by the code of the data path.
pub struct Bench<'i> {
    index: &'i Index,
    now: Timestamp,
    by_time: BTreeMap<Timestamp, Replay<'i>>,
}

impl<'i> Bench<'i> {
    /// The policy of `index`; cases without a time are decided at `now`.
    pub fn new(index: &'i Index, now: Timestamp) -> Self {
        Self {
            index,
            now,
            by_time: BTreeMap::new(),
        }
    }

    /// Decides the request of a case.
    pub fn decide(&mut self, case: &Case) -> DecisionRecord {
        let (index, at) = (self.index, case.at.unwrap_or(self.now));
        let replay = self
            .by_time
            .entry(at)
            .or_insert_with(|| Replay::new(index, at));
        replay.decide(&case.request)
    }

    /// Runs one case.
    pub fn run(&mut self, case: &Case) -> Outcome {
        let decision = self.decide(case);
        let mut faults = case.expect.faults(&decision);
        let unknown = self.index.resolve(&case.request.server).err();
        if let Some(why) = &unknown {
            // A denial that comes of a misspelt name would look like a policy that holds.
            faults.insert(0, format!("there is no such target: {why}"));
        }
        Outcome {
            name: case.name.clone(),
            place: case.place.clone(),
            faults,
            unknown_target: unknown.is_some(),
            decision,
        }
    }
}

/// A value as it stands in records.
pub(crate) fn text<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    text.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, case, index};

    #[test]
    fn each_expectation_can_fail_alone() {
        let index = index();
        let allowed = case("web", "/orders/1", Verdict::Allow);
        let decision = Bench::new(&index, NOW).decide(&allowed);
        let read = "AuthorizationPolicy/shop/read/0".to_owned();
        let right = Expectation {
            phase: Some(Phase::Permit),
            status: Some(200),
            audit: Some(false),
            route: Some("HTTPRoute/shop/read".to_owned()),
            policy: Some("AuthorizationPolicy/shop/read".to_owned()),
            reasons: Some([read.clone()].into()),
            verdict: Verdict::Allow,
        };
        assert_eq!(right.faults(&decision), Vec::<String>::new());
        let change = |edit: fn(&mut Expectation)| {
            let mut wrong = right.clone();
            edit(&mut wrong);
            wrong
        };
        for wrong in [
            change(|e| e.verdict = Verdict::Deny),
            change(|e| e.phase = Some(Phase::Route)),
            change(|e| e.status = Some(403)),
            change(|e| e.audit = Some(true)),
            change(|e| e.route = Some("HTTPRoute/shop/rea".to_owned())),
            change(|e| e.route = Some("none".to_owned())),
            change(|e| e.policy = Some("AuthorizationPolicy/shop/rea".to_owned())),
            change(|e| e.reasons = Some(BTreeSet::new())),
        ] {
            assert_eq!(wrong.faults(&decision).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn a_target_that_there_is_not_fails_whatever_is_expected() {
        let index = index();
        for verdict in [Verdict::Allow, Verdict::Deny] {
            let mut lost = case("web", "/orders", verdict);
            lost.request.server.pod = Some("ordrs".to_owned());
            let outcome = Bench::new(&index, NOW).run(&lost);
            assert!(outcome.unknown_target && !outcome.passed());
        }
    }
}
