//! When a connection waits and when it does not, and that nobody beyond it can tell.

use super::*;
use crate::limits::REST_CHECK_EVERY;
use http::StatusCode;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
const QUIET: Duration = Duration::from_secs(10);

/// Answers after `wait` with the length of the request's body; `/refused` with a refusal that closes the connection.
struct Counting {
    wait: Duration,
    refused: Cell<u32>,
}

impl Service for Counting {
    async fn answer(self: Rc<Self>, request: Request<Arriving>) -> Answer {
        sleep(self.wait).await;
        if request.uri().path() == "/refused" {
            let mut answer = Response::new(Body::text("no".to_owned()));
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert(http::header::CONNECTION, close);
            return answer;
        }
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            let frame = frame.expect("a whole body");
            length += frame.data_ref().map_or(0, Bytes::len);
        }
        Response::new(Body::text(format!("{length} bytes")))
    }

    fn on_refused(&self, _refusal: &WireRefusal) {
        self.refused.set(self.refused.get() + 1);
    }
}

/// A connection that is served, from its client's side.
struct Stage {
    client: DuplexStream,
    awake: Rc<Awake>,
    kill: Kill,
    stop: watch::Sender<bool>,
    service: Rc<Counting>,
    serving: tokio::task::JoinHandle<()>,
}

impl Stage {
    fn new(wait: Duration) -> Self {
        let (client, server) = duplex(1 << 16);
        let (stop, stopping) = watch::channel(false);
        let refused = Cell::new(0);
        let service = Rc::new(Counting { wait, refused });
        let (awake, kill) = (Rc::new(Awake::default()), Kill::default());
        let watched = awake.clone();
        tokio::task::spawn_local(async move { watched.watch().await });
        let (own, end, each) = (awake.clone(), kill.clone(), service.clone());
        let serving = tokio::task::spawn_local(async move {
            let (awake, stop, kill) = (&*own, &stopping, &end);
            serve(server, QUIET, Beside { awake, stop, kill }, each).await;
        });
        Self {
            client,
            awake,
            kill,
            stop,
            service,
            serving,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.expect("room");
    }

    /// The head and the body of the next answer.
    async fn answer(&mut self) -> String {
        let mut all = Vec::new();
        while !all.ends_with(b" bytes") {
            let more = self.client.read_buf(&mut all).await.expect("an answer");
            assert_ne!(more, 0, "{}", String::from_utf8_lossy(&all));
        }
        String::from_utf8(all).expect("text")
    }

    fn waits(&self) -> bool {
        self.awake.all.all().is_empty()
    }

    /// Until it waits, and how long that took.
    async fn rest(&self) -> Duration {
        let began = Instant::now();
        while !self.waits() {
            assert!(began.elapsed() < Duration::from_secs(1), "it never waits");
            sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    }

    /// Until the connection has ended, and how long that took.
    async fn end(&mut self) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.expect("an end");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        (&mut self.serving).await.expect("no panic");
        began.elapsed()
    }
}

async fn staged(wait: Duration, play: impl AsyncFnOnce(Stage)) {
    let local = tokio::task::LocalSet::new();
    let played = async { play(Stage::new(wait)).await };
    local.run_until(played).await;
}

#[tokio::test(start_paused = true)]
async fn what_pauses_waits_and_goes_on_where_it_was() {
    staged(Duration::ZERO, async |mut stage| {
        for pause_ms in [0, 1, 50, 99, 101, 150, 250, 5_000] {
            stage.send(GET).await;
            let answer = stage.answer().await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            sleep(Duration::from_millis(pause_ms)).await;
            let waits = stage.waits();
            assert!(waits || pause_ms <= 250, "{pause_ms} ms");
            assert!(!waits || pause_ms > 50, "{pause_ms} ms");
        }
        assert!(stage.waits());
        let (head, end) = GET.split_at(GET.len() - 1);
        for piece in head.chunks(3) {
            stage.send(piece).await;
            sleep(Duration::from_millis(300)).await;
            assert!(!stage.waits(), "in the middle of a head");
        }
        stage.send(end).await;
        assert!(stage.answer().await.ends_with("0 bytes"));
        stage.rest().await;
        let two = [GET, GET].concat();
        stage.send(&two).await;
        assert!(stage.answer().await.ends_with("0 bytes"));
        stage.rest().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_let_go_while_anything_is_under_way() {
    let wait = Duration::from_secs(3);
    staged(wait, async |mut stage| {
        sleep(Duration::from_secs(1)).await;
        assert!(!stage.waits(), "before its first request");
        stage.send(GET).await;
        sleep(wait - Duration::from_millis(500)).await;
        assert!(!stage.waits(), "before its answer");
        assert!(stage.answer().await.contains("0 bytes"));
        stage.rest().await;
        stage
            .send(b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 3\r\n\r\nab")
            .await;
        sleep(wait * 2).await;
        assert!(!stage.waits(), "in the middle of a body");
        stage.send(b"c").await;
        assert!(stage.answer().await.ends_with("3 bytes"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_ends_when_its_time_is_over() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(GET).await;
        stage.answer().await;
        let took = stage.end().await;
        let latest = QUIET + 2 * REST_CHECK_EVERY;
        assert!((QUIET..=latest).contains(&took), "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_wait_gives_no_more_time_for_the_head() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(GET).await;
        stage.answer().await;
        let began = Instant::now();
        sleep(Duration::from_secs(6)).await;
        for byte in GET.iter().take(20) {
            let byte = std::slice::from_ref(byte);
            // Whoever sends a byte now and then holds a connection no longer than others.
            if stage.client.write_all(byte).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
        stage.end().await;
        let took = began.elapsed();
        let latest = QUIET + 3 * REST_CHECK_EVERY;
        assert!((QUIET..=latest).contains(&took), "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_ends_with_the_proxy_with_its_permission_and_with_its_client() {
    for who in ["proxy", "permission", "client"] {
        staged(Duration::ZERO, async |mut stage| {
            stage.send(GET).await;
            stage.answer().await;
            stage.rest().await;
            match who {
                "proxy" => drop(stage.stop.send_replace(true)),
                "permission" => stage.kill.end(crate::live::End::Revoked),
                _ => stage.client.shutdown().await.expect("a connection"),
            }
            let took = stage.end().await;
            assert!(took < Duration::from_millis(5), "{who}: {took:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_wait_is_told_once() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(GET).await;
        stage.answer().await;
        stage.rest().await;
        stage.send(b"GET / HTTP/1.1\r\nhost : cart\r\n\r\n").await;
        let mut answer = Vec::new();
        stage.client.read_to_end(&mut answer).await.expect("an end");
        let answer = String::from_utf8(answer).expect("text");
        let status = StatusCode::BAD_REQUEST.as_u16();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(stage.service.refused.get(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_an_answer_closed_never_waits() {
    staged(Duration::ZERO, async |mut stage| {
        stage
            .send(b"GET /refused HTTP/1.1\r\nhost: cart\r\n\r\n")
            .await;
        let mut answer = Vec::new();
        stage.client.read_to_end(&mut answer).await.expect("an end");
        assert!(answer.starts_with(b"HTTP/1.1 400"));
        // The client says nothing more, and does not close: a moment later the proxy is gone all the same.
        let began = Instant::now();
        (&mut stage.serving).await.expect("no panic");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    })
    .await;
}
