//! HTTP/1 from clients as exact bytes: [`Http1Guard`] between the socket and the HTTP library.
//!
//! ```text
//! client -> socket -> Guarded -> hyper -> the service of this connection
//!                        └─────── Link ───────┘
//! ```
//! [`Guarded`] sees every byte that hyper will see, before hyper does. A head goes on whole or not at all. In place of a
//! request that is refused for its head, hyper gets [`STAND_IN`], so that the requests before it are answered first and
//! in order; whoever serves the connection knows the stand-in by its number and answers it with the refusal. A request
//! whose head went on already, and whose body is refused, is broken off.
//!
//! Requests that may end HTTP/1 (an upgrade, CONNECT) are the last that is read until they are answered: [`Link`] carries
//! the answer back. After a `101` the guard stands aside. It says too when the library could be taken away and nobody would
//! notice ([`Link::is_at_rest`]).

use crate::answer::{Answer, closing, refused};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, PARTING};
use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use http::StatusCode;
use http::header::CONNECTION;
use mesh_policy::record::RecordRequest;
use mesh_proxy_core::http_hygiene::wire::{GuardLimits, Http1Guard, Reading, Stop};
use mesh_proxy_core::http_hygiene::{Refusal, RequestRefusal};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What hyper reads in place of a refused request. No client can send it: the guard refuses the length said twice, and so
/// would [`mesh_proxy_core::http_hygiene::admit`] if its number were ever mistaken.
const STAND_IN: &[u8] =
    b"GET / HTTP/1.1\r\nhost: refused.invalid\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n";

/// Bytes read at once while some are kept back.
const READ_BYTES: usize = 4 * 1024;

/// Pieces that are together no longer than this leave in one: copying them costs less than the system call for many.
const JOINED_BYTES_MAX: usize = 2 * 1024;

/// A request that was refused as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireRefusal {
    pub(crate) why: RequestRefusal,
    /// Method and target as they came, if they can be read.
    pub(crate) request: Option<RecordRequest>,
    /// Which request of the connection, from 1.
    number: u64,
    /// Whether its head had gone on.
    begun: bool,
}

impl WireRefusal {
    /// Whether its head had gone on, so that it is answered, and accounted for, as a request too.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// A request that the HTTP library refused by itself, and answered: if that was not for its size, only the target is
    /// left that the guard does not read as strictly.
    pub(crate) fn by_library(error: &hyper::Error) -> Option<Self> {
        let why = if error.is_parse_too_large() {
            RequestRefusal::HeadersTooLarge
        } else {
            RequestRefusal::Target
        };
        error.is_parse().then_some(Self {
            why,
            request: None,
            number: 0,
            begun: false,
        })
    }
}

/// What the stream and the service of one connection tell each other. Both run on one thread; the HTTP library only asks
/// for [`Send`].
pub(crate) struct Link {
    /// Number of the request whose answer is waited for; 0: none.
    asked: AtomicU64,
    /// [`UNKNOWN`], [`STAYS`] or [`SWITCHED`].
    fate: AtomicU8,
    reader: AtomicWaker,
    refusal: OnceLock<WireRefusal>,
    /// Whether the last answer closes a connection on which more may be coming.
    lingers: AtomicBool,
    /// Heads that had gone on when the library last looked for more and there was nothing, between two requests;
    /// [`NO_REST`] if it has found something since.
    rests: AtomicU64,
    /// Whether a part of an answer waits for room in the socket.
    blocked: AtomicBool,
}

/// See [`Link::rests`].
const NO_REST: u64 = u64::MAX;

impl Default for Link {
    fn default() -> Self {
        Self {
            asked: AtomicU64::default(),
            fate: AtomicU8::default(),
            reader: AtomicWaker::default(),
            refusal: OnceLock::default(),
            lingers: AtomicBool::default(),
            rests: AtomicU64::new(NO_REST),
            blocked: AtomicBool::default(),
        }
    }
}

const UNKNOWN: u8 = 0;
const STAYS: u8 = 1;
const SWITCHED: u8 = 2;

impl Link {
    /// The request that was refused; the connection ends with it.
    pub(crate) fn refusal(&self) -> Option<&WireRefusal> {
        self.refusal.get()
    }

    /// The answer to request `number`, if that is the stand-in.
    pub(crate) fn stands_in(&self, number: u64) -> Option<Answer> {
        let refusal = self.refusal.get()?;
        (refusal.number == number && !refusal.begun).then(|| spoken(refusal))
    }

