//! Settings that an annotation may give under two names: ours, and the one that Linkerd gave it.
//!
//! The workload's own annotations come before those of its namespace, by either name. Where both names stand at one
//! level, ours counts; that they differ is reported, and an invalid value under either name closes.

use super::Index;
use super::ports::PortSet;
use crate::Mode;
use crate::finding::Code;
use crate::manifest::resource::Object;
use mesh_policy::snapshot::Finding;
use std::collections::BTreeMap;

/// One setting with its two names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    ours: &'static str,
    linkerds: &'static str,
    same: fn(&str, &str) -> bool,
}

/// The default policy.
pub(crate) const DEFAULT_POLICY: Setting = Setting {
    ours: "mesh.internal/default-inbound-policy",
    linkerds: "config.linkerd.io/default-inbound-policy",
    same: |a, b| a == b,
};

/// Ports on which the allowing modes require an identity.
pub(crate) const REQUIRE_IDENTITY: Setting = Setting {
    ours: "mesh.internal/require-identity-inbound-ports",
    linkerds: "config.linkerd.io/proxy-require-identity-inbound-ports",
    same: same_ports,
};

/// Ports that carry bytes.
pub(crate) const OPAQUE_PORTS: Setting = Setting {
    ours: "mesh.internal/opaque-ports",
    linkerds: "config.linkerd.io/opaque-ports",
    same: same_ports,
};

/// Lists are compared by what they list: `80,81` and `81, 80` are one list.
fn same_ports(a: &str, b: &str) -> bool {
    let read = |text| {
        let mut set = PortSet::parse(text, &[]);
        set.unreadable.sort();
        set
    };
    read(a) == read(b)
}

/// What annotations say about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// The value that counts.
    pub(crate) value: &'a str,
    /// The value under Linkerd's name, if ours stands too.
    pub(crate) other: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// Both values, the one that counts first.
    pub(crate) fn values(self) -> impl Iterator<Item = &'a str> {
        [self.value].into_iter().chain(self.other)
    }
}

impl Setting {
    /// What these annotations say, if anything.
    pub(crate) fn said<'a>(&self, annotations: &'a BTreeMap<String, String>) -> Option<Said<'a>> {
        let of = |name| annotations.get(name).map(String::as_str);
        let (ours, linkerds) = (of(self.ours), of(self.linkerds));
        Some(Said {
            value: ours.or(linkerds)?,
            other: linkerds.filter(|_| ours.is_some()),
        })
    }

    /// Reports that the two names of the setting do not say the same.
    pub(crate) fn compare<T>(
        &self,
        said: Said<'_>,
        object: &Object<T>,
        findings: &mut Vec<Finding>,
    ) {
        let Some(other) = said.other.filter(|other| !(self.same)(said.value, other)) else {
            return;
        };
        let message = format!(
            "`{}: {}` and `{}: {other}` differ: the former counts",
            self.ours, said.value, self.linkerds
        );
        Index::note(findings, Code::TwoAnnotations, object, message);
    }
}

/// The default policy that annotations set: `deny` if any value is none, with the reason.
pub(crate) fn default_policy(said: Said<'_>) -> Result<Mode, String> {
    let mut modes = Vec::new();
    for value in said.values() {
        modes.push(value.parse::<Mode>().map_err(|error| error.to_string())?);
    }
    Ok(modes.first().copied().unwrap_or_default())
}
