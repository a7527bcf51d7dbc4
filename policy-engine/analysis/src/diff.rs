//! What two policies decide differently: which access is gained, which is lost, each with a request that shows it.
//!
//! Workloads whose snapshots are equal decide alike and are not asked. Where they differ, the classes are those of both
//! together, and each class is decided under both.

use crate::classes::literals::Literals;
use crate::classes::request::{Requests, requests};
use crate::classes::{Clients, RequestClass, Who, clients, literals_of};
use crate::error::AnalysisError;
use crate::survey::{
    Access, Allowed, DECISIONS_MAX, Reasons, Setting, Survey, client, compile, known_identities,
    sources,
};
use crate::world::{AskedPort, World, deciding_part, ports, title};
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Generation, Verdict, decide_on};
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::RequestRecord;
use mesh_policy::snapshot::{Finding, Grant, IdentityPattern, SnapshotData, Who as GrantWho};
use mesh_policy_index::WorkloadKey;
use mesh_trust::SpiffeId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// All that differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// Whether every class was asked. If not, there may be more.
    pub exact: bool,
    /// Why not.
    pub notes: Vec<String>,
    /// Access that only the second policy gives.
    pub gained: Vec<Change>,
    /// Access that only the first gives.
    pub lost: Vec<Change>,
    /// Findings that only the second has.
    pub new_findings: Vec<Finding>,
    /// Findings that only the first has.
    pub gone_findings: Vec<Finding>,
}

/// Access to one port that one of the two gives.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `namespace/workload`.
    pub workload: String,
    /// The port, or `any other port`.
    pub port: String,
    /// Who, from where, what, by which policies, and one request.
    #[serde(flatten)]
    pub access: Access,
    /// The decision of that request under the first policy.
    pub before: DecisionRecord,
    /// And under the second.
    pub after: DecisionRecord,
}

impl Diff {
    /// Whether nothing differs, findings apart.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

/// Compares two worlds.
///
/// # Errors
/// [`AnalysisError`] of the first workload that has no answer.
pub fn diff(
    before: &dyn World,
    after: &dyn World,
    setting: Setting<'_>,
) -> Result<Diff, AnalysisError> {
    let mut out = Diff {
        exact: true,
        ..Diff::default()
    };
    let keys: BTreeSet<WorkloadKey> = before
        .workloads()
        .into_iter()
        .chain(after.workloads())
        .collect();
    let mut known: Option<Vec<SpiffeId>> = None;
    for key in &keys {
        let (one, other) = (before.snapshot(key), after.snapshot(key));
        if one.clone().map(deciding_part) == other.clone().map(deciding_part) {
            continue;
        }
        let home = one
            .as_ref()
            .or(other.as_ref())
            .map(|data| data.trust_domain.clone());
        let known = known.get_or_insert_with(|| {
            let both = home.iter().flat_map(|home| {
                known_identities(before, home)
                    .into_iter()
                    .chain(known_identities(after, home))
            });
            both.collect()
        });
        let pair = Pair {
            key,
            before: one.map(|data| compile(key, data)).transpose()?,
            after: other.map(|data| compile(key, data)).transpose()?,
            setting: Setting { known, ..setting },
        };
        pair.compare(&mut out)?;
    }
    (out.gone_findings, out.new_findings) = changed(&before.findings(), &after.findings());
    out.notes.sort();
    out.notes.dedup();
    Ok(out)
}

/// Findings that only one side has. That something moved to another line is no change.
fn changed(before: &[Finding], after: &[Finding]) -> (Vec<Finding>, Vec<Finding>) {
    let key = |finding: &Finding| {
        let object = finding
            .object
            .as_ref()
            .map(|o| (o.kind.clone(), o.namespace.clone(), o.name.clone()));
        (finding.code.clone(), finding.message.clone(), object)
    };
    let only = |one: &[Finding], other: &[Finding]| {
        let known: BTreeSet<_> = other.iter().map(key).collect();
        one.iter()
            .filter(|finding| !known.contains(&key(finding)))
            .cloned()
            .collect()
    };
    (only(before, after), only(after, before))
}

/// One workload under two policies; `None`: it is not there.
struct Pair<'a> {
    key: &'a WorkloadKey,
    before: Option<Snapshot>,
    after: Option<Snapshot>,
    setting: Setting<'a>,
}

