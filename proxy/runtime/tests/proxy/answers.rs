//! Answers of an application that leave doubt about what belongs to whom: the client gets what is sound of them, and their
//! connection takes no other request (threats H1-10, H1-12, H1-13).

use super::world::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that answers `answer` to the head of a request for `/odd`, and a sound answer to any other: the number of
/// its connection. Reads no bodies.
async fn odd_application(at: SocketAddr, answer: &'static [u8]) {
    let listener = TcpListener::bind(at).await.expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, number, answer));
        }
    });
}

async fn serve(mut stream: TcpStream, number: usize, answer: &'static [u8]) {
    let mut received = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut received).await {
        while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let sound = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n#{number:02}");
            let odd = head.windows(4).any(|w| w == b"/odd");
            let answer = if odd { answer } else { sound.as_bytes() };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

/// Sends `request`, then another, and returns both answers.
async fn odd_then_sound(request: &str, answer: &'static [u8]) -> (String, String) {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    odd_application(world.cart_app(), answer).await;
    let to = world.web_to_cart();
    assert!(get(to, "/first").await.ends_with("#00"));
    let odd = raw(to, request.as_bytes()).await;
    let next = get(to, "/next").await;
    (odd, next)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_leaves_doubt_is_the_last_of_its_connection() {
    let get = "GET /odd HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
    let head = "HEAD /odd HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
    let cases: [(&str, &str, &[u8]); 5] = [
        ("H1-12 two answers", get, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray"),
        ("H1-12 bytes after the answer", get, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokstray"),
        ("H1-13 HEAD with a body", head, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray"),
        ("H1-13 204 with a body", get, b"HTTP/1.1 204 No Content\r\n\r\nstray"),
        ("H1-13 304 with a body", get, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nstray"),
    ];
    for (name, request, answer) in cases {
        let (odd, next) = odd_then_sound(request, answer).await;
        assert!(!odd.contains("stray"), "{name}: {odd}");
        assert_eq!(status(&next), "200", "{name}: {next}");
        assert!(
            next.ends_with("#01"),
            "{name}: a connection of its own: {next}"
        );
    }
}

/// H1-12, H1-10: an answer before the request was read; the rest of the body is nobody's request.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_request_was_read_retires_the_connection() {
    let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    let body = "GET /stray HTTP/1.1\r\nHost: cart\r\n\r\n";
    for expect in ["", "Expect: 100-continue\r\n"] {
        let request = format!(
            "POST /odd HTTP/1.1\r\nHost: cart\r\n{expect}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len() + 10_000
        );
        let (odd, next) = odd_then_sound(&request, answer).await;
        assert!(odd.contains("HTTP/1.1 413 "), "{odd}");
        assert_eq!(status(&next), "200", "{next}");
        assert!(next.ends_with("#01"), "a connection of its own: {next}");
    }
}
