//! Logs that prove themselves: what their lines say, the form of a line, and the verifier. Pure: bytes in, bytes out.
//!
//! A log is a file of lines, cut into segments. Each line is one JSON object and a leaf of a Merkle tree
//! ([`mesh_tlog`]); a checkpoint, signed by a key of the log's own, carries the root over all lines that have reached the
//! disk. Old segments can be deleted and texts redacted, and the rest is proved all the same.
//!
//! - [`entry`]: what a line says: a decision, counts, a gap, a start, a change
//! - [`line`]: entries to lines and back; start at [`line::encode`]
//! - [`redact`]: texts that can be taken out later
//! - [`verify`]: names the first bad line; start at [`verify::walk`]
//! - [`limits`]: how long a logged text may be
//!
//! What the log alone cannot show: who holds its key can write another history, and a whole directory put back to an
//! older state, log and checkpoint together, is a true older state. Checkpoints that somebody else kept show both.

mod cut;
pub mod entry;
pub mod limits;
pub mod line;
pub mod redact;
#[cfg(test)]
mod testing;
pub mod verify;

pub use cut::Cut;
pub use entry::{Entry, Gap, GapCause, PolicyChange, Start};
pub use line::{EncodeError, Encoded, Line, Parts, encode};
pub use redact::{Redactable, Salting};
pub use verify::{FirstBad, LogSource, Place, Trust, Verified, Why, walk};
