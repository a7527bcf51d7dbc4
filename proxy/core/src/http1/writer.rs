//! What both sides write: fields, and a body in the frame that its head announced.

use std::io::Write;

/// Why a message cannot be sent as it is: whoever sends it said one length and meant another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as its head says")]
pub struct WrongLength;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// It ends with its connection.
    UntilClose,
}

/// Frames the body of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWriter(pub(super) Framing);

impl BodyWriter {
    /// Whether nothing more is to be sent.
    pub fn is_done(self) -> bool {
        self.0 == Framing::Length(0)
    }

    /// Writes what stands before so many bytes of data, which come next; returns what stands after them.
    ///
    /// # Errors
    /// [`WrongLength`] if they are more than the head says.
    pub fn before_data(
        &mut self,
        out: &mut Vec<u8>,
        bytes: usize,
    ) -> Result<&'static [u8], WrongLength> {
        match &mut self.0 {
            Framing::Length(left) => {
                *left = left.checked_sub(bytes as u64).ok_or(WrongLength)?;
                Ok(b"")
            }
            Framing::Chunked if bytes == 0 => Ok(b""), // would be the last one
            Framing::Chunked => {
                let _ = write!(out, "{bytes:x}\r\n"); // a vector takes whatever is written
                Ok(b"\r\n")
            }
            Framing::UntilClose => Ok(b""),
        }
    }

    /// Writes what stands at the end. Trailers are not sent: nobody who speaks HTTP/1 is asked whether they take them.
    ///
    /// # Errors
    /// [`WrongLength`] if the head says that more would come.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        match std::mem::replace(&mut self.0, Framing::Length(0)) {
            Framing::Length(0) | Framing::UntilClose => Ok(()),
            Framing::Length(_) => Err(WrongLength),
            Framing::Chunked => {
                out.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }
}

pub(super) fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

/// Writes `content-length`.
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    // Twenty digits hold any.
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    put_field(out, "content-length", digits.get(at..).unwrap_or_default());
}
