//! What is missing or ends: applications, services, the proxy itself.

use super::world::*;
use mesh_policy::equivalence::Assurance;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_application_is_502_and_says_so() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let answer = get(world.web_to_cart(), "/").await;
    assert_eq!(status(&answer), "502", "{answer}");
    assert!(
        answer.contains("MESH-0470") && answer.contains("not answering"),
        "{answer}"
    );
    let _app = mirror(world.cart_app()).await;
    assert_eq!(
        status(&get(world.web_to_cart(), "/").await),
        "200",
        "it is found as soon as it is back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_restarts_breaks_no_later_request() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    for _ in 0..5 {
        let app = mirror(world.cart_app()).await;
        for _ in 0..3 {
            assert_eq!(status(&get(world.web_to_cart(), "/").await), "200");
        }
        app.abort();
        let _ = app.await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_proxy_that_is_gone_is_503_and_names_the_service() {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    world.start_web();
    let answer = get(world.web_to_cart(), "/").await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("MESH-0473"), "{answer}");
    world.start_cart();
    let _app = mirror(world.cart_app()).await;
    eventually("the service is found again", || async {
        status(&get(world.web_to_cart(), "/").await) == "200"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_proxy_finishes_what_it_serves() {
    let mut world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        stream.read_buf(&mut head).await.expect("readable");
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")
            .await
            .expect("room");
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let to = world.web_to_cart();
    let slow = tokio::spawn(async move { get(to, "/slow").await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let start = std::time::Instant::now();
    tokio::task::spawn_blocking(move || {
        world.stop();
        world
    })
    .await
    .expect("a stopped world");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "the drain took {:?}",
        start.elapsed()
    );
    let answer = slow.await.expect("an answer");
    assert!(answer.ends_with("slow"), "{answer}");
    assert!(TcpStream::connect(to).await.is_err(), "it still accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_socket_tells_the_same_as_the_traffic() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    get(world.web_to_cart(), "/").await;
    get(world.cart_plain(), "/").await;
    let ask = |path: &'static str| {
        let socket = world.cart_socket();
        async move {
            mesh_api::admin::get(&socket, path)
                .await
                .expect("an answer")
        }
    };
    let edges: mesh_api::admin::EdgeStats =
        serde_json::from_slice(&ask("/edges").await).expect("edges");
    let allowed: u64 = edges.edges.iter().map(|edge| edge.allowed).sum();
    let denied: u64 = edges
        .edges
        .iter()
        .flat_map(|edge| &edge.denied)
        .map(|denied| denied.count)
        .sum();
    assert_eq!((allowed, denied), (1, 1), "{edges:?}");
    let status: mesh_api::admin::ProxyStatus =
        serde_json::from_slice(&ask("/status").await).expect("a status");
    assert!(status.ready && status.snapshot.is_some(), "{status:?}");
    let mut tried = status.snapshot.and_then(|snapshot| snapshot.equivalence);
    for _ in 0..200 {
        if tried.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        let status: mesh_api::admin::ProxyStatus =
            serde_json::from_slice(&ask("/status").await).expect("a status");
        tried = status.snapshot.and_then(|snapshot| snapshot.equivalence);
    }
    assert!(
        matches!(
            tried,
            Some(Assurance::Exhaustive {
                grants: 1..,
                questions: 2..
            })
        ),
        "the policy in force is held against Cedar: {tried:?}"
    );
    let identity: mesh_api::admin::IdentityStatus =
        serde_json::from_slice(&ask("/identity").await).expect("an identity");
    assert_eq!(identity.spiffe_id.as_str(), CART);
    assert!(!identity.chain_pem.contains("PRIVATE"), "never the key");
    let metrics = String::from_utf8(ask("/metrics").await).expect("text");
    assert!(
        metrics.contains("inbound_http_authz_deny_total{"),
        "{metrics}"
    );
}
