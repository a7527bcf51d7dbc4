//! The CA's log: every certificate that it meant to sign, and what became of it.
//!
//! The CA writes it twice: as the issuance log, whose lines are chained by hash, and line by line into a log of the mesh,
//! whose checkpoints are signed. Both must say the same.

use super::logs::{Proof, walk};
use super::{empty_log, later};
use crate::fault::Fault;
use mesh_api::error::CodedError;
use mesh_audits::entry;
use mesh_compliance::bundle::{
    Action, ActionKind, Broken, Certificate, Issuance, Log, LogKind, What,
};
use mesh_issuance::limits::LOG_LINE_BYTES_MAX;
use mesh_issuance::log::{self, Entry, Ledger};
use mesh_platform::PlatformError;
use mesh_tlog::leaf_hash;
use mesh_trust::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Name of the issuance log in the CA's folder.
const FILE: &str = "issuance.log";
/// The same in the mesh's log.
const COPY: &str = "issuance.jsonl";
/// Its origin in reports.
pub(super) const ORIGIN: &str = "issuance";

/// What the log says.
#[derive(Default)]
pub(super) struct Issued {
    /// The log; none if there is no file.
    pub(super) log: Option<Log>,
    /// By serial.
    pub(super) certificates: Vec<Certificate>,
    /// Steps of trust, and who asked for them.
    pub(super) actions: Vec<Action>,
}

/// Hashes of lines by number.
type Signed = BTreeMap<u64, mesh_tlog::Hash>;

#[derive(Deserialize)]
struct Line {
    entry: Entry,
    hash: String,
}

/// Why the two do not say the same.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(in crate::audit) enum IssuanceError {
    #[error("line {line} of the issuance log is not the one that the signed log holds")]
    #[diagnostic(
        code("MESH-0567"),
        help(
            "one of them was edited: `mesh audit verify` proves the signed one; compare both with a copy"
        )
    )]
    Differs { line: u64 },
    #[error("line {line} of the issuance log is missing, and the signed log holds it")]
    #[diagnostic(
        code("MESH-0567"),
        help("the issuance log was cut, or put back to an older state: restore it from a copy")
    )]
    Missing { line: u64 },
}

/// Reads the log in the CA's folder.
///
/// # Errors
/// If the file cannot be read. A log that is not what was written is no error but a finding.
pub(super) fn read(folder: &Path) -> Result<Issued, Fault> {
    let mut out = Issued::default();
    let mut log = empty_log(ORIGIN, LogKind::Issuance);
    let (signed, proof) = signed(folder, &mut out.actions)?;
    let mut all: BTreeMap<String, Certificate> = BTreeMap::new();
    let mut ledger = Ledger::default();
    let there = lines(&folder.join(FILE), &mut |number, line| {
        if let Err(error) = ledger.replay(line) {
            let coded = CodedError::from(&error as &dyn miette::Diagnostic);
            return Some(broken(coded, number));
        }
        if signed
            .get(&number)
            .is_some_and(|signed| *signed != leaf_hash(line))
        {
            return Some(broken_by(IssuanceError::Differs { line: number }, number));
        }
        log.entries = number;
        if let Ok(read) = serde_json::from_slice::<Line>(line) {
            log.root = Some(read.hash);
            note(read.entry, &mut log, (&mut all, &mut out.actions));
        }
        None
    })?;
    let Some(bad) = there.or_else(|| signed.keys().next_back().map(|_| None)) else {
        return Ok(out);
    };
    log.broken = bad.or_else(|| missing(&signed, log.entries));
    if let Some(proof) = proof {
        // What a signature covers is what the signed log holds.
        log.sealed_through = proof
            .sealed_through
            .and_then(|_| signed.keys().next_back().copied());
        log.root = proof.root;
        log.broken = log.broken.or(proof.broken);
    }
    out.log = Some(log);
    out.certificates = all.into_values().collect();
    Ok(out)
}

/// Holds the issuance log beside a signed log against it. `None`: they say the same, or there is none beside it.
///
/// # Errors
/// If a file cannot be read.
pub(in crate::audit) fn compare(copy: &Path) -> Result<Option<CodedError>, Fault> {
    let Some(folder) = copy.parent().filter(|_| copy.ends_with(COPY)) else {
        return Ok(None);
    };
    let file = folder.join(FILE);
    if !file.exists() {
        // On another machine the signed log stands alone.
        return Ok(None);
    }
    let (signed, _) = signed(folder, &mut Vec::new())?;
    let mut whole = 0;
    let place = |line: u64| format!("{}:{line}", file.display());
    let bad = lines(&file, &mut |number, line| {
        whole = number;
        let differs = signed
            .get(&number)
            .is_some_and(|signed| *signed != leaf_hash(line));
        differs.then_some(number)
    })?;
    let found = match bad.flatten() {
        Some(line) => Some((IssuanceError::Differs { line }, line)),
        None => (1..=signed.keys().next_back().copied().unwrap_or_default())
            .find(|line| *line > whole)
            .map(|line| (IssuanceError::Missing { line }, line)),
    };
    Ok(found.map(|(error, line)| CodedError::from_diagnostic(error).at(place(line))))
}

