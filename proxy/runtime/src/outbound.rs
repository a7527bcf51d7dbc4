//! From the application to services: which service, which endpoint, and who must answer there.
//!
//! - [`redirected`]: connections that were going somewhere by themselves, and where that is
//! - [`egress`]: what leaves the mesh, and whether it may
//! - [`plain`]: what leaves the mesh, in plaintext
//! - [`http`]: one request
//! - [`route`]: one request to a service that has routes; [`mirror`]: copies of it; [`hedge`]: a second try beside the first
//! - [`send`]: one try, at one service
//! - [`tcp`]: one byte stream
//! - [`pool`]: connections to the proxies of endpoints

pub(crate) mod egress;
mod hedge;
pub(crate) mod http;
pub(crate) mod mirror;
pub(crate) mod plain;
pub(crate) mod pool;
pub(crate) mod redirected;
mod route;
mod send;
pub(crate) mod tcp;

use crate::app::App;
use crate::config::{Outbound, ServiceName, Target};
use crate::core::Core;
use crate::detection::detect;
use crate::inbound::refusal_record;
use crate::io::{BreakOff, Prefixed};
use crate::limits::{APP_QUIET, H2_STREAMS_MAX, OUTSIDE_LED_MAX};
use crate::live::Kill;
use crate::serve::{Speaks, serve};
use crate::services::{PodWay, Services};
use ::http::HeaderMap;
use mesh_api::discovery::{Endpoint, ProtocolHint};
use mesh_policy::decide::Generation;
use mesh_policy::record::{DecisionRecord, RecordClient, RecordRequest, RecordServer};
use mesh_policy::request::canonical_ip;
use mesh_policy::traffic::{BalanceBy, Balancing, FailureAccrual};
use mesh_proxy_core::balance::key::{self, Key};
use mesh_proxy_core::balance::{
    BalanceConfig, Balancer, Breaker, EndpointId, Load, Outcome, Pick, SuccessRate,
};
use mesh_proxy_core::detect::{DetectPolicy, Detection, OpaqueReason};
use mesh_proxy_core::route::ServiceRoutes;
use mesh_proxy_core::route::hedge::Latencies;
use mesh_proxy_core::route::retry::Budget;
use mesh_proxy_core::route::session::Token;
use plain::Reason;
use pool::Remote;
use route::Routing;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest time that an endpoint is left out after no connection could be made. A restarted proxy is back within a second.
const EJECT_MAX: Duration = Duration::from_secs(1);

/// What the target of connections outside the mesh is called in metrics: one word, or every address were a series.
const OUTSIDE: &str = "outside";

/// What an outbound listener leads to.
enum Leads {
    /// To what its configuration says.
    Configured(Outbound),
    /// To a service, dialled by its address.
    Service(ServiceName),
    /// To one pod, dialled by its own.
    Pod(SocketAddr),
    /// Out of the mesh, to the address that was dialled.
    Outside(SocketAddr),
}

/// One outbound listener, or one destination of redirected connections, as one core serves it.
pub(crate) struct Listener {
    leads: Leads,
    /// What the service is called in errors and metrics.
    pub(crate) name: String,
    known: RefCell<Known>,
    /// What may be tried again of what goes to its endpoints.
    retries: RefCell<Budget>,
    /// How long their answers take, where a rule asks for that.
    latencies: RefCell<Option<Box<Latencies>>>,
    /// When an endpoint was last looked for.
    used_us: Cell<u64>,
}

/// What is known of the target.
struct Known {
    /// Version of discovery it is of.
    version: Option<u64>,
    opaque: bool,
    balancer: Balancer<Rc<Remote>>,
    /// Endpoints without a proxy.
    unmeshed: Vec<SocketAddr>,
    /// Connections to those of them that requests went to.
    outside: Vec<(SocketAddr, Rc<App>)>,
    /// Routes that requests to it follow, if there are any.
    routing: Option<Rc<Routing>>,
    /// What requests that go to one endpoint have in common, if they are chosen by that.
    key: Option<Key>,
}

impl Known {
    /// The endpoint of a session of `service`, if it may be had.
    fn holder(&self, service: &str, token: Token, now_us: u64) -> Option<EndpointId> {
        let has = |remote: &Rc<Remote>| remote.token(service) == token;
        self.balancer.find(now_us, has)
    }
}

