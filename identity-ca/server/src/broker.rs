//! The SPIFFE Broker API (status: incubating): SVIDs, tokens and bundles of workloads of this machine, for a process that acts
//! on their behalf, a proxy of the machine for instance. Off unless brokers are named.
//!
//! Who asks shows an SVID over mutual TLS, which must be of a broker, *and* is a process that attestation finds to have that
//! identity: a broker's SVID alone is of no use. Whom it asks for is found as if that process had asked itself, and what
//! is given ends with that process, with its right to it, and with the broker's. Each question is handed to the log with its
//! answer before anything is given: the log writes it a moment later and flushes it within a second, and while it takes or
//! writes nothing, nothing is given. Who is refused too often is refused without a record.
//!
//! - [`door`]: the socket, its handshakes, and who is at the other end
//! - [`refusal`]: why nothing is given, in the standard's words and ours

pub(crate) mod door;
pub(crate) mod refusal;

use crate::agent::{Agent, Caller, nobody};
use crate::error::CaError;
use crate::limits::{
    BROKER_CALLS_MAX, BROKER_REFUSAL_REFILL, BROKER_REFUSALS_BURST, BROKER_STREAMS_MAX,
    BROKERS_MAX, WORKLOAD_REQUEST_BYTES_MAX,
};
use crate::listen::{self, Counts, Peer};
use crate::proto::broker::api_server::{Api, ApiServer};
use crate::proto::broker::{
    FetchJwtsvidRequest, FetchJwtsvidResponse, Jwtsvid, SubscribeToJwtBundlesRequest,
    SubscribeToJwtBundlesResponse, SubscribeToX509BundlesRequest, SubscribeToX509BundlesResponse,
    SubscribeToX509svidRequest, SubscribeToX509svidResponse, WorkloadPidReference,
    WorkloadReference, X509svid,
};
use crate::proto::{
    BROKER_DESCRIPTOR, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, X509BundlesResponse,
    X509svidResponse,
};
use crate::rate::RateLimit;
use crate::registry::Entitlement;
use crate::run::{listener, server_error, stopped};
use crate::workload_api::{bundles, jwt_bundles, svids, tokens};
use door::{Door, Identity, Shown};
use mesh_audits::entry::{Action, Entry};
use mesh_platform::audit_log::{AuditHandle, AuditLog, AuditLogConfig, WhenFull};
use mesh_platform::process;
use mesh_trust::{SpiffeId, Svid, TrustDomain};
use prost::Message;
use refusal::Refusal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Name of the log of what brokers asked: `broker.jsonl` in the directory of the CA or the agent.
const ORIGIN: &str = "broker";
const HEADER: &str = "broker.spiffe.io";

/// Where brokers are served, and who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// The socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Who may ask: identities of our own trust domain, at least one.
    pub brokers: Vec<SpiffeId>,
}

impl BrokerConfig {
    /// Whether it can be served.
    ///
    /// # Errors
    /// [`CaError::Broker`].
    pub(crate) fn check(&self, domain: &TrustDomain) -> Result<(), CaError> {
        let refuse = |why: String| Err(CaError::Broker { why });
        if self.brokers.is_empty() || self.brokers.len() > BROKERS_MAX {
            return refuse(format!(
                "{} brokers are named; it must be 1 to {BROKERS_MAX}",
                self.brokers.len()
            ));
        }
        match self
            .brokers
            .iter()
            .find(|id| id.trust_domain() != domain || id.path().is_empty())
        {
            Some(id) => refuse(format!("`{id}` is no workload of `{domain}`")),
            None => Ok(()),
        }
    }
}

/// A broker: the process that connected, and the SVID that it showed.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) process: Peer,
    pub(crate) svid: Arc<Svid>,
}

impl Broker {
    /// Whether it is still who it showed itself to be.
    pub(crate) fn recheck(&self, agent: &Agent) -> Result<(), Status> {
        self.check(agent).map_err(|refusal| refusal.to_status())
    }

