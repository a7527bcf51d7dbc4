//! The client's side of gRPC over TLS.

use hyper_util::rt::TokioIo;
use mesh_trust::tls::{refusal_in_io, server_name};
use rustls::ClientConfig;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Silence after which the server is asked whether it lives, and time for its answer (fault F10).
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// Bytes of one answer, and of all, that may be under way to us: what we do not read waits at the server, which keeps as much
/// ready for each connection. At a round trip of 1 ms an answer still comes with 64 MiB/s.
pub const WINDOW_BYTES: (u32, u32) = (64 << 10, 256 << 10);

/// Connects to `address`, `host:port`. A name is looked up now, and all of its addresses are tried.
///
/// # Errors
/// Why not, in one sentence: the name, the connection, or the peer that answered.
pub async fn connect(address: &str, settings: Arc<ClientConfig>) -> Result<Channel, String> {
    let target = address.to_owned();
    let connector = tower::service_fn(move |_| {
        let (settings, target) = (settings.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(settings)
                .connect(server_name(), stream)
                .await
                .map_err(|error| {
                    refusal_in_io(&error)
                        .map(ToString::to_string)
                        .map_or(error, io::Error::other)
                })?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The scheme is for the library: encryption is the connector's.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(KEEPALIVE)
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| root_cause(&error))
}

/// The innermost error: the outer ones only say where it was met.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
