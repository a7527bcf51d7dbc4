//! A mesh of two workloads in one process: `web` calls `cart`. SVIDs are made here, policy is in files.

use bytes::Bytes;
use mesh_platform::System;
use mesh_proxy::{Running, config::file};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A root and what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root_pem: String,
}

/// An SVID in PEM.
#[derive(Clone)]
pub(crate) struct SvidPem {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_pem = params.self_signed(&key).expect("a root").pem();
        Self {
            issuer: Issuer::new(params, key),
            root_pem,
        }
    }

    pub(crate) fn svid(&self, id: &str) -> SvidPem {
        self.svid_for(id, Duration::from_secs(3600))
    }

    pub(crate) fn svid_for(&self, id: &str, lifetime: Duration) -> SvidPem {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a URI"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from(rand_bytes().to_vec()));
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a clock after 1970");
        let at = |offset: i64| {
            let secs = now.as_secs() as i64 + offset;
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs as u64)
        };
        params.not_before = at(-60);
        params.not_after = at(lifetime.as_secs() as i64);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        SvidPem {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn rand_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    mesh_platform::Platform::fill_random(&*System::new(), &mut bytes);
    bytes[0] &= 0x7f;
    bytes
}

/// Addresses of one test: 127.A.B.x, so that tests run beside each other. What a test has started may outlive it, so none is
/// ever given twice: whoever listens where another does shares its connections with it.
static NEXT: AtomicU16 = AtomicU16::new(1);

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    block: [u8; 2],
    proxies: Vec<Running>,
    /// Share of allows in the audit logs.
    pub(crate) sample: &'static str,
    /// Further settings of the audit logs.
    pub(crate) audit: &'static str,
    /// Whether proxies read where services are from `discovery.json`.
    pub(crate) discovers: bool,
    /// Where proxies that start from now on send spans: a whole line, or nothing.
    pub(crate) traces: String,
}

/// Policy of `cart`: a Server for port 8080, and who may use it.
pub(crate) fn cart_policy(protocol: &str, allowed: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{ name: cart-http, namespace: shop }}
spec:
  podSelector: {{ matchLabels: {{ app: cart }} }}
  port: 8080
  proxyProtocol: {protocol}
"
    );
    if !allowed.is_empty() {
        let list: String = allowed.iter().map(|id| format!("  - \"{id}\"\n")).collect();
        text += &format!(
            "---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{ name: callers, namespace: shop }}
spec:
  identities:
{list}---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{ name: callers, namespace: shop }}
spec:
  targetRef: {{ group: policy.linkerd.io, kind: Server, name: cart-http }}
  requiredAuthenticationRefs:
  - {{ group: policy.linkerd.io, kind: MeshTLSAuthentication, name: callers }}
"
        );
    }
    text
}

const PODS: &str = "apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec:
  serviceAccountName: web
  containers: [{ name: app, ports: [{ containerPort: 9000 }] }]
---
apiVersion: v1
kind: Pod
metadata: { name: cart, namespace: shop, labels: { app: cart } }
spec:
  serviceAccountName: cart
  containers: [{ name: app, ports: [{ containerPort: 8080 }] }]
";

