//! Issuers and roots that others keep: cert-manager's Secrets, root bundles, its CertificateRequests. No IO.
//!
//! - [`source`]: from the data of a Secret, ConfigMap or bundle to certificates and key; start at [`source::issuer_from`]
//! - [`preflight`]: whether an issuer can be adopted, with every constraint that it breaks; start at [`preflight::check`]
//! - [`staging`]: what becomes of an issuer each time it is read; start at [`staging::decide`]
//! - [`request`]: what becomes of a CertificateRequest that names us as its issuer; start at [`request::decide`]
//!
//! What passes the preflight is staged, never loaded at once: its root goes through a rotation like one of our own.

pub mod preflight;
pub mod request;
pub mod source;
pub mod staging;

use mesh_trust::{Timestamp, TrustDomain};

/// Why an issuer or a set of roots cannot be adopted: one constraint each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum AdoptionError {
    /// A key of the Secret or ConfigMap is missing.
    #[error("it has none of the keys {wanted}")]
    #[diagnostic(
        code("MESH-0906"),
        help(
            "a Secret of type kubernetes.io/tls has `tls.crt` and `tls.key`; Linkerd's has `crt.pem` and `key.pem`"
        )
    )]
    NoKey {
        /// Keys that are looked for.
        wanted: &'static str,
    },
    /// Not PEM, or without certificate.
    #[error("its {what} cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0907"),
        help("it must be PEM: `BEGIN CERTIFICATE`, and for the key PKCS #8 or SEC1")
    )]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// What the reader met.
        why: String,
    },
    /// A private key where roots are.
    #[error("its roots come with a private key")]
    #[diagnostic(
        code("MESH-0908"),
        help(
            "give the certificates alone, from a ConfigMap or a bundle, and treat that key as exposed"
        )
    )]
    PrivateKeyAmongRoots,
    /// `cA` is not true.
    #[error("certificate {position} of the issuer's chain is no certificate authority")]
    #[diagnostic(code("MESH-0909"), help("set `isCA: true` in the Certificate"))]
    NotAuthority {
        /// From 0, the issuer.
        position: usize,
    },
    /// `pathLen` forbids what stands below.
    #[error(
        "certificate {position} of the chain has pathLen {found}, and {needed} authorities stand below it"
    )]
    #[diagnostic(code("MESH-0929"), help("issue it with a larger pathLen, or without"))]
    PathLength {
        /// From 0, the issuer; the root is past the chain's end.
        position: usize,
        /// In the certificate.
        found: u32,
        /// Authorities below.
        needed: u32,
    },
    /// Key usage without `keyCertSign`.
    #[error("certificate {position} of the issuer's chain lacks keyCertSign")]
    #[diagnostic(
        code("MESH-0935"),
        help("add `cert sign` to the usages of the Certificate")
    )]
    NoCertSign {
        /// From 0, the issuer.
        position: usize,
    },
    /// Certificate and key of different pairs.
    #[error("the private key is not the issuer's")]
    #[diagnostic(
        code("MESH-0936"),
        help(
            "certificate and key come from different renewals; wait for the next one, or delete the Secret"
        )
    )]
    KeyMismatch,
    /// A key that we do not sign with.
    #[error("the issuer's key is not on P-256 or P-384")]
    #[diagnostic(
        code("MESH-0937"),
        help("set `privateKey: {{algorithm: ECDSA, size: 256}}` in the Certificate")
    )]
    KeyKind,
    /// No root signed for it.
    #[error("no root of the bundle signed `{subject}`")]
    #[diagnostic(
        code("MESH-0938"),
        help("put the root of that issuer into the bundle first")
    )]
    RootAbsent {
        /// The topmost certificate of the chain.
        subject: String,
    },
    /// A chain whose parts do not follow each other.
    #[error("certificate {position} of the chain did not sign the one before it")]
    #[diagnostic(
        code("MESH-0939"),
        help("`tls.crt` has the issuer first, then each authority above it")
    )]
    ChainBroken {
        /// From 0, the issuer.
        position: usize,
    },
    /// Not in force.
    #[error(
        "certificate {position} of the chain counts from {not_before} to {not_after}, and it is {now}"
    )]
    #[diagnostic(
        code("MESH-0944"),
        help("have it renewed; look at the clock (`date -u`)")
    )]
    NotInForce {
        /// From 0, the issuer.
        position: usize,
        /// First moment.
        not_before: Timestamp,
        /// Last moment.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// Not long enough in force for its leaves.
    #[error(
        "certificate {position} of the chain has {left_secs} s left; twice the life of a leaf is {needed_secs} s"
    )]
    #[diagnostic(
        code("MESH-0945"),
        help("have it renewed earlier (`renewBefore`), or shorten `--svid-ttl`")
    )]
    EndsTooSoon {
        /// From 0, the issuer.
        position: usize,
        /// Seconds until its end.
        left_secs: u64,
        /// Seconds wanted.
        needed_secs: u64,
    },
    /// The same key again and again.
    #[error("the Certificate has rotationPolicy Never: each renewal certifies the same key")]
    #[diagnostic(
        code("MESH-0946"),
        help(
            "set `privateKey.rotationPolicy: Always`; before cert-manager 1.18 the default is Never"
        )
    )]
    RotationNever,
    /// An intermediate among the roots.
    #[error("`{subject}` stands among the roots and is not self-signed")]
    #[diagnostic(
        code("MESH-0947"),
        help("only roots belong into the bundle: intermediates come with `tls.crt`")
    )]
    IntermediateAmongRoots {
        /// Its subject.
        subject: String,
    },
    /// Refused by our own verifiers, or of a kind that this CA cannot use.
    #[error("certificate {position} of the chain cannot sign for trust domain `{domain}`: {why}")]
    #[diagnostic(
        code("MESH-0958"),
        help(
            "an authority carries no SPIFFE ID or `spiffe://<trust domain>`, a subject, a subject key identifier, and, the issuer and the root, a key on P-256 or P-384"
        )
    )]
    Unfit {
        /// From 0, the issuer; the root is past the chain's end.
        position: usize,
        /// Whose identities it would sign.
        domain: TrustDomain,
        /// The rule broken.
        why: String,
    },
    /// The root's own key.
    #[error("the issuer is the root `{subject}` itself")]
    #[diagnostic(
        code("MESH-0948"),
        help(
            "have the root sign an intermediate (a second Issuer of kind CA), and give that one's Secret"
        )
    )]
    RootKey {
        /// Its subject.
        subject: String,
    },
}

#[cfg(test)]
mod tests;
