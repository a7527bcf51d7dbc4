//! Recorded requests through an index: what each would be answered.
//!
//! Same code as the data path: snapshots are compiled as proxies compile them, and [`mesh_policy::decide`] decides.
//! Snapshots and what they know of a client are kept between records, so that a month of traffic replays in minutes.

use crate::index::{Index, ResolveError};
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Generation, Verdict, decide_on};
use mesh_policy::explain::{Explanation, explain};
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::{Client, RequestRecord};
use mesh_trust::Timestamp;
use std::collections::HashMap;
use std::rc::Rc;

/// Clients whose place in the sets of a snapshot is remembered: about 1 KiB each.
const CLIENTS_MAX: usize = 65_536;

/// Targets whose workloads are remembered.
const TARGETS_MAX: usize = 65_536;

/// Decides records, one after the other.
pub struct Replay<'i> {
    index: &'i Index,
    generation: Generation,
    now: Timestamp,
    /// By place among the workloads; `None`: cannot be compiled.
    snapshots: HashMap<usize, Option<Snapshot>>,
    /// By workload and text form of the client.
    clients: HashMap<Vec<u8>, ConnectionAtoms>,
    /// By namespace, pod or Service, and port.
    targets: HashMap<Vec<u8>, Rc<[(usize, u16)]>>,
    /// The key that is looked for: its memory is kept, so that a record of known names costs no allocation here.
    key: Key,
}

/// Parts put together so that no two lists of parts are the same bytes.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn text(&mut self, text: Option<&str>) {
        // One more than the length, so that an absent text is none that is empty.
        let length = text.map_or(0, |text| text.len() as u64 + 1);
        self.number(length);
        self.0
            .extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

impl<'i> Replay<'i> {
    /// Starts a replay that decides as if it were `now`; its records carry generation 0.
    pub fn new(index: &'i Index, now: Timestamp) -> Self {
        Self::at(index, Generation::default(), now)
    }

    /// As [`Replay::new`], for records that carry `generation`.
    pub fn at(index: &'i Index, generation: Generation, now: Timestamp) -> Self {
        Self {
            index,
            generation,
            now,
            snapshots: HashMap::new(),
            clients: HashMap::new(),
            targets: HashMap::new(),
            key: Key::default(),
        }
    }

    /// From here on decides as if it were `now`.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Decides one record. A target that there is not is denied; of several pods behind a Service a denial wins.
    pub fn decide(&mut self, record: &RequestRecord) -> DecisionRecord {
        self.decide_with_workload(record).0
    }

    /// As [`Replay::decide`], with every layer and near miss.
    ///
    /// # Errors
    /// [`ResolveError`] if the target is no workload; [`Replay::decide`] denies that.
    pub fn explain(&mut self, record: &RequestRecord) -> Result<Explanation, ResolveError> {
        self.index.find(&record.server)?;
        let (_, chosen) = self.decide_with_workload(record);
        let unknown = || ResolveError::UnknownPod {
            namespace: record.server.namespace.clone(),
            name: record
                .server
                .pod
                .clone()
                .or(record.server.service.clone())
                .unwrap_or_default(),
        };
        let (workload, port) = chosen.ok_or_else(unknown)?;
        let snapshot = self.snapshot(workload).ok_or_else(unknown)?;
        Ok(explain(&snapshot, record, port, self.now))
    }

    /// The decision, and the workload and port that it is of.
    fn decide_with_workload(
        &mut self,
        record: &RequestRecord,
    ) -> (DecisionRecord, Option<(usize, u16)>) {
        let mut allowed = None;
        for &(workload, port) in self.targets(record).iter() {
            let decision = self.decide_at(workload, port, record);
            let decided = (decision, Some((workload, port)));
            if decided.0.verdict == Verdict::Deny {
                return decided;
            }
            allowed.get_or_insert(decided);
        }
        allowed.unwrap_or_else(|| {
            (
                DecisionRecord::unknown_target(record, self.generation),
                None,
            )
        })
    }

    fn targets(&mut self, record: &RequestRecord) -> Rc<[(usize, u16)]> {
        let target = &record.server;
        self.key.0.clear();
        self.key.text(Some(&target.namespace));
        self.key.text(target.pod.as_deref());
        self.key.text(target.service.as_deref());
        self.key.number(u64::from(target.port));
        if let Some(known) = self.targets.get(self.key.0.as_slice()) {
            return Rc::clone(known);
        }
        let found: Rc<[_]> = self.index.find(target).unwrap_or_default().into();
        if self.targets.len() >= TARGETS_MAX {
            self.targets.clear();
        }
        self.targets.insert(self.key.0.clone(), Rc::clone(&found));
        found
    }

    fn snapshot(&mut self, workload: usize) -> Option<Snapshot> {
        let (index, generation) = (self.index, self.generation);
        let compile = || Snapshot::compile(index.snapshot_at(workload, generation)?).ok();
        self.snapshots
            .entry(workload)
            .or_insert_with(compile)
            .clone()
    }

    fn decide_at(&mut self, workload: usize, port: u16, record: &RequestRecord) -> DecisionRecord {
        let client = &record.client;
        self.key.0.clear();
        self.key.number(workload as u64);
        self.key.text(client.spiffe_id.as_deref());
        self.key.text(client.ip.as_deref());
        self.key.number(client.tls.map_or(2, u64::from));
        if let Some(atoms) = self.clients.get(self.key.0.as_slice()) {
            return answer(atoms, port, record, self.now);
        }
        // A snapshot that no proxy would take leaves its proxy without policy: nothing is allowed.
        let Some(snapshot) = self.snapshot(workload) else {
            return DecisionRecord::unknown_target(record, self.generation);
        };
        let Ok(client) = Client::try_from(client) else {
            return decide_record(&snapshot, record, port, self.now);
        };
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        let decision = answer(&atoms, port, record, self.now);
        if self.clients.len() >= CLIENTS_MAX {
            self.clients.clear();
        }
        self.clients.insert(self.key.0.clone(), atoms);
        decision
    }
}

fn answer(
    atoms: &ConnectionAtoms,
    port: u16,
    record: &RequestRecord,
    now: Timestamp,
) -> DecisionRecord {
    let call = record.call();
    decide_on(atoms, port, &call, now).record(None, atoms.client(), &call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_of_parts_are_one_key() {
        let key = |parts: &[Option<&str>]| {
            let mut key = Key::default();
            parts.iter().for_each(|part| key.text(*part));
            key.0
        };
        let all = [
            key(&[None, Some("ab")]),
            key(&[Some(""), Some("ab")]),
            key(&[Some("a"), Some("b")]),
            key(&[Some("ab"), None]),
            key(&[Some("ab"), Some("")]),
            key(&[Some("ab")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }
}