impl World {
    pub(crate) fn new(policy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("manifests")).expect("a folder");
        fs::write(folder.path().join("manifests/pods.yaml"), PODS).expect("a file");
        let process = (std::process::id() % 100) as u8;
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        assert!(high < 2, "tests have more worlds than there are addresses");
        let block = [20 + process + 100 * high, low];
        let world = Self {
            folder,
            authority: Authority::new(),
            block,
            proxies: Vec::new(),
            sample: "1.0",
            audit: "",
            discovers: false,
            traces: String::new(),
        };
        world.write_policy(policy);
        world
    }

    /// A world where both proxies run, with SVIDs of their own.
    pub(crate) fn running(policy: &str) -> Self {
        let mut world = Self::new(policy);
        world.start_cart();
        world.start_web();
        world
    }

    /// The same, `web` sending bytes.
    pub(crate) fn of_bytes(policy: &str) -> Self {
        let mut world = Self::new(policy);
        world.start_cart();
        world.write_svid("web", &world.authority.svid(WEB));
        world.start_web_expecting(CART, "opaque");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_policy(&self, policy: &str) {
        let path = self.path("manifests/policy.yaml");
        fs::write(path.with_extension("new"), policy).expect("a file");
        fs::rename(path.with_extension("new"), path).expect("a rename");
    }

    pub(crate) fn address(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(
            IpAddr::V4(Ipv4Addr::new(127, self.block[0], self.block[1], host)),
            port,
        )
    }

    /// Where the application of `cart` listens.
    pub(crate) fn cart_app(&self) -> SocketAddr {
        self.address(2, 8080)
    }

    /// Where proxies reach `cart`.
    pub(crate) fn cart_mesh(&self) -> SocketAddr {
        self.address(1, 15008)
    }

    /// Where clients without a proxy reach `cart`.
    pub(crate) fn cart_plain(&self) -> SocketAddr {
        self.address(1, 8080)
    }

    /// Where the application of `web` reaches `cart`.
    pub(crate) fn web_to_cart(&self) -> SocketAddr {
        self.address(20, 8000)
    }

    pub(crate) fn cart_socket(&self) -> PathBuf {
        self.path("cart/admin.sock")
    }

    pub(crate) fn write_svid(&self, name: &str, svid: &SvidPem) {
        let folder = self.path(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("bundle.pem"), &self.authority.root_pem).expect("a file");
        fs::write(folder.join("chain.pem"), &svid.chain).expect("a file");
        fs::write(folder.join("key.pem"), &svid.key).expect("a file");
    }

    pub(crate) fn start_cart(&mut self) {
        self.start_cart_as(&self.authority.svid(CART));
    }

    pub(crate) fn start_cart_as(&mut self, svid: &SvidPem) {
        self.write_svid("cart", svid);
        let (mesh, plain, app) = (self.cart_mesh(), self.cart_plain(), self.cart_app());
        let inbound = format!(
            "inbound:\n  mesh: {mesh}\n  ports: [{{ listen: \"{plain}\", port: 8080, app: \"{app}\" }}]\n"
        );
        self.start("cart", &inbound, self.address(1, 15020));
    }

    pub(crate) fn start_web(&mut self) {
        self.start_web_as(&self.authority.svid(WEB));
    }

    pub(crate) fn start_web_as(&mut self, svid: &SvidPem) {
        self.write_svid("web", svid);
        self.start_web_expecting(CART, "detect");
    }

    pub(crate) fn start_web_expecting(&mut self, identity: &str, protocol: &str) {
        let (mesh, listen, remote) = (
            self.address(11, 15008),
            self.web_to_cart(),
            self.cart_mesh(),
        );
        let parts = format!(
            "inbound:\n  mesh: {mesh}\noutbound:\n- listen: {listen}\n  protocol: {protocol}\n  endpoints: [{{ proxy: \"{remote}\", port: 8080, identity: \"{identity}\" }}]\n"
        );
        self.start("web", &parts, self.address(11, 15020));
    }

    pub(crate) fn start(&mut self, name: &str, parts: &str, admin: SocketAddr) {
        let folder = self.path(name);
        let discovery = if self.discovers {
            format!(", discovery: {}", self.path("discovery.json").display())
        } else {
            String::new()
        };
        let (folder, manifests) = (folder.display(), self.path("manifests"));
        let text = format!(
            "workload: {{ namespace: shop, name: {name} }}
identity:
  files: {{ chain: {folder}/chain.pem, key: {folder}/key.pem, bundle: {folder}/bundle.pem }}
policy: {{ manifests: {manifests}{discovery} }}
{parts}admin: {{ listen: \"{admin}\", socket: {folder}/admin.sock }}
audit: {{ file: {folder}/{name}.jsonl, allowSample: {sample}{audit} }}
{traces}drainSecs: 5
limits: {{ detectSecs: 2 }}
",
            manifests = manifests.display(),
            sample = self.sample,
            audit = self.audit,
            traces = self.traces
        );
        fs::write(self.path(name).join("proxy.yaml"), &text).expect("a file");
        let config = file::parse(&text, "test.yaml").expect("a valid configuration");
        self.proxies
            .push(mesh_proxy::start(config, System::new()).expect("a proxy"));
        wait_ready(admin);
    }

    /// Ends all proxies; their logs are whole then.
    pub(crate) fn stop(&mut self) {
        // Clients first, so that no server has to wait for them.
        self.proxies.drain(..).rev().for_each(Running::stop);
    }

    /// Ends all proxies, those first that started first.
    pub(crate) fn stop_servers_first(&mut self) {
        self.proxies.drain(..).for_each(Running::stop);
    }

    /// The decisions in the log of `cart`, after its end.
    pub(crate) fn cart_records(&mut self) -> Vec<serde_json::Value> {
        self.records("cart")
    }

    /// The decisions in the log of a workload, after its end.
    pub(crate) fn records(&mut self, name: &str) -> Vec<serde_json::Value> {
        self.entries(name, "decision")
    }

    /// The entries of a kind in the log of a workload, after its end.
    pub(crate) fn entries(&mut self, name: &str, kind: &str) -> Vec<serde_json::Value> {
        self.stop();
        let log = self.path(&format!("{name}/{name}.jsonl"));
        let log = fs::read_to_string(log).expect("the log");
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        lines
            .filter(|line| line["kind"] == kind)
            .map(|line| line["record"].clone())
            .collect()
    }
}

fn wait_ready(admin: SocketAddr) {
    use std::io::{Read, Write};
    for _ in 0..200 {
        if let Ok(mut stream) = std::net::TcpStream::connect(admin) {
            let asked =
                stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            if asked.is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the proxy at {admin} did not become ready");
}

/// An HTTP/1.1 application that answers each request with the head that it received, byte for byte.
pub(crate) async fn mirror(at: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(at)
        .await
        .expect("the application's address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(mirror_connection(stream));
        }
    })
}

async fn mirror_connection(mut stream: TcpStream) {
    let mut received = Vec::new();
    loop {
        while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nl5d-client-id: liar\r\n\r\n",
                head.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err()
                || stream.write_all(&head).await.is_err()
            {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut received).await, Ok(n) if n > 0) {
            return;
        }
    }
}

/// An HTTP/1.1 application that answers each request with `ok`, in one piece.
pub(crate) async fn prompt(at: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(at)
        .await
        .expect("the application's address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut received = Vec::new();
                while matches!(stream.read_buf(&mut received).await, Ok(n) if n > 0) {
                    while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
                        received.drain(..end + 4);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    })
}

/// So many requests of `web` to a prompt `cart`, over one connection, each answered; how long they took.
pub(crate) async fn many(world: &World, count: usize, headers: &str) -> Duration {
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let began = std::time::Instant::now();
    for number in 0..count {
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert!(read > 0, "request {number} was not answered");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "request {number}");
    }
    began.elapsed()
}

