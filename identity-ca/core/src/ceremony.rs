//! Roots that are made offline: their key in shares, and a transcript that it signed. No IO, no clock, no randomness.
//!
//! - [`shares`]: a key in n texts of which any k restore it; start at [`shares::split`]
//! - [`transcript`]: what was done, signed by the root's key; start at [`transcript::seal`]
//!
//! What it makes goes on as a root that others keep: see [`crate::adoption`].

mod gf256;
pub mod shares;
pub mod transcript;

/// Why a ceremony ends without result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CeremonyError {
    /// Numbers that make no shares.
    #[error("{shares} shares of which {threshold} restore the key: {why}")]
    #[diagnostic(
        code("MESH-0980"),
        help(
            "2 to 100 shares, and a threshold from 2 up to as many; 3 of 5 lets two people be away"
        )
    )]
    Numbers {
        /// All.
        shares: u8,
        /// Needed.
        threshold: u8,
        /// What is wrong.
        why: &'static str,
    },
    /// Not a share as it was written.
    #[error("`{place}` is no whole share: {why}")]
    #[diagnostic(
        code("MESH-0981"),
        help(
            "compare it with the paper or the copy that it came from; another share may take its place"
        )
    )]
    Share {
        /// Where.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Shares of different keys, or of two divisions of one.
    #[error("`{place}` belongs to set {found}, the others to set {wanted}")]
    #[diagnostic(
        code("MESH-0982"),
        help(
            "shares of different sets never fit together; the transcript of a root names its set"
        )
    )]
    OtherSet {
        /// Where.
        place: String,
        /// Its set.
        found: String,
        /// The first one's.
        wanted: String,
    },
    /// One share counted twice.
    #[error("`{place}` is share {number}, which is here already")]
    #[diagnostic(code("MESH-0983"), help("each share counts once: bring another one"))]
    SameShare {
        /// Where.
        place: String,
        /// Its number.
        number: u8,
    },
    /// Not enough of them.
    #[error("{have} shares are here, and {need} restore the key")]
    #[diagnostic(
        code("MESH-0984"),
        help("bring as many shares of this set as are needed")
    )]
    TooFew {
        /// Here.
        have: usize,
        /// Needed.
        need: u8,
    },
    /// They restore something, and it is not the root's key.
    #[error("the shares do not restore the key of this root")]
    #[diagnostic(
        code("MESH-0985"),
        help("one of them was changed, or they are of another root: try another choice of shares")
    )]
    OtherKey,
    /// Not a transcript, or not signed by the root.
    #[error("the transcript `{place}` is not believed: {why}")]
    #[diagnostic(
        code("MESH-0986"),
        help("compare it with another copy: each line counts, and the root's key signed them all")
    )]
    Transcript {
        /// Where.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A file that the transcript does not speak of.
    #[error("`{place}` is not what the transcript speaks of: {why}")]
    #[diagnostic(
        code("MESH-0987"),
        help("it was changed since, or it is of another ceremony")
    )]
    NotInTranscript {
        /// Where.
        place: String,
        /// What differs.
        why: String,
    },
    /// What is to be certified cannot be.
    #[error("`{place}` cannot be certified: {why}")]
    #[diagnostic(
        code("MESH-0988"),
        help(
            "`mesh ca request` makes a key and a request; or give a P-256 or P-384 public key in PEM"
        )
    )]
    Request {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// Not a root of this domain, or not in force.
    #[error("`{place}` is not the root that signs here: {why}")]
    #[diagnostic(code("MESH-0989"), help("give the `root.pem` that the ceremony made"))]
    Root {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// The key could not be used.
    #[error("the root's key could not be made or used: {why}")]
    #[diagnostic(code("MESH-0979"), help("nothing was written; begin again"))]
    Key {
        /// Why.
        why: String,
    },
}
