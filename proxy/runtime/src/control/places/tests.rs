//! Discovery that is half there, broken off, wrong, or told by a controller of another age: what is in force stays, and
//! nothing is taken to be outside of the mesh meanwhile.

use super::super::tests::shared;
use super::*;
use crate::services::Behind;
use futures_util::StreamExt;
use mesh_api::discovery::{Discovery, PodAddress};
use mesh_api::proto::policy_server::{Policy, PolicyServer};
use mesh_api::proto::{
    DiscoverySlice, EquivalenceReport, EquivalenceReportReply, WatchWorkloadRequest, WorkloadUpdate,
};
use mesh_api::slices::{Encoded, Slice, Slices, slice_of_address};
use mesh_trust::SpiffeId;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};

type Said = Result<DiscoveryUpdate, Status>;
type Saying = Pin<Box<dyn Stream<Item = Said> + Send>>;

/// A controller that says what it is told to; one that is told nothing knows no such question.
#[derive(Clone, Default)]
struct Controller {
    streams: Arc<Mutex<VecDeque<mpsc::UnboundedReceiver<Said>>>>,
    /// What each request said that the proxy has.
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    /// What a request is answered for which there is no stream, if it knows the question.
    refusal: Arc<Mutex<Option<Code>>>,
}

#[tonic::async_trait]
impl Policy for Controller {
    type WatchWorkloadStream = Pin<Box<dyn Stream<Item = Result<WorkloadUpdate, Status>> + Send>>;
    type WatchDiscoveryStream = Saying;

    async fn watch_workload(
        &self,
        _: Request<WatchWorkloadRequest>,
    ) -> Result<Response<Self::WatchWorkloadStream>, Status> {
        Err(Status::internal("nobody asks here"))
    }

    async fn watch_discovery(
        &self,
        request: Request<WatchDiscoveryRequest>,
    ) -> Result<Response<Saying>, Status> {
        let request = request.into_inner();
        assert_eq!(
            (&*request.namespace, &*request.workload, request.slices),
            ("shop", "cart", 1_024)
        );
        self.asked.lock().unwrap().push(request.has);
        match self.streams.lock().unwrap().pop_front() {
            Some(stream) => Ok(Response::new(UnboundedReceiverStream::new(stream).boxed())),
            None => Err(match *self.refusal.lock().unwrap() {
                Some(code) => Status::new(code, "refused"),
                None => Status::unimplemented("an older controller"),
            }),
        }
    }

    async fn report_equivalence(
        &self,
        _: Request<EquivalenceReport>,
    ) -> Result<Response<EquivalenceReportReply>, Status> {
        Err(Status::internal("nobody reports here"))
    }
}

impl Controller {
    /// What is said on the next stream.
    fn stream(&self) -> mpsc::UnboundedSender<Said> {
        let (say, stream) = mpsc::unbounded_channel();
        self.streams.lock().unwrap().push_back(stream);
        say
    }

