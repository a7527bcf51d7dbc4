//! Counting what happens, on the core where it happens.
//!
//! Each core has a registry behind a lock that only the admin thread ever contends for, when it is asked for metrics.

use crate::account::{Account, Carried};
use crate::live::{Alive, End, Peer};
use http::{HeaderMap, StatusCode};
use mesh_platform::Platform;
use mesh_policy::decide::{Cause, Denial, Facts, Verdict};
use mesh_policy::egress::EgressDecision;
use mesh_policy::request::Protocol;
use mesh_policy::{Reason, Snapshot};
use mesh_proxy_core::fault::Injection;
use mesh_proxy_core::http_hygiene::{Refusal, RequestRefusal};
use mesh_proxy_core::metrics::routes::{RouteKey, Routed};
use mesh_proxy_core::metrics::shadow::ShadowKey;
use mesh_proxy_core::metrics::{
    AuthzKey, Denied, Direction, EdgeHandle, EdgeKey, Failure, Registry, phase_label,
};
use mesh_proxy_core::redirect::Misdirected;
use mesh_trust::SpiffeId;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The registries of all cores.
pub(crate) struct Telemetry {
    workload: Arc<str>,
    cores: Vec<Arc<Mutex<Registry>>>,
}

impl Telemetry {
    pub(crate) fn new(workload: &str, cores: usize) -> Self {
        let workload: Arc<str> = Arc::from(workload);
        let registry = || Arc::new(Mutex::new(Registry::new(workload.clone())));
        Self {
            cores: (0..cores.max(1)).map(|_| registry()).collect(),
            workload,
        }
    }

    /// What core `index` counts with.
    pub(crate) fn core(&self, index: usize, platform: Arc<dyn Platform>) -> Meter {
        let registry = self
            .cores
            .get(index)
            .or_else(|| self.cores.first())
            .cloned();
        let registry =
            registry.unwrap_or_else(|| Arc::new(Mutex::new(Registry::new(self.workload.clone()))));
        Meter(Rc::new(MeterState {
            registry,
            platform,
            workload: self.workload.clone(),
        }))
    }

    /// All cores together.
    pub(crate) fn merged(&self) -> Registry {
        let mut all = Registry::new(self.workload.clone());
        for core in &self.cores {
            all.merge(&lock(core));
        }
        all
    }

    /// Counts something that belongs to no core, with a label.
    pub(crate) fn add(
        &self,
        name: &'static str,
        label: Option<(&'static str, &'static str)>,
        by: u64,
    ) {
        let Some(core) = self.cores.first() else {
            return;
        };
        match label {
            None => lock(core).count(name, by),
            Some((label, value)) => lock(core).count_by(name, label, value, by),
        }
    }

    /// Counts something that belongs to no core.
    pub(crate) fn count(&self, name: &'static str) {
        if let Some(core) = self.cores.first() {
            lock(core).count(name, 1);
        }
    }
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    // Counts that a panicking task left are still counts.
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Http = 0,
    Grpc = 1,
    Tcp = 2,
}

impl Ask {
    pub(crate) fn of(alive: &Alive) -> Self {
        match alive {
            Alive::Http(head) if head.grpc => Self::Grpc,
            Alive::Http(_) => Self::Http,
            Alive::Tcp | Alive::Connection => Self::Tcp,
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Http => Protocol::Http,
            Self::Grpc => Protocol::Grpc,
            Self::Tcp => Protocol::Tcp,
        }
    }
}

/// Handles of one peer's (or endpoint's) edges, looked up once.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    handles: [Cell<Option<EdgeHandle>>; 3],
    authz: RefCell<Option<KnownAuthz>>,
}

/// The last decision's key: on one connection it is mostly the same.
#[derive(Debug)]
struct KnownAuthz {
    snapshot: Snapshot,
    key: AuthzKey,
}

/// Counts for one core.
#[derive(Clone)]
pub(crate) struct Meter(Rc<MeterState>);

struct MeterState {
    registry: Arc<Mutex<Registry>>,
    platform: Arc<dyn Platform>,
    workload: Arc<str>,
}

impl Meter {
    /// Begins to measure what a client asks of a port.
    pub(crate) fn inbound(&self, peer: &Rc<Peer>, ask: Ask) -> Measure {
        let name = || {
            peer.client
                .id
                .as_ref()
                .map_or("unauthenticated", SpiffeId::as_str)
        };
        let edge = self.edge(&peer.edges, ask, Direction::Inbound, name, || {
            format!("{}:{}", self.0.workload, peer.port)
        });
        self.begin(edge, ask, Some(peer.clone()))
    }

