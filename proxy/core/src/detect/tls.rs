//! A TLS ClientHello, reassembled from any number of records, for its server name alone (RFC 8446 §4.1.2, RFC 6066 §3).

use super::{Detection, Malformed, OpaqueReason};

/// Content type of a handshake record.
pub(super) const HANDSHAKE: u8 = 0x16;

/// Bytes that a record may carry (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// Longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Answers for bytes that begin with a handshake record's type.
pub(super) fn client_hello(bytes: &[u8]) -> Detection {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        match record(rest) {
            Record::NeedMore => return Detection::NeedMore,
            // Only the first record tells whether this is TLS at all; a broken second one is a broken ClientHello.
            Record::NotTls if message.is_empty() => {
                return Detection::Opaque(OpaqueReason::NotHttp);
            }
            Record::NotTls => return Detection::Malformed(Malformed::ClientHello),
            Record::Payload(payload, after) => {
                message.extend_from_slice(payload);
                rest = after;
            }
        }
        match whole_message(&message) {
            Message::NeedMore => {}
            Message::OtherType => return Detection::Malformed(Malformed::ClientHello),
            Message::Body(body) => {
                return match server_name(body) {
                    Ok(sni) => Detection::Tls { sni },
                    Err(Broken) => Detection::Malformed(Malformed::ClientHello),
                };
            }
        }
    }
}

enum Record<'a> {
    NeedMore,
    NotTls,
    Payload(&'a [u8], &'a [u8]),
}

fn record(bytes: &[u8]) -> Record<'_> {
    for (at, ok) in [|b: u8| b == HANDSHAKE, |b| b == 3, |b| b <= 4]
        .iter()
        .enumerate()
    {
        match bytes.get(at) {
            None => return Record::NeedMore,
            Some(byte) if !ok(*byte) => return Record::NotTls,
            Some(_) => {}
        }
    }
    let (Some(high), Some(low)) = (bytes.get(3), bytes.get(4)) else {
        return Record::NeedMore;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > RECORD_BYTES_MAX {
        return Record::NotTls;
    }
    match (bytes.get(5..5 + length), bytes.get(5 + length..)) {
        (Some(payload), Some(after)) => Record::Payload(payload, after),
        _ => Record::NeedMore,
    }
}

enum Message<'a> {
    NeedMore,
    OtherType,
    Body(&'a [u8]),
}

/// The first handshake message, if it is a whole ClientHello.
fn whole_message(bytes: &[u8]) -> Message<'_> {
    match bytes {
        [] => Message::NeedMore,
        [kind, ..] if *kind != 1 => Message::OtherType,
        [_, a, b, c, body @ ..] => {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            body.get(..length).map_or(Message::NeedMore, Message::Body)
        }
        _ => Message::NeedMore,
    }
}

/// The bytes contradict their own lengths, or the name is not usable.
struct Broken;

/// What is left to read of a message; every `take` is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Broken> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector with its length before it.
    fn vector(&mut self, length_bytes: usize) -> Result<Self, Broken> {
        let length = self.number(length_bytes)?;
        self.take(length).map(Reader)
    }
}

fn server_name(body: &[u8]) -> Result<Option<String>, Broken> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // legacy_version, random
    let session = hello.vector(1)?.0.len();
    let suites = hello.vector(2)?.0.len();
    let compressions = hello.vector(1)?.0.len();
    if session > 32 || suites == 0 || suites % 2 != 0 || compressions == 0 {
        return Err(Broken);
    }
    if hello.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = hello.vector(2)?;
    if !hello.0.is_empty() {
        return Err(Broken);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let data = extensions.vector(2)?;
        if kind == 0 {
            // Two server names are two readings of one hello.
            if found.is_some() {
                return Err(Broken);
            }
            found = Some(host_name(data)?);
        }
    }
    Ok(found)
}

fn host_name(mut extension: Reader<'_>) -> Result<String, Broken> {
    let mut list = extension.vector(2)?;
    let kind = list.number(1)?;
    let name = list.vector(2)?.0;
    let shape = kind == 0
        && extension.0.is_empty()
        && list.0.is_empty()
        && (1..=HOST_BYTES_MAX).contains(&name.len());
    let bytes = name
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let text = std::str::from_utf8(name).map_err(|_| Broken)?;
    if !shape || !bytes || text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(Broken);
    }
    Ok(text.to_ascii_lowercase())
}
