//! A request body that can be sent again: what has come of it is kept while it is passed on, up to
//! [`REPLAY_BYTES_MAX`]. Nothing waits for a body to be whole, so that streams stay streams.
//!
//! One try at a time reads on; a later one first gets what the earlier ones got.

use crate::body::{Arriving, Body, BodyError, clean};
use crate::limits::REPLAY_BYTES_MAX;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Why there is no whole body to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWhole {
    /// It is larger than what is kept.
    TooLarge,
    /// Nobody read it to its end.
    Unread,
}

impl NotWhole {
    /// As a metric counts it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Unread => "unread",
        }
    }
}

/// Told once what became of a body.
type WhenWhole = Box<dyn FnOnce(Result<Bytes, NotWhole>)>;

/// A request body and what has come of it. Clones are the same body.
pub(crate) struct Kept(Rc<RefCell<State<Arriving>>>);

struct State<B> {
    inner: B,
    seen: Vec<u8>,
    trailers: Option<HeaderMap>,
    stage: Stage,
    /// Which try may read; earlier ones get an error.
    turn: u64,
    reader: Option<Waker>,
    waiting: Vec<WhenWhole>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All that came is kept.
    Open,
    /// All of it came, and is kept.
    Whole,
    /// More came than is kept: the try that reads may go on, no other begins.
    TooLarge,
    /// Its sender broke off.
    Broken,
}

/// The body of one try.
pub(crate) struct Replay {
    from: Rc<RefCell<State<Arriving>>>,
    place: Place,
}

/// How far a try has got.
struct Place {
    turn: u64,
    at: usize,
    trailers_given: bool,
}

impl Kept {
    pub(crate) fn new(inner: Arriving) -> Self {
        Self(Rc::new(RefCell::new(State::new(inner))))
    }

    /// The body of the next try, from the first byte. The try before it, if there was one, gets no more.
    pub(crate) fn begin(&self) -> Body {
        let place = self.0.borrow_mut().begin();
        Body::Replay(Replay {
            from: self.0.clone(),
            place,
        })
    }

    /// Whether another try can have all of it.
    pub(crate) fn can_repeat(&self) -> bool {
        matches!(self.0.borrow().stage, Stage::Open | Stage::Whole)
    }

    /// All of it, if all of it came, was kept, and has no trailers.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let state = self.0.borrow();
        let whole = state.stage == Stage::Whole && state.trailers.is_none();
        whole.then(|| Bytes::copy_from_slice(&state.seen))
    }

    /// Has `tell` called with the body, once all of it came and was kept; or with the reason why that will never be.
    pub(crate) fn when_whole(&self, tell: WhenWhole) {
        self.0.borrow_mut().waiting.push(tell);
    }
}

impl<B> State<B> {
    fn new(inner: B) -> Self {
        Self {
            inner,
            seen: Vec::new(),
            trailers: None,
            stage: Stage::Open,
            turn: 0,
            reader: None,
            waiting: Vec::new(),
        }
    }

    fn begin(&mut self) -> Place {
        self.turn += 1;
        // The try before it is told at once, so that its stream is reset and does not hang.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Place {
            turn: self.turn,
            at: 0,
            trailers_given: false,
        }
    }

    fn tell(&mut self, whole: Result<(), NotWhole>) {
        if self.waiting.is_empty() {
            return;
        }
        let bytes = Bytes::copy_from_slice(&self.seen);
        for tell in self.waiting.drain(..) {
            tell(whole.map(|()| bytes.clone()));
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if self.stage != Stage::Open {
            return;
        }
        if self.seen.len() + data.len() <= REPLAY_BYTES_MAX {
            self.seen.extend_from_slice(data);
        } else {
            self.stage = Stage::TooLarge;
            self.seen = Vec::new();
            self.tell(Err(NotWhole::TooLarge));
        }
    }

    /// What this place has not had of what is kept.
    fn rest(&self, place: &Place) -> &[u8] {
        self.seen.get(place.at..).unwrap_or_default()
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> State<B>
where
    BodyError: From<B::Error>,
{
    fn poll(
        &mut self,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if place.turn != self.turn {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        let rest = self.rest(place);
        if !rest.is_empty() {
            let data = Bytes::copy_from_slice(rest);
            place.at = self.seen.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.stage {
            Stage::Whole => Poll::Ready(self.last(place)),
            Stage::Broken => Poll::Ready(Some(Err(BodyError::Superseded))),
            Stage::Open | Stage::TooLarge => self.read(place, cx),
        }
    }

    fn read(
        &mut self,
        place: &mut Place,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => {
                self.stage = Stage::Broken;
                self.tell(Err(NotWhole::Unread));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => match clean(frame).into_data() {
                Ok(data) => {
                    self.keep(&data);
                    place.at = self.seen.len();
                    if self.inner.is_end_stream() {
                        self.ended();
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.ended();
                    Poll::Ready(self.last(place))
                }
            },
        }
    }

    fn ended(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Whole;
            self.tell(Ok(()));
        }
    }

    /// What follows the data: trailers, then nothing.
    fn last(&self, place: &mut Place) -> Option<Result<Frame<Bytes>, BodyError>> {
        let given = std::mem::replace(&mut place.trailers_given, true);
        let trailers = self.trailers.clone().filter(|_| !given)?;
        Some(Ok(Frame::trailers(trailers)))
    }

    fn is_end(&self, place: &Place) -> bool {
        self.stage == Stage::Whole
            && self.rest(place).is_empty()
            && (self.trailers.is_none() || place.trailers_given)
    }

    fn size(&self, place: &Place) -> SizeHint {
        let rest = self.rest(place).len() as u64;
        if self.stage == Stage::Whole {
            return SizeHint::with_exact(rest);
        }
        let coming = self.inner.size_hint();
        let mut size = SizeHint::new();
        size.set_lower(coming.lower() + rest);
        if let Some(upper) = coming.upper() {
            size.set_upper(upper + rest);
        }
        size
    }
}

impl<B> Drop for State<B> {
    fn drop(&mut self) {
        self.tell(Err(NotWhole::Unread));
    }
}

impl Replay {
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.from.borrow_mut().poll(&mut self.place, cx)
    }

    pub(crate) fn is_end(&self) -> bool {
        self.from.borrow().is_end(&self.place)
    }

    pub(crate) fn size(&self) -> SizeHint {
        self.from.borrow().size(&self.place)
    }
}

#[cfg(test)]
mod tests;
