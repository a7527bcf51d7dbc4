//! Requests over a connection in memory: what arrives, what is held up, and who learns of an end.

use super::client::{SendError, Sender, connect};
use super::server::serve;
use crate::answer::Answer;
use crate::body::{Arriving, Body, Held};
use crate::limits::{H2_PING_EVERY, PARTING};
use crate::live::{End, Kill};
use crate::serve::Service;
use crate::serve::http1::WireRefusal;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::cell::Cell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

/// Answers with what it gets; `/slow` never, `/denied` with a refusal.
#[derive(Default)]
struct Echo {
    under_way: Rc<Cell<usize>>,
}

struct UnderWay(Rc<Cell<usize>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Service for Echo {
    fn answer(
        self: Rc<Self>,
        request: Request<Arriving>,
    ) -> impl Future<Output = Answer> + 'static {
        self.under_way.set(self.under_way.get() + 1);
        let under_way = UnderWay(self.under_way.clone());
        async move {
            let _under_way = under_way;
            match request.uri().path() {
                "/slow" => pending::<()>().await,
                "/denied" => {
                    let mut response = Response::new(Body::text("a text of ours"));
                    *response.status_mut() = http::StatusCode::FORBIDDEN;
                    return response;
                }
                _ => {}
            }
            let mut response = Response::new(Body::response(
                request.into_body(),
                Kill::default(),
                false,
                Held::default(),
            ));
            response
                .headers_mut()
                .insert("x-echo", "yes".parse().unwrap());
            response
        }
    }

    fn on_refused(&self, _: &WireRefusal) {}
}

/// A client and a server that echoes.
struct Stage {
    sender: Sender,
    under_way: Rc<Cell<usize>>,
    stop: oneshot::Sender<()>,
    kill: Kill,
    client: JoinHandle<Result<(), super::CarryError>>,
    server: JoinHandle<()>,
}

impl Stage {
    fn new() -> Self {
        let (near, far) = duplex(64 * 1024);
        let (sender, client) = connect(near);
        let (stop, stopped) = oneshot::channel();
        let kill = Kill::default();
        let echo = Rc::new(Echo::default());
        let under_way = echo.under_way.clone();
        let killed = kill.clone();
        let server = spawn_local(async move {
            let stop = async { drop(stopped.await) };
            serve(far, stop, &killed, echo).await;
        });
        Self {
            sender,
            under_way,
            stop,
            kill,
            client: spawn_local(client),
            server,
        }
    }

