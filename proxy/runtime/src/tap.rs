//! Tap: accounts of requests and byte streams for whoever looks at them now. Filters are asked here, before anything is kept;
//! a reader gets so many a second and no more, and one that is slow misses some: both are counted and told to it.
//!
//! Nobody is waited for: a core leaves what it has to tell in a bounded queue. As long as nobody looks, all that a request
//! costs is one load of a counter.

mod lines;
mod remote;

use crate::account::Told;
use crate::limits::{TAP_ACCOUNTS, TAP_QUEUE, TAP_READERS, TAP_UNREAD_SECS};
use arc_swap::ArcSwap;
pub(crate) use lines::{Lines, Over, answer};
use mesh_api::admin::Direction;
use mesh_api::tap::{RATE_DEFAULT, TapFilter, TapLine};
use mesh_policy::decide::Verdict;
use mesh_policy::request::Protocol;
use mesh_proxy_core::metrics;
use mesh_trust::SpiffeId;
pub(crate) use remote::Remote;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Who looks now.
#[derive(Default)]
pub(crate) struct Taps {
    /// How many are in `open`: what each request looks at.
    count: AtomicUsize,
    open: ArcSwap<Vec<Arc<Tap>>>,
    /// Held by those who come and go.
    changing: Mutex<()>,
}

/// One reader, as cores see it.
pub(crate) struct Tap {
    filter: TapFilter,
    sender: mpsc::Sender<Arc<Told>>,
    kept: PerSecond,
    told: PerSecond,
    over_rate: AtomicU64,
    slow_reader: AtomicU64,
    /// When its reader last took something, or could have; monotonic, in microseconds.
    read_us: AtomicU64,
    /// Its place went to another reader.
    displaced: watch::Sender<bool>,
}

/// What is known of a request or byte stream when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) way: Way<'a>,
    pub(crate) protocol: Protocol,
    /// None of a byte stream.
    pub(crate) request: Option<Line<'a>>,
}

/// Where something comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// From this client to a port of the workload.
    Inbound {
        client: Option<&'a SpiffeId>,
        port: u16,
    },
    /// To this service.
    Outbound { service: &'a str },
}

/// What a request asks for, as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) method: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
}

/// So many in each second, on any core.
struct PerSecond {
    max: u32,
    /// The second, and how many there were in it.
    window: AtomicU64,
}

impl PerSecond {
    fn new(max: u32) -> Self {
        Self {
            max,
            window: AtomicU64::new(0),
        }
    }

    fn take(&self, now_us: u64) -> bool {
        let second = (now_us / 1_000_000) & u64::from(u32::MAX);
        let next = |window: u64| {
            let (of, count) = (window >> 32, window & u64::from(u32::MAX));
            // A core that read the clock a moment earlier and comes late is counted with the others: a second that is
            // over never begins again, or the next would have its rate twice.
            let (of, count) = if of < second {
                (second, 0)
            } else {
                (of, count)
            };
            (count < u64::from(self.max)).then_some(of << 32 | (count + 1))
        };
        let updated = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        updated.is_ok()
    }
}

impl Taps {
    /// Whether nobody looks. A tap that opens now sees what comes a moment later.
    pub(crate) fn are_idle(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Who wants to know of what has just come.
    pub(crate) fn wanting(&self, asked: &Asked<'_>, now_us: u64) -> Vec<Arc<Tap>> {
        let open = self.open.load();
        let wanting = open.iter().filter(|tap| tap.wants(asked));
        let kept = wanting.filter(|tap| {
            let kept = tap.kept.take(now_us);
            if !kept {
                tap.over_rate.fetch_add(1, Ordering::Relaxed);
            }
            kept
        });
        kept.cloned().collect()
    }

    /// Opens a tap; `None`: there are as many as there may be, and all are read.
    fn open(
        &self,
        filter: TapFilter,
        now_us: u64,
    ) -> Option<(Arc<Tap>, mpsc::Receiver<Arc<Told>>)> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.open.load().as_ref().clone();
        if open.len() >= TAP_READERS {
            // Whoever stopped reading keeps nobody out.
            let unread = open.iter().position(|tap| tap.is_unread(now_us))?;
            open.swap_remove(unread).displaced.send_replace(true);
        }
        let (sender, receiver) = mpsc::channel(TAP_QUEUE);
        let tap = Arc::new(Tap {
            told: PerSecond::new(filter.rate.unwrap_or(RATE_DEFAULT)),
            kept: PerSecond::new(TAP_ACCOUNTS),
            filter,
            sender,
            over_rate: AtomicU64::new(0),
            slow_reader: AtomicU64::new(0),
            read_us: AtomicU64::new(now_us),
            displaced: watch::Sender::new(false),
        });
        open.push(tap.clone());
        self.set(open);
        Some((tap, receiver))
    }

