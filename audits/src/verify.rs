//! Proves a log, or names its first bad line.
//!
//! | done to the log | found by |
//! |---|---|
//! | a byte changed | [`Why::Form`], [`Why::Edited`] |
//! | a line removed, repeated, moved or put in | [`Why::OutOfOrder`], [`Why::Unlinked`] |
//! | the tail cut | [`Why::TailMissing`], for all that the checkpoint covers |
//! | rewritten with new hashes | [`Why::NotAsSealed`], for all that the checkpoint covers |
//! | cut, then written on by a restarted program | [`Why::TailWasMissing`] |
//! | another log in its place | [`Why::Origin`] |
//!
//! One pass, one line in memory at a time.

use crate::chain::{ChainState, Hash, Parts};
use crate::checkpoint::{Checkpoint, CheckpointError, PublicKey};
use crate::entry::{Entry, Line};
use crate::limits::LINE_BYTES_MAX;
use std::fmt;
use std::io::BufRead;

/// What a log is held against.
#[derive(Clone, Debug)]
pub enum Seal {
    /// The newest checkpoint and the key it must be signed by. The key must come from a copy that is trusted.
    Signed(Checkpoint, PublicKey),
    /// Nothing: a cut tail and a whole rewritten log are then not found.
    Missing,
}

/// What a proved log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Whose log.
    pub origin: String,
    /// Whole lines.
    pub lines: u64,
    /// Decisions among them.
    pub decisions: u64,
    /// Gaps noted in it.
    pub gaps: u64,
    /// Entries that those gaps say are missing.
    pub lost: u64,
    /// Starts of a writer.
    pub starts: u64,
    /// Changes of policy.
    pub changes: u64,
    /// Place of the last line that the checkpoint covers; `None` without one.
    pub sealed_through: Option<u64>,
    /// Bytes after the last whole line: a writer is at work, or crashed. No checkpoint covers them.
    pub torn_bytes: u64,
}

/// The first bad line of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {why}")]
pub struct FirstBad {
    /// As the caller named the file.
    pub file: String,
    /// Line number, from 1.
    pub line: u64,
    /// Place that a line should have there.
    pub seq: u64,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Why {
    /// Not in the form that a writer gives it.
    #[error("the line is not in the form of an audit line")]
    #[diagnostic(
        code("MESH-0510"),
        help("the line was edited or damaged; lines before it are proved, nothing after it is")
    )]
    Form,
    /// Its hash does not fit its content.
    #[error("the content of the line does not match its hash")]
    #[diagnostic(
        code("MESH-0511"),
        help("the line was edited; lines before it are proved, nothing after it is")
    )]
    Edited,
    /// Another place than the one after the line before.
    #[error(
        "line {found} stands where line {expected} should: lines were removed, repeated or moved"
    )]
    #[diagnostic(
        code("MESH-0512"),
        help("lines before it are proved; look for the missing ones in a copy")
    )]
    OutOfOrder {
        /// Place that is due.
        expected: u64,
        /// Place that the line claims.
        found: u64,
    },
    /// Bound to another line than the one before it.
    #[error("the line does not follow from the one before it")]
    #[diagnostic(
        code("MESH-0513"),
        help("one of the two was replaced; lines before them are proved")
    )]
    Unlinked,
    /// The log ends before the line that was sealed.
    #[error(
        "the log ends before line {sealed}, which a signed checkpoint covers: its tail was cut"
    )]
    #[diagnostic(
        code("MESH-0514"),
        help("all lines present are proved; the missing ones may be in a copy")
    )]
    TailMissing {
        /// Place that the checkpoint covers.
        sealed: u64,
    },
    /// The sealed line is another one.
    #[error("the line is not the one that the signed checkpoint covers: the log was rewritten")]
    #[diagnostic(
        code("MESH-0515"),
        help("nothing in this file is proved: the rewrite may begin anywhere before this line")
    )]
    NotAsSealed,
    /// A writer found the tail cut, and said so.
    #[error(
        "when the log was opened here, lines up to {sealed} were missing that a signed checkpoint covered"
    )]
    #[diagnostic(
        code("MESH-0516"),
        help("the tail was cut while the program did not run; the missing lines may be in a copy")
    )]
    TailWasMissing {
        /// Place that the checkpoint covered.
        sealed: u64,
    },
    /// No start, or one of another log.
    #[error("the log does not begin, or go on, with a start of the log it should be{}", named(.found.as_deref()))]
    #[diagnostic(
        code("MESH-0517"),
        help(
            "the file is another log's or its head was removed; compare its name with the origin in its first line"
        )
    )]
    Origin {
        /// Origin that the line names.
        found: Option<String>,
    },
    /// The checkpoint itself.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file could not be read.
    #[error("the file cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0518"),
        help("read it as a user who may, from a disk that works")
    )]
    Unreadable {
        /// The system's words.
        why: String,
    },
}

