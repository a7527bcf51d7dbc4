//! Where services are, from a file, for proxies without a controller. Its form is the one in which the admin socket tells
//! it (`/discovery`).

use crate::error::ProxyError;
use crate::limits::FILES_POLL;
use crate::state::Shared;
use std::path::Path;

/// Reads the file and puts it into force.
///
/// # Errors
/// [`ProxyError::Discovery`] if it cannot be read or is malformed.
pub(super) fn read_once(shared: &Shared, file: &Path) -> Result<(), ProxyError> {
    let fault = |why: String| ProxyError::Discovery {
        path: file.to_owned(),
        why,
    };
    let bytes = shared.platform.read_file(file);
    let bytes = bytes.map_err(|error| fault(error.to_string()))?;
    apply(shared, &bytes).map_err(fault)
}

/// Looks at the file again and again. What cannot be used changes nothing.
pub(super) async fn follow(shared: &Shared, file: &Path) {
    let mut seen = None;
    loop {
        match shared.platform.read_file(file) {
            Ok(bytes) if seen.as_ref() != Some(&bytes) => {
                if let Err(why) = apply(shared, &bytes) {
                    tracing::error!(why, file = %file.display(), "discovery cannot be used; the last one stays in force");
                }
                seen = Some(bytes);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "discovery cannot be read");
            }
        }
        tokio::time::sleep(FILES_POLL).await;
    }
}

fn apply(shared: &Shared, bytes: &[u8]) -> Result<(), String> {
    let discovery = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    shared.install_discovery(discovery);
    Ok(())
}
