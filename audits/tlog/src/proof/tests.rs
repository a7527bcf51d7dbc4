//! Proofs against published vectors, against the definitions read slowly, and against every small change of them.

use super::testing::*;
use super::*;
use crate::hash::leaf_hash;
use crate::tree::MemoryTree;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

fn hash(hex: &str) -> Hash {
    Hash(HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap())
}

fn vector_tree() -> MemoryTree {
    VECTOR_LEAVES.iter().map(|leaf| leaf_hash(leaf)).collect()
}

fn numbered(count: u64) -> Vec<Hash> {
    (0..count)
        .map(|number| leaf_hash(&number.to_be_bytes()))
        .collect()
}

/// transparency-dev/merkle, testonly: inclusion of leaf (index + 1) in trees of a size.
#[test]
fn inclusion_proofs_are_those_of_the_published_vectors() {
    let h = |text: &str| hash(text);
    let cases: [(u64, u64, Vec<Hash>); 5] = [
        (0, 1, vec![]),
        (
            0,
            8,
            vec![
                h("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                h("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                h("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ],
        ),
        (
            5,
            8,
            vec![
                h("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
                h("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                h("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ],
        ),
        (
            2,
            3,
            vec![h(
                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            )],
        ),
        (
            1,
            5,
            vec![
                h("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
                h("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                h("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
            ],
        ),
    ];
    let tree = vector_tree();
    for (index, size, want) in cases {
        assert_eq!(
            prove_inclusion(&tree, index, size).unwrap(),
            want,
            "{index} in {size}"
        );
        let leaf = leaf_hash(VECTOR_LEAVES[index as usize]);
        let root = hash(VECTOR_ROOTS[size as usize - 1]);
        assert_eq!(verify_inclusion(leaf, index, size, &want, root), Ok(()));
    }
}

#[test]
fn consistency_proofs_are_those_of_the_published_vectors() {
    let h = |text: &str| hash(text);
    let cases: [(u64, u64, Vec<Hash>); 4] = [
        (1, 1, vec![]),
        (
            1,
            8,
            vec![
                h("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                h("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                h("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ],
        ),
        (
            6,
            8,
            vec![
                h("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"),
                h("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                h("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ],
        ),
        (
            2,
            5,
            vec![
                h("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                h("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
            ],
        ),
    ];
    let tree = vector_tree();
    for (old, new, want) in cases {
        assert_eq!(
            prove_consistency(&tree, old, new).unwrap(),
            want,
            "{old} in {new}"
        );
        let root = |size: u64| (size, hash(VECTOR_ROOTS[size as usize - 1]));
        assert_eq!(verify_consistency(root(old), root(new), &want), Ok(()));
    }
}

#[test]
fn every_proof_of_small_trees_is_the_one_of_the_definition_and_verifies() {
    let leaves = numbered(40);
    let tree: MemoryTree = leaves.iter().copied().collect();
    for size in 1..=leaves.len() {
        let new = &leaves[..size];
        let new_root = plain_root(new);
        assert_eq!(root(&tree, size as u64).unwrap(), new_root);
        for (index, leaf) in new.iter().enumerate() {
            let proof = prove_inclusion(&tree, index as u64, size as u64).unwrap();
            assert_eq!(proof, plain_path(index, new), "{index} in {size}");
            let verified = verify_inclusion(*leaf, index as u64, size as u64, &proof, new_root);
            assert_eq!(verified, Ok(()), "{index} in {size}");
        }
        for old in 1..=size {
            let proof = prove_consistency(&tree, old as u64, size as u64).unwrap();
            assert_eq!(proof, plain_subproof(old, new, true), "{old} in {size}");
            let older = (old as u64, plain_root(&leaves[..old]));
            assert_eq!(
                verify_consistency(older, (size as u64, new_root), &proof),
                Ok(()),
                "{old} in {size}"
            );
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let tree = vector_tree();
    for (index, size) in [(0, 0), (8, 8), (9, 8), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        let range = ProofError::Range { from: index, size };
        assert_eq!(
            prove_inclusion(&tree, index, size),
            Err(ProveError::Range(range))
        );
        assert_eq!(
            verify_inclusion(Hash::default(), index, size, &[], Hash::default()),
            Err(range)
        );
    }
    for (old, new) in [(9, 8), (1, 0), (0, u64::MAX)] {
        let range = ProofError::Range {
            from: old,
            size: new,
        };
        assert_eq!(
            prove_consistency(&tree, old, new),
            Err(ProveError::Range(range))
        );
        let verified = verify_consistency((old, Hash::default()), (new, Hash::default()), &[]);
        assert_eq!(verified, Err(range));
    }
    assert_eq!(
        prove_inclusion(&tree, 3, 9),
        Err(ProveError::Missing { size: 9 }),
        "the tree has 8"
    );
}

#[test]
fn an_empty_tree_is_a_beginning_of_all_and_equal_sizes_have_equal_roots() {
    let root = |size: usize| (size as u64, plain_root(&numbered(size as u64)));
    let other = (5, plain_root(&numbered(4)));
    assert_eq!(verify_consistency(root(0), root(5), &[]), Ok(()));
    assert_eq!(verify_consistency(root(5), root(5), &[]), Ok(()));
    assert_eq!(
        verify_consistency(root(5), other, &[]),
        Err(ProofError::Root)
    );
    assert_eq!(
        verify_consistency((0, root(1).1), root(5), &[]),
        Err(ProofError::Root),
        "a root of an empty tree that is none"
    );
    for old in [0, 5] {
        assert_eq!(
            verify_consistency(root(old), root(5), &[Hash::default()]),
            Err(ProofError::Length { hashes: 1 })
        );
    }
}

proptest! {
    #[test]
    fn no_changed_proof_verifies(
        size in 1u64..300,
        place in any::<prop::sample::Index>(),
        older in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let leaves = numbered(size);
        let tree: MemoryTree = leaves.iter().copied().collect();
        let (index, old) = (place.index(leaves.len()) as u64, older.index(leaves.len()) as u64 + 1);
        let inclusion = prove_inclusion(&tree, index, size).unwrap();
        let consistency = prove_consistency(&tree, old, size).unwrap();
        let (old_root, new_root) = (plain_root(&leaves[..old as usize]), tree.root());
        let leaf = leaves[index as usize];
        for proof in changed(&inclusion, flip) {
            prop_assert!(verify_inclusion(leaf, index, size, &proof, new_root).is_err());
        }
        for proof in changed(&consistency, flip) {
            prop_assert!(verify_consistency((old, old_root), (size, new_root), &proof).is_err());
        }
        // The right proof for another leaf, place or root proves nothing.
        let mut other = leaf;
        other.0[flip.index(32)] ^= 1;
        prop_assert!(verify_inclusion(other, index, size, &inclusion, new_root).is_err());
        prop_assert!(verify_inclusion(leaf, index, size, &inclusion, other).is_err());
        for elsewhere in (0..size).filter(|at| *at != index) {
            prop_assert!(verify_inclusion(leaf, elsewhere, size, &inclusion, new_root).is_err());
        }
        if old < size {
            prop_assert!(verify_consistency((old, other), (size, new_root), &consistency).is_err());
        }
        prop_assert!(verify_consistency((old, old_root), (size, other), &consistency).is_err());
    }
}

/// All proofs with one bit flipped, one hash less or more, or two swapped.
fn changed(proof: &[Hash], flip: prop::sample::Index) -> Vec<Vec<Hash>> {
    let mut out = vec![[proof, &[Hash::default()]].concat()];
    for at in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[at].0[flip.index(32)] ^= 1 << (at % 8);
        out.push(flipped);
        let mut shorter = proof.to_vec();
        shorter.remove(at);
        out.push(shorter);
        if at > 0 && proof[at] != proof[at - 1] {
            let mut swapped = proof.to_vec();
            swapped.swap(at, at - 1);
            out.push(swapped);
        }
    }
    out
}
