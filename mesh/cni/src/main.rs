//! `mesh-cni`: called by a container runtime it is a CNI plugin; `mesh-cni install` puts it on a node.

use clap::{Args, Parser, Subcommand};
use mesh_cni::error::{CniError, InstallError};
use mesh_cni::install::{self, Settings};
use mesh_cni::limits::CONFIG_BYTES_MAX;
use mesh_cni::node::Node;
use mesh_cni::plugin::{self, Answer};
use mesh_cni::protocol::{Environment, NEWEST};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Captures the traffic of meshed pods as a chained CNI plugin (0.3.0 to 1.1.0). Container runtimes call it without
/// arguments; these are for the DaemonSet.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Copies this program to the node, chains it, and keeps both so until it is asked to end.
    Install(InstallArgs),
    /// Succeeds if everything is in place: a readiness probe.
    Ready(PlaceArgs),
    /// Takes it out of the chain; configurations that nobody else changed are what they were.
    Uninstall(PlaceArgs),
}

#[derive(Args)]
struct InstallArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// DaemonSet that this is a pod of, as `NAMESPACE/NAME`: asked to end while that goes on, the chain stays.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = daemon_set)]
    daemon_set: Option<(String, String)>,
}

#[derive(Args)]
struct PlaceArgs {
    /// The node's folder of plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The node's folder of network configurations; by the same path on the node.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Where the service account's `token` and `ca.crt` are.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    account_dir: PathBuf,
    /// The API server's address, as nodes reach it.
    #[arg(long, value_name = "HOST", env = "KUBERNETES_SERVICE_HOST")]
    api_host: String,
    /// Its port.
    #[arg(long, value_name = "PORT", env = "KUBERNETES_SERVICE_PORT")]
    api_port: u16,
    /// Namespaces whose pods have no proxy: they get their network without a question.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', default_values_t = mesh_cluster::names::OUTSIDE.map(str::to_owned))]
    exclude_namespaces: Vec<String>,
}

fn daemon_set(text: &str) -> Result<(String, String), &'static str> {
    let (namespace, name) = text.split_once('/').ok_or("`NAMESPACE/NAME`")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

impl From<PlaceArgs> for Settings {
    fn from(args: PlaceArgs) -> Self {
        Self {
            program: install::SELF.into(),
            bin_dir: args.bin_dir,
            conf_dir: args.conf_dir,
            account_dir: args.account_dir,
            host: args.api_host,
            port: args.api_port,
            exclude_namespaces: args.exclude_namespaces,
        }
    }
}

fn main() -> ExitCode {
    let variable = |name: &str| {
        let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        value.unwrap_or_default()
    };
    let environment = Environment {
        command: variable("CNI_COMMAND"),
        container: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        interface: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
    };
    if !environment.command.is_empty() && std::env::args_os().len() <= 1 {
        return plug(&environment);
    }
    let done = match Arguments::parse().command {
        Command::Install(args) => keep(args),
        Command::Ready(args) => Settings::from(args).check(),
        Command::Uninstall(args) => Settings::from(args).remove().map(drop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

fn keep(args: InstallArgs) -> Result<(), InstallError> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let named = args.daemon_set;
    let named = named
        .as_ref()
        .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    install::keep(&Settings::from(args.place), named)
}

/// One call of a runtime.
fn plug(environment: &Environment) -> ExitCode {
    let mut stdin = Vec::new();
    let read = io::stdin()
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut stdin);
    let too_much = stdin.len() as u64 > CONFIG_BYTES_MAX;
    let Answer { text, is_error } = match read {
        Ok(_) if !too_much => plugin::answer(environment, &stdin, &Node),
        _ => {
            let error = CniError::Config {
                why: format!("it cannot be read, or has more than {CONFIG_BYTES_MAX} bytes"),
                undecodable: true,
            };
            Answer {
                text: error.to_json(NEWEST, error.number()).to_string(),
                is_error: true,
            }
        }
    };
    // A runtime that has gone does not want to know.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(is_error))
}

#[expect(clippy::print_stderr, reason = "a command tells its user why it ends")]
fn failed(error: impl miette::Diagnostic + Send + Sync + 'static) -> ExitCode {
    eprintln!("{:?}", miette::Report::new(error));
    ExitCode::FAILURE
}
