//! Why a question about a whole mesh has no answer. No answer is never taken for a good one.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The policy of a workload does not compile.
    #[error("the policy of workload `{workload}` cannot be compiled: {why}")]
    #[diagnostic(
        code("MESH-0395"),
        help(
            "no proxy would take it either; mend the policy, `mesh authz lint` names what is wrong"
        )
    )]
    Uncompiled {
        /// The workload.
        workload: String,
        /// What the compiler says.
        why: String,
    },
    /// More classes than are asked.
    #[error("port {port} of workload `{workload}` tells more than {limit} questions apart")]
    #[diagnostic(
        code("MESH-0396"),
        help("merge networks or identities: one authentication may list many of them")
    )]
    TooMany {
        /// The workload.
        workload: String,
        /// The port.
        port: u16,
        /// Questions that one port may cost.
        limit: usize,
    },
    /// Nobody of that name.
    #[error("no workload is `{asked}`")]
    #[diagnostic(
        code("MESH-0397"),
        help(
            "write `namespace` or `namespace/workload`, as in the manifests; is its manifest among the files?"
        )
    )]
    NoSuch {
        /// What was asked for.
        asked: String,
    },
}
