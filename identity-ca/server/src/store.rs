//! The CA's files: keys, certificates and whose they are. Written whole, read strictly, never made anew over old ones.
//!
//! | file | what |
//! |---|---|
//! | `trust-domain` | whose CA this is; written last, so its presence says that the first start was completed |
//! | `root.key`, `root.pem` | the trust anchor |
//! | `issuer.key`, `issuer.pem` | signs SVIDs; renewed under the same root |
//! | … | of all these, `*.key` are written, read and destroyed by the signer alone; they hold the key, or its name in a token |
//! | `trust.json` | which roots are trusted, and where a rotation stands; see [`crate::trust`] |
//! | `authorities/*/` | roots and issuers beyond the first, each with the files above; see [`kept`] for those of others |
//! | `issuer.next.*` | the next issuer while it takes the place of the present one |
//! | `first-start/` | all of them while the first start is under way |
//! | `issuance.log` | see [`crate::record`] |
//!
//! Whatever the moment of a power cut: on the next start a file is the old one, the new one, or completes the move.

use crate::error::CaError;
use crate::limits::KEY_FILE_BYTES_MAX;
use crate::pem;
use crate::record::LOG_FILE;
use crate::signer::error::SignerError;
use crate::signer::{HeldKey, Signing};
use mesh_issuance::rotation::AuthorityId;
use mesh_issuance::{Authority, Signer};
use mesh_platform::{PlatformError, files};
use mesh_trust::TrustDomain;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(crate) mod kept;

const ROOT: &str = "root";
const ISSUER: &str = "issuer";
const NEXT_ISSUER: &str = "issuer.next";
const TRUST_DOMAIN: &str = "trust-domain";
const FIRST_START: &str = "first-start";
/// In the order in which the first start moves them into place: the last one completes it.
const FILES: [&str; 5] = [
    "root.key",
    "root.pem",
    "issuer.key",
    "issuer.pem",
    TRUST_DOMAIN,
];

/// An authority with its private key.
#[derive(Debug)]
pub(crate) struct HeldAuthority {
    pub(crate) authority: Authority,
    pub(crate) key: HeldKey,
}

/// The certificates of a CA, without keys.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) root: Authority,
    pub(crate) issuer: Authority,
}

