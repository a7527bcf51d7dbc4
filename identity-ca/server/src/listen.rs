//! Unix sockets whose connections know the process at the other end, bounded in number.

use crate::authority::Rewriter;
use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PROCESS_MAX, HEADER_LIST_BYTES_MAX};
use mesh_platform::process::{PeerProcess, peer_of};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// Bytes asked of a socket at once: a request of this API with room to spare.
const READ_BYTES: usize = 4_096;

/// The process at the other end of a connection, as the kernel names it.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Arc<PeerProcess>);

/// How many of something each process has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Mutex<HashMap<u32, usize>>>);

/// One of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counts: Counts,
    pid: u32,
}

impl Counts {
    /// Takes one for `pid`, unless it has `each` or all have `all` already.
    pub(crate) fn take(&self, pid: u32, each: usize, all: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= all
            || counts.get(&pid).is_some_and(|count| *count >= each)
        {
            return None;
        }
        *counts.entry(pid).or_default() += 1;
        Some(Counted {
            counts: self.clone(),
            pid,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.pid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.pid);
            }
        }
    }
}

/// A connection that knows its peer, of whom services learn `W`.
pub(crate) struct Connection<S = UnixStream, W = Peer> {
    stream: S,
    incoming: Rewriter,
    who: W,
    /// Ready when it ends, whatever its peer does; absent: never.
    over: Option<Pin<Box<Sleep>>>,
    _counted: Counted,
}

impl<S, W> Connection<S, W> {
    /// One that counts as `counted`, and ends after `left` if that is given.
    pub(crate) fn new(stream: S, who: W, left: Option<Duration>, counted: Counted) -> Self {
        Self {
            stream,
            incoming: Rewriter::default(),
            who,
            over: left.map(|left| Box::pin(tokio::time::sleep(left))),
            _counted: counted,
        }
    }
}

impl<S, W: Clone + Send + Sync + 'static> Connected for Connection<S, W> {
    type ConnectInfo = W;

    fn connect_info(&self) -> W {
        self.who.clone()
    }
}

impl<S: AsyncRead + Unpin, W: Unpin> AsyncRead for Connection<S, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(over) = &mut this.over
            && over.as_mut().poll(cx).is_ready()
        {
            let why = "the SVID that was shown has ended";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        while this.incoming.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                this.incoming.finish();
                break;
            }
            this.incoming.push(read.filled());
        }
        let count = this.incoming.take(buf.initialize_unfilled());
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, W: Unpin> AsyncWrite for Connection<S, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The connections of `listener` that `admits` lets in. Never ends.
pub(crate) fn connections(
    listener: UnixListener,
    admits: impl Fn(&PeerProcess) -> bool + Send + 'static,
) -> impl futures_util::Stream<Item = io::Result<Connection>> + Send {
    let counts = Counts::default();
    futures_util::stream::unfold(
        (listener, admits, counts),
        |(listener, admits, counts)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        if let Some(connection) = connection(stream, &admits, &counts) {
                            return Some((Ok(connection), (listener, admits, counts)));
                        }
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: connections that end will give some back.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        },
    )
}

/// A connection, or nothing if its peer is unknown, not admitted, or has too many.
fn connection(
    stream: UnixStream,
    admits: &impl Fn(&PeerProcess) -> bool,
    counts: &Counts,
) -> Option<Connection> {
    let peer = match peer_of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "closed a connection");
            return None;
        }
    };
    if !admits(&peer) {
        tracing::warn!(
            pid = peer.pid,
            uid = peer.uid,
            "closed a connection of a process that may not use this socket"
        );
        return None;
    }
    let Some(counted) = counts.take(peer.pid, CONNECTIONS_PER_PROCESS_MAX, CONNECTIONS_MAX) else {
        tracing::warn!(
            pid = peer.pid,
            "closed a connection: the process has too many, or all have"
        );
        return None;
    };
    Some(Connection::new(stream, Peer(Arc::new(peer)), None, counted))
}

/// A gRPC server with our bounds.
pub(crate) fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(128)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(32))
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_each_and_in_all_and_given_back() {
        let counts = Counts::default();
        let held: Vec<_> = (0..3).filter_map(|_| counts.take(1, 2, 4)).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> = (2..9).filter_map(|pid| counts.take(pid, 2, 4)).collect();
        assert_eq!(others.len(), 2);
        drop(held);
        assert!(counts.take(1, 2, 4).is_some());
        drop(others);
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
