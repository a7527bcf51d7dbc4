//! `mesh authz shadow`: a candidate policy beside the live one, over recorded traffic; or what proxies recorded of one that
//! they tried (`mesh.internal/shadow`).

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
    #[arg(
        short,
        long = "file",
        required_unless_present = "recorded",
        value_name = "DIR"
    )]
    files: Vec<PathBuf>,
    /// The policy that may take its place, in the same form. Without it, the one that the annotation
    /// `mesh.internal/shadow` makes of the live one.
    #[arg(long, value_name = "DIR")]
    candidate: Vec<PathBuf>,
    /// Decide nothing: what proxies recorded of the candidate that they try beside the live policy.
    #[arg(long, conflicts_with_all = ["files", "candidate", "at"])]
    recorded: bool,
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

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum ShadowError {
    #[error("there is no candidate: no object has the annotation `mesh.internal/shadow`")]
    #[diagnostic(
        code("MESH-0669"),
        help(
            "name the candidate's manifests with `--candidate`, or annotate what it adds and removes"
        )
    )]
    NoCandidate,
}

/// Compares. Ends with 1 if access is gained or lost, as `diff` does.
pub(crate) fn run(args: &ShadowArgs, output: &mut Output) -> Result<Exit, Fault> {
    if args.recorded {
        return recorded(args, output);
    }
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let live = Manifests::read(&args.files, &args.settings)?;
    let candidate = match args.candidate.as_slice() {
        [] => live.candidate.clone(),
        paths => Some(Manifests::read(paths, &args.settings)?.index),
    };
    let candidate = candidate.ok_or_else(|| Fault::usage(&ShadowError::NoCandidate))?;
    let (mut one, mut other) = (Replay::new(&live.index, now), Replay::new(&candidate, now));
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
    Ok(report.exit())
}

/// Says what records hold of a candidate that proxies tried.
fn recorded(args: &ShadowArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mut shadow = Shadow::default();
    let tally = args.records.each(|_, _, record, _| {
        shadow.add_recorded(record);
        Ok(())
    })?;
    let report = Report {
        requests: shadow.requests(),
        drifted: 0,
        differences: shadow.differences(),
    };
    output.value(args.output, &report, print)?;
    warn_of_gaps(tally, output);
    output.talk("counts are of records; the proxies' metric `mesh_shadow_decisions_total` counts every decision");
    Ok(report.exit())
}

impl Report {
    fn exit(&self) -> Exit {
        match self.differences.is_empty() {
            true => Exit::Ok,
            false => Exit::Failure,
        }
    }
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