fn named(origin: Option<&str>) -> String {
    origin
        .map(|origin| format!(", but of `{}`", origin.escape_debug()))
        .unwrap_or_default()
}

impl miette::Diagnostic for FirstBad {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.why.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.why.help()
    }
}

/// Reads a whole log. `file` is how errors name it; `origin` is whose log it must be, if the caller knows.
///
/// # Errors
/// [`FirstBad`].
pub fn verify(
    mut log: impl BufRead,
    file: &str,
    origin: Option<&str>,
    seal: Seal,
) -> Result<Verified, FirstBad> {
    let mut verifier = Verifier::new(file, origin, seal)?;
    let mut line = Vec::with_capacity(4_096);
    loop {
        line.clear();
        match read_line(&mut log, &mut line) {
            Ok(0) => return verifier.finish(0),
            Ok(_) => match line.strip_suffix(b"\n") {
                Some(whole) => verifier.line(whole)?,
                None if line.len() > LINE_BYTES_MAX => return Err(verifier.bad(Why::Form)),
                None => return verifier.finish(line.len() as u64),
            },
            Err(error) => {
                return Err(verifier.bad(Why::Unreadable {
                    why: error.to_string(),
                }));
            }
        }
    }
}

/// One line with its line feed, at most one byte beyond the longest that is ever written.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let limit = LINE_BYTES_MAX as u64 + 1;
    std::io::Read::take(log, limit).read_until(b'\n', line)
}

/// The verifier for callers that have lines, not a reader: each line in order, then the end.
#[derive(Debug)]
pub struct Verifier {
    file: String,
    seal: Option<Checkpoint>,
    expected_origin: Option<String>,
    chain: Option<ChainState>,
    found: Verified,
}

impl Verifier {
    /// Checks the seal itself first.
    ///
    /// # Errors
    /// [`FirstBad`] at line 0 if the checkpoint is not signed by the key, or is another log's.
    pub fn new(file: &str, origin: Option<&str>, seal: Seal) -> Result<Self, FirstBad> {
        let bad = |why| FirstBad {
            file: file.to_owned(),
            line: 0,
            seq: 0,
            why,
        };
        let seal = match seal {
            Seal::Missing => None,
            Seal::Signed(checkpoint, key) => {
                checkpoint.check(&key).map_err(|error| bad(error.into()))?;
                Some(checkpoint)
            }
        };
        let sealed_origin = seal.as_ref().map(|checkpoint| checkpoint.origin.clone());
        if let (Some(wanted), Some(sealed)) = (origin, &sealed_origin)
            && wanted != sealed
        {
            return Err(bad(Why::Origin {
                found: sealed_origin,
            }));
        }
        let expected_origin = origin.map(str::to_owned).or(sealed_origin);
        Ok(Self {
            file: file.to_owned(),
            seal,
            expected_origin,
            chain: None,
            found: Verified::default(),
        })
    }

