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

/// Heads that one connection remembers; about 200 bytes each.
const PLACES: usize = 8;

/// Longer targets are read each time: they seldom come twice.
const TARGET_BYTES_MAX: usize = 256;

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

/// Readings by what was read. The text of an entry keeps its memory when another head takes its place, so that
/// remembering costs no allocation once a connection is warm.
#[derive(Default)]
pub(crate) struct Heads([RefCell<Entry>; PLACES]);

#[derive(Default)]
struct Entry {
    port: u16,
    grpc: bool,
    has_host: bool,
    method: String,
    target: String,
    host: String,
    reading: Option<Reading>,
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
        if target.len() > TARGET_BYTES_MAX
            || head.host.is_some_and(|host| host.len() > TARGET_BYTES_MAX)
        {
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
        self.port == port
            && self.grpc == head.grpc
            && self.target == head.target
            && self.method == head.method
            && self.has_host == head.host.is_some()
            && head.host.is_none_or(|host| self.host == host)
    }

    fn remember(&mut self, port: u16, head: &Head<'_>, reading: Reading) -> &Reading {
        let texts = [
            (&mut self.method, head.method),
            (&mut self.target, head.target),
            (&mut self.host, head.host.unwrap_or_default()),
        ];
        for (kept, text) in texts {
            kept.clear();
            kept.push_str(text);
        }
        (self.port, self.grpc) = (port, head.grpc);
        self.has_host = head.host.is_some();
        self.reading.insert(reading)
    }
}
