//! What requests that go to one endpoint have in common: a key of 64 bits, the same at every proxy.

use super::mixed;
use crate::http_hygiene::cookie;
use http::header::{HeaderMap, HeaderName};
use mesh_policy::traffic::BalanceKey;

/// Where the key of a request is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The first value of a header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// Who the client's own proxy is.
    SourceIdentity,
}

impl Key {
    /// From data; `None` for a header that no request can have: requests then have no key.
    pub fn compile(data: &BalanceKey) -> Option<Self> {
        Some(match data {
            BalanceKey::Header(name) => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            BalanceKey::Cookie(name) => Self::Cookie(name.clone()),
            BalanceKey::SourceIdentity => Self::SourceIdentity,
        })
    }

    /// The key of a request; `None`: it has none. `source` is a hash of the own identity, if there is one.
    pub fn of(&self, headers: &HeaderMap, source: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Self::Cookie(name) => cookie(headers, name).map(|value| hash(value.as_bytes())),
            Self::SourceIdentity => source(),
        }
    }
}

/// A hash that is the same everywhere and for ever (FNV-1a, then mixed). Who chooses keys may choose endpoints by it, as
/// by every hash that all proxies share.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(fnv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_request_has_the_key_that_is_asked_for_or_none() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("ada"));
        headers.append("x-user", HeaderValue::from_static("bob"));
        headers.append("cookie", HeaderValue::from_static("a=b; sid=ada"));
        let of = |data: BalanceKey| Key::compile(&data)?.of(&headers, || Some(7));
        let ada = Some(hash(b"ada"));
        assert_eq!(of(BalanceKey::Header("x-user".to_owned())), ada);
        assert_eq!(of(BalanceKey::Cookie("sid".to_owned())), ada);
        assert_eq!(of(BalanceKey::Cookie("SID".to_owned())), None);
        assert_eq!(of(BalanceKey::Header("x-other".to_owned())), None);
        assert_eq!(of(BalanceKey::Header("a b".to_owned())), None);
        assert_eq!(of(BalanceKey::SourceIdentity), Some(7));
        assert_ne!(hash(b"ada"), hash(b"adb"));
    }
}
