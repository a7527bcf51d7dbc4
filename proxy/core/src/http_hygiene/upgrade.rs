//! Which `Upgrade` may pass: WebSocket, asked for exactly as RFC 6455 §4.1 says. Every other one is dropped and the
//! request stays what it is; there is never a second protocol after one decision (PD13, GW10).

use super::RequestRefusal;
use super::headers::connection_lists;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Version, response};

/// An upgrade that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
}

/// Takes the wish for an upgrade out of a request.
///
/// # Errors
/// [`RequestRefusal::Upgrade`] for a WebSocket upgrade with a body: its bytes could be the first frames (GW7).
pub(super) fn take(parts: &mut Parts) -> Result<Option<Upgrade>, RequestRefusal> {
    let headers = &parts.headers;
    let mut values = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let one = |name| headers.get_all(name).iter().count() == 1;
    let asked = protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
        && parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && connection_lists(headers, b"upgrade")
        && one(SEC_WEBSOCKET_KEY)
        && one(SEC_WEBSOCKET_VERSION)
        && headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_some_and(|version| version.as_bytes() == b"13");
    if !asked {
        return Ok(None);
    }
    if has_body(headers) {
        Err(RequestRefusal::Upgrade)
    } else {
        Ok(Some(Upgrade::WebSocket))
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::TRANSFER_ENCODING)
        || headers
            .get(http::header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}

/// Puts the wish back, for the next HTTP/1.1 hop.
pub fn restore(parts: &mut Parts, upgrade: Upgrade) {
    let Upgrade::WebSocket = upgrade;
    parts
        .headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts
        .headers
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Whether a response grants the upgrade: only then do bytes follow instead of responses (GW8).
pub fn is_done(parts: &response::Parts, upgrade: Upgrade) -> bool {
    let Upgrade::WebSocket = upgrade;
    parts.status == StatusCode::SWITCHING_PROTOCOLS
        && parts
            .headers
            .get(UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}
