//! The deny list over the network, as pods' proxies follow it, and machines that are denied.

use super::*;
use hyper_util::rt::TokioIo;
use mesh_api::proto::denial_admin_client::DenialAdminClient;
use mesh_api::proto::denials_client::DenialsClient;
use mesh_api::proto::{DenialsAck, DenialsReply, DenialsUpdate, DeniedRequest, DenyRequest};
use mesh_trust::{Denials, Denied};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};

/// A pod that follows the list.
struct Follower {
    acks: mpsc::Sender<DenialsAck>,
    updates: Streaming<DenialsUpdate>,
}

impl Follower {
    async fn next(&mut self) -> Denials {
        let update = tokio::time::timeout(Duration::from_secs(5), self.updates.message()).await;
        let update = update.expect("in time").unwrap().unwrap();
        Denials::from_json(&update.list_json).unwrap()
    }
}

impl House {
    async fn admin(&self) -> DenialAdminClient<Channel> {
        let socket = self.dir.path().join("admin.sock");
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://local.invalid");
        DenialAdminClient::new(endpoint.connect_with_connector_lazy(connect))
    }

    async fn deny(&self, what: &Denied) -> DenialsReply {
        let request = DenyRequest {
            what_json: serde_json::to_vec(what).unwrap(),
            reason: "a test".into(),
        };
        self.admin().await.deny(request).await.unwrap().into_inner()
    }

    async fn follow_denials(&self, material: &Material) -> Result<Follower, Status> {
        let expected = ExpectedPeer::OneOf(Arc::from([identity()]));
        let svid = Svid::parse(material.chain.clone()).unwrap();
        let tls = TlsIdentity::new(svid, material.key.clone_key()).unwrap();
        let settings = client_config(&tls, self.bundles(), expected, &[ALPN]).unwrap();
        let channel = mesh_api::dial::connect(&self.listen.to_string(), settings).await;
        let (acks, outgoing) = mpsc::channel(4);
        let mut client = DenialsClient::new(channel.unwrap());
        let updates = client.watch(ReceiverStream::new(outgoing)).await?;
        Ok(Follower {
            acks,
            updates: updates.into_inner(),
        })
    }
}

fn serial(material: &Material) -> String {
    let svid = Svid::parse(material.chain.clone()).unwrap();
    svid.serial().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_follows_the_list_and_says_what_it_enforces_until_it_is_denied_itself() {
    let house = House::start(Table::with(&["cart", "web"]), Duration::from_secs(60)).await;
    let cart = next(&mut house.follow("token of cart")).await;
    let mut follower = house.follow_denials(&cart).await.unwrap();
    assert!(follower.next().await.is_empty());
    house.deny(&Denied::Identity(id("ns/shop/sa/web"))).await;
    let list = follower.next().await;
    assert!(list.denies_identity(&id("ns/shop/sa/web")));
    let generation = list.generation();
    follower.acks.send(DenialsAck { generation }).await.unwrap();
    let mut enforcers = Vec::new();
    for _ in 0..500 {
        let reply = house.admin().await.denied(DeniedRequest {}).await.unwrap();
        enforcers = reply.into_inner().enforcers;
        if !enforcers.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let [one] = enforcers.as_slice() else {
        panic!("{enforcers:?}")
    };
    assert_eq!(one.instance, "pod shop/cart uid uid-cart");
    assert_eq!((one.generation, one.pid), (generation, 0));
    // Whom the list denies is not told of it.
    house.deny(&Denied::Serial(serial(&cart))).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), follower.updates.message()).await;
    let status = ended.expect("in time").unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let again = house
        .follow_denials(&cart)
        .await
        .unwrap()
        .updates
        .message()
        .await;
    assert_eq!(again.unwrap_err().code(), Code::PermissionDenied);
    let reply = house.admin().await.denied(DeniedRequest {}).await.unwrap();
    assert!(reply.into_inner().enforcers.is_empty());
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_on_the_network_does_not_learn_who_is_denied() {
    let house = House::start(Table::with(&["cart"]), Duration::from_secs(60)).await;
    let expected = ExpectedPeer::OneOf(Arc::from([identity()]));
    let settings = client_config_without_identity(house.bundles(), expected, &[ALPN]).unwrap();
    let channel = mesh_api::dial::connect(&house.listen.to_string(), settings)
        .await
        .unwrap();
    let (_acks, outgoing) = mpsc::channel::<DenialsAck>(1);
    let watched = DenialsClient::new(channel)
        .watch(ReceiverStream::new(outgoing))
        .await;
    assert_eq!(watched.unwrap_err().code(), Code::PermissionDenied);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_node_of_the_cluster_gets_nothing_and_loses_what_its_pods_hold() {
    let table = Table::with(&["cart", "web"]);
    table.pods.lock().unwrap().get_mut("web").unwrap().node = "node-b".to_owned();
    let house = House::start(table, Duration::from_secs(60)).await;
    let cart = next(&mut house.follow("token of cart")).await;
    let web = next(&mut house.follow("token of web")).await;
    let reply = house.deny(&Denied::Node("node-a".into())).await;
    let list = Denials::from_json(&reply.list_json).unwrap();
    assert!(list.contains(&Denied::Serial(serial(&cart))));
    assert!(!list.contains(&Denied::Serial(serial(&web))));
    let leaves = house.leaves();
    let refused = house
        .stranger()
        .await
        .issue(issue(token("token of cart")))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(house.leaves(), leaves, "nothing was signed for it");
    let mut stranger = house.stranger().await;
    let served = stranger.issue(issue(token("token of web")));
    served.await.unwrap();
    house.end().await;
}