    async fn client(&self) -> PolicyClient<Channel> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let service = PolicyServer::new(self.clone());
        let incoming =
            tokio_stream::once(Ok::<_, std::io::Error>(theirs)).chain(tokio_stream::pending());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let mut ours = Some(ours);
        let connect = tower::service_fn(move |_| {
            let ours = ours.take().map(hyper_util::rt::TokioIo::new);
            async move { ours.ok_or_else(|| std::io::Error::other("one connection")) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://controller");
        PolicyClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }
}

const MESHED: &str = "10.0.0.7:80";

/// A mesh in which a pod is, and another that comes and goes.
fn mesh(name: Option<&str>) -> Discovery {
    let pod = |ip: &str, name: &str| PodAddress {
        ip: ip.parse().unwrap(),
        workload: format!("shop/{name}"),
        identity: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/db").unwrap()),
        proxy: Some("10.0.0.7:15008".parse().unwrap()),
    };
    let mut pods = vec![pod("10.0.0.7", "db")];
    pods.extend(name.map(|name| pod("10.0.0.8", name)));
    Discovery {
        pods,
        ..Discovery::default()
    }
}

/// The slices of a discovery that hold these addresses, and a digest over all if it is to be whole with them.
fn message(of: &Discovery, ips: &[&str], whole: bool) -> DiscoveryUpdate {
    let all = Slice::all_of(of.clone());
    let slice = |ip: &&str| {
        let number = slice_of_address(ip.parse().unwrap());
        let json = Encoded::of(&all[usize::from(number)]).map(|one| one.json);
        DiscoverySlice {
            number: number.into(),
            json: json.unwrap_or_default(),
        }
    };
    let digest = *Slices::from(of.clone()).digest();
    DiscoveryUpdate {
        slices: ips.iter().map(slice).collect(),
        digest: if whole { digest.to_vec() } else { Vec::new() },
    }
}

/// Who is known to be at an address; `None`: it is outside.
fn at(shared: &Shared, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    match shared.discovery.load().behind(to) {
        Behind::Pod(pod) => Some(pod.workload.clone()),
        Behind::Outside => None,
        other => panic!("{other:?}"),
    }
}

/// Follows until that is so; or for a while, when nothing is to come of it.
async fn follow_until(
    shared: &Shared,
    client: &PolicyClient<Channel>,
    is_so: impl Fn() -> bool,
) -> Option<String> {
    let until = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        why = follow(shared, client.clone()) => Some(why),
        () = until => None,
        () = tokio::time::sleep(Duration::from_secs(5)) => panic!("it never came to that"),
    }
}

async fn follow_for_a_while(shared: &Shared, client: &PolicyClient<Channel>) -> Option<String> {
    let follow = follow(shared, client.clone());
    tokio::time::timeout(Duration::from_millis(100), follow)
        .await
        .ok()
}

#[tokio::test]
async fn before_all_is_told_nobody_is_known_to_be_outside() {
    let (shared, controller) = (shared(), Controller::default());
    let client = controller.client().await;
    let say = controller.stream();
    say.send(Ok(message(&mesh(None), &["10.0.0.7"], false)))
        .unwrap();
    // A connection waits while the version is 0, and is reset then (`outbound::redirected`).
    assert_eq!(follow_for_a_while(&shared, &client).await, None);
    assert_eq!(shared.discovery.load().version, 0);
    shared.install_zone(Some("east".to_owned()));
    let known = shared.discovery.load();
    assert_eq!((known.version, known.zone.as_deref()), (0, Some("east")));
    assert!(crate::admin::lacks_discovery(&shared), "it is not ready");

    let say = controller.stream();
    say.send(Ok(message(&mesh(None), &["10.0.0.7"], false)))
        .unwrap();
    say.send(Ok(message(&mesh(None), &[], true))).unwrap();
    let why = follow_until(&shared, &client, || shared.discovery.load().version == 1).await;
    assert_eq!(why, None);
    assert_eq!(controller.asked.lock().unwrap().len(), 2);
    assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));
    assert_eq!(at(&shared, "10.0.0.8:80"), None);
    assert_eq!(shared.discovery.load().zone.as_deref(), Some("east"));
    assert!(!crate::admin::lacks_discovery(&shared));
}

#[tokio::test]
async fn an_empty_mesh_that_is_whole_is_a_word_too() {
    let (shared, controller) = (shared(), Controller::default());
    let say = controller.stream();
    say.send(Ok(message(&Discovery::default(), &[], true)))
        .unwrap();
    let client = controller.client().await;
    let why = follow_until(&shared, &client, || shared.discovery.load().version == 1).await;
    assert_eq!((why, shared.discovery.load().version), (None, 1));
    assert_eq!(controller.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_in_force_stays_until_news_are_whole_and_over_the_end_of_the_stream() {
    let (shared, controller) = (shared(), Controller::default());
    shared.install_discovery(mesh(Some("old")));
    let client = controller.client().await;
    let other = "10.0.0.8:80";
    let say = controller.stream();
    say.send(Ok(message(&mesh(Some("new")), &["10.0.0.8"], false)))
        .unwrap();
    drop(say);
    let why = follow_for_a_while(&shared, &client).await.expect("ended");
    assert!(why.ends_with("closed the stream"), "{why}");
    assert_eq!(at(&shared, other).as_deref(), Some("shop/old"));

    // The next one begins with what is in force, not with what came by half.
    let say = controller.stream();
    say.send(Ok(message(&mesh(Some("new")), &["10.0.0.8"], true)))
        .unwrap();
    let why = follow_until(&shared, &client, || {
        at(&shared, other).as_deref() == Some("shop/new")
    });
    assert_eq!(why.await, None);
    assert_eq!(at(&shared, other).as_deref(), Some("shop/new"));
    let had = Slices::from(mesh(Some("old"))).has();
    assert_eq!(*controller.asked.lock().unwrap(), [had.clone(), had]);

    let say = controller.stream();
    say.send(Ok(message(&mesh(None), &["10.0.0.8"], true)))
        .unwrap();
    let why = follow_until(&shared, &client, || at(&shared, other).is_none()).await;
    assert_eq!((why, at(&shared, other)), (None, None));
    assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));

    let say = controller.stream();
    say.send(Err(Status::permission_denied("not yours")))
        .unwrap();
    let why = follow_for_a_while(&shared, &client).await.expect("ended");
    assert!(why.contains("not yours"), "{why}");
    assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));
}

