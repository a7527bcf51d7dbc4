//! `mesh audit verify`: proves logs, or names the first bad line of each.

use super::collect::issuance;
use super::logs::{self, LogError, Source};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::LiveArgs;
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_api::error::CodedError;
use mesh_audits::Verified;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which logs to prove.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// Log files, or folders of them; by default those of the running mesh. Or the folder of a report.
    #[arg(value_name = "FILE|DIR")]
    logs: Vec<PathBuf>,
    /// Trusted copy of the public keys that sign checkpoints, one a line; by default the `.pub` file beside each log,
    /// which who could edit the log could have edited too.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Of a report: a mapping that was given when it was made; more than once for more.
    #[arg(long = "mapping", value_name = "FILE")]
    pub(super) mappings: Vec<PathBuf>,
    /// Folder of a witness, or of checkpoints that somebody kept: `<log>.checkpoint`. A log that does not contain what
    /// they saw is bad. By default the witness of the running mesh.
    #[arg(long, value_name = "DIR")]
    witness: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

impl VerifyArgs {
    /// The report that is meant, if the one path is that of a report.
    pub(super) fn report(&self) -> Option<&Path> {
        match self.logs.as_slice() {
            [one] if super::check::is_report(one) => Some(one),
            _ => None,
        }
    }
}

/// What was found of one log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LogReport {
    /// The file of its newest lines.
    pub(crate) file: PathBuf,
    /// Whether every line is proved.
    pub(crate) ok: bool,
    /// Whose log it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Lines that are there, proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<u64>,
    /// Place of the first of them, if older ones were retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<u64>,
    /// Lines by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Records that the log itself says are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Last line that the signed checkpoint covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed_through: Option<u64>,
    /// Last line that a checkpoint of a witness covers; absent: nobody else vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) witnessed_through: Option<u64>,
    /// Files of stored hashes that are missing or wrong; the lines are proved without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) damaged_hashes: Option<u64>,
    /// How many lines from the beginning are proved although one is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proven: Option<u64>,
    /// The first bad line and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<CodedError>,
}

/// Proves the logs.
pub(super) fn run(args: &VerifyArgs, output: &mut Output) -> Result<Exit, Fault> {
    let source = Source::find(&args.logs, &args.live, args.witness.as_deref())?;
    let reports: Vec<LogReport> = source
        .logs
        .iter()
        .map(|log| report(log, args.key.as_deref(), source.witness.as_deref()))
        .collect();
    output.value(args.output, &reports, |output, reports| {
        reports.iter().try_for_each(|report| print(report, output))
    })?;
    Ok(if reports.iter().all(|report| report.ok) {
        Exit::Ok
    } else {
        Exit::Failure
    })
}

/// Proves one log, with a trusted key if there is one, and against what a witness saw.
pub(crate) fn report(log: &Path, key: Option<&Path>, witness: Option<&Path>) -> LogReport {
    let file = log.to_path_buf();
    let proved = prove(log, key, witness).and_then(|found| match beside(log) {
        None => Ok(found),
        Some(coded) => Err(NotProved {
            coded: Box::new(coded),
            proven: Some(found.lines),
        }),
    });
    match proved {
        Ok(found) => LogReport {
            file,
            ok: true,
            origin: Some(found.origin),
            lines: Some(found.lines),
            first: (found.first > 0).then_some(found.first),
            kinds: found.kinds,
            lost: Some(found.lost),
            sealed_through: found.sealed_through,
            witnessed_through: found.witnessed.and_then(|size| size.checked_sub(1)),
            damaged_hashes: (found.damaged_hashes > 0).then_some(found.damaged_hashes),
            ..LogReport::default()
        },
        Err(error) => LogReport {
            file,
            proven: error.proven,
            error: Some(*error.coded),
            ..LogReport::default()
        },
    }
}

/// What is wrong with the CA's own issuance log, if that lies beside the proved one.
fn beside(log: &Path) -> Option<CodedError> {
    match issuance::compare(log) {
        Ok(found) => found,
        Err(fault) => Some(CodedError::from_diagnostic(LogError::Beside {
            file: log.to_path_buf(),
            why: fault.text(false),
        })),
    }
}

struct NotProved {
    coded: Box<CodedError>,
    proven: Option<u64>,
}

impl From<LogError> for NotProved {
    fn from(error: LogError) -> Self {
        Self {
            coded: Box::new(CodedError::from_diagnostic(error)),
            proven: None,
        }
    }
}

fn prove(log: &Path, key: Option<&Path>, witness: Option<&Path>) -> Result<Verified, NotProved> {
    let key = logs::key_of(log, key)?;
    let files = logs::open(log)?;
    let witnessed = logs::witnessed(log, &key, witness)?;
    files.walk(&key, witnessed, &mut |_, _| {}).map_err(|bad| {
        let place = format!("{}:{}", bad.place.file, bad.place.line);
        NotProved {
            coded: Box::new(CodedError::from(&bad.why as &dyn miette::Diagnostic).at(place)),
            proven: Some(bad.proven),
        }
    })
}

fn print(report: &LogReport, output: &mut Output) -> Result<(), Fault> {
    if let Some(error) = &report.error {
        let bad = output.toned(Tone::Bad, "BAD");
        let proven = match report.proven {
            Some(proven) if proven > 0 => format!("\n      the first {proven} lines are proved"),
            _ => String::new(),
        };
        return output.line(format_args!(
            "{bad}   {}\n{}{proven}",
            report.file.display(),
            indented(&error.to_text())
        ));
    }
    let ok = output.toned(Tone::Good, "ok ");
    let (lines, decisions) = (
        report.lines.unwrap_or_default(),
        report.kinds.get("decision").copied().unwrap_or_default(),
    );
    let mut notes = Vec::new();
    if let Some(first) = report.first {
        notes.push(format!("{first} older ones retired"));
    }
    if let Some(lost) = report.lost.filter(|lost| *lost > 0) {
        notes.push(format!("{lost} records lost and noted"));
    }
    if let Some(damaged) = report.damaged_hashes {
        notes.push(format!("{damaged} files of hashes missing or damaged"));
    }
    notes.push(match report.sealed_through {
        Some(line) => format!("signed through line {}", line.saturating_add(1)),
        None => "nothing signed".to_owned(),
    });
    notes.push(match report.witnessed_through {
        Some(line) => format!("witnessed through line {}", line.saturating_add(1)),
        None => "no witness".to_owned(),
    });
    let what = match decisions {
        0 => String::new(),
        decisions => format!(", {decisions} decisions"),
    };
    output.line(format_args!(
        "{ok}   {}  {lines} lines{what}; {}",
        report.file.display(),
        notes.join(", ")
    ))
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
