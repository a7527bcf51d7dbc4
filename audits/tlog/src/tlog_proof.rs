//! A proof that stands alone ([tlog-proof](https://c2sp.org/tlog-proof)): an entry's place, its inclusion proof and the
//! signed checkpoint, in one text that verifies with public keys alone.

use crate::base64;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::limits::{EXTRA_BYTES_MAX, PROOF_HASHES_MAX};
use crate::note::{Note, VerifierKey};
use crate::proof::{ProofError, verify_inclusion};
use data_encoding::BASE64;
use std::fmt;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof that was read and not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// What the maker put beside it. Nothing vouches for it.
    pub extra: Option<Vec<u8>>,
    /// The entry's place, from 0.
    pub index: u64,
    /// Inclusion proof, from the leaf's sibling upwards.
    pub hashes: Vec<Hash>,
    /// The checkpoint, with cosignatures if there are any.
    pub checkpoint: Note,
}

/// Why such a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum TlogProofError {
    /// Not the form.
    #[error("this is no stand-alone proof: {why}")]
    #[diagnostic(
        code("MESH-0534"),
        help(
            "a proof is a text that begins with `c2sp.org/tlog-proof@v1`; take it from its maker again"
        )
    )]
    Form {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The checkpoint in it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes in it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proof(#[from] ProofError),
    /// Too few witnesses.
    #[error("{found} of the known witnesses cosigned the checkpoint; {wanted} must")]
    #[diagnostic(
        code("MESH-0535"),
        help(
            "wait until the witnesses have seen it, or look why they refuse: somebody may show two histories"
        )
    )]
    Witnesses {
        /// Who did.
        found: usize,
        /// How many must.
        wanted: usize,
    },
}

impl TlogProof {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`TlogProofError`]; nothing is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        let form = |why| TlogProofError::Form { why };
        let text = std::str::from_utf8(bytes).map_err(|_| form("it is not UTF-8"))?;
        let (proof, checkpoint) = text
            .split_once("\n\n")
            .ok_or_else(|| form("it has no checkpoint"))?;
        let mut lines = proof.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(form("its first line names another form"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = match extra.and_then(|line| line.strip_prefix("extra ")) {
            None => None,
            Some(encoded) => {
                let bytes =
                    base64::decode(encoded).ok_or_else(|| form("its extra data is no base64"))?;
                if bytes.len() > EXTRA_BYTES_MAX {
                    return Err(form("its extra data is too long"));
                }
                Some(bytes)
            }
        };
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(|digits| {
                let index: u64 = digits.parse().ok()?;
                (index.to_string() == digits).then_some(index)
            })
            .ok_or_else(|| form("it has no index"))?;
        let hashes = lines
            .map(Hash::from_base64)
            .collect::<Option<Vec<_>>>()
            .filter(|hashes| hashes.len() <= PROOF_HASHES_MAX)
            .ok_or_else(|| form("its hashes are none, or too many"))?;
        let checkpoint = Note::parse(checkpoint.as_bytes()).map_err(CheckpointError::from)?;
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint,
        })
    }

    /// Verifies that the entry with this leaf hash is in the log with this key, and that at least `wanted` of `witnesses`
    /// cosigned the checkpoint. Returns the checkpoint.
    ///
    /// # Errors
    /// [`TlogProofError`].
    pub fn verify(
        &self,
        leaf: Hash,
        log: &VerifierKey,
        witnesses: &[VerifierKey],
        wanted: usize,
    ) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::of_note(self.checkpoint.clone(), log)?;
        let found = witnesses
            .iter()
            .filter(|witness| checkpoint.cosigned(witness).is_ok())
            .count();
        if found < wanted {
            return Err(TlogProofError::Witnesses { found, wanted });
        }
        let head = checkpoint.head();
        verify_inclusion(leaf, self.index, head.size, &self.hashes, head.root)?;
        Ok(checkpoint)
    }
}

