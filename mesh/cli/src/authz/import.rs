//! `mesh authz import`: policies of Istio as manifests of this mesh, and what Linkerd's mean here.
//!
//! Nothing is half written: the folder of `--out` appears with all its files, or not at all.

use super::lint::FailOn;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{self, MeshSettings};
use crate::output::{Format, Output, OutputError, Tone, printable};
use clap::{Args, ValueEnum};
use mesh_platform::files;
use mesh_policy::snapshot::{Finding, Severity, Source};
use mesh_policy_index::import::{
    self, CustomAction, Fact, ImportConfig, ImportError, Imported, LinkerdConfig, Report, Status,
    TokenAction,
};
use mesh_policy_index::{Index, IndexConfig, Mode, load};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Findings that one error names; the others are counted.
const NAMED_MAX: usize = 20;

/// What is imported.
#[derive(Args, Clone, Debug)]
pub(crate) struct ImportArgs {
    /// Whose policies they are.
    #[arg(long, value_enum)]
    from: Origin,
    /// Manifests: files or folders. Those of the workloads and Services belong to it: they tell which ports there are.
    #[arg(value_name = "DIR", required_unless_present = "files")]
    dirs: Vec<PathBuf>,
    /// The same as DIR, more than once if need be.
    #[arg(short, long = "file", value_name = "DIR")]
    files: Vec<PathBuf>,
    /// Folder that the manifests are written to; it must be empty, or not be there. Without it they go to stdout, and the
    /// report to stderr.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Istio's root namespace, whose policies hold for every namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// What becomes of Istio's policies with action CUSTOM, whose provider this mesh cannot ask.
    #[arg(long, value_enum, default_value_t)]
    custom: Custom,
    /// What becomes of requests that may carry a token of an end user, where Istio would check it (RequestAuthentication)
    /// and this mesh cannot.
    #[arg(long, value_enum, default_value_t)]
    tokens: Tokens,
    /// Default policy of the Linkerd installation (its `proxy.defaultInboundPolicy`).
    #[arg(long, value_name = "MODE", default_value = "all-unauthenticated", value_parser = manifests::mode)]
    linkerd_default: Mode,
    /// From which severity on the command fails: with `warn`, anything that is not kept as it was ends it with 3.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    #[command(flatten)]
    settings: MeshSettings,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    output: ReportFormat,
}

/// Whose policies are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// Linkerd: its resources are read as they are, so only the report is made.
    Linkerd,
    /// Istio: AuthorizationPolicy and PeerAuthentication of `security.istio.io`.
    Istio,
}

/// What becomes of action CUSTOM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Custom {
    /// It ends the import.
    #[default]
    Refuse,
    /// What the provider would have been asked about is denied.
    Deny,
}

/// What becomes of tokens that Istio would check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Tokens {
    /// What may carry one is denied: every request, where one may stand in the query. That is so unless the rules of the
    /// RequestAuthentication name other places.
    #[default]
    Deny,
    /// What carries one in a header is denied. You say that no application takes one from the query.
    InHeaders,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// One line a fact.
    #[default]
    Text,
    /// docs/reference/import.md describes it.
    Json,
    /// The same as YAML.
    Yaml,
}

impl ImportArgs {
    /// Everything that is read.
    fn paths(&self) -> Vec<PathBuf> {
        self.dirs.iter().chain(&self.files).cloned().collect()
    }

    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            ReportFormat::Text => Format::Text,
            ReportFormat::Json | ReportFormat::Yaml => Format::Json,
        }
    }
}

/// Why nothing is imported.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum ImportFault {
    #[error("nothing is imported: {first}{more}")]
    #[diagnostic(
        code("MESH-0640"),
        help(
            "mend what is named, or leave the file out; an import of half the policies might allow what the others deny"
        )
    )]
    Input {
        first: String,
        more: String,
        #[source]
        all: Listed,
    },
    #[error("there is no {what} in the {files} files that were read")]
    #[diagnostic(code("MESH-0640"), help("name the folder that holds the policies"))]
    Nothing { what: &'static str, files: usize },
    #[error("`{}` cannot take the manifests: {why}", path.display())]
    #[diagnostic(
        code("MESH-0641"),
        help("name a folder that is empty or does not exist; `--out` is for `--from istio`")
    )]
    Out { path: PathBuf, why: &'static str },
    #[error("what was made of the policies does not pass the checks: {first}{more}")]
    #[diagnostic(
        code("MESH-0642"),
        help(
            "nothing was written; if the object stands in the files already, leave that file out, else report this as a bug"
        )
    )]
    Unsound {
        first: String,
        more: String,
        #[source]
        all: Listed,
    },
}

