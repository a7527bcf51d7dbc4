//! Requests over HTTP/1.1 to an application, and their answers: the IO around [`mesh_proxy_core::http1`]. The other side,
//! that of clients, is [`crate::serve::http1`].
//!
//! There is no task behind a connection: whoever asks writes the request and reads the head of the answer, and whoever
//! takes the body reads on. So one exchange is one write and one read, and wakes nobody else. Only an answer that begins
//! before its request is all sent gets a task ([`early`]), because the two must not wait for each other.
//!
//! A connection is given to the next exchange ([`Home`]) only when this one is over on both sides, to the byte; dropped
//! before that, it is closed.

mod buffers;
mod early;
#[cfg(test)]
mod tests;

use crate::body::{Arriving, Body, BodyError};
use crate::io::Prefixed;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, HTTP1_OUT_BYTES, HTTP1_OUT_KEPT};
pub(crate) use buffers::{Input, Output};
use bytes::Bytes;
pub(crate) use early::Early;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_proxy_core::http1::request::put_head;
use mesh_proxy_core::http1::response::{Part, ResponseError, ResponseLimits, ResponseReader};
use mesh_proxy_core::http1::writer::{BodyWriter, WrongLength};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LIMITS: ResponseLimits = ResponseLimits {
    head_bytes_max: HEAD_BYTES_MAX,
    fields_max: HEADERS_MAX,
};

