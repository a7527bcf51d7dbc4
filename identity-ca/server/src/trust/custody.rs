//! The authorities of a CA with their keys. The first one lies in the CA's directory itself, later ones and those whose
//! roots others keep below `authorities/`, each as whole as a CA's first start leaves it.

use super::error::TrustStateError;
use super::file;
use crate::error::CaError;
use crate::issuing::check_root;
use crate::signer::error::SignerError;
use crate::signer::{HeldKey, Signing};
use crate::store::{HeldAuthority, Store};
use mesh_issuance::adoption::preflight::Adoptable;
use mesh_issuance::adoption::source::IssuerKey;
use mesh_issuance::log::Ledger;
use mesh_issuance::rotation::{AuthorityId, TrustState};
use mesh_issuance::{Authority, Signer};
use mesh_platform::{PlatformError, files};
use mesh_trust::{Timestamp, TrustDomain};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of authorities beyond the first.
const AUTHORITIES: &str = "authorities";

/// A root with its issuer.
pub(crate) struct Pair {
    pub(crate) store: Store,
    pub(crate) root: Authority,
    /// None: others keep it, and give us its issuers.
    pub(crate) root_key: Option<HeldKey>,
    pub(crate) issuer: HeldAuthority,
    /// Authorities between issuer and root, upwards; none between our own.
    pub(crate) above: Vec<CertificateDer<'static>>,
}

/// All authorities whose keys are at hand.
pub(crate) struct Custody {
    dir: PathBuf,
    signing: Signing,
    pairs: BTreeMap<AuthorityId, Pair>,
}

/// An authority that was made and is not yet in custody.
pub(crate) struct Made<'a> {
    pub(crate) root: (&'a HeldKey, &'a Authority),
    pub(crate) issuer: (&'a HeldKey, &'a Authority),
}

impl Custody {
    /// The authority of a CA that has one alone, in its directory itself.
    pub(crate) fn of_first(
        dir: &Path,
        domain: &TrustDomain,
        signing: &Signing,
    ) -> Result<Self, CaError> {
        let mut custody = Self::empty(dir, signing);
        custody.add(Store::new(dir), domain)?;
        Ok(custody)
    }

    /// All authorities that `state` needs. Keys of others are destroyed if `log` knows them: they were made for a step
    /// that never happened, or were retired when the CA was killed. What the log does not know is left as it is.
    pub(crate) fn load(
        dir: &Path,
        domain: &TrustDomain,
        (state, log): (&TrustState, &Ledger),
        signing: &Signing,
    ) -> Result<Self, CaError> {
        let needed = state.authorities();
        let mut custody = if dir.join(AUTHORITIES).exists() {
            Self::empty(dir, signing)
        } else {
            Self::of_first(dir, domain, signing)?
        };
        for store in stores(dir)? {
            store.recover(signing)?;
            let id = store.root_id(domain)?;
            match id {
                Some(id) if custody.pairs.contains_key(&id) => {}
                Some(id) if needed.contains(&id) => drop(custody.add(store, domain)?),
                // A part of an authority, or another CA's: said below if it is needed.
                _ => destroy_if_ours(&store, domain, log, signing)?,
            }
        }
        custody.pairs.retain(|id, _| needed.contains(id));
        match needed
            .into_iter()
            .find(|id| !custody.pairs.contains_key(*id))
        {
            None => Ok(custody),
            Some(missing) => Err(TrustStateError::NoAuthority {
                authority: missing.as_str().to_owned(),
                dir: dir.to_owned(),
            }
            .into()),
        }
    }

    /// No authority yet.
    pub(crate) fn empty(dir: &Path, signing: &Signing) -> Self {
        Self {
            dir: dir.to_owned(),
            signing: signing.clone(),
            pairs: BTreeMap::new(),
        }
    }

    /// Reads an authority with its keys.
    fn add(&mut self, store: Store, domain: &TrustDomain) -> Result<AuthorityId, CaError> {
        let pair = Pair::read(store, domain, &self.signing)?;
        let id = AuthorityId::of(&pair.root);
        self.pairs.insert(id.clone(), pair);
        Ok(id)
    }

    /// Writes an authority to disk and takes it into custody.
    pub(crate) fn keep(
        &mut self,
        domain: &TrustDomain,
        made: &Made<'_>,
    ) -> Result<AuthorityId, CaError> {
        let id = AuthorityId::of(made.root.1);
        let parent = self.dir.join(AUTHORITIES);
        files::create_dir_private(&parent)?;
        let folder = parent.join(id.short());
        files::create_dir_private(&folder)?;
        let store = Store::new(&folder);
        store.create(domain, made.root, made.issuer)?;
        self.add(store, domain)
    }

    /// Writes an authority that others keep to disk, and takes it into custody.
    pub(crate) fn keep_copy(
        &mut self,
        domain: &TrustDomain,
        of: &Adoptable,
    ) -> Result<AuthorityId, CaError> {
        let id = AuthorityId::of_certificate(&of.root);
        let parent = self.dir.join(AUTHORITIES);
        files::create_dir_private(&parent)?;
        let folder = parent.join(id.short());
        files::create_dir_private(&folder)?;
        let store = Store::new(&folder);
        let key = self.key_of(of)?;
        store.create_kept(domain, (of, &key))?;
        self.add(store, domain)
    }