/// Hashes of the lines of the issuance log by number, as far as they are proved; what operators asked goes to `actions`.
fn signed(folder: &Path, actions: &mut Vec<Action>) -> Result<(Signed, Option<Proof>), Fault> {
    let file = folder.join(COPY);
    let mut lines = BTreeMap::new();
    if !file.exists() {
        return Ok((lines, None));
    }
    let proof = walk(&file, &mut |entry, _| match entry {
        entry::Entry::Issuance(one) => {
            lines.insert(one.line, leaf_hash(one.text.as_bytes()));
        }
        entry::Entry::Trust(one) => actions.push(Action {
            time: one.time,
            kind: ActionKind::Trust,
            action: one.action.clone(),
            subject: ORIGIN.to_owned(),
            by: one.by.clone(),
            detail: one.detail.clone(),
            until: None,
        }),
        _ => {}
    })?;
    Ok((lines, Some(proof)))
}

/// Hands on each whole line with its number, until `each` finds something. `None` if there is no such file.
fn lines<T>(
    path: &Path,
    each: &mut dyn FnMut(u64, &[u8]) -> Option<T>,
) -> Result<Option<Option<T>>, Fault> {
    let unreadable = |error: std::io::Error| PlatformError::from_io("read", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error).into()),
    };
    let (mut reader, mut line, mut number) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        let mut some = reader.by_ref().take(LOG_LINE_BYTES_MAX as u64 + 1);
        some.read_until(b'\n', &mut line).map_err(unreadable)?;
        // What a CA is writing, or a crash tore, is no line yet.
        let Some(whole) = line.strip_suffix(b"\n") else {
            return Ok(Some(None));
        };
        number += 1;
        if let Some(found) = each(number, whole) {
            return Ok(Some(Some(found)));
        }
    }
}

/// The first line that the signed log holds beyond the end of the issuance log.
fn missing(signed: &Signed, whole: u64) -> Option<Broken> {
    let line = *signed.range(whole.saturating_add(1)..).next()?.0;
    Some(broken_by(IssuanceError::Missing { line }, line))
}

fn note(
    entry: Entry,
    log: &mut Log,
    (all, actions): (&mut BTreeMap<String, Certificate>, &mut Vec<Action>),
) {
    let mut seen = |time: Timestamp| {
        let back = log
            .last
            .is_some_and(|last| last.unix_micros() - time.unix_micros() > 1_000_000);
        log.clock_back += u64::from(back);
        log.first = log.first.or(Some(time));
        log.last = later(log.last, Some(time));
    };
    let mut end = |serial: &str, state: Issuance| {
        if let Some(one) = all.get_mut(serial) {
            one.state = state;
        }
    };
    match entry {
        Entry::Start { time, .. } => seen(time),
        Entry::Trust {
            time,
            generation,
            evidence,
            ..
        } => {
            seen(time);
            actions.push(Action {
                time,
                kind: ActionKind::Trust,
                action: "step".to_owned(),
                subject: ORIGIN.to_owned(),
                by: "the CA".to_owned(),
                detail: format!("trust bundle {generation}: {evidence}"),
                until: None,
            });
        }
        Entry::Final { time, serial, .. } => {
            seen(time);
            end(&serial, Issuance::Signed);
        }
        Entry::Failed { time, serial, .. } => {
            seen(time);
            end(&serial, Issuance::Failed);
        }
        Entry::Intent(intent) => {
            seen(intent.time);
            let one = Certificate {
                serial: intent.serial.clone(),
                what: match intent.what {
                    log::What::Root => What::Root,
                    log::What::Issuer => What::Issuer,
                    log::What::Leaf => What::Leaf,
                },
                spiffe_id: intent.spiffe_id.to_string(),
                not_before: intent.not_before,
                not_after: intent.not_after,
                time: intent.time,
                key_sha256: intent.key_sha256,
                signed_by: intent.signed_by,
                evidence: intent.evidence,
                state: Issuance::Open,
            };
            all.insert(intent.serial, one);
        }
    }
}

fn broken_by(error: IssuanceError, line: u64) -> Broken {
    broken(CodedError::from_diagnostic(error), line)
}

fn broken(coded: CodedError, line: u64) -> Broken {
    Broken {
        code: coded.code,
        message: coded.message,
        line,
    }
}
