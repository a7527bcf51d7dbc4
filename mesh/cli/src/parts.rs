//! The parts of a mesh as processes of their own: `mesh up` starts them, and a person may.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{MeshSettings, trust_domain};
use clap::Args;
use mesh_ca::CaConfig;
use mesh_controller::config::PROXY_PORT;
use mesh_controller::{ControllerConfig, IdentitySource};
use mesh_platform::{System, process, signals};
use mesh_policy_index::IndexConfig;
use mesh_trust::TrustDomain;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Threads of CA and controller.
const WORKERS: usize = 2;

/// Runs the identity CA.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaArgs {
    /// Trust domain that it signs for.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: TrustDomain,
    /// Folder of keys, certificates and the issuance log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Socket of the SPIFFE Workload API.
    #[arg(long, value_name = "SOCKET")]
    workload_api: PathBuf,
    /// Socket on which the process that started the CA says which process is which workload; without it nobody can.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Life of SVIDs, 10 seconds to 72 hours.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::arguments::duration)]
    svid_ttl: Duration,
}

/// Runs the policy controller.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    settings: MeshSettings,
    /// Where proxies reach it.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Socket of the SPIFFE Workload API that gives it its identity.
    #[arg(long, value_name = "SOCKET")]
    workload_api: PathBuf,
    /// Its admin socket.
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    /// State directory: the generation and the log of changes.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Files and folders of manifests; they are watched.
    #[arg(long, value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
}

/// Runs one proxy.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyArgs {
    /// Its configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs a command that ends when its parent ends.
#[derive(Args, Clone, Debug)]
pub(crate) struct LaunchArgs {
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Why a part cannot run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum PartError {
    #[error("`{program}` cannot be started: {why}")]
    #[diagnostic(
        code("MESH-0616"),
        help("check that the program exists and may be executed: `command -v {program}`")
    )]
    Launch { program: String, why: String },
    #[error("the runtime cannot start: {why}")]
    #[diagnostic(
        code("MESH-0632"),
        help("look at the limits of open files and processes (`ulimit -a`)")
    )]
    Runtime { why: String },
}

/// Replaces this process with the command, after asking the kernel to end it with its parent.
pub(crate) fn launch(args: LaunchArgs) -> Result<Exit, Fault> {
    process::die_with_parent()?;
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    Err(PartError::Launch {
        program: program.to_string_lossy().into_owned(),
        why: error.to_string(),
    }
    .into())
}

/// Runs the identity CA until it is ended.
pub(crate) fn ca(args: CaArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let config = CaConfig {
        control: args.control,
        svid_ttl: args.svid_ttl,
        ..CaConfig::new(
            &args.dir,
            args.trust_domain,
            &args.workload_api,
            System::new(),
        )
    };
    let runtime = runtime()?;
    runtime.block_on(mesh_ca::run(config, asked_to_end()))?;
    Ok(Exit::Ok)
}

/// Runs the controller until it is ended.
pub(crate) fn controller(args: ControllerArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let config = ControllerConfig {
        manifests: args.manifests,
        listen: args.listen,
        identity: IdentitySource::WorkloadApi(args.workload_api),
        state_dir: args.state.join("controller"),
        audit_dir: args.state.join("audit"),
        admin_socket: args.socket,
        index: IndexConfig {
            default_policy: args.settings.default_policy,
            ..IndexConfig::new(args.settings.trust_domain)
        },
        proxy_port: PROXY_PORT,
    };
    let runtime = runtime()?;
    runtime.block_on(mesh_controller::run(config, System::new(), asked_to_end()))?;
    Ok(Exit::Ok)
}

/// Runs one proxy until it is ended.
pub(crate) fn proxy(args: ProxyArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let platform = System::new();
    let config = mesh_proxy::config::file::load(&*platform, &args.config)
        .map_err(|error| Fault::usage(&error))?;
    mesh_proxy::run(config, platform)?;
    Ok(Exit::Ok)
}

/// The event loop of CA and controller: their work is small, but must not wait for each other's disk.
fn runtime() -> Result<Runtime, PartError> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build();
    built.map_err(|error| PartError::Runtime {
        why: error.to_string(),
    })
}

/// Ready once a signal asks the process to end; never, if signals cannot be watched: the default then ends it.
async fn asked_to_end() {
    if let Err(error) = signals::shutdown_requested().await {
        tracing::error!(%error, "signals cannot be watched");
        std::future::pending::<()>().await;
    }
}

/// Sends log lines to stderr; `MESH_LOG` sets what is logged, `info` and `mesh_proxy=debug` for instance.
pub(crate) fn log_to_stderr(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MESH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    // A second call, in a test for instance, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
