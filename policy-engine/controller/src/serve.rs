//! Connections of proxies: a handshake that proves who they are, then gRPC.

use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, KEEPALIVE, STREAMS_PER_CONNECTION_MAX,
};
use crate::policy_service::WatchPolicy;
use crate::state::Shared;
use futures_util::StreamExt;
use mesh_api::accept::{self, Limits};
use mesh_api::proto::policy_server::PolicyServer;
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

/// How many proxies at a time.
const LIMITS: Limits = Limits {
    connections: CONNECTIONS_MAX,
    handshakes: HANDSHAKES_MAX,
    handshake_timeout: HANDSHAKE_TIMEOUT,
};

/// Serves proxies on `listener` until `shutdown`. Nobody is answered before we can prove who we are.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (settings, following) = watch::channel(None);
    let mut identity = shared.identity.subscribe();
    // Ends with this function, however that ends: the address must be free again.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            let server = identity
                .borrow_and_update()
                .as_ref()
                .map(|identity| Arc::clone(&identity.server));
            settings.send_replace(server);
            if identity.changed().await.is_err() {
                return;
            }
        }
    });
    let connections = accept::connections(listener, following, LIMITS, &mut tasks);
    // The handshake demands a certificate; should a connection come through without, it is nobody's.
    let proved = connections.filter(|connection| {
        let known = connection
            .as_ref()
            .is_ok_and(|stream| stream.peer().is_some());
        std::future::ready(known)
    });
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(PolicyServer::new(WatchPolicy::new(shared)))
        .serve_with_incoming_shutdown(proved, shutdown)
        .await
}
