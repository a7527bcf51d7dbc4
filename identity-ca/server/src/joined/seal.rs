//! The files of a machine that joined, sealed: who has no key reads none of them, and one that was altered, cut off or
//! renamed, or that is an earlier one than the last that was written, is refused.
//!
//! ```text
//! file      MESHSEAL form (1) key id (8) version (8, big end first) nonce (12) AES-256-GCM of the text, tag (16)
//! bound in  all before the nonce, and the file's name below the folder
//! key       HKDF-SHA-256 of the key material, which [`key`] finds, another one after each joining; so is its id
//! ```
//! `versions.sealed` says how often was written, and the version of each file. A file is written before it is named there,
//! so that a power cut leaves at most files whose version is the next one. Anything else that differs was put there by
//! somebody, who had it from before. Whoever puts back the whole folder puts that file back too, and is not noticed.

use crate::error::CaError;
use crate::error::coded;
use crate::limits::NODE_VERSIONS_BYTES_MAX;
use crate::store::Store;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use mesh_platform::{PlatformError, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use zeroize::Zeroizing;

mod key;

pub use key::SealKey;
pub(super) use key::check;

/// How names of sealed files end.
pub(super) const END: &str = ".sealed";
/// How names of files end that were refused, and moved aside for whoever looks into it.
const REFUSED_END: &str = ".refused";
const VERSIONS: &str = "versions.sealed";
const MAGIC: &[u8; 8] = b"MESHSEAL";
const FORM: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = MAGIC.len() + 1 + KEY_ID_BYTES + 8;
const TAG_BYTES: usize = 16;
/// Files that may be written at once.
const LANES: usize = 16;

/// Why a sealed file is not used, or none can be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SealError {
    /// The disk, or a file that others can read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Local(#[from] CaError),
    /// What is given as key is none.
    #[error("`{}` holds no key for sealed files: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0871"),
        help(
            "a key is 32 random octets, `head -c 32 /dev/urandom`, in a file of mode 0600 outside of the agent's folder"
        )
    )]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What is there.
        why: String,
    },
    /// What told this machine from others is gone.
    #[error("the files in `{}` are sealed to a machine with a {fact}, and here there is none: {why}", .dir.display())]
    #[diagnostic(
        code("MESH-0872"),
        help(
            "files of one machine are of no use on another: join with a new token. An agent that ran as root must go on as root"
        )
    )]
    OtherMachine {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        fact: String,
        /// Why it was not read.
        why: String,
    },
    /// Sealed, under a key that is not the one at hand.
    #[error("`{}` is sealed under another key than the one that is given", .path.display())]
    #[diagnostic(
        code("MESH-0873"),
        help(
            "give the key with which this machine joined; without `--seal-key-file`, the files open on that machine alone. If it is lost, join with a new token"
        )
    )]
    OtherKey {
        /// Which file.
        path: PathBuf,
    },
    /// Not octet for octet what was sealed under this name.
    #[error("`{}` is not what was sealed under that name: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0874"),
        help(
            "a disk error, or somebody changed, cut or renamed it: find out who can write to the folder. A kept SVID is asked for again; for the node's own file, join with a new token"
        )
    )]
    Altered {
        /// Which file.
        path: PathBuf,
        /// How that is seen.
        why: &'static str,
    },
    /// Not sealed, or in a form of another version of this program.
    #[error("`{}` is not in the form of sealed files that this version writes: {why}", .path.display())]
    #[diagnostic(
        code("MESH-0875"),
        help(
            "what is not sealed is not believed: join with a new token, and delete the file, which may hold a key in the clear"
        )
    )]
    Form {
        /// Which file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// Sealed by this machine, and not the last of its name.
    #[error("`{}` was put back: it is version {found}, and {expected} was to be there", .path.display())]
    #[diagnostic(
        code("MESH-0876"),
        help(
            "an earlier file would bring back what was denied or replaced since: restore the whole folder or nothing. A kept SVID is asked for again; for the node's own file, join with a new token"
        )
    )]
    RolledBack {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// What it should be.
        expected: String,
    },
}

impl SealError {
    /// Whether the file itself is at fault, rather than the disk or the key.
    fn is_the_files(&self) -> bool {
        matches!(
            self,
            Self::OtherKey { .. }
                | Self::Altered { .. }
                | Self::Form { .. }
                | Self::RolledBack { .. }
        )
    }
}

