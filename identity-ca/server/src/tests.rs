//! A whole CA behind its sockets, seen by a SPIFFE library that others wrote, and by callers who break the rules.

use crate::proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::proto::{JwtBundlesRequest, JwtsvidRequest, X509BundlesRequest, X509svidRequest};
use crate::testing::{domain, id, in_thread};
use crate::{CaConfig, CaError, Registration, run};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use mesh_api::proto::launch_client::LaunchClient;
use mesh_api::proto::{LaunchRecord, UnregisterRequest};
use mesh_platform::{System, process};
use mesh_trust::{Svid, TrustBundle, TrustBundles};
use rustls_pki_types::CertificateDer;
use spiffe::{BundleSource, WorkloadApiClient, X509Svid};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

mod broker;
mod denials;
mod jwt;
mod nodes;
mod sds;

/// A CA that runs in this process, whose launcher is this process too.
struct Running {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), CaError>>,
}

fn config(dir: &Path) -> CaConfig {
    let mut config = CaConfig::new(
        &dir.join("ca"),
        domain(),
        &dir.join("api.sock"),
        in_thread(&dir.join("ca")),
        System::new(),
    );
    config.control = Some(dir.join("control.sock"));
    config.admin = Some(dir.join("admin.sock"));
    config.launcher_pid = std::process::id();
    config.harden = false;
    config
}

/// Everything that this process and its children ask for is answered.
fn open_house() -> Vec<Registration> {
    vec![Registration {
        uid: Some(rustix::process::geteuid().as_raw()),
        executable: None,
        unit: None,
        identity: id("ns/shop/sa/cart"),
    }]
}

