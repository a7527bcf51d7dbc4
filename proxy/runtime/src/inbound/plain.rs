//! Connections from outside the mesh, in plaintext: the client has an address and no identity.

use super::{http, record_refused, tcp};
use crate::core::{Core, Port};
use crate::detection::detect;
use crate::io::Prefixed;
use crate::limits::H2_STREAMS_MAX;
use crate::live::{Alive, Kill, Peer};
use crate::serve::{Speaks, serve};
use mesh_policy::request::{Client, canonical_ip};
use mesh_policy::snapshot::ServerProtocol;
use mesh_proxy_core::detect::{DetectPolicy, Detection, OpaqueReason};
use mesh_proxy_core::http_hygiene::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Handles one connection from accept to end.
pub(crate) async fn take(core: Rc<Core>, port: Rc<Port>, mut stream: TcpStream, from: SocketAddr) {
    let accepted = Instant::now();
    let client = Client {
        id: None,
        ip: canonical_ip(from.ip()),
        tls: false,
        serial: None,
        expires: None,
    };
    let peer = Peer::new(client, Vec::new(), port.port);
    if is_opaque(&core, port.port) {
        return tcp::take(&core, &port, &peer, stream, tcp::First::Data).await;
    }
    let detected = match detect(
        &mut stream,
        DetectPolicy::default(),
        accepted + core.shared.config.limits.detect,
    )
    .await
    {
        Ok(detected) => detected,
        Err(error) => {
            return tracing::debug!(%from, %error, "a connection broke before it said anything");
        }
    };
    // What policy says is asked from here on, not before: it may have changed while the client was silent (threat PD19).
    let stream = Prefixed::new(detected.prefix, stream);
    let speaks = match detected.speaks {
        Detection::Http1 => Speaks::Http1 {
            quiet: core.shared.config.limits.header,
        },
        Detection::Http2 => Speaks::Http2 {
            streams_max: H2_STREAMS_MAX,
        },
        Detection::Opaque(OpaqueReason::Empty) => {
            return tcp::take(&core, &port, &peer, stream, tcp::First::End).await;
        }
        Detection::Opaque(_) | Detection::Tls { .. } | Detection::NeedMore => {
            return tcp::take(&core, &port, &peer, stream, tcp::First::Data).await;
        }
        Detection::Malformed(how) if how.is_request() => {
            // Refused by the guard of the connection, with an answer.
            core.meter.malformed(how.as_str());
            Speaks::Http1 {
                quiet: core.shared.config.limits.header,
            }
        }
        Detection::Malformed(how) => {
            core.meter.malformed(how.as_str());
            record_refused(&core, from, port.port);
            return tracing::info!(%from, port = port.port, how = how.as_str(), "closed a connection that is nearly HTTP");
        }
    };
    let kill = Kill::default();
    let _entry = core
        .live
        .enter(peer.clone(), Alive::Connection, kill.clone());
    let arrival = http::Arrival::new(core.clone(), port, peer, Entry::Plain);
    serve(stream, speaks, &core, &kill, arrival).await;
}

fn is_opaque(core: &Core, port: u16) -> bool {
    let policy = core.shared.policy.load();
    let protocol = policy
        .as_ref()
        .map(|policy| policy.port(port).server.protocol);
    matches!(protocol, Some(ServerProtocol::Opaque | ServerProtocol::Tls))
}
