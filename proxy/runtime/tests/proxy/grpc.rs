//! gRPC as an attacker or a careless client sends it (threats GW1 to GW6, GW12), and an upgraded connection that loses its
//! grant (GW9).

use super::hygiene::h2_request;
use super::streams::{call, say};
use super::world::*;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One gRPC request with this body and these headers; its gRPC status and the body that came back.
async fn call_with(
    to: SocketAddr,
    body: &'static [u8],
    headers: &[(&'static str, &'static str)],
) -> (String, Bytes) {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut request = Request::post("http://cart/say.Say/Once")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(body)));
    let response = sender.send_request(request.expect("a request")).await;
    let whole = response.expect("a response").into_body().collect().await;
    let whole = whole.expect("the body");
    let status = whole
        .trailers()
        .and_then(|t| t.get("grpc-status"))
        .and_then(|status| status.to_str().ok())
        .unwrap_or("none")
        .to_owned();
    (status, whole.to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn gw1_a_method_without_its_slash_reaches_nobody() {
    let mut world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    for path in [&b"say.Say/Once"[..], b"", b"*", b"http://cart/say.Say/Once"] {
        for to in [world.cart_plain(), world.web_to_cart()] {
            let request = h2_request(&[
                (":method", b"POST"),
                (":scheme", b"http"),
                (":path", path),
                (":authority", b"cart"),
                ("content-type", b"application/grpc"),
            ]);
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            stream.write_all(&request).await.expect("room");
            let mut answer = vec![0; 4096];
            let mut all = Vec::new();
            let wait = std::time::Duration::from_millis(500);
            while let Ok(Ok(count @ 1..)) =
                tokio::time::timeout(wait, stream.read(&mut answer)).await
            {
                all.extend_from_slice(&answer[..count]);
            }
            let text = String::from_utf8_lossy(&all);
            assert!(!text.contains("<html"), "no HTML: {text}");
            assert!(!text.contains("x-seen"), "the application answered");
        }
    }
    for record in world.cart_records() {
        assert_eq!(record["verdict"], "deny", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gw1_methods_differ_by_case() {
    let route = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: once, namespace: shop }
spec:
  parentRefs: [{ group: policy.linkerd.io, kind: Server, name: cart-http }]
  rules: [{ matches: [{ method: { service: say.Say, method: Once } }] }]
";
    let world = World::running(&(cart_policy("gRPC", &[WEB]) + route));
    say(world.cart_app()).await;
    let status = |response: http::Response<hyper::body::Incoming>| {
        response
            .headers()
            .get("grpc-status")
            .map(|status| status.to_str().expect("text").to_owned())
    };
    assert_eq!(
        status(call(world.web_to_cart(), "/say.Say/Once").await),
        None
    );
    for (path, threat) in [
        ("/say.say/Once", "GW1"),
        ("/say.Say/once", "GW1"),
        ("/say.Say/Once/", "GW1"),
        ("/grpc.health.v1.Health/Check", "GW6"),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "GW6",
        ),
    ] {
        let refused = status(call(world.web_to_cart(), path).await);
        assert!(
            matches!(refused.as_deref(), Some("5" | "7" | "12")),
            "{threat} {path}: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gw3_gw5_what_a_message_says_of_itself_is_for_the_application() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    for (name, body, headers) in [
        ("GW3 4 GiB to come", &b"\0\xff\xff\xff\xffx"[..], &[][..]),
        ("GW3 compressed, and not said how", b"\x01\0\0\0\x01x", &[]),
        ("GW3 less than a prefix", b"\0\0", &[]),
        ("GW5 huge", b"\0\0\0\0\0", &[("grpc-timeout", "99999999H")]),
        ("GW5 negative", b"\0\0\0\0\0", &[("grpc-timeout", "-1S")]),
        ("GW5 no unit", b"\0\0\0\0\0", &[("grpc-timeout", "5")]),
        ("GW5 words", b"\0\0\0\0\0", &[("grpc-timeout", "soon")]),
    ] {
        let (status, back) = call_with(world.web_to_cart(), body, headers).await;
        assert_eq!(status, "0", "{name}");
        assert_eq!(back, body, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gw12_what_a_client_says_of_itself_loses_to_its_certificate() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    let stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://cart/say.Say/Once")
        .header("content-type", "application/grpc")
        .header("mesh-client-id", "spiffe://cluster.local/ns/shop/sa/admin")
        .header("l5d-client-id", "spiffe://cluster.local/ns/shop/sa/admin")
        .header(
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/shop/sa/admin",
        )
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    assert_eq!(response.headers()["x-seen"], WEB);
}
