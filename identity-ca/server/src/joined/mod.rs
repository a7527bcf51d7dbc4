//! The agent of a machine that joined a mesh: the Workload API for its processes, with SVIDs that a CA elsewhere issues.
//!
//! It is what the CA is on its own machine, without keys that sign: the same attestation, the same sockets, the same
//! streams. What the CA has at hand there, it is told of here ([`follow`]): anchors, keys for tokens, the deny list, and
//! which SVIDs a rotation wants replaced. While the CA cannot be reached everything that is in force stays so, and
//! processes that start meanwhile get the last SVID of their identity ([`state`]), until it ends.
//!
//! - [`state`]: what is on disk: who the node is, whom it believes, the last SVIDs; [`seal`]: under which key
//! - [`follow`]: what the CA tells, and what it is told; the node's own SVID
//! - [`issuer`]: SVIDs and tokens for workloads
//! - [`relay`]: the trust stream of the CA, for the proxies of this machine; [`verifier`]: the node's own

mod follow;
mod issuer;
mod relay;
mod seal;
mod state;
mod verifier;

use crate::agent::Agent;
use crate::broker::{self, BrokerConfig};
use crate::denials::{Enforcers, ListSource};
use crate::error::CaError;
use crate::listen::Counts;
use crate::registry::{Registration, Registry};
use crate::run::serve_workloads;
use crate::svids::Svids;
use follow::{Ended, Following, Told};
use issuer::Elsewhere;
use mesh_ca_client::node::{self, NodeCa, NodeError, NodeLink};
use mesh_issuance::attestation::join::JoinToken;
use mesh_platform::lock::LockFile;
use mesh_platform::{Platform, files, process};
use relay::RelayedTrust;
pub use seal::{SealError, SealKey};
use state::State;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// How an agent runs.
#[derive(Clone)]
pub struct JoinedConfig {
    /// What it keeps: the node's SVID and key, the bundles, the last SVIDs of its workloads.
    pub dir: PathBuf,
    /// Where the key is under which that is sealed; the same at every start.
    pub seal_key: SealKey,
    /// A token to join with, and where; none: the machine has joined before.
    pub join: Option<(NodeCa, JoinToken)>,
    /// Socket of the SPIFFE Workload API.
    pub workload_api: PathBuf,
    /// Permission bits of that socket.
    pub workload_api_mode: u32,
    /// Who the processes of this machine are.
    pub registrations: Vec<Registration>,
    /// Where processes of this machine are served that ask on behalf of others; none: nowhere.
    pub broker: Option<BrokerConfig>,
    /// Whether to forbid core files and debuggers of the same user; true by default.
    pub harden: bool,
    /// Clock and randomness.
    pub platform: Arc<dyn Platform>,
}

/// Why an agent does not run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum JoinedError {
    /// Its files or sockets.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Local(#[from] CaError),
    /// What it keeps is not as it was sealed, or cannot be.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Seal(#[from] SealError),
    /// It does not join.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Node(#[from] NodeError),
    /// Nothing on disk, and no token.
    #[error("this machine has not joined a mesh: there is nothing in `{}`", .dir.display())]
    #[diagnostic(
        code("MESH-0959"),
        help(
            "have a token made where the CA runs, `mesh node token --node NAME --workload NAMESPACE/SERVICE-ACCOUNT`, and give it with `--token-file`"
        )
    )]
    NotJoined {
        /// Where something should be.
        dir: PathBuf,
    },
}

impl From<mesh_platform::PlatformError> for JoinedError {
    fn from(error: mesh_platform::PlatformError) -> Self {
        Self::Local(error.into())
    }
}

