//! Evidence E1 to E12: what a bundle shows, in numbers by scope, in findings, and in tables. Each is a pure function of
//! the facts, and says what it cannot tell.
//!
//! - [`metric`]: every number that controls are held against
//! - [`traffic`], [`certificates`], [`posture`], [`grants`], [`logs`], [`changes`], [`zones`]: the evidence itself

pub mod certificates;
pub mod changes;
pub mod grants;
pub mod logs;
pub mod metric;
pub mod posture;
pub mod traffic;
pub mod zones;

use crate::facts::Facts;
use crate::limits::{CELL_BYTES_MAX, FINDINGS_EACH_MAX, ROWS_MAX};
use data_encoding::HEXLOWER;
use mesh_policy::snapshot::Source;
use metric::Reading;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The scope of what concerns the whole mesh.
pub const MESH: &str = "(mesh)";

/// The twelve, in their order.
pub const IDS: [&str; 12] = [
    "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "E11", "E12",
];

/// One kind of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// `E1` to `E12`.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Numbers, by metric and scope.
    pub metrics: Vec<Measured>,
    /// What it is made of.
    pub table: Table,
    /// What it cannot tell.
    pub notes: Vec<String>,
    /// What is not as it should be.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// A number in one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Id of the metric.
    pub metric: String,
    /// A namespace, or [`MESH`].
    pub scope: String,
    /// What was read.
    pub reading: Reading,
}

/// Rows of text under headings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Headings.
    pub columns: Vec<String>,
    /// Rows; each has as many cells as there are headings.
    pub rows: Vec<Vec<String>>,
    /// Rows that there are; more than are listed if the list was cut.
    pub rows_total: usize,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Stable over reports: made of check, scope and subject.
    pub id: String,
    /// The check, named as the metric that counts it.
    pub check: String,
    /// Its scope.
    pub scope: String,
    /// What it is about.
    pub subject: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// How bad.
    pub severity: Severity,
    /// What to do.
    pub hint: String,
    /// Where it is declared, if it stands in a file.
    pub place: Option<Place>,
    /// A change of a file that mends it, if one is known.
    pub fix: Option<Fix>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody may get in, or nobody would see it.
    High,
    /// It weakens what is proved.
    Medium,
    /// It should be tidied up.
    Low,
}

/// Lines of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The file.
    pub file: String,
    /// First line, from 1.
    pub line: u32,
    /// Last line.
    pub end_line: u32,
}

/// Lines that take the place of those of a finding's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fix {
    /// What it does.
    pub what: String,
    /// First line that goes, from 1.
    pub line: u32,
    /// Last line that goes.
    pub end_line: u32,
    /// What stands there afterwards; empty: nothing.
    pub text: String,
}

impl Severity {
    /// `high`, `medium`, `low`.
    pub fn text(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl Place {
    /// The place of a source; none for what is built in.
    pub fn of(source: &Source) -> Option<Self> {
        match source {
            Source::File {
                file,
                line,
                end_line,
                ..
            } => Some(Self {
                file: file.clone(),
                line: *line,
                end_line: *end_line,
            }),
            Source::BuiltIn(_) => None,
        }
    }

    /// `file:line`.
    pub fn text(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

impl Finding {
    /// A finding of a check in a scope about a subject.
    pub fn new(
        check: &str,
        scope: &str,
        subject: &str,
        severity: Severity,
        message: String,
    ) -> Self {
        let mut named = Vec::new();
        for part in [check, scope, subject] {
            named.extend_from_slice(&(part.len() as u64).to_be_bytes());
            named.extend_from_slice(part.as_bytes());
        }
        let hash = HEXLOWER.encode(digest(&SHA256, &named).as_ref());
        Self {
            id: hash.get(..32).unwrap_or_default().to_owned(),
            check: check.to_owned(),
            scope: scope.to_owned(),
            subject: cell(subject),
            message: cell(&message),
            severity,
            hint: String::new(),
            place: None,
            fix: None,
        }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        self.hint = hint.to_owned();
        self
    }

    /// The same, with where it stands.
    #[must_use]
    pub fn at(mut self, source: &Source) -> Self {
        self.place = Place::of(source);
        self
    }
}

impl Table {
    /// A table with these headings.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|one| (*one).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|one| cell(one)).collect());
        self.rows_total = self.rows.len();
    }

    /// Keeps the first rows alone; the total stays.
    pub fn shorten(&mut self) {
        self.rows.truncate(ROWS_MAX);
    }
}

/// Readings of one kind of evidence, as they are taken.
#[derive(Debug, Default)]
pub struct Sheet {
    measured: Vec<Measured>,
    findings: Vec<Finding>,
    /// Findings so far, by check and scope.
    count: BTreeMap<(String, String), usize>,
}

impl Sheet {
    /// Notes a reading.
    pub fn read(&mut self, metric: &str, scope: &str, reading: Reading) {
        self.measured.push(Measured {
            metric: metric.to_owned(),
            scope: scope.to_owned(),
            reading,
        });
    }

    /// Notes a finding, unless enough of its kind are named already. It counts all the same.
    pub fn find(&mut self, finding: Finding) {
        let key = (finding.check.clone(), finding.scope.clone());
        let count = self.count.entry(key).or_default();
        *count += 1;
        if *count <= FINDINGS_EACH_MAX {
            self.findings.push(finding);
        }
    }

    /// How many findings a check has in a scope.
    pub fn found(&self, check: &str, scope: &str) -> u64 {
        let key = (check.to_owned(), scope.to_owned());
        self.count.get(&key).copied().unwrap_or_default() as u64
    }

    /// Reads each of these checks as the number of its findings in a scope, or as `otherwise` if nothing can be said.
    pub fn count(&mut self, checks: &[&str], scope: &str, otherwise: Option<&Reading>) {
        for check in checks {
            let reading = match otherwise {
                Some(reading) => reading.clone(),
                None => Reading::count(self.found(check, scope)),
            };
            self.read(check, scope, reading);
        }
    }

    /// The evidence, sorted.
    pub fn evidence(mut self, id: &str, title: &str, table: Table, notes: Vec<String>) -> Evidence {
        self.measured
            .sort_by(|a, b| (&a.metric, &a.scope).cmp(&(&b.metric, &b.scope)));
        self.findings.sort();
        Evidence {
            id: id.to_owned(),
            title: title.to_owned(),
            metrics: self.measured,
            table,
            notes,
            findings: self.findings,
        }
    }
}

/// All evidence of a bundle, with whole tables.
pub fn all(facts: &Facts<'_>) -> Vec<Evidence> {
    vec![
        traffic::protection(facts),
        certificates::inventory(facts),
        posture::posture(facts),
        grants::grants(facts),
        grants::review(facts),
        traffic::denials(facts),
        logs::records(facts),
        logs::integrity(facts),
        changes::changes(facts),
        certificates::reconciliation(facts),
        zones::zones(facts),
        grants::break_glass(facts),
    ]
}

/// A text as it may stand in a cell: no control characters, no marks that reorder text, not too long. What logs and
/// certificates hold was chosen by others.
pub fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(CELL_BYTES_MAX));
    for (at, c) in text.char_indices() {
        if at >= CELL_BYTES_MAX {
            out.push_str("...");
            break;
        }
        let reorders = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if c.is_control() || reorders {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}
