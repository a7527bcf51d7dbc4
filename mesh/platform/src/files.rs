//! Files: whole or not at all, readable by nobody else, and errors that name the path.
//!
//! After a power cut a file written by [`write_atomic`] is the old one or the new one: content, name and directory are
//! each flushed. [`AppendFile`] undoes a write that stopped half-way, so a full disk leaves whole lines.

use crate::PlatformError;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Reads a whole file.
///
/// # Errors
/// [`PlatformError`] naming the path.
pub fn read(path: &Path) -> Result<Vec<u8>, PlatformError> {
    fs::read(path).map_err(|source| PlatformError::from_io("read", path, source))
}

/// Reads a whole file of at most `limit_bytes`; never holds more than that in memory.
///
/// # Errors
/// [`PlatformError::TooLarge`] beyond the limit; others naming the path.
pub fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, PlatformError> {
    let failed = |source| PlatformError::from_io("read", path, source);
    let file = File::open(path).map_err(failed)?;
    // All at once: a vector that grows leaves copies behind, of a key for instance.
    let length = file.metadata().map_err(failed)?.len().min(limit_bytes);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1));
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(PlatformError::TooLarge {
            path: path.to_owned(),
            limit_bytes,
        });
    }
    Ok(bytes)
}

/// Reads the last `limit_bytes` of a file, and says whether that is all of it.
///
/// # Errors
/// [`PlatformError`] naming the path.
pub fn read_tail(path: &Path, limit_bytes: u64) -> Result<(Vec<u8>, bool), PlatformError> {
    let failed = |source| PlatformError::from_io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let from = length.saturating_sub(limit_bytes);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok((bytes, from == 0))
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
/// [`PlatformError::NotText`] with the first bad byte; others naming the path.
pub fn read_to_string(path: &Path) -> Result<String, PlatformError> {
    String::from_utf8(read(path)?).map_err(|error| PlatformError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// Puts `bytes` in the place of `path`, whole or not at all, with exactly the permission bits of `mode`.
///
/// A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// [`PlatformError`]; the old file is then still whole.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PlatformError> {
    let failed = |source| PlatformError::from_io("write", path, source);
    let temporary = temporary_beside(path).map_err(failed)?;
    let written = write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // Nothing more can be done if this fails too; the next start ignores files of this name.
        let _ = fs::remove_file(&temporary);
        return Err(failed(source));
    }
    sync_parent(path)
}

/// Makes the directory `path` with these files in it, whole or not at all. Names are plain; the files get exactly the
/// permission bits of `mode`. An empty directory that stands there is replaced.
///
/// # Errors
/// [`PlatformError`]; nothing of the name stands there then that did not before.
pub fn write_directory(
    path: &Path,
    files: &[(&str, &[u8])],
    mode: u32,
) -> Result<(), PlatformError> {
    let failed = |source| PlatformError::from_io("write", path, source);
    let temporary = temporary_beside(path).map_err(failed)?;
    let written = fs::create_dir(&temporary)
        .and_then(|()| {
            for (name, bytes) in files {
                if Path::new(name).file_name() != Some(name.as_ref()) {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                write_new(&temporary.join(name), bytes, mode)?;
            }
            File::open(&temporary)?.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        let _ = fs::remove_dir_all(&temporary);
        return Err(failed(source));
    }
    sync_parent(path)
}

/// Gives a file or directory another name in the same directory, and flushes that.
///
/// # Errors
/// [`PlatformError`] naming the old path.
pub fn rename(from: &Path, to: &Path) -> Result<(), PlatformError> {
    fs::rename(from, to).map_err(|source| PlatformError::from_io("rename", from, source))?;
    sync_parent(to)
}

/// Bytes of a file.
///
/// # Errors
/// [`PlatformError`] naming the path.
pub fn length(path: &Path) -> Result<u64, PlatformError> {
    let found = fs::metadata(path);
    found
        .map(|found| found.len())
        .map_err(|source| PlatformError::from_io("read", path, source))
}

/// Removes a file and flushes the directory; a file that is not there is no error.
///
/// # Errors
/// [`PlatformError`] naming the path.
pub fn remove(path: &Path) -> Result<(), PlatformError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PlatformError::from_io("remove", path, source)),
    }
}

