//! Connections from other proxies: handshake, header, then a byte stream or requests.

use super::{http, record_refused, tcp};
use crate::core::{Core, Port};
use crate::io::ReadAhead;
use crate::live::{Alive, Kill, Peer};
use crate::serve::{Speaks, serve};
use crate::tap;
use mesh_policy::request::{Client, canonical_ip};
use mesh_proxy_core::http_hygiene::Entry;
use mesh_proxy_core::mesh_header::{self, Header, Kind};
use mesh_proxy_core::redirect::{self, Misdirected};
use mesh_trust::tls::{self, refusal_in_io};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handles one connection from accept to end.
pub(crate) async fn take(core: Rc<Core>, stream: TcpStream, from: SocketAddr) {
    let accepted = Instant::now();
    let at = stream.local_addr();
    let (mut stream, version) = match handshake(
        &core,
        stream,
        accepted + core.shared.config.limits.handshake,
    )
    .await
    {
        Ok(made) => made,
        Err(refused) => {
            core.meter.handshake_failed(refused.kind);
            tracing::info!(%from, why = refused.why, "refused a mesh connection");
            return record_refused(&core, from, core.shared.config.mesh.port());
        }
    };
    let Ok((client, chain)) = client_of(&stream, from) else {
        core.meter.handshake_failed("no-peer");
        return record_refused(&core, from, core.shared.config.mesh.port());
    };
    let header = match timeout_at(
        accepted + core.shared.config.limits.detect,
        read_header(&mut stream),
    )
    .await
    {
        Ok(Ok(header)) => header,
        Ok(Err(error)) => return tracing::info!(%from, %error, "a mesh connection began wrongly"),
        Err(_) => return tracing::info!(%from, "a mesh connection said nothing in time"),
    };
    let kill = Kill::default();
    if header.port == core.shared.config.admin.port()
        && let Some(remote) = tap::Remote::of(&core.shared, client.id.as_ref(), &kill)
        && let Some(speaks) = speaks(&core, header.kind, version)
    {
        let peer = Peer::new(client, chain, header.port);
        // What ends connections of peers that are no longer trusted ends this too.
        let _entry = core.live.enter(peer, Alive::Connection, kill.clone());
        return serve(stream, speaks, &core, &kill, remote).await;
    }
    let port = match port_of(&core, at.ok(), header.port) {
        Ok(port) => port,
        Err(why) => {
            core.meter.handshake_failed(why);
            record_refused(&core, from, header.port);
            return tracing::info!(%from, port = header.port, why, "refused a mesh connection to no port of the workload");
        }
    };
    let peer = Peer::new(client, chain, header.port);
    carry(core, port, peer, (header.kind, kill), (stream, version)).await;
}

/// The port that a header names. It is one that is configured; or, where connections are redirected, any port of the
/// workload, at the address where the peer reached us: what a header says never leads to another machine (GW11).
fn port_of(core: &Core, at: Option<SocketAddr>, port: u16) -> Result<Rc<Port>, &'static str> {
    if let Some(port) = core.port(port) {
        return Ok(port);
    }
    let at = at.filter(|_| core.shared.config.transparent.is_some());
    let to = redirect::canonical(SocketAddr::new(at.ok_or("unknown-port")?.ip(), port));
    redirect::workload_port(to, &core.own_ports).map_err(Misdirected::as_str)?;
    Ok(core.port_at(to))
}

/// Which HTTP comes on a connection of this kind; `None`: bytes.
fn speaks(core: &Core, kind: Kind, version: u64) -> Option<Speaks> {
    match kind {
        Kind::Tcp => None,
        Kind::Requests => Some(Speaks::Mux { version }),
        Kind::Http1 => Some(Speaks::Http1 {
            quiet: core.shared.config.limits.header,
        }),
    }
}

async fn carry(
    core: Rc<Core>,
    port: Rc<Port>,
    peer: Rc<Peer>,
    (kind, kill): (Kind, Kill),
    (stream, version): (TlsStream<ReadAhead<TcpStream>>, u64),
) {
    let Some(speaks) = speaks(&core, kind, version) else {
        return tcp::take(&core, &port, &peer, stream, tcp::First::Data).await;
    };
    let _entry = core
        .live
        .enter(peer.clone(), Alive::Connection, kill.clone());
    let arrival = http::Arrival::new(core.clone(), port, peer, Entry::Mesh);
    serve(stream, speaks, &core, &kill, arrival).await;
}

/// Why a handshake came to nothing: a word for the metric, and a sentence for the log.
struct Refused {
    kind: &'static str,
    why: String,
}

/// The connection, and the version of our identity that it was shown.
async fn handshake(
    core: &Core,
    stream: TcpStream,
    deadline: Instant,
) -> Result<(TlsStream<ReadAhead<TcpStream>>, u64), Refused> {
    let identity = core.shared.identity.load_full();
    let identity = identity.filter(|identity| !identity.expired(core.shared.platform.wall_clock()));
    let identity = identity.ok_or_else(|| Refused {
        kind: "no-identity",
        why: "this proxy has no valid identity".to_owned(),
    })?;
    let late = |_| Refused {
        kind: "timeout",
        why: "the handshake took too long".to_owned(),
    };
    // A closed semaphore cannot be: nobody closes it. If it were, handshakes would not be bounded, which is safe.
    let turn = timeout_at(deadline, core.handshakes.acquire())
        .await
        .map_err(late)?;
    let accepted = timeout_at(
        deadline,
        TlsAcceptor::from(identity.server.clone()).accept(ReadAhead::new(stream)),
    )
    .await
    .map_err(late)?;
    drop(turn);
    let stream = accepted.map_err(|error| match refusal_in_io(&error) {
        Some(refusal) => {
            core.shared.count_refusal(refusal);
            Refused {
                kind: "peer",
                why: refusal.to_string(),
            }
        }
        None => Refused {
            kind: "tls",
            why: error.to_string(),
        },
    })?;
    // rustls lets a client pass that offers no protocol at all.
    if stream.get_ref().1.alpn_protocol() != Some(mesh_header::ALPN) {
        return Err(Refused {
            kind: "protocol",
            why: "the client did not ask for the mesh protocol".to_owned(),
        });
    }
    Ok((stream, identity.version))
}

fn client_of(
    stream: &TlsStream<ReadAhead<TcpStream>>,
    from: SocketAddr,
) -> Result<(Client, Vec<CertificateDer<'static>>), tls::TlsError> {
    let connection = stream.get_ref().1;
    let peer = tls::verified_peer(connection)?;
    let client = Client {
        id: Some(peer.id().clone()),
        ip: canonical_ip(from.ip()),
        tls: true,
        serial: Some(peer.serial().to_owned()),
        expires: Some(peer.not_after()),
    };
    let chain = connection.peer_certificates().unwrap_or_default();
    Ok((
        client,
        chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
    ))
}

async fn read_header(stream: &mut TlsStream<ReadAhead<TcpStream>>) -> io::Result<Header> {
    let mut bytes = [0; mesh_header::LEN];
    stream.read_exact(&mut bytes).await?;
    mesh_header::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
