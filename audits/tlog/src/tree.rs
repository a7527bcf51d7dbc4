//! Trees that grow: the right edge alone for whoever writes or verifies a log in one pass, a whole tree for small ones.

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::proof::Nodes;
use std::convert::Infallible;

/// The right edge of a tree: the roots of its perfect subtrees, one for each bit of its size. Enough to append to it and
/// to know its root; at most 62 hashes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    // Largest subtree first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The tree of `size` leaves whose perfect subtrees have these roots, the largest first. `None` if their number is
    /// not that of the bits of `size`.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one of the size is a subtree that the new leaf completes to the next larger one.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut from_right = self.peaks.iter().rev();
        let Some(last) = from_right.next() else {
            return EMPTY_ROOT;
        };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// A whole tree in memory, 64 bytes a leaf: for small logs and for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    // By level, all complete nodes.
    levels: Vec<Vec<Hash>>,
    frontier: Frontier,
}

impl MemoryTree {
    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else {
                return;
            };
            nodes.push(hash);
            let complete = nodes.len() % 2 == 0;
            match nodes.get(nodes.len().saturating_sub(2)) {
                Some(left) if complete => hash = node_hash(left, &hash),
                _ => return,
            }
        }
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }
}

impl FromIterator<Hash> for MemoryTree {
    fn from_iter<T: IntoIterator<Item = Hash>>(leaves: T) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

impl Nodes for MemoryTree {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, Infallible> {
        let nodes = self.levels.get(usize::from(level));
        let node = nodes.and_then(|nodes| nodes.get(usize::try_from(index).ok()?));
        Ok(node.copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::proof::testing::{VECTOR_LEAVES, VECTOR_ROOTS, plain_root};
    use proptest::prelude::*;

    #[test]
    fn roots_are_those_of_the_published_vectors() {
        let (mut frontier, mut tree) = (Frontier::default(), MemoryTree::default());
        assert_eq!(frontier.root(), EMPTY_ROOT);
        for (leaf, want) in VECTOR_LEAVES.iter().zip(VECTOR_ROOTS) {
            frontier.push(leaf_hash(leaf));
            tree.push(leaf_hash(leaf));
            let got = data_encoding::HEXLOWER.encode(&frontier.root().0);
            assert_eq!(&got, want, "{} leaves", frontier.size());
            assert_eq!(tree.root(), frontier.root());
        }
    }

    #[test]
    fn a_frontier_of_other_peaks_than_its_size_has_is_refused() {
        let peaks = |count: usize| vec![Hash::default(); count];
        assert!(Frontier::from_peaks(0, peaks(0)).is_some());
        assert!(Frontier::from_peaks(6, peaks(2)).is_some());
        for (size, count) in [(0, 1), (1, 0), (6, 1), (6, 3), (u64::MAX, 63)] {
            assert!(
                Frontier::from_peaks(size, peaks(count)).is_none(),
                "{size}, {count}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_frontier_has_the_root_that_the_definition_gives(count in 0u64..600, cut in 0u64..600) {
            let leaves: Vec<Hash> = (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect();
            let mut frontier = Frontier::default();
            for (number, leaf) in (0..).zip(&leaves) {
                // Taken apart and put together again somewhere on the way.
                if number == cut {
                    frontier = Frontier::from_peaks(frontier.size(), frontier.peaks().to_vec()).unwrap();
                }
                frontier.push(*leaf);
            }
            prop_assert_eq!(frontier.root(), plain_root(&leaves));
        }
    }
}
