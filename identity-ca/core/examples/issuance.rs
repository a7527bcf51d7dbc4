//! What an issuance costs, and many certificates for other people's linters.
//!
//!     cargo run --release -p mesh-issuance --example issuance -- COUNT [DIR]
//!
//! Issues COUNT leaves as the CA does (request read and its signature checked, to-be-signed bytes built and linted,
//! signed, compared with what was linted) on one core, beside what that core's signatures cost alone: one P-256
//! verification and one signature each. Every chain is then verified as peers verify it. With DIR, `root.pem` and
//! `chains.pem` (leaf, issuer, leaf, issuer, …) are written there. The log and its disk are not part of it.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement for people, with the clock that there is"
)]

use mesh_issuance::issue::{self, Request};
use mesh_issuance::key::{Curve, PublicKey};
use mesh_issuance::{Authority, Profile, Serial, Signer, SignerFailed, csr};
use mesh_trust::{SpiffeId, Svid, Timestamp, TrustBundle, TrustBundles, TrustDomain};
use rcgen::{CertificateParams, PublicKeyData, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use rustls_pki_types::CertificateDer;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Different requests that are made before the clock starts; they are issued in turn.
const REQUESTS: usize = 256;

struct Key {
    pair: EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
}

impl Key {
    fn new() -> Outcome<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no key")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| "no key")?;
        let public = PublicKey::from_point(Curve::P256, pair.public_key().as_ref())?;
        Ok(Self {
            pair,
            public,
            random,
        })
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        match self.pair.sign(&self.random, message) {
            Ok(signature) => Ok(signature.as_ref().to_vec()),
            Err(_) => Err(SignerFailed("no random bytes".to_owned())),
        }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Signer::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

fn serial(random: &SystemRandom) -> Outcome<Serial> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes).map_err(|_| "no random bytes")?;
    Ok(Serial::new(bytes, None).ok_or("a serial of zero")?)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().ok_or("how many?")?.parse()?;
    let dir = arguments.next().map(PathBuf::from);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = Timestamp::from_unix_secs(i64::try_from(since.as_secs())?);
    let random = SystemRandom::new();
    let domain = TrustDomain::parse("cluster.local")?;

    let (root_key, issuer_key) = (Key::new()?, Key::new()?);
    let root = issue::prepare_root(
        root_key.public.clone(),
        &Profile::root(),
        &domain,
        serial(&random)?,
        now,
    )?;
    let root = Authority::parse(issue::sign(root, &root_key)?.certificate(), &domain)?;
    let issuer = issue::prepare_issuer(
        issuer_key.public.clone(),
        &Profile::issuer(),
        &root,
        serial(&random)?,
        now,
    )?;
    let issuer = Authority::parse(issue::sign(issuer, &root_key)?.certificate(), &domain)?;

    let requests = (0..REQUESTS)
        .map(|_| {
            let request = CertificateParams::default().serialize_request(&Key::new()?)?;
            Ok(request.der().to_vec())
        })
        .collect::<Outcome<Vec<_>>>()?;
    let profile = Profile::leaf(86_400)?;

    let begun = Instant::now();
    let mut leaves = Vec::with_capacity(count);
    for (n, request) in requests.iter().cycle().take(count).enumerate() {
        let request = Request {
            id: SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/s{n}"))?,
            key: csr::parse(request)?,
            lifetime_secs: None,
            backdate_secs_max: None,
        };
        let linted = issue::prepare(request, &profile, &issuer, serial(&random)?, now)?;
        leaves.push(issue::sign(linted, &issuer_key)?.certificate().clone());
    }
    let whole = begun.elapsed().as_secs_f64() / count as f64;

    let message = [7; 600];
    let signature = Signer::sign(&issuer_key, &message)?;
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer_key.public.point());
    let begun = Instant::now();
    for _ in 0..count {
        verifier.verify(&message, &signature).map_err(|_| "wrong")?;
        Signer::sign(&issuer_key, &message)?;
    }
    let raw = begun.elapsed().as_secs_f64() / count as f64;

    let bundles = TrustBundles::from(TrustBundle::new(domain, vec![root.certificate().clone()])?);
    for leaf in &leaves {
        let chain = vec![leaf.clone(), issuer.certificate().clone()];
        bundles.verify(&Svid::parse(chain)?, now)?;
    }
    println!(
        "{count} issuances: {:.0} a second, {:.1} us each",
        1.0 / whole,
        whole * 1e6
    );
    println!(
        "one verification and one signature: {:.0} a second, {:.1} us; the issuance runs at {:.2} of that",
        1.0 / raw,
        raw * 1e6,
        raw / whole
    );
    println!("{} chains verified as peers verify them", leaves.len());
    if let Some(dir) = dir {
        let pem = |certificates: &[CertificateDer<'_>]| mesh_trust::bundle::to_pem(certificates);
        File::create(dir.join("root.pem"))?
            .write_all(pem(std::slice::from_ref(root.certificate())).as_bytes())?;
        let mut chains = File::create(dir.join("chains.pem"))?;
        for leaf in leaves {
            chains.write_all(pem(&[leaf, issuer.certificate().clone()]).as_bytes())?;
        }
    }
    Ok(())
}
