//! Root and issuer in files: a folder with `tls.crt` and `tls.key`, as a Secret of type `kubernetes.io/tls` is mounted,
//! and a bundle of roots.

use super::{Keeper, KeeperError};
use crate::limits::{KEEPER_FILE_BYTES_MAX, KEEPER_FILES_POLL};
use mesh_issuance::adoption::source::{self, Data};
use mesh_issuance::adoption::staging::Offer;
use mesh_platform::files;
use std::path::{Path, PathBuf};

/// Names of what may be in the folder: Kubernetes' and Linkerd's.
const NAMES: [&str; 5] = ["tls.crt", "tls.key", "ca.crt", "crt.pem", "key.pem"];
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

impl KeptFiles {
    fn once(&self) -> Result<(Data, Vec<u8>), KeeperError> {
        let mut data = Data::new();
        for name in NAMES {
            if let Some(bytes) = read(&self.issuer.join(name))? {
                data.insert(name.to_owned(), bytes);
            }
        }
        let path = self
            .roots
            .clone()
            .unwrap_or_else(|| self.issuer.join("ca.crt"));
        let roots = read(&path)?.ok_or_else(|| KeeperError::Unreadable {
            what: format!("`{}`", path.display()),
            why: "there is no such file".to_owned(),
        })?;
        Ok((data, roots))
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

    async fn read(&self) -> Result<Offer, KeeperError> {
        let mut seen = self.once()?;
        for _ in 1..READINGS_MAX {
            let again = self.once()?;
            if again == seen {
                break;
            }
            seen = again;
        }
        let (data, roots) = seen;
        Ok(Offer {
            roots: source::roots_from_pem(&roots)?,
            issuer: source::issuer_from(&data)?,
        })
    }

    async fn changed(&self) {
        tokio::time::sleep(KEEPER_FILES_POLL).await;
    }
}
