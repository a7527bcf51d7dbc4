//! Keys in a PKCS #11 token: made there, used there, and never seen here.
//!
//! Their file in the CA's directory holds a name (RFC 7512), `pkcs11:token=…;object=…;id=…`, where that of another key holds
//! the key. So whatever is true of the order in which files are written and renamed is true of both. The id is drawn anew
//! for each key; the label is the operator's, for all keys of this CA.

use super::error::SignerError;
use super::held::Kept;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use data_encoding::HEXUPPER;
use mesh_issuance::key::Curve;
use mesh_issuance::{PublicKey, Signer, SignerFailed};
use ring::digest::{SHA256, SHA384, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Which token, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The vendor's shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the keys that are made in it.
    pub key: String,
    /// File of the user PIN, mode 0600.
    pub pin: PathBuf,
    /// Whether that file may also be root's and readable by our own group, as pods get it.
    pub pin_by_group: bool,
    /// Folders that the module reads and writes, beside the system's own, which it reads.
    pub files: Vec<PathBuf>,
}

/// `secp256r1` and `secp384r1` as EC parameters (RFC 5480 §2.1.1.1).
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// Octets of a key's id: 128 random bits never meet by chance.
const ID_BYTES: usize = 16;

/// An open token.
#[derive(Clone)]
pub(crate) struct Token {
    session: Arc<Mutex<Session>>,
    config: Arc<TokenConfig>,
}

/// A key in it.
pub(crate) struct TokenKey {
    token: Token,
    public: PublicKey,
    private: ObjectHandle,
    id: [u8; ID_BYTES],
}

impl Token {
    /// Loads the module and opens the token with the PIN.
    pub(crate) fn open(config: &TokenConfig, pin: Zeroizing<String>) -> Result<Self, SignerError> {
        let module = |error: Error| SignerError::Module {
            module: config.module.display().to_string(),
            why: in_words(&error),
        };
        let library = Pkcs11::new(&config.module).map_err(module)?;
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(module)?;
        let slot = slot_of(&library, config)?;
        let refused = |why: &str| SignerError::Pin {
            token: config.token.clone(),
            why: why.to_owned(),
        };
        let info = library.get_token_info(slot).map_err(module)?;
        if info.user_pin_locked() {
            return Err(refused("it is locked after wrong ones"));
        }
        if info.user_pin_final_try() {
            return Err(refused(
                "one more wrong one would lock it: log in once by other means, then start again",
            ));
        }
        let session = library.open_rw_session(slot).map_err(module)?;
        let login = session.login(UserType::User, Some(&AuthPin::new((*pin).clone().into())));
        match login {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => {
                return Err(refused("it is not this one"));
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                return Err(refused("it is locked after wrong ones"));
            }
            Err(error) => return Err(module(error)),
        }
        Ok(Self {
            session: Arc::new(Mutex::new(session)),
            config: Arc::new(config.clone()),
        })
    }

