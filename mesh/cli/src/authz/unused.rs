//! `mesh authz unused`: which parts of policy recorded traffic did not use, and which can never apply.

use super::records::{RecordArgs, warn_of_gaps};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy_analysis::unused::{State, Use, Uses};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::cell::RefCell;
use std::path::PathBuf;

/// What is looked at.
#[derive(Args, Clone, Debug)]
pub(crate) struct UnusedArgs {
    /// The policy: a file or folder of manifests, more than once if need be.
    #[arg(short, long = "file", required = true, value_name = "DIR")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    settings: MeshSettings,
    /// Time to judge ends of grants at, RFC 3339. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    at: Option<Timestamp>,
    /// Lists what is used too, with counts.
    #[arg(long)]
    all: bool,
    /// With `warn`, whatever is unused ends the command with 3.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: super::lint::FailOn,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    /// Records read.
    records: u64,
    /// Further records, of what left the mesh or was to: EgressNetworks and routes on them are judged by these.
    left: u64,
    /// Records that logs say are missing.
    lost: u64,
    /// Whether logs are among them, which hold of what was allowed a sample and what was new.
    sampled: bool,
    /// Time of the first record, and of the last.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    parts: Vec<Use>,
}

/// Lists what is unused. Ends with 3 under `--fail-on warn` if there is anything.
pub(crate) fn run(args: &UnusedArgs, output: &mut Output) -> Result<Exit, Fault> {
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let manifests = Manifests::read(&args.files, &args.settings)?;
    let index = &manifests.index;
    let mut uses = Uses::new(index);
    let uses_of = RefCell::new(&mut uses);
    let tally = args.records.each_and_left(
        |_, _, record, _| {
            uses_of.borrow_mut().add(record);
            Ok(())
        },
        |record| uses_of.borrow_mut().add_left(record),
    )?;
    let mut parts = uses.report(&index.policy_objects(), index.findings(), now);
    let unused = |one: &Use| one.state != State::Used;
    let any = parts.iter().any(unused);
    if !args.all {
        parts.retain(unused);
    }
    let report = Report {
        records: uses.records,
        left: uses.left,
        lost: tally.lost,
        sampled: tally.sampled,
        first: uses.window.map(|(first, _)| first),
        last: uses.window.map(|(_, last)| last),
        parts,
    };
    output.value(args.output, &report, print)?;
    warn_of_gaps(tally, output);
    if uses.strangers > 0 {
        output.talk(format_args!(
            "{} records are of workloads that the manifests do not name",
            uses.strangers
        ));
    }
    if uses.left == 0
        && report
            .parts
            .iter()
            .any(|one| one.kind.starts_with("egress"))
    {
        output.talk("no record is of what leaves the mesh: whether its EgressNetworks and their routes are used is not known; a proxy without `audit` records none");
    }
    let fails = any && args.fail_on == super::lint::FailOn::Warn;
    Ok(if fails { Exit::Warnings } else { Exit::Ok })
}

fn print(output: &mut Output, report: &Report) -> Result<(), Fault> {
    for part in &report.parts {
        let (word, tone, why) = match &part.state {
            State::NeverApplies(why) => ("never applies", Tone::Bad, Some(why)),
            State::NeverUsed => ("never used", Tone::Doubtful, None),
            State::NeverNeeded => ("never needed", Tone::Doubtful, None),
            State::Used => ("used", Tone::Good, None),
        };
        let word = output.toned(tone, word);
        let count = match part.count {
            0 => String::new(),
            count => format!("  ({count} records)"),
        };
        output.line(format_args!(
            "{word}  {} {}  {}{count}",
            part.kind,
            printable(&part.name),
            printable(&part.source)
        ))?;
        if let Some(why) = why {
            output.line(format_args!("    {}", printable(why)))?;
        }
    }
    let window = match (report.first, report.last) {
        (Some(first), Some(last)) => format!(", from {first} to {last}"),
        _ => String::new(),
    };
    let unused = report.parts.iter().filter(|one| one.state != State::Used);
    output.line(format_args!(
        "{} unused, by {} records{window}",
        unused.count(),
        report.records
    ))
}
