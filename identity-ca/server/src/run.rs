//! Puts the parts together: opens the CA, serves its sockets, does its upkeep, ends when asked to.

use crate::adoption::{self, Keeper};
use crate::agent::Agent;
use crate::audit::{self, LogCopy};
use crate::broker::{self, BrokerConfig};
use crate::denials::{Admin, DenyList, ListSource, Watching};
use crate::error::{CaError, with_source};
use crate::federation::book::Federation;
use crate::federation::endpoint::{BundleEndpoint, Endpoint, Serving};
use crate::federation::keep::Fetcher;
use crate::issuing::{self, Desk, Issuing};
use crate::jwt::Tokens;
use crate::kubernetes::ClusterWork;
use crate::launch::{LaunchService, Launcher};
use crate::limits::{
    CLOCK_CHECK, FETCH_TIMEOUT, LAUNCH_REQUEST_BYTES_MAX, SECRETS_REQUEST_BYTES_MAX,
    TRUST_REQUEST_BYTES_MAX, WORKLOAD_REQUEST_BYTES_MAX,
};
use crate::listen::{self, Counts};
use crate::network::{self, NetworkConfig, Served};
use crate::nodes;
use crate::nodes::book::NodeBook;
use crate::nodes::desk::NodesDesk;
use crate::oidc::{self, Oidc};
use crate::own_svid::OwnSvid;
use crate::probes::{self, Probes};
use crate::proto::WORKLOAD_DESCRIPTOR;
use crate::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use crate::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use crate::proto::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use crate::registry::{Registration, Registry};
use crate::sds::Sds;
use crate::signer::Signing;
use crate::signer::link::SignerStart;
use crate::svids::Svids;
use crate::trust::admin::TrustDesk;
use crate::trust::keep;
use crate::trust::service::TrustStreams;
use crate::workload_api::WorkloadApi;
use mesh_api::proto::denial_admin_server::DenialAdminServer;
use mesh_api::proto::denials_server::DenialsServer;
use mesh_api::proto::launch_server::LaunchServer;
use mesh_api::proto::node_admin_server::NodeAdminServer;
use mesh_api::proto::trust_admin_server::TrustAdminServer;
use mesh_api::proto::trust_server::{Trust as TrustService, TrustServer};
use mesh_issuance::Profile;
use mesh_issuance::federation::refresh_secs;
use mesh_issuance::limits::{HINTS_BEFORE_USE, LEAF_LIFETIME_SECS};
use mesh_platform::audit_log::AuditLog;
use mesh_platform::lock::LockFile;
use mesh_platform::process::PidFd;
use mesh_platform::{Platform, files, process, unix};
use mesh_trust::{SpiffeId, TrustDomain};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// How a CA runs.
#[derive(Clone)]
pub struct CaConfig {
    /// Its keys, certificates and log.
    pub dir: PathBuf,
    /// Whose identities it issues.
    pub trust_domain: TrustDomain,
    /// Socket of the SPIFFE Workload API.
    pub workload_api: PathBuf,
    /// Permission bits of that socket; 0600 by default. Processes of other users need 0666.
    pub workload_api_mode: u32,
    /// Socket of the Launch service, mode 0600; none: no launches.
    pub control: Option<PathBuf>,
    /// Socket of the operator's admin service, mode 0600; none: the deny list stays as it is.
    pub admin: Option<PathBuf>,
    /// Socket on which trust is steered, mode 0600; none: it is not.
    pub trust: Option<PathBuf>,
    /// The one process whose launch records are accepted; by default the parent.
    pub launcher_pid: u32,
    /// Life of an SVID, 10 s to 72 h; 24 h by default.
    pub svid_ttl: Duration,
    /// Issuance over the network; none: Unix sockets only.
    pub network: Option<NetworkConfig>,
    /// What holds the private keys of roots and issuers.
    pub signer: SignerStart,
    /// What it does for a Kubernetes cluster beside that; none: nothing.
    pub cluster: Option<ClusterWork>,
    /// Who keeps root and issuer; none: this CA makes its own.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Where `/live`, `/ready` and `/metrics` are served to everybody, plain HTTP; none: nowhere.
    pub probes: Option<SocketAddr>,
    /// Identities of processes that nobody launches.
    pub registrations: Vec<Registration>,
    /// Where the keys of JWT-SVIDs are served for readers outside of SPIFFE; none: nowhere.
    pub oidc: Option<Oidc>,
    /// Where the trust bundle is served to other trust domains; none: nowhere.
    pub bundle_endpoint: Option<BundleEndpoint>,
    /// Where processes of this machine are served that ask on behalf of others, and who we are to them; none: nowhere.
    pub broker: Option<(BrokerConfig, SpiffeId)>,
    /// Whether to forbid core files and debuggers of the same user; true by default.
    pub harden: bool,
    /// Clock and randomness.
    pub platform: Arc<dyn Platform>,
}

