//! Metrics as an OpenTelemetry collector takes them: the part of `metrics/v1` and `collector/metrics/v1` that a proxy
//! fills, with its field numbers.

use super::{KeyValue, Resource, Scope, framed};
use prost::Message;

/// The method of gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// The path over HTTP.
pub const HTTP_PATH: &str = "/v1/metrics";

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: each value is all since the start, so that one that is lost is in the next.
pub const CUMULATIVE: i32 = 2;

/// What one call brings.
#[derive(Clone, PartialEq, Message)]
pub struct ExportMetrics {
    /// Metrics by whose they are.
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// Metrics of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    /// Whose.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// They, by what made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// Metrics that one library made.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// They.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// One metric, with all of its series.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it means.
    #[prost(string, tag = "2")]
    pub description: String,
    /// What it is measured in, by UCUM; empty for counts.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// Its values.
    #[prost(oneof = "Data", tags = "5, 7, 9")]
    pub data: Option<Data>,
}

/// Values, by what they are.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Data {
    /// They rise and fall.
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    /// Counts.
    #[prost(message, tag = "7")]
    Sum(Sum),
    /// In buckets.
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

/// Values that rise and fall.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// One for each series.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
}

/// Counts.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    /// One for each series.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
    /// Whether they only grow.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// Values in buckets.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// One for each series.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<HistogramPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
}

/// The value of one series.
#[derive(Clone, PartialEq, Message)]
pub struct NumberPoint {
    /// Which series.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
    /// Since when it is counted, nanoseconds since 1970; 0 of a gauge.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When it was so.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// The value.
    #[prost(oneof = "Number", tags = "4, 6")]
    pub value: Option<Number>,
}

/// A number of one of these kinds.
#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub enum Number {
    /// Any.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A whole one.
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

/// The buckets of one series.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramPoint {
    /// Which series.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// Since when it is counted, nanoseconds since 1970.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When it was so.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// How many values.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Their sum.
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// How many in each bucket: one more than bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    /// Upper ends of buckets, inclusive, rising.
    #[prost(double, repeated, tag = "7")]
    pub explicit_bounds: Vec<f64>,
}

impl ExportMetrics {
    /// As bytes of protobuf.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// As a message of gRPC.
    pub fn to_grpc(&self) -> Vec<u8> {
        framed(self)
    }

    /// Reads protobuf, as a collector does.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| error.to_string())
    }

    /// Reads a message of gRPC.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn read_grpc(bytes: &[u8]) -> Result<Self, String> {
        Self::read(super::unframed(bytes)?)
    }

    /// All metrics of all processes.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        let all = self.resource_metrics.iter();
        let scopes = all.flat_map(|one| &one.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_the_bytes_of_the_standard() {
        let point = NumberPoint {
            attributes: vec![KeyValue::text("a", "b")],
            start_time_unix_nano: 1,
            time_unix_nano: 2,
            value: Some(Number::Int(-3)),
        };
        let mut want = b"\x11\x01\0\0\0\0\0\0\0\x19\x02\0\0\0\0\0\0\0".to_vec();
        want.extend(b"\x31\xfd\xff\xff\xff\xff\xff\xff\xff");
        want.extend(b"\x3a\x08\x0a\x01a\x12\x03\x0a\x01b");
        assert_eq!(point.encode_to_vec(), want);
        let point = HistogramPoint {
            attributes: Vec::new(),
            start_time_unix_nano: 1,
            time_unix_nano: 2,
            count: 3,
            sum: Some(0.0),
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.5],
        };
        let mut want = b"\x11\x01\0\0\0\0\0\0\0\x19\x02\0\0\0\0\0\0\0".to_vec();
        want.extend(b"\x21\x03\0\0\0\0\0\0\0\x29\0\0\0\0\0\0\0\0");
        want.extend(b"\x32\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        want.extend(b"\x3a\x08\0\0\0\0\0\0\xe0\x3f");
        assert_eq!(point.encode_to_vec(), want);
    }

    #[test]
    fn a_metric_has_the_bytes_of_the_standard() {
        let metric = |data| Metric {
            name: "n".to_owned(),
            description: "d".to_owned(),
            unit: "s".to_owned(),
            data: Some(data),
        };
        let head = b"\x0a\x01n\x12\x01d\x1a\x01s";
        let sum = Sum {
            data_points: vec![NumberPoint::default()],
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        };
        let gauge = Gauge {
            data_points: vec![NumberPoint::default()],
        };
        let histogram = Histogram {
            data_points: vec![HistogramPoint::default()],
            aggregation_temporality: CUMULATIVE,
        };
        for (data, tail) in [
            (Data::Gauge(gauge), &b"\x2a\x02\x0a\0"[..]),
            (Data::Sum(sum), b"\x3a\x06\x0a\0\x10\x02\x18\x01"),
            (Data::Histogram(histogram), b"\x4a\x04\x0a\0\x10\x02"),
        ] {
            assert_eq!(metric(data).encode_to_vec(), [head, tail].concat());
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let request = ExportMetrics {
            resource_metrics: vec![ResourceMetrics::default()],
        };
        assert_eq!(request.to_grpc(), b"\0\0\0\0\x02\x0a\0");
        assert_eq!(
            ExportMetrics::read_grpc(&request.to_grpc()),
            Ok(request.clone())
        );
        assert_eq!(ExportMetrics::read(&request.to_bytes()), Ok(request));
        for bad in [
            &b""[..],
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x02\x0a",
            b"\0\0\0\0\x01\x0a",
        ] {
            assert!(ExportMetrics::read_grpc(bad).is_err(), "{bad:?}");
        }
    }
}
