//! One certificate, read once: the facts that the rules for leaves and for authorities are about.
//!
//! Says what a certificate holds, not whether that is right; [`crate::svid`] and [`crate::authority`] judge. What no
//! certificate in a mesh may have (oversize, doubled or unknown critical extensions, NUL in names) is refused here.

use crate::Timestamp;
use crate::limits::{CERTIFICATE_BYTES_MAX, EXTENSIONS_MAX, SAN_NAMES_MAX, SERIAL_BYTES_MAX};
use std::borrow::Cow;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::extensions::{
    BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, SubjectAlternativeName,
    X509Extension,
};
use x509_parser::nom::Parser;
use x509_parser::prelude::{AlgorithmIdentifier, FromDer, SubjectPublicKeyInfo};

/// Why bytes are no certificate that a mesh could use, in whatever place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CertificateError {
    /// More bytes than [`CERTIFICATE_BYTES_MAX`].
    #[error("a certificate of `{bytes}` bytes; the limit is {CERTIFICATE_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0120"),
        help("no SVID and no authority of a mesh is that large: look at who sent it")
    )]
    TooLarge {
        /// Size found.
        bytes: usize,
    },
    /// Not DER, not X.509 version 3, or bytes left over.
    #[error("not a DER certificate of X.509 version 3: cannot read its `{part}`")]
    #[diagnostic(
        code("MESH-0121"),
        help("look at it with `openssl x509 -inform DER -text`")
    )]
    Malformed {
        /// The part that could not be read.
        part: &'static str,
    },
    /// More extensions than [`EXTENSIONS_MAX`].
    #[error("a certificate with `{count}` extensions; the limit is {EXTENSIONS_MAX}")]
    #[diagnostic(code("MESH-0122"), help("an SVID needs five or six"))]
    TooManyExtensions {
        /// Extensions found.
        count: usize,
    },
    /// The same extension twice (RFC 5280 §4.2).
    #[error("the certificate has extension `{oid}` twice")]
    #[diagnostic(
        code("MESH-0123"),
        help("readers would disagree which one counts; issue it anew")
    )]
    DoubledExtension {
        /// Object identifier, dotted.
        oid: String,
    },
    /// A critical extension that we do not enforce (RFC 5280 §4.2).
    #[error("the certificate has critical extension `{oid}`, which is not known here")]
    #[diagnostic(
        code("MESH-0124"),
        help("issue it without the extension, or with the extension not critical")
    )]
    UnknownCriticalExtension {
        /// Object identifier, dotted.
        oid: String,
    },
    /// A serial number that is zero, negative, over 20 octets (RFC 5280 §4.1.2.2) or not in shortest form.
    #[error(
        "the serial number `{serial}` is zero, negative, longer than {SERIAL_BYTES_MAX} octets or padded"
    )]
    #[diagnostic(
        code("MESH-0125"),
        help("issue the certificate anew with a positive random serial")
    )]
    Serial {
        /// The octets, hex.
        serial: String,
    },
    /// `notAfter` before `notBefore`.
    #[error("the certificate ends at `{not_after}`, before it begins at `{not_before}`")]
    #[diagnostic(code("MESH-0126"), help("issue it anew"))]
    Validity {
        /// First moment.
        not_before: Timestamp,
        /// Last moment.
        not_after: Timestamp,
    },
    /// More names than [`SAN_NAMES_MAX`].
    #[error("the certificate has more than {SAN_NAMES_MAX} names")]
    #[diagnostic(code("MESH-0127"), help("an SVID needs one, its SPIFFE ID"))]
    TooManyNames,
    /// A name that readers could read differently: NUL or other control characters, non-ASCII, or not readable at all.
    #[error(
        "a subject alternative name of kind `{kind}` holds NUL, control or non-ASCII characters, or cannot be read"
    )]
    #[diagnostic(
        code("MESH-0128"),
        help("readers would disagree where it ends; issue the certificate anew")
    )]
    Name {
        /// Which choice of GeneralName.
        kind: &'static str,
    },
    /// A key of a kind that a mesh does not use.
    #[error("the public key is `{found}`")]
    #[diagnostic(
        code("MESH-0129"),
        help(
            "SVIDs have P-256, P-384 or Ed25519 keys, named, not spelled out; authorities may have RSA of 2048 to 8192 bits too"
        )
    )]
    Key {
        /// What it is.
        found: String,
    },
    /// Signed with an algorithm that is not trusted here, such as SHA-1 or MD5.
    #[error("the certificate is signed with `{oid}`, which is not trusted")]
    #[diagnostic(
        code("MESH-0130"),
        help("have it signed with ECDSA, Ed25519 or RSA, and SHA-256 or better")
    )]
    SignatureAlgorithm {
        /// Object identifier, dotted.
        oid: String,
    },
}

/// What one certificate says.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) subject_is_empty: bool,
    pub(crate) key: Key<'a>,
    pub(crate) extensions: Extensions<'a>,
}

