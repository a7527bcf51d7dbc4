//! The parts of a mesh as processes of their own: `mesh up` starts them, and a person may.

use crate::broker::BrokerArgs;
use crate::bundle_endpoint::BundleEndpointArgs;
use crate::ceremony::{self, CaCommand};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::manifests::{MeshSettings, trust_domain};
use crate::output::Output;
use crate::registrations;
use crate::signer::{self, TokenArgs};
use clap::Args;
use mesh_ca::adoption::Keeper;
use mesh_ca::adoption::files::KeptFiles;
use mesh_ca::kubernetes::{ApiServer, ClusterWork, KeptObjects};
use mesh_ca::network::Cluster;
use mesh_ca::{CaConfig, NetworkConfig, Oidc};
use mesh_ca_client::RemoteCa;
use mesh_controller::config::PROXY_PORT;
use mesh_controller::{ControllerConfig, IdentitySource, PolicySources};
use mesh_kubernetes::Client;
use mesh_kubernetes::named::{DataKind, Named};
use mesh_platform::{System, process, signals};
use mesh_policy_index::{IndexConfig, Proxied};
use mesh_trust::{SpiffeId, TrustDomain};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Threads of CA and controller.
const WORKERS: usize = 2;

/// Runs the identity CA.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group(clap::ArgGroup::new("network").args(["kubernetes", "nodes"]).multiple(true)))]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CaCommand>,
    /// Trust domain that it signs for.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: TrustDomain,
    /// Folder of keys, certificates and the issuance log.
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,
    /// Socket of the SPIFFE Workload API.
    #[arg(long, value_name = "SOCKET", required = true)]
    workload_api: Option<PathBuf>,
    /// Socket on which the process that started the CA says which process is which workload; without it nobody can.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Socket on which processes of this user steer trust: `mesh trust`.
    #[arg(long, value_name = "SOCKET")]
    trust: Option<PathBuf>,
    /// Socket on which an operator of this user changes the deny list (`mesh identity deny`).
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// Life of SVIDs, 10 seconds to 72 hours.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::arguments::duration)]
    svid_ttl: Duration,
    /// File of processes that nobody launches and who they are: by user, program or systemd service
    /// (docs/reference/registrations.md).
    #[arg(long, value_name = "FILE")]
    registrations: Option<PathBuf>,
    /// Permission bits of the Workload API's socket, octal; 0666 lets in processes of other users.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = crate::arguments::mode)]
    workload_api_mode: u32,
    /// Address under which relying parties outside of SPIFFE find the keys of JWT-SVIDs; tokens name it as their issuer.
    #[arg(long, value_name = "URL", requires = "oidc_listen")]
    jwt_issuer: Option<String>,
    /// Where those keys are served, over plain HTTP: put a server with TLS in front of it.
    #[arg(long, value_name = "IP:PORT", requires = "jwt_issuer")]
    oidc_listen: Option<SocketAddr>,
    /// Issues to pods of a Kubernetes cluster as well: over TLS, for service account tokens that its API server vouches for.
    #[arg(long)]
    kubernetes: bool,
    /// Lets machines join, with a token of `mesh node token`, and serves their agents.
    #[arg(long)]
    nodes: bool,
    /// Where pods and machines that join reach it.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "0.0.0.0:15011",
        requires = "network"
    )]
    listen: SocketAddr,
    /// Namespace that the CA runs in.
    #[arg(
        long,
        value_name = "NAMESPACE",
        default_value = "mesh-system",
        requires = "network"
    )]
    namespace: String,
    /// Folder in which others keep the issuer, as a Secret of cert-manager is mounted: `tls.crt`, `tls.key`, `ca.crt`. It is
    /// read again as it changes (docs/guides/cert-manager.md).
    #[arg(long, value_name = "DIR")]
    issuer: Option<PathBuf>,
    /// Roots to trust, PEM; without it, `ca.crt` of that folder.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    roots: Option<PathBuf>,
    /// Secret in which others keep the issuer; it is watched.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "kubernetes", conflicts_with = "issuer",
          value_parser = crate::arguments::namespaced)]
    issuer_secret: Option<(String, String)>,
    /// ConfigMap of the roots to trust, as trust-manager writes it; without it, `ca.crt` of the issuer's Secret.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "issuer_secret",
          value_parser = crate::arguments::namespaced)]
    roots_config_map: Option<(String, String)>,
    /// Key of the roots in that ConfigMap.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "ca-bundle.crt",
        requires = "roots_config_map"
    )]
    roots_key: String,
    /// ClusterTrustBundle of the roots to trust; without it, `ca.crt` of the issuer's Secret.
    #[arg(
        long,
        value_name = "NAME",
        requires = "issuer_secret",
        conflicts_with = "roots_config_map"
    )]
    roots_trust_bundle: Option<String>,
    /// Answers cert-manager's CertificateRequests that name a `MeshIssuer` or `MeshClusterIssuer`
    /// (docs/guides/cert-manager.md).
    #[arg(long, requires = "kubernetes")]
    external_issuer: bool,
    /// Where `/live`, `/ready` and `/metrics` are served to everybody, over plain HTTP.
    #[arg(long, value_name = "IP:PORT")]
    probes: Option<SocketAddr>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    bundle_endpoint: BundleEndpointArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    api_server: ApiServerArgs,
}

