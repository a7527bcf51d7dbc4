//! What recorded traffic used of a policy; what it did not, and what can never apply.

use crate::cases::route_text;
use crate::classes::literals_of;
use crate::classes::request::requests;
use crate::clauses::{Clauses, is_written, sets_of};
use crate::coverage::client_of;
use crate::world::World;
use mesh_policy::Snapshot;
use mesh_policy::decide::Verdict;
use mesh_policy::egress::{EgressNetwork, TrafficPolicy};
use mesh_policy::record::DecisionRecord;
use mesh_policy::snapshot::{
    Finding, Grant, ObjectRef, PortPolicy, Severity, SnapshotData, Term, Who,
};
use mesh_policy_index::WorkloadKey;
use mesh_trust::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Clients whose clauses are remembered: some hundred bytes each.
const CLIENTS_MAX: usize = 65_536;

/// How a part of policy stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum State {
    /// It can never apply; with the reason.
    NeverApplies(String),
    /// No record used it.
    NeverUsed,
    /// All that it allowed was allowed by other policies as well.
    NeverNeeded,
    /// Some record used it.
    Used,
}

/// One part of policy and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// `server`, `route`, `policy`, `clause`; `egress-network` that allows, `egress-route`; or `object` for what is in force
    /// nowhere.
    pub kind: &'static str,
    /// Which.
    pub name: String,
    /// `file:line`.
    pub source: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
    /// Records that used it; of what was allowed, those of the sample.
    pub count: u64,
    /// Records that used it and are there because they were the first of their client, grant and route in an hour.
    pub firsts: u64,
    /// The latest of them.
    pub last: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    count: u64,
    firsts: u64,
    /// Of both, allowed by nothing else.
    alone: u64,
    last: Option<Timestamp>,
}

impl Seen {
    fn add(&mut self, record: &DecisionRecord, alone: bool) {
        let counter = match record.first {
            true => &mut self.firsts,
            false => &mut self.count,
        };
        *counter = counter.saturating_add(1);
        self.alone = self.alone.saturating_add(u64::from(alone));
        self.last = self.last.max(record.time);
    }
}

/// A client as it stands in a record.
type ClientKey = (Option<String>, Option<String>, bool);

/// A workload that records speak of.
struct Place {
    data: SnapshotData,
    clauses: Clauses,
    /// Names of the clauses that hold, by client.
    held: HashMap<ClientKey, Vec<usize>>,
}

/// Uses, as records are read.
pub struct Uses<'w> {
    world: &'w dyn World,
    places: BTreeMap<WorkloadKey, Option<Place>>,
    seen: HashMap<(&'static str, String), Seen>,
    /// Records in all.
    pub records: u64,
    /// Time of the first and of the last.
    pub window: Option<(Timestamp, Timestamp)>,
    /// Records of workloads that the manifests do not name.
    pub strangers: u64,
    /// Further records, of what left the mesh or was to.
    pub left: u64,
}

impl<'w> Uses<'w> {
    /// No record yet.
    pub fn new(world: &'w dyn World) -> Self {
        Self {
            world,
            places: BTreeMap::new(),
            seen: HashMap::new(),
            records: 0,
            window: None,
            strangers: 0,
            left: 0,
        }
    }

