//! What a change of policy did: the access it gave and took, and the grants for emergencies it opened and closed. Found
//! beside the main loop, in the order of the changes, because policy does not wait for it.

use crate::limits::EFFECTS_QUEUED_MAX;
use crate::publish::Published;
use crate::state::Shared;
use mesh_audits::entry::{BreakGlass, ChangeEffect, Entry, Said};
use mesh_audits::limits::LIST_MAX;
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{Finding, SnapshotData, Term};
use mesh_policy_analysis::diff::{Change, Diff, diff};
use mesh_policy_analysis::outside::change::OutsideChange;
use mesh_policy_analysis::survey::{Reason, Setting};
use mesh_policy_analysis::world::World;
use mesh_policy_index::index::WorkloadKey;
use mesh_trust::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// One change, published.
pub(crate) struct Step {
    pub(crate) before: Option<Arc<Published>>,
    pub(crate) after: Arc<Published>,
    pub(crate) author: Option<Said>,
}

/// Where changes are handed over.
pub(crate) type Steps = mpsc::Sender<Step>;

/// A queue of changes. One that finds no room stays without an effect, which the audit report says.
pub(crate) fn queue() -> (Steps, mpsc::Receiver<Step>) {
    mpsc::channel(EFFECTS_QUEUED_MAX)
}

/// Records the effect of every change, until there are no more.
pub(crate) async fn record(shared: Arc<Shared>, mut steps: mpsc::Receiver<Step>) {
    while let Some(step) = steps.recv().await {
        let shared = Arc::clone(&shared);
        let work = move || {
            let now = shared.platform.wall_clock();
            for entry in entries(&step, now) {
                // A full queue is counted in the log itself.
                let _ = shared.audit.record(entry);
            }
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            tracing::error!("the effect of a change of policy was not found; the log lacks it");
        }
    }
}

fn entries(step: &Step, now: Timestamp) -> Vec<Entry> {
    let mut out = glass(step, now);
    let Some(before) = &step.before else {
        return out;
    };
    match effect(before, &step.after, now) {
        Ok(effect) => out.push(Entry::Effect(effect)),
        Err(error) => {
            tracing::warn!(%error, generation = step.after.generation, "what access a change gave and took is not known")
        }
    }
    out
}

fn effect(
    before: &Published,
    after: &Published,
    now: Timestamp,
) -> Result<ChangeEffect, mesh_policy_analysis::error::AnalysisError> {
    let setting = Setting {
        now,
        known: &[],
        texts: &[],
        structural: false,
    };
    let (one, other) = (Served::beside(before, after), Served::beside(after, before));
    let found = diff(&one, &other, setting)?;
    Ok(ChangeEffect {
        time: now,
        generation: after.generation,
        digest: after.digest.clone(),
        gained: pairs(&found.gained, &found.outside.gained),
        lost: pairs(&found.lost, &found.outside.lost),
        exact: found.exact,
        access: in_words(&found),
    })
}

/// Pairs of who asks and what for; of what leaves the mesh, of whose it is and what is sent.
fn pairs(changes: &[Change], outside: &[OutsideChange]) -> u64 {
    let pairs = |one: usize, other: usize| (one as u64).saturating_mul(other as u64);
    let inside = changes.iter().map(|change| &change.access);
    let inside = inside.map(|access| pairs(access.who.len(), access.requests.len()));
    let outside = outside.iter();
    let outside =
        outside.map(|change| pairs(change.workloads.len(), change.access.sent.len().max(1)));
    inside.chain(outside).sum()
}

