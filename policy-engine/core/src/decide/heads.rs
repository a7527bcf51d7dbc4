//! Heads that were read on a connection, remembered: clients ask for the same few targets again and again.
//!
//! Reading a head means checking each of its bytes and choosing a route; the result depends on method, target, host and
//! whether it is gRPC, and, where no route looks at headers, on nothing else. A head that is byte for byte one that was
//! read before is not read again. What the policies say of it is asked each time.

use super::outcome::{Judged, Refusal};
use crate::matcher::Asked;
use crate::request::Head;
use crate::route::RouteTaken;
use std::cell::RefCell;
use std::sync::Arc;

/// Heads that one connection remembers; about 250 bytes each.
const PLACES: usize = 8;

/// Bytes of method, target and host together. Longer heads are read each time: they seldom come twice. Their place is
/// there from the start, so that remembering never allocates.
const HEAD_BYTES_MAX: usize = 160;

/// A head in canonical form, and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(super) path: Judged,
    pub(super) host: Judged,
    pub(super) way: Way,
}

/// Where a request leads.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Nowhere: it can be read in two ways.
    Refused(Refusal),
    /// To a declared probe.
    Probe,
    /// To no route that is attached.
    NoRoute,
    /// To a route that is invalid, and why.
    Invalid(Arc<RouteTaken>, Arc<str>),
    /// To a route.
    Route(Asked, Arc<RouteTaken>),
}

/// Readings by what was read.
#[derive(Default)]
pub(crate) struct Heads([RefCell<Entry>; PLACES]);

struct Entry {
    port: u16,
    grpc: bool,
    has_host: bool,
    /// Lengths of method, target and host, which stand in `text` one after the other.
    lengths: [u8; 3],
    text: [u8; HEAD_BYTES_MAX],
    reading: Option<Reading>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            port: 0,
            grpc: false,
            has_host: false,
            lengths: [0; 3],
            text: [0; HEAD_BYTES_MAX],
            reading: None,
        }
    }
}

/// Method, target and host.
fn pieces<'h>(head: &Head<'h>) -> [&'h str; 3] {
    [head.method, head.target, head.host.unwrap_or_default()]
}

impl Heads {
    /// Gives `then` what was read of this very head on this port, or what `read` reads now, which is remembered in place
    /// of some other head.
    pub(super) fn with(
        &self,
        port: u16,
        head: &Head<'_>,
        read: impl FnOnce() -> Reading,
        then: impl FnOnce(&Reading),
    ) {
        let Some(place) = self.place(head) else {
            return then(&read());
        };
        {
            let entry = place.borrow();
            if let Some(reading) = entry.reading.as_ref().filter(|_| entry.is(port, head)) {
                return then(reading);
            }
        }
        then(place.borrow_mut().remember(port, head, read()));
    }

    /// The place of a head: by a few of its bytes, so that finding it is cheaper than reading it.
    fn place(&self, head: &Head<'_>) -> Option<&RefCell<Entry>> {
        let target = head.target.as_bytes();
        if pieces(head).map(str::len).iter().sum::<usize>() > HEAD_BYTES_MAX {
            return None;
        }
        let byte = |from_end: usize| {
            let at = target.len().checked_sub(from_end);
            usize::from(
                at.and_then(|at| target.get(at))
                    .copied()
                    .unwrap_or_default(),
            )
        };
        let mixed = target.len() ^ byte(1) ^ (byte(2) << 1) ^ (byte(4) << 2) ^ head.method.len();
        self.0.get(mixed % PLACES)
    }
}

impl Entry {
    fn is(&self, port: u16, head: &Head<'_>) -> bool {
        let mut rest = self.text.as_slice();
        self.port == port
            && self.grpc == head.grpc
            && self.has_host == head.host.is_some()
            && self
                .lengths
                .into_iter()
                .zip(pieces(head))
                .all(|(length, piece)| {
                    let Some((here, after)) = rest.split_at_checked(usize::from(length)) else {
                        return false;
                    };
                    rest = after;
                    here == piece.as_bytes()
                })
    }

    fn remember(&mut self, port: u16, head: &Head<'_>, reading: Reading) -> &Reading {
        (self.port, self.grpc) = (port, head.grpc);
        self.has_host = head.host.is_some();
        self.lengths = write(&mut self.text, pieces(head)).unwrap_or(NO_HEAD);
        self.reading.insert(reading)
    }
}

/// Lengths that no head has: they are more than there is place for.
const NO_HEAD: [u8; 3] = [u8::MAX; 3];

/// Writes texts one after the other, if there is place for them, and gives their lengths.
fn write(mut place: &mut [u8], pieces: [&str; 3]) -> Option<[u8; 3]> {
    let mut lengths = [0; 3];
    for (length, piece) in lengths.iter_mut().zip(pieces) {
        let (here, after) = std::mem::take(&mut place).split_at_mut_checked(piece.len())?;
        here.copy_from_slice(piece.as_bytes());
        *length = u8::try_from(piece.len()).ok()?;
        place = after;
    }
    Some(lengths)
}
