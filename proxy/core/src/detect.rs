//! Which protocol a connection speaks, told from its first bytes and never guessed.
//!
//! The answer depends on the bytes alone, not on how they were cut into segments: what could still become HTTP or TLS
//! is waited for, and the caller bounds the wait (from accept, not per read) with [`Detector::on_timeout`].
//! Three kinds of answer: a protocol; [`Detection::Opaque`], bytes that no HTTP server would read as a request, which
//! policy judges as raw TCP; and [`Detection::Malformed`], bytes that are nearly a protocol. Those are closed whatever
//! policy says, because a lenient server behind us might read them as the request that policy never saw.

mod tls;

use bytes::{Bytes, BytesMut};

/// The HTTP/2 connection preface (RFC 9113 §3.4).
pub const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First bytes of a PROXY protocol v2 preamble. Nobody may tell us a source address.
const PROXY_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Method tokens longer than this are refused (RFC 9110 names none above 17).
pub const METHOD_BYTES_MAX: usize = 32;

/// Blank bytes before a request line: RFC 9112 §2.2 asks for tolerance of one empty line, peers send at most a few.
pub(crate) const LEADING_BYTES_MAX: usize = 64;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectPolicy {
    /// Whether a TLS ClientHello is told apart; if not, it is opaque bytes.
    pub tls: bool,
    /// Bytes held while undecided; a first line or ClientHello beyond is malformed. Also bounds memory per connection.
    pub bytes_max: usize,
}

impl Default for DetectPolicy {
    fn default() -> Self {
        Self {
            tls: false,
            bytes_max: 16 * 1024,
        }
    }
}

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Could still become more than one thing.
    NeedMore,
    /// A request line of HTTP/1; whether all of it is right is for the HTTP parser, which refuses by itself.
    Http1,
    /// The whole HTTP/2 preface.
    Http2,
    /// A whole ClientHello.
    Tls {
        /// Host name asked for.
        sni: Option<String>,
    },
    /// Neither: raw TCP, if policy permits that.
    Opaque(OpaqueReason),
    /// Close, whatever policy says.
    Malformed(Malformed),
}

/// Why bytes count as raw TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpaqueReason {
    /// They cannot be HTTP.
    NotHttp,
    /// The client said nothing in time, as where servers speak first.
    Silent,
    /// Time is up, and what came is no beginning of a usual request.
    TimedOut,
    /// The client closed without a byte: what a TCP probe does.
    Empty,
    /// The client finished with less than a line, no beginning of a usual request.
    Ended,
}

/// What is nearly a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// `PRI ` and then not the HTTP/2 preface.
    Preface,
    /// A request line with a version that is not HTTP/1.0 or HTTP/1.1, or not of three parts.
    RequestLine,
    /// A method of more than [`METHOD_BYTES_MAX`] bytes, or not a token.
    Method,
    /// Blanks or NUL before a request line.
    LeadingBytes,
    /// A PROXY protocol preamble.
    ProxyProtocol,
    /// A ClientHello that breaks its own lengths, or an unusable server name.
    ClientHello,
    /// More than [`DetectPolicy::bytes_max`] without an answer.
    TooLong,
    /// Ended or timed out inside the beginning of a request, preface or ClientHello.
    Truncated,
}

impl Malformed {
    /// Whether these are the bytes of an HTTP/1 request gone wrong, so that its client can be told in HTTP.
    pub const fn is_request(self) -> bool {
        matches!(self, Self::RequestLine | Self::Method | Self::LeadingBytes)
    }

    /// Short text for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preface => "http2-preface",
            Self::RequestLine => "request-line",
            Self::Method => "method",
            Self::LeadingBytes => "leading-bytes",
            Self::ProxyProtocol => "proxy-protocol",
            Self::ClientHello => "client-hello",
            Self::TooLong => "too-long",
            Self::Truncated => "truncated",
        }
    }
}

/// Collects the first bytes of a connection until they tell.
///
/// Every answer but [`Detection::NeedMore`] is final: later calls repeat it.
#[derive(Debug)]
pub struct Detector {
    policy: DetectPolicy,
    bytes: BytesMut,
    answer: Detection,
}

impl Detector {
    /// No byte yet.
    pub fn new(policy: DetectPolicy) -> Self {
        Self {
            policy,
            bytes: BytesMut::new(),
            answer: Detection::NeedMore,
        }
    }

    /// Takes the bytes that came, keeps them, and answers for all so far.
    pub fn push(&mut self, piece: &[u8]) -> Detection {
        self.bytes.extend_from_slice(piece);
        self.settle(classify)
    }

    /// The caller will wait no longer.
    pub fn on_timeout(&mut self) -> Detection {
        self.settle(|policy, bytes| match classify(policy, bytes) {
            Detection::NeedMore if bytes.is_empty() => Detection::Opaque(OpaqueReason::Silent),
            Detection::NeedMore if begins_a_protocol(policy, bytes) => {
                Detection::Malformed(Malformed::Truncated)
            }
            Detection::NeedMore => Detection::Opaque(OpaqueReason::TimedOut),
            told => told,
        })
    }

    /// The client sends no more.
    pub fn on_eof(&mut self) -> Detection {
        self.settle(|policy, bytes| match classify(policy, bytes) {
            Detection::NeedMore if bytes.is_empty() => Detection::Opaque(OpaqueReason::Empty),
            Detection::NeedMore if begins_a_protocol(policy, bytes) => {
                Detection::Malformed(Malformed::Truncated)
            }
            Detection::NeedMore => Detection::Opaque(OpaqueReason::Ended),
            told => told,
        })
    }

