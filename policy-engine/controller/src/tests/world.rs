//! A trust domain of its own in a directory of its own, with a controller and proxies that watch.

use crate::config::{ControllerConfig, IdentitySource, PROXY_PORT, PolicySources};
use mesh_api::admin::ControllerStatus;
use mesh_api::dial::WINDOW_BYTES;
use mesh_api::discovery::Discovery;
use mesh_api::proto::policy_client::PolicyClient;
use mesh_api::proto::{
    DiscoveryUpdate, EquivalenceReport, WatchDiscoveryRequest, WatchWorkloadRequest, WorkloadUpdate,
};
use mesh_api::slices::{Receiver, SLICES, Slices};
use mesh_audits::verify::Verified;
use mesh_audits::{Entry, Line};
use mesh_platform::log_files::LogFiles;
use mesh_platform::{System, files};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::IndexConfig;
use mesh_trust::tls::{ExpectedPeer, TlsIdentity, client_config, crypto_provider, server_name};
use mesh_trust::{Svid, TrustBundle, TrustBundles, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const CONTROLLER: &str = "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller";

pub(super) struct World {
    dir: tempfile::TempDir,
    root: Issuer<'static, KeyPair>,
    root_der: CertificateDer<'static>,
    root_pem: String,
    listen: SocketAddr,
}

/// A running controller.
pub(super) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), crate::ControllerError>>,
}

impl Running {
    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it as a crash would: no last words of its main task.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// One message, read.
pub(super) struct Update {
    pub(super) generation: u64,
    pub(super) snapshot: SnapshotData,
    pub(super) discovery: Discovery,
}

pub(super) struct Watching(Streaming<WorkloadUpdate>);

impl Watching {
    pub(super) async fn next(&mut self) -> Update {
        let message = tokio::time::timeout(Duration::from_secs(10), self.0.message()).await;
        let update = message
            .expect("no update within 10 s")
            .expect("the stream failed")
            .expect("the stream ended");
        Update {
            generation: update.generation,
            snapshot: serde_json::from_slice(&update.snapshot_json).unwrap(),
            discovery: serde_json::from_slice(&update.discovery_json).unwrap(),
        }
    }

    /// As it came.
    pub(super) async fn message(&mut self) -> Option<WorkloadUpdate> {
        self.0.message().await.ok().flatten()
    }

    pub(super) async fn quiet(&mut self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.0.message()).await.is_err()
    }

    pub(super) async fn refusal(&mut self) -> Code {
        let message = tokio::time::timeout(Duration::from_secs(10), self.0.message()).await;
        message
            .expect("neither update nor refusal")
            .expect_err("an update for the wrong one")
            .code()
    }
}

/// A stream of discovery, put together.
pub(super) struct Places {
    updates: Streaming<DiscoveryUpdate>,
    receiver: Receiver,
}