    fn check(&self, agent: &Agent) -> Result<(), Refusal> {
        let id = self.svid.id();
        let found = agent.registry.entitlements(&self.process.0);
        let denied = agent.denials.borrow().denies_chain(&self.svid).is_some();
        // The connection's own timer stands still while the machine sleeps, and knows nothing of a clock that is set.
        let ended = self.svid.not_after() <= agent.platform.wall_clock();
        if !denied && !ended && found.iter().any(|one| one.identity == *id) {
            return Ok(());
        }
        Err(Refusal::OtherProcess {
            id: id.clone(),
            pid: self.process.0.pid,
        })
    }
}

/// Answers brokers.
#[derive(Clone)]
struct BrokerApi {
    agent: Agent,
    brokers: Arc<[SpiffeId]>,
    log: AuditHandle,
    calls: Counts,
    /// Refusals that are recorded, by who is refused.
    refusals: Arc<Mutex<RateLimit>>,
}

/// Serves brokers of this machine; `identity` is who we are to them. `dir` is where the log of it goes.
pub(crate) fn serve(
    config: &BrokerConfig,
    dir: &Path,
    agent: &Agent,
    identity: Identity,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = Result<(), CaError>> + use<>, CaError> {
    let log = AuditLog::open(
        &AuditLogConfig {
            when_full: WhenFull::Strict,
            ..AuditLogConfig::new(dir.to_owned(), ORIGIN, env!("CARGO_PKG_VERSION"))
        },
        Arc::clone(&agent.platform),
    )?;
    let socket = config.socket.clone();
    let incoming = door::connections(
        listener(&socket, config.mode)?,
        Door {
            agent: agent.clone(),
            identity,
        },
    );
    let api = BrokerApi {
        agent: agent.clone(),
        brokers: config.brokers.clone().into(),
        log: log.handle(),
        calls: Counts::default(),
        refusals: Arc::new(Mutex::new(RateLimit::new(
            BROKER_REFUSALS_BURST,
            BROKER_REFUSAL_REFILL,
        ))),
    };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(BROKER_DESCRIPTOR)
        .build_v1()
        .map_err(|error| server_error(&socket, &error))?;
    tracing::info!(socket = %socket.display(), brokers = config.brokers.len(), "brokers are served");
    Ok(async move {
        // Dropped last: that writes what is queued.
        let _log = log;
        let service = ApiServer::new(api).max_decoding_message_size(WORKLOAD_REQUEST_BYTES_MAX);
        let serving = listen::server()
            .max_concurrent_streams(BROKER_STREAMS_MAX)
            .add_service(service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        serving.await.map_err(|error| server_error(&socket, &error))
    })
}

/// Keeps out requests that something else was tricked into sending (Broker Endpoint §3).
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument(
            "security header missing from request",
        )),
    }
}

/// Who asks.
fn shown<T>(request: &Request<T>) -> Result<Shown, Status> {
    check_header(request)?;
    let shown = request.extensions().get::<Shown>();
    shown.cloned().ok_or_else(nobody)
}

/// The process that a reference names.
fn referenced(reference: Option<WorkloadReference>) -> Result<u32, Refusal> {
    let bad = |why: &'static str| Refusal::Reference { why };
    let any = reference
        .and_then(|reference| reference.reference)
        .ok_or(bad("there is none"))?;
    match any.type_url.rsplit_once('/').map(|(_, name)| name) {
        Some("spiffe.broker.WorkloadPIDReference") => {
            let named = WorkloadPidReference::decode(any.value.as_slice())
                .map_err(|_| bad("it cannot be read"))?;
            u32::try_from(named.pid)
                .ok()
                .filter(|pid| *pid > 0)
                .ok_or(bad("a process id is a positive number"))
        }
        Some("spiffe.broker.KubernetesObjectReference") => {
            Err(bad("workloads of this machine are processes, not objects"))
        }
        _ => Err(bad("it is of an unknown type")),
    }
}

