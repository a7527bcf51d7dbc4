//! Keys that may sign JWT-SVIDs, by trust domain and key id; read from and written as JWK Sets (rules B1, J4).

use super::Algorithm;
use crate::TrustDomain;
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX, JWT_KEY_ID_BYTES_MAX, RSA_BYTES};
use crate::strict_json;
use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `use` of a key that signs JWT-SVIDs in a SPIFFE bundle.
const USE: &str = "jwt-svid";

/// A public key that may sign tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtKey(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Uncompressed point: 4, x, y.
    Elliptic(Curve, Vec<u8>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// The keys of one trust domain. Without any, no token of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBundle {
    domain: TrustDomain,
    keys: BTreeMap<String, JwtKey>,
}

/// The bundles that a verifier knows, one for each trust domain; never pooled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtBundles(BTreeMap<TrustDomain, JwtBundle>);

/// Why a set of keys is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the keys for JWT-SVIDs cannot be read: {why}")]
#[diagnostic(
    code("MESH-0261"),
    help(
        "a SPIFFE bundle is a JWK Set whose keys with `use` `jwt-svid` have a `kid` of their own and all numbers of their key"
    )
)]
pub struct JwtKeyError {
    /// What is wrong, and with which key.
    pub why: String,
}

fn wrong(why: impl Into<String>) -> JwtKeyError {
    JwtKeyError { why: why.into() }
}

impl JwtKey {
    /// A P-256 key by its uncompressed point: octet 4, x, y.
    ///
    /// # Errors
    /// [`JwtKeyError`] unless it is 65 octets that begin with 4. Whether it lies on the curve is found at the first use.
    pub fn from_p256_point(point: &[u8]) -> Result<Self, JwtKeyError> {
        match point {
            [4, rest @ ..] if rest.len() == 64 => {
                Ok(Self(Kind::Elliptic(Curve::P256, point.to_vec())))
            }
            _ => Err(wrong("a P-256 point has 65 octets and begins with 4")),
        }
    }

    /// Whether tokens of this algorithm may be signed with it: the key decides, never the token.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        match (&self.0, algorithm) {
            (Kind::Elliptic(Curve::P256, _), Algorithm::Es256)
            | (Kind::Elliptic(Curve::P384, _), Algorithm::Es384)
            | (Kind::Elliptic(Curve::P521, _), Algorithm::Es512)
            | (
                Kind::Rsa(..),
                Algorithm::Rs256
                | Algorithm::Rs384
                | Algorithm::Rs512
                | Algorithm::Ps256
                | Algorithm::Ps384
                | Algorithm::Ps512,
            ) => true,
            (Kind::Elliptic(..) | Kind::Rsa(..), _) => false,
        }
    }

    /// Whether `signature` (JWS form: r and s side by side, or the RSA number) is this key's over `message`.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.0, elliptic(algorithm), rsa(algorithm)) {
            (Kind::Elliptic(_, point), Some(scheme), _) if self.takes(algorithm) => {
                UnparsedPublicKey::new(scheme, point)
                    .verify(message, signature)
                    .is_ok()
            }
            (Kind::Rsa(n, e), _, Some(scheme)) => RsaPublicKeyComponents { n, e }
                .verify(scheme, message, signature)
                .is_ok(),
            _ => false,
        }
    }

    fn from_jwk(jwk: &Value) -> Result<Self, JwtKeyError> {
        let text = |member: &str| jwk.get(member).and_then(Value::as_str);
        let number = |member: &'static str| {
            text(member)
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
                .ok_or_else(|| wrong(format!("`{member}` is missing or not in base64url")))
        };
        if text("kty") == Some("RSA") {
            let (n, e) = (number("n")?, number("e")?);
            let canonical = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
            if !canonical(&n) || !canonical(&e) || !RSA_BYTES.contains(&n.len()) || e.len() > 8 {
                return Err(wrong("an RSA key that is not of 2048 to 8192 bits"));
            }
            return Ok(Self(Kind::Rsa(n, e)));
        }
        let curve = match text("crv") {
            Some("P-256") => Curve::P256,
            Some("P-384") => Curve::P384,
            Some("P-521") => Curve::P521,
            _ => {
                return Err(wrong(
                    "an elliptic key on another curve than P-256, P-384 or P-521",
                ));
            }
        };
        let (x, y) = (number("x")?, number("y")?);
        if x.len() != curve.bytes() || y.len() != curve.bytes() {
            return Err(wrong("`x` or `y` has not the size of the curve"));
        }
        Ok(Self(Kind::Elliptic(curve, [&[4][..], &x, &y].concat())))
    }

    fn to_jwk(&self, kid: &str, with_use: &str) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.0 {
            Kind::Elliptic(curve, point) => {
                let (x, y) = point
                    .get(1..)
                    .and_then(|both| both.split_at_checked(curve.bytes()))
                    .unwrap_or_default();
                json!({
                    "kty": "EC", "kid": kid, "use": with_use, "alg": curve.algorithm().name(),
                    "crv": curve.name(), "x": number(x), "y": number(y),
                })
            }
            Kind::Rsa(n, e) => {
                json!({ "kty": "RSA", "kid": kid, "use": with_use, "n": number(n), "e": number(e) })
            }
        }
    }
}

