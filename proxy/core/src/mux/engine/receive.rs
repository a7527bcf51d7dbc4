//! What comes from the peer: each frame held against the rules, then against the stream that it concerns.

use super::place::{Incoming, Place, TAKEN, next};
use super::{Engine, Event, Role};
use crate::mux::frame::{self, FrameHead, HEAD_LEN, Kind};
use crate::mux::head::{self, Malformed};
use crate::mux::{MuxError, Reset, StreamId, limits};
use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};

impl Engine {
    /// Reads all whole frames of `input`, and leaves the rest there.
    ///
    /// # Errors
    /// [`MuxError`]: the connection ends. What was said in `events` before still holds.
    pub fn feed(&mut self, input: &mut BytesMut, events: &mut Vec<Event>) -> Result<(), MuxError> {
        while let Some(bytes) = input.first_chunk::<HEAD_LEN>() {
            let head = frame::decode(*bytes)?;
            if input.len() < HEAD_LEN + head.length {
                break; // room is made for what came, never for what a head promises
            }
            input.advance(HEAD_LEN);
            let payload = match head.length {
                0 => Bytes::new(),
                length => input.split_to(length).freeze(),
            };
            let before = self.out.len();
            self.frame(head, payload, events)?;
            self.owed += self.out.len() - before;
            if self.owed > limits::OUT_BYTES_MAX {
                return Err(MuxError::TooMuch {
                    what: "answers that it does not read",
                });
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        head: FrameHead,
        payload: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        let id = head.stream;
        match head.kind {
            Kind::Head if self.role == Role::Server => self.request(head, payload, events),
            Kind::Head => self.response(head, payload, events),
            Kind::Data => self.data(head, payload, events),
            Kind::Trailers => self.trailers(id, payload, events),
            Kind::Reset => self.reset(id, &payload, events),
            Kind::Window => self.window(id, &payload, events),
            Kind::Ping => {
                frame::encode(&mut self.out, Kind::Pong, false, StreamId::CONNECTION, 0);
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::Leave => {
                self.peer_left = true;
                self.leave();
                events.push(Event::Left);
                Ok(())
            }
        }
    }

    fn request(
        &mut self,
        frame: FrameHead,
        payload: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        let (id, at) = (frame.stream, frame.stream.place());
        if self.peer_left {
            return rule("a request after leaving");
        }
        // A client takes the lowest place that was never taken, or one that was.
        if at == self.places.len() {
            self.places.push(Place::new());
        }
        let Some(place) = self.places.get(at) else {
            return rule("a place out of turn");
        };
        if id.taken() != next(place.taken) {
            return rule("a stream out of turn");
        }
        if place.live {
            if !place.is_over() {
                return rule("a place that is taken");
            }
            self.clear(StreamId::new(at, place.taken));
        }
        let parts = head::request(payload).map_err(malformed)?;
        let promised = length_of(&parts.headers)?;
        if frame.end && promised.is_some_and(|bytes| bytes > 0) {
            return rule("a body shorter than its length");
        }
        if let Some(place) = self.places.get_mut(at) {
            let incoming = if frame.end {
                Incoming::Ended
            } else {
                Incoming::Body
            };
            place.begin(id.taken(), incoming, true);
            place.promised = promised;
        }
        self.streams += 1;
        events.push(Event::Request {
            id,
            parts: Box::new(parts),
            end: frame.end,
        });
        Ok(())
    }

    fn response(
        &mut self,
        frame: FrameHead,
        payload: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        self.check_known(frame.stream)?;
        let Some(place) = self.live(frame.stream) else {
            return Ok(());
        };
        match place.incoming {
            Incoming::Head => {}
            Incoming::Broken => return Ok(()),
            Incoming::Body | Incoming::Ended => return rule("a second response"),
        }
        let mut parts = head::response(payload).map_err(malformed)?;
        if parts.status == StatusCode::NO_CONTENT {
            parts.headers.remove(CONTENT_LENGTH); // which it may not have (RFC 9110 §8.6)
        }
        let promises = !place.bodiless
            && !matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let promised = if promises {
            length_of(&parts.headers)
        } else {
            Ok(Some(0))
        };
        place.promised = match promised {
            Ok(promised) if !frame.end || promised.is_none_or(|bytes| bytes == 0) => promised,
            _ => {
                return self.fail(frame.stream, events);
            }
        };
        place.incoming = if frame.end {
            Incoming::Ended
        } else {
            Incoming::Body
        };
        place.response = Some(parts);
        events.push(Event::Readable(frame.stream));
        Ok(())
    }

    fn data(
        &mut self,
        frame: FrameHead,
        payload: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        let id = frame.stream;
        let bytes = payload.len() as u32;
        self.check_known(id)?;
        let Some(left) = self.window_in.checked_sub(bytes) else {
            return rule("more data than the connection may send");
        };
        self.window_in = left;
        let Some(place) = self
            .live(id)
            .filter(|place| place.incoming != Incoming::Broken)
        else {
            self.tell_connection(payload.len());
            return Ok(());
        };
        if place.incoming != Incoming::Body {
            return rule("data before a head or after an end");
        }
        let Some(left) = place.window_in.checked_sub(bytes) else {
            return rule("more data than the stream may send");
        };
        place.window_in = left;
        if let Some(promised) = &mut place.promised {
            match promised.checked_sub(u64::from(bytes)) {
                Some(left) if left == 0 || !frame.end => *promised = left,
                _ => {
                    self.tell_connection(payload.len());
                    return self.fail(id, events);
                }
            }
        }
        if frame.end {
            place.incoming = Incoming::Ended;
        }
        if !payload.is_empty() {
            place.keep(payload);
        }
        events.push(Event::Readable(id));
        Ok(())
    }

    fn trailers(
        &mut self,
        id: StreamId,
        payload: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        self.check_known(id)?;
        let Some(place) = self
            .live(id)
            .filter(|place| place.incoming != Incoming::Broken)
        else {
            return Ok(());
        };
        if place.incoming != Incoming::Body {
            return rule("trailers before a head or after an end");
        }
        if place.promised.is_some_and(|bytes| bytes > 0) {
            return self.fail(id, events);
        }
        place.trailers = Some(head::trailers(payload).map_err(malformed)?);
        place.incoming = Incoming::Ended;
        events.push(Event::Readable(id));
        Ok(())
    }

    fn reset(
        &mut self,
        id: StreamId,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        self.check_known(id)?;
        let Some(why) = payload.first().copied().and_then(Reset::from_code) else {
            return Err(MuxError::Frame {
                what: "unknown reason of a reset",
            });
        };
        if self.role == Role::Server && why == Reset::Enough {
            return rule("a client that has enough");
        }
        self.count_reset()?;
        let Some(place) = self.live(id) else {
            return Ok(());
        };
        if why == Reset::Enough && place.incoming == Incoming::Ended {
            place.outgoing = false;
            events.push(Event::Writable(id));
            return Ok(());
        }
        self.broken(id);
        events.push(Event::Broken(id));
        Ok(())
    }

    fn window(
        &mut self,
        id: StreamId,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), MuxError> {
        let more = payload.first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
        if more == 0 {
            return Err(MuxError::Frame {
                what: "a window of nothing",
            });
        }
        // Windows have one size: nobody gives back more than was sent.
        let grown = |window: u32, most: u32| {
            let grown = window.checked_add(more).filter(|grown| *grown <= most);
            grown.ok_or(MuxError::Rule {
                what: "a window larger than windows are",
            })
        };
        if id == StreamId::CONNECTION {
            let blocked = self.window_out == 0;
            self.window_out = grown(self.window_out, limits::CONNECTION_WINDOW)?;
            if blocked {
                events.push(Event::AllWritable);
            }
            return Ok(());
        }
        self.check_known(id)?;
        if let Some(place) = self.live(id) {
            let blocked = place.window_out == 0;
            place.window_out = grown(place.window_out, limits::STREAM_WINDOW)?;
            if blocked {
                events.push(Event::Writable(id));
            }
        }
        Ok(())
    }

    /// A message is of another length than it has said: an application's mistake, which concerns its own stream alone.
    fn fail(&mut self, id: StreamId, events: &mut Vec<Event>) -> Result<(), MuxError> {
        self.put_reset(id, Reset::Failed);
        self.broken(id);
        events.push(Event::Broken(id));
        self.count_reset()
    }

    /// A reset that the peer sent or provoked (CVE-2025-8671): only a server is made to work by them.
    fn count_reset(&mut self) -> Result<(), MuxError> {
        if self.role == Role::Client {
            return Ok(());
        }
        self.resets += 1;
        if self.resets > limits::RESETS_MAX {
            return Err(MuxError::TooMuch { what: "resets" });
        }
        Ok(())
    }

    /// What concerns a stream that never was is no late word, but a mistake.
    fn check_known(&self, id: StreamId) -> Result<(), MuxError> {
        match self.places.get(id.place()) {
            // The count begins anew after 16 million streams: of two numbers the later one is less than half way ahead.
            Some(place) if place.taken.wrapping_sub(id.taken()) % TAKEN < TAKEN / 2 => Ok(()),
            _ => rule("a stream that nobody opened"),
        }
    }
}

fn rule<T>(what: &'static str) -> Result<T, MuxError> {
    Err(MuxError::Rule { what })
}

fn malformed(Malformed(what): Malformed) -> MuxError {
    MuxError::Head { what }
}

/// What a head promises of its body. Two lengths are somebody's request smuggled into another's.
fn length_of(headers: &HeaderMap) -> Result<Option<u64>, MuxError> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let number = value
        .to_str()
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    match (number, values.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(MuxError::Head {
            what: "content-length",
        }),
    }
}
