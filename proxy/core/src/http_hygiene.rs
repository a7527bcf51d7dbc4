//! One reading of every HTTP request: checked, stripped and brought to origin form before policy sees it.
//!
//! [`admit`] runs once at every entry, plain or mesh, before the decision; what it leaves in the request is what policy
//! judges and what goes on. Anything that two parties could read in two ways is refused, never repaired.
//!
//! - [`headers`]: reserved and hop-by-hop names, trailers, responses
//! - [`carry`]: HTTP/1 over HTTP/2 between proxies and back, the client's identity for the application
//! - `deadline`: the time that a client gives a request, told to the next hop
//! - [`upgrade`]: which `Upgrade` may pass
//! - `present`: which fields stand in a head, found in one reading
//! - [`refusal`]: why a request is refused, and how a refusal is spoken in HTTP and gRPC
//! - [`wire`]: what must be refused while HTTP/1 is still bytes

pub mod carry;
mod deadline;
pub(crate) mod framing;
pub mod headers;
mod present;
pub mod refusal;
pub mod upgrade;
pub mod wire;

pub use carry::{ClientField, OrigVersion, set_host, set_https, set_path, to_app, to_mesh};
pub use deadline::{tell_time, time_given};
pub use headers::{sanitize_response, sanitize_trailers};
pub use refusal::{Refusal, RequestRefusal};
pub use upgrade::Upgrade;

use crate::detect::METHOD_BYTES_MAX;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Uri, Version};
use mesh_policy::request::{Head, Headers};
use present::{Field, Present};

/// Where a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From an application or an unmeshed client: nothing that it says of versions or identities counts.
    Plain,
    /// From a peer's proxy over mTLS: it says what its application spoke. It may still lie about everything else.
    Mesh,
}

/// Bounds on one request's head. Cost: both are held in memory until the request is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Header fields.
    pub headers_max: usize,
    /// Bytes of names and values together.
    pub header_bytes_max: usize,
    /// Bytes of one name.
    pub name_bytes_max: usize,
    /// Bytes of the request target.
    pub target_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            headers_max: 100,
            header_bytes_max: 64 * 1024,
            name_bytes_max: 256,
            target_bytes_max: 8 * 1024,
        }
    }
}

/// What is known of a request that passed [`admit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The one host that the request names, as it came until [`set_host`]; absent only from HTTP/1.0.
    pub authority: Option<Authority>,
    /// What the application that sent it spoke.
    pub version: OrigVersion,
    /// The upgrade it asks for, if that may pass. Its headers are out of the request; see [`upgrade::restore`].
    pub upgrade: Option<Upgrade>,
    /// Whether it is gRPC: decides how a refusal is spoken.
    pub grpc: bool,
    /// Whether it may say what time it is given ([`time_given`]).
    pub timed: bool,
}

/// Checks a request and strips what must not pass.
///
/// Afterwards `parts.uri` is in origin form (or `*`), there is no `Host`, no hop-by-hop and no reserved header.
///
/// # Errors
/// [`RequestRefusal`] naming the first rule broken. The connection should be closed after most of them; see
/// [`RequestRefusal::closes`].
pub fn admit(
    parts: &mut Parts,
    entry: Entry,
    limits: &RequestLimits,
) -> Result<Admitted, RequestRefusal> {
    check_method(&parts.method)?;
    let present = headers::survey(&parts.headers, limits)?;
    framing::check(parts.version, &parts.headers, present)?;
    let version = match entry {
        Entry::Plain => OrigVersion::spoken(parts.version)?,
        Entry::Mesh => carry::take_version(parts, present)?,
    };
    let authority = take_authority(parts, version, present)?;
    to_origin_form(parts, limits)?;
    let upgrade = upgrade::take(parts, present)?;
    headers::strip_request(&mut parts.headers, version, present);
    let grpc = parts.version == Version::HTTP_2
        && version == OrigVersion::Http2
        && is_grpc(&parts.headers);
    Ok(Admitted {
        authority,
        version,
        upgrade,
        grpc,
        timed: present.has(Field::DEADLINE),
    })
}

