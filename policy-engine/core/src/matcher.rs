//! The grants of one port, compiled: which of them hold for a client is settled once per connection, and a request is a
//! look at a remembered tally.
//!
//! A grant asks who the client is, where it comes from, which route took the request, and perhaps what time it is. All
//! but the last two are constant for a connection. So [`Matcher::held_by`] picks the few grants that hold for a client
//! (by the sets it is in, not by trying each), and [`Held::tally`] adds up those that reach what is asked.
//! Nothing here knows Cedar; that both give the same answer is checked in [`crate::equivalence`] and by tests.

use crate::question::{SetNames, millis};
use crate::snapshot::{Effect, Grant, Scope, SnapshotData, Who};
use crate::texts::{Reason, Texts};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

mod written;

pub(crate) use written::Bearing;

/// What is asked of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// A byte stream.
    Bytes,
    /// A request where no route is attached.
    DefaultRoute,
    /// A declared probe.
    ProbeRoute,
    /// A request that a rule took; both as indexes.
    Rule { route: u32, rule: u32 },
}

impl Asked {
    /// Rules of one route are covered by the same grants, so they share a place.
    fn slot(self) -> usize {
        match self {
            Self::Bytes => 0,
            Self::DefaultRoute => 1,
            Self::ProbeRoute => 2,
            Self::Rule { route, .. } => {
                usize::try_from(route).map_or(usize::MAX, |route| route.saturating_add(3))
            }
        }
    }
}

/// All grants of one port. Flat lists: a server may have ten thousand of them, and a proxy keeps them all.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// Ids of the grants of the snapshot, those of other ports too.
    reasons: Arc<Texts>,
    /// Sorted by reason.
    rules: Box<[Rule]>,
    /// Rules for anybody, identified or not; ascending.
    anyone: Box<[u32]>,
    /// Rules for members of an identity set: place of the set, then rule; ascending.
    members: Box<[(u32, u32)]>,
    /// A forbid that cannot be evaluated: everything is denied.
    broken_forbid: Option<Arc<str>>,
    /// Places that a connection keeps tallies for.
    slots: usize,
}

/// One grant, as far as it can matter on this port.
#[derive(Debug)]
struct Rule {
    /// Number of the grant's id among the reasons.
    reason: u32,
    /// It counts before this instant, ms since the epoch.
    until: i64,
    /// Place of the network set that the client must be in.
    network: Option<u32>,
    reach: Reach,
    tls_only: bool,
    effect: Effect,
    audit: bool,
    break_glass: bool,
}

/// What of the port a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Bytes, and requests on every route.
    Everything,
    /// Requests that the route with this index took.
    Route(u32),
}

impl Reach {
    fn covers(self, asked: Asked) -> bool {
        match (self, asked) {
            (Self::Everything, _) => true,
            (Self::Route(mine), Asked::Rule { route, .. }) => mine == route,
            (Self::Route(_), _) => false,
        }
    }
}

/// What the grants that hold amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// A permit holds.
    pub(crate) permit: bool,
    /// A permit holds that is no audit one.
    pub(crate) plain_permit: bool,
    /// A forbid holds.
    pub(crate) forbid: bool,
    /// A permit holds whose every use is recorded.
    pub(crate) break_glass: bool,
}

impl Tally {
    /// Counts one policy that holds.
    pub(crate) fn add(&mut self, effect: Effect, audit: bool, break_glass: bool) {
        match effect {
            Effect::Forbid => self.forbid = true,
            Effect::Permit => {
                self.permit = true;
                self.plain_permit |= !audit;
                self.break_glass |= break_glass;
            }
        }
    }
}

/// The routes and the Server of a port: what a grant's scope is resolved against.
pub(crate) struct Reachable<'a> {
    /// Namespace and name of the Server; `None`: the default policy.
    pub(crate) server: Option<(&'a str, &'a str)>,
    /// Kind, namespace and name of each attached route.
    pub(crate) routes: HashMap<(&'a str, &'a str, &'a str), Vec<u32>>,
    /// How many routes are attached.
    pub(crate) route_count: usize,
}

/// Attached routes that a connection keeps a tally for; requests of the others are added up each time.
const REMEMBERED_ROUTES_MAX: usize = 256;

impl Matcher {
    /// Compiles the grants with these indexes. A permit that refers to a set that is not there grants nothing, a forbid
    /// that does denies everything.
    pub(crate) fn compile(
        data: &SnapshotData,
        names: &SetNames,
        reasons: &Arc<Texts>,
        indexes: &[u32],
        reachable: &Reachable<'_>,
    ) -> Self {
        let mut building = Building::default();
        let mut indexes = indexes.to_vec();
        indexes.sort_unstable();
        indexes.dedup();
        for index in indexes {
            let grant = usize::try_from(index)
                .ok()
                .and_then(|index| data.grants.get(index));
            if let Some((grant, reason)) = grant.and_then(|it| Some((it, reasons.find(&it.id)?))) {
                building.add(grant, reason, names, reachable);
            }
        }
        building.finish(Arc::clone(reasons), reachable.route_count)
    }