/// Makes `path` a directory that only its owner can enter (0700), with its parents; narrows one that is ours already. A
/// volume that was mounted for us stays as it is: what is in it is not seen by whoever does not mount it.
///
/// # Errors
/// [`PlatformError::WrongKind`] if something else has the name, [`PlatformError::Permission`] if it is another user's.
pub fn create_dir_private(path: &Path) -> Result<(), PlatformError> {
    let failed = |source| PlatformError::from_io("create directory", path, source);
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PlatformError::WrongKind {
                doing: "create directory",
                path: path.to_owned(),
                why: "a file has that name",
            });
        }
        outcome => outcome.map_err(failed)?,
    }
    let found = fs::metadata(path).map_err(failed)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        let above = fs::metadata(path.join("..")).map_err(failed)?;
        if is_volume(found.uid(), found.mode(), found.dev() != above.dev()) {
            return Ok(());
        }
        return Err(PlatformError::Permission {
            doing: "keep secrets in",
            path: path.to_owned(),
        });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Whether a directory of another user is a volume that root mounted for one process, as Kubernetes does with an
/// `emptyDir`. A sticky one (`/tmp`) is meant for many.
fn is_volume(owner: u32, mode: u32, is_mounted: bool) -> bool {
    const STICKY: u32 = 0o1000;
    owner == 0 && is_mounted && mode & STICKY == 0
}

/// A file that only grows, by whole writes.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl AppendFile {
    /// Opens `path` for appending; a new file gets the permission bits of `mode`.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path.
    pub fn open(path: &Path, mode: u32) -> Result<Self, PlatformError> {
        let failed = |source| PlatformError::from_io("append to", path, source);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(mode)
            .open(path)
            .map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length == 0 {
            sync_parent(path)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
        })
    }

    /// Appends all of `bytes` or none: what a full disk left of them is cut off again.
    ///
    /// Not flushed: [`AppendFile::sync`] does that.
    ///
    /// # Errors
    /// [`PlatformError::NoSpace`] and others; the file is as it was, unless the disk refuses even to be cut.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), PlatformError> {
        if let Err(source) = self.file.write_all(bytes) {
            // A torn tail that stays is found and dropped at the next start.
            let _ = self.file.set_len(self.length);
            return Err(PlatformError::from_io("append to", &self.path, source));
        }
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Flushes what was appended to the device.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path: what was appended may be lost in a power cut.
    pub fn sync(&self) -> Result<(), PlatformError> {
        self.file
            .sync_data()
            .map_err(|source| PlatformError::from_io("flush", &self.path, source))
    }

    /// Cuts the file at `length` bytes: drops a torn tail.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path.
    pub fn truncate(&mut self, length: u64) -> Result<(), PlatformError> {
        self.file
            .set_len(length)
            .map_err(|source| PlatformError::from_io("truncate", &self.path, source))?;
        self.length = length;
        Ok(())
    }

    /// Bytes in the file, as far as we wrote it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A name in the same directory, hence on the same file system, that nobody can guess or hold.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    let mut random = [0u8; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random)));
    Ok(path.with_file_name(temporary))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & 0o600)
        .open(path)?;
    file.write_all(bytes)?;
    // The umask took bits off at creation; here they are exact.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Flushes the directory entry of `path`.
