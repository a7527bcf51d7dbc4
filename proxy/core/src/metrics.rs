//! Counters and latencies of one core: who talked to whom, and what was allowed, denied or failed.
//!
//! Each core has its own [`Registry`] and no lock; the admin runtime merges copies of them and renders
//! ([`crate::exposition`]). Labels that a client chooses never become series without bound: past the caps below, counts go
//! on in a series named `other` (RX4), and paths and hosts are no labels at all.
//!
//! - [`histogram`]: latency buckets and quantiles
//! - [`routes`]: requests to a Service by the rule that took them and the backend that got them
//! - [`shadow`]: what a candidate policy would have decided otherwise

pub mod faults;
pub mod histogram;
pub mod routes;
pub mod shadow;

pub use histogram::Histogram;

use indexmap::IndexMap;
use mesh_policy::decide::{Phase, Verdict};
use mesh_policy::request::Protocol;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Edges with a series of their own. At about 600 bytes each this bounds a registry near 1 MB and its text near 8 MB.
pub const EDGES_MAX: usize = 1_000;

/// Authorization series, likewise.
pub const AUTHZ_MAX: usize = 2_000;

/// Kinds of denial counted apart per edge.
const DENIALS_MAX: usize = 32;

/// What stands in labels beyond the caps.
const OTHER: &str = "other";

/// Which side of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Others to its workload.
    Inbound,
    /// Its workload to others.
    Outbound,
}

impl Direction {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// A protocol as a label.
pub const fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    }
}

/// A phase as a label.
pub const fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::Transport => "transport",
        Phase::Server => "server",
        Phase::Request => "request",
        Phase::Route => "route",
        Phase::Forbid => "forbid",
        Phase::Permit => "permit",
        Phase::RateLimit => "rate-limit",
        Phase::Egress => "egress",
    }
}

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Seen from the proxy.
    pub direction: Direction,
    /// SPIFFE ID of the other side, or `unauthenticated`.
    pub peer: Arc<str>,
    /// `namespace/workload:port` inbound, `namespace/service:port` outbound.
    pub target: Arc<str>,
    /// How the bytes are read.
    pub protocol: Protocol,
}

/// Names an edge of one registry: keep it with the connection, so that a request costs no look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeHandle(usize);

/// A kind of denial.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeniedKey {
    /// Which layer refused; as [`phase_label`].
    pub phase: &'static str,
    /// HTTP status of the decision.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u8>,
    /// In words of a bounded set: `no-grant`, the id of a forbid.
    pub reason: Arc<str>,
}

/// A denial to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    /// Which layer refused.
    pub phase: Phase,
    /// HTTP status of the decision.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u8>,
    /// In words of a bounded set.
    pub reason: &'a str,
}

/// Why something that was allowed failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// No endpoint, or none open.
    NoEndpoint,
    /// No connection to the endpoint.
    Connect,
    /// The peer is not who it must be.
    Identity,
    /// No answer in time.
    Timeout,
    /// The connection or stream broke.
    Reset,
    /// The application answered 5xx, or a gRPC status that means the same.
    Application,
    /// Ended because policy no longer allows it.
    Revoked,
}

impl Failure {
    const ALL: [Self; 7] = [
        Self::NoEndpoint,
        Self::Connect,
        Self::Identity,
        Self::Timeout,
        Self::Reset,
        Self::Application,
        Self::Revoked,
    ];

    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::Connect => "connect",
            Self::Identity => "identity",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Application => "application",
            Self::Revoked => "revoked",
        }
    }
}

/// Counts of one edge since the proxy started.
#[derive(Clone, Debug, Default)]
pub struct EdgeSeries {
    /// Requests or connections, decided or not.
    pub requests: u64,
    /// Of these, allowed.
    pub allowed: u64,
    /// Of these, denied, by kind.
    pub denied: IndexMap<DeniedKey, u64>,
    /// Of those allowed, failed.
    failed: [u64; Failure::ALL.len()],
    /// Answers by the first digit of their status; place 0 is what has none.
    pub answers: [u64; 6],
    /// Time from head in to head out.
    pub duration: Histogram,
    /// Connections open now.
    pub open: u64,
    /// Bytes from the client's side.
    pub bytes_in: u64,
    /// Bytes to the client's side.
    pub bytes_out: u64,
}

impl EdgeSeries {
    /// All denials.
    pub fn denied_total(&self) -> u64 {
        self.denied.values().sum()
    }

    /// All failures.
    pub fn failed_total(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Failures by cause, those that happened.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> + '_ {
        Failure::ALL
            .into_iter()
            .zip(self.failed)
            .filter(|(_, count)| *count > 0)
    }