    /// Whether the text of a file names a key in a token.
    pub(super) fn is_name(text: &[u8]) -> bool {
        text.starts_with(b"pkcs11:")
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Session) -> cryptoki::error::Result<T>,
    ) -> Result<T, Error> {
        work(&self.session.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a failure means: a token that is gone is no fault of a key.
    fn failed(&self, key: &[u8], error: &Error) -> SignerError {
        match error {
            Error::Pkcs11(
                RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::SessionHandleInvalid
                | RvError::SessionClosed,
                _,
            ) => SignerError::Token {
                token: self.config.token.clone(),
                why: in_words(error),
            },
            _ => SignerError::TokenKey {
                key: HEXUPPER.encode(key),
                why: in_words(error),
            },
        }
    }

    /// Makes a key on P-256 that never leaves the token.
    pub(crate) fn make(&self) -> Result<TokenKey, SignerError> {
        let mut id = [0; ID_BYTES];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| SignerError::NotMade {
                why: "the kernel gives no random bytes".to_owned(),
            })?;
        let label = self.config.key.as_bytes().to_vec();
        let both = [
            Attribute::Token(true),
            Attribute::Label(label),
            Attribute::Id(id.to_vec()),
        ];
        let public = [
            &both[..],
            &[
                Attribute::EcParams(P256.to_vec()),
                Attribute::Verify(true),
                Attribute::Private(false),
            ],
        ]
        .concat();
        let private = [
            &both[..],
            &[
                Attribute::Sign(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
            ],
        ]
        .concat();
        self.with(|session| {
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        })
        .map_err(|error| self.failed(&id, &error))?;
        self.of(id)
    }

    /// The key that a file names.
    pub(super) fn find(&self, name: &[u8]) -> Result<TokenKey, SignerError> {
        self.of(self.id_in(name)?)
    }

    /// The id in a name, which must be one that we wrote, of a key in this token.
    fn id_in(&self, name: &[u8]) -> Result<[u8; ID_BYTES], SignerError> {
        let (_, id) = std::str::from_utf8(name)
            .ok()
            .and_then(|text| text.trim_end().rsplit_once(";id="))
            .ok_or(SignerError::Damaged)?;
        let id = HEXUPPER
            .decode(id.replace('%', "").as_bytes())
            .ok()
            .and_then(|id| <[u8; ID_BYTES]>::try_from(id).ok())
            .ok_or(SignerError::Damaged)?;
        let label = |of: &str| attribute(name, of);
        if label("token").as_deref() != Some(&escaped(&self.config.token)) {
            return Err(SignerError::TokenKey {
                key: HEXUPPER.encode(&id),
                why: format!("it is in another token than `{}`", self.config.token),
            });
        }
        // The operator's label may change; the rest is as we wrote it.
        let object = label("object").ok_or(SignerError::Damaged)?;
        match name_of(&self.config.token, &object, &id).as_bytes() == name {
            true => Ok(id),
            false => Err(SignerError::Damaged),
        }
    }

    fn of(&self, id: [u8; ID_BYTES]) -> Result<TokenKey, SignerError> {
        let wrong = |why: &str| SignerError::TokenKey {
            key: HEXUPPER.encode(&id),
            why: why.to_owned(),
        };
        let one = |class: ObjectClass, what: &str| {
            let template = [Attribute::Class(class), Attribute::Id(id.to_vec())];
            let found = self
                .with(|session| session.find_objects(&template))
                .map_err(|error| self.failed(&id, &error))?;
            match found.as_slice() {
                [one] => Ok(*one),
                [] => Err(wrong(&format!("there is no {what} key of this id"))),
                _ => Err(wrong(&format!("there are several {what} keys of this id"))),
            }
        };
        let private = one(ObjectClass::PRIVATE_KEY, "private")?;
        let public = one(ObjectClass::PUBLIC_KEY, "public")?;
        let wanted = [
            AttributeType::KeyType,
            AttributeType::EcParams,
            AttributeType::EcPoint,
        ];
        let attributes = self
            .with(|session| session.get_attributes(public, &wanted))
            .map_err(|error| self.failed(&id, &error))?;
        let (mut kind, mut curve, mut point) = (None, None, None);
        for attribute in attributes {
            match attribute {
                Attribute::KeyType(found) => kind = Some(found),
                Attribute::EcParams(found) => curve = Some(found),
                Attribute::EcPoint(found) => point = Some(found),
                _ => {}
            }
        }
        if kind != Some(KeyType::EC) {
            return Err(wrong("it is no ECDSA key"));
        }
        let curve = match curve.as_deref() {
            Some(P256) => Curve::P256,
            Some(P384) => Curve::P384,
            _ => return Err(wrong("it is on another curve than P-256 and P-384")),
        };
        let point = point.unwrap_or_default();
        // By the standard an OCTET STRING; some vendors leave its head out.
        let bare = match point.as_slice() {
            [4, length, bare @ ..]
                if usize::from(*length) == bare.len() && bare.first() == Some(&4) =>
            {
                bare
            }
            whole => whole,
        };
        let public = PublicKey::from_point(curve, bare)
            .map_err(|error| wrong(&format!("its public half is refused: {error}")))?;
        Ok(TokenKey {
            token: self.clone(),
            public,
            private,
            id,
        })
    }

    /// Destroys the key that a file names, in the token. One that is not there is destroyed.
    pub(super) fn destroy(&self, name: &[u8]) -> Result<(), SignerError> {
        self.destroy_id(&self.id_in(name)?)
    }

    fn destroy_id(&self, id: &[u8; ID_BYTES]) -> Result<(), SignerError> {
        let template = [Attribute::Id(id.to_vec()), Attribute::Token(true)];
        self.with(|session| {
            let found = session.find_objects(&template)?;
            found
                .into_iter()
                .try_for_each(|object| session.destroy_object(object))
        })
        .map_err(|error| self.failed(id, &error))
    }
}

fn slot_of(library: &Pkcs11, config: &TokenConfig) -> Result<Slot, SignerError> {
    let module = |error: Error| SignerError::Module {
        module: config.module.display().to_string(),
        why: in_words(&error),
    };
    let mut found = Vec::new();
    for slot in library.get_slots_with_token().map_err(module)? {
        // A slot that cannot be asked is another's.
        if let Ok(info) = library.get_token_info(slot)
            && info.label() == config.token
        {
            found.push(slot);
        }
    }
    let absent = |why: &str| SignerError::Token {
        token: config.token.clone(),
        why: why.to_owned(),
    };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(absent("no slot has a token of this label")),
        _ => Err(absent("several tokens have this label")),
    }
}

