//! What the task of a connection shares with whoever reads the body of its request: the stream, and what is read and not
//! written of it.

use super::WireRefusal;
use crate::body::BodyError;
use crate::http1::{Input, Output, PulledBody};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::http_hygiene::RequestRefusal;
use mesh_proxy_core::http_hygiene::wire::{GuardLimits, Refused};
use mesh_proxy_core::http1::reader::{BodyPart, Head, RequestReader};
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once of what nobody wants.
const DROPPED_BYTES: usize = 4 * 1024;

const LIMITS: GuardLimits = GuardLimits {
    head_bytes_max: HEAD_BYTES_MAX,
    fields_max: HEADERS_MAX,
};

/// Why the body of a request is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection was closed before the end of the request")]
    CutOff,
    #[error(transparent)]
    Refused(#[from] RequestRefusal),
}

/// Whether a client waits for `100 Continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interim {
    /// It does, and nobody has asked for the body.
    Due,
    /// It is told.
    Said,
    /// It does not, or has its answer.
    Over,
}

/// A connection.
pub(super) struct Wire<T> {
    io: T,
    reader: RequestReader,
    input: Input,
    pub(super) out: Output,
    interim: Interim,
    /// Why a request is refused, until that is told. Boxed: a connection has one at most.
    refusal: Option<Box<WireRefusal>>,
    /// Whether one was; it is the last.
    refused: bool,
    /// Whether nothing more comes.
    gone: bool,
}

/// A connection, and who has to do with it.
pub(super) struct Shared<T> {
    wire: RefCell<Wire<T>>,
    /// How many bodies of requests were given to somebody, and which of them that is now; 0: none.
    count: Cell<u64>,
    asked: Cell<u64>,
    /// The task of the connection, where it waits for the end of that.
    task: RefCell<Option<Waker>>,
}

impl<T> Shared<T> {
    pub(super) fn new(io: T) -> Rc<Self> {
        let wire = Wire {
            io,
            reader: RequestReader::new(LIMITS),
            input: Input::default(),
            out: Output::default(),
            interim: Interim::Over,
            refusal: None,
            refused: false,
            gone: false,
        };
        Rc::new(Self {
            wire: RefCell::new(wire),
            count: Cell::new(0),
            asked: Cell::new(0),
            task: RefCell::default(),
        })
    }

    /// A request begins. Whoever still has the body of the last one, which was read to its end, has no more of it.
    pub(super) fn begin_request(&self) {
        self.asked.set(0);
        self.task.take();
    }

    /// INVARIANT: held for the length of one call and never while a body is polled, so nobody ever finds it held.
    pub(super) fn wire(&self) -> RefMut<'_, Wire<T>> {
        self.wire.borrow_mut()
    }

    /// Whether somebody has the body of the request, and may read on in it.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.get() != 0 && !self.wire().reader.is_done()
    }

    /// Whether all of the request was read, or will be by whoever has its body. What is there of one that nobody wants is
    /// dropped.
    pub(super) fn has_read_all(&self) -> bool {
        self.asked.get() != 0 || self.wire().drop_body()
    }

    /// The stream, and what was read of it and not taken; `None` if somebody has a body of it.
    pub(super) fn into_parts(shared: Rc<Self>) -> Option<(T, Bytes)> {
        let wire = Rc::into_inner(shared)?.wire.into_inner();
        Some((wire.io, wire.input.bytes.freeze()))
    }

    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Shared<T> {
    /// Whether the client is gone. Whoever reads the body of its request will notice; if there is none, this does.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> bool {
        let wire = &mut *self.wire();
        if !wire.gone && !wire.reader.is_done() {
            let mut task = self.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            return false;
        }
        wire.gone || wire.poll_end(cx)
    }
}

impl<T> Wire<T> {
    /// Whether nothing has come of the next request.
    pub(super) fn has_read_nothing(&self) -> bool {
        self.input.bytes.is_empty()
    }

    /// Whether a request is refused and nobody was told yet.
    pub(super) fn has_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether a request was refused: nothing more is read.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(super) fn take_refusal(&mut self) -> Option<Box<WireRefusal>> {
        self.refusal.take()
    }

    /// Whether the client may be waiting for `100 Continue`.
    pub(super) fn is_waited_for(&self) -> bool {
        self.interim == Interim::Due
    }

    /// HTTP/1 goes on.
    pub(super) fn resume(&mut self) {
        self.reader.resume();
    }

    /// Where the head of an answer is written.
    pub(super) fn begin_answer(&mut self) -> &mut Vec<u8> {
        self.interim = Interim::Over;
        self.out.head()
    }

    /// All of a body of so many bytes, if it is there.
    pub(super) fn take_whole(&mut self, length: u64) -> Option<BodyPart> {
        let there = self.input.bytes.len() as u64 >= length;
        // What has a length is never refused.
        there
            .then(|| self.reader.body(&mut self.input.bytes).ok().flatten())
            .flatten()
    }

    /// Keeps for the record why a request is refused; once, since each further look finds the same.
    fn refuse(&mut self, refused: Refused) {
        if self.refused {
            return;
        }
        self.refused = true;
        let request = self.reader.request_line();
        self.refusal = Some(Box::new(WireRefusal {
            why: refused.why,
            request: request.map(|(method, target)| RecordRequest {
                method: method.to_owned(),
                raw_path: target.to_owned(),
                ..RecordRequest::default()
            }),
            begun: refused.begun,
        }));
    }

    /// What is there of the body beyond the part that is given away. What is refused there is told with the next part.
    fn ahead(&mut self) -> Option<BodyPart> {
        match self.reader.body(&mut self.input.bytes) {
            Ok(ahead) => ahead,
            Err(refused) => {
                self.refuse(refused);
                None
            }
        }
    }

