//! HTTP/1 requests as bytes, checked before the HTTP library reads them.
//!
//! hyper (1.12) is lenient where RFC 9112 lets it be, and by the time that we get a request the evidence is gone:
//! `Content-Length` beside `Transfer-Encoding`, the same `Content-Length` twice, lines that end in LF alone. A server
//! before or behind us may read such a request as two. [`Http1Guard`] sees every byte that a client sends, follows where
//! requests begin and end, and refuses what is not exact; what it lets through has one reading, hyper's too.
//!
//! It keeps no more than a line that came in pieces, and allocates only for those.

use super::RequestRefusal;
use super::framing::is_length;
use crate::detect::is_token;
use memchr::{memchr, memrchr};

/// A chunk's size line, extension included. Nobody we know sends one above 20.
const CHUNK_LINE_BYTES_MAX: usize = 256;

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
    /// Something else than HTTP/1 from here on.
    Over,
    /// Refused; everything that follows is too.
    Refused(RequestRefusal),
}

/// What a head has said of its body so far.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    request_line: bool,
    http11: bool,
    length: Option<u64>,
    chunked: bool,
    bytes: usize,
}

/// Follows the bytes of one HTTP/1 connection from its client.
#[derive(Debug)]
pub struct Http1Guard {
    state: State,
    said: Said,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    head_bytes_max: usize,
}

impl Http1Guard {
    /// At the beginning of a connection. A head, or the trailers, of more than `head_bytes_max` bytes are refused.
    pub fn new(head_bytes_max: usize) -> Self {
        Self {
            state: State::Between { cr: false },
            said: Said::default(),
            line: Vec::new(),
            head_bytes_max,
        }
    }

