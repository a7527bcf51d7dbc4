//! From the application to services: which service, which endpoint, and who must answer there.
//!
//! - [`redirected`]: connections that were going somewhere by themselves, and where that is
//! - [`plain`]: what leaves the mesh, in plaintext
//! - [`http`]: one request
//! - [`tcp`]: one byte stream
//! - [`pool`]: connections to the proxies of endpoints

pub(crate) mod http;
pub(crate) mod plain;
pub(crate) mod pool;
pub(crate) mod redirected;
pub(crate) mod tcp;

use crate::config::{Outbound, ServiceName, Target};
use crate::core::Core;
use crate::detection::detect;
use crate::inbound::refusal_record;
use crate::io::Prefixed;
use crate::limits::{APP_QUIET, H2_STREAMS_MAX};
use crate::live::Kill;
use crate::serve::{Speaks, serve};
use crate::services::{PodWay, Services};
use mesh_api::discovery::{Endpoint, ProtocolHint};
use mesh_policy::decide::Generation;
use mesh_policy::record::{DecisionRecord, RecordClient, RecordRequest, RecordServer};
use mesh_policy::request::canonical_ip;
use mesh_proxy_core::balance::{BalanceConfig, Balancer, EndpointId, Outcome, Pick};
use mesh_proxy_core::detect::{DetectPolicy, Detection, OpaqueReason};
use pool::Remote;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest time that an endpoint is left out after failing. A restarted proxy is back within a second.
const EJECT_MAX_US: u64 = 1_000_000;

/// What an outbound listener leads to.
enum Leads {
    /// To what its configuration says.
    Configured(Outbound),
    /// To a service, dialled by its address.
    Service(ServiceName),
    /// To one pod, dialled by its own.
    Pod(SocketAddr),
}

/// One outbound listener, or one destination of redirected connections, as one core serves it.
pub(crate) struct Listener {
    leads: Leads,
    /// What the service is called in errors and metrics.
    pub(crate) name: String,
    known: RefCell<Known>,
}

/// The endpoints known of the target.
struct Known {
    /// Version of discovery they are of.
    version: Option<u64>,
    opaque: bool,
    balancer: Balancer<Rc<Remote>>,
}

/// An endpoint chosen for one request.
pub(crate) struct Chosen {
    id: EndpointId,
    pub(crate) remote: Rc<Remote>,
    started_us: u64,
}

impl Listener {
    pub(crate) fn new(config: Outbound) -> Rc<Self> {
        let name = match &config.target {
            Target::Service(name) => name.to_string(),
            Target::Endpoints { .. } => config.listen.to_string(),
        };
        Self::leading(Leads::Configured(config), name)
    }

    /// To a service, dialled by its address.
    pub(crate) fn to_service(name: ServiceName) -> Rc<Self> {
        let shown = name.to_string();
        Self::leading(Leads::Service(name), shown)
    }

    /// To the pod `workload`, dialled by its own address.
    pub(crate) fn to_pod(at: SocketAddr, workload: &str) -> Rc<Self> {
        Self::leading(Leads::Pod(at), format!("{workload}:{}", at.port()))
    }

    fn leading(leads: Leads, name: String) -> Rc<Self> {
        let balancer = Balancer::new(BalanceConfig {
            eject_max_us: EJECT_MAX_US,
            ..BalanceConfig::default()
        });
        let known = Known {
            version: None,
            opaque: false,
            balancer,
        };
        Rc::new(Self {
            leads,
            name,
            known: RefCell::new(known),
        })
    }

    /// Brings the endpoints up to date; says whether the target's bytes are passed on without detection.
    fn refresh(&self, core: &Core) -> bool {
        let discovery = core.shared.discovery.load();
        let mut known = self.known.borrow_mut();
        if known.version == Some(discovery.version) {
            return known.opaque;
        }
        let (opaque, endpoints) = self.endpoints(&discovery);
        // Remotes that stay keep their connections: the balancer compares endpoints, not connections.
        let remotes: Vec<_> = endpoints.into_iter().map(Remote::new).collect();
        known.balancer.update(remotes, core.now_us());
        known.version = Some(discovery.version);
        known.opaque = opaque;
        opaque
    }

    /// Whether bytes are passed on without detection, and to whom.
    fn endpoints(&self, discovery: &Services) -> (bool, Vec<Endpoint>) {
        let name = match &self.leads {
            Leads::Pod(at) => {
                return match discovery.pod(*at) {
                    PodWay::Mesh { endpoint, opaque } => (opaque, vec![endpoint]),
                    PodWay::Plain | PodWay::Nowhere => (false, Vec::new()),
                };
            }
            Leads::Configured(Outbound {
                target: Target::Endpoints { endpoints, opaque },
                ..
            }) => return (*opaque, endpoints.clone()),
            Leads::Configured(Outbound {
                target: Target::Service(name),
                ..
            })
            | Leads::Service(name) => name,
        };
        match discovery.get(&name.namespace, &name.name, name.port) {
            Some(service) => (
                service.protocol == ProtocolHint::Opaque,
                service.endpoints.clone(),
            ),
            None => (false, Vec::new()),
        }
    }

