//! One connection: its streams, their windows, and the bytes that wait to be written.
//!
//! Bytes that came go into [`Engine::feed`], which says what happened as [`Event`]s; bytes to be written wait in
//! [`Engine::out`]. A reader of a body asks [`Engine::take`], a writer [`Engine::send_data`]. Whoever waits for either is
//! the caller's to wake.
//!
//! ```text
//! incoming: Head ──▶ Body ──▶ Ended          outgoing: open ──▶ closed
//!             └───────┴─────▶ Broken
//! ```
//! A client's stream begins with [`Engine::open`] and is there until [`Engine::abandon`]; a server's begins with
//! [`Event::Request`] and is there until [`Engine::finish`], or until its place is taken anew, which a client may do once
//! both directions have ended.
//!
//! - `place`: what is known of one stream
//! - `receive`: frames that come, and what they may say

mod place;
mod receive;

use super::frame::{self, Kind};
use super::{Reset, StreamId, head, limits};
use bytes::{BufMut, Bytes};
use http::{HeaderMap, Method, request, response};
use place::{Incoming, Place, next};
use std::collections::VecDeque;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Answers them.
    Server,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// A client opened a stream.
    Request {
        /// The stream.
        id: StreamId,
        /// The head of its request.
        parts: Box<request::Parts>,
        /// Whether there is no body.
        end: bool,
    },
    /// A stream has something to read: a head, a part of a body, its end.
    Readable(StreamId),
    /// A stream may be written again.
    Writable(StreamId),
    /// Every stream may be written again.
    AllWritable,
    /// The peer ended a stream before its time.
    Broken(StreamId),
    /// The peer takes or opens no more streams.
    Left,
}

/// Why no stream was opened. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// All places are taken, or the peer reads so slowly that nothing more should wait for it.
    Full,
    /// One of both sides is leaving.
    Left,
    /// The head is longer than heads may be.
    TooLong,
}

/// What a reader of a body gets.
#[derive(Debug)]
pub enum Taken {
    /// A part of it.
    Data(Bytes),
    /// Its trailers, after which nothing comes.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// Nothing yet.
    Pending,
    /// It broke off, or nobody knows the stream any more.
    Broken,
}

/// How far a writer of a body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is on its way.
    All,
    /// There was no room for the rest.
    Blocked,
    /// Nobody wants it any more.
    Gone,
}

/// One connection.
#[derive(Debug)]
pub struct Engine {
    role: Role,
    places: Vec<Place>,
    /// A client's places that no stream has.
    free: Vec<usize>,
    streams: usize,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
    /// Bytes that the peer's frames caused to be written, and that are not.
    owed: usize,
    window_in: u32,
    untold: u32,
    window_out: u32,
    leaving: bool,
    peer_left: bool,
    resets: u32,
}

impl Engine {
    /// A connection without streams.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            places: Vec::new(),
            free: Vec::new(),
            streams: 0,
            out: Vec::new(),
            written: 0,
            owed: 0,
            window_in: limits::CONNECTION_WINDOW,
            untold: 0,
            window_out: limits::CONNECTION_WINDOW,
            leaving: false,
            peer_left: false,
            resets: 0,
        }
    }

    /// Streams that are there.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Whether a side of some stream has not said all it has to say: the end of the connection would cut it off.
    pub fn is_under_way(&self) -> bool {
        self.places
            .iter()
            .any(|place| place.live && !place.is_over())
    }

    /// Whether one side has said that no stream may be opened any more.
    pub fn is_leaving(&self) -> bool {
        self.leaving || self.peer_left
    }

    /// Whether both sides have said that they open no more streams, and none is left.
    pub fn is_done(&self) -> bool {
        self.leaving && self.peer_left && self.streams == 0
    }

    /// Bytes to be written.
    pub fn out(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// Whether so much waits to be written that no more should be read: a server's answers to a client that reads none of
    /// them. A client always reads, or both could wait for each other.
    pub fn is_behind(&self) -> bool {
        self.role == Role::Server && self.out.len() - self.written > limits::OUT_BYTES_MAX
    }

    /// So many bytes of [`Engine::out`] were written. `true`: bodies that were held back may go on.
    pub fn wrote(&mut self, bytes: usize) -> bool {
        let before = self.out.len() - self.written;
        self.written = (self.written + bytes).min(self.out.len());
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > limits::DATA_BYTES_MAX {
                self.out = Vec::new(); // a burst's buffer is not kept
            }
        } else if self.written >= limits::OUT_BYTES {
            self.out.drain(..self.written); // or what was written would stay for as long as a peer reads slowly
            self.written = 0;
        }
        self.owed = self.owed.saturating_sub(bytes);
        before >= limits::OUT_BYTES && self.out.len() - self.written < limits::OUT_BYTES
    }

    /// Asks the peer whether it is there; any byte from it will do as an answer.
    pub fn ping(&mut self) {
        frame::encode(&mut self.out, Kind::Ping, false, StreamId::CONNECTION, 0);
    }

    /// Says that no stream will be opened from here, and none should be opened towards here.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            frame::encode(&mut self.out, Kind::Leave, false, StreamId::CONNECTION, 0);
        }
    }

    fn live(&mut self, id: StreamId) -> Option<&mut Place> {
        let place = self.places.get_mut(id.place())?;
        (place.live && place.taken == id.taken()).then_some(place)
    }
}

