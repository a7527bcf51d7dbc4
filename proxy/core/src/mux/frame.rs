//! Frames: eight bytes of head, then so many of payload.
//!
//! ```text
//!  0       3             4         8
//!  | length | end + kind | stream | payload …
//! ```
//! Numbers are big-endian. Every field has one valid reading; a byte that has none ends the connection.

use super::{MuxError, StreamId, limits};
use bytes::BufMut;

/// Bytes of a frame's head.
pub const HEAD_LEN: usize = 8;
/// The last frame of one direction of a stream.
const END: u8 = 0x80;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The head of a request, which opens its stream, or of a response.
    Head,
    /// A part of a body.
    Data,
    /// Trailers, always the end.
    Trailers,
    /// The end of a stream before its time: one byte of [`super::Reset`].
    Reset,
    /// So many more bytes may be sent: on a stream, or with stream 0 on the connection.
    Window,
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// No new stream will be opened by the sender, or may be opened towards it.
    Leave,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Data => 2,
            Self::Trailers => 3,
            Self::Reset => 4,
            Self::Window => 5,
            Self::Ping => 6,
            Self::Pong => 7,
            Self::Leave => 8,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Head,
            2 => Self::Data,
            3 => Self::Trailers,
            4 => Self::Reset,
            5 => Self::Window,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Leave,
            _ => return None,
        })
    }

    /// Shortest and longest payload.
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Head | Self::Trailers => (2, limits::HEAD_BYTES_MAX),
            // An empty frame of data says nothing, and costs its reader a turn: it is allowed only as an end.
            Self::Data => (0, limits::DATA_BYTES_MAX),
            Self::Reset => (1, 1),
            Self::Window => (4, 4),
            Self::Ping | Self::Pong | Self::Leave => (0, 0),
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of payload.
    pub length: usize,
    /// What it carries.
    pub kind: Kind,
    /// Whether it is the last of its direction.
    pub end: bool,
    /// Its stream; [`StreamId::CONNECTION`] for what concerns none.
    pub stream: StreamId,
}

/// Reads the head of a frame.
///
/// # Errors
/// [`MuxError::Frame`] naming what is wrong.
pub fn decode(bytes: [u8; HEAD_LEN]) -> Result<FrameHead, MuxError> {
    let [l0, l1, l2, code, s0, s1, s2, s3] = bytes;
    let wrong = |what| Err(MuxError::Frame { what });
    let Some(kind) = Kind::from_code(code & !END) else {
        return wrong("unknown kind");
    };
    let head = FrameHead {
        length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
        kind,
        end: code & END != 0,
        stream: StreamId(u32::from_be_bytes([s0, s1, s2, s3])),
    };
    let (shortest, longest) = kind.lengths();
    if head.length < shortest || head.length > longest {
        return wrong("length out of bounds for its kind");
    }
    match kind {
        Kind::Head | Kind::Data if head.stream == StreamId::CONNECTION => wrong("no stream"),
        Kind::Data if head.length == 0 && !head.end => wrong("data without bytes"),
        Kind::Trailers | Kind::Reset if head.stream == StreamId::CONNECTION => wrong("no stream"),
        Kind::Trailers if !head.end => wrong("trailers that are not the end"),
        Kind::Reset | Kind::Window if head.end => wrong("an end that ends nothing"),
        Kind::Ping | Kind::Pong | Kind::Leave
            if head.end || head.stream != StreamId::CONNECTION =>
        {
            wrong("a stream where none is concerned")
        }
        _ => Ok(head),
    }
}

/// Writes the head of a frame.
pub(super) fn encode(out: &mut Vec<u8>, kind: Kind, end: bool, stream: StreamId, length: usize) {
    let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let code = kind.code() | if end { END } else { 0 };
    let [s0, s1, s2, s3] = stream.0.to_be_bytes();
    out.put_slice(&[l0, l1, l2, code, s0, s1, s2, s3]);
}

/// Writes a frame whose payload is written by `payload`, which must keep to the bounds of its kind; takes it back and says
/// `false` if it does not.
pub(super) fn encode_with(
    out: &mut Vec<u8>,
    kind: Kind,
    end: bool,
    stream: StreamId,
    payload: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let start = out.len();
    encode(out, kind, end, stream, 0);
    payload(out);
    let length = out.len() - start - HEAD_LEN;
    let (shortest, longest) = kind.lengths();
    if length < shortest || length > longest {
        out.truncate(start);
        return false;
    }
    let [_, bytes @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(start..start + 3) {
        place.copy_from_slice(&bytes);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_has_one_reading() {
        let mut read = 0;
        for code in 0..=u8::MAX {
            for (length, stream) in [
                (0, 0),
                (0, 257),
                (1, 257),
                (1, 0),
                (4, 0),
                (4, 257),
                (2, 257),
                (2, 0),
                (0xFF_FFFF, 257),
            ] {
                let [_, l0, l1, l2] = u32::to_be_bytes(length);
                let [s0, s1, s2, s3] = u32::to_be_bytes(stream);
                let bytes = [l0, l1, l2, code, s0, s1, s2, s3];
                let Ok(head) = decode(bytes) else { continue };
                let mut again = Vec::new();
                encode(&mut again, head.kind, head.end, head.stream, head.length);
                assert_eq!(again, bytes[..]);
                read += 1;
            }
        }
        // Head and data with 1 (data only), 2 or 4 bytes, ended or not; an empty end; trailers; reset; two windows; three bare ones.
        assert_eq!(read, 2 * 2 + 2 * 3 + 1 + 2 + 1 + 2 + 3);
    }

    #[test]
    fn a_payload_out_of_bounds_is_taken_back() {
        let mut out = b"before".to_vec();
        let long = vec![0; limits::HEAD_BYTES_MAX + 1];
        assert!(!encode_with(
            &mut out,
            Kind::Head,
            false,
            StreamId(257),
            |out| out.extend_from_slice(&long)
        ));
        assert_eq!(out, b"before"[..]);
        assert!(encode_with(
            &mut out,
            Kind::Head,
            true,
            StreamId(257),
            |out| out.extend_from_slice(b"abc")
        ));
        assert_eq!(out, b"before\0\0\x03\x81\0\0\x01\x01abc"[..]);
    }
}
