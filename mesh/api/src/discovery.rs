//! Where services are: what a proxy needs to reach them, and who it must find there.

use mesh_trust::SpiffeId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// All services that a workload may look up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// By namespace, name, port.
    pub services: Vec<ServicePort>,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What is known of the protocol.
    pub protocol: ProtocolHint,
    /// Ready endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What discovery knows of a port's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolHint {
    /// To be detected.
    #[default]
    Detect,
    /// Bytes: opaque port, or a Server says so.
    Opaque,
}

/// One pod behind a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The mesh listener of its proxy (TLS, our ALPN).
    pub proxy: SocketAddr,
    /// Port of the pod that is meant.
    pub port: u16,
    /// Who must answer.
    pub identity: SpiffeId,
    /// Pod name, for metrics and errors.
    pub workload: String,
}
