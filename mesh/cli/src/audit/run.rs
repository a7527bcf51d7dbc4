//! `mesh audit run`: a report, written whole or not at all.

use super::source::{Source, SourceArgs};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Output, OutputError, Table, Tone, printable};
use clap::{Args, ValueEnum};
use mesh_compliance::formats::{csv, html, kubernetes, oscal, pdf, sarif};
use mesh_compliance::framework::{self, Framework};
use mesh_compliance::judge::Status;
use mesh_compliance::limits::MAPPING_BYTES_MAX;
use mesh_compliance::report::{self, Report};
use mesh_compliance::statement::{
    SIGNED_FILE, SigningKey, Statement, UNSIGNED_FILE, key_id, sha256,
};
use mesh_platform::files;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The bundle in a report.
pub(super) const BUNDLE_FILE: &str = "bundle.jsonl";
/// The report itself.
pub(super) const REPORT_FILE: &str = "report.json";
/// Bytes of a key file.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// What is reported, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    frameworks: FrameworkArgs,
    /// Forms of the report, with commas between them. `report.json` and the bundle are always written.
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_delimiter = ',',
        default_value = "html,pdf"
    )]
    formats: Vec<ReportFormat>,
    /// Folder of the report; it must be empty, or not be there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Signs the report with this key: Ed25519, PKCS#8, DER or PEM.
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Ends with 1 if any control is not satisfied.
    #[arg(long)]
    fail: bool,
}

/// Which frameworks.
#[derive(Args, Clone, Debug)]
pub(crate) struct FrameworkArgs {
    /// Frameworks, with commas between them; `mesh audit controls` names them. All, if none is given.
    #[arg(long = "framework", value_name = "NAME", value_delimiter = ',')]
    names: Vec<String>,
    /// A mapping of your own, in place of the built-in one of the same name or beside them; more than once for more.
    #[arg(long = "mapping", value_name = "FILE")]
    mappings: Vec<PathBuf>,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum ReportFormat {
    /// OSCAL 1.2: assessment results, plan, component definition, plan of action and milestones.
    Oscal,
    /// One page that loads nothing.
    Html,
    /// The same for paper.
    Pdf,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// One row for each control, scope and finding.
    Csv,
    /// `report.json`, which is always written.
    Json,
    /// Resources of openreports.io.
    Openreports,
    /// Resources of wgpolicyk8s.io.
    Policyreport,
}

/// Why a report is not written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum RunError {
    #[error("`{}` cannot take the report: {why}", path.display())]
    #[diagnostic(
        code("MESH-0670"),
        help("name a folder that is empty or does not exist: reports do not mix")
    )]
    Out { path: PathBuf, why: &'static str },
}

impl FrameworkArgs {
    /// These frameworks.
    pub(super) fn of(names: Vec<String>, mappings: Vec<PathBuf>) -> Self {
        Self { names, mappings }
    }

    /// The frameworks, each once, and the SHA-256 of those mappings that were given.
    ///
    /// # Errors
    /// Exit code 2 if a name is not known, or a mapping is broken.
    pub(super) fn read(&self) -> Result<(Vec<Framework>, BTreeMap<String, String>), Fault> {
        let (mut given, mut digests) = (BTreeMap::new(), BTreeMap::new());
        for path in &self.mappings {
            let bytes = files::read_limited(path, MAPPING_BYTES_MAX as u64)
                .map_err(|e| Fault::usage(&e))?;
            let text = String::from_utf8_lossy(&bytes);
            let parsed = framework::parse(&path.display().to_string(), &text)
                .map_err(|e| Fault::usage(&e))?;
            digests.insert(parsed.id.clone(), sha256(&bytes));
            given.insert(parsed.id.clone(), parsed);
        }
        let mut names = self.names.clone();
        if names.is_empty() {
            names.extend(framework::names().map(str::to_owned));
            names.extend(given.keys().cloned());
        }
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            match given.get(&name) {
                Some(framework) => out.push(framework.clone()),
                None => out.push(framework::built_in(&name).map_err(|e| Fault::usage(&e))?),
            }
        }
        digests.retain(|id, _| out.iter().any(|one| one.id == *id));
        Ok((out, digests))
    }
}

/// Writes a report. Ends with 1 under `--fail` if a control is not satisfied.
pub(super) fn run(args: &RunArgs, output: &mut Output) -> Result<Exit, Fault> {
    check_free(&args.out)?;
    let (frameworks, mappings) = args.frameworks.read()?;
    let key = args.sign.as_deref().map(signing_key).transpose()?;
    let source = args.source.open()?;
    let digest = mesh_compliance::bundle::digest(&source.bytes);
    let report = report::run(&source.bundle, &digest, &frameworks);
    write(args, &source, &report, &frameworks, mappings, key.as_ref())?;
    print(&report, output)?;
    let signed = match &key {
        Some(key) => format!("signed by key {}", key_id(&key.public())),
        None => "not signed (`--sign FILE`)".to_owned(),
    };
    output.talk(format_args!("written to {}, {signed}", args.out.display()));
    let fails = args.fail && report.has_failures();
    Ok(if fails { Exit::Failure } else { Exit::Ok })
}

