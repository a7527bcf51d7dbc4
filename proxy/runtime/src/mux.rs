//! Connections between proxies that carry many requests: the IO around [`mesh_proxy_core::mux`].
//!
//! One task reads and writes a connection ([`carry`]); whoever sends, answers or reads a body works on the [`Link`] and
//! wakes that task. So all that arises in one turn of the event loop leaves in one write, and in few TLS records.
//!
//! - [`client`]: a request out, its response back
//! - [`server`]: requests in, each answered by a task of its own
//! - [`body`]: a body on its way through

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use crate::limits::{H2_PING_EVERY, MUX_READ_BYTES, MUX_READS, PARTING};
use bytes::BytesMut;
use mesh_proxy_core::mux::{Engine, Event, MuxError, Role, StreamId};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Why a connection came to its end before it was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    /// The network, or TLS.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer.
    #[error(transparent)]
    Mux(#[from] MuxError),
    /// Nothing came, not even an answer to the question whether anybody is there.
    #[error("the peer of a mesh connection is silent")]
    Silent,
    /// The peer closed it while requests were under way.
    #[error("the peer closed the connection")]
    Closed,
}

/// One connection, as those who work on it share it.
pub(crate) struct Link {
    engine: RefCell<Engine>,
    wakers: RefCell<Vec<Wakers>>,
    carrier: RefCell<Option<Waker>>,
    /// Handles of a client that may open streams.
    senders: Cell<usize>,
    over: Cell<bool>,
    /// Counts how often all writers were woken.
    turn: Cell<usize>,
}

/// Who waits at one place.
#[derive(Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Which of the two.
#[derive(Clone, Copy)]
enum Side {
    Reader,
    Writer,
}

