//! `mesh check`: every part of a running mesh, on this machine or on a cluster, what is broken, and the command that mends
//! it.
//!
//! - [`item`]: what one check says; [`report`]: the forms in which it is said
//! - [`cluster`]: a mesh on Kubernetes
//! - [`machine`]: state directory, processes, keys and certificates on disk, sockets
//! - [`parts`]: controller and proxies, as their admin sockets answer
//! - [`trust`]: roots, who acknowledged them, a rotation under way

mod cluster;
mod item;
mod machine;
mod parts;
mod report;
mod trust;

use crate::arguments::duration;
use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::live::{self, Live, LiveArgs};
use crate::output::{Format, Output, Tone};
use clap::{Args, ValueEnum};
use item::{Item, Status};
use mesh_platform::{Platform, System};
use std::time::Duration;

/// Pause before what is broken is checked again, with `--wait`.
const CHECK_AGAIN: Duration = Duration::from_millis(500);

/// What is checked, and from when on it fails.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Of a cluster: whether the mesh can be installed there.
    #[arg(long, group = "scope")]
    pre: bool,
    /// Of a cluster: only proxies, and pods that should have one.
    #[arg(long, group = "scope")]
    proxy: bool,
    /// Of a cluster: only policy, whether it is accepted and in force.
    #[arg(long, group = "scope")]
    policy: bool,
    /// Of a cluster: only webhooks and certificates.
    #[arg(long, group = "scope")]
    certs: bool,
    /// Of a cluster: only pods and policy of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Checks again until nothing is broken, for this long at most: `30s`, `2m`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// From which severity on the command fails.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    fail_on: FailOn,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: CheckFormat,
}

/// Form of what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// One line a check, below headings.
    #[default]
    Text,
    /// The same: nothing is cut.
    Wide,
    /// A list of checks.
    Json,
    /// The same as YAML.
    Yaml,
    /// A JUnit report.
    Junit,
    /// SARIF 2.1.0.
    Sarif,
}

/// What of a cluster is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Pre,
    Proxy,
    Policy,
    Certs,
}

impl CheckArgs {
    /// The form that errors take.
    pub(crate) fn format(&self) -> Format {
        match self.output {
            CheckFormat::Text | CheckFormat::Wide | CheckFormat::Junit => Format::Text,
            CheckFormat::Json | CheckFormat::Sarif => Format::Json,
            CheckFormat::Yaml => Format::Yaml,
        }
    }

    fn scope(&self) -> Scope {
        match (self.pre, self.proxy, self.policy, self.certs) {
            (true, ..) => Scope::Pre,
            (_, true, ..) => Scope::Proxy,
            (_, _, true, _) => Scope::Policy,
            (.., true) => Scope::Certs,
            _ => Scope::All,
        }
    }
}

/// From which severity on the check fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Warnings end the command with 3.
    Warn,
    /// Only what is broken counts.
    #[default]
    Error,
}

/// Checks everything and prints it.
pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> Result<Exit, Fault> {
    let clock = System::new();
    let begun = clock.monotonic();
    let items = loop {
        let items = look(args)?;
        let broken = items.iter().any(|item| item.status == Status::Broken);
        let time_is_up = || clock.monotonic().since(begun) >= args.wait.unwrap_or_default();
        if !broken || time_is_up() {
            break items;
        }
        std::thread::sleep(CHECK_AGAIN);
    };
    match args.output {
        CheckFormat::Junit => output.text(report::junit(&items))?,
        CheckFormat::Sarif => output.value(Format::Json, &report::sarif(&items), |_, _| Ok(()))?,
        _ => output.value(args.format(), &items, |output, items| print(items, output))?,
    }
    let any = |status: Status| items.iter().any(|item| item.status == status);
    Ok(
        match (any(Status::Broken), any(Status::Doubtful), args.fail_on) {
            (true, _, _) => Exit::Failure,
            (false, true, FailOn::Warn) => Exit::Warnings,
            _ => Exit::Ok,
        },
    )
}

/// Checks everything once.
fn look(args: &CheckArgs) -> Result<Vec<Item>, Fault> {
    let scope = args.scope();
    // What is asked of a cluster alone is never asked of this machine.
    if scope != Scope::All || args.cluster.is_meant(&args.live) {
        cluster::check(&args.cluster, scope, args.namespace.as_deref())
    } else {
        machine(&args.live)
    }
}

/// The mesh on this machine.
fn machine(args: &LiveArgs) -> Result<Vec<Item>, Fault> {
    let live = Live::read(args)?;
    let mut items = machine::check(&live);
    if live.supervisor_is_alive() {
        items.extend(live::wait(async {
            let mut items = trust::check(&live).await;
            items.extend(parts::check(&live).await);
            Ok(items)
        })?);
    }
    items.extend(machine::check_logs(&live));
    Ok(items)
}

fn print(items: &[Item], output: &mut Output) -> Result<(), Fault> {
    let mut category = "";
    for item in items {
        if item.category != category {
            category = item.category;
            let heading = output.toned(Tone::Strong, category);
            output.line(heading)?;
        }
        let mark = match item.status {
            Status::Ok => output.toned(Tone::Good, "ok  "),
            Status::Doubtful => output.toned(Tone::Doubtful, "warn"),
            Status::Broken => output.toned(Tone::Bad, "FAIL"),
        };
        let code = item
            .code
            .as_ref()
            .map(|code| format!(" {code}"))
            .unwrap_or_default();
        output.line(format_args!("  {mark}{code} {}", item.says))?;
        if let Some(fix) = &item.fix {
            output.line(format_args!("         fix: {fix}"))?;
        }
    }
    let count = |status: Status| items.iter().filter(|item| item.status == status).count();
    output.talk(format_args!(
        "{} checks: {} ok, {} warnings, {} failures",
        items.len(),
        count(Status::Ok),
        count(Status::Doubtful),
        count(Status::Broken),
    ));
    Ok(())
}
