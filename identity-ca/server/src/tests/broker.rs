//! A broker that asks a CA, and an agent, for SVIDs of other processes; and all who may not.

use super::*;
use crate::BrokerConfig;
use crate::proto::broker::api_client::ApiClient;
use crate::proto::broker::{
    FetchJwtsvidRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest,
    SubscribeToX509svidRequest, SubscribeToX509svidResponse, WorkloadPidReference,
    WorkloadReference,
};
use mesh_api::proto::DenyRequest;
use mesh_api::proto::denial_admin_client::DenialAdminClient;
use mesh_trust::tls::{ExpectedPeer, TlsIdentity, client_config, server_name};
use mesh_trust::{Denied, SpiffeId};
use prost::Message;
use prost_types::Any;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::process::{Child, Command};
use std::sync::Arc;

pub(super) const PROXY: &str = "ns/mesh-system/sa/node-proxy";
pub(super) const CART: &str = "ns/shop/sa/cart";

pub(super) fn is_this_program(identity: &str) -> Registration {
    Registration {
        uid: Some(rustix::process::geteuid().as_raw()),
        executable: Some(std::fs::canonicalize("/proc/self/exe").unwrap()),
        unit: None,
        identity: id(identity),
    }
}

/// A process of somebody else, of a program that is registered.
pub(super) struct Workload(Child);