    fn deny(&mut self, key: DeniedKey, count: u64) {
        let full = self.denied.len() >= DENIALS_MAX;
        let key = if full && !self.denied.contains_key(&key) {
            DeniedKey {
                reason: OTHER.into(),
                ..key
            }
        } else {
            key
        };
        *self.denied.entry(key).or_default() += count;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.allowed += other.allowed;
        other
            .denied
            .iter()
            .for_each(|(key, count)| self.deny(key.clone(), *count));
        add_each(&mut self.failed, &other.failed);
        add_each(&mut self.answers, &other.answers);
        self.duration.merge(&other.duration);
        self.open += other.open;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

fn add_each(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// A decision as Linkerd's metrics name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthzKey {
    /// HTTP or gRPC, else TCP.
    pub http: bool,
    /// Allowed or not.
    pub verdict: Verdict,
    /// Port of the pod.
    pub port: u16,
    /// Whether the client came over mTLS.
    pub tls: bool,
    /// Its SPIFFE ID.
    pub client: Option<Arc<str>>,
    /// Whether the default policy spoke, not a Server.
    pub default: bool,
    /// Namespace of the Server.
    pub server_namespace: Arc<str>,
    /// Its name.
    pub server_name: Arc<str>,
    /// First reason of an allow, `<kind>/<namespace>/<name>/<part>` or `default/<mode>`; absent on deny.
    pub grant: Option<Arc<str>>,
}

/// A counter's own label and its value, if it has one.
type OneLabel = Option<(&'static str, &'static str)>;

/// All series of one core.
#[derive(Clone, Debug)]
pub struct Registry {
    workload: Arc<str>,
    edges: IndexMap<EdgeKey, EdgeSeries>,
    edges_max: usize,
    authz: IndexMap<AuthzKey, u64>,
    routes: routes::RouteCounts,
    shadow: shadow::ShadowCounts,
    faults: faults::FaultCounts,
    counters: BTreeMap<(&'static str, OneLabel), u64>,
    gauges: BTreeMap<&'static str, f64>,
}

impl Registry {
    /// Nothing counted yet. `workload` is the proxy's own, `namespace/name`.
    pub fn new(workload: impl Into<Arc<str>>) -> Self {
        Self::bounded(workload, EDGES_MAX)
    }

    fn bounded(workload: impl Into<Arc<str>>, edges_max: usize) -> Self {
        Self {
            workload: workload.into(),
            edges: IndexMap::new(),
            edges_max,
            authz: IndexMap::new(),
            routes: routes::RouteCounts::default(),
            shadow: shadow::ShadowCounts::default(),
            faults: faults::FaultCounts::default(),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
        }
    }

    /// The proxy's own workload.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// The handle of an edge, which never changes.
    pub fn edge(&mut self, key: &EdgeKey) -> EdgeHandle {
        if let Some(at) = self.edges.get_index_of(key) {
            return EdgeHandle(at);
        }
        let entry = if self.edges.len() < self.edges_max {
            self.edges.entry(key.clone())
        } else {
            self.edges.entry(EdgeKey {
                peer: OTHER.into(),
                target: OTHER.into(),
                ..key.clone()
            })
        };
        let at = entry.index();
        entry.or_default();
        EdgeHandle(at)
    }

    /// A request (or TCP connection) was allowed and begins.
    pub fn on_allowed(&mut self, edge: EdgeHandle) {
        self.with(edge, |series| {
            series.requests += 1;
            series.allowed += 1;
        });
    }

    /// An allowed request was answered.
    pub fn on_answer(&mut self, edge: EdgeHandle, status: u16, duration_us: u64) {
        self.with(edge, |series| {
            let class = usize::from(status / 100);
            if let Some(count) = series.answers.get_mut(if class <= 5 { class } else { 0 }) {
                *count += 1;
            }
            series.duration.record(duration_us);
        });
    }

    /// A request or connection was denied.
    pub fn on_denied(&mut self, edge: EdgeHandle, denied: Denied<'_>) {
        let Denied {
            phase,
            status,
            grpc_status,
            reason,
        } = denied;
        let key = DeniedKey {
            phase: phase_label(phase),
            status,
            grpc_status,
            reason: reason.into(),
        };
        self.with(edge, |series| {
            series.requests += 1;
            series.deny(key, 1);
        });
    }

    /// Something allowed failed, or could not even be decided.
    pub fn on_failed(&mut self, edge: EdgeHandle, failure: Failure) {
        let place = Failure::ALL
            .iter()
            .position(|known| *known == failure)
            .unwrap_or_default();
        self.with(edge, |series| {
            if let Some(count) = series.failed.get_mut(place) {
                *count += 1;
            }
        });
    }

    /// A connection of an edge stands.
    pub fn on_open(&mut self, edge: EdgeHandle) {
        self.with(edge, |series| series.open += 1);
    }

    /// It ended, after so many bytes from and to the client's side.
    pub fn on_close(&mut self, edge: EdgeHandle, bytes_in: u64, bytes_out: u64) {
        self.with(edge, |series| {
            series.open = series.open.saturating_sub(1);
            series.bytes_in += bytes_in;
            series.bytes_out += bytes_out;
        });
    }

    /// A decision was taken at an inbound port.
    pub fn on_authz(&mut self, key: &AuthzKey) {
        match self.authz.get_mut(key) {
            Some(count) => *count += 1,
            None => self.add_authz(key.clone(), 1),
        }
    }

    fn add_authz(&mut self, key: AuthzKey, count: u64) {
        let full = self.authz.len() >= AUTHZ_MAX && !self.authz.contains_key(&key);
        let key = if full {
            AuthzKey {
                client: Some(OTHER.into()),
                grant: None,
                ..key
            }
        } else {
            key
        };
        *self.authz.entry(key).or_default() += count;
    }

    /// A request that took a route is over.
    pub fn on_routed(&mut self, key: &routes::RouteKey, routed: routes::Routed) {
        self.routes.add(key, routed);
    }

    /// All requests that took a route, by rule and backend.
    pub fn routes(&self) -> impl Iterator<Item = (&routes::RouteKey, &routes::RouteSeries)> {
        self.routes.iter()
    }

    /// The candidate decided otherwise than the policy in force.
    pub fn on_shadow(&mut self, key: shadow::ShadowKey) {
        self.shadow.add(key, 1);
    }

    /// All that it decided otherwise.
    pub fn shadow(&self) -> impl Iterator<Item = (&shadow::ShadowKey, u64)> {
        self.shadow.iter()
    }

    /// A fault was injected: `namespace/name` of it, and what it did.
    pub fn on_fault(&mut self, fault: &str, kind: &'static str) {
        self.faults.add(fault, kind, 1);
    }

    /// All that were injected.
    pub fn faults(&self) -> impl Iterator<Item = (&faults::FaultKey, u64)> {
        self.faults.iter()
    }

    /// Adds to a counter of the proxy itself, `mesh_<what>_total`.
    pub fn count(&mut self, name: &'static str, by: u64) {
        *self.counters.entry((name, None)).or_default() += by;
    }

    /// Adds to one of a family of counters; the label's values are few and ours.
    pub fn count_by(
        &mut self,
        name: &'static str,
        label: &'static str,
        value: &'static str,
        by: u64,
    ) {
        *self
            .counters
            .entry((name, Some((label, value))))
            .or_default() += by;
    }

    /// Sets a gauge of the proxy itself.
    pub fn set_gauge(&mut self, name: &'static str, value: f64) {
        self.gauges.insert(name, value);
    }

    /// Adds another core's series. Of a gauge, the higher value stays.
    pub fn merge(&mut self, other: &Self) {
        for (key, series) in &other.edges {
            let edge = self.edge(key);
            self.with(edge, |own| own.merge(series));
        }
        for (key, count) in &other.authz {
            self.add_authz(key.clone(), *count);
        }
        self.routes.merge(&other.routes);
        self.shadow.merge(&other.shadow);
        self.faults.merge(&other.faults);
        for (key, count) in &other.counters {
            *self.counters.entry(*key).or_default() += count;
        }
        for (name, value) in &other.gauges {
            let own = self.gauges.entry(name).or_insert(*value);
            *own = own.max(*value);
        }
    }

    /// All edges, sorted by direction, peer, target and protocol.
    pub fn edges(&self) -> Vec<(&EdgeKey, &EdgeSeries)> {
        let mut edges: Vec<_> = self.edges.iter().collect();
        edges.sort_by_key(|(key, _)| {
            (
                key.direction,
                key.peer.clone(),
                key.target.clone(),
                protocol_label(key.protocol),
            )
        });
        edges
    }

    /// All decisions by Linkerd's labels.
    pub fn authz(&self) -> impl Iterator<Item = (&AuthzKey, u64)> {
        self.authz.iter().map(|(key, count)| (key, *count))
    }

    pub(crate) fn counters(&self) -> impl Iterator<Item = (&'static str, OneLabel, u64)> + '_ {
        self.counters
            .iter()
            .map(|((name, label), count)| (*name, *label, *count))
    }

    pub(crate) fn gauges(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.gauges.iter().map(|(name, value)| (*name, *value))
    }

    fn with(&mut self, edge: EdgeHandle, change: impl FnOnce(&mut EdgeSeries)) {
        if let Some((_, series)) = self.edges.get_index_mut(edge.0) {
            change(series);
        }
    }
}

#[cfg(test)]
mod tests;
