//! The header at the start of a mesh stream: what follows, and which port of the pod it is for.
//!
//! Twelve bytes, sent once by the client's proxy after the TLS handshake ([`ALPN`]) and before anything else:
//! ```text
//!  0        4         5        6      7       8      10         12
//!  | "MESH" | version | length | kind | flags | port | reserved |
//! ```
//! Every byte has one valid value or is checked; flags and reserved are zero. A peer that sends anything else speaks
//! another protocol, and guessing which would be a second parser of the same bytes.

use crate::error::HeaderError;

/// Application protocol of a connection between proxies, as offered and demanded in the TLS handshake.
pub const ALPN: &[u8] = b"mesh.internal/1";

/// Bytes of an encoded header.
pub const LEN: usize = 12;

const MAGIC: [u8; 4] = *b"MESH";
const VERSION: u8 = 1;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One byte stream.
    Tcp,
    /// Requests of one client to one port, multiplexed ([`crate::mux`]).
    Requests,
    /// One HTTP/1.1 connection with one request that upgrades: HTTP/2 has no form for it.
    Http1,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Requests => 4,
            Self::Http1 => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Tcp),
            4 => Some(Self::Requests),
            3 => Some(Self::Http1),
            _ => None,
        }
    }
}

/// A mesh stream's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Port of the pod that is meant, never 0. Policy is that of this port.
    pub port: u16,
}

/// The header as it goes over the wire.
pub const fn encode(header: &Header) -> [u8; LEN] {
    let [m0, m1, m2, m3] = MAGIC;
    let [p0, p1] = header.port.to_be_bytes();
    [
        m0,
        m1,
        m2,
        m3,
        VERSION,
        LEN as u8,
        header.kind.code(),
        0,
        p0,
        p1,
        0,
        0,
    ]
}

/// Reads a whole header.
///
/// # Errors
/// [`HeaderError`] naming the first field that is wrong.
pub fn decode(bytes: &[u8; LEN]) -> Result<Header, HeaderError> {
    check_prefix(bytes)?;
    let [_, _, _, _, _, _, kind, _, p0, p1, _, _] = *bytes;
    let port = u16::from_be_bytes([p0, p1]);
    match (Kind::from_code(kind), port) {
        (None, _) => Err(HeaderError::Kind { kind }),
        (_, 0) => Err(HeaderError::PortZero),
        (Some(kind), port) => Ok(Header { kind, port }),
    }
}

/// How far a [`Decoder`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are missing.
    NeedMore {
        /// At least 1.
        missing: usize,
    },
    /// The header is complete.
    Done {
        /// The header.
        header: Header,
        /// Bytes of the last push that belong to it; what follows them is the stream's.
        used: usize,
    },
}

/// Reads a header from pieces of any size, and refuses at the first wrong byte.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: [u8; LEN],
    have: usize,
}

impl Decoder {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. After [`Progress::Done`] or an error the decoder is spent.
    ///
    /// # Errors
    /// [`HeaderError`] as soon as the bytes so far cannot become a header.
    pub fn push(&mut self, piece: &[u8]) -> Result<Progress, HeaderError> {
        let used = piece.len().min(LEN - self.have);
        for (place, byte) in self.bytes.iter_mut().skip(self.have).zip(piece) {
            *place = *byte;
        }
        self.have += used;
        if self.have < LEN {
            check_prefix(self.bytes.get(..self.have).unwrap_or_default())?;
            return Ok(Progress::NeedMore {
                missing: LEN - self.have,
            });
        }
        decode(&self.bytes).map(|header| Progress::Done { header, used })
    }
}

