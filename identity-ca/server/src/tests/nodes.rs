//! A CA and machines that join it: what a token lets in, what an agent gets for whom, and what becomes of it when tokens,
//! nodes or the CA are gone. The agents run in this process, with sockets and folders of their own.

use super::*;
use crate::joined::{self, JoinedConfig, JoinedError, SealKey};
use mesh_api::proto::denial_admin_client::DenialAdminClient;
use mesh_api::proto::node_admin_client::NodeAdminClient;
use mesh_api::proto::nodes_client::NodesClient;
use mesh_api::proto::{
    AnchorsReply, AnchorsRequest, CertifyRequest, DenyRequest, JoinRequest, MakeTokenRequest,
    MintRequest, NodesReply, NodesRequest, RemoveNodeRequest, RenewRequest,
};
use mesh_ca_client::node::{self, Asked, Held, NodeCa, NodeError, NodeLink};
use mesh_issuance::attestation::join::JoinToken;
use mesh_trust::tls::client_config_before_trust;
use mesh_trust::{Denied, SpiffeId};
use std::net::SocketAddr;

/// A CA that lets machines join.
struct Mesh {
    ca: Running,
    listen: SocketAddr,
}

/// The agent of a machine, in this process.
struct Machine {
    dir: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), JoinedError>>,
}

fn free_address() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn networked(listen: SocketAddr) -> impl FnOnce(&mut CaConfig) {
    move |config| {
        config.trust = Some(config.dir.with_file_name("trust.sock"));
        config.network = Some(crate::NetworkConfig {
            listen,
            identity: id("ns/mesh-system/sa/mesh-identity"),
            cluster: None,
            nodes: true,
        });
    }
}