impl Running {
    async fn start(change: impl FnOnce(&mut CaConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    async fn start_in(dir: tempfile::TempDir, change: impl FnOnce(&mut CaConfig)) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(config, async {
            let _ = stopped.await;
        }));
        let this = Self {
            dir,
            stop: Some(stop),
            task,
        };
        for _ in 0..500 {
            let answers = |socket| std::os::unix::net::UnixStream::connect(socket).is_ok();
            if answers(this.api())
                && answers(this.control())
                && answers(this.dir.path().join("admin.sock"))
            {
                return this;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the CA did not start: {:?}", this.task.await);
    }

    fn api(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    async fn spiffe(&self) -> WorkloadApiClient {
        WorkloadApiClient::connect_to(format!("unix://{}", self.api().display()))
            .await
            .unwrap()
    }

    async fn raw(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(channel(self.api()).await)
    }

    async fn launches(&self) -> LaunchClient<Channel> {
        LaunchClient::new(channel(self.control()).await)
    }

    async fn stop(mut self) -> tempfile::TempDir {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap();
        self.dir
    }
}

async fn channel(socket: PathBuf) -> Channel {
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://local.invalid").connect_with_connector_lazy(connect)
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

fn record(pid: u32, service_account: &str) -> LaunchRecord {
    LaunchRecord {
        pid,
        start_time_ticks: process::start_time_ticks(pid).unwrap(),
        uid: rustix::process::geteuid().as_raw(),
        executable: String::new(),
        namespace: "shop".into(),
        service_account: service_account.into(),
        workload: format!("shop/{service_account}"),
        descendants: false,
    }
}

/// Verifies with our own verifier, and says the serial.
fn verify(svid: &X509Svid, anchors: Vec<CertificateDer<'static>>) -> String {
    let chain = svid
        .cert_chain()
        .iter()
        .map(|certificate| certificate.as_bytes().to_vec().into())
        .collect();
    let svid = Svid::parse(chain).unwrap();
    let bundles = TrustBundles::from(TrustBundle::new(domain(), anchors).unwrap());
    bundles
        .verify(&svid, mesh_platform::Platform::wall_clock(&*System::new()))
        .unwrap()
        .serial()
        .to_owned()
}

async fn end_of<T>(mut stream: tonic::Streaming<T>) -> Status {
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.message())
            .await
            .expect("the stream says something")
        {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_spiffe_library_fetches_an_svid_that_verifies() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let client = ca.spiffe().await;
    let context = client.fetch_x509_context().await.unwrap();
    let svid = context.default_svid().unwrap();
    assert_eq!(
        svid.spiffe_id().to_string(),
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(svid.cert_chain().len(), 2, "leaf and issuer, no root");
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let bundle = bundles
        .bundle_for_trust_domain(svid.spiffe_id().trust_domain())
        .unwrap()
        .unwrap();
    let anchors: Vec<_> = bundle
        .authorities()
        .iter()
        .map(|root| root.as_bytes().to_vec().into())
        .collect();
    assert_eq!(anchors.len(), 1);
    let serial = verify(svid, anchors);
    let again = client.fetch_x509_svid().await.unwrap();
    assert_eq!(
        again.cert_chain()[0],
        svid.cert_chain()[0],
        "streams of one process share an SVID ({serial})"
    );
    ca.stop().await;
}

#[tokio::test]
async fn a_client_follows_rotations_each_with_a_fresh_key() {
    let ca = Running::start(|config| {
        config.registrations = open_house();
        config.svid_ttl = Duration::from_secs(10);
    })
    .await;
    let client = ca.spiffe().await;
    let mut stream = Box::pin(client.stream_x509_contexts().await.unwrap());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let context = tokio::time::timeout(Duration::from_secs(9), stream.next())
            .await
            .expect("renewed in time")
            .unwrap()
            .unwrap();
        let svid = context.default_svid().unwrap().clone();
        seen.push((
            svid.cert_chain()[0].as_bytes().to_vec(),
            svid.private_key().as_ref().to_vec(),
        ));
    }
    for (n, (certificate, key)) in seen.iter().enumerate() {
        assert!(
            seen[..n]
                .iter()
                .all(|(other, other_key)| other != certificate && other_key != key),
            "{n}"
        );
    }
    ca.stop().await;
}

#[tokio::test]
async fn without_the_security_header_nothing_is_answered() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    for value in [None, Some("false"), Some("TRUE"), Some("true "), Some("")] {
        let mut request = Request::new(X509svidRequest {});
        if let Some(value) = value {
            request
                .metadata_mut()
                .insert("workload.spiffe.io", value.parse().unwrap());
        }
        let status = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}: {status}");
    }
    assert_eq!(
        client
            .fetch_x509_bundles(X509BundlesRequest {})
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client
            .fetch_jwt_bundles(JwtBundlesRequest {})
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    let mut twice = with_header(X509svidRequest {});
    twice
        .metadata_mut()
        .append("workload.spiffe.io", "true".parse().unwrap());
    assert_eq!(
        client.fetch_x509svid(twice).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    ca.stop().await;
}

#[tokio::test]
async fn an_unknown_process_gets_no_identity_and_no_bundle() {
    let ca = Running::start(|_| {}).await;
    let mut client = ca.raw().await;
    let stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let status = end_of(stream).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "no identity issued")
    );
    let stream = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(end_of(stream).await.code(), Code::PermissionDenied);
    ca.stop().await;
}

#[tokio::test]
async fn a_process_that_is_faster_than_its_launch_record_waits_for_it() {
    let ca = Running::start(|_| {}).await;
    let mut launches = ca.launches().await;
    let register = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        launches
            .register(record(std::process::id(), "web"))
            .await
            .unwrap();
    };
    let client = ca.spiffe().await;
    let (svid, ()) = tokio::join!(client.fetch_x509_svid(), register);
    assert_eq!(
        svid.unwrap().spiffe_id().to_string(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    ca.stop().await;
}

#[tokio::test]
async fn the_stream_ends_when_the_launch_record_goes_or_names_another_identity() {
    let ca = Running::start(|_| {}).await;
    let (mut launches, mut client) = (ca.launches().await, ca.raw().await);
    let pid = std::process::id();
    for change in ["gone", "another"] {
        launches.register(record(pid, "web")).await.unwrap();
        let mut stream = client
            .fetch_x509svid(with_header(X509svidRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert!(stream.message().await.unwrap().is_some());
        if change == "gone" {
            launches
                .unregister(UnregisterRequest { pid })
                .await
                .unwrap();
        } else {
            launches.register(record(pid, "cart")).await.unwrap();
        }
        let status = end_of(stream).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "no identity issued"),
            "{change}"
        );
    }
    ca.stop().await;
}

#[tokio::test]
async fn launch_records_that_cannot_be_are_refused_with_a_code() {
    let ca = Running::start(|_| {}).await;
    let mut launches = ca.launches().await;
    let honest = record(std::process::id(), "web");
    for (record, code, text) in [
        (
            LaunchRecord {
                start_time_ticks: 1,
                ..honest.clone()
            },
            Code::FailedPrecondition,
            "MESH-0250",
        ),
        (
            LaunchRecord {
                pid: 0,
                ..honest.clone()
            },
            Code::FailedPrecondition,
            "MESH-0250",
        ),
        (
            LaunchRecord {
                pid: u32::MAX,
                ..honest.clone()
            },
            Code::FailedPrecondition,
            "MESH-0250",
        ),
        (
            LaunchRecord {
                namespace: "../etc".into(),
                ..honest.clone()
            },
            Code::InvalidArgument,
            "MESH-0251",
        ),
        (
            LaunchRecord {
                service_account: String::new(),
                ..honest.clone()
            },
            Code::InvalidArgument,
            "MESH-0251",
        ),
        (
            LaunchRecord {
                executable: "x".repeat(100_000),
                ..honest
            },
            Code::OutOfRange,
            "",
        ),
    ] {
        let status = launches.register(record).await.unwrap_err();
        assert!(
            status.code() == code && status.message().contains(text),
            "{status}"
        );
    }
    ca.stop().await;
}

#[tokio::test]
async fn only_the_launcher_is_heard_on_the_control_socket() {
    let mut other = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let pid = other.id();
    let ca = Running::start(|config| config.launcher_pid = pid).await;
    let status = ca
        .launches()
        .await
        .register(record(std::process::id(), "web"))
        .await
        .unwrap_err();
    // The connection is closed before or while the request is written, which the library tells apart.
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown),
        "the connection is closed: {status}"
    );
    assert!(
        !status.message().contains("MESH-"),
        "nobody answered: {status}"
    );
    let mut client = ca.raw().await;
    let stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(end_of(stream).await.code(), Code::PermissionDenied);
    ca.stop().await;
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_root_and_clients_come_back() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let (mut raw, client) = (ca.raw().await, ca.spiffe().await);
    let before = client.fetch_x509_bundles().await.unwrap();
    let mut open = raw
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert!(open.message().await.unwrap().is_some());
    let dir = ca.stop().await;
    assert_eq!(
        end_of(open).await.code(),
        Code::Unavailable,
        "clients try again after this one"
    );
    let ca = Running::start_in(dir, |config| config.registrations = open_house()).await;
    assert_eq!(
        ca.spiffe().await.fetch_x509_bundles().await.unwrap(),
        before
    );
    assert_eq!(crate::inspect(&ca.dir.path().join("ca")).problems, []);
    ca.stop().await;
}

#[tokio::test]
async fn two_cas_never_share_a_directory() {
    let ca = Running::start(|_| {}).await;
    let mut second = config(ca.dir.path());
    second.workload_api = ca.dir.path().join("other.sock");
    second.control = None;
    let error = run(second, std::future::pending()).await.unwrap_err();
    assert_eq!(
        miette::Diagnostic::code(&error).unwrap().to_string(),
        "MESH-0813"
    );
    ca.stop().await;
}

#[tokio::test]
async fn lifetimes_and_registrations_that_cannot_be_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for secs in [0, 9, 73 * 3_600] {
        let config = CaConfig {
            svid_ttl: Duration::from_secs(secs),
            ..config(dir.path())
        };
        assert!(
            matches!(
                run(config, std::future::pending()).await,
                Err(CaError::Profile(_))
            ),
            "{secs}"
        );
    }
    let everybody = vec![Registration {
        uid: None,
        executable: None,
        unit: None,
        identity: id("ns/a/sa/b"),
    }];
    let config = CaConfig {
        registrations: everybody,
        ..config(dir.path())
    };
    assert!(matches!(
        run(config, std::future::pending()).await,
        Err(CaError::Registration { .. })
    ));
    assert!(!dir.path().join("ca/root.key").exists());
}

