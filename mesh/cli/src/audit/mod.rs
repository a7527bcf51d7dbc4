//! `mesh audit`: the logs, and what they show.
//!
//! - [`verify`]: proves decision logs, or names the first bad line of each
//! - [`source`]: what reports are made of: a running mesh, the state that one left, or a bundle
//! - [`collect`]: a snapshot bundle of a state directory
//! - [`run`], [`check`], [`diff`]: reports: written, checked offline, compared
//! - [`evidence`], [`controls`], [`watch`]: the rows behind a number; the mappings; a report again and again

mod check;
mod collect;
mod controls;
mod diff;
mod evidence;
mod run;
mod source;
mod verify;
mod watch;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Subcommand;
pub(crate) use verify::{logs_in, report};

/// Decision logs, and reports made of them.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum AuditCommand {
    /// Proves that no record of a log was changed, removed or added; or that a report is what was signed.
    Verify(verify::VerifyArgs),
    /// Makes a report: evidence of a window of time, held against the controls of frameworks.
    Run(run::RunArgs),
    /// Writes a snapshot bundle: all that a report is made of, in one file.
    Collect(collect::CollectArgs),
    /// Says what changed between two reports.
    Diff(diff::DiffArgs),
    /// Prints the rows of one kind of evidence, or the access review.
    Evidence(evidence::EvidenceArgs),
    /// Lists which controls are held against what, and what the mesh does not cover of each.
    Controls(controls::ControlsArgs),
    /// Makes the report again and again, and says what changed.
    Watch(watch::WatchArgs),
}

impl AuditCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Verify(args) => args.output,
            Self::Diff(args) => args.output,
            Self::Evidence(args) => args.format(),
            Self::Controls(args) => args.output,
            Self::Watch(args) => args.output,
            Self::Run(_) | Self::Collect(_) => Format::Text,
        }
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: &AuditCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        AuditCommand::Verify(args) => match args.report() {
            Some(folder) => check::run(args, folder, output),
            None => verify::run(args, output),
        },
        AuditCommand::Run(args) => run::run(args, output),
        AuditCommand::Collect(args) => collect::run(args, output),
        AuditCommand::Diff(args) => diff::run(args, output),
        AuditCommand::Evidence(args) => evidence::run(args, output),
        AuditCommand::Controls(args) => controls::run(args, output),
        AuditCommand::Watch(args) => watch::run(args, output),
    }
}
