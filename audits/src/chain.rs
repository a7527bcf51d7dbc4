//! Entries to lines: one JSON object each, bound to the line before it.
//!
//! ```text
//! {"seq":7,"prev":"<64 hex>","hash":"<64 hex>","kind":"decision","record":{…}}
//! {"seq":8,"prev":"<64 hex>","hash":"<64 hex>","kind":"decision","record":{…},"cut":{"request.raw_path":1048576}}
//! ```
//! The body is every byte between the comma after `hash` and the last brace, and
//! `hash = SHA-256("mesh.audit.line.v1\0" ‖ seq as 8 bytes ‖ prev ‖ body length as 8 bytes ‖ body)`, numbers big-endian.
//! The `prev` of line 0 is `SHA-256("mesh.audit.genesis.v1\0" ‖ origin)`, so one log cannot stand in for another.
//!
//! Order, spelling and lack of spaces are part of the form: a reader need not trust a JSON parser's idea of which of
//! two equal keys counts. Lines are printable ASCII; everything else is escaped, so no content can end a line, hide in
//! a terminal or look like a key.

use crate::entry::{Cut, Entry};
use crate::limits::LINE_BYTES_MAX;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::ser::Formatter;
use std::fmt;
use std::io;

const LINE_DOMAIN: &[u8] = b"mesh.audit.line.v1\0";
const GENESIS_DOMAIN: &[u8] = b"mesh.audit.genesis.v1\0";

/// SHA-256 of a line; lower-case hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// The end of a chain: what the next line is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    next_seq: u64,
    head: Hash,
}

/// Why an entry could not become a line; the chain has not moved.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum EncodeError {
    /// Longer than any real entry, in spite of all cuts.
    #[error("an audit entry has {bytes} bytes; the limit is {LINE_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0501"),
        help("this is a fault of ours; the entry is counted in the log's next gap")
    )]
    TooLong {
        /// Bytes of the line.
        bytes: usize,
    },
    /// No JSON form.
    #[error("an audit entry has no JSON form")]
    #[diagnostic(
        code("MESH-0502"),
        help("this is a fault of ours; the entry is counted in the log's next gap")
    )]
    Json(#[from] serde_json::Error),
}

/// A chain found at the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// To go on with; `None` if the file holds no whole line.
    pub state: Option<ChainState>,
    /// Bytes of an unfinished last line, to be cut off.
    pub torn_bytes: u64,
}

/// Why a chain cannot go on from the end of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ResumeError {
    /// The last whole line is no line of ours, or was edited.
    #[error("the last line of the audit log is not what was written")]
    #[diagnostic(
        code("MESH-0503"),
        help(
            "the log is moved aside and a new one begun; `mesh audit verify` on it names the first bad line"
        )
    )]
    BrokenLine,
    /// The tail given holds no line feed and is not the whole file.
    #[error("the last line of the audit log is longer than {LINE_BYTES_MAX} bytes")]
    #[diagnostic(
        code("MESH-0504"),
        help(
            "the log is moved aside and a new one begun; `mesh audit verify` on it names the first bad line"
        )
    )]
    LineTooLong,
}

impl ChainState {
    /// The chain of `origin` before its first line.
    pub fn genesis(origin: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(GENESIS_DOMAIN);
        context.update(origin.as_bytes());
        Self {
            next_seq: 0,
            head: finish(context),
        }
    }

    /// The chain after line `seq` with this hash.
    pub const fn after(seq: u64, head: Hash) -> Self {
        Self {
            next_seq: seq.saturating_add(1),
            head,
        }
    }

