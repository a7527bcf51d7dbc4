//! `mesh check`: every part of a running mesh, what is broken, and the command that mends it.
//!
//! - [`item`]: what one check says
//! - [`machine`]: state directory, processes, keys and certificates on disk, sockets
//! - [`parts`]: controller and proxies, as their admin sockets answer
//! - [`trust`]: roots, who acknowledged them, a rotation under way

mod item;
mod machine;
mod parts;
mod trust;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output, Tone};
use clap::{Args, ValueEnum};
use item::{Item, Status};

/// What is checked, and from when on it fails.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    live: LiveArgs,
    /// From which severity on the command fails.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// From which severity on the check fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Warnings end the command with 3.
    Warn,
    /// Only what is broken counts.
    #[default]
    Error,
}

/// Checks everything and prints it.
pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> Result<Exit, Fault> {
    let live = Live::read(&args.live)?;
    let mut items = machine::check(&live);
    if live.supervisor_is_alive() {
        items.extend(live::wait(async {
            let mut items = trust::check(&live).await;
            items.extend(parts::check(&live).await);
            Ok(items)
        })?);
    }
    items.extend(machine::check_logs(&live));
    output.value(args.output, &items, |output, items| print(items, output))?;
    let any = |status: Status| items.iter().any(|item| item.status == status);
    Ok(
        match (any(Status::Broken), any(Status::Doubtful), args.fail_on) {
            (true, _, _) => Exit::Failure,
            (false, true, FailOn::Warn) => Exit::Warnings,
            _ => Exit::Ok,
        },
    )
}

fn print(items: &[Item], output: &mut Output) -> Result<(), Fault> {
    let mut category = "";
    for item in items {
        if item.category != category {
            category = item.category;
            let heading = output.toned(Tone::Strong, category);
            output.line(heading)?;
        }
        let mark = match item.status {
            Status::Ok => output.toned(Tone::Good, "ok  "),
            Status::Doubtful => output.toned(Tone::Doubtful, "warn"),
            Status::Broken => output.toned(Tone::Bad, "FAIL"),
        };
        let code = item
            .code
            .as_ref()
            .map(|code| format!(" {code}"))
            .unwrap_or_default();
        output.line(format_args!("  {mark}{code} {}", item.says))?;
        if let Some(fix) = &item.fix {
            output.line(format_args!("         fix: {fix}"))?;
        }
    }
    let count = |status: Status| items.iter().filter(|item| item.status == status).count();
    output.talk(format_args!(
        "{} checks: {} ok, {} warnings, {} failures",
        items.len(),
        count(Status::Ok),
        count(Status::Doubtful),
        count(Status::Broken),
    ));
    Ok(())
}