impl Mesh {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), free_address(), |_| {}).await
    }

    async fn start_in(
        dir: tempfile::TempDir,
        listen: SocketAddr,
        change: impl FnOnce(&mut CaConfig),
    ) -> Self {
        let ca = Running::start_in(dir, |config| {
            networked(listen)(config);
            change(config);
        })
        .await;
        let mesh = Self { ca, listen };
        for _ in 0..500 {
            if mesh.stranger().await.is_ok() {
                return mesh;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the CA does not serve the network");
    }

    fn address(&self) -> NodeCa {
        NodeCa {
            address: self.listen.to_string(),
            identity: None,
            trust_domain: None,
        }
    }

    /// A connection that shows nothing.
    async fn stranger(&self) -> Result<NodesClient<Channel>, String> {
        let settings = client_config_before_trust(&[b"h2"]).unwrap();
        let channel = mesh_api::dial::connect(&self.listen.to_string(), settings).await?;
        Ok(NodesClient::new(channel))
    }

    async fn admin(&self) -> NodeAdminClient<Channel> {
        NodeAdminClient::new(channel(self.ca.dir.path().join("admin.sock")).await)
    }

    async fn token(&self, node: &str, workloads: &[&str]) -> Result<JoinToken, Status> {
        let request = MakeTokenRequest {
            node: node.into(),
            workloads: workloads.iter().map(|one| (*one).to_owned()).collect(),
            lifetime_secs: 60,
        };
        let made = self.admin().await.make_token(request).await?;
        Ok(made.into_inner().token.parse().unwrap())
    }

    async fn nodes(&self) -> NodesReply {
        let reply = self.admin().await.nodes(NodesRequest {}).await;
        reply.unwrap().into_inner()
    }

    async fn deny(&self, what: &Denied) {
        let mut admin =
            DenialAdminClient::new(channel(self.ca.dir.path().join("admin.sock")).await);
        let request = DenyRequest {
            what_json: serde_json::to_vec(what).unwrap(),
            reason: "a test".into(),
        };
        admin.deny(request).await.unwrap();
    }

    /// A node that joined, and its way to the CA.
    async fn joined(&self, node: &str, workloads: &[&str]) -> (Held, NodeLink) {
        let token = self.token(node, workloads).await.unwrap();
        let (held, known) = node::join(&self.address(), &token).await.unwrap();
        let link = NodeLink::new(&known, &held).unwrap();
        (held, link)
    }

    /// The agent of a machine that joins, for processes of our user.
    async fn machine(&self, node: &str, workloads: &[&str]) -> Machine {
        let token = self.token(node, workloads).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Machine::start(dir, Some((self.address(), token))).await
    }
}

impl Machine {
    fn config(dir: &Path, join: Option<(NodeCa, JoinToken)>) -> JoinedConfig {
        let id = dir.join("machine-id");
        if !id.exists() {
            mesh_platform::files::write_atomic(&id, b"4711\n", 0o644).unwrap();
        }
        JoinedConfig {
            dir: dir.join("node"),
            seal_key: SealKey::Machine(vec![("machine-id".into(), id)]),
            join,
            workload_api: dir.join("api.sock"),
            workload_api_mode: 0o600,
            registrations: open_house(),
            broker: None,
            harden: false,
            platform: System::new(),
        }
    }

    async fn start(dir: tempfile::TempDir, join: Option<(NodeCa, JoinToken)>) -> Self {
        Self::start_with(dir, join, |_| {}).await
    }

    async fn start_with(
        dir: tempfile::TempDir,
        join: Option<(NodeCa, JoinToken)>,
        change: impl FnOnce(&mut JoinedConfig),
    ) -> Self {
        let mut config = Self::config(dir.path(), join);
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(joined::run(config, async {
            let _ = stopped.await;
        }));
        let this = Self { dir, stop, task };
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(this.dir.path().join("api.sock")).is_ok() {
                return this;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the agent did not start: {:?}", this.task.await);
    }

    async fn spiffe(&self) -> WorkloadApiClient {
        let socket = self.dir.path().join("api.sock");
        WorkloadApiClient::connect_to(format!("unix://{}", socket.display()))
            .await
            .unwrap()
    }

    async fn raw(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(channel(self.dir.path().join("api.sock")).await)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        ended.expect("it ends").unwrap().unwrap();
        self.dir
    }
}

fn asked(identity: SpiffeId) -> Asked {
    Asked {
        identity,
        process: "12.345".into(),
        evidence: "user 1000".into(),
        renewal: false,
    }
}

fn refusal<T>(outcome: Result<T, NodeError>) -> String {
    match outcome {
        Err(NodeError::Answer(error)) => error.to_string(),
        Err(other) => panic!("no answer: {other}"),
        Ok(_) => panic!("it was given"),
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_machine_that_joins_serves_its_processes_with_svids_and_tokens_of_the_mesh() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    let client = machine.spiffe().await;
    let svid = client.fetch_x509_svid().await.unwrap();
    assert_eq!(
        svid.spiffe_id().to_string(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let bundle = bundles
        .bundle_for_trust_domain(svid.spiffe_id().trust_domain())
        .unwrap()
        .unwrap();
    let anchors = bundle.authorities().iter();
    verify(
        &svid,
        anchors
            .map(|root| root.as_bytes().to_vec().into())
            .collect(),
    );
    let request = JwtsvidRequest {
        audience: vec!["checkout".into()],
        spiffe_id: String::new(),
    };
    let token = machine
        .raw()
        .await
        .fetch_jwtsvid(with_header(request))
        .await;
    let token = token.unwrap().into_inner().svids[0].svid.clone();
    // Keys for tokens are told: the agent validates what the CA signed.
    eventually("the token is valid", async || {
        let request = crate::proto::ValidateJwtsvidRequest {
            audience: "checkout".into(),
            svid: token.clone(),
        };
        let mut client = machine.raw().await;
        let validated = client.validate_jwtsvid(with_header(request));
        validated.await.is_ok_and(|reply| {
            reply.into_inner().spiffe_id == "spiffe://cluster.local/ns/shop/sa/cart"
        })
    })
    .await;
    eventually("the node is connected", async || {
        let nodes = mesh.nodes().await.nodes;
        nodes.len() == 1 && nodes[0].name == "worker-1" && nodes[0].connected
    })
    .await;
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn ca8_a_token_joins_once_also_when_it_is_tried_by_many_at_once() {
    let mesh = Mesh::start().await;
    let token = mesh.token("worker-1", &["shop/cart"]).await.unwrap();
    let tries = (0..8).map(|_| {
        let (ca, token) = (mesh.address(), token.clone());
        tokio::spawn(async move { node::join(&ca, &token).await })
    });
    let outcomes = futures_util::future::join_all(tries).await;
    let joined = outcomes.into_iter().map(Result::unwrap);
    let (joined, refused): (Vec<_>, Vec<_>) = joined.partition(Result::is_ok);
    assert_eq!((joined.len(), refused.len()), (1, 7));
    for outcome in refused {
        assert!(refusal(outcome).contains("MESH-0285"));
    }
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_spent_token_stays_spent_over_a_restart_and_its_node_stays_known() {
    let mesh = Mesh::start().await;
    let token = mesh.token("worker-1", &["shop/cart"]).await.unwrap();
    let (held, known) = node::join(&mesh.address(), &token).await.unwrap();
    let listen = mesh.listen;
    let dir = mesh.ca.stop().await;
    let mesh = Mesh::start_in(dir, listen, |_| {}).await;
    let again = node::join(&mesh.address(), &token).await;
    assert!(refusal(again).contains("MESH-0285"));
    let link = NodeLink::new(&known, &held).unwrap();
    let svid = link.certify(&asked(id("ns/shop/sa/cart"))).await.unwrap();
    assert_eq!(*svid.tls.svid().id(), id("ns/shop/sa/cart"));
    mesh.ca.stop().await;
}

#[tokio::test]
async fn whoever_has_other_anchors_than_the_tokens_learns_nothing_of_it() {
    let (mesh, other) = (Mesh::start().await, Mesh::start().await);
    let token = mesh.token("worker-1", &["shop/cart"]).await.unwrap();
    let misled = node::join(&other.address(), &token).await;
    assert!(matches!(misled, Err(NodeError::NotTheTokens { .. })));
    // The right anchors, told by somebody who is not the CA: the token's hash fits, the handshake does not.
    let AnchorsReply { anchors, .. } = {
        let mut client = mesh.stranger().await.unwrap();
        client
            .anchors(AnchorsRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    assert_eq!(anchors.len(), 1);
    let impostor = NodeCa {
        identity: Some(id("ns/mesh-system/sa/somebody-else")),
        ..mesh.address()
    };
    let misled = node::join(&impostor, &token).await;
    assert!(matches!(misled, Err(NodeError::Unreachable { .. })));
    let elsewhere = NodeCa {
        trust_domain: Some(mesh_trust::TrustDomain::parse("other.example").unwrap()),
        ..mesh.address()
    };
    let misled = node::join(&elsewhere, &token).await;
    assert!(matches!(misled, Err(NodeError::NotTheTokens { .. })));
    // It was said to nobody, so it still works.
    node::join(&mesh.address(), &token).await.unwrap();
    mesh.ca.stop().await;
    other.ca.stop().await;
}

#[tokio::test]
async fn a_node_gets_svids_and_tokens_for_its_own_workloads_alone() {
    let mesh = Mesh::start().await;
    let (_, link) = mesh.joined("worker-1", &["shop/cart", "batch/*"]).await;
    for may in ["ns/shop/sa/cart", "ns/batch/sa/nightly"] {
        link.certify(&asked(id(may))).await.unwrap();
        link.mint(&id(may), "checkout").await.unwrap();
    }
    for not in [
        "ns/shop/sa/payments",
        "ns/shop/sa/cart2",
        "ns/mesh-system/sa/mesh-identity",
        "mesh/node/worker-1",
        "mesh/node/worker-2",
    ] {
        assert!(
            refusal(link.certify(&asked(id(not))).await).contains("MESH-0990"),
            "{not}"
        );
        assert!(
            refusal(link.mint(&id(not), "checkout").await).contains("MESH-0990"),
            "{not}"
        );
    }
    let foreign = SpiffeId::parse("spiffe://other.example/ns/shop/sa/cart").unwrap();
    assert!(refusal(link.certify(&asked(foreign)).await).contains("MESH-0990"));
    let misnamed = Asked {
        process: "1.2, node worker-2".into(),
        ..asked(id("ns/shop/sa/cart"))
    };
    assert!(refusal(link.certify(&misnamed).await).contains("InvalidArgument"));
    mesh.ca.stop().await;
}

#[tokio::test]
async fn who_is_no_node_gets_nothing_whatever_svid_it_shows() {
    let mesh = Mesh::start().await;
    let (_, link) = mesh.joined("worker-1", &["shop/cart"]).await;
    let workload = link.certify(&asked(id("ns/shop/sa/cart"))).await.unwrap();
    // The SVID of a workload of that node, as a process there could show it.
    let channel = link.connect_as(&workload.tls).await.unwrap();
    let (workload, stranger) = (NodesClient::new(channel), mesh.stranger().await.unwrap());
    for mut client in [workload, stranger] {
        let renewed = client.renew(RenewRequest::default()).await;
        assert_eq!(renewed.unwrap_err().code(), Code::PermissionDenied);
        let certified = client.certify(CertifyRequest::default()).await;
        assert_eq!(certified.unwrap_err().code(), Code::PermissionDenied);
        let minted = client.mint(MintRequest::default()).await;
        assert_eq!(minted.unwrap_err().code(), Code::PermissionDenied);
        let watched = client.watch(tokio_stream::iter(Vec::new())).await;
        assert_eq!(watched.unwrap_err().code(), Code::PermissionDenied);
    }
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_certified_spends_no_token() {
    let mesh = Mesh::start().await;
    let token = mesh.token("worker-1", &["shop/cart"]).await.unwrap();
    let mut client = mesh.stranger().await.unwrap();
    let bad = client.join(JoinRequest {
        secret: token.secret().to_vec(),
        certificate_request: b"no request".to_vec(),
    });
    assert_eq!(bad.await.unwrap_err().code(), Code::InvalidArgument);
    for length in [0, 31, 33, 4096] {
        let (key, _) = (rcgen::KeyPair::generate().unwrap(), ());
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let bad = client.join(JoinRequest {
            secret: vec![1; length],
            certificate_request: csr.der().to_vec(),
        });
        assert_eq!(
            bad.await.unwrap_err().code(),
            Code::PermissionDenied,
            "{length}"
        );
    }
    node::join(&mesh.address(), &token).await.unwrap();
    mesh.ca.stop().await;
}

#[tokio::test]
async fn guessing_is_bounded() {
    let mesh = Mesh::start().await;
    let mut client = mesh.stranger().await.unwrap();
    let mut codes = Vec::new();
    for n in 0..40u8 {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let guess = client.join(JoinRequest {
            secret: vec![n; 32],
            certificate_request: csr.der().to_vec(),
        });
        codes.push(guess.await.unwrap_err().code());
    }
    assert!(
        codes[..20]
            .iter()
            .all(|code| *code == Code::PermissionDenied)
    );
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    // Whoever has a token is not kept out by those who guess.
    let token = mesh.token("worker-1", &["shop/cart"]).await.unwrap();
    node::join(&mesh.address(), &token).await.unwrap();
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_node_that_is_removed_or_denied_gets_nothing_and_what_it_holds_is_denied_with_it() {
    let mesh = Mesh::start().await;
    let (removed, denied) = (
        mesh.joined("worker-1", &["shop/cart"]).await,
        mesh.joined("worker-2", &["shop/cart"]).await,
    );
    let held = denied
        .1
        .certify(&asked(id("ns/shop/sa/cart")))
        .await
        .unwrap();
    let other = removed
        .1
        .certify(&asked(id("ns/shop/sa/cart")))
        .await
        .unwrap();
    let request = RemoveNodeRequest {
        node: "worker-1".into(),
    };
    mesh.admin().await.remove(request.clone()).await.unwrap();
    let twice = mesh.admin().await.remove(request).await.unwrap_err();
    assert!(twice.message().contains("MESH-0992"), "{twice}");
    mesh.deny(&Denied::Node("worker-2".into())).await;
    for (_, link) in [&removed, &denied] {
        assert!(
            refusal(link.certify(&asked(id("ns/shop/sa/cart"))).await).contains("PermissionDenied")
        );
        assert!(refusal(link.renew().await).contains("PermissionDenied"));
    }
    let admin = DenialAdminClient::new(channel(mesh.ca.dir.path().join("admin.sock")).await);
    let list = { admin }
        .denied(mesh_api::proto::DeniedRequest {})
        .await
        .unwrap()
        .into_inner();
    let list = mesh_trust::Denials::from_json(&list.list_json).unwrap();
    for svid in [held.tls.svid(), denied.0.tls.svid()] {
        assert!(list.denies_chain(svid).is_some(), "{}", svid.id());
    }
    for svid in [other.tls.svid(), removed.0.tls.svid()] {
        assert_eq!(list.denies_chain(svid), None, "{}", svid.id());
    }
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_denial_reaches_the_processes_of_a_node_and_the_ca_hears_who_enforces_it() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    let mut client = machine.raw().await;
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    // What is asked for while the list changes is refused in other words.
    stream.message().await.unwrap().unwrap();
    mesh.deny(&Denied::Identity(id("ns/shop/sa/cart"))).await;
    assert_eq!(end_of(stream).await.message(), "no identity issued");
    eventually("the agent says that it enforces the list", async || {
        let mut admin =
            DenialAdminClient::new(channel(mesh.ca.dir.path().join("admin.sock")).await);
        let reply = admin.denied(mesh_api::proto::DeniedRequest {}).await;
        let enforcers = reply.unwrap().into_inner().enforcers;
        enforcers
            .iter()
            .any(|one| one.instance == "node worker-1" && one.generation == 1)
    })
    .await;
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn f2_processes_that_start_while_the_ca_is_gone_get_the_last_svid_of_their_identity() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    let before = machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let listen = mesh.listen;
    let ca = mesh.ca.stop().await;
    // The agent too starts anew, without token and without CA.
    let dir = machine.stop().await;
    let machine = Machine::start(dir, None).await;
    let during = machine.spiffe().await.fetch_x509_svid().await.unwrap();
    assert_eq!(before.cert_chain()[0], during.cert_chain()[0]);
    let bundles = machine.spiffe().await.fetch_x509_bundles().await.unwrap();
    assert!(!bundles.is_empty());
    // It is an outage's measure: with the CA back, there are fresh ones.
    let mesh = Mesh::start_in(ca, listen, |_| {}).await;
    let dir = machine.stop().await;
    let machine = Machine::start(dir, None).await;
    eventually("another SVID", async || {
        let after = machine.spiffe().await.fetch_x509_svid().await;
        after.is_ok_and(|after| after.cert_chain()[0] != before.cert_chain()[0])
    })
    .await;
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn an_old_svid_is_no_way_around_a_refusal_or_a_denial() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let request = RemoveNodeRequest {
        node: "worker-1".into(),
    };
    mesh.admin().await.remove(request).await.unwrap();
    let dir = machine.stop().await;
    let machine = Machine::start(dir, None).await;
    let status = end_of(
        machine
            .raw()
            .await
            .fetch_x509svid(with_header(X509svidRequest {}))
            .await
            .unwrap()
            .into_inner(),
    )
    .await;
    assert!(status.message().contains("MESH-0239"), "{status}");
    machine.stop().await;
    mesh.ca.stop().await;
}

/// The kept SVIDs of a machine: their files.
fn kept(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.join("node/svids")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "sealed"))
        .collect()
}

fn read(path: &Path) -> Vec<u8> {
    mesh_platform::files::read(path).unwrap()
}

fn write(path: &Path, octets: &[u8]) {
    mesh_platform::files::write_atomic(path, octets, 0o600).unwrap();
}

/// How a start from what is on disk fails.
async fn refused_start(dir: &Path, change: impl FnOnce(&mut JoinedConfig)) -> String {
    let mut config = Machine::config(dir, None);
    change(&mut config);
    let outcome = joined::run(config, std::future::pending()).await;
    let error = outcome.unwrap_err();
    let code = miette::Diagnostic::code(&error).unwrap();
    format!("{code}: {error}")
}

#[tokio::test]
async fn files_that_were_tampered_with_are_named_and_another_nodes_svids_are_not_handed_out() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let dir = machine.stop().await;
    assert_eq!(kept(dir.path()).len(), 1);
    // Joined again, as another node: what was kept for the first is gone.
    let token = mesh.token("worker-2", &["shop/*"]).await.unwrap();
    let machine = Machine::start(dir, Some((mesh.address(), token))).await;
    assert_eq!(kept(machine.dir.path()).len(), 0);
    let dir = machine.stop().await;
    let file = dir.path().join("node/node.sealed");
    let good = read(&file);
    for (bad, code) in [
        (good[..good.len() / 2].to_vec(), "MESH-0874"),
        (good[..4].to_vec(), "MESH-0874"),
        (Vec::new(), "MESH-0874"),
        ([&good[..], b"x"].concat(), "MESH-0874"),
        (b"{\"address\": \"10.0.0.1:1\"}".to_vec(), "MESH-0875"),
    ] {
        write(&file, &bad);
        let error = refused_start(dir.path(), |_| {}).await;
        assert!(
            error.starts_with(code) && error.contains("node.sealed"),
            "{error}"
        );
    }
    mesh_platform::files::remove(&file).unwrap();
    let config = Machine::config(dir.path(), None);
    let outcome = joined::run(config, std::future::pending()).await;
    assert!(matches!(outcome, Err(JoinedError::NotJoined { .. })));
    // What an agent of before left in the clear is not believed either.
    write(&dir.path().join("node/node.json"), b"{}");
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0875"), "{error}");
    mesh.ca.stop().await;
}

#[tokio::test]
async fn f7_no_key_of_an_svid_is_on_the_disk_in_the_clear_and_a_changed_file_is_no_svid() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    let svid = machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let pkcs8 = svid.private_key().as_bytes().to_vec();
    let dir = machine.stop().await;
    let in_text = data_encoding::BASE64.encode(&pkcs8).into_bytes();
    // The number itself, wherever it may stand: 32 octets behind the head of PKCS #8.
    let number = pkcs8[36..68].to_vec();
    let folders = ["node", "node/svids"].map(|folder| dir.path().join(folder));
    let files = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    for path in files.map(|entry| entry.unwrap().path()) {
        if path.is_file() && !path.ends_with("node.lock") {
            let octets = read(&path);
            for secret in [&in_text, &number, &b"PRIVATE KEY".to_vec()] {
                let found = octets.windows(secret.len()).any(|part| part == &secret[..]);
                assert!(!found, "{}", path.display());
            }
        }
    }
    let [file] = &kept(dir.path())[..] else {
        panic!("one is kept")
    };
    let mut octets = read(file);
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    write(file, &octets);
    let (listen, file) = (mesh.listen, file.clone());
    let ca = mesh.ca.stop().await;
    // The agent goes on, and has nothing to hand out.
    let machine = Machine::start(dir, None).await;
    let stream = machine.raw().await;
    let status = { stream }
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await;
    let status = end_of(status.unwrap().into_inner()).await;
    assert!(status.message().contains("MESH-0239"), "{status}");
    assert!(!file.exists() && file.with_extension("refused").exists());
    // The CA is back, and so is everything else.
    let mesh = Mesh::start_in(ca, listen, |_| {}).await;
    eventually("an SVID", async || {
        machine.spiffe().await.fetch_x509_svid().await.is_ok()
    })
    .await;
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn an_earlier_svid_that_is_put_back_is_refused_and_the_nodes_own_file_too() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let dir = machine.stop().await;
    let svid = kept(dir.path()).remove(0);
    let (node, versions) = (
        dir.path().join("node/node.sealed"),
        dir.path().join("node/versions.sealed"),
    );
    let earlier = [&svid, &node, &versions].map(|path| read(path));
    // Another SVID of the same identity, and another deny list.
    let machine = Machine::start(dir, None).await;
    machine.spiffe().await.fetch_x509_svid().await.unwrap();
    mesh.deny(&Denied::Identity(id("ns/shop/sa/payments")))
        .await;
    eventually("the deny list is on disk", async || {
        read(&node) != earlier[1]
    })
    .await;
    let dir = machine.stop().await;
    let later = [&svid, &node, &versions].map(|path| read(path));
    mesh.ca.stop().await;
    write(&node, &earlier[1]);
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0876"), "{error}");
    // With the list of versions from before, the other files give it away.
    write(&node, &later[1]);
    write(&versions, &earlier[2]);
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(
        error.starts_with("MESH-0876") && error.contains("versions"),
        "{error}"
    );
    // Without a list they do as well.
    mesh_platform::files::remove(&versions).unwrap();
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0876"), "{error}");
    write(&versions, &later[2]);
    write(&svid, &earlier[0]);
    let machine = Machine::start(dir, None).await;
    let stream = machine.raw().await;
    let status = { stream }
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await;
    let status = end_of(status.unwrap().into_inner()).await;
    assert!(status.message().contains("MESH-0239"), "{status}");
    assert!(svid.with_extension("refused").exists());
    machine.stop().await;
}

#[tokio::test]
async fn without_its_key_or_on_another_machine_an_agent_does_not_start() {
    let mesh = Mesh::start().await;
    let given = tempfile::tempdir().unwrap();
    let key = |name: &str, octets: &[u8]| {
        let path = given.path().join(name);
        write(&path, octets);
        SealKey::File(path)
    };
    let (right, wrong) = (key("right", b"0123456789abcdef0123456789abcdef"), {
        key("wrong", b"0123456789abcdef0123456789abcdeF")
    });
    // A key that is none spends no token.
    let token = mesh.token("worker-1", &["shop/*"]).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Machine::config(dir.path(), Some((mesh.address(), token.clone())));
    config.seal_key = key("short", b"0123456789abcdef");
    let outcome = joined::run(config, std::future::pending()).await;
    let error = outcome.unwrap_err();
    assert_eq!(
        miette::Diagnostic::code(&error).unwrap().to_string(),
        "MESH-0871"
    );
    let machine = Machine::start_with(dir, Some((mesh.address(), token)), |config| {
        config.seal_key = right.clone();
    })
    .await;
    machine.spiffe().await.fetch_x509_svid().await.unwrap();
    let dir = machine.stop().await;
    // Of no use without the key.
    assert!(dir.path().join("node/seal.json").exists());
    let error = refused_start(dir.path(), |config| config.seal_key = wrong).await;
    assert!(error.starts_with("MESH-0873"), "{error}");
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0871"), "{error}");
    let machine = Machine::start_with(dir, None, |config| config.seal_key = right.clone()).await;
    machine.stop().await;
    // Where none is given, it is the machine that counts.
    let machine = mesh.machine("worker-2", &["shop/*"]).await;
    let dir = machine.stop().await;
    let machine_id = dir.path().join("machine-id");
    write(&machine_id, b"4712\n");
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0873"), "{error}");
    mesh_platform::files::write_atomic(&machine_id, b"\n", 0o644).unwrap();
    let error = refused_start(dir.path(), |_| {}).await;
    assert!(error.starts_with("MESH-0872"), "{error}");
    write(&machine_id, b"4711\n");
    let machine = Machine::start(dir, None).await;
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_broker_on_a_machine_that_joined_asks_for_its_processes() {
    let workload = broker::Workload::start();
    let mesh = Mesh::start().await;
    let speaks_for = ["shop/cart", "mesh-system/node-proxy"];
    let token = mesh.token("worker-1", &speaks_for).await.unwrap();
    let (dir, join) = (tempfile::tempdir().unwrap(), (mesh.address(), token));
    let machine = Machine::start_with(dir, Some(join), |config| {
        config.registrations = vec![
            broker::is_this_program(broker::PROXY),
            workload.registration(),
        ];
        config.broker = Some(broker::served(config.dir.parent().unwrap()));
    })
    .await;
    let own = broker::own(&machine.dir.path().join("api.sock"), broker::PROXY).await;
    let node = id("mesh/node/worker-1");
    let mut client = broker::broker(machine.dir.path(), &own, node);
    let mut stream = broker::svids(&mut client, workload.pid()).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.svids[0].spiffe_id, id(broker::CART).to_string());
    drop(stream);
    let dir = machine.stop().await;
    let records = broker::records(&dir.path().join("node"));
    assert_eq!(records.len(), 1, "{records:?}");
    mesh.ca.stop().await;
}

#[tokio::test]
async fn a_rotation_moves_nodes_and_their_processes_without_restart() {
    let mesh = Mesh::start().await;
    let machine = mesh.machine("worker-1", &["shop/*"]).await;
    let client = machine.spiffe().await;
    let mut stream = Box::pin(client.stream_x509_contexts().await.unwrap());
    let first = stream.next().await.unwrap().unwrap();
    let issuer = |context: &spiffe::X509Context| {
        context.default_svid().unwrap().cert_chain()[1]
            .as_bytes()
            .to_vec()
    };
    let mut trust = mesh_api::proto::trust_admin_client::TrustAdminClient::new(
        channel(mesh.ca.dir.path().join("trust.sock")).await,
    );
    trust
        .rotate(mesh_api::proto::RotateRequest {})
        .await
        .unwrap();
    // The agent acknowledges. A process that has no trust stream cannot: an operator says that it is not waited for.
    let name = "spiffe://cluster.local/ns/shop/sa/cart".into();
    trust
        .waive(mesh_api::proto::WaiveRequest { name })
        .await
        .unwrap();
    let moved = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let context = stream.next().await.unwrap().unwrap();
            if issuer(&context) != issuer(&first) {
                return;
            }
        }
    });
    moved.await.expect("moved under the new root");
    machine.stop().await;
    mesh.ca.stop().await;
}

#[tokio::test]
async fn without_the_network_no_token_is_made_and_bad_ones_are_refused_with_a_code() {
    let ca = Running::start(|_| {}).await;
    let mut admin = NodeAdminClient::new(channel(ca.dir.path().join("admin.sock")).await);
    let request = |node: &str, workload: &str| MakeTokenRequest {
        node: node.into(),
        workloads: vec![workload.into()],
        lifetime_secs: 60,
    };
    let refused = admin
        .make_token(request("worker-1", "shop/cart"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("MESH-0991"), "{refused}");
    ca.stop().await;
    let mesh = Mesh::start().await;
    for (node, workload, code) in [
        ("Worker 1", "shop/cart", "MESH-0278"),
        ("worker-1", "*/*", "MESH-0995"),
        ("worker-1", "shop", "MESH-0995"),
    ] {
        let refused = mesh.token(node, &[workload]).await.unwrap_err();
        assert!(
            refused.message().contains(code),
            "{node} {workload}: {refused}"
        );
    }
    let none = mesh.token("worker-1", &[]).await.unwrap_err();
    assert!(none.message().contains("MESH-0996"), "{none}");
    assert_eq!(mesh.nodes().await.open_tokens, 0);
    mesh.ca.stop().await;
}
