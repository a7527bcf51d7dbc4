//! How much a change opens and closes, counted in classes: who asks, of which port, for what.
//!
//! One pair is one identity and one class of requests on one port of one workload. A class of clients counts as many
//! identities as the known world has in it, and at least one.

use crate::classes::{Ask, Clients, RequestClass, Who, clients, literals_of};
use crate::diff::Pair;
use crate::fixes::Denied;
use crate::survey::{Allowed, Setting, class_of, client, compile};
use crate::world::{AskedPort, World, ports};
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Verdict, decide_on};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy::{Data, Snapshot};
use mesh_policy_index::{Index, WorkloadKey};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Compiled policies that are at hand already.
pub type Snapshots = BTreeMap<WorkloadKey, Snapshot>;

/// What a change does to the known world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blast {
    /// Pairs of an identity and a class of requests on a port that are allowed only with the change, at least from some
    /// address.
    pub gained: usize,
    /// Those that are allowed only without it.
    pub lost: usize,
    /// Whether all were counted. If not, there may be more.
    pub exact: bool,
}

/// Two policies to compare.
pub(crate) struct Question<'a> {
    /// The first, and what of it is compiled.
    pub(crate) before: (&'a Index, &'a mut Snapshots),
    /// The second.
    pub(crate) after: (&'a Index, &'a mut Snapshots),
    /// The whole of the first, if both lack the same grants: what it allows is not gained.
    pub(crate) whole: Option<&'a Denied<'a>>,
    /// Decisions that the answer may cost.
    pub(crate) decisions_max: usize,
}

impl Question<'_> {
    /// Counts what differs for these workloads.
    pub(crate) fn blast(&mut self, keys: &[WorkloadKey], setting: Setting<'_>) -> Blast {
        let mut out = Blast {
            exact: true,
            ..Blast::default()
        };
        let mut left = self.decisions_max;
        for key in keys {
            let one = compiled(self.before.0, self.before.1, key);
            let (Ok(one), Ok(other)) = (one, compiled(self.after.0, self.after.1, key)) else {
                out.exact = false;
                continue;
            };
            let same = match (&one, &other) {
                (Some(one), Some(other)) => *one.data() == *other.data(),
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            let whole = self.whole.map(|denied| whole(denied, key));
            let pair = Pair {
                key,
                before: one,
                after: other,
                setting,
            };
            pair.count(whole.flatten().as_ref(), &mut left, &mut out);
        }
        out
    }
}

/// The whole policy of a workload.
fn whole(denied: &Denied<'_>, key: &WorkloadKey) -> Option<Snapshot> {
    let known = denied.places.iter().find(|place| place.workload == *key);
    match known {
        Some(place) => Some(place.snapshot.clone()),
        None => compile(key, World::snapshot(denied.index, key)?).ok(),
    }
}

fn compiled(
    world: &Index,
    known: &mut Snapshots,
    key: &WorkloadKey,
) -> Result<Option<Snapshot>, ()> {
    if let Some(snapshot) = known.get(key) {
        return Ok(Some(snapshot.clone()));
    }
    let Some(data) = World::snapshot(world, key) else {
        return Ok(None);
    };
    let snapshot = compile(key, data).map_err(|_| ())?;
    known.insert(key.clone(), snapshot.clone());
    Ok(Some(snapshot))
}

impl Pair<'_> {
    fn count(&self, whole: Option<&Snapshot>, left: &mut usize, out: &mut Blast) {
        let views = self.views();
        let held: Vec<Data> = views.iter().map(|view| view.data()).collect();
        let data: Vec<&SnapshotData> = held.iter().map(|data| &**data).collect();
        let literals = literals_of(&data, self.setting.texts);
        let mut who = clients(&data, self.setting.known, literals.as_ref());
        let weights = weights(&who, &self.setting);
        let touched = self.touched();
        let kept: Vec<bool> = who
            .who
            .iter()
            .map(|class| {
                touched
                    .as_ref()
                    .is_none_or(|touched| touched.concerns(&class.who))
            })
            .collect();
        let mut flags = kept.iter().copied();
        who.who.retain(|_| flags.next().unwrap_or(true));
        let weights: Vec<usize> = weights
            .into_iter()
            .zip(kept)
            .filter_map(|(weight, kept)| kept.then_some(weight))
            .collect();
        for port in ports(&data) {
            let found = self.requests(port, literals.as_ref());
            let questions = who
                .who
                .len()
                .saturating_mul(who.networks.len())
                .saturating_mul(found.classes.len());
            if questions > *left {
                out.exact = false;
                continue;
            }
            *left -= questions;
            out.exact &= found.inexact.is_empty();
            let (mut gained, lost) = self.ask(port, &who, &found.classes);
            if let Some(whole) = whole {
                gained.retain(|one| !self.allows(whole, port, &who, &found.classes, one));
                // A class without a name may have members that the grants left out name.
                let named = |one: &Allowed| {
                    who.who
                        .get(one.who)
                        .is_some_and(|class| matches!(class.who, Who::Named(_)))
                };
                out.exact &= gained.iter().all(named);
            }
            out.gained += pairs(&gained, &found.classes, &weights);
            out.lost += pairs(&lost, &found.classes, &weights);
        }
    }
}

impl Pair<'_> {
    /// Whether a policy allows a question.
    fn allows(
        &self,
        view: &Snapshot,
        port: AskedPort,
        who: &Clients,
        requests: &[RequestClass],
        one: &Allowed,
    ) -> bool {
        let class = who.who.get(one.who).zip(who.networks.get(one.network));
        let Some(((class, network), asked)) = class.zip(requests.get(one.request)) else {
            return false;
        };
        let atoms = ConnectionAtoms::of(view, &client(class, network.address));
        let decision = decide_on(&atoms, port.number(), &asked.ask.call(), self.setting.now);
        decision.verdict == Verdict::Allow
    }
}

/// Pairs among questions, each as often as there are identities in its class. Requests that differ in nothing but a host
/// that no route names are one.
fn pairs(questions: &[Allowed], requests: &[RequestClass], weights: &[usize]) -> usize {
    let unnamed = |ask: &Ask| Ask {
        host: ask.host.clone().filter(|host| !host.ends_with(".invalid")),
        ..ask.clone()
    };
    let asks: Vec<Ask> = requests.iter().map(|class| unnamed(&class.ask)).collect();
    let pairs: BTreeSet<(usize, &Ask)> = questions
        .iter()
        .filter_map(|one| Some((one.who, asks.get(one.request)?)))
        .collect();
    pairs.iter().filter_map(|(who, _)| weights.get(*who)).sum()
}

/// Identities of the known world in each class, at least one.
fn weights(who: &Clients, setting: &Setting<'_>) -> Vec<usize> {
    let mut out = vec![0usize; who.who.len()];
    let wide = |class: &Who| !matches!(class, Who::Named(_));
    if who.who.iter().any(|class| wide(&class.who)) {
        for id in setting.known {
            if let Some(count) = class_of(&who.who, id).and_then(|class| out.get_mut(class)) {
                *count += 1;
            }
        }
    }
    out.into_iter().map(|count| count.max(1)).collect()
}