/// The extensions that the rules look at.
#[derive(Debug, Default)]
pub(crate) struct Extensions<'a> {
    /// `cA`; false without the extension.
    pub(crate) authority: bool,
    pub(crate) key_usage: Option<(KeyUsage, IsCritical)>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage<'a>>,
    pub(crate) uris: Vec<&'a str>,
    pub(crate) names_critical: bool,
}

pub(crate) type IsCritical = bool;

/// A public key of a kind that some certificate of a mesh may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// Uncompressed point without its leading 4: x, then y.
    P256(&'a [u8]),
    P384(&'a [u8]),
    Ed25519(&'a [u8]),
    /// Modulus and exponent, big-endian, no leading zeros; 2,048 to 8,192 bits.
    Rsa(&'a [u8], &'a [u8]),
}

/// Object identifiers as DER content octets.
mod oid {
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    pub(super) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    /// ecdsa-with-SHA256, -384, -512; Ed25519; RSASSA-PSS; sha256-, sha384-, sha512WithRSAEncryption.
    pub(super) const SIGNATURES: [&[u8]; 8] = [
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        ED25519,
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
    ];
    pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub(super) const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    /// Left to the path builder, which enforces it on what an authority signs.
    pub(super) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
    pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
}

impl<'a> Certificate<'a> {
    /// Reads `der`, all of it.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge { bytes: der.len() });
        }
        let parsed = X509CertificateParser::new()
            .with_deep_parse_extensions(false)
            .parse(der);
        let Ok(([], certificate)) = parsed else {
            return Err(CertificateError::Malformed { part: "structure" });
        };
        if certificate.version() != x509_parser::x509::X509Version::V3 {
            return Err(CertificateError::Malformed { part: "version" });
        }
        let signature = certificate.signature_algorithm.algorithm.as_bytes();
        if !oid::SIGNATURES.contains(&signature)
            || certificate.tbs_certificate.signature != certificate.signature_algorithm
        {
            return Err(CertificateError::SignatureAlgorithm {
                oid: certificate.signature_algorithm.algorithm.to_id_string(),
            });
        }
        let (not_before, not_after) = validity(&certificate)?;
        Ok(Self {
            serial: serial(certificate.raw_serial())?,
            not_before,
            not_after,
            subject_is_empty: certificate.subject().iter().next().is_none(),
            key: Key::parse(&certificate.tbs_certificate.subject_pki)?,
            extensions: Extensions::parse(certificate.extensions())?,
        })
    }

    /// Serial number, lower-case hex, two digits an octet, without the zero octet that only carries the sign.
    pub(crate) fn serial_hex(&self) -> String {
        hex(self.serial)
    }
}

/// The magnitude of a serial number. In shortest form only, else one certificate would have many serials.
fn serial(raw: &[u8]) -> Result<&[u8], CertificateError> {
    let magnitude = match raw {
        [0, rest @ ..] if rest.first().is_some_and(|next| next & 0x80 != 0) => Some(rest),
        [1..=0x7f, ..] => Some(raw),
        _ => None,
    };
    match magnitude {
        Some(magnitude) if magnitude.len() <= SERIAL_BYTES_MAX => Ok(magnitude),
        _ => Err(CertificateError::Serial {
            serial: hex(raw.get(..SERIAL_BYTES_MAX).unwrap_or(raw)),
        }),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Result<(Timestamp, Timestamp), CertificateError> {
    let not_before = Timestamp::from_unix_secs(certificate.validity().not_before.timestamp());
    let not_after = Timestamp::from_unix_secs(certificate.validity().not_after.timestamp());
    if not_after < not_before {
        return Err(CertificateError::Validity {
            not_before,
            not_after,
        });
    }
    Ok((not_before, not_after))
}

impl<'a> Key<'a> {
    fn parse(info: &SubjectPublicKeyInfo<'a>) -> Result<Self, CertificateError> {
        let bytes = whole_bytes(info)?;
        match info.algorithm.algorithm.as_bytes() {
            oid::EC_PUBLIC_KEY => Self::named_curve(&info.algorithm, bytes),
            oid::ED25519 if info.algorithm.parameters.is_none() && bytes.len() == 32 => {
                Ok(Self::Ed25519(bytes))
            }
            oid::RSA => Self::rsa(bytes),
            _ => Err(CertificateError::Key {
                found: format!("of algorithm {}", info.algorithm.algorithm.to_id_string()),
            }),
        }
    }

    fn named_curve(
        algorithm: &AlgorithmIdentifier<'a>,
        bytes: &'a [u8],
    ) -> Result<Self, CertificateError> {
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok());
        let Some(curve) = curve else {
            return Err(CertificateError::Key {
                found: "elliptic, on a curve that is not named".to_owned(),
            });
        };
        match (curve.as_bytes(), bytes) {
            (oid::P256, [4, point @ ..]) if point.len() == 64 => Ok(Self::P256(point)),
            (oid::P384, [4, point @ ..]) if point.len() == 96 => Ok(Self::P384(point)),
            (oid::P256 | oid::P384, _) => Err(CertificateError::Key {
                found: "elliptic, not an uncompressed point".to_owned(),
            }),
            _ => Err(CertificateError::Key {
                found: format!("elliptic, on curve {}", curve.to_id_string()),
            }),
        }
    }

    fn rsa(bytes: &'a [u8]) -> Result<Self, CertificateError> {
        let Ok(([], key)) = x509_parser::public_key::RSAPublicKey::from_der(bytes) else {
            return Err(CertificateError::Malformed { part: "RSA key" });
        };
        let strip = |number: &'a [u8]| {
            number
                .iter()
                .position(|byte| *byte != 0)
                .and_then(|at| number.get(at..))
                .unwrap_or(&[])
        };
        let (modulus, exponent) = (strip(key.modulus), strip(key.exponent));
        let bits = modulus.len() * 8
            - modulus
                .first()
                .map_or(0, |first| first.leading_zeros() as usize);
        if !(2_048..=8_192).contains(&bits) {
            return Err(CertificateError::Key {
                found: format!("RSA of {bits} bits"),
            });
        }
        Ok(Self::Rsa(modulus, exponent))
    }
}

