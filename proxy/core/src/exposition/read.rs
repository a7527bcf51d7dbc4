//! Reads our own text back. Bounded and strict: what a proxy would not write is an error with its line.

use crate::metrics::Histogram;
use std::collections::BTreeMap;

/// Samples read at most; a registry renders fewer.
pub(super) const SAMPLES_MAX: usize = 200_000;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the series, `_bucket` and the like included.
    pub name: String,
    /// Labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// A label's value, empty if absent.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Why a text is no exposition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum ExpositionError {
    /// A line that is neither a comment nor a sample.
    #[error("line {line} of the metrics is no sample: `{text}`")]
    #[diagnostic(
        code("MESH-0420"),
        help("the address may not be a proxy's; ask its `/metrics` directly")
    )]
    Line {
        /// From 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// Too much.
    #[error("metrics have more than `{max}` samples")]
    #[diagnostic(
        code("MESH-0420"),
        help("the address may not be a proxy's; ask its `/metrics` directly")
    )]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// All samples of a text, in order.
///
/// # Errors
/// [`ExpositionError`] with the first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Sample>, ExpositionError> {
    let mut samples = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if samples.len() == SAMPLES_MAX {
            return Err(ExpositionError::TooMany { max: SAMPLES_MAX });
        }
        let broken = || ExpositionError::Line {
            line: at + 1,
            text: line.chars().take(80).collect(),
        };
        samples.push(sample(line).ok_or_else(broken)?);
    }
    Ok(samples)
}

/// One line, without its end; `None` if it is a comment, or no sample.
pub fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))?;
    let (name, mut rest) = line.split_at_checked(end)?;
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if label.is_empty() || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = after
                .strip_prefix(',')
                .or_else(|| after.starts_with('}').then_some(after))?;
        }
    }
    let mut words = rest.split_ascii_whitespace();
    let value = match (words.next()?, rest.starts_with(' ')) {
        ("+Inf", true) => f64::INFINITY,
        ("-Inf", true) => f64::NEG_INFINITY,
        ("NaN", true) => f64::NAN,
        (number, true) => number.parse().ok()?,
        (_, false) => return None,
    };
    // A time may follow; nothing else.
    let time_ok = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
    (time_ok && words.next().is_none()).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The value up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

/// One edge as scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeSummary {
    /// The proxy's workload.
    pub workload: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// SPIFFE ID of the other side, or `unauthenticated`.
    pub peer: String,
    /// What was asked for.
    pub target: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// Requests or connections.
    pub requests: u64,
    /// Of these, allowed.
    pub allowed: u64,
    /// Of these, denied: phase, status, reason, count.
    pub denied: Vec<(String, Option<u16>, String, u64)>,
    /// Of those allowed, failed.
    pub failed: u64,
    /// Connections open now.
    pub open: u64,
    /// Latencies.
    pub duration: Histogram,
}

/// An edge while its samples are read; buckets make a histogram only when all are there.
#[derive(Default)]
struct Gathered {
    edge: EdgeSummary,
    buckets: Vec<(f64, u64)>,
    sum_us: u64,
}

impl Gathered {
    fn add(&mut self, sample: &Sample) {
        let count = sample.value.max(0.0) as u64;
        match sample.name.as_str() {
            "mesh_requests_total" => self.edge.requests += count,
            "mesh_allowed_total" => self.edge.allowed += count,
            "mesh_failed_total" => self.edge.failed += count,
            "mesh_connections_open" => self.edge.open += count,
            "mesh_denied_total" => {
                let status = sample.label("status").parse().ok();
                let (phase, reason) = (
                    sample.label("phase").to_owned(),
                    sample.label("reason").to_owned(),
                );
                self.edge.denied.push((phase, status, reason, count));
            }
            name if name.ends_with("_bucket") => {
                let bound = match sample.label("le") {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse::<f64>().unwrap_or(f64::NAN) * 1e6,
                };
                self.buckets.push((bound, count));
            }
            name if name.ends_with("_sum") => {
                self.sum_us = (sample.value.max(0.0) * 1e6).round() as u64
            }
            _ => {}
        }
    }

    fn finish(self, [workload, direction, peer, target, protocol]: [&str; 5]) -> EdgeSummary {
        EdgeSummary {
            workload: workload.into(),
            direction: direction.into(),
            peer: peer.into(),
            target: target.into(),
            protocol: protocol.into(),
            duration: Histogram::from_cumulative(&self.buckets, self.sum_us).unwrap_or_default(),
            ..self.edge
        }
    }
}

/// Whether a series belongs to edges.
fn is_of_edges(name: &str) -> bool {
    let durations = [
        "http_server_request_duration_seconds_",
        "http_client_request_duration_seconds_",
    ];
    let counters = [
        "mesh_requests_total",
        "mesh_allowed_total",
        "mesh_denied_total",
        "mesh_failed_total",
        "mesh_connections_open",
    ];
    counters.contains(&name) || durations.iter().any(|start| name.starts_with(start))
}

/// The edges in samples of one proxy or several, sorted.
pub fn edges(samples: &[Sample]) -> Vec<EdgeSummary> {
    let mut edges: BTreeMap<[&str; 5], Gathered> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| is_of_edges(&sample.name)) {
        let key = ["workload", "direction", "peer", "target", "protocol"]
            .map(|label| sample.label(label));
        edges.entry(key).or_default().add(sample);
    }
    edges
        .into_iter()
        .map(|(key, gathered)| gathered.finish(key))
        .collect()
}
