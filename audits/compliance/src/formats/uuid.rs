//! UUIDs made of names (RFC 9562 §5.5, version 5): the same subject has the same UUID in every report, so reports can be
//! compared.

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The namespace of this mesh's names: the UUID of `mesh.internal/audit` among URLs.
const NAMESPACE: [u8; 16] = [
    0x0b, 0x60, 0x4e, 0x0b, 0x6f, 0x0a, 0x5d, 0x7c, 0x9d, 0x52, 0x4e, 0x7a, 0x31, 0x4c, 0x6d, 0x5e,
];

/// The UUID of a name that has these parts.
pub(super) fn uuid(parts: &[&str]) -> String {
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    of_bytes(&NAMESPACE, &name)
}

fn of_bytes(namespace: &[u8; 16], name: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(namespace);
    context.update(name);
    let digest = context.finish();
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_comes_out() {
        // RFC 9562, appendix A.4: `www.example.com` among DNS names.
        let dns = [
            0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4,
            0x30, 0xc8,
        ];
        assert_eq!(
            of_bytes(&dns, b"www.example.com"),
            "2ed6657d-e927-568b-95e1-2665a8aea6a2"
        );
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(uuid(&["ab", "c"]), uuid(&["a", "bc"]));
    }
}
