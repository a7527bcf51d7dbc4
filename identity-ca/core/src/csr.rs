//! A certificate request (PKCS #10, RFC 2986): a public key and the proof that its sender holds the private half.
//!
//! Nothing else is read from it. Names, `cA`, key usages and every other wish of the sender are without effect: what
//! a certificate says comes from attestation. So the only way a request can do harm is its parser, which is bounded.

use crate::der::{BIT_STRING, ECDSA_SHA256, ECDSA_SHA384, SEQUENCE};
use crate::issue::{Signer, SignerFailed};
use crate::key::{KeyError, PublicKey};
use crate::limits::CSR_BYTES_MAX;
use rcgen::{CertificateParams, PublicKeyData, SigningKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum CsrError {
    /// Refused before it is read.
    #[error("a certificate request of {bytes} bytes; the limit is {CSR_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0204"),
        help("a request needs a key and a signature only; names in it are ignored")
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not PKCS #10, or bytes after it.
    #[error("the certificate request is not readable DER")]
    #[diagnostic(
        code("MESH-0205"),
        help(
            "send one DER-encoded PKCS #10 request, for instance of `openssl req -new -outform DER`"
        )
    )]
    Malformed,
    /// The key may not be certified.
    #[error("the key of the certificate request is refused")]
    #[diagnostic(transparent)]
    Key(#[from] KeyError),
    /// The sender does not hold the key.
    #[error("the certificate request is not signed by its own key")]
    #[diagnostic(
        code("MESH-0206"),
        help("sign the request with the private half of the key in it")
    )]
    NotPossessed,
}

/// Reads a request: its key, if its sender holds it.
///
/// # Errors
/// [`CsrError`].
pub fn parse(der: &[u8]) -> Result<PublicKey, CsrError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLarge { bytes: der.len() });
    }
    let content = content_of_sequence(der).ok_or(CsrError::Malformed)?;
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let key = PublicKey::from_info(&request.certification_request_info.subject_pki)?;
    let tail = content
        .get(request.certification_request_info.raw.len()..)
        .unwrap_or_default();
    let signature = &request.signature_value.data;
    if ![ECDSA_SHA256, ECDSA_SHA384]
        .iter()
        .any(|algorithm| is_signature(tail, algorithm, signature))
    {
        return Err(CsrError::Malformed);
    }
    request
        .verify_signature()
        .map_err(|_| CsrError::NotPossessed)?;
    Ok(key)
}

/// Makes a request for the key of `signer`, DER: it and the proof, no names.
///
/// # Errors
/// [`SignerFailed`].
pub fn make(signer: &dyn Signer) -> Result<Vec<u8>, SignerFailed> {
    let hand = Hand(signer);
    let request = CertificateParams::default().serialize_request(&hand);
    let request = request.map_err(|error| SignerFailed(error.to_string()))?;
    Ok(request.der().to_vec())
}

/// A signer as the encoder takes it.
struct Hand<'a>(&'a dyn Signer);

impl PublicKeyData for Hand<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.public_key().algorithm()
    }
}

impl SigningKey for Hand<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.0.sign(message);
        signed.map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Whether `tail` is this algorithm and this signature, in DER and nothing else. The signature covers what stands
/// before it, but not this part, and readers are lenient here.
fn is_signature(tail: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
    let Some([BIT_STRING, length, 0, rest @ ..]) = tail.strip_prefix(algorithm) else {
        return false;
    };
    *length < 0x80 && usize::from(*length) == signature.len() + 1 && rest == signature
}

/// What stands in the outermost value, if that is a SEQUENCE of definite, shortest length that ends with the bytes.
fn content_of_sequence(der: &[u8]) -> Option<&[u8]> {
    let (length, content) = match der {
        [SEQUENCE, short, content @ ..] if *short < 0x80 => (usize::from(*short), content),
        [SEQUENCE, 0x81, byte, content @ ..] if *byte >= 0x80 => (usize::from(*byte), content),
        [SEQUENCE, 0x82, high, low, content @ ..] if *high > 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])), content)
        }
        _ => return None,
    };
    (length == content.len()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestKey;

    #[test]
    fn a_request_that_we_make_is_one_that_we_read() {
        let key = TestKey::new();
        assert_eq!(parse(&make(&key).unwrap()), Ok(key.public));
    }

    use rcgen::{BasicConstraints, DnType, IsCa, KeyUsagePurpose, SanType};

    fn request(params: &CertificateParams, key: &TestKey) -> Vec<u8> {
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_yields_its_key_whatever_else_it_asks_for() {
        let key = TestKey::new();
        let mut params = CertificateParams::default();
        assert_eq!(parse(&request(&params, &key)), Ok(key.public.clone()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "root of everything".repeat(40));
        params.subject_alt_names = vec![
            SanType::URI(
                "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller"
                    .try_into()
                    .unwrap(),
            ),
            SanType::DnsName("*".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name("root@localhost".try_into().unwrap()),
        ];
        assert_eq!(parse(&request(&params, &key)), Ok(key.public.clone()));
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (victim, thief) = (TestKey::new(), TestKey::new());
        let genuine = request(&CertificateParams::default(), &victim);
        let point = genuine
            .windows(65)
            .position(|window| window == victim.public.point())
            .unwrap();
        let mut stolen = request(&CertificateParams::default(), &thief);
        stolen[point..point + 65].copy_from_slice(victim.public.point());
        assert_eq!(parse(&stolen), Err(CsrError::NotPossessed));
    }

    #[test]
    fn every_flipped_octet_is_refused() {
        let good = request(&CertificateParams::default(), &TestKey::new());
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x01;
            assert!(parse(&changed).is_err(), "octet {at} changed");
        }
    }

    #[test]
    fn trailing_bytes_sizes_and_indefinite_lengths_are_refused() {
        let good = request(&CertificateParams::default(), &TestKey::new());
        assert_eq!(parse(&[&good[..], &[0]].concat()), Err(CsrError::Malformed));
        assert_eq!(
            parse(&vec![0x30; 1 << 20]),
            Err(CsrError::TooLarge { bytes: 1 << 20 })
        );
        let inner = match &good[..] {
            [0x30, 0x81, _, inner @ ..] | [0x30, 0x82, _, _, inner @ ..] => inner,
            _ => panic!("a short request"),
        };
        assert_eq!(
            parse(&[&[0x30, 0x80][..], inner, &[0, 0]].concat()),
            Err(CsrError::Malformed)
        );
        let length = inner.len() as u32;
        assert_eq!(
            parse(&[&[0x30, 0x84][..], &length.to_be_bytes(), inner].concat()),
            Err(CsrError::Malformed)
        );
        assert_eq!(parse(&[]), Err(CsrError::Malformed));
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
    }
}
