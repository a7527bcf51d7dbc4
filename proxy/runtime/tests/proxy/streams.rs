//! HTTP/2 and gRPC: trailers both ways, streams, refusals in trailers-only form.

use super::world::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Parts = BoxBody<Bytes, Infallible>;

/// A gRPC-like application: `/say.Say/Once` echoes the body with trailers; `/say.Say/Stream` sends a message each 20 ms.
pub(super) async fn say(at: SocketAddr) {
    let listener = TcpListener::bind(at)
        .await
        .expect("the application's address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = hyper::service::service_fn(answer);
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Parts>, Infallible> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let seen = request.headers().get("mesh-client-id").cloned();
    let te = request.headers().get("te").cloned();
    let path = request.uri().path().to_owned();
    let body: Parts = if path == "/say.Say/Stream" {
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            while send
                .send(Ok(Frame::data(Bytes::from_static(b"tick"))))
                .await
                .is_ok()
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        BodyExt::boxed(StreamBody::new(
            tokio_stream::wrappers::ReceiverStream::new(receive),
        ))
    } else {
        let whole = request.into_body().collect().await.expect("the body");
        if let Some(sent) = whole.trailers() {
            trailers.insert(
                "x-request-trailer",
                sent.get("x-late")
                    .cloned()
                    .unwrap_or(HeaderValue::from_static("none")),
            );
        }
        let bytes = whole.to_bytes();
        Full::new(bytes)
            .with_trailers(async move { Some(Ok(trailers)) })
            .boxed()
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
        .headers_mut()
        .insert("x-seen", seen.unwrap_or(HeaderValue::from_static("nobody")));
    response
        .headers_mut()
        .insert("x-te", te.unwrap_or(HeaderValue::from_static("none")));
    Ok(response)
}

pub(super) async fn call(to: SocketAddr, path: &str) -> Response<Incoming> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-late", HeaderValue::from_static("yes"));
    trailers.insert("l5d-client-id", HeaderValue::from_static("admin"));
    let body: Parts = Full::new(Bytes::from_static(b"\0\0\0\0\x05hello"))
        .with_trailers(async move { Some(Ok(trailers)) })
        .boxed();
    let request = Request::post(format!("http://cart{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request");
    sender.send_request(request).await.expect("a response")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_goes_through_with_trailers_both_ways() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    let response = call(world.web_to_cart(), "/say.Say/Once").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-te"], "trailers");
    let whole = response.into_body().collect().await.expect("the body");
    let trailers = whole.trailers().cloned().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-request-trailer"]),
        (&"0".parse().unwrap(), &"yes".parse().unwrap())
    );
    assert_eq!(whole.to_bytes(), Bytes::from_static(b"\0\0\0\0\x05hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_grpc_call_is_told_in_trailers_only_form() {
    let mut world = World::running(&cart_policy("gRPC", &[]));
    let response = call(world.web_to_cart(), "/say.Say/Once").await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["grpc-status"]
        ),
        (200, &"7".parse().unwrap())
    );
    drop(response);
    let records = world.cart_records();
    assert_eq!(
        (
            records[0]["status"].as_u64(),
            records[0]["grpc_status"].as_u64()
        ),
        (Some(403), Some(7)),
        "{records:?}"
    );
}

/// GW2.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_ends_with_status_7_within_a_second_of_a_new_policy() {
    let mut world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    let mut body = call(world.web_to_cart(), "/say.Say/Stream")
        .await
        .into_body();
    for _ in 0..5 {
        assert!(
            body.frame()
                .await
                .expect("a frame")
                .expect("data")
                .is_data()
        );
    }
    world.write_policy(&cart_policy("gRPC", &[]));
    let trailers = end_of(&mut body).await;
    assert_eq!(trailers["grpc-status"], "7");
    drop(body);
    let records = world.cart_records();
    let verdicts: Vec<_> = records
        .iter()
        .map(|record| record["verdict"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        verdicts,
        ["allow", "deny"],
        "the end is recorded like a decision: {records:?}"
    );
    assert!(records[0]["generation"].as_u64() < records[1]["generation"].as_u64());
}

/// The end of a stream that has sent data.
async fn end_of(body: &mut Incoming) -> HeaderMap {
    let ended = tokio::time::timeout(std::time::Duration::from_secs(4), async {
        loop {
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => {}
                other => return other,
            }
        }
    });
    let last = ended.await.expect("an end in time").expect("trailers");
    let last = last.expect("no reset, which a client would read as a fault of the server");
    last.into_trailers().expect("trailers")
}

