//! What would let a denied request through: changes to manifests, each decided again before it is offered.
//!
//! A fix is found by trying: propose a change for the reason of the denial ([`propose`]), compile the manifests with it
//! through the index, and decide by the code of the data path. If the request is still denied, but for another reason,
//! go on from there. What is offered has let the request through; what it lets through besides is counted ([`blast`]),
//! and the fix that opens least comes first.
//!
//! What an owner said on purpose is not taken back silently: a fix that makes an exception from a forbid, or lets in a
//! client without identity, says that it needs the owner, and stands behind all that do not.
//!
//! - [`propose`]: proposals by the cause of a denial
//! - [`draft`]: documents in the making
//! - [`manifests`]: new documents
//! - [`near`]: grants that nearly hold

mod draft;
mod manifests;
mod near;
mod propose;

use crate::blast::{Blast, Question, Snapshots};
use crate::survey::{Setting, compile, known_identities};
use draft::Draft;
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Generation, Phase, Verdict, decide_on};
use mesh_policy::request::{Client, RequestRecord};
use mesh_policy_index::{Concern, Index, Slice, WorkloadKey};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};

pub use draft::{Action, Patch};

/// Fixes that are offered.
pub const FIXES_MAX: usize = 5;
/// Changes that are tried. Each costs a compilation of the namespace and of one workload, some milliseconds.
pub const TRIES_MAX: usize = 12;
/// Reasons of denial that one fix may take away, one after the other: a route, a forbid, a grant, and one to spare.
const STEPS_MAX: usize = 4;
/// Decisions that counting the blast radius of one fix may cost: about 20 ms.
const BLAST_DECISIONS_MAX: usize = 50_000;

/// A denied request, and the manifests that deny it.
#[derive(Clone, Copy)]
pub struct Denied<'a> {
    /// The manifests, compiled.
    pub index: &'a Index,
    /// Their files: names and contents.
    pub files: &'a [(String, Vec<u8>)],
    /// The request.
    pub record: &'a RequestRecord,
    /// What it may reach: one workload, or all behind a Service.
    pub places: &'a [Place],
    /// The time of the decision.
    pub now: Timestamp,
}

/// A port of a workload, with the policy that the manifests have for it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The workload.
    pub workload: WorkloadKey,
    /// Its port.
    pub port: u16,
    /// Its policy.
    pub snapshot: Snapshot,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fixes {
    /// Changes that let the request through, the one that opens least first.
    pub fixes: Vec<Fix>,
    /// What stands in the way, where there is more to say than the decision says.
    pub hindrances: Vec<Hindrance>,
    /// Whether there was more to try than was tried.
    #[serde(rename = "fixes_bounded")]
    pub bounded: bool,
}

/// A change that lets the request through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What it does, in one phrase.
    pub what: String,
    /// What it opens and closes besides the request.
    pub blast: Blast,
    /// Why its owner must agree, if so.
    pub needs_owner: Option<String>,
    /// The documents.
    pub patches: Vec<Patch>,
}

/// A fact that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Hindrance {
    /// The fact.
    pub text: String,
    /// `file:line`, if it has one.
    pub source: Option<String>,
}

impl Hindrance {
    fn new(text: impl Into<String>, source: Option<String>) -> Self {
        Self {
            text: text.into(),
            source,
        }
    }
}

/// Finds fixes of a denied request. None are found for one that is allowed.
pub fn fixes(denied: &Denied<'_>) -> Fixes {
    let mut out = Fixes::default();
    let client = match Client::try_from(&denied.record.client) {
        Ok(client) => client,
        Err(fault) => {
            let text = format!("{fault}: no policy can allow it");
            out.hindrances.push(Hindrance::new(text, None));
            return out;
        }
    };
    let mut search = Search {
        denied,
        grants: near::kept(denied, &client),
        bare: None,
        client,
        tried: BTreeSet::new(),
    };
    if search.grants.is_some() {
        let slice = search.slice(Some(search.own()));
        search.bare = Some(denied.index.with(&[], &slice));
    }
    search.run(&mut out);
    out.fixes.sort_by_cached_key(rank);
    out.bounded |= out.fixes.len() > FIXES_MAX;
    out.fixes.truncate(FIXES_MAX);
    out.hindrances.sort();
    out.hindrances.dedup();
    out
}

/// The order in which fixes are offered.
fn rank(fix: &Fix) -> impl Ord + use<> {
    (
        fix.needs_owner.is_some(),
        !fix.blast.exact,
        fix.blast.gained,
        fix.blast.lost,
        fix.patches.len(),
        fix.patches
            .iter()
            .map(|patch| patch.yaml.len())
            .sum::<usize>(),
        fix.what.clone(),
    )
}

/// A change, and why it is proposed.
#[derive(Clone, Debug, Default)]
struct Proposal {
    draft: Draft,
    what: Vec<String>,
    needs_owner: Option<String>,
}

/// How the request fares under a proposal.
struct State<'i> {
    index: Cow<'i, Index>,
    judged: Vec<Judged>,
}

/// The decision of one of the places.
struct Judged {
    key: WorkloadKey,
    port: u16,
    snapshot: Snapshot,
    decision: Decision,
}

impl State<'_> {
    /// The first place that denies.
    fn denial(&self) -> Option<&Judged> {
        let mut all = self.judged.iter();
        all.find(|one| one.decision.verdict == Verdict::Deny)
    }

    /// How far it got: places that allow, and the phase of the first that does not. Where none denies, more places allow
    /// than where one does.
    fn progress(&self) -> (usize, Option<Phase>) {
        let allowed = self
            .judged
            .iter()
            .filter(|one| one.decision.verdict == Verdict::Allow);
        let phase = self.denial().map(|one| one.decision.phase);
        (allowed.count(), phase)
    }
}

