//! `mesh audit`: the logs, and what they show.
//!
//! - [`verify`]: proves logs, or names the first bad line of each
//! - [`proof`]: proves one line to somebody who has not the log
//! - [`redact`]: takes texts out of a log
//! - [`witness`]: watches logs and cosigns them
//! - [`logs`]: which logs are meant, their keys and witnesses
//! - [`source`]: what reports are made of: a running mesh, the state that one left, or a bundle
//! - [`collect`]: a snapshot bundle of a state directory
//! - [`run`], [`check`], [`diff`]: reports: written, checked offline, compared
//! - [`evidence`], [`controls`], [`watch`]: the rows behind a number; the mappings; a report again and again

mod check;
mod collect;
mod controls;
mod diff;
mod evidence;
mod logs;
mod proof;
mod redact;
mod run;
mod source;
mod verify;
mod watch;
mod witness;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Subcommand;
pub(crate) use logs::logs_in;
pub(crate) use verify::report;

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
    /// Proves one line of a log to somebody who has only its public key.
    Prove(proof::ProveArgs),
    /// Checks such a proof.
    CheckProof(proof::CheckProofArgs),
    /// Takes texts out of a log that were logged so that this is possible.
    Redact(redact::RedactArgs),
    /// Watches logs as a second keeper, and cosigns what they sign as long as they only grow.
    Witness(witness::WitnessArgs),
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
            Self::CheckProof(args) => args.output,
            Self::Run(_)
            | Self::Collect(_)
            | Self::Prove(_)
            | Self::Redact(_)
            | Self::Witness(_) => Format::Text,
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
        AuditCommand::Prove(args) => proof::prove(args, output),
        AuditCommand::CheckProof(args) => proof::check(args, output),
        AuditCommand::Redact(args) => redact::run(args, output),
        AuditCommand::Witness(args) => witness::run(args, output),
    }
}
