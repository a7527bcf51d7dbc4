//! HTTP/1 requests as bytes: what is exact, and what two servers could read in two ways.
//!
//! RFC 9112 lets a reader be lenient, and a server before or behind us may read a lenient request as two: `Content-Length`
//! beside `Transfer-Encoding`, the same `Content-Length` twice, lines that end in LF alone. [`Http1Guard`] follows where the
//! requests of a connection begin and end, and refuses what is not exact; what it lets go on has one reading. It is the
//! judge behind [`crate::http1::reader`], which takes what is plainly exact without it.
//!
//! It says which bytes may go on ([`Reading::clear`]): a head goes on whole or not at all, so that nothing of a request
//! that is refused for its head is ever seen behind the guard. Bodies go on as they come, but for the lines between chunks,
//! which go on whole. It keeps no more than a line that came in pieces, and the request line for the record.

use super::RequestRefusal;
use super::framing::is_length;
use crate::detect::{LEADING_BYTES_MAX, is_token};
use http::Uri;
use memchr::{memchr, memrchr};

/// A chunk's size line, extension included. Nobody we know sends one above 20.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Extensions of all chunks of one body.
pub(crate) const CHUNK_EXTENSION_BYTES_MAX: usize = 8 * 1024;
/// Framing that one body may cost beyond the data that it carries: stops a million chunks of one byte (H1-7), and
/// lets streams of small messages, from five bytes on, go on for ever.
pub(crate) const CHUNK_OVERHEAD_BYTES_MAX: usize = 256 * 1024;
/// Trailers.
pub(crate) const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Longest request line that is kept for the record; a longer one is refused for its target.
pub(crate) const REQUEST_LINE_KEPT: usize = 8 * 1024 + 64;

/// Where in a connection the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a request line; `cr`: a CR of an empty line was seen.
    Between { cr: bool },
    /// In a request line or a field.
    Head,
    /// In a body of known length.
    Body { left: u64 },
    /// In the line before a chunk.
    ChunkSize,
    /// In a chunk and the CR LF after it.
    Chunk { left: u64 },
    /// After a chunk's data.
    ChunkEnd { cr: bool },
    /// After the last chunk.
    Trailers,
    /// After a request whose answer may end HTTP/1; [`Http1Guard::resume`] goes on.
    Waiting,
    /// Something else than HTTP/1 from here on.
    Over,
    /// Refused; everything that follows is too.
    Refused(Refused),
}

impl State {
    /// Whether the bytes of a head are being taken, or those before one.
    const fn in_head(self) -> bool {
        matches!(self, Self::Between { .. } | Self::Head)
    }
}

/// What a head has said of its body so far, and what the body has cost.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    request_line: bool,
    http11: bool,
    length: Option<u64>,
    chunked: bool,
    /// What follows may be something else than HTTP/1.
    switches: bool,
    /// Of the head, or of the trailers.
    bytes: usize,
    fields: usize,
    extension_bytes: usize,
    overhead_bytes: usize,
}

/// How far a piece was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes at the beginning of the piece that may go on. If there are any, all that was kept back before them may too;
    /// the others are to be kept back until a later piece makes them clear.
    pub clear: usize,
    /// Why reading ended there.
    pub stop: Stop,
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The piece is at its end.
    End,
    /// What is clear ends with a request whose answer may end HTTP/1: an upgrade, or CONNECT. The rest of the piece was
    /// not read: call [`Http1Guard::resume`] when the answer is known, then push it again.
    Waiting,
    /// What is not clear is dropped, and so is what was kept back if nothing is clear. Nothing more may go on.
    Refused(Refused),
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: RequestRefusal,
    /// Whether the head of the request went on already, so that only its body can still be broken off.
    pub begun: bool,
}

/// Follows the bytes of one HTTP/1 connection from its client.
#[derive(Debug)]
pub struct Http1Guard {
    state: State,
    said: Said,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The last whole request line, if it is of the right form.
    asked: Vec<u8>,
    /// Heads that are clear.
    heads: u64,
    limits: GuardLimits,
}

