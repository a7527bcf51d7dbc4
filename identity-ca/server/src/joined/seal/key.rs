//! What the key of sealed files is made of: a secret in the folder, drawn at each joining, and a key that is given from
//! outside of it, or what tells this machine from others.
//!
//! The second is what a machine without TPM, and an operator who gives nothing, can have. It keeps files from being of use
//! where they are copied to, and nothing from whoever reads this machine.

use super::SealError;
use crate::error::CaError;
use crate::limits::{MACHINE_FACT_BYTES_MAX, SEAL_KEY_BYTES};
use crate::store::Store;
use data_encoding::BASE64;
use mesh_platform::{PlatformError, files};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// The secret that is drawn when a machine joins.
pub(super) const FILE: &str = "seal.json";
/// What stands in the place of facts where a key is given.
const GIVEN: &str = "given-key";
/// Where systemd's credential lies in the folder of credentials.
const CREDENTIAL: &str = "mesh-seal-key";

/// Where the key is that the files of a machine are sealed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealKey {
    /// 32 octets in a file of mode 0600, of our user or of root, that is not in the agent's folder.
    File(PathBuf),
    /// The same, handed over by systemd, which sees to it that nobody else reads it.
    Credential(PathBuf),
    /// As many of these facts, name and file, as can be read when the machine joins.
    Machine(Vec<(String, PathBuf)>),
}

impl SealKey {
    /// What tells Linux machines apart: systemd's id, which everybody reads, and the firmware's, which root alone reads
    /// and which is on no disk.
    pub fn machine() -> Self {
        let fact = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        Self::Machine(vec![
            fact("machine-id", "/etc/machine-id"),
            fact("product-uuid", "/sys/class/dmi/id/product_uuid"),
        ])
    }

    /// The credential `mesh-seal-key` in systemd's folder of them, if it is there.
    pub fn credential(folder: &Path) -> Option<Self> {
        let path = folder.join(CREDENTIAL);
        fs::symlink_metadata(&path)
            .is_ok()
            .then_some(Self::Credential(path))
    }
}