/// Findings, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Listed(String);

/// Imports, and reports.
pub(crate) fn run(args: &ImportArgs, output: &mut Output) -> Result<Exit, Fault> {
    let report = match args.from {
        Origin::Linkerd => linkerd(args, output)?,
        Origin::Istio => istio(args, output)?,
    };
    Ok(if args.fail_on == FailOn::Warn && !report.is_exact() {
        Exit::Warnings
    } else {
        Exit::Ok
    })
}

fn linkerd(args: &ImportArgs, output: &mut Output) -> Result<Report, Fault> {
    if let Some(path) = &args.out {
        let why = "Linkerd's resources are read as they are, so none are written";
        return Err(Fault::usage(&ImportFault::Out {
            path: path.clone(),
            why,
        }));
    }
    let contents = manifests::contents(&args.paths())?;
    let config = LinkerdConfig {
        trust_domain: args.settings.trust_domain.clone(),
        default_policy: args.settings.default_policy,
        linkerd_default: args.linkerd_default,
    };
    let report = import::linkerd(&contents, &config).map_err(refused)?;
    if report.facts.is_empty() {
        let what = "policy of Linkerd and no workload";
        return Err(Fault::usage(&ImportFault::Nothing {
            what,
            files: contents.len(),
        }));
    }
    output.text(rendered(&report, args.output, output)?)?;
    output.talk(summary(&report, contents.len()));
    Ok(report)
}

fn istio(args: &ImportArgs, output: &mut Output) -> Result<Report, Fault> {
    if let Some(path) = &args.out {
        check_free(path)?;
    }
    let contents = manifests::contents(&args.paths())?;
    let config = ImportConfig {
        trust_domain: args.settings.trust_domain.clone(),
        root_namespace: args.root_namespace.clone(),
        default_policy: args.settings.default_policy,
        custom: match args.custom {
            Custom::Refuse => CustomAction::Refuse,
            Custom::Deny => CustomAction::Deny,
        },
        tokens: match args.tokens {
            Tokens::Deny => TokenAction::Deny,
            Tokens::InHeaders => TokenAction::InHeaders,
        },
    };
    let imported = import::istio(&contents, &config).map_err(refused)?;
    if !imported.has_policies {
        let what = "AuthorizationPolicy or PeerAuthentication of Istio";
        return Err(Fault::usage(&ImportFault::Nothing {
            what,
            files: contents.len(),
        }));
    }
    check_sound(&imported, &contents, args)?;
    let report = rendered(&imported.report, args.output, output)?;
    match &args.out {
        Some(path) => {
            let files: Vec<(&str, &[u8])> = imported
                .files
                .iter()
                .map(|f| (f.name.as_str(), f.text.as_bytes()))
                .collect();
            if !files.is_empty() {
                files::write_directory(path, &files, 0o644)?;
            }
            output.text(report)?;
        }
        None => {
            for file in &imported.files {
                output.text(&file.text)?;
            }
            output.flush()?;
            output.talk(report.trim_end());
        }
    }
    output.talk(summary(&imported.report, contents.len()));
    Ok(imported.report)
}

/// The error of an import that could not be made.
fn refused(error: ImportError) -> Fault {
    match error {
        ImportError::Input { findings } => {
            let (first, more, all) = listed(&findings);
            Fault::usage(&ImportFault::Input { first, more, all })
        }
        ImportError::Cedar { why } => {
            let (first, all) = (why.clone(), Listed(why));
            Fault::from(ImportFault::Unsound {
                first,
                more: String::new(),
                all,
            })
        }
    }
}

