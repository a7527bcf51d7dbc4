//! Values on the command line: read once here, in full, before any command begins.

use std::collections::BTreeMap;
use std::time::Duration;

/// A header of `--header name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderArgument {
    /// Name, lower case.
    pub(crate) name: String,
    /// Value, as given.
    pub(crate) value: String,
}

/// The values of each header, in the order in which they were given.
pub(crate) fn headers(given: &[HeaderArgument]) -> BTreeMap<String, Vec<String>> {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in given {
        let values = headers.entry(header.name.clone()).or_default();
        values.push(header.value.clone());
    }
    headers
}

/// Reads the permission bits of a socket, octal: 600 or 0666.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err(format!(
            "`{text}` is no mode of a socket: write 0600, 0660 or 0666"
        )),
    }
}

/// Reads the name of an object of a cluster with its namespace: `mesh-system/mesh-issuer`.
pub(crate) fn namespaced(text: &str) -> Result<(String, String), String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c))
    };
    match text.split_once('/') {
        Some((namespace, name)) if plain(namespace) && plain(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!(
            "`{text}` is no object: write `mesh-system/mesh-issuer`"
        )),
    }
}

/// Reads a duration with units: `500ms`, `30s`, `5m`, `1h30m`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let number: u64 = number
            .parse()
            .map_err(|_| format!("`{text}` is no duration: write `30s` or `1h30m`"))?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => {
                return Err(format!(
                    "`{text}` has no unit that is known: use ms, s, m, h or d"
                ));
            }
        };
        let part = number
            .checked_mul(millis)
            .ok_or_else(|| format!("`{text}` is too long"))?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        rest = after;
    }
    if total.is_zero() {
        Err(format!("`{text}` is no duration above zero"))
    } else {
        Ok(total)
    }
}

/// Reads a time, RFC 3339.
pub(crate) fn time(text: &str) -> Result<mesh_trust::Timestamp, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no time: write `2026-01-31T12:00:00Z`"))
}

/// Reads `name=value` (or `name: value`, as it stands in a request).
pub(crate) fn header(text: &str) -> Result<HeaderArgument, String> {
    let (name, value) = text
        .split_once(['=', ':'])
        .ok_or_else(|| format!("`{text}` is no header: write `name=value`"))?;
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{text}` has no header name before `=`"));
    }
    Ok(HeaderArgument {
        name,
        value: value.trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_a_namespace_and_a_name() {
        let object = namespaced("mesh-system/mesh-issuer").unwrap();
        assert_eq!(object, ("mesh-system".to_owned(), "mesh-issuer".to_owned()));
        for text in [
            "mesh-issuer",
            "/mesh-issuer",
            "a/",
            "a/b/c",
            "A/b",
            "a/b c",
            "",
        ] {
            assert!(namespaced(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, want) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("30", None),
            ("", None),
            ("0s", None),
            ("s", None),
            ("-1s", None),
            ("1w", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), want, "{text}");
        }
    }

    #[test]
    fn headers_are_split_at_the_first_sign() {
        let read = header("X-Tenant=a=b").expect("a header");
        assert_eq!(
            (read.name.as_str(), read.value.as_str()),
            ("x-tenant", "a=b")
        );
        assert!(header("no value").is_err() && header("=x").is_err() && header("a b=c").is_err());
    }
}