/// Whether a key that is given can be used for the files in `dir`: a token is not spent for nothing.
pub(in crate::joined) fn check(dir: &Path, key: &SealKey) -> Result<(), SealError> {
    match key {
        SealKey::File(path) => given(&Store::new(dir), path, true).map(drop),
        SealKey::Credential(path) => given(&Store::new(dir), path, false).map(drop),
        SealKey::Machine(_) => Ok(()),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    /// 32 octets, base64.
    secret: String,
    /// Names of the facts that go with it, or [`GIVEN`].
    with: Vec<String>,
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

type Material = Zeroizing<Vec<u8>>;

/// The key for a machine that joins now: of a secret that is drawn each time, so that files of an earlier joining, whose
/// versions were counted from the beginning too, open no longer.
pub(super) fn draw(store: &Store, key: &SealKey) -> Result<Material, SealError> {
    let outside = Outside::of(store, key)?;
    let mut secret = Zeroizing::new([0; SEAL_KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut *secret).map_err(|_| SealError::Key {
        path: store.dir().join(FILE),
        why: "the kernel gives no random octets".to_owned(),
    })?;
    let (material, with) = match outside {
        Outside::Given(given) => (material_given(&secret[..], &given), vec![GIVEN.to_owned()]),
        Outside::Machine(facts) => {
            let read = facts
                .iter()
                .filter_map(|(name, path)| Some((name.clone(), fact(path).ok()?)));
            let read: Vec<_> = read.collect();
            if read.is_empty() {
                tracing::warn!(
                    "nothing tells this machine from others: whoever copies the agent's folder can use it elsewhere; give a key with --seal-key-file"
                );
            }
            let with = read.iter().map(|(name, _)| name.clone()).collect();
            (material(&secret[..], &read), with)
        }
    };
    let on_disk = OnDisk {
        secret: BASE64.encode(&*secret),
        with,
    };
    let text = super::to_json(&on_disk).map_err(|error| SealError::Form {
        path: store.dir().join(FILE),
        why: error.to_string(),
    })?;
    store.write(FILE, &text)?;
    Ok(material)
}

/// The key of a machine that joined before.
pub(super) fn find(store: &Store, key: &SealKey) -> Result<Material, SealError> {
    let outside = Outside::of(store, key)?;
    let path = store.dir().join(FILE);
    let unusable = |why: &str| SealError::Key {
        path: path.clone(),
        why: why.to_owned(),
    };
    let text = store
        .read_if_there(FILE, MACHINE_FACT_BYTES_MAX)?
        .ok_or_else(|| unusable("it is not there: join with a new token"))?;
    let on_disk: OnDisk =
        serde_json::from_slice(&text).map_err(|_| unusable("it is not as it was written"))?;
    let secret = BASE64
        .decode(on_disk.secret.as_bytes())
        .map(Zeroizing::new)
        .ok()
        .filter(|secret| secret.len() == SEAL_KEY_BYTES)
        .ok_or_else(|| unusable("its secret does not have 32 octets"))?;
    let facts = match outside {
        // A machine that joined without one: the files say that they are sealed under another key.
        Outside::Given(given) => return Ok(material_given(&secret, &given)),
        Outside::Machine(facts) => facts,
    };
    if on_disk.with.iter().any(|name| name == GIVEN) {
        return Err(unusable(
            "the machine joined with a key, which is not given now",
        ));
    }
    let mut read = Vec::new();
    for name in &on_disk.with {
        let known = facts.iter().find(|(known, _)| known == name);
        let (_, path) = known.ok_or_else(|| unusable("it names what no machine has"))?;
        let value = fact(path).map_err(|why| SealError::OtherMachine {
            dir: store.dir().to_owned(),
            fact: name.clone(),
            why,
        })?;
        read.push((name.clone(), value));
    }
    Ok(material(&secret, &read))
}

/// What goes with the secret in the folder.
enum Outside<'a> {
    Given(Material),
    Machine(&'a [(String, PathBuf)]),
}

impl<'a> Outside<'a> {
    fn of(store: &Store, key: &'a SealKey) -> Result<Self, SealError> {
        match key {
            SealKey::File(path) => given(store, path, true).map(Self::Given),
            SealKey::Credential(path) => given(store, path, false).map(Self::Given),
            SealKey::Machine(facts) => Ok(Self::Machine(facts)),
        }
    }
}

/// A secret and a key that is given. Where a machine has the name of its first fact, [`GIVEN`] stands, which is no fact's.
fn material_given(secret: &[u8], given: &[u8]) -> Material {
    let mut material = Zeroizing::new(Vec::with_capacity(SEAL_KEY_BYTES * 3));
    material.extend_from_slice(secret);
    material.extend_from_slice(digest(&SHA256, GIVEN.as_bytes()).as_ref());
    material.extend_from_slice(given);
    material
}

/// A secret and what tells the machine apart, each of one length, so that no two lists of them are the same octets.
fn material(secret: &[u8], facts: &[(String, Zeroizing<String>)]) -> Material {
    let mut material = Zeroizing::new(Vec::with_capacity(SEAL_KEY_BYTES * (1 + 2 * facts.len())));
    material.extend_from_slice(secret);
    for (name, value) in facts {
        for text in [name.as_str(), value] {
            material.extend_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        }
    }
    material
}

fn fact(path: &Path) -> Result<Zeroizing<String>, String> {
    let octets = files::read_limited(path, MACHINE_FACT_BYTES_MAX).map_err(|e| e.to_string())?;
    let octets = Zeroizing::new(octets);
    let text = std::str::from_utf8(&octets).map_err(|_| "it is no text".to_owned())?;
    let text = text.trim();
    // What images are delivered with is no id.
    if text.is_empty() || text == "uninitialized" {
        return Err("it is empty".to_owned());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// The 32 octets in a file that is given.
fn given(store: &Store, path: &Path, is_ours: bool) -> Result<Material, SealError> {
    let unusable = |why: String| SealError::Key {
        path: path.to_owned(),
        why,
    };
    let found = fs::metadata(path)
        .map_err(|source| CaError::from(PlatformError::from_io("look at", path, source)))?;
    if is_ours {
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(unusable(format!(
                "it has mode {mode:04o}: others may read it"
            )));
        }
        let owner = found.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(unusable(format!(
                "it belongs to user {owner}, who may change it"
            )));
        }
        let (key, folder) = (fs::canonicalize(path), fs::canonicalize(store.dir()));
        let beside = key.ok().zip(folder.ok());
        if beside.is_none_or(|(key, folder)| key.starts_with(folder)) {
            return Err(unusable("it lies beside what it would seal".to_owned()));
        }
    }
    let octets = files::read_limited(path, SEAL_KEY_BYTES as u64 + 1).map(Zeroizing::new);
    let octets = match octets {
        Ok(octets) if octets.len() == SEAL_KEY_BYTES => octets,
        Ok(_) | Err(PlatformError::TooLarge { .. }) => {
            return Err(unusable(format!(
                "it has {} octets, not {SEAL_KEY_BYTES}",
                found.len()
            )));
        }
        Err(error) => return Err(CaError::from(error).into()),
    };
    if octets.windows(2).all(|two| two.first() == two.last()) {
        return Err(unusable("all its octets are the same".to_owned()));
    }
    Ok(octets)
}
