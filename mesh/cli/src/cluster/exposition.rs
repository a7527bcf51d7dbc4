//! Counts and histograms of Prometheus' text, as far as the mesh's own parts write them. Pure.

use mesh_api::admin::{DeniedCount, Direction, Edge};
use mesh_policy::request::Protocol;
use mesh_proxy_core::exposition::{Sample, sample};
use std::collections::BTreeMap;

/// What a part of the mesh counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads a text; lines that are none are passed over.
    pub(crate) fn read(text: &str) -> Self {
        let samples = text.lines().filter_map(sample);
        Self(samples.filter(|one| !one.value.is_nan()).collect())
    }

    /// Every series whose value is a whole number, as those of counters are.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Sample, u64)> {
        let counts = self.0.iter();
        counts
            .filter(|one| one.value >= 0.0 && one.value.fract() == 0.0)
            .map(|one| (one, whole(one.value)))
    }

    /// The value of a series without labels.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|one| one.name == name)?;
        Some(found.value)
    }

    /// The same as a count.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.value(name).map(whole)
    }

    /// What was counted since `before`: counters and buckets are what came on top; what is no counter is as it is now. Where
    /// one went back, the proxy began anew, and all that it counted came since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let old: BTreeMap<(&str, &BTreeMap<String, String>), f64> = before
            .0
            .iter()
            .map(|one| ((one.name.as_str(), &one.labels), one.value))
            .collect();
        let counts = |one: &Sample| {
            let ends = ["_total", "_bucket", "_count", "_sum"];
            ends.iter().any(|end| one.name.ends_with(end))
        };
        let known = |one: &Sample| old.get(&(one.name.as_str(), &one.labels)).copied();
        let mut all = self.0.iter().filter(|one| counts(one));
        if all.any(|one| known(one).is_some_and(|old| old > one.value)) {
            return self.clone();
        }
        let moved = self.0.iter().map(|one| Sample {
            value: match counts(one) {
                true => one.value - known(one).unwrap_or(0.0),
                false => one.value,
            },
            ..one.clone()
        });
        Self(moved.collect())
    }

    /// Every rule and backend that took requests.
    pub(crate) fn routes(&self) -> Vec<RouteMoved> {
        let mut routes: BTreeMap<[String; 5], RouteMoved> = BTreeMap::new();
        let mut times: BTreeMap<[String; 5], Vec<(f64, u64)>> = BTreeMap::new();
        for sample in &self.0 {
            let Some(name) = sample.name.strip_prefix("mesh_route_") else {
                continue;
            };
            let label = |name: &str| sample.label(name).to_owned();
            let key = ["workload", "service", "route", "rule", "backend"].map(label);
            let [workload, service, route, rule, backend] = key.clone();
            let moved = routes.entry(key.clone()).or_insert_with(|| RouteMoved {
                workload,
                service,
                route,
                rule,
                backend,
                ..RouteMoved::default()
            });
            let count = whole(sample.value);
            match name {
                "requests_total" => {
                    moved.requests += count;
                    let bad = matches!(sample.label("class"), "5xx" | "0xx");
                    moved.failed += if bad { count } else { 0 };
                }
                "retries_total" => moved.retries += count,
                "timeouts_total" => moved.timeouts += count,
                "duration_seconds_bucket" => {
                    if let Ok(bound) = sample.label("le").parse() {
                        times.entry(key).or_default().push((bound, count));
                    }
                }
                _ => {}
            }
        }
        for (key, buckets) in times {
            if let Some(moved) = routes.get_mut(&key) {
                moved.p50_us = quantile_us(&buckets, 0.5);
                moved.p99_us = quantile_us(&buckets, 0.99);
            }
        }
        routes
            .into_values()
            .filter(|moved| moved.requests > 0)
            .collect()
    }

    /// Every edge of a proxy.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges: BTreeMap<EdgeKey, Edge> = BTreeMap::new();
        let mut times: BTreeMap<EdgeKey, Vec<(f64, u64)>> = BTreeMap::new();
        for sample in &self.0 {
            let Some(key) = EdgeKey::of(&sample.labels) else {
                continue;
            };
            let edge = edges.entry(key.clone()).or_insert_with(|| key.edge());
            let count = whole(sample.value);
            match sample.name.as_str() {
                "mesh_requests_total" => edge.requests = count,
                "mesh_allowed_total" => edge.allowed = count,
                "mesh_failed_total" => edge.failed += count,
                "mesh_denied_total" => edge.denied.extend(denied(&sample.labels, count)),
                "http_server_request_duration_seconds_bucket"
                | "http_client_request_duration_seconds_bucket" => {
                    let bound = sample.labels.get("le").and_then(|le| le.parse().ok());
                    if let Some(bound) = bound {
                        times.entry(key).or_default().push((bound, count));
                    }
                }
                _ => {}
            }
        }
        for (key, buckets) in times {
            if let Some(edge) = edges.get_mut(&key) {
                edge.p50_us = quantile_us(&buckets, 0.5);
                edge.p99_us = quantile_us(&buckets, 0.99);
            }
        }
        edges
            .into_values()
            .filter(|edge| edge.requests > 0)
            .collect()
    }
}

