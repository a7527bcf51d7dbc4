//! The controller's own SVID: taken from its source, and taken again whenever that has a new one.
//!
//! The last good one stays in use until it expires, whatever happens to the source; an SVID of another trust domain
//! or with a key that is not its own is reported and not used.

use crate::config::IdentitySource;
use crate::limits::{IDENTITY_RETRY, POLL};
use crate::state::Shared;
use futures_util::StreamExt;
use mesh_trust::tls::{TlsIdentity, server_config};
use mesh_trust::{SpiffeId, Svid, Timestamp, TrustBundle, TrustBundles, TrustDomain};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, X509Context};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The protocol that proxies speak to us: HTTP/2, under gRPC.
const ALPN: &[u8] = b"h2";

/// An SVID in use, with the TLS settings made from it.
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: Timestamp,
    pub(crate) serial: String,
    /// Anchors of our own trust domain.
    pub(crate) bundle_pem: String,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) tls: TlsIdentity,
    pub(crate) bundles: Arc<TrustBundles>,
}

impl Identity {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundles: TrustBundles,
        domain: &TrustDomain,
    ) -> Result<Self, String> {
        let svid = Svid::parse(chain).map_err(|error| error.to_string())?;
        if svid.id().trust_domain() != domain {
            return Err(format!(
                "`{}` is not of the trust domain `{domain}`",
                svid.id()
            ));
        }
        let tls = TlsIdentity::new(svid, key).map_err(|error| error.to_string())?;
        Self::of(tls, bundles)
    }

    /// The same SVID under other bundles.
    pub(crate) fn of(tls: TlsIdentity, bundles: TrustBundles) -> Result<Self, String> {
        let svid = tls.svid();
        let domain = svid.id().trust_domain();
        let Some(bundle) = bundles.get(domain) else {
            return Err(format!("no trust bundle for `{domain}` came with it"));
        };
        let bundle_pem = bundle.to_pem();
        let bundles = Arc::new(bundles);
        // Proxies are of our own domain, whomever these verify.
        let proxies = Arc::new(bundles.only(domain));
        let server = server_config(&tls, proxies, &[ALPN]).map_err(|error| error.to_string())?;
        Ok(Self {
            id: svid.id().clone(),
            not_after: svid.not_after(),
            serial: svid.serial().to_owned(),
            bundle_pem,
            server,
            tls,
            bundles,
        })
    }
}

/// Keeps the identity fresh; never ends.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    match shared.config.identity.clone() {
        IdentitySource::WorkloadApi(socket) => follow_workload_api(&shared, &socket).await,
        IdentitySource::Files { chain, key, bundle } => {
            follow_files(&shared, [&chain, &key, &bundle]).await
        }
        IdentitySource::Ca(ca) => {
            let domain = shared.config.trust_domain();
            let give = |material: mesh_ca_client::Material| {
                let made = Identity::new(material.chain, material.key, material.bundles, domain);
                take(&shared, made);
            };
            mesh_ca_client::follow(&ca, &*shared.platform, &shared.steering, give).await;
        }
    }
}

fn take(shared: &Shared, made: Result<Identity, String>) {
    match made {
        Ok(identity) => {
            // Bundles that the trust stream gave are newer than those that came with the SVID.
            let streamed = shared.streamed_bundles();
            let identity = match &*streamed {
                Some((_, bundles)) => match Identity::of(identity.tls, bundles.clone()) {
                    Ok(identity) => identity,
                    Err(why) => return tracing::error!(why, "the SVID cannot be used"),
                },
                None => identity,
            };
            tracing::info!(id = %identity.id, serial = identity.serial, not_after = %identity.not_after, "new SVID");
            shared.identity.send_replace(Some(Arc::new(identity)));
        }
        Err(why) => tracing::error!(
            why,
            "the source of our identity gave one that cannot be used"
        ),
    }
}

async fn follow_workload_api(shared: &Shared, socket: &Path) {
    let endpoint = format!("unix:{}", socket.display());
    let mut pause = IDENTITY_RETRY.0;
    loop {
        match stream_contexts(shared, &endpoint).await {
            // Ended after it had worked: at once again.
            Ok(()) => pause = IDENTITY_RETRY.0,
            Err(why) => tracing::warn!(
                why,
                endpoint,
                "no identity from the Workload API; trying again"
            ),
        }
        tokio::time::sleep(jittered(shared, pause)).await;
        pause = (pause * 2).min(IDENTITY_RETRY.1);
    }
}

/// Takes every update until the stream ends; `Ok` if there was at least one.
async fn stream_contexts(shared: &Shared, endpoint: &str) -> Result<(), String> {
    let client = WorkloadApiClient::connect_to(endpoint)
        .await
        .map_err(|error| error.to_string())?;
    let mut contexts = client
        .stream_x509_contexts()
        .await
        .map_err(|error| error.to_string())?;
    let mut any = false;
    while let Some(context) = contexts.next().await {
        let context = context.map_err(|error| error.to_string())?;
        take(shared, from_context(&context, shared.config.trust_domain()));
        any = true;
    }
    if any {
        Ok(())
    } else {
        Err("the stream ended without an SVID".to_owned())
    }
}

fn from_context(context: &X509Context, domain: &TrustDomain) -> Result<Identity, String> {
    let svid = context.default_svid().ok_or("it gave no SVID")?;
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let chain = svid
        .cert_chain()
        .iter()
        .map(|certificate| der(certificate.as_bytes()))
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        svid.private_key().as_bytes().to_vec(),
    ));
    let mut bundles = TrustBundles::default();
    for (name, bundle) in context.bundle_set().iter() {
        let of = TrustDomain::parse(name.as_ref()).map_err(|error| error.to_string())?;
        let anchors = bundle
            .authorities()
            .iter()
            .map(|anchor| der(anchor.as_bytes()))
            .collect();
        match TrustBundle::new(of, anchors) {
            Ok(bundle) => bundles.insert(bundle),
            // One bad foreign bundle must not cost us our own.
            Err(error) => tracing::error!(%error, domain = %name, "a trust bundle cannot be used"),
        }
    }
    Identity::new(chain, key, bundles, domain)
}

async fn follow_files(shared: &Shared, paths: [&Path; 3]) {
    let mut last = None;
    loop {
        let read = paths.map(|path| {
            shared
                .platform
                .read_file(path)
                .map_err(|error| error.to_string())
        });
        if last.as_ref() != Some(&read) {
            take(shared, from_files(&read, shared.config.trust_domain()));
            last = Some(read);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn from_files(
    read: &[Result<Vec<u8>, String>; 3],
    domain: &TrustDomain,
) -> Result<Identity, String> {
    let [chain, key, bundle] = read.each_ref().map(Result::as_ref);
    let chain = CertificateDer::pem_slice_iter(chain?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate chain is not PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key?)
        .map_err(|error| format!("the private key is not PEM: {error}"))?;
    let mut bundles = TrustBundles::default();
    bundles
        .insert(TrustBundle::from_pem(domain.clone(), bundle?).map_err(|error| error.to_string())?);
    Identity::new(chain, key, bundles, domain)
}

/// Between half of `pause` and all of it, so that many do not come back at once.
fn jittered(shared: &Shared, pause: Duration) -> Duration {
    let mut random = [0u8; 2];
    shared.platform.fill_random(&mut random);
    let half = pause / 2;
    half + half.mul_f64(f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX))
}
