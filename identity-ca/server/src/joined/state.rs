//! What a machine that joined keeps on disk, mode 0600: without it every restart would need a new token, and an outage of
//! the CA would end with the agent.
//!
//! | file | what |
//! |---|---|
//! | `node.json` | which CA, the node's SVID with its key, the bundles and the deny list that are believed |
//! | `svids/<hash of the identity>.json` | the last SVID of each workload, with its key |
//!
//! Whoever reads these files is the node, or that workload, until the certificate in them ends or is denied.

use crate::error::CaError;
use crate::limits::{NODE_STATE_BYTES_MAX, SVID_FILE_BYTES_MAX};
use crate::store::Store;
use crate::svids::Material;
use data_encoding::{BASE64, HEXLOWER};
use mesh_ca_client::node::{Held, NodeCa};
use mesh_platform::files;
use mesh_trust::{Denials, SpiffeId, Svid, Timestamp, TrustBundles, TrustDomain};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

const FILE: &str = "node.json";
const SVIDS: &str = "svids";

/// Who the node is and whom it believes, as it stands on disk.
pub(super) struct State {
    pub(super) ca: NodeCa,
    pub(super) held: Held,
    pub(super) denials: Arc<Denials>,
    pub(super) cache: Cache,
    store: Store,
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

/// A chain with the key of its leaf, base64 of DER.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyedChain {
    chain: Vec<String>,
    key: String,
}

impl KeyedChain {
    fn of(chain: &[CertificateDer<'_>], pkcs8: &[u8]) -> Self {
        Self {
            chain: chain.iter().map(|der| BASE64.encode(der)).collect(),
            key: BASE64.encode(pkcs8),
        }
    }

    fn read(self) -> Result<(Svid, Zeroizing<Vec<u8>>), String> {
        let key = Zeroizing::new(self.key);
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
        Ok((svid, Zeroizing::new(decode(&key)?)))
    }
}

impl State {
    /// Begins anew with what joining gave.
    pub(super) fn begin(dir: &Path, ca: NodeCa, held: Held) -> Result<Self, CaError> {
        let state = Self {
            ca,
            held,
            denials: Arc::default(),
            cache: Cache::open(dir)?,
            store: Store::new(dir),
        };
        // What another node left here is not this one's to hand out.
        state.cache.clear()?;
        state.save()?;
        Ok(state)
    }

    /// What is in `dir`; none if the machine has not joined.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, CaError> {
        let store = Store::new(dir);
        let Some(text) = store.read_if_there(FILE, NODE_STATE_BYTES_MAX)? else {
            return Ok(None);
        };
        let corrupt = |why: String| store.corrupt(FILE, &why);
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
            cache: Cache::open(dir)?,
            store,
        }))
    }

    /// Puts everything on disk.
    pub(super) fn save(&self) -> Result<(), CaError> {
        let corrupt = |why: &str| self.store.corrupt(FILE, why);
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
        let text = serde_json::to_vec(&state).map_err(|error| corrupt(&error.to_string()))?;
        self.store.write(FILE, &Zeroizing::new(text))
    }
}

/// The last SVIDs of this machine's workloads. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cache(Arc<Store>);

impl Cache {
    fn open(dir: &Path) -> Result<Self, CaError> {
        let dir = dir.join(SVIDS);
        files::create_dir_private(&dir)?;
        Ok(Self(Arc::new(Store::new(&dir))))
    }

    fn clear(&self) -> Result<(), CaError> {
        self.0.remove_all(".json")
    }

    fn name(identity: &SpiffeId) -> String {
        let hash = digest(&SHA256, identity.as_str().as_bytes());
        format!("{}.json", HEXLOWER.encode(hash.as_ref()))
    }

    /// `material` as it is kept, in the place of the last SVID of its identity; [`Kept::write`] waits for the disk.
    pub(super) fn kept(&self, material: &Material) -> Kept {
        Kept {
            store: Arc::clone(&self.0),
            name: Self::name(&material.identity),
            keyed: KeyedChain::of(&material.chain, &material.key),
        }
    }

    /// The last SVID of `identity`, if it is good at `now` and not denied. One that cannot be read is as good as none.
    pub(super) fn find(
        &self,
        identity: &SpiffeId,
        denials: &Denials,
        now: Timestamp,
    ) -> Option<Material> {
        let text = self
            .0
            .read_if_there(&Self::name(identity), SVID_FILE_BYTES_MAX)
            .inspect_err(|error| tracing::warn!(%error, %identity, "a kept SVID cannot be read"))
            .ok()??;
        let keyed: KeyedChain = serde_json::from_slice(&text).ok()?;
        let (svid, key) = keyed.read().ok()?;
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

/// An SVID on its way to the disk.
pub(super) struct Kept {
    store: Arc<Store>,
    name: String,
    keyed: KeyedChain,
}

impl Kept {
    pub(super) fn write(self) -> Result<(), CaError> {
        let text = serde_json::to_vec(&self.keyed)
            .map_err(|error| self.store.corrupt(&self.name, &error.to_string()))?;
        self.store.write(&self.name, &Zeroizing::new(text))
    }
}