struct Search<'a> {
    denied: &'a Denied<'a>,
    client: Client,
    /// Grants that are compiled while fixes are looked for; `None`: all.
    grants: Option<BTreeSet<String>>,
    /// The manifests as they are, with those grants alone.
    bare: Option<Index>,
    /// Texts of the changes that were tried.
    tried: BTreeSet<Vec<Patch>>,
}

impl<'a> Search<'a> {
    fn run(&mut self, out: &mut Fixes) {
        let start = self.start();
        let mut befores = Snapshots::default();
        if self.grants.is_none() {
            let places = self.denied.places.iter();
            befores.extend(places.map(|one| (one.workload.clone(), one.snapshot.clone())));
        }
        let mut waiting = VecDeque::from([(Proposal::default(), start)]);
        let mut tries = 0;
        while let Some((from, state)) = waiting.pop_front() {
            let Some(denial) = state.denial() else {
                continue;
            };
            let found = propose::propose(self.denied, &self.client, &state, denial, &from);
            if from.what.is_empty() {
                out.hindrances.extend(found.hindrances);
            }
            for proposal in found.proposals {
                if !self.tried.insert(proposal.draft.patches()) {
                    continue;
                }
                if tries >= TRIES_MAX {
                    out.bounded = true;
                    return;
                }
                tries += 1;
                let Some(next) = self.judge(&proposal.draft) else {
                    continue;
                };
                if next.denial().is_none() {
                    out.fixes.push(self.fix(proposal, &next, &mut befores));
                } else if next.progress() > state.progress() && proposal.what.len() < STEPS_MAX {
                    waiting.push_back((proposal, next));
                }
            }
        }
    }

    /// How the request fares as things are.
    fn start(&self) -> State<'a> {
        let judged = self
            .denied
            .places
            .iter()
            .map(|place| self.decided(&place.workload, place.port, place.snapshot.clone()));
        State {
            index: Cow::Borrowed(self.denied.index),
            judged: judged.collect(),
        }
    }

    fn slice(&self, namespaces: Concern) -> Slice {
        Slice {
            namespaces,
            grants: self.grants.clone(),
        }
    }

    /// Namespaces of the places.
    fn own(&self) -> BTreeSet<String> {
        let places = self.denied.places.iter();
        places
            .map(|place| place.workload.namespace.clone())
            .collect()
    }

    /// Decides the request with a draft in force. `None` if a place has no policy then.
    fn judge(&self, draft: &Draft) -> Option<State<'a>> {
        let slice = self.slice(Some(self.own()));
        let index = self.denied.index.with(draft.changes(), &slice);
        let mut judged = Vec::new();
        for Place { workload, port, .. } in self.denied.places {
            let data = index.snapshot(workload, Generation::default())?;
            judged.push(self.decided(workload, *port, compile(workload, data).ok()?));
        }
        Some(State {
            index: Cow::Owned(index),
            judged,
        })
    }

    fn decided(&self, workload: &WorkloadKey, port: u16, snapshot: Snapshot) -> Judged {
        let atoms = ConnectionAtoms::of(&snapshot, &self.client);
        let call = self.denied.record.call();
        Judged {
            key: workload.clone(),
            port,
            decision: decide_on(&atoms, port, &call, self.denied.now),
            snapshot,
        }
    }

    /// A proposal that lets the request through, with what it does besides.
    fn fix(&self, proposal: Proposal, state: &State<'_>, befores: &mut Snapshots) -> Fix {
        let denied = self.denied;
        let changes = proposal.draft.changes();
        let concern = denied.index.concern(changes);
        let inside = concern
            .as_ref()
            .is_some_and(|names| names.is_subset(&self.own()));
        let (whole, bare);
        let after = if inside {
            &*state.index
        } else {
            whole = denied.index.with(changes, &self.slice(concern.clone()));
            &whole
        };
        let before = match (&self.bare, inside) {
            (None, _) => denied.index,
            (Some(bare), true) => bare,
            (Some(_), false) => {
                bare = denied.index.with(&[], &self.slice(concern.clone()));
                befores.clear();
                &bare
            }
        };
        let keys = self.keys(after, &concern);
        let places = state.judged.iter();
        let mut afters: Snapshots = places
            .map(|one| (one.key.clone(), one.snapshot.clone()))
            .collect();
        let setting = Setting {
            now: denied.now,
            known: &known_identities(denied.index, &denied.index.config().trust_domain),
            texts: &[],
            structural: false,
        };
        let mut question = Question {
            before: (before, befores),
            after: (after, &mut afters),
            // A part lacks grants: what it gains may have been allowed before by one of those.
            whole: self.grants.is_some().then_some(denied),
            decisions_max: BLAST_DECISIONS_MAX,
        };
        let mut blast = question.blast(&keys, setting);
        if self.grants.is_some() && !denied.index.is_about_grants(changes) {
            blast.exact = false;
        }
        // The request itself is gained, even if no class stands for it.
        blast.gained = blast.gained.max(1);
        Fix {
            what: proposal.what.join(", and "),
            blast,
            needs_owner: proposal.needs_owner,
            patches: proposal.draft.patches(),
        }
    }

    /// Workloads that a change can concern, before it and after.
    fn keys(&self, after: &Index, concern: &Concern) -> Vec<WorkloadKey> {
        let inside = |key: &&WorkloadKey| {
            concern
                .as_ref()
                .is_none_or(|names| names.contains(&key.namespace))
        };
        let before = self.denied.index.workloads().map(|(key, _)| key);
        let all = before.chain(after.workloads().map(|(key, _)| key));
        let keys: BTreeSet<&WorkloadKey> = all.filter(inside).collect();
        keys.into_iter().cloned().collect()
    }
}
