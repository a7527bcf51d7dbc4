//! A place on a connection, and the stream that has it.

use crate::mux::limits;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A response's head is awaited.
    Head,
    Body,
    Ended,
    Broken,
}

/// A place, with the stream that has it.
#[derive(Debug)]
pub(super) struct Place {
    /// How often it was taken.
    pub(super) taken: u32,
    /// Whether a stream has it now.
    pub(super) live: bool,
    pub(super) incoming: Incoming,
    pub(super) outgoing: bool,
    pub(super) response: Option<response::Parts>,
    pub(super) data: VecDeque<Bytes>,
    /// Bytes in `data`.
    pub(super) waiting: usize,
    pub(super) trailers: Option<HeaderMap>,
    /// Bytes that the head's `content-length` still promises.
    pub(super) promised: Option<u64>,
    /// Whether the request was HEAD: its response promises what does not come.
    pub(super) bodiless: bool,
    pub(super) window_in: u32,
    /// Bytes taken by the reader that the peer does not know of.
    pub(super) untold: u32,
    pub(super) window_out: u32,
}

impl Place {
    pub(super) fn new() -> Self {
        Self {
            taken: 0,
            live: false,
            incoming: Incoming::Broken,
            outgoing: false,
            response: None,
            data: VecDeque::new(),
            waiting: 0,
            trailers: None,
            promised: None,
            bodiless: false,
            window_in: 0,
            untold: 0,
            window_out: 0,
        }
    }

    pub(super) fn begin(&mut self, taken: u32, incoming: Incoming, outgoing: bool) {
        self.taken = taken;
        self.live = true;
        self.incoming = incoming;
        self.outgoing = outgoing;
        self.response = None;
        self.trailers = None;
        self.promised = None;
        self.bodiless = false;
        self.window_in = limits::STREAM_WINDOW;
        self.untold = 0;
        self.window_out = limits::STREAM_WINDOW;
    }

    /// Keeps a part of a body for its reader. Small ones are copied together: a part holds the whole buffer that it was read
    /// into, and a peer that sends single bytes would have that many buffers held.
    pub(super) fn keep(&mut self, part: Bytes) {
        self.waiting += part.len();
        if part.len() >= limits::SMALL_PART_BYTES {
            return self.data.push_back(part);
        }
        let mut last = match self.data.pop_back() {
            Some(last) if last.len() < limits::SMALL_PART_BYTES => last
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
            other => {
                self.data.extend(other);
                BytesMut::with_capacity(part.len())
            }
        };
        last.extend_from_slice(&part);
        self.data.push_back(last.freeze());
    }

    /// Whether neither side has anything more to say.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.incoming, Incoming::Ended | Incoming::Broken) && !self.outgoing
    }

    /// Whether the reader has had everything.
    pub(super) fn is_read(&self) -> bool {
        self.incoming == Incoming::Ended && self.data.is_empty() && self.trailers.is_none()
    }
}

/// How far is counted how often a place was taken.
pub(super) const TAKEN: u32 = 1 << (u32::BITS - limits::STREAMS_MAX.trailing_zeros());

/// The number of the stream that takes a place after the one with number `taken`. Never 0, which is nobody's.
pub(super) const fn next(taken: u32) -> u32 {
    if taken + 1 >= TAKEN { 1 } else { taken + 1 }
}
