//! The report as a document for people: headings, facts, tables. [`super::html`] and [`super::pdf`] set it.

use crate::evidence::metric::Reading;
use crate::evidence::{Evidence, Finding, Measured, Severity, Table};
use crate::judge::{ControlResult, FrameworkResult, Status};
use crate::limits::SHOWN_ROWS_MAX;
use crate::report::Report;
use std::collections::{BTreeMap, BTreeSet};

/// A document.
pub struct Document {
    /// Its title.
    pub title: String,
    /// The line below the title.
    pub subtitle: String,
    /// What it says.
    pub blocks: Vec<Block>,
}

/// A piece of a document.
pub enum Block {
    /// A heading of level 1 or 2, with a name to link to.
    Heading(u8, String, String),
    /// A paragraph.
    Paragraph(String),
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// How many of which status, by name.
    Bars(Vec<Bar>),
    /// Rows under headings.
    Grid(Grid),
}

/// How the controls of a framework stand, as one bar.
pub struct Bar {
    /// Name of the framework.
    pub name: String,
    /// What it links to.
    pub link: String,
    /// Counts in the order of [`Status::ALL`].
    pub counts: Vec<(Status, usize)>,
}

/// A table.
pub struct Grid {
    /// Headings, and how wide each column is beside the others.
    pub columns: Vec<(String, u16)>,
    /// Rows of cells.
    pub rows: Vec<Vec<Cell>>,
    /// Rows that are not shown.
    pub more: usize,
}

/// A cell.
pub struct Cell {
    /// Its text; a line feed begins a new line.
    pub text: String,
    /// How it stands out.
    pub tone: Tone,
}

/// How a text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    Plain,
    /// An id or a name.
    Strong,
    /// Less than the rest.
    Quiet,
    /// A status.
    Status(Status),
    /// A severity.
    Severity(Severity),
}