/// A client's side.
impl Engine {
    /// Opens a stream with the head of a request; `end`: it has no body.
    ///
    /// # Errors
    /// [`OpenError`] if that cannot be.
    pub fn open(&mut self, parts: &request::Parts, end: bool) -> Result<StreamId, OpenError> {
        if self.is_leaving() {
            return Err(OpenError::Left);
        }
        if self.out.len() - self.written > limits::OUT_BYTES_MAX {
            return Err(OpenError::Full);
        }
        let at = match self.free.last() {
            Some(at) => *at,
            None if self.places.len() < limits::STREAMS_MAX => self.places.len(),
            None => return Err(OpenError::Full),
        };
        let taken = next(self.places.get(at).map_or(0, |place| place.taken));
        let id = StreamId::new(at, taken);
        if !frame::encode_with(&mut self.out, Kind::Head, end, id, |out| {
            head::put_request(out, parts);
        }) {
            return Err(OpenError::TooLong);
        }
        if self.free.pop().is_none() {
            self.places.push(Place::new());
        }
        if let Some(place) = self.places.get_mut(at) {
            place.begin(taken, Incoming::Head, !end);
            place.bodiless = parts.method == Method::HEAD;
        }
        self.streams += 1;
        Ok(id)
    }

    /// The head of the response, once it is there; an error if it will not come.
    ///
    /// # Errors
    /// [`Reset::Failed`] if the stream is over.
    pub fn take_response(&mut self, id: StreamId) -> Result<Option<response::Parts>, Reset> {
        let place = self.live(id).ok_or(Reset::Failed)?;
        match place.response.take() {
            Some(parts) => Ok(Some(parts)),
            None if place.incoming == Incoming::Broken => Err(Reset::Failed),
            None => Ok(None),
        }
    }

    /// Nobody reads the response any more: what is not over ends here.
    pub fn abandon(&mut self, id: StreamId) {
        let Some(place) = self.live(id) else { return };
        if !place.is_over() {
            self.put_reset(id, Reset::Cancelled);
        }
        self.free.push(id.place());
        self.clear(id);
    }
}

/// A server's side.
impl Engine {
    /// Answers a stream; `end`: the response has no body. `false`: its head is longer than heads may be, and the stream was
    /// ended.
    pub fn respond(&mut self, id: StreamId, parts: &response::Parts, end: bool) -> bool {
        let Some(place) = self.live(id) else {
            return true;
        };
        if !place.outgoing {
            return true;
        }
        let written = frame::encode_with(&mut self.out, Kind::Head, end, id, |out| {
            head::put_response(out, parts);
        });
        if !written {
            self.break_off(id);
        } else if let Some(place) = self.live(id) {
            place.outgoing = !end;
        }
        written
    }

    /// Whoever answers a stream is done with it: what is not over ends here.
    pub fn finish(&mut self, id: StreamId) {
        let Some(place) = self.live(id) else { return };
        if place.outgoing {
            self.put_reset(id, Reset::Failed);
        } else {
            let incoming = place.incoming;
            if incoming != Incoming::Broken {
                self.resets = self.resets.saturating_sub(1);
            }
            if incoming == Incoming::Body {
                self.put_reset(id, Reset::Enough);
            }
        }
        self.clear(id);
    }
}

/// Reading and writing bodies, on either side.
impl Engine {
    /// The next of a body.
    pub fn take(&mut self, id: StreamId) -> Taken {
        let Some(place) = self.live(id) else {
            return Taken::Broken;
        };
        if let Some(data) = place.data.pop_front() {
            place.waiting -= data.len();
            self.tell(id, data.len());
            return Taken::Data(data);
        }
        match place.incoming {
            Incoming::Ended => place.trailers.take().map_or(Taken::End, Taken::Trailers),
            Incoming::Broken => Taken::Broken,
            Incoming::Head | Incoming::Body => Taken::Pending,
        }
    }

    /// Whether a body has been read to its end.
    pub fn is_read(&self, id: StreamId) -> bool {
        let place = self.places.get(id.place());
        place.is_some_and(|place| place.live && place.taken == id.taken() && place.is_read())
    }

