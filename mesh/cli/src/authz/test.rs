//! `mesh authz test`: what policy must decide, case by case; which parts of it the cases exercise, and which mistakes in it
//! they would notice.
//!
//! - [`file`]: a file of cases, from text to cases
//! - [`junit`]: the report that pipelines read

mod file;
mod junit;

use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{self, MeshSettings};
use crate::output::{Format, Output, Tone, printable};
use clap::Args;
use file::{CaseFileError, Suite};
use mesh_platform::{Platform as _, System, files};
use mesh_policy::record::DecisionRecord;
use mesh_policy::snapshot::Severity;
use mesh_policy_analysis::cases::{Bench, Case, Outcome};
use mesh_policy_analysis::coverage::{Coverage, Part, measure};
use mesh_policy_analysis::mutation::{Mutation, Survivor, mutate};
use mesh_policy_index::{Index, load};
use mesh_trust::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Permissions of the JUnit report: it holds no secret.
const REPORT_MODE: u32 = 0o644;

/// What is tested.
#[derive(Args, Clone, Debug)]
pub(crate) struct TestArgs {
    /// Files of kind PolicyTest, or folders: of a folder every file that holds that kind.
    #[arg(required = true, value_name = "FILE|DIR")]
    tests: Vec<PathBuf>,
    /// The policy: a file or folder of manifests, more than once if need be.
    #[arg(short, long = "file", required = true, value_name = "DIR")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    settings: MeshSettings,
    /// Time to decide at, RFC 3339, for cases that name none. Now, if not given.
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::time)]
    at: Option<Timestamp>,
    /// Writes a JUnit report too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Says which Servers, routes, policies and clauses the cases exercise: each should once hold and once fail.
    #[arg(long)]
    coverage: bool,
    /// Ends with 1 if coverage is below so many percent; implies --coverage.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: Option<u8>,
    /// Makes the policy wrong, one change at a time, and lists each change that no case notices.
    #[arg(long)]
    mutate: bool,
    /// Ends with 1 if fewer of the mutants than so many percent are noticed; implies --mutate.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min_score: Option<u8>,
    /// Mutants that are tried at most, evenly spread over all.
    #[arg(long, value_name = "COUNT", default_value_t = 2_000)]
    mutants_max: usize,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// All that was found.
#[derive(Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    cases: Vec<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Coverage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutation: Option<Mutation>,
}

/// Runs the cases. Ends with 1 if one fails, or less is covered or noticed than was asked for.
pub(crate) fn run(args: &TestArgs, output: &mut Output) -> Result<Exit, Fault> {
    let now = args.at.unwrap_or_else(|| System::new().wall_clock());
    let loaded = load(manifests::contents(&args.files)?);
    let index = Index::build(&loaded, &args.settings.config());
    let suites = file::read(&args.tests, &index, &args.settings.trust_domain)?;
    warn_of_errors(&index, output);
    let mut bench = Bench::new(&index, now);
    let run = |case: &Case| bench.run(case);
    let outcomes: Vec<Outcome> = suites
        .iter()
        .flat_map(|suite| &suite.cases)
        .map(run)
        .collect();
    if let Some(path) = &args.junit {
        write_junit(path, &suites, &outcomes)?;
    }
    let cases: Vec<Case> = suites.into_iter().flat_map(|suite| suite.cases).collect();
    let covers = args.coverage || args.min_coverage.is_some();
    let mutates = args.mutate || args.min_score.is_some();
    let failed = outcomes.iter().filter(|one| !one.passed()).count();
    let report = Report {
        passed: outcomes.len().saturating_sub(failed),
        failed,
        coverage: covers.then(|| measure(&index, &outcomes)),
        mutation: mutates.then(|| mutate(&loaded, &index, &cases, now, args.mutants_max)),
        cases: outcomes,
    };
    output.value(args.output, &report, print)?;
    Ok(args.judge(&report, output))
}

impl TestArgs {
    fn judge(&self, report: &Report, output: &mut Output) -> Exit {
        let mut fails = report.failed > 0;
        if let (Some(least), Some(found)) = (self.min_coverage, &report.coverage)
            && found.percent < u64::from(least)
        {
            output.talk(format_args!("coverage is below {least} %"));
            fails = true;
        }
        if let (Some(least), Some(found)) = (self.min_score, &report.mutation)
            && found.score < usize::from(least)
        {
            output.talk(format_args!("the score is below {least} %"));
            fails = true;
        }
        if fails { Exit::Failure } else { Exit::Ok }
    }
}