impl Cell {
    fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Sets a report as a document.
pub fn document(report: &Report) -> Document {
    let scope = &report.scope;
    let mut blocks = vec![
        Block::Paragraph(
            "This report holds what the mesh can show about its traffic, identities, policy and logs against controls of the frameworks below. \
             A status speaks about that evidence alone. Each control says what the mesh does not cover of it; whether a framework is fulfilled is for an assessor to say."
                .to_owned(),
        ),
        Block::Bars(report.frameworks.iter().map(bar).collect()),
        heading(1, "Scope", "scope"),
        Block::Facts(scope_facts(report)),
        Block::Grid(namespaces(report)),
    ];
    blocks.push(Block::Grid(logs(report)));
    for framework in &report.frameworks {
        blocks.extend(framework_blocks(framework));
    }
    blocks.push(heading(1, "Findings", "findings"));
    blocks.extend(findings(report));
    blocks.push(heading(1, "Evidence", "evidence"));
    for evidence in &report.evidence {
        blocks.extend(evidence_blocks(evidence));
    }
    blocks.push(heading(1, "Access review", "access-review"));
    blocks.push(Block::Paragraph(
        "Who may reach which port, in classes that were found by deciding every class of clients and requests; nothing else is allowed. Owners confirm it line by line. Declared probes are left out.".to_owned(),
    ));
    blocks.extend(
        report
            .access_review_notes
            .iter()
            .map(|note| Block::Paragraph(format!("Not complete: {note}."))),
    );
    blocks.push(table(
        &report.access_review,
        &[14, 8, 20, 20, 12, 30, 10, 14],
    ));
    blocks.push(heading(1, "How to check this report", "check"));
    blocks.push(Block::Paragraph(format!(
        "`mesh audit verify DIR` compares every file with the signed statement, proves the bundle (SHA-256 {}), and computes the report again from it, byte for byte. It needs no connection and nothing of the mesh but the public key.",
        report.bundle_sha256
    )));
    Document {
        title: "Audit report of a service mesh".to_owned(),
        subtitle: format!(
            "Trust domain {}, {} to {}",
            scope.trust_domain,
            short(&scope.since.to_string()),
            short(&scope.until.to_string())
        ),
        blocks,
    }
}

fn heading(level: u8, text: &str, link: &str) -> Block {
    Block::Heading(level, text.to_owned(), link.to_owned())
}

fn bar(framework: &FrameworkResult) -> Bar {
    let count = |status: &Status| framework.counts.get(status).copied().unwrap_or_default();
    Bar {
        name: format!("{} {}", framework.title, framework.version),
        link: format!("framework-{}", framework.framework),
        counts: Status::ALL
            .iter()
            .map(|status| (*status, count(status)))
            .collect(),
    }
}

/// The text with times (RFC 3339) without their fractions of a second: six digits say less than none to a reader.
fn short(text: &str) -> String {
    const FRACTION: usize = ".000000Z".len();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('.') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        let is_fraction = tail
            .get(1..FRACTION)
            .and_then(|digits| digits.strip_suffix('Z'))
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if is_fraction {
            out.push('Z');
            rest = tail.get(FRACTION..).unwrap_or_default();
        } else {
            out.push('.');
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    out + rest
}

fn scope_facts(report: &Report) -> Vec<(String, String)> {
    let scope = &report.scope;
    let unmeshed = match scope.unmeshed.as_slice() {
        [] => "none known".to_owned(),
        all => format!(
            "{}: {}. Nothing here speaks about what they say to each other.",
            all.len(),
            all.join(", ")
        ),
    };
    [
        ("Window", format!("{} to {}", scope.since, scope.until)),
        (
            "Policy",
            format!(
                "generation {}, default policy {}",
                scope.generation, scope.default_policy
            ),
        ),
        ("Policy, SHA-256", scope.policy_sha256.clone()),
        ("Collected", scope.collected.clone()),
        ("Outside the mesh", unmeshed),
        ("Bundle, SHA-256", report.bundle_sha256.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn columns(all: &[(&str, u16)]) -> Vec<(String, u16)> {
    all.iter()
        .map(|(name, width)| ((*name).to_owned(), *width))
        .collect()
}

fn namespaces(report: &Report) -> Grid {
    let rows = report.scope.namespaces.iter().map(|one| {
        let missing = if one.missing.is_empty() {
            Cell::new("nothing known to be", Tone::Quiet)
        } else {
            Cell::new(
                one.missing.join("\n"),
                Tone::Status(Status::InsufficientData),
            )
        };
        vec![
            Cell::new(one.namespace.clone(), Tone::Strong),
            Cell::plain(one.meshed.to_string()),
            Cell::plain(one.unmeshed.to_string()),
            Cell::plain(one.sampling.clone()),
            missing,
        ]
    });
    limited(
        columns(&[
            ("namespace", 18),
            ("in the mesh", 10),
            ("outside", 10),
            ("on record", 30),
            ("missing", 32),
        ]),
        rows.collect(),
    )
}

fn logs(report: &Report) -> Grid {
    let rows = report.scope.logs.iter().map(|one| {
        let proved = if one.proved {
            Status::Satisfied
        } else {
            Status::NotSatisfied
        };
        vec![
            Cell::new(one.origin.clone(), Tone::Strong),
            Cell::plain(one.entries.to_string()),
            Cell::new(
                one.root.clone().unwrap_or_else(|| "not sealed".to_owned()),
                Tone::Quiet,
            ),
            Cell::new(
                if one.proved { "proved" } else { "not proved" },
                Tone::Status(proved),
            ),
        ]
    });
    limited(
        columns(&[("log", 20), ("entries", 8), ("sealed by", 58), ("", 14)]),
        rows.collect(),
    )
}

fn limited(columns: Vec<(String, u16)>, mut rows: Vec<Vec<Cell>>) -> Grid {
    let more = rows.len().saturating_sub(SHOWN_ROWS_MAX);
    rows.truncate(SHOWN_ROWS_MAX);
    Grid {
        columns,
        rows,
        more,
    }
}

fn framework_blocks(framework: &FrameworkResult) -> Vec<Block> {
    let title = format!("{} {}", framework.title, framework.version);
    let link = format!("framework-{}", framework.framework);
    let rows = framework.controls.iter().map(control_row).collect();
    vec![
        heading(1, &title, &link),
        Block::Paragraph(format!(
            "{}. Mapping revision {}.",
            framework.source, framework.mapping_revision
        )),
        Block::Grid(Grid {
            columns: columns(&[
                ("control", 19),
                ("status", 14),
                ("why", 37),
                ("not covered by the mesh", 30),
            ]),
            rows,
            more: 0,
        }),
    ]
}

fn control_row(control: &ControlResult) -> Vec<Cell> {
    let mut id = format!("{}\n{}", control.id, control.title);
    if let Some(baseline) = &control.baseline {
        id.push_str(&format!("\n({baseline})"));
    }
    let mut status = control.status.text().to_owned();
    if let Some(stage) = &control.stage {
        status = format!("{status}\nstage: {}", stage.reached);
    }
    let mut why: Vec<String> = Vec::new();
    if let Some(stage) = &control.stage {
        if let Some(next) = &stage.next {
            why.push(format!("In the way of stage {next}:"));
        }
        why.extend(stage.blocked_by.iter().take(8).cloned());
    } else {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for scope in &control.scopes {
            for because in &scope.because {
                by_reason.entry(because).or_default().push(&scope.scope);
            }
        }
        let lines = by_reason.iter().map(|(because, scopes)| {
            let shown: Vec<&str> = scopes.iter().take(4).copied().collect();
            let more = match scopes.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{}{more}: {because}", shown.join(", "))
        });
        why.extend(lines.take(8));
    }
    if why.is_empty() {
        why.push(match control.status {
            Status::NotApplicable => "nothing to ask it of".to_owned(),
            _ if control.stage.is_some() => "the last stage is reached in every scope".to_owned(),
            _ => format!("met in every scope: {}", control.needs.join("; ")),
        });
    }
    if control.part {
        why.push("The mesh covers a part of this control only.".to_owned());
    }
    vec![
        Cell::new(id, Tone::Strong),
        Cell::new(status, Tone::Status(control.status)),
        Cell::plain(why.join("\n")),
        Cell::new(control.not_covered.clone(), Tone::Quiet),
    ]
}

fn findings(report: &Report) -> Vec<Block> {
    if report.findings.is_empty() {
        return vec![Block::Paragraph("None.".to_owned())];
    }
    let rows: Vec<Vec<Cell>> = report.findings.iter().map(finding_row).collect();
    vec![Block::Grid(limited(
        columns(&[
            ("severity", 10),
            ("finding", 44),
            ("where", 18),
            ("what to do", 28),
        ]),
        rows,
    ))]
}

fn finding_row(finding: &Finding) -> Vec<Cell> {
    let place = finding.place.as_ref().map_or_else(
        || finding.scope.clone(),
        |place| format!("{}\n{}", finding.scope, place.text()),
    );
    vec![
        Cell::new(finding.severity.text(), Tone::Severity(finding.severity)),
        Cell::plain(format!("{}\n({})", finding.message, finding.check)),
        Cell::new(place, Tone::Quiet),
        Cell::plain(finding.hint.clone()),
    ]
}

fn evidence_blocks(evidence: &Evidence) -> Vec<Block> {
    let title = format!("{} {}", evidence.id, evidence.title);
    let link = format!("evidence-{}", evidence.id);
    let mut blocks = vec![heading(2, &title, &link)];
    blocks.extend(
        evidence
            .notes
            .iter()
            .map(|note| Block::Paragraph(note.clone())),
    );
    // Scopes that a number says nothing about are left out, unless it says nothing at all.
    let says = |one: &&Measured| !matches!(one.reading, Reading::NotApplicable(_));
    let telling: BTreeSet<&str> = evidence
        .metrics
        .iter()
        .filter(says)
        .map(|one| one.metric.as_str())
        .collect();
    let shown = evidence
        .metrics
        .iter()
        .filter(|one| says(one) || !telling.contains(one.metric.as_str()));
    let rows = shown.map(|one| {
        let about = crate::evidence::metric::metric(&one.metric).map_or("", |metric| metric.about);
        let why = one.reading.why().unwrap_or_default();
        vec![
            Cell::new(one.metric.clone(), Tone::Strong),
            Cell::plain(one.scope.clone()),
            Cell::plain(one.reading.text()),
            Cell::new(if why.is_empty() { about } else { why }, Tone::Quiet),
        ]
    });
    blocks.push(Block::Grid(limited(
        columns(&[("number", 24), ("scope", 16), ("value", 10), ("", 50)]),
        rows.collect(),
    )));
    if !evidence.table.rows.is_empty() {
        blocks.push(table(&evidence.table, &[]));
    }
    blocks
}

/// A table of evidence; widths follow the longest of the first cells where none are given.
fn table(table: &Table, widths: &[u16]) -> Block {
    let width = |at: usize| {
        let given = widths.get(at).copied();
        let cells = table
            .rows
            .iter()
            .take(SHOWN_ROWS_MAX)
            .filter_map(|row| row.get(at));
        let longest = cells
            .chain(table.columns.get(at))
            .map(String::len)
            .max()
            .unwrap_or(1);
        given.unwrap_or(u16::try_from(longest.clamp(9, 36)).unwrap_or(36))
    };
    let columns = table
        .columns
        .iter()
        .enumerate()
        .map(|(at, name)| (name.clone(), width(at)));
    let mut rows: Vec<Vec<Cell>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(|text| Cell::plain(short(text))).collect())
        .collect();
    rows.truncate(SHOWN_ROWS_MAX);
    let more = table.rows_total.saturating_sub(rows.len());
    Block::Grid(Grid {
        columns: columns.collect(),
        rows,
        more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lose_their_fractions_and_nothing_else_changes() {
        for (text, want) in [
            ("2027-01-15T08:00:00.123456Z", "2027-01-15T08:00:00Z"),
            (
                "from 08:00:00.000000Z to 09:00:00.000001Z.",
                "from 08:00:00Z to 09:00:00Z.",
            ),
            ("a.yaml:2", "a.yaml:2"),
            ("1.23456Z", "1.23456Z"),
            ("\u{e4}.\u{e4}\u{e4}\u{e4}Z", "\u{e4}.\u{e4}\u{e4}\u{e4}Z"),
            ("", ""),
        ] {
            assert_eq!(short(text), want);
        }
    }
}
