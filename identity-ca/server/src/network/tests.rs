//! A whole CA with its door to the network, asked by the client that proxies use and by hostile ones; the API server is
//! played by a table.

use super::*;
use crate::testing::{domain, id, in_thread};
use crate::{CaConfig, run};
use mesh_api::proto::issuance_client::IssuanceClient;
use mesh_ca_client::{Material, RemoteCa, Steering};
use mesh_platform::{System, files};
use mesh_trust::Svid;
use mesh_trust::tls::{ExpectedPeer, TlsIdentity, client_config, client_config_without_identity};
use rcgen::{CertificateParams, KeyPair};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

mod denials;
mod trust;

/// An API server that knows some tokens, each of a pod of the same name as the service account.
#[derive(Default)]
struct Table {
    down: std::sync::atomic::AtomicBool,
    pods: Mutex<BTreeMap<String, Pod>>,
    published: Mutex<Vec<String>>,
}

impl Table {
    fn with(accounts: &[&str]) -> Arc<Self> {
        let table = Self::default();
        for account in accounts {
            let pod = Pod {
                uid: format!("uid-{account}"),
                phase: "Running".to_owned(),
                deleting: false,
                service_account: (*account).to_owned(),
                node: "node-a".to_owned(),
            };
            table
                .pods
                .lock()
                .unwrap()
                .insert((*account).to_owned(), pod);
        }
        Arc::new(table)
    }

    fn check(&self) -> Result<(), String> {
        match self.down.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err("connection refused".to_owned()),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Cluster for Table {
    async fn review(&self, token: &str) -> Result<Review, String> {
        self.check()?;
        let Some(account) = token.strip_prefix("token of ") else {
            return Ok(Review::default());
        };
        let extra = [
            ("authentication.kubernetes.io/pod-name", account.to_owned()),
            (
                "authentication.kubernetes.io/pod-uid",
                format!("uid-{account}"),
            ),
        ];
        Ok(Review {
            authenticated: true,
            audiences: vec![kubernetes::AUDIENCE.to_owned()],
            username: format!("system:serviceaccount:shop:{account}"),
            uid: "sa".to_owned(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                "system:serviceaccounts:shop".to_owned(),
            ],
            extra: extra
                .map(|(key, value)| (key.to_owned(), vec![value]))
                .into(),
            error: None,
        })
    }

    async fn pod(&self, _namespace: &str, name: &str) -> Result<Option<Pod>, String> {
        self.check()?;
        Ok(self.pods.lock().unwrap().get(name).cloned())
    }

    async fn publish(&self, bundle_pem: &str) -> Result<(), String> {
        self.check()?;
        self.published.lock().unwrap().push(bundle_pem.to_owned());
        Ok(())
    }
}

struct House {
    dir: tempfile::TempDir,
    listen: SocketAddr,
    table: Arc<Table>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), CaError>>,
}

fn identity() -> SpiffeId {
    id("ns/mesh-system/sa/mesh-identity")
}

impl House {
    /// A CA whose SVIDs live for `ttl`, and its trust bundle in a file, as a ConfigMap is mounted.
    async fn start(table: Arc<Table>, ttl: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        let config = CaConfig {
            svid_ttl: ttl,
            harden: false,
            trust: Some(dir.path().join("trust.sock")),
            admin: Some(dir.path().join("admin.sock")),
            network: Some(NetworkConfig {
                listen,
                identity: identity(),
                cluster: Some(table.clone()),
                nodes: false,
            }),
            ..CaConfig::new(
                &dir.path().join("ca"),
                domain(),
                &dir.path().join("api.sock"),
                in_thread(&dir.path().join("ca")),
                System::new(),
            )
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(config, async move {
            let _ = stopped.await;
        }));
        let house = Self {
            dir,
            listen,
            table,
            stop,
            task,
        };
        house.wait_for_bundle().await;
        house
    }

