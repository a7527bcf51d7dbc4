//! A trust domain's whole SPIFFE bundle, anchors and keys for tokens in one document: what bundle endpoints serve.

use super::{BundleError, TrustBundle};
use crate::TrustDomain;
use crate::jwt::{JwtBundle, JwtKeyError};
use serde_json::Value;

/// All that a trust domain says of itself, under one sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeBundle {
    // INVARIANT: both are of the same domain.
    x509: TrustBundle,
    jwt: JwtBundle,
}

/// Why a document is no bundle of the domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum WholeBundleError {
    /// Not the document that it must be, or an anchor that cannot be one.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Bundle(#[from] BundleError),
    /// A key for tokens that cannot be one.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Jwt(#[from] JwtKeyError),
}

impl WholeBundle {
    /// Anchors and keys of one domain; the sequence and the refresh hint are those of `x509`. None, if they are of two.
    pub fn new(x509: TrustBundle, jwt: JwtBundle) -> Option<Self> {
        (x509.domain() == jwt.domain()).then_some(Self { x509, jwt })
    }

    /// Reads a SPIFFE bundle, all or nothing. What consumers must ignore is: other key types, other uses.
    ///
    /// # Errors
    /// [`WholeBundleError`], of the first part that breaks a rule.
    pub fn from_json(domain: TrustDomain, document: &[u8]) -> Result<Self, WholeBundleError> {
        let x509 = TrustBundle::from_json(domain.clone(), document)?;
        let jwt = JwtBundle::from_json(domain, document)?;
        Ok(Self { x509, jwt })
    }

    /// The SPIFFE bundle as JSON.
    pub fn to_json(&self) -> String {
        let mut document = self.x509.to_value();
        if let Some(keys) = document.get_mut("keys").and_then(Value::as_array_mut) {
            keys.extend(self.jwt.to_entries());
        }
        document.to_string()
    }

    /// The same under another `spiffe_sequence`.
    #[must_use]
    pub fn with_sequence(self, sequence: u64) -> Self {
        Self {
            x509: self.x509.with_sequence(sequence),
            ..self
        }
    }

    /// Whose.
    pub fn domain(&self) -> &TrustDomain {
        self.x509.domain()
    }

    /// Its anchors.
    pub fn x509(&self) -> &TrustBundle {
        &self.x509
    }

    /// Its keys for tokens.
    pub fn jwt(&self) -> &JwtBundle {
        &self.jwt
    }

    /// `spiffe_sequence`.
    pub fn sequence(&self) -> Option<u64> {
        self.x509.sequence()
    }

    /// Whether both trust exactly the same, whatever their numbers say and in whatever order.
    pub fn trusts_the_same(&self, other: &Self) -> bool {
        let within = |one: &Self, other: &Self| {
            let theirs = other.x509.anchors();
            one.x509
                .anchors()
                .iter()
                .all(|anchor| theirs.contains(anchor))
        };
        within(self, other) && within(other, self) && self.jwt == other.jwt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{Authority, Key};
    use crate::jwt::JwtKey;

    fn domain() -> TrustDomain {
        TrustDomain::parse("partner.example").unwrap()
    }

    fn token_key() -> JwtKey {
        JwtKey::from_p256_point(Key::p256().public()).unwrap()
    }

    fn whole() -> WholeBundle {
        let x509 = Authority::root("partner.example").bundle("partner.example");
        let jwt = JwtBundle::new(domain()).with_key("k1", token_key());
        WholeBundle::new(x509.with_sequence(7).with_refresh_hint_secs(60), jwt).unwrap()
    }

    #[test]
    fn one_document_holds_both_and_reads_as_it_was_written() {
        let whole = whole();
        let read = WholeBundle::from_json(domain(), whole.to_json().as_bytes()).unwrap();
        assert_eq!(read, whole);
        assert_eq!((read.sequence(), read.x509().anchors().len()), (Some(7), 1));
        assert!(read.jwt().get("k1").is_some());
    }

    #[test]
    fn parts_of_two_domains_make_no_bundle() {
        let other = TrustDomain::parse("other.example").unwrap();
        let x509 = whole().x509;
        assert_eq!(WholeBundle::new(x509, JwtBundle::new(other)), None);
    }

    #[test]
    fn one_bad_entry_of_either_kind_refuses_the_whole() {
        let good = whole().to_json();
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let with = |entry: Value| {
            let mut document = json(&good);
            document["keys"].as_array_mut().unwrap().push(entry);
            document.to_string()
        };
        let anchor = json(&good)["keys"][0].clone();
        let changed = |member: &str, value: Value| {
            let mut entry = anchor.clone();
            entry[member] = value;
            with(entry)
        };
        let x5c = anchor["x5c"][0].clone();
        for (why, document) in [
            (
                "two certificates",
                changed("x5c", serde_json::json!([x5c, x5c])),
            ),
            ("no certificate", changed("x5c", serde_json::json!([]))),
            ("another key", changed("x", "AAAA".into())),
            (
                "a key twice",
                good.replacen(r#""keys""#, r#""keys":[],"keys""#, 1),
            ),
            (
                "a token key without id",
                with(
                    serde_json::json!({"kty":"EC","use":"jwt-svid","crv":"P-256","x":"AA","y":"AA"}),
                ),
            ),
            ("a fraction", good.replacen(":7,", ":7.5,", 1)),
            ("a negative number", good.replacen(":7,", ":-7,", 1)),
            ("no keys", r#"{"spiffe_sequence":1}"#.to_owned()),
            ("a list", "[]".to_owned()),
        ] {
            assert!(
                WholeBundle::from_json(domain(), document.as_bytes()).is_err(),
                "{why}: {document}"
            );
        }
        let foreign = TrustDomain::parse("third.example").unwrap();
        assert!(
            WholeBundle::from_json(foreign, good.as_bytes()).is_err(),
            "another domain's root"
        );
    }

    #[test]
    fn what_consumers_must_ignore_is_ignored() {
        let whole = whole();
        for entry in [
            serde_json::json!({"kty":"AKP","use":"x509-svid","x5c":["AAAA"]}),
            serde_json::json!({"kty":"EC","use":"wit-svid","kid":"w"}),
            serde_json::json!({"kty":"EC","crv":"P-256"}),
            serde_json::json!({"kty":"EC","use":"x509-svid"}),
        ] {
            let mut document: Value = serde_json::from_str(&whole.to_json()).unwrap();
            document["keys"].as_array_mut().unwrap().push(entry.clone());
            let read = WholeBundle::from_json(domain(), document.to_string().as_bytes());
            assert_eq!(read.as_ref(), Ok(&whole), "{entry}");
        }
    }

    #[test]
    fn order_and_numbers_make_no_other_trust() {
        let (first, second) = (
            Authority::root("partner.example").der,
            Authority::root("partner.example").der,
        );
        let of = |anchors: &[&rustls_pki_types::CertificateDer<'static>]| {
            let anchors = anchors.iter().map(|anchor| (*anchor).clone()).collect();
            let x509 = TrustBundle::new(domain(), anchors).unwrap();
            WholeBundle::new(x509, JwtBundle::new(domain())).unwrap()
        };
        let both = of(&[&first, &second]);
        assert!(both.trusts_the_same(&of(&[&second, &first]).with_sequence(9)));
        assert!(!both.trusts_the_same(&of(&[&first])));
        assert!(!of(&[&first]).trusts_the_same(&both));
        let mut more = both.clone();
        more.jwt = more.jwt.with_key("k2", token_key());
        assert!(!both.trusts_the_same(&more));
    }
}
