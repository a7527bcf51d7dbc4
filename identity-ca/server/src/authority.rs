//! Lets clients in that name a Unix socket in `:authority` as gRPC's C core does.
//!
//! For `unix:///run/api.sock` that library (and so Python, Ruby, PHP and C++) sends `:authority: run%2Fapi.sock`. RFC
//! 3986 allows it, the HTTP library here does not and resets the stream. Nobody reads the authority of a Unix socket,
//! so [`Rewriter`] replaces the percent signs in it on the way in, byte for byte: no length changes, and the header
//! table of both sides stays the same. A value that is Huffman-coded, or a head in CONTINUATION frames, is left alone;
//! that library sends neither.

use std::collections::VecDeque;

/// Bytes of HTTP/2's preface (RFC 9113 §3.4).
const PREFACE_LEN: usize = 24;
/// Bytes of a frame's head (RFC 9113 §4.1).
const FRAME_HEAD_LEN: usize = 9;
/// Largest frame a peer may send that was not told otherwise (RFC 9113 §4.2); larger ones pass as they are.
const FRAME_LEN_MAX: usize = 16_384;
/// Type of a HEADERS frame, and the flags that move its block (RFC 9113 §6.2).
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// Turns received bytes into bytes for the HTTP library.
#[derive(Debug)]
pub(crate) struct Rewriter {
    /// Received, and not yet looked at: the beginning of a frame at most.
    raw: Vec<u8>,
    /// Bytes that pass before the next frame begins.
    pass: usize,
    ready: VecDeque<u8>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self {
            raw: Vec::new(),
            pass: PREFACE_LEN,
            ready: VecDeque::new(),
        }
    }
}

impl Rewriter {
    /// Takes what was received.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        while self.step() {}
    }

    /// Hands over what is ready, as much as `out` holds; says how much.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.ready.len());
        for (place, byte) in out.iter_mut().zip(self.ready.drain(..count)) {
            *place = byte;
        }
        count
    }

    /// At the end of the connection: what is left is not a whole frame, and passes as it is.
    pub(crate) fn finish(&mut self) {
        self.ready.extend(self.raw.drain(..));
    }

    /// Whether nothing is ready.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// One step through `raw`; false if it takes more bytes.
    fn step(&mut self) -> bool {
        if self.pass > 0 {
            let count = self.pass.min(self.raw.len());
            self.pass -= count;
            self.ready.extend(self.raw.drain(..count));
            return count > 0;
        }
        let Some(&[high, middle, low, kind, flags]) = self.raw.first_chunk::<5>() else {
            return false;
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != HEADERS || length > FRAME_LEN_MAX {
            self.pass = FRAME_HEAD_LEN + length;
            return true;
        }
        match self.raw.get_mut(FRAME_HEAD_LEN..FRAME_HEAD_LEN + length) {
            None => false,
            Some(payload) => {
                // A block that cannot be followed passes as it is: the HTTP library refuses it.
                let _ = block_of(payload, flags).and_then(rewrite);
                self.pass = FRAME_HEAD_LEN + length;
                true
            }
        }
    }
}

/// The header block in the payload of a HEADERS frame.
fn block_of(payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let padding = if flags & PADDED == 0 {
        0
    } else {
        usize::from(*payload.first()?)
    };
    let start = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding)?;
    payload.get_mut(start..end)
}

/// Walks a header block (RFC 7541 §6) and replaces `%` in every plain value of `:authority`.
fn rewrite(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let name = match first {
            // Indexed field; size update.
            0x80.. => None,
            0x20..0x40 => None,
            // Literal: with indexing, or without.
            0x40.. => Some(6),
            _ => Some(4),
        };
        let prefix = name.unwrap_or(if first & 0x80 == 0 { 5 } else { 7 });
        let index = integer(block, &mut at, prefix)?;
        if name.is_none() {
            continue;
        }
        let is_authority = if index == 0 {
            let name = text(block, &mut at)?;
            block.get(name)? == b":authority"
        } else {
            index == AUTHORITY
        };
        let plain = block.get(at)? & 0x80 == 0;
        let value = text(block, &mut at)?;
        if is_authority && plain {
            for byte in block.get_mut(value)? {
                *byte = if *byte == b'%' { b'-' } else { *byte };
            }
        }
    }
    Some(())
}

