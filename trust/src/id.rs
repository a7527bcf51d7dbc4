//! SPIFFE IDs and trust domains (SPIFFE-ID §2).
//!
//! Certificates and tokens must carry the canonical form ([`SpiffeId::parse`]); people may write scheme and trust domain
//! in upper case ([`SpiffeId::parse_config`]). Nothing is repaired: what is not an ID is refused with the rule it breaks.
//! An IP address or a DNS name as trust domain is a name like any other.

use crate::limits::{SPIFFE_ID_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};
use crate::quoted::Quoted;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// A trust domain name: `[a-z0-9._-]`, 1 to 255 bytes (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE ID in canonical form, `spiffe://<trust domain>[/<path>]`, at most 2,048 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    domain: TrustDomain,
}

/// Why a text is no SPIFFE ID or no trust domain: the first rule it breaks, and the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum IdError {
    /// More than 2,048 bytes.
    #[error("`{0}` is longer than the 2048 bytes a SPIFFE ID may have")]
    #[diagnostic(code("MESH-0101"), help("shorten the path"))]
    TooLong(Quoted),
    /// Another scheme than `spiffe`, or none.
    #[error("`{0}` does not start with `spiffe://`")]
    #[diagnostic(
        code("MESH-0102"),
        help("write it as `spiffe://<trust domain>/<path>`")
    )]
    Scheme(Quoted),
    /// Upper case in the scheme or the trust domain where the canonical form is demanded.
    #[error("`{0}` has upper case in its scheme or trust domain")]
    #[diagnostic(
        code("MESH-0103"),
        help("certificates and tokens carry both in lower case")
    )]
    UpperCase(Quoted),
    /// No trust domain.
    #[error("`{0}` has no trust domain")]
    #[diagnostic(
        code("MESH-0104"),
        help("write it as `spiffe://<trust domain>/<path>`")
    )]
    NoTrustDomain(Quoted),
    /// A trust domain of more than 255 bytes.
    #[error("the trust domain of `{0}` is longer than 255 bytes")]
    #[diagnostic(code("MESH-0105"), help("shorten the trust domain name"))]
    TrustDomainTooLong(Quoted),
    /// A character other than `a-z 0-9 . - _` in the trust domain.
    #[error("the trust domain of `{0}` has a character other than `a-z`, `0-9`, `.`, `-`, `_`")]
    #[diagnostic(code("MESH-0106"), help("percent-encoding is not allowed either"))]
    TrustDomainCharacter(Quoted),
    /// User information (`user@`).
    #[error("`{0}` has user information before its trust domain")]
    #[diagnostic(code("MESH-0107"), help("remove everything up to `@`"))]
    UserInfo(Quoted),
    /// A port.
    #[error("`{0}` has a port")]
    #[diagnostic(
        code("MESH-0108"),
        help("an identity has no port; remove `:` and what follows it")
    )]
    Port(Quoted),
    /// A query.
    #[error("`{0}` has a query")]
    #[diagnostic(code("MESH-0109"), help("remove `?` and what follows it"))]
    Query(Quoted),
    /// A fragment.
    #[error("`{0}` has a fragment")]
    #[diagnostic(code("MESH-0110"), help("remove `#` and what follows it"))]
    Fragment(Quoted),
    /// Percent-encoding in the path.
    #[error("`{0}` has percent-encoding in its path")]
    #[diagnostic(
        code("MESH-0111"),
        help(
            "write the characters themselves; others than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_` are not allowed"
        )
    )]
    PercentEncoding(Quoted),
    /// Two slashes in a row.
    #[error("the path of `{0}` has an empty segment")]
    #[diagnostic(code("MESH-0112"), help("remove the doubled `/`"))]
    EmptySegment(Quoted),
    /// A segment `.` or `..`.
    #[error("the path of `{0}` has a segment `.` or `..`")]
    #[diagnostic(code("MESH-0113"), help("write the path that is meant"))]
    DotSegment(Quoted),
    /// A slash at the end.
    #[error("`{0}` ends with a slash")]
    #[diagnostic(code("MESH-0114"), help("remove the last `/`"))]
    TrailingSlash(Quoted),
    /// Another character than `a-z A-Z 0-9 . - _` in the path.
    #[error("the path of `{0}` has a character other than `a-z`, `A-Z`, `0-9`, `.`, `-`, `_`")]
    #[diagnostic(
        code("MESH-0115"),
        help("rename the workload, namespace or service account")
    )]
    PathCharacter(Quoted),
}

impl TrustDomain {
    /// Reads a canonical trust domain name; upper case is refused.
    ///
    /// # Errors
    /// [`IdError`] naming the first rule broken.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check_trust_domain(text, text)?;
        Ok(Self(text.into()))
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself, `spiffe://<name>`, as its authorities carry it.
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            text: format!("{SCHEME}{self}").into(),
            domain: self.clone(),
        }
    }
}

