//! Bundles as lines of JSON, each bound to the line before it.
//!
//! ```text
//! {"bundle":"mesh.internal/audit-bundle","version":2,"lines":7,"last":"<64 hex>"}
//! {"hash":"<64 hex>","kind":"scope","item":{…}}
//! {"hash":"<64 hex>","kind":"file","item":{…}}
//! ```
//! `hash = SHA-256("mesh.audit.bundle.v1\0" ‖ hash before ‖ body)`, where the body is every byte between the comma after
//! `hash` and the last brace, and the hash before the first line is all zero. `last` is the hash of the last line. So a
//! flipped byte, and a line that is missing, moved or put in, is found at its place. This protects against accidents:
//! who rewrites a bundle can hash it again, and that is what the signed statement over a report is for.

use super::check::check;
use super::{Bundle, Item};
use crate::limits::{BUNDLE_BYTES_MAX, LINE_BYTES_MAX};
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

const FORMAT: &str = "mesh.internal/audit-bundle";
const DOMAIN: &[u8] = b"mesh.audit.bundle.v1\0";

/// Version of the form that this program writes, and the only one it reads.
pub const VERSION: u32 = 2;

type Hash = [u8; 32];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(rename = "bundle")]
    _bundle: String,
    #[serde(rename = "version")]
    _version: u32,
    lines: usize,
    last: String,
}

/// As much of a head as tells what it is the head of.
#[derive(Deserialize)]
struct AnyHead {
    bundle: String,
    version: u32,
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum BundleError {
    /// A line that cannot be read.
    #[error("line {line} of the bundle is not in its form: {why}")]
    #[diagnostic(
        code("MESH-0550"),
        help("the file is damaged, or no bundle: collect it again, or get another copy")
    )]
    Form {
        /// From 1.
        line: usize,
        /// What the reader says.
        why: String,
    },
    /// Another version.
    #[error("line 1: the bundle has version {found}; this program reads version {VERSION}")]
    #[diagnostic(
        code("MESH-0551"),
        help("use the version of `mesh` that collected it, or collect it again")
    )]
    Version {
        /// What it says.
        found: u32,
    },
    /// A line that is not what was written.
    #[error("line {line} of the bundle is not what was written there")]
    #[diagnostic(
        code("MESH-0552"),
        help(
            "a byte was changed, or lines were removed, moved or put in, at this place or just before: get another copy"
        )
    )]
    Altered {
        /// From 1.
        line: usize,
    },
    /// Fewer or more lines than the first says.
    #[error("the bundle has {found} lines after its first, which says {expected}")]
    #[diagnostic(
        code("MESH-0553"),
        help("the file was cut or added to: get another copy")
    )]
    Lines {
        /// What the first line says.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// More than is read.
    #[error("line {line} of the bundle goes beyond {limit} bytes")]
    #[diagnostic(
        code("MESH-0554"),
        help("collect a shorter window, or fewer manifests, at a time")
    )]
    TooLarge {
        /// From 1.
        line: usize,
        /// Bytes that are read.
        limit: u64,
    },
    /// Facts that cannot be.
    #[error("the bundle contradicts itself: {what}: {why}")]
    #[diagnostic(
        code("MESH-0555"),
        help("it was not written by `mesh audit collect` as it is: collect it again")
    )]
    Contradiction {
        /// Which fact.
        what: String,
        /// Why it cannot be.
        why: String,
    },
}

/// The bytes of a bundle.
///
/// # Errors
/// [`BundleError::Contradiction`], [`BundleError::TooLarge`]: what [`read`] would refuse is not written.
pub fn write(bundle: &Bundle) -> Result<Vec<u8>, BundleError> {
    check(bundle)?;
    let mut bodies = Vec::new();
    for (at, item) in bundle.items().enumerate() {
        // The head stands before them.
        let line = at + 2;
        let text = serde_json::to_string(&item).map_err(|error| BundleError::Form {
            line,
            why: error.to_string(),
        })?;
        // An object always has both braces.
        let inner = text.get(1..text.len().saturating_sub(1));
        let body = inner.unwrap_or_default().to_owned();
        if body.len() > LINE_BYTES_MAX {
            return Err(too_large(line, LINE_BYTES_MAX as u64));
        }
        bodies.push(body);
    }
    let out = seal(bodies.iter().map(String::as_bytes));
    if out.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(too_large(bodies.len() + 1, BUNDLE_BYTES_MAX));
    }
    Ok(out)
}

