//! A number that never goes back, not even over crashes, full disks and damaged files.
//!
//! One record of fixed length, `mesh-generation v1 <20 digits> <64 hex: digest of the policy> <64 hex: checksum>`,
//! overwritten in place: that needs no free block, so a full disk does not stop a revocation; a torn write is found by
//! its checksum. A damaged file is moved aside, and counting goes on from the seconds since 1970, which no counter
//! reaches.

use data_encoding::HEXLOWER;
use mesh_platform::{PlatformError, files};
use mesh_trust::Timestamp;
use ring::digest::{SHA256, digest};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const HEAD: &str = "mesh-generation v1";
const RECORD_BYTES_MAX: u64 = 512;

/// The last generation published, and a digest of what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) generation: u64,
    pub(crate) digest: String,
}

/// Where the last generation is kept.
#[derive(Debug)]
pub(crate) struct GenerationStore {
    file: File,
    path: PathBuf,
}

impl GenerationStore {
    /// Opens the store and reads what was published last; `None` if nothing ever was.
    pub(crate) fn open(
        directory: &Path,
        now: Timestamp,
    ) -> Result<(Self, Option<Last>), PlatformError> {
        files::create_dir_private(directory)?;
        let path = directory.join("generation");
        let last = match files::read_limited(&path, RECORD_BYTES_MAX) {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => match parse(&bytes) {
                Some(last) => Some(last),
                None => Some(recover(&path, now)?),
            },
            Err(PlatformError::TooLarge { .. }) => Some(recover(&path, now)?),
            Err(absent) if absent.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if last.is_none() {
            // Makes the file and its directory entry durable; the number 0 was never published.
            files::write_atomic(&path, record(0, &"0".repeat(64)).as_bytes(), 0o600)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| PlatformError::from_io("open", &path, source))?;
        Ok((Self { file, path }, last.filter(|last| last.generation > 0)))
    }

    /// Keeps `last`; on the disk when this returns.
    pub(crate) fn store(&self, last: &Last) -> Result<(), PlatformError> {
        self.file
            .write_all_at(record(last.generation, &last.digest).as_bytes(), 0)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| PlatformError::from_io("write", &self.path, source))
    }
}

/// Moves a damaged file aside and goes on from a number that no counter has reached.
fn recover(path: &Path, now: Timestamp) -> Result<Last, PlatformError> {
    let generation = u64::try_from(now.unix_secs()).unwrap_or(0).max(1);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".broken-{}", now.unix_micros()));
    std::fs::rename(path, &aside)
        .map_err(|source| PlatformError::from_io("move aside", path, source))?;
    tracing::error!(
        path = %path.display(),
        aside = %Path::new(&aside).display(),
        generation,
        "the stored generation is damaged; it is moved aside and counting goes on from the clock"
    );
    let last = Last {
        generation,
        digest: "0".repeat(64),
    };
    files::write_atomic(
        path,
        record(last.generation, &last.digest).as_bytes(),
        0o600,
    )?;
    Ok(last)
}

fn record(generation: u64, digest: &str) -> String {
    let said = format!("{HEAD} {generation:020} {digest}");
    let sum = checksum(&said);
    format!("{said} {sum}\n")
}

fn parse(bytes: &[u8]) -> Option<Last> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (said, sum) = text.rsplit_once(' ')?;
    if checksum(said) != sum {
        return None;
    }
    let (number, digest) = said
        .strip_prefix(HEAD)?
        .strip_prefix(' ')?
        .split_once(' ')?;
    Some(Last {
        generation: number.parse().ok()?,
        digest: digest.to_owned(),
    })
}

fn checksum(said: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, said.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_790_000_000);

    fn last(generation: u64) -> Last {
        Last {
            generation,
            digest: format!("{generation:064x}"),
        }
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, none) = GenerationStore::open(dir.path(), NOW).unwrap();
        assert_eq!(none, None);
        for generation in [1, 2, 3, 1 << 40] {
            store.store(&last(generation)).unwrap();
            assert_eq!(
                GenerationStore::open(dir.path(), NOW).unwrap().1,
                Some(last(generation))
            );
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found_and_the_number_still_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("generation");
        let good = record(7, &"a".repeat(64));
        let mut damaged: Vec<Vec<u8>> = (1..good.len())
            .map(|cut| good.as_bytes()[..cut].to_vec())
            .collect();
        damaged.extend((0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in &damaged {
            assert_eq!(parse(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&damaged[0], &damaged[damaged.len() - 1], &vec![b'x'; 4_096]] {
            files::write_atomic(&path, bytes, 0o600).unwrap();
            let (_, found) = GenerationStore::open(dir.path(), NOW).unwrap();
            assert_eq!(found.map(|last| last.generation), Some(1_790_000_000));
        }
    }
}
