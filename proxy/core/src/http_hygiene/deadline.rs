//! The time that a client gives a request, told hop by hop: `grpc-timeout` of gRPC over HTTP/2, and for all other HTTP
//! the header that Envoy's routers send and honour.
//!
//! Both say how long from now, not until when, so clocks need not agree. Each hop takes off what the request spent there.
//! What cannot be read counts as if it did not stand, and goes on as it came: its application may say what is wrong.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use std::time::Duration;

/// Milliseconds within which the answer is expected (Envoy, `x-envoy-expected-rq-timeout-ms`).
const EXPECTED_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// The time of a whole call (gRPC over HTTP/2, "Timeout").
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Digits of a timeout of gRPC.
const GRPC_DIGITS_MAX: usize = 8;
/// The largest number that these can write.
const GRPC_NUMBER_MAX: u128 = 99_999_999;

/// Digits of milliseconds: thirty years, and no overflow.
const MS_DIGITS_MAX: usize = 12;

/// The time that the client gives a request, from its arrival; `None` if it says none that can be read, or two.
///
/// 0 is no time in gRPC, and no limit for all others (Envoy).
pub fn time_given(headers: &HeaderMap, grpc: bool) -> Option<Duration> {
    if grpc {
        return grpc_timeout(only(headers, &GRPC_TIMEOUT)?);
    }
    let ms = number(only(headers, &EXPECTED_MS)?, MS_DIGITS_MAX)?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// Tells the next hop how much is left, in place of what stands there; never more than is left, but for what is less than
/// the smallest unit: 0 would mean something else.
pub fn tell_time(headers: &mut HeaderMap, grpc: bool, left: Duration) {
    if grpc {
        headers.insert(GRPC_TIMEOUT, grpc_text(left));
    } else {
        let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED_MS, HeaderValue::from(ms.max(1)));
    }
}

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let first = headers.get(name)?;
    let mut all = headers.get_all(name).iter();
    let one = all.next().is_some() && all.next().is_none();
    one.then(|| first.to_str().ok()).flatten()
}

/// Digits and nothing else.
fn number(digits: &str, digits_max: usize) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= digits_max;
    if !is_number || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// At most 8 digits and a unit, `100m`.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number(digits, GRPC_DIGITS_MAX)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The finest unit in which 8 digits are enough.
fn grpc_text(left: Duration) -> HeaderValue {
    let micros = left.as_micros().max(1);
    let units = [
        (1, 'u'),
        (1_000, 'm'),
        (1_000_000, 'S'),
        (60_000_000, 'M'),
        (3_600_000_000, 'H'),
    ];
    let fits = |(size, _): &(u128, char)| micros / size <= GRPC_NUMBER_MAX;
    let (number, unit) = match units.into_iter().find(fits) {
        Some((size, unit)) => (micros / size, unit),
        None => (GRPC_NUMBER_MAX, 'H'),
    };
    // INVARIANT: digits and a letter are a header's value.
    HeaderValue::from_str(&format!("{number}{unit}")).unwrap_or(HeaderValue::from_static("1u"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn grpc(values: &[&str]) -> Option<Duration> {
        time_given(&headers("grpc-timeout", values), true)
    }

    fn http(values: &[&str]) -> Option<Duration> {
        time_given(&headers("x-envoy-expected-rq-timeout-ms", values), false)
    }

    #[test]
    fn timeouts_of_grpc_are_numbers_with_a_unit() {
        for (text, want) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(grpc(&[text]), Some(want), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_none() {
        for text in [
            "",
            "S",
            "5",
            "-1S",
            "+1S",
            "1.5S",
            "soon",
            "100000000S",
            "1 S",
            "1s",
            "5é",
        ] {
            assert_eq!(grpc(&[text]), None, "{text}");
        }
        assert_eq!(grpc(&["1S", "2S"]), None);
        assert_eq!(grpc(&[]), None);
        for text in ["", "0", "-1", "+1", "1.5", "1s", " 1", "1000000000000", "é"] {
            assert_eq!(http(&[text]), None, "{text}");
        }
        assert_eq!(http(&["1", "1"]), None);
        assert_eq!(http(&[]), None);
    }

    #[test]
    fn each_protocol_has_its_own_header() {
        assert_eq!(http(&["250"]), Some(Duration::from_millis(250)));
        let other = headers("x-envoy-expected-rq-timeout-ms", &["250"]);
        assert_eq!(time_given(&other, true), None);
        assert_eq!(time_given(&headers("grpc-timeout", &["1S"]), false), None);
    }

    #[test]
    fn what_is_told_is_what_is_left_in_one_value() {
        let mut twice = headers("x-envoy-expected-rq-timeout-ms", &["5", "6"]);
        tell_time(&mut twice, false, Duration::from_micros(1_999));
        assert_eq!(http_value(&twice), ["1"]);
        tell_time(&mut twice, false, Duration::from_nanos(1));
        assert_eq!(http_value(&twice), ["1"], "0 would be no limit");
        for (left, want) in [
            (Duration::from_nanos(1), "1u"),
            (Duration::from_nanos(1_999), "1u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_millis(100_000_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(99_999_999 * 60 + 60), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            let mut headers = headers("grpc-timeout", &["1S"]);
            tell_time(&mut headers, true, left);
            assert_eq!(headers["grpc-timeout"], want);
            let told = time_given(&headers, true).unwrap();
            assert!(told <= left.max(Duration::from_micros(1)), "{want}");
        }
    }

    fn http_value(headers: &HeaderMap) -> Vec<&str> {
        let all = headers.get_all(EXPECTED_MS).iter();
        all.map(|value| value.to_str().unwrap()).collect()
    }
}
