//! What a witness asks before it cosigns ([tlog-witness](https://c2sp.org/tlog-witness)): is this the log's signature,
//! and does the new tree contain the one that I saw last? Keeping what was seen, and moving requests, is an edge's.

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::hash::{EMPTY_ROOT, Hash};
use crate::limits::PROOF_HASHES_MAX;
use crate::note::{Note, Signature, SigningKey, VerifierKey};
use crate::proof::{ProofError, verify_consistency};
use std::fmt;

/// The tree of a log that a witness cosigned last: what it must remember, durably, before a cosignature leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Leaves.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// A checkpoint with the proof that it goes on from an older tree: the body of `add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the older tree: what the sender believes the witness saw last.
    pub old_size: u64,
    /// Consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub checkpoint: Note,
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a request.
    #[error("this is no request for a cosignature: {why}")]
    #[diagnostic(
        code("MESH-0536"),
        help(
            "send `old <size>`, the lines of a consistency proof, an empty line and the checkpoint"
        )
    )]
    Form {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The checkpoint is not the log's.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The witness saw another tree last.
    #[error("the witness saw {seen} entries of the log last, not {old}")]
    #[diagnostic(
        code("MESH-0537"),
        help(
            "ask again with a proof from that size; if the log is shorter than it, the log was cut or put back"
        )
    )]
    OldSize {
        /// Size that the request starts from.
        old: u64,
        /// Size that the witness saw.
        seen: u64,
    },
    /// The log shows two histories.
    #[error(
        "the log shows two histories: the tree of {new} entries does not contain that of {seen} entries, which it signed before"
    )]
    #[diagnostic(
        code("MESH-0538"),
        help(
            "keep both checkpoints, they prove it: what the log says from here on is not to be believed before somebody knows why"
        )
    )]
    SplitView {
        /// Size that the witness saw.
        seen: u64,
        /// Size that it is shown.
        new: u64,
    },
}

impl Refusal {
    /// The HTTP status that the document has for it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Form { .. } => 400,
            Self::Checkpoint(CheckpointError::Origin { .. }) => 404,
            Self::Checkpoint(_) => 403,
            Self::OldSize { .. } => 409,
            Self::SplitView { seen, new } if seen == new => 409,
            Self::SplitView { .. } => 422,
        }
    }
}

/// Decides whether a witness that saw `seen` of the log with key `log` may cosign. If so: the checkpoint, and what to
/// remember before [`cosign`].
///
/// # Errors
/// [`Refusal`].
pub fn judge(
    request: &AddCheckpoint,
    log: &VerifierKey,
    seen: Option<Seen>,
) -> Result<(Checkpoint, Seen), Refusal> {
    let checkpoint = Checkpoint::of_note(request.checkpoint.clone(), log)?;
    let head = checkpoint.head();
    let new = Seen {
        size: head.size,
        root: head.root,
    };
    if request.old_size > new.size {
        return Err(Refusal::Form {
            why: "the old tree is larger than the new one",
        });
    }
    let seen = seen.unwrap_or(Seen {
        size: 0,
        root: EMPTY_ROOT,
    });
    if request.old_size != seen.size {
        return Err(Refusal::OldSize {
            old: request.old_size,
            seen: seen.size,
        });
    }
    verify_consistency((seen.size, seen.root), (new.size, new.root), &request.proof).map_err(
        |error| match error {
            ProofError::Root => Refusal::SplitView {
                seen: seen.size,
                new: new.size,
            },
            ProofError::Length { .. } | ProofError::Range { .. } => Refusal::Form {
                why: "its proof has a wrong number of hashes",
            },
        },
    )?;
    Ok((checkpoint, new))
}

/// The cosignature of a checkpoint that [`judge`] let pass, at a time in seconds since 1970.
///
/// # Errors
/// [`CheckpointError`] if the key is no witness's.
pub fn cosign(
    checkpoint: &Checkpoint,
    key: &SigningKey,
    time_secs: u64,
) -> Result<Signature, CheckpointError> {
    checkpoint::cosignature(checkpoint.note(), key, time_secs)
}

impl AddCheckpoint {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Refusal::Form`], [`Refusal::Checkpoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let form = |why| Refusal::Form { why };
        let text = std::str::from_utf8(bytes).map_err(|_| form("it is not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or_else(|| form("it has no checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(|digits| {
                let size: u64 = digits.parse().ok()?;
                (size.to_string() == digits).then_some(size)
            })
            .ok_or_else(|| form("it has no old size"))?;
        let proof = lines
            .map(Hash::from_base64)
            .collect::<Option<Vec<_>>>()
            .filter(|proof| proof.len() <= PROOF_HASHES_MAX)
            .ok_or_else(|| form("its hashes are none, or too many"))?;
        let checkpoint = Note::parse(checkpoint.as_bytes()).map_err(CheckpointError::from)?;
        Ok(Self {
            old_size,
            proof,
            checkpoint,
        })
    }
}

/// The body of a request.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof
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
    use crate::note::KeyType;
    use crate::proof::prove_consistency;
    use crate::tree::MemoryTree;

