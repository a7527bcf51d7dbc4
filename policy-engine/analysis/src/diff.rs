//! What two policies decide differently: which access is gained, which is lost, each with a request that shows it.
//!
//! Workloads whose snapshots are equal decide alike and are not asked. Where they differ, the classes are those of both
//! together, and each class is decided under both.

use crate::classes::literals::Literals;
use crate::classes::request::{Requests, requests};
use crate::classes::{Clients, RequestClass, Who, clients, literals_of};
use crate::error::AnalysisError;
use crate::outside::Scope;
use crate::outside::change::{Changes, OutsideDiff};
use crate::survey::{
    Access, Allowed, DECISIONS_MAX, Reasons, Setting, Survey, client, compile, known_identities,
    sources,
};
use crate::world::{AskedPort, World, deciding_part, ports, title};
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Generation, Verdict, decide_on};
use mesh_policy::record::{DecisionRecord, decide_record};
use mesh_policy::request::RequestRecord;
use mesh_policy::snapshot::{
    Finding, Grant, IdentityPattern, PortPolicy, SnapshotData, Who as GrantWho,
};
use mesh_policy::{Data, Snapshot};
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
    /// What may leave the mesh.
    pub outside: OutsideDiff,
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
        self.gained.is_empty() && self.lost.is_empty() && self.outside.is_empty()
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
    let mut changes = Changes::default();
    let mut out = compare(before, after, setting, |key, one, other| {
        changes.add(key, one, other);
    })?;
    let mut cluster = before.cluster();
    let theirs = after.cluster();
    cluster.retain(|block| theirs.contains(block));
    let scope = Scope {
        cluster: &cluster,
        ..Scope::default()
    };
    let (outside, notes) = changes.compare(scope)?;
    out.outside = outside;
    out.exact &= notes.is_empty();
    out.notes.extend(notes);
    (out.gone_findings, out.new_findings) = changed(&before.findings(), &after.findings());
    out.notes.sort();
    out.notes.dedup();
    Ok(out)
}

/// As [`diff`], of who may call whom alone, and without findings.
///
/// # Errors
/// As [`diff`].
pub(crate) fn inside(
    before: &dyn World,
    after: &dyn World,
    setting: Setting<'_>,
) -> Result<Diff, AnalysisError> {
    compare(before, after, setting, |_, _, _| {})
}

/// Compares who may call whom, and hands over the policies of each workload; `None`: it is not there.
fn compare(
    before: &dyn World,
    after: &dyn World,
    setting: Setting<'_>,
    mut each: impl FnMut(&WorkloadKey, Option<&SnapshotData>, Option<&SnapshotData>),
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
        each(key, one.as_ref(), other.as_ref());
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
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a WorkloadKey,
    pub(crate) before: Option<Snapshot>,
    pub(crate) after: Option<Snapshot>,
    pub(crate) setting: Setting<'a>,
}

impl Pair<'_> {
    pub(crate) fn views(&self) -> Vec<&Snapshot> {
        self.before.iter().chain(&self.after).collect()
    }

    fn compare(&self, out: &mut Diff) -> Result<(), AnalysisError> {
        let views = self.views();
        let held: Vec<Data> = views.iter().map(|view| view.data()).collect();
        let data: Vec<&SnapshotData> = held.iter().map(|data| &**data).collect();
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
        let found = self.requests(port, literals);
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

    /// What can be asked of a port that the two tell apart.
    pub(crate) fn requests(&self, port: AskedPort, literals: Option<&Literals>) -> Requests {
        requests(&self.views(), port.number(), self.setting.now, literals)
    }

    /// What only the second allows, and what only the first does.
    pub(crate) fn ask(
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
            sources: sources(&view.data()),
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
    pub(crate) fn touched(&self) -> Option<Touched> {
        Touched::between(&self.before.as_ref()?.data(), &self.after.as_ref()?.data())
    }
}

/// Whom a change of grants alone can concern: members of the sets that changed, or that a changed grant names. All others
/// hold the same grants before and after.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    patterns: Vec<IdentityPattern>,
}

