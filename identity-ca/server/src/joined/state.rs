//! What a machine that joined keeps on disk: without it every restart would need a new token, and an outage of the CA would
//! end with the agent.
//!
//! | file | what |
//! |---|---|
//! | `node.sealed` | which CA, the node's SVID with its key, the bundles and the deny list that are believed |
//! | `svids/<hash of the identity>.sealed` | the last SVID of each workload, with its key |
//! | `versions.sealed`, `seal.json` | which version of each is the last; the secret of this joining, part of the key |
//!
//! All are of mode 0600 and sealed ([`super::seal`]). Without the node's own file, or with one that is refused, there is no
//! agent; an SVID that is refused is as good as none. Whoever has both files and key is the node, or that workload, until
//! the certificate in them ends or is denied.

use super::seal::{END, SealError, SealKey, Sealed, to_json};
use crate::error::CaError;
use crate::error::coded;
use crate::limits::{ENDED_SVID_SECS, NODE_STATE_BYTES_MAX, SVID_FILE_BYTES_MAX};
use crate::svids::Material;
use data_encoding::{BASE64, HEXLOWER};
use mesh_ca_client::node::{Held, NodeCa};
use mesh_trust::{Denials, SpiffeId, Svid, Timestamp, TrustBundles, TrustDomain};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

const FILE: &str = "node.sealed";
/// Name of that file before it was sealed.
const FILE_IN_THE_CLEAR: &str = "node.json";
/// Both: what a machine that joins again removes.
pub(super) const FILES: [&str; 2] = [FILE, FILE_IN_THE_CLEAR];
/// The folder of kept SVIDs.
pub(super) const SVIDS: &str = "svids";

/// Who the node is and whom it believes, as it stands on disk.
pub(super) struct State {
    pub(super) ca: NodeCa,
    pub(super) held: Held,
    pub(super) denials: Arc<Denials>,
    pub(super) cache: Cache,
    sealed: Arc<Sealed>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OnDisk {
    address: String,
    ca: SpiffeId,
    trust_domain: TrustDomain,
    svid: KeyedChain,
    bundles: String,
    denials: String,
}

/// A chain with the key of its leaf, base64 of DER. Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyedChain {
    chain: Vec<String>,
    key: String,
}

impl Drop for KeyedChain {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl KeyedChain {
    fn of(chain: &[CertificateDer<'_>], pkcs8: &[u8]) -> Self {
        Self {
            chain: chain.iter().map(|der| BASE64.encode(der)).collect(),
            key: BASE64.encode(pkcs8),
        }
    }

    fn read(&self) -> Result<(Svid, Zeroizing<Vec<u8>>), String> {
        let decode = |text: &str| {
            BASE64
                .decode(text.as_bytes())
                .map_err(|error| error.to_string())
        };
        let chain = self
            .chain
            .iter()
            .map(|text| decode(text).map(CertificateDer::from));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let svid = Svid::parse(chain).map_err(|error| error.to_string())?;
        Ok((svid, Zeroizing::new(decode(&self.key)?)))
    }
}

fn unreadable(dir: &Path, name: &str, why: String) -> SealError {
    let path = dir.join(name);
    CaError::Corrupt { path, why }.into()
}

impl State {
    /// Begins anew with what joining gave. What another node left here is not this one's to hand out.
    pub(super) fn begin(
        dir: &Path,
        key: &SealKey,
        ca: NodeCa,
        held: Held,
    ) -> Result<Self, SealError> {
        let sealed = Arc::new(Sealed::begin(dir, key)?);
        let state = Self {
            ca,
            held,
            denials: Arc::default(),
            cache: Cache(Arc::clone(&sealed)),
            sealed,
        };
        state.save()?;
        Ok(state)
    }

    /// What is in `dir`; none if the machine has not joined.
    pub(super) fn read(dir: &Path, key: &SealKey) -> Result<Option<Self>, SealError> {
        if !dir.join(FILE).exists() {
            let path = dir.join(FILE_IN_THE_CLEAR);
            let why = "it was written before such files were sealed".to_owned();
            return match path.exists() {
                true => Err(SealError::Form { path, why }),
                false => Ok(None),
            };
        }
        let sealed = Arc::new(Sealed::open(dir, key)?);
        let Some(text) = sealed.read(FILE, NODE_STATE_BYTES_MAX)? else {
            return Ok(None);
        };
        let corrupt = |why: String| unreadable(dir, FILE, why);
        let read: OnDisk =
            serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        let bundles = TrustBundles::from_json(read.bundles.as_bytes())
            .map_err(|error| corrupt(error.to_string()))?;
        let denials = Denials::from_json(read.denials.as_bytes())
            .map_err(|error| corrupt(error.to_string()))?;
        let (svid, pkcs8) = read.svid.read().map_err(corrupt)?;
        let held = Held::new(svid, pkcs8, bundles).map_err(|error| corrupt(error.to_string()))?;
        Ok(Some(Self {
            ca: NodeCa {
                address: read.address,
                identity: Some(read.ca),
                trust_domain: Some(read.trust_domain),
            },
            held,
            denials: Arc::new(denials),
            cache: Cache(Arc::clone(&sealed)),
            sealed,
        }))
    }