    fn log() -> SigningKey {
        SigningKey::from_seed("mesh.example/log", KeyType::Ed25519, &[1; 32]).unwrap()
    }

    /// A log whose entries after the first `common` are of this `view`.
    fn tree(common: u64, view: u8, size: u64) -> MemoryTree {
        let entry = |number: u64| {
            let view = if number < common { 0 } else { view };
            leaf_hash(&[&number.to_be_bytes()[..], &[view]].concat())
        };
        (0..size).map(entry).collect()
    }

    fn request(tree: &MemoryTree, old_size: u64) -> AddCheckpoint {
        let head = TreeHead {
            origin: "mesh.example/log".into(),
            size: tree.size(),
            root: tree.root(),
            extensions: Vec::new(),
        };
        AddCheckpoint {
            old_size,
            proof: prove_consistency(tree, old_size.min(tree.size()), tree.size()).unwrap(),
            checkpoint: Checkpoint::sign(head, &log()).unwrap().note().clone(),
        }
    }

    fn judged(request: &AddCheckpoint, seen: Option<Seen>) -> Result<Seen, Refusal> {
        judge(request, log().verifier(), seen).map(|(_, seen)| seen)
    }

    #[test]
    fn a_log_that_only_grows_is_cosigned_each_time() {
        let mut seen = None;
        for (old, size) in [(0, 0), (0, 5), (5, 5), (5, 300), (300, 301)] {
            let request = request(&tree(0, 0, size), old);
            let read = AddCheckpoint::parse(request.to_string().as_bytes()).unwrap();
            assert_eq!(read, request);
            let (checkpoint, now) = judge(&read, log().verifier(), seen).unwrap();
            let key = SigningKey::from_seed("w", KeyType::Cosignature, &[2; 32]).unwrap();
            let line = cosign(&checkpoint, &key, 9).unwrap();
            let mut cosigned = checkpoint;
            cosigned.add_cosignature(line, key.verifier()).unwrap();
            seen = Some(now);
        }
    }

    #[test]
    fn two_histories_are_found_whichever_comes_first() {
        for (common, first, second) in
            [(200, 250, 300), (0, 1, 2), (250, 251, 251), (100, 256, 512)]
        {
            for (a, b) in [(1, 2), (2, 1)] {
                let seen = judged(&request(&tree(common, a, first), 0), None).unwrap();
                let refused =
                    judged(&request(&tree(common, b, second), first), Some(seen)).unwrap_err();
                assert_eq!(
                    refused,
                    Refusal::SplitView {
                        seen: first,
                        new: second
                    }
                );
                assert_eq!(refused.status(), if first == second { 409 } else { 422 });
            }
        }
    }

    #[test]
    fn a_log_that_was_cut_or_put_back_is_not_cosigned() {
        let seen = judged(&request(&tree(0, 0, 300), 0), None).unwrap();
        let cut = tree(0, 0, 200);
        assert_eq!(
            judged(&request(&cut, 200), Some(seen)),
            Err(Refusal::OldSize {
                old: 200,
                seen: 300
            })
        );
        assert!(matches!(
            judged(&request(&cut, 300), Some(seen)),
            Err(Refusal::Form { .. })
        ));
    }

    #[test]
    fn requests_of_other_keys_forms_and_proofs_are_refused() {
        let good = request(&tree(0, 0, 300), 200);
        let seen = Some(judged(&request(&tree(0, 0, 200), 0), None).unwrap());
        assert!(judged(&good, seen).is_ok());
        let stranger =
            SigningKey::from_seed("mesh.example/log", KeyType::Ed25519, &[9; 32]).unwrap();
        let refused = judge(&good, stranger.verifier(), seen).unwrap_err();
        assert_eq!(refused.status(), 403);
        let short = AddCheckpoint {
            proof: good.proof[1..].to_vec(),
            ..good.clone()
        };
        assert!(judged(&short, seen).is_err());
        assert_eq!(judged(&good, None).unwrap_err().status(), 409);
        let text = good.to_string();
        for bad in [
            "",
            "old 1\n\n",
            &text.replacen("old 200", "old 0200", 1),
            &text.replacen("old 200", "old -1", 1),
            &text.replacen("old 200", "200", 1),
            &text.replacen(
                "old 200\n",
                &format!("old 200\n{}", format!("{}\n", Hash::default()).repeat(64)),
                1,
            ),
        ] {
            assert!(AddCheckpoint::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
