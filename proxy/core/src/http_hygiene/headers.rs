//! Names that only proxies write, and names that concern one connection ([`mesh_policy::fields`]): neither crosses.

use super::{RequestLimits, RequestRefusal};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use http::{StatusCode, Version, response};
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

pub(super) fn check_sizes(
    headers: &HeaderMap,
    limits: &RequestLimits,
) -> Result<(), RequestRefusal> {
    let mut bytes = 0;
    for (name, value) in headers {
        if name.as_str().len() > limits.name_bytes_max {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        bytes += name.as_str().len() + value.len();
    }
    if headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
        return Err(RequestRefusal::HeadersTooLarge);
    }
    Ok(())
}

/// Strips a request of reserved and hop-by-hop fields. `TE: trailers` stays in HTTP/2, where gRPC asks for it.
pub(super) fn strip_request(headers: &mut HeaderMap, version: Version) {
    let trailers = version == Version::HTTP_2 && headers.contains_key(TE);
    strip(headers);
    // The hop that received it has answered already.
    headers.remove(http::header::EXPECT);
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
    strip(&mut parts.headers);
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

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    remove_where(headers, |name| {
        is_hop_by_hop(name) || is_reserved(name.as_bytes())
    });
    headers.remove(TRAILER);
}

/// Names listed in `Connection` that may be dropped for it.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
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
