//! Roots that are made offline, and issuers that they sign: the root's key is whole in this process' memory for as long as
//! one call lasts, and on no disk ever.
//!
//! [`make`] makes a root in shares; [`request`] makes the key of an issuer, where it will be used; [`sign`] puts shares
//! together for one signature; [`check`] looks at what is there. What `sign` gives is a folder as `--issuer` reads it, so a
//! CA goes on with it as with any root that others keep.

use crate::pem;
use crate::signer::error::SignerError;
use crate::signer::held::Kept;
use crate::signer::token::{Token, TokenConfig};
use crate::signer::{KeyInMemory, process};
use mesh_issuance::ceremony::CeremonyError;
use mesh_issuance::ceremony::shares::{self, SET_BYTES, Set, Share};
use mesh_issuance::ceremony::transcript::{self, Draft, MADE_ROOT, SIGNED_ISSUER, Transcript};
use mesh_issuance::issue::{self, Linted};
use mesh_issuance::limits::CEREMONY_ISSUER_DAYS_MAX;
use mesh_issuance::{Authority, Profile, PublicKey, Serial, Signer, csr};
use mesh_platform::Platform;
use mesh_trust::bundle::to_pem;
use mesh_trust::{Timestamp, TrustDomain};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

/// A text with the name of its file.
pub type Named<T> = (String, T);

/// A root that is to be made.
#[derive(Clone, Debug)]
pub struct RootWish {
    /// Whose root.
    pub domain: TrustDomain,
    /// How many shares of its key, 2 to 100.
    pub shares: u8,
    /// How many restore it, 2 up to all of them.
    pub threshold: u8,
    /// Of the program, for the transcript.
    pub version: String,
}

/// A root that was made.
pub struct MadeRoot {
    /// Its certificate.
    pub root: Authority,
    /// The same, PEM.
    pub pem: String,
    /// What was done, signed.
    pub transcript: String,
    /// Name of the set of shares, hex.
    pub set: String,
    /// The shares, each with the name of its file.
    pub shares: Vec<Named<Zeroizing<String>>>,
}

/// An issuer that is to be signed.
#[derive(Clone, Debug)]
pub struct IssuerWish {
    /// Name and text of the request, PKCS #10, or of a public key, PEM or DER.
    pub request: Named<Vec<u8>>,
    /// Life of the issuer, days, 1 to [`CEREMONY_ISSUER_DAYS_MAX`].
    pub days: u32,
    /// Of the program, for the transcript.
    pub version: String,
}

/// An issuer that was signed.
pub struct SignedIssuer {
    /// Its certificate.
    pub issuer: Authority,
    /// The same, PEM: `tls.crt`.
    pub chain: String,
    /// The root, PEM: `ca.crt`.
    pub root: String,
    /// What was done, signed.
    pub transcript: String,
}

/// The key of an issuer, and the request for its certificate.
pub struct NewIssuer {
    /// Text of `tls.key`: the key, or its name in a token.
    pub key: Zeroizing<String>,
    /// The request, PEM.
    pub request: String,
    /// The public half.
    pub public: PublicKey,
}

/// What was found by [`check`].
pub struct Checked {
    /// The root.
    pub root: Authority,
    /// Each transcript.
    pub transcripts: Vec<Named<Transcript>>,
    /// Each share, and whether a transcript speaks of it.
    pub shares: Vec<Named<Share>>,
    /// Whether the shares that were given restore the root's key; none: there are too few to say.
    pub restores: Option<bool>,
}

