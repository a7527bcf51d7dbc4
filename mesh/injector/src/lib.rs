//! Admission webhooks: adds proxies to new pods, checks policies before they are stored. What is decided is decided in
//! `mesh-cluster`; this is its socket, its certificates and its questions to the API server.
//!
//! - [`config`]: what an injector is told
//! - [`server`]: TLS, one request, one answer
//! - [`authority`]: the certificate that it serves with, made by itself and renewed
//! - [`anchors`]: the authorities in a webhook's `caBundle`: its own, and those of its siblings
//! - [`webhooks`]: keeps its authority in the two webhook configurations
//! - [`admin`]: `/metrics`, `/ready`, `/live`
//! - [`limits`]: every bound

mod admin;
mod anchors;
mod authority;
pub mod config;
mod error;
mod limits;
mod server;
mod state;
mod webhooks;

pub use config::InjectorConfig;
pub use error::InjectorError;

use authority::Authority;
use mesh_platform::Platform;
use state::Shared;
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves until `shutdown` is ready.
///
/// # Errors
/// [`InjectorError`] if an address is not to be had, no certificate can be made, or there is no way to an API server.
pub async fn run(
    config: InjectorConfig,
    platform: Arc<dyn Platform>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), InjectorError> {
    let client = mesh_kubernetes::connect(None, None).await?;
    let first = Authority::new(&*platform)?;
    let shared = Arc::new(Shared::new(config, client, platform, first));
    let serving = Arc::clone(&shared.serving);
    let tls = authority::tls(serving)?;
    let webhooks = bind(shared.config.listen).await?;
    let admin = bind(shared.config.admin).await?;
    tracing::info!(listen = %shared.config.listen, "serving webhooks");
    tokio::select! {
        () = server::serve(webhooks, tls, Arc::clone(&shared)) => {}
        () = admin::serve(admin, Arc::clone(&shared)) => {}
        () = webhooks::keep(Arc::clone(&shared)) => {}
        () = shutdown => {}
    }
    Ok(())
}

async fn bind(listen: std::net::SocketAddr) -> Result<TcpListener, InjectorError> {
    TcpListener::bind(listen)
        .await
        .map_err(|source| InjectorError::Listen { listen, source })
}
