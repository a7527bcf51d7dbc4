//! Who reaches whom, over the service accounts of workloads; and what to remove so that two no longer do.
//!
//! There is an edge from one workload to another if some request of the first, under its own identity or none at all, is
//! allowed by the second. Probes are no edges. What is outside of the mesh can be a node too, [`OUTSIDE`], with an edge from
//! each workload that gets out.

mod flow;

use crate::access::identities;
use crate::error::AnalysisError;
use crate::outside::Witness;
use crate::outside::access::{Where, outgoing};
use crate::survey::{Allowed, Reason, Setting, Survey, compile, is_probe};
use crate::world::{World, ports, title};
use mesh_policy::request::RequestRecord;
use mesh_policy_index::WorkloadKey;
use mesh_trust::{SpiffeId, TrustDomain};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Edges that the search for a smallest cut may walk: some seconds.
const CUT_WORK_MAX: usize = 20_000_000;

/// Part of the workloads: a namespace, or one workload of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selector {
    /// The namespace.
    pub namespace: String,
    /// The workload; all if none.
    pub workload: Option<String>,
}

/// Access from one workload to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// `namespace/workload`; of a namespace without one, `namespace/*`.
    pub from: String,
    /// `namespace/workload`.
    pub to: String,
    /// Every policy that allows some of it, sorted.
    pub grants: Vec<Reason>,
    /// One request.
    pub witness: Step,
}

/// What shows an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Step {
    /// A request to a workload.
    Call(RequestRecord),
    /// A connection or request to outside.
    Leaves(Witness),
}

/// The node that stands for all that is outside of the mesh.
pub const OUTSIDE: &str = "outside";

/// All edges.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Graph {
    /// Whether every class was asked. If not, there may be more edges.
    pub exact: bool,
    /// Why not.
    pub notes: Vec<String>,
    /// Questions that were decided.
    pub decisions: usize,
    /// By the workload they start at.
    pub edges: BTreeMap<String, Vec<Edge>>,
}

/// A smallest set of grants that keeps two apart once it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The grants.
    pub grants: Vec<Reason>,
    /// Whether no smaller set does it; else it is only one that does.
    pub smallest: bool,
}

impl Selector {
    /// Reads `namespace` or `namespace/workload`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (namespace, workload) = match text.split_once('/') {
            Some((namespace, workload)) => (namespace, Some(workload)),
            None => (text, None),
        };
        if namespace.is_empty() || workload.is_some_and(|w| w.is_empty() || w.contains('/')) {
            return Err(format!(
                "`{text}` is no part of a mesh: write `namespace` or `namespace/workload`"
            ));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            workload: workload.map(str::to_owned),
        })
    }

    /// Whether a workload is in it.
    pub fn has(&self, key: &WorkloadKey) -> bool {
        key.namespace == self.namespace
            && self.workload.as_ref().is_none_or(|name| *name == key.name)
    }

    /// As it was written.
    pub fn text(&self) -> String {
        match &self.workload {
            Some(workload) => format!("{}/{workload}", self.namespace),
            None => self.namespace.clone(),
        }
    }

    /// Whether it means [`OUTSIDE`]: no namespace is called so.
    pub fn is_outside(&self, world: &dyn World) -> bool {
        let named = |key: &WorkloadKey| key.namespace == self.namespace;
        self.text() == OUTSIDE && !world.workloads().iter().any(named)
    }

    /// The workloads in it.
    ///
    /// # Errors
    /// [`AnalysisError::NoSuch`] if there are none.
    pub fn among(&self, world: &dyn World) -> Result<Vec<WorkloadKey>, AnalysisError> {
        let found: Vec<_> = world
            .workloads()
            .into_iter()
            .filter(|key| self.has(key))
            .collect();
        if found.is_empty() {
            return Err(AnalysisError::NoSuch { asked: self.text() });
        }
        Ok(found)
    }
}

/// Allowed questions of a port by whether some identity may ask them.
fn access_of<'s>(survey: &'s Survey, id: &SpiffeId) -> Vec<&'s Allowed> {
    let classes = survey.classes_of(id);
    let mine = survey
        .allowed
        .iter()
        .filter(|one| classes.contains(&one.who) && !is_probe(one));
    mine.collect()
}

impl Graph {
    /// Every edge of a world. `start`: its namespace is a node too, `namespace/*`: any service account there, with a
    /// workload or without.
    ///
    /// # Errors
    /// [`AnalysisError`] of the first workload that has no answer.
    pub fn of(
        world: &dyn World,
        home: &TrustDomain,
        start: Option<&Selector>,
        setting: Setting<'_>,
    ) -> Result<Self, AnalysisError> {
        let keys = world.workloads();
        let mut sources = identities(world, home, &keys);
        let whole = start
            .filter(|start| start.workload.is_none())
            .map(|start| start.namespace.as_str());
        let mut out = Self {
            exact: true,
            ..Self::default()
        };
        for key in &keys {
            let Some(data) = world.snapshot(key) else {
                continue;
            };
            let view = compile(key, data)?;
            for port in ports(&[&view.data()]) {
                let survey = Survey::of(key, &view, port, setting)?;
                out.exact &= survey.inexact.is_empty();
                out.decisions += survey.decisions();
                out.notes.extend(
                    survey
                        .inexact
                        .iter()
                        .map(|why| format!("{}: {why}", title(key))),
                );
                if survey.allowed.iter().all(is_probe) {
                    continue;
                }
                if let Some(namespace) = whole {
                    out.add_namespace(namespace, key, &survey, home);
                }
                out.add(&mut sources, key, &survey);
            }
        }
        out.notes.sort();
        out.notes.dedup();
        Ok(out)
    }

