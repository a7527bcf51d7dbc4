//! Every port of every workload, asked in full: who may reach it, by which grants, and whether zones keep their borders.

use super::Facts;
use super::grants::GrantFact;
use crate::bundle::Zone;
use mesh_policy::Snapshot;
use mesh_policy::request::RequestRecord;
use mesh_policy::snapshot::{Effect, Source};
use mesh_policy_analysis::classes::Who;
use mesh_policy_analysis::clauses::is_written;
use mesh_policy_analysis::survey::{Access, Setting, Survey, compile, is_probe};
use mesh_policy_analysis::world::{AskedPort, port_policy, ports, title};
use mesh_policy_index::WorkloadKey;
use mesh_trust::TrustDomain;
use std::collections::{BTreeMap, BTreeSet};

/// What speaks for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFact {
    /// Namespace.
    pub namespace: String,
    /// `namespace/workload`.
    pub workload: String,
    /// The number, or `any other port`.
    pub port: String,
    /// The Server, or `default`.
    pub server: String,
    /// Whether no Server speaks for it.
    pub default: bool,
    /// Mode of its default policy or `accessPolicy`: `deny` and the like.
    pub mode: String,
    /// Why everything is denied, if it is for a fault.
    pub invalid: Option<String>,
    /// Where that is declared.
    pub source: Source,
}

/// One way in which an asset may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewLine {
    /// Namespace of the asset.
    pub namespace: String,
    /// `namespace/workload`.
    pub asset: String,
    /// The number, or `any other port`.
    pub port: String,
    /// Who, in classes.
    pub access: Access,
}

/// A zone, examined.
#[derive(Clone, Debug)]
pub struct ZoneFact {
    /// The zone.
    pub zone: Zone,
    /// Workloads in it.
    pub workloads: usize,
    /// Requests that were decided.
    pub decisions: usize,
    /// Who from outside may reach what of it.
    pub openings: Vec<Opening>,
    /// Why it cannot be told whether there are more.
    pub notes: BTreeSet<String>,
}

/// Somebody from outside a zone who may reach it.
#[derive(Clone, Debug)]
pub struct Opening {
    /// `namespace/workload:port`.
    pub asset: String,
    /// Who.
    pub who: String,
    /// Policies that allow it, with their place.
    pub by: Vec<String>,
    /// One such request; `mesh authz replay` decides it so.
    pub witness: Option<RequestRecord>,
}

/// Asks every port of every workload.
pub(super) fn examine(facts: &mut Facts<'_>) {
    let keys: Vec<WorkloadKey> = facts
        .index
        .workloads()
        .map(|(key, _)| key.clone())
        .collect();
    facts.zones = facts.bundle.zones.iter().map(ZoneFact::of).collect();
    let known = std::mem::take(&mut facts.known);
    let setting = Setting {
        now: facts.bundle.scope.until,
        known: &known,
        texts: &[],
        structural: false,
    };
    for key in keys {
        let generation = mesh_policy::decide::Generation::default();
        let Some(data) = facts.index.snapshot(&key, generation) else {
            continue;
        };
        for grant in data.grants.iter().filter(|grant| is_written(&grant.id)) {
            if grant.effect == Effect::Permit && !facts.grants.contains_key(&grant.id) {
                let fact = GrantFact::of(grant, &data);
                facts.grants.insert(grant.id.clone(), fact);
            }
        }
        for text in data
            .cedar_policies
            .iter()
            .filter(|text| text.effect == Effect::Permit)
        {
            let fact = facts.grants.entry(text.id.clone());
            fact.or_insert_with(|| GrantFact::written(text));
        }
        match compile(&key, data) {
            Ok(view) => ask(facts, &key, &view, setting),
            Err(error) => unanswered(facts, &key, &error.to_string()),
        }
    }
    for zone in facts.zones.iter_mut().filter(|zone| zone.workloads == 0) {
        zone.notes
            .insert("no workload of the manifests is in it".to_owned());
    }
    facts.known = known;
}

