//! Texts that may be taken out of a log later, without the tree noticing: salted commitments.
//!
//! In the entry stands `sha256:<hash>` of a random salt and the text; salt and text stand behind it in the member
//! `open`, which the leaf does not cover. Taking a text out is removing it from `open`: nobody can guess it then, because
//! the salt is gone too, and every proof holds as before. While it is there, [`check`] says whether it is the text that
//! was committed to.

use crate::entry::Entry;
use crate::line::{Parts, ascii_json};
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const DOMAIN: &[u8] = b"mesh.audit.redactable.v1\0";
const MARK: &str = "sha256:";

/// A text of a decision that may be personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Redactable {
    /// The client's address.
    #[serde(rename = "client.ip")]
    ClientIp,
    /// The target as it came, query included.
    #[serde(rename = "request.raw_path")]
    RawPath,
    /// The canonical path.
    #[serde(rename = "request.path")]
    Path,
    /// The host.
    #[serde(rename = "request.host")]
    Host,
}

/// A text with the salt of its commitment. In the log: `["<32 digits of hex>","<text>"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, String)", into = "(String, String)")]
pub struct Opening {
    /// 16 random bytes, hex.
    pub salt: String,
    /// The text.
    pub text: String,
}

/// Openings by the path of their field.
pub type Openings = BTreeMap<String, Opening>;

/// What to commit to, and where salts come from.
pub struct Salting<'a> {
    /// Texts that may be redacted later.
    pub fields: &'a [Redactable],
    /// Fills 16 bytes at random.
    pub fill_random: &'a dyn Fn(&mut [u8]),
}

/// An opening that is none of its commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCommitted {
    /// The field.
    pub field: String,
}

impl Redactable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ClientIp, Self::RawPath, Self::Path, Self::Host];

    /// Its path in a record.
    pub fn path(self) -> &'static str {
        match self {
            Self::ClientIp => "client.ip",
            Self::RawPath => "request.raw_path",
            Self::Path => "request.path",
            Self::Host => "request.host",
        }
    }

    /// The one with this path.
    pub fn parse(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.path() == path)
    }
}

impl Salting<'_> {
    /// Puts commitments in the place of texts.
    pub(crate) fn apply(&self, entry: &mut Entry) -> (Vec<String>, Openings) {
        let mut open = Openings::new();
        for field in self.fields {
            let Some(text) = field_mut(entry, field.path()) else {
                continue;
            };
            let mut salt = [0; 16];
            (self.fill_random)(&mut salt);
            let opening = Opening {
                salt: HEXLOWER.encode(&salt),
                text: text.clone(),
            };
            *text = opening.commitment(field.path());
            open.insert(field.path().to_owned(), opening);
        }
        (open.keys().cloned().collect(), open)
    }
}

impl Opening {
    /// What stands in the entry for this text.
    fn commitment(&self, field: &str) -> String {
        let mut context = Context::new(&SHA256);
        context.update(DOMAIN);
        // Lengths before contents: no two different inputs read alike.
        for part in [field, &self.salt, &self.text] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        format!("{MARK}{}", HEXLOWER.encode(context.finish().as_ref()))
    }
}

impl From<(String, String)> for Opening {
    fn from((salt, text): (String, String)) -> Self {
        Self { salt, text }
    }
}

impl From<Opening> for (String, String) {
    fn from(opening: Opening) -> Self {
        (opening.salt, opening.text)
    }
}

#[derive(Deserialize)]
struct Committed {
    #[serde(flatten)]
    entry: Entry,
    #[serde(default)]
    salted: Vec<String>,
    #[serde(default)]
    open: Openings,
}

/// Checks that every text in `open` is the one that the entry commits to.
///
/// # Errors
/// [`NotCommitted`] with the first that is not; also if the line cannot be read.
pub fn check(line: &[u8]) -> Result<(), NotCommitted> {
    let bad = |field: &str| NotCommitted {
        field: field.to_owned(),
    };
    let mut read: Committed = serde_json::from_slice(line).map_err(|_| bad("open"))?;
    for (field, opening) in &read.open {
        let committed = read.salted.contains(field)
            && field_mut(&mut read.entry, field)
                .is_some_and(|text| *text == opening.commitment(field));
        if !committed {
            return Err(bad(field));
        }
    }
    Ok(())
}

