//! What a CA and its signer, a process of its own, say to each other: questions, answers, and their one form in octets.
//!
//! The signer alone reads private keys. The CA opens, makes and saves them by this, and names the bytes to be signed; it
//! gets public keys and signatures. Each question has one answer, in order, each in a frame:
//!
//! ```text
//! frame    length (4, big end first) payload (length)          at most FRAME_BYTES_MAX
//! payload  tag (1) fields                                      nothing after them
//! field    number (4), or: length (4) octets
//! ```
//!
//! Either side hangs up on what it cannot read: who speaks otherwise is not who it was started as.

use crate::key::PublicKey;
use crate::limits::{SIGNED_AT_ONCE_MAX, SIGNED_BYTES_MAX, SIGNER_TEXT_BYTES_MAX};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Octets of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// Octets of a payload: the largest is a question to sign, whose messages are as large and as many as may be.
pub const FRAME_BYTES_MAX: usize = 64 + SIGNED_AT_ONCE_MAX * (SIGNED_BYTES_MAX + 4);
/// Octets of a signature in DER: two numbers of P-384 have 104.
const SIGNATURE_BYTES_MAX: usize = 128;
/// Octets of a public key: that of P-384 has 120.
const PUBLIC_BYTES_MAX: usize = 256;
/// Octets of a private key that others made, PKCS #8.
const PRIVATE_BYTES_MAX: usize = 4 * 1024;
/// Octets of a path: Linux' own limit.
const PATH_BYTES_MAX: usize = 4_096;

/// A key that the signer holds, by the number that it gave it. Numbers are never used twice in the life of a signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyNumber(pub u32);

/// What the CA asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Reads the key in a file, or the one in a token that the file names.
    Open {
        /// The file.
        path: &'a Path,
    },
    /// Reads a key that others wrote: PKCS #8 or SEC1 in PEM, or the name of a key in a token.
    OpenKept {
        /// The file.
        path: &'a Path,
    },
    /// Makes a key, in the token if there is one. It is lost unless it is saved.
    Make,
    /// Makes a key whose file will be the key, also where there is a token.
    MakeInFile,
    /// Takes a key that others made, PKCS #8.
    Take {
        /// It.
        key: &'a [u8],
    },
    /// Writes a key, or where it lies in a token, to a file: whole or not at all, and flushed.
    Save {
        /// Which.
        key: KeyNumber,
        /// The file.
        path: &'a Path,
    },
    /// Signs messages with one key.
    Sign {
        /// Which.
        key: KeyNumber,
        /// At most [`SIGNED_AT_ONCE_MAX`], each of at most [`SIGNED_BYTES_MAX`].
        messages: Vec<&'a [u8]>,
    },
    /// Lets go of a key. What is saved stays; one that was made in a token and never saved is destroyed there.
    Close {
        /// Which.
        key: KeyNumber,
    },
    /// Destroys a key in a token, whose file is gone; one that lay in its file is gone with it.
    Retire {
        /// Which.
        key: KeyNumber,
    },
    /// Destroys the key in a file, or the one in a token that the file names, and the file.
    Destroy {
        /// The file.
        path: &'a Path,
    },
    /// Destroys a file, and the key if that is what it holds. A key in a token stays: it is not ours.
    DestroyFile {
        /// The file.
        path: &'a Path,
    },
}

/// What the signer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A key is at hand.
    Key {
        /// Its number.
        key: KeyNumber,
        /// Its public half.
        public: PublicKey,
    },
    /// As many outcomes as there were messages.
    Signatures(Vec<Result<Vec<u8>, String>>),
    /// It is done.
    Done,
    /// It is not done.
    Refused {
        /// Number of the error code.
        code: u32,
        /// For people.
        why: String,
    },
}

