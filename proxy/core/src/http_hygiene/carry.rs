//! A request on its way: between the proxies in the form of HTTP/2 whatever the application spoke, and back again.

use super::headers::{CLIENT_ID, CLIENT_ID_L5D, ORIG_VERSION};
use super::present::{Field, Present};
use super::{Admitted, RequestRefusal, origin_form};
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version};
use mesh_trust::SpiffeId;

/// What the application that sent a request spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrigVersion {
    /// HTTP/1.0 with a `Host`.
    Http10,
    /// HTTP/1.0 that names no host.
    Http10WithoutHost,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// Stands for the host that HTTP/1.0 need not name and HTTP/2 must; never sent to an application.
const NO_HOST: Authority = Authority::from_static("no-host.invalid");

impl OrigVersion {
    pub(super) fn spoken(version: Version) -> Result<Self, RequestRefusal> {
        match version {
            Version::HTTP_10 => Ok(Self::Http10),
            Version::HTTP_11 => Ok(Self::Http11),
            Version::HTTP_2 => Ok(Self::Http2),
            _ => Err(RequestRefusal::Version),
        }
    }

    pub(super) const fn may_lack_host(self) -> bool {
        matches!(self, Self::Http10 | Self::Http10WithoutHost)
    }

    const fn marker(self) -> Option<HeaderValue> {
        match self {
            Self::Http10 => Some(HeaderValue::from_static("HTTP/1.0")),
            Self::Http10WithoutHost => Some(HeaderValue::from_static("HTTP/1.0 no-host")),
            Self::Http11 => Some(HeaderValue::from_static("HTTP/1.1")),
            Self::Http2 => None,
        }
    }

    /// The version to speak to the application.
    pub const fn to_speak(self) -> Version {
        match self {
            Self::Http10 | Self::Http10WithoutHost | Self::Http11 => Version::HTTP_11,
            Self::Http2 => Version::HTTP_2,
        }
    }
}

/// Takes the marker out of a request from a peer's proxy; with two of them it is refused.
pub(super) fn take_version(
    parts: &mut Parts,
    present: Present,
) -> Result<OrigVersion, RequestRefusal> {
    if parts.version != Version::HTTP_2 {
        return OrigVersion::spoken(parts.version);
    }
    if !present.has(Field::ORIG_VERSION) {
        return Ok(OrigVersion::Http2);
    }
    if present.has_two(Field::ORIG_VERSION) {
        return Err(RequestRefusal::Version);
    }
    let marker = parts.headers.remove(ORIG_VERSION);
    match marker.as_ref().map(HeaderValue::as_bytes) {
        Some(b"HTTP/1.1") => Ok(OrigVersion::Http11),
        Some(b"HTTP/1.0") => Ok(OrigVersion::Http10),
        Some(b"HTTP/1.0 no-host") => Ok(OrigVersion::Http10WithoutHost),
        _ => Err(RequestRefusal::Version),
    }
}

/// Brings an admitted request into the form that goes to the server's proxy: that of HTTP/2, whatever carries it.
///
/// # Errors
/// [`RequestRefusal::Target`] if target and authority make no URI.
pub fn to_mesh(parts: &mut Parts, admitted: &Admitted) -> Result<(), RequestRefusal> {
    parts.version = Version::HTTP_2;
    absolute_form(parts, admitted)?;
    let version = match admitted.version {
        OrigVersion::Http10 if admitted.authority.is_none() => OrigVersion::Http10WithoutHost,
        version => version,
    };
    if let Some(marker) = version.marker() {
        parts.headers.insert(ORIG_VERSION, marker);
    }
    Ok(())
}

/// Brings an admitted and permitted request into the form that its application gets: the version that was spoken, one
/// `Host`, and the client's identity in the two headers that nobody else can set.
///
/// # Errors
/// [`RequestRefusal::Target`] if target and authority make no URI.
pub fn to_app(
    parts: &mut Parts,
    admitted: &Admitted,
    client: Option<&ClientField>,
) -> Result<(), RequestRefusal> {
    parts.version = admitted.version.to_speak();
    if parts.version == Version::HTTP_2 {
        absolute_form(parts, admitted)?;
    } else {
        // HTTP/1.1 must have a Host; what came without one goes with an empty one (RFC 9110 §7.2).
        let host = match &admitted.authority {
            Some(authority) => {
                HeaderValue::from_str(authority.as_str()).map_err(|_| RequestRefusal::Host)?
            }
            None => HeaderValue::from_static(""),
        };
        parts.headers.insert(HOST, host);
    }
    if let Some(ClientField(id)) = client {
        // INVARIANT: admit() removed both, so there is never a second value.
        parts.headers.insert(CLIENT_ID, id.clone());
        parts.headers.insert(CLIENT_ID_L5D, id.clone());
    }
    Ok(())
}

/// A client's SPIFFE ID as the application is told it: the same for all requests of one connection.
#[derive(Clone, Debug)]
pub struct ClientField(HeaderValue);

impl ClientField {
    /// `None` never: a SPIFFE ID has no character that a header cannot hold.
    pub fn new(id: &SpiffeId) -> Option<Self> {
        HeaderValue::from_str(id.as_str()).ok().map(Self)
    }
}

/// Replaces the path by the one that was judged and keeps the query. A path equal to the old one costs nothing.
///
/// # Errors
/// [`RequestRefusal::Target`] if the two make no request target.
pub fn set_path(parts: &mut Parts, path: &str) -> Result<(), RequestRefusal> {
    if parts.uri.path() == path {
        return Ok(());
    }
    let target = match parts.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let target = target.map_err(|_| RequestRefusal::Target)?;
    if target.path() != path {
        return Err(RequestRefusal::Target);
    }
    parts.uri = origin_form(target);
    Ok(())
}

/// Replaces the host by the one that was judged: lower case, no dot at its end, its port read once. A host equal to the
/// old one costs nothing.
///
/// # Errors
/// [`RequestRefusal::Host`] if it is no authority.
pub fn set_host(admitted: &mut Admitted, host: &str) -> Result<(), RequestRefusal> {
    if admitted.authority.as_ref().map(Authority::as_str) != Some(host) {
        let host = Authority::try_from(host).map_err(|_| RequestRefusal::Host)?;
        admitted.authority = Some(host);
    }
    Ok(())
}

/// Says of a request in absolute form, as those over HTTP/2 are, that it goes in TLS (RFC 9113 §8.3.1).
///
/// # Errors
/// [`RequestRefusal::Target`] if it then is no request target.
pub fn set_https(parts: &mut Parts) -> Result<(), RequestRefusal> {
    if parts.uri.scheme().is_some() {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        parts.uri = Uri::from_parts(uri).map_err(|_| RequestRefusal::Target)?;
    }
    Ok(())
}

fn absolute_form(parts: &mut Parts, admitted: &Admitted) -> Result<(), RequestRefusal> {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(admitted.authority.clone().unwrap_or(NO_HOST));
    parts.uri = Uri::from_parts(uri).map_err(|_| RequestRefusal::Target)?;
    Ok(())
}
