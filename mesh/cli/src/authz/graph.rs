//! `mesh authz graph`: who reaches whom, and what to remove so that two no longer do.

use super::policy::PolicyArgs;
use super::world::{Mesh, few, unanswered, warn_inexact};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, printable};
use clap::{Args, ValueEnum};
use mesh_policy_analysis::graph::{Edge, Graph, Selector};
use mesh_policy_analysis::world::title;
use serde_json::json;

/// Which graph.
#[derive(Args, Clone, Debug)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Only what is reached from here: `namespace` or `namespace/workload`.
    #[arg(long, value_name = "FROM", value_parser = Selector::parse)]
    from: Option<Selector>,
    /// Hops from there at most; all if not given.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// The smallest set of grants without which A no longer reaches B.
    #[arg(long, value_names = ["A", "B"], num_args = 2, value_parser = Selector::parse, conflicts_with_all = ["from", "depth"])]
    cut: Vec<Selector>,
    /// With `outside` as a node: who gets out of the mesh, and over whom.
    #[arg(long, conflicts_with = "cut")]
    outside: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: GraphFormat,
}

/// Form of the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum GraphFormat {
    /// A line for each edge.
    #[default]
    Text,
    /// Edges with policies, places and a request each.
    Json,
    /// For Graphviz.
    Dot,
}

impl GraphArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            GraphFormat::Json => Format::Json,
            GraphFormat::Text | GraphFormat::Dot => Format::Text,
        }
    }
}

/// Prints the graph, or a cut of it.
pub(crate) fn run(args: &GraphArgs, output: &mut Output) -> Result<Exit, Fault> {
    let mesh = Mesh::open(&args.policy)?;
    let start = args.from.as_ref().or(args.cut.first());
    let mut nodes = match start {
        Some(selector) => nodes(selector, &mesh)?,
        None => mesh.world.workloads().iter().map(title).collect(),
    };
    if let Some(selector) = start.filter(|one| one.workload.is_none()) {
        nodes.push(format!("{}/*", selector.namespace));
    }
    let world = mesh.world.as_ref();
    let mut graph = Graph::of(world, &mesh.home, start, mesh.setting()).map_err(unanswered)?;
    if args.outside {
        graph.add_outside(world).map_err(unanswered)?;
    }
    warn_inexact(graph.exact, &graph.notes, output);
    if let [_, to] = args.cut.as_slice() {
        return cut(args, &graph, &nodes, &self::nodes(to, &mesh)?, output);
    }
    let edges = graph.reach(&nodes, args.depth.unwrap_or(usize::MAX));
    match args.output {
        GraphFormat::Text => {
            for edge in &edges {
                output.line(format_args!(
                    "{} -> {}  {}",
                    edge.from,
                    edge.to,
                    policies(edge)
                ))?;
            }
        }
        GraphFormat::Json => {
            let value = json!({ "exact": graph.exact, "notes": graph.notes, "edges": edges });
            output.value(Format::Json, &value, |_, _| Ok(()))?;
        }
        GraphFormat::Dot => {
            output.line("digraph access {")?;
            for edge in &edges {
                let label = quoted(&policies(edge));
                output.line(format_args!(
                    "  {} -> {} [label={label}];",
                    quoted(&edge.from),
                    quoted(&edge.to)
                ))?;
            }
            output.line("}")?;
        }
    }
    Ok(Exit::Ok)
}

fn nodes(selector: &Selector, mesh: &Mesh) -> Result<Vec<String>, Fault> {
    let keys = selector.among(mesh.world.as_ref()).map_err(unanswered)?;
    Ok(keys.iter().map(title).collect())
}

fn cut(
    args: &GraphArgs,
    graph: &Graph,
    start: &[String],
    goal: &[String],
    output: &mut Output,
) -> Result<Exit, Fault> {
    let found = graph.cut(start, &goal.iter().cloned().collect());
    if args.output == GraphFormat::Json {
        let value =
            json!({ "exact": graph.exact, "smallest": found.smallest, "grants": found.grants });
        output.value(Format::Json, &value, |_, _| Ok(()))?;
    } else if found.grants.is_empty() {
        output.line("there is no path to cut")?;
    } else {
        let word = if found.smallest {
            "smallest cut"
        } else {
            "a cut, perhaps not the smallest"
        };
        output.line(format_args!("{word}: {} grants", found.grants.len()))?;
        for grant in &found.grants {
            output.line(format_args!(
                "  {}  {}",
                printable(&grant.policy),
                printable(&grant.source)
            ))?;
        }
    }
    // A graph that may lack edges may lack paths that the cut leaves open.
    Ok(if graph.exact {
        Exit::Ok
    } else {
        Exit::Undecidable
    })
}

fn policies(edge: &Edge) -> String {
    if edge.grants.is_empty() {
        return "no EgressNetwork speaks".to_owned();
    }
    few(&edge
        .grants
        .iter()
        .map(|grant| grant.policy.clone())
        .collect::<Vec<_>>())
}

/// A quoted string of the DOT language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
