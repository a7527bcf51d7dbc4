//! What two policies let out of the mesh differently, each with a connection or request that shows it.
//!
//! Workloads whose networks are equal on both sides get out alike and are not asked; those that change alike are asked
//! once. Of addresses for which equal networks speak nothing is asked either.

use super::places::Addresses;
use super::sent::{Sent, SentClass};
use super::{Inexact, Scope, Sources, Speaking, Witness, ask, decisive};
use crate::error::AnalysisError;
use crate::survey::{Reason, compile};
use crate::world::{AskedPort, title};
use mesh_policy::Snapshot;
use mesh_policy::decide::Verdict;
use mesh_policy::egress::{EgressDecision, Origination, TlsOrigin, TlsRoots, TlsVersion};
use mesh_policy::record::{DecisionRecord, RecordClient};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::WorkloadKey;
use mesh_trust::SpiffeId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutsideDiff {
    /// What only the second policy lets out; and what both do, the second in a manner that is not plainly a closer one: not
    /// to the addresses of a name alone, in TLS of the proxy's no longer, by other roots.
    pub gained: Vec<OutsideChange>,
    /// What only the first lets out, or the second in a closer manner.
    pub lost: Vec<OutsideChange>,
}

/// What is let out in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutsideAccess {
    /// Blocks of addresses; empty: any outside of the cluster.
    pub to: Vec<String>,
    /// Ports, or `any other port`; empty: any.
    pub ports: Vec<String>,
    /// What may be sent there; empty: anything.
    pub sent: Vec<String>,
    /// What lets it out; empty: no network speaks for these addresses.
    pub reasons: Vec<Reason>,
    /// One connection or request.
    pub witness: Witness,
}

/// What one of two policies lets out, and the other does not.
#[derive(Clone, Debug, Serialize)]
pub struct OutsideChange {
    /// Whose: `namespace/workload`.
    pub workloads: Vec<String>,
    /// What is let out, and by what.
    #[serde(flatten)]
    pub access: OutsideAccess,
    /// What does not, under the other policy; empty: the workload is not there, or gets out there in another manner.
    pub closed_by: Vec<Reason>,
    /// What the first policy says of it; none: the workload is not there.
    pub before: Option<Said>,
    /// And the second.
    pub after: Option<Said>,
}

/// A decision with its cause.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// In words.
    pub cause: String,
    /// As a proxy would record it.
    pub decision: DecisionRecord,
}

/// One class that two policies decide differently.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Whether the second lets it out; else the first. Of what both do: whether the second is not plainly closer.
    pub gained: bool,
    /// Whether both let it out, in different manners.
    pub in_manner: bool,
    /// Addresses.
    pub addresses: Addresses,
    /// Port.
    pub port: AskedPort,
    /// What is sent.
    pub class: SentClass,
    /// Classes of what may be sent there.
    pub classes: usize,
    /// Classes of ports of these addresses.
    pub ports: usize,
    /// One of the addresses and ports.
    pub to: SocketAddr,
    /// What the first says; none: the workload is not there.
    pub before: Option<EgressDecision>,
    /// What the second says.
    pub after: Option<EgressDecision>,
}

impl OutsideDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

/// Every class that two policies of one workload decide differently, in this scope. `None`: the workload is
/// not there.
pub fn differences(
    before: Option<&Snapshot>,
    after: Option<&Snapshot>,
    scope: Scope<'_>,
) -> (Vec<Difference>, Inexact) {
    let views: Vec<&Snapshot> = before.into_iter().chain(after).collect();
    let both = before.is_some() && after.is_some();
    let differ = |speaking: &[Speaking<'_>]| match speaking {
        [one, other] => one != other,
        _ => true,
    };
    let mut out = Vec::new();
    let inexact = ask(&views, scope, differ, |question| {
        let mut decisions = question.decisions.into_iter();
        let first = decisions.next();
        let (before, after) = match (both, before.is_some()) {
            (true, _) => (first, decisions.next()),
            (false, true) => (first, None),
            (false, false) => (None, first),
        };
        let (was, is) = (lets_out(before.as_ref()), lets_out(after.as_ref()));
        let in_manner = was && is && manner(before.as_ref()) != manner(after.as_ref());
        if was != is || in_manner {
            let closer = in_manner && is_closer(manner(before.as_ref()), manner(after.as_ref()));
            out.push(Difference {
                gained: is && !closer,
                in_manner,
                addresses: question.addresses.clone(),
                port: question.port,
                class: question.class.clone(),
                classes: question.classes,
                ports: question.ports,
                to: question.to,
                before,
                after,
            });
        }
    });
    (out, inexact)
}