    /// Bytes that a body still has, if its head has said so. What has come by now says nothing: a form that depended on it
    /// would be another one each time, and one with a length has no place for trailers.
    pub fn length(&self, id: StreamId) -> Option<u64> {
        let place = self.places.get(id.place())?;
        if !place.live || place.taken != id.taken() {
            return None;
        }
        match place.promised {
            _ if place.incoming == Incoming::Broken => None,
            Some(promised) => Some(promised.saturating_add(place.waiting as u64)),
            None => place.is_read().then_some(0),
        }
    }

    /// Whether anybody wants what is sent on a stream.
    pub fn is_wanted(&self, id: StreamId) -> bool {
        let place = self.places.get(id.place());
        place.is_some_and(|place| place.live && place.taken == id.taken() && place.outgoing)
    }

    /// Sends of `data` what there is room for; `end`: it is the last of the stream, which without data needs no room.
    pub fn send_data(&mut self, id: StreamId, data: &mut Bytes, end: bool) -> Sent {
        loop {
            let room = limits::OUT_BYTES.saturating_sub(self.out.len() - self.written);
            let room = room
                .min(self.window_out as usize)
                .min(limits::DATA_BYTES_MAX);
            let Some(place) = self.live(id).filter(|place| place.outgoing) else {
                return Sent::Gone;
            };
            let part = data.len().min(room).min(place.window_out as usize);
            if part == 0 && !data.is_empty() {
                return Sent::Blocked;
            }
            let last = part == data.len();
            if part > 0 || end {
                place.outgoing = !(last && end);
                place.window_out -= part as u32;
                self.window_out -= part as u32;
                frame::encode(&mut self.out, Kind::Data, last && end, id, part);
                self.out.put_slice(&data.split_to(part));
            }
            if last {
                return Sent::All;
            }
        }
    }

    /// Sends trailers, which end the stream. Trailers that are too long break it off.
    pub fn send_trailers(&mut self, id: StreamId, trailers: &HeaderMap) {
        if !self.is_wanted(id) {
            return;
        }
        let written = frame::encode_with(&mut self.out, Kind::Trailers, true, id, |out| {
            head::put_trailers(out, trailers);
        });
        if !written {
            return self.break_off(id);
        }
        if let Some(place) = self.live(id) {
            place.outgoing = false;
        }
    }

    /// A body broke off: the peer must not take what it has for all there is.
    pub fn break_off(&mut self, id: StreamId) {
        let Some(place) = self.live(id) else { return };
        if place.is_over() {
            return;
        }
        self.put_reset(id, Reset::Failed);
        self.broken(id);
    }

    /// Nothing more comes or goes on a stream that its owner still holds.
    fn broken(&mut self, id: StreamId) {
        let server = self.role == Role::Server;
        let Some(place) = self.live(id) else { return };
        place.outgoing = false;
        // A response that is whole stays so; a request is of no more use.
        if server || place.incoming != Incoming::Ended {
            place.incoming = Incoming::Broken;
            place.response = None;
            self.drop_data(id);
        }
    }

    /// The stream has left its place.
    fn clear(&mut self, id: StreamId) {
        self.drop_data(id);
        if let Some(place) = self.live(id) {
            place.live = false;
            place.response = None;
            place.trailers = None;
            self.streams -= 1;
        }
    }

    /// Data that nobody will read are as good as read.
    fn drop_data(&mut self, id: StreamId) {
        let Some(place) = self.live(id) else { return };
        place.data.clear();
        if place.data.capacity() > 64 {
            place.data = VecDeque::new();
        }
        let bytes = std::mem::take(&mut place.waiting);
        self.tell_connection(bytes);
    }

    /// So many bytes of a stream were taken.
    fn tell(&mut self, id: StreamId, bytes: usize) {
        if let Some(place) = self.live(id) {
            place.untold += bytes as u32;
            if place.untold >= limits::STREAM_WINDOW / 2 && place.incoming == Incoming::Body {
                let more = std::mem::take(&mut place.untold);
                place.window_in += more;
                self.put_window(id, more);
            }
        }
        self.tell_connection(bytes);
    }

    fn tell_connection(&mut self, bytes: usize) {
        self.untold += bytes as u32;
        // Also once the peer may send no more than it is owed: what slow readers hold must not stop everybody.
        let half = self.untold >= limits::CONNECTION_WINDOW / 2;
        if half || (self.untold > 0 && self.untold >= self.window_in) {
            let more = std::mem::take(&mut self.untold);
            self.window_in += more;
            self.put_window(StreamId::CONNECTION, more);
        }
    }

    fn put_window(&mut self, id: StreamId, more: u32) {
        frame::encode(&mut self.out, Kind::Window, false, id, 4);
        self.out.put_u32(more);
    }

    fn put_reset(&mut self, id: StreamId, why: Reset) {
        frame::encode(&mut self.out, Kind::Reset, false, id, 1);
        self.out.put_u8(why.code());
    }
}

#[cfg(test)]
mod tests;
