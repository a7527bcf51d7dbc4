//! Decisions and changes of policy, counted as their logs are proved. The only part of reports that knows the form of a log.
//!
//! A log that is not proved to its end counts as far as it is, and says so. Its checkpoint must be signed by the key that
//! lies beside it; who does not trust that copy proves the logs with `mesh audit verify --key`.

use super::{empty_log, later};
use crate::audit::logs::{self, logs_in};
use crate::fault::Fault;
use crate::live::Live;
use mesh_api::error::CodedError;
use mesh_audits::entry::{Entry, PolicyChange};
use mesh_audits::{FirstBad, Line};
use mesh_compliance::bundle::{Broken, Change, DenialHour, Log, LogKind, Observed, Traffic};
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::Protocol;
use mesh_tlog::Checkpoint;
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Steps back of the clock that several threads of one writer can cause; longer ones are the clock's.
const CLOCK_SLACK_MICROS: i64 = 1_000_000;
/// Origin of the controller's log.
const CONTROLLER: &str = "controller";

/// All that logs say within a window.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) logs: Vec<Log>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) denials: Vec<DenialHour>,
    pub(super) observed: Vec<Observed>,
    pub(super) changes: Vec<Change>,
    /// Generation of the last change, of all times.
    pub(super) generation: u64,
}

/// Time of the last entry of each log in a folder.
///
/// # Errors
/// If the folder cannot be read.
pub(super) fn last_times(folder: &Path) -> Result<Vec<Timestamp>, Fault> {
    let mut out = Vec::new();
    for file in logs_in(folder)? {
        let mut last = None;
        // Whether it is proved is judged when it is counted.
        let _ = walk(&file, &mut |entry, _| last = later(last, time_of(entry)))?;
        out.extend(last);
    }
    Ok(out)
}

/// Counts every log of a folder.
///
/// # Errors
/// If a file cannot be read. A log that is not what was written is no error but a finding.
pub(super) fn count(
    folder: &Path,
    live: &Live,
    since: Timestamp,
    until: Timestamp,
) -> Result<Counted, Fault> {
    let owners: BTreeMap<String, (String, String)> = live
        .proxies()
        .filter_map(|(workload, proxy)| {
            let origin = proxy.audit_log.file_stem()?.to_str()?.to_owned();
            Some((origin, (workload.namespace.clone(), workload.name.clone())))
        })
        .collect();
    let mut counter = Counter::new(since, until);
    for file in logs_in(folder)? {
        let origin = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .to_owned();
        let records = if origin == CONTROLLER {
            LogKind::Changes
        } else {
            LogKind::Decisions
        };
        let mut log = empty_log(&origin, records);
        if records == LogKind::Decisions {
            let owner = owners.get(&origin).cloned();
            // A workload that runs no longer left it.
            let owner = owner.or_else(|| {
                origin
                    .split_once('.')
                    .map(|(ns, name)| (ns.to_owned(), name.to_owned()))
            });
            (log.namespace, log.workload) =
                owner.map_or((None, None), |(ns, name)| (Some(ns), Some(name)));
        }
        let mut latest: Option<Timestamp> = None;
        let proof = walk(&file, &mut |entry, cut| {
            counter.entry(&mut log, &mut latest, entry, cut)
        })?;
        log.entries = proof.entries;
        log.sealed_through = proof.sealed_through;
        log.root = proof.root;
        log.broken = proof.broken;
        counter.out.logs.push(log);
    }
    Ok(counter.finish())
}

/// What is known of a log once it was walked.
struct Proof {
    entries: u64,
    sealed_through: Option<u64>,
    root: Option<String>,
    broken: Option<Broken>,
}

/// Proves a log and hands on each entry that is proved, and whether a text of it was cut or redacted.
fn walk(file: &Path, each: &mut dyn FnMut(&Entry, bool)) -> Result<Proof, Fault> {
    let mut proof = Proof {
        entries: 0,
        sealed_through: None,
        root: None,
        broken: None,
    };
    let key = match logs::key_of(file, None) {
        Ok(key) => key,
        Err(error) => {
            proof.broken = Some(broken_by(&CodedError::from_diagnostic(error), 0));
            return Ok(proof);
        }
    };
    let log = logs::open(file)?;
    if let Some(Ok(checkpoint)) = log.checkpoint()?.map(|bytes| Checkpoint::open(bytes, &key)) {
        proof.root = Some(hex(&checkpoint.head().root));
    }
    // Proved first: whether a line is the one that was logged is known only at the next checkpoint.
    let mut end = u64::MAX;
    match log.walk(&key, Vec::new(), &mut |_, _| {}) {
        Ok(found) => proof.sealed_through = found.sealed_through,
        Err(bad) => {
            end = bad.proven;
            proof.broken = Some(broken(&bad));
        }
    }
    // What is wrong was said.
    let _ = log.walk(&key, Vec::new(), &mut |place, line| {
        if place.seq >= end {
            return;
        }
        proof.entries += 1;
        match Line::read(line) {
            Ok(read) => each(&read.entry, !read.cut.is_empty() || read.is_redacted()),
            Err(error) => {
                // Proved, and yet no entry that is known: one of a later version. What it says is not known.
                end = place.seq;
                proof.broken = Some(Broken {
                    code: "MESH-0510".to_owned(),
                    message: format!("an entry cannot be read: {error}"),
                    line: place.line,
                });
            }
        }
    });
    Ok(proof)
}

