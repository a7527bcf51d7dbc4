//! `mesh audit prove`: one line of a log, provable to somebody who has nothing but public keys; `check-proof` is what they
//! do with it.

use super::logs::{self, LogError};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, Tone};
use clap::Args;
use mesh_platform::files;
use mesh_platform::log_files::NotProved;
use mesh_tlog::note::KeyType;
use mesh_tlog::tlog_proof::TlogProofError;
use mesh_tlog::{Checkpoint, CheckpointError, TlogProof, leaf_hash};
use serde::Serialize;
use std::path::PathBuf;

/// Bytes of a stand-alone proof with its entry.
const PROOF_BYTES_MAX: u64 = 4 << 20;

/// What to prove.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProveArgs {
    /// The log: the file of its newest lines.
    log: PathBuf,
    /// Place of the line, as its `seq` says. It may be retired: its hash is kept.
    seq: u64,
    /// Trusted copy of the log's public key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Leaves the line out: whoever checks the proof must have it.
    #[arg(long)]
    without_entry: bool,
    /// Where the proof goes; by default to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to check.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckProofArgs {
    /// The proof.
    proof: PathBuf,
    /// Public keys, one a line, from a copy you trust: of the log, and of witnesses.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How many of the witnesses must have cosigned.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    witnesses: usize,
    /// The line that it proves, if the proof is without.
    #[arg(long, value_name = "FILE")]
    entry: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// Why there is no proof, or none that holds.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum ProofError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] mesh_platform::PlatformError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    NotProved(#[from] NotProved),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proof(#[from] TlogProofError),
    #[error("the proof is without its entry")]
    #[diagnostic(
        code("MESH-0549"),
        help("name the file that holds the line with `--entry`")
    )]
    NoEntry,
}

/// What a proof shows.
#[derive(Debug, Serialize)]
struct Shown {
    origin: String,
    seq: u64,
    size: u64,
    root: String,
    entry: String,
}

/// Writes a proof.
pub(super) fn prove(args: &ProveArgs, output: &mut Output) -> Result<Exit, Fault> {
    let proof = make(args)?;
    match &args.out {
        None => output.text(proof)?,
        Some(file) => files::write_atomic(file, proof.as_bytes(), 0o644)?,
    }
    Ok(Exit::Ok)
}

fn make(args: &ProveArgs) -> Result<String, ProofError> {
    let key = logs::key_of(&args.log, args.key.as_deref())?;
    let files = logs::open(&args.log)?;
    let bytes = files.checkpoint()?.unwrap_or_default();
    let checkpoint = Checkpoint::open(bytes, &key)?;
    let entry = match args.without_entry {
        true => None,
        false => files.line(args.seq)?.and_then(|line| {
            // What may be redacted stays behind: the leaf does not cover it.
            Some(mesh_audits::Parts::of(&line)?.entry())
        }),
    };
    Ok(files.prove(args.seq, &checkpoint, entry)?.to_string())
}

/// Checks a proof.
pub(super) fn check(args: &CheckProofArgs, output: &mut Output) -> Result<Exit, Fault> {
    let shown = checked(args)?;
    output.value(args.output, &shown, |output, shown| {
        let ok = output.toned(Tone::Good, "ok ");
        output.line(format_args!(
            "{ok}   line {} of {} is in the tree of {} lines that its key signed\n{}",
            shown.seq, shown.origin, shown.size, shown.entry
        ))
    })?;
    Ok(Exit::Ok)
}

fn checked(args: &CheckProofArgs) -> Result<Shown, ProofError> {
    let proof = TlogProof::parse(&files::read_limited(&args.proof, PROOF_BYTES_MAX)?)?;
    let (witnesses, logs): (Vec<_>, Vec<_>) = logs::keys_in(&args.key)?
        .into_iter()
        .partition(|key| key.key_type() == KeyType::Cosignature);
    let origin = proof.checkpoint.text().lines().next().unwrap_or_default();
    let key = logs.into_iter().find(|key| key.name() == origin);
    let key = key.ok_or_else(|| LogError::NoKey {
        file: args.key.clone(),
        origin: origin.to_owned(),
    })?;
    let entry = match (&args.entry, &proof.extra) {
        (Some(file), _) => {
            let line = files::read_limited(file, PROOF_BYTES_MAX)?;
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            mesh_audits::Parts::of(line).map_or_else(|| line.to_vec(), |parts| parts.entry())
        }
        (None, Some(entry)) => entry.clone(),
        (None, None) => return Err(ProofError::NoEntry),
    };
    let checkpoint = proof.verify(leaf_hash(&entry), &key, &witnesses, args.witnesses)?;
    let head = checkpoint.head();
    Ok(Shown {
        origin: head.origin.clone(),
        seq: proof.index,
        size: head.size,
        root: head.root.to_string(),
        entry: String::from_utf8_lossy(&entry)
            .escape_debug()
            .to_string()
            .replace("\\\"", "\""),
    })
}
