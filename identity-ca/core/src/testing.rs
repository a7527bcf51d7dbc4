//! A CA for tests: keys in memory, serials in order, time stands still.

use crate::authority::Authority;
use crate::issue::{self, Issued, Linted, Request, Serial, Signer, SignerFailed};
use crate::key::{Curve, PublicKey};
use crate::profile::Profile;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use rcgen::{PublicKeyData, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

/// The time of all tests.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_795_260_000);

/// A P-256 key that signs, for us and for the encoder of requests.
pub(crate) struct TestKey {
    pub(crate) public: PublicKey,
    pair: EcdsaKeyPair,
}

impl TestKey {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        Self {
            public: PublicKey::from_point(Curve::P256, pair.public_key().as_ref()).unwrap(),
            pair,
        }
    }
}

impl Signer for TestKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        Ok(self
            .pair
            .sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec())
    }
}

impl PublicKeyData for TestKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TestKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Signer::sign(self, message).unwrap())
    }
}

/// A trust domain with its root and issuer.
pub(crate) struct World {
    pub(crate) domain: TrustDomain,
    pub(crate) root: Authority,
    pub(crate) issuer: Authority,
    pub(crate) issuer_key: TestKey,
    pub(crate) root_key: TestKey,
}

impl World {
    pub(crate) fn new() -> Self {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let root_key = TestKey::new();
        let linted = issue::prepare_root(
            root_key.public.clone(),
            &Profile::root(),
            &domain,
            serial(1),
            NOW,
        )
        .unwrap();
        let root = Authority::parse(
            issue::sign(linted, &root_key).unwrap().certificate(),
            &domain,
        )
        .unwrap();
        let issuer_key = TestKey::new();
        let linted = issue::prepare_issuer(
            issuer_key.public.clone(),
            &Profile::issuer(),
            &root,
            serial(2),
            NOW,
        )
        .unwrap();
        let issuer = Authority::parse(
            issue::sign(linted, &root_key).unwrap().certificate(),
            &domain,
        )
        .unwrap();
        Self {
            domain,
            root,
            issuer,
            issuer_key,
            root_key,
        }
    }

    pub(crate) fn request(&self, path: &str) -> Request {
        let id = SpiffeId::parse(&format!("spiffe://{}/{path}", self.domain)).unwrap();
        Request {
            id,
            key: TestKey::new().public,
            lifetime_secs: None,
            backdate_secs_max: None,
        }
    }

    pub(crate) fn prepare(&self, path: &str) -> Linted {
        issue::prepare(
            self.request(path),
            &Profile::leaf(86_400).unwrap(),
            &self.issuer,
            serial(3),
            NOW,
        )
        .unwrap()
    }

    pub(crate) fn leaf(&self, path: &str) -> Issued {
        issue::sign(self.prepare(path), &self.issuer_key).unwrap()
    }
}

pub(crate) fn serial(last: u8) -> Serial {
    let mut random = [0xa5; 16];
    random[15] = last;
    Serial::new(random, None).unwrap()
}
