//! What a controller is told. Text forms are the command's: it fills this in.

use mesh_ca_client::RemoteCa;
use mesh_policy_index::IndexConfig;
use mesh_trust::TrustDomain;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Port of a proxy's mesh listener (TLS from other proxies).
pub const PROXY_PORT: u16 = 15_008;

/// Settings of one controller.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Where the objects are that policy is made of.
    pub sources: PolicySources,
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
    /// Where `/live`, `/ready` and `/metrics` are served to everybody, plain HTTP; none: nowhere.
    pub probes: Option<SocketAddr>,
    /// Default policy, trust domain, networks.
    pub index: IndexConfig,
    /// Port of every proxy's mesh listener, [`PROXY_PORT`] unless the installation chose another.
    pub proxy_port: u16,
}

/// Where the objects are that policy is made of.
#[derive(Clone, Debug)]
pub enum PolicySources {
    /// Directories (with all below) and single files that hold manifests: `*.yaml`, `*.yml`, `*.json`.
    Manifests(Vec<PathBuf>),
    /// A Kubernetes API server: that of the pod we run in, unless a kubeconfig or a context of one is named.
    Cluster {
        /// Its kubeconfig.
        kubeconfig: Option<PathBuf>,
        /// Which context of it.
        context: Option<String>,
    },
}

impl PolicySources {
    /// What they are called in a status.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Manifests(roots) => roots
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            Self::Cluster { .. } => vec!["the Kubernetes API".to_owned()],
        }
    }
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
    /// A CA on another machine, asked with evidence of who we are.
    Ca(RemoteCa),
}

impl ControllerConfig {
    /// The mesh's trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.index.trust_domain
    }
}
