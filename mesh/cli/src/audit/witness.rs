//! `mesh audit witness`: a second keeper of logs. It looks at the checkpoints of logs, makes sure that each contains what
//! it saw before, and cosigns them with a key of its own. Who rewrites a log, cuts it, or shows two histories needs the
//! witness's memory too.
//!
//! ```text
//! <dir>/<log>.checkpoint    the newest checkpoint that was found good, with the witness's cosignature
//! <dir>/<log>.pub           the log's public key, as it was when the witness first saw the log
//! <dir>/<log>.refused       the last checkpoint that was not cosigned: the proof of what the log did
//! <dir>/witness.key, .pub   the witness's own key
//! ```
//! It keeps roots, not lines: whoever has the log and this folder can hold the one against the other with
//! `mesh audit verify --witness`.

use super::logs::{self, LogError, WITNESS_KEY};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Output;
use clap::Args;
use mesh_platform::audit_log::AuditLogError;
use mesh_platform::log_files::{self, NotProved};
use mesh_platform::{Platform, PlatformError, System, files, tree_log};
use mesh_tlog::note::{KeyType, SigningKey};
use mesh_tlog::witness::{self, AddCheckpoint, Refusal, Seen};
use mesh_tlog::{Checkpoint, CheckpointError, TileNodes, VerifierKey, proof, prove_consistency};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which logs to watch, and where to remember what they said.
#[derive(Args, Clone, Debug)]
pub(crate) struct WitnessArgs {
    /// Log files, or folders of them; folders are looked through again each time.
    #[arg(value_name = "FILE|DIR", required = true)]
    logs: Vec<PathBuf>,
    /// Folder of the witness; best on another machine or of another user than the logs.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Trusted public keys of the logs, one a line; by default the one beside each log when it is first seen.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name of the witness, in its key and its cosignatures.
    #[arg(long, default_value = "witness")]
    name: String,
    /// Time between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Looks once and ends: 0 if all logs are as they should be.
    #[arg(long)]
    once: bool,
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum WitnessError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hashes(#[from] NotProved),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Key(#[from] AuditLogError),
}

struct Witness<'a> {
    args: &'a WitnessArgs,
    key: SigningKey,
    /// What was said of each log last, so that it is said once.
    said: BTreeMap<PathBuf, String>,
}

/// Looks at the logs until it is ended; what it remembers is replaced whole, so it may be ended at any moment.
pub(super) fn run(args: &WitnessArgs, output: &mut Output) -> Result<Exit, Fault> {
    files::create_dir_private(&args.dir)?;
    let key_file = args.dir.join("witness.key");
    let key = tree_log::load_or_make(&key_file, &args.name, KeyType::Cosignature)?;
    let line = format!("{}\n", key.verifier());
    files::write_atomic(&args.dir.join(WITNESS_KEY), line.as_bytes(), 0o644)?;
    let mut witness = Witness {
        args,
        key,
        said: BTreeMap::new(),
    };
    let platform = System::new();
    loop {
        let now = u64::try_from(platform.wall_clock().unix_secs()).unwrap_or(0);
        let good = witness.look(now, output);
        if args.once {
            return Ok(if good { Exit::Ok } else { Exit::Failure });
        }
        std::thread::sleep(Duration::from_secs(args.every));
    }
}

impl Witness<'_> {
    /// One look at all logs. False if one of them is not as it should be.
    fn look(&mut self, now_secs: u64, output: &mut Output) -> bool {
        let mut good = true;
        for log in self.logs(output) {
            let said = match self.look_at(&log, now_secs) {
                Ok(()) => String::new(),
                Err(error) => {
                    good = false;
                    let fault = Fault::from(error);
                    format!("{}: {}", log.display(), fault.text(false))
                }
            };
            let before = self.said.insert(log, said.clone());
            if !said.is_empty() && before.as_ref() != Some(&said) {
                output.talk(said);
            }
        }
        good
    }

    fn logs(&self, output: &mut Output) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for path in &self.args.logs {
            if !path.is_dir() {
                found.push(path.clone());
                continue;
            }
            match log_files::logs_in(path) {
                Ok(logs) => found.extend(logs),
                Err(error) => output.talk(error),
            }
        }
        found
    }

    fn look_at(&self, log: &Path, now_secs: u64) -> Result<(), WitnessError> {
        let origin = logs::origin_of(log);
        let file = |ending: &str| self.args.dir.join(format!("{origin}.{ending}"));
        let log_key = self.key_of(log, &file("pub"))?;
        let opened = logs::open(log)?;
        let Some(bytes) = opened.checkpoint()? else {
            // A log that has just been begun.
            return Ok(());
        };
        let new = Checkpoint::open(bytes, &log_key)?;
        let seen = remembered(&file("checkpoint"), &log_key)?;
        if seen
            .as_ref()
            .is_some_and(|seen| seen.note().text() == new.note().text())
        {
            return Ok(());
        }
        let seen = seen.map(|seen| Seen {
            size: seen.head().size,
            root: seen.head().root,
        });
        let old_size = seen.map_or(0, |seen| seen.size);
        let judged = judge(&opened, &new, old_size, &log_key, seen);
        let mut good = match judged {
            Ok(good) => good,
            Err(error) => {
                if let WitnessError::Refusal(_) = &error {
                    files::write_atomic(&file("refused"), bytes, 0o644)?;
                }
                return Err(error);
            }
        };
        good.cosign(&self.key, now_secs)?;
        // Remembered and published in one: nobody sees a cosignature that the witness could forget.
        let note = good.note().to_string();
        Ok(files::write_atomic(
            &file("checkpoint"),
            note.as_bytes(),
            0o644,
        )?)
    }

    /// The log's key: a trusted one, or that of the first look.
    fn key_of(&self, log: &Path, pinned: &Path) -> Result<VerifierKey, LogError> {
        if let Some(trusted) = &self.args.key {
            return logs::key_of(log, Some(trusted));
        }
        if !pinned.exists() {
            let key = logs::key_of(log, None)?;
            files::write_atomic(pinned, format!("{key}\n").as_bytes(), 0o644)?;
        }
        logs::key_of(log, Some(pinned))
    }
}

/// What the witness cosigned last of a log.
fn remembered(file: &Path, key: &VerifierKey) -> Result<Option<Checkpoint>, WitnessError> {
    match files::read_limited(file, mesh_tlog::limits::NOTE_BYTES_MAX as u64) {
        Ok(bytes) => Ok(Some(Checkpoint::open(&bytes, key)?)),
        Err(absent) if absent.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn judge(
    log: &log_files::LogFiles,
    new: &Checkpoint,
    old_size: u64,
    key: &VerifierKey,
    seen: Option<Seen>,
) -> Result<Checkpoint, WitnessError> {
    let head = new.head();
    if old_size > head.size {
        return Err(Refusal::OldSize {
            old: head.size,
            seen: old_size,
        }
        .into());
    }
    let nodes = TileNodes::new(log.tiles(), head.size);
    // Damaged hashes prove nothing, but they are no second history.
    let root = proof::root(&nodes, head.size).map_err(|_| NotProved::Damaged)?;
    if root != head.root {
        return Err(NotProved::Damaged.into());
    }
    let proof = prove_consistency(&nodes, old_size, head.size).map_err(|_| NotProved::Damaged)?;
    let request = AddCheckpoint {
        old_size,
        proof,
        checkpoint: new.note().clone(),
    };
    Ok(witness::judge(&request, key, seen)?.0)
}
