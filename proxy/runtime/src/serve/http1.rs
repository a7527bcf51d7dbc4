//! HTTP/1 connections of clients: served by the library while requests come, and held as nothing but a stream while none do.
//!
//! ```text
//! Served --no request for a moment--> Waiting --first bytes of the next--> Served
//! ```
//! The library keeps two buffers of 8 KiB and a request's room for each connection that it serves, some 20 KiB; most
//! connections of most clients wait. What waits is let go only between two requests, with nothing read of the next and
//! nothing unsent of the last ([`Link::is_at_rest`]), so that the library has no byte that would be lost with it.

use super::{Service, drive};
use crate::answer::Answer;
use crate::body::{Arriving, Body, BodyError};
use crate::guarded::{Guarded, Link, WireRefusal};
use crate::limits::{self, REST_CHECK_EVERY};
use crate::live::Kill;
use crate::roll::Roll;
use crate::state::stopping;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes read at once of what ends a wait: a usual request.
const FIRST_BYTES: usize = 2 * 1024;

/// What a connection is served beside.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) awake: &'a Awake,
    /// Whether the proxy stops.
    pub(super) stop: &'a watch::Receiver<bool>,
    pub(super) kill: &'a Kill,
}

/// Serves a connection until it ends.
pub(super) async fn serve<T, S>(mut io: T, quiet: Duration, beside: Beside<'_>, service: Rc<S>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let (mut first, mut head_by) = (BytesMut::new(), None);
    loop {
        // Boxed: it takes no room while the connection waits.
        let served = Box::pin(served((io, first), (quiet, head_by), beside, &service));
        let Some((stream, since)) = served.await else {
            return;
        };
        io = stream;
        let until = since + quiet;
        match wait(&mut io, until, beside).await {
            Some(bytes) => (first, head_by) = (bytes, Some(until)),
            None => {
                // Whoever reads nothing does not hold it up.
                let _gone = tokio::time::timeout(limits::PARTING, io.shutdown()).await;
                return;
            }
        }
    }
}

/// Serves a connection until it ends, or waits; the stream then, and since when at the latest.
async fn served<T, S>(
    (io, first): (T, BytesMut),
    (quiet, head_by): (Duration, Option<Instant>),
    beside: Beside<'_>,
    service: &Rc<S>,
) -> Option<(T, Instant)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let (io, link) = Guarded::new(io, first);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(quiet)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .auto_date_header(false);
    let requests = Rc::new(Requests::new(link, head_by));
    let numbered = Rc::new(Numbered {
        service: service.clone(),
        requests: requests.clone(),
        told: Cell::new(false),
    });
    let _awake = beside.awake.enter(requests.clone());
    let each = numbered.clone();
    let each = service_fn(move |request| each.clone().answer(request));
    let connection = builder.serve_connection(TokioIo::new(io), each);
    let mut connection = connection.with_upgrades();
    let ended = drive(
        &mut connection,
        beside.stop.clone(),
        beside.kill,
        |connection| Pin::new(&mut **connection.get_mut()).graceful_shutdown(),
        |cx| {
            numbered.tell();
            requests.next(cx)
        },
    );
    let ended = ended.await;
    numbered.tell();
    if let Some(refusal) = ended.err().as_ref().and_then(WireRefusal::by_library) {
        numbered.tell_of(&refusal);
    }
    if !requests.waits.get() {
        return None;
    }
    let parts = connection.into_parts()?;
    let (io, kept) = parts.io.into_inner().into_parts();
    // INVARIANT: at rest there is nothing; if anything ever were, a connection that ends is better than one that lost it.
    let nothing = parts.read_buf.is_empty() && kept.is_empty();
    let since = requests.since.get().unwrap_or_else(Instant::now);
    nothing.then_some((io, since))
}

/// Waits for the first bytes of a request; `None`: none will come, or none is wanted.
async fn wait<T: AsyncRead + Unpin>(
    io: &mut T,
    until: Instant,
    beside: Beside<'_>,
) -> Option<BytesMut> {
    let mut stop = beside.stop.clone();
    tokio::select! {
        biased;
        _ = beside.kill.ended() => None,
        () = stopping(&mut stop) => None,
        first = poll_fn(|cx| poll_first(io, cx)) => first,
        () = sleep_until(until) => None,
    }
}

fn poll_first<T: AsyncRead + Unpin>(io: &mut T, cx: &mut Context<'_>) -> Poll<Option<BytesMut>> {
    // On the stack: nothing is held while nothing has come.
    let mut space = [MaybeUninit::uninit(); FIRST_BYTES];
    let mut space = ReadBuf::uninit(&mut space);
    let read = ready!(Pin::new(io).poll_read(cx, &mut space));
    let came = read.is_ok() && !space.filled().is_empty();
    Poll::Ready(came.then(|| BytesMut::from(space.filled())))
}