    /// Whether all of `number` requests have gone on, nothing of another has come, and nothing waits to be sent: once they
    /// are answered the library only waits.
    pub(crate) fn is_at_rest(&self, number: u64) -> bool {
        self.rests.load(Ordering::Relaxed) == number
            && !self.blocked.load(Ordering::Relaxed)
            && self.refusal.get().is_none()
    }

    /// Request `number` is about to be answered so; the answer that goes out is returned.
    pub(crate) fn answered(&self, number: u64, answer: Answer) -> Answer {
        if self.asked.load(Ordering::Acquire) == number {
            let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            let fate = if switched { SWITCHED } else { STAYS };
            self.fate.store(fate, Ordering::Release);
            self.reader.wake();
        }
        let answer = match self.refusal.get() {
            // Its body was refused meanwhile: whatever became of the part that had gone on is no answer to the whole.
            Some(refusal) if refusal.number == number && refusal.begun => spoken(refusal),
            _ => answer,
        };
        if answer.status().is_client_error() && answer.headers().contains_key(CONNECTION) {
            self.lingers.store(true, Ordering::Release);
        }
        answer
    }

    /// Whether the request that was waited for switched protocols; pending until it is answered.
    fn poll_fate(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.reader.register(cx.waker());
        match self.fate.swap(UNKNOWN, Ordering::AcqRel) {
            UNKNOWN => Poll::Pending,
            fate => Poll::Ready(fate == SWITCHED),
        }
    }
}

fn spoken(refusal: &WireRefusal) -> Answer {
    closing(refused(&Refusal::from(refusal.why), false))
}

/// What the bytes from the socket are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Requests, to be read by the guard.
    Requests,
    /// Unread until [`Link::poll_fate`] tells.
    Waiting,
    /// Bytes of whatever the client switched to.
    Switched,
    /// Nothing to anybody.
    Refused,
    /// Likewise, and what went on before them is broken off.
    BrokenOff,
}

/// A stream from a client, of which only exact HTTP/1 can be read.
pub(crate) struct Guarded<T> {
    inner: T,
    guard: Http1Guard,
    link: Arc<Link>,
    mode: Mode,
    /// Bytes that came and have not gone on. Mostly none: exact requests that came whole are never copied.
    kept: BytesMut,
    /// Of these, from the beginning: may go on.
    clear: usize,
    /// Of these, from the beginning: the guard has read.
    read: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    /// Guards a stream from its beginning, or from that of a request; `first` was read of it before.
    pub(crate) fn new(inner: T, first: BytesMut) -> (Self, Arc<Link>) {
        let link = Arc::new(Link::default());
        let guarded = Self {
            inner,
            guard: Http1Guard::new(GuardLimits {
                head_bytes_max: HEAD_BYTES_MAX,
                fields_max: HEADERS_MAX,
            }),
            link: link.clone(),
            mode: Mode::Requests,
            kept: first,
            clear: 0,
            read: 0,
            linger: None,
        };
        (guarded, link)
    }

    /// The stream again, and what was read of it and has not gone on: at rest nothing.
    pub(crate) fn into_parts(self) -> (T, BytesMut) {
        (self.inner, self.kept)
    }

