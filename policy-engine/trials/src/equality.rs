//! Three opinions on every request: the compiled matcher, Cedar's own engine, and a plain reading of the rules.
//!
//! The first two read policies written in Cedar too; where there are some, the third has no opinion.

use crate::asks;
use crate::mesh::{Make, Mesh, NOW, Names};
use crate::random::Random;
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Generation, Phase, Verdict, decide_by_cedar, decide_on};
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy::plain::{Reading, reading};
use mesh_policy::request::{Client, RequestRecord};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::WorkloadKey;
use std::collections::{BTreeMap, HashMap};

/// Bytes that a mesh is made of: more than any uses.
pub const MESH_BYTES: usize = 2_048;

/// Bytes that a request is made of: more than any uses.
const ASK_BYTES: usize = 24;

/// One object in so many is broken.
const SOUNDNESS: usize = 40;

/// What was tried, so that a run can tell whether it tried anything.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Meshes.
    pub meshes: u64,
    /// Requests that were decided, three times or twice each.
    pub triples: u64,
    /// Of those, decided by the plain reading too.
    pub plain: u64,
    /// Decisions by verdict and phase.
    pub outcomes: BTreeMap<String, u64>,
    /// Reasons given, all together.
    pub reasons: u64,
    /// Allowed by audit permits alone.
    pub audit: u64,
    /// Allowed over broken glass.
    pub break_glass: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.meshes += other.meshes;
        self.triples += other.triples;
        self.plain += other.plain;
        self.reasons += other.reasons;
        self.audit += other.audit;
        self.break_glass += other.break_glass;
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
    }
}

/// Makes the mesh of a seed and puts `asks` requests to it.
///
/// # Errors
/// The manifests, the request and the opinions, if two of them differ.
pub fn try_seed(seed: u64, asks: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed);
    let bytes = random.bytes(MESH_BYTES);
    // One mesh in three has policies in Cedar.
    let make = if seed.is_multiple_of(3) {
        Make::WithCedar
    } else {
        Make::WithoutCedar
    };
    let mesh = Mesh::of(&bytes, Names::default(), make, SOUNDNESS);
    let records = (0..asks).map(|_| {
        let bytes = random.bytes(ASK_BYTES);
        asks::ask(&mut Choices::of(&bytes), Names::default())
    });
    try_mesh(&mesh, records, tally).map_err(|why| format!("seed {seed}: {why}"))
}

/// Makes mesh and requests of the bytes of a fuzzer.
///
/// # Errors
/// As [`try_seed`].
pub fn try_bytes(data: &[u8]) -> Result<(), String> {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let make = if first % 2 == 0 {
        Make::WithoutCedar
    } else {
        Make::WithCedar
    };
    // The first bytes are the requests, so that a mesh may be as long as it likes.
    let (for_asks, for_mesh) = rest.split_at(rest.len().min(4 * ASK_BYTES));
    let mesh = Mesh::of(for_mesh, Names::default(), make, SOUNDNESS);
    let records = for_asks
        .chunks(ASK_BYTES)
        .map(|bytes| asks::ask(&mut Choices::of(bytes), Names::default()));
    try_mesh(&mesh, records, &mut Tally::default())
}

fn try_mesh(
    mesh: &Mesh,
    records: impl Iterator<Item = RequestRecord>,
    tally: &mut Tally,
) -> Result<(), String> {
    tally.meshes += 1;
    let index = mesh.index(1).map_err(|error| error.to_string())?;
    let mut policies = HashMap::new();
    for (key, _) in index.workloads() {
        let data = index.snapshot(key, Generation(1)).ok_or("no snapshot")?;
        let snapshot = Snapshot::compile(data.clone()).map_err(|error| error.to_string())?;
        policies.insert(key.clone(), (data, snapshot));
    }
    for (number, record) in records.enumerate() {
        let key = WorkloadKey {
            namespace: record.server.namespace.clone(),
            name: record.server.pod.clone().unwrap_or_default(),
        };
        // A pod that this mesh has not, and a client that no proxy would report, are other tests' matter.
        let policy = policies.get(&key);
        if let (Some((data, snapshot)), Ok(mut client)) = (policy, Client::try_from(&record.client))
        {
            if number % 2 == 0 && client.id.is_some() {
                client.expires = Some(NOW.plus_secs(if number % 4 == 0 { 60 } else { 0 }));
            }
            compare(data, snapshot, &client, &record, tally)
                .map_err(|why| format!("{why}\n{}", report(mesh, &record, &client)))?;
        }
    }
    Ok(())
}

fn compare(
    data: &SnapshotData,
    snapshot: &Snapshot,
    client: &Client,
    record: &RequestRecord,
    tally: &mut Tally,
) -> Result<(), String> {
    let (port, call) = (record.server.port, record.call());
    let atoms = ConnectionAtoms::of(snapshot, client);
    let decision = decide_on(&atoms, port, &call, NOW);
    let matcher = opinion(&decision);
    let by_cedar = decide_by_cedar(&atoms, port, &call, NOW);
    let cedar = opinion(&by_cedar);
    let watched = |decision: &Decision| (decision.audit, decision.break_glass);
    if matcher != cedar || watched(&decision) != watched(&by_cedar) {
        return Err(format!(
            "matcher {matcher:?} {:?}\nCedar   {cedar:?} {:?} (audit, break-glass)",
            watched(&decision),
            watched(&by_cedar)
        ));
    }
    tally.audit += u64::from(decision.audit);
    tally.break_glass += u64::from(decision.break_glass);
    if data.cedar_policies.is_empty() {
        let plain = reading(data, port, client, &call, NOW);
        if matcher != plain {
            return Err(format!("matcher {matcher:?}\nplain   {plain:?}"));
        }
        tally.plain += 1;
    }
    let allowed_and_sound = matcher.verdict == Verdict::Deny || matcher.phase == Phase::Permit;
    if !allowed_and_sound || !decision.reasons().is_sorted() {
        return Err(format!("{matcher:?} is no decision"));
    }
    tally.triples += 1;
    tally.reasons += matcher.reasons.len() as u64;
    let outcome = format!("{:?} in {:?}", matcher.verdict, matcher.phase).to_lowercase();
    *tally.outcomes.entry(outcome).or_default() += 1;
    Ok(())
}

fn opinion(decision: &Decision) -> Reading {
    Reading {
        verdict: decision.verdict,
        phase: decision.phase,
        status: decision.status,
        reasons: decision.reasons().iter().map(ToString::to_string).collect(),
    }
}

fn report(mesh: &Mesh, record: &RequestRecord, client: &Client) -> String {
    let request = serde_json::to_string(record).unwrap_or_default();
    format!(
        "request: {request} expires {:?}\nmanifests:\n{}",
        client.expires,
        mesh.text()
    )
}
