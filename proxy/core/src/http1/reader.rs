//! Requests of clients, read out of the bytes of one connection.
//!
//! ```text
//! Between --head--> Length | Chunked --> Between
//!         --head that may end HTTP/1--> Waiting --resume--> Between
//! ```
//! What is exact has one reading, and what is not is refused by [`Http1Guard`], which is the only judge: a head that came
//! whole and is plainly exact is taken at once, into its parts, in one pass; whatever else comes, in pieces, after empty
//! lines, or with anything in doubt, goes before the guard first. So this reader takes no head that the guard refuses
//! (a property of its tests), and refuses with the guard's words.

use super::chunks::{Chunks, Step};
use super::fields::{fields, lists};
use crate::detect::is_token;
use crate::http_hygiene::RequestRefusal;
use crate::http_hygiene::framing::is_length;
use crate::http_hygiene::wire::{
    GuardLimits, Http1Guard, REQUEST_LINE_KEPT, Refused, Stop, decimal, field,
};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use memchr::{memchr, memrchr};

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// As it came.
    pub parts: Parts,
    /// How long its body is.
    pub length: BodyLength,
    /// Whether the client leaves the connection open after it.
    pub persists: bool,
    /// Whether it may wait for `100 Continue` before it sends the body.
    pub expects: bool,
    /// Whether what follows may be something else than HTTP/1: nothing is read until [`RequestReader::resume`].
    pub may_switch: bool,
}

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes; 0: there is none.
    Known(u64),
    /// It comes in chunks.
    Chunked,
}

/// What comes next of a body.
#[derive(Debug)]
pub enum BodyPart {
    /// Some of its bytes; never none.
    Data(Bytes),
    /// Its trailers.
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a head, or in one.
    Between,
    /// In a body of known length.
    Length {
        left: u64,
    },
    /// In a body of chunks.
    Chunked(Chunks),
    /// After a request whose answer may end HTTP/1.
    Waiting,
    Refused(Refused),
}

/// Reads the requests of one connection, one after the other.
#[derive(Debug)]
pub struct RequestReader {
    state: State,
    limits: GuardLimits,
    /// Who judges the present head, if it did not come whole, and how much of it was judged.
    guard: Option<Box<Http1Guard>>,
    judged: usize,
    /// The request line, while its body can still be refused.
    line: Bytes,
    /// Boxed: most requests have none.
    trailers: Option<Box<HeaderMap>>,
}

/// What a head says, while it is read.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps: bool,
    upgrades: bool,
    expects: bool,
}

impl RequestReader {
    /// At the beginning of a connection.
    pub fn new(limits: GuardLimits) -> Self {
        Self {
            state: State::Between,
            limits,
            guard: None,
            judged: 0,
            line: Bytes::new(),
            trailers: None,
        }
    }

