//! From an SVID to a peer that is trusted: path validation (RFC 5280 §6; X509-SVID §5; rules X3-X5).
//!
//! Signatures, periods, path lengths and name constraints are the path builder's (rustls-webpki) work; what it does not
//! know of SPIFFE is checked on the paths it finds. Only the bundle of the leaf's *own* trust domain counts: pooled
//! bundles would let each domain sign for all others.

use crate::authority::{self, AuthorityError};
use crate::bundle::{TrustBundle, TrustBundles};
use crate::deny::{Denied, Marks};
use crate::svid::LeafFacts;
use crate::{SpiffeId, Svid, Timestamp, TrustDomain};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use webpki::aws_lc_rs as algorithms;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, VerifiedPath,
};

/// A peer whose chain was verified against the bundle of its own trust domain.
///
/// Made only by [`TrustBundles::verify`] and by a finished handshake under [`crate::tls`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    id: SpiffeId,
    serial: Arc<str>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why a chain is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum PathError {
    /// No bundle for the domain of the leaf.
    #[error("no trust bundle for trust domain `{domain}`")]
    #[diagnostic(
        code("MESH-0170"),
        help("if the domain should be trusted, federate with it; else the refusal is right")
    )]
    UnknownDomain {
        /// Domain of the leaf.
        domain: TrustDomain,
    },
    /// No path to an anchor: unknown issuer, or a signature that does not fit.
    #[error("no anchor of trust domain `{domain}` signed for `{id}`: {why}")]
    #[diagnostic(
        code("MESH-0171"),
        help(
            "the peer's authority is not in the bundle of its domain: an anchor rotation not yet arrived here, or an impostor"
        )
    )]
    NotSigned {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// Domain whose anchors were tried.
        domain: TrustDomain,
        /// What the path builder met.
        why: &'static str,
    },
    /// A certificate on the path is not valid yet.
    #[error("the certificate chain of `{id}` is not valid before `{not_before}`; it is `{now}`")]
    #[diagnostic(
        code("MESH-0172"),
        help("one of the two clocks is wrong, or the certificate was issued for later")
    )]
    NotYetValid {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// When the offending certificate begins.
        not_before: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// A certificate on the path has expired.
    #[error("the certificate chain of `{id}` expired at `{not_after}`; it is `{now}`")]
    #[diagnostic(
        code("MESH-0173"),
        help(
            "the peer could not renew, or a clock is wrong: look at the peer's proxy and at the CA"
        )
    )]
    Expired {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// When the offending certificate ended.
        not_after: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// A signer on the path that may not sign.
    #[error("the certificate chain of `{id}` has a signer that may not sign: {source}")]
    #[diagnostic(
        code("MESH-0174"),
        help("only authorities of the leaf's own trust domain may sign its chain")
    )]
    Authority {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// The rule broken.
        source: AuthorityError,
    },
    /// A path longer than an authority allows.
    #[error("the certificate chain of `{id}` is longer than one of its authorities allows")]
    #[diagnostic(
        code("MESH-0175"),
        help("an issuer below a `pathLen` limit issued another issuer")
    )]
    PathLength {
        /// Who the leaf claims to be.
        id: SpiffeId,
    },
    /// Name constraints that forbid the leaf, or hold URI constraints, which cannot be checked here.
    #[error("the name constraints of an authority do not admit `{id}`")]
    #[diagnostic(
        code("MESH-0176"),
        help(
            "authorities with URI name constraints are refused whole: issue the authority without"
        )
    )]
    NameConstraint {
        /// Who the leaf claims to be.
        id: SpiffeId,
    },
    /// A chain that costs more to check than any honest one.
    #[error("checking the certificate chain of `{id}` takes too many steps")]
    #[diagnostic(
        code("MESH-0177"),
        help("the chain was made to be costly; look at who sent it")
    )]
    TooCostly {
        /// Who the leaf claims to be.
        id: SpiffeId,
    },
    /// On the deny list.
    #[error("`{id}` is denied: {by}")]
    #[diagnostic(
        code("MESH-0273"),
        help("`mesh identity denied` says since when and why; `mesh identity allow` ends it")
    )]
    Denied {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// The entry.
        by: Denied,
    },
    /// Anything else that the path builder refuses.
    #[error("the certificate chain of `{id}` is refused: {why}")]
    #[diagnostic(code("MESH-0178"), help("look at the chain with `openssl x509 -text`"))]
    Refused {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// What the path builder says.
        why: String,
    },
    /// Two readers found different identities in the leaf.
    #[error("two readers of the leaf of `{id}` disagree about its identity")]
    #[diagnostic(
        code("MESH-0179"),
        help("the certificate is malformed with care; look at who sent it")
    )]
    Ambiguous {
        /// Who the leaf claims to be, by one of them.
        id: SpiffeId,
    },
}

