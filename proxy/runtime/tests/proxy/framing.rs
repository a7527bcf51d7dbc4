//! HTTP/1 requests of which two servers could read two different ones (threats H1): refused at every way in before a byte
//! of them reaches the application, and recorded.

use super::ways::*;
use super::world::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A second request, hidden where a lenient server would look for one.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";

fn post(fields: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!("POST /x HTTP/1.1\r\nHost: cart\r\n{fields}\r\n\r\n");
    [head.as_bytes(), rest].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_1_content_length_beside_transfer_encoding() {
    let chunks = [b"0\r\n\r\n", SMUGGLED].concat();
    let endless = [&chunks[..], &vec![b'x'; 300_000]].concat();
    let both = "Content-Length: 6\r\nTransfer-Encoding: chunked";
    assert_refused(&[
        Bad("CL.TE", &post(both, &chunks), 400, "framing"),
        Bad(
            "TE.CL",
            &post("transfer-encoding: Chunked\r\ncontent-length: 4", &chunks),
            400,
            "framing",
        ),
        Bad(
            "and the client goes on sending",
            &post(both, &endless),
            400,
            "framing",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_2_transfer_encoding_in_any_other_form() {
    let chunks = [b"0\r\n\r\n", SMUGGLED].concat();
    let old = [
        b"POST /x HTTP/1.0\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n",
        &chunks[..],
    ]
    .concat();
    assert_refused(&[
        Bad(
            "twice",
            &post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                &chunks,
            ),
            400,
            "framing",
        ),
        Bad(
            "not last",
            &post("Transfer-Encoding: chunked, identity", &chunks),
            400,
            "framing",
        ),
        Bad(
            "another coding",
            &post("Transfer-Encoding: gzip, chunked", &chunks),
            400,
            "framing",
        ),
        Bad(
            "xchunked",
            &post("Transfer-Encoding: xchunked", &chunks),
            400,
            "framing",
        ),
        Bad(
            "quoted",
            &post("Transfer-Encoding: \"chunked\"", &chunks),
            400,
            "framing",
        ),
        Bad(
            "control",
            &post("Transfer-Encoding: \x0bchunked", &chunks),
            400,
            "line",
        ),
        Bad("in 1.0", &old, 400, "framing"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_3_more_than_one_content_length() {
    assert_refused(&[
        Bad(
            "the same",
            &post("Content-Length: 5\r\nContent-Length: 5", b"hello"),
            400,
            "framing",
        ),
        Bad(
            "others",
            &post("Content-Length: 5\r\nContent-Length: 6", b"hello"),
            400,
            "framing",
        ),
        Bad(
            "a list",
            &post("Content-Length: 5, 5", b"hello"),
            400,
            "framing",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_4_a_content_length_that_is_no_plain_number() {
    let lengths = [
        "+5",
        "0x5",
        "1_0",
        "-0",
        "1 5",
        "123456789012345678901",
        "05",
        "",
    ];
    let requests: Vec<_> = lengths
        .map(|length| post(&format!("Content-Length: {length}"), b"hello"))
        .into();
    let bad: Vec<_> = requests
        .iter()
        .zip(lengths)
        .map(|(bytes, name)| Bad(name, bytes, 400, "framing"))
        .collect();
    assert_refused(&bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_5_a_chunk_size_that_is_no_plain_number() {
    let sizes = [
        "0x5",
        "+5",
        "5_0",
        "-5",
        "",
        "5 ",
        " 5",
        "10000000000000000",
        "fffffffffffffffff",
    ];
    let requests: Vec<_> = sizes
        .map(|size| chunked(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes()))
        .into();
    let bad: Vec<_> = requests
        .iter()
        .zip(sizes)
        .map(|(bytes, name)| Bad(name, bytes, 400, "framing"))
        .collect();
    assert_refused(&bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_6_lines_and_chunks_that_do_not_end_in_cr_lf() {
    assert_refused(&[
        Bad("bare LF", b"GET /x HTTP/1.1\nHost: cart\n\n", 400, "line"),
        Bad(
            "one bare LF",
            b"GET /x HTTP/1.1\r\nHost: cart\nA: b\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "LF at the end",
            b"GET /x HTTP/1.1\r\nHost: cart\r\n\n",
            400,
            "line",
        ),
        Bad(
            "bare CR",
            b"GET /x HTTP/1.1\r\nHost: cart\r\nA: b\rC: d\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "chunk size LF",
            &chunked(b"5\nhello\r\n0\r\n\r\n"),
            400,
            "line",
        ),
        Bad(
            "LF in an extension",
            &chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            400,
            "line",
        ),
        Bad(
            "chunk LF",
            &chunked(b"5\r\nhello\n0\r\n\r\n"),
            400,
            "framing",
        ),
        Bad(
            "spill",
            &chunked(b"5\r\nhelloGE\r\n0\r\n\r\n"),
            400,
            "framing",
        ),
        Bad("trailer LF", &chunked(b"0\r\na: b\n\r\n"), 400, "line"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_7_chunks_that_are_mostly_framing_are_cut_off() {
    let extension = [
        &b"5;"[..],
        &vec![b'a'; 64 * 1024],
        b"\r\nhello\r\n0\r\n\r\n",
    ]
    .concat();
    assert_refused(&[Bad("a long extension", &chunked(&extension), 400, "chunks")]).await;

    // From an application through the mesh, the HTTP/2 library of the far side may be the one that has enough first.
    let mut stage = Stage::new().await;
    for way in [Way::Plain, Way::Mesh] {
        let tiny = b"1\r\nx\r\n".repeat(1_000_000);
        let answer = stage.send(way, &[&chunked(b""), &tiny, b"0\r\n\r\n"]).await;
        assert_eq!(status(&answer), "400", "{way:?}: {answer}");
    }
    let received = stage.application.received();
    assert_eq!(received.matches("POST /x").count(), 2, "begun");
    assert!(!received.contains("0\r\n\r\n"), "and never whole");
    assert_eq!(stage.counted("cart", 400, "chunks").await, 2);
    stage.denials("cart").iter().for_each(assert_refusal_record);
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_8_chunk_extensions_with_control_bytes_and_others_never_go_on() {
    assert_refused(&[
        Bad(
            "NUL",
            &chunked(b"5;a\0\r\nhello\r\n0\r\n\r\n"),
            400,
            "framing",
        ),
        Bad(
            "ESC",
            &chunked(b"5;a=\x1b\r\nhello\r\n0\r\n\r\n"),
            400,
            "framing",
        ),
        Bad(
            "not ASCII",
            &chunked(b"5;a=\xff\r\nhello\r\n0\r\n\r\n"),
            400,
            "framing",
        ),
    ])
    .await;
    let stage = Stage::new().await;
    for way in WAYS {
        let request = post(
            "Transfer-Encoding: chunked\r\nConnection: close",
            b"5;a=b\r\nhello\r\n0\r\n\r\n",
        );
        let answer = stage.send(way, &[&request]).await;
        assert_eq!(status(&answer), "200", "{way:?}: {answer}");
    }
    let received = stage.application.received();
    assert_eq!(received.matches("hello").count(), 3, "{received}");
    assert!(!received.contains("a=b"), "{received}");
}

/// Whatever goes wrong after the head went on: the application never has a whole request, and the client hears 400.
#[tokio::test(flavor = "multi_thread")]
async fn h1_5_to_8_a_body_that_goes_wrong_later_is_broken_off() {
    let mut stage = Stage::new().await;
    let wrong: [&[u8]; 4] = [b"0x1\r\n", b"1\n", b"1;\0\r\n", b"1\r\nab\r\n"];
    for way in WAYS {
        for (n, wrong) in wrong.iter().enumerate() {
            let head = format!(
                "POST /{way:?}/{n} HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let rest = [*wrong, b"\r\n0\r\n\r\n", SMUGGLED].concat();
            let mut stream = stage.connect(way).await;
            let begin = [head.as_bytes(), b"5\r\nhello\r\n"].concat();
            stream.write_all(&begin).await.expect("room");
            stream.flush().await.expect("room");
            let path = format!("/{way:?}/{n} ");
            let mut begun = false;
            for _ in 0..200 {
                let received = stage.application.received();
                begun = received
                    .split(&path)
                    .nth(1)
                    .is_some_and(|rest| rest.contains("hello"));
                if begun {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(begun, "bodies are not held: {path}");
            stream.write_all(&rest).await.expect("room");
            stream.flush().await.expect("room");
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(status(&answer), "400", "{way:?} {wrong:?}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        }
    }
    let received = stage.application.received();
    assert_eq!(received.matches("POST /").count(), 12, "begun: {received}");
    assert!(
        !received.contains("0\r\n\r\n") && !received.contains("smuggled"),
        "never whole: {received}"
    );
    for (workload, ways) in [("cart", 2), ("web", 1)] {
        assert_eq!(stage.counted(workload, 400, "framing").await, 3 * ways);
        assert_eq!(stage.counted(workload, 400, "line").await, ways);
    }
    for (workload, count) in [("cart", 8), ("web", 4)] {
        let denials = stage.denials(workload);
        assert_eq!(denials.len(), count, "{denials:?}");
        denials.iter().for_each(assert_refusal_record);
        assert!(
            denials
                .iter()
                .all(|record| record["request"]["method"] == "POST"),
            "{denials:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_11_pipelined_requests_are_each_judged_and_after_a_refusal_the_connection_closes() {
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: cart\r\n\r\n");
    let bad = "GET /bad HTTP/1.1\r\nHost: cart\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    let pipeline = [
        &ask("/one"),
        &ask("/a%2fb"),
        &ask("/two"),
        bad,
        &ask("/three"),
    ]
    .concat();
    for way in WAYS {
        let mut stage = Stage::new().await;
        let (first, second) = pipeline.as_bytes().split_at(pipeline.len() - 90);
        for segments in [&[pipeline.as_bytes()][..], &[first, second]] {
            let answer = stage.send(way, segments).await;
            let statuses: Vec<_> = answer
                .match_indices("HTTP/1.1 ")
                .map(|(at, _)| &answer[at + 9..at + 12])
                .collect();
            assert_eq!(statuses, ["200", "400", "200", "400"], "{way:?}: {answer}");
            assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
        }
        let received = stage.application.received();
        for (path, times) in [
            ("/one", 2),
            ("/a%2", 0),
            ("/two", 2),
            ("/bad", 0),
            ("/three", 0),
        ] {
            assert_eq!(
                received.matches(path).count(),
                times,
                "{way:?} {path}: {received}"
            );
        }
        let denied = stage.denials("cart").len() + stage.denials("web").len();
        assert_eq!(denied, 4, "{way:?}: by policy and by the guard, twice each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_14_request_lines_that_are_not_three_words_of_this_protocol() {
    assert_refused(&[
        Bad(
            "tab",
            b"GET\t/x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "tab before the version",
            b"GET /x\tHTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "two spaces",
            b"GET  /x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "two spaces later",
            b"GET /x  HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "space at the end",
            b"GET /x HTTP/1.1 \r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "HTTP/1.01",
            b"GET /x HTTP/1.01\r\nHost: cart\r\n\r\n",
            400,
            "version",
        ),
        Bad(
            "HTTP/2.0",
            b"GET /x HTTP/2.0\r\nHost: cart\r\n\r\n",
            400,
            "version",
        ),
        Bad(
            "http/1.1",
            b"GET /x http/1.1\r\nHost: cart\r\n\r\n",
            400,
            "version",
        ),
        Bad("PD6", b"GET /x HTTP/0.9\r\n\r\n", 400, "version"),
        Bad(
            "PA8",
            b"GET /x#y HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "target",
        ),
        Bad(
            "no URI",
            b"GET /<x> HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "target",
        ),
    ])
    .await;
}

/// What detection already knows to be wrong is answered and recorded like the rest.
#[tokio::test(flavor = "multi_thread")]
async fn pd5_to_7_a_first_line_that_is_nearly_http() {
    assert_refused(&[
        Bad(
            "PD5 space",
            b" GET /x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "PD5 LF",
            b"\nGET /x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "PD7 no token",
            b"FE{CH /x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "unusual method and a tab",
            b"FETCH\t/x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "unusual method, two spaces",
            b"FETCH  /x HTTP/1.1\r\nHost: cart\r\n\r\n",
            400,
            "line",
        ),
        Bad(
            "unusual method of another version",
            b"FETCH /x HTTP/3.0\r\nHost: cart\r\n\r\n",
            400,
            "version",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_requests_of_all_kinds_go_on_in_one_canonical_form() {
    let stage = Stage::new().await;
    let requests = [
        &b"\r\nGET /one HTTP/1.1\r\nHost: cart\r\n\r\n"[..],
        b"POST /two HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /three HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        b"GET /four HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n",
    ]
    .concat();
    for way in WAYS {
        let before = stage.application.received().len();
        for size in [requests.len(), 61] {
            let segments: Vec<_> = requests.chunks(size).collect();
            let answer = stage.send(way, &segments).await;
            assert_eq!(answer.matches("200 OK").count(), 4, "{way:?}: {answer}");
        }
        let received = stage.application.received()[before..].to_lowercase();
        for (part, times) in [
            ("get /one http/1.1\r\n", 2),
            ("hello", 4),
            ("transfer-encoding: chunked\r\n", 2),
            ("a=b", 0),
            ("get /four", 2),
        ] {
            let found = received
                .replace("3\r\nhel\r\n2\r\nlo", "hello")
                .matches(part)
                .count();
            assert_eq!(found, times, "{way:?} {part}: {received}");
        }
    }
}

/// Accepts one connection, reads the head, answers with `answer` and then keeps what comes.
async fn upgrading_application(listener: TcpListener, answer: &'static [u8]) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
    assert!(early.is_err(), "GW7: nothing comes before the answer");
    stream.write_all(answer).await.expect("room");
    let mut after = Vec::new();
    let mut piece = [0; 1000];
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_millis(300), stream.read(&mut piece)).await
    {
        after.extend_from_slice(&piece[..count]);
    }
    (String::from_utf8_lossy(&head).into_owned(), after)
}

const WEBSOCKET: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn gw7_what_comes_before_the_101_is_held_and_after_it_bytes_are_bytes() {
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let frames = b"\x81\x05hello\nGET / HTTP/1.1\nnot: exact\n\n";
    for way in WAYS {
        let mut stage = Stage::without_application();
        let listener = TcpListener::bind(stage.world.cart_app())
            .await
            .expect("an address");
        let application = tokio::spawn(upgrading_application(listener, switch));
        let mut stream = stage.connect(way).await;
        stream
            .write_all(&[WEBSOCKET, &frames[..9]].concat())
            .await
            .expect("room");
        stream.flush().await.expect("room");
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(&frames[9..]).await.expect("room");
        stream.flush().await.expect("room");
        let (head, after) = application.await.expect("no panic");
        assert!(
            head.starts_with("GET /chat HTTP/1.1\r\n"),
            "{way:?}: {head}"
        );
        assert_eq!(after, frames, "{way:?}");
        drop(stream);
        assert!(stage.denials("cart").is_empty() && stage.denials("web").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gw8_after_an_upgrade_that_did_not_happen_what_follows_is_a_request_and_is_judged() {
    let no = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for way in WAYS {
        let mut stage = Stage::without_application();
        let listener = TcpListener::bind(stage.world.cart_app())
            .await
            .expect("an address");
        let application = tokio::spawn(upgrading_application(listener, no));
        let answer = stage
            .send(way, &[&[WEBSOCKET, b"\x81\x05hello"].concat()])
            .await;
        let statuses: Vec<_> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .collect();
        assert_eq!(statuses, ["200", "400"], "{way:?}: {answer}");
        let (_, after) = application.await.expect("no panic");
        assert_eq!(after, b"", "{way:?}");
        let denials = [stage.denials("cart"), stage.denials("web")].concat();
        assert_eq!(denials.len(), 1, "{denials:?}");
        assert!(
            denials[0]["request"].is_null(),
            "there is no line to be read: {denials:?}"
        );
        assert_refusal_record(&denials[0]);
    }
}
