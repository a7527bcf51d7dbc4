//! Reads the first bytes of a connection until they tell its protocol, within one bound from accept.

use bytes::{Bytes, BytesMut};
use mesh_proxy_core::detect::{DetectPolicy, Detection, Detector};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// Bytes asked for at once: a usual request head.
const READ_BYTES: usize = 2 * 1024;

/// What a connection speaks, and the bytes that told.
pub(crate) struct Detected {
    pub(crate) speaks: Detection,
    pub(crate) prefix: Bytes,
}

/// Waits until `deadline`, not longer, for `io` to tell.
///
/// # Errors
/// If `io` cannot be read.
pub(crate) async fn detect<T: AsyncRead + Unpin>(
    io: &mut T,
    policy: DetectPolicy,
    deadline: Instant,
) -> io::Result<Detected> {
    let mut detector = Detector::new(policy);
    let mut buffer = BytesMut::new();
    let speaks = loop {
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let told = match timeout_at(deadline, io.read_buf(&mut buffer)).await {
            Err(_) => detector.on_timeout(),
            Ok(Ok(0)) => detector.on_eof(),
            Ok(Ok(_)) => detector.push(&buffer),
            Ok(Err(error)) => return Err(error),
        };
        if told != Detection::NeedMore {
            break told;
        }
    };
    Ok(Detected {
        speaks,
        prefix: detector.into_prefix(),
    })
}
