//! Who asks: every identity that policy names, and one that stands for each kind of all the others.

use super::literals::Literals;
use mesh_policy::snapshot::{IdentityPattern, SnapshotData};
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeSet;

/// Clients that no identity set tells apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Exactly this identity.
    Named(SpiffeId),
    /// Service accounts of that namespace that are not named.
    Namespace(TrustDomain, String),
    /// Identities of that trust domain that are neither named nor of a namespace that is.
    Domain(TrustDomain),
    /// Identities of trust domains that policy does not know.
    Foreign,
    /// TLS without an identity.
    Tls,
    /// Neither.
    Plaintext,
}

/// A class, and one client that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientClass {
    /// Which.
    pub who: Who,
    /// The identity of the one that stands for it.
    pub id: Option<SpiffeId>,
    /// Whether it speaks TLS to the proxy.
    pub tls: bool,
}

impl Who {
    /// For people, in a mesh of trust domain `home`.
    pub fn text(&self, home: &TrustDomain) -> String {
        match self {
            Self::Named(id) => name_of(id, home),
            Self::Namespace(domain, namespace) if domain == home => {
                format!("any other identity of namespace {namespace}")
            }
            Self::Namespace(domain, namespace) => {
                format!("any other identity of namespace {namespace} of {domain}")
            }
            Self::Domain(domain) => format!("any other identity of {domain}"),
            Self::Foreign => "identities of unknown trust domains".to_owned(),
            Self::Tls => "TLS without an identity".to_owned(),
            Self::Plaintext => "plaintext".to_owned(),
        }
    }

    /// Whether whoever it is has no identity.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Tls | Self::Plaintext)
    }
}

/// `namespace/account` at home, the whole ID elsewhere.
pub fn name_of(id: &SpiffeId, home: &TrustDomain) -> String {
    match id.service_account() {
        Some((namespace, account)) if id.trust_domain() == home => format!("{namespace}/{account}"),
        _ => id.to_string(),
    }
}

/// What patterns name.
#[derive(Default)]
struct Named {
    ids: BTreeSet<SpiffeId>,
    namespaces: BTreeSet<(TrustDomain, String)>,
    domains: BTreeSet<TrustDomain>,
}

pub(super) fn client_classes(
    views: &[&SnapshotData],
    known: &[SpiffeId],
    literals: Option<&Literals>,
) -> Vec<ClientClass> {
    let mut named = Named::default();
    for data in views {
        named.add(data);
    }
    if let Some(found) = literals {
        named.ids.extend(found.identities.iter().cloned());
        named.ids.extend(known.iter().cloned());
        named.domains.extend(found.domains.iter().cloned());
        let homes: Vec<TrustDomain> = views.iter().map(|data| data.trust_domain.clone()).collect();
        for (domain, namespace) in &found.namespaces {
            let domains = domain.iter().chain(&homes);
            named
                .namespaces
                .extend(domains.map(|d| (d.clone(), namespace.clone())));
        }
    }
    named.classes()
}

impl Named {
    fn add(&mut self, data: &SnapshotData) {
        self.domains.insert(data.trust_domain.clone());
        self.domains.extend(data.wildcard_domains.iter().cloned());
        for member in data.identity_sets.values().flat_map(|set| &set.members) {
            match member {
                IdentityPattern::Exact(id) => {
                    self.ids.insert(id.clone());
                }
                IdentityPattern::Namespace {
                    trust_domain,
                    namespace,
                } => {
                    self.namespaces
                        .insert((trust_domain.clone(), namespace.clone()));
                }
                IdentityPattern::Any | IdentityPattern::Nobody(_) => {}
            }
        }
        let ports = data.ports.values().chain([&data.other_ports]);
        for limit in ports.filter_map(|port| port.rate_limit.as_ref()) {
            self.ids.extend(
                limit
                    .overrides
                    .iter()
                    .flat_map(|(ids, _)| ids.iter().cloned()),
            );
        }
    }

    fn classes(self) -> Vec<ClientClass> {
        let mut out: Vec<ClientClass> = Vec::new();
        let identity = |who: Who, id: Option<SpiffeId>| {
            id.map(|id| ClientClass {
                who,
                id: Some(id),
                tls: true,
            })
        };
        out.extend(
            self.ids
                .iter()
                .filter_map(|id| identity(Who::Named(id.clone()), Some(id.clone()))),
        );
        for (domain, namespace) in &self.namespaces {
            let who = Who::Namespace(domain.clone(), namespace.clone());
            out.extend(identity(who, self.account(domain, namespace)));
        }
        let fresh = fresh("elsewhere", |name| {
            self.namespaces.iter().any(|(_, n)| n == name)
                || self
                    .ids
                    .iter()
                    .any(|id| id.service_account().is_some_and(|(n, _)| n == name))
        });
        for domain in &self.domains {
            out.extend(identity(
                Who::Domain(domain.clone()),
                self.account(domain, &fresh),
            ));
        }
        let known = |name: &str| {
            let is = |domain: &TrustDomain| domain.as_str() == name;
            self.domains.iter().any(is)
                || self.namespaces.iter().any(|(domain, _)| is(domain))
                || self.ids.iter().any(|id| is(id.trust_domain()))
        };
        let foreign = TrustDomain::parse(&self::fresh("foreign.example", known)).ok();
        out.extend(identity(
            Who::Foreign,
            foreign.and_then(|domain| self.account(&domain, &fresh)),
        ));
        for (who, tls) in [(Who::Tls, true), (Who::Plaintext, false)] {
            out.push(ClientClass { who, id: None, tls });
        }
        out
    }

    /// A service account that nothing names.
    fn account(&self, domain: &TrustDomain, namespace: &str) -> Option<SpiffeId> {
        let make = |name: &str| SpiffeId::for_service_account(domain, namespace, name).ok();
        let name = fresh("any-other", |name| {
            make(name).is_some_and(|id| self.ids.contains(&id))
        });
        make(&name)
    }
}

/// `name`, or `name` with the first number that makes it one that is not `taken`.
pub(crate) fn fresh(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2u32..).map(|n| match name.split_once('.') {
        Some((first, rest)) => format!("{first}-{n}.{rest}"),
        None => format!("{name}-{n}"),
    });
    let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
    candidates.find(|one| !taken(one)).unwrap_or_default()
}
