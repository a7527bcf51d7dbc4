//! TLS that a proxy begins for requests that its application sends in plaintext: to whom, and that nothing leaves otherwise.

use super::egress::{hello, hosts, network, route};
use super::world::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An authority of the web, and a certificate of it.
struct Web {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Web {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).expect("a root").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }

    /// A certificate for a name, valid for some days from now.
    fn server(&self, name: &str, from: i64, to: i64) -> Speaks {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a clock");
        let at = |days: i64| {
            let secs = now.as_secs() as i64 + days * 86_400;
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs as u64)
        };
        (params.not_before, params.not_after) = (at(from), at(to));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Speaks::Tls {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            versions: rustls::ALL_VERSIONS,
            alpn: &[b"h2", b"http/1.1"],
        }
    }

    fn api(&self) -> Speaks {
        self.server("api.example", -1, 1)
    }
}

/// What the server does at the port to which TLS is begun.
enum Speaks {
    Tls {
        chain: String,
        key: String,
        versions: &'static [&'static rustls::SupportedProtocolVersion],
        alpn: &'static [&'static [u8]],
    },
    Plaintext,
    /// Closes what it accepts.
    Nothing,
}

/// What servers outside have seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Connections at the port that the application dials.
    plain: usize,
    /// Connections at the port to which TLS is begun.
    dialled: usize,
    /// Server name and inner protocol of every handshake.
    begun: Vec<(Option<String>, Option<String>)>,
    /// Heads of requests.
    heads: Vec<String>,
}

struct Stage {
    world: World,
    seen: Arc<Mutex<Seen>>,
}

/// The address that the application dials, and the port to which TLS is begun there.
fn outside(world: &World) -> SocketAddr {
    world.address(50, 443)
}
const TLS_PORT: u16 = 8443;

static ONLY_1_2: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];

/// A network that denies, and a route for hosts that begins TLS by these roots.
fn begins(world: &World, hostnames: &str, roots: &str, more: &str) -> String {
    let roots = serde_json::to_string(roots).expect("text");
    annotated(
        world,
        hostnames,
        &format!(
            "mesh.internal/originate-tls: \"{TLS_PORT}\", mesh.internal/tls-roots: {roots}{more}"
        ),
    )
}

fn annotated(world: &World, hostnames: &str, annotations: &str) -> String {
    let route = route("HTTPRoute", "v1", &hosts(hostnames)).replace(
        "namespace: shop }",
        &format!("namespace: shop, annotations: {{ {annotations} }} }}"),
    );
    network(world, "shop", "all", "Deny") + &route
}

impl Stage {
    async fn new(speaks: Speaks, policy: impl FnOnce(&World) -> String) -> Self {
        let mut world = World::new("");
        world.write_policy(&policy(&world));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let plain = TcpListener::bind(outside(&world))
            .await
            .expect("an address");
        let counts = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                counts.lock().expect("counts").plain += 1;
                tokio::spawn(mirror(stream, counts.clone()));
            }
        });
        let at = SocketAddr::new(outside(&world).ip(), TLS_PORT);
        serve(at, speaks, seen.clone()).await;
        world.write_svid("web", &world.authority.svid(WEB));
        let (listen, to) = (world.address(20, 8000), outside(&world));
        let mesh = world.address(11, 15008);
        let parts = format!(
            "inbound:\n  mesh: {mesh}\noutbound:\n- {{ listen: \"{listen}\", outside: \"{to}\" }}\n"
        );
        world.start("web", &parts, world.address(11, 15020));
        Self { world, seen }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("counts").clone()
    }

    async fn get(&self, host: &str) -> String {
        let request = format!("GET /a/../b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(self.world.address(20, 8000), request.as_bytes()).await
    }

    async fn counted(&self, series: &str) -> u64 {
        let text = get(self.world.address(11, 15020), "/metrics").await;
        let found = text.lines().filter(|line| line.starts_with(series));
        let values = found.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }

    async fn outcomes(&self, outcome: &str) -> u64 {
        let series = format!("mesh_egress_tls_total{{outcome=\"{outcome}\"");
        self.counted(&series).await
    }
}

