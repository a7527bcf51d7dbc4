//! The CA's end: starts the signer, asks it, and starts it again when it ended.
//!
//! One question at a time. A signer that hangs up, says what cannot be read or takes too long is ended; whatever was asked
//! of it has failed, and so has everything until the next one is ready. Keys whose files are known are then opened again,
//! and must be the same.

use super::error::SignerError;
use super::process::{self, SignerConfig, read_frame};
use crate::limits::{SIGNER_ANSWER_MAX, SIGNER_HEALTHY_AFTER, SIGNER_PAUSE_MAX, SIGNER_PAUSE_MIN};
use mesh_issuance::limits::SIGNED_AT_ONCE_MAX;
use mesh_issuance::signing::{Answer, FRAME_BYTES_MAX, KeyNumber, Question};
use mesh_issuance::{PublicKey, Signer, SignerFailed};
use mesh_platform::process::PidFd;
use mesh_platform::{Platform, System};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// What runs as the signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerStart {
    /// A process of its own. The program must call [`process::serve`] with the socket that is its standard input.
    Process {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
    /// A thread of the CA, whose memory then holds the keys: for tests.
    DangerThread(SignerConfig),
}

/// The signer of a CA, for all who ask it. It ends with the last of them.
#[derive(Clone)]
pub struct Signing(Arc<Shared>);

struct Shared {
    line: Mutex<Line>,
}

/// The connection to the signer that runs now.
struct Line {
    /// Counts signers: numbers of keys are of one of them alone.
    life: u64,
    socket: Option<UnixStream>,
    process: Option<PidFd>,
    buffer: Vec<u8>,
    /// Why there is none.
    why: String,
}

/// A key that the signer holds.
pub(crate) struct HeldKey {
    signing: Signing,
    public: PublicKey,
    /// None: not saved yet, or not where it will stay.
    file: Option<PathBuf>,
    at: Mutex<(u64, KeyNumber)>,
}

