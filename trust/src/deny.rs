//! Who is not trusted although the chain is in order: identities, certificates, keys and issuers that were denied.
//!
//! A list is whole and numbered: a newer one takes the place of an older one, an empty one denies nobody. It travels
//! beside the trust bundles and is asked wherever they are, so that there is no second place to forget.

use crate::certificate::hex;
use crate::limits::{DENIAL_REASON_BYTES_MAX, DENIALS_BYTES_MAX, DENIALS_MAX, NODE_NAME_BYTES_MAX};
use crate::quoted::Quoted;
use crate::{SpiffeId, Svid, Timestamp, strict_json};
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// What may be denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "lowercase")]
pub enum Denied {
    /// Every certificate and token of a workload.
    Identity(SpiffeId),
    /// One certificate, by its serial number, lower-case hex.
    Serial(String),
    /// Every certificate of a key, and what it signed, by SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
    Key(String),
    /// Everything that an issuer signed, by its subject key identifier, lower-case hex.
    Issuer(String),
    /// A machine: nothing is issued to it or to what runs there. A certificate does not say on which machine it is, so
    /// verifiers find what was issued there by other entries, which the CA makes with this one.
    Node(String),
}

/// Since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When it was denied.
    pub since: Timestamp,
    /// In the operator's words; shown to operators alone.
    pub reason: String,
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    generation: u64,
    entries: BTreeMap<Denied, Note>,
}

/// Why an entry or a list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum DenialError {
    /// A value that names nothing.
    #[error("`{value}` is no {what}")]
    #[diagnostic(
        code("MESH-0270"),
        help(
            "serials, keys (SHA-256 of the public key) and issuers (key identifier) are lower-case hex, as `mesh identity show` prints them; nodes are host names"
        )
    )]
    Value {
        /// What it should be.
        what: &'static str,
        /// What was given.
        value: Quoted,
    },
    /// More entries than verifiers hold.
    #[error("more than {DENIALS_MAX} entries on the deny list")]
    #[diagnostic(
        code("MESH-0271"),
        help(
            "deny the issuer or the identity instead of each certificate, and allow what has ended by itself"
        )
    )]
    TooMany,
    /// Not a list.
    #[error("the deny list cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0272"),
        help("the list in force stays so; the CA and this process may be of different versions")
    )]
    Malformed {
        /// What the reader met.
        why: String,
    },
}

/// What of a certificate is compared with the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks<'a> {
    pub(crate) id: &'a SpiffeId,
    pub(crate) serial: &'a str,
    /// SHA-256 of the key, and of the keys of what came with it, hex.
    pub(crate) keys: Vec<String>,
    /// Key identifiers of all that signed, hex.
    pub(crate) issuers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    generation: u64,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    what: Denied,
    since: Timestamp,
    reason: String,
}

impl Denied {
    /// Checks that the value can name something.
    ///
    /// # Errors
    /// [`DenialError::Value`].
    pub fn check(&self) -> Result<(), DenialError> {
        let (holds, what, value) = match self {
            Self::Identity(id) => (!id.path().is_empty(), "identity of a workload", id.as_str()),
            Self::Serial(hex) => (is_hex_of(hex, 1..=20), "serial number", hex.as_str()),
            Self::Key(hex) => (is_hex_of(hex, 32..=32), "SHA-256 of a key", hex.as_str()),
            Self::Issuer(hex) => (is_hex_of(hex, 1..=64), "key identifier", hex.as_str()),
            Self::Node(name) => (is_node(name), "name of a node", name.as_str()),
        };
        if holds {
            Ok(())
        } else {
            Err(DenialError::Value {
                what,
                value: Quoted::new(value),
            })
        }
    }
}

/// A DNS name, as machines have them (RFC 1123).
fn is_node(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let byte = |byte: u8| inner(byte) || matches!(byte, b'-' | b'.');
    (1..=NODE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(byte)
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

impl<'a> Marks<'a> {
    /// The marks of a leaf whose identity and serial were read already, and of what came with it.
    pub(crate) fn read(
        (id, serial): (&'a SpiffeId, &'a str),
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
    ) -> Self {
        let mut marks = Self {
            id,
            serial,
            keys: Vec::new(),
            issuers: Vec::new(),
        };
        // What cannot be read here is refused by the path builder.
        if let Ok((_, leaf)) = X509Certificate::from_der(leaf) {
            marks.keys.push(key_of(&leaf));
            marks.issuers.extend(signer_of(&leaf));
        }
        for intermediate in intermediates {
            if let Ok((_, issuer)) = X509Certificate::from_der(intermediate) {
                marks.keys.push(key_of(&issuer));
                marks.issuers.extend(own_id(&issuer));
                marks.issuers.extend(signer_of(&issuer));
            }
        }
        marks
    }
}

/// SHA-256 of a certificate's key.
fn key_of(certificate: &X509Certificate<'_>) -> String {
    hex(digest(&SHA256, certificate.public_key().raw).as_ref())
}

/// The key identifier of whoever signed.
fn signer_of(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut extensions = certificate.extensions().iter();
    extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(hex(id.key_identifier.as_ref()?.0)),
        _ => None,
    })
}