impl BrokerApi {
    /// Lets a call in, and records it: who asks what for which process, and what it gets.
    async fn admit(
        &self,
        shown: Shown,
        what: &str,
        reference: Option<WorkloadReference>,
    ) -> Result<Caller, Status> {
        let referenced = referenced(reference);
        let process = match &referenced {
            Ok(pid) => format!("process {pid}"),
            Err(_) => "nobody".to_owned(),
        };
        let outcome = match referenced {
            Ok(pid) => self.workload(&shown.0, pid).await,
            // Who is no broker learns nothing about its references.
            Err(bad) => self.broker(&shown.0).and(Err(bad)),
        };
        if outcome.is_err() && !self.may_be_refused(&shown.0) {
            let refusal = Refusal::TooMuch {
                what: format!(
                    "{BROKER_REFUSALS_BURST} refusals at once, and one a second, are recorded"
                ),
            };
            return Err(refusal.to_status());
        }
        let said = match &outcome {
            Ok((_, entitled)) => {
                let ids: Vec<_> = entitled
                    .iter()
                    .map(|one| one.identity.to_string())
                    .collect();
                format!("given as {}", ids.join(", "))
            }
            Err(refusal) => format!("refused: {}", refusal.coded()),
        };
        // What we know comes first: the end is cut off, and what was asked for can be long.
        self.record(&shown.0, format!("for {process}: {said}: {what}"))
            .map_err(|refusal| refusal.to_status())?;
        match outcome {
            Ok((caller, _)) => Ok(caller),
            Err(refusal) => {
                tracing::warn!(broker = %shown.0.svid.id(), pid = shown.0.process.0.pid, why = refusal.coded(), "a broker is refused");
                Err(refusal.to_status())
            }
        }
    }

    /// Whether a refusal of `broker` can still be recorded: who asks in a loop does not fill the disk.
    fn may_be_refused(&self, broker: &Broker) -> bool {
        let now = self.agent.platform.monotonic();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.take(broker.svid.id(), now)
    }

    fn broker(&self, broker: &Broker) -> Result<(), Refusal> {
        let id = broker.svid.id();
        if !self.brokers.contains(id) {
            return Err(Refusal::NoBroker { id: id.clone() });
        }
        broker.check(&self.agent)
    }

    async fn workload(
        &self,
        broker: &Broker,
        pid: u32,
    ) -> Result<(Caller, Vec<Entitlement>), Refusal> {
        self.broker(broker)?;
        let counted = self
            .calls
            .take(broker.process.0.pid, BROKER_CALLS_MAX, usize::MAX)
            .ok_or_else(|| Refusal::TooMuch {
                what: format!("{BROKER_CALLS_MAX} calls and streams are under way"),
            })?;
        let process = process::by_pid(pid).map_err(|_| Refusal::NotFound { pid })?;
        let workload = Peer(Arc::new(process));
        let caller = self.agent.on_behalf_of(workload, broker.clone(), counted);
        match caller.attest().await {
            Ok(entitled) => Ok((caller, entitled)),
            Err(_) if caller.is_alive() => Err(Refusal::NotEntitled { pid }),
            Err(_) => Err(Refusal::NotFound { pid }),
        }
    }

    fn record(&self, broker: &Broker, detail: String) -> Result<(), Refusal> {
        let Peer(process) = &broker.process;
        let taken = !self.log.refuses()
            && self.log.record(Entry::Trust(Action {
                time: self.agent.platform.wall_clock(),
                action: "broker".to_owned(),
                by: format!(
                    "uid {}, pid {}: {}",
                    process.uid,
                    process.pid,
                    broker.svid.id()
                ),
                detail,
            }));
        taken.then_some(()).ok_or(Refusal::NotRecorded)
    }
}

