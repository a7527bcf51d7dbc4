//! What must hold of a whole mesh, and whether it does: by deciding every class of requests.
//!
//! A claim holds only if every class was asked and none contradicts it. It is violated only by a request that replay
//! decides so, too. Everything else is undecided, and undecided is no success.

use crate::classes::literals::is_structural;
use crate::error::AnalysisError;
use crate::graph::{Graph, OUTSIDE, Selector, Step};
use crate::survey::{Allowed, Setting, Survey, compile, is_probe, known_identities};
use crate::world::{ports, title};
use mesh_policy::Snapshot;
use mesh_policy::compile::generated;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::RequestRecord;
use mesh_policy::snapshot::{CedarText, Effect, SnapshotData, Term};
use mesh_policy_index::index::{Claim, ClaimText, Invariant};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, WorkloadKey};
use mesh_trust::{SpiffeId, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;

/// What is to be proved.
#[derive(Clone, Debug)]
pub enum Question<'i> {
    /// An object of kind `Invariant`.
    Invariant(&'i Invariant),
    /// Nobody of the first reaches the second, directly or over others; `outside` is what is outside of the mesh.
    NoPath(Selector, Selector),
    /// Nobody without an identity is allowed anything but declared probes.
    DenyAnonymous,
}

/// Whether it holds.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Proof {
    /// By exhausting all classes.
    Holds {
        /// Questions that were decided.
        decisions: usize,
    },
    /// It does not.
    Violated {
        /// In words.
        why: String,
        /// Requests that show it, in the order of the way; each is decided so by replay.
        witness: Vec<Witness>,
    },
    /// That could not be told.
    Undecided {
        /// Why.
        why: String,
    },
}

/// A request, and its decision.
#[derive(Clone, Debug, Serialize)]
pub struct Witness {
    /// The request.
    pub request: RequestRecord,
    /// What replay decides.
    pub decision: DecisionRecord,
    /// Where the policies that allow it are declared.
    pub sources: Vec<String>,
}

/// Decides one question about `index` at a time. Grants that end later count.
pub fn prove(index: &Index, question: &Question<'_>, now: Timestamp) -> Proof {
    let prover = Prover {
        index,
        now,
        known: known_identities(index, &index.config().trust_domain),
    };
    let found = match question {
        Question::Invariant(invariant) => prover.invariant(invariant),
        Question::NoPath(from, to) => prover.no_path(from, to),
        Question::DenyAnonymous => prover.deny_anonymous(),
    };
    found.unwrap_or_else(|error| Proof::Undecided {
        why: error.to_string(),
    })
}

struct Prover<'i> {
    index: &'i Index,
    now: Timestamp,
    known: Vec<SpiffeId>,
}

