//! What an injector is told. Text forms are the command's: it fills this in.

use mesh_cluster::inject::Settings;
use std::net::SocketAddr;

/// Settings of one injector.
#[derive(Clone, Debug)]
pub struct InjectorConfig {
    /// Where API servers reach it, TLS.
    pub listen: SocketAddr,
    /// `/metrics`, `/ready`, `/live`, plain HTTP.
    pub admin: SocketAddr,
    /// What it adds to pods.
    pub settings: Settings,
    /// Whether it only checks policies: admission policies of the API server add proxies, and there is no webhook for pods.
    pub policies_only: bool,
}
