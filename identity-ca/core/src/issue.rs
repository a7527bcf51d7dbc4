//! Prepare and sign: the only way a certificate comes into being.
//!
//! [`prepare`] and its siblings build what will be signed and lint it; the proof of that is [`Linted`], which nothing
//! else makes. [`sign`] takes it by value, hands exactly the linted bytes to the [`Signer`], and reads the certificate back:
//! what is in it must be those bytes, and the signature must verify. [`sign_all`] does so for many with one question to
//! the signer.
//!
//! Leaves have no subject: the SPIFFE ID is then the only name in them, so no peer can take another for the identity.
//! That makes the subject alternative name critical (RFC 5280 §4.1.2.6).

use crate::authority::Authority;
use crate::der;
use crate::key::{Curve, PublicKey, sha256};
use crate::limits::SERIAL_BYTES_MAX;
use crate::lint::{self, Expected, LintError};
use crate::profile::{Profile, ProfileError, Validity};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use std::cell::RefCell;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The last second that GeneralizedTime can say: 9999-12-31T23:59:59Z.
const YEAR_9999_SECS: u64 = 253_402_300_799;

/// Who holds an authority's private key: a file, a token, another process.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message` with ECDSA and the hash of the curve's size; the signature is DER.
    ///
    /// # Errors
    /// [`SignerFailed`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed>;

    /// Signs several messages: as many outcomes, in the same order. Whoever is far away answers all at once.
    fn sign_all(&self, messages: &[&[u8]]) -> Vec<Result<Vec<u8>, SignerFailed>> {
        messages.iter().map(|message| self.sign(message)).collect()
    }
}

/// The holder of a private key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the private key cannot be used: {0}")]
pub struct SignerFailed(pub String);

/// A serial number: 128 random bits, after an octet that names the replica of the CA if there are several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serial(Vec<u8>);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signs issuers, and itself.
    Root,
    /// Signs leaves.
    Issuer,
    /// A workload's SVID.
    Leaf,
}

/// Whom attestation found, the key to bind to it, and how long for.
#[derive(Clone, Debug)]
pub struct Request {
    /// From attestation, never from the requester.
    pub id: SpiffeId,
    /// The key; its possession is proven, or it was made for this request.
    pub key: PublicKey,
    /// A wish, clamped to the profile; none: its default.
    pub lifetime_secs: Option<u64>,
    /// How far `notBefore` may lie in the past at most, seconds; none: as the profile says.
    pub backdate_secs_max: Option<u64>,
}

/// What will be signed, octet for octet, and the proof that [`lint::RULES`] hold for it.
#[derive(Debug)]
pub struct Linted {
    kind: Kind,
    id: SpiffeId,
    serial: Serial,
    validity: Validity,
    key: PublicKey,
    tbs: Vec<u8>,
    // None: signs itself.
    above: Option<Authority>,
}

/// What a certificate is to say, before anything is encoded.
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) id: SpiffeId,
    pub(crate) serial: Serial,
    pub(crate) validity: Validity,
    pub(crate) key: PublicKey,
    pub(crate) params: CertificateParams,
    // None: signs itself.
    pub(crate) above: Option<Authority>,
}

/// A signed certificate, equal to what was linted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    certificate: CertificateDer<'static>,
    id: SpiffeId,
    serial: Serial,
    validity: Validity,
}

