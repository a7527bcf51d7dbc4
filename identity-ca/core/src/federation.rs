//! Relations with other trust domains: where their bundle is, which one counts, when to look for the next (SPIFFE
//! Federation §4, §5). No IO and no clock.
//!
//! Trust domain, address and profile are said by a person, never inferred one from the other, and a profile is never
//! exchanged for the other. Who may come in is policy's to say: a relation only makes identities verifiable.

use crate::limits::{
    ENDPOINT_URL_BYTES_MAX, FETCH_RETRY_SECS, REFRESH_SECS, REFRESH_SECS_MAX, REFRESH_SECS_MIN,
};
use mesh_trust::bundle::WholeBundle;
use mesh_trust::quoted::Quoted;
use mesh_trust::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Whose bundle is fetched, from where, and how the endpoint is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    // INVARIANT: an endpoint known by an SVID is of `domain`.
    domain: TrustDomain,
    url: EndpointUrl,
    profile: Profile,
}

/// How an endpoint proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "profile", rename_all = "snake_case", deny_unknown_fields)]
pub enum Profile {
    /// By an SVID of its own domain, under the bundle that was fetched last; the first one is given by a person.
    HttpsSpiffe {
        /// Whose.
        endpoint_id: SpiffeId,
    },
    /// By a certificate for its DNS name.
    HttpsWeb {
        /// File of the roots by which it is known, PEM, absolute. Read anew for each fetch.
        roots: PathBuf,
    },
}

/// The address of a bundle endpoint: `https`, a host, perhaps a port, a path; nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointUrl {
    text: String,
    host: String,
    port: u16,
    path: String,
}

/// Why there can be no such relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum RelationError {
    /// Our own bundle is not fetched.
    #[error("`{domain}` is this mesh's own trust domain")]
    #[diagnostic(
        code("MESH-0960"),
        help("name the other mesh's trust domain; two meshes of one name cannot federate")
    )]
    OwnDomain {
        /// It.
        domain: TrustDomain,
    },
    /// An address that could be read in two ways, or is none.
    #[error("`{url}` is no address of a bundle endpoint: {why}")]
    #[diagnostic(
        code("MESH-0961"),
        help("write https://HOST[:PORT][/PATH], without user, query or fragment")
    )]
    Url {
        /// What was given.
        url: Quoted,
        /// What is wrong.
        why: &'static str,
    },
    /// An endpoint of another domain.
    #[error("the endpoint of `{domain}` cannot be `{endpoint_id}`")]
    #[diagnostic(
        code("MESH-0962"),
        help(
            "an endpoint of profile https_spiffe is known by an SVID of the domain whose bundle it serves; for any other, use https_web"
        )
    )]
    EndpointId {
        /// Whose bundle.
        domain: TrustDomain,
        /// Who was to serve it.
        endpoint_id: SpiffeId,
    },
}

/// What a fetched bundle changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    Same,
    /// It takes the place of the one that was held.
    Newer,
}

/// Why a bundle that could be read does not take the place of the one that is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum StaleBundle {
    /// Older than what is held.
    #[error("the endpoint of `{domain}` serves sequence {found}; {held} is in force already")]
    #[diagnostic(
        code("MESH-0973"),
        help(
            "somebody may be bringing back a root that was dropped: ask that domain's operators. If they began anew, remove the relation and add it again"
        )
    )]
    Rollback {
        /// Whose.
        domain: TrustDomain,
        /// In force.
        held: u64,
        /// Served.
        found: u64,
    },
    /// Another content under the same number.
    #[error("the endpoint of `{domain}` serves sequence {sequence} with other keys than before")]
    #[diagnostic(
        code("MESH-0974"),
        help(
            "two endpoints that disagree, or somebody in between: ask that domain's operators which keys are theirs"
        )
    )]
    SameSequence {
        /// Whose.
        domain: TrustDomain,
        /// The number.
        sequence: u64,
    },
    /// No number, where there was one.
    #[error(
        "the endpoint of `{domain}` serves a bundle without sequence; {held} is in force already"
    )]
    #[diagnostic(
        code("MESH-0975"),
        help(
            "without a number nobody can tell an old bundle from a new one; if that domain serves none any more, remove the relation and add it again"
        )
    )]
    NoSequence {
        /// Whose.
        domain: TrustDomain,
        /// In force.
        held: u64,
    },
}

