//! Exchanges with an application that is played byte by byte: whole, early, cut off, ended from here.

use super::early::{Came, Early};
use super::*;
use crate::live::{End, Kill};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{LocalSet, spawn_local};

type Kept = Rc<RefCell<Vec<Box<Connection<DuplexStream>>>>>;

impl Home<DuplexStream> for Kept {
    fn take_back(&self, connection: Box<Connection<DuplexStream>>) {
        self.borrow_mut().push(connection);
    }
}

/// Runs a test with a connection, its far end, and a home.
fn with<F: Future<Output = ()> + 'static>(
    room: usize,
    test: impl FnOnce(Box<Connection<DuplexStream>>, DuplexStream, Kept) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (near, far) = duplex(room);
    let test = test(Connection::new(near), far, Kept::default());
    LocalSet::new().block_on(&runtime, test);
}

fn post(body: Body) -> Request<Body> {
    let request = Request::builder().method("POST").uri("/x");
    request.body(body).expect("a request")
}

/// A body that goes on for as long as something is sent to it.
fn streamed(kill: &Kill) -> (Sender<Came>, Body) {
    let (to, from) = channel(1);
    let body = Body::request(Arriving::Early(Early::new(from, None)), kill.clone());
    (to, body)
}

fn data(bytes: &'static [u8]) -> Came {
    Ok(Some(Frame::data(Bytes::from_static(bytes))))
}

/// Ends such a body.
async fn end(to: Sender<Came>) {
    to.send(Ok(None)).await.expect("still read");
}

/// Reads until what came ends so.
async fn read_until(far: &mut DuplexStream, end: &[u8]) -> Vec<u8> {
    let mut came = Vec::new();
    while !came.ends_with(end) {
        let shown = String::from_utf8_lossy(&came).into_owned();
        assert!(
            far.read_buf(&mut came).await.expect("readable") > 0,
            "{shown}"
        );
    }
    came
}

async fn whole(body: Arriving) -> Result<Vec<u8>, BodyError> {
    Ok(body.collect().await?.to_bytes().to_vec())
}

#[test]
fn an_exchange_leaves_its_connection_for_the_next_one() {
    with(4096, |mut connection, mut far, kept| async move {
        for (answer, body) in [
            (
                &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
                &b"ok"[..],
            ),
            (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                b"ok",
            ),
        ] {
            let asked = connection.exchange(post(Body::text("hi")), kept.clone());
            let answered = async {
                let came = read_until(&mut far, b"hi").await;
                far.write_all(answer).await.expect("room");
                came
            };
            let (answered, came) = tokio::join!(asked, answered);
            assert_eq!(came, b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi");
            let response = answered
                .map_err(|why| why.to_string())
                .expect("an answer")
                .response;
            assert_eq!(whole(response.into_body()).await.expect("whole"), body);
            connection = kept.borrow_mut().pop().expect("it came home");
            assert_eq!(
                (connection.input.bytes.capacity(), connection.out.is_empty()),
                (0, true)
            );
        }
    });
}

/// H1-12, H1-13.
#[test]
fn a_connection_on_which_anything_is_left_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!"[..],
        b"HTTP/1.1 204 No Content\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ] {
        with(4096, move |connection, mut far, kept| async move {
            far.write_all(answer).await.expect("room");
            let request = post(Body::Empty);
            let answered = connection.exchange(request, kept.clone()).await;
            let response = answered
                .map_err(|why| why.to_string())
                .expect("an answer")
                .response;
            whole(response.into_body()).await.expect("whole");
            assert!(
                kept.borrow().is_empty(),
                "{}",
                String::from_utf8_lossy(answer)
            );
        });
    }
    // What comes later is seen before the next request.
    with(4096, |mut connection, mut far, _| async move {
        let quiet = async |connection: &mut Connection<DuplexStream>| {
            poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await
        };
        assert!(quiet(&mut connection).await);
        far.write_all(b"H").await.expect("room");
        assert!(!quiet(&mut connection).await);
    });
}

