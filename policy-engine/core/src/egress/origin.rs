//! TLS that the proxy of the workload begins itself, for requests that the application sends in plaintext.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// How TLS is begun for what a route takes. The server is the host that was judged: it is what is asked for (SNI), and
/// what the certificate must be for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsOrigin {
    /// Port to dial, at the address that the application dialled.
    pub port: u16,
    /// Who may have signed the certificate.
    pub roots: TlsRoots,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
}

/// Who may have signed the certificate of a server outside of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRoots {
    /// Whom the system of the proxy trusts.
    System,
    /// These certificates, in PEM.
    Pem(Arc<str>),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

/// TLS that must be begun for one request: the server that it must reach, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origination {
    /// The host that was judged, without port: a DNS name.
    pub server_name: String,
    /// How.
    pub origin: Arc<TlsOrigin>,
}
