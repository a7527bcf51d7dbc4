//! Base64 with one form for each value (RFC 4648 §4, with padding).

use data_encoding::BASE64;

/// Reads base64. The library also takes several padded texts one after the other; then one signature would have many
/// texts, and two programs could read the same line differently.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    (BASE64.encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_text() {
        assert_eq!(decode("YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(decode(""), Some(Vec::new()));
        for other in [
            "YQ==YQ==",
            "YQ",
            "YR==",
            "YQ==\n",
            " YQ==",
            "Y-==",
            "+xeMcTOAYQ8=+xeMcTOAYQ8=",
        ] {
            assert_eq!(decode(other), None, "{other:?}");
        }
    }
}
