//! The configuration of one proxy: its text form, and the valid form made from it.
//!
//! [`file::ProxyConfigFile`] is the YAML (unknown keys refused, units in keys); [`ProxyConfig`] is what the proxy runs
//! on: nothing optional that has a default, every address and identity parsed.

pub mod file;
#[cfg(test)]
mod tests;

use mesh_api::discovery::Endpoint;
use mesh_audits::redact::Redactable;
use mesh_ca_client::RemoteCa;
use mesh_platform::audit_log::WhenFull;
use mesh_platform::tree_log::Retention;
use mesh_proxy_core::redirect::OwnPorts;
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A valid configuration. Made by [`file::load`] and [`file::parse`].
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Namespace of the workload whose traffic this is.
    pub namespace: String,
    /// Its name.
    pub workload: String,
    /// The mesh's own trust domain.
    pub trust_domain: TrustDomain,
    /// Where the SVID comes from.
    pub identity: IdentitySource,
    /// Where policy comes from.
    pub policy: PolicySource,
    /// The listener for other proxies.
    pub mesh: SocketAddr,
    /// Where connections to the workload arrive that were redirected. With it, every port of the workload is served,
    /// at the address where it was dialled.
    pub transparent: Option<SocketAddr>,
    /// Ports of the application that clients outside the mesh find at an address of their own.
    pub ports: Vec<InboundPort>,
    /// Services that the application reaches through this proxy.
    pub outbound: Vec<Outbound>,
    /// Where connections of the application arrive that were redirected.
    pub outbound_transparent: Option<SocketAddr>,
    /// Metrics and readiness over TCP.
    pub admin: SocketAddr,
    /// Everything else, over a Unix socket.
    pub admin_socket: PathBuf,
    /// Decision records; `None`: only counted.
    pub audit: Option<Audit>,
    /// Spans of requests; `None`: none are made.
    pub traces: Option<Traces>,
    /// Who in the mesh may look at requests; nobody by default.
    pub tap: Vec<SpiffeId>,
    /// Event loops, one thread each.
    pub cores: usize,
    /// Time for running requests after SIGTERM.
    pub drain: Duration,
    /// What may be set of [`crate::limits`].
    pub limits: Limits,
}

/// Where the SVID and the trust bundles come from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// A SPIFFE Workload API, `unix:///…`.
    WorkloadApi(String),
    /// PEM files; looked at again when they change.
    Files {
        /// Leaf first.
        chain: PathBuf,
        /// Private key of the leaf.
        key: PathBuf,
        /// Trust anchors of our trust domain.
        bundle: PathBuf,
    },
    /// A CA on another machine, asked with the service account token of a pod.
    Ca(RemoteCa),
}

/// Where policy comes from.
#[derive(Clone, Debug)]
pub enum PolicySource {
    /// A controller, over mutual TLS.
    Controller {
        /// Its address; a name is looked up at each dial.
        address: HostPort,
        /// Who must answer there.
        identity: SpiffeId,
    },
    /// A folder of manifests; looked at again when they change.
    Manifests {
        /// The folder.
        folder: PathBuf,
        /// Cluster default policy.
        default_policy: mesh_policy_index::Mode,
        /// Where services are, as JSON; looked at again when it changes.
        discovery: Option<PathBuf>,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// An address, or a name that is looked up each time.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// One port of the application.
#[derive(Clone, Copy, Debug)]
pub struct InboundPort {
    /// Where clients outside the mesh arrive.
    pub listen: SocketAddr,
    /// The port of the workload that policy knows.
    pub port: u16,
    /// Where the application listens.
    pub app: SocketAddr,
}

/// One service that the application reaches through this proxy.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where the application connects.
    pub listen: SocketAddr,
    /// What it means.
    pub target: Target,
}

/// What an outbound listener leads to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A service port that discovery knows.
    Service(ServiceName),
    /// These endpoints.
    Endpoints {
        /// They.
        endpoints: Vec<Endpoint>,
        /// Whether bytes are passed on without detection.
        opaque: bool,
    },
    /// An address outside of the mesh, if policy lets the workload reach it.
    Outside(SocketAddr),
}

/// `namespace/name:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Port of the Service.
    pub port: u16,
}

/// Where decision records go.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The log.
    pub file: PathBuf,
    /// Share of allows that are recorded one by one, 0 to 1; denials always are, and allows are counted all.
    pub allow_sample: f64,
    /// What happens while the log takes nothing.
    pub when_full: WhenFull,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Texts that can be redacted later.
    pub redactable: Vec<Redactable>,
}

/// Where spans of requests go, and metrics if they do.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Who takes them.
    pub collector: Collector,
    /// How they are told.
    pub protocol: OtlpProtocol,
    /// Share of requests without a trace for which one begins here, 0 to 1; those that come with one follow it.
    pub sample: f64,
    /// What is told of this process besides what it knows itself, by OpenTelemetry's names.
    pub attributes: BTreeMap<String, String>,
    /// How often the collector gets metrics too; `None`: never.
    pub metrics: Option<Duration>,
}

/// Who takes them.
#[derive(Clone, Debug)]
pub enum Collector {
    /// A service in the mesh, by mutual TLS.
    Service(ServiceName),
    /// These endpoints in the mesh.
    Endpoints(Vec<Endpoint>),
    /// An address outside the mesh, in plaintext.
    Address(HostPort),
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// What may be set of [`crate::limits`]; defaults are the constants there.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// [`crate::limits::HANDSHAKE_SECS`].
    pub handshake: Duration,
    /// [`crate::limits::HANDSHAKES_AT_ONCE`].
    pub handshakes_at_once: usize,
    /// [`crate::limits::DETECT_SECS`].
    pub detect: Duration,
    /// [`crate::limits::HEADER_SECS`].
    pub header: Duration,
    /// [`crate::limits::CONNECT_MILLIS`].
    pub connect: Duration,
    /// [`crate::limits::CONNECTIONS`].
    pub connections: usize,
}

impl ProxyConfig {
    /// `namespace/name`.
    pub fn workload_name(&self) -> String {
        format!("{}/{}", self.namespace, self.workload)
    }

    /// Ports that are the proxy's own: nobody reaches them through the proxy itself.
    pub fn own_ports(&self) -> OwnPorts {
        let listeners = [self.transparent, self.outbound_transparent];
        let listeners = [Some(self.mesh), Some(self.admin)]
            .into_iter()
            .chain(listeners);
        listeners.flatten().map(|address| address.port()).collect()
    }
}

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err("the port is 0"),
                port => Ok(Self {
                    host: address.ip().to_string(),
                    port,
                }),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("it names no port")?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0);
        let port = port.ok_or("its port is no number from 1 to 65535")?;
        if !is_host_name(host) {
            return Err("its host is neither an address nor a name");
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// A DNS name (RFC 1123 §2.1): its last label is no number, or a mistyped address would be one.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}
