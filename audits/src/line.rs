//! The form of a line: one JSON object, the entry of a Merkle tree's leaf.
//!
//! ```text
//! {"seq":7,"kind":"decision","record":{…}}
//! {"seq":8,"kind":"decision","record":{…},"cut":{"request.raw_path":1048576}}
//! {"seq":9,"kind":"decision","record":{…},"salted":["client.ip"],"open":{"client.ip":["<salt>","10.0.0.9"]}}
//! ```
//! The leaf is the line without its line feed and without the member `open`, which is always the last; see
//! [`crate::redact`] for what it is good for.
//!
//! Order, spelling and lack of spaces are part of the form: a reader need not trust a JSON parser's idea of which of two
//! equal keys counts. Lines are printable ASCII; everything else is escaped, so no content can end a line, hide in a
//! terminal or look like a key.

use crate::cut::Cut;
use crate::entry::Entry;
use crate::limits::LINE_BYTES_MAX;
use crate::redact::{self, Openings, Salting};
use memchr::memmem;
use mesh_tlog::hash::{Hash, leaf_hash_of_parts};
use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;
use std::io;

/// Where the member begins that is no part of the leaf. Inside a text both quotes would be escaped.
const OPEN: &[u8] = br#","open":{"#;

/// A line as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The line, with its line feed.
    pub bytes: Vec<u8>,
    /// What the tree takes of it.
    pub leaf: Hash,
}

/// Why an entry could not become a line.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum EncodeError {
    /// Longer than any real entry, in spite of all cuts.
    #[error("an entry has {bytes} bytes; the limit is {limit}")]
    #[diagnostic(
        code("MESH-0501"),
        help("this is a fault of ours; the entry is counted in the log's next gap")
    )]
    TooLong {
        /// Bytes of the line.
        bytes: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// No JSON form.
    #[error("an entry has no JSON form")]
    #[diagnostic(
        code("MESH-0502"),
        help("this is a fault of ours; the entry is counted in the log's next gap")
    )]
    Json(#[from] serde_json::Error),
}

/// A line as a reader of the log sees it; [`crate::verify`] is what proves it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    /// Its place, from 0.
    pub seq: u64,
    /// What it says. Texts that were redacted stand as `sha256:` and the hash of salt and text.
    #[serde(flatten)]
    pub entry: Entry,
    /// Texts that were cut, with the bytes (or items) they had.
    #[serde(default)]
    pub cut: Cut,
    /// Texts that may be redacted.
    #[serde(default)]
    pub salted: Vec<String>,
    /// Those of them that were not.
    #[serde(default)]
    pub open: Openings,
}

impl Line {
    /// Reads a line; what may be redacted and was not stands in its place again.
    ///
    /// # Errors
    /// The JSON reader's, also for an unknown kind of entry.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        let mut line: Self = serde_json::from_slice(line)?;
        for (field, opening) in &line.open {
            if let Some(text) = redact::field_mut(&mut line.entry, field) {
                text.clone_from(&opening.text);
            }
        }
        Ok(line)
    }

    /// Whether a text of it was redacted.
    pub fn is_redacted(&self) -> bool {
        self.salted
            .iter()
            .any(|field| !self.open.contains_key(field))
    }
}