impl Curve {
    const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
            Self::P521 => Algorithm::Es512,
        }
    }
}

fn elliptic(algorithm: Algorithm) -> Option<&'static EcdsaVerificationAlgorithm> {
    match algorithm {
        Algorithm::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::Es512 => Some(&signature::ECDSA_P521_SHA512_FIXED),
        _ => None,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => None,
    }
}

impl JwtBundle {
    /// A bundle without keys: nothing of `domain` is believed.
    pub fn new(domain: TrustDomain) -> Self {
        Self {
            domain,
            keys: BTreeMap::new(),
        }
    }

    /// The same with one more key.
    #[must_use]
    pub fn with_key(mut self, kid: impl Into<String>, key: JwtKey) -> Self {
        self.keys.insert(kid.into(), key);
        self
    }

    /// Reads the keys for JWT-SVIDs of a SPIFFE bundle; entries for other uses are skipped, as the standard demands.
    ///
    /// # Errors
    /// [`JwtKeyError`]: no JWK Set, a key id twice or missing, a key that cannot be one. All or nothing.
    pub fn from_json(domain: TrustDomain, document: &[u8]) -> Result<Self, JwtKeyError> {
        if document.len() > BUNDLE_BYTES_MAX {
            return Err(wrong(format!("{} bytes are too many", document.len())));
        }
        let document = strict_json::parse(document).map_err(|error| wrong(error.to_string()))?;
        let keys = document
            .get("keys")
            .and_then(Value::as_array)
            .filter(|keys| keys.len() <= BUNDLE_KEYS_MAX)
            .ok_or_else(|| wrong("`keys` is no list, or too long"))?;
        let mut bundle = Self::new(domain);
        for (position, jwk) in keys.iter().enumerate() {
            let text = |member: &str| jwk.get(member).and_then(Value::as_str);
            if text("use") != Some(USE) || !matches!(text("kty"), Some("EC" | "RSA")) {
                continue;
            }
            let at = |error: JwtKeyError| wrong(format!("key `{position}`: {}", error.why));
            let kid = text("kid")
                .filter(|kid| (1..=JWT_KEY_ID_BYTES_MAX).contains(&kid.len()))
                .ok_or_else(|| at(wrong("its `kid` is missing, empty or too long")))?;
            if bundle.keys.contains_key(kid) {
                return Err(at(wrong("its `kid` is another key's")));
            }
            bundle
                .keys
                .insert(kid.to_owned(), JwtKey::from_jwk(jwk).map_err(at)?);
        }
        Ok(bundle)
    }

    /// The keys as a JWK Set, each with `use` `jwt-svid`: what the Workload API hands out.
    pub fn to_json(&self) -> String {
        self.as_set(USE)
    }

    /// The keys as readers outside of SPIFFE want them (OpenID Connect), each with `use` `sig`.
    pub fn to_public_json(&self) -> String {
        self.as_set("sig")
    }

    fn as_set(&self, with_use: &str) -> String {
        json!({ "keys": self.entries(with_use) }).to_string()
    }

    fn entries(&self, with_use: &str) -> Vec<Value> {
        self.keys
            .iter()
            .map(|(kid, key)| key.to_jwk(kid, with_use))
            .collect()
    }

    /// The entries of these keys in a SPIFFE bundle that has others too.
    pub fn to_entries(&self) -> Vec<Value> {
        self.entries(USE)
    }

    /// Whose keys.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Key ids, in order.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The key with this id.
    pub fn get(&self, kid: &str) -> Option<&JwtKey> {
        self.keys.get(kid)
    }
}

impl JwtBundles {
    /// Puts `bundle` in the place of the one its domain had.
    pub fn insert(&mut self, bundle: JwtBundle) {
        self.0.insert(bundle.domain.clone(), bundle);
    }

    /// The bundle of `domain`.
    pub fn get(&self, domain: &TrustDomain) -> Option<&JwtBundle> {
        self.0.get(domain)
    }

    /// All bundles, by domain.
    pub fn iter(&self) -> impl Iterator<Item = &JwtBundle> {
        self.0.values()
    }
}

impl FromIterator<JwtBundle> for JwtBundles {
    fn from_iter<I: IntoIterator<Item = JwtBundle>>(bundles: I) -> Self {
        let mut all = Self::default();
        bundles.into_iter().for_each(|bundle| all.insert(bundle));
        all
    }
}
