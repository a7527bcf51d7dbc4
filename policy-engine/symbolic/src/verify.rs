//! Whether what policy is compiled to says the same as Cedar, for every question there can be.
//!
//! Each policy is there twice (`mesh_policy::equivalence::Pairs`): as Cedar has it, and as the compiled form says it. A
//! solver is asked for a question on which the two differ. Where it finds one, matcher and Cedar decide it; only if they
//! differ too, the compiled form is wrong.

use crate::formula::Questions;
use crate::limits::{GRANTS_AT_ONCE, UNKNOWN_MAX};
use crate::session::{Answer, Session};
use crate::witness::{Judged, judged, requests, time};
use cedar_policy::Policy;
use cedar_policy_symcc::Env;
use mesh_policy::Snapshot;
use mesh_policy::cedar::model::{Asker, PortModel, Target};
use mesh_policy::equivalence::{Pair, Pairs, differing};
use mesh_policy::request::RequestRecord;
use mesh_policy_analysis::world::{AskedPort, ports};
use mesh_policy_index::WorkloadKey;
use serde::Serialize;
use std::collections::BTreeSet;

/// Whether compiled form and Cedar are one.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Equality {
    /// No question has two answers.
    Equal {
        /// Policies, counted once for each port, target and kind of client.
        policies: usize,
        /// Formulas that the solver was asked about; what was proved of another workload is not asked again.
        formulas: usize,
    },
    /// One has.
    Differs {
        /// In words.
        why: String,
        /// The request.
        request: Box<RequestRecord>,
    },
    /// It is not known. That is no success.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Verifies snapshots, with one solver.
pub struct Verifier {
    session: Session,
    /// What was proved already: many ports have the same policy.
    proved: BTreeSet<String>,
}

/// Why a snapshot is not equal.
enum Stop {
    Unknown(String),
    Differs {
        why: String,
        request: Box<RequestRecord>,
    },
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

impl Verifier {
    /// Nothing is proved yet.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            proved: BTreeSet::new(),
        }
    }

    /// The solver, by name and version.
    pub fn solver(&self) -> String {
        self.session.title()
    }

    /// Holds the compiled form of one workload's policy against Cedar.
    pub fn verify(&mut self, workload: &WorkloadKey, snapshot: &Snapshot) -> Equality {
        let before = self.session.asked();
        let (mut policies, mut unknown) = (0, Vec::new());
        for port in ports(&[&snapshot.data()]) {
            let place = Place {
                workload,
                snapshot,
                port,
            };
            match self.port(&place, &mut policies, &mut unknown) {
                Ok(()) => {}
                Err(Stop::Differs { why, request }) => return Equality::Differs { why, request },
                Err(Stop::Unknown(why)) => unknown.push(why),
            }
            if unknown.len() >= UNKNOWN_MAX {
                break;
            }
        }
        match unknown.into_iter().next() {
            Some(why) => Equality::Unknown { why },
            None => Equality::Equal {
                policies,
                formulas: self.session.asked() - before,
            },
        }
    }

    fn port(
        &mut self,
        place: &Place<'_>,
        policies: &mut usize,
        unknown: &mut Vec<String>,
    ) -> Result<(), Stop> {
        let number = place.port.number();
        let model = PortModel::of(place.snapshot, number)?;
        if model.closed.is_some() {
            return Ok(());
        }
        for target in &model.targets {
            let pairs = Pairs::of(place.snapshot, number, target)?;
            for asker in Asker::ALL {
                *policies += pairs.grants.len() + pairs.texts.len();
                match self.kind(place, (target, asker), &pairs) {
                    Err(Stop::Unknown(why)) => {
                        let port = place.port.text();
                        unknown.push(format!("port {port}, {}: {why}", target.what));
                    }
                    other => other?,
                }
                if unknown.len() >= UNKNOWN_MAX {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One kind of question.
    fn kind(
        &mut self,
        place: &Place<'_>,
        about: (&Target, Asker),
        pairs: &Pairs,
    ) -> Result<(), Stop> {
        let all = || pairs.grants.iter().chain(&pairs.texts);
        let named: Vec<&Policy> = all()
            .flat_map(|pair| [&pair.cedar, &pair.compiled])
            .collect();
        let questions = Questions::of(about, &place.snapshot.data(), None, &named)?;
        let name = questions.name(named.into_iter());
        if name.as_ref().is_some_and(|name| self.proved.contains(name)) {
            return Ok(());
        }
        for grants in pairs.grants.chunks(GRANTS_AT_ONCE) {
            let found = self.grants(&questions, grants)?;
            place.none(found, about, "grants")?;
        }
        for text in &pairs.texts {
            let found = questions.differ(&mut self.session, (&text.cedar, &text.compiled))?;
            place.none(found, about, &text.id)?;
            let can = text.evaluated()?;
            let found = questions.differ(&mut self.session, (&can.cedar, &can.compiled))?;
            place.none(found, about, &text.id)?;
        }
        questions.possible(&mut self.session)?;
        self.proved.extend(name);
        Ok(())
    }

    fn grants(&mut self, questions: &Questions, grants: &[Pair]) -> Result<Answer, String> {
        let differing = differing(grants)?;
        questions.evaluated(&mut self.session, &differing)?;
        questions.hold(&mut self.session, &differing)
    }
}

/// One port of one workload.
struct Place<'a> {
    workload: &'a WorkloadKey,
    snapshot: &'a Snapshot,
    port: AskedPort,
}

impl Place<'_> {
    /// Nothing may have been found.
    fn none(&self, found: Answer, about: (&Target, Asker), of: &str) -> Result<(), Stop> {
        match found {
            Answer::Impossible => Ok(()),
            Answer::Unknown(why) => Err(Stop::Unknown(format!("{of}: {why}"))),
            Answer::Possible(found) => Err(self.difference(&found, about, of)),
        }
    }

    /// What becomes of a question on which the two forms of a policy differ.
    fn difference(&self, found: &Env, (target, asker): (&Target, Asker), of: &str) -> Stop {
        let shown = time(found).and_then(|now| {
            let requests = requests(found, asker, self.workload).into_iter();
            let mut requests = requests.flat_map(|request| elsewhere(request, target));
            requests.find_map(|request| match judged(self.snapshot, &request, now) {
                Ok(Judged::Otherwise(mismatch)) => Some((request, mismatch)),
                Ok(Judged::Alike(_)) | Err(_) => None,
            })
        });
        match shown {
            Some((request, mismatch)) => Stop::Differs {
                why: format!(
                    "port {}, {of}: the matcher decides {:?} by {:?}, Cedar {:?} by {:?}",
                    self.port.text(),
                    mismatch.matcher.verdict,
                    mismatch.matcher.reasons,
                    mismatch.cedar.verdict,
                    mismatch.cedar.reasons
                ),
                request: Box::new(request),
            },
            None => Stop::Unknown(format!(
                "{of}: the solver found a difference, and no request shows it"
            )),
        }
    }
}

/// The request, and others that take its route more surely: of routes a solver does not know which of two is the better.
fn elsewhere(request: RequestRecord, target: &Target) -> Vec<RequestRecord> {
    let others = target.paths.iter().map(|path| RequestRecord {
        path: Some(path.clone()),
        ..request.clone()
    });
    let mut all: Vec<RequestRecord> = others.collect();
    all.insert(0, request);
    all
}
