//! Fields of heads and trailers, read out of a block of whole lines without copying their values; and what `Connection`
//! says in them.

use bytes::Bytes;
use http::Version;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

/// Reads `count` fields from `at` on; every line of the block ends in CR LF. `each` is told of each field, and may refuse
/// it. `None`: one is malformed, or refused. Values are slices of the block: nothing is copied.
pub(super) fn fields(
    block: &Bytes,
    mut at: usize,
    count: usize,
    mut each: impl FnMut(&HeaderName, &[u8]) -> Option<()>,
) -> Option<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(count);
    for _ in 0..count {
        let rest = block.get(at..)?;
        let length = memchr(b'\n', rest)?;
        let line = rest.get(..length.checked_sub(1)?)?;
        let colon = memchr(b':', line)?;
        // A blank in or after the name, or at the beginning of a folded line, makes no name.
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = line.get(colon + 1..)?;
        let begins = value.iter().take_while(|byte| is_blank(**byte)).count();
        let blanks = value.iter().rev().take_while(|byte| is_blank(**byte));
        let ends = value.len() - blanks.count().min(value.len() - begins);
        each(&name, value.get(begins..ends)?)?;
        let start = at + colon + 1;
        let value = block.slice(start + begins..start + ends);
        fields.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        at += length + 1;
    }
    Some(fields)
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether `Connection` lists a word.
pub(super) fn says(headers: &HeaderMap, word: &[u8]) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| lists(value.as_bytes(), word))
}

/// Whether a value of `Connection` lists a word.
pub(super) fn lists(value: &[u8], word: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
}

/// Whether a connection outlives a message of these fields (RFC 9112 §9.3).
pub(super) fn persists(version: Version, headers: &HeaderMap) -> bool {
    !says(headers, b"close") && (version == Version::HTTP_11 || says(headers, b"keep-alive"))
}