/// The directory of a CA.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Completes or undoes what a power cut interrupted. Only while nobody else uses the directory.
    pub(crate) fn recover(&self, signing: &Signing) -> Result<(), CaError> {
        let staging = self.dir.join(FIRST_START);
        if staging.exists() {
            if staging.join(TRUST_DOMAIN).exists() {
                self.complete_first_start()?;
            } else {
                // Nothing was moved yet, and nothing that was signed with these keys was released.
                for name in [ROOT, ISSUER] {
                    let path = staging.join(key_of(name));
                    destroy_unused(&path, signing);
                }
                remove_dir(&staging)?;
            }
        }
        self.recover_issuer(signing)
    }

    fn complete_first_start(&self) -> Result<(), CaError> {
        let staging = self.dir.join(FIRST_START);
        for name in FILES {
            let (from, to) = (staging.join(name), self.dir.join(name));
            if !from.exists() {
                continue;
            }
            if to.exists() {
                return Err(corrupt(
                    &from,
                    "an unfinished first start lies beside finished files",
                ));
            }
            rename(&from, &to)?;
        }
        remove_dir(&staging)
    }

    /// The next issuer's key is moved first: if the key in place fits the next certificate, the move goes on, else the
    /// next issuer never took over.
    fn recover_issuer(&self, signing: &Signing) -> Result<(), CaError> {
        let (next_key, next_pem) = (
            self.dir.join(key_of(NEXT_ISSUER)),
            self.dir.join(pem_of(NEXT_ISSUER)),
        );
        if next_pem.exists() && !next_key.exists() {
            let domain = self.trust_domain()?;
            let key = self.open_key(ISSUER, signing)?;
            let next = match self.is_kept() {
                true => self.read_kept_at(&next_pem, &domain, None)?.0,
                false => self.read_authority_at(&next_pem, &domain)?,
            };
            if next.key() == key.public_key() {
                rename(&next_pem, &self.dir.join(pem_of(ISSUER)))?;
            }
        }
        // The file alone: where it names a key in a token, the issuer in force may be that one.
        files::remove(&next_key)?;
        files::remove(&next_pem)?;
        Ok(())
    }

    /// Whether there is nothing yet. An error if some files are there and others not.
    pub(crate) fn is_new(&self) -> Result<bool, CaError> {
        let missing: Vec<_> = FILES
            .iter()
            .filter(|name| !self.dir.join(name).exists())
            .collect();
        match missing.first() {
            None => Ok(false),
            Some(_) if missing.len() == FILES.len() => Ok(true),
            Some(first) => Err(self.missing(first)),
        }
    }

    /// An error that says that `name` should be there.
    pub(crate) fn missing(&self, name: &str) -> CaError {
        CaError::Incomplete {
            path: self.dir.join(name),
            dir: self.dir.clone(),
        }
    }

    /// Writes the first root and issuer, all at once.
    pub(crate) fn create(
        &self,
        domain: &TrustDomain,
        root: (&HeldKey, &Authority),
        issuer: (&HeldKey, &Authority),
    ) -> Result<(), CaError> {
        let staging = self.dir.join(FIRST_START);
        files::create_dir_private(&staging)?;
        for (name, (key, authority)) in [(ROOT, root), (ISSUER, issuer)] {
            write_pair(&staging, name, key, authority)?;
        }
        files::write_atomic(
            &staging.join(TRUST_DOMAIN),
            format!("{domain}\n").as_bytes(),
            0o600,
        )?;
        sync_dir(&self.dir)?;
        self.complete_first_start()
    }

    /// Puts a new issuer in the place of the present one.
    pub(crate) fn replace_issuer(
        &self,
        (key, authority): (&HeldKey, &Authority),
        signing: &Signing,
    ) -> Result<(), CaError> {
        let stored = write_pair(&self.dir, NEXT_ISSUER, key, authority)
            .and_then(|()| self.take_next_issuer());
        if stored.is_err() {
            // It took no place, and the next one is another.
            destroy_unused(&self.dir.join(key_of(NEXT_ISSUER)), signing);
        }
        stored
    }

    fn take_next_issuer(&self) -> Result<(), CaError> {
        rename(
            &self.dir.join(key_of(NEXT_ISSUER)),
            &self.dir.join(key_of(ISSUER)),
        )?;
        rename(
            &self.dir.join(pem_of(NEXT_ISSUER)),
            &self.dir.join(pem_of(ISSUER)),
        )
    }

    /// Reads root and issuer with their keys, and checks that all belong together.
    pub(crate) fn load(
        &self,
        domain: &TrustDomain,
        signing: &Signing,
    ) -> Result<(HeldAuthority, HeldAuthority), CaError> {
        let certificates = self.certificates()?;
        if certificates.trust_domain != *domain {
            let (found, wanted) = (certificates.trust_domain, domain.clone());
            return Err(CaError::OtherDomain {
                dir: self.dir.clone(),
                found,
                wanted,
            });
        }
        Ok((
            self.with_key(ROOT, certificates.root, signing)?,
            self.with_key(ISSUER, certificates.issuer, signing)?,
        ))
    }

    /// Reads the certificates, and checks that root signed issuer and itself.
    pub(crate) fn certificates(&self) -> Result<Certificates, CaError> {
        if self.is_kept() {
            return self.kept_certificates();
        }
        let trust_domain = self.trust_domain()?;
        let read = |name| self.read_authority_at(&self.dir.join(pem_of(name)), &trust_domain);
        let (root, issuer) = (read(ROOT)?, read(ISSUER)?);
        let signed = |name, below: &Authority| {
            below
                .check_signed_by(&root)
                .map_err(|source| CaError::Authority {
                    path: self.dir.join(pem_of(name)),
                    source,
                })
        };
        signed(ROOT, &root)?;
        signed(ISSUER, &issuer)?;
        if issuer.is_root() {
            return Err(corrupt(
                &self.dir.join(pem_of(ISSUER)),
                "it is a root, not an issuer below it",
            ));
        }
        Ok(Certificates {
            trust_domain,
            root,
            issuer,
        })
    }

    /// The name of the authority whose root is here; none if there is no root.
    pub(crate) fn root_id(&self, domain: &TrustDomain) -> Result<Option<AuthorityId>, CaError> {
        let path = self.dir.join(pem_of(ROOT));
        if !path.exists() {
            return Ok(None);
        }
        let der = self.read_certificate_at(&path)?;
        if !self.is_kept() {
            self.read_authority_at(&path, domain)?;
        }
        Ok(Some(AuthorityId::of_certificate(&der)))
    }

    /// Destroys the private keys, our own in a token too; certificates stay. Of keys that others keep, copies alone are
    /// ours to destroy.
    pub(crate) fn destroy_keys(&self, signing: &Signing) -> Result<(), CaError> {
        let kept = self.is_surely_kept()?;
        for name in [ROOT, ISSUER, NEXT_ISSUER] {
            let path = self.dir.join(key_of(name));
            let destroyed = match kept {
                true => signing.destroy_file(&path),
                false => signing.destroy(&path),
            };
            destroyed.map_err(|why| CaError::Key { path, why })?;
        }
        Ok(())
    }

    fn with_key(
        &self,
        name: &str,
        authority: Authority,
        signing: &Signing,
    ) -> Result<HeldAuthority, CaError> {
        let key = self.open_key(name, signing)?;
        if key.public_key() != authority.key() {
            return Err(CaError::KeyMismatch {
                key: self.dir.join(key_of(name)),
                certificate: self.dir.join(pem_of(name)),
            });
        }
        Ok(HeldAuthority { authority, key })
    }

    /// Opens the issuer's key where it stays, once it took its place.
    pub(crate) fn open_issuer(&self, signing: &Signing) -> Result<HeldKey, CaError> {
        self.open_key(ISSUER, signing)
    }

    /// Has the signer open `<name>.key`, which must be there, be ours, and be nobody else's.
    pub(crate) fn open_key(&self, name: &str, signing: &Signing) -> Result<HeldKey, CaError> {
        let path = self.dir.join(key_of(name));
        match check_mode(&path) {
            Ok(()) => {}
            Err(CaError::Platform(error)) if error.is_not_found() => {
                return Err(self.missing(&key_of(name)));
            }
            Err(error) => return Err(error),
        }
        signing.open(&path).map_err(|why| match why {
            SignerError::Damaged => corrupt(&path, &why.to_string()),
            why => CaError::Key { path, why },
        })
    }

    pub(crate) fn trust_domain(&self) -> Result<TrustDomain, CaError> {
        let path = self.dir.join(TRUST_DOMAIN);
        let bytes = self.read(&path)?;
        let text = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.strip_suffix('\n'));
        let domain = text.and_then(|text| TrustDomain::parse(text).ok());
        domain.ok_or_else(|| corrupt(&path, "it is not one trust domain and a line feed"))
    }

    fn read_certificate_at(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, CaError> {
        pem::decode(pem::CERTIFICATE, &self.read(path)?)
            .ok_or_else(|| corrupt(path, "it is not the certificate that was written, in PEM"))
    }

    fn read_authority_at(&self, path: &Path, domain: &TrustDomain) -> Result<Authority, CaError> {
        let der = self.read_certificate_at(path)?;
        Authority::parse(&der, domain).map_err(|source| CaError::Authority {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a file that must be there, be ours, and be nobody else's.
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, CaError> {
        self.read_limited(path, KEY_FILE_BYTES_MAX)
    }

    fn read_limited(&self, path: &Path, limit_bytes: u64) -> Result<Zeroizing<Vec<u8>>, CaError> {
        match files::read_limited(path, limit_bytes) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                check_mode(path)?;
                Ok(bytes)
            }
            Err(error) if error.is_not_found() => Err(CaError::Incomplete {
                path: path.to_owned(),
                dir: self.dir.clone(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// The file `name`, of at most `limit_bytes`, or nothing if there is none.
    pub(crate) fn read_if_there(
        &self,
        name: &str,
        limit_bytes: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, CaError> {
        match self.read_limited(&self.dir.join(name), limit_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(CaError::Incomplete { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file `name`, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CaError> {
        Ok(files::write_atomic(&self.dir.join(name), bytes, 0o600)?)
    }

    /// Removes every file whose name ends with `end`.
    pub(crate) fn remove_all(&self, end: &str) -> Result<(), CaError> {
        let failed = |source| PlatformError::from_io("look into", &self.dir, source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_str().is_some_and(|path| path.ends_with(end)) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Has the signer destroy every `*.key` but those of `names`.
    pub(crate) fn keep_keys(&self, names: &[&str], signing: &Signing) -> Result<(), CaError> {
        let failed = |source| PlatformError::from_io("look into", &self.dir, source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let named = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .is_some_and(|stem| names.contains(&stem));
            if path.extension().is_some_and(|end| end == "key") && !named {
                signing
                    .destroy(&path)
                    .map_err(|why| CaError::Key { path, why })?;
            }
        }
        Ok(())
    }

    /// Has the signer write a key to `<name>.key`.
    pub(crate) fn save_key(&self, name: &str, key: &HeldKey) -> Result<(), CaError> {
        save(key, &self.dir.join(key_of(name)))
    }

    /// The error that says that the file `name` is not what we wrote.
    pub(crate) fn corrupt(&self, name: &str, why: &str) -> CaError {
        corrupt(&self.dir.join(name), why)
    }

    /// Refuses a log that is missing beside keys that were used.
    pub(crate) fn check_log_is_there(&self) -> Result<(), CaError> {
        let path = self.dir.join(LOG_FILE);
        match fs::metadata(&path) {
            Ok(found) if found.len() > 0 => check_mode(&path),
            Ok(_) => Err(CaError::LogMissing { path }),
            Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {
                Err(CaError::LogMissing { path })
            }
            Err(source) => Err(PlatformError::from_io("read", &path, source).into()),
        }
    }
}

fn key_of(name: &str) -> String {
    format!("{name}.key")
}

fn pem_of(name: &str) -> String {
    format!("{name}.pem")
}

fn corrupt(path: &Path, why: &str) -> CaError {
    CaError::Corrupt {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

fn write_pair(dir: &Path, name: &str, key: &HeldKey, authority: &Authority) -> Result<(), CaError> {
    // The certificate first: a key alone must never look like a completed move.
    let certificate = pem::encode(pem::CERTIFICATE, authority.certificate());
    files::write_atomic(&dir.join(pem_of(name)), certificate.as_bytes(), 0o600)?;
    save(key, &dir.join(key_of(name)))
}

/// Has the signer write a key to its file.
fn save(key: &HeldKey, path: &Path) -> Result<(), CaError> {
    key.save(path).map_err(|why| CaError::Key {
        path: path.to_owned(),
        why,
    })
}

/// Destroys a key that was made and took no place: in a token it would stay for ever. Nothing depends on that.
fn destroy_unused(path: &Path, signing: &Signing) {
    if let Err(error) = signing.destroy(path) {
        tracing::warn!(%error, path = %path.display(), "a key that is not needed could not be destroyed");
    }
}

fn check_mode(path: &Path) -> Result<(), CaError> {
    let found = fs::symlink_metadata(path)
        .map_err(|source| PlatformError::from_io("look at", path, source))?;
    if !found.file_type().is_file() {
        return Err(corrupt(path, "it is no regular file"));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(CaError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), CaError> {
    fs::rename(from, to).map_err(|source| PlatformError::from_io("rename", from, source))?;
    // Both directories, which are the same one but for the first start.
    for path in [to, from] {
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), CaError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(synced.map_err(|source| PlatformError::from_io("flush", dir, source))?)
}

fn remove_dir(dir: &Path) -> Result<(), CaError> {
    Ok(fs::remove_dir_all(dir).map_err(|source| PlatformError::from_io("remove", dir, source))?)
}

#[cfg(test)]
mod tests;