/// What a broker is told at the end of a stream: of a workload that is nobody any more, in the words of this API.
fn ended(caller: &Caller, status: Status) -> Status {
    if status.code() != nobody().code() || status.message() != nobody().message() {
        return status;
    }
    let pid = caller.pid();
    let refusal = match caller.is_alive() {
        true => Refusal::NotEntitled { pid },
        false => Refusal::NotFound { pid },
    };
    refusal.to_status()
}

/// A stream fed by a task that ends with a status.
macro_rules! answer {
    ($caller:expr, $method:ident) => {{
        let caller = $caller;
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = $method(&caller, &out).await {
                // Nobody listens: nothing to say.
                let _ = out.send(Err(ended(&caller, status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }};
}

#[tonic::async_trait]
impl Api for BrokerApi {
    type SubscribeToX509SVIDStream = ReceiverStream<Result<SubscribeToX509svidResponse, Status>>;
    type SubscribeToX509BundlesStream =
        ReceiverStream<Result<SubscribeToX509BundlesResponse, Status>>;
    type SubscribeToJWTBundlesStream =
        ReceiverStream<Result<SubscribeToJwtBundlesResponse, Status>>;

    async fn subscribe_to_x509svid(
        &self,
        request: Request<SubscribeToX509svidRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDStream>, Status> {
        let shown = shown(&request)?;
        let reference = request.into_inner().reference;
        answer!(self.admit(shown, "X.509-SVIDs", reference).await?, svids)
    }

    async fn subscribe_to_x509_bundles(
        &self,
        request: Request<SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        let shown = shown(&request)?;
        let reference = request.into_inner().reference;
        answer!(self.admit(shown, "bundles", reference).await?, bundles)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<FetchJwtsvidRequest>,
    ) -> Result<Response<FetchJwtsvidResponse>, Status> {
        let shown = shown(&request)?;
        let FetchJwtsvidRequest {
            reference,
            audience,
            spiffe_id,
        } = request.into_inner();
        let what = format!("a JWT-SVID of {spiffe_id:?} to {audience:?}");
        let caller = self.admit(shown, &what, reference).await?;
        let asked = JwtsvidRequest {
            audience,
            spiffe_id,
        };
        match tokens(&caller, asked).await {
            Ok(minted) => Ok(Response::new(minted.into())),
            Err(status) => Err(ended(&caller, status)),
        }
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        request: Request<SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        let shown = shown(&request)?;
        let reference = request.into_inner().reference;
        answer!(
            self.admit(shown, "keys of tokens", reference).await?,
            jwt_bundles
        )
    }
}

impl From<X509svidResponse> for SubscribeToX509svidResponse {
    fn from(response: X509svidResponse) -> Self {
        let svid = |one: crate::proto::X509svid| X509svid {
            spiffe_id: one.spiffe_id,
            x509_svid: one.x509_svid,
            x509_svid_key: one.x509_svid_key,
            bundle: one.bundle,
            hint: one.hint,
        };
        Self {
            svids: response.svids.into_iter().map(svid).collect(),
            crl: response.crl,
            federated_bundles: response.federated_bundles,
        }
    }
}

impl From<X509BundlesResponse> for SubscribeToX509BundlesResponse {
    fn from(response: X509BundlesResponse) -> Self {
        Self {
            crl: response.crl,
            bundles: response.bundles,
        }
    }
}

impl From<JwtBundlesResponse> for SubscribeToJwtBundlesResponse {
    fn from(response: JwtBundlesResponse) -> Self {
        Self {
            bundles: response.bundles,
        }
    }
}

impl From<JwtsvidResponse> for FetchJwtsvidResponse {
    fn from(response: JwtsvidResponse) -> Self {
        let token = |one: crate::proto::Jwtsvid| Jwtsvid {
            spiffe_id: one.spiffe_id,
            svid: one.svid,
            hint: one.hint,
        };
        Self {
            svids: response.svids.into_iter().map(token).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
