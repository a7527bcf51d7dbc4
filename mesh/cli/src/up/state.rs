//! Where a mesh on one machine keeps its state, and the file that says what runs.

use super::UpError;
use mesh_platform::files;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket that Linux takes, without the final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The folders and files under a state directory; see ARCHITECTURE.md.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Makes the directory (0700) with its folders, if they are missing.
    ///
    /// # Errors
    /// [`UpError::StateDir`] if it cannot be made or written; [`UpError::SocketPath`] if sockets in it would be too long.
    pub(crate) fn create(root: &Path) -> Result<Self, UpError> {
        let broken = |why: String| UpError::StateDir {
            path: root.display().to_string(),
            why,
        };
        let root = std::path::absolute(root).map_err(|error| broken(error.to_string()))?;
        let state = Self { root };
        for folder in [
            "",
            "run",
            "run/proxy",
            "ca",
            "controller",
            "manifests",
            "config",
            "audit",
            "log",
        ] {
            files::create_dir_private(&state.root.join(folder))
                .map_err(|error| broken(error.to_string()))?;
        }
        let longest = state.proxy_socket("namespace-of-some-length", "workload-of-some-length");
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(UpError::SocketPath {
                path: state.root.display().to_string(),
            });
        }
        Ok(state)
    }

    /// The state directory itself, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Held locked while a mesh runs here.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("mesh.lock")
    }

    /// What runs: [`Running`] as JSON.
    pub(crate) fn running_file(&self) -> PathBuf {
        self.root.join("run/mesh.json")
    }

    /// The same of the mesh that ended here last.
    pub(crate) fn ended_file(&self) -> PathBuf {
        self.root.join(crate::live::ENDED_FILE)
    }

    /// SPIFFE Workload API.
    pub(crate) fn workload_api(&self) -> PathBuf {
        self.root.join("run/workload-api.sock")
    }

    /// Launch records, for the supervisor only.
    pub(crate) fn ca_control(&self) -> PathBuf {
        self.root.join("run/ca-control.sock")
    }

    /// Where trust is steered.
    pub(crate) fn trust_socket(&self) -> PathBuf {
        self.root.join("run/trust.sock")
    }

    /// Admin socket of the CA: the deny list.
    pub(crate) fn ca_admin(&self) -> PathBuf {
        self.root.join("run/ca-admin.sock")
    }

    /// Admin socket of the controller.
    pub(crate) fn controller_socket(&self) -> PathBuf {
        self.root.join("run/controller.sock")
    }

    /// Admin socket of a workload's proxy.
    pub(crate) fn proxy_socket(&self, namespace: &str, name: &str) -> PathBuf {
        self.root
            .join("run/proxy")
            .join(format!("{namespace}.{name}.sock"))
    }

    /// Configuration of a workload's proxy.
    pub(crate) fn proxy_config(&self, namespace: &str, name: &str) -> PathBuf {
        self.root
            .join("config")
            .join(format!("{namespace}.{name}.yaml"))
    }

    /// Folder of all logs but the CA's.
    pub(crate) fn audit_dir(&self) -> PathBuf {
        self.root.join("audit")
    }

    /// The decision log of a workload's proxy.
    pub(crate) fn audit_log(&self, namespace: &str, name: &str) -> PathBuf {
        self.audit_dir().join(format!("{namespace}.{name}.jsonl"))
    }

    /// Pods and Services made from the workloads of `mesh.yaml`.
    pub(crate) fn generated_manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// What a child wrote on stderr.
    pub(crate) fn log_file(&self, child: &str) -> PathBuf {
        self.root
            .join("log")
            .join(format!("{}.log", child.replace('/', ".")))
    }
}

/// Content of `run/mesh.json`: what runs, for the commands that look at a running mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    /// The supervisor's pid.
    pub(crate) pid: u32,
    /// Field 22 of its `/proc/PID/stat`, so that a later process of that pid is not taken for it.
    pub(crate) start_time_ticks: u64,
    /// RFC 3339.
    pub(crate) started_at: String,
    /// State directory, absolute.
    pub(crate) state_dir: PathBuf,
    /// Trust domain.
    pub(crate) trust_domain: String,
    /// Directories and files that hold the policy.
    pub(crate) manifests: Vec<PathBuf>,
    /// Default policy in force.
    pub(crate) default_policy: String,
    /// The CA.
    pub(crate) ca: RunningCa,
    /// The controller.
    pub(crate) controller: RunningController,
    /// All workloads.
    pub(crate) workloads: Vec<RunningWorkload>,
}

/// The CA in [`Running`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningCa {
    /// 0 while it is down.
    pub(crate) pid: u32,
    /// Folder of keys and log.
    pub(crate) dir: PathBuf,
    /// SPIFFE Workload API.
    pub(crate) workload_api: PathBuf,
    /// Where trust is steered; absent in a mesh of an older version.
    #[serde(default)]
    pub(crate) trust_socket: Option<PathBuf>,
}

/// The controller in [`Running`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningController {
    /// 0 while it is down.
    pub(crate) pid: u32,
    /// Where proxies reach it.
    pub(crate) address: SocketAddr,
    /// Its admin socket.
    pub(crate) socket: PathBuf,
}

/// One workload in [`Running`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningWorkload {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// Service account.
    pub(crate) service_account: String,
    /// Its pod address.
    pub(crate) pod_ip: std::net::IpAddr,
    /// The application; 0 while it is down.
    pub(crate) app_pid: u32,
    /// Its proxy; none for a workload outside the mesh.
    pub(crate) proxy: Option<RunningProxy>,
}

/// A proxy in [`Running`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunningProxy {
    /// 0 while it is down.
    pub(crate) pid: u32,
    /// mTLS from other proxies.
    pub(crate) mesh: SocketAddr,
    /// `/metrics`, `/ready`, `/live`.
    pub(crate) admin: SocketAddr,
    /// Admin socket with all of it.
    pub(crate) socket: PathBuf,
    /// Its audit log.
    pub(crate) audit_log: PathBuf,
    /// Upstreams: service (`ns/name:port`) and where the application reaches it.
    pub(crate) upstreams: Vec<(String, SocketAddr)>,
}
