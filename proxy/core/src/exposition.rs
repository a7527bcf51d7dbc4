//! Prometheus text: what a proxy answers on `/metrics`, and the reading of it for the command line.
//!
//! Names: `mesh_*` are ours, `http_server_request_duration_seconds` and its client twin OpenTelemetry's, and
//! `inbound_{http,tcp}_authz_{allow,deny}_total` Linkerd's, with its `srv_*`, `authz_*` and `client_id` labels.

mod read;

pub use read::{EdgeSummary, ExpositionError, Sample, edges, parse, sample};

use crate::metrics::histogram::{BOUNDS_US, Histogram};
use crate::metrics::routes::RouteKey;
use crate::metrics::{
    AuthzKey, Direction, EdgeKey, EdgeSeries, Registry, phase_label, protocol_label,
};
use mesh_policy::decide::Verdict;
use std::fmt::{self, Write};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series of a registry as text.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // INVARIANT: writing to a String does not fail.
    let _ = write_all(&mut text, registry);
    text
}

fn write_all(out: &mut String, registry: &Registry) -> fmt::Result {
    let edges = registry.edges();
    let workload = registry.workload();
    let all = |edge: &(&EdgeKey, &EdgeSeries)| {
        EdgeLabels {
            workload,
            key: edge.0,
        }
        .to_string()
    };

    family(
        out,
        "mesh_requests_total",
        "counter",
        "Requests (TCP: connections) by edge, decided or not.",
    )?;
    for edge in &edges {
        writeln!(
            out,
            "mesh_requests_total{{{}}} {}",
            all(edge),
            edge.1.requests
        )?;
    }
    family(out, "mesh_allowed_total", "counter", "Of these, allowed.")?;
    for edge in &edges {
        writeln!(
            out,
            "mesh_allowed_total{{{}}} {}",
            all(edge),
            edge.1.allowed
        )?;
    }
    family(
        out,
        "mesh_denied_total",
        "counter",
        "Of these, denied, by the layer and the reason.",
    )?;
    for edge in &edges {
        for (kind, count) in &edge.1.denied {
            let status = |code: Option<u16>| code.map_or_else(String::new, |code| code.to_string());
            let (http, grpc) = (status(kind.status), status(kind.grpc_status.map(u16::from)));
            let more = format!(
                ",phase=\"{}\",status=\"{http}\",grpc_status=\"{grpc}\",reason=\"{}\"",
                kind.phase,
                Escaped(&kind.reason)
            );
            writeln!(out, "mesh_denied_total{{{}{more}}} {count}", all(edge))?;
        }
    }
    family(
        out,
        "mesh_failed_total",
        "counter",
        "Of those allowed, failed, by cause.",
    )?;
    for edge in &edges {
        for (failure, count) in edge.1.failures() {
            writeln!(
                out,
                "mesh_failed_total{{{},cause=\"{}\"}} {count}",
                all(edge),
                failure.as_str()
            )?;
        }
    }
    family(
        out,
        "mesh_responses_total",
        "counter",
        "Answers by the class of their status.",
    )?;
    for edge in &edges {
        for (class, count) in edge
            .1
            .answers
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            writeln!(
                out,
                "mesh_responses_total{{{},class=\"{class}xx\"}} {count}",
                all(edge)
            )?;
        }
    }
    family(
        out,
        "mesh_connections_open",
        "gauge",
        "Connections open now, by edge.",
    )?;
    for edge in &edges {
        writeln!(
            out,
            "mesh_connections_open{{{}}} {}",
            all(edge),
            edge.1.open
        )?;
    }
    family(
        out,
        "mesh_connection_bytes_total",
        "counter",
        "Bytes of connections that ended, from (in) and to (out) the client's side.",
    )?;
    for edge in &edges {
        writeln!(
            out,
            "mesh_connection_bytes_total{{{},way=\"in\"}} {}",
            all(edge),
            edge.1.bytes_in
        )?;
        writeln!(
            out,
            "mesh_connection_bytes_total{{{},way=\"out\"}} {}",
            all(edge),
            edge.1.bytes_out
        )?;
    }
    for (direction, name) in [
        (Direction::Inbound, "http_server_request_duration_seconds"),
        (Direction::Outbound, "http_client_request_duration_seconds"),
    ] {
        family(
            out,
            name,
            "histogram",
            "Time from a request's head to its answer's head.",
        )?;
        for edge in edges
            .iter()
            .filter(|(key, series)| key.direction == direction && series.duration.count() > 0)
        {
            histogram(out, name, &all(edge), &edge.1.duration)?;
        }
    }
    routes(out, registry)?;
    authz(out, registry)?;
    shadow(out, registry)?;
    faults(out, registry)?;
    own(out, registry)
}

