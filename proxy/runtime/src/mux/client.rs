//! The side that asks.

use super::body::{MuxBody, send};
use super::{Carrier, CarryError, Link, Side};
use crate::body::Body;
use http::{Request, Response, response};
use mesh_proxy_core::mux::{OpenError, Role, StreamId};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};

/// May ask on one connection. The connection ends once there is none of these and no request under way.
pub(crate) struct Sender(Rc<Link>);

/// Why there is no response.
pub(crate) enum SendError {
    /// Nothing was sent: here it is again.
    Unsent(Box<Request<Body>>),
    /// Its head is longer than heads may be.
    TooLong,
    /// It was sent, and may have been served.
    Broke,
}

/// A connection on which nothing was asked yet, and the task that carries it.
pub(crate) fn connect<T>(io: T) -> (Sender, impl Future<Output = Result<(), CarryError>>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let link = Link::new(Role::Client);
    let sender = Sender::new(link.clone());
    let ended = Ended(link.clone());
    (sender, carry(Carrier::new(io, link), ended))
}

async fn carry<T: AsyncRead + AsyncWrite + Unpin>(
    mut carrier: Carrier<T>,
    ended: Ended,
) -> Result<(), CarryError> {
    let link = carrier.link.clone();
    let result = poll_fn(|cx| {
        if link.senders.get() == 0 && link.engine.borrow().streams() == 0 {
            return Poll::Ready(Ok(()));
        }
        carrier.turn(cx, &mut |_| ())
    })
    .await;
    carrier.close().await;
    drop(ended);
    result
}

/// However the task of a connection ends, those who wait learn it; also if it never began.
struct Ended(Rc<Link>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Sender {
    fn new(link: Rc<Link>) -> Self {
        link.senders.set(link.senders.get() + 1);
        Self(link)
    }

    /// Whether nothing more can be asked.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.over.get() || self.0.engine.borrow().is_leaving()
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.0.engine.borrow().streams()
    }

    /// Asks, and waits for the head of the response.
    ///
    /// # Errors
    /// [`SendError`] if there will be none.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<MuxBody>, SendError> {
        let link = &self.0;
        let (parts, mut body) = request.into_parts();
        let end = http_body::Body::is_end_stream(&body);
        let opened = if link.over.get() {
            Err(OpenError::Left)
        } else {
            link.with(|engine| engine.open(&parts, end))
        };
        let id = match opened {
            Ok(id) => id,
            Err(OpenError::TooLong) => return Err(SendError::TooLong),
            Err(OpenError::Full | OpenError::Left) => {
                return Err(SendError::Unsent(Box::new(Request::from_parts(
                    parts, body,
                ))));
            }
        };
        let answer = MuxBody::of_response(link.clone(), id);
        if !end {
            let link = link.clone();
            tokio::task::spawn_local(async move {
                send(&link, id, &mut body).await;
                body.part().await;
            });
        }
        let parts = head(link, id).await.ok_or(SendError::Broke)?;
        Ok(Response::from_parts(parts, answer))
    }
}

async fn head(link: &Link, id: StreamId) -> Option<response::Parts> {
    poll_fn(|cx| match link.engine.borrow_mut().take_response(id) {
        Ok(Some(parts)) => Poll::Ready(Some(parts)),
        Ok(None) if !link.over.get() => {
            link.wait(id, Side::Reader, cx);
            Poll::Pending
        }
        _ => Poll::Ready(None),
    })
    .await
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0 {
            self.0.wake_carrier();
        }
    }
}
