//! X.509-SVIDs: reading one, and the leaf checks (X509-SVID §4, §5.2; rules X1, X2).
//!
//! The path builder of rustls knows no URI names and no key usage, so every rule for leaves stands here.

use crate::certificate::{Certificate, CertificateError, Extensions, Key};
use crate::id::IdError;
use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use crate::{SpiffeId, Timestamp};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// A workload's X.509-SVID: leaf, intermediates and the one identity in the leaf.
///
/// Exists only if the leaf checks passed. *Not* yet trusted: [`crate::TrustBundles::verify`] turns it into a
/// [`crate::VerifiedPeer`].
#[derive(Clone, Debug)]
pub struct Svid {
    id: SpiffeId,
    chain: Arc<[CertificateDer<'static>]>,
    not_before: Timestamp,
    not_after: Timestamp,
    serial: Arc<str>,
}

/// Why a chain is no X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate was given.
    #[error("the certificate chain is empty")]
    #[diagnostic(
        code("MESH-0131"),
        help("an SVID is its leaf, then the intermediates up to below the root")
    )]
    Empty,
    /// More certificates than [`CHAIN_CERTIFICATES_MAX`].
    #[error("the chain has `{count}` certificates; the limit is {CHAIN_CERTIFICATES_MAX}")]
    #[diagnostic(code("MESH-0132"), help("send the leaf and its intermediates only"))]
    ChainTooLong {
        /// Certificates found.
        count: usize,
    },
    /// A certificate that nothing in a mesh can use.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Certificate(#[from] CertificateError),
    /// Not exactly one URI name (X509-SVID §2). Other kinds of names do not count.
    #[error("the leaf has `{count}` URI names; an SVID has exactly one")]
    #[diagnostic(
        code("MESH-0133"),
        help("its SPIFFE ID must be its only URI subject alternative name")
    )]
    UriNames {
        /// URI names found.
        count: usize,
    },
    /// The URI name is no SPIFFE ID in canonical form.
    #[error("the leaf's URI name is no SPIFFE ID: {0}")]
    #[diagnostic(
        code("MESH-0134"),
        help("the issuer must write SPIFFE IDs in canonical form")
    )]
    Id(#[source] IdError),
    /// The ID of a trust domain, which names its authorities, not a workload (X509-SVID §5.2).
    #[error("the leaf carries `{id}`, which has no path and so names no workload")]
    #[diagnostic(
        code("MESH-0135"),
        help("authenticate with a workload's certificate, not with an authority's")
    )]
    NoPath {
        /// The ID found.
        id: SpiffeId,
    },
    /// `cA` is true (X509-SVID §5.2).
    #[error("the leaf of `{id}` is a certificate authority")]
    #[diagnostic(
        code("MESH-0136"),
        help("authenticate with a workload's certificate, not with an authority's")
    )]
    IsAuthority {
        /// The ID found.
        id: SpiffeId,
    },
    /// No key usage extension (X509-SVID §4.3).
    #[error("the leaf of `{id}` does not say what its key may be used for")]
    #[diagnostic(
        code("MESH-0137"),
        help("the issuer must set the key usage extension, critical, with digitalSignature")
    )]
    NoKeyUsage {
        /// The ID found.
        id: SpiffeId,
    },
    /// Key usage present but not critical (X509-SVID §4.3).
    #[error("the key usage of `{id}` is not marked critical")]
    #[diagnostic(
        code("MESH-0138"),
        help("the issuer must mark the key usage extension critical")
    )]
    KeyUsageNotCritical {
        /// The ID found.
        id: SpiffeId,
    },
    /// Key usage without `digitalSignature` (X509-SVID §4.3).
    #[error("the key of `{id}` may not make digital signatures")]
    #[diagnostic(code("MESH-0139"), help("the issuer must set digitalSignature"))]
    NoDigitalSignature {
        /// The ID found.
        id: SpiffeId,
    },
    /// Key usage with `keyCertSign` or `cRLSign` (X509-SVID §4.3).
    #[error("the key of `{id}` may sign certificates or revocation lists")]
    #[diagnostic(
        code("MESH-0140"),
        help("the issuer must set neither keyCertSign nor cRLSign on a leaf")
    )]
    MaySignCertificates {
        /// The ID found.
        id: SpiffeId,
    },
    /// Extended key usage without both `serverAuth` and `clientAuth` (X509-SVID §4.4).
    #[error("the extended key usage of `{id}` lacks serverAuth or clientAuth")]
    #[diagnostic(
        code("MESH-0141"),
        help("the issuer must set both, or leave the extension out")
    )]
    ExtendedKeyUsage {
        /// The ID found.
        id: SpiffeId,
    },
    /// Empty subject, and the names not critical (RFC 5280 §4.2.1.6).
    #[error("the leaf of `{id}` has no subject, and its names are not marked critical")]
    #[diagnostic(
        code("MESH-0142"),
        help(
            "the issuer must mark the subject alternative name critical when the subject is empty"
        )
    )]
    NamesNotCritical {
        /// The ID found.
        id: SpiffeId,
    },
}

