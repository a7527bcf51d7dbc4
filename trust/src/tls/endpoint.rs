//! Handshakes with those who have no SVID, or need none.
//!
//! Bundle endpoints: whoever reads a bundle shows nothing, and the endpoint proves who it is by an SVID
//! (`https_spiffe`) or by a certificate of the Web's authorities (`https_web`); SPIFFE Federation §5.2.
//!
//! Clients of other makers come here, so TLS 1.2 is spoken too, with forward secrecy and authenticated encryption only.
//! Who reads an endpoint of `https_spiffe` takes [`super::client_config_without_identity`].
//!
//! Servers outside of the mesh, to whom a proxy begins TLS for its application: [`outside_client_config`].

use super::{TlsError, TlsIdentity};
use crate::bundle::{BundleError, certificates_from_pem};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WantsServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
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

/// Who may vouch for servers outside of the mesh; at least one certificate.
#[derive(Clone, Debug)]
pub struct OutsideRoots(RootCertStore);

/// Why certificates are no roots.
#[derive(Debug, Clone, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum OutsideRootsError {
    /// The text is not certificates in PEM, and nothing else.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pem(#[from] BundleError),
    /// The certificates cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Unusable(#[from] TlsError),
}

impl OutsideRoots {
    /// Roots that somebody chose: certificates in PEM, all of which must be usable.
    ///
    /// # Errors
    /// [`OutsideRootsError`], a private key among them too.
    pub fn chosen(pem: &[u8]) -> Result<Self, OutsideRootsError> {
        let mut store = RootCertStore::empty();
        let (_, ignored) = store.add_parsable_certificates(certificates_from_pem(pem)?);
        match ignored {
            0 => Ok(Self(store)),
            _ => Err(TlsError::WebRoots { ignored }.into()),
        }
    }

    /// Roots that a system has for everybody, in PEM. Such stores hold a few that rustls cannot read.
    ///
    /// # Errors
    /// [`TlsError::WebRoots`] if none can be used.
    pub fn of_system(pem: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        let all = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        match store.add_parsable_certificates(all) {
            (0, ignored) => Err(TlsError::WebRoots { ignored }),
            _ => Ok(Self(store)),
        }
    }
}

/// A client of a server outside of the mesh, who is known by its DNS name and by `roots`, to speak `alpn` and nothing else.
/// `tls_1_2`: whether that version is spoken too. The name is given with each connection, and is asked for (SNI).
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn outside_client_config(
    roots: &OutsideRoots,
    tls_1_2: bool,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let versions: &[&rustls::SupportedProtocolVersion] = match tls_1_2 {
        true => &[&rustls::version::TLS13, &rustls::version::TLS12],
        false => &[&rustls::version::TLS13],
    };
    let mut config = ClientConfig::builder_with_details(PROVIDER.clone(), clock)
        .with_protocol_versions(versions)
        .map_err(TlsError::Configuration)?
        .with_root_certificates(roots.0.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    // A session that is taken up again is one whose certificate nobody looks at.
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