fn routes(out: &mut String, registry: &Registry) -> fmt::Result {
    let mut all: Vec<_> = registry.routes().collect();
    all.sort_by_key(|(key, _)| *key);
    let labels = |key: &RouteKey| {
        format!(
            "workload=\"{}\",service=\"{}\",route=\"{}\",rule=\"{}\",backend=\"{}\"",
            Escaped(registry.workload()),
            Escaped(&key.service),
            Escaped(&key.route),
            key.rule,
            Escaped(&key.backend)
        )
    };
    family(
        out,
        "mesh_route_requests_total",
        "counter",
        "Requests to Services with routes, by rule, backend and class of the answer; 0xx: none.",
    )?;
    for (key, series) in &all {
        for (class, count) in (0..).zip(series.answers).filter(|(_, count)| *count > 0) {
            let labels = labels(key);
            writeln!(
                out,
                "mesh_route_requests_total{{{labels},class=\"{class}xx\"}} {count}"
            )?;
        }
    }
    family(
        out,
        "mesh_route_retries_total",
        "counter",
        "Tries of these after the first.",
    )?;
    for (key, series) in &all {
        let labels = labels(key);
        writeln!(
            out,
            "mesh_route_retries_total{{{labels}}} {}",
            series.retries
        )?;
    }
    family(
        out,
        "mesh_route_timeouts_total",
        "counter",
        "Timeouts of routes that ran out.",
    )?;
    for (key, series) in &all {
        let labels = labels(key);
        writeln!(
            out,
            "mesh_route_timeouts_total{{{labels}}} {}",
            series.timeouts
        )?;
    }
    let name = "mesh_route_duration_seconds";
    let help = "Time from a request's head to its answer's head, all tries together.";
    family(out, name, "histogram", help)?;
    for (key, series) in all.iter().filter(|(_, one)| one.duration.count() > 0) {
        histogram(out, name, &labels(key), &series.duration)?;
    }
    Ok(())
}

fn histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) -> fmt::Result {
    let mut cumulative = 0;
    for (count, bound) in histogram.counts().iter().zip(BOUNDS_US) {
        cumulative += count;
        writeln!(
            out,
            "{name}_bucket{{{labels},le=\"{}\"}} {cumulative}",
            bound as f64 / 1e6
        )?;
    }
    writeln!(
        out,
        "{name}_bucket{{{labels},le=\"+Inf\"}} {}",
        histogram.count()
    )?;
    writeln!(
        out,
        "{name}_sum{{{labels}}} {}",
        histogram.sum_us() as f64 / 1e6
    )?;
    writeln!(out, "{name}_count{{{labels}}} {}", histogram.count())
}

fn authz(out: &mut String, registry: &Registry) -> fmt::Result {
    for (http, verdict, name) in [
        (true, Verdict::Allow, "inbound_http_authz_allow_total"),
        (true, Verdict::Deny, "inbound_http_authz_deny_total"),
        (false, Verdict::Allow, "inbound_tcp_authz_allow_total"),
        (false, Verdict::Deny, "inbound_tcp_authz_deny_total"),
    ] {
        family(
            out,
            name,
            "counter",
            "Decisions at inbound ports, by server, grant and client.",
        )?;
        for (key, count) in registry
            .authz()
            .filter(|(key, _)| key.http == http && key.verdict == verdict)
        {
            writeln!(out, "{name}{{{}}} {count}", AuthzLabels(key))?;
        }
    }
    Ok(())
}

