//! The trust stream on the network: pods that acknowledge, pods that cannot, pods that are gone, and strangers.

use super::*;
use mesh_api::proto::trust_admin_client::TrustAdminClient;
use mesh_api::proto::trust_client::TrustClient;
use mesh_api::proto::{RotateRequest, TrustAcknowledgment, TrustStatusRequest, WatchTrustRequest};
use mesh_api::trust::{Outcome, TrustStatus, Update};
use mesh_ca_client::Steering;
use mesh_trust::tls::check_chain;

/// A pod's proxy, as far as trust is concerned.
#[derive(Clone, Default)]
struct Proxy {
    steering: Arc<Steering>,
    held: Arc<Mutex<Option<(TlsIdentity, TrustBundles)>>>,
}

impl Proxy {
    /// Asks for SVIDs and follows the trust stream, for as long as its task lives.
    fn start(house: &House, token: &str) -> (Self, JoinHandle<()>) {
        let (proxy, ca) = (Self::default(), house.asker(token));
        let this = proxy.clone();
        let task = tokio::spawn(async move {
            tokio::join!(this.ask(&ca), this.verify(&ca));
        });
        (proxy, task)
    }

    async fn ask(&self, ca: &RemoteCa) {
        let take = |material: Material| {
            let svid = Svid::parse(material.chain).unwrap();
            let tls = TlsIdentity::new(svid, material.key).unwrap();
            *self.held.lock().unwrap() = Some((tls, material.bundles));
        };
        mesh_ca_client::follow(ca, &*System::new(), &self.steering, take).await;
    }

