//! What changes nothing while the rest stands: grants that others include, routes that others take everything from.

use super::{Lint, attached_routes};
use crate::finding::Code;
use crate::index::Index;
use crate::index::authority::{Authorities, Authority};
use crate::index::route_key;
use crate::index::terms::term_of;
use crate::manifest::resource::{AuthorizationPolicy, Key, Object, Route, Server, Target};
use mesh_policy::snapshot::{Finding, IdentityPattern, Network, PathMatch, RouteMatch, Who};

/// Grants with one target that are compared with one. Each costs some microseconds, and there may be ten thousand.
const COMPARED_MAX: usize = 64;

/// The findings of this file. Nothing depends on them, so they are made for who asks, and not at every change.
pub(crate) fn surplus(index: &Index) -> Vec<Finding> {
    let mut findings = Vec::new();
    look(&mut Lint::new(index, &mut findings));
    findings.sort();
    findings.dedup();
    findings
}

fn look(lint: &mut Lint<'_>) {
    lint.redundant_grants();
    let index = lint.index;
    for (key, numbers) in &index.routes {
        if let Some(server) = lint.servers.get(key).copied() {
            let routes = attached_routes(index, numbers, server);
            lint.dead_routes(&routes, server);
        }
    }
}

impl Lint<'_> {
    /// AuthorizationPolicies of which another one says all, and more.
    fn redundant_grants(&mut self) {
        let index = self.index;
        let policies = &index.resources.authorization_policies;
        for (number, policy) in policies.iter().enumerate() {
            let Some(granted) = self.granted(number) else {
                continue;
            };
            let wider = self.wider_or_equal(policy).take(COMPARED_MAX);
            let reason = wider.filter(|other| *other != number).find(|other| {
                let Some(authority) = self.granted(*other) else {
                    return false;
                };
                let Some(rival) = policies.get(*other) else {
                    return false;
                };
                // Of two that say the same, the later one is too much.
                let equal =
                    rival.spec.target == policy.spec.target && includes(index, granted, authority);
                includes(index, authority, granted)
                    && term_of(rival).is_standing()
                    && (!equal || rival.key < policy.key || !term_of(policy).is_standing())
            });
            if let Some(rival) = reason.and_then(|other| policies.get(other)) {
                let message = format!(
                    "{} grants nothing that {} does not grant",
                    policy.title(),
                    rival.title()
                );
                self.note(Code::RedundantGrant, policy, message);
            }
        }
    }

    fn granted(&self, number: usize) -> Option<&Authority> {
        self.index.authorities.policies.get(number)?.as_ref()
    }

    /// Policies whose target includes that of this one: for a route, its own; for a Server its own and those of the
    /// namespace.
    fn wider_or_equal(&self, policy: &Object<AuthorizationPolicy>) -> impl Iterator<Item = usize> {
        let policies = &self.index.policies;
        let namespace = &policy.key.namespace;
        let of_namespace = policies.by_namespace.get(namespace);
        let (own, above) = match &policy.spec.target {
            Some(Target::Route { group, kind, name }) => {
                let key = Key::new(namespace, name);
                (policies.by_route.get(&(*group, *kind, key)), None)
            }
            Some(Target::Server(name)) => {
                let key = Key::new(namespace, name);
                (policies.by_server.get(&key), of_namespace)
            }
            Some(Target::Namespace) => (of_namespace, None),
            Some(Target::Servers(_)) | None => (None, None),
        };
        above.into_iter().chain(own).flatten().copied()
    }

    /// A route of which others take every request, as they match the same and are older.
    fn dead_routes(&mut self, routes: &[&Object<Route>], server: &Object<Server>) {
        for route in routes.iter().take(COMPARED_MAX) {
            let mut matches = route
                .spec
                .rules
                .iter()
                .flat_map(|rule| &rule.matches)
                .peekable();
            if matches.peek().is_none() {
                continue;
            }
            let mut taker = None;
            let dead = matches.all(|one| {
                let others = routes.iter().take(COMPARED_MAX);
                let mut others = others.filter(|other| route_key(other) != route_key(route));
                let found = others.find(|other| {
                    other.spec.hostnames == route.spec.hostnames
                        && other
                            .spec
                            .rules
                            .iter()
                            .flat_map(|rule| &rule.matches)
                            .any(|theirs| takes_all(other, theirs, route, one))
                });
                taker = found.copied().or(taker);
                found.is_some()
            });
            if let (true, Some(taker)) = (dead, taker) {
                let message = format!(
                    "on {}, {} takes every request that {} is written for: what grants the latter grants nothing",
                    server.title(),
                    taker.title(),
                    route.title()
                );
                self.note(Code::DeadRoute, route, message);
            }
        }
    }
}

