//! The sequence numbers of what our endpoint serves: each change has a greater one, over restarts too.
//!
//! The bundle of an endpoint holds roots and keys for tokens, which change apart from each other, so it has numbers of its
//! own. They are on disk before anybody sees them, and never below the clock's seconds: if the file was lost with its
//! disk, the next number is greater all the same, and no reader takes us for somebody who brings old roots back.

use super::FOLDER;
use crate::error::CaError;
use data_encoding::HEXLOWER;
use mesh_platform::{PlatformError, files};
use mesh_trust::Timestamp;
use mesh_trust::bundle::WholeBundle;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file below [`FOLDER`].
const FILE: &str = "published.json";
/// Bytes of it: a number and a hash.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// Gives numbers.
pub(crate) struct Numbers {
    file: PathBuf,
    last: Option<Form>,
}

/// What was served last.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Form {
    sequence: u64,
    /// Of the document with sequence 0, lower-case hex.
    sha256: String,
}

impl Numbers {
    /// Reads what the CA in `dir` served last.
    ///
    /// # Errors
    /// [`CaError::Corrupt`] if it is not as it was written.
    pub(crate) fn open(dir: &Path) -> Result<Self, CaError> {
        let folder = dir.join(FOLDER);
        files::create_dir_private(&folder)?;
        let file = folder.join(FILE);
        let last = match files::read_limited(&file, FILE_BYTES_MAX) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes).map_err(|error| CaError::Corrupt {
                    path: file.clone(),
                    why: error.to_string(),
                })?;
                Some(read)
            }
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, last })
    }

    /// `bundle` under its number: that of the last one if nothing changed, else a greater one.
    pub(crate) fn number(
        &mut self,
        bundle: WholeBundle,
        now: Timestamp,
    ) -> Result<WholeBundle, PlatformError> {
        let unnumbered = bundle.clone().with_sequence(0).to_json();
        let sha256 = digest::digest(&digest::SHA256, unnumbered.as_bytes());
        let sha256 = HEXLOWER.encode(sha256.as_ref());
        if let Some(last) = &self.last
            && last.sha256 == sha256
        {
            return Ok(bundle.with_sequence(last.sequence));
        }
        let after = self
            .last
            .as_ref()
            .map_or(1, |last| last.sequence.saturating_add(1));
        let clock = u64::try_from(now.unix_secs()).unwrap_or(0);
        let sequence = after.max(clock);
        let form = Form { sequence, sha256 };
        // A number and hex always have a JSON form.
        let bytes = serde_json::to_vec(&form).unwrap_or_default();
        files::write_atomic(&self.file, &bytes, 0o600)?;
        self.last = Some(form);
        Ok(bundle.with_sequence(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, domain};
    use mesh_trust::TrustBundle;
    use mesh_trust::jwt::{JwtBundle, JwtKey};

    fn bundle(kid: &str) -> WholeBundle {
        let (_, key) = crate::signer::generate().unwrap();
        let jwt =
            JwtBundle::new(domain()).with_key(kid, JwtKey::from_p256_point(key.point()).unwrap());
        WholeBundle::new(TrustBundle::new(domain(), Vec::new()).unwrap(), jwt).unwrap()
    }

    fn numbered(numbers: &mut Numbers, bundle: &WholeBundle, now: Timestamp) -> u64 {
        let numbered = numbers.number(bundle.clone(), now).unwrap();
        numbered.sequence().unwrap()
    }

    #[test]
    fn numbers_grow_with_each_change_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (bundle("a"), bundle("b"));
        let mut numbers = Numbers::open(dir.path()).unwrap();
        let mut number = |bundle, now| numbered(&mut numbers, bundle, now);
        let first = number(&one, NOW);
        assert_eq!(number(&one, NOW.plus_secs(99)), first);
        let second = number(&two, NOW);
        assert_eq!(second, first + 1, "twice in a second");
        assert_eq!(
            number(&one, NOW.plus_secs(-9_999)),
            second + 1,
            "a clock set back"
        );
        assert_eq!(
            number(&two, NOW.plus_secs(500)),
            NOW.unix_secs() as u64 + 500
        );
    }

    #[test]
    fn a_restart_goes_on_and_a_lost_file_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (bundle("a"), bundle("b"));
        let number = |bundle, now| numbered(&mut Numbers::open(dir.path()).unwrap(), bundle, now);
        let first = number(&one, NOW);
        assert_eq!(number(&one, NOW.plus_secs(7)), first);
        let second = number(&two, NOW.plus_secs(-99));
        assert!(second > first);
        std::fs::remove_file(dir.path().join(FOLDER).join(FILE)).unwrap();
        assert!(number(&two, NOW.plus_secs(60)) > second);
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let file = dir.path().join(FOLDER).join(FILE);
        for damaged in [
            "",
            "{}",
            "{\"sequence\":-1,\"sha256\":\"\"}",
            "{\"sequence\":1}",
        ] {
            files::write_atomic(&file, damaged.as_bytes(), 0o600).unwrap();
            assert!(
                matches!(Numbers::open(dir.path()), Err(CaError::Corrupt { .. })),
                "{damaged}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged);
        }
    }
}
