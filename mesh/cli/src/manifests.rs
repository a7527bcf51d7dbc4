//! Manifests on disk, read and indexed by the same code as the controller's.

use crate::exit::Exit;
use crate::fault::Fault;
use clap::Args;
use mesh_platform::files;
use mesh_policy::Snapshot;
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{Finding, Severity};
use mesh_policy_index::index::{Index, IndexConfig, WorkloadKey};
use mesh_policy_index::manifest::{Loaded, Part, Piece, join};
use mesh_policy_index::{Mode, Proxied};
use mesh_trust::TrustDomain;
use std::path::{Path, PathBuf};

/// Files that one command reads. A repository of ten thousand manifests is large.
const FILES_MAX: usize = 100_000;
/// Bytes of one file. The longest bundles of manifests have a few MB.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes from which a second thread is worth its start: about 10 ms of reading.
const THREADS_FROM_BYTES: usize = 128 << 10;
/// Bytes of a file from which it is cut: as much as a thread reads in some 5 ms.
const PIECE_BYTES: usize = 64 << 10;
/// Folders below each other; more is a loop of links.
const DEPTH_MAX: usize = 32;

/// Settings of the mesh that manifests are read for.
#[derive(Args, Clone, Debug)]
pub(crate) struct MeshSettings {
    /// Default policy of ports that no Server selects: deny, all-authenticated, all-unauthenticated,
    /// cluster-authenticated, cluster-unauthenticated or audit.
    #[arg(long, value_name = "MODE", default_value = "deny", value_parser = mode)]
    pub(crate) default_policy: Mode,
    /// Trust domain of the mesh.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = trust_domain)]
    pub(crate) trust_domain: TrustDomain,
}

impl MeshSettings {
    /// The same for the index.
    pub(crate) fn config(&self) -> IndexConfig {
        IndexConfig {
            default_policy: self.default_policy,
            ..IndexConfig::new(self.trust_domain.clone())
        }
    }
}

/// Manifests, indexed.
pub(crate) struct Manifests {
    /// The index of what is in force.
    pub(crate) index: Index,
    /// That of the candidate beside it (`mesh.internal/shadow`), if there is one.
    pub(crate) candidate: Option<Index>,
    /// Files read: names and contents.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Why manifests cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum ManifestError {
    /// A path that does not exist, or may not be read.
    #[error("`{}` cannot be read: {why}", path.display())]
    #[diagnostic(
        code("MESH-0603"),
        help("name files or folders that hold `.yaml`, `.yml` or `.json` manifests")
    )]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A folder without manifests.
    #[error("there is no manifest in `{}`", path.display())]
    #[diagnostic(
        code("MESH-0604"),
        help("manifests end in `.yaml`, `.yml` or `.json`; hidden files are not read")
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// More than any repository holds.
    #[error("there are more than {limit} files or {depth} levels below `{}`", path.display())]
    #[diagnostic(
        code("MESH-0605"),
        help("name the folder of the manifests themselves, not one far above")
    )]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// Files that are read at most.
        limit: usize,
        /// Levels that are read at most.
        depth: usize,
    },
}

impl Manifests {
    /// Reads files and folders, and indexes what they hold.
    ///
    /// # Errors
    /// [`ManifestError`], ending the command with exit code 2. What is wrong *inside* files is a finding, not an error.
    pub(crate) fn read(paths: &[PathBuf], settings: &MeshSettings) -> Result<Self, Fault> {
        Ok(Self::of(contents(paths)?, settings))
    }

    /// Indexes files that were read already: names and contents.
    pub(crate) fn of(files: Vec<(String, Vec<u8>)>, settings: &MeshSettings) -> Self {
        Self::of_kind(files, settings, Proxied::All)
    }

    /// The same, with a word on which of their pods have a proxy.
    pub(crate) fn of_kind(
        files: Vec<(String, Vec<u8>)>,
        settings: &MeshSettings,
        proxied: Proxied,
    ) -> Self {
        let config = IndexConfig {
            proxied,
            ..settings.config()
        };
        let loaded = read(&files);
        Self {
            index: Index::build(&loaded, &config),
            candidate: Index::candidate(&loaded, &config),
            files,
        }
    }

    /// The first file, or document in one, that could not be read at all: what it says is not known.
    pub(crate) fn unread(&self) -> Option<&Finding> {
        let mut findings = self.index.findings().iter();
        findings.find(|finding| UNPARSABLE.contains(&finding.code.as_str()))
    }