    async fn until(&self, streams: usize) {
        while self.under_way.get() != streams {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::Empty).unwrap()
}

fn post(bytes: impl Into<Bytes>) -> Request<Body> {
    Request::post("/").body(Body::text(bytes)).unwrap()
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

async fn sent(sender: &Sender, request: Request<Body>) -> Response<super::body::MuxBody> {
    match sender.send(request).await {
        Ok(response) => response,
        Err(_) => panic!("no response"),
    }
}

async fn bytes(response: Response<super::body::MuxBody>) -> Result<Bytes, ()> {
    let body = Body::response(
        response.into_body(),
        Kill::default(),
        false,
        Held::default(),
    );
    body.collect().await.map(|all| all.to_bytes()).map_err(drop)
}

#[tokio::test]
async fn bodies_larger_than_every_window_come_back_whole() {
    run(async {
        let stage = Stage::new();
        let large: Bytes = (0..9_000_000_u32)
            .map(|n| (n / 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let (one, two, empty) = tokio::join!(
            async { bytes(sent(&stage.sender, post(large.clone())).await).await },
            async { bytes(sent(&stage.sender, post(large.clone())).await).await },
            async { sent(&stage.sender, get("/")).await },
        );
        assert!(one == Ok(large.clone()) && two == Ok(large));
        assert_eq!(empty.headers()["x-echo"], "yes");
        assert!(http_body::Body::is_end_stream(&Body::response(
            empty.into_body(),
            Kill::default(),
            false,
            Held::default()
        )));
    })
    .await;
}

#[tokio::test]
async fn a_response_that_nobody_reads_holds_up_nobody_else() {
    run(async {
        let stage = Stage::new();
        let unread = sent(&stage.sender, post(vec![1; 5_000_000])).await;
        for _ in 0..100 {
            assert_eq!(
                bytes(sent(&stage.sender, post("x")).await).await,
                Ok("x".into())
            );
        }
        drop(unread);
        stage.until(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body() {
    run(async {
        let stage = Stage::new();
        for (method, text) in [("HEAD", ""), ("GET", "a text of ours")] {
            let request = Request::builder().method(method).uri("/denied");
            let response = sent(&stage.sender, request.body(Body::Empty).unwrap()).await;
            assert_eq!(response.status(), 403);
            assert_eq!(bytes(response).await, Ok(text.into()), "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_that_never_began_leaves_nobody_waiting() {
    run(async {
        let (near, far) = duplex(1024);
        let (sender, client) = connect(near);
        drop(client);
        assert!(sender.is_closed());
        assert!(matches!(
            sender.send(get("/")).await,
            Err(SendError::Unsent(_))
        ));
        drop(far);
    })
    .await;
}

#[tokio::test]
async fn what_is_ended_from_here_does_not_wait_for_a_reader() {
    run(async {
        let (source, stage) = (Stage::new(), Stage::new());
        let large = sent(&source.sender, post(vec![3; 9_000_000])).await;
        let kill = Kill::default();
        let body = Body::request(Arriving::from(large.into_body()), kill.clone());
        // The response is not read, so that the request is held up once all windows are full.
        let response = sent(&stage.sender, Request::post("/").body(body).unwrap()).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(source.sender.streams(), 1, "held up");
        kill.end(End::Revoked);
        // The source is let go of, though nothing more was read.
        let gone = async {
            while source.sender.streams() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.unwrap();
        assert!(
            timeout(Duration::from_secs(5), bytes(response))
                .await
                .unwrap()
                .is_err()
        );
    })
    .await;
}

#[tokio::test]
async fn who_drops_a_response_lets_go_of_its_request() {
    run(async {
        let (source, stage) = (Stage::new(), Stage::new());
        let large = sent(&source.sender, post(vec![3; 9_000_000])).await;
        let body = Body::request(Arriving::from(large.into_body()), Kill::default());
        let response = sent(&stage.sender, Request::post("/").body(body).unwrap()).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(source.sender.streams(), 1, "held up");
        drop(response);
        let gone = async {
            while source.sender.streams() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_asks_and_goes_ends_what_was_asked() {
    run(async {
        let stage = Stage::new();
        let asked = stage.sender.send(get("/slow"));
        assert!(timeout(Duration::from_millis(20), asked).await.is_err());
        stage.until(0).await;
        assert_eq!(
            bytes(sent(&stage.sender, post("still")).await).await,
            Ok("still".into())
        );
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_lost_breaks_what_runs_and_gives_back_what_does_not() {
    run(async {
        let stage = Stage::new();
        let sender = stage.sender.clone();
        let running = spawn_local(async move { sender.send(get("/slow")).await });
        stage.until(1).await;
        stage.server.abort();
        assert!(matches!(running.await.unwrap(), Err(SendError::Broke)));
        assert!(
            stage.client.await.unwrap().is_err(),
            "the end was not in order"
        );
        assert!(stage.sender.is_closed());
        let unsent = stage.sender.send(get("/again")).await;
        assert!(matches!(unsent, Err(SendError::Unsent(request)) if request.uri() == "/again"));
        assert_eq!(stage.under_way.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_was_asked() {
    run(async {
        let stage = Stage::new();
        let (sender, body) = (stage.sender.clone(), vec![2; 3_000_000]);
        let response = sent(&sender, post(body.clone())).await;
        stage.stop.send(()).unwrap();
        while !stage.sender.is_closed() {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(matches!(
            sender.send(get("/")).await,
            Err(SendError::Unsent(_))
        ));
        assert!(!stage.server.is_finished());
        assert_eq!(bytes(response).await, Ok(body.into()));
        timeout(Duration::from_secs(5), stage.server)
            .await
            .unwrap()
            .unwrap();
        stage.client.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_end_from_here_waits_for_nobody() {
    run(async {
        let stage = Stage::new();
        let sender = stage.sender.clone();
        let running = spawn_local(async move { sender.send(get("/slow")).await });
        stage.until(1).await;
        stage.kill.end(End::Revoked);
        timeout(PARTING * 4, stage.server).await.unwrap().unwrap();
        assert!(matches!(running.await.unwrap(), Err(SendError::Broke)));
        assert_eq!(stage.under_way.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_nobody_asks_on_any_more_ends() {
    run(async {
        let stage = Stage::new();
        let response = sent(&stage.sender, post("last")).await;
        drop(stage.sender);
        assert_eq!(bytes(response).await, Ok("last".into()));
        stage.client.await.unwrap().unwrap();
        stage.server.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_then_left() {
    run(async {
        let (near, mut far) = duplex(1024);
        let (sender, client) = connect(near);
        let client = spawn_local(client);
        let begun = tokio::time::Instant::now();
        let running = spawn_local(async move { sender.send(get("/")).await });
        let mut heard = Vec::new();
        let silent = async {
            let _ended = far.read_to_end(&mut heard).await;
        };
        silent.await;
        assert!(matches!(running.await.unwrap(), Err(SendError::Broke)));
        assert!(matches!(
            client.await.unwrap(),
            Err(super::CarryError::Silent)
        ));
        let waited = begun.elapsed();
        assert!(
            waited >= H2_PING_EVERY * 2 && waited <= H2_PING_EVERY * 3,
            "{waited:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_speaks_otherwise_is_left() {
    run(async {
        use tokio::io::AsyncWriteExt;
        let (near, mut far): (DuplexStream, DuplexStream) = duplex(1024);
        let server = spawn_local(async move {
            serve(near, pending(), &Kill::default(), Rc::new(Echo::default())).await;
        });
        far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        server.await.unwrap();
    })
    .await;
}
