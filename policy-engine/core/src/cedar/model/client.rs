//! Who a client is: which sets it is in, as the sets say it.

use crate::cedar::Vocabulary;
use crate::cedar::tree::{
    Tree, and, any, begins, contains, context, entity, eq, every, get, has, implies, in_range,
    is_in, not, principal, text, truth,
};
use crate::snapshot::{IdentityPattern, Network, NetworkSet, SnapshotData};
use cedar_policy::EntityUid;
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeSet;

/// For each network set that is named: an address is in it exactly if one of its entries covers it.
pub(super) fn network_facts(
    vocabulary: &Vocabulary,
    sets: &SnapshotData,
    named: &BTreeSet<EntityUid>,
) -> Vec<Tree> {
    let named = named
        .iter()
        .filter(|uid| uid.type_name() == &vocabulary.net_set);
    named
        .map(|uid| {
            let inside = match sets.network_sets.get(uid.id().unescaped()) {
                Some(set) => covered(set),
                None => truth(false),
            };
            eq(contains(context(&["conn", "nets"]), entity(uid)), inside)
        })
        .collect()
}

/// Whether the client's address is in a set.
pub(super) fn covered(set: &NetworkSet) -> Tree {
    any(set.networks.iter().map(covers).collect())
}

fn covers(network: &Network) -> Tree {
    let ip = || context(&["conn", "ip"]);
    let inside = in_range(ip(), &network.cidr.to_string());
    let except = network.except.iter();
    let except = except.map(|block| in_range(ip(), &block.to_string()));
    and(inside, not(any(except.collect())))
}

/// What the SPIFFE IDs, sets, namespaces and trust domains that are named have to do with who the client is. `by_name`:
/// the text of its ID matters beyond being equal to another.
pub(super) fn identity_facts(
    vocabulary: &Vocabulary,
    sets: &SnapshotData,
    named: &BTreeSet<EntityUid>,
    by_name: bool,
) -> Vec<Tree> {
    let mut known = Known::default();
    let mut facts = Vec::new();
    for uid in named {
        let id = uid.id().unescaped();
        let kind = uid.type_name();
        if kind == &vocabulary.workload {
            let same = eq(principal(), entity(uid));
            facts.push(match SpiffeId::parse(id) {
                Ok(spiffe) => eq(same, known.is(&spiffe)),
                // No identity has such a text.
                Err(_) => not(same),
            });
        } else if kind == &vocabulary.identity_set {
            let members = match sets.identity_sets.get(id) {
                Some(set) => {
                    let members = set.members.iter();
                    any(members.map(|one| known.matches(sets, one)).collect())
                }
                None => truth(false),
            };
            facts.push(eq(is_in(principal(), entity(uid)), members));
        } else if kind == &vocabulary.namespace {
            let inside = match id.split_once('/') {
                Some((domain, namespace)) => known.of_namespace(domain, namespace),
                None => truth(false),
            };
            facts.push(eq(is_in(principal(), entity(uid)), inside));
        } else if kind == &vocabulary.trust_domain {
            facts.push(eq(is_in(principal(), entity(uid)), of_domain(id)));
        }
    }
    facts.extend(known.facts(by_name));
    facts
}

/// Identities and namespaces that facts speak of, for what their text says.
#[derive(Default)]
struct Known {
    ids: BTreeSet<SpiffeId>,
    namespaces: BTreeSet<(String, String)>,
}

impl Known {
    fn is(&mut self, id: &SpiffeId) -> Tree {
        self.ids.insert(id.clone());
        eq(get(principal(), "id"), text(id.as_str()))
    }

    fn of_namespace(&mut self, domain: &str, namespace: &str) -> Tree {
        self.namespaces
            .insert((domain.to_owned(), namespace.to_owned()));
        and(
            of_domain(domain),
            and(
                has(principal(), "ns"),
                eq(get(principal(), "ns"), text(namespace)),
            ),
        )
    }

    fn matches(&mut self, sets: &SnapshotData, pattern: &IdentityPattern) -> Tree {
        match pattern {
            IdentityPattern::Any => {
                let own = std::iter::once(&sets.trust_domain);
                let domains = own.chain(&sets.wildcard_domains);
                any(domains.map(TrustDomain::as_str).map(of_domain).collect())
            }
            IdentityPattern::Exact(id) => self.is(id),
            IdentityPattern::Namespace {
                trust_domain,
                namespace,
            } => self.of_namespace(trust_domain.as_str(), namespace),
            IdentityPattern::Nobody(_) => truth(false),
        }
    }

    fn facts(self, by_name: bool) -> Vec<Tree> {
        let mut facts: Vec<Tree> = self
            .ids
            .iter()
            .map(|id| implies(eq(get(principal(), "id"), text(id.as_str())), parts(id)))
            .collect();
        // What an ID begins with costs a solver much, and says nothing where nobody compares it.
        if by_name {
            facts.extend(self.namespaces.iter().map(|(domain, namespace)| {
                let beginning = format!("spiffe://{domain}/ns/{namespace}/sa/");
                let inside = and(
                    of_domain(domain),
                    and(
                        has(principal(), "ns"),
                        eq(get(principal(), "ns"), text(namespace)),
                    ),
                );
                implies(inside, begins(get(principal(), "id"), &beginning))
            }));
        }
        facts
    }
}

fn of_domain(domain: &str) -> Tree {
    eq(get(principal(), "trustDomain"), text(domain))
}

/// What an identity consists of.
fn parts(id: &SpiffeId) -> Tree {
    let domain = of_domain(id.trust_domain().as_str());
    match id.service_account() {
        Some((namespace, account)) => every(vec![
            domain,
            has(principal(), "ns"),
            eq(get(principal(), "ns"), text(namespace)),
            has(principal(), "sa"),
            eq(get(principal(), "sa"), text(account)),
        ]),
        None => and(domain, not(has(principal(), "ns"))),
    }
}