/// Bounds on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardLimits {
    /// Bytes, request line included.
    pub head_bytes_max: usize,
    /// Fields; also of trailers.
    pub fields_max: usize,
}

impl Http1Guard {
    /// At the beginning of a connection.
    pub fn new(limits: GuardLimits) -> Self {
        Self {
            state: State::Between { cr: false },
            said: Said::default(),
            line: Vec::new(),
            asked: Vec::new(),
            heads: 0,
            limits,
        }
    }

    /// Takes the next bytes, of any number, and says which may go on.
    pub fn push(&mut self, piece: &[u8]) -> Reading {
        let mut rest = piece;
        // Where in the piece the present request begins: at 0 if it began before.
        let mut from = 0;
        let mut begun = !self.state.in_head();
        while !rest.is_empty() && self.state != State::Waiting {
            match self.step(rest) {
                Ok(after) => rest = after,
                Err(why) => return self.refuse(why, begun, from),
            }
            if self.is_between_requests() {
                (from, begun) = (piece.len() - rest.len(), false);
            }
        }
        match self.state {
            State::Waiting => Reading {
                clear: piece.len() - rest.len(),
                stop: Stop::Waiting,
            },
            state => Reading {
                clear: if state.in_head() {
                    from
                } else {
                    // The line of a chunk or trailer goes on when it is whole: nobody behind us judges half of one.
                    piece.len().saturating_sub(self.line.len())
                },
                stop: Stop::End,
            },
        }
    }

    /// The answer that [`Stop::Waiting`] waits for is known: `switched` if what follows is not HTTP/1.
    pub fn resume(&mut self, switched: bool) {
        if self.state == State::Waiting {
            self.state = if switched {
                State::Over
            } else {
                State::Between { cr: false }
            };
        }
    }

    /// How many heads became clear so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether all that came belongs to whole requests.
    pub fn is_between_requests(&self) -> bool {
        self.state == State::Between { cr: false } && self.said.bytes == 0
    }

    /// Method and target of the request that was read last, if its request line is whole, exact and not overlong.
    pub fn request_line(&self) -> Option<(&str, &str)> {
        let mut words = std::str::from_utf8(&self.asked).ok()?.split(' ');
        Some((
            words.next().filter(|method| !method.is_empty())?,
            words.next()?,
        ))
    }

    fn refuse(&mut self, why: RequestRefusal, begun: bool, from: usize) -> Reading {
        let refused = match self.state {
            State::Refused(refused) => refused,
            state => {
                // Its head was whole, and is not clear after all.
                self.heads -= u64::from(!begun && !state.in_head());
                Refused { why, begun }
            }
        };
        self.state = State::Refused(refused);
        Reading {
            clear: if begun { 0 } else { from },
            stop: Stop::Refused(refused),
        }
    }