impl Pair<'_> {
    fn views(&self) -> Vec<&Snapshot> {
        self.before.iter().chain(&self.after).collect()
    }

    fn compare(&self, out: &mut Diff) -> Result<(), AnalysisError> {
        let views = self.views();
        let data: Vec<&SnapshotData> = views.iter().map(|view| view.data()).collect();
        let literals = literals_of(&data, self.setting.texts);
        let mut who = clients(&data, self.setting.known, literals.as_ref());
        if let Some(touched) = self.touched() {
            who.who.retain(|class| touched.concerns(&class.who));
        }
        for port in ports(&data) {
            self.compare_port(port, &who, literals.as_ref(), out)?;
        }
        Ok(())
    }

    fn compare_port(
        &self,
        port: AskedPort,
        who: &Clients,
        literals: Option<&Literals>,
        out: &mut Diff,
    ) -> Result<(), AnalysisError> {
        let found = requests(&self.views(), port.number(), self.setting.now, literals);
        let questions = who
            .who
            .len()
            .saturating_mul(who.networks.len())
            .saturating_mul(found.classes.len());
        if questions > DECISIONS_MAX {
            return Err(AnalysisError::TooMany {
                workload: title(self.key),
                port: port.number(),
                limit: DECISIONS_MAX,
            });
        }
        let (gained, lost) = self.ask(port, who, &found.classes);
        for (allowed, view, changes) in [
            (gained, &self.after, &mut out.gained),
            (lost, &self.before, &mut out.lost),
        ] {
            let Some(view) = view.as_ref().filter(|_| !allowed.is_empty()) else {
                continue;
            };
            let survey = self.survey(port, view, who, &found, allowed);
            changes.extend(survey.access().into_iter().map(|access| Change {
                workload: title(self.key),
                port: port.text(),
                before: self.record(self.before.as_ref(), &access.witness, port),
                after: self.record(self.after.as_ref(), &access.witness, port),
                access,
            }));
        }
        out.exact &= found.inexact.is_empty();
        out.notes.extend(
            found
                .inexact
                .iter()
                .map(|why| format!("{}:{}: {why}", title(self.key), port.text())),
        );
        Ok(())
    }

    /// What only the second allows, and what only the first does.
    fn ask(
        &self,
        port: AskedPort,
        who: &Clients,
        requests: &[RequestClass],
    ) -> (Vec<Allowed>, Vec<Allowed>) {
        let (mut gained, mut lost) = (Vec::new(), Vec::new());
        for (place, class) in who.who.iter().enumerate() {
            for (network, from) in who.networks.iter().enumerate() {
                let client = client(class, from.address);
                let atoms = |view: &Option<Snapshot>| {
                    view.as_ref().map(|view| ConnectionAtoms::of(view, &client))
                };
                let (before, after) = (atoms(&self.before), atoms(&self.after));
                for (request, asked) in requests.iter().enumerate() {
                    let call = asked.ask.call();
                    let decide = |atoms: &Option<ConnectionAtoms>| -> Option<Decision> {
                        let atoms = atoms.as_ref()?;
                        let decision = decide_on(atoms, port.number(), &call, self.setting.now);
                        (decision.verdict == Verdict::Allow).then_some(decision)
                    };
                    let (only, list) = match (decide(&before), decide(&after)) {
                        (None, Some(decision)) => (decision, &mut gained),
                        (Some(decision), None) => (decision, &mut lost),
                        (None, None) | (Some(_), Some(_)) => continue,
                    };
                    let reasons: Reasons = only.reasons().into();
                    list.push(Allowed {
                        who: place,
                        network,
                        request,
                        reasons,
                    });
                }
            }
        }
        (gained, lost)
    }

    fn survey(
        &self,
        port: AskedPort,
        view: &Snapshot,
        who: &Clients,
        found: &Requests,
        allowed: Vec<Allowed>,
    ) -> Survey {
        Survey {
            workload: self.key.clone(),
            port,
            home: view.data().trust_domain.clone(),
            clients: who.clone(),
            requests: found.classes.clone(),
            allowed,
            shadowed: Vec::new(),
            inexact: found.inexact.clone(),
            sources: sources(view.data()),
        }
    }

    fn record(
        &self,
        view: Option<&Snapshot>,
        request: &RequestRecord,
        port: AskedPort,
    ) -> DecisionRecord {
        match view {
            Some(view) => decide_record(view, request, port.number(), self.setting.now),
            None => DecisionRecord::unknown_target(request, Generation::default()),
        }
    }

    /// Whom the change can concern; `None`: anybody.
    fn touched(&self) -> Option<Touched> {
        let before = deciding_part(self.before.as_ref()?.data().clone());
        let after = deciding_part(self.after.as_ref()?.data().clone());
        Touched::between(&before, &after)
    }
}

