//! What a connection of HTTP/1 has read and not taken, and what it has said and not written, on either side.

use crate::limits::HTTP1_READ_BYTES_MAX;
use bytes::{Buf, Bytes, BytesMut};
use mesh_proxy_core::http1::writer::{BodyWriter, WrongLength};
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes of one read, on the stack: most messages fit, and an idle connection has no buffer.
const READ_BYTES: usize = 16 * 1024;
/// Parts of a body up to this are copied behind what stands before them, to leave in one piece.
const SMALL_PART_BYTES: usize = 8 * 1024;

/// Bytes that came and were not taken.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) bytes: BytesMut,
    /// Whether the last read took all that was asked for: much is coming.
    much: bool,
}

impl Input {
    /// Reads more; 0 at the end.
    pub(crate) fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.much {
            self.bytes.reserve(HTTP1_READ_BYTES_MAX);
            let read = pin!(io.read_buf(&mut self.bytes)).poll(cx);
            if read.is_pending() && self.bytes.is_empty() {
                // Whoever sends nothing for hours holds no room for it.
                self.bytes = BytesMut::new();
            }
            let read = ready!(read)?;
            self.much = read >= READ_BYTES;
            return Poll::Ready(Ok(read));
        }
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(io).poll_read(cx, &mut space))?;
        self.bytes.extend_from_slice(space.filled());
        self.much = space.remaining() == 0;
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Keeps no room while nothing is there.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::default();
        }
    }
}

/// Bytes that are made ready and were not written.
#[derive(Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Goes after `bytes`, and then `after`.
    data: Bytes,
    after: &'static [u8],
}

impl Output {
    /// Where a head is written; only before its body begins.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether more of a body can be made ready.
    pub(crate) fn has_room(&self, bytes_max: usize) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.bytes.len() < bytes_max
    }

    /// Makes a part of a body ready. A large one is not copied.
    pub(crate) fn put(&mut self, writer: &mut BodyWriter, data: Bytes) -> Result<(), WrongLength> {
        self.after = writer.before_data(&mut self.bytes, data.len())?;
        if data.len() > SMALL_PART_BYTES {
            self.data = data;
        } else {
            self.bytes.extend_from_slice(&data);
            self.bytes
                .extend_from_slice(std::mem::take(&mut self.after));
        }
        Ok(())
    }

    /// Makes the end of a body ready; only while there is room.
    pub(crate) fn end(&mut self, writer: &mut BodyWriter) -> Result<(), WrongLength> {
        writer.end(&mut self.bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets what cannot be written.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Keeps no more room than what is usual, or none.
    pub(crate) fn rest(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max && self.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Writes all of it, and flushes.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let bytes = self.bytes.get(self.written..).unwrap_or_default();
            let io = Pin::new(&mut *io);
            let wrote = if self.data.is_empty() && self.after.is_empty() {
                ready!(io.poll_write(cx, bytes))?
            } else {
                let pieces = [bytes, &self.data, self.after].map(IoSlice::new);
                ready!(io.poll_write_vectored(cx, &pieces))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(wrote);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn wrote(&mut self, bytes: usize) {
        let of_bytes = bytes.min(self.bytes.len() - self.written);
        self.written += of_bytes;
        if self.written < self.bytes.len() {
            return;
        }
        self.bytes.clear();
        self.written = 0;
        let of_data = (bytes - of_bytes).min(self.data.len());
        self.data.advance(of_data);
        let of_after = bytes - of_bytes - of_data;
        self.after = self.after.get(of_after..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
