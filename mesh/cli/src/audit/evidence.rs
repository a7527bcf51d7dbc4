//! `mesh audit evidence`: every row that a number is counted from.

use super::source::SourceArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Table, printable};
use clap::{Args, ValueEnum};
use mesh_compliance::evidence::{Evidence, IDS};
use mesh_compliance::formats::csv;
use mesh_compliance::report;

/// Which evidence.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvidenceArgs {
    /// `E1` to `E12`, or `review` for the access review.
    #[arg(value_name = "EVIDENCE")]
    id: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: EvidenceFormat,
}

/// Form of evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum EvidenceFormat {
    /// Numbers and rows, at most 100 columns wide.
    #[default]
    Text,
    /// The same, as wide as it is.
    Wide,
    /// For programs.
    Json,
    /// The rows alone.
    Csv,
}

/// Why there is none.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum EvidenceError {
    #[error("there is no evidence `{asked}`")]
    #[diagnostic(code("MESH-0675"), help("there are: {known}, and `review`"))]
    Unknown { asked: String, known: String },
}

impl EvidenceArgs {
    /// The form that errors take.
    pub(super) fn format(&self) -> Format {
        match self.output {
            EvidenceFormat::Json => Format::Json,
            EvidenceFormat::Text | EvidenceFormat::Wide | EvidenceFormat::Csv => Format::Text,
        }
    }
}

/// Prints it.
pub(super) fn run(args: &EvidenceArgs, output: &mut Output) -> Result<Exit, Fault> {
    let review = args.id.eq_ignore_ascii_case("review");
    if !review && !IDS.iter().any(|id| id.eq_ignore_ascii_case(&args.id)) {
        let error = EvidenceError::Unknown {
            asked: args.id.clone(),
            known: IDS.join(", "),
        };
        return Err(Fault::usage(&error));
    }
    let source = args.source.open()?;
    let evidence = if review {
        let (table, notes) = report::access_review(&source.bundle);
        Evidence {
            id: "review".to_owned(),
            title: "Access review: who may reach which asset".to_owned(),
            metrics: Vec::new(),
            table,
            notes,
            findings: Vec::new(),
        }
    } else {
        // The id was found among all.
        report::evidence(&source.bundle, &args.id).unwrap_or_else(|| Evidence {
            id: args.id.clone(),
            title: String::new(),
            metrics: Vec::new(),
            table: mesh_compliance::evidence::Table::default(),
            notes: Vec::new(),
            findings: Vec::new(),
        })
    };
    match args.output {
        EvidenceFormat::Text => print(&evidence, Format::Text, output)?,
        EvidenceFormat::Wide => print(&evidence, Format::Wide, output)?,
        EvidenceFormat::Json => output.value(Format::Json, &evidence, |_, _| Ok(()))?,
        EvidenceFormat::Csv => output.text(csv::table(&evidence.table))?,
    }
    Ok(Exit::Ok)
}

fn print(evidence: &Evidence, format: Format, output: &mut Output) -> Result<(), Fault> {
    output.line(format_args!("{} {}", evidence.id, evidence.title))?;
    let mut numbers = Table::new(&["NUMBER", "SCOPE", "VALUE", "WHY NONE"]);
    for one in &evidence.metrics {
        let why = one.reading.why().unwrap_or_default();
        numbers.row([
            one.metric.clone(),
            one.scope.clone(),
            one.reading.text(),
            why.to_owned(),
        ]);
    }
    if !evidence.metrics.is_empty() {
        output.table(&numbers, format)?;
        output.line("")?;
    }
    // Headings of tables for people are in capitals, as everywhere; here they come from the evidence.
    let mut rows = Table::titled(
        evidence
            .table
            .columns
            .iter()
            .map(|name| name.to_uppercase()),
    );
    for row in &evidence.table.rows {
        rows.row(row.iter().cloned());
    }
    output.table(&rows, format)?;
    evidence
        .notes
        .iter()
        .try_for_each(|note| output.line(format_args!("note: {}", printable(note))))
}
