//! Every number that controls are held against, and what may be read of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A number with two decimals at most, never rounded up: 99.999 % is 99.99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

/// What was read of a metric in a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// A number.
    Value(Number),
    /// There is nothing there that it could be asked of.
    NotApplicable(String),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// What a metric means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its id: `e1.mtls_percent`.
    pub id: &'static str,
    /// What it counts.
    pub about: &'static str,
    /// Whether it is read of the mesh as a whole too, or alone.
    pub of: Of,
}

/// Which scopes a metric is read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Each namespace.
    Namespaces,
    /// The whole mesh.
    Mesh,
    /// Both: the mesh for what is of no namespace.
    Both,
}

/// All metrics, by evidence.
pub const METRICS: &[Metric] = &[
    m(
        "e1.mtls_percent",
        Of::Namespaces,
        "share of allowed requests and connections under mutual TLS with a verified identity, percent; declared probes aside",
    ),
    m(
        "e1.plaintext_edges",
        Of::Namespaces,
        "edges on which something was allowed without TLS; declared probes aside",
    ),
    m(
        "e1.anonymous_edges",
        Of::Namespaces,
        "edges on which something was allowed over TLS without an identity",
    ),
    m(
        "e2.certificates",
        Of::Both,
        "certificates that were valid at some time in the window",
    ),
    m(
        "e2.expired",
        Of::Both,
        "workloads in the mesh, or authorities, whose newest certificate had ended",
    ),
    m(
        "e2.over_lifetime",
        Of::Namespaces,
        "workload certificates that live longer than is accepted",
    ),
    m(
        "e2.unrotated",
        Of::Namespaces,
        "workloads past four fifths of their certificate's life without a newer one",
    ),
    m(
        "e2.unattested",
        Of::Namespaces,
        "workload certificates without recorded attestation",
    ),
    m(
        "e2.reused_keys",
        Of::Both,
        "certificates whose key another certificate has too",
    ),
    m(
        "e3.default_allow_ports",
        Of::Namespaces,
        "ports that let in whom no policy names",
    ),
    m(
        "e3.audit_ports",
        Of::Namespaces,
        "ports that allow and record what no policy allows",
    ),
    m(
        "e3.unmeshed_workloads",
        Of::Namespaces,
        "workloads without a proxy of the mesh",
    ),
    m(
        "e3.invalid_objects",
        Of::Both,
        "policy objects that are wrong and have no effect, or deny",
    ),
    m("e4.grants", Of::Both, "grants in force"),
    m(
        "e4.wildcard_grants",
        Of::Both,
        "grants to every identity of a trust domain",
    ),
    m(
        "e4.unauthenticated_grants",
        Of::Both,
        "grants to clients without an identity",
    ),
    m(
        "e4.any_network_grants",
        Of::Both,
        "grants without identity from every address",
    ),
    m(
        "e4.cross_namespace_grants",
        Of::Both,
        "grants to identities of other namespaces",
    ),
    m(
        "e4.foreign_domain_grants",
        Of::Both,
        "grants to identities of other trust domains",
    ),
    m(
        "e4.without_owner",
        Of::Both,
        "grants that name no owner (annotation `mesh.internal/owner`)",
    ),
    m(
        "e4.without_reason",
        Of::Both,
        "grants that give no reason (annotation `mesh.internal/reason`)",
    ),
    m(
        "e5.unused_grants",
        Of::Both,
        "grants that no recorded request used",
    ),
    m(
        "e5.unneeded_grants",
        Of::Both,
        "grants whose requests were all allowed by others too",
    ),
    m(
        "e5.expired_grants",
        Of::Both,
        "grants past their end that still stand in the manifests",
    ),
    m("e5.dead_grants", Of::Both, "grants that can never apply"),
    m(
        "e6.denied",
        Of::Namespaces,
        "requests and connections that were denied",
    ),
    m(
        "e6.denied_anonymous",
        Of::Namespaces,
        "of these, by clients without a verified identity",
    ),
    m(
        "e6.rate_limited",
        Of::Namespaces,
        "of these, for their rate",
    ),
    m(
        "e6.spikes",
        Of::Namespaces,
        "hours with more than ten times the usual denials, and a hundred at least",
    ),
    m("e7.records", Of::Namespaces, "decisions on record"),
    m(
        "e7.complete_percent",
        Of::Namespaces,
        "share of them that say who, what, when, from where, outcome, policy and generation, percent",
    ),
    m(
        "e7.clock_steps_back",
        Of::Both,
        "entries whose time lies before an earlier entry's",
    ),
    m(
        "e8.unproved_logs",
        Of::Both,
        "logs that are missing, or not proved to their end",
    ),
    m(
        "e8.unsealed_logs",
        Of::Both,
        "logs without a signed checkpoint",
    ),
    m("e8.gaps", Of::Both, "gaps that logs note"),
    m(
        "e8.lost_records",
        Of::Both,
        "records that those gaps say are missing",
    ),
    m(
        "e8.window_covered_percent",
        Of::Both,
        "share of the window that the logs reach back, percent; the least of them",
    ),
    m("e9.changes", Of::Mesh, "changes of policy"),
    m(
        "e9.without_author",
        Of::Mesh,
        "changes whose author is not known",
    ),
    m(
        "e9.without_approver",
        Of::Mesh,
        "changes that nobody is known to have agreed to, other than their author",
    ),
    m(
        "e9.without_effect_known",
        Of::Mesh,
        "changes of which it is not recorded what access they gave and took",
    ),
    m(
        "e9.approvals_not_logged",
        Of::Mesh,
        "changes whose approver stands in no log, only in a file that was given when the bundle was collected",
    ),
    m(
        "e9.trust_actions",
        Of::Mesh,
        "what people did to trust anchors, issuers and the deny list",
    ),
    m(
        "e9.admin_actions",
        Of::Mesh,
        "starts, ends and other acts of those who operate the mesh",
    ),
    m(
        "e9.invariants",
        Of::Mesh,
        "invariants that must hold whatever policies say",
    ),
    m(
        "e9.invariants_violated",
        Of::Mesh,
        "of these, violated by the policy in force",
    ),
    m(
        "e9.invariants_undecided",
        Of::Mesh,
        "of these, neither proved nor violated",
    ),
    m(
        "e10.observed",
        Of::Namespaces,
        "certificates of the mesh's own domain that clients showed",
    ),
    m(
        "e10.unknown_certificates",
        Of::Namespaces,
        "of these, never logged by the CA",
    ),
    m(
        "e10.mismatched_certificates",
        Of::Namespaces,
        "of these, logged for another identity or another end",
    ),
    m(
        "e10.expired_in_use",
        Of::Namespaces,
        "of these, let in after their end",
    ),
    m("e11.zones", Of::Mesh, "zones whose borders were examined"),
    m(
        "e11.zones_open",
        Of::Mesh,
        "zones that somebody from outside may reach",
    ),
    m(
        "e11.zones_undecided",
        Of::Mesh,
        "zones of which neither was proved",
    ),
    m(
        "e12.break_glass_grants",
        Of::Both,
        "break-glass grants in the manifests",
    ),
    m("e12.open", Of::Both, "of these, in force now"),
    m(
        "e12.opened",
        Of::Both,
        "break-glass grants that were opened in the window, removed ones too",
    ),
    m("e12.unbounded", Of::Both, "of these, without an end"),
    m("e12.uses", Of::Both, "requests that they let in"),
];

