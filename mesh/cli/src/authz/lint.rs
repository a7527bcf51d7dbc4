//! `mesh authz lint`: what is wrong or doubtful in manifests, with file, line and column.

use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{Manifests, MeshSettings, exit_for};
use crate::output::{Format, Output, Tone, printable};
use clap::{Args, ValueEnum};
use mesh_compliance::formats::sarif;
use mesh_policy::Snapshot;
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{Finding, Severity, Source};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is linted.
#[derive(Args, Clone, Debug)]
pub(crate) struct LintArgs {
    /// Files and folders of manifests; without any, the objects of the cluster.
    #[arg(value_name = "DIR", required_unless_present_any = ["files", "cluster", "kubeconfig", "context"])]
    paths: Vec<PathBuf>,
    /// The same, as other commands take them.
    #[arg(short, long = "file", value_name = "DIR")]
    files: Vec<PathBuf>,
    /// From which severity on the command fails.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    #[command(flatten)]
    settings: MeshSettings,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: LintFormat,
}

/// From which severity on a command fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Warnings end the command with 3.
    Warn,
    /// Only errors count.
    #[default]
    Error,
}

/// Form of the findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LintFormat {
    /// One block a finding.
    #[default]
    Text,
    /// A list of findings.
    Json,
    /// The same as YAML.
    Yaml,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

impl LintArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            LintFormat::Text => Format::Text,
            LintFormat::Json | LintFormat::Yaml | LintFormat::Sarif => Format::Json,
        }
    }
}

/// Prints what is wrong.
pub(crate) fn run(args: &LintArgs, output: &mut Output) -> Result<Exit, Fault> {
    let paths = [args.paths.as_slice(), &args.files].concat();
    let (manifests, of) = match paths.is_empty() {
        true => (args.cluster.manifests(&args.settings)?.0, "objects"),
        false => (Manifests::read(&paths, &args.settings)?, "files"),
    };
    for (workload, _) in manifests.index.workloads() {
        // What does not compile in a proxy must not pass here.
        manifests.snapshot(workload)?;
    }
    if let Some(candidate) = &manifests.candidate {
        let workloads = candidate.workloads();
        let snapshots =
            workloads.filter_map(|(key, _)| candidate.snapshot(key, Generation::default()));
        for data in snapshots {
            Snapshot::compile(data)?;
        }
    }
    let mut findings = manifests.findings();
    findings.extend(manifests.index.surplus());
    findings.sort_by(|a, b| (&a.source, &a.code).cmp(&(&b.source, &b.code)));
    match args.output {
        LintFormat::Text => text(&findings, output)?,
        LintFormat::Json => output.value(Format::Json, &findings, |_, _| Ok(()))?,
        LintFormat::Yaml => output.value(Format::Yaml, &findings, |_, _| Ok(()))?,
        LintFormat::Sarif => output.value(Format::Json, &sarif_log(&findings), |_, _| Ok(()))?,
    }
    let count = |severity: Severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    output.talk(format_args!(
        "{} errors, {} warnings, {} notes in {} {of}",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Info),
        manifests.files.len(),
    ));
    Ok(exit_for(&findings, args.fail_on == FailOn::Warn))
}

fn text(findings: &[Finding], output: &mut Output) -> Result<(), Fault> {
    for finding in findings {
        let (word, tone) = match finding.severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Doubtful),
            Severity::Info => ("note", Tone::Strong),
        };
        let word = output.toned(tone, word);
        output.line(format_args!(
            "{}: {word} {}: {}",
            place(&finding.source),
            finding.code,
            printable(&finding.message)
        ))?;
        if let Some(object) = &finding.object {
            output.line(format_args!(
                "  object: {} {}/{}",
                object.kind, object.namespace, object.name
            ))?;
        }
        if let Some(hint) = &finding.hint {
            output.line(format_args!("  help: {}", printable(hint)))?;
        }
    }
    Ok(())
}

/// `file:line:column`.
fn place(source: &Source) -> String {
    match source {
        Source::File {
            file, line, column, ..
        } => format!("{file}:{line}:{column}"),
        Source::BuiltIn(_) => source.to_string(),
    }
}

/// The findings as a SARIF log.
fn sarif_log(findings: &[Finding]) -> serde_json::Value {
    let rules: BTreeSet<&str> = findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    let results = findings.iter().map(|finding| {
        let level = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "note",
        };
        let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let locations: Vec<_> = sarif::location_of(&finding.source).into_iter().collect();
        let message = json!({ "text": format!("{}{hint}", finding.message) });
        json!({ "ruleId": finding.code, "level": level, "message": message, "locations": locations })
    });
    let rules = rules.iter().map(|code| json!({ "id": code })).collect();
    sarif::log(
        env!("CARGO_PKG_VERSION"),
        rules,
        results.collect(),
        json!({}),
    )
}