    fn add(
        &mut self,
        sources: &mut BTreeMap<String, SpiffeId>,
        key: &WorkloadKey,
        survey: &Survey,
    ) {
        let to = title(key);
        // Workloads of one service account ask the same: one look for all of them.
        let mut by_id: BTreeMap<&SpiffeId, Option<(Vec<Reason>, RequestRecord)>> = BTreeMap::new();
        for (from, id) in sources.iter().filter(|(from, _)| **from != to) {
            let found = by_id
                .entry(id)
                .or_insert_with(|| merged(survey, &access_of(survey, id)));
            if let Some((grants, witness)) = found {
                self.push(from, &to, grants.clone(), witness.clone());
            }
        }
    }

    /// What any service account of a namespace may ask.
    fn add_namespace(
        &mut self,
        namespace: &str,
        key: &WorkloadKey,
        survey: &Survey,
        home: &TrustDomain,
    ) {
        let mine = survey.allowed.iter().filter(|one| {
            let class = survey.clients.who.get(one.who);
            let within = class.is_some_and(|class| {
                let id = class.id.as_ref().filter(|id| id.trust_domain() == home);
                let account = id.and_then(|id| id.service_account());
                class.who.is_anonymous()
                    || account.is_some_and(|(of, _)| of == namespace)
                    || stands_for(survey, one.who, namespace, home)
            });
            within && !is_probe(one)
        });
        if let Some((grants, witness)) = merged(survey, &mine.collect::<Vec<_>>()) {
            self.push(&format!("{namespace}/*"), &title(key), grants, witness);
        }
    }

    fn push(&mut self, from: &str, to: &str, grants: Vec<Reason>, witness: RequestRecord) {
        let edges = self.edges.entry(from.to_owned()).or_default();
        match edges.last_mut().filter(|edge| edge.to == to) {
            Some(edge) => {
                edge.grants.extend(grants);
                edge.grants.sort();
                edge.grants.dedup();
            }
            None => edges.push(Edge {
                from: from.to_owned(),
                to: to.to_owned(),
                grants,
                witness: Step::Call(witness),
            }),
        }
    }

    /// Adds [`OUTSIDE`], with an edge from every workload that gets out; its grants are the networks and routes that let
    /// it, and none where no network speaks.
    ///
    /// # Errors
    /// [`AnalysisError`] of the first workload that has no answer.
    pub fn add_outside(&mut self, world: &dyn World) -> Result<(), AnalysisError> {
        for group in outgoing(world, |_| true, Where::default())? {
            self.exact &= group.exact;
            self.notes.extend(group.notes);
            let Some(first) = group.access.first() else {
                continue;
            };
            let grants = group.access.iter().flat_map(|one| &one.reasons);
            let grants: BTreeSet<&Reason> = grants.collect();
            for from in group.workloads {
                let witness = Witness {
                    from: from.clone(),
                    ..first.witness.clone()
                };
                self.edges.entry(from.clone()).or_default().push(Edge {
                    from,
                    to: OUTSIDE.to_owned(),
                    grants: grants.iter().copied().cloned().collect(),
                    witness: Step::Leaves(witness),
                });
            }
        }
        Ok(())
    }

    /// What is reached from `start` in at most `depth` steps: the edges, nearest first.
    pub fn reach(&self, start: &[String], depth: usize) -> Vec<&Edge> {
        let mut seen: BTreeSet<&str> = start.iter().map(String::as_str).collect();
        let mut queue: VecDeque<(&str, usize)> = seen.iter().map(|node| (*node, 0)).collect();
        let mut out = Vec::new();
        while let Some((node, far)) = queue.pop_front() {
            if far >= depth {
                continue;
            }
            for edge in self.edges.get(node).into_iter().flatten() {
                out.push(edge);
                if seen.insert(&edge.to) {
                    queue.push_back((&edge.to, far + 1));
                }
            }
        }
        out
    }

