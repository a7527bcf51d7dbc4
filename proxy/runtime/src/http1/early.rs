//! Answers that begin before their request is all sent. Both go on beside each other in a task, as they would at the
//! application: a client that first sends everything must not wait for one that first reads everything.

use super::{Broken, Connection, Fault, Home, Sending, frame};
use crate::body::{Arriving, BodyError};
use crate::limits::APP_IDLE;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_proxy_core::http1::response::ResponseError;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// What comes of such an answer: a part of its body, `None` at its end. Without an end it was broken off.
pub(super) type Came = Result<Option<Frame<Bytes>>, BodyError>;

/// The body of such an answer.
pub(crate) struct Early {
    from: Receiver<Came>,
    /// Bytes that are still to come, if that was said; 0 once nothing is.
    left: Option<u64>,
}

impl Early {
    /// A body of what comes through a channel.
    pub(super) fn new(from: Receiver<Came>, left: Option<u64>) -> Self {
        Self { from, left }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        match ready!(self.from.poll_recv(cx)) {
            Some(Ok(Some(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(bytes));
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(None)) => {
                self.left = Some(0);
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(Some(Err(Broken::from(ResponseError::CutOff).into()))),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Sends the rest of a request beside its answer.
pub(super) fn split<T, H>(
    connection: Box<Connection<T>>,
    sending: Option<Sending>,
    home: H,
) -> Arriving
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Home<T>,
{
    let left = connection.reader.length();
    let (to, from) = channel(1);
    tokio::task::spawn_local(carry(connection, sending, to, home));
    Arriving::Early(Early::new(from, left))
}

async fn carry<T, H>(
    connection: Box<Connection<T>>,
    mut sending: Option<Sending>,
    to: Sender<Came>,
    home: H,
) where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Home<T>,
{
    let both = RefCell::new(connection);
    let failed = {
        let mut up = pin!(poll_fn(|cx| both.borrow_mut().poll_send(&mut sending, cx)));
        let mut down = pin!(pass_on(&both, &to));
        let sent = tokio::select! {
            biased;
            sent = up.as_mut() => sent,
            whole = down.as_mut() => {
                // It was answered before it was all heard: nothing else is asked here (H1-12). But who goes on reading may.
                if whole {
                    drop(timeout(APP_IDLE, up).await);
                }
                return;
            }
        };
        match sent {
            Ok(()) => {
                down.await;
                None
            }
            // Who has answered may close.
            Err(Fault::Broken(why)) => {
                both.borrow_mut().unwritable = Some(why);
                down.await;
                None
            }
            Err(Fault::Body(error)) => Some(error),
            Err(Fault::Length(_)) => Some(BodyError::Peer),
        }
    };
    match failed {
        Some(error) => {
            drop(both); // at once, however slowly the answer is read
            drop(to.send(Err(error)).await);
        }
        None => both.into_inner().go(&home),
    }
}

/// Passes the body on; `true`: to its end, `false`: it broke off, or nobody wants it any more.
async fn pass_on<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    from: &RefCell<Box<Connection<T>>>,
    to: &Sender<Came>,
) -> bool {
    loop {
        let part = tokio::select! {
            biased;
            () = to.closed() => break,
            part = poll_fn(|cx| from.borrow_mut().poll_part(cx)) => part,
        };
        let came = match part {
            Ok(part) => Ok(part.and_then(frame)),
            Err(error) => Err(BodyError::App(error)),
        };
        let last = !matches!(came, Ok(Some(_)));
        if to.send(came).await.is_err() || last {
            break;
        }
    }
    from.borrow().reader.is_done()
}
