//! HTTP/2 spoken to hurt: what one connection may make a proxy do, and what everybody else notices of it (nothing).
//!
//! Frames are written by hand, to both ways in on which strangers speak HTTP/2. `tests/clients` runs h2spec there too.

use super::hygiene::h2_request;
use super::ways::Stage;
use super::world::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// An application in HTTP/1 and HTTP/2, which gets each request in the version that it was asked in. It answers `/other`,
/// and everything else too if it is not `silent`.
#[derive(Clone, Default)]
struct Origin {
    silent: bool,
    /// Requests for anything but `/other`.
    asked: Arc<AtomicUsize>,
    /// Of these, those that are neither answered nor given up.
    under_way: Arc<AtomicUsize>,
    /// Bodies that came to their end.
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

/// A request that is under way until this is dropped.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Origin {
    async fn start(stage: &Stage, silent: bool) -> Self {
        let listener = TcpListener::bind(stage.world.cart_app()).await;
        let listener = listener.expect("the application's address");
        let origin = Self {
            silent,
            ..Self::default()
        };
        let all = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(all.clone().serve(stream));
            }
        });
        origin
    }

    async fn serve(self, stream: TcpStream) {
        let mut first = [0; 3];
        let _ = stream.peek(&mut first).await;
        let service = service_fn(move |request| self.clone().answer(request));
        let io = TokioIo::new(stream);
        // How a connection of an attacked proxy ends is nobody's business here.
        let _ = match &first {
            b"PRI" => {
                let builder = http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(io, service).await
            }
            _ => http1::Builder::new().serve_connection(io, service).await,
        };
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.uri().path() != "/other" {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.under_way.fetch_add(1, Ordering::SeqCst);
            let _under_way = UnderWay(self.under_way.clone());
            if self.silent {
                std::future::pending::<()>().await;
            }
            if let Ok(body) = request.into_body().collect().await {
                self.bodies.lock().expect("no panic").push(body.to_bytes());
            }
        }
        Ok(Response::new(Full::from("ok")))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Both proxies and an application, and the two ways in.
async fn stage(silent: bool) -> (Stage, Origin, [SocketAddr; 2]) {
    let stage = Stage::without_application();
    let origin = Origin::start(&stage, silent).await;
    let ways = [stage.world.cart_plain(), stage.world.web_to_cart()];
    (stage, origin, ways)
}

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

async fn others_are_served(ways: [SocketAddr; 2]) {
    for to in ways {
        let answer = timeout(Duration::from_secs(5), get(to, "/other")).await;
        assert_eq!(status(&answer.expect("an answer in time")), "200");
    }
}

/// H2-1 (CVE-2023-44487), as fast as it goes.
#[tokio::test(flavor = "multi_thread")]
async fn h2_1_streams_that_are_opened_and_reset_end_the_connection() {
    let (_stage, origin, ways) = stage(false).await;
    for to in ways {
        for (at_once, most) in [(100, 200), (1, 5_000)] {
            let before = origin.asked();
            let pieces = (0..20_000 / at_once).map(|piece| {
                (0..at_once)
                    .flat_map(|n| [ask(piece * at_once + n), give_up(piece * at_once + n)].concat())
                    .collect()
            });
            let (end, written) = Hostile::new(to).await.flood(true, pieces).await;
            assert!(
                matches!(end, End::Ended(_)),
                "{end:?} after {written} bytes"
            );
            let reached = origin.asked() - before;
            assert!(reached < most, "{reached} requests reached the application");
            others_are_served(ways).await;
        }
    }
}

/// H2-1, so slowly that each request is at the application before it is given up: the library counts none of them.
#[tokio::test(flavor = "multi_thread")]
async fn h2_1_requests_that_are_given_up_one_by_one_end_the_connection() {
    let (_stage, origin, ways) = stage(true).await;
    for to in ways {
        let before = origin.asked();
        let mut hostile = Hostile::new(to).await;
        let (mut heard, mut count) = (Vec::new(), 0);
        let end = loop {
            assert!(count < 3_000, "nobody minds");
            if let Some(end) = hostile.hear(&mut heard, Duration::ZERO).await {
                break end;
            }
            hostile.write(&ask(count)).await;
            count += 1;
            let arrived = || async { origin.asked() - before == count };
            if timeout(Duration::from_secs(2), until(arrived))
                .await
                .is_err()
            {
                break hostile
                    .hear(&mut heard, Duration::from_secs(5))
                    .await
                    .expect("an end");
            }
            hostile.write(&give_up(count - 1)).await;
            eventually("the application is left alone", || async {
                origin.under_way.load(Ordering::SeqCst) == 0
            })
            .await;
        };
        assert!(matches!(end, End::Ended(_)), "{end:?} after {count}");
        assert!(
            count >= 1_000,
            "a client that changes its mind is no attacker: {count}"
        );
        others_are_served(ways).await;
    }
}

async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

/// Opens the `number`th stream.
fn ask(number: usize) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream(number), GET)
}

