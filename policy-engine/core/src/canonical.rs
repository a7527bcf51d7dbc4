//! The one canonicalizer of paths and hosts: what it returns is judged, recorded and forwarded, byte for byte.
//!
//! Ambiguity is refused, not guessed at: two programs that read a path differently are a way around a grant.
//! Rules: unreserved escapes are decoded once, the hex of other escapes is in upper case, runs of slashes are one
//! slash, dot segments are removed. A target that is canonical already is borrowed, not copied.

use crate::limits::{HOST_BYTES_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX};
use crate::snapshot::PathOptions;
use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// A request target whose path may be judged: canonical path, and the query as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

impl<'a> CanonicalPath<'a> {
    /// The path, without query.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// What stands after the first `?`, never part of a path match.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Whether the path is not what came.
    pub fn is_rewritten(&self) -> bool {
        matches!(self.path, Cow::Owned(_))
    }

    /// The path, owned.
    pub fn into_path(self) -> Cow<'a, str> {
        self.path
    }

    /// Service and method, if the path is exactly `/<service>/<method>` as gRPC has it.
    pub fn grpc_method(&self) -> Option<(&str, &str)> {
        grpc_method(&self.path)
    }
}

/// Service and method of a canonical path that is exactly `/<service>/<method>`.
pub(crate) fn grpc_method(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

/// Why a request target is refused with 400. `at` is a byte offset into the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum PathRefusal {
    /// Longer than [`TARGET_BYTES_MAX`].
    #[error("the request target has {bytes} bytes; the limit is {TARGET_BYTES_MAX}")]
    #[diagnostic(code("MESH-0301"), help("send long parameters in the body"))]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Neither a leading slash nor `*` with `OPTIONS`.
    #[error("the path does not start with `/`")]
    #[diagnostic(
        code("MESH-0301"),
        help("send the target in origin form, `/path?query`; `*` is for OPTIONS alone")
    )]
    NoLeadingSlash,
    /// `..` with nothing left to remove.
    #[error("the path climbs above the root with `..`")]
    #[diagnostic(code("MESH-0301"), help("send the path without dot segments"))]
    AboveRoot,
    /// A byte that no path may carry.
    #[error("byte {byte:#04x} at offset {at} may not stand in a request target")]
    #[diagnostic(
        code("MESH-0301"),
        help(
            "escape it (`%20` for a space); backslash and `#` have no place in a path, and `;` needs `mesh.internal/path-parameters: keep` on the Server"
        )
    )]
    Byte {
        /// The byte.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// `%` without two hex digits.
    #[error("the escape at offset {at} is not `%` and two hex digits")]
    #[diagnostic(code("MESH-0301"), help("write a literal percent sign as `%25`"))]
    BadEscape {
        /// Where.
        at: usize,
    },
    /// `%2F` or `%5C`.
    #[error("the path hides a slash or backslash in the escape at offset {at}")]
    #[diagnostic(
        code("MESH-0301"),
        help("if the application needs it, set `mesh.internal/path-escapes: keep` on the Server")
    )]
    EscapedSeparator {
        /// Where.
        at: usize,
    },
    /// An escape of a control character.
    #[error("the escape at offset {at} stands for a control character")]
    #[diagnostic(code("MESH-0301"), help("send the path without control characters"))]
    EscapedControl {
        /// Where.
        at: usize,
    },
    /// Escapes that are not UTF-8: overlong forms, surrogates, cut sequences.
    #[error("the escapes at offset {at} are not UTF-8")]
    #[diagnostic(
        code("MESH-0301"),
        help("escape the UTF-8 bytes of the text, in shortest form")
    )]
    NotUtf8 {
        /// Where.
        at: usize,
    },
}

