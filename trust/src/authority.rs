//! The rules for certificates that sign others: trust anchors and intermediates (X509-SVID §3, §4; rule X3).

use crate::TrustDomain;
use crate::certificate::{Certificate, CertificateError};
use crate::id::{IdError, SpiffeId};
use crate::quoted::Quoted;

/// Why a certificate may not sign SVIDs of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A certificate that nothing in a mesh can use.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Certificate(#[from] CertificateError),
    /// `cA` is not true.
    #[error("a certificate that is no certificate authority stands where one must")]
    #[diagnostic(
        code("MESH-0161"),
        help(
            "only certificates with cA true may sign others; a workload's own certificate is none"
        )
    )]
    NotAuthority,
    /// No key usage, or one without `keyCertSign`.
    #[error("the authority's key usage lacks keyCertSign")]
    #[diagnostic(
        code("MESH-0162"),
        help("issue the authority's certificate anew with keyCertSign")
    )]
    NoCertSign,
    /// A SPIFFE ID that cannot be read, or several of them.
    #[error("the authority's URI name `{text}` is not one canonical SPIFFE ID")]
    #[diagnostic(
        code("MESH-0163"),
        help("an authority carries `spiffe://<trust domain>` or no SPIFFE ID")
    )]
    Id {
        /// The URI name.
        text: Quoted,
        /// The rule broken, or nothing if there are several URI names.
        #[source]
        source: Option<IdError>,
    },
    /// The SPIFFE ID of another trust domain, or of a workload.
    #[error("an authority that carries `{id}` may not sign for trust domain `{domain}`")]
    #[diagnostic(
        code("MESH-0164"),
        help("an authority carries the ID of the trust domain it signs for, without path")
    )]
    OtherDomain {
        /// The ID found.
        id: SpiffeId,
        /// The domain that it was to sign for.
        domain: TrustDomain,
    },
}

/// Reads a certificate and checks that it may sign for `domain`.
pub(crate) fn check<'a>(
    der: &'a [u8],
    domain: &TrustDomain,
) -> Result<Certificate<'a>, AuthorityError> {
    let certificate = Certificate::parse(der)?;
    if !certificate.extensions.authority {
        return Err(AuthorityError::NotAuthority);
    }
    if !certificate
        .extensions
        .key_usage
        .as_ref()
        .is_some_and(|(usage, _)| usage.key_cert_sign())
    {
        return Err(AuthorityError::NoCertSign);
    }
    check_id(&certificate.extensions.uris, domain)?;
    Ok(certificate)
}

/// An authority need not have a SPIFFE ID (corporate roots do not); one that has must be of `domain`.
fn check_id(uris: &[&str], domain: &TrustDomain) -> Result<(), AuthorityError> {
    let spiffe = |uri: &&&str| {
        uri.get(.."spiffe:".len())
            .is_some_and(|head| head.eq_ignore_ascii_case("spiffe:"))
    };
    let Some(text) = uris.iter().find(spiffe) else {
        return Ok(());
    };
    if uris.len() > 1 {
        return Err(AuthorityError::Id {
            text: Quoted::new(text),
            source: None,
        });
    }
    let id = SpiffeId::parse(text).map_err(|why| AuthorityError::Id {
        text: Quoted::new(text),
        source: Some(why),
    })?;
    if id.trust_domain() != domain || !id.path().is_empty() {
        return Err(AuthorityError::OtherDomain {
            id,
            domain: domain.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