fn ask(facts: &mut Facts<'_>, key: &WorkloadKey, view: &Snapshot, setting: Setting<'_>) {
    let home = facts.bundle.scope.trust_domain.clone();
    for zone in facts.zones.iter_mut().filter(|zone| zone.has(key)) {
        zone.workloads += 1;
    }
    let data = view.data();
    for port in ports(&[&data]) {
        let server = &port_policy(&data, port.number()).server;
        facts.ports.push(PortFact {
            namespace: key.namespace.clone(),
            workload: title(key),
            port: port.text(),
            server: server.name.clone(),
            default: server.default,
            mode: server.mode.clone(),
            invalid: server.invalid.clone(),
            source: server.source.clone(),
        });
        match Survey::of(key, view, port, setting) {
            Ok(survey) => answered(facts, key, port, &survey, &home),
            Err(error) => unanswered(facts, key, &error.to_string()),
        }
    }
}

fn unanswered(facts: &mut Facts<'_>, key: &WorkloadKey, why: &str) {
    facts.review_notes.insert(why.to_owned());
    for zone in facts.zones.iter_mut().filter(|zone| zone.has(key)) {
        zone.notes.insert(why.to_owned());
    }
}

fn answered(
    facts: &mut Facts<'_>,
    key: &WorkloadKey,
    port: AskedPort,
    survey: &Survey,
    home: &TrustDomain,
) {
    facts.review_notes.extend(survey.inexact.iter().cloned());
    for zone in facts.zones.iter_mut().filter(|zone| zone.has(key)) {
        zone.add(key, survey, home);
    }
    let entered = survey.allowed.iter().filter(|one| !is_probe(one));
    for one in entered.clone() {
        let class = survey.clients.who.get(one.who).map(|class| &class.who);
        for reason in one.reasons.iter() {
            if let (Some(fact), Some(who)) = (facts.grants.get_mut(&**reason), class) {
                fact.lets_in(who, home);
            }
        }
    }
    for access in survey.grouped(entered) {
        facts.review.push(ReviewLine {
            namespace: key.namespace.clone(),
            asset: title(key),
            port: port.text(),
            access,
        });
    }
}

impl ZoneFact {
    fn of(zone: &Zone) -> Self {
        Self {
            zone: zone.clone(),
            workloads: 0,
            decisions: 0,
            openings: Vec::new(),
            notes: BTreeSet::new(),
        }
    }

    fn has(&self, key: &WorkloadKey) -> bool {
        self.zone.namespaces.contains(&key.namespace)
    }

    /// Whether everybody of a class comes from the zone, or from where it may be reached from.
    fn admits(&self, who: &Who, home: &TrustDomain) -> bool {
        let inside = |namespace: &str| {
            let all = self.zone.namespaces.iter().chain(&self.zone.from);
            all.clone().any(|name| name == namespace)
        };
        match who {
            Who::Named(id) => {
                let account = id.service_account();
                id.trust_domain() == home && account.is_some_and(|(namespace, _)| inside(namespace))
            }
            Who::Namespace(domain, namespace) => domain == home && inside(namespace),
            Who::Domain(_) | Who::Foreign | Who::Tls | Who::Plaintext => false,
        }
    }

    fn add(&mut self, key: &WorkloadKey, survey: &Survey, home: &TrustDomain) {
        self.decisions = self.decisions.saturating_add(survey.decisions());
        self.notes.extend(survey.inexact.iter().cloned());
        let mut named = BTreeMap::new();
        for one in survey.allowed.iter().filter(|one| !is_probe(one)) {
            let Some(class) = survey.clients.who.get(one.who) else {
                continue;
            };
            if !self.admits(&class.who, home) {
                named.entry(class.who.text(home)).or_insert(one);
            }
        }
        let found = named.into_iter().map(|(who, one)| Opening {
            asset: format!("{}:{}", title(key), survey.port.text()),
            who,
            by: one
                .reasons
                .iter()
                .map(|id| {
                    let source = survey.sources.get(&**id).map_or("built in", String::as_str);
                    format!("{id} ({source})")
                })
                .collect(),
            witness: survey.witness(one),
        });
        self.openings.extend(found);
    }
}
