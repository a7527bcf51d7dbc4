//! `mesh up`: a whole mesh on one machine, without root.
//!
//! - [`plan`]: from `mesh.yaml` to processes, addresses and files; decides, starts nothing
//! - [`children`]: processes started, watched, started again, ended
//! - [`journal`]: what was done to it, for the audit log
//! - [`launches`]: which process is which workload, told to the CA
//! - [`expect`]: the expectations of `mesh.yaml`
//! - [`state`], [`addresses`], [`templates`]: the state directory, loopback blocks, what is taken over from manifests

mod addresses;
mod children;
mod expect;
mod journal;
mod launches;
mod plan;
mod run;
pub(crate) mod state;
mod templates;

use crate::arguments::duration;
use crate::signer::TokenArgs;
use std::path::PathBuf;

pub(crate) use journal::SUPERVISOR;
pub(crate) use run::run;

/// Starts a whole mesh on this machine: CA, controller, and for each workload a proxy and its process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// The mesh to run; without it, the demo shop of examples/shop.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Where keys, logs and sockets are kept.
    #[arg(long, value_name = "DIR", default_value = ".mesh", env = "MESH_STATE")]
    pub(crate) state: PathBuf,
    /// Ends by itself after this long, with exit 0 only if every expectation held.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) for_: Option<std::time::Duration>,
    /// Lifetime of SVIDs.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration_text)]
    pub(crate) svid_ttl: String,
    /// Share of allowed requests that is recorded, 0 to 1; denials always are.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub(crate) audit_sample: f64,
    /// Default policy of ports that no Server selects.
    #[arg(long, value_name = "MODE", default_value = "deny")]
    pub(crate) default_policy: String,
    /// Folder in which others keep the issuer: `tls.crt`, `tls.key`, `ca.crt`, as cert-manager names them. It is read again
    /// as it changes; without it, the CA makes root and issuer itself (docs/guides/cert-manager.md).
    #[arg(long, value_name = "DIR")]
    pub(crate) issuer: Option<PathBuf>,
    /// Roots to trust, PEM; without it, `ca.crt` of that folder.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    pub(crate) roots: Option<PathBuf>,
    /// Trust domain, in place of the file's.
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Option<String>,
    #[command(flatten)]
    pub(crate) token: TokenArgs,
}

/// Why a mesh could not be brought up, or not be kept up.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum UpError {
    /// The state directory.
    #[error("the state directory `{path}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0650"),
        help("choose another with `--state DIR`, or run `chown -R \"$USER\" {path}`")
    )]
    StateDir {
        /// The directory.
        path: String,
        /// What the system says.
        why: String,
    },
    /// Sockets in the state directory would have paths that Linux refuses.
    #[error("the path `{path}` is too long for Unix sockets in it (107 bytes)")]
    #[diagnostic(
        code("MESH-0651"),
        help("choose a shorter one: `mesh up --state \"$(mktemp -d)\"`")
    )]
    SocketPath {
        /// The directory.
        path: String,
    },
    /// A mesh runs here already.
    #[error("a mesh runs in `{path}` already{}", pid.map(|pid| format!(", as process {pid}")).unwrap_or_default())]
    #[diagnostic(code("MESH-0652"), help("look at it with `mesh stat`, end it with `kill {}`, or use another `--state DIR`", pid.map_or("PID".to_owned(), |pid| pid.to_string())))]
    AlreadyRunning {
        /// The state directory.
        path: String,
        /// Who holds it, if that can be told.
        pid: Option<u32>,
    },
    /// No loopback block is free.
    #[error("no block of loopback addresses is free: {why}")]
    #[diagnostic(
        code("MESH-0653"),
        help("end other meshes on this machine; `ss -ltn 'sport = :15000'` lists them")
    )]
    NoAddresses {
        /// The last failure.
        why: String,
    },
    /// More workloads or upstreams than addresses.
    #[error(
        "{workloads} workloads with up to {upstreams} upstreams are more than one machine has addresses for"
    )]
    #[diagnostic(
        code("MESH-0654"),
        help("split the mesh into several files with a `--state` each")
    )]
    TooMany {
        /// Workloads in the file.
        workloads: usize,
        /// Most upstreams of one of them.
        upstreams: usize,
    },
    /// `mesh.yaml` cannot be opened.
    #[error("`{path}` cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0655"),
        help("name a file of kind LocalMesh, as examples/shop/mesh.yaml")
    )]
    MeshFile {
        /// The file.
        path: String,
        /// What the system says.
        why: String,
    },
    /// `mesh.yaml` is not valid.
    #[error(transparent)]
    #[diagnostic(transparent)]
    LocalMesh(#[from] crate::local_mesh::LocalMeshError),
    /// A part of the mesh did not become ready.
    #[error("{part} did not become ready in {secs} s: {why}")]
    #[diagnostic(code("MESH-0656"), help("its log says more: `{log}`"))]
    NotReady {
        /// Which part.
        part: String,
        /// How long was waited.
        secs: u64,
        /// Its last words.
        why: String,
        /// Its log.
        log: String,
    },
    /// Some expectations of the file did not hold.
    #[error("{failed} of {all} expectations did not hold")]
    #[diagnostic(
        code("MESH-0657"),
        help("each is named above; `mesh authz explain` says why a call is decided as it is")
    )]
    Unexpected {
        /// How many did not hold.
        failed: usize,
        /// Of how many.
        all: usize,
    },
    /// Something that the platform layer says better.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] mesh_platform::PlatformError),
    /// The system refused something that a supervisor needs.
    #[error("{what}: {why}")]
    #[diagnostic(code("MESH-0658"), help("`mesh check` shows what the machine lacks"))]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        why: String,
    },
}

fn duration_text(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share: write a number from 0 to 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0"), Ok(0.0));
        for text in ["-0.1", "1.1", "NaN", "inf", ""] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
