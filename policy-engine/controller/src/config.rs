//! What a controller is told. Text forms are the command's: it fills this in.

use mesh_policy_index::IndexConfig;
use mesh_trust::TrustDomain;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Port of a proxy's mesh listener (TLS from other proxies).
pub const PROXY_PORT: u16 = 15_008;

/// Settings of one controller.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Directories (with all below) and single files that hold the manifests: `*.yaml`, `*.yml`, `*.json`.
    pub manifests: Vec<PathBuf>,
    /// Where proxies reach it, mTLS.
    pub listen: SocketAddr,
    /// Where its own SVID comes from.
    pub identity: IdentitySource,
    /// Its own files: `generation`. Made with mode 0700.
    pub state_dir: PathBuf,
    /// Directory of its audit log, `controller.jsonl` and companions.
    pub audit_dir: PathBuf,
    /// Unix socket that answers what `mesh_api::admin` lists, mode 0600.
    pub admin_socket: PathBuf,
    /// Default policy, trust domain, networks.
    pub index: IndexConfig,
    /// Port of every proxy's mesh listener, [`PROXY_PORT`] unless the installation chose another.
    pub proxy_port: u16,
}

/// Where the controller's own SVID comes from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// The Unix socket of a SPIFFE Workload API.
    WorkloadApi(PathBuf),
    /// PEM files, read again when they change: certificate chain (leaf first), private key (PKCS#8), anchors of our
    /// trust domain.
    Files {
        /// Leaf first.
        chain: PathBuf,
        /// PKCS#8.
        key: PathBuf,
        /// Anchors.
        bundle: PathBuf,
    },
}

impl ControllerConfig {
    /// The mesh's trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.index.trust_domain
    }
}
