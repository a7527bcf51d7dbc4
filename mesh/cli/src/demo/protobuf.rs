//! The few protobuf bytes of the shop's messages, and gRPC's length prefix around them.
//!
//! ```text
//! message ChargeRequest { string order = 1; uint64 amount = 2; }
//! message ChargeReply   { string entry = 1; }
//! message WatchRequest  {}
//! message WatchReply    { uint64 sequence = 1; }
//! ```
//! Written by hand: four messages are no reason for a compiler of schemas.

use bytes::{BufMut, Bytes, BytesMut};

/// Longest message that is read. The shop's own have a few bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Appends a string field.
pub(super) fn string_field(out: &mut BytesMut, number: u8, value: &str) {
    out.put_u8(number << 3 | 2);
    varint(out, value.len() as u64);
    out.put_slice(value.as_bytes());
}

/// Appends an integer field.
pub(super) fn uint_field(out: &mut BytesMut, number: u8, value: u64) {
    out.put_u8(number << 3);
    varint(out, value);
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The integer field `number` of `message`, 0 if it is not there (proto3), `None` if the bytes are malformed.
pub(super) fn read_uint_field(message: &[u8], number: u64) -> Option<u64> {
    let mut rest = message;
    let mut found = 0;
    while !rest.is_empty() {
        let (tag, after) = read_varint(rest)?;
        rest = match tag & 7 {
            0 => {
                let (value, after) = read_varint(after)?;
                if tag >> 3 == number {
                    found = value;
                }
                after
            }
            1 => after.get(8..)?,
            2 => {
                let (length, after) = read_varint(after)?;
                after.get(usize::try_from(length).ok()?..)?
            }
            5 => after.get(4..)?,
            _ => return None,
        };
    }
    Some(found)
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// `message` behind gRPC's prefix: not compressed, length in four bytes.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// The first message in `bytes`, without its prefix, if it is there whole and not compressed.
pub(super) fn unframed(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    if prefix.first() != Some(&0) {
        return None;
    }
    rest.get(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = BytesMut::new();
        string_field(&mut message, 1, "order-1");
        uint_field(&mut message, 2, 300);
        assert_eq!(message.as_ref(), b"\x0a\x07order-1\x10\xac\x02");
        assert_eq!(read_uint_field(&message, 2), Some(300));
        assert_eq!(read_uint_field(&message, 9), Some(0));
        assert_eq!(unframed(&framed(&message)), Some(message.as_ref()));
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for bytes in [
            &b"\x10"[..],
            b"\x10\xff",
            b"\x0a\x09x",
            b"\x0b",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        ] {
            assert_eq!(read_uint_field(bytes, 2), None, "{bytes:?}");
        }
        for bytes in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02x", b"\x01\0\0\0\0"] {
            assert_eq!(unframed(bytes), None, "{bytes:?}");
        }
    }
}
