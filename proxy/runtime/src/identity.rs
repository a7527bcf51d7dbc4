//! Who this proxy is, and whom it trusts: keeps [`Identity`] fresh from a Workload API or from files.
//!
//! The last good identity stays in force until it expires, whatever happens to its source. A source that hands out an
//! unusable identity is reported and not believed.

use crate::config::{IdentitySource, ProxyConfig};
use crate::error::ProxyError;
use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN, FILES_POLL};
use crate::state::Shared;
use mesh_platform::Platform;
use mesh_proxy_core::mesh_header;
use mesh_trust::tls::{self, ExpectedPeer, TlsIdentity};
use mesh_trust::{SpiffeId, Svid, Timestamp, TrustBundle, TrustBundles, TrustDomain};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::X509Source;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// One SVID with the bundles of its time, and the TLS configurations made from them.
pub(crate) struct Identity {
    /// Counts changes: connections made under an older one are retired.
    pub(crate) version: u64,
    pub(crate) svid: Svid,
    pub(crate) bundles: Arc<TrustBundles>,
    pub(crate) server: Arc<ServerConfig>,
    /// How often the SVID was replaced.
    pub(crate) rotations: u64,
    tls: TlsIdentity,
    clients: Mutex<BTreeMap<SpiffeId, Arc<ClientConfig>>>,
}

/// What a source of identity hands out.
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    bundles: TrustBundles,
}

impl Identity {
    fn new(version: u64, material: Material, trust_domain: &TrustDomain) -> Result<Self, String> {
        let svid = Svid::parse(material.chain).map_err(|error| error.to_string())?;
        if svid.id().trust_domain() != trust_domain {
            return Err(format!(
                "`{}` is not of the trust domain `{trust_domain}`",
                svid.id()
            ));
        }
        let tls = TlsIdentity::new(svid, material.key).map_err(|error| error.to_string())?;
        Self::of(version, tls, material.bundles)
    }

    fn of(version: u64, tls: TlsIdentity, bundles: TrustBundles) -> Result<Self, String> {
        let bundles = Arc::new(bundles);
        let server = tls::server_config(&tls, bundles.clone(), &[mesh_header::ALPN])
            .map_err(|error| error.to_string())?;
        Ok(Self {
            version,
            rotations: 0,
            svid: tls.svid().clone(),
            bundles,
            server,
            tls,
            clients: Mutex::default(),
        })
    }

    /// The SVID with its key.
    pub(crate) fn tls(&self) -> &TlsIdentity {
        &self.tls
    }

    /// The client configuration that accepts only `expected`, for the protocol between proxies.
    ///
    /// # Errors
    /// Says why TLS cannot be set up.
    pub(crate) fn client(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Ok(config.clone());
        }
        let config = self.client_for(expected, mesh_header::ALPN)?;
        clients.insert(expected.clone(), config.clone());
        Ok(config)
    }

    /// A client configuration that accepts only `expected`, for any protocol.
    ///
    /// # Errors
    /// Says why TLS cannot be set up.
    pub(crate) fn client_for(
        &self,
        expected: &SpiffeId,
        alpn: &[u8],
    ) -> Result<Arc<ClientConfig>, String> {
        let expected = ExpectedPeer::OneOf(Arc::from([expected.clone()]));
        tls::client_config(&self.tls, self.bundles.clone(), expected, &[alpn])
            .map_err(|error| error.to_string())
    }

    /// Whether the SVID has run out at `now`.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.svid.not_after() < now
    }
}

/// Reads the identity once, before listeners open, so that bad files stop the start. A Workload API is asked later.
///
/// # Errors
/// [`ProxyError::Identity`] naming the file.
pub(crate) fn check(config: &ProxyConfig, platform: &dyn Platform) -> Result<(), ProxyError> {
    let IdentitySource::Files { chain, key, bundle } = &config.identity else {
        return Ok(());
    };
    let material = from_files(platform, &config.trust_domain, [chain, key, bundle])?;
    Identity::new(0, material, &config.trust_domain)
        .map(drop)
        .map_err(|why| ProxyError::Identity {
            path: chain.clone(),
            why,
        })
}

