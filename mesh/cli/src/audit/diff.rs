//! `mesh audit diff`: drift from one report to the next.

use super::run::REPORT_FILE;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use mesh_compliance::drift::Drift;
use mesh_compliance::report::Report;
use mesh_platform::files;
use std::path::{Path, PathBuf};

/// Bytes of a report.
const REPORT_BYTES_MAX: u64 = 512 << 20;

/// Which reports.
#[derive(Args, Clone, Debug)]
pub(crate) struct DiffArgs {
    /// The older report: its folder, or its `report.json`.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The newer one.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Ends with 1 if a control is worse, or a finding new.
    #[arg(long)]
    fail: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Says what changed.
pub(super) fn run(args: &DiffArgs, output: &mut Output) -> Result<Exit, Fault> {
    let drift = Drift::of(&read(&args.old)?, &read(&args.new)?);
    output.value(args.output, &drift, print)?;
    let fails = args.fail && drift.is_worse();
    Ok(if fails { Exit::Failure } else { Exit::Ok })
}

fn read(path: &Path) -> Result<Report, Fault> {
    let file = if path.is_dir() {
        path.join(REPORT_FILE)
    } else {
        path.to_owned()
    };
    let bytes =
        files::read_limited(&file, REPORT_BYTES_MAX).map_err(|error| Fault::usage(&error))?;
    Report::parse(&file.display().to_string(), &bytes).map_err(|error| Fault::usage(&error))
}

/// The drift for people.
pub(super) fn print(output: &mut Output, drift: &Drift) -> Result<(), Fault> {
    for one in &drift.controls {
        let text = |status: Option<mesh_compliance::judge::Status>| {
            status.map_or("-", mesh_compliance::judge::Status::text)
        };
        let (word, tone) = if one.worse {
            ("worse ", Tone::Bad)
        } else {
            ("change", Tone::Good)
        };
        let word = output.toned(tone, word);
        output.line(format_args!(
            "{word}  {} {}: {} -> {}  {}",
            one.framework,
            one.id,
            text(one.old),
            text(one.new),
            printable(&one.title)
        ))?;
    }
    for (word, tone, findings) in [
        ("new   ", Tone::Bad, &drift.new),
        ("gone  ", Tone::Good, &drift.gone),
    ] {
        let word = output.toned(tone, word);
        for one in findings {
            output.line(format_args!(
                "{word}  {} {}",
                one.check,
                printable(&one.message)
            ))?;
        }
    }
    for one in &drift.metrics {
        output.line(format_args!(
            "number  {} in {}: {} -> {}",
            one.metric, one.scope, one.old, one.new
        ))?;
    }
    output.line(format_args!(
        "{} controls changed, {} findings new, {} gone",
        drift.controls.len(),
        drift.new.len(),
        drift.gone.len()
    ))
}