    /// Whether all of the last request was taken.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Between | State::Waiting)
    }

    /// Whether nothing is read until [`Self::resume`].
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// HTTP/1 goes on after a request that could have ended it.
    pub fn resume(&mut self) {
        if self.is_waiting() {
            self.state = State::Between;
        }
    }

    /// Bytes of the body that are still to come, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Between | State::Waiting => Some(0),
            State::Length { left } => Some(left),
            State::Chunked(_) | State::Refused(_) => None,
        }
    }

    /// Method and target of the request that was refused, if its request line is whole, exact and not overlong.
    pub fn request_line(&self) -> Option<(&str, &str)> {
        match &self.guard {
            Some(guard) => guard.request_line(),
            None => {
                let line = std::str::from_utf8(&self.line).ok()?;
                let (method, rest) = line.split_once(' ')?;
                Some((method, rest.split_once(' ')?.0))
            }
        }
    }

    /// Takes the next head out of what came. `None`: more must come first, or the body of the last request.
    ///
    /// # Errors
    /// [`Refused`], from then on.
    pub fn head(&mut self, input: &mut BytesMut) -> Result<Option<Head>, Refused> {
        match self.state {
            State::Between => {}
            State::Refused(refused) => return Err(refused),
            _ => return Ok(None),
        }
        if self.guard.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some((end, lines)) = self.plain_end(input) {
                let block = take(input, end);
                return match self.read(&block, lines) {
                    Some(head) => self.begin(head, &block, input).map(Some),
                    None => Err(self.doubt(&block)),
                };
            }
            self.judged = 0;
        }
        let limits = self.limits;
        let guard = self
            .guard
            .get_or_insert_with(|| Box::new(Http1Guard::new(limits)));
        // A line at a time, and not beyond the head: what follows would be read again for each head before it.
        while guard.heads() == 0 {
            let rest = input.get(self.judged..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(None);
            }
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            self.judged += end;
            let line = rest.get(..end).unwrap_or_default();
            if let Stop::Refused(refused) = guard.push(line).stop {
                return Err(self.refuse(refused.why, false));
            }
        }
        let blank = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
        let leading = input.iter().take_while(blank).count();
        input.advance(leading);
        let Some((end, lines)) = self.plain_end(input) else {
            return Err(self.refuse(RequestRefusal::Line, false)); // the guard would not have let it pass
        };
        let block = take(input, end);
        let Some(head) = self.read(&block, lines) else {
            return Err(self.refuse(RequestRefusal::Target, false)); // likewise
        };
        self.guard = None;
        self.begin(head, &block, input).map(Some)
    }

    /// Takes the next part of the body out of what came. `None`: it is done, or more must come first.
    ///
    /// # Errors
    /// [`Refused`], from then on.
    pub fn body(&mut self, input: &mut BytesMut) -> Result<Option<BodyPart>, Refused> {
        loop {
            let step = match &mut self.state {
                State::Between | State::Waiting => return Ok(None),
                State::Refused(refused) => return Err(*refused),
                State::Length { .. } if input.is_empty() => return Ok(None),
                State::Length { left } => {
                    let count =
                        usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = State::Between;
                    }
                    return Ok(Some(BodyPart::Data(take(input, count))));
                }
                State::Chunked(chunks) => chunks.step(input),
            };
            match step.map_err(|why| self.refuse(why, true))? {
                Step::Waits => return Ok(None),
                Step::Framing(count) => skip(input, count),
                Step::Data(count) => return Ok(Some(BodyPart::Data(take(input, count)))),
                Step::Trailer(count) => {
                    let line = take(input, count);
                    self.trailer(&line).map_err(|why| self.refuse(why, true))?;
                }
                Step::Last(count) => {
                    skip(input, count);
                    self.state = State::Between;
                    self.line = Bytes::new();
                    let trailers = self.trailers.take();
                    return Ok(trailers.map(|trailers| BodyPart::Trailers(*trailers)));
                }
            }
        }
    }

    fn refuse(&mut self, why: RequestRefusal, begun: bool) -> Refused {
        let refused = Refused { why, begun };
        self.state = State::Refused(refused);
        refused
    }

    /// The guard's word on a head that is not plainly exact.
    fn doubt(&mut self, block: &[u8]) -> Refused {
        let mut guard = Box::new(Http1Guard::new(self.limits));
        let why = match guard.push(block).stop {
            Stop::Refused(refused) => refused.why,
            // What the guard takes and we cannot is a target, which it leaves to the library of URIs.
            Stop::End | Stop::Waiting => RequestRefusal::Target,
        };
        self.guard = Some(guard);
        self.refuse(why, false)
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let (name, value) = field(line.strip_suffix(b"\r\n").unwrap_or(line))?;
        let name = HeaderName::from_bytes(name).map_err(|_| RequestRefusal::Line)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| RequestRefusal::Line)?;
        self.trailers.get_or_insert_default().append(name, value);
        Ok(())
    }
}

