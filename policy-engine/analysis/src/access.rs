//! Who can reach a port, what an identity can reach, and which workload can reach which.

use crate::classes::{Ask, ClientClass, Who};
use crate::error::AnalysisError;
use crate::survey::{Access, Reason, Setting, Survey, class_of, compile, is_probe};
use crate::world::{AskedPort, World, ports, title};
use mesh_policy::Snapshot;
use mesh_policy_index::WorkloadKey;
use mesh_trust::{SpiffeId, TrustDomain};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What one port allows.
#[derive(Clone, Debug, Serialize)]
pub struct PortAnswer {
    /// `namespace/workload`.
    pub workload: String,
    /// The port, or `any other port`.
    pub port: String,
    /// Whether these are all classes that there are.
    pub exact: bool,
    /// Why not, and what else is worth knowing.
    pub notes: Vec<String>,
    /// What is allowed, equal answers together. Nothing else is.
    pub access: Vec<Access>,
}

impl PortAnswer {
    /// The answer of a survey.
    pub fn of(survey: &Survey) -> Self {
        let shadowed = survey
            .shadowed
            .iter()
            .map(|rule| format!("no request reaches {rule}: better rules take all of its"));
        Self {
            workload: title(&survey.workload),
            port: survey.port.text(),
            exact: survey.inexact.is_empty(),
            notes: survey.inexact.iter().cloned().chain(shadowed).collect(),
            access: survey.access(),
        }
    }
}

/// Who can reach a port of a workload: by any request, or by the one that is given.
///
/// # Errors
/// [`AnalysisError`].
pub fn who_can(
    key: &WorkloadKey,
    view: &Snapshot,
    port: u16,
    setting: Setting<'_>,
    request: Option<Ask>,
) -> Result<Survey, AnalysisError> {
    let port = if view.data().ports.contains_key(&port) {
        AskedPort::Own(port)
    } else {
        AskedPort::Other(port)
    };
    match request {
        Some(ask) => Survey::of_request(key, view, port, setting, ask),
        None => Survey::of(key, view, port, setting),
    }
}

/// What a client can reach: every workload and port that allows it something.
///
/// # Errors
/// [`AnalysisError`] of the first workload that has no answer.
pub fn what_can(
    world: &dyn World,
    client: &ClientClass,
    setting: Setting<'_>,
) -> Result<Vec<PortAnswer>, AnalysisError> {
    let mut out = Vec::new();
    for key in world.workloads() {
        let Some(data) = world.snapshot(&key) else {
            continue;
        };
        let view = compile(&key, data)?;
        for port in ports(&[&view.data()]) {
            let survey = Survey::of_one(&key, &view, port, setting, client.clone())?;
            if !survey.allowed.is_empty() || !survey.inexact.is_empty() {
                out.push(PortAnswer::of(&survey));
            }
        }
    }
    Ok(out)
}

/// The client of an identity, or of nobody.
pub fn client_of(id: Option<SpiffeId>) -> ClientClass {
    match id {
        Some(id) => ClientClass {
            who: Who::Named(id.clone()),
            id: Some(id),
            tls: true,
        },
        None => ClientClass {
            who: Who::Plaintext,
            id: None,
            tls: false,
        },
    }
}

/// Which workload can reach which.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// Every workload.
    pub workloads: Vec<String>,
    /// Whether all classes were asked.
    pub exact: bool,
    /// Pairs that can.
    pub cells: Vec<Cell>,
}

/// One workload that can reach another under its own identity.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Who asks.
    pub from: String,
    /// Who is asked.
    pub to: String,
    /// The ports, and whether all requests from everywhere are allowed there.
    pub ports: Vec<CellPort>,
    /// Every policy that allows some of it.
    pub reasons: Vec<Reason>,
}

/// One port of a [`Cell`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CellPort {
    /// The port, or `any other port`.
    pub port: String,
    /// Whether every class of requests is allowed from every address; else only some.
    pub all: bool,
}

/// All pairs. Probes do not count: nobody is let in by them.
///
/// # Errors
/// [`AnalysisError`] of the first workload that has no answer.
pub fn matrix(
    world: &dyn World,
    home: &TrustDomain,
    setting: Setting<'_>,
) -> Result<Matrix, AnalysisError> {
    let keys = world.workloads();
    let sources = identities(world, home, &keys);
    let mut out = Matrix {
        workloads: keys.iter().map(title).collect(),
        exact: true,
        cells: Vec::new(),
    };
    for key in &keys {
        let Some(data) = world.snapshot(key) else {
            continue;
        };
        let view = compile(key, data)?;
        let own = title(key);
        let mut found: BTreeMap<&str, (Vec<CellPort>, BTreeSet<Reason>)> = BTreeMap::new();
        for port in ports(&[&view.data()]) {
            let survey = Survey::of(key, &view, port, setting)?;
            out.exact &= survey.inexact.is_empty();
            let by_class = by_class(&survey);
            for (name, id) in sources.iter().filter(|(name, _)| **name != own) {
                let class = class_of(&survey.clients.who, id);
                let Some((count, reasons)) = class.and_then(|class| by_class.get(&class)) else {
                    continue;
                };
                let entry = found.entry(name).or_default();
                let all = *count
                    == survey
                        .clients
                        .networks
                        .len()
                        .saturating_mul(survey.requests.len());
                entry.0.push(CellPort {
                    port: port.text(),
                    all,
                });
                entry.1.extend(reasons.iter().cloned());
            }
        }
        out.cells
            .extend(found.into_iter().map(|(from, (ports, reasons))| Cell {
                from: from.to_owned(),
                to: title(key),
                ports,
                reasons: reasons.into_iter().collect(),
            }));
    }
    out.cells
        .sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
    Ok(out)
}

/// The identity of each workload, by its name.
pub fn identities(
    world: &dyn World,
    home: &TrustDomain,
    keys: &[WorkloadKey],
) -> BTreeMap<String, SpiffeId> {
    keys.iter()
        .filter_map(|key| {
            let (namespace, account) = world.account(key)?;
            let id = SpiffeId::for_service_account(home, &namespace, &account).ok()?;
            Some((title(key), id))
        })
        .collect()
}

/// Allowed questions of each class of clients, and what allows them.
fn by_class(survey: &Survey) -> BTreeMap<usize, (usize, BTreeSet<Reason>)> {
    let mut out: BTreeMap<usize, (usize, BTreeSet<Reason>)> = BTreeMap::new();
    for one in survey.allowed.iter().filter(|one| !is_probe(one)) {
        let entry = out.entry(one.who).or_default();
        entry.0 += 1;
        entry
            .1
            .extend(one.reasons.iter().map(|reason| survey.reason(reason)));
    }
    out
}
