//! Streams that take as much as they like, and wait as long.

use super::*;
use futures_util::task::noop_waker;
use mesh_proxy_core::http1::answer::{Asked, put_head};

/// Takes `room` bytes, and then nothing until it is given more.
struct Narrow {
    room: usize,
    taken: Vec<u8>,
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Poll::Pending;
        }
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn chunked() -> BodyWriter {
    let asked = Asked {
        http11: true,
        head: false,
        may_switch: false,
        persists: true,
    };
    let (parts, ()) = http::Response::new(()).into_parts();
    let begun = put_head(&mut Vec::new(), &parts, asked, None, false);
    begun.expect("an answer").body
}

/// Wherever a reader stops reading, what it gets in the end is the same.
#[test]
fn chunks_keep_their_ends_wherever_the_stream_waits() {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let parts = [vec![b'A'; 9_000], vec![b'B'; 10], vec![b'C'; 9_000]];
    let mut want = Vec::new();
    for part in &parts {
        want.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        want.extend_from_slice(part);
        want.extend_from_slice(b"\r\n");
    }
    want.extend_from_slice(b"0\r\n\r\n");
    for stop in 0..want.len() {
        let mut out = Output::default();
        let mut writer = chunked();
        let mut io = Narrow {
            room: stop,
            taken: Vec::new(),
        };
        let mut left = parts.iter();
        let mut ended = false;
        while !ended || !out.is_empty() {
            while !ended && out.has_room(1 << 16) {
                match left.next() {
                    Some(part) => out.put(&mut writer, part.clone().into()).expect("fits"),
                    None => {
                        out.end(&mut writer).expect("fits");
                        ended = true;
                    }
                }
            }
            if out.poll_write(&mut io, &mut cx).is_pending() {
                io.room = usize::MAX;
            }
        }
        assert!(io.taken == want, "stopped after {stop} bytes");
    }
}

/// A stream that had much and has nothing more.
struct Dry(Vec<u8>);

impl AsyncRead for Dry {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let count = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0.drain(..count).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

#[test]
fn who_waits_in_the_middle_of_much_holds_no_room() {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    let mut input = Input::default();
    let mut io = Dry(vec![0; READ_BYTES]);
    assert!(input.poll_read(&mut io, &mut cx).is_ready() && input.much);
    input.bytes = BytesMut::new();
    assert!(input.poll_read(&mut io, &mut cx).is_pending());
    assert_eq!(input.bytes.capacity(), 0);
}
