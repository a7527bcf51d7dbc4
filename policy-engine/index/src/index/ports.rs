//! Lists of ports in annotations: `8080,9000-9010,admin`.

use crate::manifest::resource::ContainerPort;
use std::collections::BTreeSet;

/// Ports that an annotation lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet {
    pub(crate) ports: BTreeSet<u16>,
    /// Entries that are neither port nor range nor the name of a declared port.
    pub(crate) unreadable: Vec<String>,
}

impl PortSet {
    /// Reads a list; names are looked up among the declared ports.
    pub(crate) fn parse(text: &str, declared: &[ContainerPort]) -> Self {
        let mut out = Self::default();
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            if let Some((first, last)) = range(entry) {
                out.ports.extend(first..=last);
                continue;
            }
            let named: Vec<u16> = declared
                .iter()
                .filter(|p| p.name.as_deref() == Some(entry))
                .map(|p| p.port)
                .collect();
            if named.is_empty() {
                out.unreadable.push(entry.to_owned());
            }
            out.ports.extend(named);
        }
        out
    }
}

fn range(entry: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
            .filter(|p| *p != 0)
    };
    match entry.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first.trim())?, port(last.trim())?);
            (first <= last).then_some((first, last))
        }
        None => port(entry).map(|p| (p, p)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_ports_ranges_and_names() {
        let declared = [ContainerPort {
            name: Some("admin".into()),
            port: 9990,
            container: 0,
        }];
        let set = PortSet::parse(" 80, 90-92,admin ,70-70", &declared);
        assert_eq!(set.ports, BTreeSet::from([70, 80, 90, 91, 92, 9990]));
        assert!(set.unreadable.is_empty());
    }

    #[test]
    fn what_is_no_port_is_said() {
        for text in [
            "0", "65536", "9-8", "a", "-1", "1-", "80 81", "+80", "1-2-3",
        ] {
            assert_eq!(PortSet::parse(text, &[]).unreadable, [text], "{text}");
        }
    }
}
