//! Decisions and changes of policy, counted as their logs are proved. The only part of reports that knows the form of a log.
//!
//! A log that is not proved to its end counts as far as it is, and says so. Its checkpoint must be signed by the key that
//! lies beside it; who does not trust that copy proves the logs with `mesh audit verify --key`.

use super::classes::{Allows, Seen};
use super::{empty_log, later};
use crate::audit::logs::{self, logs_in};
use crate::fault::Fault;
use crate::live::Live;
use mesh_api::error::CodedError;
use mesh_audits::entry::{self, AllowCounts, Entry, PolicyChange};
use mesh_audits::{FirstBad, Line};
use mesh_compliance::bundle::{
    Action, ActionKind, Broken, Change, DenialHour, Log, LogKind, Observed, Said, SaidBy, Traffic,
};
use mesh_policy::decide::Verdict;
use mesh_policy::record::DecisionRecord;
use mesh_tlog::Checkpoint;
use mesh_trust::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Steps back of the clock that several threads of one writer can cause; longer ones are the clock's.
const CLOCK_SLACK_MICROS: i64 = 1_000_000;
/// Origin of the controller's log.
const CONTROLLER: &str = "controller";
/// Origin of the log of whoever keeps a mesh up on one machine.
const SUPERVISOR: &str = crate::up::SUPERVISOR;

/// All that logs say within a window.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) logs: Vec<Log>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) denials: Vec<DenialHour>,
    pub(super) observed: Vec<Observed>,
    pub(super) changes: Vec<Change>,
    /// What people did to trust, to the mesh, and with grants for emergencies.
    pub(super) actions: Vec<Action>,
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
        let records = match origin.as_str() {
            CONTROLLER => LogKind::Changes,
            SUPERVISOR => LogKind::Operation,
            _ => LogKind::Decisions,
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
        counter.log_ends(&mut log);
        counter.out.logs.push(log);
    }
    Ok(counter.finish())
}

/// What is known of a log once it was walked.
pub(super) struct Proof {
    pub(super) entries: u64,
    pub(super) sealed_through: Option<u64>,
    pub(super) root: Option<String>,
    pub(super) broken: Option<Broken>,
}

/// Proves a log and hands on each entry that is proved, and whether a text of it was cut or redacted.
pub(super) fn walk(file: &Path, each: &mut dyn FnMut(&Entry, bool)) -> Result<Proof, Fault> {
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
        Entry::Effect(effect) => Some(effect.time),
        Entry::Issuance(line) => Some(line.time),
        Entry::Equivalence(one) => Some(one.time),
        Entry::Counts(counts) => Some(counts.time),
        Entry::Retired(retired) => Some(retired.time),
        Entry::Redaction(redaction) => Some(redaction.time),
        Entry::BreakGlass(glass) => Some(glass.time),
        Entry::Trust(action) | Entry::Admin(action) => Some(action.time),
        _ => None,
    }
}

/// Time of the first and of the last.
pub(super) type Window = (Option<Timestamp>, Option<Timestamp>);

/// Adds to a class.
pub(super) fn merge(class: &mut Traffic, count: u64, (first, last): Window) {
    class.count = class.count.saturating_add(count);
    class.first = match (class.first, first) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    class.last = later(class.last, last);
}

