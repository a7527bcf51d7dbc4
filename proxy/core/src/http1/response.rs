//! Responses as bytes, read to the letter of RFC 9112.
//!
//! ```text
//! Head --1xx--> Head --head--> Length | ChunkSize… | UntilClose --> Done
//!                    --101---> Switched
//! ```
//! Anything that is not exact refuses the response, and its connection with it.

use super::fields::{fields, persists};
use crate::http_hygiene::framing::length_of;
use crate::http_hygiene::wire::chunk_size;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use memchr::memchr;

/// A chunk's size line, extension included. Nobody we know sends one above 20.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Extensions of all chunks of one body.
const CHUNK_EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Trailers.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Why a response cannot be used. Blame: whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A first line that is not a version, a status and perhaps a reason.
    #[error("its status line is malformed")]
    StatusLine,
    /// A line that does not end in CR LF, is folded, or has a name or bytes that cannot be.
    #[error("a line of its head is malformed")]
    Line,
    /// Content-Length and Transfer-Encoding in any doubtful form, or where there can be no body.
    #[error("the length of its body is ambiguous")]
    Framing,
    /// Chunks that are not exact.
    #[error("its chunks are malformed")]
    Chunks,
    /// Over [`ResponseLimits`], or too much of chunk extensions or trailers.
    #[error("its head, or what frames its body, is over the limit")]
    TooLarge,
    /// The connection ended before it did.
    #[error("the connection was closed before its end")]
    CutOff,
}

/// Bounds on one response's head, interim ones (1xx) before it included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Bytes.
    pub head_bytes_max: usize,
    /// Fields; also of trailers.
    pub fields_max: usize,
}

/// What comes next of a response.
#[derive(Debug)]
pub enum Part {
    /// Its head; never an interim one.
    Head(Box<Parts>),
    /// Some of its body.
    Data(Bytes),
    /// Its trailers.
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// In a body of known length.
    Length {
        left: u64,
    },
    ChunkSize,
    /// In a chunk.
    Chunk {
        left: u64,
    },
    /// After a chunk's data.
    ChunkEnd,
    Trailers,
    /// In a body that ends with the connection.
    UntilClose,
    Done,
    /// After a `101`: what follows is not HTTP.
    Switched,
    Refused(ResponseError),
}

/// Reads the response to one request.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    limits: ResponseLimits,
    /// Whether the request was HEAD.
    bodiless: bool,
    /// Whether the connection may be used again once this is done.
    persists: bool,
    /// Of the head or the trailers: bytes that were searched, where the present line begins, lines that are whole.
    searched: usize,
    line: usize,
    lines: usize,
    /// Bytes of interim heads.
    interim_bytes: usize,
    extension_bytes: usize,
}

impl ResponseReader {
    /// Before the first byte. `bodiless`: the request was HEAD.
    pub fn new(bodiless: bool, limits: ResponseLimits) -> Self {
        Self {
            state: State::Head,
            limits,
            bodiless,
            persists: false,
            searched: 0,
            line: 0,
            lines: 0,
            interim_bytes: 0,
            extension_bytes: 0,
        }
    }

    /// Whether the head has been read.
    pub fn has_begun(&self) -> bool {
        self.state != State::Head
    }