fn own_id(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut extensions = certificate.extensions().iter();
    extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
        _ => None,
    })
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "identity {id}"),
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::Issuer(id) => write!(f, "issuer {id}"),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

impl Denials {
    /// Counts changes; a list of a lower number is older.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What is denied, and why.
    pub fn iter(&self) -> impl Iterator<Item = (&Denied, &Note)> {
        self.entries.iter()
    }

    /// Whether nobody is denied.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The next list, with one more entry.
    ///
    /// # Errors
    /// [`DenialError`].
    pub fn deny(&self, what: Denied, since: Timestamp, reason: &str) -> Result<Self, DenialError> {
        what.check()?;
        let mut next = self.clone();
        let reason = shortened(reason);
        next.entries.insert(what, Note { since, reason });
        if next.entries.len() > DENIALS_MAX {
            return Err(DenialError::TooMany);
        }
        next.generation = self.generation.saturating_add(1);
        Ok(next)
    }

    /// The next list, with one entry less; nothing if it was not there.
    pub fn allow(&self, what: &Denied) -> Option<Self> {
        let mut next = self.clone();
        next.entries.remove(what)?;
        next.generation = self.generation.saturating_add(1);
        Some(next)
    }

    /// The same list under a higher number, which hides no newer one of that number.
    #[must_use]
    pub fn numbered(&self, generation: u64) -> Self {
        Self {
            generation: generation.max(self.generation),
            entries: self.entries.clone(),
        }
    }

    /// The entry that denies a chain, leaf first, if one does.
    pub fn denies_chain(&self, svid: &Svid) -> Option<Denied> {
        let [leaf, intermediates @ ..] = svid.chain() else {
            return None;
        };
        if self.is_empty() {
            return None;
        }
        let names = (svid.id(), svid.serial());
        self.denies(&Marks::read(names, leaf, intermediates))
    }

    /// Whether the workload is denied whatever its certificate.
    pub fn denies_identity(&self, id: &SpiffeId) -> bool {
        // Looked up by every handshake and every push: the usual list is empty.
        !self.entries.is_empty() && self.entries.contains_key(&Denied::Identity(id.clone()))
    }

    /// Whether the entry stands on the list.
    pub fn contains(&self, what: &Denied) -> bool {
        self.entries.contains_key(what)
    }

    /// The entry that denies a certificate, if one does.
    pub(crate) fn denies(&self, marks: &Marks<'_>) -> Option<Denied> {
        let by = |what: Denied| self.entries.contains_key(&what).then_some(what);
        let serial = Denied::Serial(marks.serial.to_owned());
        let keys = marks.keys.iter().cloned().map(Denied::Key);
        let issuers = marks.issuers.iter().cloned().map(Denied::Issuer);
        by(Denied::Identity(marks.id.clone()))
            .or_else(|| by(serial))
            .or_else(|| keys.chain(issuers).find_map(by))
    }

    /// Reads a list.
    ///
    /// # Errors
    /// [`DenialError`]: all or nothing.
    pub fn from_json(document: &[u8]) -> Result<Self, DenialError> {
        let malformed = |why: String| DenialError::Malformed { why };
        if document.len() > DENIALS_BYTES_MAX {
            return Err(malformed(format!("{} bytes are too many", document.len())));
        }
        let value = strict_json::parse(document).map_err(|error| malformed(error.to_string()))?;
        let read: Document =
            serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        let mut entries = BTreeMap::new();
        for Entry {
            what,
            since,
            reason,
        } in read.entries
        {
            what.check()?;
            let reason = shortened(&reason);
            if entries.insert(what, Note { since, reason }).is_some() {
                return Err(malformed("an entry stands in it twice".to_owned()));
            }
        }
        if entries.len() > DENIALS_MAX {
            return Err(DenialError::TooMany);
        }
        Ok(Self {
            generation: read.generation,
            entries,
        })
    }

    /// The list as JSON.
    pub fn to_json(&self) -> String {
        let entry = |(what, note): (&Denied, &Note)| Entry {
            what: what.clone(),
            since: note.since,
            reason: note.reason.clone(),
        };
        let document = Document {
            generation: self.generation,
            entries: self.entries.iter().map(entry).collect(),
        };
        // Texts, numbers and lists always have a JSON form.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// Whether `text` is lower-case hex of so many octets.
fn is_hex_of(text: &str, octets: RangeInclusive<usize>) -> bool {
    text.len().is_multiple_of(2)
        && octets.contains(&(text.len() / 2))
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is kept of a reason: one line of bounded length.
fn shortened(reason: &str) -> String {
    let mut text: String = reason.chars().filter(|c| !c.is_control()).collect();
    while text.len() > DENIAL_REASON_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests;