    /// Finds the end of the chain in the last bytes of a log file: at least [`LINE_BYTES_MAX`] of them, or all.
    ///
    /// Checks the last whole line against its own hash only; the lines before it are [`crate::verify`]'s.
    ///
    /// # Errors
    /// [`ResumeError`] if the last whole line is not as it was written.
    pub fn resume(tail: &[u8], is_whole_file: bool) -> Result<Resumed, ResumeError> {
        let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
            return match is_whole_file {
                true => Ok(Resumed {
                    state: None,
                    torn_bytes: tail.len() as u64,
                }),
                false => Err(ResumeError::LineTooLong),
            };
        };
        let (whole, torn) = tail.split_at(end + 1);
        let whole = whole.strip_suffix(b"\n").unwrap_or(whole);
        let start = whole
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |feed| feed + 1);
        let parts = whole
            .get(start..)
            .and_then(Parts::of)
            .ok_or(ResumeError::BrokenLine)?;
        if parts.computed() != parts.hash {
            return Err(ResumeError::BrokenLine);
        }
        Ok(Resumed {
            state: Some(Self::after(parts.seq, parts.hash)),
            torn_bytes: torn.len() as u64,
        })
    }

    /// The line of `entry`, with its line feed; the chain moves on.
    ///
    /// # Errors
    /// [`EncodeError`]; the chain stays where it was.
    pub fn append(&mut self, mut entry: Entry) -> Result<Vec<u8>, EncodeError> {
        let cut = entry.cut();
        let body = body_of(&entry, &cut)?;
        let hash = line_hash(self.next_seq, &self.head, &body);
        let mut line = Vec::with_capacity(body.len() + 192);
        line.extend_from_slice(
            format!(
                r#"{{"seq":{},"prev":"{}","hash":"{hash}","#,
                self.next_seq, self.head
            )
            .as_bytes(),
        );
        line.extend_from_slice(&body);
        line.extend_from_slice(b"}\n");
        if line.len() > LINE_BYTES_MAX {
            return Err(EncodeError::TooLong { bytes: line.len() });
        }
        *self = Self::after(self.next_seq, hash);
        Ok(line)
    }

    /// Lines so far; the place of the next one.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Hash of the last line, or of the genesis.
    pub fn head(&self) -> Hash {
        self.head
    }
}

/// `"kind":…,"record":…` and, if anything was cut, `,"cut":…`: an object without its braces.
fn body_of(entry: &Entry, cut: &Cut) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = ascii_json(entry)?;
    // An object always has both braces.
    body.pop();
    body.drain(..1);
    if !cut.is_empty() {
        body.extend_from_slice(br#","cut":"#);
        body.extend_from_slice(&ascii_json(cut)?);
    }
    Ok(body)
}

fn line_hash(seq: u64, prev: &Hash, body: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(LINE_DOMAIN);
    context.update(&seq.to_be_bytes());
    context.update(&prev.0);
    context.update(&(body.len() as u64).to_be_bytes());
    context.update(body);
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    // A SHA-256 digest has exactly these 32 bytes.
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Hash(hash)
}

/// The parts of a line without its line feed, in exactly the form that [`ChainState::append`] writes.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) hash: Hash,
    pub(crate) body: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` if the line has another form, were it only by a space.
    pub(crate) fn of(line: &'a [u8]) -> Option<Self> {
        if !line.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return None;
        }
        let rest = line.strip_prefix(br#"{"seq":"#)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        let seq = canonical_number(number)?;
        let (prev, rest) = hex_field(rest, br#","prev":""#)?;
        let (hash, rest) = hex_field(rest, br#"","hash":""#)?;
        let body = rest.strip_prefix(br#"","#)?.strip_suffix(b"}")?;
        Some(Self {
            seq,
            prev,
            hash,
            body,
        })
    }

    /// The hash that this line should carry.
    pub(crate) fn computed(&self) -> Hash {
        line_hash(self.seq, &self.prev, self.body)
    }
}

/// Decimal digits without leading zeros.
fn canonical_number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let number: u64 = text.parse().ok()?;
    (text.len() == 1 || !text.starts_with('0')).then_some(number)
}

fn hex_field<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<(Hash, &'a [u8])> {
    let (hex, rest) = bytes.strip_prefix(prefix)?.split_at_checked(64)?;
    let mut hash = [0; 32];
    HEXLOWER.decode_mut(hex, &mut hash).ok()?;
    Some((Hash(hash), rest))
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut hash = [0; 32];
        // Length first: the decoder panics if the digits do not fit its output exactly.
        let fits = HEXLOWER.decode_len(text.len()) == Ok(hash.len());
        if fits && HEXLOWER.decode_mut(text.as_bytes(), &mut hash).is_ok() {
            Ok(Self(hash))
        } else {
            Err(serde::de::Error::custom(
                "a hash has 64 digits of lower-case hex",
            ))
        }
    }
}

fn ascii_json(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(768);
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out, AsciiOnly,
    ))?;
    Ok(out)
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