/// Requests that a rule of a route took, by backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteMoved {
    /// Whose proxy counted, `namespace/name`.
    pub(crate) workload: String,
    /// The Service that was called, `namespace/name:port`.
    pub(crate) service: String,
    /// `HTTPRoute/<namespace>/<name>`, or `none`.
    pub(crate) route: String,
    /// The rule's place.
    pub(crate) rule: String,
    /// `namespace/name:port`, or `none`.
    pub(crate) backend: String,
    /// All.
    pub(crate) requests: u64,
    /// Answered with 5xx, or not at all.
    pub(crate) failed: u64,
    /// Tries after the first.
    pub(crate) retries: u64,
    /// Limits of time that ran out.
    pub(crate) timeouts: u64,
    /// Half took no longer, in microseconds.
    pub(crate) p50_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub(crate) p99_us: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EdgeKey {
    inbound: bool,
    peer: String,
    local: String,
    target: String,
    protocol: String,
}

impl EdgeKey {
    fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        let label = |name: &str| labels.get(name).cloned();
        Some(Self {
            inbound: match label("direction")?.as_str() {
                "inbound" => true,
                "outbound" => false,
                _ => return None,
            },
            peer: label("peer")?,
            local: label("workload")?,
            target: label("target")?,
            protocol: label("protocol")?,
        })
    }

    fn edge(&self) -> Edge {
        Edge {
            direction: match self.inbound {
                true => Direction::Inbound,
                false => Direction::Outbound,
            },
            peer: self.peer.clone(),
            local: self.local.clone(),
            target: self.target.clone(),
            protocol: match self.protocol.as_str() {
                "grpc" => Protocol::Grpc,
                "http" => Protocol::Http,
                _ => Protocol::Tcp,
            },
            requests: 0,
            allowed: 0,
            denied: Vec::new(),
            failed: 0,
            p50_us: None,
            p99_us: None,
        }
    }
}

fn denied(labels: &BTreeMap<String, String>, count: u64) -> Option<DeniedCount> {
    let number = |name: &str| labels.get(name).and_then(|text| text.parse().ok());
    let phase = serde_json::Value::from(labels.get("phase")?.as_str());
    Some(DeniedCount {
        phase: serde_json::from_value(phase).ok()?,
        status: number("status"),
        grpc_status: labels.get("grpc_status").and_then(|text| text.parse().ok()),
        reason: labels.get("reason")?.clone(),
        count,
    })
}