    /// The rules that hold for a client, apart from route and time. The sets are places, ascending.
    pub(crate) fn held_by(
        &self,
        identity_sets: &[u32],
        network_sets: &[u32],
        tls: bool,
    ) -> Vec<u32> {
        let of_sets = identity_sets
            .iter()
            .flat_map(|&set| self.members_of(set).iter().map(|(_, rule)| *rule));
        let mut held: Vec<u32> = self
            .anyone
            .iter()
            .copied()
            .chain(of_sets)
            .filter(|&index| {
                self.rule(index).is_some_and(|rule| {
                    (tls || !rule.tls_only)
                        && rule
                            .network
                            .is_none_or(|set| network_sets.binary_search(&set).is_ok())
                })
            })
            .collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Whether the grant of this id holds for a client in these sets; for [`crate::equivalence`].
    pub(crate) fn grant_holds(
        &self,
        id: &str,
        (identity_sets, network_sets, tls): (&[u32], &[u32], bool),
        asked: Asked,
        now: i64,
    ) -> bool {
        self.of_grant(id)
            .filter(|(_, rule)| {
                (tls || !rule.tls_only)
                    && rule
                        .network
                        .is_none_or(|set| network_sets.binary_search(&set).is_ok())
                    && rule.reach.covers(asked)
                    && now < rule.until
            })
            .any(|(index, _)| self.is_listed(index, identity_sets))
    }

    /// The rules of the grant of this id.
    fn of_grant(&self, id: &str) -> impl Iterator<Item = (u32, &Rule)> {
        let reason = self.reasons.find(id);
        // Rules are sorted by reason: those of this grant stand together.
        let first = self
            .rules
            .partition_point(|rule| reason.is_none_or(|reason| rule.reason < reason));
        (0..)
            .zip(&self.rules)
            .skip(first)
            .take_while(move |(_, rule)| Some(rule.reason) == reason)
    }

    /// Whether a client in these identity sets is given the rule to look at.
    fn is_listed(&self, index: u32, identity_sets: &[u32]) -> bool {
        let mut sets = identity_sets.iter();
        self.anyone.binary_search(&index).is_ok()
            || sets.any(|&set| self.members.binary_search(&(set, index)).is_ok())
    }

    /// The rules for members of a set, each with the set.
    fn members_of(&self, set: u32) -> &[(u32, u32)] {
        let first = self.members.partition_point(|(of, _)| *of < set);
        let from = self.members.get(first..).unwrap_or_default();
        let count = from.partition_point(|(of, _)| *of == set);
        from.get(..count).unwrap_or_default()
    }

    /// The id of the grant that a rule comes from.
    pub(crate) fn reason(&self, rule: u32) -> Option<Reason<'_>> {
        self.reasons.get(self.rule(rule)?.reason)
    }

    /// Why everything is denied here, if a forbid cannot be evaluated.
    pub(crate) fn broken_forbid(&self) -> Option<&Arc<str>> {
        self.broken_forbid.as_ref()
    }

    fn rule(&self, index: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(index).ok()?)
    }
}

#[derive(Default)]
struct Building {
    /// With the identity set that each demands.
    rules: Vec<(Rule, Option<u32>)>,
    broken_forbid: Option<Arc<str>>,
}

impl Building {
    fn add(&mut self, grant: &Grant, reason: u32, names: &SetNames, reachable: &Reachable<'_>) {
        let network = match &grant.networks {
            None => Some(None),
            Some(set) => names.network_place(set).map(Some),
        };
        let (members_of, tls_only) = match &grant.who {
            Who::Anyone => (Some(None), false),
            Who::AnyTls => (Some(None), true),
            Who::Identities(set) => (names.identity_place(set).map(Some), false),
        };
        let (Some(network), Some(members_of)) = (network, members_of) else {
            if grant.effect == Effect::Forbid {
                let why = format!("{}: a set that it refers to does not exist", grant.id);
                self.broken_forbid = Some(why.into());
            }
            return;
        };
        for reach in reaches(&grant.scope, reachable) {
            let rule = Rule {
                reason,
                until: grant.term.expires.map_or(i64::MAX, millis),
                network,
                reach,
                tls_only,
                effect: grant.effect,
                audit: grant.audit,
                break_glass: grant.term.break_glass.is_some(),
            };
            self.rules.push((rule, members_of));
        }
    }