/// The first finding, how many there are besides, and each with its place.
fn listed(findings: &[Finding]) -> (String, String, Listed) {
    let line = |finding: &Finding| {
        let place = match &finding.source {
            Source::File {
                file, line, column, ..
            } => format!("{file}:{line}:{column}"),
            Source::BuiltIn(_) => finding.source.to_string(),
        };
        format!("{place}: {} {}", finding.code, finding.message)
    };
    let mut lines: Vec<String> = findings.iter().take(NAMED_MAX).map(line).collect();
    let first = lines.first().cloned().unwrap_or_default();
    let more = match findings.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    if findings.len() > NAMED_MAX {
        lines.push(format!("{} more are not shown", findings.len() - NAMED_MAX));
    }
    (first, more, Listed(lines.join("\n")))
}

/// Refuses a folder that holds something: what was imported before must not mix with what is imported now.
fn check_free(path: &Path) -> Result<(), Fault> {
    let refuse = |why| {
        Err(Fault::usage(&ImportFault::Out {
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

/// What is written must pass the same checks as what people write.
fn check_sound(
    imported: &Imported,
    contents: &[(String, Vec<u8>)],
    args: &ImportArgs,
) -> Result<(), Fault> {
    let written = |name: &str| format!("<import>/{name}");
    let made = imported
        .files
        .iter()
        .map(|f| (written(&f.name), f.text.clone().into_bytes()));
    let loaded = load(contents.iter().cloned().chain(made));
    let config = IndexConfig {
        default_policy: args.settings.default_policy,
        ..IndexConfig::new(args.settings.trust_domain.clone())
    };
    let index = Index::build(&loaded, &config);
    let ours = |f: &&Finding| {
        f.severity == Severity::Error
            && matches!(&f.source, Source::File { file, .. } if file.starts_with("<import>/"))
    };
    let findings: Vec<Finding> = index.findings().iter().filter(ours).cloned().collect();
    if findings.is_empty() {
        return Ok(());
    }
    let (first, more, all) = listed(&findings);
    Err(Fault::from(ImportFault::Unsound { first, more, all }))
}

fn rendered(report: &Report, format: ReportFormat, output: &Output) -> Result<String, Fault> {
    let encode = |why: String| Fault::from(OutputError::Encode { why });
    match format {
        ReportFormat::Text => Ok(report.facts.iter().map(|fact| text(fact, output)).collect()),
        ReportFormat::Json => {
            let text = serde_json::to_string_pretty(report).map_err(|e| encode(e.to_string()))?;
            Ok(text + "\n")
        }
        ReportFormat::Yaml => {
            let value = serde_json::to_value(report).map_err(|e| encode(e.to_string()))?;
            serde_saphyr::to_string(&value).map_err(|e| encode(e.to_string()))
        }
    }
}

/// A fact: its status, place and words on one line, what became of it and what to do below.
fn text(fact: &Fact, output: &Output) -> String {
    let tone = match fact.status {
        Status::Kept => Tone::Good,
        Status::KeptStricter => Tone::Doubtful,
        Status::NotKept => Tone::Bad,
    };
    let status = output.toned(tone, &format!("{:<13}", fact.status.to_string()));
    let code = fact.code.map(|code| format!(" {code}")).unwrap_or_default();
    let part = fact
        .part
        .as_ref()
        .map(|part| format!(" {part}"))
        .unwrap_or_default();
    let mut out = format!(
        "{status} {}:{code} {}{part}: {}\n",
        fact.place,
        printable(&fact.object),
        printable(&fact.message)
    );
    if !fact.became.is_empty() {
        let _ = writeln!(out, "  became: {}", printable(&fact.became.join(", ")));
    }
    if let Some(hint) = &fact.hint {
        let _ = writeln!(out, "  help: {}", printable(hint));
    }
    out
}

fn summary(report: &Report, files: usize) -> String {
    let counts = report.summary;
    let mut text = format!(
        "{} kept, {} kept stricter, {} not kept; {files} files read",
        counts.kept, counts.kept_stricter, counts.not_kept
    );
    if !report.written.is_empty() {
        let _ = write!(text, ", {} objects made", report.written.len());
    }
    text
}
