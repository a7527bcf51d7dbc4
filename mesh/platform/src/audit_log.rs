//! A log with a thread of its own: takes entries without ever making their giver wait, writes them in batches, then signs
//! a checkpoint.
//!
//! ```text
//! Writing --disk refuses--> Failing (counts what is lost, tries again each second) --disk takes a gap line--> Writing
//! ```
//! - What does not fit into the queue or onto the disk is counted, and the log says so in a gap line as soon as it can:
//!   never silently. Who must not act unrecorded asks [`AuditHandle::refuses`] first ([`WhenFull::Strict`]).
//! - A checkpoint is due a second after a line, or after [`CHECKPOINT_LINES`] lines; see [`crate::tree_log`] for what is
//!   on disk and what a crash leaves.
//!
//! A crash of the process itself loses what is still queued, at most [`QUEUE_ENTRIES_MAX`] entries, usually none. What
//! [`AuditHandle::flush`] has returned for is never lost.

use crate::tree_log::{Found, Retention, TreeLog, TreeLogConfig};
use crate::{Platform, PlatformError};
use mesh_audits::entry::{Entry, Gap, GapCause, Start};
use mesh_audits::redact::Redactable;
use mesh_tlog::note::KeyError;
use mesh_trust::Timestamp;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

mod writer;

/// Entries that may wait for the disk. At about 1 KiB each this bounds the queue near 8 MB.
pub const QUEUE_ENTRIES_MAX: usize = 8_192;

/// Lines after which a checkpoint is due at the latest.
pub const CHECKPOINT_LINES: u64 = 1_000;

/// Time after which a checkpoint is due if anything was written; also how often a failing disk is tried again.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Where an audit log is, whose it is, and how it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditLogConfig {
    /// Directory of logs, made with mode 0700.
    pub directory: PathBuf,
    /// Whose log: the files are `<origin>.…`, see [`crate::tree_log`]. Letters, digits, `.`, `_` and `-` only.
    pub origin: String,
    /// Version of the program, for the start line.
    pub version: String,
    /// Share of allowed requests that the caller records one by one, for the start line.
    pub allow_sample: Option<f64>,
    /// How much is kept.
    pub retention: Retention,
    /// What happens while the log takes nothing.
    pub when_full: WhenFull,
    /// Texts that can be taken out later.
    pub redactable: Vec<Redactable>,
}

/// What happens while the disk takes nothing, or less than comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Work goes on; what is lost is counted, and the log says so.
    #[default]
    Count,
    /// Nothing may be allowed that cannot be recorded.
    Strict,
}

impl AuditLogConfig {
    /// A log that is kept whole, counts what it loses, and holds all texts for good.
    pub fn new(directory: PathBuf, origin: &str, version: &str) -> Self {
        Self {
            directory,
            origin: origin.to_owned(),
            version: version.to_owned(),
            allow_sample: None,
            retention: Retention::default(),
            when_full: WhenFull::default(),
            redactable: Vec::new(),
        }
    }

    /// Where its files are.
    pub fn files(&self) -> TreeLogConfig {
        TreeLogConfig {
            directory: self.directory.clone(),
            origin: self.origin.clone(),
            bundles: false,
        }
    }
}

/// Why an audit log could not be opened.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AuditLogError {
    /// The operating system refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// The key file holds no key.
    #[error("cannot sign checkpoints with `{path}`")]
    Key {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: KeyError,
    },
    /// A name that would leave the directory.
    #[error("`{origin}` cannot name an audit log")]
    #[diagnostic(
        code("MESH-0831"),
        help("use letters, digits, `.`, `_` and `-`, at most 200 of them")
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// A segment that should be deleted is not what was signed.
    #[error("`{path}` is not what was signed when it was closed; it is not deleted")]
    #[diagnostic(
        code("MESH-0505"),
        help(
            "somebody edited it: `mesh audit verify` names the first bad line. Move it away once that is settled"
        )
    )]
    NotAsSealed {
        /// The segment.
        path: PathBuf,
    },
}

/// The giver's end of a log: cheap to copy, one for every thread that decides.
#[derive(Clone, Debug)]
pub struct AuditHandle {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Lines written.
    pub written: u64,
    /// Entries lost, whether the log could already say so or not.
    pub lost: u64,
    /// Why the disk takes nothing now, if so.
    pub failing: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Whether nothing may be allowed now: the log is strict and takes nothing.
    refuses: AtomicBool,
    strict: bool,
    written: AtomicU64,
    /// Did not fit into the queue; the writer moves them to `lost`.
    overflowed: AtomicU64,
    lost: AtomicU64,
    failing: Mutex<Option<String>>,
}

