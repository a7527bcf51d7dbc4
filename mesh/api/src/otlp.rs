//! Spans as an OpenTelemetry collector takes them: the part of OTLP (opentelemetry-proto v1, `trace/v1` and
//! `collector/trace/v1`) that a proxy fills, with its field numbers. What a collector adds is skipped when it is read.
//!
//! - [`metrics`]: the same of metrics

pub mod metrics;

use prost::Message;

/// The method of gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The path over HTTP.
pub const HTTP_PATH: &str = "/v1/traces";

/// What one call brings.
#[derive(Clone, PartialEq, Message)]
pub struct ExportRequest {
    /// Spans by whose they are.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// Spans of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Whose.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// They, by what made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// What is known of a process.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// By name.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Spans that one library made.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// They.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A library.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// One span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes; none at the root.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What was done, in few words.
    #[prost(string, tag = "5")]
    pub name: String,
    /// One of [`KIND_SERVER`] and [`KIND_CLIENT`].
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// By name.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// Set where it failed.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
}

/// `SPAN_KIND_SERVER`.
pub const KIND_SERVER: i32 = 2;
/// `SPAN_KIND_CLIENT`.
pub const KIND_CLIENT: i32 = 3;
/// `STATUS_CODE_ERROR`.
pub const STATUS_ERROR: i32 = 2;

/// How a span ended.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 0, or [`STATUS_ERROR`].
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Of one of these kinds.
    #[prost(oneof = "Value", tags = "1, 3")]
    pub value: Option<Value>,
}

/// Kinds of values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// What a collector answers.
#[derive(Clone, PartialEq, Message)]
pub struct ExportResponse {
    /// Set if it did not take all.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What it did not take. Of spans and of metrics it has one form.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// So many spans, or points of metrics.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Because.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

impl KeyValue {
    /// A text under a name.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of(key, Value::Text(value.into()))
    }

    /// A number under a name.
    pub fn number(key: impl Into<String>, value: i64) -> Self {
        Self::of(key, Value::Number(value))
    }

    fn of(key: impl Into<String>, value: Value) -> Self {
        Self {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }
}

impl ExportRequest {
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
        Self::read(unframed(bytes)?)
    }

    /// All spans of all processes.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let scopes = self.resource_spans.iter().flat_map(|one| &one.scope_spans);
        scopes.flat_map(|scope| &scope.spans)
    }
}

/// A message of gRPC: not compressed, its length before it.
fn framed(message: &impl Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(5 + message.encoded_len());
    bytes.push(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// What is in such a message.
fn unframed(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.split_at_checked(5) {
        Some(([0, length @ ..], message)) if length == (message.len() as u32).to_be_bytes() => {
            Ok(message)
        }
        _ => Err("no single message that is not compressed".to_owned()),
    }
}

/// The value of an attribute as text; `None`: it does not stand.
pub fn attribute(all: &[KeyValue], key: &str) -> Option<String> {
    let found = all.iter().find(|one| one.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    })
}

impl ExportResponse {
    /// Reads protobuf; what is none counts as an answer without a word.
    pub fn read(bytes: &[u8]) -> Self {
        Self::decode(bytes).unwrap_or_default()
    }

    /// Reads a message of gRPC the same way.
    pub fn read_grpc(bytes: &[u8]) -> Self {
        match bytes.split_at_checked(5) {
            Some(([0, ..], message)) => Self::read(message),
            _ => Self::default(),
        }
    }

    /// Spans, or points of metrics, that were not taken, with the reason.
    pub fn rejected(&self) -> (u64, &str) {
        self.partial_success.as_ref().map_or((0, ""), |partial| {
            let count = u64::try_from(partial.rejected).unwrap_or(0);
            (count, partial.error_message.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_bytes_of_the_standard() {
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "GET".to_owned(),
            kind: KIND_SERVER,
            start_time_unix_nano: 1,
            end_time_unix_nano: 2,
            attributes: vec![KeyValue::number("n", 3)],
            status: Some(Status {
                message: String::new(),
                code: STATUS_ERROR,
            }),
            ..Span::default()
        };
        let mut want = vec![0x0a, 16];
        want.extend([1; 16]);
        want.extend([0x12, 8]);
        want.extend([2; 8]);
        want.extend(b"\x2a\x03GET\x30\x02");
        want.extend(b"\x39\x01\0\0\0\0\0\0\0\x41\x02\0\0\0\0\0\0\0");
        want.extend(b"\x4a\x07\x0a\x01n\x12\x02\x18\x03");
        want.extend(b"\x7a\x02\x18\x02");
        assert_eq!(span.encode_to_vec(), want);
    }

    #[test]
    fn what_a_collector_rejects_is_read_and_nonsense_is_nothing() {
        let answer = ExportResponse {
            partial_success: Some(PartialSuccess {
                rejected: 4,
                error_message: "too old".to_owned(),
            }),
        };
        let bytes = answer.encode_to_vec();
        assert_eq!(ExportResponse::read(&bytes).rejected(), (4, "too old"));
        let mut framed = vec![0, 0, 0, 0, bytes.len() as u8];
        framed.extend(&bytes);
        assert_eq!(ExportResponse::read_grpc(&framed), answer);
        for nonsense in [&b""[..], b"\x01\0\0\0\0", b"\0\0\0\0\x02\xff\xff", b"html"] {
            assert_eq!(ExportResponse::read_grpc(nonsense).rejected().0, 0);
            assert_eq!(ExportResponse::read(nonsense).rejected().0, 0);
        }
        let negative = ExportResponse {
            partial_success: Some(PartialSuccess {
                rejected: -1,
                error_message: String::new(),
            }),
        };
        assert_eq!(negative.rejected().0, 0);
    }

    #[test]
    fn a_message_of_grpc_tells_its_length() {
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans::default()],
        };
        assert_eq!(request.to_grpc(), b"\0\0\0\0\x02\x0a\0");
        assert_eq!(request.to_bytes(), b"\x0a\0");
    }
}