impl Signing {
    /// Starts a signer and waits until it is ready. It is kept running as long as somebody holds this.
    ///
    /// # Errors
    /// [`SignerError`], as the signer says it.
    pub(crate) fn start(start: SignerStart) -> Result<Self, SignerError> {
        let shared = Arc::new(Shared {
            line: Mutex::new(Line {
                life: 0,
                socket: None,
                process: None,
                buffer: vec![0; FRAME_BYTES_MAX],
                why: "it is being started".to_owned(),
            }),
        });
        let (ready, first) = sync_channel(1);
        let kept = Arc::downgrade(&shared);
        // A thread of its own, which lives as long as the CA: the kernel ends a child with the thread that made it.
        thread::Builder::new()
            .name("signer".to_owned())
            .spawn(move || keep_running(&start, &kept, &ready))
            .map_err(|error| SignerError::Start {
                why: error.to_string(),
            })?;
        match first.recv() {
            Ok(Ok(())) => Ok(Self(shared)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SignerError::Start {
                why: "what starts it has stopped".to_owned(),
            }),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line()
    }

    fn key(&self, question: &Question<'_>, file: Option<&Path>) -> Result<HeldKey, SignerError> {
        let mut line = self.line();
        match line.ask(question)? {
            Answer::Key { key, public } => Ok(HeldKey {
                signing: self.clone(),
                public,
                file: file.map(Path::to_owned),
                at: Mutex::new((line.life, key)),
            }),
            other => Err(line.unexpected(&other)),
        }
    }

    fn done(&self, question: &Question<'_>) -> Result<(), SignerError> {
        let mut line = self.line();
        match line.ask(question)? {
            Answer::Done => Ok(()),
            other => Err(line.unexpected(&other)),
        }
    }

    /// Opens the key in a file of the CA.
    pub(crate) fn open(&self, path: &Path) -> Result<HeldKey, SignerError> {
        self.key(&Question::Open { path }, Some(path))
    }

    /// Opens the key in a file that others write. It is not where it will stay.
    pub(crate) fn open_kept(&self, path: &Path) -> Result<HeldKey, SignerError> {
        self.key(&Question::OpenKept { path }, None)
    }

    /// Makes a key.
    pub(crate) fn make(&self) -> Result<HeldKey, SignerError> {
        self.key(&Question::Make, None)
    }

    /// Makes a key whose file will be the key, also where there is a token.
    pub(crate) fn make_in_file(&self) -> Result<HeldKey, SignerError> {
        self.key(&Question::MakeInFile, None)
    }

    /// Hands over a key that others made, PKCS #8.
    pub(crate) fn take(&self, pkcs8: &[u8]) -> Result<HeldKey, SignerError> {
        self.key(&Question::Take { key: pkcs8 }, None)
    }

    /// Lets go of the key of an issuer that was replaced: in a token it is destroyed.
    pub(crate) fn retire(&self, key: &HeldKey) -> Result<(), SignerError> {
        let mut line = self.line();
        let number = key.number(&mut line)?;
        match line.ask(&Question::Retire { key: number })? {
            Answer::Done => Ok(()),
            other => Err(line.unexpected(&other)),
        }
    }

    /// Destroys the key in a file of the CA, and the file; one that is not there is destroyed.
    pub(crate) fn destroy(&self, path: &Path) -> Result<(), SignerError> {
        self.done(&Question::Destroy { path })
    }

    /// Destroys a file of the CA, and the key in it; one in a token, which others keep there, stays.
    pub(crate) fn destroy_file(&self, path: &Path) -> Result<(), SignerError> {
        self.done(&Question::DestroyFile { path })
    }

    /// How many signers there were.
    #[cfg(test)]
    pub(crate) fn lives(&self) -> u64 {
        self.line().life
    }

    /// The process that runs now; none in a thread, or between two.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.line().process.as_ref().map(PidFd::pid)
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn ask(&mut self, question: &Question<'_>) -> Result<Answer, SignerError> {
        let answer = match &mut self.socket {
            None => Err(io::Error::other(self.why.clone())),
            Some(socket) => asked(socket, question, &mut self.buffer),
        };
        match answer {
            Ok(Answer::Refused { code, why }) => Err(SignerError::from_answer(code, &why)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.hang_up(&error.to_string())),
        }
    }

    /// Ends a signer that does not answer as it should: who waits for it starts the next one.
    fn hang_up(&mut self, why: &str) -> SignerError {
        if let Some(socket) = self.socket.take() {
            self.why = why.to_owned();
            let _ = socket.shutdown(Shutdown::Both);
            // It may hang where it sees nothing of that.
            let _ = self.process.as_ref().map(PidFd::kill);
            tracing::error!(
                why,
                "the signer does not answer; what was asked of it has failed"
            );
        }
        SignerError::Ended {
            why: self.why.clone(),
        }
    }

    fn unexpected(&mut self, answer: &Answer) -> SignerError {
        self.hang_up(&format!("it answered {answer:?}"))
    }
}

/// Asks, and waits for the answer.
fn asked(
    socket: &mut UnixStream,
    question: &Question<'_>,
    buffer: &mut [u8],
) -> io::Result<Answer> {
    socket.write_all(&question.to_frame())?;
    answer(socket, buffer)
}

fn answer(socket: &mut UnixStream, buffer: &mut [u8]) -> io::Result<Answer> {
    let payload = read_frame(socket, buffer)?.ok_or_else(|| io::Error::other("it hung up"))?;
    Answer::parse(payload).map_err(io::Error::other)
}

/// A signer that runs.
enum Running {
    Process(std::process::Child),
    Thread(thread::JoinHandle<Result<(), SignerError>>),
}

impl Running {
    fn start(how: &SignerStart) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(SIGNER_ANSWER_MAX))?;
        ours.set_write_timeout(Some(SIGNER_ANSWER_MAX))?;
        let running = match how {
            SignerStart::Process { program, arguments } => {
                let mut command = Command::new(program);
                // A group of its own: who ends the CA's group ends the CA, which still has to sign off.
                command.arg0("mesh").args(arguments).process_group(0);
                command
                    .stdin(Stdio::from(OwnedFd::from(theirs)))
                    .stdout(Stdio::null());
                Self::Process(command.spawn()?)
            }
            SignerStart::DangerThread(config) => {
                let config = config.clone();
                Self::Thread(thread::spawn(move || {
                    process::serve_thread(&config, theirs)
                }))
            }
        };
        Ok((running, ours))
    }

    fn process(&self) -> Option<PidFd> {
        match self {
            Self::Process(child) => PidFd::open(child.id()).ok(),
            Self::Thread(_) => None,
        }
    }

    /// Waits for its end.
    fn ended(self) -> String {
        match self {
            Self::Process(mut child) => child
                .wait()
                .map_or_else(|error| error.to_string(), |status| status.to_string()),
            Self::Thread(thread) => format!("{:?}", thread.join()),
        }
    }
}

/// Keeps a signer running until nobody holds `shared` any more; says of the first one whether it is ready.
fn keep_running(
    start: &SignerStart,
    shared: &Weak<Shared>,
    ready: &SyncSender<Result<(), SignerError>>,
) {
    let mut pause = SIGNER_PAUSE_MIN;
    let mut first = true;
    loop {
        let begun = Running::start(start).map_err(|error| SignerError::Start {
            why: error.to_string(),
        });
        let lived = match begun {
            Ok((running, socket)) => {
                let (begun, lived) = live(running, socket, shared, first.then_some(ready));
                match begun {
                    Ok(()) => lived,
                    Err(_) if first => return,
                    // Another wrong PIN would lock the token.
                    Err(error @ SignerError::Pin { .. }) => {
                        tracing::error!(%error, "THE SIGNER CANNOT BE STARTED AGAIN, and is not tried again: start the CA again once that is mended");
                        return;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the signer cannot be started again");
                        Duration::ZERO
                    }
                }
            }
            Err(error) if first => return drop(ready.send(Err(error))),
            Err(error) => {
                tracing::error!(%error, "the signer cannot be started again");
                Duration::ZERO
            }
        };
        first = false;
        if shared.strong_count() == 0 {
            return;
        }
        pause = match lived >= SIGNER_HEALTHY_AFTER {
            true => SIGNER_PAUSE_MIN,
            false => pause,
        };
        thread::sleep(pause);
        pause = (pause * 2).min(SIGNER_PAUSE_MAX);
    }
}

