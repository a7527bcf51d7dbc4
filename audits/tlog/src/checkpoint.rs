//! Signed tree heads ([tlog-checkpoint](https://c2sp.org/tlog-checkpoint)) and what witnesses say of them
//! ([tlog-cosignature](https://c2sp.org/tlog-cosignature), Ed25519).

use crate::hash::Hash;
use crate::limits::{NAME_BYTES_MAX, SIZE_MAX};
use crate::note::{KeyType, Note, NoteError, Signature, SigningKey, VerifierKey};

/// What a log says of itself: how many entries it has, and the root of the tree over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Which log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// Further lines that the log signs, none of them empty. Witnesses say nothing about them.
    pub extensions: Vec<String>,
}

/// A tree head that the log's key signed. [`Checkpoint::open`] is the only way to one from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    head: TreeHead,
    note: Note,
}

/// Why a checkpoint is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Note(#[from] NoteError),
    /// A note that is no checkpoint.
    #[error("the note is no checkpoint: {why}")]
    #[diagnostic(
        code("MESH-0532"),
        help("the file was damaged or is another file; treat the log's tail as unproved")
    )]
    Form {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another log's.
    #[error("the checkpoint is of the log `{found}`, not of `{wanted}`")]
    #[diagnostic(
        code("MESH-0533"),
        help(
            "each log has a key of its own, named as the log is; look for the checkpoint of this log"
        )
    )]
    Origin {
        /// Which log it names.
        found: String,
        /// Which log the key is of.
        wanted: String,
    },
}

impl TreeHead {
    /// The text that is signed.
    ///
    /// # Errors
    /// [`CheckpointError::Form`] if the head has no such form.
    pub fn to_text(&self) -> Result<String, CheckpointError> {
        let lines = std::iter::once(&self.origin).chain(&self.extensions);
        let bad = |line: &String| line.is_empty() || line.chars().any(char::is_control);
        if self.size > SIZE_MAX || self.origin.len() > NAME_BYTES_MAX || lines.clone().any(bad) {
            return Err(form("a line is empty, too long, or has control characters"));
        }
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        for extension in &self.extensions {
            text.push_str(extension);
            text.push('\n');
        }
        Ok(text)
    }

    /// Reads the text of a checkpoint, of a note that is verified or will be.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text
            .strip_suffix('\n')
            .ok_or_else(|| form("its last line does not end"))?
            .split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(form("it has fewer than three lines"));
        };
        let number: u64 = size
            .parse()
            .ok()
            .filter(|number: &u64| *number <= SIZE_MAX && number.to_string() == size)
            .ok_or_else(|| form("its second line is no size"))?;
        let head = Self {
            origin: origin.to_owned(),
            size: number,
            root: Hash::from_base64(root).ok_or_else(|| form("its third line is no hash"))?,
            extensions: lines.map(str::to_owned).collect(),
        };
        // Refuses empty lines too.
        head.to_text().map(|_| head)
    }
}

impl Checkpoint {
    /// Signs a head with the key of its log, whose name is the origin.
    ///
    /// # Errors
    /// [`CheckpointError`] if the head has no form, or the key is another log's.
    pub fn sign(head: TreeHead, key: &SigningKey) -> Result<Self, CheckpointError> {
        check_origin(&head, key.verifier())?;
        let note = Note::sign(&head.to_text()?, key)?;
        Ok(Self { head, note })
    }

