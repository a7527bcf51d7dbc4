//! The files under the manifest paths: which they are, their contents, and a cheap stamp that tells a change.
//!
//! Read are `*.yaml`, `*.yml` and `*.json`, in directories and all below, except hidden ones (names that begin with a
//! dot). Symbolic links are followed; a directory reached twice is read once. A file that cannot be read is given on
//! as bytes that are no YAML: whatever it held, it grants nothing, and what it may have protected is closed.

use crate::limits::{DEPTH_MAX, FILE_BYTES_READ, FILES_MAX, SOURCE_BYTES_MAX};
use data_encoding::HEXLOWER;
use mesh_platform::{PlatformError, files};
use mesh_policy::snapshot::{Finding, Severity, Source};
use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that no reader takes for a document: stand for a file that could not be read.
const UNREADABLE: &[u8] = b"\xff";

/// All sources as they were at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// By name as findings give it: the path as configured, with the path below it.
    pub(crate) files: BTreeMap<String, SourceFile>,
    /// Files that could not be read.
    pub(crate) findings: Vec<Finding>,
    /// How far an API server's history is in them; 0 for files, which have none.
    pub(crate) revision: u64,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) bytes: Arc<[u8]>,
    /// SHA-256 of the bytes.
    pub(crate) digest: [u8; 32],
    /// Who owns the file; `None` of an object of an API server. No part of any digest.
    pub(crate) owner: Option<u32>,
}

/// Why the sources as a whole cannot be read; the last policy stays in force.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum SourceError {
    /// A manifest path is gone or closed to us.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// More than the limits.
    #[error("`{path}` holds more than {limit} {what}")]
    #[diagnostic(
        code("MESH-0711"),
        help(
            "name the directory of the manifests alone, or split the mesh; the policy before stays in force"
        )
    )]
    TooMany {
        path: PathBuf,
        limit: u64,
        what: &'static str,
    },
    /// More than the limits, in a cluster.
    #[error("the cluster holds more than {limit} {what}")]
    #[diagnostic(
        code("MESH-0713"),
        help(
            "the policy before stays in force; see `mesh_controller::limits` for what one controller serves"
        )
    )]
    ClusterTooLarge { limit: u64, what: &'static str },
    /// Kinds that the API server has not listed yet.
    #[error("not everything was read from the API server yet: {why}")]
    #[diagnostic(
        code("MESH-0714"),
        help(
            "the API server must be reachable, and the service account of the controller may list these kinds"
        )
    )]
    NotListed { why: String },
}

/// What a file looks like from outside; equal stamps of all files mean that nothing changed.
pub(crate) type Stamps = BTreeMap<PathBuf, Stamp>;

/// Device, inode, length, and times of the last change to content and to the inode, in nanoseconds.
pub(crate) type Stamp = (u64, u64, u64, i128, i128);

/// Lists all manifest files with their stamps.
pub(crate) fn stamps(roots: &[PathBuf]) -> Result<Stamps, SourceError> {
    let mut walk = Walk {
        found: Stamps::new(),
        seen: HashSet::new(),
    };
    for root in roots {
        // A root that is missing is an outage, not an empty mesh.
        let metadata =
            fs::metadata(root).map_err(|source| PlatformError::from_io("read", root, source))?;
        if metadata.is_dir() {
            walk.directory(root, &metadata, 0)?;
        } else {
            walk.file(root, &metadata)?;
        }
    }
    Ok(walk.found)
}

