//! Every command of `mesh`, what it calls, and the form of its errors.

use crate::ceremony::CaCommand;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Surroundings};
use crate::{
    audit, authz, check, demo, identity, kubernetes, node, pages, parts, reference, run, signer,
    tap, traffic, trust, up, version,
};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use std::collections::BTreeMap;

/// A zero-trust service mesh: who is calling, may they, can it be proved.
#[derive(Parser, Debug)]
#[command(
    name = "mesh",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok or allowed, 1 failure, 2 usage, 3 warnings under --fail-on warn, 4 timeout, \
                  10 denied, 11 undecidable."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs a whole mesh on this machine: no root, no cluster.
    Up(up::UpArgs),
    /// Runs a command with all its connections captured: a network namespace of its own, and one proxy as the way out.
    Run(run::RunArgs),
    /// Questions about authorization: why, what if, what is wrong.
    #[command(subcommand)]
    Authz(authz::AuthzCommand),
    /// Policies as the engine sees them.
    #[command(subcommand)]
    Policy(authz::PolicyCommand),
    /// Identities and certificates.
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Trust anchors and their rotation.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Machines that join the mesh.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Runs the agent of a machine that joins a mesh: identities for its processes, from a CA elsewhere.
    Join(Box<node::JoinArgs>),
    /// Prints the mesh as YAML for a Kubernetes cluster: `mesh install | kubectl apply -f -`.
    Install(kubernetes::InstallArgs),
    /// Prints what is installed on a cluster as this version has it: `mesh upgrade | kubectl apply -f -`.
    Upgrade(kubernetes::UpgradeArgs),
    /// Prints the names of what only an older version installed: `mesh prune | kubectl delete -f -`.
    Prune(kubernetes::PruneArgs),
    /// Prints the names of what `mesh install` made: `mesh uninstall | kubectl delete -f -`.
    Uninstall(kubernetes::UninstallArgs),
    /// Asks for proxies in manifests: `mesh inject app.yaml | kubectl apply -f -`.
    Inject(kubernetes::InjectArgs),
    /// Takes proxies, and what asks for them, out of manifests.
    Uninject(kubernetes::UninjectArgs),
    /// Checks every part of a running mesh and says how to mend what is broken.
    Check(check::CheckArgs),
    /// Requests, denials and latency of each workload of a running mesh.
    Stat(traffic::StatArgs),
    /// Who calls whom in a running mesh, under which identity and with what verdict.
    Edges(traffic::EdgesArgs),
    /// What moves in a running mesh now: who calls whom, or which routes take requests, by rate, with latencies.
    Top(traffic::top::TopArgs),
    /// Requests and connections of a running mesh as they end.
    Tap(tap::TapArgs),
    /// Decision logs.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Explains an error code, offline.
    Explain(pages::ExplainArgs),
    /// Prints the version.
    Version(version::VersionArgs),
    /// Prints completions for a shell.
    Completion(reference::CompletionArgs),
    /// Runs the identity CA with its Workload API.
    Ca(Box<parts::CaArgs>),
    /// Runs the policy controller.
    Controller(parts::ControllerArgs),
    /// Runs one proxy.
    Proxy(parts::ProxyArgs),
    /// Runs the webhooks that add proxies to pods and check policies.
    Injector(kubernetes::InjectorArgs),
    /// Plays one application of the demo shop.
    DemoApp(demo::DemoArgs),
    /// Runs a command that ends when its parent ends.
    #[command(hide = true)]
    Launch(parts::LaunchArgs),
    /// Becomes a command in a network namespace of its own, for the process that starts it.
    #[command(hide = true)]
    Captured(run::inside::CapturedArgs),
    /// Holds the private keys of a CA, which starts it.
    #[command(hide = true)]
    Signer(signer::SignerArgs),
    /// Prints docs/reference/cli.md.
    #[command(hide = true)]
    Reference,
    /// Writes the files below charts/ that are made from code.
    #[command(hide = true)]
    Charts(kubernetes::ChartsArgs),
}