const fn m(id: &'static str, of: Of, about: &'static str) -> Metric {
    Metric { id, about, of }
}

/// The metric of an id.
pub fn metric(id: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.id == id)
}

impl Number {
    /// A whole number.
    pub const fn whole(count: u64) -> Self {
        Self(count.saturating_mul(100))
    }

    /// `part` of `all` in percent, cut to two decimals. `all` is not 0.
    pub fn percent(part: u64, all: u64) -> Self {
        let percent = u128::from(part) * 10_000 / u128::from(all.max(1));
        Self(u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// Reads `12`, `99.5` or `0.25`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |t: &str| t.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || part.len() > 2
            || !digits(whole)
            || !digits(part)
            || text.ends_with('.')
        {
            return None;
        }
        let hundredths: u64 = format!("{part:0<2}").parse().ok()?;
        let whole: u64 = whole.parse().ok()?;
        whole.checked_mul(100)?.checked_add(hundredths).map(Self)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}", self.0 / 100),
            part => write!(f, "{}.{part:02}", self.0 / 100),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u64(self.0 / 100)
        } else {
            // Two decimals of a number below 2^50 are exact enough for the shortest form to be these two.
            serializer.serialize_f64(self.0 as f64 / 100.0)
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        Self::parse(&number.to_string())
            .ok_or_else(|| serde::de::Error::custom("a number with two decimals at most"))
    }
}

impl Reading {
    /// A count.
    pub const fn count(count: u64) -> Self {
        Self::Value(Number::whole(count))
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Value(number) => number.to_string(),
            Self::NotApplicable(_) => "n/a".to_owned(),
            Self::Unknown(_) => "unknown".to_owned(),
        }
    }

    /// Why there is no number, if there is none.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Value(_) => None,
            Self::NotApplicable(why) | Self::Unknown(why) => Some(why),
        }
    }
}