    fn finish(mut self, reasons: Arc<Texts>, route_count: usize) -> Matcher {
        // Stable, so that equal data compiles to equal rules.
        self.rules.sort_by_key(|(rule, _)| rule.reason);
        let (mut anyone, mut members) = (Vec::new(), Vec::new());
        for (index, (_, set)) in (0u32..).zip(&self.rules) {
            match set {
                None => anyone.push(index),
                Some(set) => members.push((*set, index)),
            }
        }
        members.sort_unstable();
        Matcher {
            reasons,
            rules: self.rules.into_iter().map(|(rule, _)| rule).collect(),
            anyone: anyone.into(),
            members: members.into(),
            broken_forbid: self.broken_forbid,
            slots: 3 + route_count.min(REMEMBERED_ROUTES_MAX),
        }
    }
}

/// What a scope covers of a port: nothing, everything, or routes.
fn reaches(scope: &Scope, reachable: &Reachable<'_>) -> Vec<Reach> {
    let everything = |covered: bool| {
        if covered {
            vec![Reach::Everything]
        } else {
            Vec::new()
        }
    };
    match scope {
        Scope::Server { namespace, name } => {
            everything(reachable.server == Some((namespace, name)))
        }
        Scope::NamespaceServers { namespace } => {
            everything(reachable.server.is_some_and(|(of, _)| of == namespace))
        }
        Scope::Default => everything(reachable.server.is_none()),
        Scope::Route {
            kind,
            namespace,
            name,
        } => reachable
            .routes
            .get(&(kind.as_str(), namespace.as_str(), name.as_str()))
            .into_iter()
            .flatten()
            .map(|&route| Reach::Route(route))
            .collect(),
    }
}

/// The rules of one port that hold for one client, and what they amount to.
pub(crate) struct Held {
    matcher: Arc<Matcher>,
    /// Ascending, and so sorted by reason.
    rules: Box<[u32]>,
    /// Of the rules that reach everything and never end.
    everywhere: Tally,
    /// The others.
    particular: Box<[u32]>,
    /// Tallies by slot; see [`Asked::slot`].
    remembered: Box<[Cell<Remembered>]>,
}

/// A tally, and until when it is true (ms since the epoch).
#[derive(Clone, Copy, Default)]
struct Remembered {
    tally: Tally,
    /// It was true at this time.
    from: i64,
    /// It is so before this one; 0 if nothing is remembered.
    until: i64,
}

impl Held {
    pub(crate) fn new(matcher: &Arc<Matcher>, rules: Vec<u32>) -> Self {
        let mut everywhere = Tally::default();
        let mut particular = Vec::new();
        for &index in &rules {
            match matcher.rule(index) {
                Some(rule) if rule.reach == Reach::Everything && rule.until == i64::MAX => {
                    everywhere.add(rule.effect, rule.audit, rule.break_glass);
                }
                _ => particular.push(index),
            }
        }
        Self {
            matcher: Arc::clone(matcher),
            rules: rules.into(),
            everywhere,
            particular: particular.into(),
            remembered: (0..matcher.slots).map(|_| Cell::default()).collect(),
        }
    }

    pub(crate) fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// What the rules that hold amount to at `now`, and before when none of them ends (both ms since the epoch).
    pub(crate) fn tally(&self, asked: Asked, now: i64) -> (Tally, i64) {
        let place = self.remembered.get(asked.slot());
        if let Some(known) = place.map(Cell::get)
            && (known.from..known.until).contains(&now)
        {
            return (known.tally, known.until);
        }
        let (mut tally, mut until) = (self.everywhere, i64::MAX);
        for rule in self
            .particular
            .iter()
            .filter_map(|&index| self.matcher.rule(index))
            .filter(|rule| rule.reach.covers(asked) && now < rule.until)
        {
            tally.add(rule.effect, rule.audit, rule.break_glass);
            until = until.min(rule.until);
        }
        if let Some(place) = place {
            place.set(Remembered {
                tally,
                from: now,
                until,
            });
        }
        (tally, until)
    }

    /// The rules of this effect that hold at `now` (ms since the epoch), in the order of their reasons; for
    /// [`Matcher::reason`].
    pub(crate) fn holding(
        &self,
        asked: Asked,
        now: i64,
        effect: Effect,
    ) -> impl Iterator<Item = u32> {
        self.rules.iter().copied().filter(move |&index| {
            self.matcher.rule(index).is_some_and(|rule| {
                rule.effect == effect && rule.reach.covers(asked) && now < rule.until
            })
        })
    }
}
