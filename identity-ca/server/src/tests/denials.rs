//! The deny list as operators change it, as workloads feel it, and as those who verify follow it.

use super::*;
use crate::issuing::Desk;
use crate::testing::request;
use mesh_api::proto::denial_admin_client::DenialAdminClient;
use mesh_api::proto::denials_client::DenialsClient;
use mesh_api::proto::{AllowRequest, DenialsAck, DenialsReply, DeniedRequest, DenyRequest};
use mesh_issuance::Profile;
use mesh_platform::Platform;
use mesh_trust::{Denials, Denied};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Admin = DenialAdminClient<Channel>;

async fn house() -> Running {
    Running::start(|config| config.registrations = open_house()).await
}

async fn admin(ca: &Running) -> Admin {
    DenialAdminClient::new(channel(ca.dir.path().join("admin.sock")).await)
}

fn json(what: &Denied) -> Vec<u8> {
    serde_json::to_vec(what).unwrap()
}

async fn deny(admin: &mut Admin, what: &Denied) -> Result<DenialsReply, Status> {
    let request = DenyRequest {
        what_json: json(what),
        reason: "a test".into(),
    };
    admin.deny(request).await.map(tonic::Response::into_inner)
}

async fn allow(admin: &mut Admin, what: &Denied) -> Result<DenialsReply, Status> {
    let request = AllowRequest {
        what_json: json(what),
    };
    admin.allow(request).await.map(tonic::Response::into_inner)
}

fn cart() -> Denied {
    Denied::Identity(id("ns/shop/sa/cart"))
}

/// The next SVID of a stream: its chain.
async fn next(stream: &mut tonic::Streaming<crate::proto::X509svidResponse>) -> Svid {
    let message = tokio::time::timeout(Duration::from_secs(5), stream.message()).await;
    let message = message.expect("in time").unwrap().unwrap();
    let mut chain = Vec::new();
    let mut rest = message.svids[0].x509_svid.as_slice();
    while let [0x30, 0x82, high, low, ..] = rest {
        let (one, after) = rest.split_at(4 + usize::from(u16::from_be_bytes([*high, *low])));
        chain.push(CertificateDer::from(one.to_vec()));
        rest = after;
    }
    Svid::parse(chain).unwrap()
}

#[tokio::test]
async fn a_denied_identity_loses_its_streams_and_gets_nothing_until_it_is_allowed() {
    let ca = house().await;
    let (mut admin, mut client) = (admin(&ca).await, ca.raw().await);
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    next(&mut stream).await;
    let begun = tokio::time::Instant::now();
    deny(&mut admin, &cart()).await.unwrap();
    assert_eq!(end_of(stream).await.message(), "no identity issued");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let request = JwtsvidRequest {
        audience: vec!["checkout".into()],
        spiffe_id: String::new(),
    };
    let token = client.fetch_jwtsvid(with_header(request)).await;
    assert_eq!(token.unwrap_err().code(), Code::PermissionDenied);
    allow(&mut admin, &cart()).await.unwrap();
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    next(&mut stream).await;
    ca.stop().await;
}

#[tokio::test]
async fn a_workload_whose_certificate_key_or_issuer_is_denied_gets_new_ones_at_once() {
    let ca = house().await;
    let (mut admin, mut client) = (admin(&ca).await, ca.raw().await);
    let mut stream = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = next(&mut stream).await;
    deny(&mut admin, &Denied::Serial(first.serial().to_owned()))
        .await
        .unwrap();
    let second = next(&mut stream).await;
    assert_ne!(first.serial(), second.serial());
    let info = |svid: &Svid, place: usize| {
        let (_, read) = x509_parser::parse_x509_certificate(&svid.chain()[place]).unwrap();
        let key = ring::digest::digest(&ring::digest::SHA256, read.public_key().raw);
        data_encoding::HEXLOWER.encode(key.as_ref())
    };
    deny(&mut admin, &Denied::Key(info(&second, 0)))
        .await
        .unwrap();
    let third = next(&mut stream).await;
    assert_ne!(info(&second, 0), info(&third, 0));
    let issuer = {
        let (_, read) = x509_parser::parse_x509_certificate(&third.chain()[1]).unwrap();
        let id = read
            .extensions()
            .iter()
            .find_map(|one| match one.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                    Some(id.0.to_vec())
                }
                _ => None,
            });
        data_encoding::HEXLOWER.encode(&id.unwrap())
    };
    deny(&mut admin, &Denied::Issuer(issuer)).await.unwrap();
    let fourth = next(&mut stream).await;
    assert_ne!(info(&third, 1), info(&fourth, 1), "another issuer signed");
    ca.stop().await;
}

