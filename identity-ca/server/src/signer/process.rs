//! The signer's own process: it gives up all but its files, opens the token if there is one, and answers until its CA ends.
//!
//! It reads one socket, which it was born with. It cannot open another, nor start a program or a thread; with a PKCS #11
//! module, which is foreign code and may need a network or threads, it can, and then the rules about files and programs
//! alone remain.

use super::error::SignerError;
use super::held::Keys;
use super::token::{Token, TokenConfig};
use crate::error::with_source;
use crate::limits::PIN_BYTES_MAX;
use mesh_issuance::signing::{Answer, FRAME_BYTES_MAX, LENGTH_BYTES, Question, payload_bytes};
use mesh_platform::confine::{Files, FilesKept, Reach, seal};
use mesh_platform::{files, process};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a signer may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerConfig {
    /// The CA's directory.
    pub dir: PathBuf,
    /// Folder of an issuer that others keep.
    pub issuer: Option<PathBuf>,
    /// Where keys are made; none: in files.
    pub token: Option<TokenConfig>,
}

/// Runs the signer of the CA at the other end of `socket` until that one hangs up.
///
/// # Errors
/// [`SignerError`] if it cannot begin; the CA has been told then.
pub fn serve(config: &SignerConfig, mut socket: UnixStream) -> Result<(), SignerError> {
    let ready = process::die_with_parent()
        .map_err(|error| start(&error))
        .and_then(|()| harden(config));
    answer_all(ready, &mut socket)
}

/// The same in a thread of its CA, which gives up nothing.
pub(super) fn serve_thread(
    config: &SignerConfig,
    mut socket: UnixStream,
) -> Result<(), SignerError> {
    answer_all(open_token(config), &mut socket)
}

fn answer_all(
    ready: Result<Option<Token>, SignerError>,
    socket: &mut UnixStream,
) -> Result<(), SignerError> {
    let hung_up = |error: io::Error| SignerError::Ended {
        why: error.to_string(),
    };
    let token = match ready {
        Ok(token) => token,
        Err(error) => {
            socket
                .write_all(&error.to_answer().to_frame())
                .map_err(hung_up)?;
            return Err(error);
        }
    };
    // What is said first says that it is ready.
    socket
        .write_all(&Answer::Done.to_frame())
        .map_err(hung_up)?;
    let mut keys = Keys::new(token);
    let mut buffer = Zeroizing::new(vec![0; FRAME_BYTES_MAX]);
    while let Some(payload) = read_frame(socket, &mut buffer).map_err(hung_up)? {
        let question = Question::parse(payload).map_err(|error| SignerError::Ended {
            why: error.to_string(),
        })?;
        let answer = keys.answer(&question);
        socket.write_all(&answer.to_frame()).map_err(hung_up)?;
    }
    Ok(())
}

/// The next payload, in `buffer`; none if the other side hung up between two frames.
pub(super) fn read_frame<'a>(
    socket: &mut UnixStream,
    buffer: &'a mut [u8],
) -> io::Result<Option<&'a [u8]>> {
    let mut head = [0; LENGTH_BYTES];
    match socket.read(&mut head)? {
        0 => return Ok(None),
        read => socket.read_exact(head.get_mut(read..).unwrap_or_default())?,
    }
    let length = payload_bytes(head).map_err(io::Error::other)?;
    let payload = buffer
        .get_mut(..length)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    socket.read_exact(payload)?;
    Ok(Some(payload))
}

fn start(error: &dyn std::error::Error) -> SignerError {
    SignerError::Start {
        why: with_source(error),
    }
}

/// Gives up what it does not need, then opens the token: its module never runs unconfined.
fn harden(config: &SignerConfig) -> Result<Option<Token>, SignerError> {
    process::no_core_dumps().map_err(|error| start(&error))?;
    match process::lock_memory() {
        Ok(()) => tracing::info!("the signer's memory is locked: no key gets to swap space"),
        Err(error) => tracing::warn!(
            %error,
            "THE SIGNER'S MEMORY IS NOT LOCKED: keys may get to swap space; let it lock all (LimitMEMLOCK=infinity, `ulimit -l unlimited`, CAP_IPC_LOCK), or run without swap"
        ),
    }
    let pin = config.token.as_ref().map(read_pin).transpose()?;
    // What is not there cannot be let in, and the module could not make it afterwards.
    let folders = config.token.iter().flat_map(|token| &token.files);
    for folder in folders.filter(|folder| !folder.exists()) {
        files::create_dir_private(folder).map_err(|error| start(&error))?;
    }
    let (files, reach) = needs(config);
    match seal(&files, reach).map_err(|error| start(&error))? {
        FilesKept::Fully => {
            tracing::info!(?reach, "the signer is confined: its own files alone");
        }
        kept => tracing::warn!(
            ?reach,
            ?kept,
            "the signer is confined, but not to its own files: the kernel lacks Landlock, or a part of it"
        ),
    }
    match (&config.token, pin) {
        (Some(token), Some(pin)) => Token::open(token, pin).map(Some),
        _ => Ok(None),
    }
}

fn open_token(config: &SignerConfig) -> Result<Option<Token>, SignerError> {
    let Some(token) = &config.token else {
        return Ok(None);
    };
    let pin = read_pin(token)?;
    Token::open(token, pin).map(Some)
}

/// Files and system calls that are needed.
fn needs(config: &SignerConfig) -> (Files, Reach) {
    let mut files = Files {
        reads: config.issuer.iter().cloned().collect(),
        writes: vec![config.dir.clone()],
    };
    let Some(token) = &config.token else {
        return (files, Reach::Files);
    };
    files
        .reads
        .extend(token.module.parent().map(Path::to_owned));
    files.writes.extend(token.files.iter().cloned());
    (files, Reach::ForeignCode)
}

/// The PIN in its file, without the line's end.
pub(crate) fn read_pin(token: &TokenConfig) -> Result<Zeroizing<String>, SignerError> {
    let refused = |why: String| SignerError::Pin {
        token: token.token.clone(),
        why,
    };
    let path = token.pin.display();
    let bytes = files::read_limited(&token.pin, PIN_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|_| refused(format!("`{path}` cannot be read")))?;
    let found = std::fs::metadata(&token.pin)
        .map_err(|error| refused(format!("`{path}` cannot be looked at: {error}")))?;
    let mode = found.mode() & 0o7777;
    let ours = found.uid() == rustix::process::geteuid().as_raw() && mode & 0o077 == 0;
    // What root owns it may read anyway; our group, which the operator vouches for, may read it and nothing else.
    let by_group = token.pin_by_group
        && found.uid() == 0
        && found.gid() == rustix::process::getegid().as_raw()
        && mode & 0o037 == 0;
    if !ours && !by_group {
        return Err(refused(format!(
            "`{path}` has mode {mode:04o}, owner {} and group {}: others may read it",
            found.uid(),
            found.gid()
        )));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| refused(format!("`{path}` is no text")))?
        .trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(refused(format!("`{path}` is empty")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}