/// Why an answer is not there, or not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whoever answers.
    #[error(transparent)]
    Response(#[from] ResponseError),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection, or whoever answers.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The request is not what it says.
    #[error(transparent)]
    Length(#[from] WrongLength),
    /// Its body broke off.
    #[error(transparent)]
    Body(BodyError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl From<ResponseError> for Fault {
    fn from(error: ResponseError) -> Self {
        Self::Broken(error.into())
    }
}

/// Where connections go when an exchange has left them in order.
pub(crate) trait Home<T>: 'static {
    /// Keeps the connection for another exchange.
    fn take_back(&self, connection: Box<Connection<T>>);
}

/// For connections that carry one exchange.
pub(crate) struct Nowhere;

impl<T> Home<T> for Nowhere {
    fn take_back(&self, _: Box<Connection<T>>) {}
}

/// One connection, between exchanges or in one.
pub(crate) struct Connection<T> {
    io: T,
    reader: ResponseReader,
    /// Empty between exchanges.
    input: Input,
    out: Output,
    /// Why nothing more can be written.
    unwritable: Option<Broken>,
}

/// The part of a request that has not been made ready for writing.
struct Sending {
    body: Body,
    writer: BodyWriter,
}

/// What came of a request.
pub(crate) struct Answered<T> {
    pub(crate) response: Response<Arriving>,
    /// The connection as a byte stream, after a `101`.
    pub(crate) switched: Option<Prefixed<T>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Connection<T> {
    pub(crate) fn new(io: T) -> Box<Self> {
        Box::new(Self {
            io,
            reader: ResponseReader::new(false, LIMITS),
            input: Input::default(),
            out: Output::default(),
            unwritable: None,
        })
    }

    /// Whether nothing has come on a connection on which nothing was asked: no goodbye, no error, no word. Costs no system
    /// call while nothing has.
    pub(crate) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut space = [0; 1];
        let mut space = ReadBuf::new(&mut space);
        Pin::new(&mut self.io)
            .poll_read(cx, &mut space)
            .is_pending()
    }

    /// Sends a request and waits for the head of its answer. The connection goes `home` from there, or from the end of
    /// the body.
    ///
    /// # Errors
    /// [`Fault`] if there will be no answer.
    pub(crate) async fn exchange<H: Home<T>>(
        mut self: Box<Self>,
        request: Request<Body>,
        home: H,
    ) -> Result<Answered<T>, Fault> {
        let mut sending = self.begin(request)?;
        let head = poll_fn(|cx| self.poll_head(&mut sending, cx)).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Self { io, input, .. } = *self;
            return Ok(Answered {
                response: Response::from_parts(*head, Arriving::Nothing),
                switched: Some(Prefixed::new(input.bytes.freeze(), io)),
            });
        }
        let body = if sending.is_some() || !self.out.is_empty() {
            early::split(self, sending, home)
        } else {
            self.into_body(home)
        };
        Ok(Answered {
            response: Response::from_parts(*head, body),
            switched: None,
        })
    }

    /// Makes the head ready for writing.
    fn begin(&mut self, request: Request<Body>) -> Result<Option<Sending>, Fault> {
        let (parts, body) = request.into_parts();
        let empty = body.is_end_stream();
        let length = if empty {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let writer = put_head(self.out.head(), &parts, length)?;
        self.reader = ResponseReader::new(parts.method == Method::HEAD, LIMITS);
        Ok((!empty).then_some(Sending { body, writer }))
    }

    fn poll_head(
        &mut self,
        sending: &mut Option<Sending>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<http::response::Parts>, Fault>> {
        match self.poll_send(sending, cx) {
            // It may have been answered before it was all sent, and closed.
            Poll::Ready(Err(Fault::Broken(why))) => self.unwritable = Some(why),
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            match self.reader.next(&mut self.input.bytes)? {
                Some(Part::Head(head)) => return Poll::Ready(Ok(head)),
                Some(_) => return Poll::Ready(Err(ResponseError::Framing.into())),
                None => {}
            }
            let read = ready!(self.input.poll_read(&mut self.io, cx));
            if !matches!(read, Ok(1..))
                && let Some(why) = self.unwritable.take()
            {
                return Poll::Ready(Err(why.into()));
            }
            if read? == 0 {
                self.reader.on_close()?;
            }
        }
    }

    /// Sends on; ready once all is sent.
    fn poll_send(
        &mut self,
        sending: &mut Option<Sending>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let waits = self.make_ready(sending, cx)?;
            match self.out.poll_write(&mut self.io, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    *sending = None;
                    self.out.forget();
                    return Poll::Ready(Err(error.into()));
                }
                // Who does not read must not keep alive what policy has ended.
                Poll::Pending => {
                    let body = sending.as_ref().map(|sending| &sending.body);
                    if let Some(Poll::Ready(end)) = body.map(|body| body.poll_ended(cx)) {
                        return Poll::Ready(Err(Fault::Body(BodyError::Ended(end))));
                    }
                    return Poll::Pending;
                }
            }
            if sending.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Makes ready for writing what there is of the body; `true`: more of it must come first.
    fn make_ready(
        &mut self,
        sending: &mut Option<Sending>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Fault> {
        while let Some(Sending { body, writer }) = sending {
            if !self.out.has_room(HTTP1_OUT_BYTES) {
                return Ok(false);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(Fault::Body(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.out.put(writer, data)?;
                    }
                    if self.out.has_room(usize::MAX) && body.is_end_stream() {
                        self.out.end(writer)?;
                        *sending = None;
                    }
                }
                Poll::Ready(None) => {
                    self.out.end(writer)?;
                    *sending = None;
                }
            }
        }
        Ok(false)
    }

    /// The next part of the body; `None` at its end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Broken>> {
        loop {
            if let Some(part) = self.reader.next(&mut self.input.bytes)? {
                return Poll::Ready(Ok(Some(part)));
            }
            if self.reader.is_done() {
                return Poll::Ready(Ok(None));
            }
            if ready!(self.input.poll_read(&mut self.io, cx))? == 0 {
                self.reader.on_close()?;
            }
        }
    }

    /// The body of an answer whose request is all sent.
    fn into_body<H: Home<T>>(mut self: Box<Self>, home: H) -> Arriving {
        let promised = self.reader.length().is_some();
        // An error is told again where the body is read.
        let ahead = self.reader.next(&mut self.input.bytes).unwrap_or_default();
        match ahead {
            None if self.reader.is_done() => {
                self.go(&home);
                Arriving::Nothing
            }
            Some(Part::Data(data)) if self.reader.is_done() => {
                self.go(&home);
                let whole = Whole {
                    data: Some(data),
                    promised,
                };
                Arriving::Whole(whole)
            }
            ahead => Arriving::Pulled(Box::new(Answer {
                connection: Some(self),
                ahead,
                promised,
                home,
            })),
        }
    }

    /// Goes home, if it is in order.
    fn go<H: Home<T>>(mut self: Box<Self>, home: &H) {
        let written = self.out.is_empty() && self.unwritable.is_none();
        if written && self.reader.leaves_reusable(&self.input.bytes) {
            self.input.rest();
            self.out.rest(HTTP1_OUT_KEPT);
            home.take_back(self);
        }
    }
}

/// A body that came with its head.
pub(crate) struct Whole {
    data: Option<Bytes>,
    /// Whether its length was said. Otherwise it is not told either: that it came at once is chance.
    promised: bool,
}

impl Whole {
    /// One whose length was said.
    pub(crate) fn promised(data: Bytes) -> Self {
        Self {
            data: Some(data),
            promised: true,
        }
    }

    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.data.take()
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.data {
            None => SizeHint::with_exact(0),
            Some(data) if self.promised => SizeHint::with_exact(data.len() as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

/// A body that is read as it is asked for.
pub(crate) struct Answer<T, H: Home<T>>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// Until it has gone home.
    connection: Option<Box<Connection<T>>>,
    /// Read ahead, so that the last part is known to be the last.
    ahead: Option<Part>,
    promised: bool,
    home: H,
}

/// A body that is read from its connection as it is asked for, whatever that connection is.
pub(crate) trait PulledBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>)
    -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    fn is_end_stream(&self) -> bool;
    fn size_hint(&self) -> SizeHint;
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static, H: Home<T>> PulledBody for Answer<T, H> {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let part = match self.ahead.take() {
            Some(part) => Some(part),
            None => ready!(connection.poll_part(cx))?,
        };
        // An error is told with the next part.
        self.ahead = connection
            .reader
            .next(&mut connection.input.bytes)
            .unwrap_or_default();
        self.leave_at_end();
        Poll::Ready(part.and_then(frame).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(connection) = &self.connection else {
            return SizeHint::with_exact(0);
        };
        let ahead = match &self.ahead {
            Some(Part::Data(data)) => data.len() as u64,
            _ => 0,
        };
        match connection.reader.length() {
            Some(length) if self.promised => SizeHint::with_exact(length.saturating_add(ahead)),
            _ => SizeHint::default(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static, H: Home<T>> Answer<T, H> {
    fn leave_at_end(&mut self) {
        let over = |connection: &Connection<T>| connection.reader.is_done();
        if self.ahead.is_none()
            && self.connection.as_deref().is_some_and(over)
            && let Some(connection) = self.connection.take()
        {
            connection.go(&self.home);
        }
    }
}

/// A part of a body, as bodies have it.
fn frame(part: Part) -> Option<Frame<Bytes>> {
    match part {
        Part::Data(data) => Some(Frame::data(data)),
        Part::Trailers(trailers) => Some(Frame::trailers(trailers)),
        Part::Head(_) => None, // there is one head
    }
}
