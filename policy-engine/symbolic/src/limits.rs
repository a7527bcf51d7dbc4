//! Bounds on what a solver may cost and say.

use std::time::Duration;

/// The oldest cvc5 that is believed: what Cedar's symbolic compiler is tested with. Debian's 1.0.3 cannot read all that it
/// writes.
pub const VERSION_MIN: (u32, u32, u32) = (1, 3, 1);

/// Time for a solver to start and to say what it is: an interpreter may have to load it first.
pub(crate) const START: Duration = Duration::from_secs(20);

/// Bytes of one answer. A model of one request has some kilobytes; more is no answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Questions without an answer after which a claim is given up: the next ones would cost as much, and what is unknown
/// once is not proved any more.
pub(crate) const UNKNOWN_MAX: usize = 3;

/// Grants that one formula is about: more of them make one that a solver is slow at, fewer make more of them.
pub(crate) const GRANTS_AT_ONCE: usize = 32;
