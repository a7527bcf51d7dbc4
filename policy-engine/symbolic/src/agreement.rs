//! What classes and a solver say together.
//!
//! Two engines that have little in common, about one claim. A contradiction that either of them shows is one: it was
//! decided by the code of the data path. Nothing else of what they say is worth as much.

use crate::prove::Verdict;
use mesh_policy_analysis::prove::Proof;
use serde::Serialize;

/// Whether a claim holds, by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The solver proved it, and no class contradicts it.
    Holds,
    /// A request contradicts it.
    Violated,
    /// Neither is known.
    Undecided,
    /// One says that it holds, of all classes or all requests, and the other has a request that contradicts it.
    Disagreement,
}

/// The two together. What classes leave undecided the solver may decide, but not the other way round: who asks a solver
/// wants its proof.
pub fn outcome(classes: &Proof, solver: &Verdict) -> Outcome {
    match (classes, solver) {
        (Proof::Violated { .. }, Verdict::Proved { .. })
        | (Proof::Holds { .. }, Verdict::Refuted { .. }) => Outcome::Disagreement,
        (Proof::Violated { .. }, Verdict::Refuted { .. } | Verdict::Unknown { .. })
        | (Proof::Undecided { .. }, Verdict::Refuted { .. }) => Outcome::Violated,
        (Proof::Holds { .. } | Proof::Undecided { .. }, Verdict::Proved { .. }) => Outcome::Holds,
        (Proof::Holds { .. } | Proof::Undecided { .. }, Verdict::Unknown { .. }) => {
            Outcome::Undecided
        }
    }
}
