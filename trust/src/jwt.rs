//! JWT-SVIDs: bearer tokens that name a workload, for peers that cannot speak mTLS (SPIFFE JWT-SVID; rules J1-J5).
//!
//! A token is believed only if everything about it can be read in one way: compact form, three known header fields,
//! a signature algorithm of the standard's list, one subject, an end. Its key is looked up in the bundle of the
//! subject's own trust domain and nowhere else; the key says which algorithms it may be used with, not the token.
//!
//! - [`JwtSvid::verify`]: from text to a token that is trusted
//! - [`JwtBundle`], [`JwtBundles`]: the keys that may sign, by trust domain

use crate::id::IdError;
use crate::limits::{JWT_AUDIENCES_MAX, JWT_BYTES_MAX};
use crate::quoted::Quoted;
use crate::strict_json;
use crate::{SpiffeId, Timestamp, TrustDomain};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

mod keys;

pub use keys::{JwtBundle, JwtBundles, JwtKey, JwtKeyError};

/// How far a token's `iat` and `nbf` may lie ahead, seconds, for issuers whose clock is early. Its end gets no allowance.
const CLOCK_SKEW_SECS: i64 = 60;

/// The header fields that a JWT-SVID may have (JWT-SVID §2).
const HEADER_FIELDS: [&str; 3] = ["alg", "kid", "typ"];

/// A token that was verified: made only by [`JwtSvid::verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSvid {
    id: SpiffeId,
    audience: Vec<String>,
    expires: Timestamp,
    claims: Map<String, Value>,
}

/// The algorithms that a JWT-SVID may be signed with (JWT-SVID §2.1): no `none`, no HMAC, no EdDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256: what our CA signs with.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum JwtError {
    /// Refused before it is read.
    #[error("a token of {bytes} bytes; the limit is {JWT_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0253"),
        help("a JWT-SVID has about 500 bytes: look at who sent it")
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a signed token in compact form.
    #[error("the token is no JWT-SVID: its {part} cannot be read")]
    #[diagnostic(
        code("MESH-0254"),
        help(
            "a JWT-SVID is `header.claims.signature`, each in base64url without padding; a key given twice is refused"
        )
    )]
    Malformed {
        /// What cannot be read.
        part: &'static str,
    },
    /// A header that a JWT-SVID does not have.
    #[error("the token's header is not one of a JWT-SVID: {why}")]
    #[diagnostic(
        code("MESH-0255"),
        help("the header has `alg` (RS, PS or ES with 256, 384 or 512), `kid` and perhaps `typ`")
    )]
    Header {
        /// What is wrong with it.
        why: String,
    },
    /// Nobody trusted may sign so for this domain.
    #[error("no key `{kid}` of trust domain `{domain}` is known for `{algorithm}`")]
    #[diagnostic(
        code("MESH-0256"),
        help(
            "the token is of a domain that is not trusted here, of a forged issuer, or its key was withdrawn"
        )
    )]
    UnknownKey {
        /// The token's key id.
        kid: Quoted,
        /// The subject's domain.
        domain: TrustDomain,
        /// The token's algorithm.
        algorithm: &'static str,
    },
    /// Changed on its way, or forged.
    #[error("the token's signature is wrong")]
    #[diagnostic(
        code("MESH-0257"),
        help("fetch a new token; if it stays, look at who sends it")
    )]
    Signature,
    /// A claim that is missing or of another form.
    #[error("the token's `{claim}` {why}")]
    #[diagnostic(
        code("MESH-0258"),
        help("a JWT-SVID has `sub` (a SPIFFE ID with a path), `aud` and `exp`")
    )]
    Claim {
        /// Which.
        claim: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// For somebody else.
    #[error("the token is not for audience `{wanted}`")]
    #[diagnostic(
        code("MESH-0259"),
        help(
            "the client must ask for a token with this audience; one for another service is not taken"
        )
    )]
    Audience {
        /// Who was asked to take it.
        wanted: Quoted,
    },
    /// Over, or not yet begun.
    #[error("the token counts {from}until {until}, and it is {now}")]
    #[diagnostic(
        code("MESH-0260"),
        help("tokens live for minutes: fetch a new one for each use, and look at both clocks")
    )]
    NotInForce {
        /// `from <time> `, if it says so.
        from: String,
        /// Its end.
        until: Timestamp,
        /// The clock.
        now: Timestamp,
    },
}

