//! Evidence held against controls.
//!
//! In one scope: a need that fails makes `not-satisfied`; one that cannot be told makes `insufficient-data`; one that
//! should hold and does not makes `partial`; if there is nothing to ask, `not-applicable`. Of the whole: the worst of
//! its scopes, but scopes that hold beside scopes that cannot be told are `partial`, never less than the truth and never
//! more.

use crate::evidence::metric::{Of, Reading};
use crate::evidence::{Evidence, Finding, MESH};
use crate::expression::Need;
use crate::framework::{Control, Framework};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How a control stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The evidence meets all that the mapping asks of it.
    Satisfied,
    /// It meets a part, in some scopes, or the mesh covers a part only.
    Partial,
    /// It does not.
    NotSatisfied,
    /// There is too little to say.
    InsufficientData,
    /// There is nothing that it could be asked of.
    NotApplicable,
}

/// How a framework stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameworkResult {
    /// Its id.
    pub framework: String,
    /// Its name.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Revision of the mapping.
    pub mapping_revision: u32,
    /// Where it is published.
    pub source: String,
    /// How many controls have which status.
    pub counts: BTreeMap<Status, usize>,
    /// Its controls.
    pub controls: Vec<ControlResult>,
}

/// How a control stands, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlResult {
    /// Its id.
    pub id: String,
    /// What it is about, in our words.
    pub title: String,
    /// How it stands.
    pub status: Status,
    /// Its stage of maturity, in frameworks that have stages.
    pub stage: Option<Stage>,
    /// Evidence it was held against.
    pub evidence: Vec<String>,
    /// What the mapping asks, as text.
    pub needs: Vec<String>,
    /// What should hold too.
    pub should: Vec<String>,
    /// Each scope that has something to say.
    pub scopes: Vec<ScopeResult>,
    /// Ids of the findings that speak against it.
    pub findings: Vec<String>,
    /// What the mesh does not cover of it.
    pub not_covered: String,
    /// Whether the mesh covers only a part of it.
    pub part: bool,
    /// Baseline it belongs to.
    pub baseline: Option<String>,
}

/// A stage, and what is in the way of the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// `traditional`, `initial`, `advanced`, `optimal`.
    pub reached: String,
    /// The next one; none after the last.
    pub next: Option<String>,
    /// What it lacks, with the scope.
    pub blocked_by: Vec<String>,
}

/// How a control stands in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeResult {
    /// A namespace, or the mesh.
    pub scope: String,
    /// How it stands.
    pub status: Status,
    /// Why it is not satisfied.
    pub because: Vec<String>,
}

/// Readings by metric and scope.
type Readings<'e> = BTreeMap<(&'e str, &'e str), &'e Reading>;

impl Status {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 5] = [
        Self::Satisfied,
        Self::Partial,
        Self::NotSatisfied,
        Self::InsufficientData,
        Self::NotApplicable,
    ];

    /// As it is printed.
    pub fn text(self) -> &'static str {
        match self {
            Self::Satisfied => "satisfied",
            Self::Partial => "partial",
            Self::NotSatisfied => "not-satisfied",
            Self::InsufficientData => "insufficient-data",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// Holds evidence against a framework.
pub fn judge(
    framework: &Framework,
    evidence: &[Evidence],
    findings: &[Finding],
) -> FrameworkResult {
    let measured = evidence.iter().flat_map(|one| &one.metrics);
    let readings: Readings<'_> = measured
        .map(|one| ((one.metric.as_str(), one.scope.as_str()), &one.reading))
        .collect();
    let controls: Vec<ControlResult> = framework
        .controls
        .iter()
        .map(|control| judge_one(control, &readings, findings))
        .collect();
    let mut counts: BTreeMap<Status, usize> = Status::ALL.iter().map(|one| (*one, 0)).collect();
    for control in &controls {
        *counts.entry(control.status).or_default() += 1;
    }
    FrameworkResult {
        framework: framework.id.clone(),
        title: framework.title.clone(),
        version: framework.version.clone(),
        mapping_revision: framework.revision,
        source: framework.source.clone(),
        counts,
        controls,
    }
}

fn judge_one(control: &Control, readings: &Readings<'_>, findings: &[Finding]) -> ControlResult {
    let (scopes, stage) = if control.stages.is_empty() {
        (scopes_of(&control.needs, &control.should, readings), None)
    } else {
        staged(control, readings)
    };
    let status = match &stage {
        Some(stage) => stage_status(stage, &scopes),
        None => whole(scopes.iter().map(|one| one.status)),
    };
    let status = match status {
        Status::Satisfied if control.part => Status::Partial,
        status => status,
    };
    let failing: BTreeSet<&str> = scopes
        .iter()
        .filter(|one| !matches!(one.status, Status::Satisfied | Status::NotApplicable))
        .map(|one| one.scope.as_str())
        .collect();
    let checks: BTreeSet<&str> = control.all_needs().map(|need| need.metric.id).collect();
    let against = findings
        .iter()
        .filter(|one| checks.contains(one.check.as_str()) && failing.contains(one.scope.as_str()));
    ControlResult {
        id: control.id.clone(),
        title: control.title.clone(),
        status,
        stage,
        evidence: control.evidence(),
        needs: texts(&control.needs),
        should: texts(&control.should),
        findings: against.map(|one| one.id.clone()).collect(),
        scopes,
        not_covered: control.not_covered.clone(),
        part: control.part,
        baseline: control.baseline.clone(),
    }
}

fn texts(needs: &[Need]) -> Vec<String> {
    needs.iter().map(ToString::to_string).collect()
}

/// The status of each scope that some need is read in.
fn scopes_of(needs: &[Need], should: &[Need], readings: &Readings<'_>) -> Vec<ScopeResult> {
    let mut scopes: BTreeMap<&str, Tally> = BTreeMap::new();
    for (need, must) in needs
        .iter()
        .map(|n| (n, true))
        .chain(should.iter().map(|n| (n, false)))
    {
        for (scope, reading) in of(need, readings) {
            scopes.entry(scope).or_default().add(need, reading, must);
        }
    }
    scopes
        .into_iter()
        .map(|(scope, tally)| tally.result(scope))
        .collect()
}

/// Readings of a need's metric, by scope.
fn of<'e>(need: &Need, readings: &Readings<'e>) -> Vec<(&'e str, &'e Reading)> {
    let id = need.metric.id;
    let found: Vec<_> = readings
        .range((id, "")..)
        .take_while(|((metric, _), _)| *metric == id)
        .filter(|((_, scope), _)| match need.metric.of {
            Of::Namespaces => *scope != MESH,
            Of::Mesh => *scope == MESH,
            Of::Both => true,
        })
        .map(|((_, scope), reading)| (*scope, *reading))
        .collect();
    found
}