impl CaConfig {
    /// A CA in `dir` with the defaults, and `signer`.
    pub fn new(
        dir: &Path,
        trust_domain: TrustDomain,
        workload_api: &Path,
        signer: SignerStart,
        platform: Arc<dyn Platform>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            trust_domain,
            workload_api: workload_api.to_owned(),
            workload_api_mode: 0o600,
            control: None,
            admin: None,
            trust: None,
            launcher_pid: std::os::unix::process::parent_id(),
            svid_ttl: Duration::from_secs(LEAF_LIFETIME_SECS),
            network: None,
            signer,
            cluster: None,
            keeper: None,
            probes: None,
            registrations: Vec::new(),
            oidc: None,
            bundle_endpoint: None,
            broker: None,
            harden: true,
            platform,
        }
    }

    fn workload_socket(&self) -> WorkloadSocket {
        (self.workload_api.clone(), self.workload_api_mode)
    }
}

/// Runs a CA until `shutdown` is ready, or until it cannot go on.
///
/// # Errors
/// [`CaError`]: files that are not as they were written, sockets that cannot be opened, a log in doubt.
pub async fn run(
    config: CaConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), CaError> {
    if config.harden {
        process::no_core_dumps()?;
    }
    // Before anything takes time: a pid is safe to name only while its process lives.
    let launcher = config
        .control
        .as_ref()
        .map(|_| PidFd::open(config.launcher_pid))
        .transpose()?
        .map(Launcher::new);
    files::create_dir_private(&config.dir)?;
    let _lock = LockFile::acquire(&config.dir.join("ca.lock"))?;
    let profile = Profile::leaf(config.svid_ttl.as_secs())?;
    let denials = DenyList::open(&config.dir, Arc::clone(&config.platform))?;
    let registry = Registry::new(config.registrations.clone(), &config.trust_domain)?
        .with_denials(denials.follow());
    if let Some(oidc) = &config.oidc {
        oidc.check()?;
    }
    if let Some((broker, _)) = &config.broker {
        broker.check(&config.trust_domain)?;
    }
    let mut tasks = tokio::task::JoinSet::new();
    let health = Probes::new(config.network.is_some());
    probes::serve(config.probes, health.clone(), &mut tasks).await?;
    let signing = start_signer(&config).await?;
    // The log is dropped last, after all that records.
    let (_log, copy, desk, federation) =
        open_desk(&config, &signing, profile, health.clone()).await?;
    let issuing = Issuing::new(desk).with_denials(denials.follow());
    let tokens = open_tokens(&config, &signing).await?;
    let anchors = issuing.anchors();
    let (stop, stopping) = watch::channel(false);
    let book = NodeBook::open(
        &config.dir,
        &config.trust_domain,
        Arc::clone(&config.platform),
    )?;
    let sources = nodes::desk::Sources {
        book: book.clone(),
        tokens: Arc::new(tokens.clone()),
        denials: denials.source(),
        foreign: federation.foreign(),
    };
    let network = serve_network(&config, &issuing, sources, health, stopping.clone());
    let agent = Agent {
        registry: registry.clone(),
        svids: Svids::new(
            Arc::new(issuing.clone()),
            denials.follow(),
            Arc::clone(&config.platform),
        ),
        tokens: Arc::new(tokens.clone()),
        denials: denials.follow(),
        anchors,
        foreign: federation.foreign(),
        streams: Counts::default(),
        stopping: stopping.clone(),
        platform: Arc::clone(&config.platform),
    };
    let brokers = serve_brokers(&config, &agent, &issuing, &mut tasks, stopping.clone())?;
    let streams = TrustStreams {
        registry: registry.clone(),
        issuing: issuing.clone(),
        platform: Arc::clone(&config.platform),
        streams: Counts::default(),
        stopping: stopping.clone(),
    };
    let workloads = serve_workloads(
        config.workload_socket(),
        &agent,
        denials.source(),
        streams,
        stopping.clone(),
    )?;
    let fetcher = Fetcher {
        federation,
        issuing: issuing.clone(),
        copy: copy.clone(),
        denials: denials.follow(),
        limit: FETCH_TIMEOUT,
        platform: Arc::clone(&config.platform),
    };
    let (endpoint, bundle) = serve_bundle(&config, &issuing, &tokens).await?;
    let trust_desk = TrustDesk {
        issuing: issuing.clone(),
        copy: copy.clone(),
        fetcher: fetcher.clone(),
        endpoint,
    };
    let steering = serve_trust(&config, trust_desk, stopping.clone())?;
    let denial_admin = Admin {
        list: denials.clone(),
        issuing: issuing.clone(),
        copy: copy.clone(),
    };
    let nodes_admin = nodes::admin::Admin {
        book,
        anchors: issuing.anchors(),
        copy,
        reachable: config.network.as_ref().is_some_and(|network| network.nodes),
    };
    let admin = serve_admin(&config, denial_admin, nodes_admin, stopping.clone())?;
    let keys = serve_keys(&config, &tokens).await?;
    let launches = serve_launches(&config, launcher, registry.clone(), stopping)?;
    tracing::info!(domain = %config.trust_domain, workload_api = %config.workload_api.display(), "the CA serves");
    let upkeep = upkeep(&issuing, &tokens);
    let denying = heed_denials(&denials, &registry, &issuing);
    let rotations = keep::move_on(issuing.clone());
    let keeping = follow_keeper(&config, &signing, &issuing);
    let cluster = work_for_cluster(&config, &issuing);
    tokio::pin!(workloads, launches, admin, network, steering, brokers);
    let outcome = tokio::select! {
        () = shutdown => None,
        ended = &mut workloads => Some(ended),
        ended = &mut launches => Some(ended),
        ended = &mut admin => Some(ended),
        ended = &mut brokers => Some(ended),
        never = denying => match never {},
        never = keys => match never {},
        never = bundle => match never {},
        never = fetcher.keep_fresh() => match never {},
        ended = &mut network => Some(ended),
        ended = &mut steering => Some(ended),
        never = cluster => match never {},
        () = rotations => None,
        () = keeping => None,
        () = upkeep => Some(Err(CaError::Issuance(crate::error::IssuanceError::Stopped))),
    };
    stop.send_replace(true);
    if let Some(ended) = outcome {
        return ended;
    }
    // Streams end at once with `Unavailable`; a client that does not read is not waited for.
    let finish = futures_util::future::join5(workloads, launches, admin, network, steering);
    let finish = futures_util::future::join(finish, brokers);
    let _ = tokio::time::timeout(Duration::from_secs(2), finish).await;
    issuing.maintain().await;
    tracing::info!("the CA ended");
    Ok(())
}

