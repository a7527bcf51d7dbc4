//! The CA's part of the mesh's one log: every line of the issuance log again, in a Merkle tree whose checkpoints are signed
//! by a key of the log's own; and what operators asked of the CA.
//!
//! The issuance log stays what nothing is signed without. Its copy may lag behind and never lacks a line: what found no
//! room is read from the issuance log again, also after a crash.

use crate::error::CaError;
use crate::listen::Peer;
use crate::record::LOG_FILE;
use mesh_audits::entry::{Action, Entry, IssuanceLine};
use mesh_audits::{Line, Parts};
use mesh_issuance::limits::LOG_LINE_BYTES_MAX;
use mesh_platform::audit_log::{AuditHandle, AuditLog, AuditLogConfig};
use mesh_platform::log_files;
use mesh_platform::{Platform, PlatformError};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the log: `issuance.jsonl` in the CA's directory.
const ORIGIN: &str = "issuance";

/// Lines that are copied at a time when the copy is behind: the queue holds eight times as many.
const CATCH_UP_LINES: usize = 1_024;

/// Where the copy goes.
#[derive(Clone)]
pub(crate) struct LogCopy {
    log: AuditHandle,
    issuance: PathBuf,
    /// Lines that were given to it.
    lines: u64,
    platform: Arc<dyn Platform>,
}

/// Opens the copy in `dir`. Drop the log last: that writes and seals what is queued.
///
/// # Errors
/// [`CaError`]: a CA that cannot record does not run.
pub(crate) fn open(
    dir: &Path,
    platform: Arc<dyn Platform>,
) -> Result<(AuditLog, LogCopy), CaError> {
    let lines = copied(dir)?;
    let config = AuditLogConfig::new(dir.to_owned(), ORIGIN, env!("CARGO_PKG_VERSION"));
    let log = AuditLog::open(&config, Arc::clone(&platform))?;
    let copy = LogCopy {
        log: log.handle(),
        issuance: dir.join(LOG_FILE),
        lines,
        platform,
    };
    Ok((log, copy))
}

impl LogCopy {
    /// Copies a line, which is number `line` of the issuance log and on its way to the disk.
    pub(crate) fn line(&mut self, line: u64, text: &[u8]) {
        // One that does not follow is behind others, which are copied first.
        if line == self.lines.saturating_add(1) {
            self.offer(text.trim_ascii_end());
        }
    }

    fn offer(&mut self, text: &[u8]) -> bool {
        let line = self.lines.saturating_add(1);
        let entry = Entry::Issuance(IssuanceLine {
            time: self.platform.wall_clock(),
            line,
            text: String::from_utf8_lossy(text).into_owned(),
        });
        let taken = self.log.offer(entry);
        self.lines = if taken { line } else { self.lines };
        taken
    }

    /// Copies what is behind, of an issuance log of `whole` lines.
    pub(crate) fn catch_up(&mut self, whole: u64) {
        if self.lines >= whole {
            return;
        }
        if let Err(error) = self.read_behind(whole) {
            tracing::warn!(%error, "lines of the issuance log are not in the mesh's log yet; trying again");
        }
    }

    fn read_behind(&mut self, whole: u64) -> Result<(), PlatformError> {
        let failed = |source| PlatformError::from_io("read", &self.issuance, source);
        let mut reader = BufReader::new(File::open(&self.issuance).map_err(failed)?);
        let (mut number, mut line, mut given) = (0, Vec::new(), 0);
        while number < whole {
            line.clear();
            let mut bounded = reader.by_ref().take(LOG_LINE_BYTES_MAX as u64 + 1);
            let failed = |source| PlatformError::from_io("read", &self.issuance, source);
            bounded.read_until(b'\n', &mut line).map_err(failed)?;
            if !line.ends_with(b"\n") {
                break;
            }
            number += 1;
            if number <= self.lines {
                continue;
            }
            if given % CATCH_UP_LINES == 0 {
                self.log.flush();
            }
            if !self.offer(line.trim_ascii_end()) {
                break;
            }
            given += 1;
        }
        Ok(())
    }
}

/// Records what somebody asked of the CA, and what came of it.
pub(crate) fn record(copy: &LogCopy, action: &str, by: &str, detail: String) {
    // A full queue is counted in the log itself.
    let _ = copy.log.record(Entry::Trust(Action {
        time: copy.platform.wall_clock(),
        action: action.to_owned(),
        by: by.to_owned(),
        detail,
    }));
}

/// Who asks, as the kernel says.
pub(crate) fn who<T>(request: &tonic::Request<T>) -> String {
    match request.extensions().get::<Peer>() {
        Some(Peer(peer)) => format!("uid {} (pid {})", peer.uid, peer.pid),
        None => "not known".to_owned(),
    }
}

/// How many lines were copied before, from the newest that is there.
fn copied(dir: &Path) -> Result<u64, CaError> {
    let mut files: Vec<PathBuf> = log_files::closed_segments(dir, ORIGIN)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    files.push(dir.join(format!("{ORIGIN}.jsonl")));
    for file in files.iter().rev() {
        let reader = match File::open(file) {
            Ok(file) => BufReader::new(file),
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(PlatformError::from_io("read", file, source).into()),
        };
        let mut last = None;
        for line in reader.split(b'\n') {
            let line = line.map_err(|source| PlatformError::from_io("read", file, source))?;
            if Parts::of(&line).is_some_and(|parts| parts.kind == "issuance")
                && let Ok(Line {
                    entry: Entry::Issuance(one),
                    ..
                }) = Line::read(&line)
            {
                last = Some(one.line);
            }
        }
        if let Some(last) = last {
            return Ok(last);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
