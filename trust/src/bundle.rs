//! Trust anchors per trust domain, as values, PEM and SPIFFE documents (Trust Domain and Bundle §4).
//!
//! Reading refuses what could be read in two ways; a bundle that exists holds authorities of its domain only.
//! Who is trusted under it, [`crate::path`] decides.

use crate::authority::{self, AuthorityError};
use crate::certificate::CertificateError;
use crate::deny::Denials;
use crate::id::IdError;
use crate::limits::{
    ANCHORS_MAX, BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX, BUNDLE_MAP_BYTES_MAX, BUNDLES_MAX,
};
use crate::{Timestamp, TrustDomain};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::collections::BTreeMap;
use std::sync::Arc;

mod json;
mod whole;

pub use whole::{WholeBundle, WholeBundleError};

/// The trust anchors of one trust domain. Without any, nothing from the domain is trusted (rule B1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    domain: TrustDomain,
    anchors: Vec<CertificateDer<'static>>,
    // INVARIANT: `points` and `periods` have one entry for each of `anchors`, in order.
    points: Vec<TrustAnchor<'static>>,
    periods: Vec<Period>,
    sequence: Option<u64>,
    refresh_hint_secs: Option<u64>,
}

/// When an anchor counts: first and last moment.
pub(crate) type Period = (Timestamp, Timestamp);

/// The bundles a verifier knows, one for each trust domain, never pooled (rule X5); and who is denied all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundles {
    by_domain: BTreeMap<TrustDomain, TrustBundle>,
    denials: Arc<Denials>,
}

/// Why a bundle could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum BundleError {
    /// A document of more than [`BUNDLE_BYTES_MAX`], or a map of more than [`BUNDLE_MAP_BYTES_MAX`].
    #[error("a trust bundle of `{bytes}` bytes; the limit is {limit}")]
    #[diagnostic(
        code("MESH-0150"),
        help("check that the file or the endpoint is a trust bundle")
    )]
    TooLarge {
        /// Size found.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or an object with the same key twice (rule B5).
    #[error("the trust bundle is not the JSON it must be: {why}")]
    #[diagnostic(
        code("MESH-0151"),
        help("a key given twice is refused because readers disagree which one counts")
    )]
    Json {
        /// What the reader met, and where.
        why: String,
    },
    /// A member that is missing or of another type.
    #[error("the trust bundle's `{member}` is not {want}")]
    #[diagnostic(
        code("MESH-0152"),
        help("see SPIFFE Trust Domain and Bundle, section 4")
    )]
    Member {
        /// Name of the member.
        member: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// More keys, anchors or domains than the limit.
    #[error("the trust bundle has more than `{limit}` {what}")]
    #[diagnostic(
        code("MESH-0153"),
        help("remove anchors that no live certificate needs any more")
    )]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An `x5c` that is not exactly one certificate in base64 (rule X7).
    #[error("`x5c` of key `{position}` is not exactly one certificate in base64")]
    #[diagnostic(code("MESH-0154"), help("publish one root a key, no chains"))]
    X5c {
        /// Place in the document, from 0.
        position: usize,
    },
    /// An anchor that may not sign for the domain.
    #[error("anchor `{position}` cannot be one of trust domain `{domain}`: {source}")]
    #[diagnostic(
        code("MESH-0155"),
        help("only root certificates of the domain belong into its bundle")
    )]
    Anchor {
        /// Place in the document, from 0.
        position: usize,
        /// The bundle's domain.
        domain: TrustDomain,
        /// The rule broken.
        source: AuthorityError,
    },
    /// Key parameters that differ from the certificate beside them.
    #[error("key `{position}` and the certificate in its `x5c` are different keys")]
    #[diagnostic(
        code("MESH-0156"),
        help("the document was put together wrongly; fetch it again from its source")
    )]
    KeyMismatch {
        /// Place in the document, from 0.
        position: usize,
    },
    /// PEM that cannot be read, or has no certificate.
    #[error("the trust bundle is not PEM with certificates: {why}")]
    #[diagnostic(
        code("MESH-0157"),
        help("it must hold one or more `BEGIN CERTIFICATE` blocks")
    )]
    Pem {
        /// What the reader met.
        why: String,
    },
    /// A private key among the anchors.
    #[error("the trust bundle holds a private key")]
    #[diagnostic(
        code("MESH-0158"),
        help("give the certificates alone, and treat that key as exposed")
    )]
    PrivateKey,
    /// A name in a bundle map that is no trust domain.
    #[error("the bundle map names a trust domain wrongly: {0}")]
    #[diagnostic(
        code("MESH-0159"),
        help("keys of `trust_domains` are trust domain names without scheme")
    )]
    Domain(#[source] IdError),
}

impl TrustBundle {
    /// A bundle of these anchors (DER, each a root of `domain`). The same anchor given twice counts once.
    ///
    /// # Errors
    /// [`BundleError::Anchor`] if one is no authority, or of another domain; [`BundleError::TooMany`].
    pub fn new(
        domain: TrustDomain,
        anchors: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self {
            domain,
            anchors: Vec::new(),
            points: Vec::new(),
            periods: Vec::new(),
            sequence: None,
            refresh_hint_secs: None,
        };
        for (position, der) in anchors.into_iter().enumerate() {
            bundle.add(position, der)?;
        }
        Ok(bundle)
    }

