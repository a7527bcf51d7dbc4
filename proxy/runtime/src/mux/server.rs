//! The side that answers.

use super::body::{MuxBody, send};
use super::{Carrier, CarryError, Link, Side};
use crate::body::Arriving;
use crate::limits::PARTING;
use crate::live::{Kill, Slot};
use crate::serve::Service;
use http::Request;
use mesh_proxy_core::mux::{Event, Role, StreamId};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

/// Answers the requests of one connection until it ends, is ended through `kill`, or has been drained after `stop`.
pub(crate) async fn serve<T, S>(io: T, stop: impl Future<Output = ()>, kill: &Kill, service: Rc<S>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service,
{
    let link = Link::new(Role::Server);
    let mut carrier = Carrier::new(io, link.clone());
    let mut answers = Answers(Vec::new());
    let mut stop = pin!(stop);
    let mut leaving = false;
    let mut parting = None;
    let ended: Result<(), CarryError> = poll_fn(|cx| {
        // Ended from here: streams have been told through their own switches, and get a moment to say so to the peer.
        if parting.is_none() && kill.poll(Slot::Head, cx).is_ready() {
            link.engine.borrow_mut().leave();
            leaving = true;
            parting = Some(Box::pin(tokio::time::sleep(PARTING)));
        }
        if parting
            .as_mut()
            .is_some_and(|over| over.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Ok(()));
        }
        if !leaving && stop.as_mut().poll(cx).is_ready() {
            leaving = true;
            link.engine.borrow_mut().leave();
        }
        carrier.turn(cx, &mut |event| match event {
            Event::Request { id, parts, end } => {
                let body = if end {
                    Arriving::Nothing
                } else {
                    Arriving::Mux(MuxBody::of_request(link.clone(), id))
                };
                let request = Request::from_parts(*parts, body);
                // Made here: a task that is stopped before it began has answered too.
                let answering = Answering {
                    link: link.clone(),
                    id,
                };
                answers.begin(id, answer(answering, service.clone(), request));
            }
            Event::Broken(id) => answers.stop(id),
            Event::Readable(_) | Event::Writable(_) | Event::AllWritable | Event::Left => {}
        })
    })
    .await;
    if let Err(error) = &ended {
        tracing::debug!(%error, "a mesh connection ended early");
    }
    drop(answers);
    carrier.close().await;
}

/// The tasks that answer, by place: a stream that takes a place anew has a task of its own.
struct Answers(Vec<Option<(StreamId, AbortHandle)>>);

impl Answers {
    fn begin(&mut self, id: StreamId, task: impl Future<Output = ()> + 'static) {
        // Boxed first: the future of a request is large, and the runtime moves what it is given several times.
        let task = Box::pin(task);
        let handle = tokio::task::spawn_local(task).abort_handle();
        if self.0.len() <= id.place() {
            self.0.resize_with(id.place() + 1, || None);
        }
        if let Some(place) = self.0.get_mut(id.place()) {
            *place = Some((id, handle));
        }
    }

    fn stop(&mut self, id: StreamId) {
        if let Some(Some((of, handle))) = self.0.get(id.place())
            && *of == id
        {
            handle.abort();
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let tasks = self.0.iter().flatten();
        tasks.for_each(|(_, handle)| handle.abort());
    }
}

/// A stream that is being answered: over when this is dropped.
struct Answering {
    link: Rc<Link>,
    id: StreamId,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.link.with(|engine| engine.finish(self.id));
        self.link.wake(self.id, Side::Reader);
        if self.link.engine.borrow().is_leaving() {
            self.link.wake_carrier();
        }
    }
}

async fn answer<S: Service>(answering: Answering, service: Rc<S>, request: Request<Arriving>) {
    let (link, id) = (&answering.link, answering.id);
    // What HEAD is answered with has no body, whoever wrote one for it.
    let bodiless = request.method() == http::Method::HEAD;
    let (parts, mut body) = service.answer(request).await.into_parts();
    let end = bodiless || http_body::Body::is_end_stream(&body);
    if !link.with(|engine| engine.respond(id, &parts, end)) {
        tracing::warn!("the head of a response is longer than heads may be");
        return;
    }
    if !end {
        send(link, id, &mut body).await;
    }
}