/// Canonicalizes a request target in origin form (or `*`).
///
/// The query is split off at the first `?` and kept as it came; it may not carry `#`, spaces, control or non-ASCII bytes.
///
/// # Errors
/// [`PathRefusal`] naming the first rule broken: the request gets 400 and is never matched.
pub fn path<'a>(
    raw: &'a str,
    method: &str,
    options: PathOptions,
) -> Result<CanonicalPath<'a>, PathRefusal> {
    if raw.len() > TARGET_BYTES_MAX {
        return Err(PathRefusal::TooLong { bytes: raw.len() });
    }
    if raw == "*" && method == "OPTIONS" {
        return Ok(CanonicalPath {
            path: Cow::Borrowed(raw),
            query: None,
        });
    }
    let (path, query) = match raw.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (raw, None),
    };
    if !path.starts_with('/') {
        return Err(PathRefusal::NoLeadingSlash);
    }
    if let Some(query) = query {
        check_query(query, path.len() + 1)?;
    }
    let path = if is_canonical(path, options)? {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(rewrite(path, options)?)
    };
    Ok(CanonicalPath { path, query })
}

/// Whether `path` passes every rule as it is; an error if no rewriting could save it.
fn is_canonical(path: &str, options: PathOptions) -> Result<bool, PathRefusal> {
    let bytes = path.as_bytes();
    let (mut canonical, mut segment_start, mut at) = (true, 1, 0);
    while let Some(&byte) = bytes.get(at) {
        let mut width = 1;
        match byte {
            b'/' => {
                canonical &= at == 0 || !is_removed(bytes.get(segment_start..at));
                segment_start = at + 1;
            }
            b'%' => {
                let escape = read_escape(bytes, at, options)?;
                canonical &= escape.as_came;
                width = escape.width;
            }
            b';' if options.keep_parameters => {}
            b';' | b'\\' | b'#' | 0..=b' ' | 0x7f.. => return Err(PathRefusal::Byte { byte, at }),
            _ => {}
        }
        at += width;
    }
    let last = bytes.get(segment_start..);
    Ok(canonical && !(last == Some(b".") || last == Some(b"..")))
}

/// Whether a segment that a slash follows does not stay: empty, or a dot segment.
fn is_removed(segment: Option<&[u8]>) -> bool {
    matches!(segment, Some(b"" | b"." | b".."))
}

/// The canonical form of a path that [`is_canonical`] has accepted.
fn rewrite(path: &str, options: PathOptions) -> Result<String, PathRefusal> {
    let mut out = String::with_capacity(path.len());
    out.push('/');
    let mut segments = path.get(1..).unwrap_or_default().split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        push_normalized(&mut out, segment, options)?;
        match out.get(start..).unwrap_or_default() {
            "" => {}
            "." => out.truncate(start),
            ".." => {
                out.truncate(start);
                let parent = out
                    .get(..start.saturating_sub(1))
                    .and_then(|kept| kept.rfind('/'));
                out.truncate(parent.ok_or(PathRefusal::AboveRoot)? + 1);
            }
            _ if segments.peek().is_some() => out.push('/'),
            _ => {}
        }
    }
    Ok(out)
}

/// Appends one segment with its escapes in canonical form.
fn push_normalized(
    out: &mut String,
    segment: &str,
    options: PathOptions,
) -> Result<(), PathRefusal> {
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let escape = read_escape(bytes, at, options)?;
            let text = segment.get(at..at + escape.width).unwrap_or_default();
            match escape.decoded {
                Some(byte) => out.push(char::from(byte)),
                None if escape.as_came => out.push_str(text),
                None => out.push_str(&text.to_ascii_uppercase()),
            }
            at += escape.width;
        } else {
            out.push(char::from(byte));
            at += 1;
        }
    }
    Ok(())
}

/// One escape, or the escapes of one multi-byte character.
struct Escape {
    /// Bytes of text it takes.
    width: usize,
    /// The unreserved character it stands for, if so.
    decoded: Option<u8>,
    /// Whether its text is canonical.
    as_came: bool,
}