    /// Reads a checkpoint and verifies that the key of its log signed it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(bytes: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        Self::of_note(Note::parse(bytes)?, key)
    }

    /// [`Checkpoint::open`] for a note that was read.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn of_note(note: Note, key: &VerifierKey) -> Result<Self, CheckpointError> {
        note.verify(key)?;
        let head = TreeHead::parse(note.text())?;
        check_origin(&head, key)?;
        Ok(Self { head, note })
    }

    /// What it says.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The note that says it.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Adds the cosignature of a witness, which has seen that this tree contains all that it saw before. The time is in
    /// seconds since 1970.
    ///
    /// # Errors
    /// [`CheckpointError::Form`] if the key is no witness's.
    pub fn cosign(&mut self, key: &SigningKey, time_secs: u64) -> Result<(), CheckpointError> {
        self.note.replace(cosignature(&self.note, key, time_secs)?);
        Ok(())
    }

    /// Takes over a cosignature that somebody sent, if it is of `key` and holds.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] if not.
    pub fn add_cosignature(
        &mut self,
        signature: Signature,
        key: &VerifierKey,
    ) -> Result<(), CheckpointError> {
        let mut tried = self.clone();
        tried.note.replace(signature);
        tried.cosigned(key)?;
        *self = tried;
        Ok(())
    }

    /// When the witness with this key last cosigned it, in seconds since 1970.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], [`NoteError::Signature`].
    pub fn cosigned(&self, key: &VerifierKey) -> Result<u64, NoteError> {
        let mut newest = None;
        for signature in self.note.of(key) {
            let time = cosigned_at(self.note.text(), signature, key);
            newest = newest.max(Some(time.ok_or_else(|| NoteError::Signature {
                name: key.name().to_owned(),
            })?));
        }
        newest.ok_or_else(|| NoteError::Unsigned {
            name: key.name().to_owned(),
        })
    }
}

fn check_origin(head: &TreeHead, key: &VerifierKey) -> Result<(), CheckpointError> {
    if head.origin == key.name() {
        return Ok(());
    }
    Err(CheckpointError::Origin {
        found: head.origin.clone(),
        wanted: key.name().to_owned(),
    })
}

pub(crate) fn cosignature(
    note: &Note,
    key: &SigningKey,
    time_secs: u64,
) -> Result<Signature, CheckpointError> {
    if key.verifier().key_type() != KeyType::Cosignature || i64::try_from(time_secs).is_err() {
        return Err(form("the key is no witness's, or the time is none"));
    }
    let signature = key.sign_bytes(cosigned_text(note.text(), time_secs).as_bytes());
    let bytes = [&time_secs.to_be_bytes()[..], &signature].concat();
    Ok(key.line(bytes))
}

fn cosigned_at(text: &str, signature: &Signature, key: &VerifierKey) -> Option<u64> {
    let (time, bytes) = signature.bytes.split_first_chunk()?;
    let time = u64::from_be_bytes(*time);
    let holds = key.key_type() == KeyType::Cosignature
        && i64::try_from(time).is_ok()
        && key.verifies(cosigned_text(text, time).as_bytes(), bytes);
    holds.then_some(time)
}

fn cosigned_text(text: &str, time_secs: u64) -> String {
    format!("cosignature/v1\ntime {time_secs}\n{text}")
}