/// Why nothing was prepared or signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum IssueError {
    /// No lifetime can be granted.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Profile(#[from] ProfileError),
    /// An identity that this authority may not certify.
    #[error("`{id}` is no workload of trust domain `{domain}`")]
    #[diagnostic(
        code("MESH-0212"),
        help("register the workload under a SPIFFE ID with a path, in the CA's own trust domain")
    )]
    Identity {
        /// The identity asked for.
        id: SpiffeId,
        /// The authority's domain.
        domain: TrustDomain,
    },
    /// The issuer's own key.
    #[error("the key to certify is the issuer's own")]
    #[diagnostic(code("MESH-0213"), help("make a fresh key for each certificate"))]
    IssuersKey,
    /// A rule of the lint is broken.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Lint(#[from] LintError),
    /// The signer failed.
    #[error("the certificate was not signed")]
    #[diagnostic(code("MESH-0215"), help("look at the holder of the CA's private key"))]
    Signer(#[source] SignerFailed),
    /// The signer holds another key than the authority's certificate.
    #[error("the signer holds another key than the certificate of `{authority}`")]
    #[diagnostic(
        code("MESH-0216"),
        help(
            "key and certificate of the CA do not belong together; restore both from the same backup"
        )
    )]
    WrongSigner {
        /// The authority.
        authority: String,
    },
    /// What was signed is not what was linted, or the signature is wrong.
    #[error("the signed certificate is not the linted one: {why}")]
    #[diagnostic(
        code("MESH-0217"),
        help("nothing was released; report this as a fault of the CA")
    )]
    NotAsLinted {
        /// What differs.
        why: &'static str,
    },
    /// The encoder failed.
    #[error("the certificate cannot be encoded: {why}")]
    #[diagnostic(code("MESH-0218"), help("report this as a fault of the CA"))]
    Encode {
        /// In the encoder's words.
        why: String,
    },
}

impl Serial {
    /// A serial of these random octets; `replica` keeps apart those of several CAs under one root.
    ///
    /// `None` if it would be zero, which is no serial number: draw again.
    pub fn new(random: [u8; 16], replica: Option<u8>) -> Option<Self> {
        let bytes: Vec<u8> = replica
            .into_iter()
            .chain(random)
            .skip_while(|byte| *byte == 0)
            .collect();
        (!bytes.is_empty() && bytes.len() <= SERIAL_BYTES_MAX).then_some(Self(bytes))
    }

    /// Its octets, without sign.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hex, two digits an octet.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

/// Prepares a workload's certificate, signed later by `issuer`.
///
/// # Errors
/// [`IssueError`]: a foreign identity, the issuer's own key, an issuer that ends too soon, a broken lint rule.
pub fn prepare(
    request: Request,
    profile: &Profile,
    issuer: &Authority,
    serial: Serial,
    now: Timestamp,
) -> Result<Linted, IssueError> {
    let profile = &profile.backdated_by_at_most(request.backdate_secs_max);
    Draft::leaf(request, profile, issuer, serial, now)?.lint(profile)
}

/// Prepares an issuer's certificate, signed later by `root`.
///
/// # Errors
/// [`IssueError`], as for [`prepare`].
pub fn prepare_issuer(
    key: PublicKey,
    profile: &Profile,
    root: &Authority,
    serial: Serial,
    now: Timestamp,
) -> Result<Linted, IssueError> {
    Draft::issuer(key, profile, root, serial, now)?.lint(profile)
}

/// Prepares the certificate of a root of `domain`, which signs itself.
///
/// # Errors
/// [`IssueError`], as for [`prepare`].
pub fn prepare_root(
    key: PublicKey,
    profile: &Profile,
    domain: &TrustDomain,
    serial: Serial,
    now: Timestamp,
) -> Result<Linted, IssueError> {
    Draft::root(key, profile, domain, serial, now)?.lint(profile)
}

/// Signs what was prepared.
///
/// # Errors
/// [`IssueError`]: another signer than the one prepared for, a signer that fails, or bytes that are not as linted.
pub fn sign(linted: Linted, signer: &dyn Signer) -> Result<Issued, IssueError> {
    check_before(&linted, signer)?;
    let signature = signer.sign(&linted.tbs);
    signed(linted, signer, signature)
}

/// Signs much that was prepared, all of it for one signer, which is asked once. Each has an outcome of its own, as
/// [`sign`] gives it.
pub fn sign_all(linted: Vec<Linted>, signer: &dyn Signer) -> Vec<Result<Issued, IssueError>> {
    let checked: Vec<_> = linted
        .into_iter()
        .map(|linted| check_before(&linted, signer).map(|()| linted))
        .collect();
    let messages: Vec<&[u8]> = checked
        .iter()
        .flatten()
        .map(|linted| linted.tbs.as_slice())
        .collect();
    let mut signatures = signer.sign_all(&messages).into_iter();
    checked
        .into_iter()
        .map(|linted| {
            let linted = linted?;
            let missing = || Err(SignerFailed("it left an answer out".to_owned()));
            signed(linted, signer, signatures.next().unwrap_or_else(missing))
        })
        .collect()
}

/// What must hold before the private key is used.
fn check_before(linted: &Linted, signer: &dyn Signer) -> Result<(), IssueError> {
    if signer.public_key() != linted.signer() {
        let authority = linted
            .above
            .as_ref()
            .map_or("the root itself", Authority::subject_text)
            .to_owned();
        return Err(IssueError::WrongSigner { authority });
    }
    Ok(())
}

fn signed(
    linted: Linted,
    signer: &dyn Signer,
    signature: Result<Vec<u8>, SignerFailed>,
) -> Result<Issued, IssueError> {
    let certificate = assemble(
        &linted.tbs,
        signer.public_key().curve(),
        &signature.map_err(IssueError::Signer)?,
    );
    check_signed(&certificate, &linted)?;
    Ok(Issued {
        certificate,
        id: linted.id,
        serial: linted.serial,
        validity: linted.validity,
    })
}

/// The certificate of what was signed (RFC 5280 §4.1): it, the algorithm, the signature.
fn assemble(tbs: &[u8], curve: Curve, signature: &[u8]) -> CertificateDer<'static> {
    let algorithm = match curve {
        Curve::P256 => der::ECDSA_SHA256,
        Curve::P384 => der::ECDSA_SHA384,
    };
    // No bit of the last octet is unused.
    let bits = der::tlv(der::BIT_STRING, &[&[0], signature].concat());
    der::tlv(der::SEQUENCE, &[tbs, algorithm, &bits].concat()).into()
}

