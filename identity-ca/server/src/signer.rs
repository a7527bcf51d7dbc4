//! Private keys in memory: made, read and used by ring; written only as PKCS #8.

use crate::error::IssuanceError;
use mesh_issuance::key::Curve;
use mesh_issuance::{PublicKey, Signer, SignerFailed};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
};
use std::fmt;
use zeroize::Zeroizing;

/// PKCS #8, DER, unencrypted; wiped when dropped.
pub(crate) type Pkcs8 = Zeroizing<Vec<u8>>;

/// A key in this process: on P-256 where we made it, on P-384 too where others did.
pub(crate) struct KeyInMemory {
    pair: EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
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
        let random = SystemRandom::new();
        let (curve, pair) = [
            (Curve::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (Curve::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        ]
        .into_iter()
        .find_map(|(curve, algorithm)| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).ok()?;
            Some((curve, pair))
        })?;
        let public = PublicKey::from_point(curve, pair.public_key().as_ref()).ok()?;
        Some(Self {
            pair,
            public,
            random,
        })
    }
}

impl Signer for KeyInMemory {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        match self.pair.sign(&self.random, message) {
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