/// The bits of a public key, which must fill bytes.
fn whole_bytes<'a>(info: &SubjectPublicKeyInfo<'a>) -> Result<&'a [u8], CertificateError> {
    match &info.subject_public_key.data {
        Cow::Borrowed(bytes) if info.subject_public_key.unused_bits == 0 => Ok(bytes),
        _ => Err(CertificateError::Malformed { part: "public key" }),
    }
}

impl<'a> Extensions<'a> {
    fn parse(list: &[X509Extension<'a>]) -> Result<Self, CertificateError> {
        if list.len() > EXTENSIONS_MAX {
            return Err(CertificateError::TooManyExtensions { count: list.len() });
        }
        let mut read = Self::default();
        for (at, extension) in list.iter().enumerate() {
            if list
                .iter()
                .take(at)
                .any(|earlier| earlier.oid == extension.oid)
            {
                return Err(CertificateError::DoubledExtension {
                    oid: extension.oid.to_id_string(),
                });
            }
            read.add(extension)?;
        }
        Ok(read)
    }

    fn add(&mut self, extension: &X509Extension<'a>) -> Result<(), CertificateError> {
        match extension.oid.as_bytes() {
            oid::BASIC_CONSTRAINTS => {
                self.authority = whole(
                    BasicConstraints::from_der(extension.value),
                    "basic constraints",
                )?
                .ca;
            }
            oid::KEY_USAGE => {
                self.key_usage = Some((
                    whole(KeyUsage::from_der(extension.value), "key usage")?,
                    extension.critical,
                ));
            }
            oid::EXTENDED_KEY_USAGE => {
                self.extended_key_usage = Some(whole(
                    ExtendedKeyUsage::from_der(extension.value),
                    "extended key usage",
                )?);
            }
            oid::SUBJECT_ALTERNATIVE_NAME => {
                let names = whole(
                    SubjectAlternativeName::from_der(extension.value),
                    "subject alternative name",
                )?;
                self.uris = uris(&names.general_names)?;
                self.names_critical = extension.critical;
            }
            oid::NAME_CONSTRAINTS => {}
            _ if extension.critical => {
                return Err(CertificateError::UnknownCriticalExtension {
                    oid: extension.oid.to_id_string(),
                });
            }
            _ => {}
        }
        Ok(())
    }
}

/// The value, if it filled its octets to the end.
fn whole<T, E>(parsed: Result<(&[u8], T), E>, part: &'static str) -> Result<T, CertificateError> {
    match parsed {
        Ok(([], value)) => Ok(value),
        _ => Err(CertificateError::Malformed { part }),
    }
}

/// The URIs among `names`; any name of any kind that could be read in two ways is refused (TL16).
fn uris<'a>(names: &[GeneralName<'a>]) -> Result<Vec<&'a str>, CertificateError> {
    if names.len() > SAN_NAMES_MAX {
        return Err(CertificateError::TooManyNames);
    }
    let mut uris = Vec::with_capacity(1);
    for name in names {
        let (kind, clean) = match name {
            GeneralName::URI(text) => {
                uris.push(*text);
                // The grammar of SPIFFE IDs refuses with more to say, so anything but NUL is left to it.
                ("URI", !text.contains('\0'))
            }
            GeneralName::DNSName(text) => {
                ("DNS name", text.bytes().all(|byte| byte.is_ascii_graphic()))
            }
            GeneralName::RFC822Name(text) => (
                "e-mail address",
                text.bytes().all(|byte| byte.is_ascii_graphic()),
            ),
            GeneralName::OtherName(_, value) => ("other name", !value.contains(&0)),
            GeneralName::IPAddress(address) => ("IP address", matches!(address.len(), 4 | 16)),
            GeneralName::DirectoryName(_) | GeneralName::RegisteredID(_) => {
                ("directory name", true)
            }
            GeneralName::X400Address(_) => ("X.400 address", false),
            GeneralName::EDIPartyName(_) => ("EDI party name", false),
            GeneralName::Invalid(..) => ("unreadable", false),
        };
        if !clean {
            return Err(CertificateError::Name { kind });
        }
    }
    Ok(uris)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