    async fn wait_for_bundle(&self) {
        for _ in 0..500 {
            if let Some(pem) = self.table.published.lock().unwrap().last() {
                files::write_atomic(&self.bundle(), pem.as_bytes(), 0o600).unwrap();
            }
            if self.bundle().exists() && tokio::net::TcpStream::connect(self.listen).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the CA does not serve the network");
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    fn bundles(&self) -> Arc<TrustBundles> {
        let pem = files::read(&self.bundle()).unwrap();
        Arc::new(TrustBundles::from(
            TrustBundle::from_pem(domain(), &pem).unwrap(),
        ))
    }

    fn asker(&self, token: &str) -> RemoteCa {
        let path = self.dir.path().join(token.replace(' ', "-"));
        files::write_atomic(&path, token.as_bytes(), 0o600).unwrap();
        RemoteCa {
            address: format!("localhost:{}", self.listen.port()),
            identity: identity(),
            trust_domain: domain(),
            token: path,
            bundle: self.bundle(),
        }
    }

    /// Follows as a proxy does.
    fn follow(&self, token: &str) -> mpsc::UnboundedReceiver<Material> {
        let ca = self.asker(token);
        let (give, taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let platform = System::new();
            let (steering, take) = (Steering::default(), |material| drop(give.send(material)));
            mesh_ca_client::follow(&ca, &*platform, &steering, take).await;
        });
        taken
    }

    /// A connection without certificate.
    async fn stranger(&self) -> IssuanceClient<Channel> {
        let expected = ExpectedPeer::OneOf(Arc::from([identity()]));
        let settings = client_config_without_identity(self.bundles(), expected, &[ALPN]).unwrap();
        IssuanceClient::new(
            mesh_api::dial::connect(&self.listen.to_string(), settings)
                .await
                .unwrap(),
        )
    }

    /// A connection that shows an SVID.
    async fn shown(&self, material: &Material) -> IssuanceClient<Channel> {
        let expected = ExpectedPeer::OneOf(Arc::from([identity()]));
        let svid = Svid::parse(material.chain.clone()).unwrap();
        let tls = TlsIdentity::new(svid, material.key.clone_key()).unwrap();
        let settings = client_config(&tls, self.bundles(), expected, &[ALPN]).unwrap();
        IssuanceClient::new(
            mesh_api::dial::connect(&self.listen.to_string(), settings)
                .await
                .unwrap(),
        )
    }

    fn leaves(&self) -> usize {
        let log = files::read(&self.dir.path().join("ca/issuance.log"));
        let text = String::from_utf8(log.unwrap()).unwrap();
        text.lines()
            .filter(|line| line.contains("\"intent\"") && line.contains("/ns/shop/"))
            .count()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    // Wishes that must come to nothing.
    let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(
        "spiffe://cluster.local/ns/kube-system/sa/admin"
            .try_into()
            .unwrap(),
    ));
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn token(text: &str) -> Option<Evidence> {
    Some(Evidence::KubernetesToken(text.to_owned()))
}

fn issue(evidence: Option<Evidence>) -> IssueRequest {
    IssueRequest {
        certificate_request: csr(),
        evidence,
    }
}

async fn next(taken: &mut mpsc::UnboundedReceiver<Material>) -> Material {
    tokio::time::timeout(Duration::from_secs(20), taken.recv())
        .await
        .expect("no SVID in time")
        .expect("the client ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_its_svid_and_keeps_it_fresh_with_a_new_key_each_time() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(10)).await;
    let mut taken = house.follow("token of cart");
    let (first, second) = (next(&mut taken).await, next(&mut taken).await);
    let mut serials = Vec::new();
    for material in [&first, &second] {
        let svid = Svid::parse(material.chain.clone()).unwrap();
        assert_eq!(*svid.id(), id("ns/shop/sa/cart"));
        let now = System::new().wall_clock();
        house.bundles().verify(&svid, now).expect("a trusted chain");
        serials.push(svid.serial().to_owned());
    }
    assert_ne!(serials[0], serials[1]);
    assert_ne!(first.key.secret_der(), second.key.secret_der());
    assert!(second.bundles.get(&domain()).is_some());
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_a_request_come_to_nothing() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let reply = house
        .stranger()
        .await
        .issue(issue(token("token of cart")))
        .await
        .unwrap();
    let chain = reply
        .into_inner()
        .chain
        .into_iter()
        .map(Into::into)
        .collect();
    assert_eq!(*Svid::parse(chain).unwrap().id(), id("ns/shop/sa/cart"));
    house.end().await;
}

#[test]
fn who_is_denied_while_it_waits_is_told_so_and_nobody_else() {
    let denied = IssuanceError::Denied {
        id: id("ns/shop/sa/cart"),
    };
    let told = |error: &IssuanceError| {
        (
            not_issued(error).code(),
            not_issued(error).message().to_owned(),
        )
    };
    assert_eq!(
        told(&denied),
        (Code::PermissionDenied, "no identity issued".to_owned())
    );
    assert_eq!(told(&IssuanceError::Busy).0, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_proves_nothing_gets_nothing_and_learns_nothing() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let mut client = house.stranger().await;
    let huge = "x".repeat(TOKEN_BYTES_MAX + 1);
    let cases = [
        ("no evidence", None, Code::InvalidArgument),
        ("an empty token", token(""), Code::InvalidArgument),
        ("a huge token", token(&huge), Code::InvalidArgument),
        ("a forged token", token("forged"), Code::PermissionDenied),
        (
            "a deleted pod's token",
            token("token of web"),
            Code::PermissionDenied,
        ),
    ];
    for (what, evidence, code) in cases {
        let status = client.issue(issue(evidence)).await.unwrap_err();
        assert_eq!(status.code(), code, "{what}: {status}");
        if code == Code::PermissionDenied {
            assert_eq!(status.message(), "no identity issued", "{what}");
        }
    }
    let mut other = issue(token("token of cart"));
    other.certificate_request.truncate(100);
    let status = client.issue(other).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    house
        .table
        .down
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let status = client
        .issue(issue(token("token of cart")))
        .await
        .unwrap_err();
    assert_eq!(
        status.code(),
        Code::Unavailable,
        "no word of the API server is no yes"
    );
    assert_eq!(house.leaves(), 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_token_does_not_carry_on_another_identity() {
    let house = House::start(Table::with(&["cart", "web"]), Duration::from_secs(60)).await;
    let web = next(&mut house.follow("token of web")).await;
    let mut client = house.shown(&web).await;
    let status = client
        .issue(issue(token("token of cart")))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(client.issue(issue(token("token of web"))).await.is_ok());
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identity_cannot_ask_without_end() {
    let house = House::start(Table::with(&["cart", "web"]), Duration::from_secs(60)).await;
    let mut client = house.stranger().await;
    let mut codes = Vec::new();
    for _ in 0..30 {
        let answer = client.issue(issue(token("token of cart"))).await;
        codes.push(answer.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    assert!(
        client.issue(issue(token("token of web"))).await.is_ok(),
        "others are not affected"
    );
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_talks_to_its_ca_and_to_nobody_else() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let settings = |bundles, id| {
        let expected = ExpectedPeer::OneOf(Arc::from([id]));
        client_config_without_identity(bundles, expected, &[ALPN]).unwrap()
    };
    let address = house.listen.to_string();
    let other = settings(house.bundles(), id("ns/shop/sa/cart"));
    let refused = mesh_api::dial::connect(&address, other).await.unwrap_err();
    assert!(refused.contains("expected was"), "{refused}");
    let unknown = settings(Arc::default(), identity());
    assert!(mesh_api::dial::connect(&address, unknown).await.is_err());
    house.end().await;
}

/// The chain of a certificate that another CA made for the same name is no way in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_of_another_ca_is_refused_in_the_handshake() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let elsewhere = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let foreign = next(&mut elsewhere.follow("token of cart")).await;
    let svid = Svid::parse(foreign.chain.clone()).unwrap();
    let tls = TlsIdentity::new(svid, foreign.key.clone_key()).unwrap();
    let expected = ExpectedPeer::OneOf(Arc::from([identity()]));
    let settings = client_config(&tls, house.bundles(), expected, &[ALPN]).unwrap();
    let connected = mesh_api::dial::connect(&house.listen.to_string(), settings).await;
    // TLS 1.3 tells a client of its refusal only when it first reads.
    if let Ok(channel) = connected {
        let answer = IssuanceClient::new(channel)
            .issue(issue(token("token of cart")))
            .await;
        assert!(answer.is_err());
    }
    assert_eq!(house.leaves(), 0);
    elsewhere.end().await;
    house.end().await;
}