/// Resets it: CANCEL.
fn give_up(number: usize) -> Vec<u8> {
    frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())
}

/// What provokes a reset of a stream.
type Provocation = fn(u32) -> Vec<u8>;

/// H2-2 (CVE-2025-8671): the client provokes the resets.
#[tokio::test(flavor = "multi_thread")]
async fn h2_2_resets_that_a_client_provokes_end_the_connection() {
    let (_stage, _, ways) = stage(false).await;
    let provocations: [(&str, Provocation); 3] = [
        ("a window of nothing", |id| {
            frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes())
        }),
        ("a window too large", |id| {
            frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())
        }),
        ("data after the end", |id| frame(DATA, 0, id, b"more")),
    ];
    for to in ways {
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
        others_are_served(ways).await;
    }
}

/// H2-3 (the class of CVE-2024-27316).
#[tokio::test(flavor = "multi_thread")]
async fn h2_3_a_head_without_end_ends_the_connection() {
    let (_stage, _, ways) = stage(false).await;
    for to in ways {
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
        others_are_served(ways).await;
    }
}

/// H2-4, H2-5: frames that ask for an answer, or for nothing, from a client that reads no answers.
#[tokio::test(flavor = "multi_thread")]
async fn h2_4_h2_5_frames_that_mean_nothing_are_bounded() {
    let (_stage, _, ways) = stage(false).await;
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
    for to in ways {
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
        others_are_served(ways).await;
    }
}

/// H2-6: a table entry of 4 KiB, named again and again.
#[tokio::test(flavor = "multi_thread")]
async fn h2_6_a_small_head_that_means_a_large_one_is_refused() {
    let (_stage, origin, ways) = stage(false).await;
    for to in ways {
        // A literal that is remembered (0x40), of 3,900 bytes: 127 + 3,773 in HPACK's integers.
        let entry = [&b"\x40\x01a\x7f\xbd\x1d"[..], &[b'x'; 3_900]].concat();
        let block = [GET, &entry, &[0xbe; 12_000]].concat();
        let flood = std::iter::once(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
        let mut hostile = Hostile::new(to).await;
        for piece in flood {
            assert!(hostile.write(&piece).await);
        }
        let before = origin.asked();
        let mut answer = vec![0; 4096];
        let read = timeout(Duration::from_secs(5), hostile.to.read(&mut answer)).await;
        assert!(read.is_ok(), "an answer of some kind");
        others_are_served(ways).await;
        assert_eq!(origin.asked(), before, "it reached the application");
    }
}

/// H2-7: a client that takes a byte at a time of a thousand answers.
#[tokio::test(flavor = "multi_thread")]
async fn h2_7_windows_of_one_byte_hold_up_nobody_else() {
    let (_stage, _, ways) = stage(false).await;
    for to in ways {
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
        others_are_served(ways).await;
    }
}

/// H2-11, H2-13: what a head says of its body is held to before an application could be told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn h2_11_h2_13_a_body_of_another_length_than_it_says_is_no_request() {
    let (_stage, origin, ways) = stage(false).await;
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
    for to in ways {
        for (name, bytes) in &cases {
            let before = origin.asked();
            let mut hostile = Hostile::new(to).await;
            assert!(hostile.write(bytes).await);
            let kind = first_word_or_end(&mut hostile.to).await;
            let reached = origin.asked() - before;
            // What its head alone tells reaches nobody; of the other the head may be on its way already.
            let told_by_head = *name != "more than it says";
            assert!(
                reached == 0 || !told_by_head,
                "{name}: it reached the application"
            );
            assert!(kind != HEADERS || reached == 0, "{name}: it was answered");
        }
        // Fewer than it says: its application has begun to read, and must not take what came for all.
        let bytes = [head(0, "9"), frame(DATA, END_STREAM, 1, b"four")].concat();
        let mut hostile = Hostile::new(to).await;
        assert!(hostile.write(&bytes).await);
        let kind = first_word_or_end(&mut hostile.to).await;
        assert_eq!(kind, RST_STREAM);
        others_are_served(ways).await;
    }
    let bodies = origin.bodies.lock().expect("no panic");
    assert!(bodies.is_empty(), "{bodies:?}");
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
    let (_stage, origin, ways) = stage(false).await;
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
    for to in ways {
        for (name, fields) in &cases {
            let mut stream = TcpStream::connect(to).await.expect("a connection");
            stream.write_all(&h2_request(fields)).await.expect("room");
            let kind = first_word_or_end(&mut stream).await;
            assert!(
                matches!(kind, HEADERS | RST_STREAM | GOAWAY),
                "{name}: frame {kind}"
            );
            assert_eq!(origin.asked(), 0, "{name}");
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