impl Command {
    /// The form that errors of this command take.
    fn format(&self) -> Format {
        match self {
            Self::Authz(command) => command.format(),
            Self::Policy(command) => command.format(),
            Self::Identity(command) => command.format(),
            Self::Trust(command) => command.format(),
            Self::Node(command) => command.format(),
            Self::Check(args) => args.format(),
            Self::Stat(args) => args.output,
            Self::Edges(args) => args.output,
            Self::Top(args) => args.output,
            Self::Audit(command) => command.format(),
            Self::Explain(args) => args.output,
            Self::Version(args) => args.output,
            Self::Ca(args) => {
                let command = args.command.as_ref();
                command.map_or(Format::Text, CaCommand::format)
            }
            Self::Up(_)
            | Self::Tap(_)
            | Self::Run(_)
            | Self::Captured(_)
            | Self::Install(_)
            | Self::Upgrade(_)
            | Self::Prune(_)
            | Self::Uninstall(_)
            | Self::Inject(_)
            | Self::Uninject(_)
            | Self::Injector(_)
            | Self::Charts(_)
            | Self::Completion(_)
            | Self::Join(_)
            | Self::Controller(_)
            | Self::Proxy(_)
            | Self::DemoApp(_)
            | Self::Launch(_)
            | Self::Signer(_)
            | Self::Reference => Format::Text,
        }
    }

    fn run(self, output: &mut Output, surroundings: Surroundings) -> Result<Exit, Fault> {
        match self {
            Self::Up(args) => {
                parts::log_to_stderr("warn");
                up::run(&args, output).map(|()| Exit::Ok)
            }
            Self::Run(args) => run::run(&args),
            Self::Captured(args) => run::inside::run(args),
            Self::Authz(command) => authz::run(command, output),
            Self::Policy(command) => authz::run_policy(command, output),
            Self::Identity(command) => identity::run(command, output),
            Self::Trust(command) => trust::run(command, output),
            Self::Node(command) => node::run(command, output),
            Self::Join(args) => node::join(*args),
            Self::Install(args) => kubernetes::install(&args, output),
            Self::Upgrade(args) => kubernetes::upgrade(&args, output),
            Self::Prune(args) => kubernetes::prune(&args, output),
            Self::Uninstall(args) => kubernetes::uninstall(&args, output),
            Self::Inject(args) => kubernetes::inject(&args, output),
            Self::Uninject(args) => kubernetes::uninject(&args, output),
            Self::Injector(args) => kubernetes::injector(&args),
            Self::Charts(args) => kubernetes::charts(&args, output),
            Self::Check(args) => check::run(&args, output),
            Self::Stat(args) => traffic::stat(&args, output),
            Self::Edges(args) => traffic::edges(&args, output),
            Self::Top(args) => traffic::top::top(&args, output),
            Self::Tap(args) => tap::run(&args, output),
            Self::Audit(command) => audit::run(&command, output),
            Self::Explain(args) => pages::explain(&args, output),
            Self::Version(args) => version::run(&args, output),
            Self::Completion(args) => reference::completion(&args, output),
            Self::Ca(args) => parts::ca(*args, output),
            Self::Controller(args) => parts::controller(args),
            Self::Proxy(args) => parts::proxy(args),
            Self::DemoApp(args) => {
                parts::log_to_stderr("info");
                demo::run(args, mesh_variables(), Output::standard(surroundings))
            }
            Self::Launch(args) => parts::launch(args),
            Self::Signer(args) => signer::run(args),
            Self::Reference => reference::print(Cli::command(), output),
        }
    }
}

/// Reads the command line and runs what it asks for.
pub(crate) fn run() -> Exit {
    let surroundings = Surroundings::read();
    let mut output = Output::standard(surroundings);
    let exit = match Cli::try_parse() {
        Ok(cli) => {
            let format = cli.command.format();
            cli.command
                .run(&mut output, surroundings)
                .unwrap_or_else(|fault| {
                    // What was found before the fault comes first.
                    let _ = output.flush();
                    output.fault(&fault, format);
                    fault.exit()
                })
        }
        Err(error) => misread(&error, &mut output),
    };
    match output.flush() {
        Ok(()) => exit,
        Err(fault) => {
            output.fault(&fault, Format::Text);
            fault.exit()
        }
    }
}

/// Help and version go to stdout, everything else is a usage error.
fn misread(error: &clap::Error, output: &mut Output) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = output.text(error.render());
            Exit::Ok
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output.talk(error.render());
            Exit::Usage
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            output.talk(format_args!("error {USAGE}: {}", text.trim_end()));
            Exit::Usage
        }
    }
}

/// Code of a command line that cannot be read.
const USAGE: &str = "MESH-0600";

/// The variables that applications of the demo are told their addresses by.
fn mesh_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| key.starts_with("MESH_"))
        .collect()
}

/// The whole command, for completions and the reference.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}