/// Counters are whole and never below zero.
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// A quantile from cumulative buckets (upper bound in seconds, count at or below it), between the bounds of its bucket.
fn quantile_us(buckets: &[(f64, u64)], q: f64) -> Option<u64> {
    let mut buckets = buckets.to_vec();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, total) = *buckets.last().filter(|(_, total)| *total > 0)?;
    let wanted = (q * total as f64).max(1.0);
    let (mut low, mut below) = (0.0, 0);
    for (high, count) in buckets {
        let (reached, within) = (count as f64, count.saturating_sub(below) as f64);
        if within > 0.0 && reached >= wanted {
            if high.is_infinite() {
                break;
            }
            let share = (wanted - (reached - within)) / within;
            return Some(whole(((low + (high - low) * share) * 1e6).round()));
        }
        (low, below) = (high, count);
    }
    Some(whole((low * 1e6).round()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = r#"workload="shop/cart-0",direction="inbound",peer="spiffe://a.b/ns/shop/sa/web",target="shop/cart:80",protocol="http""#;

    #[test]
    fn edges_are_put_together_from_their_series() {
        let text = format!(
            "# HELP x y\nmesh_requests_total{{{EDGE}}} 12\nmesh_allowed_total{{{EDGE}}} 9\n\
             mesh_denied_total{{{EDGE},phase=\"permit\",status=\"403\",grpc_status=\"\",reason=\"say \\\"no\\\", {{x}}\"}} 3\n\
             mesh_failed_total{{{EDGE},cause=\"reset\"}} 1\nmesh_failed_total{{{EDGE},cause=\"timeout\"}} 1\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"0.001\"}} 8\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"0.002\"}} 12\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"+Inf\"}} 12\nmesh_ready 1\n"
        );
        let metrics = Metrics::read(&text);
        let edges = metrics.edges();
        let [edge] = &edges[..] else {
            panic!("{edges:?}");
        };
        assert_eq!((edge.requests, edge.allowed, edge.failed), (12, 9, 2));
        assert_eq!(edge.denied[0].reason, "say \"no\", {x}");
        assert_eq!(
            (edge.denied[0].status, edge.denied[0].grpc_status),
            (Some(403), None)
        );
        assert_eq!(edge.p50_us, Some(750));
        assert!((1_900..=2_000).contains(&edge.p99_us.unwrap()), "{edge:?}");
        assert_eq!(metrics.count("mesh_ready"), Some(1));
        assert_eq!(metrics.count("mesh_absent"), None);
    }

    fn counted(requests: u64, fast: u64, slow: u64) -> Metrics {
        let all = fast + slow;
        let route = r#"workload="shop/web",service="shop/cart:80",route="HTTPRoute/shop/canary",rule="1",backend="shop/v2:80""#;
        Metrics::read(&format!(
            "mesh_requests_total{{{EDGE}}} {requests}\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"0.001\"}} {fast}\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"0.1\"}} {all}\n\
             http_server_request_duration_seconds_bucket{{{EDGE},le=\"+Inf\"}} {all}\n\
             mesh_route_requests_total{{{route},class=\"2xx\"}} {fast}\n\
             mesh_route_requests_total{{{route},class=\"5xx\"}} {slow}\n\
             mesh_route_retries_total{{{route}}} {slow}\nmesh_route_timeouts_total{{{route}}} 0\n\
             mesh_route_duration_seconds_bucket{{{route},le=\"0.001\"}} {fast}\n\
             mesh_route_duration_seconds_bucket{{{route},le=\"0.1\"}} {all}\n\
             mesh_route_duration_seconds_bucket{{{route},le=\"+Inf\"}} {all}\n\
             mesh_ready 1\n"
        ))
    }

    #[test]
    fn what_came_since_is_counted_and_its_times_are_its_own() {
        let before = counted(1_000, 1_000, 0);
        let since = counted(1_010, 1_000, 10).since(&before);
        let edges = since.edges();
        assert_eq!(edges[0].requests, 10);
        assert!(edges[0].p50_us.unwrap() > 1_000, "{edges:?}");
        assert_eq!(since.count("mesh_ready"), Some(1), "no counter");
        let routes = since.routes();
        let route = &routes[0];
        assert_eq!((route.requests, route.failed, route.retries), (10, 10, 10));
        assert_eq!(route.backend, "shop/v2:80");
        assert!(route.p99_us.unwrap() > 1_000);
        let rest = before.since(&before);
        assert_eq!((rest.edges(), rest.routes()), (vec![], vec![]));
    }

    #[test]
    fn a_proxy_that_began_anew_counts_from_nothing() {
        let since = counted(7, 7, 0).since(&counted(1_000, 1_000, 0));
        assert_eq!(since.edges()[0].requests, 7);
        // One counter that goes back is enough: the others may have passed what they were.
        let mixed = counted(7, 2_000, 0).since(&counted(1_000, 1_000, 0));
        assert_eq!(mixed.routes()[0].requests, 2_000);
        let new = counted(7, 7, 0).since(&Metrics::default());
        assert_eq!(new.edges()[0].requests, 7);
    }

    #[test]
    fn what_is_no_sample_is_passed_over_and_nothing_is_made_up() {
        for text in [
            "",
            "mesh_ready",
            "mesh_ready x",
            "mesh_ready NaN",
            "mesh_requests_total{a=\"b 3",
            "mesh_requests_total{a} 3",
            "{} {} {}",
        ] {
            assert_eq!(Metrics::read(text).edges(), [], "{text}");
            assert_eq!(Metrics::read(text).count("mesh_ready"), None, "{text}");
        }
        assert_eq!(quantile_us(&[], 0.5), None);
        assert_eq!(quantile_us(&[(0.001, 0)], 0.5), None);
        assert_eq!(
            quantile_us(&[(0.001, 0), (f64::INFINITY, 4)], 0.5),
            Some(1_000)
        );
    }
}
