//! `mesh authz shadow`: a candidate policy beside the live one, over recorded traffic.

use super::records::{RecordArgs, warn_of_gaps};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use mesh_platform::{Platform as _, System};
use mesh_policy_analysis::records::request;
use mesh_policy_analysis::shadow::{Difference, Shadow, Turn, Why};
use mesh_policy_index::replay::Replay;
use mesh_trust::Timestamp;
use serde::Serialize;
use std::path::PathBuf;

/// What is compared.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShadowArgs {
    /// The live policy: a file or folder of manifests, more than once if need be.
    #[arg(short, long = "file", required = true, value_name = "DIR")]
    files: Vec<PathBuf>,
    /// The policy that may take its place, in the same form.
    #[arg(long, required = true, value_name = "DIR")]
    candidate: Vec<PathBuf>,
    #[command(flatten)]
    records: RecordArgs,
    #[command(flatten)]
    settings: MeshSettings,
    /// Time to decide at, RFC 3339. Each record's own time, if not given; now for records without one.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    at: Option<Timestamp>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    /// Requests that were decided by both.
    requests: u64,
    /// Of these, decided otherwise by the live policy than they were recorded.
    drifted: u64,
    differences: Vec<Difference>,
}

/// Compares. Ends with 1 if access is gained or lost, as `diff` does.
pub(crate) fn run(args: &ShadowArgs, output: &mut Output) -> Result<Exit, Fault> {
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let live = Manifests::read(&args.files, &args.settings)?;
    let candidate = Manifests::read(&args.candidate, &args.settings)?;
    let (mut one, mut other) = (
        Replay::new(&live.index, now),
        Replay::new(&candidate.index, now),
    );
    let mut shadow = Shadow::default();
    let (mut drifted, mut cuts) = (0_u64, 0_u64);
    let tally = args.records.each(|_, _, record, cut| {
        if cut {
            cuts = cuts.saturating_add(1);
            return Ok(());
        }
        let at = args.at.or(record.time).unwrap_or(now);
        one.set_time(at);
        other.set_time(at);
        let asked = request(record);
        let (before, after) = (one.decide(&asked), other.decide(&asked));
        drifted = drifted.saturating_add(u64::from(before.verdict != record.verdict));
        shadow.add(&asked, &before, &after);
        Ok(())
    })?;
    let report = Report {
        requests: shadow.requests(),
        drifted,
        differences: shadow.differences(),
    };
    output.value(args.output, &report, print)?;
    warn_of_gaps(tally, output);
    if cuts > 0 {
        output.talk(format_args!(
            "{cuts} records were cut by the log and are not compared"
        ));
    }
    if drifted > 0 {
        output.talk(format_args!(
            "{drifted} requests are decided otherwise by the live policy than they were recorded: it changed since, rate limits spoke, or headers decide, which records do not hold"
        ));
    }
    Ok(if report.differences.is_empty() {
        Exit::Ok
    } else {
        Exit::Failure
    })
}

fn print(output: &mut Output, report: &Report) -> Result<(), Fault> {
    let (mut gained, mut lost) = (0_u64, 0_u64);
    for one in &report.differences {
        let (sign, tone, count) = match one.turn {
            Turn::Gained => ("+", Tone::Bad, &mut gained),
            Turn::Lost => ("-", Tone::Doubtful, &mut lost),
        };
        *count = count.saturating_add(one.count);
        let sign = output.toned(tone, sign);
        let from = one.from.as_deref().unwrap_or("nobody known");
        output.line(format_args!(
            "{sign} {} -> {}  ({} requests)",
            printable(from),
            printable(&one.to),
            one.count
        ))?;
        output.line(format_args!(
            "    live       {}",
            printable(&said(&one.live))
        ))?;
        output.line(format_args!(
            "    candidate  {}",
            printable(&said(&one.candidate))
        ))?;
        let witness = serde_json::to_string(&one.witness).unwrap_or_default();
        output.line(format_args!("    e.g. {}", printable(&witness)))?;
    }
    output.line(format_args!(
        "{} requests: {gained} gain access, {lost} lose it",
        report.requests
    ))
}

fn said(why: &Why) -> String {
    let reasons = if why.reasons.is_empty() {
        "no reasons".to_owned()
    } else {
        why.reasons.join(", ")
    };
    match &why.route {
        Some(route) => format!("phase {}, {route}, {reasons}", why.phase),
        None => format!("phase {}, {reasons}", why.phase),
    }
}