#[derive(Default)]
struct Tally {
    met: usize,
    failed: usize,
    unknown: usize,
    weak: usize,
    because: Vec<String>,
}

impl Tally {
    fn add(&mut self, need: &Need, reading: &Reading, must: bool) {
        let wanted = if must { "needs" } else { "should have" };
        match (need.met(reading), reading) {
            (Some(true), _) => self.met += 1,
            (Some(false), _) => {
                if must {
                    self.failed += 1;
                } else {
                    self.weak += 1;
                }
                self.because.push(format!(
                    "{} is {}; {wanted} {need}",
                    need.metric.id,
                    reading.text()
                ));
            }
            (None, Reading::Unknown(why)) => {
                if must {
                    self.unknown += 1;
                } else {
                    self.weak += 1;
                }
                self.because
                    .push(format!("{} is not known: {why}", need.metric.id));
            }
            (None, _) => {}
        }
    }

    fn result(self, scope: &str) -> ScopeResult {
        let status = if self.failed > 0 {
            Status::NotSatisfied
        } else if self.unknown > 0 {
            Status::InsufficientData
        } else if self.weak > 0 {
            Status::Partial
        } else if self.met > 0 {
            Status::Satisfied
        } else {
            Status::NotApplicable
        };
        ScopeResult {
            scope: scope.to_owned(),
            status,
            because: self.because,
        }
    }
}

/// The status of a whole from those of its scopes.
fn whole(scopes: impl Iterator<Item = Status>) -> Status {
    let all: BTreeSet<Status> = scopes.collect();
    let has = |status: Status| all.contains(&status);
    if has(Status::NotSatisfied) {
        Status::NotSatisfied
    } else if has(Status::Partial) || has(Status::Satisfied) && has(Status::InsufficientData) {
        Status::Partial
    } else if has(Status::InsufficientData) {
        Status::InsufficientData
    } else if has(Status::Satisfied) {
        Status::Satisfied
    } else {
        Status::NotApplicable
    }
}

/// The stage that all scopes have reached, and the scopes as the next stage finds them.
fn staged(control: &Control, readings: &Readings<'_>) -> (Vec<ScopeResult>, Option<Stage>) {
    let mut reached = "traditional".to_owned();
    let mut last = Vec::new();
    for (name, needs) in &control.stages {
        last = scopes_of(needs, &[], readings);
        let passes =
            |one: &ScopeResult| matches!(one.status, Status::Satisfied | Status::NotApplicable);
        let something = last.iter().any(|one| one.status == Status::Satisfied);
        if !last.iter().all(passes) || !something {
            let blocked = last.iter().filter(|one| !passes(one));
            let mut blocked_by: Vec<String> = blocked
                .flat_map(|one| {
                    one.because
                        .iter()
                        .map(move |why| format!("{}: {why}", one.scope))
                })
                .collect();
            if blocked_by.is_empty() {
                blocked_by.push(format!(
                    "nothing was there to ask: {}",
                    texts(needs).join(", ")
                ));
            }
            let stage = Stage {
                reached,
                next: Some(name.clone()),
                blocked_by,
            };
            return (last, Some(stage));
        }
        reached.clone_from(name);
    }
    let stage = Stage {
        reached,
        next: None,
        blocked_by: Vec::new(),
    };
    (last, Some(stage))
}

fn stage_status(stage: &Stage, scopes: &[ScopeResult]) -> Status {
    match stage.reached.as_str() {
        "optimal" => Status::Satisfied,
        "traditional" => match whole(scopes.iter().map(|one| one.status)) {
            Status::InsufficientData => Status::InsufficientData,
            Status::NotApplicable => Status::NotApplicable,
            _ => Status::NotSatisfied,
        },
        _ => Status::Partial,
    }
}

#[cfg(test)]
mod tests;
