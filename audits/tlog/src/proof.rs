//! Proofs of inclusion (RFC 9162 §2.1.3) and of consistency (§2.1.4), made and verified.
//!
//! Verifying takes hostile proofs: it reads no hash twice, ends after at most 64 of them, and is right for all sizes.

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::limits::SIZE_MAX;

/// Where complete nodes come from.
pub trait Nodes {
    /// Why one cannot be had.
    type Error;

    /// The hash of the leaves `index << level` up to `(index + 1) << level`; `None` if the tree has not that many.
    ///
    /// # Errors
    /// As the source has them.
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, Self::Error>;
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ProofError {
    /// No tree has such sizes.
    #[error("a proof from {from} in a tree of {size} cannot be")]
    #[diagnostic(
        code("MESH-0520"),
        help(
            "the proof belongs to another checkpoint: ask for one of the checkpoint that you hold"
        )
    )]
    Range {
        /// The leaf's index, or the older size.
        from: u64,
        /// The size of the (newer) tree.
        size: u64,
    },
    /// Too few hashes or too many.
    #[error(
        "the proof has {hashes} hashes, which is not the number that its place in the tree asks for"
    )]
    #[diagnostic(
        code("MESH-0521"),
        help("the proof was cut or belongs to another tree; treat the entry as unproved")
    )]
    Length {
        /// How many it has.
        hashes: usize,
    },
    /// The hashes lead elsewhere.
    #[error("the proof does not lead to the root of the checkpoint")]
    #[diagnostic(
        code("MESH-0522"),
        help(
            "the entry was changed, or is not in this log, or two histories of the log exist; treat it as unproved"
        )
    )]
    Root,
}

/// Why no proof could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError<E> {
    /// No tree has such sizes.
    #[error(transparent)]
    Range(ProofError),
    /// The source has fewer leaves than the tree was said to have.
    #[error("the tree has not all of its {size} leaves")]
    Missing {
        /// The size asked for.
        size: u64,
    },
    /// The source failed.
    #[error(transparent)]
    Source(E),
}

/// Proves that leaf `index` is in the tree of the first `size` leaves.
///
/// # Errors
/// [`ProveError`].
pub fn prove_inclusion<N: Nodes>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if index >= size || size > SIZE_MAX {
        return Err(ProveError::Range(ProofError::Range { from: index, size }));
    }
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + half(to - from);
        if index < middle {
            proof.push(subtree(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(subtree(nodes, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proves that the tree of the first `old` leaves is a beginning of the tree of the first `new` ones.
///
/// # Errors
/// [`ProveError`].
pub fn prove_consistency<N: Nodes>(
    nodes: &N,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<N::Error>> {
    if old > new || new > SIZE_MAX {
        return Err(ProveError::Range(ProofError::Range {
            from: old,
            size: new,
        }));
    }
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut from, mut to) = (0, new);
    while old < to {
        let middle = from + half(to - from);
        if old <= middle {
            proof.push(subtree(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(subtree(nodes, from, middle)?);
            from = middle;
        }
    }
    // The verifier has the old root already; if that is the node where the descent ended, it needs no other.
    if from > 0 {
        proof.push(subtree(nodes, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// [`ProveError`].
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, ProveError<N::Error>> {
    if size > SIZE_MAX {
        return Err(ProveError::Range(ProofError::Range { from: size, size }));
    }
    if size == 0 {
        return Ok(EMPTY_ROOT);
    }
    subtree(nodes, 0, size)
}

/// Proves nothing by itself: says whether `leaf` is at `index` of the tree of `size` leaves with this `root`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: Hash,
) -> Result<(), ProofError> {
    if index >= size || size > SIZE_MAX {
        return Err(ProofError::Range { from: index, size });
    }
    let wrong_length = ProofError::Length {
        hashes: proof.len(),
    };
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            skip_to_right_child(&mut at, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if hash != root {
        return Err(ProofError::Root);
    }
    Ok(())
}

/// Says whether the tree of `old` leaves with `old_root` is a beginning of that of `new` leaves with `new_root`.
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    (old, old_root): (u64, Hash),
    (new, new_root): (u64, Hash),
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new || new > SIZE_MAX {
        return Err(ProofError::Range {
            from: old,
            size: new,
        });
    }
    let wrong_length = ProofError::Length {
        hashes: proof.len(),
    };
    if old == 0 || old == new {
        let (expected, found) = match old {
            0 => (EMPTY_ROOT, old_root),
            _ => (old_root, new_root),
        };
        return match (proof, expected == found) {
            ([], true) => Ok(()),
            ([], false) => Err(ProofError::Root),
            _ => Err(wrong_length),
        };
    }
    let mut hashes = proof.iter();
    let start = if old.is_power_of_two() {
        old_root
    } else {
        *hashes.next().ok_or(wrong_length)?
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in hashes {
        if last == 0 {
            return Err(wrong_length);
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            skip_to_right_child(&mut at, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if old_hash != old_root || new_hash != new_root {
        return Err(ProofError::Root);
    }
    Ok(())
}

/// At the right edge, levels at which the node has no sibling are passed over.
fn skip_to_right_child(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two below `count`, which is at least 2.
fn half(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The hash of the leaves `from` up to `to`, a range that a proof asks for.
fn subtree<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Hash, ProveError<N::Error>> {
    let count = to - from;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        let node = nodes.node(level as u8, from >> level);
        return node
            .map_err(ProveError::Source)?
            .ok_or(ProveError::Missing { size: to });
    }
    let middle = from + half(count);
    let (left, right) = (subtree(nodes, from, middle)?, subtree(nodes, middle, to)?);
    Ok(node_hash(&left, &right))
}

#[cfg(test)]
pub(crate) mod testing {
    //! Published vectors, and the definitions read slowly.

    use crate::hash::{EMPTY_ROOT, Hash, node_hash};

    /// Leaves of the vectors of certificate-transparency and transparency-dev/merkle.
    pub(crate) const VECTOR_LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];

    /// Roots of the first 1 to 8 of them.
    pub(crate) const VECTOR_ROOTS: &[&str] = &[
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn split(leaves: &[Hash]) -> (&[Hash], &[Hash]) {
        let mut half = 1;
        while half * 2 < leaves.len() {
            half *= 2;
        }
        leaves.split_at(half)
    }

    /// MTH of RFC 9162 §2.1.1.
    pub(crate) fn plain_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => EMPTY_ROOT,
            [leaf] => *leaf,
            _ => {
                let (left, right) = split(leaves);
                node_hash(&plain_root(left), &plain_root(right))
            }
        }
    }

    /// PATH of RFC 9162 §2.1.3.1.
    pub(crate) fn plain_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let (left, right) = split(leaves);
        if index < left.len() {
            let mut path = plain_path(index, left);
            path.push(plain_root(right));
            path
        } else {
            let mut path = plain_path(index - left.len(), right);
            path.push(plain_root(left));
            path
        }
    }

    /// SUBPROOF of RFC 9162 §2.1.4.1.
    pub(crate) fn plain_subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return match known {
                true => Vec::new(),
                false => vec![plain_root(leaves)],
            };
        }
        let (left, right) = split(leaves);
        if old <= left.len() {
            let mut proof = plain_subproof(old, left, known);
            proof.push(plain_root(right));
            proof
        } else {
            let mut proof = plain_subproof(old - left.len(), right, false);
            proof.push(plain_root(left));
            proof
        }
    }
}

#[cfg(test)]
mod tests;
