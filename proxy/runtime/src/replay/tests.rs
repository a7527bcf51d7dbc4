//! A body that is sent again is the same body; one that is too large is sent once.

use super::*;
use futures_util::task::noop_waker;
use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;

/// A body of frames that come one by one; a pause is `None`.
#[derive(Default)]
struct Slow {
    frames: VecDeque<Option<Frame<Bytes>>>,
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            None => Poll::Ready(None),
            Some(None) => Poll::Pending,
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
        }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn slow(pieces: &[Option<&'static [u8]>]) -> State<Slow> {
    let frame = |piece: &Option<&'static [u8]>| piece.map(|data| Frame::data(Bytes::from(data)));
    State::new(Slow {
        frames: pieces.iter().map(frame).collect(),
    })
}

/// Reads until there is nothing more for now: the data, and how it stopped.
fn read(state: &mut State<Slow>, place: &mut Place) -> (Vec<u8>, &'static str) {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut data = Vec::new();
    loop {
        match state.poll(place, &mut cx) {
            Poll::Pending => return (data, "pending"),
            Poll::Ready(None) => return (data, "end"),
            Poll::Ready(Some(Err(_))) => return (data, "error"),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(_) => data.extend_from_slice(b"+trailers"),
            },
        }
    }
}

#[test]
fn a_later_try_gets_the_whole_body() {
    let mut state = slow(&[Some(b"ab"), None, Some(b"cd")]);
    let mut first = state.begin();
    assert_eq!(read(&mut state, &mut first), (b"ab".to_vec(), "pending"));
    let mut second = state.begin();
    assert_eq!(
        read(&mut state, &mut first),
        (Vec::new(), "error"),
        "its turn is over"
    );
    assert_eq!(read(&mut state, &mut second), (b"abcd".to_vec(), "end"));
    assert!(state.is_end(&second));
    let mut third = state.begin();
    assert_eq!(state.size(&third).exact(), Some(4));
    assert!(!state.is_end(&third));
    assert_eq!(read(&mut state, &mut third), (b"abcd".to_vec(), "end"));
}

#[test]
fn trailers_are_given_to_each_try_once() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("7"));
    trailers.insert("mesh-client-id", http::HeaderValue::from_static("me"));
    let mut state = slow(&[Some(b"a")]);
    state
        .inner
        .frames
        .push_back(Some(Frame::trailers(trailers)));
    for _ in 0..2 {
        let mut place = state.begin();
        assert_eq!(
            read(&mut state, &mut place),
            (b"a+trailers".to_vec(), "end")
        );
    }
    let kept = state.trailers.as_ref().expect("trailers");
    assert_eq!(kept.len(), 1, "without what only proxies write");
}

#[test]
fn what_is_too_large_is_passed_on_and_never_repeated() {
    static PIECE: [u8; REPLAY_BYTES_MAX / 2] = [7; REPLAY_BYTES_MAX / 2];
    for (pieces, whole) in [(2, true), (3, false)] {
        let mut all: Vec<Option<&'static [u8]>> = vec![Some(&PIECE); pieces];
        all.push(Some(b""));
        let mut state = slow(&all);
        let told = Rc::new(Cell::new(None));
        let tell = told.clone();
        state.waiting.push(Box::new(move |body| {
            tell.set(Some(body.map(|body| body.len())))
        }));
        let mut place = state.begin();
        let (data, end) = read(&mut state, &mut place);
        assert_eq!((data.len(), end), (pieces * PIECE.len(), "end"));
        let (stage, want) = if whole {
            (Stage::Whole, Ok(2 * PIECE.len()))
        } else {
            (Stage::TooLarge, Err(NotWhole::TooLarge))
        };
        assert_eq!(state.stage, stage);
        assert_eq!(told.get(), Some(want));
        assert!(whole || state.seen.capacity() == 0, "given back");
    }
}

#[test]
fn a_body_that_nobody_reads_says_so() {
    let told = Rc::new(Cell::new(None));
    let tell = told.clone();
    let mut state = slow(&[Some(b"a")]);
    state.waiting.push(Box::new(move |body| {
        tell.set(Some(body.map(|body| body.len())))
    }));
    drop(state);
    assert_eq!(told.get(), Some(Err(NotWhole::Unread)));
}
