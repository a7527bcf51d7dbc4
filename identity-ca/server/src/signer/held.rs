//! What the signer does, question by question: the keys that it holds, in memory or in a token, and the one file of each.

use super::error::SignerError;
use super::token::Token;
use super::{KeyInMemory, generate};
use crate::limits::{KEY_FILE_BYTES_MAX, SIGNER_KEYS_MAX};
use crate::pem;
use mesh_issuance::adoption::source;
use mesh_issuance::signing::{Answer, KeyNumber, Question};
use mesh_issuance::{PublicKey, Signer};
use mesh_platform::{PlatformError, files};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// A private key, wherever it lies, and what its file holds.
pub(crate) trait Kept: Signer {
    /// The text of its file: the key, or the name of the key in its token.
    fn to_file(&self) -> Zeroizing<String>;

    /// Destroys what lies outside of its file, if anything does.
    fn retire(&self) -> Result<(), SignerError> {
        Ok(())
    }
}

/// A key whose file is the key.
struct InFile {
    key: KeyInMemory,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Signer for InFile {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, mesh_issuance::SignerFailed> {
        self.key.sign(message)
    }
}

impl Kept for InFile {
    fn to_file(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &self.pkcs8)
    }
}

/// A key that is at hand.
struct Held {
    key: Box<dyn Kept>,
    /// Made here, and in no file yet: nobody would find it again in its token.
    unsaved: bool,
}

/// All keys of a signer.
pub(super) struct Keys {
    held: BTreeMap<KeyNumber, Held>,
    next: u32,
    /// Where new keys are made; none: in memory.
    token: Option<Token>,
}

