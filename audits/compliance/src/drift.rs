//! Drift: what changed from one report to the next.

use crate::evidence::Finding;
use crate::evidence::metric::Reading;
use crate::judge::Status;
use crate::report::Report;
use serde::Serialize;
use std::collections::BTreeMap;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Windows of the two.
    pub windows: [String; 2],
    /// Controls whose status changed, and those that only one report has.
    pub controls: Vec<ControlDrift>,
    /// Findings that are new.
    pub new: Vec<Finding>,
    /// Findings that are gone.
    pub gone: Vec<Finding>,
    /// Numbers that changed.
    pub metrics: Vec<MetricDrift>,
}

/// A control whose status changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlDrift {
    /// Its framework.
    pub framework: String,
    /// Its id.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Before; none if the old report does not have it.
    pub old: Option<Status>,
    /// After.
    pub new: Option<Status>,
    /// Whether it is worse now.
    pub worse: bool,
}

/// A number that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricDrift {
    /// The metric.
    pub metric: String,
    /// The scope.
    pub scope: String,
    /// Before, as text; `-` if it was not there.
    pub old: String,
    /// After.
    pub new: String,
}

impl Drift {
    /// What changed from `old` to `new`.
    pub fn of(old: &Report, new: &Report) -> Self {
        let window = |report: &Report| format!("{} to {}", report.scope.since, report.scope.until);
        Self {
            windows: [window(old), window(new)],
            controls: controls(old, new),
            new: without(new, old),
            gone: without(old, new),
            metrics: metrics(old, new),
        }
    }

    /// Whether something is worse: a control, or a new finding.
    pub fn is_worse(&self) -> bool {
        !self.new.is_empty() || self.controls.iter().any(|one| one.worse)
    }
}

/// Findings of one report that another does not have.
fn without(report: &Report, other: &Report) -> Vec<Finding> {
    let known: std::collections::BTreeSet<&str> =
        other.findings.iter().map(|one| one.id.as_str()).collect();
    let missing = report
        .findings
        .iter()
        .filter(|one| !known.contains(one.id.as_str()));
    missing.cloned().collect()
}

fn controls(old: &Report, new: &Report) -> Vec<ControlDrift> {
    type Known<'r> = BTreeMap<(&'r str, &'r str), (&'r str, Status)>;
    fn all(report: &Report) -> Known<'_> {
        let frameworks = report.frameworks.iter();
        frameworks
            .flat_map(|one| {
                let controls = one.controls.iter();
                controls.map(|c| {
                    (
                        (one.framework.as_str(), c.id.as_str()),
                        (c.title.as_str(), c.status),
                    )
                })
            })
            .collect()
    }
    let (before, after) = (all(old), all(new));
    let mut keys: Vec<_> = before.keys().chain(after.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .filter_map(|key| {
            let (was, is) = (before.get(&key), after.get(&key));
            let (old, new) = (was.map(|one| one.1), is.map(|one| one.1));
            (old != new).then(|| ControlDrift {
                framework: key.0.to_owned(),
                id: key.1.to_owned(),
                title: was.or(is).map_or("", |one| one.0).to_owned(),
                old,
                new,
                worse: matches!((old, new), (Some(old), Some(new)) if rank(new) > rank(old)),
            })
        })
        .collect()
}

/// How bad a status is.
fn rank(status: Status) -> u8 {
    match status {
        Status::Satisfied | Status::NotApplicable => 0,
        Status::Partial => 1,
        Status::InsufficientData => 2,
        Status::NotSatisfied => 3,
    }
}

fn metrics(old: &Report, new: &Report) -> Vec<MetricDrift> {
    fn all(report: &Report) -> BTreeMap<(&str, &str), &Reading> {
        let measured = report.evidence.iter().flat_map(|one| &one.metrics);
        measured
            .map(|one| ((one.metric.as_str(), one.scope.as_str()), &one.reading))
            .collect()
    }
    let (before, after) = (all(old), all(new));
    let mut keys: Vec<_> = before.keys().chain(after.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let text =
        |reading: Option<&&Reading>| reading.map_or_else(|| "-".to_owned(), |one| one.text());
    keys.into_iter()
        .map(|key| MetricDrift {
            metric: key.0.to_owned(),
            scope: key.1.to_owned(),
            old: text(before.get(&key)),
            new: text(after.get(&key)),
        })
        .filter(|one| one.old != one.new)
        .collect()
}
