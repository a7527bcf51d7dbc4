//! A connection of a client, played byte by byte: what waits, what ends and when, what is answered in which order, what is
//! broken off, and that nothing is held of what waits.

mod bodies;
mod refusals;

use super::*;
use crate::answer::Answer;
use crate::http1::PulledBody;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use std::cell::{Cell, RefCell};
use std::rc::Weak;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
const QUIET: Duration = Duration::from_secs(10);

/// Answers by the path, after `wait`.
struct Playing {
    wait: Duration,
    /// Why requests were refused as bytes, and what they asked.
    refused: RefCell<Vec<(RequestRefusal, Option<String>)>>,
    /// Requests that came, and those whose answer was not given up.
    asked: Cell<u32>,
    answered: Cell<u32>,
    /// Why a body broke off.
    broke: Cell<bool>,
    /// The body of a request whose answer did not wait for it.
    kept: RefCell<Option<Arriving>>,
    /// Where the bytes of an upgrade go.
    switched: RefCell<Option<Box<dyn Duplex>>>,
}

impl Service for Playing {
    async fn answer(self: Rc<Self>, mut request: Request<Arriving>) -> Answer {
        self.asked.set(self.asked.get() + 1);
        sleep(self.wait).await;
        let answer = self.say(&mut request).await;
        self.answered.set(self.answered.get() + 1);
        answer
    }

    fn on_refused(&self, refusal: &WireRefusal) {
        let path = refusal.request.as_ref().map(|one| one.raw_path.clone());
        self.refused.borrow_mut().push((refusal.why, path));
    }
}

impl Playing {
    async fn say(self: &Rc<Self>, request: &mut Request<Arriving>) -> Answer {
        let path = request.uri().path().to_owned();
        let body = std::mem::replace(request.body_mut(), Arriving::Nothing);
        match &*path {
            "/closes" => {
                let mut answer = Response::new(Body::text("no"));
                *answer.status_mut() = StatusCode::BAD_REQUEST;
                closing(answer)
            }
            // Without a look at the body.
            "/early" => Response::new(Body::text("early bytes")),
            "/keeps" => {
                self.kept.replace(Some(body));
                Response::new(Body::text("early bytes"))
            }
            // The one goes on beside the other.
            "/beside" => {
                let service = self.clone();
                tokio::task::spawn_local(async move {
                    service.broke.set(whole(body).await.is_err());
                });
                let endless = Arriving::Pulled(Box::new(Endless));
                Response::new(Body::request(endless, Kill::default()))
            }
            // What came is what goes.
            "/echo" => Response::new(Body::request(body, Kill::default())),
            // Without anybody who takes the stream.
            "/foreign" => {
                let mut answer = Response::new(Body::Empty);
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                answer
            }
            "/withheld" => {
                let body = Arriving::Pulled(Box::new(Withheld(Some(vec![b'x'; 9_000]))));
                Response::new(Body::request(body, Kill::default()))
            }
            "/interim" => {
                let mut answer = Response::new(Body::Empty);
                *answer.status_mut() = StatusCode::PROCESSING;
                answer
            }
            "/chat" => self.clone().switch(body),
            _ => match whole(body).await {
                Ok(length) => Response::new(Body::text(format!("{length} bytes"))),
                Err(_) => {
                    self.broke.set(true);
                    Response::new(Body::text("broken bytes"))
                }
            },
        }
    }

    fn switch(self: Rc<Self>, mut body: Arriving) -> Answer {
        let switch = body.take_switch().expect("it may switch");
        tokio::task::spawn_local(async move {
            let stream = switch.await.expect("a stream");
            self.switched.borrow_mut().replace(stream);
        });
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer
    }
}

/// A body that never comes.
struct Endless;

impl crate::http1::PulledBody for Endless {
    fn poll_frame(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::default()
    }
}

async fn whole(mut body: Arriving) -> Result<usize, BodyError> {
    let mut length = 0;
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

/// A body of known length whose sender never says that it is over.
struct Withheld(Option<Vec<u8>>);

impl PulledBody for Withheld {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.0.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data.into())))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// A connection that is served, from its client's side.
struct Stage {
    client: DuplexStream,
    shared: Weak<Shared<DuplexStream>>,
    kill: Kill,
    stop: watch::Sender<bool>,
    service: Rc<Playing>,
    serving: JoinHandle<()>,
}

