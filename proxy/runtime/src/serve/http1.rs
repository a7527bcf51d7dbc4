//! HTTP/1 connections of clients: the IO around [`mesh_proxy_core::http1`].
//!
//! ```text
//! Waiting --head--> Answering --answer--> Sending --all of it--> Waiting
//!                                                 --it closes--> closed, after a moment of reading on
//! ```
//! One task serves a connection, and none a request: it reads a head, polls whoever answers it, and writes the answer. What
//! is pipelined waits, unread, until it is its turn, so answers go out in order. The body of a request is read by whoever
//! is given it ([`wire`]), as it is asked for. A connection that waits holds its stream and no buffer.
//!
//! A request that is refused as bytes is answered in its turn, and closes its connection; one whose body goes wrong after
//! it went on is broken off, and answered with the refusal if no answer has begun. A client that leaves is noticed while it
//! is owed an answer, and what it asked for is given up.

mod wire;

use super::Service;
use crate::answer::{Answer, closing, refused};
use crate::body::{Arriving, Body, BodyError};
use crate::http1::Whole;
use crate::io::{Duplex, Prefixed};
use crate::limits::{HTTP1_OUT_BYTES, PARTING};
use crate::live::{Kill, Slot};
use crate::state::stopping;
use http::header::CONNECTION;
use http::{Method, Request, StatusCode, Version};
use http_body::Body as HttpBody;
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::http_hygiene::{Refusal, RequestRefusal};
use mesh_proxy_core::http1::answer::{Asked, put_head};
use mesh_proxy_core::http1::reader::{BodyLength, BodyPart, Head};
use mesh_proxy_core::http1::writer::BodyWriter;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
pub(crate) use wire::Lost;
use wire::{Ask, Shared};

/// The connection of a request as a byte stream, once its `101` is sent.
pub(crate) type OnSwitch = oneshot::Receiver<Box<dyn Duplex>>;

/// A request that was refused as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireRefusal {
    pub(crate) why: RequestRefusal,
    /// Method and target as they came, if they can be read.
    pub(crate) request: Option<RecordRequest>,
    /// Whether its head had gone on.
    begun: bool,
}

impl WireRefusal {
    /// Whether its head had gone on, so that it is answered, and accounted for, as a request too.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }
}

/// What a connection is served beside.
pub(super) struct Beside<'a> {
    /// Whether the proxy stops.
    pub(super) stop: watch::Receiver<bool>,
    pub(super) kill: &'a Kill,
}

/// Serves a connection until it ends. `quiet`: time from the end of one exchange, or from now, to the end of the next head.
pub(super) fn serve<T, S>(
    io: T,
    quiet: Duration,
    beside: Beside<'_>,
    service: Rc<S>,
) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    serve_shared(Shared::new(io), quiet, beside, service)
}

/// Not async, as little as who calls it: a future that awaits another has room for what it was given twice.
fn serve_shared<T, S>(
    shared: Rc<Shared<T>>,
    quiet: Duration,
    beside: Beside<'_>,
    service: Rc<S>,
) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    let serving = Serving {
        shared,
        beside,
        service,
        parting: None,
        stopping: false,
    };
    serving.run(quiet)
}

/// What comes where a head is waited for.
#[expect(
    clippy::large_enum_variant,
    reason = "it is mostly a head, and never kept"
)]
enum Came {
    Head(Head),
    /// A request that is refused for its bytes.
    Refused,
    /// Nothing, and nothing is wanted or will come.
    Nothing,
}

/// An answer whose head is ready for writing.
struct Begun {
    sending: Option<Sending>,
    /// Whether the connection ends with it.
    closes: bool,
    /// Whether more may be coming then.
    lingers: bool,
    switches: bool,
}

/// The part of an answer that is not ready for writing.
struct Sending {
    body: Body,
    writer: BodyWriter,
}

struct Serving<'a, T, S> {
    shared: Rc<Shared<T>>,
    beside: Beside<'a>,
    service: Rc<S>,
    /// Until when a connection that was ended from here may tell its client.
    parting: Option<Pin<Box<Sleep>>>,
    /// Whether the proxy was seen to stop.
    stopping: bool,
}

