//! rustls configurations for the mesh: TLS 1.3, mutual, hybrid key exchange first, no resumption, no early data.
//!
//! Whoever rotates an SVID or a bundle makes a new configuration and swaps the `Arc`; handshakes begun keep the old.
//! Resumption stays off on both sides: rustls would take a resumed peer's identity from the ticket and not ask the
//! verifier again, so a distrusted peer could come back for a day.

use crate::bundle::TrustBundles;
use crate::path::{PathError, VerifiedPeer};
use crate::svid::{LeafFacts, SvidError};
use crate::{SpiffeId, Svid, Timestamp, TrustDomain};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{
    CertificateError, ClientConfig, CommonState, ConfigBuilder, OtherError, ServerConfig,
};
use rustls_pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, UnixTime};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

mod endpoint;
mod verifier;

pub use endpoint::{
    OutsideRoots, OutsideRootsError, endpoint_config, outside_client_config, web_client_config,
    web_endpoint_config,
};

/// A workload's SVID and its key, ready for handshakes.
#[derive(Clone)]
pub struct TlsIdentity {
    svid: Svid,
    key: Arc<CertifiedKey>,
    clock: Arc<dyn TimeProvider>,
}

/// Whom a client will talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// One of these, as discovery promised. None, if empty.
    OneOf(Arc<[SpiffeId]>),
    /// Any workload of a trust domain. For the few calls that come before discovery.
    AnyInDomain(TrustDomain),
}

/// Why a peer was refused in a handshake; see [`refusal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// What it presented is no SVID.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Svid(#[from] SvidError),
    /// Its SVID is not trusted.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Path(#[from] PathError),
    /// It is trusted, but somebody else than was to be reached.
    #[error("the server is `{found}`; expected was {expected}")]
    #[diagnostic(
        code("MESH-0190"),
        help("the address now belongs to another workload, or traffic is being redirected")
    )]
    Unexpected {
        /// Who answered.
        found: SpiffeId,
        /// Who should have.
        expected: ExpectedPeer,
    },
}

/// Why TLS cannot be set up, or a connection has no peer.
#[derive(Debug, Clone, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum TlsError {
    /// A private key that cannot be used.
    #[error("the private key of `{id}` cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0180"),
        help("it must be P-256, P-384 or Ed25519, in PKCS#8 or SEC1")
    )]
    Key {
        /// Whose key.
        id: SpiffeId,
        /// What the provider says.
        why: String,
    },
    /// A private key that is not the leaf's.
    #[error("the private key is not the one in the certificate of `{id}`")]
    #[diagnostic(
        code("MESH-0181"),
        help("certificate and key come from different renewals; take both from one")
    )]
    KeyMismatch {
        /// Whose certificate.
        id: SpiffeId,
    },
    /// A key for a certificate of the Web that cannot be used, or is another's.
    #[error("the private key for the endpoint's certificate cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0185"),
        help("give the certificate, leaf first, and its own key in PKCS#8, SEC1 or PKCS#1")
    )]
    WebKey {
        /// What the provider says.
        why: String,
    },
    /// No root by which an endpoint could be known.
    #[error("none of the roots can be used ({ignored} cannot be read)")]
    #[diagnostic(
        code("MESH-0186"),
        help(
            "give root certificates in PEM; those of the system are in /etc/ssl/certs/ca-certificates.crt or /etc/pki/tls/certs/ca-bundle.crt"
        )
    )]
    WebRoots {
        /// Certificates that were none.
        ignored: usize,
    },
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured: {0}")]
    #[diagnostic(
        code("MESH-0182"),
        help("this is a defect of the mesh; please report it")
    )]
    Configuration(rustls::Error),
    /// Asked for the peer before the handshake was done.
    #[error("the TLS handshake is not finished")]
    #[diagnostic(
        code("MESH-0183"),
        help("this is a defect of the mesh; please report it")
    )]
    Unfinished,
    /// A connection on which no peer was verified.
    #[error("the TLS connection has no verified peer")]
    #[diagnostic(
        code("MESH-0184"),
        help("this is a defect of the mesh; please report it")
    )]
    NoPeer,
    /// What the peer presented cannot be read, although it passed the verifier.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Svid(#[from] SvidError),
}

impl TlsIdentity {
    /// Takes an SVID and its private key.
    ///
    /// # Errors
    /// [`TlsError::Key`] if the key cannot be read, [`TlsError::KeyMismatch`] if it is not the leaf's.
    pub fn new(svid: Svid, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let id = || svid.id().clone();
        let certified =
            CertifiedKey::from_der(svid.chain().to_vec(), key, &PROVIDER).map_err(|error| {
                match error {
                    rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { id: id() },
                    other => TlsError::Key {
                        id: id(),
                        why: other.to_string(),
                    },
                }
            })?;
        // A provider that cannot tell answers `Unknown`; ours can, so that would be a mismatch as well.
        certified
            .keys_match()
            .map_err(|_| TlsError::KeyMismatch { id: id() })?;
        Ok(Self {
            svid,
            key: Arc::new(certified),
            clock: Arc::new(DefaultTimeProvider),
        })
    }

    /// The same identity, whose handshakes take the time from `clock` instead of the system.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn TimeProvider>) -> Self {
        self.clock = clock;
        self
    }

    /// The SVID it presents.
    pub fn svid(&self) -> &Svid {
        &self.svid
    }
}