/// What discovery says of a target.
#[derive(Default)]
struct Found {
    opaque: bool,
    endpoints: Vec<Endpoint>,
    unmeshed: Vec<SocketAddr>,
    breaker: Option<Breaker>,
    balancing: Balancing,
    /// Shares of `endpoints`; none: one each.
    weights: Vec<u32>,
    /// Those of `endpoints` that are for this zone.
    near: HashSet<Endpoint>,
    routes: Option<Arc<ServiceRoutes>>,
}

/// How the endpoint of a request is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum By {
    /// By load.
    #[default]
    Load,
    /// The one of a session, which was there when the request was routed; `None`: the session begins.
    Session(Option<Token>),
    /// By load, but not this one.
    Other(EndpointId),
    /// The same one for the same key.
    Key(u64),
}

/// An endpoint chosen for one request. Who drops it without a word has left: that says nothing about the endpoint.
pub(crate) struct Chosen {
    id: EndpointId,
    pub(crate) remote: Rc<Remote>,
    started_us: u64,
    listener: Rc<Listener>,
    over: bool,
}

impl Chosen {
    /// The request is over.
    pub(crate) fn ended(&mut self, core: &Core, outcome: Outcome) {
        self.report(outcome, core.now_us(), core.random.next());
    }

    /// The client's own time was over first. How short that is says nothing of the endpoint, or a client could have any
    /// endpoint left out by a header; that the endpoint took so long counts in its load.
    pub(crate) fn ran_out(&mut self, core: &Core) {
        let now = core.now_us();
        self.report(Outcome::Cancelled, now, 0);
        let waited_us = now.saturating_sub(self.started_us);
        self.listener.outrun(Some(self.id), waited_us, now);
    }

    /// No connection could be made.
    pub(crate) fn not_connected(mut self, core: &Core) {
        let now = core.now_us();
        self.report(Outcome::Cancelled, now, 0);
        let mut known = self.listener.known.borrow_mut();
        known
            .balancer
            .on_connect_failed(self.id, core.random.next(), now);
    }