fn write(
    args: &RunArgs,
    source: &Source,
    report: &Report,
    frameworks: &[Framework],
    mappings: BTreeMap<String, String>,
    key: Option<&SigningKey>,
) -> Result<(), Fault> {
    let mut files = rendered(report, frameworks, &args.formats)?;
    files.push((REPORT_FILE.to_owned(), report.to_json().into_bytes()));
    let mut digests: Vec<(String, String)> = files
        .iter()
        .map(|(name, bytes)| (name.clone(), sha256(bytes)))
        .collect();
    digests.push((BUNDLE_FILE.to_owned(), report.bundle_sha256.clone()));
    let statement = Statement::of(report, &digests, mappings);
    let (name, text) = match key {
        Some(key) => (SIGNED_FILE, key.sign(&statement)),
        None => (UNSIGNED_FILE, statement.to_json()),
    };
    let mut all: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    all.push((BUNDLE_FILE, &source.bytes));
    all.push((name, text.as_bytes()));
    files::write_directory(&args.out, &all, 0o644)?;
    Ok(())
}

/// The report in the forms that were asked for: names and contents.
pub(super) fn rendered(
    report: &Report,
    frameworks: &[Framework],
    formats: &[ReportFormat],
) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut formats = formats.to_vec();
    formats.sort_unstable();
    formats.dedup();
    let mut out: Vec<(String, Vec<u8>)> = Vec::new();
    let mut put = |name: &str, bytes: Vec<u8>| out.push((name.to_owned(), bytes));
    for format in formats {
        match format {
            ReportFormat::Json => {}
            ReportFormat::Html => put("report.html", html::write(report).into_bytes()),
            ReportFormat::Pdf => put("report.pdf", pdf::write(report)),
            ReportFormat::Csv => put("report.csv", csv::write(report).into_bytes()),
            ReportFormat::Sarif => put("report.sarif", pretty(&sarif::write(report))?),
            ReportFormat::Oscal => {
                for (name, document) in oscal::write(report, frameworks) {
                    put(name, pretty(&document)?);
                }
            }
            ReportFormat::Openreports => {
                put(
                    "openreports.yaml",
                    documents(&kubernetes::objects(report, kubernetes::Group::OpenReports))?,
                );
            }
            ReportFormat::Policyreport => {
                put(
                    "policyreport.yaml",
                    documents(&kubernetes::objects(report, kubernetes::Group::WgPolicy))?,
                );
            }
        }
    }
    Ok(out)
}

fn encode(why: String) -> OutputError {
    OutputError::Encode { why }
}

fn pretty(value: &Value) -> Result<Vec<u8>, Fault> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| encode(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// YAML documents.
fn documents(objects: &[Value]) -> Result<Vec<u8>, Fault> {
    let mut out = String::new();
    for object in objects {
        out.push_str("---\n");
        out.push_str(&serde_saphyr::to_string(object).map_err(|error| encode(error.to_string()))?);
    }
    Ok(out.into_bytes())
}

/// Refuses a folder that holds something.
fn check_free(path: &Path) -> Result<(), Fault> {
    let refuse = |why| {
        Err(Fault::usage(&RunError::Out {
            path: path.to_owned(),
            why,
        }))
    };
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.is_dir() {
        return refuse("it is no folder");
    }
    match std::fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => refuse("it is not empty"),
        Err(_) => refuse("it cannot be read"),
    }
}

fn signing_key(path: &Path) -> Result<SigningKey, Fault> {
    let bytes = files::read_limited(path, KEY_BYTES_MAX).map_err(|error| Fault::usage(&error))?;
    SigningKey::parse(&path.display().to_string(), &bytes).map_err(|error| Fault::usage(&error))
}

/// What a person should see at once: how each framework stands, and what is not seen.
pub(super) fn print(report: &Report, output: &mut Output) -> Result<(), Fault> {
    let scope = &report.scope;
    output.line(format_args!(
        "{} to {}, trust domain {}",
        scope.since, scope.until, scope.trust_domain
    ))?;
    for one in &scope.namespaces {
        let missing = one
            .missing
            .first()
            .map(|why| format!("; MISSING: {}", printable(why)))
            .unwrap_or_default();
        output.line(format_args!(
            "  {}: {} workloads in the mesh, {} outside; on record: {}{missing}",
            one.namespace, one.meshed, one.unmeshed, one.sampling
        ))?;
    }
    if !scope.unmeshed.is_empty() {
        output.line(format_args!(
            "  outside the mesh, and not seen: {}",
            scope.unmeshed.join(", ")
        ))?;
    }
    let headings = [
        "FRAMEWORK",
        "SATISFIED",
        "PARTIAL",
        "NOT-SATISFIED",
        "INSUFFICIENT-DATA",
        "NOT-APPLICABLE",
    ];
    let mut table = Table::new(&headings);
    for framework in &report.frameworks {
        let counts = Status::ALL.iter().map(|status| {
            framework
                .counts
                .get(status)
                .copied()
                .unwrap_or_default()
                .to_string()
        });
        table.row(std::iter::once(framework.framework.clone()).chain(counts));
    }
    output.text(table.text())?;
    for finding in report.findings.iter().take(20) {
        let tone = match finding.severity {
            mesh_compliance::evidence::Severity::High => Tone::Bad,
            mesh_compliance::evidence::Severity::Medium => Tone::Doubtful,
            mesh_compliance::evidence::Severity::Low => Tone::Strong,
        };
        let word = output.toned(tone, finding.severity.text());
        let place = finding
            .place
            .as_ref()
            .map(|place| format!("  {}", place.text()))
            .unwrap_or_default();
        output.line(format_args!(
            "{word}  {}{}",
            printable(&finding.message),
            printable(&place)
        ))?;
    }
    if let Some(more) = report
        .findings
        .len()
        .checked_sub(20)
        .filter(|more| *more > 0)
    {
        output.line(format_args!(
            "and {more} more findings; the report has them"
        ))?;
    }
    Ok(())
}
