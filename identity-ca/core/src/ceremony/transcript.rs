//! What a ceremony did, line by line, signed by the root's key itself: whoever has the root's certificate can check it.
//!
//! ```text
//! mesh ceremony transcript, format 1
//! act: make a root
//! …                                     key: value, each key once
//! signature: <ECDSA over all lines above, base64>
//! ```
//! Its first letter is no beginning of DER, so no certificate can be cut from its signature.

use super::CeremonyError;
use super::shares::Share;
use crate::authority::Authority;
use crate::issue::Signer;
use crate::key::{Curve, PublicKey};
use crate::limits::CEREMONY_TEXT_BYTES_MAX;
use data_encoding::{BASE64, HEXLOWER};
use mesh_trust::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use std::fmt::Display;

const HEAD: &str = "mesh ceremony transcript, format 1\n";
const SIGNATURE: &str = "signature: ";

/// `act` of a root that was made.
pub const MADE_ROOT: &str = "make a root";
/// `act` of an issuer that was signed.
pub const SIGNED_ISSUER: &str = "sign an issuer";

/// A transcript that is being written.
#[derive(Clone, Debug)]
pub struct Draft(String);

/// A transcript that the root's key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    lines: Vec<(String, String)>,
}

impl Draft {
    /// Begins one: which act, by which version, under which root, and when.
    pub fn new(
        act: &str,
        version: &str,
        root: &Authority,
        (begun, ended): (Timestamp, Timestamp),
    ) -> Self {
        Self(HEAD.to_owned())
            .line("act", act)
            .line("version", version)
            .line("trust-domain", root.domain())
            .line("begun", begun)
            .line("ended", ended)
            .line("root", HEXLOWER.encode(&root.fingerprint()))
            .line("root-key", HEXLOWER.encode(&root.key().fingerprint()))
    }

    /// Adds a line. A value is one line.
    #[must_use]
    pub fn line(mut self, key: &str, value: impl Display) -> Self {
        let value = value.to_string().replace(['\n', '\r'], " ");
        self.0.push_str(&format!("{key}: {value}\n"));
        self
    }

    /// Adds what a certificate says: its hash, its key, its period, and itself.
    #[must_use]
    pub fn certificate(self, what: &str, of: &Authority) -> Self {
        self.line(
            &format!("{what}-certificate"),
            HEXLOWER.encode(&of.fingerprint()),
        )
        .line(
            &format!("{what}-public-key"),
            BASE64.encode(&of.key().spki()),
        )
        .line(&format!("{what}-subject"), of.subject_text())
        .line(&format!("{what}-serial"), of.serial())
        .line(&format!("{what}-not-before"), of.validity().not_before)
        .line(&format!("{what}-not-after"), of.validity().not_after)
        .line(&format!("{what}-der"), BASE64.encode(of.certificate()))
    }

    /// Adds the hash of each share.
    #[must_use]
    pub fn shares(self, shares: &[Share]) -> Self {
        shares.iter().fold(self, |draft, share| {
            draft.line(
                &format!("share-{}", share.number),
                HEXLOWER.encode(&share.fingerprint()),
            )
        })
    }
}

/// Signs a draft: its final text.
///
/// # Errors
/// [`CeremonyError::Key`].
pub fn seal(draft: &Draft, root: &dyn Signer) -> Result<String, CeremonyError> {
    let signature = root
        .sign(draft.0.as_bytes())
        .map_err(|error| CeremonyError::Key {
            why: error.to_string(),
        })?;
    Ok(format!(
        "{}{SIGNATURE}{}\n",
        draft.0,
        BASE64.encode(&signature)
    ))
}