#[test]
fn an_answer_that_is_cut_off_or_malformed_is_an_error_and_never_whole() {
    for (answer, head) in [
        (&b""[..], false),
        (b"HTTP/1.1 200 OK\r\n", false),
        (b"HTTP/1.1 200 OK\n\n", false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", true),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nx",
            true,
        ),
    ] {
        with(4096, move |connection, mut far, kept| async move {
            far.write_all(answer).await.expect("room");
            far.shutdown().await.expect("open");
            match connection.exchange(post(Body::Empty), kept.clone()).await {
                Ok(answered) => {
                    let body = whole(answered.response.into_body()).await;
                    assert!(head && body.is_err(), "{answer:?}: {body:?}");
                }
                Err(why) => assert!(!head, "{answer:?}: {why}"),
            }
            assert!(kept.borrow().is_empty());
        });
    }
}

/// H1-12: neither waits for the other, and the connection is used again only if all was sent when all was said.
#[test]
fn an_answer_may_begin_before_its_request_has_ended() {
    with(64, |connection, mut far, kept| async move {
        let (to, body) = streamed(&Kill::default());
        to.send(data(b"one")).await.expect("room");
        let asked = connection.exchange(post(body), kept.clone());
        let server = spawn_local(async move {
            read_until(&mut far, b"3\r\none\r\n").await;
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
            far.write_all(head).await.expect("room");
            // A thousand times what the connection holds, with nobody reading the answer.
            read_until(&mut far, b"0\r\n\r\n").await;
            far.write_all(b"0\r\n\r\n").await.expect("room");
            far
        });
        let response = asked
            .await
            .map_err(|why| why.to_string())
            .expect("an answer")
            .response;
        for _ in 0..1000 {
            to.send(data(&[b'x'; 64]))
                .await
                .expect("read though the answer is not");
        }
        end(to).await;
        drop(server.await.expect("the server"));
        assert_eq!(whole(response.into_body()).await.expect("whole"), b"ok");
        tokio::task::yield_now().await;
        assert_eq!(kept.borrow().len(), 1);
    });
    with(4096, |connection, mut far, kept| async move {
        let (to, body) = streamed(&Kill::default());
        far.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
            .await
            .expect("room");
        let answered = connection.exchange(post(body), kept.clone()).await;
        let response = answered
            .map_err(|why| why.to_string())
            .expect("an answer")
            .response;
        assert_eq!(whole(response.into_body()).await.expect("whole"), b"no");
        to.send(data(b"late")).await.expect("still read");
        read_until(&mut far, b"4\r\nlate\r\n").await;
        end(to).await;
        read_until(&mut far, b"0\r\n\r\n").await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("closed");
        assert!(kept.borrow().is_empty());
    });
}

#[test]
fn an_answer_is_heard_though_its_request_could_not_all_be_sent() {
    with(64, |connection, far, kept| async move {
        let (mut reader, mut writer) = tokio::io::split(far);
        let (_to, body) = streamed(&Kill::default());
        writer
            .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("room");
        let mut some = [0; 8];
        let asked = connection.exchange(post(body), kept.clone());
        let (answered, _) = tokio::join!(asked, reader.read_exact(&mut some));
        let answered = answered.map_err(|why| why.to_string()).expect("an answer");
        assert_eq!(answered.response.status(), 413);
        drop((reader, writer));
        drop(answered);
        assert!(kept.borrow().is_empty());
    });
}

