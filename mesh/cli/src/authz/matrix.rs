//! `mesh authz matrix`: which workload reaches which.

use super::policy::PolicyArgs;
use super::world::{Mesh, few, unanswered, warn_inexact};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Table};
use clap::{Args, ValueEnum};
use mesh_policy_analysis::access::{Cell, Matrix, matrix};
use std::collections::BTreeMap;

/// Which mesh, and in which form.
#[derive(Args, Clone, Debug)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: MatrixFormat,
}

/// Form of the matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum MatrixFormat {
    /// A line for each pair that can.
    #[default]
    Text,
    /// The same, with policies and places.
    Json,
    /// One row for each caller, one column for each callee; ports in the cells, `*` after one that is open in part.
    Csv,
    /// The same as a table.
    Markdown,
}

impl MatrixArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            MatrixFormat::Json => Format::Json,
            MatrixFormat::Text | MatrixFormat::Csv | MatrixFormat::Markdown => Format::Text,
        }
    }
}

/// Prints the matrix.
pub(crate) fn run(args: &MatrixArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mesh = Mesh::open(&args.policy)?;
    let found = matrix(mesh.world.as_ref(), &mesh.home, mesh.setting()).map_err(unanswered)?;
    match args.output {
        MatrixFormat::Text => text(&found, output)?,
        MatrixFormat::Json => output.value(Format::Json, &found, |_, _| Ok(()))?,
        MatrixFormat::Csv => {
            for row in rows(&found) {
                output.line(
                    row.iter()
                        .map(|cell| quoted(cell))
                        .collect::<Vec<_>>()
                        .join(","),
                )?;
            }
        }
        MatrixFormat::Markdown => {
            for (number, row) in rows(&found).iter().enumerate() {
                output.line(format_args!("| {} |", row.join(" | ")))?;
                if number == 0 {
                    output.line(format_args!("|{}", "---|".repeat(row.len())))?;
                }
            }
        }
    }
    warn_inexact(found.exact, &[], output);
    Ok(Exit::Ok)
}

fn text(found: &Matrix, output: &mut Output) -> Result<(), Fault> {
    let mut table = Table::new(&["FROM", "TO", "PORTS", "BY"]);
    for cell in &found.cells {
        let reasons: Vec<String> = cell
            .reasons
            .iter()
            .map(|reason| reason.policy.clone())
            .collect();
        table.row([
            cell.from.clone(),
            cell.to.clone(),
            ports(cell),
            few(&reasons),
        ]);
    }
    output.table(&table, Format::Wide)
}

fn ports(cell: &Cell) -> String {
    let ports = cell
        .ports
        .iter()
        .map(|port| format!("{}{}", port.port, if port.all { "" } else { "*" }));
    ports.collect::<Vec<_>>().join(" ")
}

fn rows(found: &Matrix) -> Vec<Vec<String>> {
    let cells: BTreeMap<(&str, &str), &Cell> = found
        .cells
        .iter()
        .map(|cell| ((cell.from.as_str(), cell.to.as_str()), cell))
        .collect();
    let head = std::iter::once("from / to".to_owned())
        .chain(found.workloads.iter().cloned())
        .collect();
    let row = |from: &String| {
        let to = found.workloads.iter().map(|to| {
            let cell = cells.get(&(from.as_str(), to.as_str()));
            cell.map(|cell| ports(cell)).unwrap_or_default()
        });
        std::iter::once(from.clone()).chain(to).collect()
    };
    std::iter::once(head)
        .chain(found.workloads.iter().map(row))
        .collect()
}

/// A cell of CSV (RFC 4180).
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