impl Places {
    /// The next whole discovery, and how many slices came for it.
    pub(super) async fn next(&mut self) -> Result<(Slices, usize), Status> {
        let mut slices = 0;
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.updates.message());
            let message = message.await.expect("no news").transpose();
            let message = message.expect("the stream ended")?;
            slices += message.slices.len();
            if let Some(whole) = self.receiver.take(&message).expect("usable") {
                return Ok((whole, slices));
            }
        }
    }

    pub(super) async fn quiet(&mut self, wait: Duration) -> bool {
        let message = tokio::time::timeout(wait, self.updates.message());
        message.await.is_err()
    }
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "root");
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local".try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (root_der, root_pem) = (certificate.der().clone(), certificate.pem());
        // Free at this moment; nobody else binds ports of this range by number.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let world = Self {
            dir,
            root: Issuer::new(params, key),
            root_der,
            root_pem,
            listen: free,
        };
        std::fs::create_dir(world.manifests()).unwrap();
        world.renew_controller();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.path("manifests")
    }

    pub(super) fn admin_socket(&self) -> PathBuf {
        self.path("controller.sock")
    }

    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(super) fn put(&self, name: &str, text: &str) {
        let path = self.manifests().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        files::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests().join(name)).unwrap();
    }

    fn issue(&self, id: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.root).unwrap(), key)
    }

    pub(super) fn renew_controller(&self) {
        let (certificate, key) = self.issue(CONTROLLER);
        files::write_atomic(&self.path("key.pem"), key.serialize_pem().as_bytes(), 0o600).unwrap();
        files::write_atomic(&self.path("bundle.pem"), self.root_pem.as_bytes(), 0o600).unwrap();
        files::write_atomic(&self.path("chain.pem"), certificate.pem().as_bytes(), 0o600).unwrap();
    }

    pub(super) fn hide_identity(&self) {
        std::fs::remove_file(self.path("chain.pem")).unwrap();
    }

    pub(super) async fn start_unready(&self) -> Running {
        self.start_with(IndexConfig::new(domain())).await
    }

    pub(super) async fn start_with(&self, index: IndexConfig) -> Running {
        let config = config(self.dir.path(), self.listen, index);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { _ = stopped.await };
        let task = tokio::spawn(crate::run(config, System::new(), shutdown));
        let socket = self.admin_socket();
        for _ in 0..500 {
            if mesh_api::admin::get(&socket, "/live").await.is_ok() {
                return Running { stop, task };
            }
            if task.is_finished() {
                panic!("{:?}", task.await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no admin socket");
    }

    /// A controller in a process of its own, which is the test of that name. It finds what it needs in its directory.
    pub(super) fn start_apart(&self, test: &str) -> std::process::Child {
        let listen = self.listen.to_string();
        files::write_atomic(&self.path("listen"), listen.as_bytes(), 0o600).unwrap();
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test])
            .current_dir(self.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(super) async fn start(&self) -> Running {
        let running = self.start_unready().await;
        self.until_status(|status| status.ready).await;
        running
    }

    pub(super) async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let answer = mesh_api::admin::get(&self.admin_socket(), path)
            .await
            .unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Whether a controller answers, and is ready.
    pub(super) async fn is_ready(&self) -> bool {
        let answer = mesh_api::admin::get(&self.admin_socket(), "/status").await;
        let status = answer.map(|json| serde_json::from_slice::<ControllerStatus>(&json));
        status.is_ok_and(|status| status.is_ok_and(|status| status.ready))
    }

    pub(super) async fn until_status(
        &self,
        wanted: impl Fn(&ControllerStatus) -> bool,
    ) -> ControllerStatus {
        for _ in 0..500 {
            let status: ControllerStatus = self.ask("/status").await;
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {:?}", self.ask::<ControllerStatus>("/status").await);
    }

    pub(super) async fn watch(&self, workload: &str, account: &str) -> Result<Watching, Status> {
        self.watch_as(
            &format!("spiffe://cluster.local/ns/shop/sa/{account}"),
            "shop",
            workload,
        )
        .await
    }

    pub(super) async fn watch_as(
        &self,
        id: &str,
        namespace: &str,
        workload: &str,
    ) -> Result<Watching, Status> {
        self.watch_keeping(id, (namespace, workload), false).await
    }

    /// As a proxy that asks for discovery apart.
    pub(super) async fn watch_apart(
        &self,
        id: &str,
        (namespace, workload): (&str, &str),
    ) -> Result<(Watching, PolicyClient<Channel>), Status> {
        let mut client = self.client(id).await?;
        let request = WatchWorkloadRequest {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            keeps_discovery: true,
            discovery_apart: true,
        };
        let updates = client.watch_workload(request).await?.into_inner();
        Ok((Watching(updates), client))
    }

    async fn client(&self, id: &str) -> Result<PolicyClient<Channel>, Status> {
        let client = self.connect_to(self.listen, id).await;
        client.map_err(|error| Status::unknown(format!("{error:?}")))
    }

    /// Discovery, by a proxy that has this.
    pub(super) async fn watch_places(
        &self,
        id: &str,
        place: (&str, &str),
        has: Slices,
    ) -> Result<Places, Status> {
        let request = places_request(place, has.has());
        let updates = self.client(id).await?.watch_discovery(request).await?;
        Ok(Places {
            updates: updates.into_inner(),
            receiver: Receiver::new(has),
        })
    }

    /// Discovery as it comes, on a connection that stands, by a proxy that has none.
    pub(super) async fn places_of(
        mut client: PolicyClient<Channel>,
        place: (&str, &str),
    ) -> Result<Streaming<DiscoveryUpdate>, Status> {
        let request = places_request(place, Vec::new());
        Ok(client.watch_discovery(request).await?.into_inner())
    }

    /// As a proxy that keeps discovery which is left out, or one that does not.
    pub(super) async fn watch_keeping(
        &self,
        id: &str,
        (namespace, workload): (&str, &str),
        keeps_discovery: bool,
    ) -> Result<Watching, Status> {
        let mut client = self
            .connect_to(self.listen, id)
            .await
            .map_err(|error| Status::unknown(format!("{error:?}")))?;
        let request = WatchWorkloadRequest {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            keeps_discovery,
            discovery_apart: false,
        };
        Ok(Watching(client.watch_workload(request).await?.into_inner()))
    }

    /// Says, as `id`, what came of trying the policy of a workload.
    pub(super) async fn report(
        &self,
        id: &str,
        workload: &str,
        generation: u64,
        json: &str,
    ) -> Result<(), Status> {
        let mut client = self
            .connect_to(self.listen, id)
            .await
            .map_err(|error| Status::unknown(format!("{error:?}")))?;
        let report = EquivalenceReport {
            namespace: "shop".to_owned(),
            workload: workload.to_owned(),
            generation,
            assurance_json: json.as_bytes().to_vec(),
            policy_digest: String::new(),
        };
        client.report_equivalence(report).await.map(drop)
    }

    fn tls_client(&self, id: &str) -> Arc<rustls::ClientConfig> {
        let (certificate, key) = self.issue(id);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let svid = Svid::parse(vec![certificate.der().clone()]).unwrap();
        let identity = TlsIdentity::new(svid, key).unwrap();
        let mut bundles = TrustBundles::default();
        bundles.insert(TrustBundle::new(domain(), vec![self.root_der.clone()]).unwrap());
        let controller = mesh_trust::SpiffeId::parse(CONTROLLER).unwrap();
        client_config(
            &identity,
            Arc::new(bundles),
            ExpectedPeer::OneOf([controller].into()),
            &[b"h2"],
        )
        .unwrap()
    }

    /// A whole connection: with TLS 1.3 a client learns of its refusal only from the first answer.
    pub(super) async fn connect_to(
        &self,
        address: SocketAddr,
        id: &str,
    ) -> Result<PolicyClient<Channel>, tonic::transport::Error> {
        let config = self.tls_client(id);
        let channel = tonic::transport::Endpoint::from_static("http://controller")
            .initial_stream_window_size(WINDOW_BYTES.0)
            .initial_connection_window_size(WINDOW_BYTES.1)
            .connect_with_connector(tower::service_fn(move |_| {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
                async move {
                    let stream = TcpStream::connect(address).await?;
                    let stream = connector.connect(server_name(), stream).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            }))
            .await?;
        Ok(PolicyClient::new(channel).max_decoding_message_size(64 << 20))
    }

    pub(super) async fn connect_without_certificate(&self) -> Result<(), std::io::Error> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root_der.clone()).unwrap();
        #[derive(Debug)]
        struct Anyone(Arc<rustls::crypto::CryptoProvider>);
        impl rustls::client::danger::ServerCertVerifier for Anyone {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &rustls::pki_types::ServerName<'_>,
                _: &[u8],
                _: rustls::pki_types::UnixTime,
            ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
                Ok(rustls::client::danger::ServerCertVerified::assertion())
            }
            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error>
            {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }
            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error>
            {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }
            fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
                self.0.signature_verification_algorithms.supported_schemes()
            }
        }
        let provider = crypto_provider();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.listen).await?;
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(server_name(), stream)
            .await?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await?;
        stream.read_exact(&mut [0; 9]).await.map(drop)
    }

    /// Serial number of the certificate that the controller presents now.
    pub(super) async fn served_serial(&self) -> String {
        let config = self.tls_client("spiffe://cluster.local/ns/shop/sa/cart");
        let stream = TcpStream::connect(self.listen).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(server_name(), stream)
            .await
            .unwrap();
        mesh_trust::tls::verified_peer(stream.get_ref().1)
            .unwrap()
            .serial()
            .to_owned()
    }

    /// Proves the controller's audit log.
    pub(super) fn verify_audit(&self) -> Verified {
        let audit = self.path("audit");
        let key = files::read_to_string(&audit.join("controller.pub")).unwrap();
        let key = mesh_tlog::VerifierKey::parse(&key).unwrap();
        let log = LogFiles::open(&audit.join("controller.jsonl")).unwrap();
        log.walk(&key, Vec::new(), &mut |_, _| {}).unwrap()
    }

    /// What the controller's audit log says.
    pub(super) fn audit_entries(&self) -> Vec<Entry> {
        let text = files::read_to_string(&self.path("audit/controller.jsonl")).unwrap();
        text.lines()
            .map(|line| Line::read(line.as_bytes()).unwrap().entry)
            .collect()
    }
}