impl Stage {
    fn new(wait: Duration, room: usize) -> Self {
        let (client, server) = duplex(room);
        let (stop, stopping) = watch::channel(false);
        let service = Rc::new(Playing {
            wait,
            refused: RefCell::default(),
            asked: Cell::default(),
            answered: Cell::default(),
            broke: Cell::default(),
            kept: RefCell::default(),
            switched: RefCell::default(),
        });
        let kill = Kill::default();
        let (end, each) = (kill.clone(), service.clone());
        let shared = Shared::new(server);
        let weak = Rc::downgrade(&shared);
        let serving = tokio::task::spawn_local(async move {
            let beside = Beside {
                stop: stopping,
                kill: &end,
            };
            serve_shared(shared, QUIET, beside, each).await;
        });
        Self {
            client,
            shared: weak,
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

    /// All that comes until the connection ends.
    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        self.client.read_to_end(&mut all).await.expect("an end");
        String::from_utf8(all).expect("text")
    }

    /// Whether nothing is held of it.
    fn rests(&self) -> bool {
        self.shared
            .upgrade()
            .is_some_and(|shared| shared.wire().is_at_rest())
    }

    /// Until the connection has ended without a word, and how long that took.
    async fn end(&mut self) -> Duration {
        let began = Instant::now();
        assert_eq!(self.rest().await, "");
        (&mut self.serving).await.expect("no panic");
        began.elapsed()
    }

    fn refused(&self) -> Vec<(RequestRefusal, Option<String>)> {
        self.service.refused.borrow().clone()
    }
}

async fn staged(wait: Duration, play: impl AsyncFnOnce(Stage)) {
    let local = tokio::task::LocalSet::new();
    let played = async { play(Stage::new(wait, 1 << 16)).await };
    local.run_until(played).await;
}

/// Lets everybody do what there is to do.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_holds_nothing_and_goes_on_where_it_was() {
    staged(Duration::ZERO, async |mut stage| {
        settle().await;
        assert!(stage.rests(), "before its first request");
        for pause_ms in [0, 1, 250, 5_000] {
            stage.send(GET).await;
            let answer = stage.answer().await;
            assert_eq!(
                answer,
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n0 bytes"
            );
            settle().await;
            assert!(stage.rests(), "{pause_ms} ms");
            sleep(Duration::from_millis(pause_ms)).await;
        }
        let (head, end) = GET.split_at(GET.len() - 1);
        for piece in head.chunks(3) {
            stage.send(piece).await;
            sleep(Duration::from_millis(300)).await;
            assert!(!stage.rests(), "in the middle of a head");
        }
        stage.send(end).await;
        assert!(stage.answer().await.ends_with("0 bytes"));
        settle().await;
        assert!(stage.rests());
        stage
            .send(b"POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n")
            .await;
        assert!(stage.answer().await.ends_with("3 bytes"));
        settle().await;
        assert!(stage.rests());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_ends_when_its_time_is_over() {
    staged(Duration::ZERO, async |mut stage| {
        assert_eq!(stage.end().await, QUIET, "before its first request");
    })
    .await;
    staged(Duration::from_secs(3), async |mut stage| {
        for _ in 0..5 {
            sleep(Duration::from_secs(8)).await;
            stage.send(GET).await;
            stage.answer().await;
        }
        let took = stage.end().await;
        assert!(
            (QUIET..=QUIET + Duration::from_millis(2)).contains(&took),
            "{took:?}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_slowly_has_no_more_time() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(GET).await;
        stage.answer().await;
        let began = Instant::now();
        sleep(Duration::from_secs(6)).await;
        for byte in GET.iter().take(20) {
            // Whoever sends a byte now and then holds a connection no longer than others.
            if stage.client.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(300)).await;
        }
        stage.end().await;
        let took = began.elapsed();
        assert!(
            (QUIET..=QUIET + Duration::from_millis(300)).contains(&took),
            "{took:?}"
        );
        assert_eq!(stage.service.asked.get(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_ends_with_the_proxy_with_its_permission_and_with_its_client() {
    for who in ["proxy", "permission", "client"] {
        staged(Duration::ZERO, async |mut stage| {
            stage.send(GET).await;
            stage.answer().await;
            settle().await;
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
async fn a_proxy_that_stops_answers_what_was_asked_and_says_that_it_closes() {
    for before in ["head", "half", "first"] {
        staged(Duration::from_secs(1), async |mut stage| {
            let half = GET.len() / 2;
            match before {
                "first" => {}
                "half" => {
                    stage.send(GET).await;
                    stage.answer().await;
                    stage.send(&GET[..half]).await;
                }
                _ => stage.send(GET).await,
            }
            settle().await;
            stage.stop.send_replace(true);
            settle().await;
            match before {
                "first" => stage.send(GET).await,
                "half" => stage.send(&GET[half..]).await,
                _ => {}
            }
            let answer = stage.rest().await;
            let want = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n0 bytes";
            assert_eq!(answer, want, "{before}");
            (&mut stage.serving).await.expect("no panic");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ended_from_here_has_a_moment_to_say_so() {
    for (wait_ms, answered) in [(100, true), (1_000, false)] {
        staged(Duration::from_millis(wait_ms), async |mut stage| {
            stage.send(GET).await;
            settle().await;
            stage.kill.end(crate::live::End::PeerExpired);
            let began = Instant::now();
            let rest = stage.rest().await;
            assert_eq!(rest.contains("connection: close"), answered, "{rest}");
            assert!(began.elapsed() <= PARTING + Duration::from_millis(2));
            (&mut stage.serving).await.expect("no panic");
            assert_eq!(stage.service.answered.get(), u32::from(answered));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_is_answered_in_order() {
    staged(Duration::from_millis(50), async |mut stage| {
        let mut all = Vec::new();
        for length in 1..=9 {
            let head = format!("POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: {length}\r\n\r\n");
            all.extend_from_slice(head.as_bytes());
            all.extend_from_slice(&vec![b'x'; length]);
        }
        all.extend_from_slice(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        stage.send(&all).await;
        let answers = stage.rest().await;
        let order: Vec<_> = answers
            .split(" bytes")
            .filter_map(|one| one.chars().last())
            .collect();
        assert_eq!(order.iter().collect::<String>(), "1234567890", "{answers}");
        assert_eq!(stage.service.asked.get(), 10, "nothing follows what closes");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_gives_up_what_it_asked_for() {
    for request in [GET, b"GET /chat HTTP/1.1\r\nupgrade: x\r\n\r\nearly"] {
        staged(Duration::from_secs(3), async |mut stage| {
            stage.send(request).await;
            sleep(Duration::from_secs(1)).await;
            stage.client.shutdown().await.expect("a connection");
            assert!(stage.end().await < Duration::from_millis(5));
            assert_eq!(
                (stage.service.asked.get(), stage.service.answered.get()),
                (1, 0)
            );
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn old_clients_keep_a_connection_if_they_ask_for_it() {
    staged(Duration::ZERO, async |mut stage| {
        stage
            .send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .await;
        let answer = stage.answer().await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("\r\nconnection: keep-alive\r\n"),
            "{answer}"
        );
        stage.send(b"GET / HTTP/1.0\r\n\r\n").await;
        let answer = stage.rest().await;
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn head_has_no_body_and_what_follows_is_the_next_answer() {
    staged(Duration::ZERO, async |mut stage| {
        stage.send(b"HEAD / HTTP/1.1\r\n\r\n").await;
        stage
            .send(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx")
            .await;
        let answers = stage.answer().await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(answers, format!("{head}{head}1 bytes"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_is_a_bad_gateway() {
    for (path, field) in [("/interim", "a: b"), ("/foreign", "upgrade: websocket")] {
        staged(Duration::ZERO, async |mut stage| {
            let asks = format!("GET {path} HTTP/1.1\r\nconnection: upgrade\r\n{field}\r\n\r\n");
            stage.send(asks.as_bytes()).await;
            let answer = stage.rest().await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        })
        .await;
    }
}

/// GW7, GW8.
#[tokio::test(start_paused = true)]
async fn early_bytes_are_held_until_an_upgrade_is_answered_and_then_are_what_the_answer_says() {
    let frame = b"\x81\x05hello\n";
    staged(Duration::from_secs(1), async |mut stage| {
        let upgrade = b"GET /chat HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stage.send(&[upgrade, &frame[..3]].concat()).await;
        settle().await;
        stage.send(&frame[3..]).await;
        let mut head = vec![0; "HTTP/1.1 101 Switching Protocols\r\n\r\n".len()];
        stage.client.read_exact(&mut head).await.expect("an answer");
        assert!(head.ends_with(b"Protocols\r\n\r\n"), "{head:?}");
        stage.send(b"GET / HTTP/1.1\n").await;
        settle().await;
        let mut stream = stage.service.switched.take().expect("a stream");
        let mut came = vec![0; frame.len() + 15];
        stream.read_exact(&mut came).await.expect("readable");
        assert_eq!(came, [&frame[..], b"GET / HTTP/1.1\n"].concat());
        stream.write_all(b"back").await.expect("room");
        drop(stream);
        assert_eq!(stage.rest().await, "back");
        (&mut stage.serving).await.expect("no panic");
        assert_eq!(
            (stage.service.asked.get(), stage.refused()),
            (1, Vec::new())
        );
    })
    .await;
    staged(Duration::from_secs(1), async |mut stage| {
        let upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stage.send(&[upgrade, GET, frame].concat()).await;
        let answers = stage.rest().await;
        let statuses: Vec<_> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answers[at + 9..at + 12])
            .collect();
        assert_eq!(statuses, ["200", "200", "400"], "{answers}");
        assert_eq!(stage.refused(), [(RequestRefusal::Line, None)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_early_is_held_within_a_bound() {
    let local = tokio::task::LocalSet::new();
    let play = async {
        let mut stage = Stage::new(Duration::from_secs(1), 1 << 20);
        stage
            .send(b"GET /chat HTTP/1.1\r\nupgrade: x\r\n\r\n")
            .await;
        stage.send(&vec![0; 500_000]).await;
        settle().await;
        let shared = stage.shared.upgrade().expect("served");
        let held = shared.wire().held();
        assert!(held <= 2 * crate::limits::HEAD_BYTES_MAX, "{held}");
    };
    local.run_until(play).await;
}
