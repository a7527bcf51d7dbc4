//! HTTP connections: one set of limits for every server and client that the proxy runs, and the drain.
//!
//! - [`http1`]: HTTP/1 of clients, without a library

pub(crate) mod http1;

use crate::answer::Answer;
use crate::body::Arriving;
use crate::core::Core;
use crate::limits;
use crate::live::{Kill, Slot};
use crate::mux;
use crate::state::{stopping, superseded};
use futures_util::future::Either;
use http::Request;
use http1::{Beside, WireRefusal};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Runs the tasks of HTTP/2 on the core where they arise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnThisCore;

impl<F: Future + 'static> Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        // Boxed first: the future of a request is large, and the runtime moves what it is given several times.
        let future = Box::pin(future);
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// `quiet`: time from the end of one exchange, or from accept, to the end of the next head.
    Http1 {
        quiet: Duration,
    },
    Http2 {
        streams_max: u32,
    },
    /// What proxies speak between them. `version`: of our identity that was shown when the connection was made.
    Mux {
        version: u64,
    },
}

/// Whoever answers the requests of one connection.
pub(crate) trait Service: 'static {
    /// Answers one request.
    fn answer(self: Rc<Self>, request: Request<Arriving>)
    -> impl Future<Output = Answer> + 'static;

    /// Told of the request, if any, that was refused as bytes and never became one. It is answered already.
    fn on_refused(&self, refusal: &WireRefusal);
}

/// Serves a connection until it ends, is ended through `kill`, or the proxy has drained it.
///
/// Not async itself: its future would have room for the stream beside that of the connection.
pub(crate) fn serve<'a, T, S>(
    io: T,
    speaks: Speaks,
    core: &'a Core,
    kill: &'a Kill,
    service: Rc<S>,
) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    // Boxed: a connection should not carry room for what it does not speak.
    let boxed: Pin<Box<dyn Future<Output = ()> + 'a>> = match speaks {
        Speaks::Mux { version } => Box::pin(mux(io, version, core, kill, service)),
        Speaks::Http1 { quiet } => {
            let stop = core.shared.watch_stopping();
            return Either::Left(http1::serve(io, quiet, Beside { stop, kill }, service));
        }
        Speaks::Http2 { streams_max } => Box::pin(http2(io, streams_max, core, kill, service)),
    };
    Either::Right(boxed)
}

async fn mux<T, S>(io: T, version: u64, core: &Core, kill: &Kill, service: Rc<S>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service,
{
    let shared = &core.shared;
    let mut watch = shared.watch_stopping();
    // With a newer SVID its clients make new connections, in order. When the root of the older one is dropped, there
    // is no request left that would have to be broken off.
    let leave = async {
        tokio::select! {
            () = stopping(&mut watch) => {}
            () = superseded(shared, version) => {}
        }
    };
    mux::server::serve(io, leave, kill, service).await;
}

async fn http2<T, S>(io: T, streams_max: u32, core: &Core, kill: &Kill, service: Rc<S>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let mut builder = hyper::server::conn::http2::Builder::new(OnThisCore);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(limits::H2_LOCAL_RESETS_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .keep_alive_interval(limits::H2_PING_EVERY)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT)
        .auto_date_header(false);
    let given_up = Rc::new(GivenUp::default());
    let each = given_up.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = service.clone().answer(request.map(Arriving::Http));
        let asking = Asking(Some(each.clone()));
        async move {
            let answer = answer.await;
            asking.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(io), service);
    let ended = drive(
        connection,
        core.shared.watch_stopping(),
        kill,
        |connection| connection.graceful_shutdown(),
    );
    // A library that breaks off HTTP/2 does so for the whole connection, and has said why to the log.
    tokio::pin!(ended);
    poll_fn(|cx| match given_up.too_often() {
        true => Poll::Ready(()),
        false => ended.as_mut().poll(cx).map(drop),
    })
    .await;
}

/// How many requests of one HTTP/2 connection its client gave up before they were answered, less those that it waited for.
///
/// The library counts only what is reset before it was looked at. A client that is a little slower would have an
/// application begin as many requests as it likes (rapid reset, CVE-2023-44487).
#[derive(Default)]
struct GivenUp(Cell<u32>);

impl GivenUp {
    fn too_often(&self) -> bool {
        self.0.get() > limits::H2_GIVEN_UP_MAX
    }
}

/// One request that is not answered yet.
struct Asking(Option<Rc<GivenUp>>);

impl Asking {
    fn answered(mut self) {
        if let Some(given_up) = self.0.take() {
            given_up.0.set(given_up.0.get().saturating_sub(1));
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(given_up) = self.0.take() {
            given_up.0.set(given_up.0.get().saturating_add(1));
            if given_up.0.get() == limits::H2_GIVEN_UP_MAX + 1 {
                tracing::warn!(
                    "an HTTP/2 client gives up what it asks for again and again: its connection ends"
                );
            }
        }
    }
}

/// An HTTP/2 client with the limits of this proxy.
pub(crate) fn h2_client() -> hyper::client::conn::http2::Builder<OnThisCore> {
    let mut builder = hyper::client::conn::http2::Builder::new(OnThisCore);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .max_frame_size(limits::H2_FRAME_BYTES)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .keep_alive_interval(limits::H2_PING_EVERY)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT);
    builder
}

/// Runs a connection of the library until it ends.
async fn drive<C>(
    connection: C,
    mut stop: watch::Receiver<bool>,
    kill: &Kill,
    shut_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut stop = pin!(stopping(&mut stop));
    let mut draining = false;
    let mut parting = None;
    let ended = poll_fn(|cx| {
        // Ended from here: streams have been told through their own switches, and get a moment to say so to the peer.
        if parting.is_none() && kill.poll(Slot::Head, cx).is_ready() {
            draining = true;
            shut_down(connection.as_mut());
            parting = Some(Box::pin(tokio::time::sleep(limits::PARTING)));
        }
        if parting
            .as_mut()
            .is_some_and(|over| over.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Ok(()));
        }
        if !draining && stop.as_mut().poll(cx).is_ready() {
            draining = true;
            shut_down(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    });
    let ended = ended.await;
    if let Err(error) = &ended {
        tracing::debug!(
            error = crate::app::root_cause(error),
            "an HTTP connection ended early"
        );
    }
    ended
}
