//! Files of decision records, read line by line: what replay writes, and the logs that proxies write.
//!
//! A line that is no record ends the command with its place: a record that is skipped in silence might be the one that
//! used a grant.

use crate::fault::Fault;
use crate::output::Output;
use clap::Args;
use mesh_policy::record::DecisionRecord;
use mesh_policy_analysis::records::{Entry, read};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line: the longest head that a proxy takes, and its JSON around it, many times over.
pub(super) const LINE_BYTES_MAX: usize = 4 << 20;

/// Which records are read.
#[derive(Args, Clone, Debug)]
pub(super) struct RecordArgs {
    /// Decision records, one JSON object a line: files as replay writes them, logs as proxies write them, or folders of
    /// such `.jsonl` files; more than once for more.
    #[arg(long = "records", required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum RecordsError {
    /// The file.
    #[error("`{file}` cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0603"),
        help("name files of decision records, or folders that hold `.jsonl` files")
    )]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A line that is no record.
    #[error("`{file}:{line}:{column}` is no decision record: {why}")]
    #[diagnostic(
        code("MESH-0664"),
        help(
            "each line is a decision record as in docs/reference/records.md, or a line of a proxy's log"
        )
    )]
    Malformed {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: usize,
        /// What the reader says.
        why: String,
    },
    /// None at all.
    #[error("there is no decision record in {places}")]
    #[diagnostic(
        code("MESH-0665"),
        help(
            "without records nothing can be said about use: name the logs in `.mesh/audit`, or what replay wrote"
        )
    )]
    Nothing {
        /// Where was looked.
        places: String,
    },
}

/// What was read beside decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Decisions.
    pub(super) decisions: u64,
    /// Decisions that logs say are missing.
    pub(super) lost: u64,
    /// Whether some came from a proxy's log: these hold every denial, and of what was allowed a
    /// sample and what was new.
    pub(super) sampled: bool,
}

impl RecordArgs {
    /// Hands every decision to `each`: the file's place in the list, the decision's place in its file, the record, and
    /// whether the log cut it.
    ///
    /// # Errors
    /// Exit code 2 with the place of the first line that is no record, and if there is none at all.
    pub(super) fn each(
        &self,
        each: impl FnMut(usize, u64, &DecisionRecord, bool) -> Result<(), Fault>,
    ) -> Result<Tally, Fault> {
        self.each_and_left(each, |_| {})
    }

    /// As [`Self::each`]; and hands over to `left` every decision about what leaves the mesh.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub(super) fn each_and_left(
        &self,
        mut each: impl FnMut(usize, u64, &DecisionRecord, bool) -> Result<(), Fault>,
        mut left: impl FnMut(&DecisionRecord),
    ) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        for (number, file) in self.files()?.iter().enumerate() {
            let mut at = 0_u64;
            read_file(file, |entry| {
                match entry {
                    Entry::Decision(record, cut) => {
                        tally.decisions = tally.decisions.saturating_add(1);
                        each(number, at, &record, cut)?;
                        at = at.saturating_add(1);
                    }
                    Entry::Lost(lost) => tally.lost = tally.lost.saturating_add(lost),
                    Entry::Left(record) => left(&record),
                    Entry::Other => tally.sampled = true,
                }
                Ok(())
            })?;
        }
        if tally.decisions == 0 {
            let places: Vec<_> = self
                .paths
                .iter()
                .map(|p| format!("`{}`", p.display()))
                .collect();
            let places = places.join(", ");
            return Err(Fault::usage(&RecordsError::Nothing { places }));
        }
        Ok(tally)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Fault> {
        let mut out = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                out.push(path.clone());
                continue;
            }
            let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
            let mut files = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unreadable(path, &error))?;
            files.retain(|file| file.extension().is_some_and(|end| end == "jsonl"));
            files.sort();
            out.extend(files);
        }
        Ok(out)
    }
}