/// Which Kubernetes API server.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiServerArgs {
    /// Kubeconfig of the cluster; inside a pod none is needed.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one if not given.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    context: Option<String>,
}

/// A CA that is asked over the network.
#[derive(Args, Clone, Debug)]
pub(crate) struct RemoteCaArgs {
    /// CA that gives it its identity, by its service account token.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "workload_api")]
    ca: Option<String>,
    /// SPIFFE ID of that CA. Default: `spiffe://TRUST-DOMAIN/ns/mesh-system/sa/mesh-identity`
    #[arg(long, value_name = "ID", requires = "ca", value_parser = spiffe_id)]
    ca_identity: Option<SpiffeId>,
    /// Projected token for the audience `identity.mesh.internal`.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/mesh/token",
        requires = "ca"
    )]
    token: PathBuf,
    /// Trust bundle that the CA is known by, PEM.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/mesh/trust/ca-bundle.crt",
        requires = "ca"
    )]
    bundle: PathBuf,
}

pub(crate) fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse_config(text).map_err(|error| error.to_string())
}

impl RemoteCaArgs {
    fn source(
        self,
        trust_domain: &TrustDomain,
        workload_api: Option<PathBuf>,
    ) -> Result<IdentitySource, Fault> {
        if let Some(socket) = workload_api {
            return Ok(IdentitySource::WorkloadApi(socket));
        }
        let address = self
            .ca
            .ok_or_else(|| Fault::usage(&PartError::NoIdentity))?;
        let identity = match self.ca_identity {
            Some(identity) => identity,
            None => system_identity(trust_domain, "mesh-system", "mesh-identity")?,
        };
        Ok(IdentitySource::Ca(RemoteCa {
            address,
            identity,
            trust_domain: trust_domain.clone(),
            token: self.token,
            bundle: self.bundle,
        }))
    }
}

/// The SPIFFE ID of a part of the control plane.
fn system_identity(
    trust_domain: &TrustDomain,
    namespace: &str,
    service_account: &str,
) -> Result<SpiffeId, Fault> {
    SpiffeId::for_service_account(trust_domain, namespace, service_account).map_err(|error| {
        Fault::usage(&PartError::NamesNoIdentity {
            namespace: namespace.to_owned(),
            why: error.to_string(),
        })
    })
}

/// Runs the policy controller.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    settings: MeshSettings,
    /// Where proxies reach it.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Socket of the SPIFFE Workload API that gives it its identity; else `--ca`.
    #[arg(long, value_name = "SOCKET")]
    workload_api: Option<PathBuf>,
    #[command(flatten)]
    remote_ca: RemoteCaArgs,
    /// Its admin socket.
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    /// Where `/live`, `/ready` and `/metrics` are served to everybody, over plain HTTP.
    #[arg(long, value_name = "IP:PORT")]
    probes: Option<SocketAddr>,
    /// State directory: the generation and the log of changes.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Files and folders of manifests; they are watched.
    #[arg(long, value_name = "PATH", required_unless_present = "kubernetes")]
    manifests: Vec<PathBuf>,
    /// Reads the objects of a Kubernetes cluster in place of manifests.
    #[arg(long, conflicts_with = "manifests")]
    kubernetes: bool,
    #[command(flatten)]
    api_server: ApiServerArgs,
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
pub(crate) enum PartError {
    #[error("`{program}` cannot be started: {why}")]
    #[diagnostic(
        code("MESH-0616"),
        help("check that the program exists and may be executed: `command -v {program}`")
    )]
    Launch { program: String, why: String },
    #[error("the controller was told of no source for its own identity")]
    #[diagnostic(
        code("MESH-0633"),
        help("name a Workload API with `--workload-api`, or a CA with `--ca`")
    )]
    NoIdentity,
    #[error("namespace `{namespace}` makes no SPIFFE ID: {why}")]
    #[diagnostic(
        code("MESH-0634"),
        help("names in a SPIFFE ID have letters, digits, dots, dashes and underscores")
    )]
    NamesNoIdentity { namespace: String, why: String },
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
    become_command(args.command)
}

/// Replaces this process with the command.
pub(crate) fn become_command(command: Vec<OsString>) -> Result<Exit, Fault> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    Err(PartError::Launch {
        program: program.to_string_lossy().into_owned(),
        why: error.to_string(),
    }
    .into())
}

