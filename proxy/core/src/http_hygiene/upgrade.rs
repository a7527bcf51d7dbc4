//! Which `Upgrade` may pass: WebSocket, asked for exactly as RFC 6455 §4.1 says, and SPDY/3.1, by which Kubernetes' clients
//! run commands and forward ports. Every other one is dropped and the request stays what it is; there is never a second
//! protocol after one decision (PD13, GW10).

use super::RequestRefusal;
use super::headers::connection_lists;
use super::present::{Field, Present};
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
    /// SPDY protocol, draft 3.1.
    Spdy,
}

impl Upgrade {
    const ALL: [Self; 2] = [Self::WebSocket, Self::Spdy];

    /// As the header names it.
    const fn token(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Spdy => "SPDY/3.1",
        }
    }

    fn is_named(self, value: &HeaderValue) -> bool {
        value
            .as_bytes()
            .eq_ignore_ascii_case(self.token().as_bytes())
    }

    /// Whether a request that names it has what it must have.
    fn is_asked(self, parts: &Parts) -> bool {
        let one = |name| parts.headers.get_all(name).iter().count() == 1;
        let version = || parts.headers.get(SEC_WEBSOCKET_VERSION);
        match self {
            Self::WebSocket => {
                parts.method == Method::GET
                    && one(SEC_WEBSOCKET_KEY)
                    && one(SEC_WEBSOCKET_VERSION)
                    && version().is_some_and(|version| version.as_bytes() == b"13")
            }
            Self::Spdy => parts.method == Method::GET || parts.method == Method::POST,
        }
    }
}

/// Takes the wish for an upgrade out of a request.
///
/// # Errors
/// [`RequestRefusal::Upgrade`] for an upgrade with a body: its bytes could be the first of the next protocol (GW7).
pub(super) fn take(parts: &mut Parts, present: Present) -> Result<Option<Upgrade>, RequestRefusal> {
    if !present.has(Field::UPGRADE) || present.has_two(Field::UPGRADE) {
        return Ok(None);
    }
    let headers = &parts.headers;
    let Some(protocol) = headers.get(UPGRADE) else {
        return Ok(None);
    };
    let mut known = Upgrade::ALL.into_iter();
    let Some(upgrade) = known.find(|upgrade| upgrade.is_named(protocol)) else {
        return Ok(None);
    };
    let asked = parts.version == Version::HTTP_11
        && connection_lists(headers, b"upgrade")
        && upgrade.is_asked(parts);
    match (asked, has_body(headers)) {
        (false, _) => Ok(None),
        (true, true) => Err(RequestRefusal::Upgrade),
        (true, false) => Ok(Some(upgrade)),
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
    parts
        .headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts
        .headers
        .insert(UPGRADE, HeaderValue::from_static(upgrade.token()));
}

/// Whether a response grants the upgrade: only then do bytes follow instead of responses (GW8).
pub fn is_done(parts: &response::Parts, upgrade: Upgrade) -> bool {
    parts.status == StatusCode::SWITCHING_PROTOCOLS
        && parts
            .headers
            .get(UPGRADE)
            .is_some_and(|protocol| upgrade.is_named(protocol))
}
