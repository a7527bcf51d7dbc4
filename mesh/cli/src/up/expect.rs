//! Expectations of `mesh.yaml`, held against what the applications report and what the proxies counted.

use crate::local_mesh::{AppProtocol, Expectation, Expected};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One attempt as a demo application reports it on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Observation {
    /// Who tried.
    pub(crate) from: String,
    /// Whom.
    pub(crate) to: String,
    /// What was spoken.
    pub(crate) protocol: AppProtocol,
    /// `200`, `403`, `grpc:0`, `grpc:7`, `ok`, `closed`, `refused`, `error:<text>`.
    pub(crate) outcome: String,
    /// How long it took.
    #[serde(default)]
    pub(crate) latency_us: u64,
}

impl Observation {
    /// What the outcome says about the verdict; `None` for a failure that is none (application down, say).
    pub(crate) fn verdict(&self) -> Option<Expected> {
        match (self.protocol, self.outcome.as_str()) {
            (AppProtocol::Http, outcome) => match outcome.parse::<u16>() {
                Ok(200..=299) => Some(Expected::Allow),
                Ok(403) => Some(Expected::Deny),
                _ => None,
            },
            (AppProtocol::Grpc, "grpc:0") | (AppProtocol::Tcp, "ok") => Some(Expected::Allow),
            (AppProtocol::Grpc, "grpc:7") | (AppProtocol::Tcp, "closed" | "refused") => {
                Some(Expected::Deny)
            }
            _ => None,
        }
    }
}

/// Caller, upstream and protocol.
type Edge = (String, String, AppProtocol);

/// Counts of outcomes by edge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    outcomes: BTreeMap<Edge, BTreeMap<String, Seen>>,
}

/// How often an outcome was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Times.
    pub(crate) count: u64,
    verdict: Option<Expected>,
}

impl Observed {
    /// Counts one attempt.
    pub(crate) fn add(&mut self, observation: &Observation) {
        let key = (
            observation.from.clone(),
            observation.to.clone(),
            observation.protocol,
        );
        let seen = self
            .outcomes
            .entry(key)
            .or_default()
            .entry(observation.outcome.clone())
            .or_default();
        seen.count += 1;
        seen.verdict = observation.verdict();
    }

    /// Whether `expectation` held: it was tried, and every attempt ended as expected.
    ///
    /// # Errors
    /// What was seen instead, in words.
    pub(crate) fn check(&self, expectation: &Expectation) -> Result<u64, String> {
        let key = (
            expectation.from.clone(),
            expectation.to.clone(),
            expectation.protocol,
        );
        let Some(outcomes) = self.outcomes.get(&key) else {
            return Err("it was never tried".to_owned());
        };
        let as_expected = |outcome: &str, seen: &Seen| {
            seen.verdict == Some(expectation.expect)
                && expectation
                    .outcome
                    .as_deref()
                    .is_none_or(|want| want == outcome)
        };
        let contrary: Vec<_> = outcomes
            .iter()
            .filter(|(outcome, seen)| !as_expected(outcome, seen))
            .map(|(outcome, seen)| format!("{} × {outcome}", seen.count))
            .collect();
        if contrary.is_empty() {
            Ok(outcomes.values().map(|seen| seen.count).sum())
        } else {
            Err(format!("seen: {}", contrary.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(outcomes: &[&str]) -> Observed {
        let mut observed = Observed::default();
        for outcome in outcomes {
            observed.add(&Observation {
                from: "web".into(),
                to: "orders".into(),
                protocol: AppProtocol::Http,
                outcome: (*outcome).into(),
                latency_us: 1,
            });
        }
        observed
    }

    fn expects(expect: Expected, outcome: Option<&str>) -> Expectation {
        Expectation {
            from: "web".into(),
            to: "orders".into(),
            protocol: AppProtocol::Http,
            expect,
            outcome: outcome.map(str::to_owned),
        }
    }

    #[test]
    fn an_edge_that_was_never_tried_does_not_hold() {
        assert!(
            Observed::default()
                .check(&expects(Expected::Deny, None))
                .is_err()
        );
    }

    #[test]
    fn one_contrary_outcome_breaks_an_expectation() {
        assert_eq!(
            seen(&["200", "200"]).check(&expects(Expected::Allow, None)),
            Ok(2)
        );
        assert_eq!(
            seen(&["200", "403"]).check(&expects(Expected::Allow, None)),
            Err("seen: 1 × 403".into())
        );
        assert!(
            seen(&["403", "200"])
                .check(&expects(Expected::Deny, None))
                .is_err()
        );
    }

    #[test]
    fn a_failure_is_neither_an_allow_nor_a_deny() {
        for outcome in ["502", "503", "error:timeout", ""] {
            assert!(
                seen(&[outcome])
                    .check(&expects(Expected::Allow, None))
                    .is_err(),
                "{outcome}"
            );
            assert!(
                seen(&[outcome])
                    .check(&expects(Expected::Deny, None))
                    .is_err(),
                "{outcome}"
            );
        }
    }

    #[test]
    fn a_named_outcome_must_be_that_one() {
        assert!(
            seen(&["403"])
                .check(&expects(Expected::Deny, Some("403")))
                .is_ok()
        );
        assert!(
            seen(&["200"])
                .check(&expects(Expected::Allow, Some("204")))
                .is_err()
        );
    }
}
