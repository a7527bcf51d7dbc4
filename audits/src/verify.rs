//! Proves a log, or names its first bad line.
//!
//! | done to the log | found by |
//! |---|---|
//! | a byte changed | [`Why::Form`], [`Why::Edited`], [`Why::Opening`] |
//! | a line removed, repeated, moved or put in | [`Why::OutOfOrder`], [`Why::Edited`] |
//! | the tail cut | [`Why::TailMissing`], for all that the checkpoint covers |
//! | the head cut | [`Why::HeadMissing`], unless the log itself says that it was retired |
//! | rewritten with new hashes | [`Why::NotAsSealed`], for all that the checkpoint covers |
//! | cut, then written on by a restarted program | [`Why::TailWasMissing`] |
//! | two histories, one for us and one for a witness | [`Why::SplitView`] |
//! | another log in its place | [`Why::Origin`] |
//!
//! One pass, one line in memory at a time. Lines are hashed into a tree, whose root must be that of every checkpoint on
//! the way. A root tells *that* something is wrong; *where* is told by the stored hashes of the leaves, line by line,
//! and these are in the same tree: who edits both moves the place to the next checkpoint, and is found all the same.

use crate::entry::{Gap, Retired};
use crate::limits::LINE_BYTES_MAX;
use crate::line::Parts;
use crate::redact;
use mesh_tlog::checkpoint::{Checkpoint, CheckpointError};
use mesh_tlog::hash::Hash;
use mesh_tlog::tile::{Edge, ReadTile, TILE_WIDTH, Tile};
use mesh_tlog::tree::Frontier;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read};

/// Where a log's bytes come from.
pub trait LogSource: ReadTile {
    /// Its segments, oldest first, as errors name them.
    fn segments(&self) -> Vec<String>;

    /// The lines of one of them.
    ///
    /// # Errors
    /// As the system has them.
    fn open(&self, segment: usize) -> io::Result<Box<dyn BufRead + '_>>;
}

/// What a log is held against. All checkpoints are verified with a key that is trusted: [`Checkpoint::open`].
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The newest checkpoint of the log. Without one nothing can be proved.
    pub newest: Option<Checkpoint>,
    /// Older ones of its own: they narrow down where a log was rewritten.
    pub older: Vec<Checkpoint>,
    /// Ones that somebody else kept: a witness, a backup, an auditor.
    pub witnessed: Vec<Checkpoint>,
}

/// What a proved log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Whose log.
    pub origin: String,
    /// Whole lines that are there.
    pub lines: u64,
    /// Place of the first of them: not 0 if older ones were retired.
    pub first: u64,
    /// Lines by the kind of their entry.
    pub kinds: BTreeMap<String, u64>,
    /// Entries that the log says are missing.
    pub lost: u64,
    /// Place of the last line that a signed checkpoint covers.
    pub sealed_through: Option<u64>,
    /// Bytes after the last whole line: a writer is at work, or crashed. No checkpoint covers them.
    pub torn_bytes: u64,
    /// Files of stored hashes that are missing, or are not those of the lines. Lines are proved without them; proofs of
    /// single lines are not made.
    pub damaged_hashes: u64,
    /// Size of the largest tree that somebody else kept a checkpoint of and that the log contains.
    pub witnessed: Option<u64>,
}

impl Verified {
    /// Lines of this kind.
    pub fn count(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or_default()
    }
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// The segment, as the source names it.
    pub file: String,
    /// Line number in it, from 1.
    pub line: u64,
    /// Place in the log, from 0.
    pub seq: u64,
}

