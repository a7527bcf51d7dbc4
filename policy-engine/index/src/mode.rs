//! Default policies, by the names that Linkerd gave them.

use std::fmt;
use std::str::FromStr;

/// What holds where no grant speaks: the default policy of a port, or a Server's `accessPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody.
    #[default]
    Deny,
    /// Every verified identity.
    AllAuthenticated,
    /// Everybody.
    AllUnauthenticated,
    /// Every verified identity, from the cluster networks.
    ClusterAuthenticated,
    /// Everybody, from the cluster networks.
    ClusterUnauthenticated,
    /// Everybody, recorded as an audit allow.
    Audit,
}

/// Why a text is no [`Mode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("`{text}` is not a default policy")]
#[diagnostic(
    code("MESH-0362"),
    help(
        "one of all-authenticated, all-unauthenticated, cluster-authenticated, cluster-unauthenticated, deny, audit"
    )
)]
pub struct ModeError {
    /// What was given.
    pub text: String,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 6] = [
        Self::Deny,
        Self::AllAuthenticated,
        Self::AllUnauthenticated,
        Self::ClusterAuthenticated,
        Self::ClusterUnauthenticated,
        Self::Audit,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AllAuthenticated => "all-authenticated",
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::Audit => "audit",
        }
    }

    /// What it becomes on a port that requires an identity: the allowing modes ask for one, `audit` and `deny` stay.
    #[must_use]
    pub fn requiring_identity(self) -> Self {
        match self {
            Self::AllUnauthenticated => Self::AllAuthenticated,
            Self::ClusterUnauthenticated => Self::ClusterAuthenticated,
            Self::Deny | Self::AllAuthenticated | Self::ClusterAuthenticated | Self::Audit => self,
        }
    }

    /// Whether only verified identities are let in.
    pub(crate) fn authenticated(self) -> bool {
        matches!(self, Self::AllAuthenticated | Self::ClusterAuthenticated)
    }

    /// Whether only clients of the cluster networks are let in.
    pub(crate) fn cluster_only(self) -> bool {
        matches!(
            self,
            Self::ClusterAuthenticated | Self::ClusterUnauthenticated
        )
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|m| m.as_str() == text)
            .ok_or_else(|| ModeError {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
