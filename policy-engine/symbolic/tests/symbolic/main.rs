//! Claims before a solver: fakes that lie, hang and fail, and cvc5 itself where it is installed.
#![cfg(test)]

mod fakes;
mod real;
mod together;
mod verify;
#[path = "../../../analysis/tests/access/world.rs"]
#[expect(
    dead_code,
    reason = "it is there for the tests of classes, which use more of it"
)]
mod world;

use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::Index;
use mesh_policy_symbolic::{Prover, Session, Verdict};
use std::path::Path;
use std::time::Duration;
use world::NOW;

/// The one invariant of a mesh, by classes.
fn by_classes(index: &Index) -> Proof {
    prove(index, &question(index), NOW)
}

/// The one invariant of a mesh, by a solver that has `patience`.
fn by_solver(index: &Index, solver: &Path, patience: Duration) -> Verdict {
    let session = Session::open(solver, patience).unwrap();
    Prover::new(index, NOW, session).prove(&question(index))
}

fn question(index: &Index) -> Question<'_> {
    let [invariant] = index.invariants() else {
        panic!("{:?}", index.findings())
    };
    Question::Invariant(invariant)
}

/// An invariant; `claim` is a line of its spec.
fn invariant(claim: &str) -> String {
    format!(
        "---\napiVersion: mesh.internal/v1alpha1\nkind: Invariant\nmetadata: {{name: apart}}\nspec:\n  description: what must hold\n  {claim}\n"
    )
}

/// A policy written in Cedar.
fn cedar(namespace: &str, text: &str) -> String {
    format!(
        "---\napiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {{name: written, namespace: {namespace}}}\nspec: {{cedar: '{text}'}}\n"
    )
}
