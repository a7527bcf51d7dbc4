//! Prometheus text: what a proxy answers on `/metrics`, and the reading of it for the command line.
//!
//! Names: `mesh_*` are ours, `http_server_request_duration_seconds` and its client twin OpenTelemetry's, and
//! `inbound_{http,tcp}_authz_{allow,deny}_total` Linkerd's, with its `srv_*`, `authz_*` and `client_id` labels.

mod families;
mod read;

pub use families::{Family, Kind, Label, Sink, Value, tell, told};
pub use read::{EdgeSummary, ExpositionError, Sample, edges, parse, sample};

use crate::metrics::Registry;
use crate::metrics::histogram::{BOUNDS_US, Histogram};
use std::fmt::{self, Write};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series of a registry as text.
pub fn render(registry: &Registry) -> String {
    let mut text = Text::default();
    tell(registry, &mut text);
    text.out
}

/// The text so far.
#[derive(Default)]
struct Text {
    out: String,
    /// Name of the family whose series come.
    name: &'static str,
}

impl Sink for Text {
    fn family(&mut self, family: Family) {
        let Family { name, kind, help } = family;
        let kind = kind.as_str();
        self.name = name;
        // INVARIANT: writing to a String does not fail; here and below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn series(&mut self, labels: &[Label<'_>], value: Value<'_>) {
        let _ = match value {
            Value::Whole(count) => self.line("", labels, None, count),
            Value::Number(number) => self.line("", labels, None, number),
            Value::Durations(histogram) => self.histogram(labels, histogram),
        };
    }
}

impl Text {
    /// `le`: the bound of a bucket.
    fn line(
        &mut self,
        ending: &str,
        labels: &[Label<'_>],
        le: Option<f64>,
        value: impl fmt::Display,
    ) -> fmt::Result {
        let Self { out, name } = self;
        write!(out, "{name}{ending}")?;
        let mut before = '{';
        for (label, value) in labels {
            write!(out, "{before}{label}=\"{}\"", Escaped(value))?;
            before = ',';
        }
        match le {
            Some(f64::INFINITY) => write!(out, "{before}le=\"+Inf\"}} ")?,
            Some(bound) => write!(out, "{before}le=\"{bound}\"}} ")?,
            None if labels.is_empty() => out.push(' '),
            None => out.push_str("} "),
        }
        writeln!(out, "{value}")
    }

    fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) -> fmt::Result {
        let mut cumulative = 0;
        for (count, bound) in histogram.counts().iter().zip(BOUNDS_US) {
            cumulative += count;
            self.line("_bucket", labels, Some(bound as f64 / 1e6), cumulative)?;
        }
        let count = histogram.count();
        self.line("_bucket", labels, Some(f64::INFINITY), count)?;
        self.line("_sum", labels, None, histogram.sum_us() as f64 / 1e6)?;
        self.line("_count", labels, None, count)
    }
}

/// A label value with backslash, quote and line feed escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in told(self.0) {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
