//! The certificate that webhooks are served with. Each injector signs its own with an authority that it forgets at once, so
//! there is no key to keep, to share or to steal; API servers learn the authority from the webhook configurations.

use crate::InjectorError;
use crate::limits::{LIFE, SKEW};
use mesh_cluster::names::NAMESPACE;
use mesh_platform::Platform;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;

/// Service that API servers call.
const SERVICE: &str = "mesh-injector";

/// A serving certificate, and the authority that vouches for it.
pub(crate) struct Authority {
    /// The authority's certificate, PEM: what belongs into `caBundle`.
    pub(crate) anchor: String,
    /// The certificate and its key, for TLS.
    pub(crate) key: Arc<CertifiedKey>,
    /// When it was made, seconds since 1970.
    pub(crate) made_at: i64,
}

impl Authority {
    /// Makes a new one, valid for [`LIFE`] from now.
    ///
    /// # Errors
    /// [`InjectorError::Certificate`]
    pub(crate) fn new(platform: &dyn Platform) -> Result<Self, InjectorError> {
        let made_at = platform.wall_clock().unix_secs();
        make(platform, made_at).map_err(|why| InjectorError::Certificate { why })
    }
}

fn make(platform: &dyn Platform, now: i64) -> Result<Authority, String> {
    let text = |error: rcgen::Error| error.to_string();
    let names = [
        format!("{SERVICE}.{NAMESPACE}.svc"),
        format!("{SERVICE}.{NAMESPACE}.svc.cluster.local"),
    ];

    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let mut ca = params(platform, now, "mesh-injector webhook authority", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Whoever got hold of it could only pass for this service.
    ca.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: Vec::new(),
    });
    let ca_cert = ca.self_signed(&ca_key).map_err(text)?;

    let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let mut leaf = params(platform, now, SERVICE, &names)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_cert = leaf
        .signed_by(&leaf_key, &Issuer::from_params(&ca, &ca_key))
        .map_err(text)?;

    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let signer = any_supported_type(&private).map_err(|error| error.to_string())?;
    let chain = vec![CertificateDer::from(leaf_cert.der().to_vec())];
    Ok(Authority {
        anchor: ca_cert.pem(),
        key: Arc::new(CertifiedKey::new(chain, signer)),
        made_at: now,
    })
}

fn params(
    platform: &dyn Platform,
    now: i64,
    name: &str,
    dns: &[String],
) -> Result<CertificateParams, String> {
    let mut out = CertificateParams::new(dns.to_vec()).map_err(|error| error.to_string())?;
    out.distinguished_name.push(DnType::CommonName, name);
    let begin = now.saturating_sub(seconds(SKEW));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |secs: i64| epoch + Duration::from_secs(u64::try_from(secs).unwrap_or(0));
    out.not_before = at(begin);
    out.not_after = at(now.saturating_add(seconds(LIFE)));
    let mut serial = [0; 16];
    platform.fill_random(&mut serial);
    // Positive, as RFC 5280 §4.1.2.2 wants it.
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    out.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(out)
}

/// Whole seconds, as times are counted.
pub(crate) fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// TLS for webhooks with whichever certificate `resolver` holds.
pub(crate) fn tls(
    resolver: Arc<dyn rustls::server::ResolvesServerCert>,
) -> Result<Arc<rustls::ServerConfig>, InjectorError> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| InjectorError::Certificate {
            why: error.to_string(),
        })?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
