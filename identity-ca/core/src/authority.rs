//! Certificates that sign others, read back from their DER: the root, and the issuer below it.

use crate::key::{KeyError, PublicKey, sha256};
use crate::profile::Validity;
use mesh_trust::bundle::BundleError;
use mesh_trust::{SpiffeId, Timestamp, TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// A certificate that may sign for a trust domain. Whether anybody trusts it is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    domain: TrustDomain,
    key: PublicKey,
    subject: Vec<u8>,
    subject_text: String,
    key_id: Vec<u8>,
    serial: String,
    validity: Validity,
    is_root: bool,
}

/// Why a certificate cannot be an authority of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Not one certificate, or a field that cannot be used.
    #[error("the authority's certificate has no usable {part}")]
    #[diagnostic(
        code("MESH-0210"),
        help("it is not a certificate that this CA made; restore it from a backup")
    )]
    Unusable {
        /// What is wrong.
        part: &'static str,
    },
    /// Not an authority, or of another domain.
    #[error("the certificate may not sign for trust domain `{domain}`")]
    #[diagnostic(
        code("MESH-0211"),
        help(
            "check that the directory belongs to this trust domain; restore the certificate from a backup"
        )
    )]
    NotOfDomain {
        /// The domain.
        domain: TrustDomain,
        /// The rule broken.
        source: Box<BundleError>,
    },
    /// Its key could not be one of ours.
    #[error("the authority's key is refused")]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// Not signed by the one it should be.
    #[error("`{subject}` is not signed by `{by}`")]
    #[diagnostic(
        code("MESH-0219"),
        help("the two certificates do not belong together; restore both from the same backup")
    )]
    NotSignedBy {
        /// The one below.
        subject: String,
        /// The one above.
        by: String,
    },
}

impl AuthorityError {
    /// It with its causes, in one line.
    pub(crate) fn to_text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}

impl Authority {
    /// Reads a certificate and checks that it may sign for `domain`. Without bytes after it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn parse(der: &[u8], domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let (authority, named) = Self::read(der, domain)?;
        if !named {
            return Err(AuthorityError::Unusable {
                part: "SPIFFE ID of its domain",
            });
        }
        Ok(authority)
    }

    /// The same for an authority that others keep: it need not carry a SPIFFE ID, and what is above it may end sooner
    /// than itself, at `ends`.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn parse_kept(
        der: &[u8],
        domain: &TrustDomain,
        ends: Option<Timestamp>,
    ) -> Result<Self, AuthorityError> {
        let (mut authority, _) = Self::read(der, domain)?;
        let own = authority.validity.not_after;
        authority.validity.not_after = ends.map_or(own, |ends| own.min(ends));
        Ok(authority)
    }

    /// The trust domain that a certificate names as its own; whether it may sign for it, [`Authority::parse`] says.
    pub fn domain_in(der: &[u8]) -> Option<TrustDomain> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        let id = spiffe_id(&read)?;
        id.path().is_empty().then(|| id.trust_domain().clone())
    }

    /// Also says whether it carries the SPIFFE ID of `domain`.
    fn read(der: &[u8], domain: &TrustDomain) -> Result<(Self, bool), AuthorityError> {
        let certificate = CertificateDer::from(der.to_vec());
        TrustBundle::new(domain.clone(), vec![certificate.clone()]).map_err(|source| {
            AuthorityError::NotOfDomain {
                domain: domain.clone(),
                source: Box::new(source),
            }
        })?;
        let unusable = |part| AuthorityError::Unusable { part };
        let (rest, read) = X509Certificate::from_der(der).map_err(|_| unusable("structure"))?;
        if !rest.is_empty() {
            return Err(unusable("end: bytes follow it"));
        }
        let named = spiffe_id(&read).as_ref() == Some(&domain.id());
        let key_id =
            read.extensions()
                .iter()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) if !id.0.is_empty() => {
                        Some(id.0.to_vec())
                    }
                    _ => None,
                });
        let key_id = key_id.ok_or_else(|| unusable("subject key identifier"))?;
        if read.subject().iter().next().is_none() {
            return Err(unusable("subject"));
        }
        let authority = Self {
            domain: domain.clone(),
            key: PublicKey::from_info(read.public_key())?,
            subject: read.subject().as_raw().to_vec(),
            subject_text: read.subject().to_string(),
            key_id,
            serial: data_encoding::HEXLOWER.encode(magnitude(read.raw_serial())),
            validity: Validity {
                not_before: Timestamp::from_unix_secs(read.validity().not_before.timestamp()),
                not_after: Timestamp::from_unix_secs(read.validity().not_after.timestamp()),
            },
            is_root: read.subject().as_raw() == read.issuer().as_raw(),
            certificate,
        };
        Ok((authority, named))
    }

    /// Checks that `above` (or itself, for a root) signed it.
    ///
    /// # Errors
    /// [`AuthorityError::NotSignedBy`].
    pub fn check_signed_by(&self, above: &Self) -> Result<(), AuthorityError> {
        let refused = || AuthorityError::NotSignedBy {
            subject: self.subject_text.clone(),
            by: above.subject_text.clone(),
        };
        let (_, read) = X509Certificate::from_der(&self.certificate).map_err(|_| refused())?;
        let (_, signer) = X509Certificate::from_der(&above.certificate).map_err(|_| refused())?;
        if read.issuer().as_raw() != signer.subject().as_raw() {
            return Err(refused());
        }
        read.verify_signature(Some(signer.public_key()))
            .map_err(|_| refused())
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whose SVIDs it signs.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Its public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its subject, DER.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Its subject, for people.
    pub fn subject_text(&self) -> &str {
        &self.subject_text
    }

    /// Its subject key identifier.
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Its serial number, lower-case hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When it counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether it names itself as its issuer.
    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }
}

/// The one URI name, if there is exactly one name.
fn spiffe_id(read: &X509Certificate<'_>) -> Option<SpiffeId> {
    let names = read.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(text)] => SpiffeId::parse(text).ok(),
        _ => None,
    }
}

/// A serial number without the octet that only carries its sign.
pub(crate) fn magnitude(raw: &[u8]) -> &[u8] {
    match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn our_root_and_issuer_are_authorities_of_their_domain_only() {
        let world = World::new();
        assert!(world.root.is_root() && !world.issuer.is_root());
        world.root.check_signed_by(&world.root).unwrap();
        world.issuer.check_signed_by(&world.root).unwrap();
        assert!(matches!(
            world.root.check_signed_by(&world.issuer),
            Err(AuthorityError::NotSignedBy { .. })
        ));
        let other = TrustDomain::parse("other.example").unwrap();
        assert!(matches!(
            Authority::parse(world.issuer.certificate(), &other),
            Err(AuthorityError::NotOfDomain { .. })
        ));
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let world = World::new();
        let leaf = world.leaf("ns/shop/sa/cart");
        assert!(matches!(
            Authority::parse(leaf.certificate(), &world.domain),
            Err(AuthorityError::NotOfDomain { .. })
        ));
    }

    #[test]
    fn every_flipped_octet_of_a_root_is_found() {
        let world = World::new();
        let good = world.root.certificate().to_vec();
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            let found = Authority::parse(&changed, &world.domain)
                .and_then(|root| root.check_signed_by(&root));
            assert!(found.is_err(), "octet {at} changed");
        }
    }
}
