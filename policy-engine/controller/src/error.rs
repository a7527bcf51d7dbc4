//! Why a controller does not start, or ends.

use mesh_platform::PlatformError;
use mesh_platform::audit_log::AuditLogError;
use std::net::SocketAddr;

/// A controller that cannot work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ControllerError {
    /// The cluster cannot be watched.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kubernetes(#[from] mesh_kubernetes::KubernetesError),
    /// The operating system refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// Its audit log cannot be opened.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Audit(#[from] AuditLogError),
    /// The address for proxies is not to be had.
    #[error("cannot listen for proxies on `{listen}`")]
    #[diagnostic(
        code("MESH-0701"),
        help("another process has this address (`ss -ltnp`), or it is not of this machine")
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Told of no manifests at all.
    #[error("no manifest path was given")]
    #[diagnostic(
        code("MESH-0702"),
        help("name at least one directory or file; an empty directory is fine")
    )]
    NoSources,
    /// The server ended by itself.
    #[error("the policy server ended")]
    #[diagnostic(
        code("MESH-0703"),
        help("this is a fault of ours; the supervisor starts the controller again")
    )]
    Server(#[from] tonic::transport::Error),
}
