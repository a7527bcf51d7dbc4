//! The thread that owns an audit file: takes entries without ever making their giver wait, writes them in batches,
//! flushes, then signs a checkpoint.
//!
//! ```text
//! Writing --disk refuses--> Failing (counts what is lost, tries again each second) --disk takes a gap line--> Writing
//! ```
//! - What does not fit into the queue or onto the disk is counted, and the log says so in a gap line as soon as it can:
//!   never silently.
//! - Order at a checkpoint: write, flush, sign, replace the checkpoint file. So the checkpoint never covers what a
//!   power cut could take.
//! - After a crash an unfinished last line is cut off and its length noted in the next start line. A log whose last
//!   line is not what was written is moved aside (`.broken-<time>`) and a new one says so in its second line.
//!
//! A crash of the process itself loses what is still queued, at most [`QUEUE_ENTRIES_MAX`] entries, usually none.

use crate::files::{self, AppendFile};
use crate::{Platform, PlatformError};
use mesh_audits::chain::{ChainState, Resumed};
use mesh_audits::checkpoint::{Checkpoint, CheckpointError, CheckpointKey};
use mesh_audits::entry::{Entry, Gap, GapCause, Start};
use mesh_audits::limits::LINE_BYTES_MAX;
use mesh_trust::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Where an audit log is and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogConfig {
    /// Directory of logs, made with mode 0700.
    pub directory: PathBuf,
    /// Whose log: the files are `<origin>.jsonl`, `<origin>.checkpoint`, `<origin>.key` and `<origin>.pub`. Letters,
    /// digits, `.`, `_` and `-` only.
    pub origin: String,
    /// Version of the program, for the start line.
    pub version: String,
}

impl AuditLogConfig {
    /// The lines.
    pub fn log_path(&self) -> PathBuf {
        self.path("jsonl")
    }

    /// The newest signed checkpoint.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.path("checkpoint")
    }

    /// The public key that checkpoints verify with.
    pub fn public_key_path(&self) -> PathBuf {
        self.path("pub")
    }

    /// The private key, mode 0600.
    pub fn key_path(&self) -> PathBuf {
        self.path("key")
    }

    fn path(&self, ending: &str) -> PathBuf {
        // Not `with_extension`: an origin has dots.
        self.directory.join(format!("{}.{ending}", self.origin))
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
        source: CheckpointError,
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
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
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
        check_origin(&config.origin)?;
        files::create_dir_private(&config.directory)?;
        let key = load_or_make_key(config)?;
        let now = platform.wall_clock();
        let found = open_file(config, &key, now)?;
        let counts = Arc::new(Counts::default());
        let (queue, entries) = sync_channel(entries);
        let writer = writer::Writer::new(config, platform, key, found, Arc::clone(&counts));
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

fn check_origin(origin: &str) -> Result<(), AuditLogError> {
    let fits = (1..=200).contains(&origin.len())
        && !origin.starts_with('.')
        && origin
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(AuditLogError::Origin {
            origin: origin.to_owned(),
        })
    }
}

fn load_or_make_key(config: &AuditLogConfig) -> Result<CheckpointKey, AuditLogError> {
    let path = config.key_path();
    let der = match files::read_limited(&path, 4_096) {
        Ok(der) => der,
        Err(absent) if absent.is_not_found() => {
            let made =
                ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
                    .map_err(|_| PlatformError::Kernel {
                    doing: "make a key",
                    source: std::io::Error::other("no random bytes"),
                })?;
            files::write_atomic(&path, made.as_ref(), 0o600)?;
            made.as_ref().to_vec()
        }
        Err(error) => return Err(error.into()),
    };
    let key =
        CheckpointKey::from_pkcs8(&der).map_err(|source| AuditLogError::Key { path, source })?;
    files::write_atomic(
        &config.public_key_path(),
        format!("{}\n", key.public()).as_bytes(),
        0o644,
    )?;
    Ok(key)
}

/// A log file, the end of its chain, and what must be said first in it.
struct Found {
    file: AppendFile,
    chain: ChainState,
    first: Vec<Entry>,
}

fn open_file(
    config: &AuditLogConfig,
    key: &CheckpointKey,
    now: Timestamp,
) -> Result<Found, AuditLogError> {
    let path = config.log_path();
    let mut file = AppendFile::open(&path, 0o600)?;
    let (tail, whole) = files::read_tail(&path, 2 * LINE_BYTES_MAX as u64)?;
    let mut start = Start {
        time: now,
        origin: config.origin.clone(),
        version: config.version.clone(),
        torn_bytes: 0,
        missing_through: None,
    };
    let genesis = ChainState::genesis(&config.origin);
    let Ok(Resumed { state, torn_bytes }) = ChainState::resume(&tail, whole) else {
        move_aside(&path, now)?;
        let gap = Gap {
            time: now,
            lost: 0,
            cause: GapCause::BrokenLog,
        };
        return Ok(Found {
            file: AppendFile::open(&path, 0o600)?,
            chain: genesis,
            first: vec![Entry::Start(start), Entry::Gap(gap)],
        });
    };
    if torn_bytes > 0 {
        tracing::warn!(log = %path.display(), torn_bytes, "dropped an unfinished last line of the audit log");
        file.truncate(file.length().saturating_sub(torn_bytes))?;
        start.torn_bytes = torn_bytes;
    }
    let chain = state.unwrap_or(genesis);
    start.missing_through = sealed_beyond(config, key, &chain);
    Ok(Found {
        file,
        chain,
        first: vec![Entry::Start(start)],
    })
}

/// The line that our own checkpoint covers, if the log ends before it: somebody cut its tail.
fn sealed_beyond(config: &AuditLogConfig, key: &CheckpointKey, chain: &ChainState) -> Option<u64> {
    let text = files::read_limited(&config.checkpoint_path(), 65_536).ok()?;
    let checkpoint = Checkpoint::parse(&text).ok()?;
    checkpoint.check(&key.public()).ok()?;
    let cut = checkpoint.origin == config.origin && chain.next_seq() <= checkpoint.seq;
    if cut {
        tracing::error!(
            log = %config.log_path().display(),
            lines = chain.next_seq(),
            sealed = checkpoint.seq,
            "the audit log ends before its signed checkpoint: its tail was cut"
        );
    }
    cut.then_some(checkpoint.seq)
}

fn move_aside(path: &Path, now: Timestamp) -> Result<(), PlatformError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".broken-{}", now.unix_micros()));
    tracing::error!(
        log = %path.display(),
        aside = %Path::new(&aside).display(),
        "the audit log is not what was written; it is moved aside and a new one begun"
    );
    std::fs::rename(path, &aside)
        .map_err(|source| PlatformError::from_io("move aside", path, source))
}

#[cfg(test)]
mod tests;
