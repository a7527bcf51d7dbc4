//! Exact counts of what was allowed, by class, on their way to the log: single allows are recorded as a sample only.
//!
//! One core counts for itself and hands its counts over every [`COUNTS_EVERY`], and when it ends. What the log does not
//! take stays and is handed over later, so nothing is counted twice or forgotten; a crash loses the stretch of time that
//! was being counted, and the log shows that it is missing.
//!
//! What a connection was allowed a moment ago it is mostly allowed again: [`Familiar`] recognizes that by what the decision
//! rests on, and the class is counted without being looked up.

use crate::limits::{CLASSES_MAX, COUNTS_EVERY, FAMILIAR_MAX};
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use mesh_audits::entry::{AllowClass, AllowCounts};
use mesh_policy::decide::{Decision, Grounds};
use mesh_policy::request::{Call, Client};
use mesh_proxy_core::first_use;
use mesh_trust::Timestamp;
use std::cell::RefCell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Counts of one core since it handed over the last.
pub(crate) struct Classes {
    core: u64,
    from: Timestamp,
    classes: Vec<AllowClass>,
    /// Places in `classes`, by what makes a class.
    places: HashTable<usize>,
    /// Allows of classes that found no room.
    other: u64,
    /// How often counts were handed over.
    stretch: u64,
    hasher: RandomState,
}

/// Where a class is counted until the counts are handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    stretch: u64,
    place: usize,
}

/// What one connection was allowed lately, and where that is counted.
#[derive(Default)]
pub(crate) struct Familiar(RefCell<Vec<Known>>);

struct Known {
    grounds: Grounds,
    method: Option<Box<str>>,
    hour: i64,
    place: Place,
}

impl Familiar {
    /// Where the like of this allow was counted; `None` if this hour there was none, or none that is remembered.
    pub(crate) fn recall(
        &self,
        decision: &Decision,
        call: &Call<'_>,
        now: Timestamp,
    ) -> Option<Place> {
        let (method, hour) = (method_of(call), first_use::hour(now));
        let known = self.0.borrow();
        let same = known.iter().find(|known| {
            known.hour == hour
                && known.method.as_deref() == method
                && known.grounds.are_of(decision)
        });
        same.map(|known| known.place)
    }

    /// Remembers where it is counted now.
    pub(crate) fn remember(
        &self,
        decision: &Decision,
        call: &Call<'_>,
        now: Timestamp,
        place: Place,
    ) {
        let Some(grounds) = decision.grounds() else {
            return;
        };
        let mut all = self.0.borrow_mut();
        let method = method_of(call);
        let stale = |known: &Known| {
            known.method.as_deref() == method && known.grounds.are_of(decision)
                || !known.grounds.is_in_force_at(decision)
        };
        all.retain(|known| !stale(known));
        if all.len() >= FAMILIAR_MAX {
            all.remove(0);
        }
        all.push(Known {
            grounds,
            method: method.map(Box::from),
            hour: first_use::hour(now),
            place,
        });
    }
}

fn method_of<'a>(call: &Call<'a>) -> Option<&'a str> {
    match call {
        Call::Http(head) => Some(head.method),
        Call::Tcp => None,
    }
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
            classes: Vec::new(),
            places: HashTable::new(),
            other: 0,
            stretch: 0,
            hasher: RandomState::default(),
        }
    }

    /// Counts one more where the like of it was counted. False if those counts were handed over since.
    pub(crate) fn count_at(&mut self, at: Place) -> bool {
        let class = self.classes.get_mut(at.place);
        match class.filter(|_| at.stretch == self.stretch) {
            Some(class) => class.count += 1,
            None => return false,
        }
        true
    }

    /// Counts an allowed request or byte stream; says where, if its class found room.
    pub(crate) fn count(
        &mut self,
        decision: &Decision,
        client: &Client,
        call: &Call<'_>,
    ) -> Option<Place> {
        let seen = Seen {
            decision,
            client: client.id.as_ref().map(|id| id.as_str()),
            tls: client.tls,
            method: method_of(call),
            reasons: decision.reasons(),
        };
        let (classes, hasher) = (&mut self.classes, &self.hasher);
        let hash = seen.hash(hasher);
        let is_same = |place: &usize| classes.get(*place).is_some_and(|class| seen.is(class));
        let place = match self.places.find(hash, is_same) {
            Some(place) => *place,
            None if classes.len() >= CLASSES_MAX => {
                self.other += 1;
                return None;
            }
            None => {
                let place = classes.len();
                classes.push(seen.class(client, call));
                let hash_at = |place: &usize| {
                    classes
                        .get(*place)
                        .map_or(0, |class| hash_of(class, hasher))
                };
                self.places.insert_unique(hash, place, hash_at);
                place
            }
        };
        if let Some(class) = classes.get_mut(place) {
            class.count += 1;
        }
        Some(Place {
            stretch: self.stretch,
            place,
        })
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
        if self.classes.is_empty() && self.other == 0 && !ending {
            // Nothing was allowed: no line says so, and the next stretch begins here.
            self.from = now;
            return;
        }
        let mut classes = self.classes.clone();
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
            self.classes.clear();
            self.places.clear();
            (self.other, self.from) = (0, now);
            self.stretch += 1;
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
            count: 0,
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

#[cfg(test)]
mod tests;