/// Makes a root, divides its key, and tries the division before anybody relies on it.
///
/// # Errors
/// [`CeremonyError`].
pub fn make(wish: &RootWish, platform: &dyn Platform) -> Result<MadeRoot, CeremonyError> {
    shares::check_numbers(wish.shares, wish.threshold)?;
    let begun = platform.wall_clock();
    let key = KeyInMemory::fresh().ok_or_else(|| not_made("the kernel gives no random bytes"))?;
    let linted = issue::prepare_root(
        key.public_key().clone(),
        &Profile::root(),
        &wish.domain,
        serial()?,
        begun,
    );
    let root = signed(linted, &key, &wish.domain)?;
    let mut id = [0; SET_BYTES];
    random(&mut id)?;
    let set = Set {
        id,
        domain: wish.domain.clone(),
        root: root.fingerprint(),
        shares: wish.shares,
        threshold: wish.threshold,
    };
    let secret = key
        .secret()
        .ok_or_else(|| not_made("it has no private number"))?;
    let all = shares::split(&secret, &set, random)?;
    let named: Vec<_> = all
        .iter()
        .map(|share| (share.file_name(), share.clone()))
        .collect();
    // Not all choices, of which there may be many: the first shares, and the last ones, as they will be brought.
    let needed = usize::from(wish.threshold);
    for some in [named.get(..needed), named.get(named.len() - needed..)] {
        restored(some.unwrap_or(&named), &root)?;
    }
    let draft = Draft::new(
        MADE_ROOT,
        &wish.version,
        &root,
        (begun, platform.wall_clock()),
    )
    .certificate("root", &root)
    .line("set", data_encoding::HEXLOWER.encode(&id))
    .line("shares", wish.shares)
    .line("threshold", wish.threshold)
    .shares(&all);
    Ok(MadeRoot {
        pem: to_pem(std::slice::from_ref(root.certificate())),
        transcript: transcript::seal(&draft, &key)?,
        set: data_encoding::HEXLOWER.encode(&id),
        shares: all
            .iter()
            .map(|share| (share.file_name(), share.to_text()))
            .collect(),
        root,
    })
}

/// Makes the key of an issuer, in a token if there is one, and asks for its certificate.
///
/// # Errors
/// [`SignerError`].
pub fn request(token: Option<&TokenConfig>) -> Result<NewIssuer, SignerError> {
    let not_made = |why: &str| SignerError::NotMade {
        why: why.to_owned(),
    };
    match token {
        Some(config) => {
            let token = Token::open(config, process::read_pin(config)?)?;
            let key = token.make()?;
            requested(&key, key.to_file())
        }
        None => {
            let (pkcs8, _) =
                crate::signer::generate().map_err(|error| not_made(&error.to_string()))?;
            let key =
                KeyInMemory::read(&pkcs8).ok_or_else(|| not_made("it cannot be read back"))?;
            requested(&key, pem::encode(pem::PRIVATE_KEY, &pkcs8))
        }
    }
}

fn requested(key: &dyn Signer, file: Zeroizing<String>) -> Result<NewIssuer, SignerError> {
    let der = csr::make(key).map_err(|error| SignerError::NotMade { why: error.0 })?;
    Ok(NewIssuer {
        key: file,
        request: pem::encode(pem::REQUEST, &der).to_string(),
        public: key.public_key().clone(),
    })
}

/// Puts shares together and signs an issuer.
///
/// # Errors
/// [`CeremonyError`].
pub fn sign(
    wish: &IssuerWish,
    (place, root): (&str, &[u8]),
    shares: &[Named<Zeroizing<Vec<u8>>>],
    platform: &dyn Platform,
) -> Result<SignedIssuer, CeremonyError> {
    let begun = platform.wall_clock();
    let shares = read_shares(shares)?;
    let root = read_root(place, root, &shares, begun)?;
    let request = &wish.request;
    let refused = |why: String| CeremonyError::Request {
        place: request.0.clone(),
        why,
    };
    let key = requested_key(&request.1).map_err(refused)?;
    let profile = Profile::issuer_of_days(wish.days).ok_or_else(|| {
        refused(format!(
            "an issuer of {} days; 1 to {CEREMONY_ISSUER_DAYS_MAX} are granted",
            wish.days
        ))
    })?;
    let root_key = restored(&shares, &root)?;
    let linted = issue::prepare_issuer(key, &profile, &root, serial()?, begun);
    let issuer = signed(linted, &root_key, root.domain())?;
    let used: Vec<_> = shares
        .iter()
        .map(|(_, share)| share.number.to_string())
        .collect();
    let draft = Draft::new(
        SIGNED_ISSUER,
        &wish.version,
        &root,
        (begun, platform.wall_clock()),
    )
    .certificate("issuer", &issuer)
    .line("request", hash(&request.1))
    .line("shares-used", used.join(" "));
    Ok(SignedIssuer {
        chain: to_pem(std::slice::from_ref(issuer.certificate())),
        root: to_pem(std::slice::from_ref(root.certificate())),
        transcript: transcript::seal(&draft, &root_key)?,
        issuer,
    })
}

