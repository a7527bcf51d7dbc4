//! Heads and trailers as canonical bytes: no compression, so nothing is remembered between them and nothing can be guessed
//! from their lengths but their lengths.
//!
//! ```text
//! request:  method(1) authority(2) target(2) fields…      response: status fields…      trailers: fields…
//! field:    name(1) value(2)                              text(n): its length in n bytes, then its bytes
//! ```
//! Names are in lower case. What RFC 9113 §8.2 forbids in HTTP/2 is forbidden here.

use super::limits;
use bytes::{Buf, BufMut, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version, request, response};

/// Fields that a request gets on its way to its application: its host, and twice the client's identity. A map that has to grow
/// for them costs more than all else that is done with it.
const ROOM: usize = 3;

/// Why a head cannot be read. Blame: the peer's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Writes the head of a request. Its URI has a path, and mostly an authority; its scheme is not sent.
pub(super) fn put_request(out: &mut Vec<u8>, parts: &request::Parts) {
    put_short(out, parts.method.as_str().as_bytes());
    put_text(
        out,
        parts
            .uri
            .authority()
            .map_or(&b""[..], |authority| authority.as_str().as_bytes()),
    );
    let target = parts.uri.path_and_query();
    put_text(
        out,
        target.map_or(&b"/"[..], |target| target.as_str().as_bytes()),
    );
    put_fields(out, &parts.headers);
}

/// Writes the head of a response.
pub(super) fn put_response(out: &mut Vec<u8>, parts: &response::Parts) {
    out.put_u16(parts.status.as_u16());
    put_fields(out, &parts.headers);
}

/// Writes trailers. None at all are written as a count of none: a frame is never empty.
pub(super) fn put_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    put_fields(out, trailers);
}

/// What cannot be said leaves a head that is too long as a whole, and so is never sent; likewise below.
fn put_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    match u16::try_from(fields.len()) {
        Ok(count) if usize::from(count) <= limits::FIELDS_MAX => out.put_u16(count),
        _ => return out.put_bytes(0, limits::HEAD_BYTES_MAX + 1),
    }
    let start = out.len();
    for (name, value) in fields {
        put_short(out, name.as_str().as_bytes());
        // An application that speaks HTTP/2 may have put space there; where it ends up nobody would see it.
        put_text(out, value.as_bytes().trim_ascii());
        if out.len() - start > limits::HEAD_BYTES_MAX {
            return;
        }
    }
}

fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length) => out.put_u8(length),
        Err(_) => return out.put_bytes(0, limits::HEAD_BYTES_MAX + 1),
    }
    out.put_slice(text);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    match u16::try_from(text.len()) {
        Ok(length) => out.put_u16(length),
        Err(_) => return out.put_bytes(0, limits::HEAD_BYTES_MAX + 1),
    }
    out.put_slice(text);
}

/// Reads the head of a request, as HTTP/2 would have delivered it.
///
/// # Errors
/// [`Malformed`] with the first thing that is wrong.
pub fn request(mut payload: Bytes) -> Result<request::Parts, Malformed> {
    let method = take_short(&mut payload)?;
    let method = Method::from_bytes(&method).map_err(|_| Malformed("method"))?;
    let authority = take_text(&mut payload)?;
    let target = take_text(&mut payload)?;
    if target.is_empty() {
        return Err(Malformed("no target"));
    }
    let target = PathAndQuery::from_maybe_shared(target).map_err(|_| Malformed("target"))?;
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(target);
    if !authority.is_empty() {
        let authority = Authority::from_maybe_shared(authority);
        uri.authority = Some(authority.map_err(|_| Malformed("authority"))?);
        uri.scheme = Some(Scheme::HTTP);
    }
    let uri = Uri::from_parts(uri).map_err(|_| Malformed("target"))?;
    let headers = take_fields(payload, ROOM)?;
    if headers
        .get(http::header::TE)
        .is_some_and(|te| te != "trailers")
    {
        return Err(Malformed("a `te` that is not `trailers`"));
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = Version::HTTP_2;
    parts.headers = headers;
    Ok(parts)
}

/// Reads the head of a response; an interim one (1xx) is malformed, for they are not passed on.
///
/// # Errors
/// [`Malformed`] with the first thing that is wrong.
pub fn response(mut payload: Bytes) -> Result<response::Parts, Malformed> {
    let status = payload.try_get_u16().map_err(|_| Malformed("cut off"))?;
    let status = StatusCode::from_u16(status).map_err(|_| Malformed("status"))?;
    if status.is_informational() {
        return Err(Malformed("interim status"));
    }
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.version = Version::HTTP_2;
    parts.headers = take_fields(payload, 0)?;
    Ok(parts)
}

/// Reads trailers.
///
/// # Errors
/// [`Malformed`] with the first thing that is wrong.
pub fn trailers(payload: Bytes) -> Result<HeaderMap, Malformed> {
    take_fields(payload, 0)
}

/// Fields to the end of the payload. `room`: for how many more.
fn take_fields(mut payload: Bytes, room: usize) -> Result<HeaderMap, Malformed> {
    let count = payload.try_get_u16().map_err(|_| Malformed("cut off"))?;
    if usize::from(count) > limits::FIELDS_MAX {
        return Err(Malformed("too many fields"));
    }
    let mut fields = HeaderMap::with_capacity(usize::from(count) + room);
    for _ in 0..count {
        let name = take_short(&mut payload)?;
        if is_of_a_connection(&name) {
            return Err(Malformed("a field of one connection"));
        }
        let name = HeaderName::from_lowercase(&name).map_err(|_| Malformed("name"))?;
        let value = take_text(&mut payload)?;
        if value.trim_ascii().len() != value.len() {
            return Err(Malformed("space around a value")); // read otherwise by HTTP/1 (RFC 9113 §8.2.1)
        }
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed("value"))?;
        fields.append(name, value);
    }
    if payload.has_remaining() {
        return Err(Malformed("bytes after the last field"));
    }
    Ok(fields)
}

/// Fields that HTTP/2 does not have (RFC 9113 §8.2.2).
fn is_of_a_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
    )
}

fn take_short(payload: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = payload.try_get_u8().map_err(|_| Malformed("cut off"))?;
    take(payload, usize::from(length))
}

fn take_text(payload: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = payload.try_get_u16().map_err(|_| Malformed("cut off"))?;
    take(payload, usize::from(length))
}

fn take(payload: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if payload.len() < length {
        return Err(Malformed("cut off"));
    }
    Ok(payload.split_to(length))
}