    /// Puts another issuer that others made in the place of the one of `id`.
    pub(crate) fn renew_copy(
        &mut self,
        id: &AuthorityId,
        domain: &TrustDomain,
        of: &Adoptable,
    ) -> Result<(), CaError> {
        let key = self.key_of(of)?;
        if let Some(pair) = self.pairs.get_mut(id) {
            pair.store.replace_kept(of, &key)?;
            *pair = Pair::read(pair.store.clone(), domain, &self.signing)?;
        }
        Ok(())
    }

    /// Has the signer take the key of an issuer that others keep.
    fn key_of(&self, of: &Adoptable) -> Result<HeldKey, CaError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |why| CaError::Key { path, why }
        };
        match &of.issuer.key {
            IssuerKey::Pkcs8(pkcs8) => {
                let place = Path::new("the issuer that others keep");
                self.signing.take(pkcs8).map_err(failed(place))
            }
            IssuerKey::InFile { file, public } => {
                let key = self.signing.open_kept(file).map_err(failed(file))?;
                match key.public_key() == public {
                    true => Ok(key),
                    // Another was put there since it was looked at.
                    false => Err(failed(file)(SignerError::Damaged)),
                }
            }
        }
    }

    /// Who holds the keys.
    pub(crate) fn signing(&self) -> &Signing {
        &self.signing
    }

    /// Lets go of an authority that nobody was told of.
    pub(crate) fn forget(&mut self, id: &AuthorityId) -> Result<(), CaError> {
        match self.pairs.remove(id) {
            Some(pair) => pair.store.destroy_keys(&self.signing),
            None => Ok(()),
        }
    }

    /// Destroys the private keys of an authority. Its certificates stay: they are what the log speaks of.
    pub(crate) fn destroy(
        &mut self,
        id: &AuthorityId,
        domain: &TrustDomain,
    ) -> Result<(), CaError> {
        self.pairs.remove(id);
        for store in stores(&self.dir)? {
            if store.root_id(domain)?.as_ref() == Some(id) {
                store.destroy_keys(&self.signing)?;
            }
        }
        Ok(())
    }

    /// One of them.
    pub(crate) fn get(&self, id: &AuthorityId) -> Option<&Pair> {
        self.pairs.get(id)
    }

    /// One of them, to renew its issuer.
    pub(crate) fn get_mut(&mut self, id: &AuthorityId) -> Option<&mut Pair> {
        self.pairs.get_mut(id)
    }

    /// The one authority of a CA that has one.
    pub(crate) fn only(&self) -> Result<&AuthorityId, CaError> {
        let missing = || TrustStateError::NoAuthority {
            authority: "the first".to_owned(),
            dir: self.dir.clone(),
        };
        Ok(self.pairs.keys().next().ok_or_else(missing)?)
    }

    /// Refuses roots that count no longer, or not yet: nothing can be issued under them.
    pub(crate) fn check_roots(&self, now: Timestamp) -> Result<(), CaError> {
        self.pairs
            .values()
            .try_for_each(|pair| check_root(&pair.store, &pair.root, now))
    }

    /// Their names.
    pub(crate) fn ids(&self) -> Vec<AuthorityId> {
        self.pairs.keys().cloned().collect()
    }
}

impl Pair {
    fn read(store: Store, domain: &TrustDomain, signing: &Signing) -> Result<Self, CaError> {
        if store.is_kept() {
            let kept = store.load_kept(domain, signing)?;
            return Ok(Self {
                store,
                root: kept.root,
                root_key: None,
                issuer: kept.issuer,
                above: kept.above,
            });
        }
        let (root, issuer) = store.load(domain, signing)?;
        Ok(Self {
            store,
            root: root.authority,
            root_key: Some(root.key),
            issuer,
            above: Vec::new(),
        })
    }
}

/// Destroys the keys of an authority that is whole and that the log knows: only then it is certain what they are.
fn destroy_if_ours(
    store: &Store,
    domain: &TrustDomain,
    log: &Ledger,
    signing: &Signing,
) -> Result<(), CaError> {
    // Those of others are copies.
    if store.is_kept() {
        return store.destroy_keys(signing);
    }
    match store.load(domain, signing) {
        Ok((root, _)) if log.has_key(&root.authority.key().fingerprint()) => {
            store.destroy_keys(signing)
        }
        _ => Ok(()),
    }
}

/// Folders that may hold an authority.
fn stores(dir: &Path) -> Result<Vec<Store>, CaError> {
    let mut all = vec![Store::new(dir)];
    let parent = dir.join(AUTHORITIES);
    let failed = |source| PlatformError::from_io("list", &parent, source);
    let entries = match fs::read_dir(&parent) {
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            all.push(Store::new(&entry.path()));
        }
    }
    Ok(all)
}

/// The folder of the authority that most leaves come from, for those who look at certificates only. Reads the state as it
/// is written; whether the log agrees, a start of the CA finds out.
pub(crate) fn active_store(dir: &Path) -> Result<Store, CaError> {
    let Some(state) = file::peek(dir)? else {
        return Ok(Store::new(dir));
    };
    for store in stores(dir)? {
        // A folder that is no authority's, the CA's own for instance if others keep its roots, has no such file.
        if let Ok(domain) = store.trust_domain()
            && store.root_id(&domain)?.as_ref() == Some(state.canary())
        {
            return Ok(store);
        }
    }
    Err(TrustStateError::NoAuthority {
        authority: state.canary().as_str().to_owned(),
        dir: dir.to_owned(),
    }
    .into())
}
