//! What goes wrong: to a runtime as JSON with a code of the CNI specification, to people as a text with a code of ours.

use mesh_platform::PlatformError;
use mesh_proxy::capture::CaptureError;
use miette::Diagnostic;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Why the plugin does not do what it is asked.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum CniError {
    /// A version that is not known, or a command that its version does not have.
    #[error("CNI version `{version}` {why}; known are {known}", known = crate::protocol::VERSIONS.join(", "))]
    #[diagnostic(
        code("MESH-0760"),
        help(
            "set `cniVersion` of the node's network configuration to one of these, 1.0.0 for instance, as its plugins allow"
        )
    )]
    Version {
        /// What the configuration says.
        version: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The runtime's variables.
    #[error("the variable `{variable}` of the container runtime cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0761"),
        help("this program is called by container runtimes; people call `mesh-cni install`")
    )]
    Environment {
        /// Which.
        variable: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The runtime's input.
    #[error("the network configuration cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0762"),
        help(
            "`mesh-cni install` writes our part of it, as the last of a list of plugins; compare with docs/guides/cni.md"
        )
    )]
    Config {
        /// What is wrong with it.
        why: String,
        /// Whether it is no JSON at all.
        undecodable: bool,
    },
    /// Nobody says what the pod is.
    #[error("whether pod `{pod}` has a proxy cannot be told: {why}")]
    #[diagnostic(
        code("MESH-0763"),
        help(
            "the pod waits, and kubelet tries again: see that the API server is up and `kubectl -n mesh-cni get pods -o wide` has a ready pod on this node"
        )
    )]
    Lookup {
        /// Namespace and name.
        pod: String,
        /// What happened instead.
        why: String,
    },
    /// A pod that says that it is meshed, and cannot be captured.
    #[error("pod `{pod}` is marked as meshed, and cannot be captured: {why}")]
    #[diagnostic(
        code("MESH-0764"),
        help(
            "its containers `mesh-capture` and `mesh-proxy` have to be as the injector adds them; make the pod anew from a template without them"
        )
    )]
    Pod {
        /// Namespace and name.
        pod: String,
        /// What is wrong with it.
        why: String,
    },
    /// No namespace to work in.
    #[error("the pod's network namespace cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0765"),
        help(
            "the pod may be gone already; else see why the plugin may not enter it: root alone may"
        )
    )]
    Namespace {
        /// What the platform said, with its cause.
        why: String,
    },
    /// The rules.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Capture(#[from] CaptureError),
}

impl CniError {
    /// The code of CNI's specification (section 5, "Error"), or of ours from 100 on.
    pub fn number(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::Namespace { .. } => 3,
            Self::Environment { .. } => 4,
            Self::Config {
                undecodable: true, ..
            } => 6,
            Self::Config { .. } => 7,
            Self::Lookup { .. } => 11,
            Self::Pod { .. } => 100,
            Self::Capture(_) => 101,
        }
    }

    /// As a runtime reads it.
    pub fn to_json(&self, version: &str, number: u32) -> Value {
        let text = |part: Option<Box<dyn std::fmt::Display + '_>>| {
            part.map(|part| part.to_string()).unwrap_or_default()
        };
        let (code, help) = (text(self.code()), text(self.help()));
        json!({
            "cniVersion": version,
            "code": number,
            "msg": format!("mesh-cni: {code}: {self}"),
            "details": help,
        })
    }
}

/// Why the plugin is not in a node's chain.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum InstallError {
    /// Nothing to come last in.
    #[error("there is no network configuration in `{folder}` yet")]
    #[diagnostic(
        code("MESH-0766"),
        help(
            "this waits for the node's own network plugin; if the node has one, its configuration is elsewhere: set `cni.confDir`"
        )
    )]
    NoNetwork {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// What is there cannot be chained to.
    #[error("`{file}` is no network configuration that a plugin can be chained to: {why}")]
    #[diagnostic(
        code("MESH-0767"),
        help("the file is left as it is; runtimes use the first of its folder, in order of names")
    )]
    NotChainable {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No credentials for the plugin.
    #[error("the plugin cannot be told how to reach the API server: {why}")]
    #[diagnostic(
        code("MESH-0768"),
        help(
            "in the pod of the DaemonSet mesh-cni its service account is mounted, and KUBERNETES_SERVICE_HOST and _PORT are set"
        )
    )]
    Credentials {
        /// What is missing.
        why: String,
    },
    /// Files.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
}
