//! Requests that are refused as bytes: answered in their turn, told once, and the connection closed, after a moment in
//! which what is still coming is read.

use super::*;
use RequestRefusal::{Framing, Line};

const CHUNKED: &[u8] = b"POST /body HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n";
const BAD: &[u8] = b"GET /bad HTTP/1.1\r\nhost : cart\r\n\r\n";

fn statuses(answers: &str) -> Vec<&str> {
    let each = answers.match_indices("HTTP/1.1 ");
    each.map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_answered_after_those_before_it_and_nothing_follows() {
    let bad_body = [CHUNKED, b"0x1\r\n"].concat();
    let post = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 10\r\n\r\n0123\n6789\r";
    for (bad, why, path) in [
        (BAD, Line, Some("/bad")),
        (&bad_body, Framing, Some("/body")),
        (b"\0", Line, None),
    ] {
        for size in [1_000, 13] {
            if size == 13 && bad == bad_body {
                continue; // its head goes on
            }
            staged(Duration::from_millis(20), async |mut stage| {
                let all = [GET, post, bad, GET].concat();
                for piece in all.chunks(size) {
                    if stage.client.write_all(piece).await.is_err() {
                        break;
                    }
                    settle().await;
                }
                let answers = stage.rest().await;
                assert_eq!(statuses(&answers), ["200", "200", "400"], "{answers}");
                assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
                assert!(
                    answers.ends_with("\r\nconnection: close\r\n\r\nbad request"),
                    "{answers}"
                );
                (&mut stage.serving).await.expect("no panic");
                assert_eq!(stage.refused(), [(why, path.map(str::to_owned))]);
                assert_eq!(stage.service.asked.get(), 2);
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_refused_breaks_off_the_request_and_replaces_its_answer() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(&[CHUNKED, b"5\r\nhel"].concat()).await;
        settle().await;
        assert_eq!(stage.service.asked.get(), 1, "its head went on");
        stage.send(b"lo\n").await;
        let answers = stage.rest().await;
        assert_eq!(statuses(&answers), ["400"], "{answers}");
        assert!(stage.service.broke.get(), "and its body was broken off");
        (&mut stage.serving).await.expect("no panic");
        assert_eq!(stage.refused(), [(Framing, Some("/body".to_owned()))]);
    })
    .await;
}

/// An answer that has begun is broken off: it never looks whole.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_refused_while_it_is_answered_ends_the_answer() {
    staged(Duration::ZERO, async |mut stage| {
        let head = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stage.send(head).await;
        settle().await;
        stage.send(b"5\nhello\r\n0\r\n\r\n").await;
        let answers = stage.rest().await;
        assert_eq!(statuses(&answers), ["200"], "{answers}");
        assert!(answers.ends_with("\r\n5\r\nhello\r\n"), "{answers}");
        (&mut stage.serving).await.expect("no panic");
        assert_eq!(stage.refused(), [(Line, Some("/echo".to_owned()))]);
    })
    .await;
    // Whoever reads it, and whatever is answered.
    staged(Duration::ZERO, async |mut stage| {
        let head = b"POST /beside HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stage.send(head).await;
        settle().await;
        stage.send(b"5\nhello\r\n0\r\n\r\n").await;
        let began = Instant::now();
        let answers = stage.rest().await;
        assert!(answers.ends_with("chunked\r\n\r\n"), "{answers}");
        assert!(began.elapsed() < Duration::from_millis(5));
        (&mut stage.serving).await.expect("no panic");
        assert!(stage.service.broke.get());
        assert_eq!(stage.refused(), [(Line, Some("/beside".to_owned()))]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_wait_is_told_once() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(GET).await;
        stage.answer().await;
        sleep(Duration::from_secs(5)).await;
        stage.send(BAD).await;
        let answers = stage.rest().await;
        assert_eq!(statuses(&answers), ["400"], "{answers}");
        (&mut stage.serving).await.expect("no panic");
        assert_eq!(stage.refused().len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_by_a_refusal_reads_on_for_a_moment_and_others_do_not() {
    let polite = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
    for (request, lingers) in [
        (&b"GET /closes HTTP/1.1\r\nhost: cart\r\n\r\n"[..], true),
        (BAD, true),
        (
            b"POST /early HTTP/1.1\r\ncontent-length: 300000\r\n\r\n",
            true,
        ),
        (polite, false),
    ] {
        staged(Duration::ZERO, async |mut stage| {
            stage.send(request).await;
            settle().await;
            if lingers {
                // More than the connection holds: somebody reads it.
                stage.send(&vec![b'x'; 100_000]).await;
            }
            let began = Instant::now();
            let answers = stage.rest().await;
            assert!(answers.contains("\r\nconnection: close\r\n"), "{answers}");
            (&mut stage.serving).await.expect("no panic");
            let took = began.elapsed();
            assert_eq!(took > PARTING / 2, lingers, "{took:?}");
            assert!(took < PARTING * 2, "it is bounded: {took:?}");
        })
        .await;
    }
}
