//! Bodies as the proxy passes them on: streamed, watched, and ended when their connection or permission ends.

use crate::app::App;
use crate::http1::{Broken, Early, PulledBody, Whole};
use crate::limits::{UNWANTED, UNWANTED_BYTES};
use crate::live::{End, Kill, Registration, Slot};
use crate::mux::body::MuxBody;
use crate::outbound::egress::Leave;
use crate::outbound::pool::Flight;
use crate::pace::Paced;
use crate::remotes::Standing;
use crate::replay::Replay;
use crate::serve::http1::{Lost, OnSwitch};
use crate::tap::Lines;
use crate::telemetry::Measure;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_proxy_core::http_hygiene;
use mesh_proxy_core::metrics::Failure;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A request or response body on its way through.
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// A short text of ours.
    Text(Option<Bytes>),
    /// Somebody's body, passed on.
    Stream(Box<Stream>),
    /// A request body that can be sent again.
    Replay(Replay),
    /// Lines for somebody who looks at requests.
    Lines(Box<Lines>),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Whoever sends it broke off.
    #[error("the sender broke off")]
    Sender(#[source] hyper::Error),
    /// A client of HTTP/1 broke off, or its body is not exact.
    #[error("the client broke off")]
    Client(#[from] Lost),
    /// An application broke off its answer, or the connection to it did.
    #[error("the application broke off")]
    App(#[from] Broken),
    /// The other proxy broke off, or the connection to it.
    #[error("the peer broke off")]
    Peer,
    /// It was ended from here.
    #[error("ended by the proxy: {0:?}")]
    Ended(End),
    /// Another try has taken its place.
    #[error("another try has taken its place")]
    Superseded,
}

/// A body as it comes in.
pub(crate) enum Arriving {
    /// Nothing.
    Nothing,
    /// Over HTTP as strangers speak it.
    Http(Incoming),
    /// Over a connection between proxies.
    Mux(MuxBody),
    /// Over HTTP/1, of a client or of an application's answer, as it is read.
    Pulled(Box<dyn PulledBody>),
    /// Of one that came at once.
    Whole(Whole),
    /// Of a request that has none, and may make its connection a byte stream.
    Switching(OnSwitch),
    /// Of an answer that began before its request was all sent.
    Early(Early),
    /// One that a fault holds to a rate.
    Paced(Box<Paced>),
}

impl From<Incoming> for Arriving {
    fn from(body: Incoming) -> Self {
        Self::Http(body)
    }
}

impl From<MuxBody> for Arriving {
    fn from(body: MuxBody) -> Self {
        Self::Mux(body)
    }
}

impl Arriving {
    /// The stream that the connection becomes if the answer is `101`.
    pub(crate) fn take_switch(&mut self) -> Option<OnSwitch> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Switching(switch) => Some(switch),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Nothing | Self::Switching(_) => Poll::Ready(None),
            Self::Http(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::Sender))),
            Self::Mux(body) => body.poll_frame(cx),
            Self::Pulled(body) => body.poll_frame(cx),
            Self::Whole(body) => Poll::Ready(body.take().map(Frame::data).map(Ok)),
            Self::Early(body) => body.poll_frame(cx),
            Self::Paced(body) => body.poll_frame(cx),
        }
    }

    /// Whether nothing more will come.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing | Self::Switching(_) => true,
            Self::Http(body) => body.is_end_stream(),
            Self::Mux(body) => body.is_end_stream(),
            Self::Pulled(body) => body.is_end_stream(),
            Self::Whole(body) => body.is_end_stream(),
            Self::Early(body) => body.is_end_stream(),
            Self::Paced(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing | Self::Switching(_) => SizeHint::with_exact(0),
            Self::Http(body) => body.size_hint(),
            Self::Mux(body) => body.size_hint(),
            Self::Pulled(body) => body.size_hint(),
            Self::Whole(body) => body.size_hint(),
            Self::Early(body) => body.size_hint(),
            Self::Paced(body) => body.size_hint(),
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint()
    }
}

/// A body passed on.
pub(crate) struct Stream {
    inner: Arriving,
    kill: Kill,
    slot: Slot,
    /// Whether an end from here is told in gRPC trailers.
    grpc: bool,
    finished: bool,
    held: Held,
}