    fn add(&mut self, position: usize, der: CertificateDer<'static>) -> Result<(), BundleError> {
        let refuse = |source| BundleError::Anchor {
            position,
            domain: self.domain.clone(),
            source,
        };
        let read = authority::check(&der, &self.domain).map_err(refuse)?;
        let point = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| refuse(CertificateError::Malformed { part: "structure" }.into()))?;
        let point = point.to_owned();
        let period = (read.not_before, read.not_after);
        if self.anchors.contains(&der) {
            return Ok(());
        }
        if self.anchors.len() == ANCHORS_MAX {
            return Err(BundleError::TooMany {
                what: "anchors",
                limit: ANCHORS_MAX,
            });
        }
        self.points.push(point);
        self.periods.push(period);
        self.anchors.push(der);
        Ok(())
    }

    /// Reads `BEGIN CERTIFICATE` blocks; text between them is skipped.
    ///
    /// # Errors
    /// [`BundleError`]: no certificate, a private key among them, or an anchor that cannot be one.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let anchors = certificates_from_pem(pem)?;
        Self::new(domain, anchors)
    }

    /// The anchors as `BEGIN CERTIFICATE` blocks.
    pub fn to_pem(&self) -> String {
        to_pem(&self.anchors)
    }

    /// The same anchors under another `spiffe_sequence`, which must grow with every change (rule B2).
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// The same anchors with another `spiffe_refresh_hint` (rule B3).
    #[must_use]
    pub fn with_refresh_hint_secs(mut self, secs: u64) -> Self {
        self.refresh_hint_secs = Some(secs);
        self
    }

    /// Whose anchors these are.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The anchors, DER.
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// `spiffe_sequence`.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`: how often to look for a newer one, seconds.
    pub fn refresh_hint_secs(&self) -> Option<u64> {
        self.refresh_hint_secs
    }

    /// The anchors as the path builder takes them.
    pub(crate) fn points(&self) -> &[TrustAnchor<'static>] {
        &self.points
    }

    /// When an anchor counts; several periods if the bundle holds renewals of it under the same key.
    pub(crate) fn periods_of(&self, point: &TrustAnchor<'_>) -> impl Iterator<Item = Period> {
        let same = self
            .points
            .iter()
            .zip(&self.periods)
            .filter(move |(other, _)| *other == point);
        same.map(|(_, period)| *period)
    }
}

impl TrustBundles {
    /// Puts `bundle` in the place of the one its domain had.
    pub fn insert(&mut self, bundle: TrustBundle) {
        self.by_domain.insert(bundle.domain.clone(), bundle);
    }

    /// Takes the bundle of `domain` away: nothing from it is trusted from now on.
    pub fn remove(&mut self, domain: &TrustDomain) -> Option<TrustBundle> {
        self.by_domain.remove(domain)
    }

    /// The bundle of `domain`.
    pub fn get(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        self.by_domain.get(domain)
    }

    /// The bundle of `domain` alone, under the same deny list: for doors that nobody else has any business at.
    #[must_use]
    pub fn only(&self, domain: &TrustDomain) -> Self {
        let of = self.by_domain.get_key_value(domain);
        Self {
            by_domain: of
                .map(|(k, v)| (k.clone(), v.clone()))
                .into_iter()
                .collect(),
            denials: self.denials.clone(),
        }
    }

    /// The same bundles with another deny list.
    #[must_use]
    pub fn with_denials(mut self, denials: Arc<Denials>) -> Self {
        self.denials = denials;
        self
    }

    /// Who is denied.
    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// All bundles, by domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.by_domain.values()
    }
}

impl From<TrustBundle> for TrustBundles {
    fn from(bundle: TrustBundle) -> Self {
        Self::from_iter([bundle])
    }
}

impl FromIterator<TrustBundle> for TrustBundles {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        Self {
            by_domain: bundles
                .into_iter()
                .map(|bundle| (bundle.domain.clone(), bundle))
                .collect(),
            denials: Arc::default(),
        }
    }
}

/// Certificates as `BEGIN CERTIFICATE` blocks, in order.
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut column = 0;
        for letter in STANDARD.encode(certificate).chars() {
            pem.push(letter);
            column += 1;
            if column == 64 {
                pem.push('\n');
                column = 0;
            }
        }
        if column > 0 {
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn check_size(document: &[u8], limit: usize) -> Result<(), BundleError> {
    if document.len() > limit {
        return Err(BundleError::TooLarge {
            bytes: document.len(),
            limit,
        });
    }
    Ok(())
}

/// Reads `BEGIN CERTIFICATE` blocks, at least one; text between them is skipped.
///
/// # Errors
/// [`BundleError`]: no certificate, a private key or something else among them, or too many bytes.
pub(crate) fn certificates_from_pem(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    check_size(pem, BUNDLE_BYTES_MAX)?;
    if holds_private_key(pem) {
        return Err(BundleError::PrivateKey);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => found.push(CertificateDer::from(der)),
            Ok((kind, _)) => {
                return Err(BundleError::Pem {
                    why: format!("it holds a {kind:?}"),
                });
            }
            Err(error) => {
                return Err(BundleError::Pem {
                    why: error.to_string(),
                });
            }
        }
    }
    if found.is_empty() {
        return Err(BundleError::Pem {
            why: "no certificate found".to_owned(),
        });
    }
    Ok(found)
}

/// Whether any kind of private key stands in the text, also kinds that the PEM reader would skip.
fn holds_private_key(pem: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    pem.windows(MARK.len()).any(|window| window == MARK)
}

#[cfg(test)]
mod tests;
