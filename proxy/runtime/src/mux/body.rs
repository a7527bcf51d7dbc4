//! Bodies on a multiplexed connection, in and out.

use super::{Link, Side};
use crate::body::{Body, BodyError};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use mesh_proxy_core::mux::{Sent, StreamId, Taken};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A body that comes from the peer. A client's, dropped before its end, ends its stream.
pub(crate) struct MuxBody {
    link: Rc<Link>,
    id: StreamId,
    client: bool,
}

impl MuxBody {
    pub(super) fn of_request(link: Rc<Link>, id: StreamId) -> Self {
        Self {
            link,
            id,
            client: false,
        }
    }

    pub(super) fn of_response(link: Rc<Link>, id: StreamId) -> Self {
        Self {
            link,
            id,
            client: true,
        }
    }

    pub(crate) fn poll_frame(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.link.with(|engine| engine.take(self.id)) {
            Taken::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Taken::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Taken::End => Poll::Ready(None),
            Taken::Broken => Poll::Ready(Some(Err(BodyError::Peer))),
            Taken::Pending if self.link.over.get() => Poll::Ready(Some(Err(BodyError::Peer))),
            Taken::Pending => {
                self.link.wait(self.id, Side::Reader, cx);
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.link.engine.borrow().is_read(self.id)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let length = self.link.engine.borrow().length(self.id);
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for MuxBody {
    fn drop(&mut self) {
        if self.client {
            self.link.with(|engine| engine.abandon(self.id));
            self.link.wake(self.id, Side::Writer);
            // Whoever closes connections that nobody uses looks at the number of streams.
            if self.link.senders.get() == 0 {
                self.link.wake_carrier();
            }
        }
    }
}

/// Sends a body to its end, or until nobody wants it any more.
pub(super) async fn send(link: &Link, id: StreamId, body: &mut Body) {
    loop {
        let frame = poll_fn(|cx| {
            if link.over.get() || !link.engine.borrow().is_wanted(id) {
                return Poll::Ready(None);
            }
            link.wait(id, Side::Writer, cx);
            Pin::new(&mut *body).poll_frame(cx).map(Some)
        });
        let Some(frame) = frame.await else { return };
        match frame {
            None => {
                link.with(|engine| engine.send_data(id, &mut Bytes::new(), true));
                return;
            }
            Some(Err(_)) => {
                link.with(|engine| engine.break_off(id));
                return link.wake(id, Side::Reader);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let end = body.is_end_stream();
                    if !send_data(link, id, data, end, body).await || end {
                        return;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return link.with(|engine| engine.send_trailers(id, &trailers));
                    }
                }
            },
        }
    }
}

/// `false`: nobody wants it any more.
async fn send_data(link: &Link, id: StreamId, mut data: Bytes, end: bool, body: &Body) -> bool {
    poll_fn(|cx| {
        if link.over.get() {
            return Poll::Ready(false);
        }
        match link.with(|engine| engine.send_data(id, &mut data, end)) {
            Sent::All => Poll::Ready(true),
            Sent::Gone => Poll::Ready(false),
            // A peer that does not read must not keep alive what policy has ended.
            Sent::Blocked if body.poll_ended(cx).is_ready() => {
                link.with(|engine| engine.break_off(id));
                link.wake(id, Side::Reader);
                Poll::Ready(false)
            }
            Sent::Blocked => {
                link.wait(id, Side::Writer, cx);
                Poll::Pending
            }
        }
    })
    .await
}