/// Octets that are no question, or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message between CA and signer: {0}")]
pub struct Unreadable(pub &'static str);

mod tag {
    pub(super) const OPEN: u8 = 1;
    pub(super) const MAKE: u8 = 2;
    pub(super) const TAKE: u8 = 3;
    pub(super) const SAVE: u8 = 4;
    pub(super) const SIGN: u8 = 5;
    pub(super) const CLOSE: u8 = 6;
    pub(super) const DESTROY: u8 = 7;
    pub(super) const OPEN_KEPT: u8 = 8;
    pub(super) const RETIRE: u8 = 9;
    pub(super) const DESTROY_FILE: u8 = 10;
    pub(super) const MAKE_IN_FILE: u8 = 11;
    pub(super) const KEY: u8 = 129;
    pub(super) const SIGNATURES: u8 = 130;
    pub(super) const DONE: u8 = 131;
    pub(super) const REFUSED: u8 = 132;
    /// Before each outcome of a signature.
    pub(super) const SIGNED: u32 = 0;
    pub(super) const NOT_SIGNED: u32 = 1;
}

impl<'a> Question<'a> {
    /// The frame, its length included; wiped when dropped, as a private key may be in it.
    pub fn to_frame(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Open { path } => Frame::new(tag::OPEN).path(path),
            Self::OpenKept { path } => Frame::new(tag::OPEN_KEPT).path(path),
            Self::Make => Frame::new(tag::MAKE),
            Self::MakeInFile => Frame::new(tag::MAKE_IN_FILE),
            Self::Take { key } => Frame::new(tag::TAKE).octets(key),
            Self::Save { key, path } => Frame::new(tag::SAVE).number(key.0).path(path),
            Self::Sign { key, messages } => {
                let mut frame = Frame::new(tag::SIGN).number(key.0);
                frame
                    .0
                    .reserve(messages.iter().map(|message| message.len() + 4).sum());
                messages
                    .iter()
                    .fold(frame, |frame, message| frame.octets(message))
            }
            Self::Close { key } => Frame::new(tag::CLOSE).number(key.0),
            Self::Retire { key } => Frame::new(tag::RETIRE).number(key.0),
            Self::Destroy { path } => Frame::new(tag::DESTROY).path(path),
            Self::DestroyFile { path } => Frame::new(tag::DESTROY_FILE).path(path),
        }
        .finish()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Unreadable`]: an unknown tag, a field that is too long or cut off, octets after the last one.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(payload)?;
        let question = match fields.tag {
            tag::OPEN => Self::Open {
                path: fields.path()?,
            },
            tag::OPEN_KEPT => Self::OpenKept {
                path: fields.path()?,
            },
            tag::MAKE => Self::Make,
            tag::MAKE_IN_FILE => Self::MakeInFile,
            tag::TAKE => Self::Take {
                key: fields.octets(PRIVATE_BYTES_MAX)?,
            },
            tag::SAVE => Self::Save {
                key: KeyNumber(fields.number()?),
                path: fields.path()?,
            },
            tag::SIGN => {
                let key = KeyNumber(fields.number()?);
                let mut messages = Vec::new();
                while !fields.is_empty() {
                    if messages.len() == SIGNED_AT_ONCE_MAX {
                        return Err(Unreadable("too many messages"));
                    }
                    messages.push(fields.octets(SIGNED_BYTES_MAX)?);
                }
                Self::Sign { key, messages }
            }
            tag::CLOSE => Self::Close {
                key: KeyNumber(fields.number()?),
            },
            tag::RETIRE => Self::Retire {
                key: KeyNumber(fields.number()?),
            },
            tag::DESTROY => Self::Destroy {
                path: fields.path()?,
            },
            tag::DESTROY_FILE => Self::DestroyFile {
                path: fields.path()?,
            },
            _ => return Err(Unreadable("unknown question")),
        };
        fields.end()?;
        Ok(question)
    }
}

impl Answer {
    /// The frame, its length included.
    pub fn to_frame(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Key { key, public } => Frame::new(tag::KEY).number(key.0).octets(&public.spki()),
            Self::Signatures(outcomes) => outcomes.iter().fold(
                Frame::new(tag::SIGNATURES),
                |frame, outcome| match outcome {
                    Ok(signature) => frame.number(tag::SIGNED).octets(signature),
                    Err(why) => frame.number(tag::NOT_SIGNED).text(why),
                },
            ),
            Self::Done => Frame::new(tag::DONE),
            Self::Refused { code, why } => Frame::new(tag::REFUSED).number(*code).text(why),
        }
        .finish()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Unreadable`], as [`Question::parse`].
    pub fn parse(payload: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::of(payload)?;
        let answer = match fields.tag {
            tag::KEY => Self::Key {
                key: KeyNumber(fields.number()?),
                public: PublicKey::from_spki(fields.octets(PUBLIC_BYTES_MAX)?)
                    .map_err(|_| Unreadable("no public key"))?,
            },
            tag::SIGNATURES => {
                let mut outcomes = Vec::new();
                while !fields.is_empty() {
                    if outcomes.len() == SIGNED_AT_ONCE_MAX {
                        return Err(Unreadable("too many signatures"));
                    }
                    outcomes.push(match fields.number()? {
                        tag::SIGNED => Ok(fields.octets(SIGNATURE_BYTES_MAX)?.to_vec()),
                        tag::NOT_SIGNED => Err(fields.text()?),
                        _ => return Err(Unreadable("unknown outcome")),
                    });
                }
                Self::Signatures(outcomes)
            }
            tag::DONE => Self::Done,
            tag::REFUSED => Self::Refused {
                code: fields.number()?,
                why: fields.text()?,
            },
            _ => return Err(Unreadable("unknown answer")),
        };
        fields.end()?;
        Ok(answer)
    }
}