    /// The next line, without its line feed.
    ///
    /// # Errors
    /// [`FirstBad`]: the log is bad from here on; give no more lines.
    pub fn line(&mut self, line: &[u8]) -> Result<(), FirstBad> {
        self.check_line(line).map_err(|why| self.bad(why))
    }

    fn check_line(&mut self, line: &[u8]) -> Result<(), Why> {
        let parts = Parts::of(line).ok_or(Why::Form)?;
        if parts.computed() != parts.hash {
            return Err(Why::Edited);
        }
        let expected = self.found.lines;
        if parts.seq != expected {
            return Err(Why::OutOfOrder {
                expected,
                found: parts.seq,
            });
        }
        let kind = Kind::of(parts.body).ok_or(Why::Form)?;
        if kind != Kind::Decision {
            self.note(line)?;
        }
        // Line 0 is a start, else `note` has refused it; so the chain is known from here on.
        let Some(chain) = &self.chain else {
            return Err(Why::Origin { found: None });
        };
        if parts.prev != chain.head() {
            return Err(Why::Unlinked);
        }
        self.check_seal(parts.seq, parts.hash)?;
        self.chain = Some(ChainState::after(parts.seq, parts.hash));
        self.found.lines += 1;
        if kind == Kind::Decision {
            self.found.decisions += 1;
        }
        Ok(())
    }

    fn check_seal(&self, seq: u64, hash: Hash) -> Result<(), Why> {
        match &self.seal {
            Some(checkpoint) if checkpoint.seq == seq && checkpoint.hash != hash => {
                Err(Why::NotAsSealed)
            }
            _ => Ok(()),
        }
    }

    /// Counts a line that is no decision, and checks what a start says.
    fn note(&mut self, line: &[u8]) -> Result<(), Why> {
        let line: Line = serde_json::from_slice(line).map_err(|_| Why::Form)?;
        match line.entry {
            Entry::Start(start) => {
                let origin = self
                    .expected_origin
                    .get_or_insert_with(|| start.origin.clone());
                if *origin != start.origin {
                    return Err(Why::Origin {
                        found: Some(start.origin),
                    });
                }
                if let Some(sealed) = start.missing_through {
                    return Err(Why::TailWasMissing { sealed });
                }
                if self.chain.is_none() {
                    self.chain = Some(ChainState::genesis(&start.origin));
                    self.found.origin = start.origin;
                }
                self.found.starts += 1;
            }
            Entry::Gap(gap) => {
                self.found.gaps += 1;
                self.found.lost = self.found.lost.saturating_add(gap.lost);
            }
            Entry::Change(_) => self.found.changes += 1,
            Entry::Decision(_) | Entry::Equivalence(_) => {}
        }
        Ok(())
    }

    /// The end of the file, with the bytes that stand after its last line feed.
    ///
    /// # Errors
    /// [`FirstBad`] if lines that the checkpoint covers are missing.
    pub fn finish(mut self, torn_bytes: u64) -> Result<Verified, FirstBad> {
        if let Some(checkpoint) = &self.seal {
            if self.found.lines <= checkpoint.seq {
                return Err(self.bad(Why::TailMissing {
                    sealed: checkpoint.seq,
                }));
            }
            self.found.sealed_through = Some(checkpoint.seq);
        }
        self.found.torn_bytes = torn_bytes;
        Ok(self.found)
    }

    fn bad(&self, why: Why) -> FirstBad {
        FirstBad {
            file: self.file.clone(),
            line: self.found.lines + 1,
            seq: self.found.lines,
            why,
        }
    }
}

/// The kind of a line, from the first bytes of its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decision,
    Other,
}

impl Kind {
    fn of(body: &[u8]) -> Option<Self> {
        let rest = body.strip_prefix(br#""kind":""#)?;
        Some(if rest.starts_with(br#"decision","record":{"#) {
            Self::Decision
        } else {
            Self::Other
        })
    }
}

#[cfg(test)]
mod tests;
