//! HTTP/2 spoken to hurt: what one connection may make a proxy do, and what everybody else notices of it (nothing).
//!
//! Frames are written by hand, to both ways in on which strangers speak HTTP/2. `tests/clients` runs h2spec there too.

use super::hygiene::h2_request;
use super::ways::Stage;
use super::world::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// GET http://cart/ with a path of its own, as literals that no table remembers.
const GET: &[u8] = b"\x82\x86\x84\x41\x04cart";
const POST: &[u8] = b"\x83\x86\x84\x41\x04cart";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [&[l0, l1, l2, kind, flags, s0, s1, s2, s3], payload].concat()
}

/// The `number`th stream that a client opens.
fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).expect("a small number")
}

/// One hostile connection.
struct Hostile {
    to: TcpStream,
    written: usize,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The proxy said so, with this code, or closed it.
    Ended(Option<u32>),
    /// The proxy reads no more: what it owes us fills every buffer.
    Held,
    /// It takes everything.
    Taken,
}

impl Hostile {
    async fn new(to: SocketAddr) -> Self {
        let to = TcpStream::connect(to).await.expect("a connection");
        let mut hostile = Self { to, written: 0 };
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        assert!(hostile.write(hello).await, "room");
        hostile
    }

    /// `false`: nobody reads any more.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(Duration::from_secs(2), self.to.write_all(bytes)).await;
        let ok = matches!(written, Ok(Ok(())));
        self.written += if ok { bytes.len() } else { 0 };
        ok
    }

    /// Sends pieces for as long as they are taken, and says how it ended. `reads`: or else it never reads what it is told.
    async fn flood(mut self, reads: bool, pieces: impl Iterator<Item = Vec<u8>>) -> (End, usize) {
        let mut heard = Vec::new();
        for piece in pieces {
            if reads && let Some(end) = self.hear(&mut heard, Duration::ZERO).await {
                return (end, self.written);
            }
            if !self.write(&piece).await {
                let end = self.hear(&mut heard, Duration::from_secs(2)).await;
                return (end.unwrap_or(End::Held), self.written);
            }
        }
        let end = self.hear(&mut heard, Duration::from_secs(2)).await;
        (end.unwrap_or(End::Taken), self.written)
    }

    /// Whether the proxy has ended the connection, as far as it can be heard within `wait`.
    async fn hear(&mut self, heard: &mut Vec<u8>, wait: Duration) -> Option<End> {
        loop {
            while let Some(head) = heard.first_chunk::<9>() {
                let length = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if heard.len() < length {
                    break;
                }
                let frame: Vec<u8> = heard.drain(..length).collect();
                if frame[3] == GOAWAY {
                    let code = frame.get(13..17).expect("a code");
                    let code = u32::from_be_bytes(code.try_into().expect("four bytes"));
                    return Some(End::Ended(Some(code)));
                }
            }
            // An elapsed timeout of nothing would not even look.
            let wait = wait.max(Duration::from_micros(100));
            match timeout(wait, self.to.read_buf(heard)).await {
                Ok(Ok(0) | Err(_)) => return Some(End::Ended(None)),
                Ok(Ok(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The two ways in.
fn ways(stage: &Stage) -> [SocketAddr; 2] {
    [stage.world.cart_plain(), stage.world.web_to_cart()]
}

async fn others_are_served(stage: &Stage) {
    for to in ways(stage) {
        let answer = timeout(Duration::from_secs(5), get(to, "/other")).await;
        assert_eq!(status(&answer.expect("an answer in time")), "200");
    }
}

fn asked(stage: &Stage) -> usize {
    stage.application.received().matches("GET / ").count()
}

/// H2-1 (CVE-2023-44487): as fast as it goes, and so slowly that each request is on its way to the application.
#[tokio::test(flavor = "multi_thread")]
async fn h2_1_streams_that_are_opened_and_reset_end_the_connection() {
    let stage = Stage::new().await;
    for to in ways(&stage) {
        for (at_once, most) in [(100, 200), (1, 5_000)] {
            let before = asked(&stage);
            let reset = |number| {
                let id = stream(number);
                let head = frame(HEADERS, END_STREAM | END_HEADERS, id, GET);
                [head, frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
            };
            let pieces = (0..20_000 / at_once).map(|piece| {
                (0..at_once)
                    .flat_map(|n| reset(piece * at_once + n))
                    .collect()
            });
            let (end, written) = Hostile::new(to).await.flood(true, pieces).await;
            assert!(
                matches!(end, End::Ended(_)),
                "{end:?} after {written} bytes"
            );
            let reached = asked(&stage) - before;
            assert!(reached < most, "{reached} requests reached the application");
            others_are_served(&stage).await;
        }
    }
}

/// What provokes a reset of a stream.
type Provocation = fn(u32) -> Vec<u8>;

/// H2-2 (CVE-2025-8671): the client provokes the resets.
#[tokio::test(flavor = "multi_thread")]
async fn h2_2_resets_that_a_client_provokes_end_the_connection() {
    let stage = Stage::new().await;
    let provocations: [(&str, Provocation); 3] = [
        ("a window of nothing", |id| {
            frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes())
        }),
        ("a window too large", |id| {
            frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())
        }),
        ("data after the end", |id| frame(DATA, 0, id, b"more")),
    ];
    for to in ways(&stage) {
        for (name, provocation) in provocations {
            let provoked = (0..100_000).map(|number| {
                let id = stream(number);
                let head = frame(HEADERS, END_STREAM | END_HEADERS, id, GET);
                [head, provocation(id)].concat()
            });
            let (end, written) = Hostile::new(to).await.flood(true, provoked).await;
            assert!(
                matches!(end, End::Ended(_)),
                "{name}: {end:?} after {written} bytes"
            );
            assert!(written < 1 << 20, "{name}: after {written} bytes");
        }
        others_are_served(&stage).await;
    }
}

/// H2-3 (the class of CVE-2024-27316).
#[tokio::test(flavor = "multi_thread")]
async fn h2_3_a_head_without_end_ends_the_connection() {
    let stage = Stage::new().await;
    for to in ways(&stage) {
        let field = [&b"\0\x01a\x7f\x00"[..], &[b'x'; 127]].concat();
        let first = frame(HEADERS, END_STREAM, 1, GET);
        let more = (0..100_000).map(|_| frame(CONTINUATION, 0, 1, &field));
        let flood = std::iter::once(first).chain(more);
        let (end, written) = Hostile::new(to).await.flood(true, flood).await;
        assert!(
            matches!(end, End::Ended(_)),
            "{end:?} after {written} bytes"
        );
        assert!(written < 1 << 20, "after {written} bytes");
        // The same in frames without a byte.
        let first = frame(HEADERS, END_STREAM, 1, GET);
        let more = (0..100_000).map(|_| frame(CONTINUATION, 0, 1, b""));
        let flood = std::iter::once(first).chain(more);
        let (end, _) = Hostile::new(to).await.flood(true, flood).await;
        assert!(matches!(end, End::Ended(_)), "{end:?}");
        others_are_served(&stage).await;
    }
}

/// H2-4, H2-5: frames that ask for an answer, or for nothing, from a client that reads no answers.
#[tokio::test(flavor = "multi_thread")]
async fn h2_4_h2_5_frames_that_mean_nothing_are_bounded() {
    let stage = Stage::new().await;
    let floods: [(&str, Vec<u8>); 5] = [
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("PRIORITY", frame(2, 0, 1, b"\0\0\0\0\x01")),
        (
            "WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        ),
        ("empty DATA", frame(DATA, 0, 1, b"")),
    ];
    for to in ways(&stage) {
        for (name, piece) in &floods {
            let first = frame(HEADERS, END_HEADERS, 1, POST);
            let many = piece.repeat(1_000);
            let flood = std::iter::once(first).chain((0..2_000).map(|_| many.clone()));
            let before = resident();
            let (end, written) = Hostile::new(to).await.flood(false, flood).await;
            let grown = resident().saturating_sub(before);
            assert!(
                grown < 96 << 20,
                "{name}: {grown} bytes more after {written}, {end:?}"
            );
        }
        others_are_served(&stage).await;
    }
}

/// H2-6: a table entry of 4 KiB, named again and again.
#[tokio::test(flavor = "multi_thread")]
async fn h2_6_a_small_head_that_means_a_large_one_is_refused() {
    let stage = Stage::new().await;
    for to in ways(&stage) {
        // A literal that is remembered (0x40), of 3,900 bytes: 127 + 3,773 in HPACK's integers.
        let entry = [&b"\x40\x01a\x7f\xbd\x1d"[..], &[b'x'; 3_900]].concat();
        let block = [GET, &entry, &[0xbe; 12_000]].concat();
        let flood = std::iter::once(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
        let mut hostile = Hostile::new(to).await;
        for piece in flood {
            assert!(hostile.write(&piece).await);
        }
        let before = asked(&stage);
        let mut answer = vec![0; 4096];
        let read = timeout(Duration::from_secs(5), hostile.to.read(&mut answer)).await;
        assert!(read.is_ok(), "an answer of some kind");
        others_are_served(&stage).await;
        assert_eq!(asked(&stage), before, "it reached the application");
    }
}

/// H2-7: a client that takes a byte at a time of a thousand answers.
#[tokio::test(flavor = "multi_thread")]
async fn h2_7_windows_of_one_byte_hold_up_nobody_else() {
    let stage = Stage::new().await;
    for to in ways(&stage) {
        let mut hostile = Hostile::new(to).await;
        assert!(
            hostile
                .write(&frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\x01"))
                .await
        );
        for number in 0..128 {
            let head = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), GET);
            assert!(hostile.write(&head).await);
        }
        others_are_served(&stage).await;
    }
}

/// H2-11, H2-13: what a head says of its body is held to before an application could be told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn h2_11_h2_13_a_body_of_another_length_than_it_says_is_no_request() {
    let stage = Stage::new().await;
    let length = |length: &str| {
        let field = [b"\x0f\x0d", &[length.len() as u8][..], length.as_bytes()].concat();
        [POST, &field].concat()
    };
    let head = |end: u8, said: &str| frame(HEADERS, end | END_HEADERS, 1, &length(said));
    let cases = [
        ("an end, and five bytes said", head(END_STREAM, "5")),
        (
            "more than it says",
            [head(0, "3"), frame(DATA, END_STREAM, 1, b"four")].concat(),
        ),
        ("no number", head(END_STREAM, "0x0")),
        ("a sum", head(END_STREAM, "+0")),
        ("two numbers", head(END_STREAM, "0, 0")),
    ];
    for to in ways(&stage) {
        for (name, bytes) in &cases {
            let mut hostile = Hostile::new(to).await;
            assert!(hostile.write(bytes).await);
            let kind = first_word_or_end(&mut hostile.to).await;
            assert!(kind != HEADERS || refused(&stage), "{name}: frame {kind}");
        }
        // Fewer than it says: its application has begun to read, and must not take what came for all.
        let bytes = [head(0, "9"), frame(DATA, END_STREAM, 1, b"four")].concat();
        let mut hostile = Hostile::new(to).await;
        assert!(hostile.write(&bytes).await);
        let kind = first_word_or_end(&mut hostile.to).await;
        assert_eq!(kind, RST_STREAM);
        others_are_served(&stage).await;
    }
    let received = stage.application.received();
    assert!(!received.contains("four"), "{received}");
}

fn refused(stage: &Stage) -> bool {
    !stage.application.received().contains("POST")
}

/// Kind of the first frame that is an answer, or the end of one.
pub(super) async fn first_word(stream: &mut TcpStream) -> std::io::Result<u8> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = stream.read_exact(&mut vec![0; length]).await;
        payload.expect("its payload");
        if !matches!(head[3], SETTINGS | WINDOW_UPDATE) {
            return Ok(head[3]);
        }
    }
}

/// The same; a connection that was closed without a word counts as its end.
async fn first_word_or_end(stream: &mut TcpStream) -> u8 {
    let word = timeout(Duration::from_secs(5), first_word(stream)).await;
    word.expect("a frame in time").unwrap_or(GOAWAY)
}

/// H2-16, and what belongs into no request.
#[tokio::test(flavor = "multi_thread")]
async fn h2_9_h2_10_h2_16_heads_that_are_none_reach_nobody() {
    let stage = Stage::new().await;
    let usual: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":scheme", b"http"),
        (":path", b"/h2"),
        (":authority", b"cart"),
    ];
    let with = |more: (&'static str, &'static [u8])| [&usual[..], &[more]].concat();
    let cases = [
        ("a method twice", with((":method", b"GET"))),
        ("an unknown pseudo-header", with((":unknown", b"x"))),
        ("a status in a request", with((":status", b"200"))),
        ("capitals", with(("Accept", b"x"))),
        ("connection", with(("connection", b"keep-alive"))),
        ("transfer-encoding", with(("transfer-encoding", b"chunked"))),
        ("te: gzip", with(("te", b"gzip"))),
        ("no path", vec![usual[0], usual[1], usual[3]]),
        (
            "an empty path",
            vec![usual[0], usual[1], (":path", b""), usual[3]],
        ),
        (
            "a pseudo-header at the end",
            vec![usual[0], usual[1], ("a", b"b"), usual[2], usual[3]],
        ),
        (
            "CONNECT with a protocol",
            vec![
                (":method", b"CONNECT"),
                (":protocol", b"websocket"),
                usual[1],
                usual[2],
                usual[3],
            ],
        ),
        (
            "CONNECT",
            vec![(":method", b"CONNECT"), (":authority", b"cart:80")],
        ),
        (
            "a method with a space",
            vec![(":method", b"GET /x"), usual[1], usual[2], usual[3]],
        ),
    ];
    for to in ways(&stage) {
        for (name, fields) in &cases {
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            stream.write_all(&h2_request(fields)).await.expect("room");
            let kind = first_word_or_end(&mut stream).await;
            assert!(
                matches!(kind, HEADERS | RST_STREAM | GOAWAY),
                "{name}: frame {kind}"
            );
            assert_eq!(stage.application.received(), "", "{name}");
        }
    }
}

/// Bytes of memory that this process has: both proxies, and everything else of the tests.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * 4096
}