/// The line of an entry at a place: long texts are cut, those that `salting` names can be redacted later.
///
/// # Errors
/// [`EncodeError`].
pub fn encode(
    seq: u64,
    mut entry: Entry,
    salting: Option<&Salting<'_>>,
) -> Result<Encoded, EncodeError> {
    let cut = entry.cut();
    let (salted, open) = salting
        .map(|salting| salting.apply(&mut entry))
        .unwrap_or_default();
    let mut rest = Vec::new();
    if !cut.is_empty() {
        rest.extend_from_slice(br#","cut":"#);
        ascii_json(&mut rest, &cut)?;
    }
    if !salted.is_empty() {
        rest.extend_from_slice(br#","salted":"#);
        ascii_json(&mut rest, &salted)?;
    }
    assemble(seq, &entry, &rest, &open, LINE_BYTES_MAX)
}

/// The line of a record that another crate defines: `entry` serializes to `{"kind":"<word>","record":{…}}`.
///
/// # Errors
/// [`EncodeError`]; `limit` bytes are the most that a line may have.
pub fn encode_foreign(
    seq: u64,
    entry: &impl Serialize,
    limit: usize,
) -> Result<Encoded, EncodeError> {
    assemble(seq, entry, &[], &Openings::new(), limit)
}

fn assemble(
    seq: u64,
    entry: &impl Serialize,
    rest: &[u8],
    open: &Openings,
    limit: usize,
) -> Result<Encoded, EncodeError> {
    let mut bytes = Vec::with_capacity(1_024);
    bytes.extend_from_slice(format!(r#"{{"seq":{seq}"#).as_bytes());
    let brace = bytes.len();
    ascii_json(&mut bytes, entry)?;
    // An object always has both braces: the first makes room for what stands before it.
    bytes.pop();
    if let Some(brace) = bytes.get_mut(brace) {
        *brace = b',';
    }
    bytes.extend_from_slice(rest);
    let leaf = leaf_hash_of_parts(&[&bytes, b"}"]);
    if !open.is_empty() {
        bytes.extend_from_slice(br#","open":"#);
        ascii_json(&mut bytes, open)?;
    }
    bytes.extend_from_slice(b"}\n");
    if bytes.len() > limit {
        return Err(EncodeError::TooLong {
            bytes: bytes.len(),
            limit,
        });
    }
    Ok(Encoded { bytes, leaf })
}

/// The parts of a line without its line feed, in exactly the form in which one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The place that it claims.
    pub seq: u64,
    /// The kind of its entry.
    pub kind: &'a str,
    // The leaf is this and a brace; if there is no `open`, the brace is at its end already.
    sealed: &'a [u8],
    open: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// `None` if the line has another form, were it only by a space.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        if !line.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return None;
        }
        let rest = line.strip_prefix(br#"{"seq":"#)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        let rest = rest.strip_prefix(br#","kind":""#)?;
        let letters = rest
            .iter()
            .take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-')
            .count();
        let (kind, rest) = rest.split_at_checked(letters)?;
        rest.strip_prefix(br#"","record":{"#)?.strip_suffix(b"}")?;
        let (sealed, open) = match memmem::rfind(line, OPEN) {
            None => (line, None),
            Some(at) => {
                let (sealed, open) = line.split_at_checked(at)?;
                let open = open.strip_prefix(br#","open":"#)?.strip_suffix(b"}")?;
                (sealed, Some(open))
            }
        };
        Some(Self {
            seq: canonical_number(number)?,
            kind: std::str::from_utf8(kind).ok()?,
            sealed,
            open,
        })
    }

    /// What the tree takes of the line.
    pub fn leaf(&self) -> Hash {
        match self.open {
            None => leaf_hash_of_parts(&[self.sealed]),
            Some(_) => leaf_hash_of_parts(&[self.sealed, b"}"]),
        }
    }

    /// The bytes that the leaf is the hash of.
    pub fn entry(&self) -> Vec<u8> {
        match self.open {
            None => self.sealed.to_vec(),
            Some(_) => [self.sealed, b"}"].concat(),
        }
    }

    /// Whether a text that may be redacted stands beside the entry.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

/// Decimal digits without leading zeros.
fn canonical_number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let number: u64 = text.parse().ok()?;
    (text.len() == 1 || !text.starts_with('0')).then_some(number)
}

pub(crate) fn ascii_json(
    out: &mut Vec<u8>,
    value: &impl Serialize,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, AsciiOnly))
}

/// JSON of printable ASCII alone: escapes DEL, C1 controls, marks that reorder text, and every other such character.
struct AsciiOnly;

impl Formatter for AsciiOnly {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if (' '..='~').contains(&c) {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