enum Message {
    Entry(Box<Entry>),
    /// Write, flush and sign what came before, then answer.
    Flush(SyncSender<()>),
    Stop,
}

impl AuditHandle {
    /// Gives `entry` to the log; never waits. False if the queue is full: the entry is counted as lost.
    pub fn record(&self, entry: Entry) -> bool {
        match self.queue.try_send(Message::Entry(Box::new(entry))) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                self.counts.refuse();
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                self.counts.refuse();
                false
            }
        }
    }

    /// Gives `entry` to the log if there is room; never waits. False if there is none: the entry is the caller's again,
    /// and not counted as lost.
    pub fn offer(&self, entry: Entry) -> bool {
        self.queue.try_send(Message::Entry(Box::new(entry))).is_ok()
    }

    /// Counts an entry that the caller could not give, for the log's next gap.
    pub fn count_lost(&self) {
        self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
        self.counts.refuse();
    }

    /// Whether nothing may be allowed now, because it could not be recorded: never, unless the log is strict. From the
    /// first entry that is lost until the log has told of it.
    pub fn refuses(&self) -> bool {
        self.counts.refuses.load(Ordering::Relaxed)
    }

    /// Waits until everything given before is on the disk and sealed, or the disk refused it. Blocks: not for the
    /// threads that decide.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            // An error means that the writer ended, after a last flush.
            let _ = wait.recv();
        }
    }

    /// Counts since the start.
    pub fn counts(&self) -> AuditCounts {
        AuditCounts {
            written: self.counts.written.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed)
                + self.counts.overflowed.load(Ordering::Relaxed),
            failing: self.counts.failing(),
        }
    }
}

impl Counts {
    fn refuse(&self) {
        if self.strict {
            self.refuses.store(true, Ordering::Relaxed);
        }
    }

    fn failing(&self) -> Option<String> {
        // A poisoned lock holds a whole value all the same.
        self.failing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set_failing(&self, why: Option<String>) {
        *self
            .failing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = why;
    }
}

/// An open audit log. Dropping it writes, flushes and seals what was given.
#[derive(Debug)]
pub struct AuditLog {
    handle: AuditHandle,
    thread: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the log, or begins it, and starts its thread. The first line it writes is a start.
    ///
    /// # Errors
    /// [`AuditLogError`]; a log that cannot be opened is the caller's decision: to run unrecorded is never ours.
    pub fn open(
        config: &AuditLogConfig,
        platform: Arc<dyn Platform>,
    ) -> Result<Self, AuditLogError> {
        Self::open_with_queue(config, platform, QUEUE_ENTRIES_MAX)
    }

    fn open_with_queue(
        config: &AuditLogConfig,
        platform: Arc<dyn Platform>,
        entries: usize,
    ) -> Result<Self, AuditLogError> {
        let (log, found) = TreeLog::open(&config.files(), platform.wall_clock())?;
        let counts = Arc::new(Counts {
            strict: config.when_full == WhenFull::Strict,
            ..Counts::default()
        });
        let (queue, entries) = sync_channel(entries);
        let first = first_entries(config, &found, platform.wall_clock());
        let writer = writer::Writer::new(config, platform, log, first, Arc::clone(&counts));
        let thread = std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.run(&entries))
            .map_err(|source| PlatformError::Kernel {
                doing: "start the thread of the audit log",
                source,
            })?;
        Ok(Self {
            handle: AuditHandle { queue, counts },
            thread: Some(thread),
        })
    }

    /// To give entries with.
    pub fn handle(&self) -> AuditHandle {
        self.handle.clone()
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        let stopped = self.handle.queue.send(Message::Stop).is_ok();
        if let (true, Some(thread)) = (stopped, self.thread.take()) {
            // A panic of the thread has been printed where it happened.
            let _ = thread.join();
        }
    }
}

/// What must stand before anything else.
fn first_entries(config: &AuditLogConfig, found: &Found, now: Timestamp) -> Vec<Entry> {
    let mut first = vec![Entry::Start(Start {
        time: now,
        origin: config.origin.clone(),
        version: config.version.clone(),
        torn_bytes: found.torn_bytes,
        missing_from: found.missing_from,
        allow_sample: config.allow_sample,
    })];
    if found.moved_aside {
        first.push(Entry::Gap(Gap {
            time: now,
            lost: 0,
            cause: GapCause::BrokenLog,
        }));
    }
    first
}

#[cfg(test)]
mod tests;