    /// Takes some bytes and returns the others.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], RequestRefusal> {
        match self.state {
            State::Refused(refused) => Err(refused.why),
            State::Over | State::Waiting => Ok(&[]),
            State::Between { cr } => self.between(bytes, cr),
            State::Head | State::ChunkSize | State::Trailers => self.take_line(bytes),
            State::Body { left } => {
                let (left, rest) = skip(bytes, left);
                if left == 0 {
                    self.end_of_request();
                } else {
                    self.state = State::Body { left };
                }
                Ok(rest)
            }
            State::Chunk { left } => {
                let (left, rest) = skip(bytes, left);
                self.state = if left == 0 {
                    State::ChunkEnd { cr: false }
                } else {
                    State::Chunk { left }
                };
                Ok(rest)
            }
            State::ChunkEnd { cr } => {
                self.state = match (cr, bytes.first()) {
                    (false, Some(b'\r')) => State::ChunkEnd { cr: true },
                    (true, Some(b'\n')) => State::ChunkSize,
                    _ => return Err(RequestRefusal::Framing),
                };
                Ok(bytes.get(1..).unwrap_or_default())
            }
        }
    }

    /// Empty lines before a request line (RFC 9112 §2.2), no more of them than detection bears.
    fn between<'a>(&mut self, bytes: &'a [u8], cr: bool) -> Result<&'a [u8], RequestRefusal> {
        self.asked.clear();
        match (cr, bytes.first()) {
            (false, Some(byte)) if is_token(*byte) => {
                self.state = State::Head;
                return Ok(bytes);
            }
            _ if self.said.bytes >= LEADING_BYTES_MAX => return Err(RequestRefusal::Line),
            (false, Some(b'\r')) => self.state = State::Between { cr: true },
            (true, Some(b'\n')) => self.state = State::Between { cr: false },
            _ => return Err(RequestRefusal::Line),
        }
        self.said.bytes += 1;
        Ok(bytes.get(1..).unwrap_or_default())
    }

    /// Takes bytes up to the end of the line, or keeps them until it comes.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], RequestRefusal> {
        let end = memchr(b'\n', bytes).map(|at| at + 1);
        let (piece, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or((bytes, &[]));
        self.said.bytes += piece.len();
        match self.state {
            State::ChunkSize if self.line.len() + piece.len() > CHUNK_LINE_BYTES_MAX => {
                return Err(RequestRefusal::Chunks);
            }
            State::Head if self.said.bytes > self.limits.head_bytes_max => {
                return Err(RequestRefusal::HeadersTooLarge);
            }
            State::Trailers if self.said.bytes > TRAILER_BYTES_MAX => {
                return Err(RequestRefusal::HeadersTooLarge);
            }
            _ => {}
        }
        match end {
            None => self.line.extend_from_slice(piece),
            Some(_) if self.line.is_empty() => self.on_line(piece)?,
            Some(_) => {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.on_line(&line)?;
            }
        }
        Ok(rest)
    }

    /// A whole line with its end.
    fn on_line(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let line = exact_line(line)?;
        match self.state {
            State::ChunkSize => self.on_chunk_size(line)?,
            State::Trailers if line.is_empty() => self.end_of_request(),
            State::Trailers => {
                field(line)?;
                self.count_field()?;
            }
            _ if !self.said.request_line => self.on_request_line(line)?,
            _ if line.is_empty() => self.end_of_head()?,
            _ => self.on_field(line)?,
        }
        Ok(())
    }

    fn on_request_line(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        self.said.http11 = request_line(line)?;
        self.said.request_line = true;
        self.said.switches = line.starts_with(b"CONNECT ");
        if line.len() <= REQUEST_LINE_KEPT {
            self.asked.extend_from_slice(line);
        }
        Ok(())
    }

    fn on_field(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let (name, value) = field(line)?;
        self.count_field()?;
        // Three lengths, so that most names are not compared at all.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = is_length(value).then(|| decimal(value)).flatten();
                if length.is_none() || self.said.length.is_some() {
                    return Err(RequestRefusal::Framing);
                }
                self.said.length = length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                if self.said.chunked || !self.said.http11 || !chunked {
                    return Err(RequestRefusal::Framing);
                }
                self.said.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.said.switches |= self.said.http11,
            _ => {}
        }
        Ok(())
    }

    fn count_field(&mut self) -> Result<(), RequestRefusal> {
        self.said.fields += 1;
        if self.said.fields > self.limits.fields_max {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), RequestRefusal> {
        match (self.said.chunked, self.said.length) {
            (true, Some(_)) => return Err(RequestRefusal::Framing),
            (true, None) => self.state = State::ChunkSize,
            // What has a body is never upgraded (GW7), and CONNECT has none.
            (false, None | Some(0)) if self.said.switches => {
                self.end_of_request();
                self.state = State::Waiting;
            }
            (false, None | Some(0)) => self.end_of_request(),
            (false, Some(left)) => self.state = State::Body { left },
        }
        self.said.bytes = 0;
        self.said.fields = 0;
        self.heads += 1;
        Ok(())
    }

    fn on_chunk_size(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let (size, extension) = chunk_size(line).ok_or(RequestRefusal::Framing)?;
        let data = usize::try_from(size).unwrap_or(usize::MAX);
        let said = &mut self.said;
        said.extension_bytes += extension;
        // The size, its CR LF, and the one after the data.
        said.overhead_bytes = (said.overhead_bytes + line.len() + 4).saturating_sub(data);
        if said.extension_bytes > CHUNK_EXTENSION_BYTES_MAX
            || said.overhead_bytes > CHUNK_OVERHEAD_BYTES_MAX
        {
            return Err(RequestRefusal::Chunks);
        }
        said.bytes = 0;
        self.state = if size == 0 {
            State::Trailers
        } else {
            State::Chunk { left: size }
        };
        Ok(())
    }

    fn end_of_request(&mut self) {
        self.said = Said::default();
        self.state = State::Between { cr: false };
    }
}

