//! Objects that wait for something to be done about them: which is due when, and which is under way. No clock.
//!
//! ```text
//! put ──▶ due ──take──▶ under way ──done──▶ gone, or due again later
//!          ▲                │ put, meanwhile: due again at once, when it is done
//!          └────────────────┘
//! ```

use mesh_platform::Tick;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Objects by name.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    entries: BTreeMap<String, Entry>,
    under_way: usize,
}

#[derive(Debug)]
struct Entry {
    object: Value,
    /// None: under way, and nothing has changed since.
    due: Option<Tick>,
    under_way: bool,
    failures: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing more is to be done.
    Settled,
    /// It is to be tried again, later each time.
    Again,
}

/// First pause before something is tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Backlog {
    /// Notes an object as it is now.
    pub(crate) fn put(&mut self, name: String, object: Value, now: Tick) {
        let (under_way, failures) = match self.entries.get(&name) {
            Some(old) => (old.under_way, old.failures),
            None => (false, 0),
        };
        let entry = Entry {
            object,
            due: Some(now),
            under_way,
            failures,
        };
        self.entries.insert(name, entry);
    }

    /// Forgets an object. What is under way about it goes on.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.entries.remove(name).is_some_and(|old| old.under_way) {
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
    pub(crate) fn take(&mut self, now: Tick, places: usize) -> Option<(String, Value)> {
        if self.under_way >= places {
            return None;
        }
        let mut due = self.entries.iter_mut();
        let (name, entry) =
            due.find(|(_, entry)| !entry.under_way && entry.due.is_some_and(|due| due <= now))?;
        entry.under_way = true;
        entry.due = None;
        self.under_way += 1;
        Some((name.clone(), entry.object.clone()))
    }

    /// Notes what came of one that was taken.
    pub(crate) fn done(&mut self, name: &str, outcome: Outcome, now: Tick) {
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.under_way) else {
            return;
        };
        entry.under_way = false;
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            // It changed meanwhile: what was done was about another one.
            Outcome::Settled if entry.due.is_some() => entry.failures = 0,
            Outcome::Settled => drop(self.entries.remove(name)),
            Outcome::Again => {
                let pause = PAUSE_MIN.saturating_mul(1 << entry.failures.min(10));
                entry.failures = entry.failures.saturating_add(1);
                let again = now.plus(pause.min(PAUSE_MAX));
                entry.due = Some(entry.due.map_or(again, |due| due.min(again)));
            }
        }
    }

    /// When the next one is due; none: nothing waits.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let waiting = self.entries.values().filter(|entry| !entry.under_way);
        waiting.filter_map(|entry| entry.due).min()
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

    #[test]
    fn each_is_taken_once_and_no_more_than_there_are_places() {
        let mut backlog = with(&["a", "b", "c"]);
        let taken: Vec<_> = std::iter::from_fn(|| backlog.take(at(0), 2)).collect();
        assert_eq!(taken.len(), 2);
        backlog.done("a", Outcome::Settled, at(0));
        assert_eq!(backlog.take(at(0), 2).unwrap().0, "c");
        backlog.done("b", Outcome::Settled, at(0));
        backlog.done("c", Outcome::Settled, at(0));
        assert_eq!((backlog.take(at(9), 2), backlog.next_due()), (None, None));
    }

    #[test]
    fn what_changed_while_it_was_under_way_is_taken_again_as_it_is_now() {
        let mut backlog = with(&["a"]);
        backlog.take(at(0), 2).unwrap();
        backlog.put("a".to_owned(), json!(2), at(1));
        assert_eq!(backlog.take(at(1), 2), None, "not twice at a time");
        backlog.done("a", Outcome::Settled, at(1));
        assert_eq!(backlog.take(at(1), 2).unwrap().1, json!(2));
    }

    #[test]
    fn what_failed_waits_longer_each_time_up_to_a_minute() {
        let mut backlog = with(&["a"]);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..9 {
            backlog.take(at(now), 2).unwrap();
            backlog.done("a", Outcome::Again, at(now));
            let due = backlog.next_due().unwrap();
            let pause = due.since(at(now)).as_secs();
            assert_eq!(backlog.take(at(now + pause - 1), 2), None);
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_place_is_free_again_when_its_object_is_gone() {
        let mut backlog = with(&["a", "b"]);
        backlog.take(at(0), 1).unwrap();
        backlog.keep(|name| name == "b");
        backlog.done("a", Outcome::Again, at(0));
        assert_eq!(backlog.take(at(0), 1).unwrap().0, "b");
        backlog.done("b", Outcome::Again, at(0));
        backlog.all_due(at(0));
        assert_eq!(backlog.take(at(0), 1).unwrap().0, "b");
    }
}
