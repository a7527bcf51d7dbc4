//! Signed text and its keys ([signed-note](https://c2sp.org/signed-note)): Ed25519 signatures of logs (type 1) and
//! timestamped cosignatures of witnesses (type 4).
//!
//! A signature of a key that nobody asked about says nothing and is passed over; one of a known key that does not verify
//! condemns the note.

use crate::base64;
use crate::limits::{NAME_BYTES_MAX, NOTE_BYTES_MAX, SIGNATURES_MAX};
use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;

const DASH: &str = "\u{2014} ";

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// The text itself: a log's key.
    Ed25519,
    /// The text and a time: a witness's key.
    Cosignature,
}

/// The public half of a key. As text: `name+<8 digits of hex>+<base64>`, in one line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    public: [u8; 32],
}

/// A key that signs, with its name.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

/// One line of a note below its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub name: String,
    /// Identifier of the key: four bytes of a hash, a help for finding it and no more.
    pub key_id: u32,
    /// What stands behind the identifier.
    pub bytes: Vec<u8>,
}

/// Text with signatures, none of them verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// Why a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum KeyError {
    /// A name that cannot stand in a note.
    #[error("`{}` cannot name a key", name.escape_debug())]
    #[diagnostic(
        code("MESH-0526"),
        help(
            "a name has 1 to {NAME_BYTES_MAX} bytes, without white space, control characters and `+`"
        )
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Not the text of a public key.
    #[error("the public key is not in the form `<name>+<8 digits of hex>+<base64>`: {why}")]
    #[diagnostic(
        code("MESH-0527"),
        help(
            "pass the one line of the log's or the witness's public key file, from a copy you trust"
        )
    )]
    Public {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a private key.
    #[error("the signing key of a log is not an Ed25519 key in PKCS#8 form")]
    #[diagnostic(
        code("MESH-0528"),
        help(
            "put the right key file back; with a new key, what the old one signed is verified with the old public key"
        )
    )]
    Private,
}

/// What is wrong with a note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum NoteError {
    /// No note.
    #[error("this is no signed note: {why}")]
    #[diagnostic(
        code("MESH-0529"),
        help("the file was damaged or is another file; what it should prove is unproved")
    )]
    Form {
        /// What is wrong with it.
        why: &'static str,
    },
    /// No signature of the key.
    #[error("the note is not signed by `{name}`")]
    #[diagnostic(
        code("MESH-0530"),
        help(
            "compare the public key with a copy you trust: this note is of another key or another log"
        )
    )]
    Unsigned {
        /// Name of the key that was asked for.
        name: String,
    },
    /// A signature that does not hold.
    #[error("the signature of `{name}` under the note does not hold")]
    #[diagnostic(
        code("MESH-0531"),
        help(
            "the note was edited, or somebody wrote a signature that is none; believe nothing in it"
        )
    )]
    Signature {
        /// Name of the key.
        name: String,
    },
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

impl VerifierKey {
    /// A key of these parts.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn new(name: &str, key_type: KeyType, public: [u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            key_type,
            public,
        })
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let wrong = |why| KeyError::Public { why };
        // Base64 may have a `+` of its own; the other two parts have none.
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it has not three parts"));
        };
        let bytes = base64::decode(key).ok_or_else(|| wrong("its last part is no base64"))?;
        let Some((key_type, public)) = bytes.split_first() else {
            return Err(wrong("its last part is empty"));
        };
        let key_type = match key_type {
            1 => KeyType::Ed25519,
            4 => KeyType::Cosignature,
            _ => return Err(wrong("it is of a type that is not used here")),
        };
        let public = public
            .try_into()
            .map_err(|_| wrong("an Ed25519 key has 32 bytes"))?;
        let key = Self::new(name, key_type, public)?;
        if id != HEXLOWER.encode(&key.id().to_be_bytes()) {
            return Err(wrong("its identifier is not that of name and key"));
        }
        Ok(key)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key itself.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The identifier in signature lines.
    pub fn id(&self) -> u32 {
        let input = [
            self.name.as_bytes(),
            b"\n",
            &[self.key_type.byte()],
            &self.public,
        ]
        .concat();
        let hash = digest(&SHA256, &input);
        let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
        u32::from_be_bytes(first)
    }

    /// Whether `signature` is of this key over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .is_ok()
    }
}

