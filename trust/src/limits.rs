//! Every limit of this crate, with its cost and reason.

/// Bytes of a SPIFFE ID (SPIFFE-ID §2.3: 2,048 must be accepted and more should not be made, so more is refused).
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;

/// Bytes of a trust domain name (SPIFFE-ID §2.3).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Certificates in a presented chain, leaf included. Real chains have two to four. The path builder tries orders of
/// intermediates: five that all could follow each other make it try 325, seven would make it try 13,699.
pub const CHAIN_CERTIFICATES_MAX: usize = 6;

/// Bytes of one certificate. An SVID of ours has about 600, an RSA-4096 authority about 2 KiB, one signed with ML-DSA-65
/// about 6 KiB.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Names in a leaf's subject alternative name. One is the SPIFFE ID; the rest are DNS names for clients outside the mesh.
pub const SAN_NAMES_MAX: usize = 64;

/// Extensions of one certificate. An SVID needs five or six.
pub const EXTENSIONS_MAX: usize = 32;

/// Octets of a serial number (RFC 5280 §4.1.2.2).
pub const SERIAL_BYTES_MAX: usize = 20;

/// Trust anchors of one trust domain. Two during a rotation; Go's verifier gives up at 100 signature checks, so a larger
/// bundle would break peers written in Go.
pub const ANCHORS_MAX: usize = 32;

/// Bytes of a bundle document, JSON or PEM: [`ANCHORS_MAX`] authorities of the largest size, in base64, and some air.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a bundle map: one bundle of the largest size, and 32 federated ones of 64 KiB each. Travels in messages of
/// gRPC, whose limit is 4 MiB.
pub const BUNDLE_MAP_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Keys in one bundle document, ignored ones included: X.509 anchors, JWT keys and kinds yet to come.
pub const BUNDLE_KEYS_MAX: usize = 256;

/// Trust domains in one bundle map.
pub const BUNDLES_MAX: usize = 256;

/// Bytes of a JWT-SVID. One of ours has about 500; a SPIFFE ID may have 2,048, an RSA-8192 signature 1,366.
pub const JWT_BYTES_MAX: usize = 16 * 1024;

/// Audiences of one token. Ours have one; more make a token that any of them can replay to the others.
pub const JWT_AUDIENCES_MAX: usize = 64;

/// Bytes of a key id in a bundle.
pub const JWT_KEY_ID_BYTES_MAX: usize = 256;

/// Octets of an RSA modulus: 2,048 to 8,192 bits.
pub const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// Entries of a deny list. About 200 bytes each in every proxy; beyond, an issuer
/// or an identity is what should be denied.
pub const DENIALS_MAX: usize = 10_000;

/// Bytes of a deny list as JSON: [`DENIALS_MAX`] entries with the longest of reasons.
pub const DENIALS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of the reason of a denial; more is cut.
pub const DENIAL_REASON_BYTES_MAX: usize = 256;

/// Bytes of a machine's name: a DNS name (RFC 1035 §2.3.4).
pub const NODE_NAME_BYTES_MAX: usize = 253;