/// The text form.
impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes
            .iter()
            .try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TreeHead;
    use crate::hash::leaf_hash;
    use crate::note::{KeyType, SigningKey};
    use crate::proof::prove_inclusion;
    use crate::tree::MemoryTree;

    fn log() -> SigningKey {
        SigningKey::from_seed("mesh.example/log", KeyType::Ed25519, &[1; 32]).unwrap()
    }

    fn witness(seed: u8) -> SigningKey {
        let name = format!("mesh.example/w{seed}");
        SigningKey::from_seed(&name, KeyType::Cosignature, &[seed; 32]).unwrap()
    }

    fn proof(extra: Option<&[u8]>) -> TlogProof {
        let tree: MemoryTree = (0..100u8).map(|number| leaf_hash(&[number])).collect();
        let head = TreeHead {
            origin: "mesh.example/log".into(),
            size: 100,
            root: tree.root(),
            extensions: Vec::new(),
        };
        let mut checkpoint = Checkpoint::sign(head, &log()).unwrap();
        checkpoint.cosign(&witness(5), 9).unwrap();
        TlogProof {
            extra: extra.map(<[u8]>::to_vec),
            index: 42,
            hashes: prove_inclusion(&tree, 42, 100).unwrap(),
            checkpoint: checkpoint.note().clone(),
        }
    }

    #[test]
    fn a_proof_survives_its_text_and_proves_one_entry_only() {
        for extra in [None, Some(&b"more"[..]), Some(b"")] {
            let read = TlogProof::parse(proof(extra).to_string().as_bytes()).unwrap();
            assert_eq!(read, proof(extra));
            let key = log();
            let verify = |number: u8| read.verify(leaf_hash(&[number]), key.verifier(), &[], 0);
            assert_eq!(verify(42).unwrap().head().size, 100);
            assert_eq!(verify(43), Err(TlogProofError::Proof(ProofError::Root)));
        }
    }

    #[test]
    fn witnesses_are_counted_by_their_keys() {
        let leaf = leaf_hash(&[42]);
        let [five, six] = [5, 6].map(|seed| witness(seed).verifier().clone());
        let verify = |known: &[VerifierKey], wanted| {
            proof(None)
                .verify(leaf, log().verifier(), known, wanted)
                .map(drop)
        };
        assert_eq!(verify(&[five.clone(), six.clone()], 1), Ok(()));
        for (known, wanted, found) in [(vec![six.clone()], 1, 0), (vec![five, six], 2, 1)] {
            assert_eq!(
                verify(&known, wanted),
                Err(TlogProofError::Witnesses { found, wanted })
            );
        }
    }

    #[test]
    fn an_edited_proof_does_not_verify_and_other_text_is_none() {
        let text = proof(None).to_string();
        for at in 0..text.len() {
            let mut edited = text.clone().into_bytes();
            edited[at] ^= 1;
            let accepted = TlogProof::parse(&edited).is_ok_and(|proof| {
                let verified = proof.verify(
                    leaf_hash(&[42]),
                    log().verifier(),
                    &[witness(5).verifier().clone()],
                    1,
                );
                verified.is_ok()
            });
            assert!(!accepted, "byte {at}");
        }
        for bad in [
            "",
            "c2sp.org/tlog-proof@v1\n\n",
            &text.replace("@v1", "@v2"),
            &text.replace("index 42", "index 042"),
            &text.replace("index 42\n", ""),
            &text.replace("index 42", "index 42\nextra AA=="),
            &text.replace("index 42", "extra A\nindex 42"),
        ] {
            assert!(TlogProof::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        // Hashes that have become part of the checkpoint: signed by nobody.
        let moved = text.replace("index 42\n", "index 42\n\n");
        let moved = TlogProof::parse(moved.as_bytes()).unwrap();
        let verified = moved.verify(leaf_hash(&[42]), log().verifier(), &[], 0);
        assert!(matches!(verified, Err(TlogProofError::Checkpoint(_))));
    }
}
