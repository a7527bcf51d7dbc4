//! The little DER that is written by hand.

/// Tag of a SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// Tag of a BIT STRING.
pub(crate) const BIT_STRING: u8 = 3;
/// Tag of an OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 4;

/// `AlgorithmIdentifier` of ECDSA with SHA-256, and with SHA-384 (RFC 5758 §3.2).
pub(crate) const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];

/// A value of at most 65,535 octets.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head: &[u8] = match content.len() {
        0..=0x7f => &[tag, low],
        0x80..=0xff => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    [head, content].concat()
}
