//! PEM in one form only: what we write is what we read, octet for octet, so any change to a file is seen.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Label of private keys.
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of certificates.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// Label of certificate requests.
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";

/// One block, lines of 64 letters.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(der));
    // All at once: a string that grows would leave parts of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / 64 + 2 * label.len() + 48,
    ));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (column, letter) in body.chars().enumerate() {
        if column > 0 && column % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The content of the one block that `text` is, if it is in our form.
pub(crate) fn decode(label: &str, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(text).ok()?;
    let body: Zeroizing<String> =
        Zeroizing::new(text.lines().filter(|line| !line.starts_with('-')).collect());
    let der = Zeroizing::new(BASE64.decode(body.as_bytes()).ok()?);
    (encode(label, &der).as_str() == text).then_some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_form_is_read() {
        for length in [1usize, 47, 48, 49, 96, 138, 500] {
            let der: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let text = encode(PRIVATE_KEY, &der);
            assert_eq!(
                decode(PRIVATE_KEY, text.as_bytes()).unwrap().as_slice(),
                der
            );
            assert!(decode(CERTIFICATE, text.as_bytes()).is_none());
            assert!(
                mesh_trust::bundle::to_pem(&[der.clone().into()]) == *encode(CERTIFICATE, &der)
            );
            for at in 0..text.len() {
                let mut changed = text.as_bytes().to_vec();
                changed[at] ^= 1;
                assert!(
                    decode(PRIVATE_KEY, &changed).is_none_or(|read| *read != der),
                    "letter {at}"
                );
            }
            for cut in 0..text.len() {
                assert!(
                    decode(PRIVATE_KEY, &text.as_bytes()[..cut]).is_none(),
                    "cut at {cut}"
                );
            }
        }
    }
}
