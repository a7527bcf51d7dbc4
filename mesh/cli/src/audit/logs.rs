//! Which logs are meant, the keys that they are proved with, and what a witness saw of them.

use crate::fault::Fault;
use crate::live::{Live, LiveArgs};
use mesh_platform::log_files::{self, LogFiles};
use mesh_platform::{PlatformError, files};
use mesh_tlog::{Checkpoint, CheckpointError, KeyError, VerifierKey};
use std::path::{Path, PathBuf};

/// Bytes of a file of public keys or a checkpoint.
const FILE_BYTES_MAX: u64 = mesh_tlog::limits::NOTE_BYTES_MAX as u64;

/// Folder of the witness in the state of a mesh, and the name of its public key there.
pub(super) const WITNESS_DIR: &str = "witness";
pub(super) const WITNESS_KEY: &str = "witness.pub";

/// Why a log cannot be looked at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum LogError {
    /// None there.
    #[error("there is no log in {places}")]
    #[diagnostic(
        code("MESH-0614"),
        help("logs end in `.jsonl`; a proxy makes its own when it starts")
    )]
    NoLogs {
        /// Where was looked.
        places: String,
    },
    /// The system refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// No key of that name.
    #[error("`{}` has no public key of the log `{origin}`", file.display())]
    #[diagnostic(
        code("MESH-0547"),
        help(
            "give a file with the `.pub` lines of all logs that are to be proved, from a copy you trust; the name before the first `+` is the log's"
        )
    )]
    NoKey {
        /// The file.
        file: PathBuf,
        /// Whose log.
        origin: String,
    },
    /// A line that is no key.
    #[error("`{}` is no file of public keys", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: KeyError,
    },
    /// What lies beside the log cannot be compared with it.
    #[error("the issuance log beside `{}` cannot be read: {why}", file.display())]
    #[diagnostic(
        code("MESH-0567"),
        help("make it readable, or prove the signed log alone, in another folder")
    )]
    Beside {
        /// The log.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// What a witness kept is not what it should be.
    #[error("`{}` does not vouch for the log", file.display())]
    #[diagnostic(
        code("MESH-0548"),
        help(
            "the file was edited, or the keys are of another log or witness: compare them with copies you trust"
        )
    )]
    Witness {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: CheckpointError,
    },
}

/// Logs, and the folder of their witness.
pub(super) struct Source {
    /// Of each the file of its newest lines.
    pub(super) logs: Vec<PathBuf>,
    /// What somebody else kept of them.
    pub(super) witness: Option<PathBuf>,
}

impl Source {
    /// The logs that were named, or else those of the running mesh.
    pub(super) fn find(
        named: &[PathBuf],
        live: &LiveArgs,
        witness: Option<&Path>,
    ) -> Result<Self, Fault> {
        let mut witness = witness.map(Path::to_path_buf);
        let mut logs = Vec::new();
        let folders = if named.is_empty() {
            let live = Live::read(live)?;
            let kept = live.state.join(WITNESS_DIR);
            witness = witness.or_else(|| kept.is_dir().then_some(kept));
            vec![live.state.join("audit"), live.state.join("ca")]
        } else {
            named.to_vec()
        };
        for path in &folders {
            if path.is_dir() {
                logs.extend(logs_in(path)?);
            } else if named.is_empty() {
                // A part of the mesh that keeps no log.
            } else {
                logs.push(path.clone());
            }
        }
        if logs.is_empty() {
            let places: Vec<_> = folders
                .iter()
                .map(|path| format!("`{}`", path.display()))
                .collect();
            let places = places.join(", ");
            return Err(Fault::usage(&LogError::NoLogs { places }));
        }
        Ok(Self { logs, witness })
    }
}

/// The logs of a folder, by name.
pub(crate) fn logs_in(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    log_files::logs_in(folder).map_err(|error| Fault::usage(&LogError::from(error)))
}

/// Whose log it is, from its name: another one under this name was put here.
pub(super) fn origin_of(log: &Path) -> String {
    let stem = log.file_stem().and_then(|stem| stem.to_str());
    stem.unwrap_or_default().to_owned()
}

/// The public key that a log is proved with: from `trusted`, or the one beside it.
pub(super) fn key_of(log: &Path, trusted: Option<&Path>) -> Result<VerifierKey, LogError> {
    let file = trusted.map_or_else(|| log.with_extension("pub"), Path::to_path_buf);
    let origin = origin_of(log);
    let keys = keys_in(&file)?;
    let key = keys.into_iter().find(|key| key.name() == origin);
    key.ok_or(LogError::NoKey { file, origin })
}

/// All public keys of a file, one a line.
pub(super) fn keys_in(file: &Path) -> Result<Vec<VerifierKey>, LogError> {
    let bytes = files::read_limited(file, FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            VerifierKey::parse(line).map_err(|source| LogError::Key {
                file: file.to_owned(),
                source,
            })
        })
        .collect()
}

/// Opens a log; closed segments belong to the log whose name they begin with.
pub(super) fn open(log: &Path) -> Result<LogFiles, LogError> {
    Ok(LogFiles::open(log)?)
}

/// What somebody kept of a log: its checkpoint, signed by its key and, if the folder has the key of a witness, by that.
pub(super) fn witnessed(
    log: &Path,
    key: &VerifierKey,
    folder: Option<&Path>,
) -> Result<Vec<Checkpoint>, LogError> {
    let Some(folder) = folder else {
        return Ok(Vec::new());
    };
    let file = folder.join(format!("{}.checkpoint", origin_of(log)));
    let bytes = match files::read_limited(&file, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(absent) if absent.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let no_witness = |source| LogError::Witness {
        file: file.clone(),
        source,
    };
    let checkpoint = Checkpoint::open(&bytes, key).map_err(no_witness)?;
    let witness = folder.join(WITNESS_KEY);
    if witness.exists() {
        for witness in keys_in(&witness)? {
            checkpoint
                .cosigned(&witness)
                .map_err(|error| no_witness(error.into()))?;
        }
    }
    Ok(vec![checkpoint])
}
