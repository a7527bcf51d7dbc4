//! Which parts of policy a set of cases exercised: each part should once have held, and once have failed.

use crate::cases::{Outcome, route_text};
use crate::clauses::{Clauses, is_written, sets_of};
use crate::world::World;
use mesh_policy::decide::Verdict;
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::{Client, ClientRecord};
use mesh_policy::snapshot::{PortPolicy, SnapshotData};
use mesh_policy_index::WorkloadKey;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a set of cases exercised.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    /// Percent of sides (held, failed) that were seen, rounded down; 100 if there is nothing.
    pub percent: u64,
    /// Every part, sorted by kind and name.
    pub parts: Vec<Part>,
}

/// One part of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// `file:line`.
    pub source: String,
    /// `server`, `route`, `policy`, `clause`.
    pub kind: &'static str,
    /// Which.
    pub name: String,
    /// Cases in which it held: the Server allowed, the route took the request, the policy is a reason, the clause held
    /// for the client.
    pub held: u64,
    /// Cases that reached its port, and in which it did not.
    pub failed: u64,
}

type Parts = BTreeMap<(&'static str, String), Part>;

/// Counts what the outcomes exercised.
pub fn measure(world: &dyn World, outcomes: &[Outcome]) -> Coverage {
    let mut reached: BTreeMap<WorkloadKey, Vec<&DecisionRecord>> = BTreeMap::new();
    for outcome in outcomes {
        let server = &outcome.decision.server;
        if let Some(name) = &server.workload {
            let key = WorkloadKey {
                namespace: server.namespace.clone(),
                name: name.clone(),
            };
            reached.entry(key).or_default().push(&outcome.decision);
        }
    }
    let mut parts = Parts::new();
    for key in world.workloads() {
        let Some(data) = world.snapshot(&key) else {
            continue;
        };
        let clauses = Clauses::of(&data);
        for port in data.ports.values() {
            judge(&data, port, &clauses, None, &mut parts);
        }
        for decision in reached.get(&key).into_iter().flatten() {
            if let Some(port) = data.ports.get(&decision.server.port) {
                judge(&data, port, &clauses, Some(decision), &mut parts);
            }
        }
    }
    let parts: Vec<Part> = parts.into_values().collect();
    let seen: usize = parts
        .iter()
        .map(|part| usize::from(part.held > 0) + usize::from(part.failed > 0))
        .sum();
    let sides = parts.len().saturating_mul(2);
    let percent = seen.saturating_mul(100).checked_div(sides).unwrap_or(100);
    Coverage {
        percent: percent as u64,
        parts,
    }
}

impl Coverage {
    /// Parts of which one side was never seen.
    pub fn missing(&self) -> impl Iterator<Item = &Part> {
        self.parts
            .iter()
            .filter(|part| part.held == 0 || part.failed == 0)
    }
}

/// Notes every part of a port, and with a decision counts whether it held.
fn judge(
    data: &SnapshotData,
    port: &PortPolicy,
    clauses: &Clauses,
    decision: Option<&DecisionRecord>,
    parts: &mut Parts,
) {
    let mut note = |kind: &'static str, name: String, source: String, holds: bool| {
        let part = parts.entry((kind, name.clone())).or_insert(Part {
            source,
            kind,
            name,
            held: 0,
            failed: 0,
        });
        if decision.is_some() {
            let count = if holds {
                &mut part.held
            } else {
                &mut part.failed
            };
            *count = count.saturating_add(1);
        }
    };
    let server = &port.server;
    if !server.default {
        let name = format!("Server/{}/{}", server.namespace, server.name);
        let allowed = decision.is_some_and(|d| d.verdict == Verdict::Allow);
        note("server", name, server.source.to_string(), allowed);
    }
    let taken = decision.and_then(route_text);
    for route in &port.routes {
        for rule in 0..route.rules.len() {
            let name = format!("{}/{}/{}/{rule}", route.kind, route.namespace, route.name);
            let holds = taken.as_ref() == Some(&name);
            note("route", name, route.source.to_string(), holds);
        }
    }
    let reason = |id: &String| decision.is_some_and(|d| d.reasons.contains(id));
    let numbers = port.grants.iter().filter_map(|n| usize::try_from(*n).ok());
    let grants = numbers.filter_map(|n| data.grants.get(n));
    for grant in grants.filter(|grant| is_written(&grant.id)) {
        let holds = reason(&grant.id);
        note("policy", grant.id.clone(), grant.source.to_string(), holds);
    }
    for text in &data.cedar_policies {
        note(
            "policy",
            text.id.clone(),
            text.source.to_string(),
            reason(&text.id),
        );
    }
    let sets = sets_of(data, port);
    let client = decision.and_then(client_of);
    let held = client.map(|client| clauses.held(&client));
    for (at, clause) in clauses.all().iter().enumerate() {
        if sets.contains_key(clause.set.as_str()) {
            let holds = held.as_ref().and_then(|held| held.get(at)) == Some(&true);
            note("clause", clause.name.clone(), clause.source.clone(), holds);
        }
    }
}

/// The client of a record; `None` if it cannot be read.
pub(crate) fn client_of(decision: &DecisionRecord) -> Option<Client> {
    Client::try_from(&ClientRecord {
        spiffe_id: decision.client.spiffe_id.clone(),
        ip: decision.client.ip.clone(),
        tls: Some(decision.client.tls),
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Bench, Case};
    use crate::testing::{NOW, case, index};

    fn missing(cases: &[Case]) -> (u64, Vec<String>) {
        let index = index();
        let mut bench = Bench::new(&index, NOW);
        let outcomes: Vec<Outcome> = cases.iter().map(|case| bench.run(case)).collect();
        let coverage = measure(&index, &outcomes);
        let names = coverage.missing().map(|part| part.name.clone()).collect();
        (coverage.percent, names)
    }

    #[test]
    fn both_sides_of_each_part_count() {
        assert_eq!(missing(&[]).0, 0);
        let allowed = case("web", "/orders", Verdict::Allow);
        assert_eq!(missing(std::slice::from_ref(&allowed)).0, 50);
        let denied = case("intruder", "/none", Verdict::Deny);
        let mut far = case("admin", "/orders", Verdict::Deny);
        far.request.client.ip = Some("10.0.0.1".to_owned());
        let (percent, names) = missing(&[allowed, denied, far]);
        assert_eq!((percent, names), (100, Vec::new()));
    }
}
