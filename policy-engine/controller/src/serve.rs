//! Connections of proxies: TCP, then a handshake that proves who they are, then gRPC.

use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, KEEPALIVE, STREAMS_PER_CONNECTION_MAX,
};
use crate::policy_service::WatchPolicy;
use crate::state::Shared;
use mesh_api::proto::policy_server::PolicyServer;
use mesh_trust::tls::{refusal_in_io, verified_peer};
use mesh_trust::{SpiffeId, VerifiedPeer};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Serves proxies on `listener` until `shutdown`.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (ready, connections) = mpsc::channel(HANDSHAKES_MAX);
    // Ends with this function, however that ends: the address must be free again.
    let mut accepting = tokio::task::JoinSet::new();
    accepting.spawn(accept(Arc::clone(&shared), listener, ready));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(PolicyServer::new(WatchPolicy::new(shared)))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), shutdown)
        .await
}

async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut identity = shared.identity.subscribe();
    // Nobody can be answered before we can prove who we are.
    if identity.wait_for(Option::is_some).await.is_err() {
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
                // Out of file descriptors, most likely: do not spin.
                tracing::warn!(%error, "cannot accept a proxy");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(server) = identity
            .borrow()
            .as_ref()
            .map(|identity| Arc::clone(&identity.server))
        else {
            continue;
        };
        let ready = ready.clone();
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(TlsAcceptor::from(server), stream, from, place).await
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
    place: OwnedSemaphorePermit,
) -> Option<PeerStream> {
    // Small messages that someone waits for.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
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
    match verified_peer(stream.get_ref().1) {
        Ok(peer) => Some(PeerStream {
            stream,
            peer,
            from,
            _place: place,
        }),
        Err(error) => {
            tracing::error!(%from, %error, "refused a connection");
            None
        }
    }
}

/// A connection whose peer is proved.
pub(crate) struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: VerifiedPeer,
    from: SocketAddr,
    /// Counts the connection for as long as it lives.
    _place: OwnedSemaphorePermit,
}

/// Who asks, as the service sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) peer: VerifiedPeer,
    pub(crate) from: SocketAddr,
}

impl Asker {
    pub(crate) fn id(&self) -> &SpiffeId {
        self.peer.id()
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Asker;

    fn connect_info(&self) -> Asker {
        Asker {
            peer: self.peer.clone(),
            from: self.from,
        }
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