/// Says on stderr what logs do not hold: what is missing may have used what is called unused.
pub(super) fn warn_of_gaps(tally: Tally, output: &mut Output) {
    if tally.lost > 0 {
        output.talk(format_args!(
            "the logs say that {} records are missing: what they used is not known",
            tally.lost
        ));
    }
    if tally.sampled {
        output.talk(
            "proxies' logs hold every denial, but of what was allowed a sample, and the first request of each client by each grant on each route in an hour: counts are those of the sample (`audit.allowSample`, 1 % if nothing else is set; `mesh up --audit-sample 1` records all)",
        );
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Fault {
    Fault::usage(&RecordsError::Unreadable {
        file: file.display().to_string(),
        why: error.to_string(),
    })
}

/// Reads the next line in place of the last one, at most one byte more than a line may have; its length with its line
/// feed, 0 at the end.
pub(super) fn next_line(lines: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<usize> {
    bytes.clear();
    lines
        .by_ref()
        .take(LINE_BYTES_MAX as u64 + 1)
        .read_until(b'\n', bytes)
}

fn read_file(file: &Path, mut each: impl FnMut(Entry) -> Result<(), Fault>) -> Result<(), Fault> {
    let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    let mut lines = BufReader::with_capacity(1 << 16, opened);
    let mut bytes = Vec::new();
    for line in 1_u64.. {
        let count = next_line(&mut lines, &mut bytes).map_err(|error| unreadable(file, &error))?;
        if count == 0 {
            break;
        }
        let malformed = |column: usize, why: String| {
            Fault::usage(&RecordsError::Malformed {
                file: file.display().to_string(),
                line,
                column,
                why,
            })
        };
        if count > LINE_BYTES_MAX {
            let why = format!("the line is longer than {LINE_BYTES_MAX} bytes");
            return Err(malformed(1, why));
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        each(read(text).map_err(|error| malformed(error.column, error.why))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_audits::entry::{Action, AllowCounts, ChangeEffect, IssuanceLine};
    use mesh_audits::redact::{Redactable, Salting, redact};
    use mesh_audits::{Entry as Logged, Gap, GapCause, PolicyChange, Start, encode};
    use mesh_policy::decide::Generation;
    use mesh_policy::request::RequestRecord;
    use mesh_trust::Timestamp;

    #[test]
    fn what_a_log_writes_is_read() {
        let time = Timestamp::from_unix_secs(1_800_000_000);
        let request: RequestRecord = serde_json::from_str(
            r#"{"client":{},"server":{"namespace":"shop","pod":"a","port":1}}"#,
        )
        .expect("a request");
        let record = DecisionRecord::unknown_target(&request, Generation(7));
        let mut long = record.clone();
        long.client.spiffe_id = Some("x".repeat(100_000));
        let start = Start {
            time,
            origin: "shop.a".to_owned(),
            version: "0".to_owned(),
            torn_bytes: 0,
            missing_from: None,
            allow_sample: Some(0.01),
        };
        let gap = Gap {
            time,
            lost: 3,
            cause: GapCause::Storage,
        };
        let change = PolicyChange {
            time,
            generation: 7,
            digest: String::new(),
            files: Vec::new(),
            workloads_changed: 0,
            errors: 0,
            warnings: 0,
            author: None,
            approver: None,
            objects: None,
        };
        let line = |entry| {
            let bytes = encode(7, entry, None).expect("a line").bytes;
            read(bytes.trim_ascii()).expect("an entry")
        };
        let counts = AllowCounts {
            time,
            from: time,
            core: 0,
            classes: Vec::new(),
            other: 0,
        };
        assert_eq!(line(Logged::Counts(counts)), Entry::Other);
        let action = Action {
            time,
            action: "rotate".to_owned(),
            by: String::new(),
            detail: String::new(),
        };
        assert_eq!(line(Logged::Trust(action)), Entry::Other);
        let effect = ChangeEffect {
            time,
            generation: 7,
            digest: String::new(),
            gained: 1,
            lost: 0,
            exact: true,
            access: Vec::new(),
        };
        assert_eq!(line(Logged::Effect(effect)), Entry::Other);
        let issued = IssuanceLine {
            time,
            line: 1,
            text: String::new(),
        };
        assert_eq!(line(Logged::Issuance(issued)), Entry::Other);
        assert_eq!(line(Logged::Start(start)), Entry::Other);
        assert_eq!(line(Logged::Change(change)), Entry::Other);
        assert_eq!(line(Logged::Gap(gap)), Entry::Lost(3));
        let whole = Entry::Decision(Box::new(record.clone()), false);
        assert_eq!(line(Logged::Decision(Box::new(record))), whole);
        let cut = line(Logged::Decision(Box::new(long)));
        assert!(matches!(cut, Entry::Decision(_, true)), "{cut:?}");
    }
    #[test]
    fn texts_that_may_be_redacted_are_read_until_they_are() {
        let request: RequestRecord = serde_json::from_str(
            r#"{"client":{"ip":"10.0.0.9"},"server":{"namespace":"shop","pod":"a","port":1},"path":"/x?card=1"}"#,
        )
        .expect("a request");
        let record = DecisionRecord::unknown_target(&request, Generation(7));
        let salting = Salting {
            fields: &Redactable::ALL,
            fill_random: &|salt| salt.fill(1),
        };
        let entry = Logged::Decision(Box::new(record.clone()));
        let bytes = encode(7, entry, Some(&salting)).expect("a line").bytes;
        let found = read(bytes.trim_ascii()).expect("an entry");
        assert_eq!(found, Entry::Decision(Box::new(record), false));
        let redacted = redact(bytes.trim_ascii(), &[Redactable::RawPath]).expect("a line");
        let found = read(&redacted.expect("something was taken out")).expect("an entry");
        let Entry::Decision(record, cut) = found else {
            panic!("{found:?}");
        };
        assert!(cut, "a redacted text is not the whole one");
        assert_eq!(record.client.ip.as_deref(), Some("10.0.0.9"));
    }
}
