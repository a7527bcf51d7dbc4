//! The keys for JWT-SVIDs on disk: `jwt/keys.json` says which there are and when each signs, `jwt/<key id>.key` is the
//! private half of one that still can. The signer alone reads, makes and destroys those; the list and public halves are here.
//!
//! A private half is on disk before the list names it, and goes after the list no longer does: a power cut, or a signer that
//! is away, leaves at most a file that nothing names, which the next upkeep or start removes.

use crate::error::{CaError, IssuanceError};
use crate::limits::KEY_FILE_BYTES_MAX;
use crate::signer::{HeldKey, Signing};
use crate::store::Store;
use mesh_issuance::jwt::rota::Turn;
use mesh_issuance::limits::JWT_KEYS_MAX;
use mesh_issuance::{PublicKey, Signer};
use mesh_platform::files;
use mesh_trust::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The folder in the CA's directory.
const FOLDER: &str = "jwt";
/// The list in it.
const LIST: &str = "keys.json";
/// Octets of a key's fingerprint that are its id: 128 bits never meet by chance.
const KEY_ID_BYTES: usize = 16;

/// A key with its turn, and its private half while it has one.
#[derive(Clone)]
pub(crate) struct Held {
    kid: String,
    public: PublicKey,
    turn: Turn,
    private: Option<Arc<HeldKey>>,
}

/// The folder of the keys, and who holds them.
pub(crate) struct KeyStore {
    store: Store,
    signing: Signing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    keys: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kid: String,
    /// SubjectPublicKeyInfo, DER, base64.
    public: String,
    published: Timestamp,
    signs: Timestamp,
    can_sign: bool,
}

impl Held {
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn
    }

    pub(crate) fn signer(&self) -> Option<Arc<HeldKey>> {
        self.private.clone()
    }

    /// The same key without its private half.
    pub(crate) fn retired(&self) -> Self {
        Self {
            turn: Turn {
                can_sign: false,
                ..self.turn
            },
            private: None,
            ..self.clone()
        }
    }
}

impl KeyStore {
    /// The folder below the CA's directory, made if it is not there.
    pub(crate) fn open(dir: &Path, signing: &Signing) -> Result<Self, CaError> {
        let folder = dir.join(FOLDER);
        files::create_dir_private(&folder)?;
        Ok(Self {
            store: Store::new(&folder),
            signing: signing.clone(),
        })
    }

    /// The keys that the list names; none if there is no list yet. Removes private halves that it does not name.
    pub(crate) fn load(&self) -> Result<Vec<Held>, CaError> {
        let Some(text) = self.store.read_if_there(LIST, KEY_FILE_BYTES_MAX)? else {
            self.store.keep_keys(&[], &self.signing)?;
            return Ok(Vec::new());
        };
        let list: List = serde_json::from_slice(&text)
            .map_err(|error| self.store.corrupt(LIST, &error.to_string()))?;
        if list.keys.len() > JWT_KEYS_MAX {
            return Err(self.store.corrupt(LIST, "it names too many keys"));
        }
        let held = list
            .keys
            .into_iter()
            .map(|line| self.held(line))
            .collect::<Result<Vec<_>, _>>()?;
        self.sweep(&held)?;
        Ok(held)
    }

    fn held(&self, line: Line) -> Result<Held, CaError> {
        let public = data_encoding::BASE64
            .decode(line.public.as_bytes())
            .ok()
            .and_then(|spki| PublicKey::from_spki(&spki).ok())
            .filter(|key| key_id(key) == line.kid)
            .ok_or_else(|| {
                self.store
                    .corrupt(LIST, "a key and its id do not belong together")
            })?;
        let private = line
            .can_sign
            .then(|| self.store.open_key(&line.kid, &self.signing))
            .transpose()?;
        if private
            .as_ref()
            .is_some_and(|key| *key.public_key() != public)
        {
            return Err(self.not_its_private_half(&line.kid));
        }
        Ok(Held {
            kid: line.kid,
            public,
            turn: Turn {
                published: line.published,
                signs: line.signs,
                can_sign: line.can_sign,
            },
            private: private.map(Arc::new),
        })
    }

    /// Has a key made, whose private half is on disk then.
    pub(crate) fn make(&self, turn: Turn) -> Result<Held, CaError> {
        let made = self.signing.make_in_file().map_err(IssuanceError::Signer)?;
        let public = made.public_key().clone();
        let kid = key_id(&public);
        self.store.save_key(&kid, &made)?;
        // As the next start would: a signer that is started again finds it where it is.
        let private = self.store.open_key(&kid, &self.signing)?;
        if *private.public_key() != public {
            return Err(self.not_its_private_half(&kid));
        }
        Ok(Held {
            private: Some(Arc::new(private)),
            kid,
            public,
            turn,
        })
    }

    fn not_its_private_half(&self, kid: &str) -> CaError {
        self.store
            .corrupt(&format!("{kid}.key"), "it is another key's private half")
    }

    /// Puts the list on disk. It counts then; [`Self::sweep`] comes after.
    pub(crate) fn save(&self, held: &[Held]) -> Result<(), CaError> {
        let keys = held
            .iter()
            .map(|held| Line {
                kid: held.kid.clone(),
                public: data_encoding::BASE64.encode(&held.public.spki()),
                published: held.turn.published,
                signs: held.turn.signs,
                can_sign: held.turn.can_sign,
            })
            .collect();
        let text = serde_json::to_vec_pretty(&List { keys })
            .map_err(|error| self.store.corrupt(LIST, &error.to_string()))?;
        self.store.write(LIST, &text)
    }

    /// Has private halves destroyed that the list no longer names.
    pub(crate) fn sweep(&self, held: &[Held]) -> Result<(), CaError> {
        let named: Vec<&str> = held
            .iter()
            .filter(|held| held.turn.can_sign)
            .map(Held::kid)
            .collect();
        self.store.keep_keys(&named, &self.signing)
    }
}

/// The id of a key: what names it in tokens and bundles.
fn key_id(key: &PublicKey) -> String {
    let fingerprint = key.fingerprint();
    data_encoding::HEXLOWER.encode(fingerprint.get(..KEY_ID_BYTES).unwrap_or(&fingerprint))
}