fn shadow(out: &mut String, registry: &Registry) -> fmt::Result {
    family(
        out,
        "mesh_shadow_decisions_total",
        "counter",
        "Decisions that the candidate policy makes otherwise than the one in force, by server and by its reason.",
    )?;
    for (key, count) in registry.shadow() {
        let (live, candidate) = match key.candidate {
            Verdict::Allow => ("deny", "allow"),
            Verdict::Deny => ("allow", "deny"),
        };
        writeln!(
            out,
            "mesh_shadow_decisions_total{{target_port=\"{}\",srv_kind=\"{}\",srv_namespace=\"{}\",srv_name=\"{}\",live=\"{live}\",candidate=\"{candidate}\",phase=\"{}\",reason=\"{}\"}} {count}",
            key.port,
            if key.default { "default" } else { "server" },
            Escaped(&key.server_namespace),
            Escaped(&key.server_name),
            phase_label(key.phase),
            Escaped(&key.reason),
        )?;
    }
    Ok(())
}

fn faults(out: &mut String, registry: &Registry) -> fmt::Result {
    let name = "mesh_faults_injected_total";
    family(
        out,
        name,
        "counter",
        "Faults injected into allowed requests for tests, by HTTPFault and what it did.",
    )?;
    for ((fault, kind), count) in registry.faults() {
        let fault = Escaped(fault);
        writeln!(out, "{name}{{fault=\"{fault}\",kind=\"{kind}\"}} {count}")?;
    }
    Ok(())
}

fn own(out: &mut String, registry: &Registry) -> fmt::Result {
    let mut last = "";
    for (name, label, count) in registry.counters() {
        if name != last {
            family(out, name, "counter", "See docs/reference/metrics.md.")?;
            last = name;
        }
        match label {
            Some((label, value)) => {
                writeln!(out, "{name}{{{label}=\"{}\"}} {count}", Escaped(value))?
            }
            None => writeln!(out, "{name} {count}")?,
        }
    }
    for (name, value) in registry.gauges() {
        family(out, name, "gauge", "See docs/reference/metrics.md.")?;
        writeln!(out, "{name} {value}")?;
    }
    Ok(())
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

struct EdgeLabels<'a> {
    workload: &'a str,
    key: &'a EdgeKey,
}

impl fmt::Display for EdgeLabels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EdgeKey {
            direction,
            peer,
            target,
            protocol,
        } = self.key;
        let (workload, peer, target) = (Escaped(self.workload), Escaped(peer), Escaped(target));
        let (direction, protocol) = (direction.as_str(), protocol_label(*protocol));
        write!(
            f,
            "workload=\"{workload}\",direction=\"{direction}\",peer=\"{peer}\",target=\"{target}\",protocol=\"{protocol}\""
        )
    }
}

struct AuthzLabels<'a>(&'a AuthzKey);

impl fmt::Display for AuthzLabels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0;
        let (group, kind) = if key.default {
            ("", "default")
        } else {
            ("policy.linkerd.io", "server")
        };
        let (namespace, name) = (Escaped(&key.server_namespace), Escaped(&key.server_name));
        write!(
            f,
            "target_port=\"{}\",tls=\"{}\",client_id=\"{}\"",
            key.port,
            key.tls,
            Escaped(key.client.as_deref().unwrap_or_default())
        )?;
        write!(
            f,
            ",srv_group=\"{group}\",srv_kind=\"{kind}\",srv_namespace=\"{namespace}\",srv_name=\"{name}\",srv_port=\"{}\"",
            key.port
        )?;
        let Some(grant) = &key.grant else {
            return Ok(());
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
        let (kind, namespace, name) = (Escaped(kind), Escaped(namespace), Escaped(name));
        write!(
            f,
            ",authz_group=\"{group}\",authz_kind=\"{kind}\",authz_namespace=\"{namespace}\",authz_name=\"{name}\""
        )
    }
}

/// Longest label value; a SPIFFE ID may be longer, and then is cut.
const LABEL_CHARS_MAX: usize = 512;

/// A label value: backslash, quote and line feed escaped, control characters replaced.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(LABEL_CHARS_MAX) {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
