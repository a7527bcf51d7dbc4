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
use std::sync::{Arc, Mutex, PoisonError};

/// Who replaces several files does not do it at one moment: they are read until they stand still, this often at most.
const READINGS_MAX: u32 = 5;

/// A folder and a bundle.
#[derive(Clone, Debug)]
pub struct KeptFiles {
    issuer: PathBuf,
    roots: Option<PathBuf>,
    /// What was there when they were read last; none: they could not be read, and are looked at anew.
    last: Arc<Mutex<Option<Found>>>,
}

/// What is in the folder, all but the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    chain: Vec<u8>,
    beside: Option<Vec<u8>>,
    roots: Vec<u8>,
    key: PathBuf,
    /// Which file that is, and since when it and what is noted of it are as they are.
    key_is: (u64, [i64; 4]),
}

impl KeptFiles {
    /// The issuer in the folder `issuer`, and the roots in the PEM file `roots`; without it, `ca.crt` of the folder.
    pub fn new(issuer: &Path, roots: Option<&Path>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            roots: roots.map(Path::to_owned),
            last: Arc::default(),
        }
    }

    fn remember(&self, found: Option<Found>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Whether something else is there than what was read last, as far as it can be seen without the key.
    fn has_changed(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.once().ok() != *last
    }

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
                    key_is: (
                        is.ino(),
                        [is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()],
                    ),
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
        self.remember(None);
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
            file: seen.key.clone(),
            public,
        };
        let issuer = source::issuer_of(&seen.chain, seen.beside.as_ref(), key)?;
        self.remember(Some(seen));
        Ok(Offer { roots, issuer })
    }

    /// The files are looked at again and again; the signer, which may have to ask a token, is not.
    async fn changed(&self) {
        loop {
            tokio::time::sleep(KEEPER_FILES_POLL).await;
            if self.has_changed() {
                return;
            }
        }
    }
}