/// Runs the identity CA until it is ended, or what else there is to do for it.
pub(crate) fn ca(mut args: CaArgs, output: &mut Output) -> Result<Exit, Fault> {
    if let Some(command) = args.command.take() {
        return ceremony::run(command, output);
    }
    log_to_stderr("info");
    // Required on the command line, unless there is a command.
    let (dir, workload_api) = (
        args.dir.take().unwrap_or_default(),
        args.workload_api.take().unwrap_or_default(),
    );
    let registrations = match &args.registrations {
        Some(file) => registrations::read(file)?,
        None => Vec::new(),
    };
    let runtime = runtime()?;
    runtime.block_on(async {
        let client = match args.kubernetes {
            true => Some(api_server(&args.api_server).await?),
            false => None,
        };
        let identity = system_identity(&args.trust_domain, &args.namespace, "mesh-identity")?;
        let config = CaConfig {
            broker: args.broker.clone().config().zip(Some(identity.clone())),
            bundle_endpoint: args.bundle_endpoint.endpoint(identity),
            network: network(&args, client.clone())?,
            cluster: client.clone().map(|client| ClusterWork {
                client,
                namespace: args.namespace.clone(),
                external_issuer: args.external_issuer,
            }),
            keeper: keeper(&args, client),
            probes: args.probes,
            control: args.control,
            trust: args.trust,
            admin: args.admin,
            svid_ttl: args.svid_ttl,
            registrations,
            workload_api_mode: args.workload_api_mode,
            oidc: args
                .oidc_listen
                .zip(args.jwt_issuer)
                .map(|(listen, issuer)| Oidc { listen, issuer }),
            ..CaConfig::new(
                &dir,
                args.trust_domain,
                &workload_api,
                signer::start(&dir, args.issuer.as_deref(), &args.token),
                System::new(),
            )
        };
        mesh_ca::run(config, asked_to_end()).await?;
        Ok(Exit::Ok)
    })
}

/// The API server that is meant.
///
/// # Errors
/// If nothing says where it is.
pub(crate) async fn api_server(args: &ApiServerArgs) -> Result<Client, Fault> {
    let (kubeconfig, context) = (args.kubeconfig.as_deref(), args.context.as_deref());
    Ok(mesh_kubernetes::connect(kubeconfig, context).await?)
}

/// What the CA serves to a cluster and to machines that join, if to any.
fn network(args: &CaArgs, client: Option<Client>) -> Result<Option<NetworkConfig>, Fault> {
    if client.is_none() && !args.nodes {
        return Ok(None);
    }
    let cluster = client
        .map(|client| -> Arc<dyn Cluster> { Arc::new(ApiServer::new(client, &args.namespace)) });
    Ok(Some(NetworkConfig {
        listen: args.listen,
        identity: system_identity(&args.trust_domain, &args.namespace, "mesh-identity")?,
        cluster,
        nodes: args.nodes,
    }))
}

/// Who keeps root and issuer, if not the CA itself.
fn keeper(args: &CaArgs, client: Option<Client>) -> Option<Arc<dyn Keeper>> {
    if let Some(issuer) = &args.issuer {
        return Some(Arc::new(KeptFiles::new(issuer, args.roots.as_deref())));
    }
    let named = |kind, (namespace, name): &(String, String)| Named {
        kind,
        namespace: namespace.clone(),
        name: name.clone(),
    };
    let issuer = named(DataKind::Secret, args.issuer_secret.as_ref()?);
    let map = args.roots_config_map.as_ref();
    let map = map.map(|of| (named(DataKind::ConfigMap, of), Some(args.roots_key.clone())));
    let roots = map.or_else(|| {
        let of = (String::new(), args.roots_trust_bundle.clone()?);
        Some((named(DataKind::ClusterTrustBundle, &of), None))
    });
    Some(Arc::new(KeptObjects::new(client?, issuer, roots)))
}

/// Runs the controller until it is ended.
pub(crate) fn controller(args: ControllerArgs) -> Result<Exit, Fault> {
    log_to_stderr("info");
    let config = ControllerConfig {
        sources: if args.kubernetes {
            PolicySources::Cluster {
                kubeconfig: args.api_server.kubeconfig,
                context: args.api_server.context,
            }
        } else {
            PolicySources::Manifests(args.manifests)
        },
        listen: args.listen,
        identity: args
            .remote_ca
            .source(&args.settings.trust_domain, args.workload_api)?,
        state_dir: args.state.join("controller"),
        audit_dir: args.state.join("audit"),
        admin_socket: args.socket,
        probes: args.probes,
        index: IndexConfig {
            default_policy: args.settings.default_policy,
            proxied: if args.kubernetes {
                Proxied::WithContainer
            } else {
                Proxied::All
            },
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
pub(crate) fn runtime() -> Result<Runtime, PartError> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build();
    built.map_err(|error| PartError::Runtime {
        why: error.to_string(),
    })
}

/// Ready once a signal asks the process to end; never, if signals cannot be watched: the default then ends it.
pub(crate) async fn asked_to_end() {
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