/// One signer from its first word to its end, and how long it lived after that word.
fn live(
    running: Running,
    mut socket: UnixStream,
    shared: &Weak<Shared>,
    first: Option<&SyncSender<Result<(), SignerError>>>,
) -> (Result<(), SignerError>, Duration) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let begun = match answer(&mut socket, &mut buffer) {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused { code, why }) => Err(SignerError::from_answer(code, &why)),
        Ok(other) => Err(SignerError::Start {
            why: format!("it began with {other:?}"),
        }),
        Err(error) => Err(SignerError::Start {
            why: format!("it did not begin: {error}"),
        }),
    };
    drop(buffer);
    let process = running.process();
    if begun.is_ok()
        && let Some(shared) = shared.upgrade()
    {
        let mut line = shared.line();
        line.life += 1;
        line.socket = Some(socket);
        line.process = process;
        tracing::info!(
            pid = line.process.as_ref().map(PidFd::pid),
            "the signer is ready"
        );
    } else {
        // Closed, so that it ends, if it is still there.
        drop(socket);
        let _ = process.map(|process| process.kill());
    }
    if let Some(first) = first {
        // Nobody waits for it who gave up.
        let _ = first.send(begun.clone());
    }
    let clock = System::new();
    let how = running.ended();
    let lived = Duration::from_micros(clock.monotonic().micros());
    if let Some(shared) = shared.upgrade() {
        let mut line = shared.line();
        line.process = None;
        if line.socket.take().is_some() {
            line.why = format!("it ended: {how}");
        }
        if begun.is_ok() {
            tracing::error!(
                how,
                "THE SIGNER ENDED: nothing is signed until it runs again"
            );
        }
    }
    (begun, lived)
}

impl HeldKey {
    /// Writes it to a file: whole or not at all, and flushed.
    pub(crate) fn save(&self, path: &Path) -> Result<(), SignerError> {
        let mut line = self.signing.line();
        let key = self.number(&mut line)?;
        match line.ask(&Question::Save { key, path })? {
            Answer::Done => Ok(()),
            other => Err(line.unexpected(&other)),
        }
    }

    /// Its number at the signer that runs now.
    fn number(&self, line: &mut Line) -> Result<KeyNumber, SignerError> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if at.0 == line.life {
            return Ok(at.1);
        }
        let file = self.file.as_deref().ok_or_else(|| SignerError::Ended {
            why: "it ended, and a key that was not saved ended with it".to_owned(),
        })?;
        match line.ask(&Question::Open { path: file })? {
            Answer::Key { key, public } if public == self.public => {
                *at = (line.life, key);
                Ok(key)
            }
            Answer::Key { .. } => Err(SignerError::Damaged),
            other => Err(line.unexpected(&other)),
        }
    }

    fn signatures(
        &self,
        messages: &[&[u8]],
    ) -> Result<Vec<Result<Vec<u8>, SignerFailed>>, SignerError> {
        let mut line = self.signing.line();
        let key = self.number(&mut line)?;
        let question = Question::Sign {
            key,
            messages: messages.to_vec(),
        };
        match line.ask(&question)? {
            Answer::Signatures(outcomes) if outcomes.len() == messages.len() => Ok(outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(SignerFailed))
                .collect()),
            other => Err(line.unexpected(&other)),
        }
    }
}

impl Signer for HeldKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        let missing = || Err(SignerFailed("it left an answer out".to_owned()));
        self.sign_all(&[message]).pop().unwrap_or_else(missing)
    }

    fn sign_all(&self, messages: &[&[u8]]) -> Vec<Result<Vec<u8>, SignerFailed>> {
        messages
            .chunks(SIGNED_AT_ONCE_MAX)
            .flat_map(|some| match self.signatures(some) {
                Ok(outcomes) => outcomes,
                Err(error) => vec![Err(error.failed()); some.len()],
            })
            .collect()
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        let mut line = self.signing.line();
        let (life, key) = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if life == line.life && line.socket.is_some() {
            // If it fails, the signer is gone, and the key with it.
            let _ = line.ask(&Question::Close { key });
        }
    }
}

impl fmt::Debug for HeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldKey({:?})", self.public)
    }
}
