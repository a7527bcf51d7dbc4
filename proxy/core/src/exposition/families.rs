//! All that a registry holds, family by family: what is told of it in any form is told from here, so that no form has what
//! another lacks.

use crate::metrics::histogram::Histogram;
use crate::metrics::routes::RouteKey;
use crate::metrics::shadow::ShadowKey;
use crate::metrics::{
    AuthzKey, DeniedKey, Direction, EdgeKey, Registry, phase_label, protocol_label,
};
use mesh_policy::decide::Verdict;
use std::borrow::Cow;

/// What the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts that only grow while the proxy runs.
    Counter,
    /// Values that rise and fall.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Series that have a name and a meaning in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// As Prometheus has it, without `_bucket` and the like.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: &'static str,
}

impl Family {
    /// What its values are measured in, as OpenTelemetry (UCUM) has it; empty for counts.
    pub fn unit(&self) -> &'static str {
        match self.name {
            name if name.ends_with("_seconds") => "s",
            name if name.contains("_bytes") => "By",
            _ => "",
        }
    }
}

/// The value of one series.
#[derive(Clone, Copy, Debug)]
pub enum Value<'r> {
    /// A count, or a gauge that is one.
    Whole(u64),
    /// Any other gauge.
    Number(f64),
    /// Durations.
    Durations(&'r Histogram),
}

/// A series' labels by name, in the order in which they are told. No two have one name.
pub type Label<'l> = (&'static str, Cow<'l, str>);

/// Who is told.
pub trait Sink {
    /// A family begins; the series that follow are its own. Some have none.
    fn family(&mut self, family: Family);

    /// One of its series.
    fn series(&mut self, labels: &[Label<'_>], value: Value<'_>);
}

/// Longest label value; a SPIFFE ID may be longer, and then is cut.
const LABEL_CHARS_MAX: usize = 512;

/// A label's value as it is told: cut, and without control characters but the line feed.
pub fn told(value: &str) -> impl Iterator<Item = char> + '_ {
    let told = |c: char| match c {
        c if c.is_control() && c != '\n' => '\u{fffd}',
        c => c,
    };
    value.chars().take(LABEL_CHARS_MAX).map(told)
}

/// Tells all of a registry.
pub fn tell(registry: &Registry, to: &mut impl Sink) {
    edges(registry, to);
    routes(registry, to);
    authz(registry, to);
    shadow(registry, to);
    faults(registry, to);
    own(registry, to);
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        help,
    }
}

/// Labels with some more behind them.
fn and<'l, const N: usize>(labels: &[Label<'l>], more: [Label<'l>; N]) -> Vec<Label<'l>> {
    labels.iter().cloned().chain(more).collect()
}

fn text(value: &str) -> Cow<'_, str> {
    Cow::Borrowed(value)
}

fn number(value: impl ToString) -> Cow<'static, str> {
    Cow::Owned(value.to_string())
}

/// The class of a status: its first digit, 0 where there is none.
fn class<'l>(digit: usize) -> Label<'l> {
    ("class", Cow::Owned(format!("{digit}xx")))
}

fn of_edge<'r>(workload: &'r str, key: &'r EdgeKey) -> [Label<'r>; 5] {
    [
        ("workload", text(workload)),
        ("direction", text(key.direction.as_str())),
        ("peer", text(&key.peer)),
        ("target", text(&key.target)),
        ("protocol", text(protocol_label(key.protocol))),
    ]
}