impl Workload {
    pub(super) fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(super) fn registration(&self) -> Registration {
        // Between fork and exec it is still ours.
        let own = std::fs::canonicalize("/proc/self/exe").unwrap();
        let program = loop {
            let program = std::fs::read_link(format!("/proc/{}/exe", self.0.id())).unwrap();
            if program != own {
                break program;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Registration {
            uid: None,
            executable: Some(program),
            unit: None,
            identity: id(CART),
        }
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn served(dir: &Path) -> BrokerConfig {
    BrokerConfig {
        socket: dir.join("broker.sock"),
        mode: 0o600,
        brokers: vec![id(PROXY)],
    }
}

fn we_are() -> SpiffeId {
    id("ns/mesh-system/sa/mesh-identity")
}

/// A CA that serves brokers, this program being `identities`.
async fn ca(workload: &Workload, identities: &[&str]) -> Running {
    ca_in(tempfile::tempdir().unwrap(), workload, identities).await
}

async fn ca_in(dir: tempfile::TempDir, workload: &Workload, identities: &[&str]) -> Running {
    let mut registrations: Vec<_> = identities.iter().map(|one| is_this_program(one)).collect();
    registrations.push(workload.registration());
    let ca = Running::start_in(dir, |config| {
        config.registrations = registrations;
        config.broker = Some((served(config.dir.parent().unwrap()), we_are()));
    })
    .await;
    let socket = ca.dir.path().join("broker.sock");
    for _ in 0..500 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return ca;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("brokers are not served");
}

/// Our own SVID by the Workload API at `api`, and whom to trust.
pub(super) async fn own(api: &Path, identity: &str) -> (TlsIdentity, Arc<TrustBundles>) {
    let client = WorkloadApiClient::connect_to(format!("unix://{}", api.display()))
        .await
        .unwrap();
    let context = client.fetch_x509_context().await.unwrap();
    let svid = context
        .svids()
        .iter()
        .find(|svid| svid.spiffe_id().to_string() == id(identity).to_string())
        .expect("our SVID");
    let chain = svid.cert_chain().iter();
    let chain = chain.map(|der| der.as_bytes().to_vec().into()).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let tls = TlsIdentity::new(Svid::parse(chain).unwrap(), PrivateKeyDer::Pkcs8(key)).unwrap();
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let bundle = bundles
        .bundle_for_trust_domain(svid.spiffe_id().trust_domain())
        .unwrap()
        .unwrap();
    let anchors = bundle.authorities().iter();
    let anchors = anchors.map(|root| root.as_bytes().to_vec().into());
    let bundle = TrustBundle::new(domain(), anchors.collect()).unwrap();
    (tls, Arc::new(TrustBundles::from(bundle)))
}

pub(super) fn broker(
    dir: &Path,
    (tls, bundles): &(TlsIdentity, Arc<TrustBundles>),
    server: SpiffeId,
) -> ApiClient<Channel> {
    let expected = ExpectedPeer::OneOf(Arc::from([server]));
    let settings = client_config(tls, Arc::clone(bundles), expected, &[b"h2"]).unwrap();
    let socket = dir.join("broker.sock");
    let connect = tower::service_fn(move |_: Uri| {
        let (socket, settings) = (socket.clone(), Arc::clone(&settings));
        async move {
            let stream = UnixStream::connect(socket).await?;
            let connector = tokio_rustls::TlsConnector::from(settings);
            connector
                .connect(server_name(), stream)
                .await
                .map(TokioIo::new)
        }
    });
    ApiClient::new(
        Endpoint::from_static("http://local.invalid").connect_with_connector_lazy(connect),
    )
}

async fn proxy(ca: &Running) -> ApiClient<Channel> {
    let own = own(&ca.api(), PROXY).await;
    broker(ca.dir.path(), &own, we_are())
}

fn reference(pid: i32) -> Option<WorkloadReference> {
    Some(WorkloadReference {
        reference: Some(Any {
            type_url: "type.googleapis.com/spiffe.broker.WorkloadPIDReference".into(),
            value: WorkloadPidReference { pid }.encode_to_vec(),
        }),
    })
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("broker.spiffe.io", "true".parse().unwrap());
    request
}

pub(super) async fn svids(
    client: &mut ApiClient<Channel>,
    pid: i32,
) -> Result<tonic::Streaming<SubscribeToX509svidResponse>, Status> {
    let reference = reference(pid);
    let request = asked(SubscribeToX509svidRequest { reference });
    let reply = client.subscribe_to_x509svid(request).await?;
    Ok(reply.into_inner())
}

fn reason(status: &Status) -> String {
    let details = crate::proto::rpc::Status::decode(status.details()).unwrap();
    let info = details.details.first().expect("a detail");
    let info = crate::proto::rpc::ErrorInfo::decode(info.value.as_slice()).unwrap();
    info.reason
}

async fn deny(ca: &Running, what: &Denied) {
    let mut admin = DenialAdminClient::new(channel(ca.dir.path().join("admin.sock")).await);
    let request = DenyRequest {
        what_json: serde_json::to_vec(what).unwrap(),
        reason: "a test".into(),
    };
    admin.deny(request).await.unwrap();
}

/// What is recorded of brokers: the details.
pub(super) fn records(dir: &Path) -> Vec<String> {
    let text = mesh_platform::files::read_to_string(&dir.join("broker.jsonl")).unwrap();
    text.lines()
        .filter(|line| line.contains(r#""action":"broker""#))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn k2_a_broker_gets_svids_tokens_and_bundles_of_the_process_that_it_names() {
    let workload = Workload::start();
    let ca = ca(&workload, &[PROXY]).await;
    let mut client = proxy(&ca).await;
    let mut stream = svids(&mut client, workload.pid()).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.svids.len(), 1);
    let svid = &first.svids[0];
    assert_eq!(svid.spiffe_id, id(CART).to_string());
    let chain = spiffe::X509Svid::parse_from_der(&svid.x509_svid, &svid.x509_svid_key).unwrap();
    assert_eq!(chain.spiffe_id().to_string(), svid.spiffe_id);
    verify(&chain, vec![svid.bundle.clone().into()]);
    let request = SubscribeToX509BundlesRequest {
        reference: reference(workload.pid()),
    };
    let bundles = client.subscribe_to_x509_bundles(asked(request)).await;
    let bundles = bundles.unwrap().into_inner().message().await.unwrap();
    assert_eq!(
        bundles.unwrap().bundles["spiffe://cluster.local"],
        svid.bundle
    );
    let request = FetchJwtsvidRequest {
        reference: reference(workload.pid()),
        audience: vec!["checkout".into()],
        spiffe_id: String::new(),
    };
    let token = client.fetch_jwtsvid(asked(request)).await.unwrap();
    let token = token.into_inner().svids[0].svid.clone();
    let request = SubscribeToJwtBundlesRequest {
        reference: reference(workload.pid()),
    };
    let keys = client.subscribe_to_jwt_bundles(asked(request)).await;
    let keys = keys.unwrap().into_inner().message().await.unwrap().unwrap();
    let keys = &keys.bundles["spiffe://cluster.local"];
    let keys = mesh_trust::jwt::JwtBundle::from_json(domain(), keys).unwrap();
    let bundles = mesh_trust::jwt::JwtBundles::from_iter([keys]);
    let now = mesh_platform::Platform::wall_clock(&*System::new());
    let token = mesh_trust::JwtSvid::verify(&token, "checkout", &bundles, now).unwrap();
    assert_eq!(*token.id(), id(CART));
    let dir = ca.stop().await;
    let records = records(&dir.path().join("ca"));
    assert_eq!(records.len(), 4, "{records:?}");
    for (record, what) in
        records
            .iter()
            .zip(["X.509-SVIDs", "bundles", "a JWT-SVID", "keys of tokens"])
    {
        let said = format!("for process {}: given as {}", workload.pid(), id(CART));
        assert!(record.contains(what) && record.contains(&said), "{record}");
        assert!(record.contains(&id(PROXY).to_string()), "{record}");
    }
}

#[tokio::test]
async fn k1_who_is_no_broker_or_shows_nothing_gets_nothing_and_it_is_recorded() {
    let workload = Workload::start();
    let ca = ca(&workload, &["ns/shop/sa/web", PROXY]).await;
    // A valid SVID that this very process has, and that is on no list.
    let web = own(&ca.api(), "ns/shop/sa/web").await;
    let mut client = broker(ca.dir.path(), &web, we_are());
    for pid in [workload.pid(), 0] {
        let refused = svids(&mut client, pid).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().starts_with("MESH-0878"), "{refused}");
    }
    // Without the header, whoever it is.
    let mut client = proxy(&ca).await;
    for value in [None, Some("TRUE"), Some("1")] {
        let mut request = Request::new(SubscribeToX509svidRequest {
            reference: reference(workload.pid()),
        });
        if let Some(value) = value {
            let value = value.parse().unwrap();
            request.metadata_mut().insert("broker.spiffe.io", value);
        }
        let refused = client.subscribe_to_x509svid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{value:?}");
    }
    // Without TLS, and expecting another server.
    let mut plain = ApiClient::new(channel(ca.dir.path().join("broker.sock")).await);
    assert!(svids(&mut plain, workload.pid()).await.is_err());
    let own = own(&ca.api(), PROXY).await;
    let mut misled = broker(ca.dir.path(), &own, id("ns/shop/sa/impostor"));
    assert!(svids(&mut misled, workload.pid()).await.is_err());
    let dir = ca.stop().await;
    let records = records(&dir.path().join("ca"));
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(
        records
            .iter()
            .all(|record| record.contains("refused: MESH-0878")),
        "{records:?}"
    );
}

#[tokio::test]
async fn a_brokers_svid_is_of_no_use_to_a_process_that_is_not_found_to_be_it() {
    let workload = Workload::start();
    let first = ca(&workload, &[PROXY]).await;
    let own = own(&first.api(), PROXY).await;
    // The same CA, the same valid SVID; and this process is somebody else by now.
    let dir = first.stop().await;
    let ca = ca_in(dir, &workload, &["ns/shop/sa/web"]).await;
    let mut client = broker(ca.dir.path(), &own, we_are());
    let refused = svids(&mut client, workload.pid()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("MESH-0879"), "{refused}");
    ca.stop().await;
}

#[tokio::test]
async fn k4_references_to_nobody_are_refused_with_the_standards_reasons() {
    let mut workload = Workload::start();
    let ca = ca(&workload, &[PROXY]).await;
    let mut client = proxy(&ca).await;
    let refused = svids(&mut client, -7).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), "WORKLOAD_REFERENCE_INVALID");
    // A process that nobody registered.
    let stranger = Command::new("tail").args(["-f", "/dev/null"]).spawn();
    let mut stranger = stranger.unwrap();
    let pid = i32::try_from(stranger.id()).unwrap();
    let refused = svids(&mut client, pid).await.unwrap_err();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason(&refused), "WORKLOAD_NOT_ENTITLED");
    assert!(refused.message().starts_with("MESH-0882"), "{refused}");
    let refused = svids(&mut client, pid).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(reason(&refused), "WORKLOAD_NOT_FOUND");
    // One that is there, and ends.
    let mut stream = svids(&mut client, workload.pid()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    workload.end();
    let ended = end_of(stream).await;
    assert_eq!(ended.code(), Code::NotFound, "{ended}");
    assert_eq!(reason(&ended), "WORKLOAD_NOT_FOUND");
    let two = FetchJwtsvidRequest {
        reference: reference(i32::try_from(std::process::id()).unwrap()),
        audience: vec!["a".into(), "b".into()],
        spiffe_id: String::new(),
    };
    let refused = client.fetch_jwtsvid(asked(two)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    ca.stop().await;
}

#[tokio::test]
async fn what_is_known_is_recorded_however_much_is_asked_for_and_refusals_are_within_a_rate() {
    let workload = Workload::start();
    let ca = ca(&workload, &[PROXY]).await;
    let mut client = proxy(&ca).await;
    let request = FetchJwtsvidRequest {
        reference: reference(workload.pid()),
        audience: vec!["a".repeat(2_048)],
        spiffe_id: id(CART).to_string(),
    };
    let _ = client.fetch_jwtsvid(asked(request)).await;
    let mut without = 0;
    for _ in 0..60 {
        let refused = svids(&mut client, -7).await.unwrap_err();
        if refused.code() == Code::ResourceExhausted {
            assert!(refused.message().starts_with("MESH-0884"), "{refused}");
            without += 1;
        }
    }
    assert!(without > 0);
    // Who is not refused goes on.
    svids(&mut client, workload.pid()).await.unwrap();
    let dir = ca.stop().await;
    let records = records(&dir.path().join("ca"));
    assert_eq!(records.len(), 2 + 60 - without, "{records:?}");
    let (first, us) = (&records[0], std::process::id());
    for known in [
        format!("for process {}: given as {}: ", workload.pid(), id(CART)),
        format!("a JWT-SVID of \\\"{}\\\" to ", id(CART)),
        format!(
            "uid {}, pid {us}: {}",
            rustix::process::geteuid().as_raw(),
            id(PROXY)
        ),
    ] {
        assert!(first.contains(&known), "{known}: {first}");
    }
}

#[tokio::test]
async fn k5_what_is_given_ends_with_the_right_of_the_workload_and_of_the_broker() {
    let workload = Workload::start();
    let ca = ca(&workload, &[PROXY]).await;
    let mut client = proxy(&ca).await;
    let mut stream = svids(&mut client, workload.pid()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    deny(&ca, &Denied::Identity(id(CART))).await;
    let ended = end_of(stream).await;
    assert_eq!(reason(&ended), "WORKLOAD_NOT_ENTITLED", "{ended}");
    let pid = i32::try_from(std::process::id()).unwrap();
    let mut stream = svids(&mut client, pid).await.unwrap();
    stream.message().await.unwrap().unwrap();
    deny(&ca, &Denied::Identity(id(PROXY))).await;
    let ended = end_of(stream).await;
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    // On the connection that is open, and on a new one.
    let refused = svids(&mut client, pid).await.unwrap_err();
    assert!(refused.message().starts_with("MESH-0879"), "{refused}");
    ca.stop().await;
}

#[tokio::test]
async fn a_brokers_certificate_that_is_denied_is_of_no_use_on_open_connections_either() {
    let workload = Workload::start();
    let ca = ca(&workload, &[PROXY]).await;
    let own = own(&ca.api(), PROXY).await;
    let mut client = broker(ca.dir.path(), &own, we_are());
    let mut stream = svids(&mut client, workload.pid()).await.unwrap();
    stream.message().await.unwrap().unwrap();
    let serial = own.0.svid().serial().to_owned();
    deny(&ca, &Denied::Serial(serial)).await;
    let ended = end_of(stream).await;
    assert!(ended.message().starts_with("MESH-0879"), "{ended}");
    let mut again = broker(ca.dir.path(), &own, we_are());
    assert!(svids(&mut again, workload.pid()).await.is_err());
    ca.stop().await;
}

#[tokio::test]
async fn nobody_is_a_broker_unless_named_and_bad_names_keep_the_ca_from_starting() {
    let ca = Running::start(|_| {}).await;
    assert!(!ca.dir.path().join("broker.sock").exists());
    assert!(!ca.dir.path().join("ca/broker.jsonl").exists());
    ca.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let brokers = Vec::new();
    config.broker = Some((
        BrokerConfig {
            brokers,
            ..served(dir.path())
        },
        we_are(),
    ));
    let error = run(config, std::future::pending()).await.unwrap_err();
    assert_eq!(
        miette::Diagnostic::code(&error).unwrap().to_string(),
        "MESH-0877"
    );
}