/// What lives as long as a response body.
#[derive(Default)]
#[expect(dead_code, reason = "some of it is kept only to be dropped at the end")]
pub(crate) struct Held {
    pub(crate) registration: Option<Registration>,
    pub(crate) measure: Option<Measure>,
    /// Place of the request on its connection in the mesh.
    pub(crate) flight: Option<Flight>,
    /// Place of its connection among those in the mesh.
    pub(crate) standing: Option<Standing>,
    /// Place of the request among what has left the mesh.
    pub(crate) leave: Option<Leave>,
    /// Who sends it, outside of the mesh: its connections are in use meanwhile.
    pub(crate) app: Option<Rc<App>>,
}

impl Body {
    /// A short text of ours.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()))
    }

    /// Resolves once a body that is passed on was ended from here, whether or not anybody reads it.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<End> {
        match self {
            Self::Stream(stream) if !stream.finished => stream.kill.poll(stream.slot, cx),
            Self::Lines(lines) => lines.poll_over(cx),
            _ => Poll::Pending,
        }
    }

    /// Reads on for a moment what nobody wants: a client that is still sending gets to the answer that is there already.
    /// Over HTTP/2 one that drops it at once resets the stream, which curl before 8 takes for a failure of its request.
    pub(crate) async fn part(mut self) {
        let mut left = UNWANTED_BYTES;
        let rest = async {
            while left > 0 && !HttpBody::is_end_stream(&self) {
                let frame = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        // Whoever takes longer finds the stream reset.
        let _ = tokio::time::timeout(UNWANTED, rest).await;
    }

    /// A request body on its way to the server.
    pub(crate) fn request(inner: Arriving, kill: Kill) -> Self {
        if inner.is_end_stream() {
            return Self::Empty;
        }
        let held = Held::default();
        Self::Stream(Box::new(Stream {
            inner,
            kill,
            slot: Slot::Request,
            grpc: false,
            finished: false,
            held,
        }))
    }

    /// A response body on its way to the client.
    pub(crate) fn response(inner: impl Into<Arriving>, kill: Kill, grpc: bool, held: Held) -> Self {
        Self::Stream(Box::new(Stream {
            inner: inner.into(),
            kill,
            slot: Slot::Response,
            grpc,
            finished: false,
            held,
        }))
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        if let Poll::Ready(end) = self.kill.poll(self.slot, cx) {
            self.finish(false);
            return Poll::Ready(Some(if self.grpc {
                Ok(Frame::trailers(trailers(told_of(end))))
            } else {
                Err(BodyError::Ended(end))
            }));
        }
        match self.inner.poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.finish(false);
                Poll::Ready(Some(match error {
                    BodyError::Peer if self.grpc => Ok(Frame::trailers(trailers(PEER_BROKE))),
                    error => Err(error),
                }))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = clean(frame);
                if let (Some(trailers), Some(measure)) = (frame.trailers_ref(), &self.held.measure)
                {
                    measure.trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn finish(&mut self, well: bool) {
        self.finished = true;
        let held = std::mem::take(&mut self.held);
        if let (false, Some(measure)) = (well, &held.measure) {
            measure.failed(Failure::Reset);
            if let Some(end) = self.kill.why() {
                measure.ended(end);
            }
        }
    }
}

/// Trailers lose every name that may not stand there (threat HD12).
pub(crate) fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            http_hygiene::sanitize_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// A gRPC status and what it is said with.
type Told = (&'static str, &'static str);

/// A reset would be read as "internal error", as if the application had failed; who is told UNAVAILABLE comes again.
const PEER_BROKE: Told = ("14", "the connection to the server broke off");

const fn told_of(end: End) -> Told {
    match end {
        End::Revoked => ("7", "no longer allowed by policy"),
        // Who has a new certificate may come again at once, so an expired one is no matter of permission.
        End::PeerExpired => ("14", "the certificate of the client is no longer valid"),
    }
}

fn trailers((status, message): Told) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.finished {
            // A reader that knows the length stops without asking for the end.
            let well = self.inner.is_end_stream();
            self.finish(well);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Stream(stream) => stream.poll(cx),
            Self::Replay(replay) => replay.poll(cx),
            Self::Lines(lines) => lines.poll(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_none(),
            Self::Stream(stream) => stream.finished || stream.inner.is_end_stream(),
            Self::Replay(replay) => replay.is_end(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Stream(stream) if stream.finished => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.inner.size_hint(),
            Self::Replay(replay) => replay.size(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