/// Checks every byte that is there, in order.
fn check_prefix(bytes: &[u8]) -> Result<(), HeaderError> {
    for (at, byte) in bytes.iter().copied().enumerate() {
        match at {
            0..=3 if MAGIC.get(at) != Some(&byte) => return Err(HeaderError::Magic),
            4 if byte != VERSION => return Err(HeaderError::Version { version: byte }),
            5 if usize::from(byte) != LEN => return Err(HeaderError::Length { length: byte }),
            6 if Kind::from_code(byte).is_none() => return Err(HeaderError::Kind { kind: byte }),
            7 | 10 | 11 if byte != 0 => return Err(HeaderError::Flags { byte }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(at: usize, to: u8) -> [u8; LEN] {
        let mut bytes = encode(&Header {
            kind: Kind::Requests,
            port: 8080,
        });
        bytes[at] = to;
        bytes
    }

    #[test]
    fn every_field_is_checked() {
        for (at, to, want) in [
            (0, b'm', HeaderError::Magic),
            (3, 0, HeaderError::Magic),
            (4, 0, HeaderError::Version { version: 0 }),
            (4, 2, HeaderError::Version { version: 2 }),
            (5, 11, HeaderError::Length { length: 11 }),
            (5, 255, HeaderError::Length { length: 255 }),
            (6, 0, HeaderError::Kind { kind: 0 }),
            (6, 2, HeaderError::Kind { kind: 2 }),
            (6, 5, HeaderError::Kind { kind: 5 }),
            (7, 1, HeaderError::Flags { byte: 1 }),
            (10, 1, HeaderError::Flags { byte: 1 }),
            (11, 0x80, HeaderError::Flags { byte: 0x80 }),
        ] {
            assert_eq!(decode(&changed(at, to)), Err(want), "byte {at} as {to}");
        }
    }

    #[test]
    fn port_zero_is_refused() {
        let mut bytes = encode(&Header {
            kind: Kind::Tcp,
            port: 1,
        });
        bytes[9] = 0;
        assert_eq!(decode(&bytes), Err(HeaderError::PortZero));
    }

    #[test]
    fn other_protocols_are_refused_at_their_first_byte() {
        for start in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4",
            b"\0",
        ] {
            assert_eq!(
                Decoder::new().push(&start[..1]),
                Err(HeaderError::Magic),
                "{start:?}"
            );
        }
    }

    #[test]
    fn bytes_after_the_header_are_left_to_the_stream() {
        let header = Header {
            kind: Kind::Tcp,
            port: 5432,
        };
        let mut wire = encode(&header).to_vec();
        wire.extend_from_slice(b"hello");
        assert_eq!(
            Decoder::new().push(&wire),
            Ok(Progress::Done { header, used: LEN })
        );
    }

    #[test]
    fn the_wire_form_is_stable() {
        let bytes = encode(&Header {
            kind: Kind::Requests,
            port: 0x1f90,
        });
        assert_eq!(&bytes, b"MESH\x01\x0c\x04\x00\x1f\x90\x00\x00");
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Tcp), Just(Kind::Requests), Just(Kind::Http1)]
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(kind in kinds(), port in 1..=u16::MAX) {
            let header = Header { kind, port };
            prop_assert_eq!(decode(&encode(&header)), Ok(header));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes in any::<[u8; LEN]>(), valid in kinds(), keep in 0..LEN) {
            let mut wire = encode(&Header { kind: valid, port: 443 });
            wire[keep] = bytes[keep];
            if let Ok(header) = decode(&wire) {
                prop_assert_eq!(encode(&header), wire);
            }
        }

        #[test]
        fn pieces_of_any_size_give_the_same_answer(kind in kinds(), port in any::<u16>(), at in 0..LEN, to in any::<u8>(), cut in 1..LEN) {
            let mut wire = encode(&Header { kind, port });
            wire[at] = to;
            let whole = decode(&wire);
            let mut decoder = Decoder::new();
            let split = match decoder.push(&wire[..cut]) {
                Ok(Progress::NeedMore { missing }) => {
                    prop_assert_eq!(missing, LEN - cut);
                    decoder.push(&wire[cut..])
                }
                early => early,
            };
            match (whole, split) {
                (Ok(header), Ok(Progress::Done { header: again, used })) => {
                    prop_assert_eq!(header, again);
                    prop_assert_eq!(used, LEN - cut);
                }
                (Err(_), Err(_)) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Decoder::new().push(&bytes);
        }
    }
}