    async fn verify(&self, ca: &RemoteCa) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Some((tls, bundles)) = self.held() else {
                continue;
            };
            let mut acknowledged = None;
            let apply = |update: &Update, again: bool| {
                let (tls, _) = self.held()?;
                let serial = tls.svid().serial().to_owned();
                if again && acknowledged.as_ref() == Some(&serial) {
                    return None;
                }
                if !again {
                    self.steering.heard(update);
                }
                let now = System::new().wall_clock();
                let canary = check_chain(&update.bundles, update.canary.chain(), now);
                acknowledged = Some(serial);
                Some(Outcome {
                    identity: tls,
                    canary: canary.map(drop).map_err(|why| why.to_string()),
                    now,
                    refused_handshakes: 0,
                })
            };
            let connected = mesh_ca_client::connect(ca, &tls, Arc::new(bundles)).await;
            let Ok(channel) = connected else { continue };
            let _ = mesh_api::trust::follow(&ca.address, channel, apply).await;
        }
    }

    fn held(&self) -> Option<(TlsIdentity, TrustBundles)> {
        self.held.lock().unwrap().clone()
    }

    async fn first(&self) -> TlsIdentity {
        for _ in 0..500 {
            if let Some((tls, _)) = self.held() {
                return tls;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no SVID in time")
    }
}

impl House {
    async fn trust(&self) -> TrustAdminClient<Channel> {
        let socket = self.dir.path().join("trust.sock");
        TrustAdminClient::new(mesh_api::trust::channel(&socket).unwrap())
    }

    async fn status(&self) -> TrustStatus {
        let reply = self
            .trust()
            .await
            .status(TrustStatusRequest {})
            .await
            .unwrap();
        serde_json::from_slice(&reply.into_inner().status_json).unwrap()
    }

    /// Waits until the status is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&TrustStatus) -> bool) -> TrustStatus {
        let begun = tokio::time::Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{what}: {status:#?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_moves_pods_to_the_new_root_without_anybody_being_waived() {
    let house = House::start(Table::with(&["cart", "web"]), Duration::from_secs(3_600)).await;
    let pods = ["token of cart", "token of web"].map(|token| Proxy::start(&house, token));
    let mut before = Vec::new();
    for (proxy, _) in &pods {
        before.push(proxy.first().await);
    }
    let all = |status: &TrustStatus| status.verifiers.acknowledged == 2;
    let old = house
        .until("both acknowledge the first bundle", all)
        .await
        .roots[0]
        .sha256
        .clone();
    house.trust().await.rotate(RotateRequest {}).await.unwrap();
    let done = |status: &TrustStatus| status.phase == "steady" && status.generation == 3;
    let status = house.until("the rotation ends by itself", done).await;
    assert_ne!(status.roots[0].sha256, old);
    assert_eq!((status.verifiers.connected, status.waived.len()), (2, 0));
    for ((proxy, _), before) in pods.iter().zip(before) {
        let (tls, _) = proxy.held().unwrap();
        let bundles = TrustBundles::from_json(status_map(&status).as_bytes()).unwrap();
        bundles
            .verify(tls.svid(), System::new().wall_clock())
            .unwrap();
        bundles
            .verify(before.svid(), System::new().wall_clock())
            .unwrap_err();
    }
    house.end().await;
}

/// The bundle of a status as a map.
fn status_map(status: &TrustStatus) -> String {
    let bundle = TrustBundle::from_pem(domain(), status.bundle_pem.as_bytes()).unwrap();
    TrustBundles::from(bundle).to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_acknowledge_is_named_and_waited_for_until_it_is_gone() {
    let table = Table::with(&["cart", "mute"]);
    let house = House::start(table.clone(), Duration::from_secs(3_600)).await;
    let (proxy, _task) = Proxy::start(&house, "token of cart");
    proxy.first().await;
    next(&mut house.follow("token of mute")).await;
    house.trust().await.rotate(RotateRequest {}).await.unwrap();
    let one = |status: &TrustStatus| status.blockers.len() == 1;
    let status = house.until("one is waited for", one).await;
    let blocker = &status.blockers[0];
    assert_eq!(blocker.name, "spiffe://cluster.local/ns/shop/sa/mute");
    assert_eq!(
        blocker.instance.as_deref(),
        Some("pod shop/mute uid uid-mute")
    );
    assert_eq!(blocker.kind, "cannotAcknowledge");
    // While the API server cannot be asked nobody is given up.
    table.down.store(true, std::sync::atomic::Ordering::SeqCst);
    table.pods.lock().unwrap().remove("mute");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(house.status().await.phase, "proving");
    table.down.store(false, std::sync::atomic::Ordering::SeqCst);
    house
        .until("it goes on", |status| status.phase == "steady")
        .await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_stream_and_nobody_acknowledges_for_another() {
    let house = House::start(Table::with(&["cart", "web"]), Duration::from_secs(3_600)).await;
    let anybody = ExpectedPeer::OneOf(Arc::from([identity()]));
    let settings =
        client_config_without_identity(house.bundles(), anybody.clone(), &[ALPN]).unwrap();
    let address = house.listen.to_string();
    let channel = mesh_api::dial::connect(&address, settings).await.unwrap();
    let mut stranger = TrustClient::new(channel);
    let refused = stranger.watch(WatchTrustRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = stranger
        .acknowledge(TrustAcknowledgment::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Cart is sent an update; web brings the answer.
    let of = |material: Material| {
        TlsIdentity::new(Svid::parse(material.chain).unwrap(), material.key).unwrap()
    };
    let cart = of(next(&mut house.follow("token of cart")).await);
    let web = of(next(&mut house.follow("token of web")).await);
    let connect = async |tls: &TlsIdentity| {
        let settings = client_config(tls, house.bundles(), anybody.clone(), &[ALPN]).unwrap();
        TrustClient::new(mesh_api::dial::connect(&address, settings).await.unwrap())
    };
    let (mut as_cart, mut as_web) = (connect(&cart).await, connect(&web).await);
    let mut stream = as_cart
        .watch(WatchTrustRequest {})
        .await
        .unwrap()
        .into_inner();
    let update = Update::read(stream.message().await.unwrap().unwrap()).unwrap();
    assert!(!update.renew, "nothing is under way");
    let signed = |identity: &TlsIdentity| {
        let outcome = Outcome {
            identity: identity.clone(),
            canary: Ok(()),
            now: System::new().wall_clock(),
            refused_handshakes: 0,
        };
        update.acknowledge(&outcome).unwrap()
    };
    for (ack, code) in [(signed(&cart), "MESH-0956"), (signed(&web), "MESH-0910")] {
        let refused = as_web.acknowledge(ack).await.unwrap_err();
        assert!(refused.message().starts_with(code), "{}", refused.message());
    }
    assert_eq!(house.status().await.verifiers.acknowledged, 0);
    as_cart.acknowledge(signed(&cart)).await.unwrap();
    assert_eq!(house.status().await.verifiers.acknowledged, 1);
    // A canary that was refused, and an update that was answered for another generation.
    let mut late = signed(&cart);
    late.generation = 7;
    let refused = as_cart.acknowledge(late).await.unwrap_err();
    assert!(
        refused.message().starts_with("MESH-0915"),
        "its signature: {}",
        refused.message()
    );
    house.end().await;
}