    /// Notes whether the socket had room.
    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = written.is_pending();
        self.link.blocked.store(blocked, Ordering::Relaxed);
        written
    }

    /// Gives `buf` what is clear.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.clear.min(buf.remaining());
        buf.put_slice(self.kept.get(..count).unwrap_or_default());
        self.kept.advance(count);
        self.clear -= count;
        self.read -= count;
        if self.kept.is_empty() {
            self.kept = BytesMut::new();
        }
    }

    /// Has the guard read what is kept.
    fn read_kept(&mut self) {
        let piece = self.kept.get(self.read..).unwrap_or_default();
        let reading = self.guard.push(piece);
        if reading.clear > 0 {
            self.clear = self.read + reading.clear;
        }
        self.read = match reading.stop {
            Stop::Waiting => self.clear,
            _ => self.kept.len(),
        };
        self.on_stop(reading.stop);
    }

    /// Keeps the part of a piece that is not clear. Nothing was kept before.
    fn keep_rest(&mut self, piece: &[u8], reading: Reading) {
        let rest = piece.get(reading.clear..).unwrap_or_default();
        self.kept.extend_from_slice(rest);
        self.read = match reading.stop {
            Stop::Waiting => 0,
            _ => self.kept.len(),
        };
        self.on_stop(reading.stop);
    }

    fn on_stop(&mut self, stop: Stop) {
        match stop {
            Stop::End => {}
            Stop::Waiting => {
                self.mode = Mode::Waiting;
                self.link.asked.store(self.guard.heads(), Ordering::Release);
            }
            Stop::Refused(refused) => {
                let request = self.guard.request_line();
                let refusal = WireRefusal {
                    why: refused.why,
                    request: request.map(|(method, target)| RecordRequest {
                        method: method.to_owned(),
                        raw_path: target.to_owned(),
                        ..RecordRequest::default()
                    }),
                    number: self.guard.heads() + u64::from(!refused.begun),
                    begun: refused.begun,
                };
                // Only the first refusal is told, and there is only one: nothing is read after it.
                let _ = self.link.refusal.set(refusal);
                self.kept.truncate(self.clear);
                if refused.begun {
                    self.mode = Mode::BrokenOff;
                } else {
                    self.mode = Mode::Refused;
                    self.kept.extend_from_slice(STAND_IN);
                    self.clear = self.kept.len();
                }
                self.read = self.clear;
            }
        }
    }

    fn on_fate(&mut self, switched: bool) {
        self.guard.resume(switched);
        self.link.asked.store(0, Ordering::Release);
        self.mode = if switched {
            (self.clear, self.read) = (self.kept.len(), self.kept.len());
            Mode::Switched
        } else {
            Mode::Requests
        };
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Reads more of what is kept back; says how much came.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.kept.len();
        self.kept.resize(before + READ_BYTES, 0);
        let mut space = ReadBuf::new(self.kept.get_mut(before..).unwrap_or_default());
        let result = Pin::new(&mut self.inner).poll_read(cx, &mut space);
        let came = space.filled().len();
        self.kept.truncate(before + came);
        ready!(result)?;
        Poll::Ready(Ok(came))
    }

    /// Reads straight into `buf`; true if something went on, or the client is at its end.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let rests = match &read {
            Poll::Pending if self.guard.is_between_requests() => self.guard.heads(),
            _ => NO_REST,
        };
        self.link.rests.store(rests, Ordering::Relaxed);
        ready!(read)?;
        let piece = buf.filled().get(before..).unwrap_or_default();
        let (reading, length) = (self.guard.push(piece), piece.len());
        if reading.clear < length || reading.stop != Stop::End {
            self.keep_rest(piece, reading);
            buf.set_filled(before + reading.clear);
        }
        Poll::Ready(Ok(reading.clear > 0 || length == 0))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.clear > 0 {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Requests if this.kept.is_empty() => {
                    if ready!(this.poll_through(cx, buf))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Mode::Requests if this.read < this.kept.len() => this.read_kept(),
                Mode::Requests => {
                    if ready!(this.poll_more(cx))? == 0 {
                        return Poll::Ready(Ok(())); // the end, in the middle of a head
                    }
                }
                Mode::Waiting => match this.link.poll_fate(cx) {
                    Poll::Ready(switched) => this.on_fate(switched),
                    // What comes early is held (GW7), and read only to learn of the client's end.
                    Poll::Pending if this.kept.len() >= HEAD_BYTES_MAX => return Poll::Pending,
                    Poll::Pending => {
                        if ready!(this.poll_more(cx))? == 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Mode::Switched => return Pin::new(&mut this.inner).poll_read(cx, buf),
                // The answer is on its way and closes the connection; nobody waits for more.
                Mode::Refused => return Poll::Pending,
                Mode::BrokenOff => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guarded<T> {
    /// Reads what the client is still sending, for a moment: a socket that is closed with bytes unread resets the
    /// connection, and the answer may be lost with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(PARTING)));
        let mut scratch = [0; READ_BYTES];
        while over.as_mut().poll(cx).is_pending() {
            let mut space = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space));
            if read.is_err() || space.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.inner);
        if bufs.iter().map(|piece| piece.len()).sum::<usize>() > JOINED_BYTES_MAX {
            let written = inner.poll_write_vectored(cx, bufs);
            return self.noted(written);
        }
        let mut space = [MaybeUninit::uninit(); JOINED_BYTES_MAX];
        let mut joined = ReadBuf::uninit(&mut space);
        bufs.iter().for_each(|piece| joined.put_slice(piece));
        let written = inner.poll_write(cx, joined.filled());
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // TLS takes what the socket has no room for yet: it is sent here.
        self.link
            .blocked
            .store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The connection ends: it never waits for a request again, nor does anybody read one from it.
        this.link.rests.store(NO_REST, Ordering::Relaxed);
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.link.lingers.load(Ordering::Acquire) {
                return Poll::Ready(Ok(()));
            }
        }
        ready!(this.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