/// Reads all manifest files.
pub(crate) fn read(roots: &[PathBuf]) -> Result<Sources, SourceError> {
    let mut sources = Sources::default();
    let mut total = 0u64;
    for path in stamps(roots)?.into_keys() {
        let bytes = match files::read_limited(&path, FILE_BYTES_READ) {
            Ok(bytes) => bytes,
            // Gone since it was listed: the change that says so is on its way.
            Err(gone) if gone.is_not_found() => continue,
            // Given on one byte too long, so that the index says what is wrong.
            Err(PlatformError::TooLarge { .. }) => {
                vec![b' '; usize::try_from(FILE_BYTES_READ).unwrap_or(usize::MAX)]
            }
            Err(error) => {
                sources.findings.push(unreadable(&path, &error));
                UNREADABLE.to_vec()
            }
        };
        total = total.saturating_add(bytes.len() as u64);
        if total > SOURCE_BYTES_MAX {
            return Err(SourceError::TooMany {
                path,
                limit: SOURCE_BYTES_MAX,
                what: "bytes of manifests",
            });
        }
        let file = SourceFile {
            owner: fs::metadata(&path).ok().map(|metadata| metadata.uid()),
            ..SourceFile::new(bytes)
        };
        sources
            .files
            .insert(path.to_string_lossy().into_owned(), file);
    }
    Ok(sources)
}

impl SourceFile {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut digest = [0; 32];
        // A SHA-256 digest has exactly these 32 bytes.
        for (to, from) in digest
            .iter_mut()
            .zip(ring::digest::digest(&SHA256, &bytes).as_ref())
        {
            *to = *from;
        }
        Self {
            bytes: bytes.into(),
            digest,
            owner: None,
        }
    }
}

impl Sources {
    /// SHA-256 over names and contents and over `settings`, lower-case hex.
    pub(crate) fn digest(&self, settings: &str) -> String {
        let mut context = Context::new(&SHA256);
        context.update(b"mesh.sources.v1\0");
        for part in [settings.as_bytes(), env!("CARGO_PKG_VERSION").as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        for (name, file) in &self.files {
            context.update(&(name.len() as u64).to_be_bytes());
            context.update(name.as_bytes());
            context.update(&file.digest);
        }
        HEXLOWER.encode(context.finish().as_ref())
    }

    /// Files that are new, changed or gone since `before`, sorted.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<String> {
        let mut changed: Vec<String> = self
            .files
            .iter()
            .filter(|(name, file)| {
                before.files.get(*name).map(|old| old.digest) != Some(file.digest)
            })
            .map(|(name, _)| name.clone())
            .chain(
                before
                    .files
                    .keys()
                    .filter(|name| !self.files.contains_key(*name))
                    .cloned(),
            )
            .collect();
        changed.sort();
        changed
    }

    /// Whether a file is empty that had content: its writer has truncated it and is about to fill it.
    pub(crate) fn emptied_since(&self, before: &Self) -> bool {
        self.files.iter().any(|(name, file)| {
            file.bytes.is_empty()
                && before
                    .files
                    .get(name)
                    .is_some_and(|old| !old.bytes.is_empty())
        })
    }
}

fn unreadable(path: &Path, error: &PlatformError) -> Finding {
    let file = path.to_string_lossy().into_owned();
    Finding {
        code: "MESH-0710".to_owned(),
        severity: Severity::Error,
        message: format!("{error}; whatever it holds grants nothing"),
        hint: Some("make it readable for the user of the controller, or remove it".to_owned()),
        object: None,
        source: Source::File {
            file,
            line: 1,
            column: 1,
            end_line: 1,
        },
    }
}

