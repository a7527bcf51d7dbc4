//! How long a body is, checked once more in the parts of a request (group H1 of request smuggling).
//!
//! HTTP/1 has been read exactly by then, and HTTP/2 by a library; a request is framed anew on every hop, so these checks
//! keep one that was ambiguous to somebody before us from going on at all.

use super::RequestRefusal;
use super::present::{Field, Present};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING};
use http::{HeaderName, Version};

/// `present`: what stands in `headers`.
pub(super) fn check(
    version: Version,
    headers: &HeaderMap,
    present: Present,
) -> Result<(), RequestRefusal> {
    let one = |field, name: &HeaderName| match (present.has(field), present.has_two(field)) {
        (false, _) => Ok(None),
        (true, false) => Ok(headers.get(name)),
        // A second value would be somebody's first.
        (true, true) => Err(RequestRefusal::Framing),
    };
    let length = match present.has(Field::CONTENT_LENGTH) {
        true => length_of(headers)?,
        false => None,
    };
    match version {
        Version::HTTP_2 => {
            // HTTP/1 drops space around a value: policy would judge another one than the application reads (RFC 9113 §8.2.1).
            if headers.values().any(has_space_around) {
                return Err(RequestRefusal::Framing);
            }
            if present.has(Field::NOT_IN_H2) {
                return Err(RequestRefusal::ConnectionField);
            }
            if one(Field::TE, &TE)?
                .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
            {
                return Err(RequestRefusal::ConnectionField);
            }
        }
        _ => {
            if let Some(coding) = one(Field::TRANSFER_ENCODING, &TRANSFER_ENCODING)? {
                let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
                if !chunked || length.is_some() || version != Version::HTTP_11 {
                    return Err(RequestRefusal::Framing);
                }
            }
        }
    }
    match one(Field::EXPECT, &EXPECT)? {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(RequestRefusal::Expect)
        }
        _ => Ok(()),
    }
}

fn has_space_around(value: &HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.iter()
        .flatten()
        .any(|byte| matches!(byte, b' ' | b'\t'))
}

/// The one length that the fields name, or none; two are refused.
pub(crate) fn length_of(headers: &HeaderMap) -> Result<Option<u64>, RequestRefusal> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(RequestRefusal::Framing);
    }
    let plain = value
        .to_str()
        .ok()
        .filter(|text| is_length(text.as_bytes()));
    let length = plain.and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(RequestRefusal::Framing)
}

/// Digits alone, no leading zero, no more than a `u64` surely holds.
pub(crate) fn is_length(text: &[u8]) -> bool {
    (1..=19).contains(&text.len())
        && text.iter().all(u8::is_ascii_digit)
        && (text == b"0" || text.first() != Some(&b'0'))
}
