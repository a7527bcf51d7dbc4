//! The candidate beside what is in force (`mesh.internal/shadow`): an index of its own, and what is said of it alone.

use super::{Condition, Index, IndexConfig, ObjectStatus, Reach, RouteStatus};
use crate::manifest::Loaded;
use crate::manifest::shadow::Shadow;
use mesh_policy::snapshot::{Finding, SnapshotData};

/// What the status of an object says that is the candidate's alone.
const CANDIDATE_ONLY: &str = "it is a candidate only (`mesh.internal/shadow: add`): proxies say what it would do, and do not do it";

impl Index {
    /// The index of the candidate; `None` if no object is part of one set alone, which costs nothing.
    pub fn candidate(loaded: &Loaded, config: &IndexConfig) -> Option<Self> {
        Some(Self::of(loaded.candidate()?, config))
    }

    /// Of this candidate, what is wrong or doubtful there and not in what is in force.
    pub fn findings_beside(&self, in_force: &Self) -> Vec<Finding> {
        let known = |finding: &&Finding| !in_force.findings.contains(finding);
        let only = |finding: &Finding| Finding {
            message: format!("in the candidate: {}", finding.message),
            ..finding.clone()
        };
        self.findings.iter().filter(known).map(only).collect()
    }

    /// Of this candidate, the statuses of the objects that are part of it alone: as [`Index::object_statuses`] and
    /// [`Index::route_statuses`].
    pub fn statuses_beside(&self) -> (Vec<ObjectStatus>, Vec<RouteStatus>) {
        let mut objects = self.object_statuses();
        objects.retain(|one| one.reach == Reach::Candidate);
        for one in &mut objects {
            one.doubts = match one.doubts.as_str() {
                "" => CANDIDATE_ONLY.to_owned(),
                doubts => format!("{CANDIDATE_ONLY}; {doubts}"),
            };
        }
        let routes = self.resources.routes.iter();
        let routes = routes.filter(|route| route.shadow == Shadow::Add);
        let mut routes: Vec<RouteStatus> = routes.map(|route| self.route_status(route)).collect();
        let parents = routes.iter_mut().flat_map(|route| &mut route.parents);
        // Where requests go is not tried.
        for parent in parents.filter(|parent| parent.kind != "Server") {
            parent.accepted = Condition::no("Shadow", CANDIDATE_ONLY.to_owned());
        }
        (objects, routes)
    }
}

/// The candidate for a workload, as its proxy is to hold it beside `in_force`; `None` if the two are the same, but for what
/// leaves the mesh, which the candidate does not decide, and for findings, which are told elsewhere.
pub fn beside(mut candidate: SnapshotData, in_force: &SnapshotData) -> Option<SnapshotData> {
    candidate.generation = in_force.generation;
    candidate.findings.clone_from(&in_force.findings);
    candidate.egress.clone_from(&in_force.egress);
    if candidate == *in_force {
        return None;
    }
    candidate.findings.clear();
    candidate.egress.clear();
    Some(candidate)
}
