//! Root and issuer in files: a folder with `tls.crt` and `tls.key`, as a Secret of type `kubernetes.io/tls` is mounted,
//! and a bundle of roots. The private key is read by the signer; here is only whether it is there.

use super::{Keeper, KeeperError};
use crate::limits::{KEEPER_FILE_BYTES_MAX, KEEPER_FILES_POLL};
use crate::signer::Signing;
use crate::signer::error::SignerError;
use mesh_issuance::Signer;
use mesh_issuance::adoption::AdoptionError;
use mesh_issuance::adoption::source::{self, ISSUER_KEYS, ISSUER_NAMES, IssuerKey};
use mesh_issuance::adoption::staging::Offer;
use mesh_platform::files;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who replaces several files does not do it at one moment: they are read until they stand still, this often at most.
const READINGS_MAX: u32 = 5;

/// A folder and a bundle.
#[derive(Clone, Debug)]
pub struct KeptFiles {
    /// Folder of the issuer.
    pub issuer: PathBuf,
    /// Roots, PEM; none: `ca.crt` of the folder.
    pub roots: Option<PathBuf>,
}

/// What is in the folder, all but the private key.
#[derive(PartialEq, Eq)]
struct Found {
    chain: Vec<u8>,
    beside: Option<Vec<u8>>,
    roots: Vec<u8>,
    key: PathBuf,
    /// Which file that is, and since when it is as it is.
    key_is: (u64, i64, i64),
}

impl KeptFiles {
    fn once(&self) -> Result<Found, KeeperError> {
        let beside = read(&self.issuer.join("ca.crt"))?;
        let (path, roots) = match &self.roots {
            Some(path) => (path.clone(), read(path)?),
            None => (self.issuer.join("ca.crt"), beside.clone()),
        };
        let roots = roots.ok_or_else(|| KeeperError::Unreadable {
            what: format!("`{}`", path.display()),
            why: "there is no such file".to_owned(),
        })?;
        for (chain, key) in ISSUER_KEYS {
            let (chain, key) = (self.issuer.join(chain), self.issuer.join(key));
            if let (Some(chain), Ok(is)) = (read(&chain)?, key.metadata()) {
                return Ok(Found {
                    chain,
                    beside,
                    roots,
                    key,
                    key_is: (is.ino(), is.mtime(), is.mtime_nsec()),
                });
            }
        }
        Err(AdoptionError::NoKey {
            wanted: ISSUER_NAMES,
        }
        .into())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, KeeperError> {
    match files::read_limited(path, KEEPER_FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(KeeperError::Unreadable {
            what: format!("`{}`", path.display()),
            why: error.to_string(),
        }),
    }
}

#[tonic::async_trait]
impl Keeper for KeptFiles {
    fn place(&self) -> String {
        format!("`{}`", self.issuer.display())
    }

    fn may_come(&self) -> bool {
        false
    }

    async fn read(&self, signing: &Signing) -> Result<Offer, KeeperError> {
        let mut seen = self.once()?;
        for _ in 1..READINGS_MAX {
            let again = self.once()?;
            if again == seen {
                break;
            }
            seen = again;
        }
        let roots = source::roots_from_pem(&seen.roots)?;
        let (signing, file) = (signing.clone(), seen.key.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let key = signing.open_kept(&file)?;
            Ok::<_, SignerError>(key.public_key().clone())
        })
        .await;
        let stopped = |error: tokio::task::JoinError| SignerError::Ended {
            why: error.to_string(),
        };
        let public = opened
            .unwrap_or_else(|error| Err(stopped(error)))
            .map_err(|why| KeeperError::Key {
                file: seen.key.display().to_string(),
                why,
            })?;
        let key = IssuerKey::InFile {
            file: seen.key,
            public,
        };
        Ok(Offer {
            roots,
            issuer: source::issuer_of(&seen.chain, seen.beside.as_ref(), key)?,
        })
    }

    async fn changed(&self) {
        tokio::time::sleep(KEEPER_FILES_POLL).await;
    }
}
