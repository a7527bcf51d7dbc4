//! Who follows the deny list, and which list each of them says it enforces.

use mesh_api::proto::Enforcer;
use mesh_trust::SpiffeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A process that follows the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Follower {
    pub(crate) id: SpiffeId,
    /// On this machine; 0: it runs elsewhere.
    pub(crate) pid: u32,
    /// Which one it is, if it runs elsewhere: a pod, or a process of a node.
    pub(crate) instance: String,
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Enforcers {
    known: Arc<Mutex<BTreeMap<Follower, u64>>>,
    changes: Arc<watch::Sender<u64>>,
}

/// One of them, until it goes.
pub(crate) struct Enforcing {
    all: Enforcers,
    who: Follower,
}

impl Default for Enforcers {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Enforcers {
    /// Follows the list as `who`. What it enforces is known once it says so.
    pub(crate) fn begin(&self, who: Follower) -> Enforcing {
        Enforcing {
            all: self.clone(),
            who,
        }
    }

    /// Ready to be waited on: changes with everything that is said.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What each of them said last.
    pub(crate) fn all(&self) -> Vec<Enforcer> {
        let known = self.known();
        let one = |(who, generation): (&Follower, &u64)| Enforcer {
            spiffe_id: who.id.to_string(),
            pid: who.pid,
            generation: *generation,
            instance: who.instance.clone(),
        };
        known.iter().map(one).collect()
    }

    /// Puts `reported` in the place of whatever was known of processes `of` a node.
    pub(crate) fn report(&self, of: impl Fn(&Follower) -> bool, reported: Vec<(Follower, u64)>) {
        let mut known = self.known();
        known.retain(|who, _| !of(who));
        known.extend(reported);
        drop(known);
        self.changed();
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Follower, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Enforcing {
    /// Notes which list it enforces.
    pub(crate) fn acknowledged(&self, generation: u64) {
        self.all.known().insert(self.who.clone(), generation);
        self.all.changed();
    }
}

impl Drop for Enforcing {
    fn drop(&mut self) {
        self.all.known().remove(&self.who);
        self.all.changed();
    }
}