/// Puts a time into the encoder's form, whose type has no name here: it grows out of the epoch.
macro_rules! calendar {
    ($at:expr) => {{
        let at: Timestamp = $at;
        match u64::try_from(at.unix_secs()) {
            Ok(secs) if secs <= YEAR_9999_SECS => {
                rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs)
            }
            _ => {
                return Err(IssueError::Encode {
                    why: format!("{at} has no form in a certificate"),
                });
            }
        }
    }};
}

/// What all certificates have in common.
fn common(
    id: &SpiffeId,
    serial: &Serial,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(encoder)?)];
    params.not_before = calendar!(validity.not_before);
    params.not_after = calendar!(validity.not_after);
    Ok(params)
}

/// Authorities have a subject that no other authority has: Go's path builder tries every pair of equal names.
fn authority_fields(params: &mut CertificateParams, what: &str, serial: &Serial) {
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::OrganizationName, "mesh");
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{what} {}", serial.to_hex()));
}

fn encoder(error: rcgen::Error) -> IssueError {
    IssueError::Encode {
        why: error.to_string(),
    }
}

impl Draft {
    pub(crate) fn leaf(
        request: Request,
        profile: &Profile,
        issuer: &Authority,
        serial: Serial,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let Request { id, key, .. } = request;
        if id.trust_domain() != issuer.domain() || id.path().is_empty() {
            return Err(IssueError::Identity {
                id,
                domain: issuer.domain().clone(),
            });
        }
        let validity = profile.validity(request.lifetime_secs, Some(issuer.validity()), now)?;
        let mut params = common(&id, &serial, validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(Self {
            kind: Kind::Leaf,
            id,
            serial,
            validity,
            key,
            params,
            above: Some(issuer.clone()),
        })
    }

    pub(crate) fn issuer(
        key: PublicKey,
        profile: &Profile,
        root: &Authority,
        serial: Serial,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let validity = profile.validity(None, Some(root.validity()), now)?;
        let id = root.domain().id();
        let mut params = common(&id, &serial, validity)?;
        // It signs leaves only: an issuer of issuers would be outside the log.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        authority_fields(&mut params, "issuer", &serial);
        Ok(Self {
            kind: Kind::Issuer,
            id,
            serial,
            validity,
            key,
            params,
            above: Some(root.clone()),
        })
    }

    pub(crate) fn root(
        key: PublicKey,
        profile: &Profile,
        domain: &TrustDomain,
        serial: Serial,
        now: Timestamp,
    ) -> Result<Self, IssueError> {
        let validity = profile.validity(None, None, now)?;
        let id = domain.id();
        let mut params = common(&id, &serial, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority_fields(&mut params, "root", &serial);
        Ok(Self {
            kind: Kind::Root,
            id,
            serial,
            validity,
            key,
            params,
            above: None,
        })
    }

    /// Encodes it and checks the bytes against every rule.
    fn lint(self, profile: &Profile) -> Result<Linted, IssueError> {
        let Self {
            kind,
            id,
            serial,
            validity,
            key,
            params,
            above,
        } = self;
        if above.as_ref().is_some_and(|above| *above.key() == key) {
            return Err(IssueError::IssuersKey);
        }
        let tbs = encode(&params, &key, above.as_ref())?;
        let expected = Expected {
            kind,
            id: &id,
            serial: &serial,
            validity,
            validity_secs_max: profile.validity_secs_max(),
            key: &key,
            above: above.as_ref(),
        };
        lint::check(&tbs, &expected)?;
        Ok(Linted {
            kind,
            id,
            serial,
            validity,
            key,
            tbs,
            above,
        })
    }
}

/// What would be signed.
pub(crate) fn encode(
    params: &CertificateParams,
    key: &PublicKey,
    above: Option<&Authority>,
) -> Result<Vec<u8>, IssueError> {
    let pen = Pen {
        key: above.map_or(key, Authority::key),
        tbs: RefCell::default(),
    };
    match above {
        Some(above) => {
            let issuer = Issuer::from_ca_cert_der(above.certificate(), &pen).map_err(encoder)?;
            params.signed_by(key, &issuer).map(drop)
        }
        None => params.self_signed(&pen).map(drop),
    }
    .map_err(encoder)?;
    Ok(pen.tbs.into_inner())
}

fn check_signed(certificate: &[u8], linted: &Linted) -> Result<(), IssueError> {
    let not_as_linted = |why| IssueError::NotAsLinted { why };
    let (rest, read) = X509Certificate::from_der(certificate)
        .map_err(|_| not_as_linted("it cannot be read back"))?;
    if !rest.is_empty() || read.tbs_certificate.as_ref() != linted.tbs {
        return Err(not_as_linted("its bytes differ"));
    }
    // RFC 5280 §4.1.1.2.
    if read.signature_algorithm != read.tbs_certificate.signature {
        return Err(not_as_linted(
            "it names another algorithm outside than inside",
        ));
    }
    let signer = linted.signer();
    let algorithm = match signer.curve() {
        Curve::P256 => &ECDSA_P256_SHA256_ASN1,
        Curve::P384 => &ECDSA_P384_SHA384_ASN1,
    };
    // A signer that computes wrongly could give its key away: what it made must not leave.
    UnparsedPublicKey::new(algorithm, signer.point())
        .verify(&linted.tbs, &read.signature_value.data)
        .map_err(|_| not_as_linted("its signature does not verify"))
}

/// Writes no signature, only notes what it was asked to sign.
struct Pen<'a> {
    key: &'a PublicKey,
    tbs: RefCell<Vec<u8>>,
}

impl PublicKeyData for Pen<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Pen<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.tbs.replace(message.to_vec());
        Ok(Vec::new())
    }
}

impl Linted {
    /// Whose signature it waits for.
    fn signer(&self) -> &PublicKey {
        self.above.as_ref().map_or(&self.key, Authority::key)
    }

    /// What it will be for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whom it will name.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Its serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The validity granted.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The key it will certify.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Key identifier of the authority that will sign; none for a root.
    pub fn signed_by(&self) -> Option<&[u8]> {
        self.above.as_ref().map(Authority::key_id)
    }

    /// SHA-256 of what will be signed.
    pub fn tbs_fingerprint(&self) -> [u8; 32] {
        sha256(&self.tbs)
    }

    #[cfg(test)]
    pub(crate) fn tbs(&self) -> &[u8] {
        &self.tbs
    }
}

impl Issued {
    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whom it names.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Its serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// When it counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }
}

#[cfg(test)]
mod tests;
