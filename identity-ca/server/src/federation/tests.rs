//! Two whole CAs that federate with each other; and endpoints that break every rule, in whose hands the bundle that was
//! held must stay in force.

use super::endpoint::{BundleEndpoint, EndpointProof};
use crate::testing::in_thread;
use crate::{CaConfig, CaError, Registration, run};
use mesh_api::federation::{HeldStatus, RelationStatus};
use mesh_api::proto::federate_request::Profile;
use mesh_api::proto::trust_admin_client::TrustAdminClient;
use mesh_api::proto::{
    FederateRequest, FetchBundleRequest, RotateRequest, TrustStatusReply, TrustStatusRequest,
    UnfederateRequest,
};
use mesh_api::trust::TrustStatus;
use mesh_platform::{System, files};
use mesh_trust::bundle::WholeBundle;
use mesh_trust::jwt::JwtBundle;
use mesh_trust::{SpiffeId, Svid, TrustBundle, TrustBundles, TrustDomain};
use rustls_pki_types::CertificateDer;
use spiffe::{BundleSource, WorkloadApiClient};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status};

mod hostile;
mod pki;

use pki::Pki;

/// A CA that runs in this process, and gives this process an identity.
struct House {
    dir: tempfile::TempDir,
    domain: TrustDomain,
    endpoint: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), CaError>>,
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn free_address() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn ca_id(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::for_service_account(domain, "mesh-system", "mesh-identity").unwrap()
}

impl House {
    /// With an endpoint that shows an SVID.
    async fn start(name: &str) -> Self {
        let proof = EndpointProof::Svid(ca_id(&domain(name)));
        Self::start_in(tempfile::tempdir().unwrap(), name, free_address(), proof).await
    }

    async fn start_in(
        dir: tempfile::TempDir,
        name: &str,
        listen: SocketAddr,
        proof: EndpointProof,
    ) -> Self {
        let own = domain(name);
        let api = dir.path().join("api.sock");
        let config = CaConfig {
            harden: false,
            trust: Some(dir.path().join("trust.sock")),
            registrations: vec![Registration {
                uid: Some(rustix::process::geteuid().as_raw()),
                executable: None,
                unit: None,
                identity: SpiffeId::for_service_account(&own, "shop", "cart").unwrap(),
            }],
            bundle_endpoint: Some(BundleEndpoint {
                listen,
                proof,
                refresh_secs: 60,
            }),
            ..CaConfig::new(
                &dir.path().join("ca"),
                own.clone(),
                &api,
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
            domain: own,
            endpoint: listen,
            stop,
            task,
        };
        house
            .until("it serves its bundle", |status| {
                let federation = status.federation.as_ref();
                let endpoint = federation.and_then(|federation| federation.endpoint.as_ref());
                endpoint.is_some_and(|endpoint| endpoint.sequence.is_some())
            })
            .await;
        house
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.task).await;
        ended.expect("it ends").unwrap().unwrap();
        self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://{}", self.endpoint)
    }

    fn trust(&self) -> TrustAdminClient<Channel> {
        let socket = self.path("trust.sock");
        TrustAdminClient::new(mesh_api::trust::channel(&socket).unwrap())
            .max_decoding_message_size(16 << 20)
    }

    async fn status(&self) -> Option<TrustStatus> {
        let reply = self.trust().status(TrustStatusRequest {}).await.ok()?;
        Some(read(Ok(reply)).unwrap())
    }

