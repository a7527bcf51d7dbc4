//! What can keep a proxy from starting. Faults of single connections are in [`crate::answer`].

use std::path::PathBuf;

/// Why a proxy does not start, or had to stop.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ProxyError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration `{path}`: {why}")]
    #[diagnostic(
        code("MESH-0450"),
        help("check the path given with --config, and that this user may read the file")
    )]
    ConfigUnreadable {
        /// Path as given.
        path: PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// The configuration is no YAML, or has unknown, missing or misplaced keys.
    #[error("{place}: {why}")]
    #[diagnostic(
        code("MESH-0451"),
        help("`mesh explain MESH-0451` shows a whole file; unknown keys are refused")
    )]
    ConfigSyntax {
        /// `file:line:column`.
        place: String,
        /// What the reader said.
        why: String,
    },
    /// A value of the configuration cannot be used.
    #[error("{file}: `{key}` is `{value}`: {why}")]
    #[diagnostic(code("MESH-0452"))]
    ConfigValue {
        /// Name of the file.
        file: String,
        /// Path of the key.
        key: String,
        /// What it is.
        value: String,
        /// Why that cannot be.
        why: String,
        /// What would do.
        #[help]
        hint: String,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on `{address}` ({purpose}): {why}")]
    #[diagnostic(
        code("MESH-0453"),
        help("another process may hold the address: `ss -ltnp` names it")
    )]
    Bind {
        /// The address.
        address: String,
        /// What it is for.
        purpose: String,
        /// What the operating system said.
        why: String,
    },
    /// Identity files cannot be used.
    #[error("the identity in `{path}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0454"),
        help(
            "chain and bundle must be PEM certificates, key a PEM private key that belongs to the first certificate"
        )
    )]
    Identity {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Threads or the event loop cannot be started.
    #[error("cannot start {part}: {why}")]
    #[diagnostic(
        code("MESH-0455"),
        help("check the limits on threads and open files (`ulimit -a`)")
    )]
    Start {
        /// What was to be started.
        part: &'static str,
        /// What the operating system said.
        why: String,
    },
    /// The audit log cannot be opened or continued.
    #[error("the audit log `{path}` cannot be written: {why}")]
    #[diagnostic(
        code("MESH-0456"),
        help(
            "check the disk, and that the folder belongs to this user; `mesh audit verify` says whether the log is whole"
        )
    )]
    Audit {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Static manifests hold no policy for this workload.
    #[error("no policy for workload `{workload}` in `{manifests}`: {why}")]
    #[diagnostic(
        code("MESH-0457"),
        help(
            "the folder must hold the Pod or Deployment of that namespace and name; `mesh lint` lists what is wrong with its files"
        )
    )]
    Manifests {
        /// Namespace and name.
        workload: String,
        /// The folder.
        manifests: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file that says where services are cannot be used.
    #[error("discovery in `{path}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0478"),
        help("it must be JSON of the form that `/discovery` on a proxy's admin socket has")
    )]
    Discovery {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