    fn report(&mut self, outcome: Outcome, now_us: u64, random: u64) {
        if !std::mem::replace(&mut self.over, true) {
            let mut known = self.listener.known.borrow_mut();
            known
                .balancer
                .on_end(self.id, outcome, self.started_us, now_us, random);
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.report(Outcome::Cancelled, self.started_us, 0);
    }
}

impl Listener {
    pub(crate) fn new(config: Outbound) -> Rc<Self> {
        let name = match &config.target {
            Target::Service(name) => name.to_string(),
            Target::Endpoints { .. } => config.listen.to_string(),
            Target::Outside(_) => OUTSIDE.to_owned(),
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

    /// Out of the mesh.
    pub(crate) fn to_outside(at: SocketAddr) -> Rc<Self> {
        Self::leading(Leads::Outside(at), OUTSIDE.to_owned())
    }

    /// Where it leads out of the mesh, if it does.
    pub(super) fn outside(&self) -> Option<SocketAddr> {
        match &self.leads {
            Leads::Outside(to)
            | Leads::Configured(Outbound {
                target: Target::Outside(to),
                ..
            }) => Some(*to),
            _ => None,
        }
    }

    /// Whether the application said where it leads, by dialling that.
    pub(super) fn is_redirected(&self) -> bool {
        matches!(self.leads, Leads::Outside(_))
    }

    fn leading(leads: Leads, name: String) -> Rc<Self> {
        let balancer = Balancer::new(BalanceConfig {
            eject_max_us: EJECT_MAX.as_micros() as u64,
            ..BalanceConfig::default()
        });
        let known = Known {
            version: None,
            opaque: false,
            balancer,
            unmeshed: Vec::new(),
            outside: Vec::new(),
            routing: None,
            key: None,
        };
        Rc::new(Self {
            leads,
            name,
            known: RefCell::new(known),
            retries: RefCell::default(),
            latencies: RefCell::default(),
            used_us: Cell::default(),
        })
    }

    /// Brings the endpoints up to date; says whether the target's bytes are passed on without detection.
    fn refresh(&self, core: &Core) -> bool {
        let discovery = core.shared.discovery.load();
        let mut known = self.known.borrow_mut();
        if known.version == Some(discovery.version) {
            return known.opaque;
        }
        let found = self.find(&discovery);
        // Remotes that stay keep their connections: the balancer compares endpoints, not connections.
        let remotes = found.endpoints.into_iter().map(Remote::new);
        let weights = found.weights.into_iter().chain(std::iter::repeat(1));
        let slow_start_us = found.balancing.slow_start_ms.saturating_mul(1_000);
        known
            .balancer
            .set_load(load(&found.balancing.by), slow_start_us);
        known.balancer.update(remotes.zip(weights), core.now_us());
        known.balancer.set_breaker(found.breaker);
        known
            .balancer
            .set_near(|remote| found.near.contains(&remote.endpoint));
        known.key = match &found.balancing.by {
            BalanceBy::Key(key) => Key::compile(key),
            BalanceBy::PeakEwma | BalanceBy::Requests => None,
        };
        known.version = Some(discovery.version);
        known.opaque = found.opaque;
        known
            .outside
            .retain(|(address, _)| self.keeps(&found.unmeshed, *address));
        known.unmeshed = found.unmeshed;
        let routing = known.routing.take();
        known.routing = found.routes.map(|routes| match routing {
            Some(routing) if routing.follows(&routes) => routing,
            _ => Rc::new(Routing::new(routes, &self.name)),
        });
        found.opaque
    }

    /// What discovery says of the target.
    fn find(&self, discovery: &Services) -> Found {
        let name = match &self.leads {
            Leads::Outside(to)
            | Leads::Configured(Outbound {
                target: Target::Outside(to),
                ..
            }) => {
                return Found {
                    unmeshed: vec![*to],
                    ..Found::default()
                };
            }
            Leads::Pod(at) => {
                return match discovery.pod(*at) {
                    PodWay::Mesh { endpoint, opaque } => Found {
                        opaque,
                        endpoints: vec![endpoint],
                        ..Found::default()
                    },
                    PodWay::Plain | PodWay::Nowhere => Found::default(),
                };
            }
            Leads::Configured(Outbound {
                target: Target::Endpoints { endpoints, opaque },
                ..
            }) => {
                return Found {
                    opaque: *opaque,
                    endpoints: endpoints.clone(),
                    ..Found::default()
                };
            }
            Leads::Configured(Outbound {
                target: Target::Service(name),
                ..
            })
            | Leads::Service(name) => name,
        };
        match discovery.get(&name.namespace, &name.name, name.port) {
            Some(service) => Found {
                opaque: service.protocol == ProtocolHint::Opaque,
                endpoints: service.endpoints.clone(),
                unmeshed: service.unmeshed.clone(),
                breaker: service.failure_accrual.map(breaker),
                balancing: service.balancing.clone().unwrap_or_default(),
                weights: service.weights.clone(),
                near: discovery.near(service),
                routes: discovery.routes(service).cloned(),
            },
            None => Found::default(),
        }
    }

    /// The routes that a request follows now; `None`: straight to the endpoints.
    fn routing(&self, core: &Core) -> Option<Rc<Routing>> {
        self.refresh(core);
        self.known.borrow().routing.clone()
    }

    /// Draws between endpoints in the mesh and those outside: the latter in the order in which they are tried, if one of
    /// them was drawn.
    fn draw(&self, core: &Core) -> Option<Vec<SocketAddr>> {
        self.refresh(core);
        self.used_us.set(core.now_us());
        let known = self.known.borrow();
        plain::drawn(&known.unmeshed, known.balancer.len(), core.random.next())
    }

    /// Whether connections to an address outside the mesh are kept. What is led goes to addresses of its name, of which
    /// discovery knows nothing.
    fn keeps(&self, unmeshed: &[SocketAddr], address: SocketAddr) -> bool {
        self.outside().is_some() || unmeshed.contains(&address)
    }

    /// Connections to an endpoint outside the mesh.
    fn app_at(&self, address: SocketAddr) -> Rc<App> {
        let mut known = self.known.borrow_mut();
        let app = known.outside.iter().find(|(at, _)| *at == address);
        if let Some((_, app)) = app {
            return app.clone();
        }
        let app = App::new(address, address.port());
        // An endpoint that discovery forgot meanwhile gets this one connection.
        if self.keeps(&known.unmeshed, address) {
            if self.outside().is_some() && known.outside.len() >= OUTSIDE_LED_MAX {
                known.outside.remove(0);
            }
            known.outside.push((address, app.clone()));
        }
        app
    }

    /// Closes connections to endpoints outside the mesh that were idle for too long. Called now and then.
    fn sweep(&self) {
        let known = self.known.borrow();
        known.outside.iter().for_each(|(_, app)| app.sweep());
    }

    /// Why a connection to an endpoint without a proxy leaves in plaintext.
    fn plain_reason(&self) -> Reason {
        match self.outside() {
            Some(_) => Reason::Outside,
            None => Reason::UnmeshedEndpoint,
        }
    }

    /// Whether this leads to that service.
    fn is_to(&self, namespace: &str, name: &str, port: u16) -> bool {
        match &self.leads {
            Leads::Configured(Outbound {
                target: Target::Service(to),
                ..
            })
            | Leads::Service(to) => to.namespace == namespace && to.name == name && to.port == port,
            _ => false,
        }
    }

    /// Namespace and port of what is led to, as far as they are known.
    fn place<'a>(&'a self, own_namespace: &'a str) -> (&'a str, u16) {
        match &self.leads {
            Leads::Configured(Outbound {
                target: Target::Endpoints { .. },
                listen,
            }) => (own_namespace, listen.port()),
            Leads::Outside(to)
            | Leads::Configured(Outbound {
                target: Target::Outside(to),
                ..
            }) => (own_namespace, to.port()),
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
    pub(crate) async fn choose(self: &Rc<Self>, core: &Core, by: By) -> Option<Chosen> {
        match self.pick(core, by) {
            Ok(chosen) => chosen,
            // A breaker keeps endpoints out for longer than anybody should wait.
            Err(wait) if wait > EJECT_MAX => None,
            Err(wait) => {
                tokio::time::sleep(wait).await;
                self.pick(core, by).ok().flatten()
            }
        }
    }

    /// One choice; an error says how long all endpoints are still left out.
    fn pick(self: &Rc<Self>, core: &Core, by: By) -> Result<Option<Chosen>, Duration> {
        self.refresh(core);
        let now = core.now_us();
        self.used_us.set(now);
        let mut known = self.known.borrow_mut();
        let picked = match by {
            By::Session(Some(token)) => known.holder(&self.name, token, now).map(Pick::Endpoint),
            By::Other(other) => {
                let random = core.random.next();
                let another = known.balancer.pick_other(other, random, now);
                Some(another.map_or(Pick::Empty, Pick::Endpoint))
            }
            By::Key(key) => {
                let place = |remote: &Rc<Remote>| remote.token(&self.name).bits();
                Some(known.balancer.pick_by_key(key, now, place))
            }
            By::Session(None) | By::Load => None,
        };
        let id = match picked.unwrap_or_else(|| known.balancer.pick(core.random.next(), now)) {
            Pick::Endpoint(id) => id,
            Pick::Empty => return Ok(None),
            Pick::AllEjected { retry_at_us } => {
                return Err(Duration::from_micros(retry_at_us.saturating_sub(now)));
            }
        };
        let Some(remote) = known.balancer.get(id).cloned() else {
            return Ok(None);
        };
        if let Some(near) = known.balancer.is_near(id) {
            core.meter.zone(near);
        }
        known.balancer.on_start(id);
        core.pool.note(&remote);
        Ok(Some(Chosen {
            id,
            remote,
            started_us: now,
            listener: self.clone(),
            over: false,
        }))
    }

    /// How the endpoint of a request with these headers is chosen. Call [`Listener::refresh`] before.
    pub(crate) fn by(&self, core: &Core, headers: &HeaderMap) -> By {
        let known = self.known.borrow();
        let Some(key) = &known.key else {
            return By::Load;
        };
        let source = || {
            let identity = core.shared.identity.load();
            let id = identity.as_ref().map(|own| own.svid.id().as_str());
            id.map(|id| key::hash(id.as_bytes()))
        };
        key.of(headers, source).map_or(By::Load, By::Key)
    }

    /// Whether the endpoint of a session is one of its own, and may be had now.
    fn holds(&self, core: &Core, token: Token) -> bool {
        self.refresh(core);
        let known = self.known.borrow();
        known.holder(&self.name, token, core.now_us()).is_some()
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
}

/// A breaker as the balancer has it.
fn breaker(data: FailureAccrual) -> Breaker {
    Breaker {
        failures_max: data.max_failures,
        penalty_min_us: data.min_penalty_ms.saturating_mul(1_000),
        penalty_max_us: data.max_penalty_ms.saturating_mul(1_000),
        jitter_percent: data.jitter_percent,
        success_rate: data.success_rate.map(|rate| SuccessRate {
            percent_min: rate.percent_min,
            window_us: rate.window_ms.saturating_mul(1_000),
            requests_min: rate.requests_min,
        }),
        ejected_percent_max: data.ejected_percent_max.unwrap_or(100),
    }
}

/// What load is to the balancer.
fn load(by: &BalanceBy) -> Load {
    match by {
        BalanceBy::Requests => Load::Requests,
        // What has no key goes by the load that holds anyway.
        BalanceBy::PeakEwma | BalanceBy::Key(_) => Load::PeakEwma,
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
    if let Some(to) = listener.outside() {
        return Box::pin(egress::take(core, listener, to, stream, from)).await;
    }
    if listener.refresh(&core) {
        return Box::pin(bytes(&core, &listener, stream)).await;
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
    let speaks = match told(&core, &listener.name, detected.speaks) {
        Told::Http(speaks) => speaks,
        // Boxed: most connections carry requests, and should not carry room for this.
        Told::Tls(_) | Told::Bytes => return Box::pin(bytes(&core, &listener, stream)).await,
        Told::Nothing => return,
    };
    let departure = http::Departure::new(core.clone(), listener, from.ip());
    serve(stream, speaks, &core, &Kill::default(), departure).await;
}

/// What the first bytes of an application's connection tell.
enum Told {
    Http(Speaks),
    /// With the server name that it asks for.
    Tls(Option<String>),
    Bytes,
    /// Nothing that goes anywhere.
    Nothing,
}

/// What was detected, and what is done with it. Only who asks for TLS to be told apart is told of it.
fn told(core: &Core, target: &str, detected: Detection) -> Told {
    match detected {
        Detection::Http1 => Told::Http(Speaks::Http1 { quiet: APP_QUIET }),
        Detection::Http2 => Told::Http(Speaks::Http2 {
            streams_max: H2_STREAMS_MAX,
        }),
        Detection::Tls { sni } => Told::Tls(sni),
        Detection::Opaque(OpaqueReason::Empty) => Told::Nothing,
        Detection::Opaque(_) | Detection::NeedMore => Told::Bytes,
        Detection::Malformed(how) => {
            core.meter.malformed(how.as_str());
            if how.is_request() {
                // Refused by the guard of the connection, with an answer.
                return Told::Http(Speaks::Http1 { quiet: APP_QUIET });
            }
            let how = how.as_str();
            tracing::info!(target, how, "closed a connection that is nearly a protocol");
            Told::Nothing
        }
    }
}

/// Carries bytes. A service with routes may have endpoints outside the mesh, which get their share here; without routes
/// that was drawn when the connection came.
async fn bytes<T: AsyncRead + AsyncWrite + BreakOff + Unpin>(
    core: &Core,
    listener: &Rc<Listener>,
    stream: T,
) {
    let routed = listener.routing(core).is_some();
    match routed.then(|| listener.draw(core)).flatten() {
        Some(outside) => {
            let reason = Reason::UnmeshedEndpoint;
            plain::pass(
                core,
                stream,
                &listener.name,
                &outside,
                (reason, &Kill::default()),
            )
            .await;
        }
        None => tcp::take(core, listener, stream).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, last], 80))
    }

    #[test]
    fn what_is_led_to_an_address_of_its_name_keeps_its_connections() {
        let dialled = Listener::to_outside(at(1));
        let led = dialled.app_at(at(2));
        assert!(
            Rc::ptr_eq(&led, &dialled.app_at(at(2))),
            "the same connections"
        );
        // A word of discovery, which knows of none of them.
        assert!(dialled.keeps(&[at(1)], at(2)));
        for last in 3..200 {
            let _ = dialled.app_at(at(last));
        }
        assert_eq!(dialled.known.borrow().outside.len(), OUTSIDE_LED_MAX);
        assert!(!Rc::ptr_eq(&led, &dialled.app_at(at(2))), "the oldest goes");
        let pod = Listener::to_pod(at(1), "shop/old");
        assert!(!Rc::ptr_eq(&pod.app_at(at(2)), &pod.app_at(at(2))));
        assert!(!pod.keeps(&[at(1)], at(2)) && pod.keeps(&[at(1)], at(1)));
    }
}