    async fn until(&self, what: &str, wanted: impl Fn(&TrustStatus) -> bool) -> TrustStatus {
        let begun = tokio::time::Instant::now();
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && wanted(status)
            {
                return status.clone();
            }
            let late = begun.elapsed() > Duration::from_secs(30);
            assert!(!late, "{what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A request to federate with `other` by its SVID.
    async fn by_svid(&self, other: &Self) -> FederateRequest {
        FederateRequest {
            trust_domain: other.domain.to_string(),
            url: other.url(),
            profile: Some(Profile::EndpointId(ca_id(&other.domain).to_string())),
            bundle_json: other.status().await.unwrap().bundle_json.into_bytes(),
        }
    }

    async fn federate(&self, request: FederateRequest) -> Result<TrustStatus, Status> {
        read(self.trust().federate(request).await)
    }

    async fn fetch(&self, of: &TrustDomain) -> Result<TrustStatus, Status> {
        let trust_domain = of.to_string();
        read(
            self.trust()
                .fetch_bundle(FetchBundleRequest { trust_domain })
                .await,
        )
    }

    async fn remove(&self, of: &TrustDomain) -> Result<TrustStatus, Status> {
        let trust_domain = of.to_string();
        read(
            self.trust()
                .unfederate(UnfederateRequest { trust_domain })
                .await,
        )
    }

    async fn spiffe(&self) -> WorkloadApiClient {
        let socket = format!("unix://{}", self.path("api.sock").display());
        WorkloadApiClient::connect_to(socket).await.unwrap()
    }

    /// What the Workload API gives as anchors.
    async fn anchors(&self) -> TrustBundles {
        let context = self.spiffe().await.fetch_x509_context().await.unwrap();
        let bundles = context.bundle_set().iter().map(|(name, bundle)| {
            let anchors = bundle.authorities().iter();
            let anchors = anchors.map(|der| CertificateDer::from(der.as_bytes().to_vec()));
            TrustBundle::new(domain(name.as_ref()), anchors.collect()).unwrap()
        });
        bundles.collect()
    }

    /// This process's SVID here.
    async fn svid(&self) -> Svid {
        let context = self.spiffe().await.fetch_x509_context().await.unwrap();
        let chain = context.default_svid().unwrap().cert_chain().to_vec();
        let chain = chain.iter().map(|der| der.as_bytes().to_vec().into());
        Svid::parse(chain.collect()).unwrap()
    }
}

fn read(reply: Result<Response<TrustStatusReply>, Status>) -> Result<TrustStatus, Status> {
    let reply = reply?.into_inner();
    Ok(serde_json::from_slice(&reply.status_json).unwrap())
}

/// The relation with `of`.
fn relation(status: &TrustStatus, of: &TrustDomain) -> Option<RelationStatus> {
    let relations = &status.federation.as_ref()?.relations;
    relations
        .iter()
        .find(|relation| relation.trust_domain == *of)
        .cloned()
}

fn held(status: &TrustStatus, of: &TrustDomain) -> HeldStatus {
    relation(status, of)
        .and_then(|relation| relation.held)
        .expect("a bundle")
}

/// The code of a refusal, as the command would show it.
fn code(refused: &Status) -> String {
    let coded: serde_json::Value =
        serde_json::from_slice(refused.details()).expect("a coded error");
    coded["code"].as_str().unwrap().to_owned()
}

fn now() -> mesh_trust::Timestamp {
    mesh_platform::Platform::wall_clock(&*System::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_meshes_trust_each_others_workloads_each_for_its_own_domain_alone() {
    let pki = Pki::new("roots of the Web");
    let dir = tempfile::tempdir().unwrap();
    let proof = pki.endpoint(dir.path(), &["localhost"]);
    let east = House::start("east.example").await;
    let west = House::start_in(dir, "west.example", free_address(), proof).await;

    // West knows East by an SVID, East knows West by a certificate of the Web.
    west.federate(west.by_svid(&east).await).await.unwrap();
    let begun = east
        .federate(FederateRequest {
            trust_domain: "west.example".into(),
            url: format!("https://localhost:{}", west.endpoint.port()),
            profile: Some(Profile::WebRoots(pki.roots_in(east.dir.path()))),
            bundle_json: Vec::new(),
        })
        .await
        .unwrap();
    assert!(begun.federation.is_some());
    let status = east.fetch(&west.domain).await.unwrap();
    let of_west = held(&status, &west.domain);
    assert_eq!((of_west.anchors.len(), of_west.given), (1, false));
    assert_eq!(of_west.jwt_keys.len(), 1);
    let status = west.fetch(&east.domain).await.unwrap();
    let of_east = held(&status, &east.domain);
    assert_eq!(
        (of_east.jwt_keys.len(), of_east.given),
        (1, false),
        "more than was given"
    );
    assert!(of_east.sequence > Some(1_700_000_000));

    // Both verify both, and no domain's roots stand for another's.
    for house in [&east, &west] {
        let anchors = house.anchors().await;
        for other in [&east, &west] {
            let svid = other.svid().await;
            assert_eq!(anchors.verify(&svid, now()).unwrap().id(), svid.id());
        }
        let swapped: TrustBundles = [(&east, &west), (&west, &east)]
            .map(|(of, to)| {
                let roots = anchors.get(&of.domain).unwrap().anchors().to_vec();
                TrustBundle::new(to.domain.clone(), roots)
            })
            .into_iter()
            .filter_map(Result::ok)
            .collect();
        for other in [&east, &west] {
            assert!(swapped.verify(&other.svid().await, now()).is_err());
        }
    }

    // Tokens too.
    let token = east
        .spiffe()
        .await
        .fetch_jwt_svid(["west"], None)
        .await
        .unwrap();
    let client = west.spiffe().await;
    let validated = client
        .validate_jwt_token("west", token.token())
        .await
        .unwrap();
    assert_eq!(validated.spiffe_id(), token.spiffe_id());
    let bundles = client.fetch_jwt_bundles().await.unwrap();
    for domain in ["east.example", "west.example"] {
        let domain = spiffe::TrustDomain::new(domain).unwrap();
        assert!(bundles.bundle_for_trust_domain(&domain).unwrap().is_some());
    }

    // The end of a relation reaches verifiers at once.
    let status = west.remove(&east.domain).await.unwrap();
    assert_eq!(relation(&status, &east.domain), None);
    let anchors = west.anchors().await;
    assert!(anchors.get(&east.domain).is_none());
    assert!(anchors.verify(&east.svid().await, now()).is_err());
    assert!(anchors.verify(&west.svid().await, now()).is_ok());
    let refused = client.validate_jwt_token("west", token.token()).await;
    assert!(refused.is_err(), "a token of nobody");
    assert_eq!(
        code(&west.remove(&east.domain).await.unwrap_err()),
        "MESH-0964"
    );
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_stays_over_restarts_and_outages_and_a_new_root_arrives() {
    let east = House::start("east.example").await;
    let west = House::start("west.example").await;
    west.federate(west.by_svid(&east).await).await.unwrap();
    let before = held(&west.fetch(&east.domain).await.unwrap(), &east.domain);

    // East restarts with the same keys: the same number. Meanwhile West keeps what it holds, and says since when.
    let (dir, listen) = (east.stop().await, west.endpoint);
    let refused = west.fetch(&before_domain()).await.unwrap_err();
    assert_eq!(code(&refused), "MESH-0967");
    let status = west.status().await.unwrap();
    let failing = relation(&status, &before_domain()).unwrap();
    assert!(failing.failures > 0 && failing.error.is_some());
    assert_eq!(held(&status, &before_domain()).sequence, before.sequence);
    assert!(west.anchors().await.get(&before_domain()).is_some());

    // West restarts too, while East is away.
    let proof = EndpointProof::Svid(ca_id(&domain("west.example")));
    let west = House::start_in(west.stop().await, "west.example", listen, proof).await;
    assert!(west.anchors().await.get(&before_domain()).is_some());
    let after = held(&west.status().await.unwrap(), &before_domain());
    assert_eq!(
        (after.sequence, after.anchors),
        (before.sequence, before.anchors.clone())
    );

    // East is back at another address: that is another relation.
    let east = House::start("east.example").await;
    let refused = west.federate(west.by_svid(&east).await).await.unwrap_err();
    assert_eq!(
        code(&refused),
        "MESH-0963",
        "another CA of the same name is not taken over"
    );
    east.stop().await;
    let proof = EndpointProof::Svid(ca_id(&before_domain()));
    let east = House::start_in(dir, "east.example", free_address(), proof).await;
    west.remove(&east.domain).await.unwrap();
    west.federate(west.by_svid(&east).await).await.unwrap();
    let again = held(&west.fetch(&east.domain).await.unwrap(), &east.domain);
    assert_eq!(again.sequence, before.sequence, "a restart is no change");

    // A rotation: the new root is there before anything is signed under it, and the number has grown.
    read(east.trust().rotate(RotateRequest {}).await).unwrap();
    let begun = tokio::time::Instant::now();
    let newer = loop {
        let newer = held(&west.fetch(&east.domain).await.unwrap(), &east.domain);
        if newer.anchors.len() == 2 {
            break newer;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{newer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(newer.sequence > again.sequence);
    let status = east.status().await.unwrap();
    assert_eq!(status.phase, "proving", "others get their time");
    assert!(status.blockers.iter().any(|b| b.kind == "federation"));
    west.stop().await;
    east.stop().await;
}

fn before_domain() -> TrustDomain {
    domain("east.example")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_no_foreign_domain_and_tells_it_of_nothing() {
    let east = House::start("east.example").await;
    let west = House::start("west.example").await;
    let before = west.status().await.unwrap();
    west.federate(west.by_svid(&east).await).await.unwrap();
    west.fetch(&east.domain).await.unwrap();
    let status = west.status().await.unwrap();
    let ours = |of: &TrustStatus| (of.generation, of.bundle_json.clone(), of.verifiers);
    assert_eq!(ours(&status), ours(&before), "our own bundle is as it was");
    let endpoint = |status: &TrustStatus| {
        let federation = status.federation.clone().unwrap();
        federation.endpoint.unwrap().sequence
    };
    let served = endpoint(&west.status().await.unwrap());
    assert_eq!(
        served,
        endpoint(&before),
        "what others hold is not passed on"
    );
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_that_cannot_be_are_refused_with_a_code() {
    let east = House::start("east.example").await;
    let west = House::start("west.example").await;
    let good = west.by_svid(&east).await;
    let bundle = String::from_utf8(good.bundle_json.clone()).unwrap();
    let own = west.status().await.unwrap().bundle_json;
    let with = |change: &dyn Fn(&mut FederateRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let twice = bundle.replacen("\"keys\"", "\"keys\":[],\"keys\"", 1);
    for (why, request, wanted) in [
        (
            "its own name",
            with(&|r| r.trust_domain = "west.example".into()),
            "MESH-0960",
        ),
        (
            "no name",
            with(&|r| r.trust_domain = "West Example".into()),
            "MESH-0103",
        ),
        (
            "plain HTTP",
            with(&|r| r.url = "http://127.0.0.1:1".into()),
            "MESH-0961",
        ),
        (
            "an endpoint of another domain",
            with(&|r| r.profile = Some(Profile::EndpointId("spiffe://third.example/ca".into()))),
            "MESH-0962",
        ),
        ("no profile", with(&|r| r.profile = None), "MESH-0977"),
        (
            "nothing to know it by",
            with(&|r| r.bundle_json.clear()),
            "MESH-0966",
        ),
        (
            "a bundle without anchors",
            with(&|r| r.bundle_json = br#"{"keys":[]}"#.to_vec()),
            "MESH-0966",
        ),
        (
            "a key twice",
            with(&|r| r.bundle_json = twice.clone().into_bytes()),
            "MESH-0151",
        ),
        (
            "our own bundle",
            with(&|r| r.bundle_json = own.clone().into_bytes()),
            "MESH-0155",
        ),
    ] {
        let refused = west.federate(request).await.expect_err(why);
        assert_eq!(code(&refused), wanted, "{why}");
    }
    let status = west.status().await.unwrap();
    assert!(status.federation.unwrap().relations.is_empty());
    assert_eq!(west.anchors().await.iter().count(), 1);
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_that_were_tampered_with_are_not_believed() {
    let east = House::start("east.example").await;
    let west = House::start("west.example").await;
    west.federate(west.by_svid(&east).await).await.unwrap();
    let dir = west.stop().await;
    let file = dir.path().join("ca/federation/relations.json");
    let written = std::fs::read_to_string(&file).unwrap();
    let open = |dir: &Path| {
        super::book::Federation::open(&dir.join("ca"), &domain("west.example"), System::new())
    };
    assert!(open(dir.path()).is_ok());
    for (from, to) in [
        ("east.example", "third.example"),
        ("east.example", "west.example"),
        ("https://", "http://"),
        ("\"version\": 1", "\"version\": 2"),
        ("\"url\"", "\"more\": 1, \"url\""),
        ("{", "["),
    ] {
        let changed = written.replacen(from, to, 1);
        files::write_atomic(&file, changed.as_bytes(), 0o600).unwrap();
        let refused = open(dir.path());
        assert!(
            matches!(refused, Err(CaError::Corrupt { .. })),
            "{from} -> {to}"
        );
    }
    east.stop().await;
}

/// A bundle that `of` could serve: `anchors`, and a key for tokens by each of these names.
fn whole(of: &str, anchors: Vec<CertificateDer<'static>>, sequence: u64) -> WholeBundle {
    let x509 = TrustBundle::new(domain(of), anchors).unwrap();
    WholeBundle::new(x509.with_sequence(sequence), JwtBundle::new(domain(of))).unwrap()
}
