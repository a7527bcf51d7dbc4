//! `mesh authz` and `mesh policy`: why, what if, what is wrong.
//!
//! - [`explain`]: one request, every layer of its decision
//! - [`replay`]: a file of requests, one decision record each
//! - [`lint`]: what is wrong or doubtful in manifests
//! - [`cedar`]: the Cedar policies that manifests become
//! - [`verify`]: whether the compiled matcher and Cedar are the same
//! - [`target`]: `--from` and `--to`
//! - [`policy`]: where decisions come from, manifests or running proxies

mod cedar;
mod explain;
mod lint;
mod policy;
mod replay;
mod target;
mod verify;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Subcommand;

/// Questions about authorization.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum AuthzCommand {
    /// Says whether a request is allowed, by what, and if not what is missing. Ends with 0 if it is, 10 if not, 11 if
    /// that cannot be decided.
    Explain(Box<explain::ExplainArgs>),
    /// Decides recorded requests, one decision record each, in order.
    Replay(replay::ReplayArgs),
    /// Finds what is wrong or doubtful in manifests. Ends with 1 for errors, 2 for input that cannot be read, 3 for
    /// warnings under `--fail-on warn`.
    Lint(lint::LintArgs),
}

/// Policies as the engine sees them.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum PolicyCommand {
    /// Prints the Cedar policies that manifests become, each with its place.
    Cedar(cedar::CedarArgs),
    /// Tries every grant by the compiled matcher and by Cedar, on each combination of what it asks. Ends with 1 if the two
    /// differ anywhere.
    Verify(cedar::CedarArgs),
}

impl AuthzCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Explain(args) => args.output,
            Self::Replay(_) => Format::Json,
            Self::Lint(args) => args.format(),
        }
    }
}

impl PolicyCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        let (Self::Cedar(args) | Self::Verify(args)) = self;
        args.output
    }
}

/// Runs one of the questions.
pub(crate) fn run(command: AuthzCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        AuthzCommand::Explain(args) => explain::run(&args, output),
        AuthzCommand::Replay(args) => replay::run(&args, output),
        AuthzCommand::Lint(args) => lint::run(&args, output),
    }
}

/// Runs one of the views of policy.
pub(crate) fn run_policy(command: PolicyCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        PolicyCommand::Cedar(args) => cedar::run(&args, output),
        PolicyCommand::Verify(args) => verify::run(&args, output),
    }
}