    /// Begins to measure what the application asks of a service. `edges` belongs to the endpoint that must answer.
    pub(crate) fn outbound(
        &self,
        service: &str,
        endpoint: Option<(&SpiffeId, &Edges)>,
        ask: Ask,
    ) -> Measure {
        let unknown = Edges::default();
        let (name, edges) =
            endpoint.map_or(("unknown", &unknown), |(id, edges)| (id.as_str(), edges));
        let edge = self.edge(
            edges,
            ask,
            Direction::Outbound,
            || name,
            || service.to_owned(),
        );
        self.begin(edge, ask, None)
    }

    fn edge<'a>(
        &self,
        edges: &Edges,
        ask: Ask,
        direction: Direction,
        peer: impl FnOnce() -> &'a str,
        target: impl FnOnce() -> String,
    ) -> EdgeHandle {
        let known = edges.handles.get(ask as usize);
        if let Some(handle) = known.and_then(Cell::get) {
            return handle;
        }
        let key = EdgeKey {
            direction,
            peer: Arc::from(peer()),
            target: Arc::from(target()),
            protocol: ask.protocol(),
        };
        let handle = self.registry().edge(&key);
        if let Some(place) = known {
            place.set(Some(handle));
        }
        handle
    }

    fn begin(&self, edge: EdgeHandle, ask: Ask, peer: Option<Rc<Peer>>) -> Measure {
        let started_us = self.now_us();
        Measure {
            meter: self.clone(),
            edge,
            ask,
            peer,
            started_us,
            open: false,
            account: None,
        }
    }

    /// A mesh connection that never became one.
    pub(crate) fn handshake_failed(&self, why: &'static str) {
        self.registry()
            .count_by("mesh_handshakes_failed_total", "why", why, 1);
    }

    /// A redirected connection that went nowhere.
    pub(crate) fn misdirected(&self, why: Misdirected) {
        self.registry()
            .count_by("mesh_misdirected_total", "why", why.as_str(), 1);
    }

    /// A connection of the application that left in plaintext.
    pub(crate) fn plaintext(&self, why: &'static str) {
        self.registry()
            .count_by("mesh_outbound_plaintext_total", "reason", why, 1);
    }

    /// What came of holding a name that let something out against the addresses of that name.
    pub(crate) fn name_bound(&self, outcome: &'static str) {
        self.registry()
            .count_by("mesh_egress_names_total", "outcome", outcome, 1);
    }

    /// TLS that the proxy began to somebody outside of the mesh, or could not begin.
    pub(crate) fn tls_begun(&self, outcome: &'static str) {
        self.registry()
            .count_by("mesh_egress_tls_total", "outcome", outcome, 1);
    }

    /// A decision about what leaves the mesh, with its cause in a word.
    pub(crate) fn egress(&self, cause: &'static str) {
        self.registry()
            .count_by("mesh_egress_decisions_total", "cause", cause, 1);
    }

    /// The candidate decided, and `otherwise` if that is not as the policy in force.
    pub(crate) fn tried(&self, otherwise: Option<&Facts>) {
        let mut registry = self.registry();
        registry.count("mesh_shadow_tried_total", 1);
        let Some(facts) = otherwise else { return };
        let server = facts.server();
        let reason = match facts.verdict {
            Verdict::Allow => facts.first_reason().map(|reason| reason.to_string()),
            Verdict::Deny => Some(denied(facts, forbid(facts).as_deref()).reason.to_owned()),
        };
        registry.on_shadow(ShadowKey {
            port: facts.port,
            default: server.default,
            server_namespace: Arc::from(server.namespace.as_str()),
            server_name: Arc::from(server.name.as_str()),
            candidate: facts.verdict,
            phase: facts.phase,
            reason: Arc::from(reason.unwrap_or_default()),
        });
    }

    /// The candidate was not asked, or came to no decision.
    pub(crate) fn untried(&self, counter: &'static str) {
        self.registry().count(counter, 1);
    }

    /// A connection that was nearly HTTP.
    pub(crate) fn malformed(&self, how: &'static str) {
        self.registry()
            .count_by("mesh_detection_malformed_total", "how", how, 1);
    }

    /// A request that took a route is over.
    pub(crate) fn routed(&self, key: &RouteKey, routed: Routed) {
        self.registry().on_routed(key, routed);
    }

    /// A try that was wanted, and not made.
    pub(crate) fn retry_refused(&self, why: &'static str) {
        self.registry()
            .count_by("mesh_retries_refused_total", "why", why, 1);
    }

    /// An endpoint was chosen of a service whose requests are to stay near.
    pub(crate) fn zone(&self, near: bool) {
        let zone = if near { "own" } else { "other" };
        self.registry()
            .count_by("mesh_zone_requests_total", "zone", zone, 1);
    }

    /// A second try was made beside the first, and one of them won, or neither.
    pub(crate) fn hedged(&self, won: &'static str) {
        self.registry().count_by("mesh_hedges_total", "won", won, 1);
    }

    /// A fault was injected.
    pub(crate) fn fault(&self, injection: &Injection) {
        let mut registry = self.registry();
        for kind in injection.kinds() {
            registry.on_fault(&injection.fault, kind);
        }
    }

    /// A span found no room.
    pub(crate) fn span_dropped(&self) {
        self.registry()
            .count_by("mesh_trace_spans_dropped_total", "why", "full", 1);
    }

    /// A copy of a request was sent, or dropped for this reason.
    pub(crate) fn mirrored(&self, dropped: Option<&'static str>) {
        match dropped {
            None => self.registry().count("mesh_mirrored_total", 1),
            Some(why) => {
                self.registry()
                    .count_by("mesh_mirrors_dropped_total", "why", why, 1);
            }
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.0.registry)
    }

    fn now_us(&self) -> u64 {
        self.0.platform.monotonic().micros()
    }
}