    /// Whether nothing more comes of it.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Switched)
    }

    /// Whether another request may go on the connection: this one is done, nobody said that it closes, and not a byte
    /// came after it (`rest`).
    pub fn leaves_reusable(&self, rest: &[u8]) -> bool {
        self.state == State::Done && self.persists && rest.is_empty()
    }

    /// Bytes of the body that are still to come, if that is known.
    pub fn length(&self) -> Option<u64> {
        match self.state {
            State::Length { left } => Some(left),
            State::Done | State::Switched => Some(0),
            _ => None,
        }
    }

    /// Takes the next part out of what came. `None`: it is done, or more must come first.
    ///
    /// # Errors
    /// [`ResponseError`], from then on.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, ResponseError> {
        loop {
            let went = match self.state {
                State::Refused(why) => return Err(why),
                State::Done | State::Switched => return Ok(None),
                State::Head => self.head(input),
                State::ChunkSize => self.chunk_line(input),
                State::ChunkEnd => self.chunk_end(input),
                State::Trailers => self.trailers(input),
                State::Length { .. } | State::Chunk { .. } | State::UntilClose => {
                    Ok(self.data(input))
                }
            };
            match went {
                Ok(Went::On) => {}
                Ok(Went::Waits) => return Ok(None),
                Ok(Went::Part(part)) => return Ok(Some(part)),
                Err(why) => {
                    self.state = State::Refused(why);
                    return Err(why);
                }
            }
        }
    }

    /// The connection is at its end, and all that came was taken.
    ///
    /// # Errors
    /// [`ResponseError::CutOff`] if the response is not.
    pub fn on_close(&mut self) -> Result<(), ResponseError> {
        self.persists = false;
        match self.state {
            State::Refused(why) => return Err(why),
            State::Done | State::Switched | State::UntilClose => self.state = State::Done,
            _ => {
                self.state = State::Refused(ResponseError::CutOff);
                return Err(ResponseError::CutOff);
            }
        }
        Ok(())
    }
}

/// How a step went.
enum Went {
    /// There may be more to take.
    On,
    /// More must come first.
    Waits,
    Part(Part),
}

/// Bodies.
impl ResponseReader {
    fn data(&mut self, input: &mut BytesMut) -> Went {
        if input.is_empty() {
            return Went::Waits;
        }
        let (State::Length { left } | State::Chunk { left }) = self.state else {
            return Went::Part(Part::Data(input.split().freeze()));
        };
        let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left - count as u64;
        self.state = match (self.state, left) {
            (State::Length { .. }, 0) => State::Done,
            (State::Length { .. }, _) => State::Length { left },
            (_, 0) => State::ChunkEnd,
            _ => State::Chunk { left },
        };
        Went::Part(Part::Data(input.split_to(count).freeze()))
    }

    fn chunk_line(&mut self, input: &mut BytesMut) -> Result<Went, ResponseError> {
        let Some(end) = memchr(b'\n', input) else {
            return if input.len() > CHUNK_LINE_BYTES_MAX {
                Err(ResponseError::TooLarge)
            } else {
                Ok(Went::Waits)
            };
        };
        let line = input.split_to(end + 1);
        if line.len() > CHUNK_LINE_BYTES_MAX {
            return Err(ResponseError::TooLarge);
        }
        let line = line.strip_suffix(b"\r\n").ok_or(ResponseError::Chunks)?;
        let (size, extension) = chunk_size(line).ok_or(ResponseError::Chunks)?;
        self.extension_bytes += extension;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(ResponseError::TooLarge);
        }
        if size == 0 {
            self.state = State::Trailers;
            self.begin_lines();
        } else {
            self.state = State::Chunk { left: size };
        }
        Ok(Went::On)
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<Went, ResponseError> {
        match input.get(..2) {
            Some(b"\r\n") => {
                input.advance(2);
                self.state = State::ChunkSize;
                Ok(Went::On)
            }
            None if matches!(input.first(), None | Some(b'\r')) => Ok(Went::Waits),
            _ => Err(ResponseError::Chunks),
        }
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Went, ResponseError> {
        let Some(end) = self.lines_end(input, TRAILER_BYTES_MAX)? else {
            return Ok(Went::Waits);
        };
        let block = input.split_to(end).freeze();
        self.state = State::Done;
        if self.lines == 0 {
            return Ok(Went::On);
        }
        let fields = self.fields(&block, 0, self.lines)?;
        Ok(Went::Part(Part::Trailers(fields)))
    }
}

/// Heads.
impl ResponseReader {
    fn head(&mut self, input: &mut BytesMut) -> Result<Went, ResponseError> {
        let room = self.limits.head_bytes_max - self.interim_bytes;
        let Some(end) = self.lines_end(input, room)? else {
            return Ok(Went::Waits);
        };
        let block = input.split_to(end).freeze();
        let first = memchr(b'\n', &block).map_or(0, |at| at + 1);
        let line = block.get(..first).unwrap_or_default();
        let (version, status) = status_line(line).ok_or(ResponseError::StatusLine)?;
        let headers = self.fields(&block, first, self.lines.saturating_sub(1))?;
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.version = version;
        parts.status = status;
        parts.headers = headers;
        self.frame(&parts)?;
        if self.state == State::Head {
            self.interim_bytes += end;
            self.begin_lines();
            return Ok(Went::On);
        }
        Ok(Went::Part(Part::Head(Box::new(parts))))
    }

