//! Policy from a folder of manifests, for proxies without a controller.

use super::{Offer, install};
use crate::error::ProxyError;
use crate::limits::FILES_POLL;
use crate::state::Shared;
use mesh_policy::decide::Generation;
use mesh_policy_index::index::beside;
use mesh_policy_index::{Index, IndexConfig, Mode, WorkloadKey, manifest};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Names and contents of all manifests, sorted by name.
type Files = Vec<(String, Vec<u8>)>;

/// Reads the folder and puts its policy into force.
///
/// # Errors
/// [`ProxyError::Manifests`] if the folder cannot be read or does not know this workload.
pub(super) fn read_once(
    shared: &Shared,
    folder: &Path,
    default_policy: Mode,
) -> Result<(), ProxyError> {
    let fault = |why: String| ProxyError::Manifests {
        workload: shared.config.workload_name(),
        manifests: folder.to_owned(),
        why,
    };
    let files = read_all(shared, folder).map_err(|error| fault(error.to_string()))?;
    apply(shared, files, default_policy, Generation(1)).map_err(fault)?;
    shared.control_connected.store(true, Ordering::Relaxed);
    Ok(())
}

/// Looks at the folder again and again; every change of bytes is a new generation.
pub(super) async fn follow(shared: &Shared, folder: &Path, default_policy: Mode) {
    let mut seen: Option<Files> = None;
    loop {
        match read_all(shared, folder) {
            Ok(files) if seen.as_ref() != Some(&files) => {
                let generation = shared
                    .policy
                    .load()
                    .as_ref()
                    .map_or(1, |policy| policy.generation().0 + 1);
                if let Err(why) = apply(
                    shared,
                    files.clone(),
                    default_policy,
                    Generation(generation),
                ) {
                    tracing::error!(
                        why,
                        "the manifests give no policy; the last one stays in force"
                    );
                }
                seen = Some(files);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "the manifests cannot be read")
            }
        }
        tokio::time::sleep(FILES_POLL).await;
    }
}

fn apply(
    shared: &Shared,
    files: Files,
    default_policy: Mode,
    generation: Generation,
) -> Result<(), String> {
    let loaded = manifest::load(files);
    let config = IndexConfig {
        default_policy,
        ..IndexConfig::new(shared.config.trust_domain.clone())
    };
    let index = Index::build(&loaded, &config);
    for finding in index.findings() {
        tracing::warn!(code = finding.code, at = %finding.source, "{}", finding.message);
    }
    let key = WorkloadKey {
        namespace: shared.config.namespace.clone(),
        name: shared.config.workload.clone(),
    };
    let policy = index
        .snapshot(&key, generation)
        .ok_or("no such workload in the manifests")?;
    let candidate = Index::candidate(&loaded, &config)
        .and_then(|index| index.snapshot(&key, generation))
        .and_then(|candidate| beside(candidate, &policy));
    let mut offer = Offer { policy, candidate };
    if let Some(current) = shared.policy.load().as_ref() {
        // The same policy from other bytes is the same generation.
        offer.number(current.generation());
        if shared.policy_is.load().is_of(&offer.digests()?) {
            return Ok(());
        }
        offer.number(generation);
    }
    install(shared, offer, &mut Generation::default())
}

fn read_all(shared: &Shared, folder: &Path) -> io::Result<Files> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_manifest(&path) {
                let bytes = shared.platform.read_file(&path).map_err(io::Error::other)?;
                files.push((path.display().to_string(), bytes));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_none_or(|name| name.starts_with('.'));
    let known = path
        .extension()
        .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
    known && !hidden
}