fn read_escape(bytes: &[u8], at: usize, options: PathOptions) -> Result<Escape, PathRefusal> {
    let value = escaped_byte(bytes, at).ok_or(PathRefusal::BadEscape { at })?;
    let text = |width: usize| bytes.get(at..at + width).unwrap_or_default();
    let stays = |width: usize| Escape {
        width,
        decoded: None,
        as_came: !text(width).iter().any(u8::is_ascii_lowercase),
    };
    match value {
        b'/' | b'\\' if options.keep_escapes => Ok(Escape {
            width: 3,
            decoded: None,
            as_came: true,
        }),
        b'/' | b'\\' => Err(PathRefusal::EscapedSeparator { at }),
        0..=0x1f | 0x7f => Err(PathRefusal::EscapedControl { at }),
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Ok(Escape {
            width: 3,
            decoded: Some(value),
            as_came: false,
        }),
        0x80.. => multi_byte_width(bytes, at, value).map(stays),
        _ => Ok(stays(3)),
    }
}

/// The byte that the escape at `at` stands for.
fn escaped_byte(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
    if bytes.get(at) != Some(&b'%') {
        return None;
    }
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Width in text of the escapes that together are one non-ASCII character.
fn multi_byte_width(bytes: &[u8], at: usize, lead: u8) -> Result<usize, PathRefusal> {
    let refusal = PathRefusal::NotUtf8 { at };
    let count = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(refusal),
    };
    let mut buffer = [0u8; 4];
    for (index, slot) in buffer.iter_mut().take(count).enumerate() {
        *slot = escaped_byte(bytes, at + 3 * index).ok_or(refusal)?;
    }
    let text = std::str::from_utf8(buffer.get(..count).unwrap_or_default()).map_err(|_| refusal)?;
    if text.chars().any(char::is_control) {
        return Err(PathRefusal::EscapedControl { at });
    }
    Ok(3 * count)
}

fn check_query(query: &str, offset: usize) -> Result<(), PathRefusal> {
    match query
        .bytes()
        .position(|byte| matches!(byte, b'#' | 0..=b' ' | 0x7f..))
    {
        Some(at) => Err(PathRefusal::Byte {
            byte: query.as_bytes().get(at).copied().unwrap_or_default(),
            at: offset + at,
        }),
        None => Ok(()),
    }
}

/// A target in absolute form, taken apart (RFC 9112 §3.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsoluteForm<'a> {
    /// The authority, to be read by [`host`]; it takes the place of `Host`, which must name the same.
    pub authority: &'a str,
    /// The target in origin form, to be read by [`path`].
    pub target: Cow<'a, str>,
}

/// Takes `http://authority/path?query` apart; `None` for a target in any other form.
///
/// Only the proxy calls this, and only for HTTP/1: whoever receives such a target must ignore `Host` or refuse a
/// mismatch. [`path`] itself refuses the absolute form.
pub fn split_absolute_form<'a>(target: &'a str, method: &str) -> Option<AbsoluteForm<'a>> {
    let (scheme, rest) = target.split_once("://")?;
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at_checked(end)?;
    let target = match origin {
        "" if method == "OPTIONS" => Cow::Borrowed("*"),
        "" => Cow::Borrowed("/"),
        _ if origin.starts_with('/') => Cow::Borrowed(origin),
        _ => Cow::Owned(format!("/{origin}")),
    };
    Some(AbsoluteForm { authority, target })
}

/// A host in canonical form: lower case, without trailing dot, its port read once.
/// One that is canonical already is borrowed, not copied.
#[derive(Clone, Debug)]
pub struct CanonicalHost<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
    /// The whole as it came, if that is how [`fmt::Display`] would write it.
    as_came: Option<&'a str>,
}

impl PartialEq for CanonicalHost<'_> {
    /// Whether they are the same host and port, however they came.
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.port) == (&other.name, other.port)
    }
}

impl Eq for CanonicalHost<'_> {}