    /// A shortest way from one of `start` to one of `goal` that uses no grant of `removed`.
    pub fn path(
        &self,
        start: &[String],
        goal: &BTreeSet<String>,
        removed: &BTreeSet<Reason>,
    ) -> Option<Vec<&Edge>> {
        let mut came: BTreeMap<&str, &Edge> = BTreeMap::new();
        let mut queue: VecDeque<&str> = start.iter().map(String::as_str).collect();
        let mut seen: BTreeSet<&str> = queue.iter().copied().collect();
        while let Some(node) = queue.pop_front() {
            for edge in self.edges.get(node).into_iter().flatten() {
                // What nothing lets out, nothing keeps in.
                let closed = !edge.grants.is_empty()
                    && edge.grants.iter().all(|grant| removed.contains(grant));
                if closed || !seen.insert(&edge.to) {
                    continue;
                }
                came.insert(&edge.to, edge);
                if goal.contains(&edge.to) {
                    return Some(walked(&came, edge));
                }
                queue.push_back(&edge.to);
            }
        }
        None
    }

    /// The smallest set of grants without which none of `start` reaches any of `goal`; as far as the search gets.
    pub fn cut(&self, start: &[String], goal: &BTreeSet<String>) -> Cut {
        let gates = flow::gates(self, start, goal);
        if let Some(gates) = gates.as_ref().filter(|gates| gates.smallest) {
            return Cut {
                grants: gates.grants.iter().cloned().collect(),
                smallest: true,
            };
        }
        // Each step looks for a way, over all edges at worst.
        let edges: usize = self.edges.values().map(Vec::len).sum();
        let mut steps = CUT_WORK_MAX / edges.saturating_add(100);
        let mut greedy = self.greedy(start, goal);
        if let Some(gates) = gates.filter(|gates| gates.grants.len() < greedy.len()) {
            greedy = gates.grants;
        }
        for size in 0..greedy.len() {
            let mut removed = BTreeSet::new();
            match self.within(start, goal, size, &mut removed, &mut steps) {
                Some(true) => {
                    return Cut {
                        grants: removed.into_iter().collect(),
                        smallest: true,
                    };
                }
                Some(false) => {}
                None => {
                    return Cut {
                        grants: greedy.into_iter().collect(),
                        smallest: false,
                    };
                }
            }
        }
        Cut {
            grants: greedy.into_iter().collect(),
            smallest: true,
        }
    }

    /// Whether `left` more grants are enough. Of a way that is open, one hop must lose all of its grants: each is tried.
    fn within(
        &self,
        start: &[String],
        goal: &BTreeSet<String>,
        left: usize,
        removed: &mut BTreeSet<Reason>,
        steps: &mut usize,
    ) -> Option<bool> {
        *steps = steps.checked_sub(1)?;
        let Some(path) = self.path(start, goal, removed) else {
            return Some(true);
        };
        for edge in path {
            let open: Vec<Reason> = edge
                .grants
                .iter()
                .filter(|grant| !removed.contains(*grant))
                .cloned()
                .collect();
            if open.len() > left {
                continue;
            }
            removed.extend(open.iter().cloned());
            if self.within(start, goal, left - open.len(), removed, steps)? {
                return Some(true);
            }
            for grant in &open {
                removed.remove(grant);
            }
        }
        Some(false)
    }

    /// A set that does it: of each open way, the hop that costs least.
    fn greedy(&self, start: &[String], goal: &BTreeSet<String>) -> BTreeSet<Reason> {
        let mut removed = BTreeSet::new();
        while let Some(path) = self.path(start, goal, &removed) {
            let open = |edge: &&Edge| {
                edge.grants
                    .iter()
                    .filter(|grant| !removed.contains(*grant))
                    .count()
            };
            let Some(cheapest) = path.iter().copied().min_by_key(open) else {
                break;
            };
            removed.extend(cheapest.grants.iter().cloned());
        }
        removed
    }
}

fn walked<'g>(came: &BTreeMap<&str, &'g Edge>, last: &'g Edge) -> Vec<&'g Edge> {
    let mut path = vec![last];
    while let Some(edge) = path.last().and_then(|edge| came.get(edge.from.as_str())) {
        path.push(edge);
    }
    path.reverse();
    path
}

/// Whether identities of `namespace` that nothing names are in this class: none narrower is there.
pub(crate) fn stands_for(
    survey: &Survey,
    class: usize,
    namespace: &str,
    home: &TrustDomain,
) -> bool {
    let unnamed = ["any-other", "any-other-2", "any-other-3"];
    let ids = unnamed
        .iter()
        .filter_map(|name| SpiffeId::for_service_account(home, namespace, name).ok());
    ids.into_iter()
        .any(|id| crate::survey::class_of(&survey.clients.who, &id) == Some(class))
}

fn merged(survey: &Survey, allowed: &[&Allowed]) -> Option<(Vec<Reason>, RequestRecord)> {
    let witness = survey.witness(allowed.first()?)?;
    let reasons: BTreeSet<&str> = allowed
        .iter()
        .flat_map(|one| one.reasons.iter())
        .map(|reason| &**reason)
        .collect();
    let grants = reasons
        .into_iter()
        .filter(|reason| *reason != "default/probe");
    let mut grants: Vec<Reason> = grants.map(|reason| survey.reason(reason)).collect();
    grants.sort();
    Some((grants, witness))
}
