//! The loop of the audit thread.

use super::{AuditLogConfig, CHECKPOINT_INTERVAL, CHECKPOINT_LINES, Counts, Found, Message};
use crate::files::{self, AppendFile};
use crate::{Platform, PlatformError, Tick};
use mesh_audits::chain::ChainState;
use mesh_audits::checkpoint::CheckpointKey;
use mesh_audits::entry::{Entry, Gap, GapCause};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// Entries written by one system call at most.
const BATCH_ENTRIES_MAX: usize = 256;

/// How long the thread sleeps when nothing waits for a checkpoint.
const IDLE: Duration = Duration::from_secs(3_600);

pub(super) struct Writer {
    platform: Arc<dyn Platform>,
    key: CheckpointKey,
    origin: String,
    checkpoint: PathBuf,
    file: AppendFile,
    chain: ChainState,
    counts: Arc<Counts>,
    /// Entries to come before any other: the start, and what is known of a broken log.
    first: Vec<Entry>,
    /// Entries lost and not yet told in the log, by cause.
    untold: [(GapCause, u64); 2],
    /// Lines written since the last checkpoint, and when the first of them was.
    unsealed: Option<(u64, Tick)>,
    /// When the disk refused lines; no attempt before a second has passed.
    refused_at: Option<Tick>,
    /// Whether the last flush or checkpoint failed; lines are written all the same.
    unsealable: bool,
}

enum Then {
    GoOn,
    Stop,
}

impl Writer {
    pub(super) fn new(
        config: &AuditLogConfig,
        platform: Arc<dyn Platform>,
        key: CheckpointKey,
        found: Found,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            platform,
            key,
            origin: config.origin.clone(),
            checkpoint: config.checkpoint_path(),
            file: found.file,
            chain: found.chain,
            counts,
            first: found.first,
            untold: [(GapCause::QueueFull, 0), (GapCause::Storage, 0)],
            unsealed: None,
            refused_at: None,
            unsealable: false,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        self.write(Vec::new());
        self.seal();
        loop {
            let first = match queue.recv_timeout(self.until_due()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            };
            if let Then::Stop = self.turn(first, queue) {
                return;
            }
        }
    }

