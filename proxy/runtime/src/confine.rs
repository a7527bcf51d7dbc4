//! What a proxy gives up before it hears its first byte: see [`mesh_platform::confine`].

use crate::config::{IdentitySource, PolicySource, ProxyConfig};
use crate::error::ProxyError;
use mesh_platform::confine::{Files, FilesKept, confine};
use mesh_platform::files::create_dir_private;
use std::path::{Path, PathBuf};

/// Keeps this process, for good, from other programs and from files that the configuration does not name. Call it before
/// there is another thread.
///
/// # Errors
/// [`ProxyError::Start`] if the kernel refuses, or a folder to write in cannot be made.
pub(crate) fn to_what_is_configured(config: &ProxyConfig) -> Result<(), ProxyError> {
    let cannot = |why: String| ProxyError::Start {
        part: "confinement",
        why,
    };
    let files = Files {
        reads: reads(config),
        writes: writes(config),
    };
    for folder in files.writes.iter().filter(|folder| !folder.exists()) {
        create_dir_private(folder).map_err(|error| cannot(error.to_string()))?;
    }
    match confine(&files).map_err(|error| cannot(error.to_string()))? {
        FilesKept::Fully => tracing::info!("confined: no other programs, no other files"),
        FilesKept::Partly => {
            tracing::warn!("confined: no other programs; the kernel has only some rules for files");
        }
        FilesKept::NotAtAll => {
            tracing::warn!("confined: no other programs; the kernel has no Landlock to keep files");
        }
    }
    Ok(())
}

/// Folders rather than files: what is renewed is renamed over, and a volume of Kubernetes is a link to a folder that changes.
fn reads(config: &ProxyConfig) -> Vec<PathBuf> {
    let mut reads = Vec::new();
    match &config.identity {
        IdentitySource::WorkloadApi(_) => {}
        IdentitySource::Files { chain, key, bundle } => {
            reads.extend([chain, key, bundle].map(|file| folder_of(file)));
        }
        IdentitySource::Ca(ca) => reads.extend([&ca.token, &ca.bundle].map(|file| folder_of(file))),
    }
    if let PolicySource::Manifests {
        folder, discovery, ..
    } = &config.policy
    {
        reads.push(folder.clone());
        reads.extend(discovery.as_deref().map(folder_of));
    }
    reads
}

fn writes(config: &ProxyConfig) -> Vec<PathBuf> {
    let log = config.audit.as_ref().map(|audit| folder_of(&audit.file));
    let mut writes = vec![folder_of(&config.admin_socket)];
    writes.extend(log);
    writes
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
