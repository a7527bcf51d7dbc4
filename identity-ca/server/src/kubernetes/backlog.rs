//! Objects that wait for something to be done about them: which is due when, and which is under way. No clock.
//!
//! ```text
//! put ──▶ due ──take──▶ under way ──done──▶ gone, or due again later
//!          ▲                │ put, meanwhile: due again at once, when it is done
//!          └────────────────┘
//! ```
//! What was signed for an object and could not be written into it waits here with the object, and goes with it.

use mesh_platform::Tick;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Objects by name.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    entries: BTreeMap<String, Entry>,
    under_way: usize,
    /// Tickets that were given out.
    tickets: u64,
}

#[derive(Debug)]
struct Entry {
    object: Value,
    signed: Option<Arc<Signed>>,
    /// None: under way, and nothing has changed since.
    due: Option<Tick>,
    /// The ticket of what is under way.
    under_way: Option<u64>,
    failures: u32,
}

/// What was signed for an object: the part of its status that is ours alone, and nothing of what others write there.
/// A key is certified once, so it is kept until it is written or the object is gone.
#[derive(Debug, PartialEq)]
pub(crate) struct Signed {
    /// For the condition that says so.
    pub(crate) message: String,
    /// Fields of the status.
    pub(crate) fields: Map<String, Value>,
}

/// One that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Who has it.
    pub(crate) ticket: Ticket,
    /// It.
    pub(crate) object: Value,
    /// What was signed for it before, and is not written yet.
    pub(crate) signed: Option<Arc<Signed>>,
}

/// Names one taking of one object: another object of the same name has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    name: String,
    number: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing more is to be done.
    Settled,
    /// It is to be tried again, later each time.
    Again,
    /// This was signed and could not be written: again, and this is what is written then.
    Unwritten(Arc<Signed>),
}

/// First pause before something is tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Backlog {
    /// Notes an object as it is now.
    pub(crate) fn put(&mut self, name: String, object: Value, now: Tick) {
        if let Some(old) = self.entries.get_mut(&name)
            && uid(&old.object) == uid(&object)
        {
            old.object = object;
            old.due = Some(now);
            return;
        }
        // One of the same name is another one: nothing that is known of the old one is true of it.
        self.remove(&name);
        let entry = Entry {
            object,
            signed: None,
            due: Some(now),
            under_way: None,
            failures: 0,
        };
        self.entries.insert(name, entry);
    }

    /// Forgets an object. What is under way about it goes on.
    pub(crate) fn remove(&mut self, name: &str) {
        let old = self.entries.remove(name);
        if old.is_some_and(|old| old.under_way.is_some()) {
            self.under_way = self.under_way.saturating_sub(1);
        }
    }

    /// Forgets all objects whose names are not `kept`.
    pub(crate) fn keep(&mut self, kept: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .entries
            .keys()
            .filter(|name| !kept(name))
            .cloned()
            .collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    /// Something that all of them depend on has changed.
    pub(crate) fn all_due(&mut self, now: Tick) {
        for entry in self.entries.values_mut() {
            entry.due = Some(now);
        }
    }

    /// Takes one that is due, if fewer than `places` are under way.
    pub(crate) fn take(&mut self, now: Tick, places: usize) -> Option<Taken> {
        if self.under_way >= places {
            return None;
        }
        let mut due = self.entries.iter_mut();
        let (name, entry) = due.find(|(_, entry)| {
            entry.under_way.is_none() && entry.due.is_some_and(|due| due <= now)
        })?;
        self.tickets += 1;
        self.under_way += 1;
        entry.under_way = Some(self.tickets);
        entry.due = None;
        Some(Taken {
            ticket: Ticket {
                name: name.clone(),
                number: self.tickets,
            },
            object: entry.object.clone(),
            signed: entry.signed.clone(),
        })
    }

    /// Notes what came of one that was taken.
    pub(crate) fn done(&mut self, ticket: &Ticket, outcome: Outcome, now: Tick) {
        let entry = self.entries.get_mut(&ticket.name);
        let Some(entry) = entry.filter(|entry| entry.under_way == Some(ticket.number)) else {
            return;
        };
        entry.under_way = None;
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            // It changed meanwhile: what was done was about another one.
            Outcome::Settled if entry.due.is_some() => entry.failures = 0,
            Outcome::Settled => drop(self.entries.remove(&ticket.name)),
            Outcome::Again => entry.again(now),
            Outcome::Unwritten(signed) => {
                entry.signed = Some(signed);
                entry.again(now);
            }
        }
    }

    /// When the next one is due; none: nothing waits.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let waiting = self
            .entries
            .values()
            .filter(|entry| entry.under_way.is_none());
        waiting.filter_map(|entry| entry.due).min()
    }
}

impl Entry {
    fn again(&mut self, now: Tick) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let again = now.plus(pause.min(PAUSE_MAX));
        self.due = Some(self.due.map_or(again, |due| due.min(again)));
    }
}

fn uid(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/uid")
}

/// Tasks that work on what was taken.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    tasks: JoinSet<Outcome>,
    tickets: HashMap<tokio::task::Id, Ticket>,
}

impl Workers {
    /// Starts work on what has this ticket.
    pub(crate) fn start(
        &mut self,
        ticket: Ticket,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let task = self.tasks.spawn(work);
        self.tickets.insert(task.id(), ticket);
    }