    /// Takes the next bytes, of any number.
    ///
    /// # Errors
    /// [`RequestRefusal`] as soon as the bytes are not exact HTTP/1. The caller answers with it, if it still can, and
    /// closes; it stays.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RequestRefusal> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.step(rest) {
                Ok(after) => rest = after,
                Err(refusal) => {
                    self.state = State::Refused(refusal);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// The connection was upgraded: what follows is not HTTP/1. Call it before the client is told.
    pub fn on_upgraded(&mut self) {
        self.state = State::Over;
    }

    /// Takes some bytes and returns the others.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], RequestRefusal> {
        match self.state {
            State::Refused(refusal) => Err(refusal),
            State::Over => Ok(&[]),
            State::Between { cr } => self.between(bytes, cr),
            State::Head | State::ChunkSize | State::Trailers => self.take_line(bytes),
            State::Body { left } => {
                let (left, rest) = skip(bytes, left);
                self.state = if left == 0 {
                    State::Between { cr: false }
                } else {
                    State::Body { left }
                };
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

    /// Empty lines before a request line (RFC 9112 §2.2).
    fn between<'a>(&mut self, bytes: &'a [u8], cr: bool) -> Result<&'a [u8], RequestRefusal> {
        match (cr, bytes.first()) {
            (false, Some(b'\r')) => self.state = State::Between { cr: true },
            (true, Some(b'\n')) => self.state = State::Between { cr: false },
            (false, Some(byte)) if is_token(*byte) => {
                self.said = Said::default();
                self.state = State::Head;
                return Ok(bytes);
            }
            _ => return Err(RequestRefusal::Line),
        }
        Ok(bytes.get(1..).unwrap_or_default())
    }

    /// Takes bytes up to the end of the line, or keeps them until it comes.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], RequestRefusal> {
        let end = memchr(b'\n', bytes).map(|at| at + 1);
        let (piece, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or((bytes, &[]));
        self.said.bytes += piece.len();
        let too_long =
            self.state == State::ChunkSize && self.line.len() + piece.len() > CHUNK_LINE_BYTES_MAX;
        if too_long || self.said.bytes > self.head_bytes_max {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        match end {
            None => self.line.extend_from_slice(piece),
            Some(_) if self.line.is_empty() => self.on_line(piece)?,
            Some(_) => {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                let result = self.on_line(&line);
                line.clear();
                self.line = line;
                result?;
            }
        }
        Ok(rest)
    }

    /// A whole line with its end.
    fn on_line(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let line = line
            .strip_suffix(b"\r\n")
            .filter(|line| memchr(b'\r', line).is_none())
            .ok_or(RequestRefusal::Line)?;
        match self.state {
            State::ChunkSize => {
                let size = chunk_size(line).ok_or(RequestRefusal::Framing)?;
                self.said.bytes = 0;
                self.state = if size == 0 {
                    State::Trailers
                } else {
                    State::Chunk { left: size }
                };
            }
            State::Trailers if line.is_empty() => self.state = State::Between { cr: false },
            State::Trailers => drop(field(line)?),
            _ if !self.said.request_line => {
                self.said.http11 = request_line(line)?;
                self.said.request_line = true;
            }
            _ if line.is_empty() => self.end_of_head()?,
            _ => self.on_field(line)?,
        }
        Ok(())
    }

    fn on_field(&mut self, line: &[u8]) -> Result<(), RequestRefusal> {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = is_length(value).then(|| decimal(value)).flatten();
            if length.is_none() || self.said.length.is_some() {
                return Err(RequestRefusal::Framing);
            }
            self.said.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.said.chunked || !self.said.http11 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(RequestRefusal::Framing);
            }
            self.said.chunked = true;
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), RequestRefusal> {
        self.state = match (self.said.chunked, self.said.length) {
            (true, Some(_)) => return Err(RequestRefusal::Framing),
            (true, None) => State::ChunkSize,
            (false, None | Some(0)) => State::Between { cr: false },
            (false, Some(left)) => State::Body { left },
        };
        self.said.bytes = 0;
        Ok(())
    }
}

/// Drops up to `left` bytes: what is still left, and the other bytes.
fn skip(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (left - count as u64, bytes.get(count..).unwrap_or_default())
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
    // What stands after `#` would be neither judged nor forwarded (PA8).
    if memchr(b'#', target).is_some() {
        return Err(RequestRefusal::Target);
    }
    match line.get(last + 1..) {
        Some(b"HTTP/1.1") => Ok(true),
        Some(b"HTTP/1.0") => Ok(false),
        _ => Err(RequestRefusal::Version),
    }
}

/// Name and value of a field, without the blanks around the value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), RequestRefusal> {
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

/// Hexadecimal digits, then nothing or an extension of visible characters.
fn chunk_size(line: &[u8]) -> Option<u64> {
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
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use RequestRefusal::{Framing, HeadersTooLarge, Line, Target, Version};
    use proptest::prelude::*;

    fn told(bytes: &[u8]) -> Result<(), RequestRefusal> {
        Http1Guard::new(4_096).push(bytes)
    }

    #[test]
    fn requests_that_two_servers_could_read_differently_are_refused() {
        for (bytes, why, case) in [
            (&b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"[..], Framing, "H1-1 TE.CL"),
            (b"POST / HTTP/1.1\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Framing, "H1-1 CL.TE"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", Framing, "H1-2 twice"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\n", Framing, "H1-2"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n", Framing, "H1-2"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: \x0bchunked\r\n\r\n", Line, "H1-2 control"),
            (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Framing, "H1-2 in 1.0"),
            (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", Framing, "H1-3 same"),
            (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Framing, "H1-3"),
            (b"POST / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n", Framing, "H1-3 list"),
            (b"POST / HTTP/1.1\r\ncontent-length: +5\r\n\r\n", Framing, "H1-4"),
            (b"POST / HTTP/1.1\r\ncontent-length: 0x5\r\n\r\n", Framing, "H1-4"),
            (b"POST / HTTP/1.1\r\ncontent-length: 05\r\n\r\n", Framing, "H1-4"),
            (b"POST / HTTP/1.1\r\ncontent-length:\r\n\r\n", Framing, "H1-4 empty"),
            (b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n", Framing, "H1-4 long"),
            (b"GET / HTTP/1.1\nhost: a\n\n", Line, "H1-6 bare LF"),
            (b"GET / HTTP/1.1\r\nhost: a\n\r\n", Line, "H1-6 bare LF in a field"),
            (b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", Line, "H1-6 bare CR"),
            (b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", Line, "HD5 folded"),
            (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", Line, "HD4"),
            (b"GET / HTTP/1.1\r\n: a\r\n\r\n", Line, "HD4 no name"),
            (b"GET / HTTP/1.1\r\nhost\r\n\r\n", Line, "no colon"),
            (b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", Line, "HD7"),
            (b"GET  / HTTP/1.1\r\n\r\n", Line, "H1-14 two spaces"),
            (b"GET\t/ HTTP/1.1\r\n\r\n", Line, "H1-14 tab"),
            (b"GET / HTTP/1.1 \r\n\r\n", Line, "H1-14 space at the end"),
            (b"GET / HTTP/1.01\r\n\r\n", Version, "H1-14"),
            (b"GET / HTTP/2.0\r\n\r\n", Version, "H1-14"),
            (b"GET /\r\n\r\n", Line, "PD6"),
            (b"GET / HTTP/0.9\r\n\r\n", Version, "PD6"),
            (b"GET /admin#f HTTP/1.1\r\n\r\n", Target, "PA8"),
            (b"G{T / HTTP/1.1\r\n\r\n", Line, "PD7"),
            (b"\nGET / HTTP/1.1\r\n\r\n", Line, "PD5"),
            (b"\rGET / HTTP/1.1\r\n\r\n", Line, "PD5"),
        ] {
            assert_eq!(told(bytes), Err(why), "{case}: {:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn chunks_that_two_servers_could_read_differently_are_refused() {
        for (chunks, why, case) in [
            (&b"0x5\r\nhello\r\n"[..], Framing, "H1-5"),
            (b"+5\r\nhello\r\n", Framing, "H1-5"),
            (b"5_0\r\n", Framing, "H1-5"),
            (b"\r\n", Framing, "H1-5 empty"),
            (b"10000000000000000\r\n", Framing, "H1-5 overflow"),
            (b"5 \r\nhello\r\n", Framing, "H1-5 space"),
            (b"5\nhello\r\n", Line, "H1-6"),
            (b"5\r\nhello\n", Framing, "H1-6 data end"),
            (b"5\r\nhelloX\r\n", Framing, "H1-6 spill"),
            (b"5;a\nb\r\nhello\r\n", Line, "H1-6 LF in an extension"),
            (b"5;a\0\r\nhello\r\n", Framing, "H1-8"),
            (b"0\r\nx y: z\r\n\r\n", Line, "trailer"),
        ] {
            let request = [
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
                chunks,
            ]
            .concat();
            assert_eq!(
                told(&request),
                Err(why),
                "{case}: {:?}",
                String::from_utf8_lossy(chunks)
            );
        }
        let long = [
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;".to_vec(),
            vec![b'a'; 300],
        ]
        .concat();
        assert_eq!(told(&long), Err(HeadersTooLarge), "H1-7");
    }

    #[test]
    fn heads_and_trailers_without_end_are_cut_off() {
        let head = [b"GET / HTTP/1.1\r\n".to_vec(), b"x: y\r\n".repeat(1_000)].concat();
        assert_eq!(told(&head), Err(HeadersTooLarge));
        let line = [b"GET /".to_vec(), vec![b'a'; 5_000]].concat();
        assert_eq!(told(&line), Err(HeadersTooLarge));
        let trailers = [
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n".to_vec(),
            b"x: y\r\n".repeat(1_000),
        ]
        .concat();
        assert_eq!(told(&trailers), Err(HeadersTooLarge));
    }

    #[test]
    fn a_refusal_stays() {
        let mut guard = Http1Guard::new(4_096);
        assert_eq!(guard.push(b"GET / HTTP/1.1\n"), Err(Line));
        assert_eq!(guard.push(b"GET / HTTP/1.1\r\n\r\n"), Err(Line));
    }

    #[test]
    fn a_body_is_not_read_as_a_request_and_what_follows_it_is() {
        let body = b"GET / HTTP/1.1\nx\n";
        let request = [
            format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
            body,
        ]
        .concat();
        assert_eq!(told(&request), Ok(()));
        assert_eq!(
            told(&[&request[..], b"\r\nGET / HTTP/1.1\r\n\r\n"].concat()),
            Ok(())
        );
        assert_eq!(
            told(&[&request[..], b"GET / HTTP/1.1\n"].concat()),
            Err(Line),
            "the next request is judged"
        );
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;name=v\r\n\n\r\n\r\n0\r\nx-sum: 1\r\n\r\n";
        assert_eq!(
            told(&[&chunked[..], b"GET / HTTP/1.0\r\n\r\n"].concat()),
            Ok(())
        );
    }

    #[test]
    fn after_an_upgrade_bytes_are_bytes_and_before_it_they_are_not() {
        let upgrade = b"GET /chat HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
        let mut guard = Http1Guard::new(4_096);
        assert_eq!(guard.push(upgrade), Ok(()));
        guard.on_upgraded();
        assert_eq!(guard.push(b"\x81\x05hello\n"), Ok(()));
        let mut early = Http1Guard::new(4_096);
        assert_eq!(
            early.push(&[&upgrade[..], b"\x81\x05hello"].concat()),
            Err(Line),
            "GW7"
        );
    }

    fn requests() -> impl Strategy<Value = Vec<u8>> {
        let one = prop_oneof![
            Just(b"GET /a?b HTTP/1.1\r\nhost: cart\r\n\r\n".to_vec()),
            Just(b"\r\nHEAD / HTTP/1.0\r\n\r\n".to_vec()),
            Just(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\r\n\r\n".to_vec()),
            Just(
                b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n"
                    .to_vec()
            ),
        ];
        proptest::collection::vec(one, 1..6).prop_map(|requests| requests.concat())
    }

    /// The plain oracle: another parser, fed the whole input, bodies skipped. How many requests it reads.
    fn count_by_httparse(mut bytes: &[u8]) -> Option<usize> {
        let mut count = 0;
        while !bytes.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            let httparse::Status::Complete(end) = request.parse(bytes).ok()? else {
                return None;
            };
            let value = |name: &str| {
                request
                    .headers
                    .iter()
                    .find(|h| h.name.eq_ignore_ascii_case(name))
                    .map(|h| h.value)
            };
            let (length, chunked) = (
                value("content-length"),
                value("transfer-encoding").is_some(),
            );
            bytes = &bytes[end..];
            if let Some(length) = length {
                bytes = bytes.get(std::str::from_utf8(length).ok()?.parse::<usize>().ok()?..)?;
            }
            let mut more = chunked;
            while more {
                let httparse::Status::Complete((start, size)) =
                    httparse::parse_chunk_size(bytes).ok()?
                else {
                    return None;
                };
                bytes = bytes.get(start + size as usize..)?.strip_prefix(b"\r\n")?;
                more = size > 0;
            }
            count += 1;
        }
        Some(count)
    }

    /// How many requests the guard sees, if it lets all bytes through and they end with a request.
    fn count_by_guard(bytes: &[u8]) -> Option<usize> {
        let (mut guard, mut count) = (Http1Guard::new(4_096), 0);
        for byte in bytes {
            let before = guard.state;
            guard.push(std::slice::from_ref(byte)).ok()?;
            count += usize::from(before != State::Head && guard.state == State::Head);
        }
        (guard.state == State::Between { cr: false }).then_some(count)
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_answer(mut bytes in requests(), at in any::<prop::sample::Index>(), byte in any::<u8>(), change in any::<bool>(), size in 1usize..20) {
            if change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut guard = Http1Guard::new(4_096);
            let pieces = bytes.chunks(size).try_for_each(|piece| guard.push(piece));
            prop_assert_eq!(pieces, told(&bytes));
        }

        #[test]
        fn exact_requests_pass_and_another_parser_sees_the_same_ones(mut bytes in requests(), at in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b' '), Just(b':')]) {
            prop_assert_eq!(count_by_guard(&bytes), count_by_httparse(&bytes));
            prop_assert!(count_by_guard(&bytes).is_some());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let (Some(ours), Some(theirs)) = (count_by_guard(&bytes), count_by_httparse(&bytes)) {
                prop_assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(&bytes));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = told(&bytes);
        }
    }
}
