//! Why connections are not redirected.

use mesh_proxy_core::capture::CaptureFault;
use std::io;

/// Why capture cannot be set up, or does not work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CaptureError {
    /// The settings make no sense.
    #[error("these rules would not redirect what they must: {0}")]
    #[diagnostic(
        code("MESH-0479"),
        help("`mesh-proxy capture --help` lists the settings and their defaults")
    )]
    Settings(#[from] CaptureFault),
    /// We may not.
    #[error("no permission to {doing} of this network namespace")]
    #[diagnostic(
        code("MESH-0480"),
        help(
            "run as root with CAP_NET_ADMIN; in a pod, the init container needs `capabilities: {{ add: [NET_ADMIN, NET_RAW] }}`"
        )
    )]
    Permission {
        /// What was tried.
        doing: &'static str,
    },
    /// The kernel refuses.
    #[error("the kernel cannot {doing}: {why}")]
    #[diagnostic(
        code("MESH-0481"),
        help(
            "it needs nf_tables with inet NAT, redirect, reject, ct and fib (Linux 5.10 or later; modules nft_nat, nft_redir, nft_reject_inet, nft_ct, nft_fib_inet)"
        )
    )]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        why: io::Error,
    },
    /// No rules of ours.
    #[error("no connection is redirected: the rules are not there")]
    #[diagnostic(
        code("MESH-0482"),
        help("`mesh-proxy capture` sets them; a CNI plugin may still be about to: `--wait 30`")
    )]
    NotInstalled,
    /// Not the rules that are wanted.
    #[error("the rules in force are not the ones wanted: {why}")]
    #[diagnostic(
        code("MESH-0483"),
        help(
            "compare `nft list table inet mesh_capture` with `mesh-proxy capture --print` and the same settings; without `--check` the command replaces them"
        )
    )]
    OtherRules {
        /// What differs.
        why: String,
    },
    /// The rules are there, and connections escape all the same.
    #[error("a connection to `{to}` was not redirected: {why}")]
    #[diagnostic(
        code("MESH-0484"),
        help(
            "other rules may come before ours (`nft list ruleset`, `iptables-save`), or this command runs as the proxy's own user, which is exempt"
        )
    )]
    Escaped {
        /// Where it was going.
        to: String,
        /// What happened.
        why: String,
    },
    /// Something leaves that no rule of ours can have seen.
    #[error("this pod's traffic is not captured: what was sent to `{to}` {why}")]
    #[diagnostic(
        code("MESH-0486"),
        help(
            "the CNI plugin set no rules when this pod's network was made: see `kubectl -n mesh-cni get pods -o wide` and `mesh check` for this node, then delete the pod, since a network is made once"
        )
    )]
    Uncaptured {
        /// Where it was going.
        to: String,
        /// What happened.
        why: String,
    },
    /// Nothing can be tried.
    #[error("nothing can be proved: this network namespace has no way out")]
    #[diagnostic(
        code("MESH-0485"),
        help(
            "it has no route to other networks yet (`ip route`, `ip -6 route`): set up its network first, or wait for it: `--wait 30`"
        )
    )]
    NoRoute,
}

impl CaptureError {
    pub(super) fn refused(doing: &'static str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Self::Permission { doing };
        }
        let why = error.raw_os_error().map_or_else(
            || io::Error::from(error.kind()),
            io::Error::from_raw_os_error,
        );
        Self::Kernel { doing, why }
    }

    /// The same where the one who looks could not have set the rules.
    pub(super) fn without_rules(self) -> Self {
        match self {
            Self::Escaped { to, why } => Self::Uncaptured { to, why },
            other => other,
        }
    }

    /// Whether it may be otherwise a moment later.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Settings(_) | Self::Permission { .. })
    }
}
