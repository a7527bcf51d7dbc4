//! Signed heads of a chain: what was on the disk, said by a key that is not in the log.
//!
//! Text form, one line of JSON: `{"origin","seq","hash","time","key","signature"}`. The signature (Ed25519, RFC 8032)
//! is over `"mesh.audit.checkpoint.v1\0" ‖ origin length as 8 bytes ‖ origin ‖ seq as 8 bytes ‖ hash ‖ time in
//! microseconds as 8 bytes`, numbers big-endian.

use crate::chain::Hash;
use data_encoding::HEXLOWER;
use mesh_trust::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;

const DOMAIN: &[u8] = b"mesh.audit.checkpoint.v1\0";

/// The statement that line `seq` of the log of `origin` has this hash and was on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Whose log.
    pub origin: String,
    /// Place of the last line covered.
    pub seq: u64,
    /// Hash of that line.
    pub hash: Hash,
    /// When it was signed.
    pub time: Timestamp,
    /// Who signed, lower-case hex; a help for finding the key, never trusted.
    pub key: String,
    /// The signature, lower-case hex.
    pub signature: String,
}

/// A key that signs checkpoints; its own, not the CA's.
pub struct CheckpointKey(Ed25519KeyPair);

/// The public half, 32 bytes; 64 digits of lower-case hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

/// Why a checkpoint or its key is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a private key.
    #[error("the checkpoint key is not an Ed25519 key in PKCS#8 form")]
    #[diagnostic(
        code("MESH-0505"),
        help(
            "put the right key file back; without it a new key must be made and older checkpoints no longer verify"
        )
    )]
    PrivateKey,
    /// Not a public key.
    #[error("the public checkpoint key is not 64 digits of lower-case hex")]
    #[diagnostic(
        code("MESH-0506"),
        help(
            "pass the content of the `.pub` file that stands beside the log, from a copy you trust"
        )
    )]
    PublicKey,
    /// Not a checkpoint.
    #[error("the checkpoint is not in its documented form: {why}")]
    #[diagnostic(
        code("MESH-0507"),
        help("the file was damaged or is another file; treat the log's tail as unproved")
    )]
    Form {
        /// The parser's words.
        why: String,
    },
    /// Signed by another key, or edited.
    #[error("the signature of the checkpoint does not hold")]
    #[diagnostic(
        code("MESH-0508"),
        help(
            "the checkpoint was edited, or the public key belongs to another log: compare it with a copy you trust"
        )
    )]
    Signature,
}

impl CheckpointKey {
    /// Reads a private key in PKCS#8 form.
    ///
    /// # Errors
    /// [`CheckpointError::PrivateKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CheckpointError> {
        Ed25519KeyPair::from_pkcs8(der)
            .map(Self)
            .map_err(|_| CheckpointError::PrivateKey)
    }

    /// The key of a 32-byte secret.
    ///
    /// # Errors
    /// [`CheckpointError::PrivateKey`] if it has another length.
    pub fn from_seed(seed: &[u8]) -> Result<Self, CheckpointError> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(Self)
            .map_err(|_| CheckpointError::PrivateKey)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        // An Ed25519 public key has exactly these 32 bytes.
        for (to, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(bytes)
    }

    /// States that line `seq` has `hash`. Flush the log to the disk first.
    pub fn sign(&self, origin: &str, seq: u64, hash: Hash, time: Timestamp) -> Checkpoint {
        let signature = self.0.sign(&signed_bytes(origin, seq, hash, time));
        Checkpoint {
            origin: origin.to_owned(),
            seq,
            hash,
            time,
            key: self.public().to_string(),
            signature: HEXLOWER.encode(signature.as_ref()),
        }
    }
}

impl Checkpoint {
    /// Reads the text form; proves nothing yet.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        serde_json::from_slice(text).map_err(|error| CheckpointError::Form {
            why: error.to_string(),
        })
    }

    /// The text form, with a line feed.
    pub fn to_text(&self) -> String {
        // Strings and numbers always have a JSON form.
        serde_json::to_string(self)
            .map(|text| text + "\n")
            .unwrap_or_default()
    }

    /// Whether `key` signed it.
    ///
    /// # Errors
    /// [`CheckpointError::Signature`].
    pub fn check(&self, key: &PublicKey) -> Result<(), CheckpointError> {
        let signature = HEXLOWER
            .decode(self.signature.as_bytes())
            .map_err(|_| CheckpointError::Signature)?;
        UnparsedPublicKey::new(&ED25519, &key.0)
            .verify(
                &signed_bytes(&self.origin, self.seq, self.hash, self.time),
                &signature,
            )
            .map_err(|_| CheckpointError::Signature)
    }
}

impl PublicKey {
    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`CheckpointError::PublicKey`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let bytes = HEXLOWER
            .decode(text.trim().as_bytes())
            .map_err(|_| CheckpointError::PublicKey)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| CheckpointError::PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckpointKey(public {})", self.public())
    }
}

fn signed_bytes(origin: &str, seq: u64, hash: Hash, time: Timestamp) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + origin.len() + 56);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(&(origin.len() as u64).to_be_bytes());
    bytes.extend_from_slice(origin.as_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&hash.0);
    bytes.extend_from_slice(&time.unix_micros().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    fn sample() -> Checkpoint {
        key(1).sign(
            "shop.cart",
            7,
            Hash([9; 32]),
            Timestamp::from_unix_micros(1_790_000_000_123_456),
        )
    }

    #[test]
    fn a_checkpoint_survives_its_text_form() {
        let back = Checkpoint::parse(sample().to_text().as_bytes()).unwrap();
        assert_eq!(back, sample());
        back.check(&PublicKey::parse(&format!(" {}\n", key(1).public())).unwrap())
            .unwrap();
    }

    #[test]
    fn every_edited_field_breaks_the_signature() {
        let edits: [fn(&mut Checkpoint); 5] = [
            |c| c.origin = "shop.card".to_owned(),
            |c| c.seq += 1,
            |c| c.hash.0[31] ^= 1,
            |c| c.time = c.time.plus_secs(1),
            |c| c.signature = c.signature.replacen(|_: char| true, "0", 1) + "0",
        ];
        for (index, edit) in edits.iter().enumerate() {
            let mut edited = sample();
            edit(&mut edited);
            assert_eq!(
                edited.check(&key(1).public()),
                Err(CheckpointError::Signature),
                "edit {index}"
            );
        }
        assert_eq!(
            sample().check(&key(2).public()),
            Err(CheckpointError::Signature)
        );
    }

    #[test]
    fn other_text_is_no_checkpoint_and_no_key() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"origin":"o","seq":-1}"#,
            &sample().to_text().replace("\"seq\"", "\"extra\":1,\"seq\""),
        ] {
            assert!(
                matches!(
                    Checkpoint::parse(text.as_bytes()),
                    Err(CheckpointError::Form { .. })
                ),
                "{text}"
            );
        }
        for text in ["", "00", &"G".repeat(64), &"A".repeat(64), &"0".repeat(66)] {
            assert_eq!(
                PublicKey::parse(text),
                Err(CheckpointError::PublicKey),
                "{text}"
            );
        }
        assert_eq!(
            CheckpointKey::from_seed(&[0; 31]).unwrap_err(),
            CheckpointError::PrivateKey
        );
        assert!(
            !format!("{:?}", key(1)).contains("01010101"),
            "the secret is not printed"
        );
    }
}
