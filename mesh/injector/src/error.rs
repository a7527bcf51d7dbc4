//! Why an injector does not start, or cannot answer.

use mesh_kubernetes::KubernetesError;
use std::net::SocketAddr;

/// An injector that cannot work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum InjectorError {
    /// An address is not to be had.
    #[error("cannot listen on `{listen}`")]
    #[diagnostic(
        code("MESH-0750"),
        help("another process has this address (`ss -ltnp`), or it is not of this machine")
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No way to the API server.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// No certificate.
    #[error("cannot make a certificate for the webhooks: {why}")]
    #[diagnostic(
        code("MESH-0751"),
        help("this is a fault of ours; the kubelet starts the injector again")
    )]
    Certificate {
        /// What the library says.
        why: String,
    },
    /// Nobody knows whether the namespace asks for proxies.
    #[error("cannot read the namespace `{namespace}`: {why}")]
    #[diagnostic(
        code("MESH-0752"),
        help(
            "without it nobody knows whether the pod needs a proxy; look at the API server and at the rights of mesh-injector: `kubectl auth can-i get namespaces --as system:serviceaccount:mesh-system:mesh-injector`"
        )
    )]
    Namespace {
        /// Its name.
        namespace: String,
        /// What the API server says.
        why: String,
    },
    /// The webhook configurations cannot be kept.
    #[error("cannot keep the authority in `{object}`: {why}")]
    #[diagnostic(
        code("MESH-0753"),
        help(
            "API servers cannot verify this injector until it is there; was the object removed? `mesh install | kubectl apply -f -` makes it anew"
        )
    )]
    Webhooks {
        /// Kind and name.
        object: String,
        /// What the API server says.
        why: String,
    },
}
