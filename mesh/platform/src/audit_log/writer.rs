//! The loop of the audit thread.

use super::{AuditLogConfig, CHECKPOINT_INTERVAL, CHECKPOINT_LINES, Counts, Message};
use crate::tree_log::{Retention, TreeLog};
use crate::{Platform, PlatformError, Tick};
use mesh_audits::entry::{Entry, Gap, GapCause, Retired, RetiredWhy};
use mesh_audits::line;
use mesh_audits::redact::{Redactable, Salting};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// Entries written by one system call at most.
const BATCH_ENTRIES_MAX: usize = 256;

/// How long the thread lets entries gather before it writes them: it is woken a hundred times a second at most, however
/// many come, and leaves the cores that decide alone in between. At 800,000 entries a second the queue would fill.
const GATHER: Duration = Duration::from_millis(10);

/// How long the thread sleeps when nothing waits for a checkpoint.
const IDLE: Duration = Duration::from_secs(3_600);

pub(super) struct Writer {
    platform: Arc<dyn Platform>,
    log: TreeLog,
    retention: Retention,
    redactable: Vec<Redactable>,
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
    Gather,
    Stop,
}

impl Writer {
    pub(super) fn new(
        config: &AuditLogConfig,
        platform: Arc<dyn Platform>,
        log: TreeLog,
        first: Vec<Entry>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            platform,
            log,
            retention: config.retention,
            redactable: config.redactable.clone(),
            counts,
            first,
            untold: [(GapCause::QueueFull, 0), (GapCause::Storage, 0)],
            unsealed: None,
            refused_at: None,
            unsealable: false,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        self.write(Vec::new());
        self.seal();
        self.retire();
        loop {
            let first = match queue.recv_timeout(self.until_due()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            };
            match self.turn(first, queue) {
                Then::GoOn => {}
                Then::Gather => std::thread::sleep(GATHER),
                Then::Stop => return,
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
        if !asked && (1..BATCH_ENTRIES_MAX).contains(&entries.len()) {
            then = Then::Gather;
        }
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
        let salting = Salting {
            fields: &self.redactable,
            fill_random: &|salt| self.platform.fill_random(salt),
        };
        let salting = (!self.redactable.is_empty()).then_some(&salting);
        let mut lines = Vec::with_capacity(entries.len() + 1);
        let (mut seq, mut unwritable) = (self.log.size(), 0u64);
        for entry in self.first.iter().cloned().chain(gaps).chain(entries) {
            match line::encode(seq, entry, salting) {
                Ok(line) => {
                    lines.push(line);
                    seq += 1;
                }
                Err(error) => {
                    tracing::error!(%error, "an audit entry could not be written");
                    unwritable += 1;
                }
            }
        }
        match self.log.append(&lines) {
            Ok(()) => self.wrote(lines.len() as u64, unwritable, now),
            Err(error) => {
                self.report(&error);
                // Also if nothing but the start was to be written: then nothing was ever recorded.
                self.counts.refuse();
                self.refused_at = Some(now);
                self.lose(GapCause::Storage, given);
            }
        }
    }

    fn wrote(&mut self, lines: u64, unwritable: u64, now: Tick) {
        self.first.clear();
        // What was lost is told.
        self.counts.refuses.store(false, Ordering::Relaxed);
        for (_, lost) in &mut self.untold {
            *lost = 0;
        }
        self.lose(GapCause::Storage, unwritable);
        self.counts.written.fetch_add(lines, Ordering::Relaxed);
        let (unsealed, since) = self.unsealed.unwrap_or((0, now));
        self.unsealed = Some((unsealed + lines, since));
        self.refused_at = None;
        self.recover();
        match self.log.rotate_if_full(self.platform.wall_clock()) {
            Ok(true) => {
                self.unsealed = None;
                self.retire();
            }
            Ok(false) => {}
            Err(error) => self.report(&error),
        }
    }

    /// Deletes what is kept no longer, after the log says so and that is sealed.
    fn retire(&mut self) {
        let now = self.platform.wall_clock();
        let overdue = match self.log.overdue(self.retention, now) {
            Ok(Some(overdue)) => overdue,
            Ok(None) => return,
            Err(error) => return self.report(&error),
        };
        let first = overdue.segments.first().copied().unwrap_or_default();
        let entry = Entry::Retired(Retired {
            time: now,
            through: overdue.through,
            lines: overdue.through.saturating_sub(first).saturating_add(1),
            why: match overdue.by_age {
                true => RetiredWhy::Age,
                false => RetiredWhy::Size,
            },
        });
        let line = match line::encode(self.log.size(), entry, None) {
            Ok(line) => line,
            Err(error) => return tracing::error!(%error, "an audit entry could not be written"),
        };
        if let Err(error) = self.log.append(&[line]).and_then(|()| self.log.seal(now)) {
            return self.report(&error);
        }
        self.counts.written.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.log.retire(&overdue) {
            tracing::error!(%error, "old lines of an audit log are not deleted");
        }
    }

    /// Says so once the disk takes everything again.
    fn recover(&self) {
        let recovered =
            self.refused_at.is_none() && !self.unsealable && self.counts.failing().is_some();
        if recovered {
            tracing::warn!(log = %self.log.path().display(), "the audit log is written again");
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
        if entries > 0 {
            self.counts.refuse();
        }
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
        if self.unsealed.is_none() {
            return;
        }
        let sealed = self.log.seal(self.platform.wall_clock());
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