    /// The compiled policy of one workload.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(crate) fn snapshot(&self, workload: &WorkloadKey) -> Result<Option<Snapshot>, Fault> {
        let Some(data) = self.index.snapshot(workload, Generation::default()) else {
            return Ok(None);
        };
        Ok(Some(Snapshot::compile(data)?))
    }

    /// Everything that is wrong or doubtful, sorted by place.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.index.findings().to_vec();
        if let Some(candidate) = &self.candidate {
            findings.extend(candidate.findings_beside(&self.index));
        }
        findings.sort_by(|a, b| {
            (&a.source, &a.code, &a.message).cmp(&(&b.source, &b.code, &b.message))
        });
        findings
    }
}

/// Reads files; many or large ones on two threads, about half of their bytes on each.
fn read(files: &[(String, Vec<u8>)]) -> Loaded {
    let parts = |pieces: &[Piece<'_>]| -> Vec<Part> { pieces.iter().map(Piece::read).collect() };
    let files = files.iter();
    let pieces: Vec<Piece<'_>> = files
        .flat_map(|(name, content)| Piece::of(name, content, PIECE_BYTES))
        .collect();
    let bytes: usize = pieces.iter().map(Piece::len).sum();
    if bytes < THREADS_FROM_BYTES {
        return join(&parts(&pieces));
    }
    let mut sum = 0;
    let half = pieces.iter().take_while(|piece| {
        sum += piece.len();
        sum <= bytes / 2
    });
    let (mine, other) = pieces.split_at(half.count());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| parts(other));
        let mine = parts(mine);
        match other.join() {
            Ok(other) => join(mine.iter().chain(&other)),
            // Nothing that was to be read may be missing.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Files and folders, read: names and contents.
///
/// # Errors
/// [`ManifestError`], ending the command with exit code 2.
pub(crate) fn contents(paths: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let files = collect(paths).map_err(|error| Fault::usage(&error))?;
    let read = files.into_iter().map(|file| {
        let bytes =
            files::read_limited(&file, FILE_BYTES_MAX).map_err(|error| Fault::usage(&error))?;
        Ok((file.display().to_string(), bytes))
    });
    read.collect()
}

/// Codes of findings that mean a file, or a document in it, could not be read at all (policy-engine/index).
const UNPARSABLE: &[&str] = &[
    "MESH-0350",
    "MESH-0351",
    "MESH-0352",
    "MESH-0353",
    "MESH-0384",
];

/// How `mesh authz lint` ends for these findings.
pub(crate) fn exit_for(findings: &[Finding], fail_on_warnings: bool) -> Exit {
    let any = |severity: Severity| findings.iter().any(|finding| finding.severity == severity);
    if findings
        .iter()
        .any(|finding| UNPARSABLE.contains(&finding.code.as_str()))
    {
        Exit::Usage
    } else if any(Severity::Error) {
        Exit::Failure
    } else if fail_on_warnings && any(Severity::Warning) {
        Exit::Warnings
    } else {
        Exit::Ok
    }
}

/// The manifests under `paths`, in the order of the paths and of names below them, each once.
fn collect(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ManifestError> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        let metadata = std::fs::metadata(path).map_err(|error| ManifestError::Unreadable {
            path: path.clone(),
            why: error.to_string(),
        })?;
        if metadata.is_dir() {
            below(path, 0, &mut files)?;
            if files.len() == before {
                return Err(ManifestError::Nothing { path: path.clone() });
            }
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ManifestError> {
    let unreadable = |error: std::io::Error| ManifestError::Unreadable {
        path: folder.to_path_buf(),
        why: error.to_string(),
    };
    if depth > DEPTH_MAX || files.len() > FILES_MAX {
        return Err(ManifestError::TooMany {
            path: folder.to_path_buf(),
            limit: FILES_MAX,
            depth: DEPTH_MAX,
        });
    }
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    paths.sort();
    for path in paths {
        if path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        {
            continue;
        }
        if path.is_dir() {
            below(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension == *known)
        }) {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads a default policy.
pub(crate) fn mode(text: &str) -> Result<Mode, String> {
    text.parse()
        .map_err(|error: mesh_policy_index::mode::ModeError| error.to_string())
}

/// Reads a trust domain.
pub(crate) fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    fn hidden_and_other_files_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yaml", "a.yml", "c.json", "README.md", ".hidden.yaml"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        std::fs::create_dir(folder.path().join("below")).expect("a folder");
        std::fs::write(folder.path().join("below/d.yaml"), "").expect("a file");
        let files = collect(&[folder.path().to_path_buf()]).expect("files");
        let names: Vec<_> = files
            .iter()
            .filter_map(|f| f.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "d.yaml", "c.json"]);
    }

    #[test]
    fn a_folder_without_manifests_is_an_error_and_not_an_empty_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(
            collect(&[folder.path().to_path_buf()]),
            Err(ManifestError::Nothing { .. })
        ));
        assert!(matches!(
            collect(&[folder.path().join("none")]),
            Err(ManifestError::Unreadable { .. })
        ));
    }
}