impl SigningKey {
    /// Reads a private key in PKCS#8 form.
    ///
    /// # Errors
    /// [`KeyError::Private`], [`KeyError::Name`].
    pub fn from_pkcs8(name: &str, key_type: KeyType, der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Private)?;
        Self::of(name, key_type, pair)
    }

    /// The key of a 32-byte secret.
    ///
    /// # Errors
    /// [`KeyError::Private`] if it has another length, [`KeyError::Name`].
    pub fn from_seed(name: &str, key_type: KeyType, seed: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Private)?;
        Self::of(name, key_type, pair)
    }

    fn of(name: &str, key_type: KeyType, pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Private)?;
        Ok(Self {
            verifier: VerifierKey::new(name, key_type, public)?,
            pair,
        })
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    pub(crate) fn line(&self, bytes: Vec<u8>) -> Signature {
        Signature {
            name: self.verifier.name.clone(),
            key_id: self.verifier.id(),
            bytes,
        }
    }
}

impl Note {
    /// Signs `text`, which ends in a line feed and holds no empty line at its end.
    ///
    /// # Errors
    /// [`NoteError::Form`] if the text can be no note's, or the key signs no plain text.
    pub fn sign(text: &str, key: &SigningKey) -> Result<Self, NoteError> {
        check_text(text)?;
        if key.verifier.key_type != KeyType::Ed25519 {
            return Err(form("a witness's key signs checkpoints only"));
        }
        let signature = key.line(key.sign_bytes(text.as_bytes()));
        Ok(Self {
            text: text.to_owned(),
            signatures: vec![signature],
        })
    }

    /// Reads a note. Nothing in it is to be believed before [`Note::verify`].
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(form("it is too long"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| form("it is not UTF-8"))?;
        // The last empty line parts text and signatures.
        let (at, lines) = note
            .rfind("\n\n")
            .and_then(|at| Some((at, note.get(at + 2..)?)))
            .ok_or_else(|| form("it has no empty line before its signatures"))?;
        let text = note.get(..at + 1).unwrap_or_default();
        check_text(text)?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or_else(|| form("its last line does not end"))?;
        let signatures = lines
            .split('\n')
            .map(Signature::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(form("it has too many signatures"));
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// The text that is signed, with its last line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, in their order.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether `key`, one that signs plain text, signed it.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], [`NoteError::Signature`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut signed = false;
        for signature in self.of(key) {
            if key.key_type != KeyType::Ed25519
                || !key.verifies(self.text.as_bytes(), &signature.bytes)
            {
                return Err(NoteError::Signature {
                    name: key.name.clone(),
                });
            }
            signed = true;
        }
        if signed {
            Ok(())
        } else {
            Err(NoteError::Unsigned {
                name: key.name.clone(),
            })
        }
    }

    /// The signatures that name `key`.
    pub(crate) fn of<'a>(&'a self, key: &'a VerifierKey) -> impl Iterator<Item = &'a Signature> {
        let id = key.id();
        self.signatures
            .iter()
            .filter(move |signature| signature.key_id == id && signature.name == key.name)
    }

    /// Adds a signature in the place of those of the same key.
    pub(crate) fn replace(&mut self, signature: Signature) {
        self.signatures
            .retain(|old| (old.key_id, &old.name) != (signature.key_id, &signature.name));
        self.signatures.push(signature);
    }
}

impl Signature {
    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let wrong = || form("a line below its text is no signature");
        let (name, encoded) = line
            .strip_prefix(DASH)
            .and_then(|line| line.split_once(' '))
            .ok_or_else(wrong)?;
        let bytes = base64::decode(encoded).ok_or_else(wrong)?;
        let (key_id, bytes) = bytes.split_first_chunk().ok_or_else(wrong)?;
        if !is_name(name) || bytes.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*key_id),
            bytes: bytes.to_vec(),
        })
    }
}

/// The line, with its line feed.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        writeln!(f, "{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }
}

/// The note as it is stored and sent.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| signature.fmt(f))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.key_type.byte()][..], &self.public].concat();
        let id = HEXLOWER.encode(&self.id().to_be_bytes());
        write!(f, "{}+{id}+{}", self.name, BASE64.encode(&key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {})", self.verifier)
    }
}

/// Whether a key may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name
            .chars()
            .any(|c| c == '+' || c.is_whitespace() || c.is_control())
}

fn form(why: &'static str) -> NoteError {
    NoteError::Form { why }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') || text.len() < 2 {
        return Err(form("its text does not end in a line feed"));
    }
    if text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(form("it has control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