fn edges(registry: &Registry, to: &mut impl Sink) {
    let all = registry.edges();
    let edges = || {
        let edges = all.iter().map(|(key, series)| (*key, *series));
        edges.map(|(key, series)| (of_edge(registry.workload(), key), series))
    };
    to.family(counter(
        "mesh_requests_total",
        "Requests (TCP: connections) by edge, decided or not.",
    ));
    for (labels, series) in edges() {
        to.series(&labels, Value::Whole(series.requests));
    }
    to.family(counter("mesh_allowed_total", "Of these, allowed."));
    for (labels, series) in edges() {
        to.series(&labels, Value::Whole(series.allowed));
    }
    to.family(counter(
        "mesh_denied_total",
        "Of these, denied, by the layer and the reason.",
    ));
    for (labels, series) in edges() {
        for (kind, count) in &series.denied {
            to.series(&and(&labels, of_denial(kind)), Value::Whole(*count));
        }
    }
    to.family(counter(
        "mesh_failed_total",
        "Of those allowed, failed, by cause.",
    ));
    for (labels, series) in edges() {
        for (failure, count) in series.failures() {
            let cause = [("cause", text(failure.as_str()))];
            to.series(&and(&labels, cause), Value::Whole(count));
        }
    }
    to.family(counter(
        "mesh_responses_total",
        "Answers by the class of their status.",
    ));
    for (labels, series) in edges() {
        for (digit, count) in (0..).zip(series.answers).filter(|(_, count)| *count > 0) {
            to.series(&and(&labels, [class(digit)]), Value::Whole(count));
        }
    }
    to.family(Family {
        kind: Kind::Gauge,
        ..counter("mesh_connections_open", "Connections open now, by edge.")
    });
    for (labels, series) in edges() {
        to.series(&labels, Value::Whole(series.open));
    }
    to.family(counter(
        "mesh_connection_bytes_total",
        "Bytes of connections that ended, from (in) and to (out) the client's side.",
    ));
    for (labels, series) in edges() {
        for (way, bytes) in [("in", series.bytes_in), ("out", series.bytes_out)] {
            to.series(&and(&labels, [("way", text(way))]), Value::Whole(bytes));
        }
    }
    for (direction, name) in [
        (Direction::Inbound, "http_server_request_duration_seconds"),
        (Direction::Outbound, "http_client_request_duration_seconds"),
    ] {
        let help = "Time from a request's head to its answer's head.";
        to.family(histogram(name, help));
        for (key, series) in &all {
            if key.direction == direction && series.duration.count() > 0 {
                let labels = of_edge(registry.workload(), key);
                to.series(&labels, Value::Durations(&series.duration));
            }
        }
    }
}

fn of_denial(kind: &DeniedKey) -> [Label<'_>; 4] {
    let code = |code: Option<u16>| code.map_or(text(""), number);
    [
        ("phase", text(kind.phase)),
        ("status", code(kind.status)),
        ("grpc_status", code(kind.grpc_status.map(u16::from))),
        ("reason", text(&kind.reason)),
    ]
}

fn routes(registry: &Registry, to: &mut impl Sink) {
    let mut all: Vec<_> = registry.routes().collect();
    all.sort_by_key(|(key, _)| *key);
    let labels = |key: &'_ RouteKey| {
        [
            ("workload", Cow::Owned(registry.workload().to_owned())),
            ("service", Cow::Owned(key.service.to_string())),
            ("route", Cow::Owned(key.route.to_string())),
            ("rule", number(key.rule)),
            ("backend", Cow::Owned(key.backend.to_string())),
        ]
    };
    to.family(counter(
        "mesh_route_requests_total",
        "Requests to Services with routes, by rule, backend and class of the answer; 0xx: none.",
    ));
    for (key, series) in &all {
        for (digit, count) in (0..).zip(series.answers).filter(|(_, count)| *count > 0) {
            to.series(&and(&labels(key), [class(digit)]), Value::Whole(count));
        }
    }
    to.family(counter(
        "mesh_route_retries_total",
        "Tries of these after the first.",
    ));
    for (key, series) in &all {
        to.series(&labels(key), Value::Whole(series.retries));
    }
    to.family(counter(
        "mesh_route_timeouts_total",
        "Timeouts of routes that ran out.",
    ));
    for (key, series) in &all {
        to.series(&labels(key), Value::Whole(series.timeouts));
    }
    to.family(histogram(
        "mesh_route_duration_seconds",
        "Time from a request's head to its answer's head, all tries together.",
    ));
    for (key, series) in all.iter().filter(|(_, one)| one.duration.count() > 0) {
        to.series(&labels(key), Value::Durations(&series.duration));
    }
}