impl Relation {
    /// A relation of a mesh of trust domain `own`.
    ///
    /// # Errors
    /// [`RelationError`].
    pub fn new(
        own: &TrustDomain,
        domain: TrustDomain,
        url: EndpointUrl,
        profile: Profile,
    ) -> Result<Self, RelationError> {
        if domain == *own {
            return Err(RelationError::OwnDomain { domain });
        }
        if let Profile::HttpsSpiffe { endpoint_id } = &profile
            && (endpoint_id.trust_domain() != &domain || endpoint_id.path().is_empty())
        {
            let endpoint_id = endpoint_id.clone();
            return Err(RelationError::EndpointId {
                domain,
                endpoint_id,
            });
        }
        Ok(Self {
            domain,
            url,
            profile,
        })
    }

    /// Whose bundle.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Where it is.
    pub fn url(&self) -> &EndpointUrl {
        &self.url
    }

    /// How the endpoint is known.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }
}

impl Profile {
    /// Its name in the standard.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HttpsSpiffe { .. } => "https_spiffe",
            Self::HttpsWeb { .. } => "https_web",
        }
    }
}

impl EndpointUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// [`RelationError::Url`].
    pub fn parse(text: &str) -> Result<Self, RelationError> {
        let refuse = |why| RelationError::Url {
            url: Quoted::new(text),
            why,
        };
        if text.len() > ENDPOINT_URL_BYTES_MAX {
            return Err(refuse("it is too long"));
        }
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| refuse("it does not begin with `https://`"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        // Printable ASCII but what has a meaning of its own, so that every reader sees the same address.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
        if !path.bytes().all(plain) {
            return Err(refuse("its path has a character that must not stand there"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| refuse("its port is no number"))?;
        let is_name = |host: &str| {
            let letters = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(letters)
        };
        let is_ipv6 = |host: &str| {
            let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        };
        if !is_name(host) && !is_ipv6(host) {
            return Err(refuse("it has no host"));
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// The host; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 443 unless the address names another.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, `/` at least.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Host and port of an authority.
fn split_port(authority: &str) -> Option<(&str, u16)> {
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    match authority.get(after_address..)?.rfind(':') {
        None => Some((authority, 443)),
        Some(at) => {
            let (host, port) = authority.split_at(after_address + at);
            let digits = port.strip_prefix(':')?;
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let port = digits.parse().ok().filter(|port| plain && *port != 0)?;
            Some((host, port))
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = RelationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<EndpointUrl> for String {
    fn from(url: EndpointUrl) -> Self {
        url.text
    }
}

/// Whether `fetched` takes the place of `held`. Both are of one domain.
///
/// # Errors
/// [`StaleBundle`]: what is held stays in force.
pub fn judge(held: Option<&WholeBundle>, fetched: &WholeBundle) -> Result<News, StaleBundle> {
    let domain = || fetched.domain().clone();
    let Some(before) = held else {
        return Ok(News::Newer);
    };
    let same = before.trusts_the_same(fetched);
    match (before.sequence(), fetched.sequence()) {
        (Some(held), Some(found)) if found < held => Err(StaleBundle::Rollback {
            domain: domain(),
            held,
            found,
        }),
        (Some(held), Some(found)) if found == held && !same => Err(StaleBundle::SameSequence {
            domain: domain(),
            sequence: held,
        }),
        (Some(held), None) => Err(StaleBundle::NoSequence {
            domain: domain(),
            held,
        }),
        (Some(held), Some(found)) if found == held => Ok(News::Same),
        // Neither has a number: the content is all there is to go by.
        (None, None) if same => Ok(News::Same),
        _ => Ok(News::Newer),
    }
}

/// How often the bundle of a domain that asks for `hint` is fetched, seconds.
pub fn refresh_secs(hint: Option<u64>) -> u64 {
    hint.unwrap_or(REFRESH_SECS)
        .clamp(REFRESH_SECS_MIN, REFRESH_SECS_MAX)
}

/// Pause before the next fetch, after `failures` in a row. `dice` is any number: it takes up to a fifth off, so that many
/// do not come together, and nobody comes later than was asked for.
pub fn pause(hint: Option<u64>, failures: u32, dice: u64) -> Duration {
    let usual = refresh_secs(hint);
    let whole = match failures.checked_sub(1) {
        None => usual,
        Some(doublings) => FETCH_RETRY_SECS
            .saturating_mul(1 << doublings.min(16))
            .min(usual),
    };
    let millis = whole.saturating_mul(1_000);
    Duration::from_millis(millis - dice % (millis / 5).max(1))
}

#[cfg(test)]
mod tests;
