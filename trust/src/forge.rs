//! Certificates for tests, honest and hostile: every field can be wrong. Shares no code with the readers.

use crate::{Timestamp, TrustBundle, TrustDomain};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The time of all tests.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_795_260_000);
pub(crate) const HOUR: i64 = 3_600;

pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(crate) const KEY_USAGE: u8 = 15;
pub(crate) const NAMES: u8 = 17;
pub(crate) const BASIC: u8 = 19;
pub(crate) const NAME_CONSTRAINTS: u8 = 30;
pub(crate) const PURPOSES: u8 = 37;
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A DER value: tag, length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        byte @ 0x80..=0xff => out.extend([0x81, byte as u8]),
        word @ 0x100..=0xffff => out.extend([0x82, (word >> 8) as u8, word as u8]),
        long => out.extend([
            0x84,
            (long >> 24) as u8,
            (long >> 16) as u8,
            (long >> 8) as u8,
            long as u8,
        ]),
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(6, content)
}

pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}

/// Key usage by bit numbers of RFC 5280 §4.2.1.3.
pub(crate) fn key_usage(set: &[u8]) -> Vec<u8> {
    let byte = set.iter().fold(0u8, |byte, bit| byte | 0x80 >> bit);
    tlv(
        3,
        &[
            if byte == 0 {
                0
            } else {
                byte.trailing_zeros() as u8
            },
            byte,
        ],
    )
}

pub(crate) fn names(list: &[(u8, &[u8])]) -> Vec<u8> {
    sequence(
        &list
            .iter()
            .map(|(kind, value)| tlv(0x80 | kind, value))
            .collect::<Vec<_>>(),
    )
}

pub(crate) fn purposes(list: &[&[u8]]) -> Vec<u8> {
    sequence(&list.iter().map(|purpose| oid(purpose)).collect::<Vec<_>>())
}

fn name(common: &str) -> Vec<u8> {
    if common.is_empty() {
        return sequence(&[]);
    }
    let attribute = sequence(&[oid(&[0x55, 4, 3]), tlv(0x0c, common.as_bytes())]);
    sequence(&[tlv(0x31, &attribute)])
}

fn time(at: Timestamp) -> Vec<u8> {
    let moment = jiff::Timestamp::from_second(at.unix_secs()).expect("in range");
    tlv(
        0x18,
        moment.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes(),
    )
}

/// A private key.
pub(crate) enum Key {
    P256(EcdsaKeyPair, Vec<u8>),
    P384(EcdsaKeyPair, Vec<u8>),
    Ed25519(Ed25519KeyPair, Vec<u8>),
}

impl Key {
    pub(crate) fn p256() -> Self {
        let pkcs8 = ec_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        Self::P256(
            ec(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8),
            pkcs8,
        )
    }

    pub(crate) fn p384() -> Self {
        let pkcs8 = ec_pkcs8(&signature::ECDSA_P384_SHA384_ASN1_SIGNING);
        Self::P384(
            ec(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &pkcs8),
            pkcs8,
        )
    }

    pub(crate) fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("randomness")
            .as_ref()
            .to_vec();
        Self::Ed25519(
            Ed25519KeyPair::from_pkcs8(&pkcs8).expect("just made"),
            pkcs8,
        )
    }

    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Self::P256(pair, _) | Self::P384(pair, _) => pair.public_key().as_ref(),
            Self::Ed25519(pair, _) => pair.public_key().as_ref(),
        }
    }

    pub(crate) fn info(&self) -> Vec<u8> {
        let algorithm = match self {
            Self::P256(..) => sequence(&[oid(EC), oid(P256)]),
            Self::P384(..) => sequence(&[oid(EC), oid(P384)]),
            Self::Ed25519(..) => sequence(&[oid(ED25519)]),
        };
        sequence(&[algorithm, bits(self.public())])
    }

    fn algorithm(&self) -> Vec<u8> {
        match self {
            Self::P256(..) => sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])]),
            Self::P384(..) => sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03])]),
            Self::Ed25519(..) => sequence(&[oid(ED25519)]),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(pair, _) | Self::P384(pair, _) => pair
                .sign(&SystemRandom::new(), message)
                .expect("signs")
                .as_ref()
                .to_vec(),
            Self::Ed25519(pair, _) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        let (Self::P256(_, pkcs8) | Self::P384(_, pkcs8) | Self::Ed25519(_, pkcs8)) = self;
        PrivateKeyDer::Pkcs8(pkcs8.clone().into())
    }
}

fn ec_pkcs8(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
        .expect("randomness")
        .as_ref()
        .to_vec()
}

fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm, pkcs8: &[u8]) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).expect("just made")
}

/// What a certificate will say. Starts honest; the methods bend it.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) version: u8,
    pub(crate) serial: Vec<u8>,
    pub(crate) subject: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Instead of the key's own.
    pub(crate) info: Option<Vec<u8>>,
    /// Instead of the signer's own, in both places.
    pub(crate) algorithm: Option<Vec<u8>>,
    /// Extensions: object identifier, criticality, content.
    pub(crate) extensions: Vec<(Vec<u8>, bool, Vec<u8>)>,
    /// After the certificate.
    pub(crate) trailing: Vec<u8>,
}