impl<T, S> Serving<'_, T, S>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service,
{
    async fn run(mut self, quiet: Duration) {
        let mut receiver = self.beside.stop.clone();
        let mut stop = pin!(stopping(&mut receiver));
        // Set anew only when it has run out: what it waits for moves with each request.
        let mut clock = pin!(sleep_until(Instant::now() + quiet));
        let mut again = false;
        loop {
            let until = Instant::now() + quiet;
            let came = poll_fn(|cx| {
                let came = self.poll_head(cx);
                if came.is_ready() || !self.poll_no_more(again, until, &mut stop, &mut clock, cx) {
                    return came;
                }
                Poll::Ready(Came::Nothing)
            });
            // Nothing of what came is kept: a connection has room for all that lives while it waits for something.
            let (asked, switch, answering) = match came.await {
                Came::Nothing => break,
                Came::Refused => {
                    self.shared.begin_request();
                    (NOTHING_ASKED, None, None)
                }
                Came::Head(head) => {
                    let asked = asked(&head);
                    let (request, switch) = self.request(head);
                    let answering = Box::pin(self.service.clone().answer(request));
                    (asked, switch, Some(answering))
                }
            };
            let answer = match answering {
                None => None,
                Some(mut answering) => {
                    match poll_fn(|cx| self.poll_answer(answering.as_mut(), cx)).await {
                        None => return self.break_off(),
                        answer => answer,
                    }
                }
            };
            let asked = Asked {
                // A switch whose stream nobody takes is none: to a protocol that was not asked for, say.
                may_switch: switch.as_ref().is_some_and(|to| !to.is_closed()),
                ..asked
            };
            let mut begun = self.begin(asked, answer);
            if !poll_fn(|cx| self.poll_send(&mut begun.sending, cx)).await {
                return self.break_off();
            }
            if begun.switches {
                return self.switch(switch);
            }
            if begun.closes {
                return self.close(begun.lingers).await;
            }
            if !poll_fn(|cx| self.poll_rest(cx)).await {
                return self.close(true).await;
            }
            again = true;
        }
        // Whoever reads nothing does not hold it up.
        let _closed = timeout(PARTING, self.shut_down()).await;
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        if self.beside.kill.poll(Slot::Head, cx).is_ready() {
            return Poll::Ready(Came::Nothing);
        }
        self.shared.wire().poll_head(cx).map(|head| match head {
            Ok(Some(head)) => Came::Head(head),
            Ok(None) => Came::Nothing,
            Err(_) => Came::Refused,
        })
    }

