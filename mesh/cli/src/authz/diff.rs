//! `mesh authz diff`: what two policies decide differently, for people, for pipelines and for code review.

use super::world::{Mesh, few, print_access, unanswered, warn_inexact};
use super::{outside, revision};
use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::LiveArgs;
use crate::manifests::{Manifests, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::{Args, ValueEnum};
use mesh_compliance::formats::sarif;
use mesh_platform::{Platform as _, System};
use mesh_policy::record::DecisionRecord;
use mesh_policy_analysis::diff::{Change, Diff, diff};
use mesh_policy_analysis::outside::change::OutsideChange;
use mesh_policy_analysis::survey::{Reason, Setting};
use mesh_trust::Timestamp;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What is compared.
#[derive(Args, Clone, Debug)]
pub(crate) struct DiffArgs {
    /// Policy before: a file or folder, `git:REVISION[:PATH]`, `live` for the running mesh, or `cluster`.
    #[arg(value_name = "BEFORE")]
    before: String,
    /// Policy after, in the same forms.
    #[arg(value_name = "AFTER")]
    after: String,
    /// What ends the command with 1.
    #[arg(long, value_enum, default_value_t, value_name = "CHANGE")]
    fail_on: FailOn,
    #[command(flatten)]
    settings: MeshSettings,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Time to decide at, RFC 3339. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    at: Option<Timestamp>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: DiffFormat,
}

/// What ends the command with 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Any difference.
    #[default]
    Any,
    /// Access that is gained; what is only lost is no failure.
    Gained,
}

/// Form of the difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// For people.
    #[default]
    Text,
    /// All of it.
    Json,
    /// For a comment on a change.
    Markdown,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

impl DiffArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            DiffFormat::Text | DiffFormat::Markdown => Format::Text,
            DiffFormat::Json | DiffFormat::Sarif => Format::Json,
        }
    }

    fn open(&self, text: &str, now: Timestamp) -> Result<Mesh, Fault> {
        if text == "live" {
            return Mesh::live(&self.live, now);
        }
        if text == "cluster" {
            let (manifests, settings) = self.cluster.manifests(&self.settings)?;
            return Ok(Mesh::of(manifests, &settings, now));
        }
        let manifests = match text.strip_prefix("git:") {
            Some(revision) => Manifests::of(revision::read(revision)?, &self.settings),
            None => Manifests::read(&[PathBuf::from(text)], &self.settings)?,
        };
        Ok(Mesh::of(manifests, &self.settings, now))
    }
}

/// Compares, and ends with 1 if there is a difference, with 11 if none is found but not all could be asked.
pub(crate) fn run(args: &DiffArgs, output: &mut Output) -> Result<Exit, Fault> {
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let (before, after) = (args.open(&args.before, now)?, args.open(&args.after, now)?);
    let setting = Setting {
        now,
        known: &[],
        texts: &[],
        structural: false,
    };
    let found = diff(before.world.as_ref(), after.world.as_ref(), setting).map_err(unanswered)?;
    match args.output {
        DiffFormat::Text => text(&found, output)?,
        DiffFormat::Json => output.value(Format::Json, &found, |_, _| Ok(()))?,
        DiffFormat::Markdown => markdown(&found, output)?,
        DiffFormat::Sarif => output.value(Format::Json, &sarif_log(&found), |_, _| Ok(()))?,
    }
    output.talk(format_args!(
        "{} gained, {} lost, {} new findings, {} gone",
        found.gained.len() + found.outside.gained.len(),
        found.lost.len() + found.outside.lost.len(),
        found.new_findings.len(),
        found.gone_findings.len()
    ));
    warn_inexact(found.exact, &found.notes, output);
    let fails = match args.fail_on {
        FailOn::Any => !found.is_empty(),
        FailOn::Gained => !found.gained.is_empty() || !found.outside.gained.is_empty(),
    };
    Ok(match (fails, found.exact) {
        (true, _) => Exit::Failure,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Undecidable,
    })
}

fn text(found: &Diff, output: &mut Output) -> Result<(), Fault> {
    for (sign, tone, changes) in [
        ("+", Tone::Bad, &found.gained),
        ("-", Tone::Doubtful, &found.lost),
    ] {
        for change in changes {
            let sign = output.toned(tone, sign);
            let who = few(&change.access.who);
            output.line(format_args!(
                "{sign} {who} -> {}:{}",
                change.workload, change.port
            ))?;
            print_access(&change.access, output)?;
            output.line(format_args!(
                "    was  {}; is {}",
                said(&change.before),
                said(&change.after)
            ))?;
            output.line(format_args!("    e.g. {}", printable(&record(change))))?;
        }
    }
    outside::print_diff(&found.outside, output)?;
    for (sign, findings) in [("+", &found.new_findings), ("-", &found.gone_findings)] {
        for finding in findings {
            output.line(format_args!(
                "{sign} {} {}: {}",
                finding.code,
                finding.source,
                printable(&finding.message)
            ))?;
        }
    }
    Ok(())
}