/// An application that echoes bytes until the client has finished, then finishes.
pub(crate) async fn echo(at: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(at)
        .await
        .expect("the application's address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let copied = tokio::io::copy(&mut read, &mut write).await;
                let _ = (copied, write.shutdown().await);
            });
        }
    })
}

/// Sends raw bytes and reads until the other side ends, which it may do by a reset as soon as it has accepted.
/// `Connection: close` is the caller's.
pub(crate) async fn raw(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = match TcpStream::connect(to).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return String::new(),
        stream => stream.expect("a connection"),
    };
    if let Err(error) = stream.write_all(request).await {
        let reset = [
            std::io::ErrorKind::ConnectionReset,
            std::io::ErrorKind::BrokenPipe,
        ];
        assert!(reset.contains(&error.kind()), "{error}");
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("an end within ten seconds").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// `GET path` as a plain HTTP/1.1 client; the whole response.
pub(crate) async fn get(to: SocketAddr, path: &str) -> String {
    raw(
        to,
        format!("GET {path} HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n").as_bytes(),
    )
    .await
}

/// The status line's number.
pub(crate) fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("none")
}

/// A client of HTTP/2 that has room for a request.
pub(crate) async fn h2_client(to: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    client.ready().await.expect("room")
}

/// The head of a call of gRPC.
pub(crate) fn grpc_head() -> http::request::Builder {
    http::Request::post("http://cart/say.Say/Once")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// The code in the head of the answer to a call of gRPC without messages, which may take so long.
pub(crate) async fn grpc_code(to: SocketAddr, timeout: Option<&str>) -> Option<String> {
    let request = match timeout {
        Some(timeout) => grpc_head().header("grpc-timeout", timeout),
        None => grpc_head(),
    };
    let request = request.body(()).expect("a request");
    let mut client = h2_client(to).await;
    let (response, _) = client.send_request(request, true).expect("sent");
    let response = response.await.expect("an answer");
    let code = response.headers().get("grpc-status")?;
    Some(code.to_str().expect("text").to_owned())
}

/// Waits until `holds`, for at most five seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..250 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}

pub(crate) fn micros_since(start: std::time::Instant) -> u128 {
    start.elapsed().as_micros()
}
