//! The brokers' socket: mutual TLS on a Unix socket, so that both are known, the process at the other end and its SVID.
//!
//! Each handshake is under the anchors and the deny list of that moment. A connection ends with the SVID that was shown on it.

use super::Broker;
use crate::agent::Agent;
use crate::limits::{
    BROKER_CONNECTIONS_MAX, CONNECTIONS_PER_PROCESS_MAX, NETWORK_HANDSHAKE_TIMEOUT,
};
use crate::listen::{self, Counted, Counts, Peer};
use mesh_platform::process::peer_of;
use mesh_trust::tls::{TlsIdentity, refusal_in_io, server_config, verified_peer};
use mesh_trust::{Svid, TrustBundle, TrustBundles};
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before it is looked again whether we have an SVID.
const IDENTITY_PAUSE: Duration = Duration::from_millis(20);
/// Connections whose handshake is done and that nobody serves yet.
const READY_MAX: usize = 8;

/// Says who we are now; none: nobody yet.
pub(crate) type Identity = Arc<dyn Fn() -> Option<TlsIdentity> + Send + Sync>;

/// What handshakes are made with.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) agent: Agent,
    pub(super) identity: Identity,
}

/// Who is at the other end, as the service finds it among a request's extensions.
#[derive(Clone)]
pub(super) struct Shown(pub(super) Broker);

/// A connection after its handshake. It ends with the SVID that was shown.
type Connection = listen::Connection<TlsStream<UnixStream>, Shown>;

/// The connections of `listener`. Ends when nobody takes them any more.
pub(super) fn connections(
    listener: UnixListener,
    door: Door,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY_MAX);
    tokio::spawn(accept(listener, door, ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: UnixListener, door: Door, ready: mpsc::Sender<io::Result<Connection>>) {
    let counts = Counts::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a broker");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = match peer_of(&stream) {
            Ok(peer) => Peer(Arc::new(peer)),
            Err(error) => {
                tracing::warn!(%error, "closed a connection to the brokers' socket");
                continue;
            }
        };
        let pid = peer.0.pid;
        let Some(counted) = counts.take(pid, CONNECTIONS_PER_PROCESS_MAX, BROKER_CONNECTIONS_MAX)
        else {
            tracing::warn!(
                pid,
                "closed a connection to the brokers' socket: the process has too many, or all have"
            );
            continue;
        };
        let (door, ready) = (door.clone(), ready.clone());
        tokio::spawn(async move {
            let shaken = door.shake_hands(stream, peer, counted);
            match tokio::time::timeout(NETWORK_HANDSHAKE_TIMEOUT, shaken).await {
                // An error means that the server has ended.
                Ok(Ok(connection)) => {
                    let _ = ready.send(Ok(connection)).await;
                }
                Ok(Err(why)) => tracing::warn!(pid, why, "refused a connection of a broker"),
                Err(_elapsed) => tracing::warn!(pid, "a broker's handshake took too long"),
            }
        });
    }
}

impl Door {
    /// Under what is trusted now, of our own domain alone.
    fn settings(&self) -> Result<Arc<ServerConfig>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let own = (self.identity)().ok_or("we have no SVID of our own yet")?;
        let domain = own.svid().id().trust_domain();
        let anchors = self.agent.anchors.borrow().get(domain).cloned();
        let bundle = TrustBundle::new(domain.clone(), anchors.unwrap_or_default());
        let bundles = TrustBundles::from(bundle.map_err(|error| text(&error))?)
            .with_denials(self.agent.denials.borrow().clone());
        server_config(&own, Arc::new(bundles), &[b"h2"]).map_err(|error| text(&error))
    }

    async fn shake_hands(
        &self,
        stream: UnixStream,
        process: Peer,
        counted: Counted,
    ) -> Result<Connection, String> {
        // The first moments: ours is still being issued. Who waits too long for it is sent away like any other.
        while (self.identity)().is_none() {
            tokio::time::sleep(IDENTITY_PAUSE).await;
        }
        let acceptor = TlsAcceptor::from(self.settings()?);
        let stream = acceptor.accept(stream).await.map_err(|error| {
            refusal_in_io(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        let (_, session) = stream.get_ref();
        verified_peer(session).map_err(|error| error.to_string())?;
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        let svid = Arc::new(Svid::parse(chain).map_err(|error| error.to_string())?);
        let now = self.agent.platform.wall_clock();
        let left = Duration::from_secs(svid.remaining_secs(now));
        let shown = Shown(Broker { process, svid });
        Ok(Connection::new(stream, shown, Some(left), counted))
    }
}