    /// Counts one record.
    pub fn add(&mut self, record: &DecisionRecord) {
        self.records = self.records.saturating_add(1);
        if let Some(time) = record.time {
            let (first, last) = self.window.unwrap_or((time, time));
            self.window = Some((first.min(time), last.max(time)));
        }
        let mut note = |kind: &'static str, name: String, alone: bool| {
            self.seen
                .entry((kind, name))
                .or_default()
                .add(record, alone);
        };
        let server = &record.server;
        if let Some(name) = server.name.as_ref().filter(|_| !server.default) {
            note(
                "server",
                format!("Server/{}/{name}", server.namespace),
                true,
            );
        }
        if let Some(route) = route_text(record) {
            note("route", route, true);
        }
        let alone = record.reasons.len() == 1;
        for reason in &record.reasons {
            note("policy", reason.clone(), alone);
        }
        if record.verdict == Verdict::Allow {
            self.add_clauses(record, alone);
        }
    }

    /// Counts one record of what left the mesh, or was to. What only denies is not judged by its use.
    pub fn add_left(&mut self, record: &DecisionRecord) {
        self.left = self.left.saturating_add(1);
        if record.verdict == Verdict::Deny {
            return;
        }
        for reason in &record.reasons {
            let kind = egress_kind(reason);
            let seen = self.seen.entry((kind, reason.clone())).or_default();
            // Every layer that speaks must allow: each of these was needed.
            seen.add(record, true);
        }
    }

    fn add_clauses(&mut self, record: &DecisionRecord, alone: bool) {
        let Some(name) = record.server.workload.clone() else {
            return;
        };
        let key = WorkloadKey {
            namespace: record.server.namespace.clone(),
            name,
        };
        let world = self.world;
        let place = self.places.entry(key.clone()).or_insert_with(|| {
            let data = world.snapshot(&key)?;
            Some(Place {
                clauses: Clauses::of(&data),
                data,
                held: HashMap::new(),
            })
        });
        let Some(place) = place else {
            self.strangers = self.strangers.saturating_add(1);
            return;
        };
        let Some(port) = place.data.ports.get(&record.server.port) else {
            return;
        };
        let asks = sets_of(&place.data, port);
        let client = &record.client;
        let client_key = (client.spiffe_id.clone(), client.ip.clone(), client.tls);
        if place.held.len() >= CLIENTS_MAX {
            place.held.clear();
        }
        let clauses = &place.clauses;
        let held = place.held.entry(client_key).or_insert_with(|| {
            let held = client_of(record).map(|client| clauses.held(&client));
            let held = held.into_iter().flatten().enumerate();
            held.filter(|(_, holds)| *holds).map(|(at, _)| at).collect()
        });
        for clause in held.iter().filter_map(|at| clauses.all().get(*at)) {
            let grants = asks.get(clause.set.as_str()).into_iter().flatten();
            let mut used = grants.filter(|id| record.reasons.iter().any(|r| r == **id));
            if used.next().is_some() {
                let seen = self
                    .seen
                    .entry(("clause", clause.name.clone()))
                    .or_default();
                seen.add(record, alone);
            }
        }
    }

    /// How every part stands at `now`, sorted by state, kind and name. `objects` are those that the manifests hold: what
    /// is in force nowhere is found by them, and `findings` may say why.
    pub fn report(&self, objects: &[ObjectRef], findings: &[Finding], now: Timestamp) -> Vec<Use> {
        let mut parts = Parts::default();
        for key in self.world.workloads() {
            if let Some(data) = self.world.snapshot(&key) {
                parts.of(data, now);
            }
        }
        parts.nowhere(objects, findings);
        let mut out: Vec<Use> = parts
            .found
            .into_iter()
            .map(|((kind, name), (source, never))| {
                let seen = self.seen.get(&(kind, name.clone()));
                let seen = seen.copied().unwrap_or_default();
                let used = seen.count > 0 || seen.firsts > 0;
                let state = match never {
                    // What decided something is in use, whatever manifests that are newer than the record say.
                    Some(why) if !used => State::NeverApplies(why),
                    _ if !used => State::NeverUsed,
                    _ if seen.alone == 0 => State::NeverNeeded,
                    _ => State::Used,
                };
                Use {
                    kind,
                    name,
                    source,
                    state,
                    count: seen.count,
                    firsts: seen.firsts,
                    last: seen.last,
                }
            })
            .collect();
        out.sort_by(|a, b| (&a.state, a.kind, &a.name).cmp(&(&b.state, b.kind, &b.name)));
        out
    }
}

/// Every part: its place, and why it can never apply, if so.
#[derive(Default)]
struct Parts {
    found: BTreeMap<(&'static str, String), (String, Option<String>)>,
    /// `kind/namespace/name` of every object that is in force somewhere.
    in_force: BTreeSet<String>,
    /// Servers that lost every port to another.
    lost: BTreeSet<String>,
}

impl Parts {
    fn note(&mut self, kind: &'static str, name: String, source: String, never: Option<String>) {
        let known = self
            .found
            .entry((kind, name))
            .or_insert((source, never.clone()));
        // What may apply to one workload may apply.
        if never.is_none() {
            known.1 = None;
        }
    }

