//! SPIFFE bundle documents: JWK Sets, and maps of them (Trust Domain and Bundle §4; rules B1-B5, X7).

use super::{
    BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX, BUNDLE_MAP_BYTES_MAX, BUNDLES_MAX, BundleError, TrustBundle,
    TrustBundles, check_size,
};
use crate::TrustDomain;
use crate::certificate::{Certificate, Key};
use crate::strict_json;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};

impl TrustBundle {
    /// Reads a SPIFFE bundle. Entries that are not X.509 anchors are skipped, as the standard demands.
    ///
    /// # Errors
    /// [`BundleError`]: not the JSON it must be, a key twice, or an anchor that cannot be one.
    pub fn from_json(domain: TrustDomain, document: &[u8]) -> Result<Self, BundleError> {
        check_size(document, BUNDLE_BYTES_MAX)?;
        Self::from_value(domain, &read(document)?)
    }

    /// The SPIFFE bundle as JSON.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    fn from_value(domain: TrustDomain, document: &Value) -> Result<Self, BundleError> {
        let members = document.as_object().ok_or(BundleError::Member {
            member: "bundle",
            want: "an object",
        })?;
        let keys = members.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(BundleError::Member {
            member: "keys",
            want: "a list",
        })?;
        if keys.len() > BUNDLE_KEYS_MAX {
            return Err(BundleError::TooMany {
                what: "keys",
                limit: BUNDLE_KEYS_MAX,
            });
        }
        let mut bundle = Self::new(domain, Vec::new())?;
        bundle.sequence = whole_number(members, "spiffe_sequence")?;
        bundle.refresh_hint_secs = whole_number(members, "spiffe_refresh_hint")?;
        for (position, key) in keys.iter().enumerate() {
            if let Some(der) = anchor(position, key)? {
                bundle.add(position, der)?;
                check_parameters(position, key, &bundle)?;
            }
        }
        Ok(bundle)
    }

    pub(super) fn to_value(&self) -> Value {
        let mut members = Map::new();
        if let Some(sequence) = self.sequence {
            members.insert("spiffe_sequence".to_owned(), sequence.into());
        }
        if let Some(secs) = self.refresh_hint_secs {
            members.insert("spiffe_refresh_hint".to_owned(), secs.into());
        }
        members.insert("keys".to_owned(), self.anchors.iter().map(entry).collect());
        Value::Object(members)
    }
}

impl TrustBundles {
    /// Reads a SPIFFE bundle map (rule B5).
    ///
    /// # Errors
    /// [`BundleError`], of the first bundle that cannot be read too: a map is taken whole or not at all.
    pub fn from_json(document: &[u8]) -> Result<Self, BundleError> {
        check_size(document, BUNDLE_MAP_BYTES_MAX)?;
        let document = read(document)?;
        let domains = document.get("trust_domains").and_then(Value::as_object);
        let domains = domains.ok_or(BundleError::Member {
            member: "trust_domains",
            want: "an object",
        })?;
        if domains.len() > BUNDLES_MAX {
            return Err(BundleError::TooMany {
                what: "trust domains",
                limit: BUNDLES_MAX,
            });
        }
        let bundle = |(name, document): (&String, &Value)| {
            TrustBundle::from_value(
                TrustDomain::parse(name).map_err(BundleError::Domain)?,
                document,
            )
        };
        domains.iter().map(bundle).collect()
    }

    /// The SPIFFE bundle map as JSON.
    pub fn to_json(&self) -> String {
        let domains: Map<String, Value> = self
            .iter()
            .map(|bundle| (bundle.domain.to_string(), bundle.to_value()))
            .collect();
        json!({ "trust_domains": domains }).to_string()
    }
}

fn read(document: &[u8]) -> Result<Value, BundleError> {
    strict_json::parse(document).map_err(|error| BundleError::Json {
        why: error.to_string(),
    })
}

fn whole_number(
    members: &Map<String, Value>,
    member: &'static str,
) -> Result<Option<u64>, BundleError> {
    match members.get(member) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(BundleError::Member {
            member,
            want: "a whole number from 0 to 2^64-1",
        }),
    }
}

/// The certificate of an X.509 anchor; nothing for entries that consumers must ignore.
fn anchor(position: usize, key: &Value) -> Result<Option<CertificateDer<'static>>, BundleError> {
    let text = |member| key.get(member).and_then(Value::as_str);
    let known = matches!(text("kty"), Some("EC" | "RSA" | "OKP"));
    if !known || text("use") != Some("x509-svid") {
        return Ok(None);
    }
    let Some(chain) = key.get("x5c") else {
        return Ok(None);
    };
    let only = match chain.as_array().map(Vec::as_slice) {
        Some([only]) => only.as_str().and_then(|text| STANDARD.decode(text).ok()),
        _ => None,
    };
    only.map(|der| Some(der.into()))
        .ok_or(BundleError::X5c { position })
}

/// The key that an entry spells out must be the one of its certificate: readers use either.
fn check_parameters(position: usize, key: &Value, bundle: &TrustBundle) -> Result<(), BundleError> {
    let Some(der) = key
        .get("x5c")
        .and_then(|chain| chain.get(0))
        .and_then(Value::as_str)
    else {
        return Ok(());
    };
    let same = bundle
        .anchors
        .iter()
        .find(|anchor| STANDARD.encode(anchor) == der)
        .is_none_or(|anchor| {
            let ours = entry(anchor);
            ["kty", "crv", "x", "y", "n", "e"]
                .iter()
                .all(|name| key.get(*name) == ours.get(*name))
        });
    if same {
        Ok(())
    } else {
        Err(BundleError::KeyMismatch { position })
    }
}

/// One anchor as a JWK: its key spelled out, as JOSE readers demand, and the certificate. No `kid` (rule X7).
fn entry(anchor: &CertificateDer<'static>) -> Value {
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = |curve: &str, point: &[u8]| {
        let (x, y) = point.split_at(point.len() / 2);
        json!({ "kty": "EC", "crv": curve, "x": number(x), "y": number(y) })
    };
    // INVARIANT: anchors were read when the bundle was made, so reading one again cannot fail.
    let mut entry = match Certificate::parse(anchor).map(|certificate| certificate.key) {
        Ok(Key::P256(bytes)) => point("P-256", bytes),
        Ok(Key::P384(bytes)) => point("P-384", bytes),
        Ok(Key::Ed25519(bytes)) => json!({ "kty": "OKP", "crv": "Ed25519", "x": number(bytes) }),
        Ok(Key::Rsa(modulus, exponent)) => {
            json!({ "kty": "RSA", "n": number(modulus), "e": number(exponent) })
        }
        Err(_) => json!({}),
    };
    if let Some(members) = entry.as_object_mut() {
        members.insert("use".to_owned(), "x509-svid".into());
        members.insert("x5c".to_owned(), json!([STANDARD.encode(anchor)]));
    }
    entry
}
