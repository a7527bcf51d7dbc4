//! Handshakes in memory between a mesh endpoint and peers honest and hostile, on both sides (threat group TL).

use super::*;
use crate::Timestamp;
use crate::forge::{self, *};
use miette::Diagnostic;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    AlertDescription, ClientConnection, ConnectionCommon, DigitallySignedStruct, ServerConnection,
    SideData, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;

mod hostile;
mod protocol;

const CART: &str = "spiffe://td/ns/shop/sa/cart";
const WEB: &str = "spiffe://td/ns/shop/sa/web";
const ALPN: &[&[u8]] = &[b"mesh.internal/1"];

/// A clock that stands.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            self.0.unix_secs().try_into().expect("after 1970"),
        )))
    }
}

/// One trust domain `td` with a root, and identities under it.
struct World {
    root: Authority,
    bundles: Arc<TrustBundles>,
}

impl World {
    fn new() -> Self {
        let root = Authority::root("td");
        let bundles = Arc::new(TrustBundles::from(root.bundle("td")));
        Self { root, bundles }
    }

    fn identity(&self, id: &str) -> TlsIdentity {
        let key = forge::Key::p256();
        let leaf = Template::leaf(id).sign(&key, &self.root.name, &self.root.key);
        let svid = Svid::parse(vec![leaf]).expect("an SVID");
        TlsIdentity::new(svid, key.private())
            .expect("its key")
            .with_clock(Arc::new(At(NOW)))
    }

    fn server(&self) -> Arc<ServerConfig> {
        server_config(&self.identity(CART), self.bundles.clone(), ALPN).expect("a configuration")
    }

    fn client(&self, expected: ExpectedPeer) -> Arc<ClientConfig> {
        client_config(&self.identity(WEB), self.bundles.clone(), expected, ALPN)
            .expect("a configuration")
    }
}

fn one_of(ids: &[&str]) -> ExpectedPeer {
    ExpectedPeer::OneOf(
        ids.iter()
            .map(|id| SpiffeId::parse(id).expect("valid"))
            .collect(),
    )
}

/// Both ends after as much of a handshake as there was, and what each end says about it.
struct Ended {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<rustls::Error>,
    server_error: Option<rustls::Error>,
}

impl Ended {
    /// Whether the server believes in the client. (The client believes earlier: in TLS 1.3 it is done first.)
    fn server_is_done(&self) -> bool {
        !self.server.is_handshaking() && self.server_error.is_none()
    }
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Ended {
    handshake_through(client, server, |_, _| {})
}

/// As [`handshake`], with somebody between who may change what the client (`true`) or the server (`false`) sends.
fn handshake_through(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    mut between: impl FnMut(bool, &mut Vec<u8>),
) -> Ended {
    let client = ClientConnection::new(client.clone(), server_name()).expect("a client");
    let server = ServerConnection::new(server.clone()).expect("a server");
    let mut ended = Ended {
        client,
        server,
        client_error: None,
        server_error: None,
    };
    for _ in 0..10 {
        let mut to_server = sent(&mut ended.client);
        between(true, &mut to_server);
        receive(&mut ended.server, &to_server, &mut ended.server_error);
        let mut to_client = sent(&mut ended.server);
        between(false, &mut to_client);
        receive(&mut ended.client, &to_client, &mut ended.client_error);
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
    }
    ended
}

fn sent<D: SideData>(connection: &mut ConnectionCommon<D>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

fn receive<D: SideData>(
    connection: &mut ConnectionCommon<D>,
    mut bytes: &[u8],
    error: &mut Option<rustls::Error>,
) {
    while !bytes.is_empty() && error.is_none() {
        connection.read_tls(&mut bytes).expect("memory");
        *error = connection.process_new_packets().err();
    }
}

/// Believes any server: what a hostile client does.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &forge::Key) -> Arc<SingleCertAndKey> {
    let key = aws_lc_rs::sign::any_supported_type(&key.private()).expect("a key");
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// A client that presents any chain, or none, and believes any server.
fn hostile_client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    provider: CryptoProvider,
    chain: Option<(Vec<CertificateDer<'static>>, &forge::Key)>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match chain {
        Some((chain, key)) => builder.with_client_cert_resolver(certified(chain, key)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN[0].to_vec()];
    Arc::new(config)
}

/// A server that presents any chain and asks for no certificate.
fn hostile_server(
    versions: &[&'static rustls::SupportedProtocolVersion],
    chain: Vec<CertificateDer<'static>>,
    key: &forge::Key,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(certified(chain, key));
    config.alpn_protocols = vec![ALPN[0].to_vec()];
    Arc::new(config)
}