/// The payload's length by the head of a frame.
///
/// # Errors
/// [`Unreadable`] if it is empty or beyond [`FRAME_BYTES_MAX`].
pub fn payload_bytes(head: [u8; LENGTH_BYTES]) -> Result<usize, Unreadable> {
    match usize::try_from(u32::from_be_bytes(head)) {
        Ok(length @ 1..=FRAME_BYTES_MAX) => Ok(length),
        _ => Err(Unreadable("length of the frame")),
    }
}

/// A frame that is being written.
struct Frame(Zeroizing<Vec<u8>>);

impl Frame {
    fn new(tag: u8) -> Self {
        Self(Zeroizing::new(vec![0, 0, 0, 0, tag]))
    }

    fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn octets(self, octets: &[u8]) -> Self {
        // Nothing here is near 4 GiB; a length that lies is refused by the reader.
        let mut frame = self.number(u32::try_from(octets.len()).unwrap_or(u32::MAX));
        // Whole, not octet by octet: a vector that grows leaves parts of a key behind.
        if frame.0.capacity() - frame.0.len() < octets.len() {
            let mut longer = Zeroizing::new(Vec::with_capacity(frame.0.len() + octets.len()));
            longer.extend_from_slice(&frame.0);
            frame.0 = longer;
        }
        frame.0.extend_from_slice(octets);
        frame
    }

    fn path(self, path: &Path) -> Self {
        self.octets(path.as_os_str().as_bytes())
    }

    fn text(self, text: &str) -> Self {
        let end = text
            .char_indices()
            .map(|(at, letter)| at + letter.len_utf8())
            .take_while(|end| *end <= SIGNER_TEXT_BYTES_MAX)
            .last();
        self.octets(text.get(..end.unwrap_or(0)).unwrap_or_default().as_bytes())
    }

    fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let length = u32::try_from(self.0.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        for (place, octet) in self.0.iter_mut().zip(length.to_be_bytes()) {
            *place = octet;
        }
        self.0
    }
}

/// A payload that is being read.
struct Fields<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(payload: &'a [u8]) -> Result<Self, Unreadable> {
        let (&tag, rest) = payload.split_first().ok_or(Unreadable("it is empty"))?;
        Ok(Self { tag, rest })
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn number(&mut self) -> Result<u32, Unreadable> {
        let (number, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Unreadable("it is cut off"))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn octets(&mut self, limit: usize) -> Result<&'a [u8], Unreadable> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > limit {
            return Err(Unreadable("a field is too long"));
        }
        let (octets, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Unreadable("it is cut off"))?;
        self.rest = rest;
        Ok(octets)
    }

    fn path(&mut self) -> Result<&'a Path, Unreadable> {
        let octets = self.octets(PATH_BYTES_MAX)?;
        if octets.is_empty() || octets.contains(&0) {
            return Err(Unreadable("a path that cannot be one"));
        }
        Ok(Path::new(OsStr::from_bytes(octets)))
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        let octets = self.octets(SIGNER_TEXT_BYTES_MAX)?;
        String::from_utf8(octets.to_vec()).map_err(|_| Unreadable("text that is no UTF-8"))
    }

    fn end(&self) -> Result<(), Unreadable> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Unreadable("octets after its end")),
        }
    }
}

#[cfg(test)]
mod tests;