fn said(decision: &DecisionRecord) -> String {
    let word = |value: Result<Value, serde_json::Error>| {
        value
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let (verdict, phase) = (
        word(serde_json::to_value(decision.verdict)),
        word(serde_json::to_value(decision.phase)),
    );
    format!("{verdict} (phase {phase})")
}

fn record(change: &Change) -> String {
    serde_json::to_string(&change.access.witness).unwrap_or_default()
}

fn markdown(found: &Diff, output: &mut Output) -> Result<(), Fault> {
    output.line(format_args!(
        "### Access: {} gained, {} lost\n",
        found.gained.len() + found.outside.gained.len(),
        found.lost.len() + found.outside.lost.len()
    ))?;
    if !found.exact {
        output.line(
            "**Not exact**: not every class of requests could be asked; there may be more.\n",
        )?;
    }
    for (title, changes, outside) in [
        ("Gained", &found.gained, &found.outside.gained),
        ("Lost", &found.lost, &found.outside.lost),
    ] {
        if changes.is_empty() && outside.is_empty() {
            continue;
        }
        output.line(format_args!(
            "| {title}: who | where | what | by |\n|---|---|---|---|"
        ))?;
        let rows = changes.iter().map(cells);
        for cells in rows.chain(outside.iter().map(outside::cells)) {
            output.line(format_args!(
                "| {} |",
                cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
            ))?;
        }
        output.line("")?;
    }
    if !found.new_findings.is_empty() {
        output.line("New findings:\n")?;
    }
    for finding in &found.new_findings {
        output.line(format_args!(
            "- {} {}: {}",
            finding.code,
            finding.source,
            printable(&finding.message)
        ))?;
    }
    Ok(())
}

/// Cells of a table: who, where, what, by.
fn cells(change: &Change) -> [String; 4] {
    let by: Vec<String> = change.access.reasons.iter().map(by).collect();
    [
        few(&change.access.who),
        format!("{}:{}", change.workload, change.port),
        few(&change.access.requests),
        few(&by),
    ]
}

fn by(reason: &Reason) -> String {
    format!("{} ({})", reason.policy, reason.source)
}

/// The difference as a SARIF log: each change at the policy that grants it.
fn sarif_log(found: &Diff) -> Value {
    let result = |rule: &str, level: &str, change: &Change| {
        let locations: Vec<Value> = change.access.reasons.iter().filter_map(location).collect();
        let who = change.access.who.join(", ");
        let text = format!(
            "{who} {} access to {}:{}: {}",
            if rule == "access-gained" {
                "gains"
            } else {
                "loses"
            },
            change.workload,
            change.port,
            change.access.requests.join(", ")
        );
        json!({
            "ruleId": rule, "level": level, "message": { "text": text }, "locations": locations,
            "properties": { "witness": change.access.witness },
        })
    };
    let gained = found
        .gained
        .iter()
        .map(|change| result("access-gained", "warning", change));
    let lost = found
        .lost
        .iter()
        .map(|change| result("access-lost", "note", change));
    let outside = |rule: &'static str, level: &'static str| {
        move |change: &OutsideChange| outside_result(rule, level, change)
    };
    let out = found.outside.gained.iter();
    let out = out.map(outside("egress-gained", "warning"));
    let kept = found.outside.lost.iter();
    let kept = kept.map(outside("egress-lost", "note"));
    let results: Vec<Value> = gained.chain(lost).chain(out).chain(kept).collect();
    let rules = [
        "access-gained",
        "access-lost",
        "egress-gained",
        "egress-lost",
    ]
    .map(|id| json!({ "id": id }));
    sarif::log(
        env!("CARGO_PKG_VERSION"),
        rules.to_vec(),
        results,
        json!({}),
    )
}

/// What leaves the mesh, at the network or route that lets it out; if none does, at the one that kept it in.
fn outside_result(rule: &str, level: &str, change: &OutsideChange) -> Value {
    let access = &change.access;
    let places = match access.reasons.is_empty() {
        true => &change.closed_by,
        false => &access.reasons,
    };
    let verb = match rule {
        "egress-gained" => "gains",
        _ => "loses",
    };
    let text = format!(
        "{} {verb} access to outside {}: {}",
        change.workloads.join(", "),
        outside::place(access),
        outside::sent(access)
    );
    json!({
        "ruleId": rule, "level": level, "message": { "text": text },
        "locations": places.iter().filter_map(location).collect::<Vec<_>>(),
        "properties": { "witness": access.witness },
    })
}

/// `file:line` as SARIF has it; none for what is built in.
fn location(reason: &Reason) -> Option<Value> {
    let (file, line) = reason.source.rsplit_once(':')?;
    let line: u32 = line.parse().ok()?;
    Some(sarif::location(file, line, None, None))
}