impl Keys {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self {
            held: BTreeMap::new(),
            next: 1,
            token,
        }
    }

    /// Answers one question.
    pub(super) fn answer(&mut self, question: &Question<'_>) -> Answer {
        let answered = match question {
            Question::Open { path } => self.open(path),
            Question::OpenKept { path } => self.open_kept(path),
            Question::Make => self.make(),
            Question::MakeInFile => self.make_in_memory(),
            Question::Take { key } => self.take(key, SignerError::Kind),
            Question::Save { key, path } => self.save(*key, path),
            Question::Sign { key, messages } => self.sign(*key, messages),
            Question::Close { key } => self.close(*key),
            Question::Retire { key } => self.of(*key).and_then(|key| {
                key.retire()?;
                Ok(Answer::Done)
            }),
            Question::Destroy { path } => self.destroy(path),
            Question::DestroyFile { path } => destroy_file(path),
        };
        answered.unwrap_or_else(|error| error.to_answer())
    }

    fn hold(&mut self, key: Box<dyn Kept>) -> Result<Answer, SignerError> {
        self.hold_as(Held {
            key,
            unsaved: false,
        })
    }

    fn hold_as(&mut self, held: Held) -> Result<Answer, SignerError> {
        if self.held.len() >= SIGNER_KEYS_MAX {
            held.end()?;
            return Err(SignerError::NotMade {
                why: format!("it holds {SIGNER_KEYS_MAX} keys already"),
            });
        }
        let number = KeyNumber(self.next);
        self.next += 1;
        let public = held.key.public_key().clone();
        self.held.insert(number, held);
        Ok(Answer::Key {
            key: number,
            public,
        })
    }

    fn open(&mut self, path: &Path) -> Result<Answer, SignerError> {
        let text = read(path)?;
        if let Some(key) = self.in_token(&text)? {
            return self.hold(key);
        }
        let pkcs8 = pem::decode(pem::PRIVATE_KEY, &text).ok_or(SignerError::Damaged)?;
        self.take(&pkcs8, SignerError::Damaged)
    }

    fn open_kept(&mut self, path: &Path) -> Result<Answer, SignerError> {
        let text = read(path)?;
        if let Some(key) = self.in_token(&text)? {
            return self.hold(key);
        }
        let pkcs8 = source::key_from_pem(&text).map_err(|_| SignerError::Unreadable)?;
        self.take(&pkcs8, SignerError::Kind)
    }

    /// The key that the text of a file names, if it names one.
    fn in_token(&self, text: &[u8]) -> Result<Option<Box<dyn Kept>>, SignerError> {
        if !Token::is_name(text) {
            return Ok(None);
        }
        let token = self.token.as_ref().ok_or(SignerError::NoToken)?;
        Ok(Some(Box::new(token.find(text)?)))
    }

    fn take(&mut self, pkcs8: &[u8], otherwise: SignerError) -> Result<Answer, SignerError> {
        let key = KeyInMemory::read(pkcs8).ok_or(otherwise)?;
        let pkcs8 = Zeroizing::new(pkcs8.to_vec());
        self.hold(Box::new(InFile { key, pkcs8 }))
    }

    fn make(&mut self) -> Result<Answer, SignerError> {
        if let Some(token) = &self.token {
            let key = Box::new(token.make()?);
            return self.hold_as(Held { key, unsaved: true });
        }
        self.make_in_memory()
    }

    fn make_in_memory(&mut self) -> Result<Answer, SignerError> {
        let not_made = |why: String| SignerError::NotMade { why };
        let (pkcs8, _) = generate().map_err(|error| not_made(error.to_string()))?;
        self.take(&pkcs8, not_made("it cannot be read back".to_owned()))
    }

    fn of(&self, number: KeyNumber) -> Result<&dyn Kept, SignerError> {
        let missing = || SignerError::Ended {
            why: format!("it holds no key {}", number.0),
        };
        let held = self.held.get(&number).ok_or_else(missing)?;
        Ok(&*held.key)
    }

    fn close(&mut self, number: KeyNumber) -> Result<Answer, SignerError> {
        if let Some(held) = self.held.remove(&number) {
            held.end()?;
        }
        Ok(Answer::Done)
    }

    fn save(&mut self, number: KeyNumber, path: &Path) -> Result<Answer, SignerError> {
        let text = self.of(number)?.to_file();
        files::write_atomic(path, text.as_bytes(), 0o600)
            .map_err(|error| SignerError::file(&error))?;
        if let Some(held) = self.held.get_mut(&number) {
            held.unsaved = false;
        }
        Ok(Answer::Done)
    }

    fn sign(&self, number: KeyNumber, messages: &[&[u8]]) -> Result<Answer, SignerError> {
        let outcomes = self.of(number)?.sign_all(messages);
        let said = outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(|error| error.0));
        Ok(Answer::Signatures(said.collect()))
    }

    fn destroy(&self, path: &Path) -> Result<Answer, SignerError> {
        if length(path)?.is_none() {
            return Ok(Answer::Done);
        }
        let text = read(path)?;
        if Token::is_name(&text) {
            let token = self.token.as_ref().ok_or(SignerError::NoToken)?;
            token.destroy(&text)?;
        }
        destroy_file(path)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for held in std::mem::take(&mut self.held).into_values() {
            // It was said; there is nobody to answer any more.
            let _ = held.end();
        }
    }
}

impl Held {
    /// Lets go of it. One that no file names would stay in its token for ever.
    fn end(self) -> Result<(), SignerError> {
        if !self.unsaved {
            return Ok(());
        }
        self.key.retire().inspect_err(|error| {
            tracing::warn!(
                %error,
                "a key that was made and not needed could not be destroyed in its token, and stays there"
            );
        })
    }
}

/// Overwrites the file first, for disks that write in place.
fn destroy_file(path: &Path) -> Result<Answer, SignerError> {
    let Some(length) = length(path)? else {
        return Ok(Answer::Done);
    };
    let failed = |source| SignerError::file(&PlatformError::from_io("overwrite", path, source));
    let zeros = vec![0; usize::try_from(length.min(KEY_FILE_BYTES_MAX)).unwrap_or(0)];
    let mut file = File::options().write(true).open(path).map_err(failed)?;
    file.write_all(&zeros).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    files::remove(path).map_err(|error| SignerError::file(&error))?;
    Ok(Answer::Done)
}

/// Octets of a file; none if it is not there. What cannot be looked at may be.
fn length(path: &Path) -> Result<Option<u64>, SignerError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SignerError::file(&PlatformError::from_io(
            "look at", path, source,
        ))),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SignerError> {
    files::read_limited(path, KEY_FILE_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|error| SignerError::file(&error))
}