impl TlsIdentity {
    /// Its private key, for statements.
    pub(crate) fn signing_key(&self) -> &dyn SigningKey {
        &*self.key.key
    }
}

impl PeerRefusal {
    /// Whether the chain leads to no anchor of its domain: what a verifier says that lacks a root.
    pub fn lacks_anchor(&self) -> bool {
        matches!(self, Self::Path(PathError::NotSigned { .. }))
    }
}

/// Asks the verifier of every handshake under `bundles` about a chain, leaf first, without a handshake.
///
/// # Errors
/// [`PeerRefusal`], as a handshake would meet it.
pub fn check_chain(
    bundles: &TrustBundles,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<VerifiedPeer, PeerRefusal> {
    let (leaf, intermediates) = chain.split_first().ok_or(SvidError::Empty)?;
    let secs = now.unix_secs().try_into().unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(secs));
    verifier::verify(bundles, leaf, intermediates, now)
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("id", self.svid.id())
            .field("serial", &self.svid.serial())
            .finish_non_exhaustive()
    }
}

impl ExpectedPeer {
    /// Whether `id` is whom we want.
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::OneOf(ids) => ids.contains(id),
            Self::AnyInDomain(domain) => id.trust_domain() == domain,
        }
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyInDomain(domain) => write!(f, "anyone in `{domain}`"),
            Self::OneOf(ids) => match ids.as_ref() {
                [] => f.write_str("nobody"),
                [id] => write!(f, "`{id}`"),
                [id, more @ ..] => write!(f, "`{id}` or one of {} more", more.len()),
            },
        }
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // AES-128 first: as safe as needed, and the fastest with AES instructions.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// The cryptography of every mesh handshake: aws-lc-rs, TLS 1.3 suites only, X25519MLKEM768 before all other groups.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// A server that demands a trusted SVID from every client. `alpn` in order of preference.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn server_config(
    identity: &TlsIdentity,
    bundles: Arc<TrustBundles>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    server(
        identity,
        verifier::Clients {
            bundles,
            strangers: false,
        },
        alpn,
    )
}

/// A server for those who have no SVID yet: an issuer's door. A client that shows one must be trusted; of one that shows
/// none [`verified_peer`] says [`TlsError::NoPeer`], and whatever it wants must rest on other evidence.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn server_config_for_strangers(
    identity: &TlsIdentity,
    bundles: Arc<TrustBundles>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    server(
        identity,
        verifier::Clients {
            bundles,
            strangers: true,
        },
        alpn,
    )
}

fn server(
    identity: &TlsIdentity,
    clients: verifier::Clients,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_details(crypto_provider(), identity.clock.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Configuration)?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// A client that presents its SVID and talks to `expected` only. `alpn` in order of preference.
///
/// Sends no server name: identities are SPIFFE IDs. Pass [`server_name`] where rustls wants one.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn client_config(
    identity: &TlsIdentity,
    bundles: Arc<TrustBundles>,
    expected: ExpectedPeer,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let shown = SingleCertAndKey::from(identity.key.clone());
    let known = verifier::Servers::Known { bundles, expected };
    let config = client(known, identity.clock.clone())?.with_client_cert_resolver(Arc::new(shown));
    Ok(Arc::new(finished(config, alpn)))
}

/// A client that has no SVID yet and talks to `expected` only: whoever goes for its first one.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn client_config_without_identity(
    bundles: Arc<TrustBundles>,
    expected: ExpectedPeer,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let known = verifier::Servers::Known { bundles, expected };
    let config = client(known, Arc::new(DefaultTimeProvider))?;
    Ok(Arc::new(finished(config.with_no_client_auth(), alpn)))
}

/// A client that cannot know yet whom to believe, for one question: what are your trust anchors? Whoever answers proves
/// nothing, so the answer counts only if it has the hash that the client was given by other means. Nothing that is secret
/// may be said on such a connection.
///
/// # Errors
/// [`TlsError::Configuration`] if rustls refuses, which is a defect.
pub fn client_config_before_trust(alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let config = client(verifier::Servers::Anybody, Arc::new(DefaultTimeProvider))?;
    Ok(Arc::new(finished(config.with_no_client_auth(), alpn)))
}

fn client(
    servers: verifier::Servers,
    clock: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_details(crypto_provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Configuration)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers)))
}

fn finished(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// What to give rustls as the server's name: an address that is never sent and never checked.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
}

/// The peer of a connection made under [`server_config`] or [`client_config`], after its handshake.
///
/// Trusts the verifier of that configuration, which saw the same certificate; on other connections it proves nothing.
///
/// # Errors
/// [`TlsError::Unfinished`] before the handshake's end; [`TlsError::NoPeer`] if no certificate was verified.
pub fn verified_peer(connection: &CommonState) -> Result<VerifiedPeer, TlsError> {
    if connection.is_handshaking() {
        return Err(TlsError::Unfinished);
    }
    let leaf = connection
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or(TlsError::NoPeer)?;
    Ok(VerifiedPeer::from_facts(LeafFacts::parse(leaf)?))
}

/// Our reason inside an error of rustls, if the handshake failed because we refused the peer.
pub fn refusal(error: &rustls::Error) -> Option<&PeerRefusal> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

/// As [`refusal`], for the IO error that a TLS stream gives.
pub fn refusal_in_io(error: &std::io::Error) -> Option<&PeerRefusal> {
    error.get_ref()?.downcast_ref().and_then(refusal)
}

#[cfg(test)]
mod tests;
