//! Every limit of this crate, with its reason.

/// Bytes of a signed note. 16 signatures must be taken (signed-note); ours have some 110 bytes, a post-quantum one 5 kB.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// Signatures of a note. The document asks for 16 at least.
pub const SIGNATURES_MAX: usize = 32;

/// Bytes of the name of a key or of an origin: those of the longest URL that anybody uses for one.
pub const NAME_BYTES_MAX: usize = 255;

/// Hashes of a proof: a tree of 2^63 leaves needs no more (tlog-witness).
pub const PROOF_HASHES_MAX: usize = 63;

/// Leaves of a tree: sizes are sums of `u64` elsewhere, and nobody writes 2^62 entries.
pub const SIZE_MAX: u64 = 1 << 62;

/// Bytes of the extra data of a stand-alone proof.
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;