impl Link {
    fn new(role: Role) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(Engine::new(role)),
            wakers: RefCell::default(),
            carrier: RefCell::default(),
            senders: Cell::default(),
            over: Cell::default(),
            turn: Cell::default(),
        })
    }

    /// Works on the engine; what has to be written afterwards is.
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = self.engine.borrow_mut();
        let before = engine.out().len();
        let result = work(&mut engine);
        if engine.out().len() != before {
            self.wake_carrier();
        }
        result
    }

    fn wake_carrier(&self) {
        if let Some(waker) = self.carrier.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wait(&self, id: StreamId, side: Side, cx: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        if wakers.len() <= id.place() {
            wakers.resize_with(id.place() + 1, Wakers::default);
        }
        let Some(wakers) = wakers.get_mut(id.place()) else {
            return;
        };
        let waker = match side {
            Side::Reader => &mut wakers.reader,
            Side::Writer => &mut wakers.writer,
        };
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self, id: StreamId, side: Side) {
        let mut wakers = self.wakers.borrow_mut();
        let waker = wakers.get_mut(id.place()).and_then(|wakers| match side {
            Side::Reader => wakers.reader.take(),
            Side::Writer => wakers.writer.take(),
        });
        drop(wakers);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_writers(&self) {
        let mut wakers = self.wakers.borrow_mut();
        let mut waiting: Vec<_> = wakers.iter_mut().filter_map(|w| w.writer.take()).collect();
        drop(wakers);
        if !waiting.is_empty() {
            // Whoever is woken first takes the room there is: everybody is first at some time.
            let turn = self.turn.replace(self.turn.get().wrapping_add(1));
            let by = turn % waiting.len();
            waiting.rotate_left(by);
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The connection is gone: whoever waits learns it.
    fn end(&self) {
        self.over.set(true);
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        for waker in wakers.into_iter().flat_map(|w| [w.reader, w.writer]) {
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// Reads and writes a connection until both sides are done with it; a client also once nobody can ask any more.
///
/// `each` sees every event after those who wait were woken, `look` is asked in every turn whether to stop.
struct Carrier<T> {
    io: T,
    link: Rc<Link>,
    input: BytesMut,
    events: Vec<Event>,
    /// Whether the peer was heard since the last look.
    heard: bool,
    asked: bool,
    clock: Pin<Box<tokio::time::Sleep>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier<T> {
    fn new(io: T, link: Rc<Link>) -> Self {
        Self {
            io,
            link,
            input: BytesMut::new(),
            events: Vec::new(),
            heard: true,
            asked: false,
            clock: Box::pin(tokio::time::sleep(H2_PING_EVERY)),
        }
    }

    /// One turn: all that came, all that goes.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        each: &mut impl FnMut(Event),
    ) -> Poll<Result<(), CarryError>> {
        self.link.carrier.borrow_mut().replace(cx.waker().clone());
        let open = self.read(cx, each)?;
        let behind = self.link.engine.borrow().is_behind();
        self.write(cx)?;
        if behind && !self.link.engine.borrow().is_behind() {
            cx.waker().wake_by_ref(); // what was not read is read now
        }
        self.keep_alive(cx)?;
        let engine = self.link.engine.borrow();
        if !open {
            return Poll::Ready(if engine.is_under_way() {
                Err(CarryError::Closed)
            } else {
                Ok(())
            });
        }
        if engine.is_done() && engine.out().is_empty() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// `false`: the peer has closed.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        each: &mut impl FnMut(Event),
    ) -> Result<bool, CarryError> {
        for _ in 0..MUX_READS {
            if self.link.engine.borrow().is_behind() {
                return Ok(true);
            }
            self.input.reserve(MUX_READ_BYTES);
            let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => return Ok(false),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    if self.input.is_empty() {
                        self.input = BytesMut::new(); // an idle connection keeps no buffer
                    }
                    return Ok(true);
                }
            }
            self.heard = true;
            let fed = self
                .link
                .with(|engine| engine.feed(&mut self.input, &mut self.events));
            for event in self.events.drain(..) {
                match &event {
                    Event::Readable(id) => self.link.wake(*id, Side::Reader),
                    Event::Writable(id) => self.link.wake(*id, Side::Writer),
                    Event::Broken(id) => {
                        self.link.wake(*id, Side::Reader);
                        self.link.wake(*id, Side::Writer);
                    }
                    Event::AllWritable => self.link.wake_writers(),
                    Event::Request { .. } | Event::Left => {}
                }
                each(event);
            }
            fed?;
        }
        cx.waker().wake_by_ref(); // others have their turn
        Ok(true)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), CarryError> {
        let mut room = false;
        loop {
            let mut engine = self.link.engine.borrow_mut();
            if engine.out().is_empty() {
                break;
            }
            match Pin::new(&mut self.io).poll_write(cx, engine.out()) {
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(bytes)) => {
                    // Who is not read from is known to be there by its reading.
                    self.heard |= engine.is_behind();
                    room |= engine.wrote(bytes);
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => break,
            }
        }
        if room {
            self.link.wake_writers();
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Asks a silent peer whether it is there (fault F14). Costs nothing while it speaks.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> Result<(), CarryError> {
        while self.clock.as_mut().poll(cx).is_ready() {
            let next = tokio::time::Instant::now() + H2_PING_EVERY;
            self.clock.as_mut().reset(next);
            match (std::mem::take(&mut self.heard), self.asked) {
                (true, _) => self.asked = false,
                (false, true) => return Err(CarryError::Silent),
                (false, false) => {
                    self.asked = true;
                    self.link.engine.borrow_mut().ping();
                    self.write(cx)?;
                }
            }
        }
        Ok(())
    }

    /// Says goodbye as far as that goes: what the peer has been sent stays valid.
    async fn close(mut self) {
        self.link.end();
        let closed = std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx));
        match tokio::time::timeout(PARTING, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a mesh connection was not closed in order"),
            Err(_) => tracing::debug!("a mesh connection was left by a peer that does not read"),
        }
    }
}
