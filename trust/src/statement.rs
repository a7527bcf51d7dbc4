//! Statements: what a workload says outside of a handshake, signed with the key of its SVID.
//!
//! The octets that are signed begin with a text of our own and with the purpose, so that no statement can be taken for
//! another, nor for a signature of TLS (which begins with 64 spaces, RFC 8446 §4.4.3). Whether the SVID is trusted, and
//! whose it should be, the receiver checks apart from this.

use crate::Svid;
use crate::tls::TlsIdentity;
use rustls::SignatureScheme;
use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::EndEntityCert;
use webpki::aws_lc_rs as algorithms;

const PREFIX: &[u8] = b"mesh statement v1\0";

/// For the keys that a leaf may have, in the order of [`ALGORITHMS`].
const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
];

static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 3] = [
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
];

/// Why a statement cannot be made or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum StatementError {
    /// The key did not sign.
    #[error("the key of the SVID did not sign: {why}")]
    #[diagnostic(
        code("MESH-0914"),
        help("this is a defect of the mesh; please report it")
    )]
    NotSigned {
        /// What the provider says.
        why: String,
    },
    /// The signature is not by the key of that SVID, or not over that statement.
    #[error("the statement is not signed by the key of `{id}`")]
    #[diagnostic(
        code("MESH-0915"),
        help("it was changed on its way or forged; look at who sent it")
    )]
    WrongSignature {
        /// Who was said to have signed.
        id: crate::SpiffeId,
    },
}

/// Signs `message` for `purpose`, a short name without NUL.
///
/// # Errors
/// [`StatementError::NotSigned`].
pub fn sign(
    identity: &TlsIdentity,
    purpose: &str,
    message: &[u8],
) -> Result<Vec<u8>, StatementError> {
    let not_signed = |why: String| StatementError::NotSigned { why };
    let signer = identity
        .signing_key()
        .choose_scheme(&SCHEMES)
        .ok_or_else(|| not_signed("no scheme fits the key".to_owned()))?;
    signer
        .sign(&octets(purpose, message))
        .map_err(|error| not_signed(error.to_string()))
}

/// Checks that the key in the leaf of `svid` signed `message` for `purpose`.
///
/// # Errors
/// [`StatementError::WrongSignature`].
pub fn verify(
    svid: &Svid,
    purpose: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), StatementError> {
    let wrong = || StatementError::WrongSignature {
        id: svid.id().clone(),
    };
    let leaf = svid.chain().first().ok_or_else(wrong)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| wrong())?;
    let octets = octets(purpose, message);
    let fits = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        leaf.verify_signature(*algorithm, &octets, signature)
            .is_ok()
    };
    if ALGORITHMS.iter().any(fits) {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn octets(purpose: &str, message: &[u8]) -> Vec<u8> {
    [PREFIX, purpose.as_bytes(), b"\0", message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{Authority, Key, Template};

    fn identity(root: &Authority, id: &str, key: Key) -> TlsIdentity {
        let leaf = Template::leaf(id).sign(&key, &root.name, &root.key);
        TlsIdentity::new(Svid::parse(vec![leaf]).unwrap(), key.private()).unwrap()
    }

    #[test]
    fn a_statement_is_believed_only_as_it_was_made_and_by_whom() {
        let root = Authority::root("td");
        for make in [Key::p256, Key::p384, Key::ed25519] {
            let one = identity(&root, "spiffe://td/ns/a/sa/b", make());
            let other = identity(&root, "spiffe://td/ns/a/sa/b", make());
            let signature = sign(&one, "acknowledge", b"generation 2").unwrap();
            verify(one.svid(), "acknowledge", b"generation 2", &signature).unwrap();
            for (svid, purpose, message) in [
                (other.svid(), "acknowledge", &b"generation 2"[..]),
                (one.svid(), "acknowledge", b"generation 3"),
                (one.svid(), "withdraw", b"generation 2"),
                (one.svid(), "", b"generation 2"),
            ] {
                let found = verify(svid, purpose, message, &signature);
                assert!(
                    matches!(found, Err(StatementError::WrongSignature { .. })),
                    "{purpose}"
                );
            }
            for at in 0..signature.len() {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(
                    verify(one.svid(), "acknowledge", b"generation 2", &changed).is_err(),
                    "octet {at}"
                );
            }
        }
    }
}