fn lets_out(decision: Option<&EgressDecision>) -> bool {
    decision.is_some_and(|decision| decision.verdict() == Verdict::Allow)
}

/// How something is let out: to the addresses of its name alone, and in which TLS of the proxy's.
type Manner<'d> = (bool, Option<&'d Origination>);

fn manner(decision: Option<&EgressDecision>) -> Manner<'_> {
    let bound = decision.is_some_and(|decision| decision.bound_to().is_some());
    (bound, decision.and_then(EgressDecision::tls))
}

/// Whether one manner lets out less than another, with no doubt.
fn is_closer(before: Manner<'_>, after: Manner<'_>) -> bool {
    match (before, after) {
        ((false, was), (true, is)) => was == is,
        ((false, Some(was)), (false, Some(is))) => {
            let mut raised = TlsOrigin::clone(&was.origin);
            raised.min_version = TlsVersion::V1_3;
            was.server_name == is.server_name && raised == *is.origin
        }
        _ => false,
    }
}

/// A manner in words.
fn in_words(decision: &EgressDecision) -> String {
    match (decision.bound_to(), decision.tls()) {
        (_, Some(tls)) => {
            let version = match tls.origin.min_version {
                TlsVersion::V1_2 => "1.2",
                TlsVersion::V1_3 => "1.3",
            };
            let roots = match &tls.origin.roots {
                TlsRoots::System => "roots of the system",
                TlsRoots::Pem(_) => "roots of its own",
            };
            let port = tls.origin.port;
            format!("allowed, in TLS {version} or later to port {port} by {roots}")
        }
        (Some(name), None) => format!("allowed, to the addresses of `{name}` alone"),
        (None, None) => "allowed, to whatever address and as it is".to_owned(),
    }
}

/// Workloads of two worlds, those that change alike together.
#[derive(Default)]
pub(crate) struct Changes {
    pub(super) groups: BTreeMap<[String; 2], Group>,
    /// Whether a network speaks for anybody at all. Where none does, everybody gets out everywhere, and a workload more or
    /// less changes nothing about it.
    restricted: bool,
}

/// The first of the workloads that change alike, with its policies, and all of them.
pub(super) struct Group {
    pub(super) key: WorkloadKey,
    before: Option<SnapshotData>,
    pub(super) after: Option<SnapshotData>,
    pub(super) workloads: Vec<String>,
}

impl Changes {
    /// Adds a workload; `None`: it is not there.
    pub(crate) fn add(
        &mut self,
        key: &WorkloadKey,
        before: Option<&SnapshotData>,
        after: Option<&SnapshotData>,
    ) {
        let networks = [before, after].map(|data| data.map(decisive));
        let mut all = networks.iter().flatten();
        self.restricted |= all.any(|networks| !networks.is_empty());
        let [one, other] = &networks;
        if one == other {
            return;
        }
        let text = networks.map(|networks| serde_json::to_string(&networks).unwrap_or_default());
        let group = self.groups.entry(text).or_insert_with(|| Group {
            key: key.clone(),
            before: before.cloned(),
            after: after.cloned(),
            workloads: Vec::new(),
        });
        group.workloads.push(title(key));
    }

