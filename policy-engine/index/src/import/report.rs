//! What became of every fact that an import found, in words and with its place.
//!
//! A fact is kept, kept stricter, or not kept. "Kept" is a promise that tests hold: of what the mesh can see, the same
//! requests are allowed as before. docs/reference/import.md describes the JSON form and what the promise leaves out.

use mesh_policy::snapshot::Source;
use serde::Serialize;
use std::fmt;

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It means the same here.
    Kept,
    /// Less is allowed than before.
    KeptStricter,
    /// It has no counterpart here.
    NotKept,
}

impl Status {
    /// Every status, best first.
    pub const ALL: [Self; 3] = [Self::Kept, Self::KeptStricter, Self::NotKept];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::KeptStricter => "kept stricter",
            Self::NotKept => "not kept",
        })
    }
}

/// Line and column of a file, both from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FactPlace {
    /// The file, as it was named.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl fmt::Display for FactPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl From<&Source> for FactPlace {
    fn from(source: &Source) -> Self {
        match source {
            Source::File {
                file, line, column, ..
            } => Self {
                file: file.clone(),
                line: *line,
                column: *column,
            },
            Source::BuiltIn(what) => Self {
                file: format!("<{what}>"),
                line: 1,
                column: 1,
            },
        }
    }
}

/// One thing that was found, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fact {
    /// Where it stands.
    pub place: FactPlace,
    /// What became of it.
    pub status: Status,
    /// `MESH-nnnn`; none if it was kept.
    pub code: Option<&'static str>,
    /// `Kind namespace/name` of the object it is in.
    pub object: String,
    /// Path of the field it is about: `spec.rules[0].when[1]`.
    pub part: Option<String>,
    /// What, and why, in one sentence.
    pub message: String,
    /// `Kind namespace/name` of what was written for it, sorted.
    pub became: Vec<String>,
    /// What to write to have the old access back, or where to look.
    pub hint: Option<String>,
}

/// An object that an import wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Written {
    /// The file it is in, below the folder of the import.
    pub file: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it comes from: `file:line`, sorted.
    pub from: Vec<String>,
}

/// How many facts there are of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// [`Status::Kept`].
    pub kept: usize,
    /// [`Status::KeptStricter`].
    pub kept_stricter: usize,
    /// [`Status::NotKept`].
    pub not_kept: usize,
}

/// All facts of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `istio` or `linkerd`.
    pub from: &'static str,
    /// Counts.
    pub summary: Summary,
    /// The facts, by place.
    pub facts: Vec<Fact>,
    /// What was written, by file and in its order there.
    pub written: Vec<Written>,
}

impl Report {
    /// Sorts and counts.
    pub(crate) fn new(from: &'static str, mut facts: Vec<Fact>, written: Vec<Written>) -> Self {
        facts.sort();
        facts.dedup();
        let count = |status| facts.iter().filter(|f| f.status == status).count();
        let summary = Summary {
            kept: count(Status::Kept),
            kept_stricter: count(Status::KeptStricter),
            not_kept: count(Status::NotKept),
        };
        Self {
            from,
            summary,
            facts,
            written,
        }
    }

    /// Whether everything means the same as before.
    pub fn is_exact(&self) -> bool {
        self.facts.iter().all(|fact| fact.status == Status::Kept)
    }
}
