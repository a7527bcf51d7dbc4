//! Public keys that may be certified: NIST P-256 and P-384, a point that lies on the curve, in the one form that every
//! peer reads.
//!
//! RSA is refused (workloads make their keys anew each time, so nothing is gained by it), Ed25519 too (JOSE and several
//! TLS stacks of peers lack it). The check is arithmetic on public values only: it needs no secrecy and no randomness.

mod known;

use rcgen::PublicKeyData;
use ring::digest;
use std::fmt;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A curve whose keys may be certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256: what we make ourselves.
    P256,
    /// NIST P-384.
    P384,
}

/// A public key that passed the checks of this module.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    curve: Curve,
    // Uncompressed point: 4, x, y.
    point: Vec<u8>,
}

/// Why a key may not be certified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum KeyError {
    /// Bytes that are no public key.
    #[error("the public key is not readable DER")]
    #[diagnostic(
        code("MESH-0201"),
        help("send a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) without bytes after it")
    )]
    Malformed,
    /// RSA, Ed25519, other curves.
    #[error("keys of algorithm `{oid}` are not certified")]
    #[diagnostic(
        code("MESH-0202"),
        help(
            "make an elliptic key on P-256 (or P-384), for instance `openssl ecparam -name prime256v1 -genkey`"
        )
    )]
    Algorithm {
        /// Object identifier of the algorithm or of the curve.
        oid: String,
    },
    /// A key whose private half is printed somewhere, or can be guessed.
    #[error("everybody knows the private half of this key")]
    #[diagnostic(
        code("MESH-0276"),
        help("it is of a standard's examples or of a test suite; make a key of your own")
    )]
    Known,
    /// Not an uncompressed point of the curve.
    #[error("the public key is not a point on its curve")]
    #[diagnostic(
        code("MESH-0203"),
        help("the key is damaged or hostile; make a new one and send its uncompressed point")
    )]
    Point,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`KeyError`]: not DER, another algorithm, or no point on its curve.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Malformed)?;
        if !rest.is_empty() {
            return Err(KeyError::Malformed);
        }
        let key = Self::from_info(&info)?;
        // One key, one form: whatever a lenient reader let through is refused here.
        if key.spki() != der {
            Err(KeyError::Malformed)
        } else {
            Ok(key)
        }
    }

    pub(crate) fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let algorithm = info.algorithm.algorithm.to_id_string();
        if algorithm != "1.2.840.10045.2.1" {
            return Err(KeyError::Algorithm { oid: algorithm });
        }
        let curve = info
            .algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok());
        let curve = match curve.map(|oid| oid.to_id_string()).as_deref() {
            Some("1.2.840.10045.3.1.7") => Curve::P256,
            Some("1.3.132.0.34") => Curve::P384,
            other => {
                return Err(KeyError::Algorithm {
                    oid: other.unwrap_or("explicit curve").to_owned(),
                });
            }
        };
        if info.subject_public_key.unused_bits != 0 {
            return Err(KeyError::Malformed);
        }
        Self::from_point(curve, &info.subject_public_key.data)
    }

    /// Takes an uncompressed point: octet 4, x, y.
    ///
    /// # Errors
    /// [`KeyError::Point`] if it is not one, or not on the curve.
    pub fn from_point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        let Some((&4, coordinates)) = point.split_first() else {
            return Err(KeyError::Point);
        };
        let width = curve.coordinate_bytes();
        let (x, y) = coordinates.split_at_checked(width).ok_or(KeyError::Point)?;
        if curve.is_known(x) {
            return Err(KeyError::Known);
        }
        if y.len() != width || !curve.holds(&BigUint::from_bytes_be(x), &BigUint::from_bytes_be(y))
        {
            return Err(KeyError::Point);
        }
        Ok(Self {
            curve,
            point: point.to_vec(),
        })
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// The uncompressed point.
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// The `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    /// SHA-256 of [`PublicKey::spki`]: names the key in logs.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.spki())
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublicKey({:?}, {})",
            self.curve,
            data_encoding::HEXLOWER.encode(&self.fingerprint())
        )
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.curve {
            Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl Curve {
    const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// The prime of the field and the constant b (SEC 2 §2.4.2, §2.5.1).
    const fn constants(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::P256 => (
                b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
                b"5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
            ),
            Self::P384 => (
                b"fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
                b"b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
            ),
        }
    }

    /// Whether the key with this x is one of [`known`].
    fn is_known(self, x: &[u8]) -> bool {
        let list = match self {
            Self::P256 => known::P256,
            Self::P384 => known::P384,
        };
        let prefix = data_encoding::HEXLOWER.encode(x.get(..16).unwrap_or_default());
        list.contains(&prefix.as_str())
    }

    /// Whether y² = x³ - 3x + b in the field. Both curves have cofactor 1, so each such point is a valid key.
    fn holds(self, x: &BigUint, y: &BigUint) -> bool {
        let (prime, b) = self.constants();
        let (Some(prime), Some(b)) = (BigUint::parse_bytes(prime, 16), BigUint::parse_bytes(b, 16))
        else {
            return false;
        };
        if *x >= prime || *y >= prime {
            return false;
        }
        let cubic = x * x * x + (&prime - 3u32) * x + b;
        (y * y) % &prime == cubic % &prime
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestKey;
    use ring::rand::SystemRandom;
    use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    #[test]
    fn keys_of_both_curves_are_taken_and_keep_their_form() {
        for (curve, algorithm) in [
            (Curve::P256, &signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            (Curve::P384, &signature::ECDSA_P384_SHA384_ASN1_SIGNING),
        ] {
            for _ in 0..16 {
                let random = SystemRandom::new();
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
                let key = PublicKey::from_point(curve, pair.public_key().as_ref()).unwrap();
                assert_eq!(PublicKey::from_spki(&key.spki()), Ok(key));
            }
        }
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let good = TestKey::new().public.point().to_vec();
        let mut flipped = good.clone();
        flipped[64] ^= 1;
        let mut zero = vec![0; 65];
        zero[0] = 4;
        let prime = data_encoding::HEXLOWER
            .decode(Curve::P256.constants().0)
            .unwrap();
        let not_reduced = [&[4][..], &prime, &good[33..]].concat();
        let compressed = [&[2][..], &good[1..33]].concat();
        for bad in [
            flipped,
            zero,
            not_reduced,
            compressed,
            vec![0],
            vec![],
            good[..64].to_vec(),
            [&good[..], &[0]].concat(),
        ] {
            assert_eq!(
                PublicKey::from_point(Curve::P256, &bad),
                Err(KeyError::Point),
                "{bad:02x?}"
            );
        }
        assert_eq!(
            PublicKey::from_point(Curve::P384, &good),
            Err(KeyError::Point)
        );
    }

    #[test]
    fn ca2_keys_whose_private_half_is_printed_somewhere_are_refused() {
        let decode = |text: &str| data_encoding::HEXUPPER.decode(text.as_bytes()).unwrap();
        // RFC 6979 A.2.5; the generator itself (private number 1), and its negative.
        let printed = (
            "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
            "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
        );
        let generator = (
            "6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296",
            "4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5",
        );
        let negative = (
            generator.0,
            "B01CBD1C01E58065711814B583F061E9D431CCA994CEA1313449BF97C840AE0A",
        );
        for (x, y) in [printed, generator, negative] {
            let (x, y) = (decode(x), decode(y));
            let on_curve =
                Curve::P256.holds(&BigUint::from_bytes_be(&x), &BigUint::from_bytes_be(&y));
            assert!(on_curve, "the test has a digit wrong");
            let point = [&[4][..], &x, &y].concat();
            assert_eq!(
                PublicKey::from_point(Curve::P256, &point),
                Err(KeyError::Known)
            );
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let ed25519 = [
            &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..],
            pair.public_key().as_ref(),
        ]
        .concat();
        assert_eq!(
            PublicKey::from_spki(&ed25519),
            Err(KeyError::Algorithm {
                oid: "1.3.101.112".into()
            })
        );
        // RSA of 512 bits: the algorithm alone is enough to refuse, whatever its size.
        let modulus = [0x55u8; 64];
        let numbers = [&[0x30, 0x45, 2, 0x40][..], &modulus, &[2, 1, 3]].concat();
        let algorithm = [
            0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0,
        ];
        let bits = [&[3, (numbers.len() + 1) as u8, 0][..], &numbers].concat();
        let rsa = [
            &[0x30, (algorithm.len() + bits.len()) as u8][..],
            &algorithm,
            &bits,
        ]
        .concat();
        assert_eq!(
            PublicKey::from_spki(&rsa),
            Err(KeyError::Algorithm {
                oid: "1.2.840.113549.1.1.1".into()
            })
        );
    }

    #[test]
    fn bytes_around_a_key_are_refused() {
        let good = TestKey::new().public.spki();
        assert_eq!(
            PublicKey::from_spki(&[&good[..], &[0]].concat()),
            Err(KeyError::Malformed)
        );
        for cut in 0..good.len() {
            assert!(PublicKey::from_spki(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..26 {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(
                PublicKey::from_spki(&changed).is_err(),
                "octet {at} changed"
            );
        }
    }
}
