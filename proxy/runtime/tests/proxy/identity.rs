//! Who is at the other end: what does not prove an identity gets no byte to the application.

use super::world::*;
use mesh_trust::tls::{ExpectedPeer, TlsIdentity, client_config, server_name};
use mesh_trust::{SpiffeId, Svid, TrustBundle, TrustBundles, TrustDomain};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects like a proxy with this SVID and asks for port 8080; what comes back.
async fn dial(world: &World, svid: &SvidPem, header: &[u8]) -> Result<Vec<u8>, String> {
    exchange(connector(world, svid)?, world, header).await
}

/// A mesh connection to `cart` like a proxy's with this SVID; `header` is sent.
pub(super) async fn connect(world: &World, svid: &SvidPem, header: &[u8]) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(world.cart_mesh())
        .await
        .expect("a connection");
    let connector = connector(world, svid).expect("an identity");
    let mut stream = connector
        .connect(server_name(), stream)
        .await
        .expect("a handshake");
    stream.write_all(header).await.expect("room");
    stream
}

/// The handshake of a proxy with this SVID, at an address where perhaps nobody speaks TLS.
pub(super) async fn handshake_at(
    world: &World,
    svid: &SvidPem,
    to: std::net::SocketAddr,
) -> Result<(), String> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let connected = connector(world, svid)?.connect(server_name(), stream).await;
    connected.map(drop).map_err(|error| error.to_string())
}

/// [`dial`] to an opaque port, with other protocols offered than the mesh's.
pub(super) async fn dial_speaking(
    world: &World,
    svid: &SvidPem,
    protocols: Vec<Vec<u8>>,
) -> Result<Vec<u8>, String> {
    let connector = connector(world, svid)?;
    let mut config = rustls::ClientConfig::clone(connector.config());
    config.alpn_protocols = protocols;
    exchange(TlsConnector::from(Arc::new(config)), world, TCP_8080).await
}

fn connector(world: &World, svid: &SvidPem) -> Result<TlsConnector, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(svid.chain.as_bytes())
        .map(|c| c.expect("PEM"))
        .collect();
    let svid_parsed = Svid::parse(chain).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(svid.key.as_bytes()).expect("PEM");
    let identity = TlsIdentity::new(svid_parsed, key).expect("an identity");
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let mut bundles = TrustBundles::default();
    bundles.insert(
        TrustBundle::from_pem(domain, world.authority.root_pem.as_bytes()).expect("a bundle"),
    );
    let expected = ExpectedPeer::OneOf(Arc::from([SpiffeId::parse(CART).expect("an id")]));
    let config = client_config(
        &identity,
        Arc::new(bundles),
        expected,
        &[b"mesh.internal/1"],
    )
    .expect("a configuration");
    Ok(TlsConnector::from(config))
}

async fn exchange(
    connector: TlsConnector,
    world: &World,
    header: &[u8],
) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(world.cart_mesh())
        .await
        .expect("a connection");
    let mut stream = connector
        .connect(server_name(), stream)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(header)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(b"hello")
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer))
        .await
        .expect("an answer or an end");
    let length = read.map_err(|error| error.to_string())?;
    answer.truncate(length);
    Ok(answer)
}

const TCP_8080: &[u8] = b"MESH\x01\x0c\x01\x00\x1f\x90\x00\x00";

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_svid_gets_through_the_handshake() {
    let mut world = World::new(&cart_policy("opaque", &["*"]));
    world.start_cart();
    let _app = echo(world.cart_app()).await;
    let good = world.authority.svid(WEB);
    assert_eq!(
        dial(&world, &good, TCP_8080).await,
        Ok(b"hello".to_vec()),
        "the check of the check"
    );
    let stranger = Authority::new().svid(WEB);
    let foreign = world
        .authority
        .svid("spiffe://other.example/ns/shop/sa/web");
    for (name, svid) in [
        ("another root", stranger),
        ("another trust domain", foreign),
    ] {
        let answer = dial(&world, &svid, TCP_8080).await;
        assert!(
            answer.as_ref().map_or(true, Vec::is_empty),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_and_old_tls_are_refused() {
    let mut world = World::new(&cart_policy("opaque", &["*"]));
    world.start_cart();
    let _app = echo(world.cart_app()).await;
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(world.authority.root_pem.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    for (name, version) in [
        ("TLS 1.3 without certificate", &rustls::version::TLS13),
        ("TLS 1.2", &rustls::version::TLS12),
    ] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth();
        let answer = exchange(TlsConnector::from(Arc::new(config)), &world, TCP_8080).await;
        assert!(
            answer.as_ref().map_or(true, Vec::is_empty),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_header_or_port_ends_the_connection() {
    let mut world = World::new(&cart_policy("opaque", &["*"]));
    world.start_cart();
    let _app = echo(world.cart_app()).await;
    let svid = world.authority.svid(WEB);
    for header in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"MESH\x02\x0c\x01\x00\x1f\x90\x00\x00",
        b"MESH\x01\x0c\x01\x00\x00\x16\x00\x00",
    ] {
        let answer = dial(&world, &svid, header).await;
        assert!(
            answer.as_ref().map_or(true, Vec::is_empty),
            "{header:?}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_the_svid_of_another_service_is_refused() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    world.start_cart_as(
        &world
            .authority
            .svid("spiffe://cluster.local/ns/shop/sa/impostor"),
    );
    world.start_web();
    let answer = get(world.web_to_cart(), "/").await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(
        answer.contains("impostor") && answer.contains("MESH-0473"),
        "says who answered: {answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_svid_is_used_for_new_connections_and_nobody_notices() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
    world.write_svid("web", &world.authority.svid(WEB));
    for _ in 0..60 {
        assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A root is dropped once no live leaf needs it; so no connection may go on standing on an older leaf.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_newer_svid_connections_that_show_the_older_one_are_left() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let socket = world.cart_socket();
    let open = || async {
        let metrics = mesh_api::admin::get(&socket, "/metrics").await;
        let metrics = String::from_utf8(metrics.expect("metrics")).expect("text");
        let mut lines = metrics.lines();
        let open = lines.find_map(|line| line.strip_prefix("mesh_connections "));
        open.expect("the gauge").to_owned()
    };
    assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
    eventually("the proxies are connected", || async {
        open().await == "1"
    })
    .await;
    world.write_svid("cart", &world.authority.svid(CART));
    eventually("they are no longer", || async { open().await == "0" }).await;
    assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_of_its_client() {
    let mut world = World::new(&cart_policy("opaque", &[WEB]));
    world.start_cart();
    world.write_svid(
        "web",
        &world.authority.svid_for(WEB, Duration::from_secs(4)),
    );
    world.start_web_expecting(CART, "opaque");
    let _app = echo(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    stream.write_all(b"x").await.expect("room");
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).await.expect("the echo");
    let ended = tokio::time::timeout(Duration::from_secs(7), stream.read(&mut byte))
        .await
        .expect("an end");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

/// Believes every server: the server is what is tested here.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