/// Follows whoever keeps root and issuer; without such a one, waits for ever.
async fn follow_keeper(config: &CaConfig, signing: &Signing, issuing: &Issuing) {
    match &config.keeper {
        Some(keeper) => {
            adoption::follow(Arc::clone(keeper), signing.clone(), issuing.clone()).await
        }
        None => std::future::pending().await,
    }
}

/// Starts the signer, and waits until it is ready.
async fn start_signer(config: &CaConfig) -> Result<Signing, CaError> {
    let start = config.signer.clone();
    let started = tokio::task::spawn_blocking(move || Signing::start(start)).await;
    let stopped = CaError::Issuance(crate::error::IssuanceError::Stopped);
    Ok(started.map_err(|_| stopped)??)
}

/// Does what there is to do for a cluster; without one, waits for ever.
async fn work_for_cluster(config: &CaConfig, issuing: &Issuing) -> Infallible {
    let Some(work) = config.cluster.clone() else {
        return std::future::pending().await;
    };
    let terms = (config.trust_domain.clone(), config.svid_ttl.as_secs());
    work.run(issuing.clone(), Arc::clone(&config.platform), terms)
        .await
}

async fn open_desk(
    config: &CaConfig,
    signing: &Signing,
    profile: Profile,
    probes: Probes,
) -> Result<(AuditLog, LogCopy, Desk, Federation), CaError> {
    let first = match &config.keeper {
        // Parts of a CA are for the opening to judge.
        Some(keeper) if issuing::is_new(&config.dir).unwrap_or(false) => {
            let now = || config.platform.wall_clock();
            let say = |why: &str| probes.waits_for(why);
            Some(
                adoption::first(
                    (&**keeper, signing),
                    &config.trust_domain,
                    profile.lifetime_secs(),
                    now,
                    say,
                )
                .await?,
            )
        }
        _ => None,
    };
    let place = config.keeper.as_ref().map(|keeper| keeper.place());
    let (dir, domain, platform) = (
        config.dir.clone(),
        config.trust_domain.clone(),
        Arc::clone(&config.platform),
    );
    let endpoint = config.bundle_endpoint.as_ref();
    let federation_secs =
        endpoint.map(|endpoint| refresh_secs(Some(endpoint.refresh_secs)) * HINTS_BEFORE_USE);
    let signing = signing.clone();
    let open = move || {
        let federation = Federation::open(&dir, &domain, Arc::clone(&platform))?;
        // Not before it is known with what the CA begins: who is refused leaves nothing behind.
        let (log, copy) = audit::open(&dir, Arc::clone(&platform))?;
        let of_desk = Some(copy.clone());
        let mut desk = Desk::open_with(
            &dir,
            &domain,
            profile,
            platform,
            (&signing, first.as_ref(), of_desk),
        )?;
        if let Some(place) = place {
            desk.kept_in(place)?;
        }
        desk.federate(federation.foreign(), federation_secs)?;
        desk.probes = Some(probes);
        desk.tell_probes();
        Ok((log, copy, desk, federation))
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or(Err(CaError::Issuance(crate::error::IssuanceError::Stopped)))
}

async fn open_tokens(config: &CaConfig, signing: &Signing) -> Result<Tokens, CaError> {
    let (dir, domain, platform) = (
        config.dir.clone(),
        config.trust_domain.clone(),
        Arc::clone(&config.platform),
    );
    let issuer = config.oidc.as_ref().map(|oidc| oidc.issuer.clone());
    let signing = signing.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Tokens::open(&dir, &domain, issuer.as_deref(), &signing, platform)
    });
    let stopped = CaError::Issuance(crate::error::IssuanceError::Stopped);
    opened.await.unwrap_or(Err(stopped))
}