impl Prover<'_> {
    fn setting(&self) -> Setting<'_> {
        Setting {
            now: self.now,
            known: &self.known,
            texts: &[],
            structural: false,
        }
    }

    /// A violation, if replay agrees on each of its requests.
    fn violated(
        &self,
        why: String,
        wanted: Verdict,
        requests: Vec<(RequestRecord, Vec<String>)>,
    ) -> Proof {
        let mut replay = Replay::new(self.index, self.now);
        let mut witness = Vec::with_capacity(requests.len());
        for (request, sources) in requests {
            let decision = replay.decide(&request);
            if decision.verdict != wanted {
                let text = serde_json::to_string(&request).unwrap_or_default();
                return Proof::Undecided {
                    why: format!("{why}; but replay decides otherwise about {text}"),
                };
            }
            witness.push(Witness {
                request,
                decision,
                sources,
            });
        }
        Proof::Violated { why, witness }
    }

    fn no_path(&self, from: &Selector, to: &Selector) -> Result<Proof, AnalysisError> {
        let start = from.among(self.index)?;
        let home = &self.index.config().trust_domain;
        let mut graph = Graph::of(self.index, home, Some(from), self.setting())?;
        let goal: BTreeSet<String> = match to.is_outside(self.index) {
            true => {
                graph.add_outside(self.index)?;
                [OUTSIDE.to_owned()].into()
            }
            false => to.among(self.index)?.iter().map(title).collect(),
        };
        let mut start: Vec<String> = start.iter().map(title).collect();
        if from.workload.is_none() {
            start.push(format!("{}/*", from.namespace));
        }
        let Some(path) = graph.path(&start, &goal, &BTreeSet::new()) else {
            return Ok(exhausted(graph.decisions, &graph.notes));
        };
        let mut way: Vec<&str> = path.iter().map(|edge| edge.from.as_str()).collect();
        way.extend(path.last().map(|edge| edge.to.as_str()));
        let mut why = way.join(" -> ");
        let mut requests = Vec::new();
        for edge in &path {
            let sources = edge.grants.iter();
            let sources = sources.map(|grant| format!("{} ({})", grant.policy, grant.source));
            match &edge.witness {
                Step::Call(request) => requests.push((request.clone(), sources.collect())),
                // The last step, which replay knows nothing of.
                Step::Leaves(leaves) => why = format!("{why} ({})", leaves.to),
            }
        }
        Ok(self.violated(why, Verdict::Allow, requests))
    }

    fn deny_anonymous(&self) -> Result<Proof, AnalysisError> {
        let (mut decisions, mut notes) = (0, Vec::new());
        for key in self.workloads(None) {
            let Some(view) = self.view(&key, |data| data)? else {
                continue;
            };
            for port in ports(&[&view.data()]) {
                let survey = Survey::of(&key, &view, port, self.setting())?;
                let anonymous = |one: &&Allowed| {
                    let class = survey.clients.who.get(one.who);
                    class.is_some_and(|class| class.who.is_anonymous()) && !is_probe(one)
                };
                if let Some(one) = survey.allowed.iter().find(anonymous) {
                    let why = format!(
                        "a client without an identity is allowed on {}:{}",
                        title(&key),
                        port.text()
                    );
                    return Ok(self.shown(why, Verdict::Allow, &survey, one));
                }
                decisions += survey.decisions();
                notes.extend(survey.inexact);
            }
        }
        Ok(exhausted(decisions, &notes))
    }

    fn invariant(&self, invariant: &Invariant) -> Result<Proof, AnalysisError> {
        let claim = match &invariant.claim {
            Ok(claim) => claim,
            Err(why) => return Ok(Proof::Undecided { why: why.clone() }),
        };
        let (Claim::Never(texts) | Claim::Always(texts)) = claim;
        let plain: Vec<String> = texts.iter().map(|text| text.text.clone()).collect();
        let structural = plain.iter().all(|text| is_structural(text));
        let setting = Setting {
            known: if structural { &[] } else { &self.known },
            texts: &plain,
            structural,
            now: self.now,
        };
        let (mut decisions, mut notes) = (0, Vec::new());
        for key in self.workloads(invariant.namespace.as_deref()) {
            let Some(base) = self.view(&key, |data| data)? else {
                continue;
            };
            let Some(claimed) = self.view(&key, |data| with_claim(data, invariant, claim))? else {
                continue;
            };
            if let Some(text) = texts
                .iter()
                .find(|text| !generated(&claimed).iter().any(|one| one.id == text.id))
            {
                let why = format!("`{}` cannot be evaluated", text.id);
                return Ok(Proof::Undecided { why });
            }
            for port in ports(&[&base.data()]) {
                let asked = match claim {
                    Claim::Never(_) => &base,
                    Claim::Always(_) => &claimed,
                };
                let survey =
                    Survey::beside(&key, asked, port, setting, &[&claimed.data(), &base.data()])?;
                if let Some(proof) = self.contradiction(claim, texts, &survey, &base, &claimed) {
                    return Ok(proof);
                }
                decisions += survey.decisions();
                notes.extend(survey.inexact);
            }
        }
        Ok(exhausted(decisions, &notes))
    }

    /// The first allowed question of a port that a claim speaks against, or about which it cannot speak.
    fn contradiction(
        &self,
        claim: &Claim,
        texts: &[ClaimText],
        survey: &Survey,
        base: &Snapshot,
        claimed: &Snapshot,
    ) -> Option<Proof> {
        let names = |reasons: &[String]| {
            texts
                .iter()
                .find(|text| reasons.contains(&text.id))
                .cloned()
        };
        for one in &survey.allowed {
            let request = survey.witness(one)?;
            let port = survey.port.number();
            match claim {
                Claim::Never(_) => {
                    let record = decide_record(claimed, &request, port, self.now);
                    if record.verdict == Verdict::Allow {
                        continue;
                    }
                    let Some(text) = names(&record.reasons) else {
                        let why = format!(
                            "the claim could not be evaluated on {}",
                            title(&survey.workload)
                        );
                        return Some(Proof::Undecided { why });
                    };
                    let why = format!(
                        "{} forbids what is allowed on {}:{port}",
                        text.id,
                        title(&survey.workload)
                    );
                    return Some(self.shown(why, Verdict::Allow, survey, one));
                }
                Claim::Always(_) => {
                    let reasons: Vec<String> =
                        one.reasons.iter().map(ToString::to_string).collect();
                    let Some(text) = names(&reasons) else {
                        continue;
                    };
                    if decide_record(base, &request, port, self.now).verdict == Verdict::Deny {
                        let why = format!(
                            "{} asks for what is denied on {}:{port}",
                            text.id,
                            title(&survey.workload)
                        );
                        return Some(self.violated(
                            why,
                            Verdict::Deny,
                            vec![(request, Vec::new())],
                        ));
                    }
                }
            }
        }
        None
    }

    fn shown(&self, why: String, wanted: Verdict, survey: &Survey, one: &Allowed) -> Proof {
        let sources = one.reasons.iter().map(|reason| survey.reason(reason));
        let sources = sources
            .map(|reason| format!("{} ({})", reason.policy, reason.source))
            .collect();
        match survey.witness(one) {
            Some(request) => self.violated(why, wanted, vec![(request, sources)]),
            None => Proof::Undecided { why },
        }
    }

    fn workloads(&self, namespace: Option<&str>) -> Vec<WorkloadKey> {
        let all = self.index.workloads().map(|(key, _)| key);
        all.filter(|key| namespace.is_none_or(|n| n == key.namespace))
            .cloned()
            .collect()
    }

    fn view(
        &self,
        key: &WorkloadKey,
        change: impl FnOnce(SnapshotData) -> SnapshotData,
    ) -> Result<Option<Snapshot>, AnalysisError> {
        let data = self.index.snapshot(key, Generation::default());
        data.map(|data| compile(key, change(data))).transpose()
    }
}