/// What becomes of a connection that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It goes on.
    Stay,
    /// The library has done with it.
    End,
}

/// The requests of one connection, counted as the guard counts them, and whether they pause.
pub(crate) struct Requests {
    link: Arc<Link>,
    count: Cell<u64>,
    /// Of these, whose answer has not ended.
    open: Cell<u32>,
    /// Until when the first must have come; `None`: the library looks at that.
    head_by: Option<Instant>,
    /// How often the connection got on.
    turns: Cell<u64>,
    /// Of these, how often when it was last looked at.
    seen: Cell<u64>,
    /// When it was first seen to be there.
    since: Cell<Option<Instant>>,
    /// Whether it is to look whether it can wait.
    asked: Cell<bool>,
    /// Whether it does.
    waits: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Requests {
    fn new(link: Arc<Link>, head_by: Option<Instant>) -> Self {
        Self {
            link,
            count: Cell::new(0),
            open: Cell::new(0),
            head_by,
            turns: Cell::new(0),
            seen: Cell::new(0),
            since: Cell::new(None),
            asked: Cell::new(false),
            waits: Cell::new(false),
            task: RefCell::new(None),
        }
    }

    /// After each turn.
    fn next(&self, cx: &Context<'_>) -> Next {
        self.turns.set(self.turns.get() + 1);
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        if !self.asked.take() {
            Next::Stay
        } else if self.can_wait() {
            self.waits.set(true);
            Next::End
        } else if self.is_late() {
            Next::End
        } else {
            Next::Stay
        }
    }

    fn can_wait(&self) -> bool {
        let count = self.count.get();
        count > 0 && self.open.get() == 0 && self.link.is_at_rest(count)
    }

    fn is_late(&self) -> bool {
        self.count.get() == 0 && self.head_by.is_some_and(|by| by <= Instant::now())
    }

    /// Looks whether it got on since the last time; if not, and it could wait, it is told to. Called now and then.
    fn look(&self, now: Instant) {
        let turns = self.turns.get();
        let pauses = self.seen.replace(turns) == turns;
        if !pauses {
            self.since.set(Some(now));
        }
        if pauses && self.can_wait() || self.is_late() {
            self.asked.set(true);
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
    }
}

/// A request whose answer has not ended.
struct Open(Rc<Requests>);

impl Open {
    fn new(requests: Rc<Requests>) -> Self {
        requests.open.set(requests.open.get() + 1);
        Self(requests)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

/// Connections of one core that are served.
#[derive(Default)]
pub(crate) struct Awake {
    all: Roll<Rc<Requests>>,
    came: Notify,
}

impl Awake {
    fn enter(&self, requests: Rc<Requests>) -> crate::roll::Entered<Rc<Requests>> {
        self.came.notify_one();
        self.all.enter(requests)
    }

    /// Looks now and then which of them can wait, for as long as the core lives.
    pub(crate) async fn watch(&self) {
        loop {
            while self.all.all().is_empty() {
                self.came.notified().await;
            }
            sleep(REST_CHECK_EVERY).await;
            let now = Instant::now();
            let all = self.all.all();
            all.iter().for_each(|(_, requests)| requests.look(now));
        }
    }
}

/// Whoever answers the requests of one connection, and what they are counted by.
struct Numbered<S> {
    service: Rc<S>,
    requests: Rc<Requests>,
    /// Whether the service was told of a refusal. There is one at most.
    told: Cell<bool>,
}

impl<S: Service> Numbered<S> {
    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Tracked>, Infallible> {
        let requests = &self.requests;
        let number = requests.count.get() + 1;
        requests.count.set(number);
        let open = Open::new(requests.clone());
        let answer = match requests.link.stands_in(number) {
            Some(refusal) => refusal,
            None => {
                let request = request.map(Arriving::Http);
                self.service.clone().answer(request).await
            }
        };
        self.tell(); // before the client hears of it
        let answer: Answer = requests.link.answered(number, answer);
        Ok(answer.map(|body| Tracked { body, _open: open }))
    }

    /// Tells the service of a refusal by the guard.
    fn tell(&self) {
        if let Some(refusal) = self.requests.link.refusal() {
            self.tell_of(refusal);
        }
    }

    fn tell_of(&self, refusal: &WireRefusal) {
        if !self.told.replace(true) {
            self.service.on_refused(refusal);
        }
    }
}

/// The body of an answer, whose end is noted.
struct Tracked {
    body: Body,
    _open: Open,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
