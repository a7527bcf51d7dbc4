//! Istio's objects as they are read: AuthorizationPolicy, PeerAuthentication, and the names of those that have no
//! counterpart.

use super::pattern::{PathText, Text};
use crate::manifest::resource::{Created, Key};
use ipnet::IpNet;
use mesh_policy::snapshot::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Labels of a selector; Istio knows `matchLabels` only.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a policy does with requests that one of its rules matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Audit,
    Custom,
}

/// An AuthorizationPolicy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) key: Key,
    pub(crate) source: Source,
    pub(crate) action: Action,
    /// Place of `action`, or of the policy.
    pub(crate) action_source: Source,
    pub(crate) provider: Option<String>,
    /// Empty: every workload.
    pub(crate) selector: Labels,
    /// What it is attached to instead of workloads.
    pub(crate) targets: Vec<Target>,
    pub(crate) rules: Vec<Rule>,
    /// `istio.io/dry-run`: Istio does not enforce it.
    pub(crate) dry_run: bool,
    /// If it stands for a RequestAuthentication: it denies requests that may carry a token.
    pub(crate) tokens: Option<Tokens>,
}

/// What is special about the tokens of a RequestAuthentication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// Parameters of the query that may hold one and are not looked at.
    pub(crate) unseen: BTreeSet<String>,
}

impl Policy {
    pub(crate) fn title(&self) -> String {
        let kind = match self.tokens {
            Some(_) => "RequestAuthentication",
            None => "AuthorizationPolicy",
        };
        format!("{kind} {}/{}", self.key.namespace, self.key.name)
    }

    /// Ports that its rules name.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let clauses = self.rules.iter().flat_map(Rule::clauses);
        let named = clauses
            .filter(|c| c.attribute == Attribute::Port)
            .flat_map(|c| &c.values);
        named
            .filter_map(|want| match want {
                Want::Port(port) => Some(*port),
                _ => None,
            })
            .collect()
    }
}

/// An entry of `targetRefs`.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) source: Source,
}

/// One rule: any of `from`, any of `to`, and all of `when`. An empty list of alternatives is no restriction.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) source: Source,
    pub(crate) from: Vec<Vec<Clause>>,
    pub(crate) to: Vec<Vec<Clause>>,
    pub(crate) when: Vec<Clause>,
}

impl Rule {
    pub(crate) fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }

    /// Whether it asks anything that only requests have. Istio leaves such a rule of an ALLOW policy out for bytes.
    pub(crate) fn asks_of_requests(&self) -> bool {
        self.clauses()
            .any(|clause| clause.attribute.is_of_requests())
    }

    /// Every combination of a source and an operation, with the conditions: each an alternative of the rule.
    pub(crate) fn pieces(&self) -> Vec<Vec<&Clause>> {
        let mut out = Vec::new();
        for source in alternatives(&self.from) {
            for operation in alternatives(&self.to) {
                out.push(source.iter().chain(operation).chain(&self.when).collect());
            }
        }
        out
    }
}

/// Each alternative; if there is none, the one that asks nothing.
fn alternatives(all: &[Vec<Clause>]) -> impl Iterator<Item = &[Clause]> {
    let nothing: Option<&[Clause]> = all.is_empty().then_some(&[]);
    all.iter().map(Vec::as_slice).chain(nothing)
}

/// What is asked of one attribute: one of `values` (if there are any), and none of `not_values`.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    pub(crate) attribute: Attribute,
    pub(crate) values: Vec<Want>,
    pub(crate) not_values: Vec<Want>,
    /// `spec.rules[0].from[0].source.principals`, for the report.
    pub(crate) path: String,
    pub(crate) source: Source,
}

/// An attribute of a connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    SourceIp,
    Port,
    Method,
    Path,
    Host,
    /// Of this name, lower case.
    Header(String),
    /// One that this mesh cannot ask: its name, and whether only requests have it.
    Foreign(String, bool),
}

impl Attribute {
    pub(crate) fn is_of_requests(&self) -> bool {
        matches!(
            self,
            Self::Method | Self::Path | Self::Host | Self::Header(_) | Self::Foreign(_, true)
        )
    }

    /// Whether it is taken from the client's certificate.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::Principal | Self::Namespace | Self::ServiceAccount
        )
    }
}

/// One value that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    Text(Text),
    Path(PathText),
    Block(IpNet),
    Port(u16),
    Account { namespace: String, name: String },
}

/// Mode of `mtls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mtls {
    /// Plaintext only: nobody has an identity.
    Disable,
    /// Both.
    Permissive,
    /// Only verified identities.
    Strict,
}

impl Mtls {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

/// A PeerAuthentication; modes are `None` if unset.
#[derive(Clone, Debug)]
pub(crate) struct PeerAuthentication {
    pub(crate) key: Key,
    pub(crate) source: Source,
    pub(crate) created: Created,
    pub(crate) selector: Labels,
    pub(crate) mode: Option<Mtls>,
    pub(crate) ports: BTreeMap<u16, Option<Mtls>>,
}

impl PeerAuthentication {
    pub(crate) fn title(&self) -> String {
        format!(
            "PeerAuthentication {}/{}",
            self.key.namespace, self.key.name
        )
    }
}

/// An object of Istio that is not imported.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) source: Source,
}

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) policies: Vec<Policy>,
    pub(crate) peers: Vec<PeerAuthentication>,
    pub(crate) others: Vec<Other>,
}
