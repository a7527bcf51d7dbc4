//! From the data of a Secret, a ConfigMap or a bundle to certificates and key. What could be read in two ways is refused.

use super::AdoptionError;
use crate::der::{OCTET_STRING, SEQUENCE, tlv};
use crate::key::PublicKey;
use crate::limits::{ADOPTED_CHAIN_MAX, ADOPTED_ROOTS_MAX};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Keys and values of a Secret or a ConfigMap, or files of the same names in a folder that it is mounted in.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Names under which an issuer is kept: Kubernetes' TLS Secrets, and Linkerd's of old.
pub const ISSUER_KEYS: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("crt.pem", "key.pem")];
/// The same, for people.
pub const ISSUER_NAMES: &str = "`tls.crt` with `tls.key`, `crt.pem` with `key.pem`";
/// Names under which roots are kept, if none is given: trust-manager's and Linkerd's.
const ROOTS_KEY: &str = "ca-bundle.crt";

/// The private key of an issuer that others keep.
#[derive(Clone, PartialEq, Eq)]
pub enum IssuerKey {
    /// PKCS #8, DER: it came over the network.
    Pkcs8(Zeroizing<Vec<u8>>),
    /// In a file that the signer alone reads.
    InFile {
        /// The file.
        file: PathBuf,
        /// The public half, as the signer found it.
        public: PublicKey,
    },
}

/// An issuer as it is kept: certificates from the issuer upwards, and the issuer's key.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuerFiles {
    /// The issuer, then each authority above it; no root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key, or where it is.
    pub key: IssuerKey,
    /// `ca.crt`, which is best effort and never an anchor by itself.
    pub hint_of_root: Option<CertificateDer<'static>>,
}

impl std::fmt::Debug for IssuerFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuerFiles({} certificates)", self.chain.len())
    }
}

/// Reads an issuer from a Secret.
///
/// # Errors
/// [`AdoptionError`]: a missing key, or one that cannot be read.
pub fn issuer_from(data: &Data) -> Result<IssuerFiles, AdoptionError> {
    let found = ISSUER_KEYS
        .iter()
        .find_map(|(chain, key)| Some((data.get(*chain)?, data.get(*key)?)));
    let (chain, key) = found.ok_or(AdoptionError::NoKey {
        wanted: ISSUER_NAMES,
    })?;
    let key = IssuerKey::Pkcs8(key_from_pem(key)?);
    issuer_of(chain, data.get("ca.crt"), key)
}

/// The same where the signer reads the key: from the chain's PEM, and from that of `ca.crt`.
///
/// # Errors
/// [`AdoptionError`]: a chain that cannot be read.
pub fn issuer_of(
    chain: &[u8],
    beside: Option<&Vec<u8>>,
    key: IssuerKey,
) -> Result<IssuerFiles, AdoptionError> {
    Ok(IssuerFiles {
        chain: certificates("chain", chain, ADOPTED_CHAIN_MAX)?,
        key,
        // Best effort, as its keepers say: what cannot be read is as good as absent.
        hint_of_root: beside.and_then(|pem| CertificateDer::from_pem_slice(pem).ok()),
    })
}

/// Reads a private key, PKCS #8 or SEC1, into PKCS #8.
///
/// # Errors
/// [`AdoptionError::Unreadable`].
pub fn key_from_pem(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, AdoptionError> {
    let unreadable = |why: String| AdoptionError::Unreadable { what: "key", why };
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| unreadable(error.to_string()))?;
    pkcs8(&key).ok_or_else(|| unreadable("it is neither PKCS #8 nor SEC1".to_owned()))
}

/// Reads roots from a ConfigMap, or a Secret that holds no private key: under `key`, or under the usual name.
///
/// # Errors
/// [`AdoptionError`]: no such key, a private key among them or beside them, nothing that can be read.
pub fn roots_from(
    data: &Data,
    key: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, AdoptionError> {
    if data.values().any(|value| holds_private_key(value)) {
        return Err(AdoptionError::PrivateKeyAmongRoots);
    }
    let pem = data
        .get(key.unwrap_or(ROOTS_KEY))
        .ok_or(AdoptionError::NoKey {
            wanted: "`ca-bundle.crt`, or the one configured",
        })?;
    roots_from_pem(pem)
}

/// Reads the roots that stand beside an issuer in its own Secret, `ca.crt`, for whoever says that they are to be trusted.
///
/// # Errors
/// [`AdoptionError`]: no such key, or nothing that can be read.
pub fn roots_beside(issuer: &Data) -> Result<Vec<CertificateDer<'static>>, AdoptionError> {
    let pem = issuer.get("ca.crt").ok_or(AdoptionError::NoKey {
        wanted: "`ca.crt`, the root above the issuer",
    })?;
    roots_from_pem(pem)
}

/// Reads roots from PEM: a ClusterTrustBundle's `spec.trustBundle`, or a file.
///
/// # Errors
/// [`AdoptionError`], as [`roots_from`].
pub fn roots_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AdoptionError> {
    if holds_private_key(pem) {
        return Err(AdoptionError::PrivateKeyAmongRoots);
    }
    certificates("roots", pem, ADOPTED_ROOTS_MAX)
}

fn certificates(
    what: &'static str,
    pem: &[u8],
    limit: usize,
) -> Result<Vec<CertificateDer<'static>>, AdoptionError> {
    let unreadable = |why: String| AdoptionError::Unreadable { what, why };
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|error| unreadable(error.to_string()))? {
            (SectionKind::Certificate, der) => all.push(der.into()),
            (kind, _) => return Err(unreadable(format!("it holds a {kind:?}"))),
        }
        if all.len() > limit {
            return Err(unreadable(format!(
                "it holds more than {limit} certificates"
            )));
        }
    }
    if all.is_empty() {
        return Err(unreadable("no certificate found".to_owned()));
    }
    Ok(all)
}

/// Whether any kind of private key stands in the text, also kinds that a PEM reader would skip.
fn holds_private_key(text: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    text.windows(MARK.len()).any(|window| window == MARK)
}

/// `AlgorithmIdentifier` of an elliptic key on P-256 and on P-384, DER (RFC 5480 §2.1.1).
const EC_P256: &[u8] = &[
    0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7,
];
const EC_P384: &[u8] = &[
    0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22,
];
/// Object identifiers of the curves, as they stand in a SEC1 key.
const OID_P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// The key in PKCS #8: cert-manager writes elliptic keys in SEC1 unless told otherwise.
fn pkcs8(key: &PrivateKeyDer<'_>) -> Option<Zeroizing<Vec<u8>>> {
    match key {
        PrivateKeyDer::Pkcs8(key) => Some(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Sec1(key) => {
            let sec1 = key.secret_sec1_der();
            let names = |oid: &[u8]| sec1.windows(oid.len()).any(|window| window == oid);
            let algorithm = match (names(OID_P256), names(OID_P384)) {
                (true, false) => EC_P256,
                (false, true) => EC_P384,
                _ => return None,
            };
            let inner = Zeroizing::new(tlv(OCTET_STRING, sec1));
            let content = Zeroizing::new([&[2, 1, 0], algorithm, &inner].concat());
            Some(Zeroizing::new(tlv(SEQUENCE, &content)))
        }
        _ => None,
    }
}