impl<'a> CanonicalHost<'a> {
    /// DNS name, IPv4 address, or IPv6 address in brackets; what hostnames of routes are matched against.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`fmt::Display`] writes it; borrowed exactly if it is what came.
    pub fn into_text(self) -> Cow<'a, str> {
        match (self.as_came, self.port) {
            (Some(text), _) => Cow::Borrowed(text),
            (None, Some(_)) => Cow::Owned(self.to_string()),
            (None, None) => Cow::Owned(self.name.into_owned()),
        }
    }

    /// As [`fmt::Display`] writes it.
    pub fn text(&self) -> Cow<'_, str> {
        match (self.as_came, self.port) {
            (Some(text), _) => Cow::Borrowed(text),
            (None, Some(_)) => Cow::Owned(self.to_string()),
            (None, None) => Cow::Borrowed(&self.name),
        }
    }

    /// The port, if one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for CanonicalHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Why a `Host` or `:authority` is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum HostRefusal {
    /// Nothing there.
    #[error("the host is empty")]
    #[diagnostic(code("MESH-0302"), help("name the service in `Host` or `:authority`"))]
    Empty,
    /// Longer than [`HOST_BYTES_MAX`].
    #[error("the host has {bytes} bytes; the limit is {HOST_BYTES_MAX}")]
    #[diagnostic(code("MESH-0302"), help("name the service by its DNS name"))]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A byte that no host may carry: a list, user information, a path, a space, a zone.
    #[error("byte {byte:#04x} may not stand in a host")]
    #[diagnostic(
        code("MESH-0302"),
        help("send one `name` or `name:port`, international names in A-label form")
    )]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// Not a number from 1 to 65535.
    #[error("the port of the host is not a number from 1 to 65535")]
    #[diagnostic(code("MESH-0302"), help("send `name:port`, or `name` alone"))]
    Port,
    /// A label that is empty, too long, or starts or ends with a hyphen.
    #[error("the host has an empty, overlong or hyphenated label")]
    #[diagnostic(
        code("MESH-0302"),
        help("labels have 1 to 63 bytes and neither start nor end with `-`")
    )]
    Label,
    /// A label that claims to be punycode and is not.
    #[error("the host has a malformed `xn--` label")]
    #[diagnostic(code("MESH-0302"), help("encode international names as RFC 5891 says"))]
    Punycode,
    /// Brackets around something else than an IPv6 address.
    #[error("the host has brackets around something that is no IPv6 address")]
    #[diagnostic(code("MESH-0302"), help("write `[2001:db8::1]`, without zone"))]
    Ipv6,
}

/// Canonicalizes a `Host` or `:authority`.
///
/// # Errors
/// [`HostRefusal`] naming the first rule broken: the request gets 400.
pub fn host(raw: &str) -> Result<CanonicalHost<'_>, HostRefusal> {
    if raw.is_empty() {
        return Err(HostRefusal::Empty);
    }
    if raw.len() > HOST_BYTES_MAX {
        return Err(HostRefusal::TooLong { bytes: raw.len() });
    }
    if let Some(bracketed) = raw.strip_prefix('[') {
        let (inner, rest) = bracketed.split_once(']').ok_or(HostRefusal::Ipv6)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| HostRefusal::Ipv6)?;
        let port = match rest {
            "" => None,
            _ => read_port(rest.strip_prefix(':').ok_or(HostRefusal::Port)?)?,
        };
        let name = format!("[{address}]");
        let as_came = raw
            .strip_prefix(name.as_str())
            .is_some_and(|rest| is_port(rest, port));
        return Ok(CanonicalHost {
            name: Cow::Owned(name),
            port,
            as_came: as_came.then_some(raw),
        });
    }
    let (name, port) = match raw.split_once(':') {
        Some((name, port)) => (name, read_port(port)?),
        None => (raw, None),
    };
    let name = dns_name(name)?;
    let rest = raw.get(name.len()..).unwrap_or_default();
    let as_came = matches!(name, Cow::Borrowed(_)) && is_port(rest, port);
    Ok(CanonicalHost {
        name,
        port,
        as_came: as_came.then_some(raw),
    })
}