/// The range of a string literal (RFC 7541 §5.2); moves past it.
fn text(block: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    let length = integer(block, at, 7)?;
    let end = at.checked_add(length).filter(|end| *end <= block.len())?;
    let range = *at..end;
    *at = end;
    Some(range)
}

/// An integer with a prefix of `bits` bits (RFC 7541 §5.1); moves past it. None if it is cut off or above 2^28.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(value.len()).unwrap()], value].concat()
    }

    fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut rewriter = Rewriter::default();
        let mut out = Vec::new();
        for part in bytes.chunks(piece) {
            rewriter.push(part);
            let mut buffer = [0; 7];
            while !rewriter.is_empty() {
                let count = rewriter.take(&mut buffer);
                out.extend_from_slice(&buffer[..count]);
            }
        }
        rewriter.finish();
        let mut rest = vec![0; 100_000];
        let count = rewriter.take(&mut rest);
        out.extend_from_slice(&rest[..count]);
        out
    }

    /// Preface, settings, then a head with `:method POST`, a path with `%` and the authority.
    fn connection(authority_first_byte: u8, flags: u8, before: &[u8], after: &[u8]) -> Vec<u8> {
        let block = [
            vec![0x83],
            literal(0x44, b"/a%2Fb"),
            literal(authority_first_byte, b"run%2Fapi.sock"),
        ]
        .concat();
        let payload = [before, &block, after].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        [
            preface,
            frame(4, 0, &[]),
            frame(HEADERS, flags, &payload),
            frame(0, 1, b"50%"),
        ]
        .concat()
    }

    #[test]
    fn only_the_percent_signs_of_the_authority_change_however_the_bytes_arrive() {
        for first in [0x41, 0x01, 0x11] {
            for (flags, before, after) in [
                (0x4, &[][..], &[][..]),
                (0x4 | PADDED, &[2], &[0, 0]),
                (0x4 | PRIORITY, &[0, 0, 0, 0, 9], &[]),
                (0x4 | PADDED | PRIORITY, &[1, 0, 0, 0, 0, 9], &[0]),
            ] {
                let sent = connection(first, flags, before, after);
                let text =
                    String::from_utf8_lossy(&sent).replace("run%2Fapi.sock", "run-2Fapi.sock");
                for piece in [1, 2, 9, 10, 33, 1_000] {
                    let got = through(&sent, piece);
                    assert_eq!(
                        String::from_utf8_lossy(&got),
                        text,
                        "{first:x} {flags:x} {piece}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_authority_that_is_spelled_out_is_found() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let block = [
            &literal(0x40, b":path")[..],
            b"\x02/%",
            &literal(0x40, b":authority"),
            b"\x03a%b",
            &[0x83],
        ]
        .concat();
        let sent = [preface, frame(HEADERS, 0x4, &block)].concat();
        let text = String::from_utf8_lossy(&sent).replace("a%b", "a-b");
        assert_eq!(String::from_utf8_lossy(&through(&sent, 11)), text);
    }

    #[test]
    fn what_cannot_be_followed_passes_as_it_is() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for payload in [
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[0x41, 20, b'%'],
            &[0x00, 0x05],
            &[0x41, 0x83, b'%', b'%', b'%'],
            &[0xff],
        ] {
            let sent = [preface.clone(), frame(HEADERS, 0x4, payload)].concat();
            assert_eq!(through(&sent, 3), sent, "{payload:?}");
        }
        let cut = [preface, frame(HEADERS, PADDED, &[9])].concat();
        assert_eq!(through(&cut, 5), cut, "more padding than payload");
        assert_eq!(through(b"GET / HTTP/1.1\r\n", 4), b"GET / HTTP/1.1\r\n");
    }
}
