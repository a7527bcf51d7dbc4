//! Who gets out of the mesh, where to, and by what.

use super::change::{Changes, OutsideAccess, differences};
use super::sent::Sent;
use super::{Scope, Sources, Witness};
use crate::error::AnalysisError;
use crate::survey::compile;
use crate::world::{World, title};
use mesh_policy::decide::Verdict;
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::WorkloadKey;
use serde::Serialize;
use std::net::SocketAddr;

/// What some workloads, whose networks are equal, may reach outside of the mesh.
#[derive(Clone, Debug, Serialize)]
pub struct Outgoing {
    /// Which: `namespace/workload`.
    pub workloads: Vec<String>,
    /// Whether these are all classes that there are.
    pub exact: bool,
    /// Why not.
    pub notes: Vec<String>,
    /// What is let out, equal answers together. Nothing else is.
    pub access: Vec<OutsideAccess>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Where<'a> {
    /// Only this address, in canonical form, and port.
    pub to: Option<SocketAddr>,
    /// And only this.
    pub sent: Option<&'a Sent>,
}

/// What those workloads of a world may reach outside of the mesh that `counts` names; those that reach nothing of it are
/// not listed, unless not all could be asked.
///
/// # Errors
/// [`AnalysisError`] of the first workload that has no answer.
pub fn outgoing(
    world: &dyn World,
    counts: impl Fn(&WorkloadKey) -> bool,
    asked: Where<'_>,
) -> Result<Vec<Outgoing>, AnalysisError> {
    let mut all = Changes::default();
    for key in world.workloads().iter().filter(|key| counts(key)) {
        all.add(key, None, world.snapshot(key).as_ref());
    }
    let cluster = world.cluster();
    let scope = |only| Scope {
        cluster: &cluster,
        only,
        ..Scope::default()
    };
    let mut out = Vec::new();
    for group in all.groups.values() {
        let Some(data) = &group.after else {
            continue;
        };
        let view = compile(&group.key, data.clone())?;
        let (access, notes) = match (asked.to, asked.sent) {
            (Some(to), Some(sent)) => {
                let decision = view.egress().at(to).decide(&sent.seen());
                let open = decision.verdict() == Verdict::Allow;
                let one = one(&group.key, data, (to, sent), &decision.reasons);
                (Vec::from_iter(open.then_some(one)), Vec::new())
            }
            (to, _) => {
                let (found, inexact) = differences(None, Some(&view), scope(to));
                let rows = group.rows(&found.iter().collect::<Vec<_>>());
                (rows.into_iter().map(|row| row.access).collect(), inexact.0)
            }
        };
        if !access.is_empty() || !notes.is_empty() {
            out.push(Outgoing {
                workloads: group.workloads.clone(),
                exact: notes.is_empty(),
                notes,
                access,
            });
        }
    }
    Ok(out)
}

fn one(
    key: &WorkloadKey,
    data: &SnapshotData,
    (to, sent): (SocketAddr, &Sent),
    reasons: &[String],
) -> OutsideAccess {
    OutsideAccess {
        to: vec![to.ip().to_string()],
        ports: vec![to.port().to_string()],
        sent: Vec::new(),
        reasons: Sources::of(std::iter::once(data)).reasons(reasons),
        witness: Witness {
            from: title(key),
            to,
            sent: sent.clone(),
        },
    }
}
