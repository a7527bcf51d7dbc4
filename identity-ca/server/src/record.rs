//! The issuance log on disk: every intent is there before anything is signed.
//!
//! Appends are whole or undone. A flush that fails leaves in doubt what is on disk, so nothing is issued after it: the
//! CA ends, and reads the log again when it starts.

use crate::audit::LogCopy;
use crate::error::{CaError, IssuanceError};
use crate::trust::Requester;
use mesh_issuance::Linted;
use mesh_issuance::issue::Issued;
use mesh_issuance::limits::LOG_LINE_BYTES_MAX;
use mesh_issuance::log::{Entry, Intent, Ledger};
use mesh_issuance::rotation::{AuthorityId, Holder};
use mesh_platform::PlatformError;
use mesh_platform::files::AppendFile;
use mesh_trust::{Timestamp, TrustDomain};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Name of the log in the CA's directory.
pub(crate) const LOG_FILE: &str = "issuance.log";

/// Where the lines go. A trait, so that tests can fail at every step.
pub(crate) trait Lines: Send {
    /// Appends a line, or nothing.
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError>;
    /// Flushes what was appended.
    fn sync(&mut self) -> Result<(), PlatformError>;
}

impl Lines for AppendFile {
    fn append(&mut self, line: &[u8]) -> Result<(), PlatformError> {
        AppendFile::append(self, line)
    }

    fn sync(&mut self) -> Result<(), PlatformError> {
        AppendFile::sync(self)
    }
}

/// The log, and what it says.
pub(crate) struct Recorder {
    lines: Box<dyn Lines>,
    ledger: Ledger,
    in_doubt: bool,
    /// The same in the mesh's one log.
    copy: Option<LogCopy>,
}

impl Recorder {
    /// Opens the log in `dir`; a line that a power cut tore is dropped, since nothing was signed for it.
    pub(crate) fn open(dir: &Path) -> Result<Self, CaError> {
        let path = dir.join(LOG_FILE);
        let (ledger, whole) = replay(&path)?;
        let mut file = AppendFile::open(&path, 0o600)?;
        if file.length() > whole {
            tracing::warn!(path = %path.display(), bytes = file.length() - whole, "dropped a torn last line of the issuance log");
            file.truncate(whole)?;
        }
        Ok(Self {
            lines: Box::new(file),
            ledger,
            in_doubt: false,
            copy: None,
        })
    }

    /// Copies every line, those that were written before as well.
    pub(crate) fn copy_to(&mut self, copy: Option<LogCopy>) {
        self.copy = copy;
        self.catch_up();
    }

    fn catch_up(&mut self) {
        let whole = self.ledger.head().lines;
        if let Some(copy) = &mut self.copy {
            copy.catch_up(whole);
        }
    }

    /// What the log says.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a flush failed: the CA must end and read the log again.
    pub(crate) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Notes that a CA opened the log.
    pub(crate) fn start(
        &mut self,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<(), IssuanceError> {
        self.ledger.forget_expired(now);
        self.write(&Entry::Start {
            time: now,
            trust_domain: trust_domain.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })?;
        self.flush()
    }

    /// Appends the intent to sign `linted`. Not yet on disk: [`Recorder::flush`] comes before the signature.
    pub(crate) fn intend(
        &mut self,
        linted: &Linted,
        evidence: &str,
        now: Timestamp,
    ) -> Result<(), IssuanceError> {
        let intent = Intent::new(linted, evidence, now);
        self.ledger.check_unused(&intent)?;
        self.write(&Entry::Intent(Box::new(intent)))
    }

    /// As [`Recorder::intend`], for a leaf that `holder` will show.
    pub(crate) fn intend_for(
        &mut self,
        linted: &Linted,
        requester: &Requester,
        (holder, authority): (&Holder, &AuthorityId),
        now: Timestamp,
    ) -> Result<(), IssuanceError> {
        let intent = Intent::new(linted, &requester.evidence, now)
            .held_by(holder, authority)
            .on(requester.node.as_deref());
        self.ledger.check_unused(&intent)?;
        self.write(&Entry::Intent(Box::new(intent)))
    }

    /// Records a step of trust, on disk when this returns.
    pub(crate) fn trust_changed(
        &mut self,
        generation: u64,
        state_sha256: String,
        evidence: String,
        now: Timestamp,
    ) -> Result<(), IssuanceError> {
        self.write(&Entry::Trust {
            time: now,
            generation,
            state_sha256,
            evidence,
        })?;
        self.flush()
    }

    /// Notes that what is on disk is in doubt: nothing is recorded, and so nothing issued, until the CA starts again.
    pub(crate) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Appends that `issued` was signed. It may be released only after this.
    pub(crate) fn signed(&mut self, issued: &Issued, now: Timestamp) -> Result<(), IssuanceError> {
        self.write(&Entry::signed(issued, now))
    }

    /// Appends that an intent came to nothing. If that cannot be written, the open intent says the same.
    pub(crate) fn failed(&mut self, serial: String, why: String, now: Timestamp) {
        if let Err(error) = self.write(&Entry::Failed {
            time: now,
            serial,
            why,
        }) {
            tracing::warn!(%error, "the failure of an issuance was not recorded");
        }
    }

    /// Puts all that was appended on the disk.
    pub(crate) fn flush(&mut self) -> Result<(), IssuanceError> {
        self.check()?;
        self.catch_up();
        self.lines.sync().map_err(|error| {
            self.in_doubt = true;
            not_recorded(&error)
        })
    }

    /// Forgets what ended before `now`.
    pub(crate) fn forget_expired(&mut self, now: Timestamp) {
        self.ledger.forget_expired(now);
    }

    fn check(&self) -> Result<(), IssuanceError> {
        if self.in_doubt {
            Err(IssuanceError::Stopped)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), IssuanceError> {
        self.check()?;
        let (line, head) = self.ledger.head().append(entry)?;
        self.lines
            .append(&line)
            .map_err(|error| not_recorded(&error))?;
        if let Some(copy) = &mut self.copy {
            copy.line(head.lines, &line);
        }
        self.ledger.commit(entry, head);
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn with_lines(self, wrap: impl FnOnce(Box<dyn Lines>) -> Box<dyn Lines>) -> Self {
        Self {
            lines: wrap(self.lines),
            ..self
        }
    }
}

fn not_recorded(error: &PlatformError) -> IssuanceError {
    IssuanceError::NotRecorded {
        why: error.to_string(),
    }
}

/// Reads a log. Also says how many bytes of it are whole lines.
pub(crate) fn replay(path: &Path) -> Result<(Ledger, u64), CaError> {
    let mut ledger = Ledger::default();
    let failed = |source| PlatformError::from_io("read", path, source);
    let file = match File::open(path) {
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok((ledger, 0)),
        outcome => outcome.map_err(failed)?,
    };
    let mut reader = BufReader::new(file);
    let (mut line, mut whole) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut reader, LOG_LINE_BYTES_MAX as u64 + 1);
        let length = bounded.read_until(b'\n', &mut line).map_err(failed)?;
        match line.strip_suffix(b"\n") {
            Some(text) => ledger.replay(text).map_err(|source| CaError::Log {
                path: PathBuf::from(path),
                source,
            })?,
            // A line that was being written when the power went.
            None if length <= LOG_LINE_BYTES_MAX => return Ok((ledger, whole)),
            None => ledger.replay(&line).map_err(|source| CaError::Log {
                path: PathBuf::from(path),
                source,
            })?,
        }
        whole = whole.saturating_add(length as u64);
    }
}