#[tokio::test]
async fn whoever_verifies_follows_the_list_and_says_which_one_is_enforced() {
    let ca = house().await;
    let mut admin = admin(&ca).await;
    let mut watcher = DenialsClient::new(channel(ca.api()).await);
    let (acks, outgoing) = mpsc::channel(4);
    let mut updates = watcher
        .watch(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let mut lists = async || {
        let update = tokio::time::timeout(Duration::from_secs(5), updates.message()).await;
        let update = update.expect("in time").unwrap().unwrap();
        Denials::from_json(&update.list_json).unwrap()
    };
    assert!(lists().await.is_empty(), "the first one comes at once");
    let reply = deny(&mut admin, &Denied::Identity(id("ns/shop/sa/web")))
        .await
        .unwrap();
    let list = lists().await;
    assert_eq!(list, Denials::from_json(&reply.list_json).unwrap());
    acks.send(DenialsAck {
        generation: list.generation(),
    })
    .await
    .unwrap();
    for _ in 0..100 {
        let reply = admin.denied(DeniedRequest {}).await.unwrap().into_inner();
        if reply
            .enforcers
            .iter()
            .any(|one| one.generation == list.generation())
        {
            // Whoever claims a newer list than there is must not make ours look old.
            acks.send(DenialsAck { generation: 70 }).await.unwrap();
            let renumbered = lists().await;
            assert_eq!(renumbered.generation(), 71);
            assert_eq!(renumbered.iter().count(), 1);
            return drop(ca.stop().await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the acknowledgment was not seen");
}

#[tokio::test]
async fn a_long_list_is_there_after_a_restart() {
    let ca = house().await;
    let mut admin_of = admin(&ca).await;
    // More than the files of keys may have: about 350 octets an entry.
    for n in 0..300 {
        let request = DenyRequest {
            what_json: json(&Denied::Serial(format!("5a{n:08x}"))),
            reason: "r".repeat(mesh_trust::limits::DENIAL_REASON_BYTES_MAX),
        };
        admin_of.deny(request).await.unwrap();
    }
    let ca = Running::start_in(ca.stop().await, |_| {}).await;
    let reply = admin(&ca).await.denied(DeniedRequest {}).await.unwrap();
    let list_json = reply.into_inner().list_json;
    assert!(list_json.len() > 64 * 1024, "{}", list_json.len());
    assert_eq!(Denials::from_json(&list_json).unwrap().iter().count(), 300);
    ca.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_list_and_a_damaged_one_stops_the_ca() {
    let ca = house().await;
    deny(&mut admin(&ca).await, &cart()).await.unwrap();
    let ca = Running::start_in(ca.stop().await, |config| {
        config.registrations = open_house()
    })
    .await;
    let reply = admin(&ca)
        .await
        .denied(DeniedRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(
        Denials::from_json(&reply.list_json)
            .unwrap()
            .contains(&cart())
    );
    let stream = ca
        .raw()
        .await
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(end_of(stream).await.message(), "no identity issued");
    let dir = ca.stop().await;
    let file = dir.path().join("ca/denied.json");
    mesh_platform::files::write_atomic(&file, b"{}", 0o600).unwrap();
    let started = run(config(dir.path()), std::future::ready(())).await;
    assert!(
        matches!(started, Err(CaError::Corrupt { .. })),
        "{started:?}"
    );
}

#[tokio::test]
async fn what_a_denied_node_holds_is_denied_by_a_ca_that_ended_before_it_could() {
    let dir = house().await.stop().await;
    let folder = dir.path().join("ca");
    let system = System::new();
    let leaf = Profile::leaf(3_600).unwrap();
    let mut desk = Desk::open(&folder, &domain(), leaf, system.clone()).unwrap();
    let [held, other] = ["node-a", "node-b"].map(|node| {
        let (request, mut requester) = request();
        requester.node = Some(node.to_owned());
        let issued = desk.issue(vec![(request, requester)]).remove(0).unwrap();
        Denied::Serial(issued.leaf.serial().to_hex())
    });
    drop(desk);
    // The first half of a denial is on disk, and the CA ended there.
    let node = Denied::Node("node-a".to_owned());
    let list = Denials::default().deny(node.clone(), system.wall_clock(), "stolen");
    let text = list.unwrap().to_json();
    mesh_platform::files::write_atomic(&folder.join("denied.json"), text.as_bytes(), 0o600)
        .unwrap();
    let ca = Running::start_in(dir, |_| {}).await;
    let mut admin = admin(&ca).await;
    for _ in 0..250 {
        let reply = admin.denied(DeniedRequest {}).await.unwrap().into_inner();
        let list = Denials::from_json(&reply.list_json).unwrap();
        if let Some((_, note)) = list.iter().find(|(what, _)| **what == held) {
            assert_eq!(note.reason, "node node-a: stolen");
            assert!(list.contains(&node) && !list.contains(&other));
            return drop(ca.stop().await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what the node holds is not denied");
}

#[tokio::test]
async fn changes_that_cannot_be_are_refused_with_a_code() {
    let ca = house().await;
    let mut admin = admin(&ca).await;
    for (what, code) in [
        (Denied::Serial("5A".into()), "MESH-0270"),
        (Denied::Key("5a".into()), "MESH-0270"),
        (Denied::Identity(domain().id()), "MESH-0270"),
    ] {
        let status = deny(&mut admin, &what).await.unwrap_err();
        let refused = status.code() == Code::InvalidArgument && status.message().contains(code);
        assert!(refused, "{what}: {status}");
    }
    let status = allow(&mut admin, &cart()).await.unwrap_err();
    assert!(status.message().contains("MESH-0274"), "{status}");
    let garbage = DenyRequest {
        what_json: b"{\"kind\":\"everybody\"}".to_vec(),
        reason: String::new(),
    };
    assert_eq!(
        admin.deny(garbage).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let reply = admin.denied(DeniedRequest {}).await.unwrap().into_inner();
    assert!(Denials::from_json(&reply.list_json).unwrap().is_empty());
    ca.stop().await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_who_is_denied() {
    let ca = Running::start(|_| {}).await;
    let mut watcher = DenialsClient::new(channel(ca.api()).await);
    let (_acks, outgoing) = mpsc::channel(1);
    let updates = watcher
        .watch(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(end_of(updates).await.message(), "no identity issued");
    ca.stop().await;
}
