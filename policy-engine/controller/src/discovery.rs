//! Discovery as proxies are told it: in slices, each encoded once for all proxies, of which a proxy gets those that are
//! other than what it has.
//!
//! ```text
//! has what it said --slices, then the digest--> has all of one state --a change: slices, then the digest--> has all of a later one
//! ```
//! What is on its way to a proxy is one state, whatever comes meanwhile: a proxy that is slower than changes come still gets
//! a whole state, and the next after that. For a stream no more is kept than which slices are missing. The state itself is
//! kept by [`Recent`], within bounds; who is still reading when it is let go gets the newest instead.

use crate::limits::{DISCOVERY_MESSAGE_BYTES, RECENT_BYTES_MAX, RECENT_MAX};
use bytes::Bytes;
use mesh_api::discovery::Discovery;
use mesh_api::proto::{DiscoverySlice, DiscoveryUpdate};
use mesh_api::slices::{Digest, Encoded, SLICES, Slice, digest_over, joined};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A whole discovery, encoded.
#[derive(Debug)]
pub(crate) struct Sliced {
    /// Counts changes, in this process alone.
    version: u64,
    digest: Digest,
    slices: Vec<Option<Arc<Encoded>>>,
    /// The version in which each slice came to be what it is.
    changed: Vec<u64>,
    /// Bytes of the slices of the version before that are others or none here.
    replaced_bytes: usize,
}

impl Sliced {
    /// The state that `discovery` is; `before` itself if it is the same.
    pub(crate) fn of(discovery: Discovery, before: Option<&Arc<Self>>) -> Arc<Self> {
        let version = before.map_or(1, |before| before.version + 1);
        let (mut slices, mut changed, mut replaced_bytes) = (Vec::new(), Vec::new(), 0);
        for (at, slice) in Slice::all_of(discovery).iter().enumerate() {
            let slice = Encoded::of(slice);
            let had = before.and_then(|before| before.slices.get(at)?.as_ref());
            let since = before.and_then(|before| before.changed.get(at));
            let same = slice.as_ref().map(|slice| &slice.digest) == had.map(|had| &had.digest);
            match since.filter(|_| same) {
                Some(since) => {
                    slices.push(had.cloned());
                    changed.push(*since);
                }
                None => {
                    replaced_bytes += had.map_or(0, |had| had.json.len());
                    slices.push(slice.map(Arc::new));
                    changed.push(version);
                }
            }
        }
        match before {
            Some(before) if !changed.contains(&version) => Arc::clone(before),
            _ => Arc::new(Self {
                version,
                digest: digest_over(slices.iter().map(|slice| Some(&slice.as_ref()?.digest))),
                slices,
                changed,
                replaced_bytes,
            }),
        }
    }

    /// As data.
    pub(crate) fn discovery(&self) -> Discovery {
        let numbered = (0..SLICES).zip(&self.slices);
        joined(numbered.filter_map(|(number, slice)| {
            // It was written here.
            Slice::read(number, &slice.as_ref()?.json).ok()
        }))
    }

    fn changed_since(&self, version: u64) -> impl Iterator<Item = u16> {
        let numbered = (0..SLICES).zip(&self.changed);
        numbered
            .filter(move |(_, changed)| **changed > version)
            .map(|(number, _)| number)
    }

    /// The slices that are other than these.
    fn other_than(&self, has: &[Option<Digest>]) -> BTreeSet<u16> {
        let ours = self.slices.iter().map(|slice| Some(slice.as_ref()?.digest));
        let pairs = (0..SLICES).zip(ours.zip(has));
        pairs
            .filter(|(_, (ours, theirs))| ours != *theirs)
            .map(|(number, _)| number)
            .collect()
    }
}

/// A state in one piece, for proxies that do not ask for slices: JSON of [`Discovery`], made when the first such proxy comes.
/// Not a part of [`Sliced`], many of which are kept: this is as large as all slices, and no two states share any of it.
#[derive(Debug, Default)]
pub(crate) struct InOnePiece {
    whole: OnceLock<Bytes>,
    /// For those that know no zones, and would refuse what they do not know.
    zoneless: OnceLock<Bytes>,
}

