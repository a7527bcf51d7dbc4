//! Which of the fields that matter to a proxy stand in a head: found in one reading, so that none is looked up in vain.
//!
//! A lookup costs a hash of the name and a walk, whether or not the field is there, and the checks of one request ask for a
//! dozen fields of which it mostly has one or two.

use http::HeaderMap;
use mesh_policy::fields::{is_hop_by_hop, is_reserved};

/// Fields, and classes of fields, as bits of [`Present`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field(u16);

impl Field {
    pub(super) const HOST: Self = Self(1);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 1);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 2);
    pub(super) const TE: Self = Self(1 << 3);
    pub(super) const EXPECT: Self = Self(1 << 4);
    pub(super) const CONNECTION: Self = Self(1 << 5);
    pub(super) const UPGRADE: Self = Self(1 << 6);
    /// What the application spoke, as its proxy says (`mesh-orig-version`).
    pub(super) const ORIG_VERSION: Self = Self(1 << 7);
    /// Either of the two that give a request its time.
    pub(super) const DEADLINE: Self = Self(1 << 8);
    /// Connection-specific fields that HTTP/2 does not have (RFC 9113 §8.2.2).
    pub(super) const NOT_IN_H2: Self = Self(1 << 9);
    /// Hop-by-hop fields but for `Connection`, and those that only proxies write: none crosses.
    pub(super) const UNWANTED: Self = Self(1 << 10);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What a name, in lower case, is.
    fn of(name: &str) -> Self {
        let known = match name {
            "host" => Self::HOST,
            "content-length" => Self::CONTENT_LENGTH,
            "transfer-encoding" => Self::TRANSFER_ENCODING.and(Self::NOT_IN_H2),
            "te" => Self::TE,
            "expect" => Self::EXPECT,
            "connection" => Self::CONNECTION.and(Self::NOT_IN_H2),
            "upgrade" => Self::UPGRADE.and(Self::NOT_IN_H2),
            "keep-alive" | "proxy-connection" => Self::NOT_IN_H2,
            "mesh-orig-version" => Self::ORIG_VERSION,
            "grpc-timeout" | "x-envoy-expected-rq-timeout-ms" => Self::DEADLINE,
            _ => Self(0),
        };
        let unwanted = is_hop_by_hop(name) || is_reserved(name.as_bytes());
        if unwanted && name != "connection" {
            known.and(Self::UNWANTED)
        } else {
            known
        }
    }
}

/// Which fields a head has, and which of them more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    once: u16,
    twice: u16,
}

impl Present {
    /// Reads all names.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        headers
            .iter()
            .for_each(|(name, _)| present.note(name.as_str()));
        present
    }

    /// Notes one field, by its name in lower case; once for each of its values.
    pub(super) fn note(&mut self, name: &str) {
        let Field(bits) = Field::of(name);
        self.twice |= self.once & bits;
        self.once |= bits;
    }

    /// Whether there is such a field.
    pub(super) const fn has(self, field: Field) -> bool {
        self.once & field.0 != 0
    }

    /// Whether there are two values of it, or more. Not for classes, of which there may well be two.
    pub(super) const fn has_two(self, field: Field) -> bool {
        self.twice & field.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn present(names: &[&'static str]) -> Present {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("x"));
        }
        Present::of(&headers)
    }

    #[test]
    fn what_stands_there_is_found_and_nothing_else() {
        let singles = [
            ("host", Field::HOST),
            ("content-length", Field::CONTENT_LENGTH),
            ("transfer-encoding", Field::TRANSFER_ENCODING),
            ("te", Field::TE),
            ("expect", Field::EXPECT),
            ("connection", Field::CONNECTION),
            ("upgrade", Field::UPGRADE),
            ("mesh-orig-version", Field::ORIG_VERSION),
            ("grpc-timeout", Field::DEADLINE),
            ("x-envoy-expected-rq-timeout-ms", Field::DEADLINE),
        ];
        for (name, field) in singles {
            for (other, of) in singles {
                assert_eq!(present(&[other]).has(field), of == field, "{name} {other}");
            }
            assert!(!present(&["accept", name]).has_two(field), "{name}");
            assert!(present(&[name, "accept", name]).has_two(field), "{name}");
            assert!(!present(&["accept", "x-te", "hosts"]).has(field), "{name}");
        }
    }

    #[test]
    fn what_must_not_cross_is_what_policy_says() {
        for name in ["te", "trailer", "upgrade", "keep-alive", "http2-settings"] {
            assert!(
                is_hop_by_hop(name) && present(&[name]).has(Field::UNWANTED),
                "{name}"
            );
        }
        for name in [
            "mesh-client-id",
            "l5d_client_id",
            "mesh-orig-version",
            "x-spiffe-id",
        ] {
            assert!(present(&[name]).has(Field::UNWANTED), "{name}");
        }
        for name in ["host", "content-length", "expect", "grpc-timeout", "cookie"] {
            assert!(!present(&[name]).has(Field::UNWANTED), "{name}");
        }
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(present(&[name]).has(Field::NOT_IN_H2), "{name}");
        }
        assert!(!present(&["te", "trailer"]).has(Field::NOT_IN_H2));
    }
}