    fn of(&mut self, data: SnapshotData, now: Timestamp) {
        let clauses = Clauses::of(&data);
        let view = Snapshot::compile(data.clone()).ok();
        for (number, port) in &data.ports {
            let shadowed = match &view {
                Some(view) => {
                    let literals = literals_of(&[&view.data()], &[]);
                    requests(&[view], *number, now, literals.as_ref()).shadowed
                }
                None => Vec::new(),
            };
            self.port(&data, port, &shadowed, now);
        }
        let sets: BTreeSet<&str> = data
            .ports
            .values()
            .flat_map(|port| sets_of(&data, port).into_keys())
            .collect();
        for clause in clauses.all() {
            if sets.contains(clause.set.as_str()) {
                self.in_force.insert(clause.set.clone());
                let (name, source) = (clause.name.clone(), clause.source.clone());
                self.note("clause", name, source, clause.empty.clone());
            }
        }
        for network in &data.egress {
            self.egress(network);
        }
        for text in &data.cedar_policies {
            let never = text.invalid.clone().or_else(|| expired(&text.term, now));
            self.policy(&text.id, text.source.to_string(), never);
        }
    }

    fn port(
        &mut self,
        data: &SnapshotData,
        port: &PortPolicy,
        shadowed: &[String],
        now: Timestamp,
    ) {
        let server = &port.server;
        if !server.default {
            let name = format!("Server/{}/{}", server.namespace, server.name);
            self.in_force.insert(name.clone());
            self.note("server", name, server.source.to_string(), None);
        }
        for loser in &server.shadowed {
            self.lost
                .insert(format!("Server/{}/{}", loser.namespace, loser.name));
        }
        for route in &port.routes {
            let object = format!("{}/{}/{}", route.kind, route.namespace, route.name);
            for rule in 0..route.rules.len() {
                let title = format!(
                    "{} {}/{} rule {rule}",
                    route.kind, route.namespace, route.name
                );
                let better = shadowed.contains(&title);
                let never = better.then(|| "other rules take all of its requests".to_owned());
                let never = route.invalid.clone().or(never);
                self.note(
                    "route",
                    format!("{object}/{rule}"),
                    route.source.to_string(),
                    never,
                );
            }
            self.in_force.insert(object);
        }
        let numbers = port.grants.iter().filter_map(|n| usize::try_from(*n).ok());
        let grants = numbers.filter_map(|n| data.grants.get(n));
        for grant in grants.filter(|grant| is_written(&grant.id)) {
            self.policy(
                &grant.id,
                grant.source.to_string(),
                impossible(data, grant, now),
            );
        }
    }

    /// A network that allows, and routes. One that denies is a guard, whether somebody ran into it or not.
    fn egress(&mut self, network: &EgressNetwork) {
        let object = format!("EgressNetwork/{}/{}", network.namespace, network.name);
        if network.traffic == TrafficPolicy::Allow {
            let (id, source) = (format!("{object}/allow"), network.source.to_string());
            self.note("egress-network", id, source, network.invalid.clone());
        }
        self.in_force.insert(object);
        for route in network.ports.values().flat_map(|port| &port.routes) {
            for rule in 0..route.rules.len() {
                let id = format!("{}/{}/{}/{rule}", route.kind, route.namespace, route.name);
                let source = route.source.to_string();
                self.note("egress-route", id, source, route.invalid.clone());
            }
            let kind = route.kind.split('.').next().unwrap_or_default();
            self.in_force
                .insert(format!("{kind}/{}/{}", route.namespace, route.name));
        }
    }

    fn policy(&mut self, id: &str, source: String, never: Option<String>) {
        if let Some((object, _)) = id.rsplit_once('/') {
            self.in_force.insert(object.to_owned());
        }
        self.note("policy", id.to_owned(), source, never);
    }

    fn nowhere(&mut self, objects: &[ObjectRef], findings: &[Finding]) {
        for object in objects {
            let name = format!("{}/{}/{}", object.kind, object.namespace, object.name);
            if self.in_force.contains(&name) {
                continue;
            }
            let said = findings.iter().find(|finding| {
                finding.severity != Severity::Info && finding.object.as_ref() == Some(object)
            });
            let why = match said {
                Some(finding) => format!("{} ({})", finding.message, finding.code),
                None if self.lost.contains(&name) => {
                    "other Servers, which are older, speak for all its ports".to_owned()
                }
                None => "it is in force on no workload of these manifests".to_owned(),
            };
            self.note("object", name, object.source.to_string(), Some(why));
        }
    }
}

/// What a reason of a decision about what leaves the mesh is a part of.
fn egress_kind(reason: &str) -> &'static str {
    match reason.starts_with("EgressNetwork/") {
        true => "egress-network",
        false => "egress-route",
    }
}