/// Algorithms that a signature on the path may have. P-521 and RSA over 8,192 bits are missing on purpose, SHA-1 and MD5
/// do not exist here.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

impl TrustBundles {
    /// Trusts `svid` if its path leads to an anchor of *its own* trust domain at `now` (rules X4, X5).
    ///
    /// # Errors
    /// [`PathError`] with the cause.
    pub fn verify(&self, svid: &Svid, now: Timestamp) -> Result<VerifiedPeer, PathError> {
        let facts = LeafFacts {
            id: svid.id().clone(),
            serial: svid.serial().into(),
            not_before: svid.not_before(),
            not_after: svid.not_after(),
        };
        // INVARIANT: an SVID has a leaf, so the chain is never empty.
        match svid.chain() {
            [leaf, intermediates @ ..] => self.verify_leaf(leaf, facts, intermediates, now),
            [] => Err(PathError::Refused {
                id: facts.id,
                why: "no leaf".to_owned(),
            }),
        }
    }

    /// As [`TrustBundles::verify`], for a chain that a handshake lends us; `facts` were read from `leaf`.
    pub(crate) fn verify_leaf(
        &self,
        leaf: &CertificateDer<'_>,
        facts: LeafFacts,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<VerifiedPeer, PathError> {
        let domain = facts.id.trust_domain();
        let bundle = self.get(domain).ok_or_else(|| PathError::UnknownDomain {
            domain: domain.clone(),
        })?;
        let attempt = Attempt {
            bundle,
            id: &facts.id,
            now,
        };
        attempt.run(leaf, intermediates)?;
        let denials = self.denials();
        if !denials.is_empty() {
            let names = (&facts.id, &*facts.serial);
            if let Some(by) = denials.denies(&Marks::read(names, leaf, intermediates)) {
                return Err(PathError::Denied { id: facts.id, by });
            }
        }
        Ok(VerifiedPeer::from_facts(facts))
    }
}

/// One leaf against one bundle.
struct Attempt<'a> {
    bundle: &'a TrustBundle,
    id: &'a SpiffeId,
    now: Timestamp,
}

