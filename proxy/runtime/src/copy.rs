//! Carries bytes both ways between two streams until both sides have finished, or the connection may live no longer.
//!
//! Each direction ends on its own (half-close). Buffers start small, double while reads fill them, and are given back
//! as soon as there is nothing to carry.

use crate::limits::{COPY_BYTES_MAX, COPY_BYTES_MIN};
use crate::live::{End, Kill, Slot};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was carried, and why it ended.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Bytes from the first stream to the second.
    pub(crate) up: u64,
    /// Bytes from the second stream to the first.
    pub(crate) down: u64,
    /// How it ended.
    pub(crate) finish: Finish,
}

/// How a byte stream ended.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides said so.
    Closed,
    /// One side broke.
    Broken(io::Error),
    /// It was ended from here.
    Ended(End),
}

/// Carries bytes between `a` and `b`.
pub(crate) async fn both_ways<A, B>(a: &mut A, b: &mut B, kill: &Kill) -> Carried
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let finish = poll_fn(|cx| {
        if let Poll::Ready(end) = kill.poll(Slot::Response, cx) {
            return Poll::Ready(Finish::Ended(end));
        }
        let there = up.poll(cx, a, b);
        let back = down.poll(cx, b, a);
        match (there, back) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(Finish::Broken(error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Finish::Closed),
            _ => Poll::Pending,
        }
    })
    .await;
    Carried {
        up: up.carried,
        down: down.carried,
        finish,
    }
}

/// Reading --end of input--> Closing --flushed and shut down--> Closed
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Reading,
    Closing,
    Closed,
}

/// One direction of a byte stream.
#[derive(Debug)]
struct Direction {
    state: State,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that wait: from `start` to `end`.
    start: usize,
    end: usize,
    /// Size of the next buffer.
    size: usize,
    flush: bool,
    carried: u64,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            state: State::Reading,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            size: COPY_BYTES_MIN,
            flush: false,
            carried: 0,
        }
    }
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Closed;
                }
                State::Reading => {
                    ready!(self.write_out(cx, to))?;
                    match self.fill(cx, from)? {
                        Poll::Ready(true) => {}
                        Poll::Ready(false) => {
                            self.give_back();
                            self.state = State::Closing;
                        }
                        Poll::Pending => {
                            self.give_back();
                            if self.flush {
                                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                                self.flush = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    fn write_out<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
            let written = ready!(Pin::new(&mut *to).poll_write(cx, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += written;
            self.carried += written as u64;
            self.flush = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready with whether there is more to come.
    fn fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> io::Result<Poll<bool>> {
        if self.buffer.len() != self.size {
            self.buffer = vec![0; self.size];
        }
        let mut space = ReadBuf::new(&mut self.buffer);
        match Pin::new(from).poll_read(cx, &mut space) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) => {}
        }
        self.start = 0;
        self.end = space.filled().len();
        if self.end == self.size && self.size < COPY_BYTES_MAX {
            self.size *= 2;
        }
        Ok(Poll::Ready(self.end > 0))
    }

    fn give_back(&mut self) {
        self.buffer = Vec::new();
        self.size = COPY_BYTES_MIN.max(self.size / 2);
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn one_side_may_finish_while_the_other_still_answers() {
        let (mut client, mut near) = tokio::io::duplex(64);
        let (mut far, mut server) = tokio::io::duplex(64);
        let serve = async {
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).await.expect("the question");
            server.write_all(b"answer").await.expect("room");
            drop(server);
            asked
        };
        let ask = async {
            client.write_all(&[7; 100_000]).await.expect("room");
            client.shutdown().await.expect("half-close");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("the answer");
            answer
        };
        let kill = Kill::default();
        let (carried, asked, answer) =
            tokio::join!(both_ways(&mut near, &mut far, &kill), serve, ask);
        assert_eq!(
            (asked.len(), answer.as_slice()),
            (100_000, b"answer".as_slice())
        );
        assert!(
            matches!(
                carried,
                Carried {
                    up: 100_000,
                    down: 6,
                    finish: Finish::Closed
                }
            ),
            "{carried:?}"
        );
    }

    #[tokio::test]
    async fn an_ended_stream_carries_no_further_byte() {
        let (_client, mut near) = tokio::io::duplex(64);
        let (mut far, _server) = tokio::io::duplex(64);
        let kill = Kill::default();
        kill.end(End::Revoked);
        let carried = both_ways(&mut near, &mut far, &kill).await;
        assert!(
            matches!(carried.finish, Finish::Ended(End::Revoked)),
            "{carried:?}"
        );
    }
}