/// Heads.
impl RequestReader {
    /// Where a head ends that is there whole and within the limits, and how many lines it has before the empty one. `None`
    /// says nothing of it.
    fn plain_end(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        if !bytes.first().is_some_and(|byte| is_token(*byte)) {
            return None;
        }
        let (mut start, mut lines) = (0, 0);
        loop {
            let length = memchr(b'\n', bytes.get(start..)?)?;
            let end = start + length + 1;
            if end > self.limits.head_bytes_max || bytes.get(end.checked_sub(2)?) != Some(&b'\r') {
                return None;
            }
            if length == 1 {
                return Some((end, lines));
            }
            lines += 1;
            if lines > self.limits.fields_max + 1 {
                return None;
            }
            start = end;
        }
    }

    /// Reads a block of so many lines and an empty one. `None`: it is not plainly exact.
    fn read(&self, block: &Bytes, lines: usize) -> Option<Head> {
        let first = memchr(b'\n', block)?;
        let line = block.get(..first.checked_sub(1)?)?;
        let space = memchr(b' ', line)?;
        let last = memrchr(b' ', line).filter(|last| *last > space + 1)?;
        let version = match line.get(last + 1..)? {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return None,
        };
        let target = line.get(space + 1..last)?;
        let odd = |byte: &u8| *byte <= b' ' || matches!(*byte, 0x7f | b'#');
        if target.iter().any(odd) {
            return None;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(line.get(..space)?).ok()?;
        parts.uri = Uri::from_maybe_shared(block.slice(space + 1..last)).ok()?;
        parts.version = version;
        let mut said = Said::default();
        parts.headers = fields(block, first + 1, lines.checked_sub(1)?, |name, value| {
            said.note(name, value)
        })?;
        said.into_head(parts)
    }

    /// The request begins. What is there of its body is looked at first: of a request that is wrong as it came nothing is
    /// ever forwarded.
    fn begin(&mut self, head: Head, block: &Bytes, rest: &[u8]) -> Result<Head, Refused> {
        self.state = match head.length {
            BodyLength::Known(0) if head.may_switch => State::Waiting,
            BodyLength::Known(0) => State::Between,
            BodyLength::Known(left) => State::Length { left },
            BodyLength::Chunked => {
                let line = memchr(b'\r', block).unwrap_or_default();
                if line <= REQUEST_LINE_KEPT {
                    self.line = block.slice(..line);
                }
                let chunks = Chunks::new(self.limits.fields_max);
                chunks.check(rest).map_err(|why| self.refuse(why, false))?;
                State::Chunked(chunks)
            }
        };
        Ok(head)
    }
}

impl Said {
    /// Notes a field; `None`: it is not plainly exact.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Option<()> {
        match *name {
            CONTENT_LENGTH => {
                if self.length.is_some() || !is_length(value) {
                    return None;
                }
                self.length = Some(decimal(value)?);
            }
            TRANSFER_ENCODING => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                self.chunked = true;
            }
            CONNECTION => {
                self.closes |= lists(value, b"close");
                self.keeps |= lists(value, b"keep-alive");
            }
            UPGRADE => self.upgrades = true,
            EXPECT => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Some(())
    }

    fn into_head(self, parts: Parts) -> Option<Head> {
        let http11 = parts.version == Version::HTTP_11;
        let length = match (self.chunked, self.length) {
            (true, None) if http11 => BodyLength::Chunked,
            (true, _) => return None,
            (false, length) => BodyLength::Known(length.unwrap_or_default()),
        };
        let bodiless = length == BodyLength::Known(0);
        let connects = parts.method == Method::CONNECT;
        Some(Head {
            length,
            persists: !self.closes && (http11 || self.keeps),
            expects: http11 && self.expects && !bodiless,
            // What has a body is never upgraded (GW7), and CONNECT has none.
            may_switch: bodiless && (connects || http11 && self.upgrades),
            parts,
        })
    }
}

/// Takes bytes off the front; all of them without a trace of the rest.
fn take(input: &mut BytesMut, count: usize) -> Bytes {
    if count >= input.len() {
        return std::mem::take(input).freeze();
    }
    input.split_to(count).freeze()
}

/// Drops bytes off the front, and the buffer with the last of them.
fn skip(input: &mut BytesMut, count: usize) {
    if count >= input.len() {
        *input = BytesMut::new();
    } else {
        input.advance(count);
    }
}

#[cfg(test)]
mod tests;
