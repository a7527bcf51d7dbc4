//! Exact counts of what was allowed, by class, on their way to the log: single allows are recorded as a sample only.
//!
//! One core counts for itself and hands its counts over every [`COUNTS_EVERY`], and when it ends. What the log does not
//! take stays and is handed over later, so nothing is counted twice or forgotten; a crash loses the stretch of time that
//! was being counted, and the log shows that it is missing.

use crate::limits::{CLASSES_MAX, COUNTS_EVERY};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use mesh_audits::entry::{AllowClass, AllowCounts};
use mesh_policy::decide::Decision;
use mesh_policy::request::{Call, Client};
use mesh_trust::Timestamp;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Counts of one core since it handed over the last.
pub(crate) struct Classes {
    core: u64,
    from: Timestamp,
    table: HashTable<AllowClass>,
    other: u64,
    hasher: RandomState,
}

/// What makes a class, borrowed from a decision.
struct Seen<'a> {
    decision: &'a Decision,
    client: Option<&'a str>,
    tls: bool,
    method: Option<&'a str>,
    reasons: Vec<Arc<str>>,
}

impl Classes {
    pub(crate) fn new(core: usize, now: Timestamp) -> Self {
        Self {
            core: core as u64,
            from: now,
            table: HashTable::new(),
            other: 0,
            hasher: RandomState::default(),
        }
    }

    /// Counts an allowed request or byte stream.
    pub(crate) fn count(&mut self, decision: &Decision, client: &Client, call: &Call<'_>) {
        let seen = Seen {
            decision,
            client: client.id.as_ref().map(|id| id.as_str()),
            tls: client.tls,
            method: match call {
                Call::Http(head) => Some(head.method),
                Call::Tcp => None,
            },
            reasons: decision.reasons(),
        };
        let hash = seen.hash(&self.hasher);
        if let Some(class) = self.table.find_mut(hash, |class| seen.is(class)) {
            class.count += 1;
            return;
        }
        if self.table.len() >= CLASSES_MAX {
            self.other += 1;
            return;
        }
        let class = seen.class(client, call);
        let hasher = &self.hasher;
        self.table
            .insert_unique(hash, class, |class| hash_of(class, hasher));
    }

    /// Hands over what was counted, if it is time or `ending`. `take` says whether the log took it.
    pub(crate) fn hand_over(
        &mut self,
        now: Timestamp,
        ending: bool,
        mut take: impl FnMut(AllowCounts) -> bool,
    ) {
        let waited = now.unix_micros().abs_diff(self.from.unix_micros());
        if !ending && u128::from(waited) < COUNTS_EVERY.as_micros() {
            return;
        }
        if self.table.is_empty() && self.other == 0 && !ending {
            // Nothing was allowed: no line says so, and the next stretch begins here.
            self.from = now;
            return;
        }
        let mut classes: Vec<AllowClass> = self.table.iter().cloned().collect();
        classes.sort_by(|a, b| {
            (&a.client, &a.reasons, &a.method).cmp(&(&b.client, &b.reasons, &b.method))
        });
        let counts = AllowCounts {
            time: now,
            from: self.from,
            core: self.core,
            classes,
            other: self.other,
        };
        if take(counts) {
            self.table.clear();
            (self.other, self.from) = (0, now);
        }
    }
}

impl Seen<'_> {
    fn hash(&self, hasher: &RandomState) -> u64 {
        let mut state = hasher.build_hasher();
        let route = self.decision.route.as_deref();
        (self.decision.generation.0, self.decision.port, self.tls).hash(&mut state);
        (
            self.client,
            self.method,
            route.map(|route| (&*route.name, route.rule)),
        )
            .hash(&mut state);
        for reason in &self.reasons {
            (**reason).hash(&mut state);
        }
        state.finish()
    }

    fn is(&self, class: &AllowClass) -> bool {
        let same_route = match (self.decision.route.as_deref(), &class.route) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                one.rule == other.rule
                    && *one.name == *other.name
                    && *one.namespace == *other.namespace
                    && *one.kind == *other.kind
            }
            _ => false,
        };
        same_route
            && self.decision.generation.0 == class.generation
            && self.decision.port == class.server.port
            && self.tls == class.tls
            && self.decision.audit == class.audit
            && self.client == class.client.as_deref()
            && self.method == class.method.as_deref()
            && self.reasons.len() == class.reasons.len()
            && self
                .reasons
                .iter()
                .zip(&class.reasons)
                .all(|(one, other)| **one == **other)
    }

    fn class(&self, client: &Client, call: &Call<'_>) -> AllowClass {
        // The record knows the names of everything; it is made once for each class.
        let record = self.decision.record(None, client, call);
        AllowClass {
            generation: self.decision.generation.0,
            client: self.client.map(str::to_owned),
            tls: self.tls,
            server: record.server,
            route: record.route,
            method: self.method.map(str::to_owned),
            reasons: record.reasons,
            audit: self.decision.audit,
            count: 1,
        }
    }
}

/// The hash of a class as [`Seen::hash`] makes it.
fn hash_of(class: &AllowClass, hasher: &RandomState) -> u64 {
    let mut state = hasher.build_hasher();
    let route = class.route.as_ref();
    (class.generation, class.server.port, class.tls).hash(&mut state);
    (
        class.client.as_deref(),
        class.method.as_deref(),
        route.map(|route| (&*route.name, route.rule)),
    )
        .hash(&mut state);
    for reason in &class.reasons {
        (**reason).hash(&mut state);
    }
    state.finish()
}