    /// How the body is framed (RFC 9112 §6.3), and whether the connection outlives it (§9.3).
    fn frame(&mut self, parts: &Parts) -> Result<(), ResponseError> {
        let length = length_of(&parts.headers).map_err(|_| ResponseError::Framing)?;
        let chunked = one_coding(&parts.headers)?;
        if chunked && (length.is_some() || parts.version != Version::HTTP_11) {
            return Err(ResponseError::Framing);
        }
        self.persists = persists(parts.version, &parts.headers);
        let status = parts.status;
        if status.is_informational() {
            // What has no body cannot have a length; what follows would be read as another message by somebody.
            if chunked || length.is_some_and(|length| length > 0) {
                return Err(ResponseError::Framing);
            }
            if status == StatusCode::SWITCHING_PROTOCOLS {
                self.state = State::Switched;
            }
            return Ok(());
        }
        self.state = match length {
            _ if self.bodiless || status == StatusCode::NOT_MODIFIED => State::Done,
            _ if status == StatusCode::NO_CONTENT => {
                // Whoever says a length here may mean it.
                self.persists &= !chunked && length.is_none_or(|length| length == 0);
                State::Done
            }
            Some(0) => State::Done,
            Some(left) => State::Length { left },
            None if chunked => State::ChunkSize,
            None => {
                self.persists = false;
                State::UntilClose
            }
        };
        Ok(())
    }

    /// Reads `count` fields from `at`.
    fn fields(&self, block: &Bytes, at: usize, count: usize) -> Result<HeaderMap, ResponseError> {
        if count > self.limits.fields_max {
            return Err(ResponseError::TooLarge);
        }
        fields(block, at, count, |_, _| Some(())).ok_or(ResponseError::Line)
    }

    fn begin_lines(&mut self) {
        (self.searched, self.line, self.lines) = (0, 0, 0);
    }

    /// Where the block of lines ends, the empty one included; every line before must be exact.
    fn lines_end(&mut self, bytes: &[u8], max: usize) -> Result<Option<usize>, ResponseError> {
        while let Some(at) = memchr(b'\n', bytes.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + at;
            self.searched = end + 1;
            if self.searched > max {
                return Err(ResponseError::TooLarge);
            }
            let line = bytes.get(self.line..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(ResponseError::Line)?;
            if line.is_empty() {
                return Ok(Some(self.searched));
            }
            self.line = self.searched;
            self.lines += 1;
            if self.lines > self.limits.fields_max + 1 {
                return Err(ResponseError::TooLarge);
            }
        }
        self.searched = bytes.len();
        if self.searched > max {
            return Err(ResponseError::TooLarge);
        }
        Ok(None)
    }
}

/// Version and status; the reason is nobody's business, but may not hold what ends lines or terminals.
fn status_line(line: &[u8]) -> Option<(Version, StatusCode)> {
    let line = line.strip_suffix(b"\r\n")?;
    let (version, rest) = line.split_at_checked(9)?;
    let version = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return None,
    };
    let (code, reason) = rest.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Without a reason many leave out the space before it, too.
    let plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !matches!(reason.first(), None | Some(b' ')) || !reason.iter().all(plain) {
        return None;
    }
    Some((version, StatusCode::from_bytes(code).ok()?))
}

/// Whether the body comes in chunks. No other coding was asked for (`TE` is never sent), and none is understood.
fn one_coding(headers: &HeaderMap) -> Result<bool, ResponseError> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(ResponseError::Framing),
    }
}