/// The value of an attribute in a name, as it is written.
fn attribute(name: &[u8], wanted: &str) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?.strip_prefix("pkcs11:")?;
    text.split(';')
        .filter_map(|part| part.split_once('='))
        .find(|(key, _)| *key == wanted)
        .map(|(_, value)| value.to_owned())
}

/// A name; `object` is escaped already.
fn name_of(token: &str, object: &str, id: &[u8]) -> String {
    let mut name = format!("pkcs11:token={};object={object};id=", escaped(token));
    for octet in id {
        // Never fails on a string.
        let _ = write!(name, "%{octet:02X}");
    }
    name.push('\n');
    name
}

/// RFC 3986 §2.1, for all but the unreserved letters.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            let _ = write!(out, "%{octet:02X}");
        }
    }
    out
}

/// What the module said, without the manual's page about it.
fn in_words(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}

/// A signature of a token, r and s of equal length (PKCS #11 §6.3.1), in DER.
fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    if signature.is_empty() || signature.len() > 128 || !signature.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = signature.split_at(signature.len() / 2);
    let integer = |number: &[u8]| {
        let digits: Vec<u8> = number
            .iter()
            .copied()
            .skip_while(|octet| *octet == 0)
            .collect();
        let sign = digits.first().is_none_or(|first| first & 0x80 != 0);
        let content = [if sign { &[0][..] } else { &[] }, &digits].concat();
        [&[2, u8::try_from(content.len()).unwrap_or(0)][..], &content].concat()
    };
    let both = [integer(r), integer(s)].concat();
    let length = u8::try_from(both.len())
        .ok()
        .filter(|length| *length < 0x80)?;
    Some([&[0x30, length][..], &both].concat())
}

impl Signer for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        let hash = match self.public.curve() {
            Curve::P256 => digest(&SHA256, message),
            Curve::P384 => digest(&SHA384, message),
        };
        let signature = self
            .token
            .with(|session| session.sign(&Mechanism::Ecdsa, self.private, hash.as_ref()))
            .map_err(|error| self.token.failed(&self.id, &error).failed())?;
        to_der(&signature)
            .ok_or_else(|| SignerFailed("the token's signature has no form".to_owned()))
    }
}

impl Kept for TokenKey {
    fn to_file(&self) -> Zeroizing<String> {
        let config = &self.token.config;
        Zeroizing::new(name_of(&config.token, &escaped(&config.key), &self.id))
    }

    fn retire(&self) -> Result<(), SignerError> {
        self.token.destroy_id(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_escaped_and_read_back() {
        let name = name_of("prod; ca", &escaped("issuer=1"), &[0, 0xab]);
        assert_eq!(
            name,
            "pkcs11:token=prod%3B%20ca;object=issuer%3D1;id=%00%AB\n"
        );
        assert_eq!(
            attribute(name.as_bytes(), "token").unwrap(),
            escaped("prod; ca")
        );
        assert_eq!(attribute(name.as_bytes(), "serial"), None);
    }

    #[test]
    fn signatures_become_der_with_the_sign_and_without_zeros() {
        assert_eq!(
            to_der(&[0x80, 1, 0, 2]),
            Some(vec![0x30, 8, 2, 3, 0, 0x80, 1, 2, 1, 2])
        );
        assert_eq!(to_der(&[0, 0]), Some(vec![0x30, 6, 2, 1, 0, 2, 1, 0]));
        assert_eq!(to_der(&[]), None);
        assert_eq!(to_der(&[1, 2, 3]), None);
        assert_eq!(to_der(&[1; 130]), None);
    }
}