/// Keeps the identity fresh for as long as the proxy lives.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    match &shared.config.identity {
        IdentitySource::WorkloadApi(endpoint) => follow_workload_api(&shared, endpoint).await,
        IdentitySource::Files { chain, key, bundle } => {
            follow_files(&shared, [chain, key, bundle]).await
        }
        IdentitySource::Ca(ca) => {
            let give = |material: mesh_ca_client::Material| {
                let mesh_ca_client::Material {
                    chain,
                    key,
                    bundles,
                } = material;
                install(
                    &shared,
                    Material {
                        chain,
                        key,
                        bundles,
                    },
                );
            };
            mesh_ca_client::follow(ca, &*shared.platform, &shared.steering, give).await;
        }
    }
}

async fn follow_workload_api(shared: &Shared, endpoint: &str) {
    let mut pause = CONTROL_RETRY_MIN;
    loop {
        let source = X509Source::builder()
            .endpoint(endpoint)
            .reconnect_backoff(CONTROL_RETRY_MIN, CONTROL_RETRY_MAX);
        match source.build().await {
            Ok(source) => {
                pause = CONTROL_RETRY_MIN;
                follow_source(shared, &source).await;
                source.shutdown().await;
            }
            Err(error) => {
                tracing::warn!(%error, endpoint, "the Workload API gives no identity; trying again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CONTROL_RETRY_MAX);
    }
}

/// Takes over every update until the source is closed. The source itself reconnects.
async fn follow_source(shared: &Shared, source: &X509Source) {
    let mut updates = source.updated();
    loop {
        match from_source(source) {
            Ok(material) => install(shared, material),
            Err(why) => tracing::warn!(
                why,
                "the Workload API withdrew the identity; the last one stays until it expires"
            ),
        }
        if updates.changed().await.is_err() {
            return;
        }
    }
}

fn from_source(source: &X509Source) -> Result<Material, String> {
    let svid = source.svid().map_err(|error| error.to_string())?;
    let context = source.bundle_set().map_err(|error| error.to_string())?;
    let mut bundles = TrustBundles::default();
    for (domain, bundle) in context.iter() {
        let domain = TrustDomain::parse(domain.as_str()).map_err(|error| error.to_string())?;
        let anchors = bundle
            .authorities()
            .iter()
            .map(|anchor| CertificateDer::from(anchor.as_bytes().to_vec()));
        bundles.insert(
            TrustBundle::new(domain, anchors.collect()).map_err(|error| error.to_string())?,
        );
    }
    Ok(Material {
        chain: svid
            .cert_chain()
            .iter()
            .map(|cert| CertificateDer::from(cert.as_bytes().to_vec()))
            .collect(),
        key: PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()).into(),
        bundles,
    })
}

async fn follow_files(shared: &Shared, paths: [&Path; 3]) {
    let mut seen: Option<[Vec<u8>; 3]> = None;
    loop {
        let read = paths.map(|path| shared.platform.read_file(path).unwrap_or_default());
        if seen.as_ref() != Some(&read) {
            match from_files(&*shared.platform, &shared.config.trust_domain, paths) {
                Ok(material) => install(shared, material),
                Err(error) => tracing::warn!(%error, "the last identity stays until it expires"),
            }
            seen = Some(read);
        }
        tokio::time::sleep(FILES_POLL).await;
    }
}

fn from_files(
    platform: &dyn Platform,
    trust_domain: &TrustDomain,
    paths: [&Path; 3],
) -> Result<Material, ProxyError> {
    let [chain_path, key_path, bundle_path] = paths;
    let fault = |path: &Path, why: String| ProxyError::Identity {
        path: path.to_owned(),
        why,
    };
    let read = |path: &Path| {
        platform
            .read_file(path)
            .map_err(|error| fault(path, error.to_string()))
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ProxyError> {
        let bytes = read(path)?;
        CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| fault(path, error.to_string()))
    };
    let chain = certificates(chain_path)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
        .map_err(|error| fault(key_path, error.to_string()))?;
    let mut bundles = TrustBundles::default();
    let bundle = TrustBundle::new(trust_domain.clone(), certificates(bundle_path)?);
    bundles.insert(bundle.map_err(|error| fault(bundle_path, error.to_string()))?);
    Ok(Material {
        chain,
        key,
        bundles,
    })
}

/// Puts an identity into force, unless it cannot be used.
fn install(shared: &Shared, mut material: Material) {
    // One at a time: bundles come on a stream of their own, and what is made must be made of the newest of both.
    let streamed = shared.streamed_bundles();
    if let Some((_, bundles)) = &*streamed {
        material.bundles = bundles.clone();
    }
    material.bundles = material.bundles.with_denials(shared.denials.load_full());
    let (version, rotations) = shared.identity.load().as_ref().map_or((1, 0), |current| {
        (current.version + 1, current.rotations + 1)
    });
    match Identity::new(version, material, &shared.config.trust_domain) {
        Ok(identity) => {
            let identity = Identity {
                rotations,
                ..identity
            };
            tracing::info!(id = %identity.svid.id(), serial = identity.svid.serial(), not_after = %identity.svid.not_after(), "identity in force");
            shared.identity.store(Some(Arc::new(identity)));
            shared.identity_changed();
        }
        Err(why) => tracing::error!(
            why,
            "the identity that was handed out cannot be used; the last one stays until it expires"
        ),
    }
}

/// Has every peer judged anew under the deny list that is in force now: those that are alive, and those to come.
pub(crate) fn judge_anew(shared: &Shared) {
    // Bundles come on a stream of their own, and what is made must be made of the newest of both.
    let _alone = shared.streamed_bundles();
    // Without an identity nobody is talked to; the first one finds the list.
    let Some(current) = shared.identity.load_full() else {
        return;
    };
    let bundles = TrustBundles::clone(&current.bundles).with_denials(shared.denials.load_full());
    match Identity::of(current.version + 1, current.tls.clone(), bundles) {
        Ok(identity) => {
            let identity = Identity {
                rotations: current.rotations,
                ..identity
            };
            shared.identity.store(Some(Arc::new(identity)));
            shared.identity_changed();
        }
        Err(why) => tracing::error!(
            why,
            "the deny list cannot be put into force; peers are judged by the one before"
        ),
    }
}

/// Puts the bundles of the trust stream into force. Connections of our own are retired if an anchor has gone.
///
/// # Errors
/// Says why not: an older generation than the one in force, no bundle of our own domain, no identity yet.
pub(crate) fn install_bundles(
    shared: &Shared,
    generation: u64,
    bundles: &TrustBundles,
) -> Result<(), String> {
    let domain = &shared.config.trust_domain;
    if bundles
        .get(domain)
        .is_none_or(|own| own.anchors().is_empty())
    {
        return Err(format!("it has no anchor of `{domain}`"));
    }
    let mut streamed = shared.streamed_bundles();
    if let Some((held, _)) = &*streamed
        && *held > generation
    {
        return Err(format!("generation {generation} after {held}"));
    }
    let current = shared.identity.load_full().ok_or("there is no SVID yet")?;
    *streamed = Some((generation, bundles.clone()));
    if same_anchors(&current.bundles, bundles) {
        return Ok(());
    }
    let gone = lost_anchor(&current.bundles, bundles);
    let version = current.version + u64::from(gone);
    let bundles = bundles.clone().with_denials(shared.denials.load_full());
    let identity = Identity::of(version, current.tls.clone(), bundles)?;
    let identity = Identity {
        rotations: current.rotations,
        ..identity
    };
    tracing::info!(generation, gone, "trust bundle in force");
    shared.identity.store(Some(Arc::new(identity)));
    shared.identity_changed();
    Ok(())
}

/// Whether both trust the same anchors, whatever their sequence says.
fn same_anchors(one: &TrustBundles, other: &TrustBundles) -> bool {
    !lost_anchor(one, other) && !lost_anchor(other, one)
}

/// Whether something that `old` trusts is not trusted any more.
fn lost_anchor(old: &TrustBundles, new: &TrustBundles) -> bool {
    old.iter().any(|bundle| {
        let left = new
            .get(bundle.domain())
            .map_or(&[][..], TrustBundle::anchors);
        bundle.anchors().iter().any(|anchor| !left.contains(anchor))
    })
}