#[tokio::test]
async fn streams_of_one_process_are_bounded_and_given_back() {
    let ca = Running::start(|config| config.registrations = open_house()).await;
    let mut client = ca.raw().await;
    let mut open = Vec::new();
    for _ in 0..crate::limits::STREAMS_PER_PROCESS_MAX {
        let mut stream = client
            .fetch_x509svid(with_header(X509svidRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert!(stream.message().await.unwrap().is_some());
        open.push(stream);
    }
    let status = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    open.pop();
    for _ in 0..100 {
        if client
            .fetch_x509_bundles(with_header(X509BundlesRequest {}))
            .await
            .is_ok()
        {
            ca.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a closed stream was not given back");
}

/// Not a test: a client for [`a_process_whose_ancestor_was_killed_loses_its_identity`], in a process of its own.
#[tokio::test]
#[ignore = "run by another test"]
async fn client_in_another_process() {
    let socket = PathBuf::from(std::env::var_os("MESH_TEST_SOCKET").expect("run by another test"));
    let mut client = SpiffeWorkloadApiClient::new(channel(socket).await);
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    println!("\nGOT {}", first.svids[0].spiffe_id);
    println!("\nEND {:?}", end_of(stream).await.message());
}

#[tokio::test]
async fn a_process_whose_ancestor_was_killed_loses_its_identity() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let ca = Running::start(|_| {}).await;
    let client = std::env::current_exe().unwrap();
    // The shell must stay the client's parent, so it waits for it.
    let script = "\"$0\" --exact tests::client_in_another_process --ignored --nocapture; exit";
    let mut shell = tokio::process::Command::new("sh")
        .args(["-c", script, client.to_str().unwrap()])
        .env("MESH_TEST_SOCKET", ca.api())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = shell.id().unwrap();
    let mut launches = ca.launches().await;
    launches
        .register(LaunchRecord {
            descendants: true,
            ..record(pid, "web")
        })
        .await
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let mut wait_for = async |mark: &str| {
        let search = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with(mark) {
                    return line;
                }
            }
            panic!("no line {mark}");
        };
        tokio::time::timeout(Duration::from_secs(10), search)
            .await
            .expect(mark)
    };
    assert_eq!(
        wait_for("GOT").await,
        "GOT spiffe://cluster.local/ns/shop/sa/web"
    );
    shell.start_kill().unwrap();
    assert_eq!(wait_for("END").await, "END \"no identity issued\"");
    shell.wait().await.unwrap();
    let dead = LaunchRecord {
        pid,
        ..record(std::process::id(), "web")
    };
    assert!(
        launches.register(dead).await.is_err(),
        "a dead process cannot be registered"
    );
    ca.stop().await;
}