fn check_method(method: &Method) -> Result<(), RequestRefusal> {
    match *method {
        Method::GET | Method::POST => Ok(()),
        // Never a tunnel (H1-16); TRACE would echo what we add for the application (H1-17).
        Method::CONNECT | Method::TRACE => Err(RequestRefusal::Method),
        _ if method.as_str().len() > METHOD_BYTES_MAX => Err(RequestRefusal::MethodTooLong),
        _ => Ok(()),
    }
}

/// Takes `Host` and `:authority` or the absolute form's authority out of the request; they must be one and the same.
fn take_authority(
    parts: &mut Parts,
    version: OrigVersion,
    present: Present,
) -> Result<Option<Authority>, RequestRefusal> {
    if present.has_two(Field::HOST) {
        return Err(RequestRefusal::HostTwice);
    }
    let host = match present.has(Field::HOST) {
        true => parts.headers.remove(HOST),
        false => None,
    };
    let host = host
        .map(|value| Authority::try_from(value.as_bytes()))
        .transpose()
        .map_err(|_| RequestRefusal::Host)?;
    let authority = match (parts.uri.authority(), host) {
        (Some(target), Some(host)) if !target.as_str().eq_ignore_ascii_case(host.as_str()) => {
            return Err(RequestRefusal::HostMismatch);
        }
        (Some(target), _) => Some(target.clone()),
        (None, host) => host,
    };
    match &authority {
        Some(authority) if !is_plain_host(authority.as_str()) => Err(RequestRefusal::Host),
        Some(_) => Ok(if version == OrigVersion::Http10WithoutHost {
            None
        } else {
            authority
        }),
        None if version.may_lack_host() => Ok(None),
        None => Err(RequestRefusal::HostMissing),
    }
}

/// A host with an optional port: no user, no list. Names and ports themselves are for the canonicalizer.
fn is_plain_host(text: &str) -> bool {
    !text.is_empty()
        && !text
            .bytes()
            .any(|b| matches!(b, b'@' | b',' | b'/' | b'\\' | b'?' | b'#') || b <= b' ')
}

fn to_origin_form(parts: &mut Parts, limits: &RequestLimits) -> Result<(), RequestRefusal> {
    let scheme_ok = parts
        .uri
        .scheme_str()
        .is_none_or(|scheme| matches!(scheme, "http" | "https"));
    let Some(target) = parts.uri.path_and_query().filter(|_| scheme_ok) else {
        return Err(RequestRefusal::Target);
    };
    if target.as_str().len() > limits.target_bytes_max {
        return Err(RequestRefusal::TargetTooLong);
    }
    let asterisk = target.as_str() == "*" && parts.method == Method::OPTIONS;
    if !asterisk && !target.as_str().starts_with('/') {
        return Err(RequestRefusal::Target);
    }
    if parts.uri.authority().is_some() || parts.uri.scheme().is_some() {
        parts.uri = origin_form(target.clone());
    }
    Ok(())
}

/// A URI of nothing but path and query.
pub(crate) fn origin_form(target: PathAndQuery) -> Uri {
    Uri::from(target)
}

/// Whether a content type is gRPC's: `application/grpc`, perhaps with `+proto` or parameters. gRPC-Web is not.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let prefix = b"application/grpc";
    let start = kind
        .as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    start
        && matches!(
            kind.as_bytes().get(prefix.len()),
            None | Some(b'+' | b';' | b' ')
        )
}

/// The gRPC code in the head of an answer, which then has no messages ("trailers-only").
pub fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The first value of a cookie (RFC 6265 §5.4: the one with the longest path comes first).
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(COOKIE).iter();
    let pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let mut named = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = named.find(|(known, _)| known.trim() == name)?;
    Some(value.trim())
}

/// A request's headers as the decision reads them.
#[derive(Clone, Copy, Debug)]
pub struct HeaderView<'a>(pub &'a HeaderMap);

impl Headers for HeaderView<'_> {
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0
            .get_all(name)
            .iter()
            .for_each(|value| each(value.as_bytes()));
    }
}

/// The head of an admitted request, for the decision.
pub fn head<'a>(parts: &'a Parts, headers: &'a HeaderView<'a>, admitted: &'a Admitted) -> Head<'a> {
    Head {
        method: parts.method.as_str(),
        target: parts.uri.path_and_query().map_or("", PathAndQuery::as_str),
        host: admitted.authority.as_ref().map(Authority::as_str),
        grpc: admitted.grpc,
        headers,
    }
}

#[cfg(test)]
mod tests;
