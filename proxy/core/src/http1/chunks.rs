//! The chunks of a request's body, read as exactly as [`crate::http_hygiene::wire`] reads them: one line at a time, with the
//! same limits.

use crate::http_hygiene::RequestRefusal;
use crate::http_hygiene::wire::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, TRAILER_BYTES_MAX,
    chunk_size, exact_line, field,
};
use memchr::memchr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the line before a chunk.
    Size,
    /// In a chunk.
    Data { left: u64 },
    /// After a chunk's data.
    End,
    /// After the last chunk.
    Trailers,
}

/// What comes next. Numbers are of bytes, from where it was looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More must come first.
    Waits,
    /// Nothing but framing.
    Framing(usize),
    Data(usize),
    /// A whole line of the trailers.
    Trailer(usize),
    /// The last of it.
    Last(usize),
}

/// Where a body of chunks is, and what it has cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    at: At,
    extension_bytes: usize,
    overhead_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    trailers_max: usize,
}

impl Chunks {
    /// Before the first one.
    pub(super) fn new(trailers_max: usize) -> Self {
        Self {
            at: At::Size,
            extension_bytes: 0,
            overhead_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
            trailers_max,
        }
    }

    /// Whether what is there of the body is in order.
    pub(super) fn check(mut self, mut bytes: &[u8]) -> Result<(), RequestRefusal> {
        loop {
            let taken = match self.step(bytes)? {
                Step::Waits | Step::Last(_) => return Ok(()),
                Step::Framing(taken) | Step::Data(taken) | Step::Trailer(taken) => taken,
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Looks at what comes next, and takes it.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, RequestRefusal> {
        match self.at {
            At::Size => self.size(bytes),
            At::Data { .. } if bytes.is_empty() => Ok(Step::Waits),
            At::Data { left } => {
                let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.at = match left - count as u64 {
                    0 => At::End,
                    left => At::Data { left },
                };
                Ok(Step::Data(count))
            }
            At::End => match bytes {
                [b'\r', b'\n', ..] => {
                    self.at = At::Size;
                    Ok(Step::Framing(2))
                }
                [] | [b'\r'] => Ok(Step::Waits),
                _ => Err(RequestRefusal::Framing),
            },
            At::Trailers => self.trailer(bytes),
        }
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Step, RequestRefusal> {
        let within = bytes.get(..=CHUNK_LINE_BYTES_MAX).unwrap_or(bytes);
        let end = memchr(b'\n', within).map_or(within.len(), |at| at + 1);
        if end > CHUNK_LINE_BYTES_MAX {
            return Err(RequestRefusal::Chunks);
        }
        let line = within.get(..end).unwrap_or_default();
        if line.last() != Some(&b'\n') {
            return Ok(Step::Waits);
        }
        let line = exact_line(line)?;
        let (size, extension) = chunk_size(line).ok_or(RequestRefusal::Framing)?;
        let data = usize::try_from(size).unwrap_or(usize::MAX);
        self.extension_bytes += extension;
        // The size, its CR LF, and the one after the data.
        self.overhead_bytes = (self.overhead_bytes + line.len() + 4).saturating_sub(data);
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX
            || self.overhead_bytes > CHUNK_OVERHEAD_BYTES_MAX
        {
            return Err(RequestRefusal::Chunks);
        }
        self.at = match size {
            0 => At::Trailers,
            left => At::Data { left },
        };
        Ok(Step::Framing(end))
    }

    fn trailer(&mut self, bytes: &[u8]) -> Result<Step, RequestRefusal> {
        let end = memchr(b'\n', bytes).map(|at| at + 1);
        let length = end.unwrap_or(bytes.len());
        if self.trailer_bytes + length > TRAILER_BYTES_MAX {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        if end.is_none() {
            return Ok(Step::Waits);
        }
        self.trailer_bytes += length;
        let line = exact_line(bytes.get(..length).unwrap_or_default())?;
        if line.is_empty() {
            return Ok(Step::Last(length));
        }
        field(line)?;
        self.trailers += 1;
        if self.trailers > self.trailers_max {
            return Err(RequestRefusal::HeadersTooLarge);
        }
        Ok(Step::Trailer(length))
    }
}