    /// Compares, and says why that may not be all.
    ///
    /// # Errors
    /// [`AnalysisError`] of the first workload that has no answer.
    pub(crate) fn compare(
        self,
        scope: Scope<'_>,
    ) -> Result<(OutsideDiff, Vec<String>), AnalysisError> {
        let mut out = OutsideDiff::default();
        let mut notes = Vec::new();
        let groups = self.groups.into_values();
        for group in groups.filter(|_| self.restricted) {
            let view = |data: &Option<SnapshotData>| {
                let data = data.clone();
                data.map(|data| compile(&group.key, data)).transpose()
            };
            let (before, after) = (view(&group.before)?, view(&group.after)?);
            let (found, inexact) = differences(before.as_ref(), after.as_ref(), scope);
            let who = title(&group.key);
            notes.extend(inexact.0.into_iter().map(|why| format!("{who}: {why}")));
            for (gained, list) in [(true, &mut out.gained), (false, &mut out.lost)] {
                let mine = found.iter().filter(|one| one.gained == gained);
                list.extend(group.rows(&mine.collect::<Vec<_>>()));
            }
        }
        Ok((out, notes))
    }
}

/// What a row says besides its ports.
type Row<'d> = (Vec<String>, Vec<&'d str>, [&'d [String]; 2]);

impl Group {
    /// Differences in one direction, equal answers together.
    pub(super) fn rows(&self, found: &[&Difference]) -> Vec<OutsideChange> {
        let mut by_place: BTreeMap<_, Vec<&Difference>> = BTreeMap::new();
        for one in found.iter().copied() {
            let reasons = [&one.before, &one.after].map(reasons_of);
            let place = (one.addresses.text_all(), one.port, reasons, one.in_manner);
            by_place.entry(place).or_default().push(one);
        }
        let mut rows: BTreeMap<Row<'_>, Vec<&Difference>> = BTreeMap::new();
        for ((blocks, _, reasons, _), all) in by_place {
            let Some(first) = all.first() else {
                continue;
            };
            let sent: BTreeSet<&str> = all.iter().map(|one| one.class.what.as_str()).collect();
            let sent = match all.len() == first.classes {
                true => Vec::new(),
                false => sent.into_iter().collect(),
            };
            rows.entry((blocks, sent, reasons)).or_default().push(first);
        }
        let sources = Sources::of(self.before.iter().chain(&self.after));
        let rows = rows.into_iter();
        rows.filter_map(|(row, first)| self.row(row, &first, &sources))
            .collect()
    }

    fn row(&self, row: Row<'_>, first: &[&Difference], sources: &Sources) -> Option<OutsideChange> {
        let (to, sent, [before, after]) = row;
        let one = *first.first()?;
        let (opens, closes) = if one.gained {
            (after, before)
        } else {
            (before, after)
        };
        let access = OutsideAccess {
            to,
            ports: match first.len() == one.ports {
                true => Vec::new(),
                false => first.iter().map(|one| one.port.text()).collect(),
            },
            sent: sent.into_iter().map(str::to_owned).collect(),
            reasons: sources.reasons(opens),
            witness: Witness {
                from: title(&self.key),
                to: one.to,
                sent: one.class.sent.clone(),
            },
        };
        Some(OutsideChange {
            workloads: self.workloads.clone(),
            access,
            closed_by: match one.in_manner {
                true => Vec::new(),
                false => sources.reasons(closes),
            },
            before: self.said(self.before.as_ref(), one.before.as_ref(), one),
            after: self.said(self.after.as_ref(), one.after.as_ref(), one),
        })
    }

    fn said(
        &self,
        data: Option<&SnapshotData>,
        decision: Option<&EgressDecision>,
        one: &Difference,
    ) -> Option<Said> {
        let (data, decision) = data.zip(decision)?;
        let mut said = said(data, decision, &one.class.sent);
        if one.in_manner {
            said.cause = in_words(decision);
        }
        Some(said)
    }
}

/// A decision as the proxy of a workload would record it.
fn said(data: &SnapshotData, decision: &EgressDecision, sent: &Sent) -> Said {
    let info = &data.workload;
    let id =
        SpiffeId::for_service_account(&data.trust_domain, &info.namespace, &info.service_account);
    let client = RecordClient {
        spiffe_id: id.ok().map(|id| id.to_string()),
        ..RecordClient::default()
    };
    Said {
        cause: decision.cause.to_string(),
        decision: decision.record(None, client, &info.namespace, &sent.seen()),
    }
}

fn reasons_of(decision: &Option<EgressDecision>) -> &[String] {
    match decision {
        Some(decision) => &decision.reasons,
        None => &[],
    }
}