/// Lines with these bodies, whatever they say, and the head and hashes that they must have. Whoever makes a bundle by
/// other means, a test for instance, needs this; [`write`](self::write()) is for all others.
pub fn seal<'b>(bodies: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
    let (mut body, mut hash, mut lines) = (Vec::new(), [0; 32], 0_usize);
    for inner in bodies {
        lines += 1;
        hash = next_hash(&hash, inner);
        body.extend_from_slice(format!("{{\"hash\":\"{}\",", HEXLOWER.encode(&hash)).as_bytes());
        body.extend_from_slice(inner);
        body.extend_from_slice(b"}\n");
    }
    let last = HEXLOWER.encode(&hash);
    // As `Head` is serialized: nothing in it is to be escaped.
    let mut out =
        format!(r#"{{"bundle":"{FORMAT}","version":{VERSION},"lines":{lines},"last":"{last}"}}"#)
            .into_bytes();
    out.push(b'\n');
    out.extend_from_slice(&body);
    out
}

/// Reads a bundle, whole or not at all.
///
/// # Errors
/// [`BundleError`] with the first bad line.
pub fn read(bytes: &[u8]) -> Result<Bundle, BundleError> {
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(too_large(1, BUNDLE_BYTES_MAX));
    }
    let mut lines = Lines {
        rest: bytes,
        line: 0,
    };
    let head = read_head(lines.next_line()?.unwrap_or_default())?;
    let (mut hash, mut found) = ([0; 32], 0);
    let mut bundle: Option<Bundle> = None;
    while let Some(line) = lines.next_line()? {
        found += 1;
        let body = body_of(line, &hash).ok_or(BundleError::Altered { line: lines.line })?;
        hash = next_hash(&hash, body);
        let item = item_of(line, lines.line)?;
        let form = |why: &str| BundleError::Form {
            line: lines.line,
            why: why.to_owned(),
        };
        match (&mut bundle, item) {
            (None, Item::Scope(scope)) => bundle = Some(Bundle::of(scope)),
            (None, _) => return Err(form("the second line of a bundle is its scope")),
            (Some(bundle), item) => bundle.add(item).map_err(form)?,
        }
    }
    if found != head.lines {
        return Err(BundleError::Lines {
            expected: head.lines,
            found,
        });
    }
    if head.last != HEXLOWER.encode(&hash) {
        return Err(BundleError::Altered { line: 1 });
    }
    let bundle = bundle.ok_or(BundleError::Lines {
        expected: head.lines,
        found,
    })?;
    check(&bundle)?;
    // One bundle has one text: a reader that is used to another spelling of the same facts would hash other bytes.
    if write(&bundle)? != bytes {
        return Err(BundleError::Form {
            line: 1,
            why: "it is not spelled, or not sorted, as a bundle is written".to_owned(),
        });
    }
    Ok(bundle)
}

/// SHA-256 of the bytes of a bundle, lower-case hex: how reports and statements name it.
pub fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&SHA256, bytes).as_ref())
}

fn read_head(line: &[u8]) -> Result<Head, BundleError> {
    let form = |error: serde_json::Error| BundleError::Form {
        line: 1,
        why: error.to_string(),
    };
    let any: AnyHead = serde_json::from_slice(line).map_err(form)?;
    if any.bundle != FORMAT {
        return Err(BundleError::Form {
            line: 1,
            why: format!("it does not begin with `\"bundle\":\"{FORMAT}\"`"),
        });
    }
    if any.version != VERSION {
        return Err(BundleError::Version { found: any.version });
    }
    serde_json::from_slice(line).map_err(form)
}

/// The body of a line, if its hash follows from the one before.
fn body_of<'a>(line: &'a [u8], before: &Hash) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(br#"{"hash":""#)?;
    let (hex, rest) = rest.split_at_checked(64)?;
    let body = rest.strip_prefix(br#"","#)?.strip_suffix(b"}")?;
    (HEXLOWER.encode(&next_hash(before, body)).as_bytes() == hex).then_some(body)
}

/// What a line says, apart from its hash.
fn item_of(line: &[u8], number: usize) -> Result<Item, BundleError> {
    let mut text = vec![b'{'];
    // `{"hash":"` + 64 + `",`
    text.extend_from_slice(line.get(75..).unwrap_or_default());
    serde_json::from_slice(&text).map_err(|error| BundleError::Form {
        line: number,
        why: error.to_string(),
    })
}

fn next_hash(before: &Hash, body: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(DOMAIN);
    context.update(before);
    context.update(body);
    let mut hash = [0; 32];
    // A SHA-256 digest has exactly these 32 bytes.
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

fn too_large(line: usize, limit: u64) -> BundleError {
    BundleError::TooLarge { line, limit }
}

/// Lines, each of which must end with a line feed.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, BundleError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else {
            return Err(BundleError::Form {
                line: self.line,
                why: "it has no end".to_owned(),
            });
        };
        let (line, rest) = self.rest.split_at(end);
        if line.len() > LINE_BYTES_MAX {
            return Err(too_large(self.line, LINE_BYTES_MAX as u64));
        }
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests;