impl Attempt<'_> {
    fn run(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), PathError> {
        // All that were sent, before the path builder reads any of them many times over: this also bounds its work.
        for intermediate in intermediates {
            authority::check(intermediate, self.bundle.domain()).map_err(|source| {
                PathError::Authority {
                    id: self.id.clone(),
                    source,
                }
            })?;
        }
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| self.translate(error))?;
        let mut uris = end_entity.valid_uri_names();
        if uris.next() != Some(self.id.as_str()) || uris.next().is_some() {
            return Err(PathError::Ambiguous {
                id: self.id.clone(),
            });
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(
            self.now.unix_secs().try_into().unwrap_or(0),
        ));
        // The path builder goes on after an anchor that we refuse, and ends with an error of its own; ours says more.
        let refused = RefCell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            self.judge_anchor(path.anchor()).map_err(|why| {
                *refused.borrow_mut() = Some(why);
                webpki::Error::UnknownIssuer
            })
        };
        let found = end_entity.verify_for_usage(
            SIGNATURES,
            self.bundle.points(),
            intermediates,
            time,
            BothPurposes,
            None,
            Some(&judge),
        );
        match (found, refused.take()) {
            (Ok(_), _) => Ok(()),
            (Err(webpki::Error::UnknownIssuer), Some(why)) => Err(why),
            (Err(error), _) => Err(self.translate(error)),
        }
    }

    /// An anchor counts only in its period. The same key may be in the bundle with several periods.
    fn judge_anchor(&self, found: &TrustAnchor<'_>) -> Result<(), PathError> {
        let (id, now) = (self.id, self.now);
        // The path builder found it among our anchors, so one matches; were there none, nothing would be trusted.
        let mut verdict = Err(self.not_signed("its anchor is not in the bundle"));
        for (not_before, not_after) in self.bundle.periods_of(found) {
            verdict = if now < not_before {
                Err(PathError::NotYetValid {
                    id: id.clone(),
                    not_before,
                    now,
                })
            } else if past(now, not_after) {
                Err(PathError::Expired {
                    id: id.clone(),
                    not_after,
                    now,
                })
            } else {
                return Ok(());
            };
        }
        verdict
    }

    fn not_signed(&self, why: &'static str) -> PathError {
        let (id, domain) = (self.id.clone(), self.bundle.domain().clone());
        PathError::NotSigned { id, domain, why }
    }

    fn translate(&self, error: webpki::Error) -> PathError {
        use webpki::Error as E;
        let (id, now) = (self.id.clone(), self.now);
        match error {
            E::UnknownIssuer => self.not_signed("its issuer is not known"),
            E::InvalidSignatureForPublicKey => self.not_signed("a signature is wrong"),
            E::CertExpired { not_after, .. } => PathError::Expired {
                id,
                not_after: timestamp(not_after),
                now,
            },
            E::CertNotValidYet { not_before, .. } => PathError::NotYetValid {
                id,
                not_before: timestamp(not_before),
                now,
            },
            E::EndEntityUsedAsCa => PathError::Authority {
                id,
                source: AuthorityError::NotAuthority,
            },
            E::PathLenConstraintViolated => PathError::PathLength { id },
            E::NameConstraintViolation => PathError::NameConstraint { id },
            E::MaximumSignatureChecksExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumNameConstraintComparisonsExceeded => PathError::TooCostly { id },
            other => PathError::Refused {
                id,
                why: format!("{other:?}"),
            },
        }
    }
}

/// Extended key usage on the path: absent, or both purposes, since every workload serves and calls (X509-SVID §4.4).
struct BothPurposes;

impl ExtendedKeyUsageValidator for BothPurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let present = purposes
            .map(|purpose| purpose.map(|id| id.to_decoded_oid()))
            .collect::<Result<Vec<_>, _>>()?;
        let lacks =
            |wanted: &[usize]| !present.is_empty() && !present.iter().any(|arcs| arcs == wanted);
        let missing = match (
            lacks(KeyUsage::SERVER_AUTH_REPR),
            lacks(KeyUsage::CLIENT_AUTH_REPR),
        ) {
            (true, _) => KeyUsage::server_auth(),
            (_, true) => KeyUsage::client_auth(),
            _ => return Ok(()),
        };
        Err(webpki::Error::RequiredEkuNotFoundContext(
            RequiredEkuNotFoundContext {
                required: missing,
                present,
            },
        ))
    }
}

impl VerifiedPeer {
    /// Only for leaves that were verified.
    pub(crate) fn from_facts(facts: LeafFacts) -> Self {
        let LeafFacts {
            id,
            serial,
            not_before,
            not_after,
        } = facts;
        Self {
            id,
            serial,
            not_before,
            not_after,
        }
    }

    /// Who the peer is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of its leaf, lower-case hex, without a leading zero byte.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Begin of its leaf's validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of its leaf's validity, inclusive.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_secs(time.as_secs().try_into().unwrap_or(i64::MAX))
}

/// Whether `now` is past a bound that is inclusive and counts whole seconds.
fn past(now: Timestamp, not_after: Timestamp) -> bool {
    now.unix_secs() > not_after.unix_secs()
}

#[cfg(test)]
mod tests;