/// Why nobody can satisfy the grant, if so.
fn impossible(data: &SnapshotData, grant: &Grant, now: Timestamp) -> Option<String> {
    if let Some(ended) = expired(&grant.term, now) {
        return Some(ended);
    }
    if let Who::Identities(id) = &grant.who {
        let members = data.identity_sets.get(id).map(|set| &set.members);
        let nobody = |m: &mesh_policy::snapshot::IdentityPattern| {
            matches!(m, mesh_policy::snapshot::IdentityPattern::Nobody(_))
        };
        if members.is_none_or(|members| members.iter().all(nobody)) {
            return Some(format!("nobody is in {id}"));
        }
    }
    let id = grant.networks.as_ref()?;
    let networks = data.network_sets.get(id).map(|set| &set.networks);
    networks
        .is_none_or(Vec::is_empty)
        .then(|| format!("no address is in {id}"))
}

fn expired(term: &Term, now: Timestamp) -> Option<String> {
    let end = term.expires.filter(|end| *end <= now)?;
    Some(format!("it ended at {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, POD, POLICY, decide, index_of, request};
    use mesh_policy::egress::Seen;
    use mesh_policy::record::RecordClient;
    use mesh_policy_index::Index;

    const WIDE: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: all, namespace: shop}
spec: {identities: ['spiffe://cluster.local/ns/shop/*']}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: wide, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: http}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: all}]
---
";
    const READ: &str = "AuthorizationPolicy/shop/read/0";
    const WEB: &str = "MeshTLSAuthentication/shop/web: spiffe://cluster.local/ns/shop/sa/web";
    const ADMIN: &str = "MeshTLSAuthentication/shop/web: spiffe://cluster.local/ns/shop/sa/admin";

    #[test]
    fn a_first_use_is_a_use_and_no_part_of_the_sample() {
        let index = index_of(&[POD, POLICY]);
        let mut uses = Uses::new(&index);
        let sampled = decide(&index, &request("web", "/orders"));
        for first in [true, false, true] {
            uses.add(&DecisionRecord {
                first,
                ..sampled.clone()
            });
        }
        let report = uses.report(&index.policy_objects(), index.findings(), NOW);
        let read = report.iter().find(|one| one.name == READ).unwrap();
        assert_eq!((&read.state, read.count, read.firsts), (&State::Used, 1, 2));
        let mut uses = Uses::new(&index);
        uses.add(&DecisionRecord {
            first: true,
            ..sampled
        });
        let report = uses.report(&index.policy_objects(), index.findings(), NOW);
        let read = report.iter().find(|one| one.name == READ).unwrap();
        assert_eq!((&read.state, read.count), (&State::Used, 0));
    }

    fn states(parts: &[&str], accounts: &[&str]) -> BTreeMap<String, State> {
        let index = index_of(parts);
        let mut uses = Uses::new(&index);
        for account in accounts {
            uses.add(&decide(&index, &request(account, "/orders")));
        }
        let report = uses.report(&index.policy_objects(), index.findings(), NOW);
        report
            .into_iter()
            .map(|one| (one.name, one.state))
            .collect()
    }

    #[test]
    fn used_clauses_are_told_from_those_beside_them() {
        let all = states(&[POD, POLICY], &["web"]);
        assert_eq!((&all[READ], &all[WEB]), (&State::Used, &State::Used));
        assert_eq!(all[ADMIN], State::NeverUsed);
        assert_eq!(all["HTTPRoute/shop/read/0"], State::Used);
        let all = states(&[POD, POLICY], &["intruder"]);
        assert_eq!(
            (&all[READ], &all[WEB]),
            (&State::NeverUsed, &State::NeverUsed)
        );
        // It was asked, and said no: that is use.
        assert_eq!(all["Server/shop/http"], State::Used);
        assert_eq!(
            states(&[POD, POLICY], &[])["Server/shop/http"],
            State::NeverUsed
        );
    }

    #[test]
    fn a_clause_that_holds_is_not_used_by_a_grant_that_does_not() {
        let ended = WIDE.replace(
            "{name: wide, namespace: shop}",
            "{name: wide, namespace: shop, annotations: {mesh.internal/expires: '2020-01-01T00:00:00Z'}}",
        );
        let all = states(&[POD, POLICY, &ended], &["web"]);
        let clause = "MeshTLSAuthentication/shop/all: spiffe://cluster.local/ns/shop/*";
        assert_eq!((&all[clause], &all[WEB]), (&State::NeverUsed, &State::Used));
    }

    #[test]
    fn what_others_allow_too_is_never_needed() {
        let all = states(&[POD, POLICY, WIDE], &["web", "other"]);
        assert_eq!(all[READ], State::NeverNeeded);
        assert_eq!(all["AuthorizationPolicy/shop/wide/0"], State::Used);
    }

    #[test]
    fn what_can_never_apply_says_why() {
        let never = |parts: &[&str], name: &str| match states(parts, &[]).remove(name) {
            Some(State::NeverApplies(why)) => why,
            other => panic!("{name}: {other:?}"),
        };
        let nobody = POLICY
            .replace(
                "'spiffe://cluster.local/ns/shop/sa/web', ",
                "'a.b.example.org'",
            )
            .replace("'spiffe://cluster.local/ns/shop/sa/admin'", "");
        assert!(never(&[POD, &nobody], READ).contains("nobody is in"));
        let ended = POLICY.replace(
            "AuthorizationPolicy\nmetadata: {name: read, namespace: shop}",
            "AuthorizationPolicy\nmetadata: {name: read, namespace: shop, annotations: {mesh.internal/expires: '2020-01-01T00:00:00Z'}}",
        );
        assert!(never(&[POD, &ended], READ).contains("2020"));
        let unbound = WIDE.replace("name: http}", "name: none}");
        never(&[POD, POLICY, &unbound], "AuthorizationPolicy/shop/wide");
        never(&[POD, POLICY, &unbound], "MeshTLSAuthentication/shop/all");
        never(&[POLICY], "Server/shop/http");
        let shadowed = POLICY.replace(
            "  rules: [",
            "  rules: [{matches: [{path: {type: Exact, value: /health}}]}, {matches: [{path: {type: Exact, value: /health}}]}, ",
        );
        assert!(never(&[POD, &shadowed], "HTTPRoute/shop/read/1").contains("other rules"));
    }

    const EGRESS: &str = "apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: guard, namespace: mesh-system}
