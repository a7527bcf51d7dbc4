//! Whether an issuer that somebody else keeps can sign our leaves: every constraint that it breaks, not only the first.

use super::AdoptionError;
use super::source::{IssuerFiles, IssuerKey};
use crate::authority::Authority;
use crate::key::PublicKey;
use mesh_trust::{Timestamp, TrustBundle, TrustDomain};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// An issuer that passed: made by [`check`] only.
#[derive(Clone, Debug)]
pub struct Adoptable {
    /// The root above it, of the bundle.
    pub root: CertificateDer<'static>,
    /// The issuer with its key.
    pub issuer: IssuerFiles,
}

/// What an issuer is held against.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Roots that are trusted, or are to be.
    pub roots: &'a [CertificateDer<'static>],
    /// Whose identities it is to sign.
    pub domain: &'a TrustDomain,
    /// Life of the leaves that it is to sign, seconds.
    pub leaf_secs: u64,
    /// `spec.privateKey.rotationPolicy` of its Certificate, where that is known.
    pub rotation_policy: Option<&'a str>,
    /// Wall clock.
    pub now: Timestamp,
}

/// Checks an issuer.
///
/// # Errors
/// All constraints that it breaks, in order of the chain.
pub fn check(issuer: IssuerFiles, demands: Demands<'_>) -> Result<Adoptable, Vec<AdoptionError>> {
    let mut broken = roots_broken(demands.roots);
    if demands.rotation_policy == Some("Never") {
        broken.push(AdoptionError::RotationNever);
    }
    let chain: Result<Vec<_>, _> = issuer.chain.iter().map(|der| read("chain", der)).collect();
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => {
            broken.push(error);
            return Err(broken);
        }
    };
    if let Some(first) = chain.first() {
        if is_self_signed(first) {
            broken.push(AdoptionError::RootKey {
                subject: first.subject().to_string(),
            });
        }
        broken.extend(key_broken(first, &issuer.key));
    }
    // A root at the end of the chain adds nothing: whether it is trusted, the bundle says.
    let above =
        chain.len() - usize::from(chain.len() > 1 && chain.last().is_some_and(is_self_signed));
    let chain = chain.get(..above).unwrap_or(&chain);
    for (position, certificate) in chain.iter().enumerate() {
        broken.extend(authority_broken(position, certificate));
        broken.extend(period_broken(position, certificate, demands));
    }
    for (position, pair) in chain.windows(2).enumerate() {
        if let [below, above] = pair
            && !signed(below, above)
        {
            broken.push(AdoptionError::ChainBroken {
                position: position + 1,
            });
        }
    }
    let root = match chain
        .last()
        .map(|top| root_of(top, chain.len(), demands, &mut broken))
    {
        Some(Some(root)) if broken.is_empty() => root,
        _ => return Err(broken),
    };
    let kept: Vec<_> = issuer.chain.iter().take(above).cloned().collect();
    // Last, because what others know better words for is said by them.
    broken.extend(unfit(&kept, &root, demands.domain));
    if !broken.is_empty() {
        return Err(broken);
    }
    Ok(Adoptable {
        root,
        issuer: IssuerFiles {
            chain: kept,
            ..issuer
        },
    })
}

impl Adoptable {
    /// Last moment at which all of the chain is in force, the root included: nothing below it may end later.
    pub fn ends(&self) -> Option<Timestamp> {
        ends(self.issuer.chain.iter().chain([&self.root]))
    }
}

/// The first end of several certificates; none if one cannot be read.
pub fn ends<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Option<Timestamp> {
    let all = certificates.into_iter().map(|der| {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        Some(Timestamp::from_unix_secs(
            read.validity().not_after.timestamp(),
        ))
    });
    all.collect::<Option<Vec<_>>>()?.into_iter().min()
}