    /// Drops what is there of a body; whether that is all of it.
    fn drop_body(&mut self) -> bool {
        loop {
            match self.reader.body(&mut self.input.bytes) {
                Ok(Some(_)) => {}
                Ok(None) => return self.reader.is_done(),
                Err(refused) => {
                    self.refuse(refused);
                    return false;
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// The next head; `None`: none will come.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Head>, Refused>> {
        loop {
            match self.reader.head(&mut self.input.bytes) {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Ok(Some(head))),
                Err(refused) => {
                    self.refuse(refused);
                    return Poll::Ready(Err(refused));
                }
            }
            match self.input.poll_read(&mut self.io, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    self.input.rest();
                    self.out.rest(0);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The next part of the body; `None` at its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<BodyPart>, Lost>> {
        loop {
            match self.reader.body(&mut self.input.bytes) {
                Ok(Some(part)) => return Poll::Ready(Ok(Some(part))),
                Ok(None) if self.reader.is_done() => return Poll::Ready(Ok(None)),
                Ok(None) => {}
                Err(refused) => {
                    self.refuse(refused);
                    return Poll::Ready(Err(refused.why.into()));
                }
            }
            self.say_continue(cx)?;
            let read = ready!(self.input.poll_read(&mut self.io, cx));
            self.gone = !matches!(read, Ok(1..));
            if read? == 0 {
                return Poll::Ready(Err(Lost::CutOff));
            }
        }
    }

    /// Tells a client that waits for it to send the body.
    fn say_continue(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.interim == Interim::Due {
            // One that has begun to send it waits no longer.
            if !self.input.bytes.is_empty() {
                self.interim = Interim::Over;
                return Ok(());
            }
            self.out
                .head()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.interim = Interim::Said;
        }
        if self.interim == Interim::Said
            && let Poll::Ready(written) = self.out.poll_write(&mut self.io, cx)
        {
            self.interim = Interim::Over;
            written?;
        }
        Ok(())
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_write(&mut self.io, cx)
    }

    /// Whether the client has ended, with all of its request read. What comes instead waits for its turn; where it may be
    /// something else than HTTP, within a bound, and the end is noticed behind it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> bool {
        let bytes_max = if self.reader.is_waiting() {
            HEAD_BYTES_MAX
        } else {
            1
        };
        while self.input.bytes.len() < bytes_max {
            match self.input.poll_read(&mut self.io, cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return true,
            }
        }
        false
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Whether it holds nothing but its stream.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let output = self.out.is_empty() && self.out.capacity() == 0;
        self.input.bytes.capacity() == 0 && output && self.reader.is_done()
    }

    /// Bytes that came and were not taken.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.input.bytes.len()
    }

    /// Reads what nobody wants, to the end.
    pub(super) fn poll_drop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; DROPPED_BYTES];
        loop {
            let mut space = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
            if read.is_err() || space.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

/// The body of a request, read as it is asked for.
pub(super) struct Ask<T> {
    /// Given up with the last byte: the connection may become something else while this is kept.
    shared: Option<Rc<Shared<T>>>,
    /// Which of its bodies this is.
    number: u64,
    /// Read ahead, so that the last part is known to be the last.
    ahead: Option<BodyPart>,
    /// Whether its length was said.
    promised: bool,
}

impl<T> Ask<T> {
    /// The body of the present request, of which not all is there. `expects`: the client may wait before it sends it.
    pub(super) fn new(shared: &Rc<Shared<T>>, promised: bool, expects: bool) -> Self {
        let number = shared.count.get() + 1;
        shared.count.set(number);
        shared.asked.set(number);
        shared.wire().interim = match expects {
            true => Interim::Due,
            false => Interim::Over,
        };
        Self {
            shared: Some(shared.clone()),
            number,
            ahead: None,
            promised,
        }
    }

    /// The connection, while it is at this body.
    fn current(&self) -> Option<&Rc<Shared<T>>> {
        let shared = self.shared.as_ref();
        shared.filter(|shared| shared.asked.get() == self.number)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Ask<T> {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<BodyPart>, Lost>> {
        let ahead = self.ahead.take();
        let Some(shared) = self.current().cloned() else {
            return Poll::Ready(Ok(ahead));
        };
        let wire = &mut *shared.wire();
        let part = match ahead {
            Some(part) => Ok(Some(part)),
            None => ready!(wire.poll_part(cx)),
        };
        self.ahead = wire.ahead();
        let done = wire.reader.is_done();
        if done || part.is_err() {
            // The task of the connection looks itself, unless this is another one.
            let task = shared.task.take();
            task.filter(|task| !task.will_wake(cx.waker()))
                .inspect(Waker::wake_by_ref);
        }
        if done {
            shared.asked.set(0);
            self.shared = None;
        }
        Poll::Ready(part)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> PulledBody for Ask<T> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = ready!(self.poll_part(cx));
        Poll::Ready(part.map_err(BodyError::Client).transpose().map(|part| {
            part.map(|part| match part {
                BodyPart::Data(data) => Frame::data(data),
                BodyPart::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        let done = |shared: &Rc<Shared<T>>| shared.wire().reader.is_done();
        self.ahead.is_none() && self.current().is_none_or(done)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = match &self.ahead {
            Some(BodyPart::Data(data)) => data.len() as u64,
            _ => 0,
        };
        let left = self.current().map_or(Some(0), |at| at.wire().reader.left());
        match left {
            Some(left) if self.promised => SizeHint::with_exact(left.saturating_add(ahead)),
            _ => SizeHint::default(),
        }
    }
}

impl<T> Drop for Ask<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.current() {
            shared.asked.set(0);
            shared.wake();
        }
    }
}
