//! What classes and a solver say together.

use mesh_policy_analysis::prove::{Proof, Witness};
use mesh_policy_symbolic::{Outcome, Verdict, outcome};

fn witness() -> Witness {
    let record = r#"{"client":{"spiffe_id":null},"server":{"namespace":"a","pod":"b","port":1},"protocol":"tcp"}"#;
    let index = crate::world::index("");
    let request = serde_json::from_str(record).unwrap();
    let decision =
        mesh_policy_index::replay::Replay::new(&index, crate::world::NOW).decide(&request);
    Witness {
        request,
        decision,
        sources: Vec::new(),
    }
}

#[test]
fn only_a_proof_makes_it_hold_and_a_contradiction_is_never_lost() {
    let why = || "why".to_owned();
    let classes = [
        Proof::Holds { decisions: 1 },
        Proof::Undecided { why: why() },
        Proof::Violated {
            why: why(),
            witness: vec![witness()],
        },
    ];
    let solver = [
        Verdict::Proved { formulas: 1 },
        Verdict::Unknown { why: why() },
        Verdict::Refuted {
            why: why(),
            witness: Box::new(witness()),
        },
    ];
    use Outcome::{Disagreement, Holds, Undecided, Violated};
    let table = [
        [Holds, Undecided, Disagreement],
        [Holds, Undecided, Violated],
        [Disagreement, Violated, Violated],
    ];
    for (classes, row) in classes.iter().zip(table) {
        for (solver, want) in solver.iter().zip(row) {
            assert_eq!(outcome(classes, solver), want, "{classes:?} {solver:?}");
        }
    }
}
