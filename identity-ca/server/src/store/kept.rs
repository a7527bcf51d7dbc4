//! Files of an authority whose root others keep: its certificate without key, and a copy of the issuer that they made.
//!
//! | file | what |
//! |---|---|
//! | `kept-elsewhere` | says so; written first, so that keys beside it are known to be copies |
//! | `root.pem` | the trust anchor; its key is not here, and was never seen |
//! | `issuer.pem` | the issuer, then the authorities between it and the root |
//! | `issuer.key` | the issuer's key: it goes on signing while its keeper cannot be reached, and while its successor is staged |
//! | `trust-domain` | whose CA this is |

use super::{
    Certificates, HeldAuthority, ISSUER, NEXT_ISSUER, ROOT, Store, TRUST_DOMAIN, corrupt, key_of,
    pem_of, save,
};
use crate::error::CaError;
use crate::pem;
use crate::signer::{HeldKey, Signing};
use mesh_issuance::adoption::preflight::{Adoptable, ends};
use mesh_issuance::{Authority, Signer};
use mesh_platform::PlatformError;
use mesh_trust::{Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// Name of the file that says so.
const MARK: &str = "kept-elsewhere";

/// An authority whose root others keep.
pub(crate) struct KeptAuthority {
    pub(crate) root: Authority,
    pub(crate) issuer: HeldAuthority,
    /// Authorities between issuer and root, upwards.
    pub(crate) above: Vec<CertificateDer<'static>>,
}

impl Store {
    /// Whether the authority here is one whose root others keep.
    pub(crate) fn is_kept(&self) -> bool {
        self.dir.join(MARK).exists()
    }

    /// The same for whoever does what cannot be undone: that it cannot be told is an error.
    pub(super) fn is_surely_kept(&self) -> Result<bool, CaError> {
        let path = self.dir.join(MARK);
        let found = path.try_exists();
        Ok(found.map_err(|source| PlatformError::from_io("look at", &path, source))?)
    }

    /// Writes such an authority. What an interrupted attempt left is written over: nobody was told of it.
    pub(crate) fn create_kept(
        &self,
        domain: &TrustDomain,
        (with, key): (&Adoptable, &HeldKey),
    ) -> Result<(), CaError> {
        self.write(MARK, b"")?;
        let root = pem::encode(pem::CERTIFICATE, &with.root);
        self.write(&pem_of(ROOT), root.as_bytes())?;
        self.write_chain(ISSUER, with, key)?;
        self.write(TRUST_DOMAIN, format!("{domain}\n").as_bytes())
    }

    /// Puts another issuer of the same root in the place of the present one.
    pub(crate) fn replace_kept(&self, with: &Adoptable, key: &HeldKey) -> Result<(), CaError> {
        self.write_chain(NEXT_ISSUER, with, key)?;
        self.take_next_issuer()
    }

    fn write_chain(&self, name: &str, with: &Adoptable, key: &HeldKey) -> Result<(), CaError> {
        // The certificates first: a key alone must never look like a completed move.
        let chain = mesh_trust::bundle::to_pem(&with.issuer.chain);
        self.write(&pem_of(name), chain.as_bytes())?;
        save(key, &self.dir.join(key_of(name)))
    }

    /// Reads such an authority with the issuer's key.
    pub(crate) fn load_kept(
        &self,
        domain: &TrustDomain,
        signing: &Signing,
    ) -> Result<KeptAuthority, CaError> {
        let found = self.trust_domain()?;
        if found != *domain {
            let (dir, wanted) = (self.dir.clone(), domain.clone());
            return Err(CaError::OtherDomain { dir, found, wanted });
        }
        let root = self.kept_root(domain)?;
        let ends = root.validity().not_after;
        let path = self.dir.join(pem_of(ISSUER));
        let (authority, above) = self.read_kept_at(&path, domain, Some(ends))?;
        let key = self.open_key(ISSUER, signing)?;
        if key.public_key() != authority.key() {
            return Err(CaError::KeyMismatch {
                key: self.dir.join(key_of(ISSUER)),
                certificate: path,
            });
        }
        Ok(KeptAuthority {
            root,
            issuer: HeldAuthority { authority, key },
            above,
        })
    }

    pub(super) fn kept_certificates(&self) -> Result<Certificates, CaError> {
        let trust_domain = self.trust_domain()?;
        let root = self.kept_root(&trust_domain)?;
        let path = self.dir.join(pem_of(ISSUER));
        let (issuer, _) = self.read_kept_at(&path, &trust_domain, None)?;
        Ok(Certificates {
            trust_domain,
            root,
            issuer,
        })
    }

    fn kept_root(&self, domain: &TrustDomain) -> Result<Authority, CaError> {
        let path = self.dir.join(pem_of(ROOT));
        let der = self.read_certificate_at(&path)?;
        Authority::parse_kept(&der, domain, None)
            .map_err(|source| CaError::Authority { path, source })
    }

    /// The issuer in the file `path`, with the authorities above it. None of them outlives `root_ends`.
    pub(super) fn read_kept_at(
        &self,
        path: &Path,
        domain: &TrustDomain,
        root_ends: Option<Timestamp>,
    ) -> Result<(Authority, Vec<CertificateDer<'static>>), CaError> {
        let unreadable = || corrupt(path, "it is not the chain that was written, in PEM");
        let bytes = self.read(path)?;
        let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| unreadable())?;
        if mesh_trust::bundle::to_pem(&chain).as_bytes() != bytes.as_slice() {
            return Err(unreadable());
        }
        let ends = ends(&chain).ok_or_else(unreadable)?;
        let ends = root_ends.map_or(ends, |root| root.min(ends));
        let (issuer, above) = chain.split_first().ok_or_else(unreadable)?;
        let issuer = Authority::parse_kept(issuer, domain, Some(ends)).map_err(|source| {
            CaError::Authority {
                path: path.to_owned(),
                source,
            }
        })?;
        Ok((issuer, above.to_vec()))
    }
}