    /// All bytes so far.
    pub fn prefix(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes so far, to be given to whoever reads the connection from now on.
    pub fn into_prefix(self) -> Bytes {
        self.bytes.freeze()
    }

    fn settle(&mut self, judge: impl FnOnce(&DetectPolicy, &[u8]) -> Detection) -> Detection {
        if self.answer == Detection::NeedMore {
            self.answer = judge(&self.policy, &self.bytes);
        }
        self.answer.clone()
    }
}

/// Answers for the first bytes of a connection, all of them given each time.
///
/// INVARIANT: an answer other than [`Detection::NeedMore`] stays the same however the bytes go on.
pub fn classify(policy: &DetectPolicy, bytes: &[u8]) -> Detection {
    let within = bytes.get(..policy.bytes_max).unwrap_or(bytes);
    match scan(policy, within) {
        Detection::NeedMore if bytes.len() >= policy.bytes_max => {
            Detection::Malformed(Malformed::TooLong)
        }
        told => told,
    }
}

fn scan(policy: &DetectPolicy, bytes: &[u8]) -> Detection {
    if policy.tls && bytes.first() == Some(&tls::HANDSHAKE) {
        return tls::client_hello(bytes);
    }
    if bytes.starts_with(PROXY_V2) {
        return Detection::Malformed(Malformed::ProxyProtocol);
    }
    if PROXY_V2.starts_with(bytes) {
        return Detection::NeedMore;
    }
    let leading = bytes.iter().take_while(|b| is_blank(**b)).count();
    if leading > LEADING_BYTES_MAX {
        return Detection::Malformed(Malformed::LeadingBytes);
    }
    let (blanks, rest) = bytes.split_at_checked(leading).unwrap_or((bytes, &[]));
    match scan_line(rest) {
        Detection::Http1 if !only_empty_lines(blanks) => {
            Detection::Malformed(Malformed::LeadingBytes)
        }
        Detection::Http2 if !blanks.is_empty() => Detection::Malformed(Malformed::LeadingBytes),
        told => told,
    }
}

/// Answers for bytes without blanks before them.
fn scan_line(rest: &[u8]) -> Detection {
    match rest.first() {
        None => return Detection::NeedMore,
        Some(first) if !is_token(*first) => return Detection::Opaque(OpaqueReason::NotHttp),
        Some(_) => {}
    }
    if rest.starts_with(H2_PREFACE) {
        return Detection::Http2;
    }
    if H2_PREFACE.starts_with(rest) {
        return Detection::NeedMore;
    }
    if rest.starts_with(b"PRI ") {
        return Detection::Malformed(Malformed::Preface);
    }
    if rest.starts_with(b"PROXY ") {
        return Detection::Malformed(Malformed::ProxyProtocol);
    }
    // A usual method and anything but a letter of a longer one: the HTTP parser's, which answers 400 to what is wrong after it.
    let method = rest.iter().take_while(|b| is_token(**b)).count();
    match rest.get(method) {
        Some(_) if rest.get(..method).is_some_and(is_usual_method) => return Detection::Http1,
        _ => {}
    }
    match rest.iter().position(|b| !is_text(*b)) {
        None => Detection::NeedMore,
        Some(end) => match (rest.get(end), rest.get(end + 1)) {
            (Some(b'\n'), _) => whole_line(rest.get(..end).unwrap_or_default()),
            (Some(b'\r'), None) => Detection::NeedMore,
            (Some(b'\r'), Some(b'\n')) => whole_line(rest.get(..end).unwrap_or_default()),
            _ => Detection::Opaque(OpaqueReason::NotHttp),
        },
    }
}

/// A first line that does not begin with a usual method: HTTP exactly if it says so at its end.
fn whole_line(line: &[u8]) -> Detection {
    let version = line
        .rsplit(|b| matches!(b, b' ' | b'\t'))
        .find(|word| !word.is_empty())
        .unwrap_or_default();
    if !version
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
        || version.len() == line.len()
    {
        return Detection::Opaque(OpaqueReason::NotHttp);
    }
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Detection::Malformed(Malformed::RequestLine);
    };
    if method.len() > METHOD_BYTES_MAX || !method.iter().all(|b| is_token(*b)) {
        return Detection::Malformed(Malformed::Method);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" if !target.is_empty() => Detection::Http1,
        _ => Detection::Malformed(Malformed::RequestLine),
    }
}

/// Whether undecided bytes are the beginning of what a usual client would send: then silence may not make them raw TCP.
fn begins_a_protocol(policy: &DetectPolicy, bytes: &[u8]) -> bool {
    let leading = bytes.iter().take_while(|b| is_blank(**b)).count();
    let rest = bytes.get(leading..).unwrap_or_default();
    let http =
        USUAL_METHODS.iter().any(|method| method.starts_with(rest)) || H2_PREFACE.starts_with(rest);
    // `FOO /x HTT`: a second word, and perhaps a version to come.
    let line = rest.contains(&b' ') && rest.contains(&b'/');
    http || line || policy.tls && bytes.first() == Some(&tls::HANDSHAKE)
}

const USUAL_METHODS: [&[u8]; 9] = [
    b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE",
];

fn is_usual_method(token: &[u8]) -> bool {
    USUAL_METHODS.contains(&token)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | b' ' | b'\t' | 0)
}

fn only_empty_lines(blanks: &[u8]) -> bool {
    blanks.chunks(2).all(|pair| pair == b"\r\n")
}

/// A byte of a line of text, its end excluded.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e)
}

/// A byte of a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests;
