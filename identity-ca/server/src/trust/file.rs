//! The state of trust on disk, with the issuance log as its witness.
//!
//! A step is first recorded in the log, with the hash of the file that will be written, then the file is written, and only
//! then anybody learns of it. So after a crash the file is the state that the log recorded last, or the one before it,
//! whose step nobody has seen; any other file was put there by somebody else.

use super::error::TrustStateError;
use crate::error::CaError;
use data_encoding::HEXLOWER;
use mesh_issuance::log::Ledger;
use mesh_issuance::rotation::TrustState;
use mesh_platform::files;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file in the CA's directory.
pub(crate) const STATE_FILE: &str = "trust.json";
/// Bytes of it: roots, phase and waivers have about 2 KiB.
const STATE_BYTES_MAX: u64 = 1024 * 1024;
/// Form of the file.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    state: TrustState,
}

/// The octets of the file for `state`, and their SHA-256 in hex.
pub(crate) fn encode(state: &TrustState) -> (Vec<u8>, String) {
    let form = Form {
        version: VERSION,
        state: state.clone(),
    };
    // Strings, numbers and sets always have a JSON form.
    let mut bytes = serde_json::to_vec_pretty(&form).unwrap_or_default();
    bytes.push(b'\n');
    let sha256 = hash(&bytes);
    (bytes, sha256)
}

/// Writes the octets of [`encode`].
pub(crate) fn write(dir: &Path, bytes: &[u8]) -> Result<(), CaError> {
    Ok(files::write_atomic(&dir.join(STATE_FILE), bytes, 0o600)?)
}

/// Reads the state, if there is one, and holds it against the log. Says also whether the log's last step was interrupted
/// before anybody learned of it.
///
/// # Errors
/// [`TrustStateError`]: damaged, missing, or another state than the log's.
pub(crate) fn read(dir: &Path, ledger: &Ledger) -> Result<Option<(TrustState, bool)>, CaError> {
    let path = dir.join(STATE_FILE);
    let bytes = match files::read_limited(&path, STATE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return absent(path, ledger),
        Err(error) => return Err(error.into()),
    };
    let state = decode(&path, &bytes)?;
    let found = hash(&bytes);
    match ledger.trust_marks() {
        [_, Some(last)] if last.state_sha256 == found => Ok(Some((state, false))),
        [Some(before), Some(_)] if before.state_sha256 == found => Ok(Some((state, true))),
        [_, last] => {
            let generation = last.as_ref().map_or(0, |last| last.generation);
            Err(TrustStateError::Stale { path, generation }.into())
        }
    }
}

/// Reads the state without a witness, if there is one.
pub(crate) fn peek(dir: &Path) -> Result<Option<TrustState>, CaError> {
    let path = dir.join(STATE_FILE);
    match files::read_limited(&path, STATE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(decode(&path, &bytes)?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<TrustState, TrustStateError> {
    let damaged = |why: String| TrustStateError::Damaged {
        path: path.to_owned(),
        why,
    };
    let form: Form = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if form.version != VERSION {
        return Err(damaged(format!("it has version {}", form.version)));
    }
    if !form.state.is_coherent() {
        return Err(damaged("its parts do not fit together".to_owned()));
    }
    Ok(form.state)
}

/// Without a file: fine for a CA that never had one, or whose very first step was interrupted.
fn absent(path: PathBuf, ledger: &Ledger) -> Result<Option<(TrustState, bool)>, CaError> {
    match ledger.trust_marks() {
        [None, _] => Ok(None),
        [Some(_), _] => Err(TrustStateError::Missing { path }.into()),
    }
}

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}
