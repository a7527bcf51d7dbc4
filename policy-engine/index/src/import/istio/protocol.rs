//! How Istio reads the bytes of a port: by `appProtocol`, else by the name of the Service's port, else by looking.

use super::scope::{is_within, target_ports};
use crate::index::Workload;
use crate::manifest::resource::{Object, Service, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    /// Looked at for each connection.
    Detected,
    Http1,
    Http2,
    Grpc,
    Bytes,
    /// TLS that the application terminates.
    Tls,
}

impl Protocol {
    /// `proxyProtocol` of a Server.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Detected => "unknown",
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
            Self::Bytes => "opaque",
            Self::Tls => "TLS",
        }
    }

    /// Whether requests may be seen on it.
    pub(crate) fn has_requests(self) -> bool {
        !matches!(self, Self::Bytes | Self::Tls)
    }

    /// Whether bytes that are no request may be let through.
    pub(crate) fn has_bytes(self) -> bool {
        matches!(self, Self::Detected | Self::Bytes | Self::Tls)
    }
}

/// Ports of a workload that Services lead to, and what they say these speak.
pub(crate) fn protocols(
    workload: &Workload,
    services: &[Arc<Object<Service>>],
) -> BTreeMap<u16, BTreeSet<Protocol>> {
    let mut out: BTreeMap<u16, BTreeSet<Protocol>> = BTreeMap::new();
    for service in services
        .iter()
        .filter(|s| s.key.namespace == workload.key.namespace)
    {
        let Some(selector) = &service.spec.selector else {
            continue;
        };
        if !is_within(selector, &workload.labels) {
            continue;
        }
        for port in &service.spec.ports {
            for number in target_ports(workload, &port.target) {
                out.entry(number).or_default().insert(spoken(port));
            }
        }
    }
    out
}

/// Ports of Services that carry bytes if nothing else is said: SMTP, DNS, MySQL, MongoDB.
const WELL_KNOWN_BYTES: [u16; 4] = [25, 53, 3306, 27017];

fn spoken(port: &ServicePort) -> Protocol {
    let name = port.app_protocol.as_ref().or(port.name.as_ref());
    let name = name.map(|n| n.to_ascii_lowercase()).unwrap_or_default();
    match (port.app_protocol.is_some(), name.as_str()) {
        (true, "kubernetes.io/h2c") => return Protocol::Http2,
        (true, "kubernetes.io/ws") => return Protocol::Http1,
        (true, "kubernetes.io/wss") => return Protocol::Tls,
        _ if name.starts_with("grpc-web") => return Protocol::Http1,
        _ => {}
    }
    match named(name.split('-').next().unwrap_or_default()) {
        Protocol::Detected if WELL_KNOWN_BYTES.contains(&port.port) => Protocol::Bytes,
        protocol => protocol,
    }
}

fn named(name: &str) -> Protocol {
    match name {
        "http" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => Protocol::Bytes,
        _ => Protocol::Detected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::resource::PortRef;

    #[test]
    fn names_and_app_protocols_are_read_as_istio_does() {
        for (name, app, want) in [
            (Some("http"), None, Protocol::Http1),
            (Some("http-web"), None, Protocol::Http1),
            (Some("httpweb"), None, Protocol::Detected),
            (Some("http2-x"), None, Protocol::Http2),
            (Some("grpc-api"), None, Protocol::Grpc),
            (Some("grpc-web"), None, Protocol::Http1),
            (Some("tcp-db"), None, Protocol::Bytes),
            (Some("https"), None, Protocol::Tls),
            (Some("web"), None, Protocol::Detected),
            (None, None, Protocol::Detected),
            (Some("tcp"), Some("http"), Protocol::Http1),
            (Some("http"), Some("vendor/x"), Protocol::Detected),
            (None, Some("kubernetes.io/h2c"), Protocol::Http2),
            (None, Some("http-alt"), Protocol::Http1),
        ] {
            let port = ServicePort {
                name: name.map(str::to_owned),
                port: 80,
                target: PortRef::Number(80),
                app_protocol: app.map(str::to_owned),
            };
            assert_eq!(spoken(&port), want, "{name:?} {app:?}");
        }
    }

    #[test]
    fn well_known_ports_carry_bytes_unless_something_else_is_said() {
        for (name, number, want) in [
            (None, 3306, Protocol::Bytes),
            (Some("db"), 27017, Protocol::Bytes),
            (Some("http"), 3306, Protocol::Http1),
            (None, 3307, Protocol::Detected),
        ] {
            let port = ServicePort {
                name: name.map(str::to_owned),
                port: number,
                target: PortRef::Number(80),
                app_protocol: None,
            };
            assert_eq!(spoken(&port), want, "{name:?} {number}");
        }
    }
}