fn sync_parent(path: &Path) -> Result<(), PlatformError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| PlatformError::from_io("flush directory", parent, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use miette::Diagnostic;

    fn code(error: &PlatformError) -> String {
        error.code().unwrap().to_string()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_a_volume_of_our_own_may_be_another_users() {
        for (owner, mode, mounted, want, what) in [
            (0, 0o40777, true, true, "an emptyDir"),
            (0, 0o42777, true, true, "an emptyDir with fsGroup"),
            (0, 0o41777, true, false, "/tmp on a file system of its own"),
            (0, 0o40777, false, false, "a folder of root's"),
            (1000, 0o40777, true, false, "a mount of somebody else"),
        ] {
            assert_eq!(is_volume(owner, mode, mounted), want, "{what}");
        }
    }

    #[test]
    fn an_atomic_write_replaces_content_and_mode_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_atomic(&path, b"old", 0o644).unwrap();
        write_atomic(&path, b"new", 0o600).unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_appears_with_all_its_files_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imported");
        let files: [(&str, &[u8]); 2] = [("a.yaml", b"a"), ("b.yaml", b"b")];
        write_directory(&path, &files, 0o644).unwrap();
        assert_eq!(read_to_string(&path.join("b.yaml")).unwrap(), "b");
        assert_eq!(mode(&path.join("a.yaml")), 0o644);
        // What holds files already stays as it is, and nothing is left beside it.
        assert!(write_directory(&path, &[("c.yaml", b"c")], 0o644).is_err());
        assert!(!path.join("c.yaml").exists());
        for name in ["", "..", "a/b", "/etc/x"] {
            let other = dir.path().join("other");
            assert!(
                write_directory(&other, &[("a", b"a"), (name, b"x")], 0o644).is_err(),
                "{name}"
            );
            assert!(!other.exists(), "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write_directory(&empty, &files, 0o644).unwrap();
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 2);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        write_atomic(&target, b"precious", 0o600).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomic(&link, b"ours", 0o600).unwrap();
        assert_eq!(read_to_string(&target).unwrap(), "precious");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(&dir.path().join("absent/file"), b"x", 0o600).unwrap_err();
        assert_eq!(code(&error), "MESH-0803");
        assert!(error.to_string().contains("absent/file"), "{error}");

        let blocker = dir.path().join("blocker");
        write_atomic(&blocker, b"x", 0o600).unwrap();
        assert_eq!(
            code(&write_atomic(&blocker.join("file"), b"x", 0o600).unwrap_err()),
            "MESH-0804"
        );
        assert_eq!(
            code(&create_dir_private(&blocker).unwrap_err()),
            "MESH-0804"
        );
        assert_eq!(
            code(&create_dir_private(&blocker.join("below")).unwrap_err()),
            "MESH-0804"
        );
        assert_eq!(code(&read(dir.path()).unwrap_err()), "MESH-0804");

        let standing = dir.path().join("directory");
        fs::create_dir(&standing).unwrap();
        assert_eq!(
            code(&write_atomic(&standing, b"x", 0o600).unwrap_err()),
            "MESH-0804"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "a temporary file stayed"
        );
    }

    #[test]
    fn a_full_disk_and_a_forbidden_one_have_codes_of_their_own() {
        for (errno, want) in [
            (rustix::io::Errno::NOSPC, "MESH-0802"),
            (rustix::io::Errno::DQUOT, "MESH-0802"),
            (rustix::io::Errno::ACCESS, "MESH-0801"),
            (rustix::io::Errno::ROFS, "MESH-0805"),
            (rustix::io::Errno::IO, "MESH-0808"),
        ] {
            let error = PlatformError::from_io("write", Path::new("/x"), errno.into());
            assert_eq!(code(&error), want, "{error}");
            assert!(error.help().is_some());
        }
        // The kernel's own full device.
        let mut full = AppendFile {
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
            path: "/dev/full".into(),
            length: 0,
        };
        assert_eq!(code(&full.append(b"x").unwrap_err()), "MESH-0802");
        assert_eq!(full.length(), 0);
    }

    #[test]
    fn private_directories_are_narrowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_dir_private(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create_dir_private(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn appended_bytes_stay_and_a_tail_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = AppendFile::open(&path, 0o600).unwrap();
        file.append(b"one\n").unwrap();
        file.append(b"tor").unwrap();
        file.sync().unwrap();
        file.truncate(4).unwrap();
        drop(file);
        let mut file = AppendFile::open(&path, 0o600).unwrap();
        assert_eq!(file.length(), 4);
        file.append(b"two\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_reader_with_a_limit_refuses_the_byte_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"12345", 0o600).unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        assert_eq!(code(&read_limited(&path, 4).unwrap_err()), "MESH-0806");
        write_atomic(&path, b"ab\xff", 0o600).unwrap();
        let error = read_to_string(&path).unwrap_err();
        assert!(
            matches!(error, PlatformError::NotText { offset: 2, .. }),
            "{error}"
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
