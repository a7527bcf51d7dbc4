//! Logs that can only grow, provably: Merkle trees, proofs, tiles, signed checkpoints. Pure: bytes in, bytes out.
//!
//! The forms are those of others, so that their tools read our logs and ours read theirs:
//!
//! - [`hash`]: the hashes of RFC 9162 §2.1; start at [`leaf_hash`]
//! - [`tree`]: a tree that grows, as much of it as one must remember; start at [`Frontier`]
//! - [`proof`]: inclusion and consistency, made and verified; start at [`verify_inclusion`]
//! - [`tile`]: the tree in files of 256 hashes ([tlog-tiles](https://c2sp.org/tlog-tiles)); start at [`Edge`]
//! - [`bundle`]: entries in files of 256, by the same document
//! - [`note`]: signed text and its keys ([signed-note](https://c2sp.org/signed-note))
//! - [`checkpoint`]: signed tree heads and cosignatures of witnesses
//!   ([tlog-checkpoint](https://c2sp.org/tlog-checkpoint), [tlog-cosignature](https://c2sp.org/tlog-cosignature))
//! - [`tlog_proof`]: a proof that stands alone ([tlog-proof](https://c2sp.org/tlog-proof))
//! - [`witness`]: what a witness asks before it cosigns ([tlog-witness](https://c2sp.org/tlog-witness))
//!
//! Who holds the log's key can sign two histories; only a witness that saw one of them can tell.

mod base64;
pub mod bundle;
pub mod checkpoint;
pub mod hash;
pub mod limits;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, TreeHead};
pub use hash::{Hash, leaf_hash, node_hash};
pub use note::{KeyError, Note, NoteError, SigningKey, VerifierKey};
pub use proof::{
    Nodes, ProofError, ProveError, prove_consistency, prove_inclusion, verify_consistency,
    verify_inclusion,
};
pub use tile::{Edge, ReadTile, Tile, TileError, TileNodes};
pub use tlog_proof::TlogProof;
pub use tree::{Frontier, MemoryTree};
