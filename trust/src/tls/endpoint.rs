//! Handshakes of bundle endpoints: whoever reads a bundle shows nothing, and the endpoint proves who it is by an SVID
//! (`https_spiffe`) or by a certificate of the Web's authorities (`https_web`); SPIFFE Federation §5.2.
//!
//! Clients of other makers come here, so TLS 1.2 is spoken too, with forward secrecy and authenticated encryption only.
//! Who reads an endpoint of `https_spiffe` takes [`super::client_config_without_identity`].

use super::{TlsError, TlsIdentity};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WantsServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, LazyLock};

/// What an endpoint speaks inside.
const ALPN: &[u8] = b"http/1.1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// An endpoint that proves who it is by its SVID.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn endpoint_config(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    let shown = SingleCertAndKey::from(identity.key.clone());
    Ok(finished(
        server(identity.clock.clone())?.with_cert_resolver(Arc::new(shown)),
    ))
}

/// An endpoint that proves who it is by a certificate for its DNS name, leaf first.
///
/// # Errors
/// [`TlsError::WebKey`] if the key cannot be used or is not the certificate's.
pub fn web_endpoint_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let why = |error: rustls::Error| TlsError::WebKey {
        why: error.to_string(),
    };
    let certified = CertifiedKey::from_der(chain, key, &PROVIDER).map_err(why)?;
    certified.keys_match().map_err(why)?;
    let shown = SingleCertAndKey::from(certified);
    Ok(finished(
        server(Arc::new(DefaultTimeProvider))?.with_cert_resolver(Arc::new(shown)),
    ))
}

/// A reader of an endpoint that proves who it is to whoever trusts `roots`.
///
/// # Errors
/// [`TlsError::WebRoots`] if a root cannot be one, or there is none.
pub fn web_client_config(
    roots: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    // Stores of systems hold a few that rustls cannot read; one that can be is enough.
    let (taken, ignored) = store.add_parsable_certificates(roots);
    if taken == 0 {
        return Err(TlsError::WebRoots { ignored });
    }
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let mut config = ClientConfig::builder_with_details(PROVIDER.clone(), clock)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Configuration)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn server(
    clock: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, TlsError> {
    Ok(ServerConfig::builder_with_details(PROVIDER.clone(), clock)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Configuration)?
        .with_no_client_auth())
}

fn finished(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}
