//! The endpoint of our own bundle: HTTPS for anybody, who shows nothing and gets what is public.

use super::publish::Numbers;
use crate::error::CaError;
use crate::issuing::Issuing;
use crate::jwt::Tokens;
use crate::limits::{
    ENDPOINT_CERTIFICATE_POLL, ENDPOINT_CONNECTIONS_MAX, ENDPOINT_HANDSHAKES_MAX,
    ENDPOINT_REQUEST_TIMEOUT, KEY_FILE_BYTES_MAX, NETWORK_HANDSHAKE_TIMEOUT, PUBLISH_RETRY,
};
use crate::own_svid::OwnSvid;
use crate::public_http::{self, plain};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use mesh_api::accept::{self, Limits};
use mesh_api::federation::EndpointStatus;
use mesh_platform::{Platform, files};
use mesh_trust::bundle::WholeBundle;
use mesh_trust::tls::{TlsIdentity, endpoint_config, web_endpoint_config};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

/// Where our own bundle is served to other trust domains, and how the endpoint proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Its profile.
    pub proof: EndpointProof,
    /// How often others are asked to fetch, seconds.
    pub refresh_secs: u64,
}

/// How the endpoint proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointProof {
    /// `https_spiffe`: by an SVID of this identity, which the CA issues to itself.
    Svid(SpiffeId),
    /// `https_web`: by a certificate of the Web's authorities, in files that are read again as they change.
    Certificate {
        /// Chain in PEM, leaf first.
        chain: PathBuf,
        /// Its private key, PEM.
        key: PathBuf,
    },
}

/// The endpoint as others see it from inside the CA.
pub(crate) struct Endpoint {
    config: BundleEndpoint,
    document: watch::Sender<Option<Arc<Document>>>,
    /// Unix microseconds of the last answer; 0: none.
    served_at: AtomicI64,
    platform: Arc<dyn Platform>,
}

/// What is served.
struct Document {
    sequence: Option<u64>,
    json: Bytes,
}

/// What it takes to serve.
pub(crate) struct Serving {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) issuing: Issuing,
    pub(crate) tokens: Tokens,
    pub(crate) domain: TrustDomain,
    numbers: Numbers,
    listener: TcpListener,
    first: Option<Arc<ServerConfig>>,
}

impl Endpoint {
    pub(crate) fn new(config: BundleEndpoint, platform: Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            config,
            document: watch::Sender::new(None),
            served_at: AtomicI64::new(0),
            platform,
        })
    }

    /// How it is.
    pub(crate) fn status(&self) -> EndpointStatus {
        let (profile, endpoint_id) = match &self.config.proof {
            EndpointProof::Svid(id) => ("https_spiffe", Some(id.clone())),
            EndpointProof::Certificate { .. } => ("https_web", None),
        };
        let served_at = self.served_at.load(Ordering::Relaxed);
        EndpointStatus {
            listen: self.config.listen,
            profile: profile.to_owned(),
            endpoint_id,
            sequence: self
                .document
                .borrow()
                .as_ref()
                .and_then(|held| held.sequence),
            refresh_secs: self.config.refresh_secs,
            served_at: (served_at > 0).then(|| Timestamp::from_unix_micros(served_at)),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/" {
            return plain(StatusCode::NOT_FOUND);
        }
        if !public_http::is_read(request) {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Some(document) = self.document.borrow().clone() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        };
        let now = self.platform.wall_clock().unix_micros();
        self.served_at.store(now, Ordering::Relaxed);
        public_http::json(document.json.clone())
    }
}