/// Grants that count on each port, by id.
type PortGrants<'d> = BTreeMap<Option<u16>, BTreeMap<&'d str, Vec<&'d Grant>>>;

impl Touched {
    fn between(before: &SnapshotData, after: &SnapshotData) -> Option<Self> {
        if !before.cedar_policies.is_empty() || !after.cedar_policies.is_empty() {
            return None;
        }
        if without_grants(before) != without_grants(after) || !same_networks(before, after) {
            return None;
        }
        let (mine, theirs) = (port_grants(before)?, port_grants(after)?);
        let mut out = Self::default();
        for (port, grants) in &mine {
            let others = theirs.get(port)?;
            let changed = only_in(grants, others).map(|grant| (before, grant));
            let new = only_in(others, grants).map(|grant| (after, grant));
            for (data, grant) in changed.chain(new) {
                let GrantWho::Identities(set) = &grant.who else {
                    return None;
                };
                let members = &data.identity_sets.get(set)?.members;
                out.patterns.extend(members.iter().cloned());
            }
        }
        for (id, set) in &before.identity_sets {
            let other = after.identity_sets.get(id);
            if let Some(other) = other.filter(|other| other.members != set.members) {
                out.patterns
                    .extend(set.members.iter().chain(&other.members).cloned());
            }
        }
        (!out.patterns.contains(&IdentityPattern::Any)).then_some(out)
    }

    pub(crate) fn concerns(&self, who: &Who) -> bool {
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

/// All but grants and sets, which are compared one by one: there may be ten thousand.
fn without_grants(data: &SnapshotData) -> SnapshotData {
    let bare = |port: &PortPolicy| PortPolicy {
        grants: Vec::new(),
        ..port.clone()
    };
    deciding_part(SnapshotData {
        generation: data.generation,
        workload: data.workload.clone(),
        trust_domain: data.trust_domain.clone(),
        wildcard_domains: data.wildcard_domains.clone(),
        ports: data
            .ports
            .iter()
            .map(|(number, port)| (*number, bare(port)))
            .collect(),
        other_ports: bare(&data.other_ports),
        grants: Vec::new(),
        identity_sets: BTreeMap::new(),
        network_sets: BTreeMap::new(),
        cedar_policies: data.cedar_policies.clone(),
        egress: Vec::new(),
        findings: Vec::new(),
    })
}

fn same_networks(before: &SnapshotData, after: &SnapshotData) -> bool {
    let (one, other) = (&before.network_sets, &after.network_sets);
    one.len() == other.len()
        && one.iter().all(|(id, set)| {
            other
                .get(id)
                .is_some_and(|known| known.networks == set.networks)
        })
}

/// Grants that no grant of `others` is equal to, wherever both are declared.
fn only_in<'g, 'd>(
    grants: &'g BTreeMap<&'d str, Vec<&'d Grant>>,
    others: &'g BTreeMap<&'d str, Vec<&'d Grant>>,
) -> impl Iterator<Item = &'d Grant> + use<'g, 'd> {
    grants.iter().flat_map(move |(id, grants)| {
        let known = others.get(id).map(Vec::as_slice).unwrap_or_default();
        let new = |grant: &&&Grant| !known.iter().any(|other| same_grant(grant, other));
        grants.iter().filter(new).copied()
    })
}

/// Whether two grants say the same.
fn same_grant(one: &Grant, other: &Grant) -> bool {
    one.effect == other.effect
        && one.scope == other.scope
        && one.who == other.who
        && one.networks == other.networks
        && one.audit == other.audit
        && one.term == other.term
}

fn port_grants(data: &SnapshotData) -> Option<PortGrants<'_>> {
    let own = data
        .ports
        .iter()
        .map(|(number, port)| (Some(*number), port));
    let mut out = PortGrants::new();
    for (number, port) in own.chain([(None, &data.other_ports)]) {
        let grants: &mut BTreeMap<&str, Vec<&Grant>> = out.entry(number).or_default();
        for at in &port.grants {
            let grant = data.grants.get(usize::try_from(*at).ok()?)?;
            grants.entry(grant.id.as_str()).or_default().push(grant);
        }
    }
    Some(out)
}
