//! `mesh authz replay`: recorded requests in, one decision record each, in order.
//!
//! A line that is no request record ends the replay with its place and exit code 2: a record that is skipped in silence
//! would look like one that was allowed.

use super::policy::{Policy, PolicyArgs};
use super::records::{LINE_BYTES_MAX, next_line};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Output;
use clap::{Args, ValueEnum};
use mesh_policy::decide::Verdict;
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::RequestRecord;
use mesh_policy_analysis::records::{CLASSES_MAX, Classes};
use mesh_policy_index::replay::Replay;
use mesh_trust::Timestamp;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What is replayed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Request records, one JSON object a line; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Asks the proxies of the running mesh; the same as leaving `-f` away, said aloud.
    #[arg(long, conflicts_with = "files")]
    live: bool,
    /// Counts decisions that are alike instead: one line for each class, with its first request, most frequent first.
    #[arg(long)]
    classes: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Lines,
}

/// The one form there is: a JSON object a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// One decision record a line.
    #[default]
    Jsonl,
}

/// Why a line cannot be decided.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum ReplayError {
    /// The file.
    #[error("`{file}` cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0603"),
        help("name a file of request records, or `-` for stdin")
    )]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A line that is no request record.
    #[error("`{file}:{line}:{column}` is no request record: {why}")]
    #[diagnostic(
        code("MESH-0618"),
        help(
            "each line is one JSON object as in docs/reference/records.md; decisions before this line stand"
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
}

/// Decides every request of the file.
pub(crate) fn run(args: &ReplayArgs, output: &mut Output) -> Result<Exit, Fault> {
    let file = args.requests.display().to_string();
    let unreadable = |error: io::Error| {
        Fault::usage(&ReplayError::Unreadable {
            file: args.requests.display().to_string(),
            why: error.to_string(),
        })
    };
    let mut policy = Policy::open(&args.policy)?;
    let streaming = args.requests == Path::new("-");
    let mut lines: Box<dyn BufRead> = if streaming {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(
            File::open(&args.requests).map_err(unreadable)?,
        ))
    };
    let mut decider = Decider::new(&mut policy, args.policy.now());
    let mut bytes = Vec::new();
    let mut classes = Classes::default();
    for line in 1_u64.. {
        let read = next_line(&mut lines, &mut bytes).map_err(unreadable)?;
        if read == 0 || output.is_closed() {
            break;
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let record = parse(text, bytes.len(), &file, line).map_err(|error| Fault::usage(&error))?;
        let decision = decider.decide(&record)?;
        if args.classes {
            classes.add(&decision, &record);
            continue;
        }
        output.json_line(&decision)?;
        if streaming {
            // Whoever writes the requests may wait for each answer.
            output.flush()?;
        }
    }
    print_classes(&classes, output)?;
    Ok(Exit::Ok)
}

fn print_classes(classes: &Classes, output: &mut Output) -> Result<(), Fault> {
    for one in classes.counted() {
        output.json_line(one)?;
    }
    if classes.beyond > 0 {
        output.talk(format_args!(
            "{} decisions are of more classes than the {CLASSES_MAX} that are told apart",
            classes.beyond
        ));
    }
    Ok(())
}

fn parse(text: &[u8], length: usize, file: &str, line: u64) -> Result<RequestRecord, ReplayError> {
    let malformed = |column: usize, why: String| ReplayError::Malformed {
        file: file.to_owned(),
        line,
        column,
        why,
    };
    if length > LINE_BYTES_MAX {
        return Err(malformed(
            1,
            format!("the line is longer than {LINE_BYTES_MAX} bytes"),
        ));
    }
    serde_json::from_slice(text).map_err(|error| {
        let why = error.to_string();
        // The reader counts lines of its own input, which is this line alone.
        let why = why
            .rsplit_once(" at line ")
            .map_or(why.as_str(), |(why, _)| why)
            .to_owned();
        malformed(error.column().max(1), why)
    })
}

/// Decides records one by one.
enum Decider<'a> {
    Static(Replay<'a>),
    Live(&'a mut Policy, Timestamp),
}

impl<'a> Decider<'a> {
    fn new(policy: &'a mut Policy, now: Timestamp) -> Self {
        match policy {
            Policy::Static(manifests, _) => Self::Static(Replay::new(&manifests.index, now)),
            Policy::Live(..) => Self::Live(policy, now),
        }
    }

    fn decide(&mut self, record: &RequestRecord) -> Result<DecisionRecord, Fault> {
        let (policy, now) = match self {
            Self::Static(replay) => return Ok(replay.decide(record)),
            Self::Live(policy, now) => (policy, *now),
        };
        let places = policy.places(&record.server)?;
        let decisions: Vec<_> = places
            .iter()
            .map(|place| decide_record(&place.snapshot, record, place.port, now))
            .collect();
        let denied = decisions
            .iter()
            .position(|decision| decision.verdict == Verdict::Deny)
            .unwrap_or(0);
        match decisions.into_iter().nth(denied) {
            Some(decision) => Ok(decision),
            None => Err(policy.nobody(&record.server).unwrap_or_else(|| {
                Fault::undecidable(&super::policy::UndecidableError::NoProxy {
                    asked: record.server.namespace.clone(),
                    known: "the manifests name no such target".to_owned(),
                })
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_record_is_named_by_its_place() {
        for (text, why) in [
            ("{", "EOF"),
            ("[]", "invalid"),
            (
                r#"{"client":{},"server":{"namespace":"a","port":80},"extra":1}"#,
                "extra",
            ),
            (
                r#"{"client":{},"server":{"namespace":"a","port":800000}}"#,
                "800000",
            ),
        ] {
            let error = parse(text.as_bytes(), text.len(), "requests.jsonl", 7)
                .expect_err(text)
                .to_string();
            assert!(
                error.contains("requests.jsonl:7:") && error.contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused() {
        assert!(parse(b"{}", LINE_BYTES_MAX + 1, "-", 1).is_err());
    }
}