#[test]
fn a_request_body_that_breaks_off_breaks_off_the_request() {
    for answered_before in [false, true] {
        with(4096, move |connection, mut far, kept| async move {
            let kill = Kill::default();
            let (to, body) = streamed(&kill);
            to.send(data(b"one")).await.expect("room");
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab";
            if answered_before {
                far.write_all(head).await.expect("room");
            }
            let asked = connection.exchange(post(body), kept.clone());
            let end = async {
                read_until(&mut far, b"one\r\n").await;
                kill.end(End::Revoked);
            };
            let (answered, ()) = tokio::join!(asked, end);
            match answered {
                Ok(answered) => {
                    let body = whole(answered.response.into_body()).await;
                    assert!(answered_before && body.is_err(), "{body:?}");
                }
                Err(why) => assert!(
                    !answered_before && matches!(why, Fault::Body(BodyError::Ended(End::Revoked))),
                    "{why}"
                ),
            }
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.expect("closed");
            assert!(
                rest.is_empty() && kept.borrow().is_empty(),
                "no end was said: {rest:?}"
            );
        });
    }
}

#[test]
fn an_application_that_does_not_read_keeps_nothing_alive() {
    with(64, |connection, far, kept| async move {
        let _far = far;
        let kill = Kill::default();
        let (to, body) = streamed(&kill);
        to.send(data(&[b'x'; 9000])).await.expect("room");
        let asked = spawn_local(connection.exchange(post(body), kept));
        tokio::task::yield_now().await;
        kill.end(End::Revoked);
        let fault = asked.await.expect("no panic").map(drop).expect_err("ended");
        assert!(
            matches!(fault, Fault::Body(BodyError::Ended(End::Revoked))),
            "{fault}"
        );
    });
}

#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_broken_off() {
    for sent in [&b"abc"[..], b"abcdefgh"] {
        with(4096, move |connection, mut far, kept| async move {
            let (to, body) = streamed(&Kill::default());
            let request = Request::builder()
                .method("POST")
                .uri("/x")
                .header("content-length", 5);
            to.send(data(sent)).await.expect("room");
            spawn_local(async move { to.send(Ok(None)).await.is_ok() });
            let request = request.body(body).expect("a request");
            let fault = connection
                .exchange(request, kept)
                .await
                .map(drop)
                .expect_err("wrong");
            assert!(matches!(fault, Fault::Length(_)), "{fault}");
            let mut came = Vec::new();
            far.read_to_end(&mut came).await.expect("closed");
            assert!(!came.ends_with(b"fgh"), "{came:?}");
        });
    }
}

#[test]
fn after_a_101_bytes_are_bytes_from_the_first_on() {
    with(4096, |connection, mut far, kept| async move {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\nfirst";
        far.write_all(answer).await.expect("room");
        let answered = connection.exchange(post(Body::Empty), kept.clone()).await;
        let answered = answered.map_err(|why| why.to_string()).expect("an answer");
        let mut stream = answered.switched.expect("a stream");
        far.write_all(b" second").await.expect("room");
        drop(far);
        let mut came = String::new();
        stream.read_to_string(&mut came).await.expect("readable");
        assert_eq!((came.as_str(), kept.borrow().len()), ("first second", 0));
    });
}

#[test]
fn large_bodies_arrive_as_they_were_sent_both_ways() {
    with(1000, |connection, far, kept| async move {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n / 7) as u8).collect();
        let (mut reader, mut writer) = tokio::io::split(far);
        let upward = spawn_local(async move {
            let mut came = Vec::new();
            reader.read_to_end(&mut came).await.expect("readable");
            came
        });
        let back = sent.clone();
        spawn_local(async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", back.len());
            writer
                .write_all(&[head.as_bytes(), &back].concat())
                .await
                .expect("room");
        });
        let answered = connection
            .exchange(post(Body::text(sent.clone())), kept.clone())
            .await;
        let response = answered
            .map_err(|why| why.to_string())
            .expect("an answer")
            .response;
        assert!(whole(response.into_body()).await.expect("whole") == sent);
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        kept.borrow_mut().clear();
        let came = upward.await.expect("no panic");
        assert!(came.ends_with(&sent), "{} bytes", came.len());
    });
}
