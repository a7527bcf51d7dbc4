//! The CA's log: every certificate that it meant to sign, and what became of it.

use super::{empty_log, later};
use crate::fault::Fault;
use mesh_api::error::CodedError;
use mesh_compliance::bundle::{Broken, Certificate, Issuance, Log, LogKind, What};
use mesh_issuance::limits::LOG_LINE_BYTES_MAX;
use mesh_issuance::log::{self, Entry, Ledger};
use mesh_platform::PlatformError;
use mesh_trust::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Name of the log in the CA's folder.
const FILE: &str = "issuance.log";
/// Its origin in reports.
const ORIGIN: &str = "issuance";

/// What the log says.
#[derive(Default)]
pub(super) struct Issued {
    /// The log; none if there is no file.
    pub(super) log: Option<Log>,
    /// By serial.
    pub(super) certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
struct Line {
    entry: Entry,
    hash: String,
}

/// Reads the log in the CA's folder.
///
/// # Errors
/// If the file cannot be read. A log that is not what was written is no error but a finding.
pub(super) fn read(folder: &Path) -> Result<Issued, Fault> {
    let path = folder.join(FILE);
    let unreadable = |error: std::io::Error| PlatformError::from_io("read", &path, error);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Issued::default());
        }
        Err(error) => return Err(unreadable(error).into()),
    };
    let mut log = empty_log(ORIGIN, LogKind::Issuance);
    let mut all: BTreeMap<String, Certificate> = BTreeMap::new();
    let (mut ledger, mut reader, mut line) = (Ledger::default(), BufReader::new(file), Vec::new());
    loop {
        line.clear();
        let mut some = reader.by_ref().take(LOG_LINE_BYTES_MAX as u64 + 1);
        some.read_until(b'\n', &mut line).map_err(unreadable)?;
        // What a CA is writing, or a crash tore, is no line yet.
        let Some(whole) = line.strip_suffix(b"\n") else {
            break;
        };
        if let Err(error) = ledger.replay(whole) {
            log.broken = Some(broken(&error, log.entries + 1));
            break;
        }
        log.entries += 1;
        if let Ok(read) = serde_json::from_slice::<Line>(whole) {
            log.root = Some(read.hash);
            note(read.entry, &mut log, &mut all);
        }
    }
    Ok(Issued {
        log: Some(log),
        certificates: all.into_values().collect(),
    })
}

fn note(entry: Entry, log: &mut Log, all: &mut BTreeMap<String, Certificate>) {
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
        Entry::Start { time, .. } | Entry::Trust { time, .. } => seen(time),
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

fn broken(error: &log::LogError, line: u64) -> Broken {
    let coded = CodedError::from(error as &dyn miette::Diagnostic);
    Broken {
        code: coded.code,
        message: coded.message,
        line,
    }
}
