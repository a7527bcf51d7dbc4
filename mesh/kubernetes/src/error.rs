//! What can go wrong between us and an API server.

/// Why the Kubernetes API cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum KubernetesError {
    /// Neither inside a pod nor given a kubeconfig that can be read.
    #[error("there is no way to the Kubernetes API: {why}")]
    #[diagnostic(
        code("MESH-0770"),
        help(
            "inside a pod its service account token must be mounted; elsewhere name a file with `--kubeconfig` or `KUBECONFIG`"
        )
    )]
    NoConfiguration {
        /// In the client library's words.
        why: String,
    },
    /// The API server refuses us.
    #[error("the API server refuses to {what}: {why}")]
    #[diagnostic(
        code("MESH-0771"),
        help(
            "a right is missing: compare the ClusterRole of this service account with the one that `mesh install` prints"
        )
    )]
    Refused {
        /// What was asked, `list servers.policy.linkerd.io` for instance.
        what: String,
        /// In the API server's words.
        why: String,
    },
    /// It cannot be reached, or its answer cannot be read.
    #[error("the API server did not {what}: {why}")]
    #[diagnostic(
        code("MESH-0772"),
        help("is it up, and reachable from here? `kubectl version` asks the same server")
    )]
    Failed {
        /// What was asked.
        what: String,
        /// What happened instead.
        why: String,
    },
    /// A command that the API server ran in a container failed.
    #[error("the API server could {what}, and the command failed: {why}")]
    #[diagnostic(
        code("MESH-0433"),
        help(
            "the reason is the command's own; docs/reference/tap.md says what looking at a proxy takes, `mesh stat` whether it is ready"
        )
    )]
    Command {
        /// What was asked.
        what: String,
        /// What the command said.
        why: String,
    },
}

impl KubernetesError {
    /// What the library reports, sorted by who has to act.
    pub(crate) fn of(what: impl Into<String>, error: &kube::Error) -> Self {
        let (what, why) = (what.into(), root_cause(error));
        match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Self::Refused { what, why }
            }
            _ => Self::Failed { what, why },
        }
    }

    /// Whether a right is missing, which no new try will mend.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// The innermost error: the outer ones only say where it was met.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
