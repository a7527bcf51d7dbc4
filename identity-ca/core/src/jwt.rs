//! JWT-SVIDs: what a token will claim, and its signature. Five minutes at most, one audience, always a key id.
//!
//! A token can be replayed by whoever reads it, so it says as little as it can: who, for whom, until when, and a number
//! of its own that the CA's log repeats. Which key signs when is [`rota`]'s; the key is apart from the issuer's.

use crate::issue::{IssueError, Signer, SignerFailed};
use crate::key::{Curve, PublicKey};
use crate::limits::{
    AUDIENCE_BYTES_MAX, JWT_LIFETIME_SECS, JWT_LIFETIME_SECS_MAX, JWT_LIFETIME_SECS_MIN,
    SIGNED_BYTES_MAX,
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::Serialize;

pub mod rota;

/// Whom attestation found, and for whom the token is.
#[derive(Clone, Debug)]
pub struct JwtRequest {
    /// From attestation, never from the requester.
    pub id: SpiffeId,
    /// The one who may take it.
    pub audience: String,
    /// A wish, clamped to 10 s..=300 s; none: 300 s.
    pub lifetime_secs: Option<u64>,
}

/// A signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedJwt {
    /// Header, claims and signature: a secret while it counts.
    pub token: String,
    /// Its own number, hex.
    pub token_id: String,
    /// The first moment at which it no longer counts.
    pub expires: Timestamp,
}

/// Why no token was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum JwtIssueError {
    /// An audience that cannot be one.
    #[error(
        "an audience of {bytes} bytes; it must have 1 to {AUDIENCE_BYTES_MAX} and no control character"
    )]
    #[diagnostic(
        code("MESH-0262"),
        help("name the service that will take the token, for instance by its SPIFFE ID")
    )]
    Audience {
        /// Its size.
        bytes: usize,
    },
    /// Another domain, or no workload.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Issue(#[from] IssueError),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a SpiffeId,
    aud: [&'a str; 1],
    exp: i64,
    iat: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// A token without its signature: what the signer is to sign.
#[derive(Clone, Debug)]
pub struct Unsigned {
    /// Header and claims.
    text: String,
    token_id: String,
    expires: Timestamp,
}

/// Says what a token for `request` claims, to be signed with the key that bundles name `key_id`.
///
/// `iss` is the address under which relying parties outside of SPIFFE find the keys, if there is one; `random` makes
/// the token's own number.
///
/// # Errors
/// [`JwtIssueError`]: a foreign identity, an audience that is none.
pub fn prepare(
    request: &JwtRequest,
    domain: &TrustDomain,
    iss: Option<&str>,
    key_id: &str,
    random: [u8; 16],
    now: Timestamp,
) -> Result<Unsigned, JwtIssueError> {
    let JwtRequest {
        id,
        audience,
        lifetime_secs,
    } = request;
    if id.trust_domain() != domain || id.path().is_empty() {
        return Err(IssueError::Identity {
            id: id.clone(),
            domain: domain.clone(),
        }
        .into());
    }
    if !(1..=AUDIENCE_BYTES_MAX).contains(&audience.len()) || audience.chars().any(char::is_control)
    {
        return Err(JwtIssueError::Audience {
            bytes: audience.len(),
        });
    }
    let lifetime = lifetime_secs
        .unwrap_or(JWT_LIFETIME_SECS)
        .clamp(JWT_LIFETIME_SECS_MIN, JWT_LIFETIME_SECS_MAX);
    let iat = now.unix_secs();
    let exp = iat.saturating_add(i64::try_from(lifetime).unwrap_or(0));
    let token_id = HEXLOWER.encode(&random);
    let header = Header {
        alg: "ES256",
        kid: key_id,
        typ: "JWT",
    };
    let claims = Claims {
        sub: id,
        aud: [audience],
        exp,
        iat,
        jti: &token_id,
        iss,
    };
    let text = format!("{}.{}", part(&header)?, part(&claims)?);
    // A signer hangs up on more.
    if text.len() > SIGNED_BYTES_MAX {
        let why = format!("a token of {} bytes", text.len());
        return Err(IssueError::Encode { why }.into());
    }
    Ok(Unsigned {
        text,
        token_id,
        expires: Timestamp::from_unix_secs(exp),
    })
}

impl Unsigned {
    /// The octets to be signed (RFC 7515 §5.1).
    pub fn to_be_signed(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The token, with the signature that `signer` made: ECDSA on P-256 with SHA-256, in DER.
    ///
    /// # Errors
    /// [`JwtIssueError`]: the signer failed, or is not of P-256.
    pub fn signed(
        self,
        signer: &PublicKey,
        signature: Result<Vec<u8>, SignerFailed>,
    ) -> Result<IssuedJwt, JwtIssueError> {
        let failed = |why: &str| IssueError::Signer(SignerFailed(why.to_owned()));
        if signer.curve() != Curve::P256 {
            return Err(failed("tokens are signed with P-256").into());
        }
        let signature = fixed_signature(&signature.map_err(IssueError::Signer)?)
            .ok_or_else(|| failed("the signature is no pair of numbers"))?;
        let mut token = self.text;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(IssuedJwt {
            token,
            token_id: self.token_id,
            expires: self.expires,
        })
    }
}

/// Signs a token for `request` at once: [`prepare`], and a signature by the key that bundles name `key_id`.
///
/// # Errors
/// [`JwtIssueError`]: as [`prepare`] and [`Unsigned::signed`].
pub fn sign(
    request: &JwtRequest,
    domain: &TrustDomain,
    iss: Option<&str>,
    (key_id, signer): (&str, &dyn Signer),
    random: [u8; 16],
    now: Timestamp,
) -> Result<IssuedJwt, JwtIssueError> {
    let unsigned = prepare(request, domain, iss, key_id, random, now)?;
    let signature = signer.sign(unsigned.to_be_signed());
    unsigned.signed(signer.public_key(), signature)
}

fn part(value: &impl Serialize) -> Result<String, IssueError> {
    let json = serde_json::to_vec(value).map_err(|error| IssueError::Encode {
        why: error.to_string(),
    })?;
    Ok(BASE64URL_NOPAD.encode(&json))
}

/// A P-256 signature as JWS has it (RFC 7518 §3.4): r and s, 32 octets each, from the DER of a certificate's.
fn fixed_signature(der: &[u8]) -> Option<[u8; 64]> {
    let [0x30, length, numbers @ ..] = der else {
        return None;
    };
    if usize::from(*length) != numbers.len() {
        return None;
    }
    let mut fixed = [0; 64];
    let (r, s) = fixed.split_at_mut(32);
    let rest = take_number(numbers, r)?;
    take_number(rest, s)?.is_empty().then_some(fixed)
}

/// Reads one INTEGER into `out`, right-aligned; what follows it.
fn take_number<'a>(der: &'a [u8], out: &mut [u8]) -> Option<&'a [u8]> {
    let [0x02, length, rest @ ..] = der else {
        return None;
    };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let number = match number {
        [0, magnitude @ ..] => magnitude,
        all => all,
    };
    let start = out.len().checked_sub(number.len())?;
    out.get_mut(start..)?.copy_from_slice(number);
    Some(rest)
}

#[cfg(test)]
mod tests;