/// The line without the texts of these fields; `None` if none of them is in it. Proofs of the line hold as before.
///
/// # Errors
/// The JSON reader's, if the line is none of ours.
pub fn redact(line: &[u8], fields: &[Redactable]) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let Some(parts) = Parts::of(line).filter(Parts::is_open) else {
        return Ok(None);
    };
    let mut read: Committed = serde_json::from_slice(line)?;
    let before = read.open.len();
    read.open
        .retain(|path, _| !fields.iter().any(|field| field.path() == path));
    if read.open.len() == before {
        return Ok(None);
    }
    let mut bytes = parts.entry();
    if !read.open.is_empty() {
        bytes.pop();
        bytes.extend_from_slice(br#","open":"#);
        ascii_json(&mut bytes, &read.open)?;
        bytes.push(b'}');
    }
    Ok(Some(bytes))
}

/// The text of a decision at this path, if it has one.
pub(crate) fn field_mut<'a>(entry: &'a mut Entry, path: &str) -> Option<&'a mut String> {
    let Entry::Decision(record) = entry else {
        return None;
    };
    match Redactable::parse(path)? {
        Redactable::ClientIp => record.client.ip.as_mut(),
        Redactable::RawPath => record.request.as_mut().map(|request| &mut request.raw_path),
        Redactable::Path => record
            .request
            .as_mut()
            .and_then(|request| request.path.as_mut()),
        Redactable::Host => record
            .request
            .as_mut()
            .and_then(|request| request.host.as_mut()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Line, encode};
    use crate::testing::decision;

    fn salted() -> Vec<u8> {
        let salting = Salting {
            fields: &Redactable::ALL,
            fill_random: &|salt| salt.fill(7),
        };
        let entry = Entry::Decision(Box::new(decision(1)));
        let mut bytes = encode(3, entry, Some(&salting)).unwrap().bytes;
        bytes.pop();
        bytes
    }

    fn leaf(line: &[u8]) -> mesh_tlog::Hash {
        Parts::of(line).unwrap().leaf()
    }

    #[test]
    fn a_reader_sees_the_texts_until_they_are_taken_out_and_the_leaf_stays() {
        let line = salted();
        check(&line).unwrap();
        let read = Line::read(&line).unwrap();
        assert_eq!(read.entry, Entry::Decision(Box::new(decision(1))));
        assert!(!read.is_redacted());
        let redacted = redact(&line, &[Redactable::ClientIp]).unwrap().unwrap();
        check(&redacted).unwrap();
        let Entry::Decision(record) = Line::read(&redacted).unwrap().entry else {
            panic!("a decision");
        };
        assert!(record.client.ip.unwrap().starts_with(MARK));
        assert_eq!(record.request, decision(1).request);
        assert!(!redacted.windows(10).any(|text| text == b"127.64.1.1"));
        let nothing_left = redact(&redacted, &Redactable::ALL).unwrap().unwrap();
        assert!(!Parts::of(&nothing_left).unwrap().is_open());
        assert!(Line::read(&nothing_left).unwrap().is_redacted());
        for line in [&redacted, &nothing_left] {
            assert_eq!(leaf(line), leaf(&salted()));
        }
        assert_eq!(redact(&nothing_left, &Redactable::ALL).unwrap(), None);
    }

    #[test]
    fn a_text_that_was_not_committed_to_is_found() {
        let line = String::from_utf8(salted()).unwrap();
        let salt = HEXLOWER.encode(&[7; 16]);
        for (from, to) in [
            (r#"","127.64.1.1"]"#, r#"","127.64.1.2"]"#),
            (&salt[..], "07070707070707070707070707070708"),
            (r#""open":{"client.ip""#, r#""open":{"client.spiffe_id""#),
            (r#""open":{"client.ip""#, r#""open":{"request.method""#),
        ] {
            let edited = line.replacen(from, to, 1);
            assert_ne!(edited, line, "{from}");
            assert!(check(edited.as_bytes()).is_err(), "{edited}");
        }
        // A text for a field that was never committed to.
        let plain = encode(3, Entry::Decision(Box::new(decision(1))), None)
            .unwrap()
            .bytes;
        let plain = String::from_utf8(plain).unwrap();
        let added = format!(
            r#"{},"open":{{"client.ip":["{salt}","10.0.0.1"]}}}}"#,
            plain.trim_end().strip_suffix('}').unwrap()
        );
        assert_eq!(
            check(added.as_bytes()),
            Err(NotCommitted {
                field: "client.ip".into()
            })
        );
    }

    #[test]
    fn the_commitment_hides_the_text_behind_its_salt() {
        let opening = |salt: &str, text: &str| Opening {
            salt: salt.into(),
            text: text.into(),
        };
        let one = opening("00", "10.0.0.1").commitment("client.ip");
        assert_ne!(one, opening("01", "10.0.0.1").commitment("client.ip"));
        assert_ne!(one, opening("00", "10.0.0.1").commitment("request.path"));
        assert_ne!(one, opening("001", "0.0.0.1").commitment("client.ip"));
    }
}
