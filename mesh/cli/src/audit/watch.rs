//! `mesh audit watch`: the report again and again, and what changed each time.

use super::diff;
use super::run::FrameworkArgs;
use super::source::SourceArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Args;
use mesh_compliance::drift::Drift;
use mesh_compliance::report::{self, Report};
use std::time::Duration;

/// What is watched.
#[derive(Args, Clone, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    frameworks: FrameworkArgs,
    /// Time between two reports.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::arguments::duration)]
    every: Duration,
    /// Ends after so many reports; without it, when it is interrupted.
    #[arg(long, value_name = "NUMBER")]
    times: Option<u64>,
    /// Form of the answer; `json` has one line for each report.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Watches. The first report says how everything stands, each later one what changed.
pub(super) fn run(args: &WatchArgs, output: &mut Output) -> Result<Exit, Fault> {
    let (frameworks, _) = args.frameworks.read()?;
    let mut last: Option<Report> = None;
    for number in 1_u64.. {
        let source = args.source.open()?;
        let digest = mesh_compliance::bundle::digest(&source.bytes);
        let report = report::run(&source.bundle, &digest, &frameworks);
        match (&last, args.output) {
            (None, Format::Json | Format::Yaml) => output.json_line(&report)?,
            (None, _) => super::run::print(&report, output)?,
            (Some(last), Format::Json | Format::Yaml) => {
                output.json_line(&Drift::of(last, &report))?
            }
            (Some(last), _) => {
                output.line(format_args!("{}", report.scope.until))?;
                diff::print(output, &Drift::of(last, &report))?;
            }
        }
        output.flush()?;
        last = Some(report);
        if output.is_closed() || args.times.is_some_and(|times| number >= times) {
            break;
        }
        std::thread::sleep(args.every);
    }
    Ok(Exit::Ok)
}