#[tokio::test]
async fn after_news_that_cannot_be_used_all_is_asked_for_anew_and_what_is_in_force_stays() {
    let unreadable = DiscoveryUpdate {
        slices: vec![DiscoverySlice {
            number: 3,
            json: "{".into(),
        }],
        digest: Vec::new(),
    };
    let had = Slices::from(mesh(None)).has();
    for (what, wrong, then_has) in [
        (
            "a slice that was lost",
            message(&mesh(Some("new")), &[], true),
            Vec::new(),
        ),
        // Another one would be as unreadable: no need for those that are good.
        ("a slice that cannot be read", unreadable, had.clone()),
        (
            "a digest cut short",
            DiscoveryUpdate {
                slices: Vec::new(),
                digest: vec![1; 31],
            },
            Vec::new(),
        ),
    ] {
        let (shared, controller) = (shared(), Controller::default());
        shared.install_discovery(mesh(None));
        let (say, then) = (controller.stream(), controller.stream());
        say.send(Ok(wrong)).unwrap();
        let client = controller.client().await;
        let asked = || controller.asked.lock().unwrap().clone();
        let why = follow_until(&shared, &client, || asked().len() == 2).await;
        assert_eq!(why, None, "{what}: policy is not concerned");
        assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"), "{what}");
        assert_eq!(shared.discovery.load().version, 1, "{what}");
        let text = mesh_proxy_core::exposition::render(&shared.telemetry.merged());
        assert!(text.contains("mesh_discovery_refused_total 1"), "{what}");
        assert_eq!(asked(), [had.clone(), then_has], "{what}");
        drop(then);
    }
    // Nothing that came before it counts for the next stream.
    let (shared, controller) = (shared(), Controller::default());
    shared.install_discovery(mesh(Some("old")));
    let (say, then) = (controller.stream(), controller.stream());
    say.send(Ok(message(&mesh(Some("new")), &["10.0.0.8"], false)))
        .unwrap();
    say.send(Ok(message(&mesh(None), &[], true))).unwrap();
    then.send(Ok(message(&mesh(None), &["10.0.0.7"], true)))
        .unwrap();
    let client = controller.client().await;
    let why = follow_until(&shared, &client, || shared.discovery.load().version == 2).await;
    assert_eq!((why, shared.discovery.load().version), (None, 2));
    assert_eq!(at(&shared, "10.0.0.8:80"), None);
    assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));
}

#[tokio::test]
async fn a_controller_that_does_not_tell_it_apart_tells_it_beside_the_policy() {
    let (shared, controller) = (shared(), Controller::default());
    let client = controller.client().await;
    assert_eq!(
        follow_for_a_while(&shared, &client).await,
        None,
        "it goes on"
    );
    assert_eq!(controller.asked.lock().unwrap().len(), 1, "asked once");
    assert_eq!(shared.discovery.load().version, 0);
    shared.install_discovery(mesh(None));
    assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));

    // The next controller may be one that does: what it was told in one piece is known in slices as well.
    let say = controller.stream();
    say.send(Ok(message(&mesh(Some("new")), &["10.0.0.8"], true)))
        .unwrap();
    let why = follow_until(&shared, &client, || shared.discovery.load().version == 2).await;
    assert_eq!((why, shared.discovery.load().version), (None, 2));
    assert_eq!(at(&shared, "10.0.0.8:80").as_deref(), Some("shop/new"));
}

/// Were the connection given up, policy would come anew with each attempt, for ever.
#[tokio::test]
async fn a_controller_that_does_not_tell_discovery_is_asked_again_on_the_same_connection() {
    let refused = |shared: &Shared| {
        let text = mesh_proxy_core::exposition::render(&shared.telemetry.merged());
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("mesh_discovery_refused_total "));
        count.is_some_and(|count| count != "0")
    };
    for code in [
        Code::InvalidArgument,
        Code::Internal,
        Code::ResourceExhausted,
        Code::OutOfRange,
    ] {
        let (shared, controller) = (shared(), Controller::default());
        shared.install_discovery(mesh(None));
        *controller.refusal.lock().unwrap() = Some(code);
        let client = controller.client().await;
        let why = follow_until(&shared, &client, || refused(&shared)).await;
        assert_eq!(why, None, "{code}");
        assert_eq!(at(&shared, MESHED).as_deref(), Some("shop/db"));
        // On a stream that stood as well.
        let (shared, say) = (super::super::tests::shared(), controller.stream());
        say.send(Err(Status::new(code, "no more"))).unwrap();
        let why = follow_until(&shared, &client, || refused(&shared)).await;
        assert_eq!(why, None, "{code}");
    }
    let (shared, controller) = (shared(), Controller::default());
    *controller.refusal.lock().unwrap() = Some(Code::InvalidArgument);
    let client = controller.client().await;
    let follow = follow(&shared, client.clone());
    let ended = tokio::time::timeout(Duration::from_millis(500), follow).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(controller.asked.lock().unwrap().len(), 1, "not soon again");
    // What is wrong with who asks, or with the connection, is wrong for policy too.
    for code in [
        Code::Unavailable,
        Code::Cancelled,
        Code::Unknown,
        Code::Unauthenticated,
        Code::PermissionDenied,
    ] {
        *controller.refusal.lock().unwrap() = Some(code);
        let why = follow_until(&shared, &client, || false).await;
        assert!(why.is_some_and(|why| why.contains("refused")), "{code}");
    }
}