impl InOnePiece {
    /// The same of the next state, made now in the forms that proxies asked for: whoever publishes has the time, unlike the
    /// streams that are about to ask.
    pub(crate) fn next(&self, state: &Sliced) -> Self {
        let next = Self::default();
        if self.whole.get().is_some() {
            next.whole(state);
        }
        if self.zoneless.get().is_some() {
            next.zoneless(state);
        }
        next
    }

    /// All of it. `state` is the one that this is of.
    pub(crate) fn whole(&self, state: &Sliced) -> &Bytes {
        self.whole.get_or_init(|| json(&state.discovery()))
    }

    /// All but zones. `state` is the one that this is of.
    pub(crate) fn zoneless(&self, state: &Sliced) -> &Bytes {
        self.zoneless.get_or_init(|| {
            let mut all = state.discovery();
            let services = all.services.iter_mut();
            services.for_each(|service| service.zones.clear());
            json(&all)
        })
    }
}

fn json(discovery: &Discovery) -> Bytes {
    // Our own data always has a JSON form.
    serde_json::to_vec(discovery).unwrap_or_default().into()
}

/// States that proxies may still be reading, the newest last: as many as [`RECENT_MAX`] and [`RECENT_BYTES_MAX`] allow.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Arc<Sliced>>>);

impl Recent {
    /// Keeps one more.
    pub(crate) fn keep(&self, state: &Arc<Sliced>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.back().is_some_and(|last| Arc::ptr_eq(last, state)) {
            return;
        }
        kept.push_back(Arc::clone(state));
        // What states keep alive beside the newest is what was replaced after them.
        let older = |kept: &VecDeque<Arc<Sliced>>| -> usize {
            let newer = kept.iter().skip(1);
            newer.map(|state| state.replaced_bytes).sum()
        };
        while kept.len() > 1 && (kept.len() > RECENT_MAX || older(&kept) > RECENT_BYTES_MAX) {
            kept.pop_front();
        }
    }
}

/// What one proxy is told next.
#[derive(Debug)]
pub(crate) enum Teller {
    /// Nothing was said yet. What the proxy said that it has.
    New(Vec<Option<Digest>>),
    /// A state is on its way.
    Telling {
        state: Weak<Sliced>,
        version: u64,
        /// Slices that the proxy lacks of it.
        missing: BTreeSet<u16>,
    },
    /// The proxy has all of this version.
    Told { version: u64 },
}

impl Teller {
    /// The next message, if there is anything to tell; `current` is the newest state.
    pub(crate) fn next(&mut self, current: &Arc<Sliced>) -> Option<DiscoveryUpdate> {
        let (state, mut missing) = match self {
            Self::New(has) => (Arc::clone(current), current.other_than(has)),
            Self::Told { version } if *version == current.version => return None,
            Self::Told { version } => (
                Arc::clone(current),
                current.changed_since(*version).collect(),
            ),
            Self::Telling {
                state,
                version,
                missing,
            } => {
                let mut missing = std::mem::take(missing);
                let state = state.upgrade().unwrap_or_else(|| {
                    // It was let go. What came of it and changed since is to come again.
                    missing.extend(current.changed_since(*version));
                    Arc::clone(current)
                });
                (state, missing)
            }
        };
        let slices = message_of(&state, &mut missing);
        let version = state.version;
        let digest = match missing.is_empty() {
            true => state.digest.to_vec(),
            false => Vec::new(),
        };
        *self = match missing.is_empty() {
            true => Self::Told { version },
            false => Self::Telling {
                state: Arc::downgrade(&state),
                version,
                missing,
            },
        };
        Some(DiscoveryUpdate { slices, digest })
    }
}

/// Takes as many slices as one message has room for, and at least one.
fn message_of(state: &Sliced, missing: &mut BTreeSet<u16>) -> Vec<DiscoverySlice> {
    let (mut slices, mut bytes) = (Vec::new(), 0);
    while bytes < DISCOVERY_MESSAGE_BYTES
        && let Some(number) = missing.pop_first()
    {
        let slice = state.slices.get(usize::from(number));
        let slice = slice.and_then(Option::as_ref);
        let json = slice.map_or_else(Bytes::new, |slice| slice.json.clone());
        bytes += json.len();
        slices.push(DiscoverySlice {
            number: u32::from(number),
            json,
        });
    }
    slices
}

#[cfg(test)]
mod tests;