/// Whether the first match takes every request that the second takes. Both have the same hosts.
fn takes_all(
    winner: &Object<Route>,
    w: &RouteMatch,
    loser: &Object<Route>,
    l: &RouteMatch,
) -> bool {
    let alone = w.method.is_none() && w.headers.is_empty() && w.query.is_empty();
    match (&w.path, &l.path) {
        (PathMatch::Prefix(all), PathMatch::Regex(_)) => alone && all == "/",
        _ => {
            let older = (winner.created, &winner.key, winner.group)
                < (loser.created, &loser.key, loser.group);
            older && w == l
        }
    }
}

/// Whether the first admits everybody whom the second admits.
fn includes(index: &Index, wide: &Authority, narrow: &Authority) -> bool {
    let who = match (&wide.who, &narrow.who) {
        (Who::Anyone, _) | (Who::AnyTls, Who::AnyTls | Who::Identities(_)) => true,
        (Who::Identities(wide), Who::Identities(narrow)) => {
            wide == narrow || includes_identities(index, wide, narrow)
        }
        _ => false,
    };
    let networks = match (&wide.networks, &narrow.networks) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => {
            wide == narrow || includes_networks(&index.authorities, wide, narrow)
        }
        (Some(_), None) => false,
    };
    who && networks
}

fn includes_identities(index: &Index, wide: &str, narrow: &str) -> bool {
    let sets = &index.authorities.identity_sets;
    let (Some(wide), Some(narrow)) = (sets.get(wide), sets.get(narrow)) else {
        return false;
    };
    if narrow.members.is_empty() || wide.members.len().saturating_mul(narrow.members.len()) > 10_000
    {
        return false;
    }
    let home = &index.config.trust_domain;
    narrow.members.iter().all(|one| {
        wide.members.iter().any(|other| match (other, one) {
            (_, IdentityPattern::Nobody(_)) => true,
            (IdentityPattern::Any, IdentityPattern::Any) => true,
            (IdentityPattern::Any, IdentityPattern::Exact(id)) => id.trust_domain() == home,
            (IdentityPattern::Any, IdentityPattern::Namespace { trust_domain, .. }) => {
                trust_domain == home
            }
            (
                IdentityPattern::Namespace {
                    trust_domain,
                    namespace,
                },
                IdentityPattern::Exact(id),
            ) => {
                id.trust_domain() == trust_domain
                    && id.service_account().is_some_and(|(of, _)| of == namespace)
            }
            _ => other == one,
        })
    })
}

fn includes_networks(authorities: &Authorities, wide: &str, narrow: &str) -> bool {
    let sets = &authorities.network_sets;
    let (Some(wide), Some(narrow)) = (sets.get(wide), sets.get(narrow)) else {
        return false;
    };
    if narrow.networks.is_empty()
        || wide.networks.len().saturating_mul(narrow.networks.len()) > 10_000
    {
        return false;
    }
    let covers = |other: &Network, one: &Network| {
        other.cidr.contains(&one.cidr)
            && other.except.iter().all(|hole| {
                one.except.iter().any(|own| own.contains(hole))
                    || !(one.cidr.contains(hole) || hole.contains(&one.cidr))
            })
    };
    let mut all = narrow.networks.iter();
    all.all(|one| wide.networks.iter().any(|other| covers(other, one)))
}