/// The first bad line of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {why}", place.file, place.line)]
pub struct FirstBad {
    /// Where it stands, or should.
    pub place: Place,
    /// What is wrong.
    pub why: Why,
    /// How many lines from the beginning of the log are proved in spite of it.
    pub proven: u64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Why {
    /// Not in the form that a writer gives it.
    #[error("the line is not in the form of a log line")]
    #[diagnostic(
        code("MESH-0510"),
        help("the line was edited or damaged; look for it in a copy")
    )]
    Form,
    /// Another hash than the one in the tree.
    #[error("the line is not the one that was logged here")]
    #[diagnostic(
        code("MESH-0511"),
        help("the line was edited or replaced; look for it in a copy")
    )]
    Edited,
    /// Another place than the one after the line before.
    #[error(
        "line {found} stands where line {expected} should: lines were removed, repeated or moved"
    )]
    #[diagnostic(code("MESH-0512"), help("look for the missing lines in a copy"))]
    OutOfOrder {
        /// Place that is due.
        expected: u64,
        /// Place that the line claims.
        found: u64,
    },
    /// The log ends before the line that was sealed.
    #[error(
        "the log ends before line {sealed}, which a signed checkpoint covers: its tail was cut"
    )]
    #[diagnostic(code("MESH-0514"), help("the missing lines may be in a copy"))]
    TailMissing {
        /// Place that the checkpoint covers.
        sealed: u64,
    },
    /// The lines hash to another root than the one that was signed, and so do the stored hashes.
    #[error(
        "the lines from {from} to {through} are not those that the signed checkpoint covers: the log was rewritten"
    )]
    #[diagnostic(
        code("MESH-0515"),
        help(
            "one or more of these lines were replaced together with the stored hashes; nothing in that stretch is proved"
        )
    )]
    NotAsSealed {
        /// First line in doubt.
        from: u64,
        /// Last line in doubt.
        through: u64,
    },
    /// A writer found the tail cut, and said so.
    #[error(
        "when the log was opened, lines {from} to {through} were missing that a signed checkpoint covered"
    )]
    #[diagnostic(
        code("MESH-0516"),
        help(
            "the tail was cut while the program did not run; the missing lines may be in a copy, and their hashes are still in the tree"
        )
    )]
    TailWasMissing {
        /// First line that is missing.
        from: u64,
        /// Last line that is missing.
        through: u64,
    },
    /// A start of another log.
    #[error("the log goes on with a start of `{}`", found.escape_debug())]
    #[diagnostic(
        code("MESH-0517"),
        help("the file is another log's; compare its name with the origin in its first line")
    )]
    Origin {
        /// Origin that the line names.
        found: String,
    },
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
    /// Old lines are missing and nothing says why.
    #[error("lines before {first} are missing, and the log does not say that they were retired")]
    #[diagnostic(
        code("MESH-0540"),
        help(
            "somebody deleted them; look for them in a copy: their hashes are still in the tree, so a copy can be proved"
        )
    )]
    HeadMissing {
        /// First line that is there.
        first: u64,
    },
    /// Somebody else was shown another history.
    #[error(
        "a checkpoint of {size} entries that somebody else kept is not of this log: two histories were signed, which differ after line {common}"
    )]
    #[diagnostic(
        code("MESH-0541"),
        help(
            "keep both checkpoints, they prove it; who holds the log's key showed different histories to different people"
        )
    )]
    SplitView {
        /// Size of the tree that the other one was shown.
        size: u64,
        /// Lines that both histories share at least.
        common: u64,
    },
    /// The hashes of retired lines are gone too.
    #[error("the stored hashes of the lines before {first} are missing or damaged")]
    #[diagnostic(
        code("MESH-0542"),
        help(
            "copy the log's folder of hashes too (`<name>.tlog`): without it nothing after retired lines can be proved"
        )
    )]
    HashesMissing {
        /// First line that is there.
        first: u64,
    },
    /// A text that may be redacted is not the one that was logged.
    #[error("the text of `{field}` is not the one that was logged")]
    #[diagnostic(
        code("MESH-0543"),
        help(
            "somebody changed a text that may be taken out; the rest of the line is as it was logged"
        )
    )]
    Opening {
        /// Path of the field.
        field: String,
    },
    /// Nothing was signed.
    #[error("there is no signed checkpoint, so nothing of this log is proved")]
    #[diagnostic(
        code("MESH-0544"),
        help(
            "a writer signs one as soon as it opens its log; look for `checkpoint` in the log's folder `<name>.tlog`"
        )
    )]
    NoCheckpoint,
    /// The checkpoint itself.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl miette::Diagnostic for FirstBad {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.why.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.why.help()
    }
}

/// Reads a whole log and hands each line to `each`, before it is known whether the line is proved: that is known when
/// this returns, and if it returns an error, up to [`FirstBad::proven`].
///
/// # Errors
/// [`FirstBad`].
pub fn walk<S: LogSource>(
    source: &S,
    trust: &Trust,
    each: &mut dyn FnMut(&Place, &[u8]),
) -> Result<Verified, FirstBad> {
    let segments = source.segments();
    let mut walk = Walk::new(source, trust);
    let Some(newest) = &trust.newest else {
        walk.place.file = segments.last().cloned().unwrap_or_default();
        return Err(walk.bad(Why::NoCheckpoint));
    };
    walk.found.origin.clone_from(&newest.head().origin);
    let mut line = Vec::with_capacity(4_096);
    for (number, name) in segments.iter().enumerate() {
        walk.place.file.clone_from(name);
        walk.place.line = 0;
        let mut lines = source
            .open(number)
            .map_err(|error| walk.unreadable(&error))?;
        let last = number + 1 == segments.len();
        loop {
            line.clear();
            let read = read_line(&mut lines, &mut line).map_err(|error| walk.unreadable(&error))?;
            match line.strip_suffix(b"\n") {
                Some(whole) => walk.line(whole, each)?,
                None if read == 0 => break,
                // The end of a file that is being written.
                None if last && line.len() <= LINE_BYTES_MAX => {
                    walk.found.torn_bytes = line.len() as u64;
                    break;
                }
                None => {
                    walk.place.line += 1;
                    return Err(walk.bad(Why::Form));
                }
            }
        }
    }
    walk.finish(newest)
}