fn form(why: &'static str) -> CheckpointError {
    CheckpointError::Form { why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;

    fn log(seed: u8) -> SigningKey {
        SigningKey::from_seed("mesh.example/log", KeyType::Ed25519, &[seed; 32]).unwrap()
    }

    fn witness(seed: u8) -> SigningKey {
        SigningKey::from_seed("mesh.example/witness", KeyType::Cosignature, &[seed; 32]).unwrap()
    }

    fn head() -> TreeHead {
        TreeHead {
            origin: "mesh.example/log".into(),
            size: 7,
            root: leaf_hash(b"a"),
            extensions: vec!["time 2026-01-01T00:00:00Z".into()],
        }
    }

    #[test]
    fn a_checkpoint_survives_its_text_and_is_refused_after_every_edit() {
        let signed = Checkpoint::sign(head(), &log(1)).unwrap();
        let text = signed.note().to_string();
        let read = Checkpoint::open(text.as_bytes(), log(1).verifier()).unwrap();
        assert_eq!((&read, read.head()), (&signed, &head()));
        for at in 0..text.len() {
            for bit in [0x01, 0x20] {
                let mut edited = text.clone().into_bytes();
                edited[at] ^= bit;
                assert!(
                    Checkpoint::open(&edited, log(1).verifier()).is_err(),
                    "byte {at}, bit {bit:#x}"
                );
            }
        }
        assert!(Checkpoint::open(text.as_bytes(), log(2).verifier()).is_err());
    }

    #[test]
    fn a_log_cannot_speak_for_another() {
        let other = TreeHead {
            origin: "mesh.example/other".into(),
            ..head()
        };
        let wrong = CheckpointError::Origin {
            found: "mesh.example/other".into(),
            wanted: "mesh.example/log".into(),
        };
        assert_eq!(Checkpoint::sign(other.clone(), &log(1)).unwrap_err(), wrong);
        let note = Note::sign(&other.to_text().unwrap(), &log(1)).unwrap();
        assert_eq!(
            Checkpoint::open(note.to_string().as_bytes(), log(1).verifier()).unwrap_err(),
            wrong
        );
    }

    #[test]
    fn text_that_is_no_head_is_refused_even_if_it_is_signed() {
        let root = leaf_hash(b"a");
        for text in [
            "mesh.example/log\n7\n".to_owned(),
            format!("mesh.example/log\n07\n{root}\n"),
            format!("mesh.example/log\n-7\n{root}\n"),
            format!("mesh.example/log\n+7\n{root}\n"),
            format!("mesh.example/log\n{}\n{root}\n", u64::MAX),
            format!("mesh.example/log\n7\n{root}A\n"),
            format!("mesh.example/log\n7\n{}\n", &root.to_string()[4..]),
            format!("mesh.example/log\n7\n{root}\n\nmore\n"),
            format!("\n7\n{root}\n"),
        ] {
            let note = Note::sign(&text, &log(1)).unwrap();
            let opened = Checkpoint::open(note.to_string().as_bytes(), log(1).verifier());
            assert!(opened.is_err(), "{text:?}");
        }
        for bad in [
            TreeHead {
                origin: String::new(),
                ..head()
            },
            TreeHead {
                extensions: vec!["a\nb".into()],
                ..head()
            },
            TreeHead {
                extensions: vec![String::new()],
                ..head()
            },
            TreeHead {
                size: u64::MAX,
                ..head()
            },
        ] {
            assert!(bad.to_text().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cosignature_binds_its_time_and_its_witness() {
        let mut signed = Checkpoint::sign(head(), &log(1)).unwrap();
        let name = || "mesh.example/witness".to_owned();
        assert_eq!(
            signed.cosigned(witness(5).verifier()),
            Err(NoteError::Unsigned { name: name() })
        );
        signed.cosign(&witness(5), 1_790_000_000).unwrap();
        signed.cosign(&witness(5), 1_790_000_009).unwrap();
        signed.cosign(&witness(6), 7).unwrap();
        let text = signed.note().to_string();
        assert_eq!(text.matches("mesh.example/witness").count(), 2);
        let read = Checkpoint::open(text.as_bytes(), log(1).verifier()).unwrap();
        assert_eq!(read.cosigned(witness(5).verifier()), Ok(1_790_000_009));
        assert_eq!(read.cosigned(witness(6).verifier()), Ok(7));
        // The same line with another time, and the witness's line under another head.
        let mut line = cosignature(signed.note(), &witness(5), 9).unwrap();
        line.bytes[7] ^= 1;
        let refused = Err(CheckpointError::Note(NoteError::Signature { name: name() }));
        let mut bare = Checkpoint::sign(head(), &log(1)).unwrap();
        assert_eq!(bare.add_cosignature(line, witness(5).verifier()), refused);
        let mut other = Checkpoint::sign(TreeHead { size: 8, ..head() }, &log(1)).unwrap();
        let line = cosignature(signed.note(), &witness(5), 9).unwrap();
        assert_eq!(
            other.add_cosignature(line.clone(), witness(5).verifier()),
            refused
        );
        bare.add_cosignature(line, witness(5).verifier()).unwrap();
        assert_eq!(bare.cosigned(witness(5).verifier()), Ok(9));
    }

    #[test]
    fn logs_do_not_cosign_and_witnesses_do_not_sign() {
        let mut signed = Checkpoint::sign(head(), &log(1)).unwrap();
        assert!(signed.cosign(&log(1), 1).is_err());
        assert!(signed.cosign(&witness(5), u64::MAX).is_err());
        let as_log =
            SigningKey::from_seed("mesh.example/log", KeyType::Cosignature, &[1; 32]).unwrap();
        assert!(Checkpoint::sign(head(), &as_log).is_err());
        // A plain signature of a witness's key is no cosignature.
        let plain = signed.note().signatures()[0].clone();
        assert!(signed.cosigned(log(1).verifier()).is_err());
        assert!(
            signed
                .add_cosignature(plain, witness(5).verifier())
                .is_err()
        );
    }
}