impl Template {
    fn new(subject: &str) -> Self {
        Self {
            version: 2,
            serial: vec![0x5a; 16],
            subject: subject.to_owned(),
            not_before: NOW.plus_secs(-HOUR),
            not_after: NOW.plus_secs(23 * HOUR),
            info: None,
            algorithm: None,
            extensions: Vec::new(),
            trailing: Vec::new(),
        }
    }

    /// A leaf as our CA makes it.
    pub(crate) fn leaf(id: &str) -> Self {
        Self::new("")
            .with(BASIC, true, sequence(&[]))
            .with(KEY_USAGE, true, key_usage(&[0]))
            .with(PURPOSES, false, purposes(&[SERVER_AUTH, CLIENT_AUTH]))
            .with(NAMES, true, names(&[(6, id.as_bytes())]))
    }

    /// An authority; `path_len` below 0 means no limit. `id` empty means no SPIFFE ID.
    pub(crate) fn authority(subject: &str, id: &str, path_len: i8) -> Self {
        let limit = if path_len < 0 {
            Vec::new()
        } else {
            tlv(2, &[path_len as u8])
        };
        let template = Self::new(subject)
            .with(BASIC, true, sequence(&[tlv(1, &[0xff]), limit]))
            .with(KEY_USAGE, true, key_usage(&[5, 6]));
        if id.is_empty() {
            template
        } else {
            template.with(NAMES, false, names(&[(6, id.as_bytes())]))
        }
    }

    /// Sets an extension of the id-ce arc, in the place of one that was there.
    pub(crate) fn with(mut self, arc: u8, critical: bool, content: Vec<u8>) -> Self {
        self = self.without(arc);
        self.extensions
            .push((vec![0x55, 0x1d, arc], critical, content));
        self
    }

    pub(crate) fn without(mut self, arc: u8) -> Self {
        self.extensions
            .retain(|(oid, ..)| *oid != [0x55, 0x1d, arc]);
        self
    }

    /// Adds an extension without looking whether it is there.
    pub(crate) fn and(mut self, oid: &[u8], critical: bool, content: Vec<u8>) -> Self {
        self.extensions.push((oid.to_vec(), critical, content));
        self
    }

    pub(crate) fn period(mut self, from: i64, to: i64) -> Self {
        self.not_before = NOW.plus_secs(from);
        self.not_after = NOW.plus_secs(to);
        self
    }

    pub(crate) fn sign(
        &self,
        subject_key: &Key,
        issuer: &str,
        issuer_key: &Key,
    ) -> CertificateDer<'static> {
        let algorithm = self
            .algorithm
            .clone()
            .unwrap_or_else(|| issuer_key.algorithm());
        let extensions: Vec<Vec<u8>> = self
            .extensions
            .iter()
            .map(|(id, critical, content)| {
                let critical = if *critical {
                    tlv(1, &[0xff])
                } else {
                    Vec::new()
                };
                sequence(&[oid(id), critical, tlv(4, content)])
            })
            .collect();
        let signed = sequence(&[
            if self.version == 0 {
                Vec::new()
            } else {
                tlv(0xa0, &tlv(2, &[self.version]))
            },
            tlv(2, &self.serial),
            algorithm.clone(),
            name(issuer),
            sequence(&[time(self.not_before), time(self.not_after)]),
            name(&self.subject),
            self.info.clone().unwrap_or_else(|| subject_key.info()),
            if extensions.is_empty() {
                Vec::new()
            } else {
                tlv(0xa3, &sequence(&extensions))
            },
        ]);
        let signature = issuer_key.sign(&signed);
        let mut der = sequence(&[signed, algorithm, bits(&signature)]);
        der.extend(&self.trailing);
        der.into()
    }
}

/// A key with its certificate, able to sign.
pub(crate) struct Authority {
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    /// The root of a trust domain.
    pub(crate) fn root(domain: &str) -> Self {
        let name = format!("{domain} root");
        Self::self_signed(
            &Template::authority(&name, &format!("spiffe://{domain}"), -1)
                .period(-100 * HOUR, 1_000 * HOUR),
        )
    }

    pub(crate) fn self_signed(template: &Template) -> Self {
        let key = Key::p256();
        let der = template.sign(&key, &template.subject, &key);
        Self {
            name: template.subject.clone(),
            key,
            der,
        }
    }

    pub(crate) fn issue(&self, template: &Template) -> Self {
        let key = Key::p256();
        let der = template.sign(&key, &self.name, &self.key);
        Self {
            name: template.subject.clone(),
            key,
            der,
        }
    }

    pub(crate) fn bundle(&self, domain: &str) -> TrustBundle {
        let domain = TrustDomain::parse(domain).expect("a trust domain");
        TrustBundle::new(domain, vec![self.der.clone()]).expect("an anchor")
    }
}