    fn close(&self, tap: &Arc<Tap>) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.open.load().as_ref().clone();
        open.retain(|one| !Arc::ptr_eq(one, tap));
        self.set(open);
    }

    fn set(&self, open: Vec<Arc<Tap>>) {
        let count = open.len();
        self.open.store(Arc::new(open));
        self.count.store(count, Ordering::Relaxed);
    }
}

impl Tap {
    /// What can be said before it has ended.
    fn wants(&self, asked: &Asked<'_>) -> bool {
        let filter = &self.filter;
        let is_there = match asked.way {
            Way::Inbound { client, port } => {
                is(filter.direction, Some(Direction::Inbound))
                    && is(filter.from.as_ref(), client)
                    && filter
                        .target
                        .as_deref()
                        .is_none_or(|wanted| wanted.parse() == Ok(port))
            }
            Way::Outbound { service } => {
                is(filter.direction, Some(Direction::Outbound))
                    && filter.from.is_none()
                    && is(filter.target.as_deref(), Some(service))
            }
        };
        let line = asked.request;
        let path = line.map(|line| line.path);
        is_there
            && is(filter.protocol, Some(asked.protocol))
            && is(filter.method.as_deref(), line.map(|line| line.method))
            && is(filter.host.as_deref(), line.and_then(|line| line.host))
            && filter
                .path
                .as_deref()
                .is_none_or(|wanted| path.is_some_and(|path| path.starts_with(wanted)))
    }

    /// Something has ended that [`Taps::wanting`] kept.
    pub(crate) fn tell(&self, told: &Arc<Told>, now_us: u64) {
        let verdict = told
            .decided
            .as_ref()
            .map(|decided| verdict(decided.allowed));
        if !self.filter.wants_end(told.status, verdict) {
            return;
        }
        let missed = if !self.told.take(now_us) {
            &self.over_rate
        } else if self.sender.try_send(told.clone()).is_err() {
            &self.slow_reader
        } else {
            return;
        };
        missed.fetch_add(1, Ordering::Relaxed);
    }

    fn is_displaced(&self) -> bool {
        *self.displaced.borrow()
    }

    fn is_unread(&self, now_us: u64) -> bool {
        let read_us = self.read_us.load(Ordering::Relaxed);
        now_us.saturating_sub(read_us) > TAP_UNREAD_SECS * 1_000_000
    }

    /// What was missed since this was asked last.
    fn missed(&self) -> Option<TapLine> {
        let (over_rate, slow_reader) = (
            self.over_rate.swap(0, Ordering::Relaxed),
            self.slow_reader.swap(0, Ordering::Relaxed),
        );
        (over_rate + slow_reader > 0).then_some(TapLine::Missed {
            over_rate,
            slow_reader,
        })
    }
}

/// Whether a filter that asks for one value, if it asks, gets it.
fn is<T: PartialEq>(wanted: Option<T>, value: Option<T>) -> bool {
    wanted.is_none() || wanted == value
}

fn direction(direction: metrics::Direction) -> Direction {
    match direction {
        metrics::Direction::Inbound => Direction::Inbound,
        metrics::Direction::Outbound => Direction::Outbound,
    }
}

const fn verdict(allowed: bool) -> Verdict {
    if allowed {
        Verdict::Allow
    } else {
        Verdict::Deny
    }
}

#[cfg(test)]
mod tests;
