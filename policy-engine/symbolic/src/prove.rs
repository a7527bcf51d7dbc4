//! One claim about a whole mesh: every workload, every port, everything that can be asked there, everybody who can ask.

use crate::confined::{Confinement, confined};
use crate::formula::Kind;
use crate::limits::UNKNOWN_MAX;
use crate::session::{Answer, Session};
use crate::witness::{Contradiction, Court};
use cedar_policy::{Policy, PolicyId};
use cedar_policy_symcc::Env;
use mesh_policy::Snapshot;
use mesh_policy::cedar::model::{Asker, PortModel, Target};
use mesh_policy::compile::generated;
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::Source;
use mesh_policy_analysis::prove::{Question, Witness, with_claim};
use mesh_policy_analysis::survey::compile;
use mesh_policy_analysis::world::{AskedPort, ports, title};
use mesh_policy_index::index::{Claim, ClaimText, Invariant};
use mesh_policy_index::{Index, WorkloadKey};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a claim holds, as far as a solver can tell.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// No request that there can be contradicts it.
    Proved {
        /// Formulas that the solver was asked about; others were settled without.
        formulas: usize,
    },
    /// A request does; the matcher, Cedar and replay decide it so.
    Refuted {
        /// In words.
        why: String,
        /// The request.
        witness: Box<Witness>,
    },
    /// It is not known. That is no success.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Proves claims about one mesh, with one solver.
pub struct Prover<'i> {
    index: &'i Index,
    now: Timestamp,
    session: Session,
    /// What was proved already: workloads of one kind ask the same.
    proved: BTreeSet<String>,
}

/// What a claim consists of.
struct Claimed<'c> {
    invariant: &'c Invariant,
    claim: &'c Claim,
    /// Whether declared probes are left out.
    but_probes: bool,
}

/// Why a proof does not go on.
enum Stop {
    /// Something is not known; something else may still contradict the claim.
    Unknown(String),
    /// A request contradicts it.
    Refuted { why: String, witness: Box<Witness> },
    /// Too much is not known.
    GivenUp,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

impl<'i> Prover<'i> {
    /// Claims are judged at `now`.
    pub fn new(index: &'i Index, now: Timestamp, session: Session) -> Self {
        Self {
            index,
            now,
            session,
            proved: BTreeSet::new(),
        }
    }

    /// The solver, by name and version.
    pub fn solver(&self) -> String {
        self.session.title()
    }

    /// Proves one claim.
    pub fn prove(&mut self, question: &Question<'_>) -> Verdict {
        match question {
            Question::Invariant(invariant) => self.invariant(invariant, false),
            Question::DenyAnonymous => self.invariant(&nobody_anonymous(), true),
            Question::NoPath(..) => Verdict::Unknown {
                why: "not supported: paths over others are no single request, and a solver is asked about one".to_owned(),
            },
        }
    }

    /// Whether each policy that people wrote in Cedar for a namespace stays there, by its id.
    pub fn confined(&mut self) -> Vec<(String, Confinement)> {
        let mut known = BTreeMap::new();
        for (key, _) in self.index.workloads() {
            let data = self.index.snapshot(key, Generation::default());
            let seen = data
                .ok_or_else(|| "it has no policy".to_owned())
                .and_then(|data| compile(key, data).map_err(|error| error.to_string()))
                .and_then(|snapshot| confined(&snapshot, &mut self.session, &mut known));
            if let Err(why) = seen {
                known.insert(title(key), Confinement::Unknown { why });
            }
        }
        known.into_iter().collect()
    }

    fn invariant(&mut self, invariant: &Invariant, but_probes: bool) -> Verdict {
        match &invariant.claim {
            Ok(claim) => self.claimed(&Claimed {
                invariant,
                claim,
                but_probes,
            }),
            Err(why) => Verdict::Unknown { why: why.clone() },
        }
    }

    fn claimed(&mut self, claimed: &Claimed<'_>) -> Verdict {
        let before = self.session.asked();
        let mut unknown = Vec::new();
        let keys: Vec<WorkloadKey> = self
            .index
            .workloads()
            .map(|(key, _)| key.clone())
            .filter(|key| {
                let namespace = claimed.invariant.namespace.as_deref();
                namespace.is_none_or(|namespace| namespace == key.namespace)
            })
            .collect();
        for key in &keys {
            match self.workload(key, claimed, &mut unknown) {
                Ok(()) => {}
                Err(Stop::Unknown(why)) => unknown.push(why),
                Err(Stop::Refuted { why, witness }) => return Verdict::Refuted { why, witness },
                Err(Stop::GivenUp) => break,
            }
        }
        match unknown.into_iter().next() {
            Some(why) => Verdict::Unknown { why },
            None => Verdict::Proved {
                formulas: self.session.asked() - before,
            },
        }
    }