/// All classes were asked; unless they were not all.
fn exhausted(decisions: usize, notes: &[String]) -> Proof {
    match notes.first() {
        None => Proof::Holds { decisions },
        Some(first) => Proof::Undecided {
            why: format!(
                "no contradiction among {decisions} decisions, but they are not all: {first}"
            ),
        },
    }
}

/// The policy with the texts of a claim in it. `Never`: beside all others, where they forbid. `Always`: alone.
pub fn with_claim(mut data: SnapshotData, invariant: &Invariant, claim: &Claim) -> SnapshotData {
    let (texts, effect) = match claim {
        Claim::Never(texts) => (texts, Effect::Forbid),
        Claim::Always(texts) => (texts, Effect::Permit),
    };
    if effect == Effect::Permit {
        data.cedar_policies.clear();
        let others = std::iter::once(&mut data.other_ports);
        data.ports
            .values_mut()
            .chain(others)
            .for_each(|port| port.grants.clear());
    }
    data.identity_sets.extend(invariant.identity_sets.clone());
    data.network_sets.extend(invariant.network_sets.clone());
    data.cedar_policies
        .extend(texts.iter().map(|text| CedarText {
            id: text.id.clone(),
            effect,
            text: text.text.clone(),
            confined_to: invariant.namespace.clone(),
            invalid: None,
            audit: false,
            term: Term::default(),
            source: text.source.clone(),
        }));
    data
}
