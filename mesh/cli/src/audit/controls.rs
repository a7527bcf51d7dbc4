//! `mesh audit controls`: the mappings, and what the mesh does not cover.

use super::run::FrameworkArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Table, Tone};
use clap::Args;
use mesh_compliance::evidence::metric::METRICS;
use mesh_compliance::framework::{Control, Framework};
use serde_json::{Value, json};

/// Which frameworks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControlsArgs {
    #[command(flatten)]
    frameworks: FrameworkArgs,
    /// Lists the metrics that a mapping can use, in place of controls.
    #[arg(long)]
    metrics: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Prints the mappings.
pub(super) fn run(args: &ControlsArgs, output: &mut Output) -> Result<Exit, Fault> {
    if args.metrics {
        let all: Vec<Value> = METRICS
            .iter()
            .map(|one| json!({ "metric": one.id, "counts": one.about }))
            .collect();
        output.value(args.output, &all, |output, _| {
            let mut table = Table::new(&["METRIC", "COUNTS"]);
            METRICS
                .iter()
                .for_each(|one| table.row([one.id.to_owned(), one.about.to_owned()]));
            output.table(&table, Format::Wide)
        })?;
        return Ok(Exit::Ok);
    }
    let (frameworks, _) = args.frameworks.read()?;
    let all: Vec<Value> = frameworks.iter().map(json_of).collect();
    output.value(args.output, &all, |output, _| {
        frameworks.iter().try_for_each(|one| print(one, output))
    })?;
    Ok(Exit::Ok)
}

fn json_of(framework: &Framework) -> Value {
    let texts = |control: &Control| {
        let needs = |needs: &[mesh_compliance::expression::Need]| {
            needs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let stages: serde_json::Map<String, Value> = control
            .stages
            .iter()
            .map(|(name, all)| (name.clone(), json!(needs(all))))
            .collect();
        json!({
            "id": control.id, "title": control.title, "baseline": control.baseline, "evidence": control.evidence(),
            "needs": needs(&control.needs), "should": needs(&control.should), "stages": stages, "part": control.part,
            "not_covered": control.not_covered,
        })
    };
    json!({
        "framework": framework.id, "title": framework.title, "version": framework.version,
        "mapping_revision": framework.revision, "source": framework.source,
        "controls": framework.controls.iter().map(texts).collect::<Vec<_>>(),
    })
}

fn print(framework: &Framework, output: &mut Output) -> Result<(), Fault> {
    let title = format!(
        "{}  {} {}, mapping {}",
        framework.id, framework.title, framework.version, framework.revision
    );
    let title = output.toned(Tone::Strong, &title);
    output.line(title)?;
    for control in &framework.controls {
        let baseline = control
            .baseline
            .as_ref()
            .map(|one| format!(" ({one})"))
            .unwrap_or_default();
        output.line(format_args!(
            "  {}{baseline}  {}  [{}]",
            control.id,
            control.title,
            control.evidence().join(", ")
        ))?;
        for (word, needs) in [("needs ", &control.needs), ("should", &control.should)] {
            needs
                .iter()
                .try_for_each(|need| output.line(format_args!("    {word}  {need}")))?;
        }
        for (name, needs) in &control.stages {
            needs
                .iter()
                .try_for_each(|need| output.line(format_args!("    {name:<8}  {need}")))?;
        }
        let part = if control.part { "only a part; " } else { "" };
        output.line(format_args!(
            "    not covered: {part}{}",
            control.not_covered
        ))?;
    }
    Ok(())
}