impl Svid {
    /// Reads a chain, leaf first, and checks the leaf. Of the intermediates only number and size are looked at here.
    ///
    /// # Errors
    /// [`SvidError`] naming the first rule broken.
    pub fn parse(chain: Vec<CertificateDer<'static>>) -> Result<Self, SvidError> {
        check_sizes(&chain)?;
        let leaf = LeafFacts::parse(chain.first().ok_or(SvidError::Empty)?)?;
        let LeafFacts {
            id,
            serial,
            not_before,
            not_after,
        } = leaf;
        Ok(Self {
            id,
            serial,
            not_before,
            not_after,
            chain: chain.into(),
        })
    }

    /// The one SPIFFE ID of the leaf.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// First moment of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last moment of validity, inclusive (RFC 5280 §4.1.2.5).
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Serial number, lower-case hex, two digits a byte, without a leading zero byte.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whole seconds until `notAfter`, 0 once past it.
    pub fn remaining_secs(&self, now: Timestamp) -> u64 {
        now.secs_until(self.not_after)
    }
}

/// What a leaf that passed its checks says. The one place where leaves are judged, for chains owned and borrowed.
pub(crate) struct LeafFacts {
    pub(crate) id: SpiffeId,
    pub(crate) serial: Arc<str>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl LeafFacts {
    /// Reads a leaf and checks rules X1 and X2.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let leaf = Certificate::parse(der)?;
        let id = only_id(&leaf.extensions.uris)?;
        if let Key::Rsa(..) = leaf.key {
            return Err(CertificateError::Key {
                found: "RSA, which only authorities may have".to_owned(),
            }
            .into());
        }
        if id.path().is_empty() {
            return Err(SvidError::NoPath { id });
        }
        if leaf.subject_is_empty && !leaf.extensions.names_critical {
            return Err(SvidError::NamesNotCritical { id });
        }
        check_usages(&leaf.extensions, &id)?;
        Ok(Self {
            id,
            serial: leaf.serial_hex().into(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }
}

/// Bounds what a peer can make us read, before anything is read.
pub(crate) fn check_sizes(chain: &[CertificateDer<'_>]) -> Result<(), SvidError> {
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        return Err(SvidError::ChainTooLong { count: chain.len() });
    }
    match chain
        .iter()
        .find(|certificate| certificate.len() > CERTIFICATE_BYTES_MAX)
    {
        Some(large) => Err(CertificateError::TooLarge { bytes: large.len() }.into()),
        None => Ok(()),
    }
}

fn only_id(uris: &[&str]) -> Result<SpiffeId, SvidError> {
    match uris {
        [uri] => SpiffeId::parse(uri).map_err(SvidError::Id),
        _ => Err(SvidError::UriNames { count: uris.len() }),
    }
}

fn check_usages(extensions: &Extensions<'_>, id: &SpiffeId) -> Result<(), SvidError> {
    let id = || id.clone();
    if extensions.authority {
        return Err(SvidError::IsAuthority { id: id() });
    }
    let Some((usage, critical)) = &extensions.key_usage else {
        return Err(SvidError::NoKeyUsage { id: id() });
    };
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::MaySignCertificates { id: id() });
    }
    if !usage.digital_signature() {
        return Err(SvidError::NoDigitalSignature { id: id() });
    }
    if !critical {
        return Err(SvidError::KeyUsageNotCritical { id: id() });
    }
    match &extensions.extended_key_usage {
        Some(purposes) if !(purposes.server_auth && purposes.client_auth) => {
            Err(SvidError::ExtendedKeyUsage { id: id() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
