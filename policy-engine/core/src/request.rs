//! The request record that explain, replay and tests take, and the facts a decision is made on.

use mesh_trust::{SpiffeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One request as text, one JSON object per line in files. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRecord {
    /// Who asks.
    pub client: ClientRecord,
    /// Where it goes.
    pub server: TargetRecord,
    /// How the bytes are read.
    #[serde(default)]
    pub protocol: Protocol,
    /// HTTP method; absent for TCP. gRPC: `POST` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Raw request target, query included; absent for TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Host` or `:authority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Header values by lower-case name, values in order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
}

/// The client of a [`RequestRecord`], unparsed: a malformed identity or address is a denial in phase `transport`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRecord {
    /// Verified SPIFFE ID; `null` without one.
    #[serde(default)]
    pub spiffe_id: Option<String>,
    /// Address of the TCP peer; `127.0.0.1` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Whether the proxy terminated TLS. Absent: true exactly if there is a `spiffe_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
}

/// The target of a [`RequestRecord`]: a pod's port, or a Service's port (then through `targetPort`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecord {
    /// Namespace of pod or Service.
    pub namespace: String,
    /// Pod name, or the name of the workload that owns pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Service name, in place of `pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Port of the pod, or of the Service.
    pub port: u16,
}

/// How the bytes of a request are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.x or HTTP/2 without gRPC's content type.
    #[default]
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// Bytes.
    Tcp,
}

/// What is known of a client once its connection stands. IPv4-mapped IPv6 addresses are IPv4 already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Verified SPIFFE ID.
    pub id: Option<SpiffeId>,
    /// Address of the TCP peer, in canonical form (see [`canonical_ip`]).
    pub ip: IpAddr,
    /// Whether the proxy terminated TLS.
    pub tls: bool,
    /// Serial of the leaf, lower-case hex.
    pub serial: Option<String>,
    /// End of the leaf's validity.
    pub expires: Option<Timestamp>,
}

/// `::ffff:a.b.c.d` as `a.b.c.d`; every other address as it is (settled reading 14).
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// What a client asks of one port.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// A byte stream, taken to carry data.
    Tcp,
    /// A request with a head, raw: [`crate::decide::decide`] canonicalizes it.
    Http(Head<'a>),
}

/// The head of an HTTP or gRPC request as it came from the wire.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// Method token.
    pub method: &'a str,
    /// Request target in origin form (or `*`), query included.
    pub target: &'a str,
    /// `Host` or `:authority`, one value.
    pub host: Option<&'a str>,
    /// Whether the content type is gRPC's: decides how a refusal is spoken.
    pub grpc: bool,
    /// All values of a header, by lower-case name, in order.
    pub headers: &'a dyn Headers,
}

impl std::fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} host={:?}", self.method, self.target, self.host)
    }
}

/// Header lookup, so that neither a map of ours nor an HTTP library is forced on callers.
pub trait Headers {
    /// Calls `each` with every value of `name` (lower case), in order; values are bytes and are never joined.
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

impl Headers for BTreeMap<String, Vec<String>> {
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for (key, values) in self {
            if key.eq_ignore_ascii_case(name) {
                values.iter().for_each(|value| each(value.as_bytes()));
            }
        }
    }
}