fn authz(registry: &Registry, to: &mut impl Sink) {
    for (http, verdict, name) in [
        (true, Verdict::Allow, "inbound_http_authz_allow_total"),
        (true, Verdict::Deny, "inbound_http_authz_deny_total"),
        (false, Verdict::Allow, "inbound_tcp_authz_allow_total"),
        (false, Verdict::Deny, "inbound_tcp_authz_deny_total"),
    ] {
        let help = "Decisions at inbound ports, by server, grant and client.";
        to.family(counter(name, help));
        for (key, count) in registry.authz() {
            if key.http == http && key.verdict == verdict {
                to.series(&of_authz(key), Value::Whole(count));
            }
        }
    }
}

fn of_authz(key: &AuthzKey) -> Vec<Label<'_>> {
    let (group, kind) = match key.default {
        true => ("", "default"),
        false => ("policy.linkerd.io", "server"),
    };
    let mut labels = vec![
        ("target_port", number(key.port)),
        ("tls", number(key.tls)),
        ("client_id", text(key.client.as_deref().unwrap_or_default())),
        ("srv_group", text(group)),
        ("srv_kind", text(kind)),
        ("srv_namespace", text(&key.server_namespace)),
        ("srv_name", text(&key.server_name)),
        ("srv_port", number(key.port)),
    ];
    let Some(grant) = &key.grant else {
        return labels;
    };
    let mut parts = grant.split('/');
    let (kind, second, third) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next(),
    );
    let (group, namespace, name) = match third {
        Some(name) => ("policy.linkerd.io", second, name),
        None => ("", "", second),
    };
    labels.extend([
        ("authz_group", text(group)),
        ("authz_kind", text(kind)),
        ("authz_namespace", text(namespace)),
        ("authz_name", text(name)),
    ]);
    labels
}

fn shadow(registry: &Registry, to: &mut impl Sink) {
    to.family(counter(
        "mesh_shadow_decisions_total",
        "Decisions that the candidate policy makes otherwise than the one in force, by server and by its reason.",
    ));
    for (key, count) in registry.shadow() {
        to.series(&of_shadow(key), Value::Whole(count));
    }
}

fn of_shadow(key: &ShadowKey) -> [Label<'_>; 8] {
    let (live, candidate) = match key.candidate {
        Verdict::Allow => ("deny", "allow"),
        Verdict::Deny => ("allow", "deny"),
    };
    let kind = match key.default {
        true => "default",
        false => "server",
    };
    [
        ("target_port", number(key.port)),
        ("srv_kind", text(kind)),
        ("srv_namespace", text(&key.server_namespace)),
        ("srv_name", text(&key.server_name)),
        ("live", text(live)),
        ("candidate", text(candidate)),
        ("phase", text(phase_label(key.phase))),
        ("reason", text(&key.reason)),
    ]
}

fn faults(registry: &Registry, to: &mut impl Sink) {
    to.family(counter(
        "mesh_faults_injected_total",
        "Faults injected into allowed requests for tests, by HTTPFault and what it did.",
    ));
    for ((fault, kind), count) in registry.faults() {
        let labels = [("fault", text(fault)), ("kind", text(kind))];
        to.series(&labels, Value::Whole(count));
    }
}

/// What the proxy counts of itself: families that are there once something was counted.
fn own(registry: &Registry, to: &mut impl Sink) {
    let help = "See docs/reference/metrics.md.";
    let mut last = "";
    for (name, label, count) in registry.counters() {
        if name != last {
            to.family(counter(name, help));
            last = name;
        }
        match label {
            Some((label, value)) => to.series(&[(label, text(value))], Value::Whole(count)),
            None => to.series(&[], Value::Whole(count)),
        }
    }
    for (name, value) in registry.gauges() {
        to.family(Family {
            kind: Kind::Gauge,
            ..counter(name, help)
        });
        to.series(&[], Value::Number(value));
    }
}