impl Serving {
    /// Takes the address, and reads what there is to read.
    ///
    /// # Errors
    /// [`CaError`]: the address cannot be had, or the certificate cannot be used.
    pub(crate) async fn open(
        endpoint: Arc<Endpoint>,
        (issuing, tokens): (Issuing, Tokens),
        domain: TrustDomain,
        dir: &Path,
    ) -> Result<Self, CaError> {
        let listen = endpoint.config.listen;
        let first = match &endpoint.config.proof {
            EndpointProof::Svid(_) => None,
            EndpointProof::Certificate { chain, key } => {
                let read = read_certificate(chain, key);
                Some(read.map_err(|why| CaError::EndpointCertificate {
                    chain: chain.clone(),
                    why,
                })?)
            }
        };
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| CaError::Network {
            listen,
            why: error.to_string(),
        })?;
        Ok(Self {
            endpoint,
            issuing,
            tokens,
            domain,
            numbers: Numbers::open(dir)?,
            listener,
            first,
        })
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) -> Infallible {
        let Self {
            endpoint,
            issuing,
            tokens,
            domain,
            numbers,
            listener,
            first,
        } = self;
        let config = endpoint.config.clone();
        tracing::info!(listen = %config.listen, "the bundle is served to other trust domains");
        let (settings, following) = watch::channel(first);
        let mut tasks = JoinSet::new();
        match config.proof {
            EndpointProof::Svid(identity) => {
                let own = OwnSvid {
                    issuing: issuing.clone(),
                    platform: Arc::clone(&endpoint.platform),
                    identity,
                    door: "its bundle endpoint",
                };
                let made =
                    |tls: &TlsIdentity| endpoint_config(tls).map_err(|error| error.to_string());
                tasks.spawn(own.keep(made, settings, || ()));
            }
            EndpointProof::Certificate { chain, key } => {
                tasks.spawn(keep_certificate(chain, key, settings));
            }
        }
        let publishing = Arc::clone(&endpoint);
        tasks.spawn(async move { publish(publishing, issuing, tokens, domain, numbers).await });
        let limits = Limits {
            connections: ENDPOINT_CONNECTIONS_MAX,
            handshakes: ENDPOINT_HANDSHAKES_MAX,
            handshake_timeout: NETWORK_HANDSHAKE_TIMEOUT,
        };
        let mut connections = accept::connections(listener, following, limits, &mut tasks);
        while let Some(connection) = connections.next().await {
            if let Ok(stream) = connection {
                let endpoint = Arc::clone(&endpoint);
                tokio::spawn(public_http::answer_one(
                    stream,
                    ENDPOINT_REQUEST_TIMEOUT,
                    move |request| endpoint.answer(request),
                ));
            }
        }
        std::future::pending().await
    }
}

/// Publishes our bundle, and again whenever its roots or keys change.
async fn publish(
    endpoint: Arc<Endpoint>,
    issuing: Issuing,
    tokens: Tokens,
    domain: TrustDomain,
    mut numbers: Numbers,
) {
    let (mut trust, mut keys) = (issuing.published(), tokens.bundle());
    loop {
        let own = trust.borrow_and_update().bundles.get(&domain).cloned();
        let jwt = keys.borrow_and_update().as_ref().clone();
        let hint = endpoint.config.refresh_secs;
        let whole = own.and_then(|own| WholeBundle::new(own.with_refresh_hint_secs(hint), jwt));
        if let Some(whole) = whole {
            let now = endpoint.platform.wall_clock();
            let numbering = tokio::task::spawn_blocking(move || {
                let numbered = numbers.number(whole, now);
                (numbers, numbered)
            });
            let Ok((back, numbered)) = numbering.await else {
                return;
            };
            numbers = back;
            match numbered {
                Ok(whole) => {
                    endpoint.document.send_replace(Some(Arc::new(Document {
                        sequence: whole.sequence(),
                        json: whole.to_json().into(),
                    })));
                }
                Err(error) => {
                    tracing::error!(%error, "the bundle cannot be published; the one before is served");
                    tokio::time::sleep(PUBLISH_RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = trust.changed() => if changed.is_err() { return },
            changed = keys.changed() => if changed.is_err() { return },
        }
    }
}

/// Reads the certificate again as its files change: whoever renews it tells nobody.
async fn keep_certificate(
    chain: PathBuf,
    key: PathBuf,
    settings: watch::Sender<Option<Arc<ServerConfig>>>,
) {
    let read = |path: &Path| files::read_limited(path, KEY_FILE_BYTES_MAX).unwrap_or_default();
    let mut seen = (read(&chain), read(&key));
    loop {
        tokio::time::sleep(ENDPOINT_CERTIFICATE_POLL).await;
        let found = (read(&chain), read(&key));
        if found == seen {
            continue;
        }
        match read_certificate(&chain, &key) {
            Ok(server) => {
                tracing::info!(chain = %chain.display(), "the bundle endpoint has another certificate");
                settings.send_replace(Some(server));
            }
            // Perhaps only one of the two was written yet.
            Err(why) => tracing::warn!(
                why,
                "the bundle endpoint's certificate cannot be used; the one before stays"
            ),
        }
        seen = found;
    }
}

fn read_certificate(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let read = |path: &Path| {
        files::read_limited(path, KEY_FILE_BYTES_MAX).map_err(|error| error.to_string())
    };
    let (chain, key) = (read(chain)?, read(key)?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| error.to_string())?;
    web_endpoint_config(chain, key).map_err(|error| error.to_string())
}