/// Whether `text` is how `port` is written after a host.
fn is_port(text: &str, port: Option<u16>) -> bool {
    match (text.strip_prefix(':'), port) {
        (Some(digits), Some(_)) => !digits.starts_with('0'),
        (None, None) => text.is_empty(),
        _ => false,
    }
}

/// The port after the colon; none if it is empty (RFC 3986 §3.2.3).
fn read_port(text: &str) -> Result<Option<u16>, HostRefusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostRefusal::Port);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(HostRefusal::Port),
        Ok(port) => Ok(Some(port)),
    }
}

/// A DNS name in lower case without its trailing dot; every label is checked.
///
/// # Errors
/// [`HostRefusal`] naming the first rule broken.
pub(crate) fn dns_name(name: &str) -> Result<Cow<'_, str>, HostRefusal> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostRefusal::Empty);
    }
    if name.len() > 253 {
        return Err(HostRefusal::TooLong { bytes: name.len() });
    }
    let mut lower = true;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
            b'A'..=b'Z' => lower = false,
            _ => return Err(HostRefusal::Byte { byte }),
        }
    }
    let name = match lower {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.to_ascii_lowercase()),
    };
    for label in name.split('.') {
        if label.is_empty()
            || label.len() > crate::limits::LABEL_BYTES_MAX
            || label.starts_with('-')
            || label.ends_with('-')
        {
            return Err(HostRefusal::Label);
        }
        if label
            .strip_prefix("xn--")
            .is_some_and(|code| !punycode_is_sound(code))
        {
            return Err(HostRefusal::Punycode);
        }
    }
    Ok(name)
}

/// Whether `code` (what follows `xn--`, lower case) decodes, and to something that needed encoding (RFC 3492 §6.2).
fn punycode_is_sound(code: &str) -> bool {
    let (basic, extended) = code.rsplit_once('-').unwrap_or(("", code));
    if extended.is_empty() {
        return false;
    }
    let (mut n, mut i, mut bias) = (128u32, 0u32, 72u32);
    let mut length = u32::try_from(basic.len()).unwrap_or(u32::MAX);
    let mut digits = extended.bytes().map(|byte| match byte {
        b'a'..=b'z' => Some(u32::from(byte - b'a')),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 26),
        _ => None,
    });
    let mut next = digits.next();
    while next.is_some() {
        let (before, mut weight, mut k) = (i, 1u32, 36u32);
        loop {
            let Some(Some(digit)) = next else {
                return false;
            };
            let Some(sum) = digit
                .checked_mul(weight)
                .and_then(|step| i.checked_add(step))
            else {
                return false;
            };
            i = sum;
            let threshold = k.saturating_sub(bias).clamp(1, 26);
            next = digits.next();
            if digit < threshold {
                break;
            }
            let Some(heavier) = weight.checked_mul(36 - threshold) else {
                return false;
            };
            (weight, k) = (heavier, k + 36);
        }
        length = length.saturating_add(1);
        bias = adapt(i - before, length, before == 0);
        let Some(sum) = n.checked_add(i / length) else {
            return false;
        };
        n = sum;
        if char::from_u32(n).is_none() {
            return false;
        }
        i = i % length + 1;
    }
    true
}

/// Bias adaptation (RFC 3492 §6.1).
fn adapt(delta: u32, length: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / length;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

/// Why a method is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the method is not a token of 1 to {METHOD_BYTES_MAX} characters")]
#[diagnostic(
    code("MESH-0303"),
    help("methods are case-sensitive tokens: GET, POST")
)]
pub struct MethodRefusal;

/// Checks that a method is a token (RFC 9110 §5.6.2). Methods are compared byte for byte.
///
/// # Errors
/// [`MethodRefusal`] if it is empty, too long, or no token.
pub fn method(raw: &str) -> Result<&str, MethodRefusal> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if raw.is_empty() || raw.len() > METHOD_BYTES_MAX || !raw.bytes().all(token) {
        return Err(MethodRefusal);
    }
    Ok(raw)
}

#[cfg(test)]
mod tests;
