//! Bodies both ways: in step with their readers, beside each other, and broken off where they are.

use super::*;

const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 6\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn large_bodies_go_both_ways_at_once() {
    let local = tokio::task::LocalSet::new();
    let play = async {
        let stage = Stage::new(Duration::ZERO, 1_000);
        let (mut reader, mut writer) = tokio::io::split(stage.client);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n / 7) as u8).collect();
        let head = format!(
            "POST /echo HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            sent.len()
        );
        let all = [head.as_bytes(), &sent].concat();
        let mut came = Vec::new();
        let (wrote, read) = tokio::join!(writer.write_all(&all), reader.read_to_end(&mut came));
        wrote.expect("room");
        read.expect("an end");
        assert!(came.ends_with(&sent), "{} bytes", came.len());
    };
    local.run_until(play).await;
}

/// What nobody reads is not read from the socket either.
#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_asks_for_stays_with_its_client() {
    let local = tokio::task::LocalSet::new();
    let play = async {
        let mut stage = Stage::new(Duration::from_secs(5), 1_000);
        let head = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 100000\r\n\r\n";
        stage.send(head).await;
        let body = vec![b'x'; 100_000];
        let sent = timeout(Duration::from_secs(4), stage.client.write_all(&body)).await;
        assert!(sent.is_err(), "it was read before it was asked for");
        let held = stage.shared.upgrade().expect("served").wire().held();
        assert!(held <= 16 * 1024, "{held}");
    };
    local.run_until(play).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_to_be_told_is_told_once_and_only_if_somebody_asks() {
    let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n";
    staged(Duration::from_secs(1), async |mut stage| {
        stage.send(head.as_bytes()).await;
        let mut told = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        stage.client.read_exact(&mut told).await.expect("told");
        assert_eq!(told, b"HTTP/1.1 100 Continue\r\n\r\n");
        stage.send(b"abcdef").await;
        assert!(stage.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
        stage.send(GET).await;
        assert!(stage.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
        // One that does not wait is not told.
        stage.send(format!("{head}abcdef").as_bytes()).await;
        assert!(stage.answer().await.starts_with("HTTP/1.1 200 OK\r\n"));
    })
    .await;
    staged(Duration::ZERO, async |mut stage| {
        stage
            .send(head.replace("POST /", "POST /early").as_bytes())
            .await;
        let answer = stage.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("\r\nconnection: close\r\n"),
            "it may or may not send it now: {answer}"
        );
    })
    .await;
}

/// H1-10: what comes after an answer may be the body or the next request, if nobody said that it is wanted.
#[tokio::test(start_paused = true)]
async fn a_client_that_was_not_told_to_send_its_body_sends_nothing_more() {
    for (expects, closes) in [("expect: 100-continue\r\n", true), ("", false)] {
        staged(Duration::ZERO, async |mut stage| {
            let head = format!("POST /keeps HTTP/1.1\r\n{expects}content-length: 6\r\n\r\n");
            stage.send(head.as_bytes()).await;
            let answer = stage.answer().await;
            assert_eq!(answer.contains("connection: close"), closes, "{answer}");
            if !closes {
                // Somebody may still want it, and then the connection goes on.
                stage.send(b"abcdef").await;
                let body = stage.service.kept.take().expect("kept");
                assert_eq!(whole(body).await.expect("whole"), 6);
                stage.send(GET).await;
                assert!(stage.answer().await.ends_with("\r\n0 bytes"));
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_body_was_read_closes_unless_the_body_is_there() {
    let head = "POST /early HTTP/1.1\r\nhost: cart\r\n";
    for (rest, closes) in [
        ("content-length: 6\r\n\r\nabcdef", false),
        (
            "transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n",
            false,
        ),
        ("content-length: 6\r\n\r\nabc", true),
        ("transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n", true),
    ] {
        staged(Duration::ZERO, async |mut stage| {
            stage.send(format!("{head}{rest}").as_bytes()).await;
            let answer = stage.answer().await;
            assert_eq!(
                answer.contains("connection: close"),
                closes,
                "{rest:?}: {answer}"
            );
            if !closes {
                stage.send(GET).await;
                assert!(stage.answer().await.ends_with("\r\n0 bytes"));
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_is_broken_off_and_so_is_its_answer() {
    for (request, broke) in [
        (POST, true),
        (
            b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            false,
        ),
    ] {
        staged(Duration::ZERO, async |mut stage| {
            stage.send(request).await;
            stage.send(b"3\r\nabc\r\n").await;
            settle().await;
            stage.client.shutdown().await.expect("a connection");
            let rest = stage.rest().await;
            assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
            (&mut stage.serving).await.expect("no panic");
            assert_eq!(stage.service.broke.get(), broke && request.len() > 60);
        })
        .await;
    }
}

/// A body of one request has nothing of the next one, however long it is kept.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_over_stays_over() {
    let local = tokio::task::LocalSet::new();
    let play = async {
        let (mut client, server) = duplex(1 << 16);
        let shared = Shared::new(server);
        let head = poll_fn(|cx| shared.wire().poll_head(cx));
        client.write_all(POST).await.expect("room");
        assert!(head.await.expect("exact").is_some());
        shared.begin_request();
        let mut first = Arriving::Pulled(Box::new(Ask::new(&shared, true, false)));
        assert_eq!(first.size_hint().exact(), Some(6));
        client.write_all(b"abcdef").await.expect("room");
        let part = poll_fn(|cx| first.poll_frame(cx)).await;
        assert!(part.expect("data").is_ok() && first.is_end_stream());
        client.write_all(POST).await.expect("room");
        client.write_all(b"gh").await.expect("room");
        let head = poll_fn(|cx| shared.wire().poll_head(cx));
        assert!(head.await.expect("exact").is_some());
        shared.begin_request();
        let second = Ask::new(&shared, true, false);
        assert!(poll_fn(|cx| first.poll_frame(cx)).await.is_none());
        assert!(first.is_end_stream() && first.size_hint().exact() == Some(0));
        drop(first);
        assert!(shared.is_asked(), "the second one is still read");
        drop(second);
        assert!(!shared.is_asked() && !shared.has_read_all());
    };
    local.run_until(play).await;
}

/// Somebody may still pass the last of a body on: its connection goes its own way meanwhile.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_kept_after_its_end_holds_up_nothing() {
    const UPGRADE: &[u8] =
        b"GET /chat HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for next in [UPGRADE, &b"GET / HTTP/1.1\nhost: cart\r\n\r\n"[..]] {
        staged(Duration::ZERO, async |mut stage| {
            stage
                .send(b"POST /keeps HTTP/1.1\r\ncontent-length: 6\r\n\r\n")
                .await;
            stage.answer().await;
            stage.send(b"abcdef").await;
            let mut body = stage.service.kept.take().expect("kept");
            let part = poll_fn(|cx| body.poll_frame(cx)).await;
            assert!(part.expect("data").is_ok() && body.is_end_stream());
            stage.send(next).await;
            if next == UPGRADE {
                let mut head = vec![0; "HTTP/1.1 101 Switching Protocols\r\n\r\n".len()];
                stage.client.read_exact(&mut head).await.expect("an answer");
                settle().await;
                assert!(
                    stage.service.switched.borrow().is_some(),
                    "its stream is there"
                );
            } else {
                let answer = stage.rest().await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
                (&mut stage.serving).await.expect("no panic");
            }
            assert!(poll_fn(|cx| body.poll_frame(cx)).await.is_none());
            assert_eq!(stage.refused().len(), usize::from(next != UPGRADE));
        })
        .await;
    }
}

/// Whoever reads it has not come to where it is wrong.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_wrong_beyond_what_was_read_is_refused_before_its_answer() {
    let local = tokio::task::LocalSet::new();
    let play = async {
        let (mut client, server) = duplex(1 << 16);
        let shared = Shared::new(server);
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write_all(head).await.expect("room");
        let head = poll_fn(|cx| shared.wire().poll_head(cx));
        assert!(head.await.expect("exact").is_some());
        shared.begin_request();
        let mut body = Ask::new(&shared, false, false);
        client
            .write_all(b"5\r\nhello\r\nZZ\r\n")
            .await
            .expect("room");
        let part = poll_fn(|cx| body.poll_frame(cx)).await;
        assert!(part.expect("data").is_ok());
        assert!(
            shared.wire().take_refusal().is_some(),
            "before the next look"
        );
        assert!(
            poll_fn(|cx| body.poll_frame(cx))
                .await
                .expect("a part")
                .is_err()
        );
        assert!(shared.wire().take_refusal().is_none(), "and once");
    };
    local.run_until(play).await;
}

/// An answer of known length is over with its last byte, whatever its sender still has to say.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_whole_waits_for_nothing() {
    staged(Duration::ZERO, async |mut stage| {
        stage
            .send(b"GET /withheld HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            .await;
        let mut answers = Vec::new();
        while !answers.ends_with(b"\r\n0 bytes") {
            let more = stage.client.read_buf(&mut answers);
            assert_ne!(more.await.expect("an answer"), 0);
        }
    })
    .await;
}