/// Lower-case hex.
pub(super) fn hex(root: &mesh_tlog::Hash) -> String {
    root.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn broken(bad: &FirstBad) -> Broken {
    let coded = CodedError::from(&bad.why as &dyn miette::Diagnostic);
    broken_by(&coded, bad.place.line)
}

pub(super) fn broken_by(error: &CodedError, line: u64) -> Broken {
    Broken {
        code: error.code.clone(),
        message: error.message.clone(),
        line,
    }
}

fn time_of(entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::Start(start) => Some(start.time),
        Entry::Decision(record) => record.time,
        Entry::Gap(gap) => Some(gap.time),
        Entry::Change(change) => Some(change.time),
        Entry::Equivalence(one) => Some(one.time),
        _ => None,
    }
}

struct Counter {
    since: Timestamp,
    until: Timestamp,
    /// Places in `out.traffic`, by what makes a class.
    classes: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
    hours: BTreeMap<(String, i64), u64>,
    observed: BTreeMap<(String, String), Observed>,
    last_digest: Option<String>,
    out: Counted,
}

impl Counter {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            since,
            until,
            classes: HashMap::new(),
            key: Vec::new(),
            hours: BTreeMap::new(),
            observed: BTreeMap::new(),
            last_digest: None,
            out: Counted::default(),
        }
    }

    fn entry(&mut self, log: &mut Log, latest: &mut Option<Timestamp>, entry: &Entry, cut: bool) {
        let time = time_of(entry);
        if let Some(time) = time {
            let back = latest.map_or(0, |latest| {
                latest.unix_micros().saturating_sub(time.unix_micros())
            });
            log.clock_back += u64::from(back > CLOCK_SLACK_MICROS);
            *latest = later(*latest, Some(time));
            log.first = log.first.or(Some(time));
            log.last = later(log.last, Some(time));
        }
        let inside = time.is_none_or(|time| time >= self.since && time <= self.until);
        match entry {
            Entry::Decision(record) if inside => self.decision(log, record, cut),
            Entry::Gap(gap) if inside => {
                log.gaps += 1;
                log.lost = log.lost.saturating_add(gap.lost);
            }
            Entry::Change(change) => self.change(change, inside),
            _ => {}
        }
    }

    fn decision(&mut self, log: &mut Log, record: &DecisionRecord, cut: bool) {
        let denied = record.verdict == Verdict::Deny;
        log.decisions += 1;
        log.denied += u64::from(denied);
        log.cut += u64::from(cut);
        for what in lacks(record) {
            *log.incomplete.entry(what.to_owned()).or_default() += 1;
        }
        self.observe(record);
        // A proxy's refusal of its own application went nowhere: it has no workload.
        let Some(workload) = &record.server.workload else {
            return;
        };
        if let (true, Some(time)) = (denied, record.time) {
            let hour = time.unix_micros().div_euclid(3_600_000_000) * 3_600;
            *self
                .hours
                .entry((record.server.namespace.clone(), hour))
                .or_default() += 1;
        }
        self.key.clear();
        key_of(record, &mut self.key);
        if let Some(class) = self
            .classes
            .get(self.key.as_slice())
            .and_then(|at| self.out.traffic.get_mut(*at))
        {
            class.count += 1;
            class.first = match (class.first, record.time) {
                (Some(first), Some(time)) => Some(first.min(time)),
                (first, time) => first.or(time),
            };
            class.last = later(class.last, record.time);
        } else {
            self.classes
                .insert(self.key.clone(), self.out.traffic.len());
            self.out.traffic.push(class_of(record, workload));
        }
    }

    fn observe(&mut self, record: &DecisionRecord) {
        let client = &record.client;
        let (Some(serial), Some(id)) = (&client.serial, &client.spiffe_id) else {
            return;
        };
        let one = self
            .observed
            .entry((serial.clone(), id.clone()))
            .or_insert_with(|| Observed {
                serial: serial.clone(),
                spiffe_id: id.clone(),
                expires: client.expires,
                seen_in: record.server.namespace.clone(),
                count: 0,
                allowed: 0,
                last: None,
                last_allowed: None,
            });
        one.count += 1;
        one.last = later(one.last, record.time);
        if record.verdict == Verdict::Allow {
            one.allowed += 1;
            one.last_allowed = later(one.last_allowed, record.time);
        }
    }

    fn change(&mut self, change: &PolicyChange, inside: bool) {
        self.out.generation = self.out.generation.max(change.generation);
        let initial = self.last_digest.is_none();
        // A controller that starts again says what is in force; that is no change.
        let same = self.last_digest.as_ref() == Some(&change.digest);
        self.last_digest = Some(change.digest.clone());
        if !inside || same {
            return;
        }
        self.out.changes.push(Change {
            time: change.time,
            generation: change.generation,
            digest: change.digest.clone(),
            files: change.files.clone(),
            workloads_changed: change.workloads_changed,
            author: change.author.clone(),
            approver: change.approver.clone(),
            gained: change.gained,
            lost: change.lost,
            initial,
        });
    }

    fn finish(mut self) -> Counted {
        let hours = self.hours.into_iter();
        self.out.denials = hours
            .map(|((namespace, hour), count)| DenialHour {
                namespace,
                hour,
                count,
            })
            .collect();
        self.out.observed = self.observed.into_values().collect();
        self.out.traffic.sort_by_cached_key(|one| {
            // Everything that makes a class, so that equal counts are in one order.
            serde_json::to_string(&(
                (
                    &one.namespace,
                    &one.workload,
                    one.port,
                    &one.client,
                    one.tls,
                    &one.protocol,
                ),
                (
                    &one.method,
                    &one.route,
                    &one.verdict,
                    &one.phase,
                    one.status,
                    &one.reasons,
                ),
            ))
            .unwrap_or_default()
        });
        self.out
    }
}

