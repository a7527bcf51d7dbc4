//! Private keys: who reads them, makes them and signs with them.
//!
//! The keys of roots and issuers, and those of JWT-SVIDs, are in a process of its own, the signer; the CA has handles to
//! them.
//!
//! ```text
//! CA      Signing ── HeldKey             link: asks, and keeps a signer running
//!            │ socket, inherited         mesh_issuance::signing: the form of what is said
//! signer  serve ── Keys ─┬─ file         process: what it gives up; held: the keys, and the one file of each
//!                        └─ token        token: PKCS #11
//! ```
//!
//! Keys of SVIDs that the CA makes for workloads, and its own SVID's, are made in the CA: the first leave it at once.

pub(crate) mod error;
pub(crate) mod held;
pub(crate) mod link;
pub(crate) mod process;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod token;

pub(crate) use link::HeldKey;
pub use link::Signing;

use crate::error::IssuanceError;
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
};
use mesh_issuance::ceremony::shares::Secret;
use mesh_issuance::key::Curve;
use mesh_issuance::{PublicKey, Signer, SignerFailed};
use std::fmt;
use zeroize::Zeroizing;

/// PKCS #8, DER, unencrypted; wiped when dropped.
pub(crate) type Pkcs8 = Zeroizing<Vec<u8>>;

/// A key in this process: on P-256 where we made it, on P-384 too where others did. Wiped when dropped: of the two
/// libraries that are here, aws-lc-rs does that and ring does not.
pub(crate) struct KeyInMemory {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

/// Makes a fresh P-256 key.
///
/// # Errors
/// [`IssuanceError::KeyGeneration`].
pub(crate) fn generate() -> Result<(Pkcs8, PublicKey), IssuanceError> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| IssuanceError::KeyGeneration)?;
    let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
    let key = KeyInMemory::read(&pkcs8).ok_or(IssuanceError::KeyGeneration)?;
    Ok((pkcs8, key.public))
}

impl KeyInMemory {
    /// Reads a key; `None` if it is none, or its two halves do not belong together.
    pub(crate) fn read(pkcs8: &[u8]) -> Option<Self> {
        let (curve, pair) = [
            (Curve::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (Curve::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        ]
        .into_iter()
        .find_map(|(curve, algorithm)| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok()?;
            Some((curve, pair))
        })?;
        let public = PublicKey::from_point(curve, pair.public_key().as_ref()).ok()?;
        Some(Self { pair, public })
    }
}

impl KeyInMemory {
    /// A fresh key on P-256 that is nowhere else.
    pub(crate) fn fresh() -> Option<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok()?;
        let public = PublicKey::from_point(Curve::P256, pair.public_key().as_ref()).ok()?;
        Some(Self { pair, public })
    }

    /// The private number, to be divided; none of a key that is not on P-256.
    pub(crate) fn secret(&self) -> Option<Secret> {
        let number: EcPrivateKeyBin<'_> = self.pair.private_key().as_be_bytes().ok()?;
        Some(Zeroizing::new(number.as_ref().try_into().ok()?))
    }

    /// A key on P-256 of which the private number is known; none if that is not the private half of `public`.
    pub(crate) fn from_secret(secret: &Secret, public: &PublicKey) -> Option<Self> {
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            secret.as_slice(),
            public.point(),
        )
        .ok()?;
        (public.curve() == Curve::P256).then(|| Self {
            pair,
            public: public.clone(),
        })
    }
}

impl Signer for KeyInMemory {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        match self.pair.sign(&SystemRandom::new(), message) {
            Ok(signature) => Ok(signature.as_ref().to_vec()),
            Err(_) => Err(SignerFailed("the kernel gives no random bytes".to_owned())),
        }
    }
}

impl fmt::Debug for KeyInMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyInMemory({:?})", self.public)
    }
}
