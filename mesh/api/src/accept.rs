//! The server's side of gRPC over TLS: from a listener to connections whose peer is known, bounded in number.

use mesh_trust::VerifiedPeer;
use mesh_trust::tls::{TlsError, refusal_in_io, verified_peer};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// Longest handshake.
    pub handshake_timeout: Duration,
}

/// A connection after its handshake.
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    /// Counts the connection for as long as it lives.
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end, as services find it among a request's extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who proved to be there; `None` if the settings allow strangers and this is one.
    pub peer: Option<VerifiedPeer>,
    /// Where it calls from.
    pub from: SocketAddr,
}

impl PeerStream {
    /// Who is at the other end.
    pub fn peer(&self) -> Option<&VerifiedPeer> {
        self.caller.peer.as_ref()
    }
}

/// The connections of `listener`, each under the settings in force when it came. While there are none nobody is
/// accepted. The work is done by a task of `tasks`; it ends with them.
pub fn connections(
    listener: TcpListener,
    settings: watch::Receiver<Option<Arc<ServerConfig>>>,
    limits: Limits,
    tasks: &mut JoinSet<()>,
) -> ReceiverStream<io::Result<PeerStream>> {
    let (ready, connections) = mpsc::channel(limits.handshakes.max(1));
    tasks.spawn(accept(listener, settings, limits, ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    mut settings: watch::Receiver<Option<Arc<ServerConfig>>>,
    limits: Limits,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let connections = Arc::new(Semaphore::new(limits.connections));
    if settings.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let (Ok(handshake), Ok(place)) = (
            Arc::clone(&handshakes).acquire_owned().await,
            Arc::clone(&connections).acquire_owned().await,
        ) else {
            return;
        };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(server) = settings.borrow().clone() else {
            continue;
        };
        let ready = ready.clone();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(server);
            if let Some(stream) =
                shake_hands(acceptor, stream, from, limits.handshake_timeout, place).await
            {
                // An error means that the server has ended.
                let _ = ready.send(Ok(stream)).await;
            }
            drop(handshake);
        });
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    limit: Duration,
    place: OwnedSemaphorePermit,
) -> Option<PeerStream> {
    // Small messages that someone waits for.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let why = refusal_in_io(&error).map_or_else(|| error.to_string(), ToString::to_string);
            tracing::warn!(%from, why, "refused a connection");
            return None;
        }
        Err(_elapsed) => {
            tracing::warn!(%from, "a handshake took too long");
            return None;
        }
    };
    let peer = match verified_peer(stream.get_ref().1) {
        Ok(peer) => Some(peer),
        // Whether that is enough was for the settings to say.
        Err(TlsError::NoPeer) => None,
        Err(error) => {
            tracing::error!(%from, %error, "refused a connection");
            return None;
        }
    };
    Some(PeerStream {
        stream,
        caller: Caller { peer, from },
        _place: place,
    })
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