fn places_request((namespace, workload): (&str, &str), has: Vec<u8>) -> WatchDiscoveryRequest {
    WatchDiscoveryRequest {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        slices: u32::from(SLICES),
        has,
    }
}

/// Of a controller that lives in `dir`.
pub(super) fn config(dir: &Path, listen: SocketAddr, index: IndexConfig) -> ControllerConfig {
    ControllerConfig {
        sources: PolicySources::Manifests(vec![dir.join("manifests")]),
        listen,
        identity: IdentitySource::Files {
            chain: dir.join("chain.pem"),
            key: dir.join("key.pem"),
            bundle: dir.join("bundle.pem"),
        },
        state_dir: dir.join("controller"),
        audit_dir: dir.join("audit"),
        admin_socket: dir.join("controller.sock"),
        probes: None,
        index,
        proxy_port: PROXY_PORT,
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// A pod and its Service, both of this name, with a service account of the same name.
pub(super) fn pod(name: &str) -> String {
    let last = name.len();
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {name}}}
spec:
  serviceAccountName: {name}
  containers:
  - name: app
    image: none
    ports:
    - containerPort: 8080
status:
  podIP: 127.64.{last}.1
  conditions:
  - type: Ready
    status: \"True\"
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: shop
spec:
  selector: {{app: {name}}}
  ports:
  - port: 80
    targetPort: 8080
"
    )
}

/// A Server for `server`, and the permission for `client` to call it.
pub(super) fn policy(server: &str, client: &str) -> String {
    format!(
        "---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata:
  name: {server}
  namespace: shop
spec:
  podSelector:
    matchLabels: {{app: {server}}}
  port: 8080
  proxyProtocol: HTTP/1
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata:
  name: {client}
  namespace: shop
spec:
  identityRefs:
  - kind: ServiceAccount
    name: {client}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata:
  name: {server}-{client}
  namespace: shop
spec:
  targetRef:
    group: policy.linkerd.io
    kind: Server
    name: {server}
  requiredAuthenticationRefs:
  - group: policy.linkerd.io
    kind: MeshTLSAuthentication
    name: {client}
"
    )
}