impl Algorithm {
    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// Its name in a header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl JwtSvid {
    /// Believes `token` for `audience` at `now`, or says why not.
    ///
    /// # Errors
    /// [`JwtError`]. What the token claims is looked at only after its signature, but for the subject, whose domain says
    /// which keys count.
    pub fn verify(
        token: &str,
        audience: &str,
        bundles: &JwtBundles,
        now: Timestamp,
    ) -> Result<Self, JwtError> {
        if token.len() > JWT_BYTES_MAX {
            return Err(JwtError::TooLarge { bytes: token.len() });
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or(JwtError::Malformed { part: "form" })?;
        let (header, claims) = signed
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or(JwtError::Malformed { part: "form" })?;
        let (algorithm, kid) = read_header(&object(header, "header")?)?;
        let claims = object(claims, "claims")?;
        let signature = decode(signature, "signature")?;
        let id = subject(&claims)?;
        let key = bundles
            .get(id.trust_domain())
            .and_then(|bundle| bundle.get(&kid))
            .filter(|key| key.takes(algorithm))
            .ok_or_else(|| JwtError::UnknownKey {
                kid: Quoted::new(&kid),
                domain: id.trust_domain().clone(),
                algorithm: algorithm.name(),
            })?;
        if !key.verify(algorithm, signed.as_bytes(), &signature) {
            return Err(JwtError::Signature);
        }
        let expires = in_force(&claims, now)?;
        let audiences = read_audience(&claims)?;
        if audience.is_empty() || !audiences.iter().any(|one| one == audience) {
            return Err(JwtError::Audience {
                wanted: Quoted::new(audience),
            });
        }
        Ok(Self {
            id,
            audience: audiences,
            expires,
            claims,
        })
    }

    /// Whom it names.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// For whom it is; the one that was asked for is among them.
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// The first moment at which it no longer counts.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// All that it claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, JwtError> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(JwtError::Malformed { part }),
    }
}

fn object(text: &str, part: &'static str) -> Result<Map<String, Value>, JwtError> {
    match strict_json::parse(&decode(text, part)?) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(JwtError::Malformed { part }),
    }
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, String), JwtError> {
    let refuse = |why: String| Err(JwtError::Header { why });
    if let Some(other) = header
        .keys()
        .find(|key| !HEADER_FIELDS.contains(&key.as_str()))
    {
        return refuse(format!("it has `{}`", Quoted::new(other)));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if kind == "JWT" || kind == "JOSE" => {}
        Some(other) => return refuse(format!("`typ` is `{}`", Quoted::new(&other.to_string()))),
    }
    let name = header
        .get("alg")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(algorithm) = Algorithm::parse(name) else {
        return refuse(format!("`alg` is `{}`", Quoted::new(name)));
    };
    match header.get("kid") {
        Some(Value::String(kid)) if !kid.is_empty() => Ok((algorithm, kid.clone())),
        _ => refuse("it has no `kid`".to_owned()),
    }
}

fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, JwtError> {
    let wrong = |why: String| JwtError::Claim { claim: "sub", why };
    let text = claims
        .get("sub")
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("is missing or no text".to_owned()))?;
    let id = SpiffeId::parse(text)
        .map_err(|error: IdError| wrong(format!("is no SPIFFE ID: {error}")))?;
    if id.path().is_empty() {
        return Err(wrong("names a trust domain, not a workload".to_owned()));
    }
    Ok(id)
}

fn read_audience(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let wrong = |why: &str| JwtError::Claim {
        claim: "aud",
        why: why.to_owned(),
    };
    let audiences: Vec<String> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) if several.len() <= JWT_AUDIENCES_MAX => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("holds something that is no text"))?,
        Some(Value::Array(_)) => return Err(wrong("names too many")),
        _ => return Err(wrong("is missing, or neither text nor list")),
    };
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(wrong("is empty"));
    }
    Ok(audiences)
}

/// The token's end, if it counts at `now`.
fn in_force(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, JwtError> {
    let until = moment(claims, "exp")?.ok_or_else(|| JwtError::Claim {
        claim: "exp",
        why: "is missing".to_owned(),
    })?;
    let ahead = now.plus_secs(CLOCK_SKEW_SECS);
    let begins = [moment(claims, "nbf")?, moment(claims, "iat")?];
    let begins = begins.into_iter().flatten().max();
    if now >= until || begins.is_some_and(|begins| begins > ahead) {
        let from = begins
            .map(|from| format!("from {from} "))
            .unwrap_or_default();
        return Err(JwtError::NotInForce { from, until, now });
    }
    Ok(until)
}

/// A NumericDate (RFC 7519 §2): seconds since the epoch, perhaps with a fraction, which is dropped.
fn moment(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<Timestamp>, JwtError> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let whole = value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        // Exactly the numbers whose whole part fits: beyond 2^53 a fraction has no meaning.
        (number.is_finite() && number.abs() <= 9_007_199_254_740_992.0)
            .then_some(number.floor() as i64)
    });
    match whole {
        Some(secs) => Ok(Some(Timestamp::from_unix_secs(secs))),
        None => Err(JwtError::Claim {
            claim,
            why: "is no time in seconds".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