    fn workload(
        &mut self,
        key: &WorkloadKey,
        claimed: &Claimed<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let data = self.index.snapshot(key, Generation::default());
        let data = data.ok_or_else(|| format!("{} has no policy", title(key)))?;
        let compiled = |data| compile(key, data).map_err(|error| error.to_string());
        let base = compiled(data.clone())?;
        let with = compiled(with_claim(data, claimed.invariant, claimed.claim))?;
        let texts = texts(&with, claimed.claim)?;
        let asked = ports(&[&base.data()]);
        for port in asked {
            let place = Place {
                court: Court {
                    index: self.index,
                    workload: key,
                    base: &base,
                    claimed: &with,
                    now: self.now,
                },
                port,
                texts: &texts,
                claimed,
            };
            place.prove(&mut self.session, &mut self.proved, unknown)?;
        }
        Ok(())
    }
}

/// The policies of a claim as they are evaluated, confined to their namespace.
fn texts(with: &Snapshot, claim: &Claim) -> Result<Vec<Policy>, String> {
    let (Claim::Never(texts) | Claim::Always(texts)) = claim;
    let printed: BTreeMap<&str, &str> = generated(with)
        .iter()
        .map(|one| (one.id.as_str(), one.cedar.as_str()))
        .collect();
    let policies = texts.iter().map(|text| {
        let cedar = printed
            .get(text.id.as_str())
            .ok_or_else(|| format!("`{}` cannot be evaluated", text.id))?;
        Policy::parse(Some(PolicyId::new(&text.id)), cedar).map_err(|error| error.to_string())
    });
    policies.collect()
}

/// One port of one workload.
struct Place<'a> {
    court: Court<'a>,
    port: AskedPort,
    texts: &'a [Policy],
    claimed: &'a Claimed<'a>,
}

impl Place<'_> {
    fn title(&self) -> String {
        format!("{}:{}", title(self.court.workload), self.port.text())
    }

    fn prove(
        &self,
        session: &mut Session,
        proved: &mut BTreeSet<String>,
        unknown: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let model = PortModel::of(self.court.base, self.port.number())?;
        let always = matches!(self.claimed.claim, Claim::Always(_));
        if model.closed.is_some() && !always {
            return Ok(());
        }
        for target in &model.targets {
            // What needs no permit is not what a claim of access asks for.
            if target.probe && (always || self.claimed.but_probes) {
                continue;
            }
            for asker in Asker::ALL {
                match self.question(session, proved, &model, (target, asker)) {
                    Ok(()) => {}
                    Err(Stop::Unknown(why)) => {
                        unknown.push(format!("{}, {}: {why}", self.title(), target.what));
                        if unknown.len() >= UNKNOWN_MAX {
                            return Err(Stop::GivenUp);
                        }
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(())
    }

    /// One kind of question.
    fn question(
        &self,
        session: &mut Session,
        proved: &mut BTreeSet<String>,
        model: &PortModel,
        about: (&Target, Asker),
    ) -> Result<(), Stop> {
        let sets = self.court.claimed.data();
        let kind = Kind::of(about, &sets, self.court.now, &model.policies, self.texts)?;
        let name = kind.name(&model.policies, self.texts, self.claimed.claim);
        if name.as_ref().is_some_and(|name| proved.contains(name)) {
            return Ok(());
        }
        for text in self.texts {
            self.text(session, &kind, about.1, text)?;
        }
        self.all_evaluated(session, &kind, model)?;
        kind.questions().possible(session)?;
        proved.extend(name);
        Ok(())
    }

    /// One policy of the claim.
    fn text(
        &self,
        session: &mut Session,
        kind: &Kind,
        asker: Asker,
        text: &Policy,
    ) -> Result<(), Stop> {
        let questions = kind.questions();
        questions
            .evaluated(session, text)
            .map_err(|why| format!("`{}`: {why}", text.id()))?;
        let (found, what) = match self.claimed.claim {
            Claim::Never(_) => (kind.allows(session, text)?, Contradiction::Allowed),
            Claim::Always(_) => (kind.denies(session, text)?, Contradiction::Denied),
        };
        match found {
            Answer::Impossible => Ok(()),
            Answer::Unknown(why) => Err(Stop::Unknown(why)),
            Answer::Possible(found) => Err(self.contradiction(&found, asker, what, text)),
        }
    }

    fn contradiction(&self, found: &Env, asker: Asker, what: Contradiction, text: &Policy) -> Stop {
        let id = text.id().to_string();
        let verb = match what {
            Contradiction::Allowed => "forbids what is allowed",
            Contradiction::Denied => "asks for what is denied",
        };
        match self.court.confirm(found, asker, what, &id) {
            Ok(witness) => Stop::Refuted {
                why: format!("{id} {verb} on {}", self.title()),
                witness: Box::new(witness),
            },
            Err(why) => Stop::Unknown(format!(
                "the solver found a request against `{id}` that is none: {why}"
            )),
        }
    }

    /// A policy that cannot be evaluated denies, whatever Cedar makes of it: where access is claimed, none may be so.
    fn all_evaluated(
        &self,
        session: &mut Session,
        kind: &Kind,
        model: &PortModel,
    ) -> Result<(), String> {
        if let Claim::Never(_) = self.claimed.claim {
            return Ok(());
        }
        for policy in &model.policies {
            // Whether it forbids or permits, what cannot be evaluated denies.
            kind.questions()
                .evaluated(session, policy)
                .map_err(|why| format!("`{}`: {why}", policy.id()))?;
        }
        Ok(())
    }
}

/// `--deny-anonymous` as an invariant.
fn nobody_anonymous() -> Invariant {
    let source = Source::BuiltIn("--deny-anonymous".to_owned());
    Invariant {
        id: "deny-anonymous".to_owned(),
        namespace: None,
        name: "deny-anonymous".to_owned(),
        description: String::new(),
        claim: Ok(Claim::Never(vec![ClaimText {
            id: "deny-anonymous/0".to_owned(),
            text: "forbid(principal is Mesh::Anonymous, action, resource);".to_owned(),
            source: source.clone(),
        }])),
        identity_sets: BTreeMap::new(),
        network_sets: BTreeMap::new(),
        source,
    }
}