/// A request that has its head and no body yet, refused.
async fn refused(to: SocketAddr) -> h2::SendStream<Bytes> {
    let mut client = h2_client(to).await;
    let request = grpc_head().body(()).expect("a request");
    let (response, body) = client.send_request(request, false).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.headers()["grpc-status"], "7");
    body
}

/// Whether the stream of a body is reset within a second, and why.
async fn reset(body: &mut h2::SendStream<Bytes>) -> Option<h2::Reason> {
    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
    let reset = tokio::time::timeout(std::time::Duration::from_secs(1), reset).await;
    reset.ok()?.ok()
}

/// curl before 8 takes a reset while it sends for a failure, and drops the answer that it has.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_while_sending_may_end_what_it_sends() {
    let world = World::running(&cart_policy("gRPC", &[]));
    say(world.cart_app()).await;
    for to in [world.web_to_cart(), world.cart_plain()] {
        let mut body = refused(to).await;
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        body.send_data(Bytes::from_static(b"late"), true)
            .expect("the stream is open");
        assert_eq!(reset(&mut body).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_and_never_ends_is_reset_and_so_is_who_sends_much() {
    let world = World::running(&cart_policy("gRPC", &[]));
    say(world.cart_app()).await;
    for to in [world.web_to_cart(), world.cart_plain()] {
        let mut body = refused(to).await;
        let begun = std::time::Instant::now();
        assert_eq!(reset(&mut body).await, Some(h2::Reason::NO_ERROR));
        assert!(begun.elapsed() > std::time::Duration::from_millis(100));
        let mut body = refused(to).await;
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_secs(1) {
            body.reserve_capacity(16_384);
            let more = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
            let Some(Ok(more)) = more else { break };
            if body.send_data(vec![0; more].into(), false).is_err() {
                break;
            }
        }
        assert!(
            begun.elapsed() < std::time::Duration::from_millis(240),
            "{to}"
        );
    }
}

/// Servers of gRPC reset a call whose time is over; its client may learn of it before its own clock says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_server_resets_after_its_time_was_late() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("the application's address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
                        respond.send_reset(h2::Reason::CANCEL);
                    });
                }
            });
        }
    });
    for (timeout, status) in [
        (Some("20m"), "4"),
        (Some("9S"), "14"),
        (Some("soon"), "14"),
        (None, "14"),
    ] {
        let code = grpc_code(world.web_to_cart(), timeout).await;
        assert_eq!(code.as_deref(), Some(status), "{timeout:?}");
    }
}

/// CR3: a server's certificate that ran out ends its streams as a client's does, whichever proxy sees it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_to_a_server_that_is_no_longer_trusted_ends_with_status_14() {
    let lifetime = std::time::Duration::from_secs(3);
    let mut world = World::new(&cart_policy("gRPC", &[WEB]));
    let born = std::time::Instant::now();
    world.start_cart_as(&world.authority.svid_for(CART, lifetime));
    world.start_web();
    say(world.cart_app()).await;
    let response = call(world.web_to_cart(), "/say.Say/Stream").await;
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("data");
    assert!(first.is_data());
    let rest = (lifetime + std::time::Duration::from_secs(1)).saturating_sub(born.elapsed());
    tokio::time::sleep(rest).await;
    // With each identity of its own a proxy looks again at whom it is connected to.
    world.write_svid("web", &world.authority.svid(WEB));
    assert_eq!(end_of(&mut body).await["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_whose_server_breaks_off_ends_with_status_14() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    let listener = TcpListener::bind(world.cart_app())
        .await
        .expect("the application's address");
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let service = hyper::service::service_fn(answer);
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    let response = call(world.web_to_cart(), "/say.Say/Stream").await;
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("data");
    assert!(first.is_data());
    app.abort();
    assert_eq!(end_of(&mut body).await["grpc-status"], "14");
}
