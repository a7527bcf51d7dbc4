//! A request on its way to an application: one head, one length, and a body that keeps it.

use crate::http_hygiene::framing::length_of;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use std::io::Write;

/// Why a request cannot be sent as it is: whoever sends it said one length and meant another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of the request is not as long as its head says")]
pub struct WrongLength;

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

/// Frames the body of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWriter(Framing);

/// Writes the head of a request in the one form that it has: the target of its URI, its fields, and the length of its
/// body if that has one. `length`: bytes of the body, if they are known; 0 is no body.
///
/// # Errors
/// [`WrongLength`] if the fields say another length, or none that is plain.
pub fn put_head(
    out: &mut Vec<u8>,
    parts: &Parts,
    length: Option<u64>,
) -> Result<BodyWriter, WrongLength> {
    let said = length_of(&parts.headers).map_err(|_| WrongLength)?;
    if said.is_some() && length.is_some() && said != length {
        return Err(WrongLength);
    }
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    for piece in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    for (name, value) in &parts.headers {
        if *name == TRANSFER_ENCODING {
            continue; // the framing of another hop
        }
        put_field(out, name.as_str(), value.as_bytes());
    }
    let framing = match (said.or(length), said) {
        (Some(length), None) if length > 0 => {
            let mut digits = [0; 20];
            put_field(out, CONTENT_LENGTH.as_str(), decimal(length, &mut digits));
            Framing::Length(length)
        }
        (Some(length), _) => Framing::Length(length),
        (None, _) => {
            put_field(out, TRANSFER_ENCODING.as_str(), b"chunked");
            Framing::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(BodyWriter(framing))
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// The digits of a number.
fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut rest = &mut digits[..];
    let _ = write!(rest, "{number}"); // 20 digits hold any
    let left = rest.len();
    digits.get(..20 - left).unwrap_or_default()
}

impl BodyWriter {
    /// Whether nothing more is to be sent.
    pub fn is_done(self) -> bool {
        self.0 == Framing::Length(0)
    }

    /// Writes what stands before so many bytes of data, which come next; returns what stands after them.
    ///
    /// # Errors
    /// [`WrongLength`] if they are more than the head says.
    pub fn before_data(
        &mut self,
        out: &mut Vec<u8>,
        bytes: usize,
    ) -> Result<&'static [u8], WrongLength> {
        match &mut self.0 {
            Framing::Length(left) => {
                *left = left.checked_sub(bytes as u64).ok_or(WrongLength)?;
                Ok(b"")
            }
            Framing::Chunked if bytes == 0 => Ok(b""), // would be the last one
            Framing::Chunked => {
                let _ = write!(out, "{bytes:x}\r\n"); // a vector takes whatever is written
                Ok(b"\r\n")
            }
        }
    }

    /// Writes what stands at the end. Trailers are not sent: HTTP/1 applications are not asked whether they take them.
    ///
    /// # Errors
    /// [`WrongLength`] if the head says that more would come.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        match std::mem::replace(&mut self.0, Framing::Length(0)) {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(WrongLength),
            Framing::Chunked => {
                out.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }
}
