//! `mesh audit verify`: proves decision logs, or names the first bad line of each.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{Live, LiveArgs};
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_api::error::CodedError;
use mesh_audits::{Checkpoint, PublicKey, Seal};
use mesh_platform::files;
use serde::Serialize;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Which logs to prove.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// Log files, or folders of them; by default those of the running mesh. Or the folder of a report.
    #[arg(value_name = "FILE|DIR")]
    logs: Vec<PathBuf>,
    /// Trusted copy of the public checkpoint key; by default the `.pub` file beside each log, which who could edit the
    /// log could have edited too.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Of a report: a mapping that was given when it was made; more than once for more.
    #[arg(long = "mapping", value_name = "FILE")]
    pub(super) mappings: Vec<PathBuf>,
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

/// Why nothing can be proved.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum AuditError {
    #[error("there is no decision log in {places}")]
    #[diagnostic(
        code("MESH-0614"),
        help("logs end in `.jsonl`; a proxy makes its own at the first record")
    )]
    NoLogs { places: String },
}

/// What was found of one log.
#[derive(Debug, Serialize)]
pub(crate) struct LogReport {
    /// The file.
    pub(crate) file: PathBuf,
    /// Whether every line is proved.
    pub(crate) ok: bool,
    /// Whose log it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Lines, proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<u64>,
    /// Decisions among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decisions: Option<u64>,
    /// Records that the log itself says are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// Last line that the signed checkpoint covers; absent: a cut tail would not be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed_through: Option<u64>,
    /// The first bad line and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<CodedError>,
}

/// Proves the logs.
pub(super) fn run(args: &VerifyArgs, output: &mut Output) -> Result<Exit, Fault> {
    let logs = if args.logs.is_empty() {
        let live = Live::read(&args.live)?;
        logs_in(&live.state.join("audit"))?
    } else {
        let mut logs = Vec::new();
        for path in &args.logs {
            if path.is_dir() {
                logs.extend(logs_in(path)?)
            } else {
                logs.push(path.clone())
            }
        }
        logs
    };
    if logs.is_empty() {
        let places: Vec<_> = args
            .logs
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        let places = if places.is_empty() {
            "the running mesh".to_owned()
        } else {
            places.join(", ")
        };
        return Err(Fault::usage(&AuditError::NoLogs { places }));
    }
    let reports: Vec<LogReport> = logs
        .iter()
        .map(|log| report(log, args.key.as_deref()))
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

/// The log files of a folder, by name.
pub(crate) fn logs_in(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let broken = |error: std::io::Error| {
        let error = AuditError::NoLogs {
            places: format!("`{}`: {error}", folder.display()),
        };
        Fault::usage(&error)
    };
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}

/// Proves one log.
pub(crate) fn report(log: &Path, key: Option<&Path>) -> LogReport {
    match prove(log, key) {
        Ok(found) => LogReport {
            file: log.to_path_buf(),
            ok: true,
            origin: Some(found.origin),
            lines: Some(found.lines),
            decisions: Some(found.decisions),
            lost: Some(found.lost),
            sealed_through: found.sealed_through,
            error: None,
        },
        Err(error) => LogReport {
            file: log.to_path_buf(),
            ok: false,
            origin: None,
            lines: None,
            decisions: None,
            lost: None,
            sealed_through: None,
            error: Some(*error),
        },
    }
}

fn prove(log: &Path, key: Option<&Path>) -> Result<mesh_audits::Verified, Box<CodedError>> {
    let seal = seal(log, key)?;
    let file = File::open(log).map_err(|error| {
        Box::new(
            CodedError::from(&mesh_audits::verify::Why::Unreadable {
                why: error.to_string(),
            } as &dyn miette::Diagnostic)
            .at(log.display().to_string()),
        )
    })?;
    // The name says whose log it is; another one under this name was put here.
    let origin = log.file_stem().and_then(|stem| stem.to_str());
    mesh_audits::verify(
        BufReader::new(file),
        &log.display().to_string(),
        origin,
        seal,
    )
    .map_err(|bad| {
        let place = format!("{}:{}", bad.file, bad.line);
        Box::new(CodedError::from(&bad.why as &dyn miette::Diagnostic).at(place))
    })
}

/// The checkpoint of a log, with the key it must be signed by. A checkpoint without a key is refused, not ignored.
pub(super) fn seal(log: &Path, key: Option<&Path>) -> Result<Seal, Box<CodedError>> {
    let coded = |error: &dyn miette::Diagnostic, at: &Path| {
        Box::new(CodedError::from(error).at(at.display().to_string()))
    };
    let checkpoint = beside(log, "checkpoint");
    if !checkpoint.exists() {
        return Ok(Seal::Missing);
    }
    let key = key.map_or_else(|| beside(log, "pub"), Path::to_path_buf);
    let text = files::read(&checkpoint).map_err(|error| coded(&error, &checkpoint))?;
    let parsed = Checkpoint::parse(&text).map_err(|error| coded(&error, &checkpoint))?;
    let text = files::read_to_string(&key).map_err(|error| coded(&error, &key))?;
    let key = PublicKey::parse(text.trim()).map_err(|error| coded(&error, &key))?;
    Ok(Seal::Signed(parsed, key))
}

/// `log` with another extension: `audit/shop.web.checkpoint` for `audit/shop.web.jsonl`.
fn beside(log: &Path, extension: &str) -> PathBuf {
    log.with_extension(extension)
}

fn print(report: &LogReport, output: &mut Output) -> Result<(), Fault> {
    if let Some(error) = &report.error {
        let bad = output.toned(Tone::Bad, "BAD");
        return output.line(format_args!(
            "{bad}   {}\n{}",
            report.file.display(),
            indented(&error.to_text())
        ));
    }
    let ok = output.toned(Tone::Good, "ok ");
    let count = |number: Option<u64>| number.unwrap_or_default();
    let sealed = report.sealed_through.map_or_else(
        || "no signed checkpoint: a cut tail would not be found".to_owned(),
        |line| format!("sealed through line {}", line.saturating_add(1)),
    );
    let lost = match count(report.lost) {
        0 => String::new(),
        lost => format!(", {lost} records lost and noted"),
    };
    let (lines, decisions) = (count(report.lines), count(report.decisions));
    output.line(format_args!(
        "{ok}   {}  {lines} lines, {decisions} decisions{lost}; {sealed}",
        report.file.display()
    ))
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