struct Counter {
    since: Timestamp,
    until: Timestamp,
    /// Places in `out.traffic`, by what makes a class.
    classes: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
    hours: BTreeMap<(String, i64), u64>,
    observed: BTreeMap<(String, String), Observed>,
    /// What was allowed, of the log that is being read.
    allows: Allows,
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
            allows: Allows::default(),
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
            Entry::Counts(counts) if inside => self.counts(log, counts),
            Entry::Change(change) => self.change(change, inside),
            Entry::Effect(effect) => self.effect(effect),
            Entry::BreakGlass(glass) if inside => self.out.actions.push(Action {
                time: glass.time,
                kind: ActionKind::BreakGlass,
                action: glass.action.clone(),
                subject: glass.grant.clone(),
                by: glass.by.clone(),
                detail: glass.reason.clone(),
                until: glass.until,
            }),
            Entry::Trust(one) if inside => self.action(ActionKind::Trust, &log.origin, one),
            Entry::Admin(one) if inside => self.action(ActionKind::Admin, &log.origin, one),
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
        let seen = Seen::of_record(record, workload);
        if denied {
            self.add(&seen, 1, (record.time, record.time));
        } else {
            self.allows.record(&seen, record.time);
        }
    }

    fn counts(&mut self, log: &mut Log, counts: &AllowCounts) {
        log.counts_allows = true;
        let window = (
            Some(counts.from.max(self.since).min(counts.time)),
            Some(counts.time),
        );
        for class in &counts.classes {
            if let Some(seen) = Seen::of_class(class) {
                self.allows.count(&seen, class.count, window);
            }
        }
        self.allows.nameless = self.allows.nameless.saturating_add(counts.other);
    }

    /// A log is read: what it counted exactly takes the place of what it recorded of the same class as a sample.
    fn log_ends(&mut self, log: &mut Log) {
        let allows = std::mem::take(&mut self.allows);
        // Allows of classes that found no room may have used any grant.
        log.counts_allows &= allows.nameless == 0;
        for class in allows.classes() {
            self.put(class);
        }
    }

    fn add(&mut self, seen: &Seen<'_>, count: u64, window: Window) {
        self.key.clear();
        seen.key(&mut self.key);
        let known = self.classes.get(self.key.as_slice());
        match known.and_then(|at| self.out.traffic.get_mut(*at)) {
            Some(class) => merge(class, count, window),
            None => {
                let at = self.out.traffic.len();
                self.classes.insert(self.key.clone(), at);
                self.out.traffic.push(seen.traffic(count, window));
            }
        }
    }

    /// Adds a class of one log: that of another log can be the same, of a second replica.
    fn put(&mut self, (key, class): (Vec<u8>, Traffic)) {
        let known = self.classes.get(&key);
        match known.and_then(|at| self.out.traffic.get_mut(*at)) {
            Some(other) => merge(other, class.count, (class.first, class.last)),
            None => {
                self.classes.insert(key, self.out.traffic.len());
                self.out.traffic.push(class);
            }
        }
    }

    fn action(&mut self, kind: ActionKind, origin: &str, one: &entry::Action) {
        self.out.actions.push(Action {
            time: one.time,
            kind,
            action: one.action.clone(),
            subject: origin.to_owned(),
            by: one.by.clone(),
            detail: one.detail.clone(),
            until: None,
        });
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
            objects: change.objects.as_ref().map(|all| {
                let text = |one: &entry::ChangedObject| format!("{} {}", how(one.how), one.object);
                all.iter().map(text).collect()
            }),
            author: change.author.as_ref().map(said),
            approver: change.approver.as_ref().map(said),
            gained: None,
            lost: None,
            exact: None,
            access: Vec::new(),
            initial,
        });
    }

    /// What a change did is logged after it.
    fn effect(&mut self, effect: &entry::ChangeEffect) {
        let mut newest = self.out.changes.iter_mut().rev();
        let of =
            newest.find(|one| one.generation == effect.generation && one.digest == effect.digest);
        if let Some(change) = of {
            (change.gained, change.lost) = (Some(effect.gained), Some(effect.lost));
            change.exact = Some(effect.exact);
            change.access.clone_from(&effect.access);
        }
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

fn how(how: entry::How) -> &'static str {
    match how {
        entry::How::Added => "+",
        entry::How::Changed => "~",
        entry::How::Removed => "-",
    }
}

fn said(said: &entry::Said) -> Said {
    Said {
        who: said.who.clone(),
        from: match said.from {
            entry::SaidBy::Annotation => SaidBy::Annotation,
            entry::SaidBy::FieldManager => SaidBy::FieldManager,
            entry::SaidBy::FileOwner => SaidBy::FileOwner,
        },
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
