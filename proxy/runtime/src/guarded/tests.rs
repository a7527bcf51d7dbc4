//! The guard as a stream: what comes out of it, and what the other side of [`Link`] learns.

use super::*;
use crate::body::Body;
use http::Response;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nhost: cart\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 10\r\n\r\n0123\n6789\r";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: cart\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

fn guarded() -> (DuplexStream, Guarded<DuplexStream>, Arc<Link>) {
    let (client, server) = duplex(1 << 20);
    let (guarded, link) = Guarded::new(server, BytesMut::new());
    (client, guarded, link)
}

/// All that can be read now.
async fn readable(stream: &mut Guarded<DuplexStream>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = [0; 100];
    while let Ok(Ok(count @ 1..)) =
        timeout(Duration::from_millis(20), stream.read(&mut piece)).await
    {
        all.extend_from_slice(&piece[..count]);
    }
    all
}

fn answer(status: u16) -> Answer {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

#[tokio::test]
async fn exact_requests_pass_unchanged_however_they_are_cut() {
    let chunks = b"5;a=b\r\nhello\r\n1\r\n\n\r\n0\r\nx-sum: 1\r\n\r\n";
    let sent = [GET, POST, b"\r\n", GET, CHUNKED, chunks, POST].concat();
    for size in [1, 2, 3, 7, 16, 50, 97, sent.len()] {
        let (mut client, mut stream, link) = guarded();
        let mut received = Vec::new();
        let mut piece = [0; 64];
        for bytes in sent.chunks(size) {
            client.write_all(bytes).await.expect("room");
            while let Ok(count) = timeout(Duration::from_millis(1), stream.read(&mut piece)).await {
                received.extend_from_slice(&piece[..count.expect("readable")]);
            }
        }
        assert!(
            received == sent,
            "pieces of {size}: {:?}",
            String::from_utf8_lossy(&received)
        );
        assert_eq!(
            stream.kept.capacity(),
            0,
            "nothing is held when nothing is kept back"
        );
        assert!(link.refusal().is_none());
    }
}

#[tokio::test]
async fn nothing_of_a_head_goes_on_before_its_end_came() {
    let (mut client, mut stream, _) = guarded();
    client.write_all(&GET[..GET.len() - 1]).await.expect("room");
    assert_eq!(readable(&mut stream).await, b"");
    client.write_all(b"\n").await.expect("room");
    assert_eq!(readable(&mut stream).await, GET);
}

#[tokio::test]
async fn in_place_of_a_refused_request_comes_the_stand_in_after_those_before_it() {
    let bad = b"GET /x HTTP/1.1\r\nhost : cart\r\n\r\n";
    let bad_body = [CHUNKED, b"0x1\r\n"].concat();
    for (bad, why, asked) in [
        (&bad[..], RequestRefusal::Line, Some("/x")),
        (&bad_body, RequestRefusal::Framing, Some("/")),
        (b"\0", RequestRefusal::Line, None),
    ] {
        for size in [1, 1_000] {
            if size == 1 && bad.len() == bad_body.len() {
                continue; // its head goes on
            }
            let (mut client, mut stream, link) = guarded();
            for piece in [GET, POST, bad, GET].concat().chunks(size) {
                client.write_all(piece).await.expect("room");
            }
            let out = readable(&mut stream).await;
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&[GET, POST, STAND_IN].concat())
            );
            let refusal = link.refusal().expect("a refusal");
            let path = refusal.request.as_ref().map(|request| &*request.raw_path);
            assert_eq!((refusal.why, path, refusal.number), (why, asked, 3));
            let answers: Vec<bool> = (1..5).map(|n| link.stands_in(n).is_some()).collect();
            assert_eq!(answers, [false, false, true, false]);
        }
    }
}

