//! `mesh audit`: the logs, and what they show.
//!
//! - [`verify`]: proves decision logs, or names the first bad line of each

mod verify;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Subcommand;
pub(crate) use verify::{logs_in, report};

/// Decision logs.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum AuditCommand {
    /// Proves that no record of a log was changed, removed or added.
    Verify(verify::VerifyArgs),
}

impl AuditCommand {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Verify(args) => args.output,
        }
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: &AuditCommand, output: &mut Output) -> Result<Exit, Fault> {
    match command {
        AuditCommand::Verify(args) => verify::run(args, output),
    }
}
