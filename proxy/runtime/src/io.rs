//! Streams with bytes read ahead, and socket options that every connection gets.

use crate::limits::READ_AHEAD_BYTES;
use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Silence after which the kernel asks whether the peer is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Unacknowledged for so long, the connection is dead (fault F14).
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream that can be ended such that the other side sees an error, not an end: what was carried is not all there was.
pub(crate) trait BreakOff {
    /// Has the connection reset once it is dropped. What waits to be sent is thrown away.
    fn break_off(&self);
}

impl BreakOff for TcpStream {
    fn break_off(&self) {
        // A socket that is gone already has told the other side.
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }
}

impl<T: BreakOff> BreakOff for Prefixed<T> {
    fn break_off(&self) {
        self.inner.break_off();
    }
}

impl<T: BreakOff> BreakOff for ReadAhead<T> {
    fn break_off(&self) {
        self.inner.break_off();
    }
}

impl<T: BreakOff> BreakOff for tokio_rustls::server::TlsStream<T> {
    fn break_off(&self) {
        self.get_ref().0.break_off();
    }
}

impl<T: BreakOff> BreakOff for tokio_rustls::client::TlsStream<T> {
    fn break_off(&self) {
        self.get_ref().0.break_off();
    }
}

/// A byte stream of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A stream whose first bytes were read already, by protocol detection.
pub(crate) struct Prefixed<T> {
    prefix: Bytes,
    inner: T,
}

impl<T> Prefixed<T> {
    pub(crate) fn new(prefix: Bytes, inner: T) -> Self {
        Self { prefix, inner }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let take = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(take));
        if !self.prefix.has_remaining() {
            self.prefix = Bytes::new(); // lets go of the detection buffer
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream below TLS, read in large pieces while much arrives.
///
/// Direct --a read filled all that was asked for--> Ahead --little came, or nothing waits--> Direct (buffer given back)
pub(crate) struct ReadAhead<T> {
    inner: T,
    ahead: bool,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that wait: from `start` to `end`.
    start: usize,
    end: usize,
}

impl<T> ReadAhead<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            ahead: false,
            buffer: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    fn direct(&mut self) {
        self.ahead = false;
        self.buffer = Vec::new();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end && this.ahead {
            if this.buffer.is_empty() {
                this.buffer = vec![0; READ_AHEAD_BYTES];
            }
            let mut space = ReadBuf::new(&mut this.buffer);
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut space);
            (this.start, this.end) = (0, space.filled().len());
            if !matches!(read, Poll::Ready(Ok(()))) || this.end == 0 {
                this.direct();
                return read;
            }
        }
        if this.start < this.end {
            let waiting = this.buffer.get(this.start..this.end).unwrap_or_default();
            let take = waiting.len().min(buf.remaining());
            buf.put_slice(waiting.get(..take).unwrap_or_default());
            this.start += take;
            if this.start == this.end && this.end < READ_AHEAD_BYTES / 4 {
                this.direct();
            }
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.ahead = buf.remaining() == 0;
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Small writes leave at once; a peer that is gone is noticed. A socket that refuses an option still works.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let results = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE_AFTER)
                .with_interval(KEEPALIVE_AFTER),
        ),
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT)),
    ];
    if let Some(error) = results.into_iter().find_map(Result::err) {
        tracing::debug!(%error, "a socket option was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn read_ahead_changes_no_byte_and_keeps_no_buffer_when_idle() {
        let (mut near, far) = tokio::io::duplex(200_000);
        let mut far = ReadAhead::new(far);
        let sent: Vec<u8> = (0..150_000_u32).map(|n| (n / 7) as u8).collect();
        near.write_all(&sent).await.expect("room");
        let mut received = Vec::new();
        let mut piece = [0; 4096];
        while received.len() < sent.len() {
            let length = far.read(&mut piece).await.expect("readable");
            received.extend_from_slice(&piece[..length]);
        }
        assert!(received == sent, "{} bytes", received.len());
        near.write_all(b"more").await.expect("room");
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("readable");
        assert_eq!(rest, b"more");
        assert_eq!(far.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn bytes_read_before_come_first() {
        let mut stream = Prefixed::new(Bytes::from_static(b"GET "), &b"/ HTTP/1.1"[..]);
        let mut all = String::new();
        stream.read_to_string(&mut all).await.expect("readable");
        assert_eq!(all, "GET / HTTP/1.1");
    }
}