/// One request or byte stream being measured.
pub(crate) struct Measure {
    meter: Meter,
    edge: EdgeHandle,
    ask: Ask,
    peer: Option<Rc<Peer>>,
    started_us: u64,
    /// Whether a byte stream was opened and is to be closed.
    open: bool,
    /// Who else wants to know.
    account: Option<Rc<Account>>,
}

impl Measure {
    /// Writes what happens into this account, too.
    pub(crate) fn telling(mut self, account: Option<Rc<Account>>) -> Self {
        self.account = account;
        self
    }

    /// It may pass. Outbound, where nobody decides, it was sent.
    pub(crate) fn allowed(&self, facts: Option<&Facts>) {
        match (&self.account, facts) {
            (Some(account), Some(facts)) => account.decided(facts, ""),
            (Some(account), None) => account.sent(),
            (None, _) => {}
        }
        let mut registry = self.meter.registry();
        registry.on_allowed(self.edge);
        if let Some(facts) = facts {
            self.authz(&mut registry, facts);
        }
    }

    /// It was denied.
    pub(crate) fn denied(&self, denial: &Denial) {
        let forbid = forbid(denial);
        let denied = denied(denial, forbid.as_deref());
        if let Some(account) = &self.account {
            account.decided(denial, denied.reason);
        }
        let mut registry = self.meter.registry();
        registry.on_denied(self.edge, denied);
        self.authz(&mut registry, denial);
    }

    /// It was refused before it could be decided: it can be read in two ways.
    ///
    /// Counted with the status that the peer sees; the record has its class, 400.
    pub(crate) fn refused(&self, refusal: RequestRefusal, grpc: bool) {
        let spoken = Refusal::from(refusal);
        let denied = Denied {
            phase: mesh_policy::decide::Phase::Request,
            status: Some(spoken.status.as_u16()),
            grpc_status: grpc.then_some(spoken.grpc_status),
            reason: refusal.as_str(),
        };
        self.on_denied(denied);
    }

    /// It may not leave the mesh. `grpc`: of a request, whether it is one of gRPC.
    pub(crate) fn egress_denied(&self, denied: &EgressDecision, grpc: Option<bool>) {
        let denied = Denied {
            phase: mesh_policy::decide::Phase::Egress,
            status: grpc.map(|_| denied.status()),
            grpc_status: grpc.filter(|grpc| *grpc).and_then(|_| denied.grpc_status()),
            reason: denied.cause.word(),
        };
        self.on_denied(denied);
    }

    /// It was denied because there is no policy yet.
    pub(crate) fn no_policy(&self) {
        self.denied_without_decision("no-policy");
    }

    /// It was allowed and not let through, because it could not be recorded.
    pub(crate) fn no_record(&self) {
        self.denied_without_decision("no-record");
    }

    fn denied_without_decision(&self, reason: &'static str) {
        self.on_denied(Denied {
            phase: mesh_policy::decide::Phase::Server,
            status: None,
            grpc_status: None,
            reason,
        });
    }