    /// Puts everything on disk.
    pub(super) fn save(&self) -> Result<(), SealError> {
        let corrupt = |why: &str| unreadable(Path::new(""), FILE, why.to_owned());
        let known = self.ca.identity.clone().zip(self.ca.trust_domain.clone());
        let (ca, trust_domain) = known.ok_or_else(|| corrupt("it is not known who the CA is"))?;
        let state = OnDisk {
            address: self.ca.address.clone(),
            ca,
            trust_domain,
            svid: KeyedChain::of(self.held.tls.svid().chain(), &self.held.pkcs8),
            bundles: self.held.bundles.to_json(),
            denials: self.denials.to_json(),
        };
        let text = to_json(&state).map_err(|error| corrupt(&error.to_string()))?;
        self.sealed.write(FILE, text)
    }
}

/// The last SVIDs of this machine's workloads. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cache(Arc<Sealed>);

impl Cache {
    fn name(identity: &SpiffeId) -> String {
        let hash = digest(&SHA256, identity.as_str().as_bytes());
        format!("{SVIDS}/{}{END}", HEXLOWER.encode(hash.as_ref()))
    }

    /// Looks at all that is kept, so that what is refused is known before it is missed, and drops what ended long ago.
    pub(super) fn inspect(&self, now: Timestamp) {
        // The clock may be ahead at boot. Whoever asks for an SVID ([`Self::find`]) gets none that has ended.
        let kept_until = |svid: &Svid| svid.not_after().plus_secs(ENDED_SVID_SECS);
        let wanted = |name: &str, text: &[u8]| {
            let svid = read_keyed(text).map(|(svid, _)| svid);
            svid.is_some_and(|svid| kept_until(&svid) > now && Self::name(svid.id()) == name)
        };
        match self.0.inspect(SVIDS, SVID_FILE_BYTES_MAX, wanted) {
            Ok(kept) => tracing::info!(kept, "SVIDs are kept for an outage of the CA"),
            Err(error) => {
                tracing::error!(error = coded(&error), "kept SVIDs cannot be looked at");
            }
        }
    }

    /// `material` as it is kept, in the place of the last SVID of its identity; [`Kept::write`] waits for the disk.
    pub(super) fn kept(&self, material: &Material) -> Kept {
        Kept {
            sealed: Arc::clone(&self.0),
            name: Self::name(&material.identity),
            keyed: KeyedChain::of(&material.chain, &material.key),
        }
    }

    /// The last SVID of `identity`, if it is good at `now` and not denied. One that is refused is as good as none.
    pub(super) fn find(
        &self,
        identity: &SpiffeId,
        denials: &Denials,
        now: Timestamp,
    ) -> Option<Material> {
        let name = Self::name(identity);
        let text = self.0.read_or_set_aside(&name, SVID_FILE_BYTES_MAX)?;
        let (svid, key) = read_keyed(&text)?;
        let good = *svid.id() == *identity
            && svid.not_after() > now
            && denials.denies_chain(&svid).is_none();
        good.then(|| Material {
            identity: identity.clone(),
            not_after: svid.not_after(),
            serial: svid.serial().to_owned(),
            chain: svid.chain().to_vec(),
            key,
            authority: None,
        })
    }
}

fn read_keyed(text: &[u8]) -> Option<(Svid, Zeroizing<Vec<u8>>)> {
    let keyed: KeyedChain = serde_json::from_slice(text).ok()?;
    keyed.read().ok()
}

/// An SVID on its way to the disk.
pub(super) struct Kept {
    sealed: Arc<Sealed>,
    name: String,
    keyed: KeyedChain,
}

impl Kept {
    pub(super) fn write(self) -> Result<(), SealError> {
        let text = to_json(&self.keyed)
            .map_err(|error| unreadable(Path::new(""), &self.name, error.to_string()))?;
        self.sealed.write(&self.name, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DAY, NOW, World, id, open, request};
    use mesh_platform::files;

    #[test]
    fn a_clock_that_is_ahead_at_boot_takes_no_svid_away_and_hands_out_none_that_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = open(dir.path(), &World::at(NOW)).unwrap();
        let chain = desk.issue(vec![request()]).remove(0).unwrap();
        let svid = Svid::parse(chain.whole()).unwrap();
        let material = Material {
            identity: svid.id().clone(),
            chain: svid.chain().to_vec(),
            key: Zeroizing::new(vec![1, 2, 3]),
            not_after: svid.not_after(),
            serial: svid.serial().to_owned(),
            authority: None,
        };
        let key = dir.path().join("key");
        files::write_atomic(&key, b"0123456789abcdef0123456789abcdef", 0o600).unwrap();
        let node = dir.path().join("node");
        let sealed = Sealed::begin(&node, &SealKey::File(key)).unwrap();
        let cache = Cache(Arc::new(sealed));
        cache.kept(&material).write().unwrap();
        let who = id("ns/shop/sa/cart");
        let found = |now| cache.find(&who, &Denials::default(), now).is_some();
        assert!(found(NOW));
        for ahead in [svid.not_after(), NOW.plus_secs(7 * DAY)] {
            cache.inspect(ahead);
            assert!(!found(ahead) && found(NOW), "{ahead}");
        }
        cache.inspect(svid.not_after().plus_secs(ENDED_SVID_SECS));
        assert!(!found(NOW), "it ended long ago");
    }
}
