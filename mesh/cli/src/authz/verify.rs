//! `mesh policy verify`: whether the compiled matcher and Cedar are the same, tried on every grant.

use super::cedar::{CedarArgs, chosen};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::Output;
use mesh_policy::equivalence::{Assurance, check};
use serde::Serialize;

/// Questions that are put to both for one workload: about half a minute of Cedar.
const QUESTIONS_MAX: u64 = 1_000_000;

/// What is known of one workload's policy.
#[derive(Serialize)]
struct Verified {
    workload: String,
    #[serde(flatten)]
    assurance: Assurance,
}

/// Tries every grant; ends with 1 if the two differ anywhere.
pub(crate) fn run(args: &CedarArgs, output: &mut Output) -> Result<Exit, Fault> {
    let verified: Vec<Verified> = chosen(args)?
        .into_iter()
        .map(|(key, snapshot)| Verified {
            workload: format!("{}/{}", key.namespace, key.name),
            assurance: check(&snapshot, QUESTIONS_MAX),
        })
        .collect();
    let differs = |one: &Verified| matches!(one.assurance, Assurance::Differs { .. });
    let exit = match verified.iter().any(differs) {
        true => Exit::Failure,
        false => Exit::Ok,
    };
    output.value(args.output, &verified, |output, verified| {
        for Verified {
            workload,
            assurance,
        } in verified
        {
            output.line(match assurance {
                Assurance::Exhaustive { grants, questions } => format!(
                    "{workload}: matcher = Cedar on all {questions} cases of {grants} grants"
                ),
                Assurance::Sampled {
                    grants,
                    of,
                    questions,
                } => format!(
                    "{workload}: no difference on {questions} cases of {grants} of {of} grants; the others were not tried"
                ),
                Assurance::Differs { port, grant, case } => {
                    format!("{workload}: DIFFERS on port {port}, grant {grant}: {case}")
                }
            })?;
        }
        Ok(())
    })?;
    Ok(exit)
}