/// One line with its line feed, at most one byte beyond the longest that is ever written.
fn read_line(log: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    Read::take(log, LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)
}

/// A root that the lines must have when there are so many.
#[derive(Clone, Copy)]
struct Due {
    size: u64,
    // Of equal sizes, our own come first.
    by_other: bool,
    root: Hash,
}

struct Walk<'a, S> {
    source: &'a S,
    sealed: u64,
    // In the order of sizes, the next one last.
    due: Vec<Due>,
    /// The tree of the lines, and the tree of the hashes that were stored when they were written.
    lines: Frontier,
    begun: bool,
    /// Stored hashes of the tile that the next line is in.
    stored: Option<(u64, Option<Vec<Hash>>)>,
    /// The line that was read last.
    place: Place,
    /// The first line, of those not proved yet, that has another hash than the stored one.
    doubtful: Option<Place>,
    /// The first line that is not proved yet.
    unproven: Place,
    retired: Option<u64>,
    found: Verified,
}

impl<'a, S: LogSource> Walk<'a, S> {
    fn new(source: &'a S, trust: &Trust) -> Self {
        let own = trust.newest.iter().chain(&trust.older);
        let due = |checkpoint: &Checkpoint, by_other| Due {
            size: checkpoint.head().size,
            by_other,
            root: checkpoint.head().root,
        };
        let mut all: Vec<Due> = own.map(|checkpoint| due(checkpoint, false)).collect();
        all.extend(
            trust
                .witnessed
                .iter()
                .map(|checkpoint| due(checkpoint, true)),
        );
        all.retain(|due| due.size > 0);
        all.sort_by_key(|due| std::cmp::Reverse((due.size, due.by_other)));
        Self {
            source,
            sealed: trust
                .newest
                .as_ref()
                .map_or(0, |checkpoint| checkpoint.head().size),
            due: all,
            lines: Frontier::default(),
            begun: false,
            stored: None,
            place: Place::default(),
            doubtful: None,
            unproven: Place::default(),
            retired: None,
            found: Verified::default(),
        }
    }

    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(&Place, &[u8])) -> Result<(), FirstBad> {
        self.place.line += 1;
        self.place.seq = self.lines.size();
        let parts = Parts::of(line).ok_or_else(|| self.bad(Why::Form))?;
        if !self.begun {
            self.begin(parts.seq)?;
        }
        if parts.seq != self.lines.size() {
            return Err(self.out_of_order(&parts, line));
        }
        if self.unproven.seq == self.place.seq {
            self.unproven = self.place.clone();
        }
        self.note(parts.kind, line)?;
        if parts.is_open() {
            redact::check(line).map_err(|wrong| self.bad(Why::Opening { field: wrong.field }))?;
        }
        let leaf = parts.leaf();
        if self.stored_hash().is_some_and(|stored| stored != leaf) && self.doubtful.is_none() {
            self.doubtful = Some(self.place.clone());
        }
        self.lines.push(leaf);
        self.found.lines += 1;
        each(&self.place, line);
        self.check_due()
    }

    /// The first line of all: what was before it is retired, and only its hashes are left.
    fn begin(&mut self, first: u64) -> Result<(), FirstBad> {
        self.begun = true;
        if first > self.sealed {
            // A first line that no checkpoint reaches has nothing before it to be proved.
            return Err(self.bad(Why::OutOfOrder {
                expected: 0,
                found: first,
            }));
        }
        if first > 0 {
            let edge = Edge::load(self.source, first);
            let edge = edge.map_err(|_| self.bad(Why::HashesMissing { first }))?;
            self.lines = edge.frontier().clone();
            self.due.retain(|due| due.size >= first);
        }
        self.found.first = first;
        self.place.seq = first;
        self.unproven = self.place.clone();
        self.check_due()
    }

    fn out_of_order(&self, parts: &Parts<'_>, line: &[u8]) -> FirstBad {
        let expected = self.lines.size();
        let missing_from = (parts.kind == "start")
            .then(|| record::<StartNote>(line).ok())
            .flatten()
            .and_then(|start| start.missing_from);
        self.bad(match missing_from {
            Some(from) if from == expected && parts.seq > expected => Why::TailWasMissing {
                from,
                through: parts.seq - 1,
            },
            _ => Why::OutOfOrder {
                expected,
                found: parts.seq,
            },
        })
    }

    /// Counts a line, and reads those that say something about the log itself.
    fn note(&mut self, kind: &str, line: &[u8]) -> Result<(), FirstBad> {
        match self.found.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.found.kinds.insert(kind.to_owned(), 1);
            }
        }
        match kind {
            "start" => {
                let start: StartNote = record(line).map_err(|_| self.bad(Why::Form))?;
                if start
                    .origin
                    .as_ref()
                    .is_some_and(|origin| *origin != self.found.origin)
                {
                    let found = start.origin.unwrap_or_default();
                    return Err(self.bad(Why::Origin { found }));
                }
            }
            "gap" => {
                let gap: Gap = record(line).map_err(|_| self.bad(Why::Form))?;
                self.found.lost = self.found.lost.saturating_add(gap.lost);
            }
            "retired" => {
                let retired: Retired = record(line).map_err(|_| self.bad(Why::Form))?;
                self.retired = self.retired.max(Some(retired.through));
            }
            _ => {}
        }
        Ok(())
    }

    /// The hash that was stored for the next line, if a checkpoint covers it and the file is there.
    fn stored_hash(&mut self) -> Option<Hash> {
        let seq = self.lines.size();
        if seq >= self.sealed {
            return None;
        }
        let (index, at) = (seq / u64::from(TILE_WIDTH), seq % u64::from(TILE_WIDTH));
        if self.stored.as_ref().is_none_or(|(tile, _)| *tile != index) {
            let hashes = Tile::in_tree(0, index, self.sealed)
                .and_then(|tile| self.source.read_tile(tile).ok())
                .map(|bytes| {
                    let (hashes, _) = bytes.as_chunks::<32>();
                    hashes.iter().copied().map(Hash).collect()
                });
            self.found.damaged_hashes += u64::from(hashes.is_none());
            self.stored = Some((index, hashes));
        }
        let (_, hashes) = self.stored.as_ref()?;
        // An offset is below 256.
        hashes.as_ref()?.get(at as usize).copied()
    }

    fn check_due(&mut self) -> Result<(), FirstBad> {
        while let Some(due) = self.due.last().copied() {
            if due.size != self.lines.size() {
                break;
            }
            self.due.pop();
            if self.lines.root() != due.root {
                return Err(self.not_as_sealed(due));
            }
            // The lines are those that were signed: it is the stored hashes that were changed.
            self.found.damaged_hashes += u64::from(self.doubtful.take().is_some());
            self.unproven = Place {
                file: self.place.file.clone(),
                line: self.place.line + 1,
                seq: due.size,
            };
            if due.by_other {
                self.found.witnessed = Some(due.size);
            }
        }
        Ok(())
    }

    fn not_as_sealed(&self, due: Due) -> FirstBad {
        let proven = self.unproven.seq;
        let (place, why) = match &self.doubtful {
            Some(place) => (place, Why::Edited),
            None if due.by_other => (
                &self.unproven,
                Why::SplitView {
                    size: due.size,
                    common: proven,
                },
            ),
            None => (
                &self.unproven,
                Why::NotAsSealed {
                    from: proven,
                    through: due.size - 1,
                },
            ),
        };
        FirstBad {
            place: place.clone(),
            why,
            proven,
        }
    }

    fn finish(mut self, newest: &Checkpoint) -> Result<Verified, FirstBad> {
        let size = self.lines.size();
        if let Some(due) = self.due.iter().max_by_key(|due| due.size) {
            let sealed = due.size - 1;
            self.place.line += 1;
            self.place.seq = size;
            return Err(self.bad(Why::TailMissing { sealed }));
        }
        let first = self.found.first;
        if first > 0 && self.retired.is_none_or(|through| through + 1 < first) {
            self.place = Place {
                line: 1,
                seq: first,
                file: self
                    .source
                    .segments()
                    .into_iter()
                    .next()
                    .unwrap_or_default(),
            };
            return Err(self.bad(Why::HeadMissing { first }));
        }
        self.found.sealed_through = newest.head().size.checked_sub(1);
        Ok(self.found)
    }

    fn unreadable(&self, error: &io::Error) -> FirstBad {
        self.bad(Why::Unreadable {
            why: error.to_string(),
        })
    }

    /// What is wrong here, unless a line before it is already known not to be the one that was logged.
    fn bad(&self, why: Why) -> FirstBad {
        let (place, why) = match &self.doubtful {
            Some(place) => (place, Why::Edited),
            None => (&self.place, why),
        };
        FirstBad {
            place: place.clone(),
            why,
            proven: self.unproven.seq,
        }
    }
}

/// As much of a start as matters here: the issuance log has one of its own.
#[derive(Deserialize)]
struct StartNote {
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    missing_from: Option<u64>,
}

fn record<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Result<T, serde_json::Error> {
    #[derive(Deserialize)]
    struct Record<T> {
        record: T,
    }
    serde_json::from_slice::<Record<T>>(line).map(|line| line.record)
}

#[cfg(test)]
mod tests;