/// Runs an agent until `shutdown` is ready, or until it cannot go on.
///
/// # Errors
/// [`JoinedError`].
pub async fn run(
    config: JoinedConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), JoinedError> {
    if config.harden {
        process::no_core_dumps()?;
    }
    files::create_dir_private(&config.dir)?;
    let _lock = LockFile::acquire(&config.dir.join("node.lock"))?;
    let state = open(&config).await?;
    let link = NodeLink::new(&state.ca, &state.held)?;
    let told = Told::begin(link.domain(), &state);
    let registry = Registry::new(config.registrations.clone(), link.domain())?
        .with_denials(told.denials.subscribe());
    if let Some(broker) = &config.broker {
        broker.check(link.domain())?;
    }
    let (ended, enforcers) = (Ended::default(), Enforcers::default());
    let issuer = Arc::new(Elsewhere::new(
        link.clone(),
        &told,
        ended.clone(),
        state.cache.clone(),
        Arc::clone(&config.platform),
    ));
    let (stop, stopping) = watch::channel(false);
    let agent = Agent {
        registry: registry.clone(),
        svids: Svids::new(
            issuer.clone(),
            told.denials.subscribe(),
            Arc::clone(&config.platform),
        ),
        tokens: issuer,
        denials: told.denials.subscribe(),
        anchors: told.anchors.subscribe(),
        foreign: told.foreign.subscribe(),
        streams: Counts::default(),
        stopping: stopping.clone(),
        platform: Arc::clone(&config.platform),
    };
    let list = ListSource {
        lists: told.denials.subscribe(),
        enforcers: enforcers.clone(),
        own: None,
    };
    let relay = RelayedTrust::new(agent.clone(), link.clone());
    let socket = (config.workload_api.clone(), config.workload_api_mode);
    let workloads = serve_workloads(socket, &agent, list, relay, stopping.clone())?;
    let brokers = match &config.broker {
        Some(served) => {
            let node = link.clone();
            let identity = Arc::new(move || Some(node.identity()));
            Some(broker::serve(
                served,
                &config.dir,
                &agent,
                identity,
                stopping,
            )?)
        }
        None => None,
    };
    let brokers = async {
        match brokers {
            Some(serving) => serving.await,
            None => std::future::pending().await,
        }
    };
    let denials = told.denials.subscribe();
    let following = Following {
        link: link.clone(),
        told,
        ended,
        enforcers,
        state,
        platform: Arc::clone(&config.platform),
    };
    tracing::info!(node = %link.identity().svid().id(), workload_api = %config.workload_api.display(), "the agent serves");
    let acknowledging = verifier::acknowledge(link.clone(), Arc::clone(&config.platform));
    tokio::pin!(workloads, brokers);
    let outcome = tokio::select! {
        () = shutdown => None,
        served = &mut workloads => Some(served),
        served = &mut brokers => Some(served),
        never = heed_denials(denials, registry) => match never {},
        never = following.run() => match never {},
        never = acknowledging => match never {},
    };
    stop.send_replace(true);
    if let Some(served) = outcome {
        return Ok(served?);
    }
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), workloads).await;
    tracing::info!("the agent ended");
    Ok(())
}

/// What is on disk, or what joining puts there.
async fn open(config: &JoinedConfig) -> Result<State, JoinedError> {
    if let Some((ca, token)) = &config.join {
        seal::check(&config.dir, &config.seal_key)?;
        let (held, known) = node::join(ca, token).await?;
        let state = State::begin(&config.dir, &config.seal_key, known, held)?;
        tracing::info!(node = %state.held.tls.svid().id(), "this machine has joined");
        return Ok(state);
    }
    let found = State::read(&config.dir, &config.seal_key)?;
    let state = found.ok_or_else(|| JoinedError::NotJoined {
        dir: config.dir.clone(),
    })?;
    state.cache.inspect(config.platform.wall_clock());
    Ok(state)
}

/// Has everybody looked at anew when the deny list changes.
async fn heed_denials(
    mut lists: watch::Receiver<Arc<mesh_trust::Denials>>,
    registry: Registry,
) -> Infallible {
    loop {
        if lists.changed().await.is_err() {
            return std::future::pending().await;
        }
        registry.changed();
    }
}