async fn serve(at: SocketAddr, speaks: Speaks, seen: Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind(at).await.expect("an address");
    let config = match &speaks {
        Speaks::Tls {
            chain,
            key,
            versions,
            alpn,
        } => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .expect("a certificate");
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
        }
        Speaks::Plaintext | Speaks::Nothing => None,
    };
    let closes = matches!(speaks, Speaks::Nothing);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seen.lock().expect("counts").dialled += 1;
            let (config, seen) = (config.clone(), seen.clone());
            tokio::spawn(async move {
                let Some(config) = config else {
                    return match closes {
                        true => drop(stream),
                        false => puzzled(stream).await,
                    };
                };
                let Ok(stream) = config.accept(stream).await else {
                    return;
                };
                let connection = stream.get_ref().1;
                let name = connection.server_name().map(str::to_owned);
                let inside = connection.alpn_protocol();
                let inside = inside.map(|name| String::from_utf8_lossy(name).into_owned());
                let h2 = inside.as_deref() == Some("h2");
                seen.lock().expect("counts").begun.push((name, inside));
                match h2 {
                    true => mirror_h2(stream, seen).await,
                    false => mirror(stream, seen).await,
                }
            });
        }
    });
}

/// Answers whatever comes as a server of HTTP answers what it cannot read.
async fn puzzled(mut stream: TcpStream) {
    let mut received = Vec::new();
    if matches!(stream.read_buf(&mut received).await, Ok(n) if n > 0) {
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.ok();
    }
    // Until the other side has read it.
    stream.read_buf(&mut received).await.ok();
}

