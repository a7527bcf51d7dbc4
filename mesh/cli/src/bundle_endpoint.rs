//! Where a mesh serves its trust bundle to other trust domains: as flags of a CA, and in `mesh.yaml`.

use crate::arguments::duration;
use clap::Args;
use mesh_ca::{BundleEndpoint, EndpointProof};
use mesh_trust::SpiffeId;
use serde::Serialize;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The endpoint of a CA, as its command line has it.
#[derive(Args, Clone, Debug)]
pub(crate) struct BundleEndpointArgs {
    /// Where the trust bundle is served to other trust domains over HTTPS (docs/guides/federation.md). The endpoint proves
    /// who it is by an SVID of the CA (profile https_spiffe), or by a certificate of the Web (https_web) if one is given.
    #[arg(long, value_name = "IP:PORT")]
    bundle_endpoint: Option<SocketAddr>,
    /// Certificate chain of that endpoint, PEM, leaf first; read again as it changes.
    #[arg(
        long,
        value_name = "FILE",
        requires = "bundle_endpoint",
        requires = "bundle_endpoint_key"
    )]
    bundle_endpoint_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "bundle_endpoint_certificate")]
    bundle_endpoint_key: Option<PathBuf>,
    /// How often other trust domains are asked to fetch, 30 seconds to a day. A rotation of the root waits for three times
    /// as long before it signs under the new one.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "bundle_endpoint")]
    bundle_refresh: Duration,
}

impl BundleEndpointArgs {
    /// The endpoint, of a CA that is `identity`.
    pub(crate) fn endpoint(&self, identity: SpiffeId) -> Option<BundleEndpoint> {
        let certificate = self.bundle_endpoint_certificate.clone();
        let proof = match certificate.zip(self.bundle_endpoint_key.clone()) {
            Some((chain, key)) => EndpointProof::Certificate { chain, key },
            None => EndpointProof::Svid(identity),
        };
        Some(BundleEndpoint {
            listen: self.bundle_endpoint?,
            proof,
            refresh_secs: self.bundle_refresh.as_secs(),
        })
    }
}

/// `spec.bundleEndpoint` of a `mesh.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LocalEndpoint {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Certificate chain and private key, relative to the folder of mesh.yaml; none: it shows an SVID.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// How often others are asked to fetch, seconds.
    pub(crate) refresh_secs: u64,
}

impl LocalEndpoint {
    /// The flags that say the same to a CA; files are those below `folder`.
    pub(crate) fn flags(&self, folder: &Path) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec![
            "--bundle-endpoint".into(),
            self.listen.to_string().into(),
            "--bundle-refresh".into(),
            format!("{}s", self.refresh_secs).into(),
        ];
        if let Some((chain, key)) = &self.certificate {
            flags.push("--bundle-endpoint-certificate".into());
            flags.push(folder.join(chain).into());
            flags.push("--bundle-endpoint-key".into());
            flags.push(folder.join(key).into());
        }
        flags
    }
}