/// What a decision must say and does not.
fn lacks(record: &DecisionRecord) -> Vec<&'static str> {
    let client = &record.client;
    let identified = client.spiffe_id.is_some();
    let own = record.server.workload.is_none();
    [
        (record.time.is_none(), "time"),
        (record.generation.0 == 0, "generation"),
        (client.ip.is_none(), "source address"),
        (
            identified && !own && client.serial.is_none(),
            "serial number",
        ),
        (
            record.verdict == Verdict::Allow && record.reasons.is_empty(),
            "policies",
        ),
    ]
    .into_iter()
    .filter_map(|(missing, what)| missing.then_some(what))
    .collect()
}

fn protocol(record: &DecisionRecord) -> Protocol {
    let on_grpc = record
        .route
        .as_ref()
        .is_some_and(|route| route.kind == "GRPCRoute");
    match &record.request {
        None => Protocol::Tcp,
        Some(_) if on_grpc || record.grpc_status.is_some() => Protocol::Grpc,
        Some(_) => Protocol::Http,
    }
}

fn class_of(record: &DecisionRecord, workload: &str) -> Traffic {
    let server = &record.server;
    Traffic {
        namespace: server.namespace.clone(),
        workload: workload.to_owned(),
        port: server.port,
        server: server.name.clone().filter(|_| !server.default),
        client: record
            .client
            .spiffe_id
            .clone()
            .filter(|_| record.client.tls),
        tls: record.client.tls,
        ip: record.client.ip.clone(),
        protocol: protocol(record),
        method: record
            .request
            .as_ref()
            .map(|request| request.method.clone()),
        route: record.route.as_ref().map(|route| {
            format!(
                "{}/{}/{}/{}",
                route.kind, route.namespace, route.name, route.rule
            )
        }),
        verdict: record.verdict,
        phase: record.phase,
        status: record.status,
        reasons: record.reasons.clone(),
        audit: record.audit,
        count: 1,
        first: record.time,
        last: record.time,
    }
}

/// What makes the class of a decision, as bytes: no two classes have the same.
fn key_of(record: &DecisionRecord, key: &mut Vec<u8>) {
    let mut text = |text: Option<&str>| {
        let length = text.map_or(0, |text| text.len() as u64 + 1);
        key.extend_from_slice(&length.to_le_bytes());
        key.extend_from_slice(text.unwrap_or_default().as_bytes());
    };
    let (server, route) = (&record.server, record.route.as_ref());
    text(record.client.spiffe_id.as_deref());
    text(Some(&server.namespace));
    text(server.workload.as_deref());
    text(server.name.as_deref());
    text(
        record
            .request
            .as_ref()
            .map(|request| request.method.as_str()),
    );
    for part in [
        route.map(|r| &r.kind),
        route.map(|r| &r.namespace),
        route.map(|r| &r.name),
    ] {
        text(part.map(String::as_str));
    }
    record.reasons.iter().for_each(|reason| text(Some(reason)));
    key.extend_from_slice(&route.map_or(0, |route| route.rule).to_le_bytes());
    key.extend_from_slice(&server.port.to_le_bytes());
    key.extend_from_slice(&record.status.unwrap_or_default().to_le_bytes());
    let phase: Phase = record.phase;
    key.extend_from_slice(&[
        record.verdict as u8,
        phase as u8,
        protocol(record) as u8,
        u8::from(record.client.tls),
        u8::from(server.default),
        u8::from(record.audit),
    ]);
}