impl SpiffeId {
    /// Reads a SPIFFE ID in canonical form, as certificates and tokens must carry it (rules ID1-ID4).
    ///
    /// # Errors
    /// [`IdError`] naming the first rule broken.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        parse_canonical(text, text)
    }

    /// As [`SpiffeId::parse`], but scheme and trust domain may be in upper case, as configuration may have them (ID4).
    ///
    /// # Errors
    /// [`IdError`] naming the first rule broken.
    pub fn parse_config(text: &str) -> Result<Self, IdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(IdError::TooLong(Quoted::new(text)));
        }
        let authority = text.find("://").map_or(0, |at| at + "://".len());
        let path = text
            .get(authority..)
            .and_then(|rest| rest.find('/'))
            .map_or(text.len(), |at| authority + at);
        let (head, path) = text.split_at_checked(path).unwrap_or((text, ""));
        parse_canonical(&(head.to_ascii_lowercase() + path), text)
    }

    /// The identity of a service account: `spiffe://<td>/ns/<namespace>/sa/<name>`.
    ///
    /// # Errors
    /// [`IdError`] if a name cannot be a path segment, or the whole is too long.
    pub fn for_service_account(
        domain: &TrustDomain,
        namespace: &str,
        name: &str,
    ) -> Result<Self, IdError> {
        check_segment(namespace, namespace)?;
        check_segment(name, name)?;
        Self::parse(&format!("{SCHEME}{domain}/ns/{namespace}/sa/{name}"))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The path with its leading slash, empty for the ID of a trust domain itself.
    pub fn path(&self) -> &str {
        self.text
            .get(SCHEME.len() + self.domain.0.len()..)
            .unwrap_or("")
    }

    /// Namespace and name, if the path is exactly `/ns/<namespace>/sa/<name>`.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some(namespace), Some("sa"), Some(name), None) => Some((namespace, name)),
            _ => None,
        }
    }
}

/// Reads `text`; errors quote `given`, which configuration may have written in another case.
fn parse_canonical(text: &str, given: &str) -> Result<SpiffeId, IdError> {
    if text.len() > SPIFFE_ID_BYTES_MAX {
        return Err(IdError::TooLong(Quoted::new(given)));
    }
    let Some(rest) = text.strip_prefix(SCHEME) else {
        let shouted = text
            .get(..SCHEME.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(SCHEME));
        let error = if shouted {
            IdError::UpperCase
        } else {
            IdError::Scheme
        };
        return Err(error(Quoted::new(given)));
    };
    match rest.bytes().find(|byte| matches!(byte, b'?' | b'#')) {
        Some(b'?') => return Err(IdError::Query(Quoted::new(given))),
        Some(_) => return Err(IdError::Fragment(Quoted::new(given))),
        None => {}
    }
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    check_trust_domain(domain, given)?;
    if let Some(path) = path {
        check_path(path, given)?;
    }
    Ok(SpiffeId {
        text: text.into(),
        domain: TrustDomain(domain.into()),
    })
}

fn check_trust_domain(domain: &str, given: &str) -> Result<(), IdError> {
    if domain.is_empty() {
        return Err(IdError::NoTrustDomain(Quoted::new(given)));
    }
    if let Some(odd) = domain.bytes().find(|byte| !is_trust_domain_byte(*byte)) {
        let error = match odd {
            _ if domain.contains('@') => IdError::UserInfo,
            b':' => IdError::Port,
            b'A'..=b'Z' => IdError::UpperCase,
            _ => IdError::TrustDomainCharacter,
        };
        return Err(error(Quoted::new(given)));
    }
    if domain.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(IdError::TrustDomainTooLong(Quoted::new(given)));
    }
    Ok(())
}

/// Checks a path given without its leading slash.
fn check_path(path: &str, given: &str) -> Result<(), IdError> {
    let inner = path.strip_suffix('/').unwrap_or(path);
    if !inner.is_empty() {
        inner
            .split('/')
            .try_for_each(|segment| check_segment(segment, given))?;
    }
    if inner.is_empty() || inner.len() < path.len() {
        return Err(IdError::TrailingSlash(Quoted::new(given)));
    }
    Ok(())
}

fn check_segment(segment: &str, given: &str) -> Result<(), IdError> {
    let error = match segment {
        "" => IdError::EmptySegment,
        "." | ".." => IdError::DotSegment,
        _ if segment.contains('%') => IdError::PercentEncoding,
        _ if !segment.bytes().all(is_path_byte) => IdError::PathCharacter,
        _ => return Ok(()),
    };
    Err(error(Quoted::new(given)))
}

fn is_trust_domain_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

fn is_path_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

macro_rules! text_form {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
text_form!(TrustDomain);
text_form!(SpiffeId);

#[cfg(test)]
mod tests;
