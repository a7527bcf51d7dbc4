//! A little PKI of the Web, for endpoints of profile `https_web`.

use super::super::endpoint::EndpointProof;
use mesh_platform::files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// A root, and what it signs.
pub(super) struct Pki(CertifiedIssuer<'static, KeyPair>);

/// Years of a certificate's validity.
pub(super) type Years = (i32, i32);

/// In force.
pub(super) const NOW: Years = (2020, 2120);
/// Over.
pub(super) const OVER: Years = (2020, 2021);

fn params(name: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    params
}

fn write(path: &Path, text: &str) {
    files::write_atomic(path, text.as_bytes(), 0o600).unwrap();
}

impl Pki {
    pub(super) fn new(name: &str) -> Self {
        let mut params = params(name, NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A root of a trust domain, for bundles.
    pub(super) fn root_of(domain: &str) -> CertificateDer<'static> {
        let mut params = params(domain, NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let uri = rcgen::SanType::URI(format!("spiffe://{domain}").try_into().unwrap());
        params.subject_alt_names = vec![uri];
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    /// A certificate for these names, and its key.
    pub(super) fn certificate(
        &self,
        names: &[&str],
        years: Years,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let (certificate, key) = self.made(names, years);
        (
            certificate.der().clone(),
            key.serialize_der().try_into().unwrap(),
        )
    }

    fn made(&self, names: &[&str], years: Years) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = params("endpoint", years);
        params.subject_alt_names = CertificateParams::new(names).unwrap().subject_alt_names;
        params.is_ca = IsCa::NoCa;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Files of a certificate for these names below `dir`.
    pub(super) fn endpoint(&self, dir: &Path, names: &[&str]) -> EndpointProof {
        let (certificate, key) = self.made(names, NOW);
        let (chain, private) = (dir.join("endpoint.pem"), dir.join("endpoint.key"));
        write(&chain, &certificate.pem());
        write(&private, &key.serialize_pem());
        EndpointProof::Certificate {
            chain,
            key: private,
        }
    }

    /// A file of the root below `dir`; its path.
    pub(super) fn roots_in(&self, dir: &Path) -> String {
        let path = dir.join("roots.pem");
        write(&path, &self.0.pem());
        path.display().to_string()
    }
}