    fn on_denied(&self, denied: Denied<'_>) {
        if let Some(account) = &self.account {
            account.denied(phase_label(denied.phase), denied.reason);
        }
        self.meter.registry().on_denied(self.edge, denied);
    }

    /// Its answer has these trailers.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        if let Some(account) = &self.account {
            account.trailers(trailers);
        }
    }

    /// It was answered with this status.
    pub(crate) fn answered_with(&self, status: StatusCode) {
        let took_us = self.meter.now_us().saturating_sub(self.started_us);
        let mut registry = self.meter.registry();
        registry.on_answer(self.edge, status.as_u16(), took_us);
        if status.is_server_error() {
            registry.on_failed(self.edge, Failure::Application);
        }
    }

    /// A byte stream stands.
    pub(crate) fn opened(&mut self) {
        self.open = true;
        if let Some(account) = &self.account {
            account.opened();
        }
        self.meter.registry().on_open(self.edge);
    }

    /// A byte stream ended.
    pub(crate) fn closed(&mut self, from_client: u64, to_client: u64) {
        self.open = false;
        if let Some(account) = &self.account {
            account.carried(Carried {
                from_client,
                to_client,
            });
        }
        self.meter
            .registry()
            .on_close(self.edge, from_client, to_client);
    }

    /// It was ended from here: who looks at it is told, and it is counted elsewhere.
    pub(crate) fn ended(&self, why: End) {
        if let Some(account) = &self.account {
            account.ended(why);
        }
    }

    /// It was nothing that anybody has to be told of.
    pub(crate) fn forgotten(self) {
        if let Some(account) = &self.account {
            account.forget();
        }
    }

    /// It was allowed and failed.
    pub(crate) fn failed(&self, why: Failure) {
        if let Some(account) = &self.account {
            account.failed(why);
        }
        self.meter.registry().on_failed(self.edge, why);
    }

    fn authz(&self, registry: &mut Registry, facts: &Facts) {
        let Some(peer) = &self.peer else { return };
        let allowed = facts.verdict == Verdict::Allow;
        let grant = allowed.then(|| facts.first_reason()).flatten();
        let mut known = peer.edges.authz.borrow_mut();
        if let Some(known) = &*known
            && known.snapshot.is(facts.snapshot())
            && known.key.port == facts.port
            && known.key.verdict == facts.verdict
            && is_reason(known.key.grant.as_deref(), grant)
            && known.key.http == (self.ask != Ask::Tcp)
        {
            return registry.on_authz(&known.key);
        }
        let server = facts.server();
        let key = AuthzKey {
            http: self.ask != Ask::Tcp,
            verdict: facts.verdict,
            port: facts.port,
            tls: peer.client.tls,
            client: peer.client.id.as_ref().map(|id| Arc::from(id.as_str())),
            default: server.default,
            server_namespace: Arc::from(server.namespace.as_str()),
            server_name: Arc::from(server.name.as_str()),
            grant: grant.map(Arc::from),
        };
        registry.on_authz(&key);
        *known = Some(KnownAuthz {
            snapshot: facts.snapshot().clone(),
            key,
        });
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        if self.open {
            self.closed(0, 0);
        }
    }
}

fn is_reason(known: Option<&str>, now: Option<Reason<'_>>) -> bool {
    match (known, now) {
        (Some(known), Some(now)) => now == *known,
        (None, None) => true,
        _ => false,
    }
}

/// The forbid that holds, if one does.
fn forbid(facts: &Facts) -> Option<String> {
    match facts.cause {
        Cause::Forbidden => facts.first_reason().map(|reason| reason.to_string()),
        _ => None,
    }
}

/// A denial in words of a bounded set: the forbid that holds, else what decided.
fn denied<'a>(facts: &Facts, forbid: Option<&'a str>) -> Denied<'a> {
    let word = match &facts.cause {
        Cause::Granted | Cause::Probe => "allowed",
        Cause::IdentityWithoutTls => "identity-without-tls",
        Cause::InvalidServer(_) => "invalid-server",
        Cause::RawBytes => "raw-bytes",
        Cause::Refused(_) => "refused",
        Cause::NoRoute => "no-route",
        Cause::InvalidRoute(_) => "invalid-route",
        Cause::Forbidden => forbid.unwrap_or("forbidden"),
        Cause::Undecidable(_) => "undecidable",
        Cause::NoGrant => "no-grant",
        Cause::RateLimited => "rate-limited",
    };
    Denied {
        phase: facts.phase,
        status: facts.status,
        grpc_status: facts.grpc_status,
        reason: word,
    }
}
