//! The time that a client of gRPC gives a call: `grpc-timeout`, as gRPC over HTTP/2 has it.

use http::HeaderMap;
use std::time::Duration;

/// Digits of a timeout.
const DIGITS_MAX: usize = 8;

/// The time for a call: at most 8 digits and a unit, `100m`; `None` if there is none, or more than one, or another text.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = !digits.is_empty() && digits.len() <= DIGITS_MAX;
    if !is_number || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                "grpc-timeout",
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        grpc_timeout(&headers)
    }

    #[test]
    fn timeouts_are_numbers_with_a_unit() {
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
            assert_eq!(read(&[text]), Some(want), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
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
            assert_eq!(read(&[text]), None, "{text}");
        }
        assert_eq!(read(&["1S", "2S"]), None);
        assert_eq!(read(&[]), None);
    }
}
