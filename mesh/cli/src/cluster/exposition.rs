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