    /// The next that ends, however it ends; waits for ever while there is none.
    pub(crate) async fn next(&mut self) -> (Ticket, Outcome) {
        loop {
            let (id, outcome) = match self.tasks.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok(done)) => done,
                Some(Err(error)) => {
                    tracing::error!(%error, "the work on a request broke off; it is tried again");
                    (error.id(), Outcome::Again)
                }
            };
            if let Some(ticket) = self.tickets.remove(&id) {
                return (ticket, outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(secs: u64) -> Tick {
        Tick::default().plus(Duration::from_secs(secs))
    }

    fn with(names: &[&str]) -> Backlog {
        let mut backlog = Backlog::default();
        for name in names {
            backlog.put((*name).to_owned(), json!(1), at(0));
        }
        backlog
    }

    fn take(backlog: &mut Backlog, now: u64) -> Ticket {
        backlog.take(at(now), 1).unwrap().ticket
    }

    #[test]
    fn each_is_taken_once_and_no_more_than_there_are_places() {
        let mut backlog = with(&["a", "b", "c"]);
        let taken: Vec<_> = std::iter::from_fn(|| backlog.take(at(0), 2)).collect();
        let [a, b] = &taken[..] else {
            panic!("{taken:?}")
        };
        backlog.done(&a.ticket, Outcome::Settled, at(0));
        let c = backlog.take(at(0), 2).unwrap().ticket;
        assert_eq!(c.name, "c");
        backlog.done(&b.ticket, Outcome::Settled, at(0));
        backlog.done(&c, Outcome::Settled, at(0));
        assert!(backlog.take(at(9), 2).is_none());
        assert_eq!(backlog.next_due(), None);
    }

    #[test]
    fn what_changed_while_it_was_under_way_is_taken_again_as_it_is_now() {
        let mut backlog = with(&["a"]);
        let ticket = take(&mut backlog, 0);
        backlog.put("a".to_owned(), json!(2), at(1));
        assert!(backlog.take(at(1), 2).is_none(), "not twice at a time");
        backlog.done(&ticket, Outcome::Settled, at(1));
        assert_eq!(backlog.take(at(1), 2).unwrap().object, json!(2));
    }

    #[test]
    fn what_failed_waits_longer_each_time_up_to_a_minute() {
        let mut backlog = with(&["a"]);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..9 {
            let ticket = take(&mut backlog, now);
            backlog.done(&ticket, Outcome::Again, at(now));
            let due = backlog.next_due().unwrap();
            let pause = due.since(at(now)).as_secs();
            assert!(backlog.take(at(now + pause - 1), 2).is_none());
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_place_is_free_again_when_its_object_is_gone() {
        let mut backlog = with(&["a", "b"]);
        let a = take(&mut backlog, 0);
        backlog.keep(|name| name == "b");
        backlog.done(&a, Outcome::Again, at(0));
        let b = take(&mut backlog, 0);
        assert_eq!(b.name, "b");
        backlog.done(&b, Outcome::Again, at(0));
        backlog.all_due(at(0));
        assert_eq!(take(&mut backlog, 0).name, "b");
    }

    fn named(uid: &str) -> Value {
        json!({ "metadata": { "uid": uid } })
    }

    fn signed() -> Arc<Signed> {
        Arc::new(Signed {
            message: "m".to_owned(),
            fields: Map::new(),
        })
    }

    #[test]
    fn what_was_signed_stays_with_its_object_and_goes_with_it() {
        let mut backlog = Backlog::default();
        backlog.put("a".to_owned(), named("1"), at(0));
        let ticket = take(&mut backlog, 0);
        backlog.done(&ticket, Outcome::Unwritten(signed()), at(0));
        // The object changes, and fails again for another reason.
        backlog.put("a".to_owned(), named("1"), at(0));
        let again = backlog.take(at(0), 1).unwrap();
        assert_eq!(again.signed, Some(signed()));
        backlog.done(&again.ticket, Outcome::Again, at(0));
        assert_eq!(backlog.take(at(9), 1).unwrap().signed, Some(signed()));
        // Another one of the same name, with and without a removal in between.
        backlog.put("a".to_owned(), named("2"), at(9));
        assert_eq!(backlog.take(at(9), 1).unwrap().signed, None);
    }

    #[test]
    fn what_was_done_about_an_object_is_not_noted_for_the_next_of_its_name() {
        let mut backlog = Backlog::default();
        backlog.put("a".to_owned(), named("1"), at(0));
        let old = take(&mut backlog, 0);
        backlog.put("a".to_owned(), named("2"), at(0));
        let new = take(&mut backlog, 0);
        backlog.done(&old, Outcome::Unwritten(signed()), at(0));
        assert!(backlog.take(at(9), 1).is_none(), "the new one is under way");
        backlog.done(&new, Outcome::Again, at(0));
        assert_eq!(backlog.take(at(9), 1).unwrap().signed, None);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back_and_is_tried_again() {
        let (mut backlog, mut workers) = (with(&["a"]), Workers::default());
        workers.start(take(&mut backlog, 0), async { panic!("as the test says") });
        let (ticket, outcome) = workers.next().await;
        assert_eq!(outcome, Outcome::Again);
        backlog.done(&ticket, outcome, at(0));
        assert_eq!(take(&mut backlog, 1).name, "a");
    }
}