#[tokio::test]
async fn a_body_that_is_refused_breaks_off_the_request_and_replaces_its_answer() {
    let (mut client, mut stream, link) = guarded();
    client.write_all(CHUNKED).await.expect("room");
    client.write_all(b"5\r\nhel").await.expect("room");
    let out = readable(&mut stream).await;
    assert_eq!(out, [CHUNKED, b"5\r\nhel"].concat());
    client.write_all(b"lo\n").await.expect("room");
    let error = stream.read(&mut [0; 10]).await.expect_err("broken off");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(link.stands_in(1).is_none());
    assert_eq!(link.answered(1, answer(502)).status(), 400);
    assert_eq!(link.answered(2, answer(200)).status(), 200);
}

#[tokio::test]
async fn early_bytes_are_held_until_the_upgrade_is_answered_and_then_are_what_the_answer_says() {
    let frame = b"\x81\x05hello\n";
    for (status, want) in [(101, &frame[..]), (200, STAND_IN)] {
        let (mut client, mut stream, link) = guarded();
        client
            .write_all(&[GET, UPGRADE, &frame[..3]].concat())
            .await
            .expect("room");
        let out = readable(&mut stream).await;
        assert_eq!(out, [GET, UPGRADE].concat(), "GW7");
        client.write_all(&frame[3..]).await.expect("room");
        assert_eq!(readable(&mut stream).await, b"", "GW7");
        link.answered(1, answer(101));
        assert_eq!(
            readable(&mut stream).await,
            b"",
            "that was another request's answer"
        );
        link.answered(2, answer(status));
        assert_eq!(readable(&mut stream).await, want, "{status}");
        client.write_all(b"more\n").await.expect("room");
        let after: &[u8] = if status == 101 { b"more\n" } else { b"" };
        assert_eq!(readable(&mut stream).await, after, "{status}");
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_the_answer_is_woken_and_learns_of_the_clients_end() {
    let (mut client, mut stream, link) = guarded();
    client
        .write_all(&[UPGRADE, b"early"].concat())
        .await
        .expect("room");
    assert_eq!(readable(&mut stream).await, UPGRADE);
    let reading = tokio::spawn(async move {
        let mut piece = [0; 10];
        let count = stream.read(&mut piece).await.expect("readable");
        (piece[..count].to_vec(), stream)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    link.answered(1, answer(101));
    let (piece, _) = timeout(Duration::from_secs(5), reading)
        .await
        .expect("woken")
        .expect("no panic");
    assert_eq!(piece, b"early");

    let (mut client, mut stream, _) = guarded();
    client
        .write_all(&[UPGRADE, b"early"].concat())
        .await
        .expect("room");
    assert_eq!(readable(&mut stream).await, UPGRADE);
    drop(client);
    let end = timeout(Duration::from_secs(5), stream.read(&mut [0; 10])).await;
    assert_eq!(end.expect("in time").expect("readable"), 0);
}

#[tokio::test]
async fn what_comes_early_is_held_within_a_bound() {
    let (mut client, mut stream, _) = guarded();
    client.write_all(UPGRADE).await.expect("room");
    client.write_all(&vec![0; 500_000]).await.expect("room");
    assert_eq!(readable(&mut stream).await, UPGRADE);
    assert!(
        stream.kept.len() <= HEAD_BYTES_MAX + READ_BYTES,
        "{}",
        stream.kept.len()
    );
}

#[tokio::test]
async fn a_connection_closed_by_a_refusal_reads_on_for_a_moment_and_others_do_not() {
    for (answer, lingers) in [(closing(answer(400)), true), (answer(400), false)] {
        let (mut client, mut stream, link) = guarded();
        link.answered(1, answer);
        client.write_all(&vec![0; 100_000]).await.expect("room");
        let start = tokio::time::Instant::now();
        stream.shutdown().await.expect("a shutdown");
        assert_eq!(start.elapsed() >= PARTING, lingers);
        assert!(start.elapsed() < PARTING * 8, "it is bounded");
    }
}
