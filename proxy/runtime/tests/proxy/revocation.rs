//! A change of policy reaches what runs.

use super::world::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_stream_ends_when_its_grant_is_taken_away() {
    let mut world = World::of_bytes(&cart_policy("opaque", &[WEB]));
    let _app = echo(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    stream.write_all(b"x").await.expect("room");
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).await.expect("the echo");
    world.write_policy(&cart_policy("opaque", &[]));
    let start = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut byte))
        .await
        .expect("an end");
    assert!(
        matches!(end, Ok(0) | Err(_)),
        "{end:?} after {} us",
        micros_since(start)
    );
    assert_eq!(
        world.cart_records().last().expect("a record")["verdict"],
        "deny"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_download_is_cut_off_and_the_next_request_denied() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        stream.read_buf(&mut head).await.expect("readable");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            .await
            .expect("room");
        while stream.write_all(&[b'x'; 1_000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let download = tokio::spawn(get_to_end(world.web_to_cart()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.write_policy(&cart_policy("HTTP/1", &[]));
    let received = tokio::time::timeout(Duration::from_secs(3), download)
        .await
        .expect("an end")
        .expect("a result");
    assert!(received > 1_000 && received < 1_000_000_000, "{received}");
    assert_eq!(status(&get(world.web_to_cart(), "/").await), "403");
}

async fn get_to_end(to: std::net::SocketAddr) -> usize {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream
        .write_all(b"GET /big HTTP/1.1\r\nHost: cart\r\n\r\n")
        .await
        .expect("room");
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    received.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_still_allows_disturbs_nothing() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    for round in 0..40 {
        let others: Vec<String> = (0..=round % 3)
            .map(|n| format!("spiffe://cluster.local/ns/shop/sa/other-{n}"))
            .collect();
        let mut allowed: Vec<&str> = others.iter().map(String::as_str).collect();
        allowed.push(WEB);
        world.write_policy(&cart_policy("HTTP/1", &allowed));
        assert_eq!(
            status(&get(world.web_to_cart(), "/").await),
            "200",
            "round {round}"
        );
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