impl Transcript {
    /// Reads a text that `root` signed; `place` is for errors.
    ///
    /// # Errors
    /// [`CeremonyError::Transcript`].
    pub fn parse(place: &str, text: &[u8], root: &Authority) -> Result<Self, CeremonyError> {
        let broken = |why: &str| CeremonyError::Transcript {
            place: place.to_owned(),
            why: why.to_owned(),
        };
        if text.len() > CEREMONY_TEXT_BYTES_MAX {
            return Err(broken("it is too long"));
        }
        let text = std::str::from_utf8(text).map_err(|_| broken("it is no text"))?;
        let body = text
            .strip_prefix(HEAD)
            .ok_or_else(|| broken("it does not begin as a transcript does"))?;
        let (lines, signature) = body
            .rsplit_once(SIGNATURE)
            .filter(|(lines, _)| lines.ends_with('\n'))
            .and_then(|(lines, last)| Some((lines, last.strip_suffix('\n')?)))
            .ok_or_else(|| broken("it does not end with a signature"))?;
        let signature = BASE64
            .decode(signature.as_bytes())
            .map_err(|_| broken("its signature is no base64"))?;
        let signed = format!("{HEAD}{lines}");
        if !is_signed(root.key(), signed.as_bytes(), &signature) {
            return Err(broken("the root's key did not sign these lines"));
        }
        let mut read: Vec<(String, String)> = Vec::new();
        for line in lines.lines() {
            let (key, value) = line
                .split_once(": ")
                .ok_or_else(|| broken("a line is no `key: value`"))?;
            if read.iter().any(|(known, _)| known == key) {
                return Err(broken("a key stands twice"));
            }
            read.push((key.to_owned(), value.to_owned()));
        }
        let transcript = Self { lines: read };
        if transcript.get("root") != Some(HEXLOWER.encode(&root.fingerprint()).as_str()) {
            return Err(broken("it is about another certificate of this key"));
        }
        Ok(transcript)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.lines.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Checks that a share is the one that the transcript of its root speaks of.
    ///
    /// # Errors
    /// [`CeremonyError::NotInTranscript`].
    pub fn check_share(&self, place: &str, share: &Share) -> Result<(), CeremonyError> {
        let differs = |why: String| CeremonyError::NotInTranscript {
            place: place.to_owned(),
            why,
        };
        let set = HEXLOWER.encode(&share.set.id);
        if self.get("set") != Some(&set) {
            return Err(differs(format!("it is of set {set}")));
        }
        let wanted = self.get(&format!("share-{}", share.number));
        match wanted == Some(HEXLOWER.encode(&share.fingerprint()).as_str()) {
            true => Ok(()),
            false => Err(differs("its hash is another".to_owned())),
        }
    }
}

fn is_signed(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let algorithm = match key.curve() {
        Curve::P256 => &ECDSA_P256_SHA256_ASN1,
        Curve::P384 => &ECDSA_P384_SHA384_ASN1,
    };
    UnparsedPublicKey::new(algorithm, key.point())
        .verify(message, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, TestKey, World};

    fn text(world: &World) -> String {
        let draft = Draft::new(MADE_ROOT, "test", &world.root, (NOW, NOW.plus_secs(1)))
            .certificate("root", &world.root)
            .line("note", "two\nlines\rare one");
        seal(&draft, &world.root_key).unwrap()
    }

    #[test]
    fn what_the_root_signed_is_read_back() {
        let world = World::new();
        let read = Transcript::parse("t", text(&world).as_bytes(), &world.root).unwrap();
        assert_eq!(read.get("act"), Some(MADE_ROOT));
        assert_eq!(read.get("note"), Some("two lines are one"));
        assert_eq!(read.get("signature"), None);
        let der = BASE64.decode(read.get("root-der").unwrap().as_bytes());
        assert_eq!(der.unwrap(), world.root.certificate().to_vec());
    }

    #[test]
    fn every_changed_octet_is_found() {
        let world = World::new();
        let good = text(&world).into_bytes();
        for at in 0..good.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = good.clone();
                changed[at] ^= flip;
                let read = Transcript::parse("t", &changed, &world.root);
                assert!(
                    matches!(read, Err(CeremonyError::Transcript { .. })),
                    "octet {at} changed by {flip}"
                );
            }
        }
        for cut in 0..good.len() {
            assert!(Transcript::parse("t", &good[..cut], &world.root).is_err());
        }
        let longer = [&good[..], b"act: more\n"].concat();
        assert!(Transcript::parse("t", &longer, &world.root).is_err());
    }

    #[test]
    fn another_key_or_another_certificate_of_the_same_key_is_refused() {
        let world = World::new();
        let draft = Draft::new(MADE_ROOT, "test", &world.root, (NOW, NOW));
        let forged = seal(&draft, &TestKey::new()).unwrap();
        assert!(Transcript::parse("t", forged.as_bytes(), &world.root).is_err());
        let about_another = Draft::new(MADE_ROOT, "test", &World::new().root, (NOW, NOW));
        let text = seal(&about_another, &world.root_key).unwrap();
        assert!(Transcript::parse("t", text.as_bytes(), &world.root).is_err());
        let twice = draft.line("act", "make a root");
        let text = seal(&twice, &world.root_key).unwrap();
        assert!(Transcript::parse("t", text.as_bytes(), &world.root).is_err());
    }
}
