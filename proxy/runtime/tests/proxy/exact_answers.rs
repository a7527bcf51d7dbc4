//! What applications answer over HTTP/1: exact answers go on, others are 502, and no byte of one answer is ever taken for
//! another's (threats H1-12, H1-13).

use super::ways::*;
use super::world::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that answers each request, whatever it is, with these bytes; says how many connections it was asked on.
async fn answering(at: std::net::SocketAddr, answer: Vec<u8>, closes: bool) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(at).await.expect("an address");
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, answer.clone(), closes));
        }
    });
    count
}

async fn serve(mut stream: TcpStream, answer: Arc<Vec<u8>>, closes: bool) {
    let mut asked = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut asked).await {
        if asked.ends_with(b"\r\n\r\n") {
            asked.clear();
            if stream.write_all(&answer).await.is_err() || closes {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_two_readers_could_read_differently_is_502() {
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    for (what, answer) in [
        (
            "CL and TE",
            with("content-length: 5\r\ntransfer-encoding: chunked"),
        ),
        (
            "two lengths",
            with("content-length: 5\r\ncontent-length: 5"),
        ),
        ("a list of lengths", with("content-length: 5, 5")),
        ("a signed length", with("content-length: +5")),
        ("another coding", with("transfer-encoding: gzip, chunked")),
        ("a folded line", with("content-length: 5\r\na: b\r\n c: d")),
        (
            "LF alone",
            "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello".to_owned(),
        ),
        ("a blank after a name", with("content-length : 5")),
        (
            "another version",
            with("content-length: 5").replace("1.1", "3.0"),
        ),
        ("not HTTP", "220 mail.example ESMTP\r\n\r\n".to_owned()),
        ("too many fields", with("a: b\r\n".repeat(200).trim_end())),
        ("nothing", String::new()),
    ] {
        for way in WAYS {
            let stage = Stage::without_application();
            let closes = answer.is_empty();
            let asked = answering(stage.world.cart_app(), answer.clone().into(), closes).await;
            let request = b"GET /x HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
            for _ in 0..2 {
                let told = stage.send(way, &[request]).await;
                let shown = format!("{what} {way:?}: {told}");
                assert_eq!(status(&told), "502", "{shown}");
                assert!(
                    told.contains("MESH-0471") && !told.contains("hello"),
                    "{shown}"
                );
            }
            assert_eq!(asked.load(Ordering::SeqCst), 2, "{what}: not used again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_goes_wrong_is_broken_off_and_never_looks_whole() {
    for (what, body, closes) in [
        ("a malformed size", "x\r\n", false),
        (
            "a chunk longer than its size",
            "2\r\nabc\r\n0\r\n\r\n",
            false,
        ),
        ("a chunk that ends in LF", "2\r\nab\n0\r\n\r\n", false),
        ("cut off", "5\r\nab", true),
        ("cut off before its last chunk", "2\r\nab\r\n", true),
    ] {
        let stage = Stage::without_application();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        answering(
            stage.world.cart_app(),
            format!("{head}{body}").into(),
            closes,
        )
        .await;
        let request = b"GET /x HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
        for way in WAYS {
            let told = stage.send(way, &[request]).await;
            assert!(!told.ends_with("0\r\n\r\n"), "{what} {way:?}: {told}");
        }
    }
}

/// H1-12, H1-13.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_is_never_the_next_one() {
    for (what, method, answer) in [
        (
            "a second answer",
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        ),
        (
            "a body of HEAD",
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        ),
        (
            "a body of 204",
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\nforged",
        ),
        (
            "a body of 304",
            "GET",
            "HTTP/1.1 304 Not Modified\r\n\r\nforged",
        ),
        (
            "a body of 304, and its length",
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\nforged",
        ),
        (
            "more than its length",
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokforged",
        ),
    ] {
        let stage = Stage::without_application();
        let asked = answering(stage.world.cart_app(), answer.into(), false).await;
        let request = format!("{method} /x HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n");
        for way in WAYS {
            for _ in 0..3 {
                let told = stage.send(way, &[request.as_bytes()]).await;
                assert!(
                    told.starts_with("HTTP/1.1 ") && !told.contains("forged"),
                    "{what} {way:?}: {told}"
                );
                assert_ne!(status(&told), "502", "{what}: it was whole");
            }
        }
        assert_eq!(
            asked.load(Ordering::SeqCst),
            9,
            "{what}: each on a connection of its own"
        );
    }
}

/// H1-9.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_get_arrives() {
    let stage = Stage::new().await;
    for way in WAYS {
        let before = stage.application.received().len();
        let request = b"GET /x HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let told = stage.send(way, &[request]).await;
        assert_eq!(status(&told), "200", "{way:?}: {told}");
        let received = stage.application.received()[before..].to_lowercase();
        let body = received.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert!(
            body && received.contains("transfer-encoding: chunked\r\n"),
            "{way:?}: {received}"
        );
    }
}

/// An answer without a length ends with its connection, and interim answers are not for the client.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_other_forms_arrive_whole() {
    for (answer, body) in [
        ("HTTP/1.0 200 OK\r\n\r\nall of it", "all of it"),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it",
            "all of it",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200\r\ncontent-length: 9\r\n\r\nall of it",
            "all of it",
        ),
    ] {
        let stage = Stage::without_application();
        answering(stage.world.cart_app(), answer.into(), true).await;
        let request = b"GET /x HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
        for way in WAYS {
            let told = stage.send(way, &[request]).await;
            let whole = status(&told) == "200" && told.contains(body);
            assert!(whole && !told.contains("link: a"), "{way:?}: {told}");
        }
    }
}

/// An application that answers `answer` to the head of a request for `/odd`, and a sound answer to any other: the number of
/// its connection. Reads no bodies.
async fn odd_application(at: std::net::SocketAddr, answer: &'static [u8]) {
    let listener = TcpListener::bind(at).await.expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve_oddly(stream, number, answer));
        }
    });
}

async fn serve_oddly(mut stream: TcpStream, number: usize, answer: &'static [u8]) {
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