    /// Namespace and port of what is led to, as far as they are known.
    fn place<'a>(&'a self, own_namespace: &'a str) -> (&'a str, u16) {
        match &self.leads {
            Leads::Configured(Outbound {
                target: Target::Endpoints { .. },
                listen,
            }) => (own_namespace, listen.port()),
            Leads::Configured(Outbound {
                target: Target::Service(name),
                ..
            })
            | Leads::Service(name) => (&name.namespace, name.port),
            Leads::Pod(at) => {
                let namespace = self.name.split_once('/').map(|(namespace, _)| namespace);
                (namespace.unwrap_or(own_namespace), at.port())
            }
        }
    }

    /// Chooses an endpoint; waits a moment if all are left out after failures. `None`: there is none.
    pub(crate) async fn choose(&self, core: &Core) -> Option<Chosen> {
        match self.pick(core) {
            Ok(chosen) => chosen,
            Err(wait) => {
                tokio::time::sleep(wait).await;
                self.pick(core).ok().flatten()
            }
        }
    }

    /// One choice; an error says how long all endpoints are still left out.
    fn pick(&self, core: &Core) -> Result<Option<Chosen>, Duration> {
        self.refresh(core);
        let now = core.now_us();
        let mut known = self.known.borrow_mut();
        let id = match known.balancer.pick(core.random.next(), now) {
            Pick::Endpoint(id) => id,
            Pick::Empty => return Ok(None),
            Pick::AllEjected { retry_at_us } => {
                let wait = retry_at_us.saturating_sub(now).min(EJECT_MAX_US);
                return Err(Duration::from_micros(wait));
            }
        };
        let Some(remote) = known.balancer.get(id).cloned() else {
            return Ok(None);
        };
        known.balancer.on_start(id);
        core.pool.note(&remote);
        Ok(Some(Chosen {
            id,
            remote,
            started_us: now,
        }))
    }

    /// Records a request of the application that was refused before it went anywhere, because it can be read in two
    /// ways. The application has no identity towards its own proxy, and which workload would have answered is not known.
    fn record_refused(
        &self,
        core: &Core,
        from: IpAddr,
        request: Option<RecordRequest>,
        grpc: bool,
    ) {
        let (namespace, port) = self.place(&core.shared.config.namespace);
        let policy = core.shared.policy.load();
        core.shared.records.send(DecisionRecord {
            time: Some(core.shared.platform.wall_clock()),
            generation: policy
                .as_ref()
                .map_or(Generation::default(), |policy| policy.generation()),
            client: RecordClient {
                ip: Some(canonical_ip(from).to_string()),
                ..RecordClient::default()
            },
            server: RecordServer {
                namespace: namespace.to_owned(),
                port,
                ..RecordServer::default()
            },
            request,
            grpc_status: grpc.then_some(3),
            ..refusal_record()
        });
    }

    /// Whether discovery knows any endpoint, reachable or not.
    fn has_endpoints(&self) -> bool {
        !self.known.borrow().balancer.is_empty()
    }

    pub(crate) fn ended(&self, core: &Core, chosen: &Chosen, outcome: Outcome) {
        self.known.borrow_mut().balancer.on_end(
            chosen.id,
            outcome,
            chosen.started_us,
            core.now_us(),
            core.random.next(),
        );
    }

    pub(crate) fn not_connected(&self, core: &Core, chosen: &Chosen) {
        let now = core.now_us();
        let mut known = self.known.borrow_mut();
        known
            .balancer
            .on_end(chosen.id, Outcome::Cancelled, chosen.started_us, now, 0);
        known
            .balancer
            .on_connect_failed(chosen.id, core.random.next(), now);
    }
}

/// Handles one connection of the application from accept to end.
pub(crate) async fn take(
    core: Rc<Core>,
    listener: Rc<Listener>,
    mut stream: TcpStream,
    from: SocketAddr,
) {
    let accepted = Instant::now();
    if listener.refresh(&core) {
        return tcp::take(&core, &listener, stream).await;
    }
    let detected = match detect(
        &mut stream,
        DetectPolicy::default(),
        accepted + core.shared.config.limits.detect,
    )
    .await
    {
        Ok(detected) => detected,
        Err(error) => {
            return tracing::debug!(%error, "the application broke off before it said anything");
        }
    };
    let stream = Prefixed::new(detected.prefix, stream);
    let speaks = match detected.speaks {
        Detection::Http1 => Speaks::Http1 { quiet: APP_QUIET },
        Detection::Http2 => Speaks::Http2 {
            streams_max: H2_STREAMS_MAX,
        },
        Detection::Opaque(OpaqueReason::Empty) => return,
        Detection::Opaque(_) | Detection::Tls { .. } | Detection::NeedMore => {
            return tcp::take(&core, &listener, stream).await;
        }
        Detection::Malformed(how) if how.is_request() => {
            // Refused by the guard of the connection, with an answer.
            core.meter.malformed(how.as_str());
            Speaks::Http1 { quiet: APP_QUIET }
        }
        Detection::Malformed(how) => {
            core.meter.malformed(how.as_str());
            return tracing::info!(
                service = listener.name,
                how = how.as_str(),
                "closed a connection that is nearly HTTP"
            );
        }
    };
    let shared = core.shared.clone();
    let departure = http::Departure::new(core, listener, from.ip());
    serve(stream, speaks, &shared, &Kill::default(), departure).await;
}