/// Drops up to `left` bytes: what is still left, and the other bytes.
fn skip(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (left - count as u64, bytes.get(count..).unwrap_or_default())
}

/// A whole line without its end, which is CR LF and nothing else.
pub(crate) fn exact_line(line: &[u8]) -> Result<&[u8], RequestRefusal> {
    line.strip_suffix(b"\r\n")
        .filter(|line| memchr(b'\r', line).is_none())
        .ok_or(RequestRefusal::Line)
}

/// Method, target and version with one space between; whether it is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<bool, RequestRefusal> {
    let first = memchr(b' ', line).ok_or(RequestRefusal::Line)?;
    let last = memrchr(b' ', line)
        .filter(|last| *last > first + 1)
        .ok_or(RequestRefusal::Line)?;
    let (method, target) = (
        line.get(..first).unwrap_or_default(),
        line.get(first + 1..last).unwrap_or_default(),
    );
    if !method.iter().all(|byte| is_token(*byte))
        || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
    {
        return Err(RequestRefusal::Line);
    }
    // What stands after `#` would be neither judged nor forwarded (PA8). What makes no
    // URI, nobody behind us could take.
    let plain = target.first() == Some(&b'/') && target.iter().all(|byte| is_plain(*byte));
    if !plain && (memchr(b'#', target).is_some() || Uri::try_from(target).is_err()) {
        return Err(RequestRefusal::Target);
    }
    match line.get(last + 1..) {
        Some(b"HTTP/1.1") => Ok(true),
        Some(b"HTTP/1.0") => Ok(false),
        _ => Err(RequestRefusal::Version),
    }
}

/// A byte that stands in most targets, and may in any.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'?' | b'=' | b'&' | b'%')
}

/// Name and value of a field, without the blanks around the value.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), RequestRefusal> {
    let colon = memchr(b':', line)
        .filter(|colon| *colon > 0)
        .ok_or(RequestRefusal::Line)?;
    let (name, value) = (
        line.get(..colon).unwrap_or_default(),
        line.get(colon + 1..).unwrap_or_default(),
    );
    // Also refuses `Name :` and folded lines, which begin with a blank.
    if !name.iter().all(|byte| is_token(*byte))
        || value
            .iter()
            .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(RequestRefusal::Line);
    }
    Ok((name, value.trim_ascii()))
}

/// Size of the chunk and bytes of its extension: hexadecimal digits, then nothing or an extension of visible characters.
pub(crate) fn chunk_size(line: &[u8]) -> Option<(u64, usize)> {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, extension) = line.split_at_checked(end)?;
    let plain = extension
        .iter()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if digits.is_empty()
        || digits.len() > 15
        || !plain
        || !matches!(extension.first(), None | Some(b';'))
    {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((size, extension.len()))
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