/// Whom a change of grants alone can concern: members of the sets that changed, or that a changed grant names. All others
/// hold the same grants before and after.
#[derive(Debug, Default)]
struct Touched {
    patterns: Vec<IdentityPattern>,
}

/// Grants that count on each port, by their content.
type PortGrants<'d> = BTreeMap<Option<u16>, BTreeMap<String, &'d Grant>>;

impl Touched {
    fn between(before: &SnapshotData, after: &SnapshotData) -> Option<Self> {
        if !before.cedar_policies.is_empty() || !after.cedar_policies.is_empty() {
            return None;
        }
        if without_grants(before) != without_grants(after)
            || before.network_sets != after.network_sets
        {
            return None;
        }
        let (mine, theirs) = (port_grants(before)?, port_grants(after)?);
        let mut out = Self::default();
        for (port, grants) in &mine {
            let others = theirs.get(port)?;
            let changed = grants
                .iter()
                .filter(|(text, _)| !others.contains_key(*text));
            let new = others
                .iter()
                .filter(|(text, _)| !grants.contains_key(*text));
            for (data, (_, grant)) in changed
                .map(|one| (before, one))
                .chain(new.map(|one| (after, one)))
            {
                let GrantWho::Identities(set) = &grant.who else {
                    return None;
                };
                out.patterns
                    .extend(data.identity_sets.get(set)?.members.iter().cloned());
            }
        }
        for (id, set) in &before.identity_sets {
            let other = after.identity_sets.get(id);
            if other.is_some_and(|other| other != set) {
                out.patterns.extend(
                    set.members
                        .iter()
                        .chain(other.iter().flat_map(|o| &o.members))
                        .cloned(),
                );
            }
        }
        (!out.patterns.contains(&IdentityPattern::Any)).then_some(out)
    }

    fn concerns(&self, who: &Who) -> bool {
        self.patterns.iter().any(|pattern| match (pattern, who) {
            (IdentityPattern::Exact(exact), Who::Named(id)) => exact == id,
            (
                IdentityPattern::Namespace {
                    trust_domain,
                    namespace,
                },
                Who::Named(id),
            ) => {
                id.trust_domain() == trust_domain
                    && id.service_account().is_some_and(|(of, _)| of == namespace)
            }
            (
                IdentityPattern::Namespace {
                    trust_domain,
                    namespace,
                },
                Who::Namespace(domain, of),
            ) => trust_domain == domain && namespace == of,
            _ => false,
        })
    }
}

fn without_grants(data: &SnapshotData) -> SnapshotData {
    let mut rest = data.clone();
    rest.grants.clear();
    rest.identity_sets.clear();
    rest.network_sets.clear();
    let others = std::iter::once(&mut rest.other_ports);
    rest.ports
        .values_mut()
        .chain(others)
        .for_each(|port| port.grants.clear());
    rest
}

fn port_grants(data: &SnapshotData) -> Option<PortGrants<'_>> {
    let own = data
        .ports
        .iter()
        .map(|(number, port)| (Some(*number), port));
    let mut out = PortGrants::new();
    for (number, port) in own.chain([(None, &data.other_ports)]) {
        let mut grants = BTreeMap::new();
        for at in &port.grants {
            let grant = data.grants.get(usize::try_from(*at).ok()?)?;
            grants.insert(format!("{grant:?}"), grant);
        }
        out.insert(number, grants);
    }
    Some(out)
}
