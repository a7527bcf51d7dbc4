//! A request on its way to an application: one head, one length, and a body that keeps it.

use super::writer::{BodyWriter, Framing, WrongLength, put_field, put_length};
use crate::http_hygiene::framing::length_of;
use http::header::TRANSFER_ENCODING;
use http::request::Parts;
use http::uri::PathAndQuery;

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
            put_length(out, length);
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