/// Renews the issuer and the keys for tokens, flushes the log, and ends when the CA cannot go on.
async fn upkeep(issuing: &Issuing, tokens: &Tokens) {
    loop {
        tokio::time::sleep(CLOCK_CHECK).await;
        let keys = tokens.clone();
        let kept = tokio::task::spawn_blocking(move || keys.maintain()).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "the keys for JWT-SVIDs could not be changed; those in force go on");
        }
        if !issuing.maintain().await {
            tracing::error!(
                "the issuance log is in doubt after a failed flush; the CA ends and reads it again"
            );
            return;
        }
    }
}

pub(crate) fn listener(path: &Path, mode: u32) -> Result<UnixListener, CaError> {
    let bound = unix::bind(path, mode)?;
    UnixListener::from_std(bound).map_err(|error| server_error(path, &error))
}

pub(crate) fn server_error(path: &Path, error: &dyn std::error::Error) -> CaError {
    CaError::Server {
        socket: path.to_owned(),
        why: with_source(error),
    }
}

pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A sender that went means the same.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Socket of the Workload API, and its permission bits.
pub(crate) type WorkloadSocket = (PathBuf, u32);

/// Serves workloads of this machine, whoever issues to them.
pub(crate) fn serve_workloads(
    (path, mode): WorkloadSocket,
    agent: &Agent,
    list: ListSource,
    trust: impl TrustService,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>>, CaError> {
    let incoming = listen::connections(listener(&path, mode)?, |_| true);
    let workloads = SpiffeWorkloadApiServer::new(WorkloadApi(agent.clone()))
        .max_decoding_message_size(WORKLOAD_REQUEST_BYTES_MAX);
    let trust = TrustServer::new(trust).max_decoding_message_size(TRUST_REQUEST_BYTES_MAX);
    let sds = Sds(agent.clone());
    let aggregated = AggregatedDiscoveryServiceServer::new(sds.clone())
        .max_decoding_message_size(SECRETS_REQUEST_BYTES_MAX);
    let secrets =
        SecretDiscoveryServiceServer::new(sds).max_decoding_message_size(SECRETS_REQUEST_BYTES_MAX);
    let watching = DenialsServer::new(Watching {
        agent: agent.clone(),
        list,
    });
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(WORKLOAD_DESCRIPTOR)
        .build_v1()
        .map_err(|error| server_error(&path, &error))?;
    Ok(async move {
        let serving = listen::server()
            .add_service(workloads)
            .add_service(trust)
            .add_service(secrets)
            .add_service(aggregated)
            .add_service(watching)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        serving.await.map_err(|error| server_error(&path, &error))
    })
}

/// Serves brokers where that was asked for, as whoever the CA is to them.
fn serve_brokers(
    config: &CaConfig,
    agent: &Agent,
    issuing: &Issuing,
    tasks: &mut tokio::task::JoinSet<()>,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>> + use<>, CaError> {
    let served = match config.broker.clone() {
        Some((broker, identity)) => {
            let (shown, follow) = watch::channel(None);
            let own = OwnSvid {
                issuing: issuing.clone(),
                platform: Arc::clone(&config.platform),
                identity,
                door: "brokers",
            };
            let kept = own.keep_identity(move |tls| {
                shown.send_replace(Some(tls.clone()));
            });
            tasks.spawn(kept);
            let identity = Arc::new(move || follow.borrow().clone());
            let stopping = stopping.clone();
            Some(broker::serve(
                &broker,
                &config.dir,
                agent,
                identity,
                stopping,
            )?)
        }
        None => None,
    };
    Ok(async move {
        match served {
            Some(served) => served.await,
            None => {
                stopped(stopping).await;
                Ok(())
            }
        }
    })
}

/// Serves the operator where that was asked for.
fn serve_admin(
    config: &CaConfig,
    denials: Admin,
    nodes: nodes::admin::Admin,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>> + use<>, CaError> {
    let socket = match config.admin.clone() {
        Some(path) => Some((listener(&path, 0o600)?, path)),
        None => None,
    };
    let service =
        DenialAdminServer::new(denials).max_decoding_message_size(WORKLOAD_REQUEST_BYTES_MAX);
    let nodes = NodeAdminServer::new(nodes).max_decoding_message_size(WORKLOAD_REQUEST_BYTES_MAX);
    Ok(async move {
        let Some((listener, path)) = socket else {
            stopped(stopping).await;
            return Ok(());
        };
        let incoming = listen::connections(listener, |_| true);
        let serving = listen::server()
            .add_service(service)
            .add_service(nodes)
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        serving.await.map_err(|error| server_error(&path, &error))
    })
}

/// Serves whoever may steer trust: processes of our own user.
fn serve_trust(
    config: &CaConfig,
    desk: TrustDesk,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>> + use<>, CaError> {
    let socket = match config.trust.clone() {
        Some(path) => Some((listener(&path, 0o600)?, path)),
        None => None,
    };
    Ok(async move {
        let Some((listener, path)) = socket else {
            stopped(stopping).await;
            return Ok(());
        };
        let own = rustix::process::geteuid().as_raw();
        let incoming = listen::connections(listener, move |peer| peer.uid == own);
        let service = TrustAdminServer::new(desk);
        let serving = listen::server()
            .add_service(service.max_decoding_message_size(TRUST_REQUEST_BYTES_MAX))
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        serving.await.map_err(|error| server_error(&path, &error))
    })
}

/// Has everybody looked at anew when the deny list changes, after an issuer that it names was replaced.
async fn heed_denials(list: &DenyList, registry: &Registry, issuing: &Issuing) -> Infallible {
    let mut lists = list.follow();
    lists.mark_changed();
    // A node may have been denied, and what it holds not yet, when the CA ended.
    if let Err(error) = list.deny_what_nodes_hold(issuing).await {
        tracing::error!(%error, "what was issued to denied nodes could not be denied: deny these nodes again");
    }
    loop {
        if lists.changed().await.is_err() {
            return std::future::pending().await;
        }
        let denials = lists.borrow_and_update().clone();
        // First, because it is at once and the other may wait for the disk.
        registry.changed();
        issuing.replace_denied_issuer(denials).await;
    }
}

/// Serves our bundle to other trust domains where that was asked for; otherwise waits for ever.
async fn serve_bundle(
    config: &CaConfig,
    issuing: &Issuing,
    tokens: &Tokens,
) -> Result<
    (
        Option<Arc<Endpoint>>,
        impl Future<Output = Infallible> + use<>,
    ),
    CaError,
> {
    let opened = match config.bundle_endpoint.clone() {
        None => None,
        Some(wanted) => {
            let refresh_secs = refresh_secs(Some(wanted.refresh_secs));
            let wanted = BundleEndpoint {
                refresh_secs,
                ..wanted
            };
            let endpoint = Endpoint::new(wanted, Arc::clone(&config.platform));
            let sources = (issuing.clone(), tokens.clone());
            let domain = config.trust_domain.clone();
            let serving = Serving::open(Arc::clone(&endpoint), sources, domain, &config.dir);
            Some((endpoint, serving.await?))
        }
    };
    let (endpoint, serving) = opened.unzip();
    Ok((endpoint, async move {
        match serving {
            Some(serving) => serving.serve().await,
            None => std::future::pending().await,
        }
    }))
}

/// Serves the keys of tokens where that was asked for; otherwise waits for ever.
async fn serve_keys(
    config: &CaConfig,
    tokens: &Tokens,
) -> Result<impl Future<Output = Infallible> + use<>, CaError> {
    let opened = match &config.oidc {
        None => None,
        Some(oidc) => {
            let listener = TcpListener::bind(oidc.listen).await;
            let listener = listener.map_err(|error| CaError::OidcListen {
                address: oidc.listen,
                why: error.to_string(),
            })?;
            Some((listener, Arc::from(oidc.issuer.as_str()), tokens.bundle()))
        }
    };
    Ok(async move {
        match opened {
            Some((listener, issuer, keys)) => oidc::serve(listener, issuer, keys).await,
            None => std::future::pending().await,
        }
    })
}

/// Serves the network, where that was asked for; else only waits for the end.
fn serve_network(
    config: &CaConfig,
    issuing: &Issuing,
    sources: nodes::desk::Sources,
    probes: Probes,
    stopping: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), CaError>> + use<> {
    let network = config.network.clone();
    let joining = network.as_ref().is_some_and(|network| network.nodes);
    let denials = sources.denials.clone();
    let nodes = joining.then(|| NodesDesk::new(sources, issuing, &config.platform, &stopping));
    let served = Served {
        issuing: issuing.clone(),
        trust_domain: config.trust_domain.clone(),
        denials,
        nodes,
        probes,
        platform: Arc::clone(&config.platform),
        stopping: stopping.clone(),
    };
    async move {
        match network {
            Some(network) => network::serve(network, served).await,
            None => {
                stopped(stopping).await;
                Ok(())
            }
        }
    }
}

fn serve_launches(
    config: &CaConfig,
    launcher: Option<Launcher>,
    registry: Registry,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>>, CaError> {
    let socket = match (config.control.clone(), launcher) {
        (Some(path), Some(launcher)) => Some((listener(&path, 0o600)?, path, launcher)),
        _ => None,
    };
    let domain = config.trust_domain.clone();
    Ok(async move {
        let Some((listener, path, launcher)) = socket else {
            stopped(stopping).await;
            return Ok(());
        };
        let admitted = launcher.clone();
        let incoming = listen::connections(listener, move |peer| admitted.is(peer));
        let service = LaunchServer::new(LaunchService {
            launcher,
            registry,
            domain,
        });
        let service = service.max_decoding_message_size(LAUNCH_REQUEST_BYTES_MAX);
        let serving = listen::server()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        serving.await.map_err(|error| server_error(&path, &error))
    })
}
