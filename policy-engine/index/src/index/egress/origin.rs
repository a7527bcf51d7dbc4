//! Annotations of a route on an EgressNetwork that have the proxy begin TLS for the requests that it takes.
//!
//! Whoever writes one of them means that nothing leaves in plaintext: what cannot be read denies what the route takes.

use super::super::Index;
use crate::finding::Code;
use crate::manifest::resource::{Object, Route};
use mesh_policy::egress::{TlsOrigin, TlsRoots, TlsVersion};
use mesh_policy::snapshot::Finding;
use mesh_trust::tls::OutsideRoots;
use std::collections::BTreeMap;

/// The port to which TLS is begun.
const BEGIN: &str = "mesh.internal/originate-tls";

/// Who may have signed the certificates there: `system`, or certificates in PEM.
const ROOTS: &str = "mesh.internal/tls-roots";

/// The lowest version that is spoken.
const MIN_VERSION: &str = "mesh.internal/tls-min-version";

/// Whether an object asks for TLS, in whatever way.
pub(super) fn asks(annotations: &BTreeMap<String, String>) -> bool {
    let own = [BEGIN, ROOTS, MIN_VERSION];
    own.iter().any(|name| annotations.contains_key(*name))
}

/// The TLS that a route has begun, if it does; an error says why it cannot be.
pub(super) fn of(route: &Object<Route>) -> Result<Option<TlsOrigin>, String> {
    let text = |name: &str| route.annotations.get(name).map(|text| text.trim());
    if !asks(&route.annotations) {
        return Ok(None);
    }
    let Some(port) = text(BEGIN) else {
        return Err(format!(
            "an annotation says how TLS is begun, and `{BEGIN}`, which says to which port, does not stand"
        ));
    };
    if matches!(route.kind, "TLSRoute" | "TCPRoute") {
        return Err(format!(
            "`{BEGIN}`: TLS is begun for requests in plaintext, and a {} takes none: what it lets out passes through as it is",
            route.kind
        ));
    }
    let number = port.parse().ok().filter(|port| *port > 0);
    let port = number.ok_or_else(|| format!("`{BEGIN}: {port}` is not a port"))?;
    let min_version = match text(MIN_VERSION) {
        None | Some("1.3") => TlsVersion::V1_3,
        Some("1.2") => TlsVersion::V1_2,
        Some(other) => {
            return Err(format!("`{MIN_VERSION}: {other}` is neither 1.2 nor 1.3"));
        }
    };
    let roots = match text(ROOTS) {
        None => {
            return Err(format!(
                "`{ROOTS}` does not stand: `system`, or certificates in PEM, say who may vouch for the server"
            ));
        }
        Some("system") => TlsRoots::System,
        Some(pem) => match OutsideRoots::chosen(pem.as_bytes()) {
            Ok(_) => TlsRoots::Pem(pem.into()),
            Err(why) => return Err(format!("`{ROOTS}` is not `system`, and no roots: {why}")),
        },
    };
    Ok(Some(TlsOrigin {
        port,
        roots,
        min_version,
    }))
}

/// What is wrong with it.
pub(super) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    for network in &index.resources.egress_networks {
        if asks(&network.annotations) {
            let message = format!(
                "{}: TLS is begun by a route; annotations of the network do nothing",
                network.title()
            );
            Index::note(findings, Code::BadOrigin, network, message);
        }
    }
    for route in index
        .resources
        .routes
        .iter()
        .filter(|route| asks(&route.annotations))
    {
        if route.spec.egress.is_empty() {
            let message = format!(
                "{}: TLS is begun for what leaves by an EgressNetwork, and the route is attached to none",
                route.title()
            );
            Index::note(findings, Code::BadOrigin, route, message);
        } else if let Err(why) = of(route) {
            let message = format!("{}: {why}; what it takes is denied", route.title());
            Index::note(findings, Code::BadOrigin, route, message);
        }
    }
}