spec: {trafficPolicy: Deny}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: open, namespace: shop}
spec: {trafficPolicy: Allow}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: bank, namespace: mesh-system}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: guard, port: 443}]
  hostnames: [api.bank.example]
  rules: [{backendRefs: []}]
---
";

    /// What the proxy of `orders` records of TLS to a name.
    fn left(index: &Index, name: &str) -> DecisionRecord {
        let key = WorkloadKey {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        };
        let data = World::snapshot(index, &key).expect("a workload");
        let snapshot = Snapshot::compile(data).expect("policy");
        let seen = Seen::Tls(Some(name));
        let to = "203.0.113.7:443".parse().expect("an address");
        let decision = snapshot.egress().at(to).decide(&seen);
        decision.record(None, RecordClient::default(), "shop", &seen)
    }

    #[test]
    fn egress_is_judged_by_what_was_let_out_and_a_guard_is_never_called_unused() {
        let index = index_of(&[POD, POLICY, EGRESS]);
        let state_of = |names: &[&str], part: &str| {
            let mut uses = Uses::new(&index);
            for name in names {
                uses.add_left(&left(&index, name));
            }
            let report = uses.report(&index.policy_objects(), index.findings(), NOW);
            let found = report.into_iter().find(|one| one.name.starts_with(part));
            found.map(|one| (one.kind, one.state))
        };
        let (route, open) = ("TLSRoute/mesh-system/bank", "EgressNetwork/shop/open");
        let let_out: &[&str] = &["api.bank.example"];
        for (names, state) in [
            (let_out, State::Used),
            (&["evil.example"], State::NeverUsed),
            (&[], State::NeverUsed),
        ] {
            let want = |kind| Some((kind, state.clone()));
            assert_eq!(state_of(names, route), want("egress-route"), "{names:?}");
            assert_eq!(state_of(names, open), want("egress-network"), "{names:?}");
            let guard = state_of(names, "EgressNetwork/mesh-system/guard");
            assert_eq!(guard, None, "{names:?}");
        }
    }
}