fn read<'a>(
    what: &'static str,
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, AdoptionError> {
    let unreadable = |why: String| AdoptionError::Unreadable { what, why };
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(unreadable("bytes follow a certificate".to_owned())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    signed(certificate, certificate)
}

fn signed(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> bool {
    below.issuer().as_raw() == above.subject().as_raw()
        && below.verify_signature(Some(above.public_key())).is_ok()
}

/// Roots that are none: whoever trusts an intermediate as a root cannot replace the root above it.
pub(super) fn roots_broken(roots: &[CertificateDer<'static>]) -> Vec<AdoptionError> {
    let mut broken = Vec::new();
    for der in roots {
        match read("roots", der) {
            Ok(root) if is_self_signed(&root) => {}
            Ok(other) => {
                broken.push(AdoptionError::IntermediateAmongRoots {
                    subject: other.subject().to_string(),
                });
            }
            Err(error) => broken.push(error),
        }
    }
    broken
}

fn key_broken(issuer: &X509Certificate<'_>, key: &IssuerKey) -> Option<AdoptionError> {
    let Ok(certified) = PublicKey::from_info(issuer.public_key()) else {
        return Some(AdoptionError::KeyKind);
    };
    let pkcs8 = match key {
        IssuerKey::Pkcs8(pkcs8) => pkcs8,
        IssuerKey::InFile { public, .. } if *public == certified => return None,
        IssuerKey::InFile { .. } => return Some(AdoptionError::KeyMismatch),
    };
    let random = SystemRandom::new();
    let pair = [
        &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
    ]
    .into_iter()
    .find_map(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).ok());
    match pair {
        None => Some(AdoptionError::KeyKind),
        Some(pair) if pair.public_key().as_ref() == certified.point() => None,
        Some(_) => Some(AdoptionError::KeyMismatch),
    }
}

fn authority_broken(position: usize, certificate: &X509Certificate<'_>) -> Vec<AdoptionError> {
    let mut broken = Vec::new();
    let constraints = certificate
        .basic_constraints()
        .ok()
        .flatten()
        .map(|extension| extension.value);
    if !constraints.is_some_and(|constraints| constraints.ca) {
        broken.push(AdoptionError::NotAuthority { position });
    }
    broken.extend(path_broken(position, certificate));
    let usage = certificate
        .key_usage()
        .ok()
        .flatten()
        .map(|extension| extension.value);
    if !usage.is_some_and(|usage| usage.key_cert_sign()) {
        broken.push(AdoptionError::NoCertSign { position });
    }
    broken
}

/// A `pathLen` counts the authorities below, the leaf not among them (RFC 5280 §4.2.1.9).
fn path_broken(position: usize, certificate: &X509Certificate<'_>) -> Option<AdoptionError> {
    let needed = u32::try_from(position).unwrap_or(u32::MAX);
    let constraints = certificate.basic_constraints().ok().flatten()?;
    let found = constraints.value.path_len_constraint?;
    (found < needed).then_some(AdoptionError::PathLength {
        position,
        found,
        needed,
    })
}

fn period_broken(
    position: usize,
    certificate: &X509Certificate<'_>,
    demands: Demands<'_>,
) -> Option<AdoptionError> {
    let not_before = Timestamp::from_unix_secs(certificate.validity().not_before.timestamp());
    let not_after = Timestamp::from_unix_secs(certificate.validity().not_after.timestamp());
    let now = demands.now;
    if now < not_before || now.unix_secs() > not_after.unix_secs() {
        return Some(AdoptionError::NotInForce {
            position,
            not_before,
            not_after,
            now,
        });
    }
    let (left_secs, needed_secs) = (
        now.secs_until(not_after),
        demands.leaf_secs.saturating_mul(2),
    );
    (left_secs < needed_secs).then_some(AdoptionError::EndsTooSoon {
        position,
        left_secs,
        needed_secs,
    })
}

/// What peers would refuse, or this CA could not use: the very checks of both.
fn unfit(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    domain: &TrustDomain,
) -> Vec<AdoptionError> {
    let last = chain.len();
    let all = chain.iter().chain([root]).enumerate();
    let refused = all.filter_map(|(position, der)| {
        // Of those in between the key is nobody's business here; peers verify with it.
        let why = if position == 0 || position == last {
            Authority::parse_kept(der, domain, None).err()?.to_text()
        } else {
            let bundle = TrustBundle::new(domain.clone(), vec![der.clone()]);
            bundle.err()?.to_string()
        };
        Some(AdoptionError::Unfit {
            position,
            domain: domain.clone(),
            why,
        })
    });
    refused.collect()
}

/// The root that signed the top of the chain.
fn root_of(
    top: &X509Certificate<'_>,
    authorities: usize,
    demands: Demands<'_>,
    broken: &mut Vec<AdoptionError>,
) -> Option<CertificateDer<'static>> {
    for der in demands.roots {
        let Ok(root) = read("roots", der) else {
            continue;
        };
        if signed(top, &root) {
            broken.extend(authority_broken(authorities, &root));
            broken.extend(period_broken(authorities, &root, demands));
            return Some(der.clone());
        }
    }
    broken.push(AdoptionError::RootAbsent {
        subject: top.subject().to_string(),
    });
    None
}
