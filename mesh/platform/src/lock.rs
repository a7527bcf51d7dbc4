//! One process per state directory: an advisory lock that ends with its holder, however that ends.

use crate::PlatformError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A lock that is held until this value is dropped or the process ends. The file stays, with the pid of its last holder.
#[derive(Debug)]
pub struct LockFile {
    _file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock, without waiting, and writes our pid into the file.
    ///
    /// # Errors
    /// [`PlatformError::Locked`] with the holder's pid; others naming the path.
    pub fn acquire(path: &Path) -> Result<Self, PlatformError> {
        let failed = |source| PlatformError::from_io("lock", path, source);
        let mut file = open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PlatformError::Locked {
                    path: path.to_owned(),
                    holder: pid_in(&mut file),
                });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            _file: file,
            path: path.to_owned(),
        })
    }

    /// Pid of the process that holds the lock now, `None` if nobody does.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path; a lock file that does not exist is held by nobody.
    pub fn holder(path: &Path) -> Result<Option<u32>, PlatformError> {
        let failed = |source| PlatformError::from_io("read lock", path, source);
        let mut file = match File::open(path) {
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            outcome => outcome.map_err(failed)?,
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(pid_in(&mut file)),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.lock");
        assert_eq!(LockFile::holder(&path).unwrap(), None);
        let held = LockFile::acquire(&path).unwrap();
        assert_eq!(LockFile::holder(&path).unwrap(), Some(std::process::id()));
        let error = LockFile::acquire(&path).unwrap_err();
        assert!(
            matches!(error, PlatformError::Locked { holder: Some(pid), .. } if pid == std::process::id())
        );
        drop(held);
        assert_eq!(
            LockFile::holder(&path).unwrap(),
            None,
            "the pid in the file alone is no holder"
        );
        LockFile::acquire(&path).unwrap();
    }
}