    /// Whether no head is waited for any longer. `again`: it would not be the first one.
    fn poll_no_more(
        &mut self,
        again: bool,
        until: Instant,
        stop: &mut Pin<&mut impl Future<Output = ()>>,
        clock: &mut Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> bool {
        self.stopping = self.stopping || stop.as_mut().poll(cx).is_ready();
        // What has begun to ask is answered.
        if self.stopping && again && self.shared.wire().has_read_nothing() {
            return true;
        }
        while clock.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return true;
            }
            clock.as_mut().reset(until);
        }
        false
    }

    /// The request of a head, with its body; where its connection goes if it switches.
    fn request(
        &mut self,
        head: Head,
    ) -> (Request<Arriving>, Option<oneshot::Sender<Box<dyn Duplex>>>) {
        self.shared.begin_request();
        let (body, switch) = match head.length {
            BodyLength::Known(0) if head.may_switch => {
                let (to, from) = oneshot::channel();
                (Arriving::Switching(from), Some(to))
            }
            BodyLength::Known(0) => (Arriving::Nothing, None),
            BodyLength::Known(length) => (self.body(Some(length), head.expects), None),
            BodyLength::Chunked => (self.body(None, head.expects), None),
        };
        (Request::from_parts(head.parts, body), switch)
    }

    fn body(&mut self, length: Option<u64>, expects: bool) -> Arriving {
        if let Some(length) = length {
            let mut wire = self.shared.wire();
            if let Some(BodyPart::Data(data)) = wire.take_whole(length) {
                return Arriving::Whole(Whole::promised(data));
            }
        }
        Arriving::Pulled(Box::new(Ask::new(&self.shared, length.is_some(), expects)))
    }

    /// The answer; `None`: nobody waits for it any more.
    fn poll_answer(
        &mut self,
        answering: Pin<&mut impl Future<Output = Answer>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Answer>> {
        match answering.poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.poll_gone(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the client is gone, or its time is over, while it is owed an answer.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_over(cx) || self.shared.poll_gone(cx)
    }

    /// Whether the time of a connection that was ended from here is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        // Ended from here: requests have been told through their own switches, and get a moment to say so to the client.
        if self.parting.is_none() && self.beside.kill.poll(Slot::Head, cx).is_ready() {
            self.parting = Some(Box::pin(sleep(PARTING)));
        }
        let over = |over: &mut Pin<Box<Sleep>>| over.as_mut().poll(cx).is_ready();
        self.parting.as_mut().is_some_and(over)
    }

    /// Makes the head of an answer ready; `None`: of what refuses the request.
    fn begin(&mut self, asked: Asked, answer: Option<Answer>) -> Begun {
        // Who was not told to send the body may send the next request in its place.
        let waited_for = self.shared.wire().is_waited_for();
        let unread = waited_for || !self.shared.has_read_all();
        // Before the client hears of it. Its body may have been refused meanwhile: whatever became of the part that had
        // gone on is no answer to the whole.
        let refusal = self.tell();
        let lingers = refusal.is_some();
        let bad_gateway = || refused(&Refusal::BAD_GATEWAY, false);
        let answer = match refusal {
            Some(why) => closing(refused(&Refusal::from(why), false)),
            None => answer.unwrap_or_else(bad_gateway),
        };
        let closes = unread || lingers || self.is_ending();
        let mut begun = self.try_begin(asked, answer, closes).unwrap_or_else(|| {
            let answer = closing(bad_gateway());
            let begun = self.try_begin(asked, answer, true);
            begun.unwrap_or(Begun::NOTHING)
        });
        begun.lingers |= unread || lingers;
        begun
    }

    /// `None`: it cannot be sent as it is.
    fn try_begin(&mut self, asked: Asked, answer: Answer, closes: bool) -> Option<Begun> {
        let (parts, body) = answer.into_parts();
        let empty = body.is_end_stream();
        let length = if empty {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let mut wire = self.shared.wire();
        let head = match put_head(wire.begin_answer(), &parts, asked, length, closes) {
            Ok(head) => head,
            Err(why) => {
                tracing::warn!(%why, "an answer is not sent");
                return None;
            }
        };
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        if !switches {
            wire.resume();
        }
        drop(wire);
        let writer = head.body;
        // Of a body of chunks that is empty there is still the end.
        let sending = (!writer.is_done()).then_some(Sending { body, writer });
        Some(Begun {
            sending,
            closes: head.closes,
            lingers: parts.status.is_client_error() && parts.headers.contains_key(CONNECTION),
            switches,
        })
    }

    fn is_ending(&self) -> bool {
        self.stopping || self.parting.is_some() || *self.beside.stop.borrow()
    }

    /// Sends on; `true` once all is sent, `false` if it breaks off.
    fn poll_send(&mut self, sending: &mut Option<Sending>, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let waits = match self.make_ready(sending, cx) {
                Ok(waits) => waits,
                Err(error) => {
                    tracing::debug!(%error, "an answer breaks off");
                    // What there is of it may still go out, but no end.
                    let _written = self.shared.wire().poll_write(cx);
                    return Poll::Ready(false);
                }
            };
            let written = self.shared.wire().poll_write(cx);
            match written {
                Poll::Ready(Ok(())) if sending.is_none() => return Poll::Ready(true),
                Poll::Ready(Ok(())) if waits => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                // Who does not read must not keep alive what policy has ended.
                Poll::Pending => {
                    let body = sending.as_ref().map(|sending| &sending.body);
                    if body.is_some_and(|body| body.poll_ended(cx).is_ready()) {
                        return Poll::Ready(false);
                    }
                    break;
                }
            }
        }
        // A request that is refused while it is answered has no whole answer.
        let refused = self.shared.wire().has_refusal();
        if refused || self.poll_gone(cx) {
            return Poll::Ready(false);
        }
        Poll::Pending
    }

    /// Makes ready for writing what there is of the body; `true`: more of it must come first.
    fn make_ready(
        &mut self,
        sending: &mut Option<Sending>,
        cx: &mut Context<'_>,
    ) -> Result<bool, BodyError> {
        while let Some(Sending { body, writer }) = sending {
            if !self.shared.wire().out.has_room(HTTP1_OUT_BYTES) {
                return Ok(false);
            }
            // The body may itself read from this connection: it is not held meanwhile.
            let ended = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending if writer.is_done() => {
                    // All that was promised is there. Its end may still come, and nobody waits for it here.
                    if let Some(Sending { body, .. }) = sending.take() {
                        spawn_local(body.part());
                    }
                    return Ok(false);
                }
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        let put = self.shared.wire().out.put(writer, data);
                        put.map_err(|_| BodyError::Peer)?;
                    }
                    let all = writer.is_done() || body.is_end_stream();
                    all && self.shared.wire().out.has_room(usize::MAX)
                }
                Poll::Ready(None) => true,
            };
            if ended {
                let end = self.shared.wire().out.end(writer);
                end.map_err(|_| BodyError::Peer)?;
                *sending = None;
            }
        }
        Ok(false)
    }

    /// Waits until all of the request was read; `false`: it never will be.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.shared.wire().is_refused() {
            return Poll::Ready(false);
        }
        if !self.shared.is_asked() {
            return Poll::Ready(self.shared.has_read_all());
        }
        match self.poll_gone(cx) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    }

    fn switch(self, to: Option<oneshot::Sender<Box<dyn Duplex>>>) {
        if let (Some(to), Some((io, early))) = (to, Shared::into_parts(self.shared)) {
            // Nobody may want it any more: it is closed then.
            drop(to.send(Box::new(Prefixed::new(early, io))));
        }
    }

    /// Tells the service of a request that was refused as bytes.
    fn tell(&self) -> Option<RequestRefusal> {
        let refusal = self.shared.wire().take_refusal()?;
        self.service.on_refused(&refusal);
        Some(refusal.why)
    }

    fn break_off(&self) {
        self.tell();
        tracing::debug!("an HTTP connection ended early");
    }

    async fn shut_down(&mut self) {
        poll_fn(|cx| {
            let closed = self.poll_over(cx) || self.shared.wire().poll_shutdown(cx).is_ready();
            if closed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Closes the connection. What is still coming is read for a moment: a socket that is closed with bytes unread resets
    /// the connection, and the answer may be lost with it.
    async fn close(mut self, lingers: bool) {
        self.shut_down().await;
        let whole = poll_fn(|cx| self.poll_rest(cx)).await;
        self.tell();
        if lingers || !whole {
            let rest = poll_fn(|cx| self.shared.wire().poll_drop(cx));
            // Whoever goes on sending is not waited for.
            let _over = timeout(PARTING, rest).await;
        }
    }
}

/// Where nobody has asked for anything that can be read.
const NOTHING_ASKED: Asked = Asked {
    http11: true,
    head: false,
    may_switch: false,
    persists: false,
};

fn asked(head: &Head) -> Asked {
    Asked {
        http11: head.parts.version == Version::HTTP_11,
        head: head.parts.method == Method::HEAD,
        may_switch: head.may_switch,
        persists: head.persists,
    }
}

impl Begun {
    /// Of an answer of which nothing can be said.
    const NOTHING: Self = Self {
        sending: None,
        closes: true,
        lingers: true,
        switches: false,
    };
}

#[cfg(test)]
mod tests;