/// Checks transcripts and shares against a root. Nothing of a share is shown, and no key leaves this.
///
/// # Errors
/// [`CeremonyError`]: the first thing that is not as it should be.
pub fn check(
    (place, root): (&str, &[u8]),
    transcripts: &[Named<Vec<u8>>],
    shares: &[Named<Zeroizing<Vec<u8>>>],
    now: Timestamp,
) -> Result<Checked, CeremonyError> {
    let shares = read_shares(shares)?;
    let root = read_root(place, root, &shares, now)?;
    let mut read = Vec::new();
    for (place, text) in transcripts {
        read.push((place.clone(), Transcript::parse(place, text, &root)?));
    }
    for (_, of_root) in read
        .iter()
        .filter(|(_, one)| one.get("act") == Some(MADE_ROOT))
    {
        for (place, share) in &shares {
            of_root.check_share(place, share)?;
        }
    }
    let restores = match restored(&shares, &root) {
        Ok(_) => Some(true),
        Err(CeremonyError::TooFew { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Checked {
        root,
        transcripts: read,
        shares,
        restores,
    })
}

fn read_shares(texts: &[Named<Zeroizing<Vec<u8>>>]) -> Result<Vec<Named<Share>>, CeremonyError> {
    texts
        .iter()
        .map(|(place, text)| Ok((place.clone(), Share::parse(place, text)?)))
        .collect()
}

/// Reads a root, which must have signed itself, be in force, and be the one of the shares.
fn read_root(
    place: &str,
    pem: &[u8],
    shares: &[Named<Share>],
    now: Timestamp,
) -> Result<Authority, CeremonyError> {
    let refused = |why: String| CeremonyError::Root {
        place: place.to_owned(),
        why,
    };
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| refused(error.to_string()))?;
    let domain =
        Authority::domain_in(&der).ok_or_else(|| refused("it names no trust domain".to_owned()))?;
    let root = Authority::parse(&der, &domain).map_err(|error| refused(error.to_string()))?;
    root.check_signed_by(&root)
        .map_err(|error| refused(error.to_string()))?;
    if !root.validity().holds(now) {
        let (from, to) = (root.validity().not_before, root.validity().not_after);
        return Err(refused(format!(
            "it counts from {from} to {to}, and it is {now}"
        )));
    }
    match shares
        .iter()
        .find(|(_, share)| share.set.root != root.fingerprint())
    {
        None => Ok(root),
        Some((share, _)) => Err(refused(format!("`{share}` is of another root"))),
    }
}

/// The root's key, if the shares restore it.
fn restored(shares: &[Named<Share>], root: &Authority) -> Result<KeyInMemory, CeremonyError> {
    let secret = shares::restore(shares)?;
    KeyInMemory::from_secret(&secret, root.key()).ok_or(CeremonyError::OtherKey)
}

/// The key in a request, whose possession is proven, or in a file of a public key alone.
fn requested_key(text: &[u8]) -> Result<PublicKey, String> {
    let (kind, der) = match <(SectionKind, Vec<u8>)>::from_pem_slice(text) {
        Ok(found) => found,
        Err(_) => (SectionKind::Csr, text.to_vec()),
    };
    match kind {
        SectionKind::Csr => csr::parse(&der).map_err(|error| error.to_string()),
        SectionKind::PublicKey => PublicKey::from_spki(&der).map_err(|error| error.to_string()),
        other => Err(format!("it holds a {other:?}")),
    }
}

fn signed(
    linted: Result<Linted, issue::IssueError>,
    key: &KeyInMemory,
    domain: &TrustDomain,
) -> Result<Authority, CeremonyError> {
    let failed = |error: &dyn std::error::Error| not_made(&error.to_string());
    let linted = linted.map_err(|error| failed(&error))?;
    let issued = issue::sign(linted, key).map_err(|error| failed(&error))?;
    Authority::parse(issued.certificate(), domain).map_err(|error| failed(&error))
}

fn serial() -> Result<Serial, CeremonyError> {
    let mut octets = [0; 16];
    random(&mut octets)?;
    Serial::new(octets, None).ok_or_else(|| not_made("a serial of zero"))
}

/// From the kernel, by the library that makes keys: shares are key material.
fn random(out: &mut [u8]) -> Result<(), CeremonyError> {
    SystemRandom::new()
        .fill(out)
        .map_err(|_| not_made("the kernel gives no random bytes"))
}

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    data_encoding::HEXLOWER.encode(digest.as_ref())
}

fn not_made(why: &str) -> CeremonyError {
    CeremonyError::Key {
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
