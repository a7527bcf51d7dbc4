//! HTTP as it goes through: versions, reuse, limits, upgrades.

use super::world::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Reads one response with a Content-Length from a kept connection.
async fn next_response(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            });
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= length {
                return text;
            }
        }
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut received)).await;
        assert!(
            read.expect("an answer in time").expect("readable") > 0,
            "ended after {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_carries_many_requests_and_each_is_judged() {
    let mut world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    for n in 0..50 {
        let path = if n % 10 == 9 {
            "/a%2fb".to_owned()
        } else {
            format!("/{n}")
        };
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: cart\r\n\r\n").as_bytes())
            .await
            .expect("room");
        let answer = next_response(&mut stream).await;
        assert_eq!(
            status(&answer),
            if n % 10 == 9 { "400" } else { "200" },
            "{answer}"
        );
    }
    drop(stream);
    assert_eq!(world.cart_records().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_whole_in_both_directions() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("an address");
    let app = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut received = Vec::new();
        while !received.ends_with(b"0\r\n\r\n") && received.len() < 300_000 {
            if stream.read_buf(&mut received).await.expect("readable") == 0 {
                break;
            }
        }
        let head_end = received
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let (head, body) = received.split_at(head_end);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(answer.as_bytes()).await.expect("room");
        stream.write_all(body).await.expect("room");
        String::from_utf8_lossy(head).into_owned()
    });
    let body = "x".repeat(300_000);
    let request = format!(
        "POST /upload HTTP/1.1\r\nHost: cart\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n{body}"
    );
    let answer = raw(world.web_to_cart(), request.as_bytes()).await;
    let head = app.await.expect("the application");
    assert_eq!(status(&answer), "200", "{}", &answer[..200]);
    assert!(
        answer.ends_with(&body[..1000]) && head.contains("content-length: 300000"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_and_expect_continue_are_served() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let old = raw(
        world.web_to_cart(),
        b"GET /old HTTP/1.0\r\nHost: cart\r\n\r\n",
    )
    .await;
    assert_eq!(status(&old), "200", "{old}");
    let expecting = b"POST /x HTTP/1.1\r\nHost: cart\r\nExpect: 100-continue\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(
        raw(world.web_to_cart(), expecting)
            .await
            .contains(" 200 OK")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_a_rate_limit_gets_429() {
    let policy = cart_policy("HTTP/1", &[WEB])
        + "---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: { name: few, namespace: shop }
spec:
  targetRef: { group: policy.linkerd.io, kind: Server, name: cart-http }
  total: { requestsPerSecond: 5 }
";
    let mut world = World::running(&policy);
    let _app = mirror(world.cart_app()).await;
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(status(&get(world.web_to_cart(), "/").await).to_owned());
    }
    assert!(
        answers.iter().filter(|code| *code == "200").count() < 12,
        "{answers:?}"
    );
    assert!(answers.contains(&"429".to_owned()), "{answers:?}");
    assert!(
        world
            .cart_records()
            .iter()
            .any(|record| record["phase"] == "rate-limit")
    );
}

/// GW9.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_judged_as_a_request_and_then_carries_bytes() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut received).await.expect("readable");
        }
        let head = String::from_utf8_lossy(&received).to_lowercase();
        assert!(
            head.contains("upgrade: websocket") && head.contains("sec-websocket-key: "),
            "{head}"
        );
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ok\r\n\r\n";
        stream.write_all(answer).await.expect("room");
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    let request =
        b"GET /chat HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request).await.expect("room");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(
            stream.read_buf(&mut head).await.expect("readable") > 0,
            "{}",
            String::from_utf8_lossy(&head)
        );
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-accept: ok"),
        "{head}"
    );
    for frame in [b"first", b"again"] {
        stream.write_all(frame).await.expect("room");
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.expect("the echo");
        assert_eq!(&back, frame);
    }
    // A new policy without the grant ends the tunnel.
    world.write_policy(&cart_policy("HTTP/1", &[]));
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the tunnel still stands");
}
