//! The hashes of a Merkle tree (RFC 9162 §2.1.1): leaves and nodes have prefixes of their own, so that no node can be
//! shown as an entry.

use crate::base64;
use data_encoding::BASE64;
use ring::digest::{Context, SHA256};
use std::fmt;

const LEAF_PREFIX: &[u8] = &[0];
const NODE_PREFIX: &[u8] = &[1];

/// SHA-256 of a leaf, a node or a whole tree. As text: base64, as all documents of this family have it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// The root of the tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = Hash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// Hash of an entry as a leaf.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    leaf_hash_of_parts(&[entry])
}

/// [`leaf_hash`] of an entry that lies in pieces.
pub fn leaf_hash_of_parts(parts: &[&[u8]]) -> Hash {
    digest(LEAF_PREFIX, parts)
}

/// Hash of a node from those of its two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    digest(NODE_PREFIX, &[&left.0, &right.0])
}

fn digest(prefix: &[u8], parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(prefix);
    for part in parts {
        context.update(part);
    }
    // A SHA-256 digest has exactly these 32 bytes.
    Hash(
        context
            .finish()
            .as_ref()
            .first_chunk()
            .copied()
            .unwrap_or_default(),
    )
}

impl Hash {
    /// Reads base64; `None` if it is not that of exactly 32 bytes.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = base64::decode(text)?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BASE64.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn hashes_are_those_of_the_published_vectors() {
        // certificate-transparency-go and transparency-dev/merkle, rfc6962_test.go.
        for (what, got, want) in [
            (
                "leaf of nothing",
                leaf_hash(b""),
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            ),
            (
                "leaf",
                leaf_hash(b"L123456"),
                "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56",
            ),
        ] {
            assert_eq!(HEXLOWER.encode(&got.0), want, "{what}");
        }
        // The node vector is of "N123" and "N456", which are no hashes: held against the definition here.
        let node = digest(NODE_PREFIX, &[b"N123", b"N456"]);
        assert_eq!(
            HEXLOWER.encode(&node.0),
            "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
        );
        assert_eq!(digest(&[], &[]), EMPTY_ROOT);
    }

    #[test]
    fn a_node_is_never_a_leaf() {
        let (left, right) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let both = [left.0, right.0].concat();
        assert_ne!(node_hash(&left, &right), leaf_hash(&both));
        assert_ne!(node_hash(&left, &right), node_hash(&right, &left));
    }

    #[test]
    fn base64_of_another_length_or_form_is_no_hash() {
        let text = leaf_hash(b"a").to_string();
        assert_eq!(Hash::from_base64(&text), Some(leaf_hash(b"a")));
        for bad in [
            "",
            "AA==",
            &text[..43],
            &format!("{text}\n"),
            &format!("{text}{text}"),
            &text.replace('=', ""),
        ] {
            assert_eq!(Hash::from_base64(bad), None, "{bad:?}");
        }
    }
}
