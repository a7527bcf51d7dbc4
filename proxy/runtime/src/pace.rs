//! A body held to a rate, for a fault: each piece is kept back for as long as the rate says that it takes.

use crate::body::{Arriving, BodyError};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Pieces a second, where they have at least a byte: slow bodies come evenly.
const PIECES_PER_SECOND: u32 = 10;

/// A body that comes at most at a rate.
pub(crate) struct Paced {
    inner: Arriving,
    bytes_per_second: u32,
    /// What has come, and is kept back.
    rest: Bytes,
    /// How much of it goes on next, once `wait` is over.
    next: Option<usize>,
    wait: Pin<Box<Sleep>>,
}

impl Paced {
    pub(crate) fn new(inner: Arriving, bytes_per_second: u32) -> Self {
        Self {
            inner,
            bytes_per_second: bytes_per_second.max(1),
            rest: Bytes::new(),
            next: None,
            wait: Box::pin(sleep(Duration::ZERO)),
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(length) = self.next {
                ready!(self.wait.as_mut().poll(cx));
                self.next = None;
                return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))));
            }
            if !self.rest.is_empty() {
                self.keep_back();
                continue;
            }
            match ready!(self.inner.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
    }

    fn keep_back(&mut self) {
        let piece = (self.bytes_per_second / PIECES_PER_SECOND).max(1);
        let length = self.rest.len().min(piece as usize);
        let micros = length as u64 * 1_000_000 / u64::from(self.bytes_per_second);
        self.wait
            .as_mut()
            .reset(Instant::now() + Duration::from_micros(micros));
        self.next = Some(length);
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let (inner, kept) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut out = SizeHint::new();
        out.set_lower(inner.lower().saturating_add(kept));
        if let Some(upper) = inner.upper() {
            out.set_upper(upper.saturating_add(kept));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Whole;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_whole_at_its_rate() {
        let text = Bytes::from(vec![b'x'; 2_500]);
        let whole = Arriving::Whole(Whole::promised(text.clone()));
        let paced = Arriving::Paced(Box::new(Paced::new(whole, 1_000)));
        assert_eq!(http_body::Body::size_hint(&paced).exact(), Some(2_500));
        let began = Instant::now();
        let came = paced.collect().await.unwrap().to_bytes();
        assert_eq!(came, text);
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(2_490)..Duration::from_millis(2_600)).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_is_a_rate() {
        let whole = Arriving::Whole(Whole::promised(Bytes::from_static(b"abc")));
        let mut paced = Arriving::Paced(Box::new(Paced::new(whole, 1)));
        let began = Instant::now();
        for (count, byte) in (1..).zip(*b"abc") {
            let frame = paced.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), [byte][..]);
            assert!(began.elapsed() >= Duration::from_secs(count));
        }
        assert!(paced.is_end_stream());
    }
}