/// What a sealed file holds.
type Text = Zeroizing<Vec<u8>>;

/// The sealed files in a folder.
pub(super) struct Sealed {
    store: Store,
    key: RandomizedNonceKey,
    key_id: [u8; KEY_ID_BYTES],
    /// What `versions.sealed` says.
    written: Mutex<Versions>,
    /// Versions of files that are on disk and not yet in there.
    pending: Mutex<BTreeMap<String, u64>>,
    /// Held by many while a file and its pending version change, by one who reads both or writes the list.
    moving: RwLock<()>,
    /// One is held by whoever writes: no two write one file, and many write at once.
    lanes: [Mutex<()>; LANES],
}

#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    /// How often this was written. Files that come next get one more.
    written: u64,
    files: BTreeMap<String, u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sealed {
    /// Begins anew in `dir`, whose sealed files, and those of an earlier kind, are removed.
    pub(super) fn begin(dir: &Path, key: &SealKey) -> Result<Self, SealError> {
        let store = Store::new(dir);
        let svids = dir.join(super::state::SVIDS);
        for folder in [dir, svids.as_path()] {
            files::create_dir_private(folder).map_err(CaError::from)?;
        }
        // By name: what else lies in the folder is not ours to remove.
        for name in super::state::FILES.iter().chain(&[VERSIONS, key::FILE]) {
            files::remove(&dir.join(name)).map_err(CaError::from)?;
        }
        for end in [END, REFUSED_END, ".json"] {
            Store::new(&svids).remove_all(end)?;
        }
        let material = key::draw(&store, key)?;
        Self::with(store, &material, Versions::default())
    }

    /// Goes on with what is in `dir`.
    ///
    /// # Errors
    /// [`SealError`] if the key is not there, or is not that of `versions.sealed`.
    pub(super) fn open(dir: &Path, key: &SealKey) -> Result<Self, SealError> {
        let store = Store::new(dir);
        files::create_dir_private(&dir.join(super::state::SVIDS)).map_err(CaError::from)?;
        let material = key::find(&store, key)?;
        let this = Self::with(store, &material, Versions::default())?;
        let Some((version, text)) = this.opened(VERSIONS, NODE_VERSIONS_BYTES_MAX)? else {
            // The first file is written before it. Where there are more, each of them says so.
            return Ok(this);
        };
        let versions: Versions = serde_json::from_slice(&text)
            .ok()
            .filter(|versions: &Versions| versions.written == version)
            .ok_or_else(|| this.altered(VERSIONS, "it is no list of versions"))?;
        *locked(&this.written) = versions;
        Ok(this)
    }

    fn with(store: Store, material: &[u8], versions: Versions) -> Result<Self, SealError> {
        let unusable = || SealError::Key {
            path: store.dir().to_owned(),
            why: "nothing can be derived from it".to_owned(),
        };
        let derived = Salt::new(HKDF_SHA256, b"mesh joined node, form 1").extract(material);
        let derive = |info: &'static [u8]| {
            let mut out = Zeroizing::new([0; 32]);
            let filled = derived
                .expand(&[info], HKDF_SHA256)
                .and_then(|octets| octets.fill(&mut *out));
            filled.map(|()| out).map_err(|_| unusable())
        };
        let key =
            RandomizedNonceKey::new(&AES_256_GCM, &*derive(b"files")?).map_err(|_| unusable())?;
        let mut key_id = [0; KEY_ID_BYTES];
        for (to, from) in key_id.iter_mut().zip(derive(b"id")?.iter()) {
            *to = *from;
        }
        Ok(Self {
            store,
            key,
            key_id,
            written: Mutex::new(versions),
            pending: Mutex::default(),
            moving: RwLock::default(),
            lanes: Default::default(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.dir().join(name)
    }

    fn altered(&self, name: &str, why: &'static str) -> SealError {
        SealError::Altered {
            path: self.path(name),
            why,
        }
    }

    /// The text of the file `name`, of at most `limit_bytes`; none if there is no such file.
    ///
    /// # Errors
    /// [`SealError`]: it is refused, or cannot be read.
    pub(super) fn read(&self, name: &str, limit_bytes: u64) -> Result<Option<Text>, SealError> {
        let _alone = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        let Some((version, text)) = self.opened(name, limit_bytes)? else {
            return Ok(None);
        };
        self.check_version(name, version)?;
        Ok(Some(text))
    }

    fn check_version(&self, name: &str, found: u64) -> Result<(), SealError> {
        let pending = locked(&self.pending).get(name).copied();
        let written = locked(&self.written);
        let next = written.written + 1;
        if found > next {
            // This one is of later: what is earlier is the list.
            return Err(SealError::RolledBack {
                path: self.path(VERSIONS),
                found: written.written,
                expected: format!("at least {}", found - 1),
            });
        }
        let known = pending.max(written.files.get(name).copied());
        if found >= known.unwrap_or(next) {
            return Ok(());
        }
        Err(SealError::RolledBack {
            path: self.path(name),
            found,
            expected: known.map_or_else(|| "none".to_owned(), |known| known.to_string()),
        })
    }

    /// Version and text of a file, if it was sealed under this name and key.
    fn opened(&self, name: &str, limit_bytes: u64) -> Result<Option<(u64, Text)>, SealError> {
        let Some(mut file) = self.store.read_if_there(name, limit_bytes)? else {
            return Ok(None);
        };
        let cut = || self.altered(name, "it is cut off");
        if !file.starts_with(MAGIC) {
            let why = "it does not begin as they do".to_owned();
            let path = self.path(name);
            return Err(match file.len() < MAGIC.len() {
                true => cut(),
                false => SealError::Form { path, why },
            });
        }
        let head: [u8; HEAD_BYTES] = *file.first_chunk().ok_or_else(cut)?;
        let [_, _, _, _, _, _, _, _, form, rest @ ..] = head;
        if form != FORM {
            return Err(SealError::Form {
                path: self.path(name),
                why: format!("it has form {form}, this version knows {FORM}"),
            });
        }
        let [id @ .., v0, v1, v2, v3, v4, v5, v6, v7] = rest;
        if id != self.key_id {
            return Err(SealError::OtherKey {
                path: self.path(name),
            });
        }
        let version = u64::from_be_bytes([v0, v1, v2, v3, v4, v5, v6, v7]);
        let (_, sealed) = file.split_at_mut_checked(HEAD_BYTES).ok_or_else(cut)?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN).ok_or_else(cut)?;
        if sealed.len() < TAG_BYTES {
            return Err(cut());
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| cut())?;
        let text = self
            .key
            .open_in_place(nonce, Aad::from(bound(&head, name)), sealed)
            .map_err(|_| self.altered(name, "it fails its authentication"))?;
        // INVARIANT: a copy of exactly that length; the rest of `file` is wiped when it is dropped.
        Ok(Some((version, Zeroizing::new(text.to_vec()))))
    }

    /// Seals `text` under `name`, in the place of what is there: whole or not at all, and flushed.
    ///
    /// # Errors
    /// [`SealError`]; the old file counts then, or the new one.
    pub(super) fn write(&self, name: &str, text: Zeroizing<Vec<u8>>) -> Result<(), SealError> {
        let version = {
            let _alone = self.lane(name);
            let _among_others = self.moving.read().unwrap_or_else(PoisonError::into_inner);
            let version = locked(&self.written).written + 1;
            self.put(name, version, text)?;
            locked(&self.pending).insert(name.to_owned(), version);
            version
        };
        self.note(Some((name, version)))
    }

    /// The lane of `name`, taken before [`Self::moving`].
    fn lane(&self, name: &str) -> Option<MutexGuard<'_, ()>> {
        let lane = name.bytes().map(usize::from).sum::<usize>() % LANES;
        self.lanes.get(lane).map(locked)
    }

    fn put(&self, name: &str, version: u64, mut text: Zeroizing<Vec<u8>>) -> Result<(), SealError> {
        let mut head = [0; HEAD_BYTES];
        let parts = MAGIC.iter().chain(&[FORM]).chain(&self.key_id);
        let version = version.to_be_bytes();
        for (to, from) in head.iter_mut().zip(parts.chain(&version)) {
            *to = *from;
        }
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(bound(&head, name)), &mut *text)
            .map_err(|_| self.altered(name, "it cannot be sealed"))?;
        let file = [head.as_slice(), nonce.as_ref().as_slice(), text.as_slice()].concat();
        Ok(self.store.write(name, &file)?)
    }

    /// Puts what is pending into the list of versions. Who waits meanwhile finds that his went along.
    fn note(&self, own: Option<(&str, u64)>) -> Result<(), SealError> {
        // Nobody is between his file and his pending version meanwhile: the list of this number would have neither that
        // version nor, after a power cut, room for it.
        let _alone = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        let mut written = locked(&self.written);
        if own.is_some_and(|(name, version)| written.files.get(name) >= Some(&version)) {
            return Ok(());
        }
        let taken = std::mem::take(&mut *locked(&self.pending));
        let mut next = written.clone();
        next.written += 1;
        next.files.extend(taken.clone());
        let put = to_json(&next)
            .map_err(|_| self.altered(VERSIONS, "it cannot be written as text"))
            .and_then(|text| self.put(VERSIONS, next.written, text));
        if put.is_ok() {
            *written = next;
        } else {
            let mut pending = locked(&self.pending);
            for (name, version) in taken {
                pending.entry(name).or_insert(version);
            }
        }
        put
    }

    /// [`Self::read`], but a file that is refused is moved aside, loudly, and is as good as none.
    pub(super) fn read_or_set_aside(
        &self,
        name: &str,
        limit_bytes: u64,
    ) -> Option<Zeroizing<Vec<u8>>> {
        // Until it is moved: a newer one that is good is not to go instead.
        let _alone = self.lane(name);
        self.read_or_set_aside_alone(name, limit_bytes)
    }

    /// [`Self::read_or_set_aside`], by who holds the name's lane.
    fn read_or_set_aside_alone(&self, name: &str, limit_bytes: u64) -> Option<Text> {
        match self.read(name, limit_bytes) {
            Ok(text) => text,
            Err(error) => {
                let (code, path) = (coded(&error), self.path(name));
                tracing::error!(
                    error = code,
                    "A SEALED FILE IS REFUSED; what was in it is not used"
                );
                if error.is_the_files() {
                    let aside = path.with_extension(REFUSED_END.trim_start_matches('.'));
                    if let Err(error) = files::rename(&path, &aside) {
                        tracing::error!(%error, "a sealed file that is refused stays where it is");
                    }
                }
                None
            }
        }
    }

    /// Looks at every sealed file in the folder `within`: what is refused is set aside, what `keep` does not want is
    /// removed. Says how many stay.
    pub(super) fn inspect(
        &self,
        within: &str,
        limit_bytes: u64,
        mut keep: impl FnMut(&str, &[u8]) -> bool,
    ) -> Result<usize, SealError> {
        let mut stay = Vec::new();
        for name in self.names(within)? {
            let _alone = self.lane(&name);
            let Some(text) = self.read_or_set_aside_alone(&name, limit_bytes) else {
                continue;
            };
            if keep(&name, &text) {
                stay.push(name);
            } else {
                files::remove(&self.path(&name)).map_err(CaError::from)?;
            }
        }
        // What a power cut left out of the list is good now, and no longer once others were written.
        let mut found = BTreeMap::new();
        for name in &stay {
            if let Some((version, _)) = self.opened(name, limit_bytes)? {
                found.insert(name.clone(), version);
            }
        }
        let differs = {
            let mut written = locked(&self.written);
            let inside = format!("{within}/");
            let mut next = written.files.clone();
            next.retain(|name, _| !name.starts_with(&inside));
            next.extend(found);
            let differs = next != written.files;
            written.files = next;
            differs
        };
        if differs {
            self.note(None)?;
        }
        Ok(stay.len())
    }

    /// Names of the sealed files in a folder.
    fn names(&self, within: &str) -> Result<Vec<String>, SealError> {
        let folder = self.path(within);
        let failed = |source| CaError::from(PlatformError::from_io("look into", &folder, source));
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.ends_with(END)) {
                names.push(format!("{within}/{name}"));
            }
        }
        Ok(names)
    }
}

/// What a file's seal vouches for beside its text.
fn bound(head: &[u8; HEAD_BYTES], name: &str) -> Vec<u8> {
    [head.as_slice(), name.as_bytes()].concat()
}

/// A value as JSON, in one piece of memory with room for the tag: a vector that grows leaves parts of a key behind.
pub(super) fn to_json(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0 += octets.len();
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value)?;
    let mut text = Zeroizing::new(Vec::with_capacity(count.0 + TAG_BYTES));
    serde_json::to_writer(&mut *text, value)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
