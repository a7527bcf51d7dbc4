//! Decision records in a tamper-evident log, and the verifier of that log. Pure: bytes in, bytes out.
//!
//! A log is a file of lines. Each line is one JSON object that carries the hash of the line before it; a checkpoint,
//! signed by a key of its own, carries the hash of a line that has reached the disk. An edit, a deletion, a swap or a
//! cut tail breaks the chain or contradicts the checkpoint.
//!
//! - [`entry`]: what a line says: a decision, a gap, a start, a change of policy
//! - [`chain`]: entries to lines; start at [`chain::ChainState::append`]
//! - [`checkpoint`]: signed heads; start at [`checkpoint::CheckpointKey::sign`]
//! - [`verify`]: names the first bad line; start at [`verify::verify`]
//! - [`limits`]: how long a logged text may be
//!
//! What this cannot find: who holds the checkpoint key can write another history; and a whole directory put back to
//! an older state, log and checkpoint together, is a true older state. Copies elsewhere are the answer to both.

pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod limits;
#[cfg(test)]
mod testing;
pub mod verify;

pub use chain::{ChainState, EncodeError, Hash, ResumeError, Resumed};
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointKey, PublicKey};
pub use entry::{Entry, Gap, GapCause, Line, PolicyChange, Start};
pub use verify::{FirstBad, Seal, Verified, Verifier, Why, verify};