    /// One batch: everything that waits, up to a limit; then whatever was asked for.
    fn turn(&mut self, first: Option<Message>, queue: &Receiver<Message>) -> Then {
        let mut entries = Vec::new();
        let mut flushed: Option<SyncSender<()>> = None;
        let mut then = Then::GoOn;
        let mut next = first;
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => entries.push(*entry),
                Message::Flush(done) => flushed = Some(done),
                Message::Stop => then = Then::Stop,
            }
            let full = entries.len() >= BATCH_ENTRIES_MAX
                || flushed.is_some()
                || matches!(then, Then::Stop);
            next = if full { None } else { queue.try_recv().ok() };
        }
        let asked = flushed.is_some() || matches!(then, Then::Stop);
        if asked {
            self.refused_at = None;
        }
        self.write(entries);
        if asked || self.is_due() {
            self.seal();
        }
        if let Some(done) = flushed {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
        then
    }

    fn until_due(&self) -> Duration {
        let since = match (&self.unsealed, self.refused_at) {
            (_, Some(refused)) => refused,
            (Some((_, since)), None) => *since,
            (None, None) => return IDLE,
        };
        since
            .plus(CHECKPOINT_INTERVAL)
            .since(self.platform.monotonic())
    }

    fn is_due(&self) -> bool {
        self.until_due().is_zero()
            || self
                .unsealed
                .is_some_and(|(lines, _)| lines >= CHECKPOINT_LINES)
    }

    /// Writes what must come first, the gaps, then `entries`, in one go; or counts them as lost.
    fn write(&mut self, entries: Vec<Entry>) {
        let overflowed = self.counts.overflowed.swap(0, Ordering::Relaxed);
        self.lose(GapCause::QueueFull, overflowed);
        let now = self.platform.monotonic();
        let waits = self
            .refused_at
            .is_some_and(|refused| now.since(refused) < CHECKPOINT_INTERVAL);
        if waits {
            return self.lose(GapCause::Storage, entries.len() as u64);
        }
        let gaps = self.gaps();
        if self.first.is_empty() && gaps.is_empty() && entries.is_empty() {
            return;
        }
        let given = entries.len() as u64;
        let mut chain = self.chain.clone();
        let mut bytes = Vec::with_capacity(1_024 * (entries.len() + 1));
        let (mut lines, mut unwritable) = (0u64, 0u64);
        for entry in self.first.iter().cloned().chain(gaps).chain(entries) {
            match chain.append(entry) {
                Ok(line) => {
                    bytes.extend_from_slice(&line);
                    lines += 1;
                }
                Err(error) => {
                    tracing::error!(%error, "an audit entry could not be written");
                    unwritable += 1;
                }
            }
        }
        match self.file.append(&bytes) {
            Ok(()) => self.wrote(chain, lines, unwritable, now),
            Err(error) => {
                self.report(&error);
                self.refused_at = Some(now);
                self.lose(GapCause::Storage, given);
            }
        }
    }

    fn wrote(&mut self, chain: ChainState, lines: u64, unwritable: u64, now: Tick) {
        self.chain = chain;
        self.first.clear();
        for (_, lost) in &mut self.untold {
            *lost = 0;
        }
        self.lose(GapCause::Storage, unwritable);
        self.counts.written.fetch_add(lines, Ordering::Relaxed);
        let (unsealed, since) = self.unsealed.unwrap_or((0, now));
        self.unsealed = Some((unsealed + lines, since));
        self.refused_at = None;
        self.recover();
    }

    /// Says so once the disk takes everything again.
    fn recover(&self) {
        let recovered =
            self.refused_at.is_none() && !self.unsealable && self.counts.failing().is_some();
        if recovered {
            tracing::warn!(log = %self.file.path().display(), "the audit log is written again");
            self.counts.set_failing(None);
        }
    }

    /// A line for each cause that something was lost for since the last one.
    fn gaps(&self) -> Vec<Entry> {
        let time = self.platform.wall_clock();
        let told = self.untold.iter().filter(|(_, lost)| *lost > 0);
        told.map(|(cause, lost)| {
            Entry::Gap(Gap {
                time,
                lost: *lost,
                cause: *cause,
            })
        })
        .collect()
    }

    fn lose(&mut self, cause: GapCause, entries: u64) {
        for (known, lost) in &mut self.untold {
            if *known == cause {
                *lost = lost.saturating_add(entries);
            }
        }
        self.counts.lost.fetch_add(entries, Ordering::Relaxed);
    }

    /// Loud once when it begins; the counts say the rest.
    fn report(&self, error: &PlatformError) {
        if self.counts.failing().is_none() {
            tracing::error!(%error, "the audit log cannot be written; what is lost is counted");
        }
        self.counts.set_failing(Some(error.to_string()));
    }

    /// Flushes, then signs what is on the disk.
    fn seal(&mut self) {
        let (Some(_), Some(last)) = (self.unsealed, self.chain.next_seq().checked_sub(1)) else {
            return;
        };
        let checkpoint = self.key.sign(
            &self.origin,
            last,
            self.chain.head(),
            self.platform.wall_clock(),
        );
        let sealed = self.file.sync().and_then(|()| {
            files::write_atomic(&self.checkpoint, checkpoint.to_text().as_bytes(), 0o600)
        });
        self.unsealable = sealed.is_err();
        match sealed {
            Ok(()) => {
                self.unsealed = None;
                self.recover();
            }
            Err(error) => {
                self.report(&error);
                // Due again in a second.
                self.unsealed = Some((0, self.platform.monotonic()));
            }
        }
    }
}