/// Manifests with errors close what they are about: cases that expect a denial would pass for the wrong reason.
fn warn_of_errors(index: &Index, output: &mut Output) {
    let errors = index.findings().iter();
    let errors = errors
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    if errors > 0 {
        output.talk(format_args!(
            "the manifests have {errors} errors, which close what they are about: see `mesh authz lint`"
        ));
    }
}

fn write_junit(path: &Path, suites: &[Suite], outcomes: &[Outcome]) -> Result<(), Fault> {
    let text = junit::report(suites, outcomes);
    files::write_atomic(path, text.as_bytes(), REPORT_MODE).map_err(|error| {
        Fault::usage(&CaseFileError::Report {
            file: path.display().to_string(),
            why: error.to_string(),
        })
    })
}

fn print(output: &mut Output, report: &Report) -> Result<(), Fault> {
    for outcome in &report.cases {
        print_case(outcome, output)?;
    }
    if let Some(coverage) = &report.coverage {
        print_coverage(coverage, output)?;
    }
    if let Some(mutation) = &report.mutation {
        print_mutation(mutation, output)?;
    }
    output.line(format_args!(
        "{} passed, {} failed",
        report.passed, report.failed
    ))
}

fn print_case(outcome: &Outcome, output: &mut Output) -> Result<(), Fault> {
    let name = printable(&outcome.name);
    if outcome.passed() {
        let word = output.toned(Tone::Good, "ok");
        return output.line(format_args!("{word}    {name}"));
    }
    let word = output.toned(Tone::Bad, "FAIL");
    output.line(format_args!(
        "{word}  {name}  ({})",
        printable(&outcome.place)
    ))?;
    for fault in &outcome.faults {
        output.line(format_args!("      {}", printable(fault)))?;
    }
    output.line(format_args!(
        "      {}",
        printable(&said(&outcome.decision))
    ))
}

/// What was decided and why, in one line.
pub(super) fn said(decision: &DecisionRecord) -> String {
    let word = |value: Result<serde_json::Value, serde_json::Error>| {
        let value = value.ok();
        value
            .as_ref()
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let verdict = word(serde_json::to_value(decision.verdict));
    let phase = word(serde_json::to_value(decision.phase));
    let reasons = if decision.reasons.is_empty() {
        "no reasons".to_owned()
    } else {
        decision.reasons.join(", ")
    };
    format!("decided: {verdict}, phase {phase}, {reasons}")
}

fn print_coverage(coverage: &Coverage, output: &mut Output) -> Result<(), Fault> {
    for part in coverage.missing() {
        let Part {
            kind, name, source, ..
        } = part;
        let lacks = match (part.held, part.failed) {
            (0, 0) => "never reached",
            (0, _) => "never held",
            _ => "never failed",
        };
        let lacks = output.toned(Tone::Doubtful, lacks);
        output.line(format_args!(
            "{lacks}  {kind} {}  {}",
            printable(name),
            printable(source)
        ))?;
    }
    output.line(format_args!(
        "coverage {} % of {} parts, each to hold and to fail",
        coverage.percent,
        coverage.parts.len()
    ))
}

fn print_mutation(mutation: &Mutation, output: &mut Output) -> Result<(), Fault> {
    for survivor in &mutation.survivors {
        let Survivor {
            source,
            object,
            change,
            witness,
        } = survivor;
        let word = output.toned(Tone::Doubtful, "unnoticed");
        output.line(format_args!(
            "{word}  {} {}  {}",
            printable(object),
            printable(change),
            printable(source)
        ))?;
        match witness {
            Some(one) => {
                let request = serde_json::to_string(&one.request).unwrap_or_default();
                let verdict = match one.verdict {
                    mesh_policy::decide::Verdict::Allow => "allow",
                    mesh_policy::decide::Verdict::Deny => "deny",
                };
                output.line(format_args!(
                    "    a case would: expect {verdict} of {}",
                    printable(&request)
                ))?;
            }
            None => output.line("    not every class of requests could be asked for a case")?,
        }
    }
    let Mutation {
        mutants,
        tried,
        killed,
        equivalent,
        score,
        ..
    } = mutation;
    let of = if tried < mutants {
        format!("{tried} of {mutants} mutants tried")
    } else {
        format!("{mutants} mutants")
    };
    output.line(format_args!(
        "score {score} %: {of}, {killed} noticed, {} not, {equivalent} decide as the policy does",
        mutation.survivors.len()
    ))
}