/// Answers each request over HTTP/1.1 with its head.
async fn mirror(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Mutex<Seen>>) {
    let mut received = Vec::new();
    while matches!(stream.read_buf(&mut received).await, Ok(n) if n > 0) {
        while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let text = String::from_utf8_lossy(&head).into_owned();
            let hangs = text.starts_with("GET /hangs");
            seen.lock().expect("counts").heads.push(text);
            if hangs {
                continue;
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
            let answer = [answer.as_bytes(), &head].concat();
            if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// Answers each call over HTTP/2 with the scheme that it names.
async fn mirror_h2(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Mutex<Seen>>) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let uri = request.uri().to_string();
        seen.lock().expect("counts").heads.push(uri);
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0");
        let response = response.body(()).expect("a response");
        respond.send_response(response, true).expect("sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_plaintext_leave_in_tls_over_one_connection() {
    let web = Web::new("one");
    let root = web.root.clone();
    let mut stage = Stage::new(web.api(), |world| begins(world, "api.example", &root, "")).await;
    let mut client = TcpStream::connect(stage.world.address(20, 8000))
        .await
        .expect("a connection");
    for number in 0..3 {
        let request = format!("GET /a/../n{number} HTTP/1.1\r\nHost: API.example.\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let wanted = format!("GET /n{number} HTTP/1.1\r\n");
        while !String::from_utf8_lossy(&answer).contains(&wanted) || !answer.ends_with(b"\r\n\r\n")
        {
            let read = client.read_buf(&mut answer).await.expect("an answer");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
    }
    drop(client);
    let seen = stage.seen();
    let http1 = Some("http/1.1".to_owned());
    assert_eq!(seen.begun, [(Some("api.example".to_owned()), http1)]);
    assert_eq!((seen.plain, seen.dialled, seen.heads.len()), (0, 1, 3));
    assert!(
        seen.heads[0]
            .to_lowercase()
            .contains("host: api.example\r\n"),
        "{seen:?}"
    );
    assert_eq!(stage.outcomes("begun").await, 1);
    assert_eq!(stage.counted("mesh_outbound_plaintext_total").await, 0);
    let records = stage.world.records("web");
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(record["verdict"], "allow");
        assert_eq!(record["egress"]["to"], outside(&stage.world).to_string());
        assert_eq!(record["egress"]["server_name"], "api.example");
        assert_eq!(record["egress"]["tls_port"], TLS_PORT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_prove_its_name_gets_nothing() {
    let (web, other) = (Web::new("one"), Web::new("other"));
    let only_1_2 = || match web.api() {
        Speaks::Tls { chain, key, .. } => Speaks::Tls {
            chain,
            key,
            versions: &ONLY_1_2,
            alpn: &[],
        },
        other => other,
    };
    let cases = [
        (
            web.server("b.example", -1, 1),
            "wrong-name",
            "for another name",
        ),
        (
            web.server("*.api.example", -1, 1),
            "wrong-name",
            "for another name",
        ),
        (other.api(), "unknown-issuer", "none of the roots"),
        // One that has the root's name, and not its key.
        (Web::new("one").api(), "bad-certificate", "cannot be used"),
        (web.server("api.example", -3, -1), "expired", "has expired"),
        (
            web.server("api.example", 1, 3),
            "not-yet-valid",
            "not valid yet",
        ),
        (Speaks::Plaintext, "not-tls", "no TLS"),
        (Speaks::Nothing, "closed", "closed the connection"),
        (only_1_2(), "version", "no version"),
    ];
    for (speaks, outcome, why) in cases {
        let root = web.root.clone();
        let policy = |world: &World| begins(world, "api.example", &root, "");
        let stage = Stage::new(speaks, policy).await;
        let answer = stage.get("api.example").await;
        let seen = stage.seen();
        assert_eq!(stage.outcomes(outcome).await, 1, "{outcome}: {answer}");
        assert_eq!((seen.plain, seen.dialled), (0, 1), "{outcome}");
        assert_eq!(stage.counted("mesh_outbound_plaintext_total").await, 0);
        assert_eq!(status(&answer), "502", "{outcome}: {answer}");
        let at = format!("{}:{TLS_PORT}", outside(&stage.world).ip());
        for part in ["MESH-0405", "`api.example`", at.as_str(), why] {
            assert!(answer.contains(part), "{outcome}: {part}: {answer}");
        }
        assert!(seen.heads.is_empty(), "{outcome}: {seen:?}");
        assert_eq!(stage.outcomes("begun").await, 0, "{outcome}");
    }
    // Who asks for it speaks the version before.
    let more = ", mesh.internal/tls-min-version: \"1.2\"";
    let policy = |world: &World| begins(world, "api.example", &web.root, more);
    let stage = Stage::new(only_1_2(), policy).await;
    assert_eq!(status(&stage.get("api.example").await), "200");
    assert_eq!(stage.seen().begun, [(Some("api.example".to_owned()), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_does_not_let_out_is_not_dialled() {
    let web = Web::new("one");
    let root = web.root.clone();
    let mut stage = Stage::new(web.api(), |world| begins(world, "api.example", &root, "")).await;
    for host in ["evil.example", "api.example.evil.example", "203.0.113.7"] {
        let answer = stage.get(host).await;
        assert_eq!(status(&answer), "403", "{answer}");
        assert!(answer.contains("MESH-0445"), "{answer}");
    }
    // TLS of the application passes through nowhere: nobody begins TLS in TLS.
    for name in [Some("api.example"), None] {
        let answer = raw(stage.world.address(20, 8000), &hello(name)).await;
        assert!(answer.is_empty(), "{answer}");
    }
    let seen = stage.seen();
    assert_eq!(seen, Seen::default(), "nothing was let out so far");
    // Not for this workload.
    let others = begins(
        &stage.world,
        "api.example",
        &web.root,
        ", mesh.internal/service-accounts: billing",
    );
    stage.world.write_policy(&others);
    eventually("the route is another's", async || {
        status(&stage.get("api.example").await) == "403"
    })
    .await;
    let seen = stage.seen();
    assert_eq!(seen.plain, 0, "{seen:?}");
    let records = stage.world.records("web");
    let allowed = records
        .iter()
        .filter(|one| one["verdict"] == "allow")
        .count();
    assert_eq!(seen.heads.len(), allowed, "{seen:?}");
    assert_eq!(seen.dialled, allowed.min(1), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_that_cannot_be_read_let_nothing_out() {
    let web = Web::new("one");
    let root = serde_json::to_string(&web.root).expect("text");
    let begin = format!("mesh.internal/originate-tls: \"{TLS_PORT}\"");
    let key = serde_json::to_string(&web.issuer.key().serialize_pem()).expect("text");
    let cases = [
        begin.clone(),
        format!("mesh.internal/tls-roots: {root}"),
        "mesh.internal/tls-min-version: \"1.3\"".to_owned(),
        format!("mesh.internal/originate-tls: \"0\", mesh.internal/tls-roots: {root}"),
        format!("mesh.internal/originate-tls: https, mesh.internal/tls-roots: {root}"),
        format!("{begin}, mesh.internal/tls-roots: System"),
        format!("{begin}, mesh.internal/tls-roots: \"\""),
        format!("{begin}, mesh.internal/tls-roots: {key}"),
        format!("{begin}, mesh.internal/tls-roots: {root}, mesh.internal/tls-min-version: \"1.1\""),
    ];
    let first = cases[0].clone();
    let stage = Stage::new(web.api(), |world| annotated(world, "api.example", &first)).await;
    for case in cases {
        let good = annotated(&stage.world, "b.example", "");
        stage.world.write_policy(&good);
        eventually("b is let out", async || {
            status(&stage.get("b.example").await) == "200"
        })
        .await;
        let before = stage.seen();
        stage
            .world
            .write_policy(&annotated(&stage.world, "api.example", &case));
        eventually(&case, async || {
            status(&stage.get("b.example").await) == "403"
        })
        .await;
        let reached = stage.seen();
        let answer = stage.get("api.example").await;
        assert_eq!(status(&answer), "403", "{case}: {answer}");
        assert!(answer.contains("is invalid"), "{case}: {answer}");
        assert_eq!(stage.seen(), reached, "{case}");
        assert_eq!(reached.dialled, before.dialled, "{case}");
    }
    assert_eq!(stage.seen().dialled, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stands_carries_nothing_for_another_name_or_by_other_roots() {
    let (web, other) = (Web::new("one"), Web::new("other"));
    let names = "api.example, b.example";
    let stage = Stage::new(web.api(), |world| begins(world, names, &web.root, "")).await;
    assert_eq!(status(&stage.get("api.example").await), "200");
    let answer = stage.get("b.example").await;
    assert_eq!(status(&answer), "502", "{answer}");
    assert_eq!(stage.seen().heads.len(), 1);
    stage
        .world
        .write_policy(&begins(&stage.world, names, &other.root, ""));
    eventually("the roots are others", async || {
        status(&stage.get("api.example").await) == "502"
    })
    .await;
    assert!(stage.outcomes("unknown-issuer").await > 0);
    // The system's roots are asked for by name, and know nothing of this authority.
    stage
        .world
        .write_policy(&begins(&stage.world, "api.example", "system", ""));
    eventually("the roots are the system's", async || {
        status(&stage.get("b.example").await) == "403"
    })
    .await;
    let answer = stage.get("api.example").await;
    assert_eq!(status(&answer), "502", "{answer}");
    assert!(answer.contains("roots"), "{answer}");
    assert_eq!(stage.seen().plain, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_leave_in_tls_to_who_speaks_http2_there() {
    let web = Web::new("one");
    let grpc = |world: &World| {
        let text = begins(world, "cart.example", &web.root, "");
        text.replace("kind: HTTPRoute", "kind: GRPCRoute")
    };
    let call = async |stage: &Stage| {
        let request = http::Request::post("http://cart.example/say.Say/Once")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = request.body(()).expect("a request");
        let mut client = h2_client(stage.world.address(20, 8000)).await;
        let (response, _) = client.send_request(request, true).expect("sent");
        let response = response.await.expect("an answer");
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("text").to_owned())
        };
        (
            header("grpc-status").unwrap_or_default(),
            header("grpc-message").unwrap_or_default(),
        )
    };
    let stage = Stage::new(web.server("cart.example", -1, 1), grpc).await;
    assert_eq!(call(&stage).await.0, "0");
    let seen = stage.seen();
    assert_eq!(seen.heads, ["https://cart.example/say.Say/Once"]);
    assert_eq!(seen.begun[0].1.as_deref(), Some("h2"));
    let without = match web.server("cart.example", -1, 1) {
        Speaks::Tls { chain, key, .. } => Speaks::Tls {
            chain,
            key,
            versions: rustls::ALL_VERSIONS,
            alpn: &[],
        },
        other => other,
    };
    let stage = Stage::new(without, grpc).await;
    let (code, message) = call(&stage).await;
    assert_eq!(code, "14", "{message}");
    assert!(message.contains("MESH-0405"), "{message}");
    assert_eq!(stage.outcomes("alpn").await, 1);
    assert!(stage.seen().heads.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_plaintext_ends_when_tls_is_to_begin() {
    let web = Web::new("one");
    let plain = |world: &World| annotated(world, "api.example", "");
    let stage = Stage::new(web.api(), plain).await;
    let request = b"GET /hangs HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n";
    let at = stage.world.address(20, 8000);
    let standing = tokio::spawn(async move { raw(at, request).await });
    eventually("it is out", async || stage.seen().heads.len() == 1).await;
    assert_eq!(stage.seen().plain, 1);
    let tls = begins(&stage.world, "api.example", &web.root, "");
    stage.world.write_policy(&tls);
    let answer = standing.await.expect("an answer");
    assert!(answer.contains("MESH-0446"), "{answer}");
    assert_eq!(status(&stage.get("api.example").await), "200");
    assert_eq!((stage.seen().plain, stage.seen().begun.len()), (1, 1));
}
