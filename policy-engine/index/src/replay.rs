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
use mesh_policy::request::{Client, ClientRecord, RequestRecord};
use mesh_trust::Timestamp;
use std::collections::HashMap;

/// Clients whose place in the sets of a snapshot is remembered: about 1 KiB each.
const CLIENTS_MAX: usize = 16_384;

/// Targets whose workloads are remembered.
const TARGETS_MAX: usize = 65_536;

/// Decides records, one after the other.
pub struct Replay<'i> {
    index: &'i Index,
    generation: Generation,
    now: Timestamp,
    /// By place among the workloads; `None`: cannot be compiled.
    snapshots: HashMap<usize, Option<Snapshot>>,
    clients: HashMap<(usize, ClientKey), ConnectionAtoms>,
    targets: HashMap<TargetKey, Vec<(usize, u16)>>,
}

/// A client's text form.
type ClientKey = (Option<String>, Option<String>, Option<bool>);

/// Namespace, pod or Service, and port.
type TargetKey = (String, Option<String>, Option<String>, u16);

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
        for (workload, port) in self.targets(record) {
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

    fn targets(&mut self, record: &RequestRecord) -> Vec<(usize, u16)> {
        let target = &record.server;
        let key = (
            target.namespace.clone(),
            target.pod.clone(),
            target.service.clone(),
            target.port,
        );
        if let Some(known) = self.targets.get(&key) {
            return known.clone();
        }
        let found = self.index.find(target).unwrap_or_default();
        if self.targets.len() >= TARGETS_MAX {
            self.targets.clear();
        }
        self.targets.insert(key, found.clone());
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
        // A snapshot that no proxy would take leaves its proxy without policy: nothing is allowed.
        let Some(snapshot) = self.snapshot(workload) else {
            return DecisionRecord::unknown_target(record, self.generation);
        };
        let key = (workload, client_key(&record.client));
        if !self.clients.contains_key(&key) {
            let Ok(client) = Client::try_from(&record.client) else {
                return decide_record(&snapshot, record, port, self.now);
            };
            if self.clients.len() >= CLIENTS_MAX {
                self.clients.clear();
            }
            self.clients
                .insert(key.clone(), ConnectionAtoms::of(&snapshot, &client));
        }
        match self.clients.get(&key) {
            Some(atoms) => {
                let call = record.call();
                decide_on(atoms, port, &call, self.now).record(None, atoms.client(), &call)
            }
            None => decide_record(&snapshot, record, port, self.now),
        }
    }
}

fn client_key(client: &ClientRecord) -> ClientKey {
    (client.spiffe_id.clone(), client.ip.clone(), client.tls)
}
