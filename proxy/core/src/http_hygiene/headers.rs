//! Names that only proxies write, and names that concern one connection ([`mesh_policy::fields`]): neither crosses.

use super::present::{Field, Present};
use super::{OrigVersion, RequestLimits, RequestRefusal};
use http::header::{CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, TE};
use http::{StatusCode, response};
use mesh_policy::fields::{is_hop_by_hop, is_reserved};

/// The client's SPIFFE ID, set by the server's proxy for the application.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("mesh-client-id");
/// The same under the name that applications behind Linkerd know.
pub const CLIENT_ID_L5D: HeaderName = HeaderName::from_static("l5d-client-id");
/// Between proxies: what the application spoke.
pub const ORIG_VERSION: HeaderName = HeaderName::from_static("mesh-orig-version");

/// Fields that a `Connection` field may not make us drop: framing, routing and who the user is.
const IMMUNE: [&str; 6] = [
    "host",
    "content-length",
    "content-type",
    "authorization",
    "cookie",
    "set-cookie",
];

/// Fields that may not come late (RFC 9110 §6.5.1): framing, routing, authentication, and what steers caches and clients.
const NOT_IN_TRAILERS: [&str; 26] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "expect",
    "max-forwards",
    "range",
    "cache-control",
    "pragma",
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "warning",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
];

/// What stands there, if it is within the limits.
pub(super) fn survey(
    headers: &HeaderMap,
    limits: &RequestLimits,
) -> Result<Present, RequestRefusal> {
    let (mut bytes, mut present) = (0, Present::default());
    for (name, value) in headers {
        let name = name.as_str();
        if name.len() > limits.name_bytes_max {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        bytes += name.len() + value.len();
        present.note(name);
    }
    if headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
        return Err(RequestRefusal::HeadersTooLarge);
    }
    Ok(present)
}

/// Strips a request of reserved and hop-by-hop fields. `TE: trailers` stays in HTTP/2, where gRPC asks for it.
pub(super) fn strip_request(headers: &mut HeaderMap, spoken: OrigVersion, present: Present) {
    let trailers = spoken == OrigVersion::Http2 && present.has(Field::TE);
    strip(headers, present);
    // The hop that received it has answered already.
    if present.has(Field::EXPECT) {
        headers.remove(EXPECT);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Strips a response the same way; a `101` keeps what makes it one (the caller has checked it: [`super::upgrade::is_done`]).
///
/// An application's word on identities is not believed by the client's side either (HD13).
pub fn sanitize_response(parts: &mut response::Parts) {
    let switching = (parts.status == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| parts.headers.get(http::header::UPGRADE).cloned())
        .flatten();
    let present = Present::of(&parts.headers);
    strip(&mut parts.headers, present);
    if let Some(protocol) = switching {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(http::header::UPGRADE, protocol);
    }
}

/// Strips trailers of what may not come late (HD12).
pub fn sanitize_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| {
        is_hop_by_hop(name) || is_reserved(name.as_bytes()) || NOT_IN_TRAILERS.contains(&name)
    });
}

/// `present`: what stands in `headers`, or stood there before some was taken out.
fn strip(headers: &mut HeaderMap, present: Present) {
    if present.has(Field::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if present.has(Field::UNWANTED) {
        remove_where(headers, |name| {
            is_hop_by_hop(name) || is_reserved(name.as_bytes())
        });
    }
}

/// Names listed in `Connection` that may be dropped for it.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    // The most frequent one goes anyway.
    let names = names.filter(|name| !name.trim_ascii().eq_ignore_ascii_case(b"keep-alive"));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names
        .filter(|name| !IMMUNE.contains(&name.as_str()) && !is_reserved(name.as_str().as_bytes()))
        .collect()
}

/// Whether `Connection` lists a token.
pub(super) fn connection_lists(headers: &HeaderMap, token: &[u8]) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(token))
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    // Most messages have none: nothing is allocated for them.
    let names = headers.keys().filter(|name| unwanted(name.as_str()));
    let names: Vec<_> = names.cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
