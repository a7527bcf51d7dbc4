//! What rustls calls in a handshake. The leaf is read once, nothing is copied, nothing is cached.

use super::{ExpectedPeer, PROVIDER, PeerRefusal};
use crate::Timestamp;
use crate::bundle::TrustBundles;
use crate::limits::CHAIN_CERTIFICATES_MAX;
use crate::path::VerifiedPeer;
use crate::svid::{self, LeafFacts, SvidError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// A server's view of its clients.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) bundles: Arc<TrustBundles>,
    /// Whether a client may come without any certificate. One that it does show must be trusted all the same.
    pub(super) strangers: bool,
}

/// A client's view of the servers it dials.
#[derive(Debug)]
pub(super) enum Servers {
    /// One of these must answer, with a chain to an anchor of its domain.
    Known {
        bundles: Arc<TrustBundles>,
        expected: ExpectedPeer,
    },
    /// There are no anchors yet: anybody may answer, and nothing that they say is believed for it.
    Anybody,
}

/// Schemes for the signature in the handshake itself: those of the keys that a leaf may have.
const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
];

pub(super) fn verify(
    bundles: &TrustBundles,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<VerifiedPeer, PeerRefusal> {
    if intermediates.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(SvidError::ChainTooLong {
            count: intermediates.len() + 1,
        }
        .into());
    }
    svid::check_sizes(intermediates)?;
    let facts = LeafFacts::parse(leaf)?;
    let now = Timestamp::from_unix_secs(now.as_secs().try_into().unwrap_or(i64::MAX));
    Ok(bundles.verify_leaf(leaf, facts, intermediates, now)?)
}

/// The peer learns only that its certificate was refused; our side finds the reason with [`super::refusal`].
fn refuse(refusal: PeerRefusal) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

fn verify_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(
        message,
        leaf,
        signed,
        &PROVIDER.signature_verification_algorithms,
    )
}

/// TLS 1.2 is never negotiated; should it be, nothing is valid.
fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOffered.into())
}

impl ClientCertVerifier for Clients {
    /// No hints: a client has one SVID, and the list would tell strangers whom we trust.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.strangers
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify(&self.bundles, end_entity, intermediates, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Self::Known { bundles, expected } = self else {
            return Ok(ServerCertVerified::assertion());
        };
        let peer = verify(bundles, end_entity, intermediates, now).map_err(refuse)?;
        if !expected.accepts(peer.id()) {
            return Err(refuse(PeerRefusal::Unexpected {
                found: peer.id().clone(),
                expected: expected.clone(),
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
