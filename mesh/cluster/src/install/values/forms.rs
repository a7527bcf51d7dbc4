//! What values may look like: images, paths, names, addresses, ports, quantities.

pub(super) fn is_image(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._/:-".contains(c))
}

/// An image with tag or digest.
pub(super) fn is_whole_image(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._/:@-".contains(c))
}

/// An absolute path that stands in YAML and a command line as it is, and leads nowhere else.
pub(super) fn is_path(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
    };
    text.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(part))
}

/// A name of a file in a folder.
pub(super) fn is_file_name(text: &str) -> bool {
    !text.starts_with('.')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// A label of a token, which has 32 places, or of a key.
pub(super) fn is_label(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.trim() == text
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " ._-".contains(c))
}

pub(super) fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Addresses with the length of their prefix.
pub(super) fn is_cidr(text: &str) -> bool {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: std::net::IpAddr = address.parse().ok()?;
        Some((address, length.parse::<u8>().ok()?))
    });
    parsed.is_some_and(|(address, length)| length <= if address.is_ipv4() { 32 } else { 128 })
}

pub(super) fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// `namespace/name:port`, in the letters of Kubernetes.
pub(super) fn is_service_port(text: &str) -> bool {
    let parts = text.split_once('/').and_then(|(namespace, rest)| {
        let (name, port) = rest.rsplit_once(':')?;
        Some((namespace, name, port))
    });
    let is_label = |text: &str| {
        (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    parts.is_some_and(|(namespace, name, port)| {
        is_label(namespace) && is_label(name) && is_port(port)
    })
}

/// A host with its port; an address of IPv6 in brackets.
pub(super) fn is_host_port(text: &str) -> bool {
    let is_host = |host: &str| {
        let inner = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            }
        }
    };
    text.rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && is_port(port))
}

pub(super) fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A number from 0 to 1, as it may stand in YAML.
pub(super) fn is_share(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain && text.parse::<f64>().is_ok_and(|share| share <= 1.0)
}

/// Whether a filter of log lines can be read, and stands in YAML and a command line as it is.
pub(crate) fn is_log(text: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let directive = |d: &str| match d.split_once('=') {
        Some((target, level)) => word(target) && word(level),
        None => word(d),
    };
    text.split(',').all(directive)
}

pub(super) fn is_name(text: &str) -> bool {
    !text.starts_with(['.', '-'])
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c))
}

/// A name of a ClusterTrustBundle, or nothing: those of signers have colons. Not what the CA publishes itself: its roots
/// would depend on themselves.
pub(super) fn is_bundle_name(text: &str) -> bool {
    text.split(':').all(is_name) && !text.starts_with("mesh.internal:identity:")
}

/// A quantity of CPU, or nothing.
pub(crate) fn is_cpu(text: &str) -> bool {
    text.is_empty() || is_decimal(text.strip_suffix('m').unwrap_or(text))
}

/// A quantity of bytes, or nothing.
pub(crate) fn is_memory(text: &str) -> bool {
    let units = ["Ki", "Mi", "Gi", "k", "M", "G"];
    let number = units.iter().find_map(|unit| text.strip_suffix(unit));
    text.is_empty() || is_decimal(number.unwrap_or(text))
}

/// Numbers with units, one after the other.
pub(super) fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while let Some(after) = rest.strip_prefix(|c: char| c.is_ascii_digit()) {
        let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
        let units = ["ms", "s", "m", "h", "d"];
        match units.iter().find_map(|unit| after.strip_prefix(unit)) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    rest.is_empty() && !text.is_empty()
}

pub(super) fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}
