//! The head of an answer as it goes to a client: one form, one length, and whether the connection outlives it.

use super::fields::says;
use super::writer::{BodyWriter, Framing, WrongLength, put_field, put_length};
use crate::http_hygiene::framing::length_of;
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;

/// Bytes that a head has beside the fields of its answer: status, length, and what becomes of the connection.
const OWN_BYTES_MAX: usize = 160;
/// A body up to this has its room beside the head.
const SHORT_BODY_BYTES: u64 = 8 * 1024;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether the client speaks HTTP/1.1; otherwise 1.0.
    pub http11: bool,
    /// Whether the method is HEAD.
    pub head: bool,
    /// Whether it may switch protocols: only then is there a `101`.
    pub may_switch: bool,
    /// Whether the connection outlives the answer, as far as it is up to the client.
    pub persists: bool,
}

/// Why an answer cannot be sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unspeakable {
    /// It says one length and means another.
    #[error(transparent)]
    Length(#[from] WrongLength),
    /// An interim answer, or a switch that nobody asked for: what follows it would be read as something else.
    #[error("its status is no answer to the request")]
    Status,
}

/// An answer whose head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Frames its body. Done from the beginning if it has none, whatever its head says of one.
    pub body: BodyWriter,
    /// Whether the connection ends with it.
    pub closes: bool,
}

/// Writes the head of an answer: its status, its fields, the length of its body (`length`: bytes, if they are known), and
/// what becomes of the connection (`closes`: it ends in any case). Nothing is written if it cannot be sent.
///
/// Names and values hold no CR and no LF: that is what their types are for.
///
/// # Errors
/// [`Unspeakable`].
pub fn put_head(
    out: &mut Vec<u8>,
    parts: &Parts,
    asked: Asked,
    length: Option<u64>,
    closes: bool,
) -> Result<Begun, Unspeakable> {
    let status = parts.status;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if status.is_informational() && !(switches && asked.may_switch) {
        return Err(Unspeakable::Status);
    }
    let said = length_of(&parts.headers).map_err(|_| WrongLength)?;
    let (told, framing) = framing(status, asked, said, length)?;
    let says_close = says(&parts.headers, b"close");
    let closes = closes || !asked.persists || says_close || framing == Framing::UntilClose;

    // For all of it at once, and for a short body behind it.
    let bytes = parts.headers.iter();
    let bytes = bytes.map(|(name, value)| name.as_str().len() + value.len() + 4);
    let short = length.filter(|length| *length <= SHORT_BODY_BYTES);
    let short = short.and_then(|length| usize::try_from(length).ok());
    out.reserve(OWN_BYTES_MAX + bytes.sum::<usize>() + short.unwrap_or_default());
    put_status(out, asked.http11, status);
    for (name, value) in &parts.headers {
        // These are said below, as they are on this connection.
        if *name == CONTENT_LENGTH
            || *name == TRANSFER_ENCODING
            || (*name == CONNECTION && !switches)
        {
            continue;
        }
        put_field(out, name.as_str(), value.as_bytes());
    }
    if let Some(length) = told {
        put_length(out, length);
    } else if framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if switches {
    } else if closes {
        out.extend_from_slice(b"connection: close\r\n");
    } else if !asked.http11 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Begun {
        body: BodyWriter(framing),
        closes,
    })
}

/// The length that the head says, and how the body is framed (RFC 9112 §6.3, RFC 9110 §8.6).
fn framing(
    status: StatusCode,
    asked: Asked,
    said: Option<u64>,
    length: Option<u64>,
) -> Result<(Option<u64>, Framing), WrongLength> {
    const NONE: Framing = Framing::Length(0);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Ok((None, NONE));
    }
    if status == StatusCode::NOT_MODIFIED {
        return Ok((said, NONE));
    }
    if asked.head {
        // What GET would have. That there is no body here says nothing of it.
        return Ok((said.or(length.filter(|length| *length > 0)), NONE));
    }
    match (said, length) {
        (Some(said), Some(length)) if said != length => Err(WrongLength),
        (Some(length), _) | (None, Some(length)) => Ok((Some(length), Framing::Length(length))),
        (None, None) if asked.http11 => Ok((None, Framing::Chunked)),
        (None, None) => Ok((None, Framing::UntilClose)),
    }
}

fn put_status(out: &mut Vec<u8>, http11: bool, status: StatusCode) {
    if http11 && status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let version: &[u8] = if http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    let reason = status.canonical_reason().unwrap_or_default();
    for piece in [
        version,
        status.as_str().as_bytes(),
        b" ",
        reason.as_bytes(),
        b"\r\n",
    ] {
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests;