struct Walk {
    found: Stamps,
    /// Directories that were entered, by device and inode.
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    fn directory(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        depth: usize,
    ) -> Result<(), SourceError> {
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(SourceError::TooMany {
                path: path.to_owned(),
                limit: DEPTH_MAX as u64,
                what: "levels",
            });
        }
        let failed = |source| PlatformError::from_io("list", path, source);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            entries.push(entry.map_err(failed)?.path());
        }
        entries.sort();
        for entry in entries {
            self.entry(&entry, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: usize) -> Result<(), SourceError> {
        if is_hidden(path) {
            return Ok(());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => match self.directory(path, &metadata, depth + 1) {
                // Removed while we were on our way into it.
                Err(SourceError::Platform(gone)) if gone.is_not_found() => Ok(()),
                outcome => outcome,
            },
            Ok(metadata) if metadata.is_file() && is_manifest(path) => self.file(path, &metadata),
            Ok(_) => Ok(()),
            // Gone meanwhile, or a link that leads nowhere.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PlatformError::from_io("read", path, source).into()),
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) -> Result<(), SourceError> {
        if self.found.len() >= FILES_MAX {
            return Err(SourceError::TooMany {
                path: path.to_owned(),
                limit: FILES_MAX as u64,
                what: "manifest files",
            });
        }
        let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let stamp = (
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            nanos(metadata.mtime(), metadata.mtime_nsec()),
            nanos(metadata.ctime(), metadata.ctime_nsec()),
        );
        self.found.insert(path.to_owned(), stamp);
        Ok(())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        files::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
    }

    fn names(sources: &Sources, root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        sources
            .files
            .keys()
            .map(|name| name.strip_prefix(&root).unwrap_or(name).to_owned())
            .collect()
    }

    #[test]
    fn manifests_are_found_below_and_through_links_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("manifests");
        put(&root, "a.yaml", "a");
        put(&root, "deep/er/b.yml", "b");
        put(&root, "c.json", "{}");
        put(&root, ".hidden.yaml", "no");
        put(&root, ".git/d.yaml", "no");
        put(&root, "notes.txt", "no");
        put(&root, "a.yaml~", "no");
        put(dir.path(), "elsewhere/e.yaml", "e");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("broken.yaml")).unwrap();
        let sources = read(std::slice::from_ref(&root)).unwrap();
        assert_eq!(
            names(&sources, &root),
            ["a.yaml", "c.json", "deep/er/b.yml", "link/e.yaml"]
        );
        assert!(sources.findings.is_empty());
        // A Kubernetes volume is a link to a link; given by name, one file is enough.
        let link = dir.path().join("volume");
        std::os::unix::fs::symlink(&root, &link).unwrap();
        assert_eq!(
            names(&read(std::slice::from_ref(&link)).unwrap(), &link).len(),
            4
        );
        assert_eq!(read(&[root.join("a.yaml")]).unwrap().files.len(), 1);
    }

    #[test]
    fn a_missing_root_is_an_outage_and_an_empty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&[dir.path().join("absent")]).is_err());
        assert!(read(&[dir.path().to_owned()]).unwrap().files.is_empty());
    }

    #[test]
    fn a_huge_file_reaches_the_index_as_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.yaml");
        fs::File::create(&path)
            .unwrap()
            .set_len(FILE_BYTES_READ * 50)
            .unwrap();
        let sources = read(&[dir.path().to_owned()]).unwrap();
        assert_eq!(
            sources.files.values().next().unwrap().bytes.len() as u64,
            FILE_BYTES_READ
        );
    }

    #[test]
    fn changes_are_named_and_the_digest_tells_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = [dir.path().to_owned()];
        put(dir.path(), "a.yaml", "one");
        put(dir.path(), "b.yaml", "two");
        let before = read(&root).unwrap();
        let stamped = stamps(&root).unwrap();
        assert_eq!(before.digest("x"), read(&root).unwrap().digest("x"));
        assert_ne!(before.digest("x"), before.digest("y"));
        put(dir.path(), "a.yaml", "");
        put(dir.path(), "c.yaml", "three");
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        let after = read(&root).unwrap();
        let expected: Vec<String> = ["a", "b", "c"]
            .map(|name| format!("{}/{name}.yaml", dir.path().display()))
            .to_vec();
        assert_eq!(after.changed_since(&before), expected);
        assert_ne!(after.digest("x"), before.digest("x"));
        assert_ne!(stamps(&root).unwrap(), stamped);
        assert!(after.emptied_since(&before));
        assert!(!before.emptied_since(&after));
    }
}
