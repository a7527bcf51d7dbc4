//! Decisions taken from bytes: the same bytes, the same decisions; no bytes left, always the first choice, so that what
//! is made of them ends.

/// Bytes not yet used.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'d>(&'d [u8]);

impl<'d> Choices<'d> {
    /// Decisions of these bytes.
    pub fn of(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// The next byte; 0 if none is left.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, which must not be beyond 256; 0 if `bound` is.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()).checked_rem(bound).unwrap_or(0)
    }

    /// True about once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) + 1 == times
    }

    /// One of several; none if there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let place = self.below(from.len());
        from.get(place).copied()
    }
}