fn in_words(found: &Diff) -> Vec<String> {
    let reasons = |all: &[Reason]| {
        let names: Vec<&str> = all.iter().map(|one| one.policy.as_str()).collect();
        names.join(", ")
    };
    let inside = |change: &Change| {
        let access = &change.access;
        format!(
            "{}:{}: {} {} by {}",
            change.workload,
            change.port,
            access.who.join(", "),
            access.requests.join(", "),
            reasons(&access.reasons)
        )
    };
    let outside = |change: &OutsideChange| {
        let access = &change.access;
        let or_any = |all: &[String]| match all.is_empty() {
            true => "any".to_owned(),
            false => all.join(", "),
        };
        format!(
            "{}: {} to outside, addresses {}, ports {} by {}",
            change.workloads.join(", "),
            or_any(&access.sent),
            or_any(&access.to),
            or_any(&access.ports),
            match access.reasons.is_empty() {
                true => "no EgressNetwork".to_owned(),
                false => reasons(&access.reasons),
            }
        )
    };
    let mut all = Vec::new();
    for (sign, changes, leaving) in [
        ('+', &found.gained, &found.outside.gained),
        ('-', &found.lost, &found.outside.lost),
    ] {
        let words = changes.iter().map(inside);
        let words = words.chain(leaving.iter().map(outside));
        all.extend(words.map(|words| format!("{sign} {words}")));
    }
    // The log says how many there were.
    all.truncate(LIST_MAX + 1);
    all
}

/// What is served, as a world. Of a workload that is served the same on both sides there is nothing to ask.
struct Served<'a> {
    of: &'a Published,
    beside: &'a Published,
}

impl<'a> Served<'a> {
    fn beside(of: &'a Published, beside: &'a Published) -> Self {
        Self { of, beside }
    }
}

impl World for Served<'_> {
    fn workloads(&self) -> Vec<WorkloadKey> {
        self.of.workloads.keys().cloned().collect()
    }

    fn account(&self, workload: &WorkloadKey) -> Option<(String, String)> {
        let identity = self.of.workloads.get(workload)?.identity.as_ref()?;
        let (namespace, name) = identity.service_account()?;
        Some((namespace.to_owned(), name.to_owned()))
    }

    fn snapshot(&self, workload: &WorkloadKey) -> Option<SnapshotData> {
        let mine = self.of.workloads.get(workload)?;
        let theirs = self.beside.workloads.get(workload);
        if theirs.is_some_and(|theirs| Arc::ptr_eq(&mine.update, &theirs.update)) {
            return None;
        }
        let mut data: SnapshotData = serde_json::from_slice(&mine.update.policy.json()).ok()?;
        data.generation = Generation::default();
        Some(data)
    }

    fn findings(&self) -> Vec<Finding> {
        // They are recorded with the change.
        Vec::new()
    }
}

/// Grants for emergencies that a policy has, by id.
fn glass_of(published: &Published, beside: Option<&Published>) -> BTreeMap<String, Term> {
    let mut out = BTreeMap::new();
    for (key, policy) in &published.workloads {
        let theirs = beside.and_then(|beside| beside.workloads.get(key));
        if theirs.is_some_and(|theirs| Arc::ptr_eq(&policy.update, &theirs.update)) {
            continue;
        }
        // What was written as JSON a moment ago is read again.
        let Ok(data) = serde_json::from_slice::<SnapshotData>(&policy.update.policy.json()) else {
            continue;
        };
        let grants = data.grants.iter().map(|one| (&one.id, &one.term));
        let written = data.cedar_policies.iter().map(|one| (&one.id, &one.term));
        for (id, term) in grants.chain(written) {
            if term.break_glass.is_some() {
                out.insert(id.clone(), term.clone());
            }
        }
    }
    out
}

fn glass(step: &Step, now: Timestamp) -> Vec<Entry> {
    let before = step.before.as_deref();
    let had = before.map_or_else(BTreeMap::new, |before| glass_of(before, Some(&step.after)));
    let has = glass_of(&step.after, before);
    let by = match &step.author {
        Some(said) => said.who.join(", "),
        None => "not known".to_owned(),
    };
    let entry = |action: &str, grant: &str, term: &Term| {
        Entry::BreakGlass(BreakGlass {
            time: now,
            action: action.to_owned(),
            grant: grant.to_owned(),
            by: by.clone(),
            reason: term.break_glass.clone().unwrap_or_default(),
            until: term.expires,
        })
    };
    // A controller that starts finds what stands there; whether it is new nobody saw.
    let new = if before.is_some() { "opened" } else { "found" };
    let opened = has.iter().filter(|(id, term)| had.get(*id) != Some(*term));
    let closed = had.iter().filter(|(id, _)| !has.contains_key(*id));
    opened
        .map(|(id, term)| entry(new, id, term))
        .chain(closed.map(|(id, term)| entry("closed", id, term)))
        .collect()
}
