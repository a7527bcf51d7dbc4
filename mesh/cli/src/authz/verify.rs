//! `mesh policy verify`: whether what policy is compiled to and Cedar are the same: tried on every grant, and proved by a
//! solver for every policy.

use super::cedar::{CedarArgs, chosen};
use super::solver::SolverArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output, printable};
use clap::Args;
use mesh_policy::equivalence::{Assurance, check};
use mesh_policy_symbolic::{Equality, Verifier};
use serde::Serialize;

/// Questions that are put to both for one workload: about half a minute of Cedar.
const QUESTIONS_MAX: u64 = 1_000_000;

/// Whose policies, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    cedar: CedarArgs,
    #[command(flatten)]
    solver: SolverArgs,
}

impl VerifyArgs {
    pub(super) fn format(&self) -> Format {
        self.cedar.output
    }
}

/// What is known of one workload's policy.
#[derive(Serialize)]
struct Verified {
    workload: String,
    #[serde(flatten)]
    assurance: Assurance,
    /// What a solver says, if one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    symbolic: Option<Symbolic>,
}

#[derive(Serialize)]
struct Symbolic {
    solver: String,
    #[serde(flatten)]
    equality: Equality,
}

impl Verified {
    fn differs(&self) -> bool {
        let by_solver = self.symbolic.as_ref();
        matches!(self.assurance, Assurance::Differs { .. })
            || by_solver.is_some_and(|one| matches!(one.equality, Equality::Differs { .. }))
    }

    fn is_unknown(&self) -> bool {
        let by_solver = self.symbolic.as_ref();
        by_solver.is_some_and(|one| matches!(one.equality, Equality::Unknown { .. }))
    }
}

/// Tries every grant, and has a solver prove what it can; ends with 1 if the two differ anywhere, else with 11 if a solver
/// does not know.
pub(crate) fn run(args: &VerifyArgs, output: &mut Output) -> Result<Exit, Fault> {
    let chosen = chosen(&args.cedar)?;
    let mut verifier = args.solver.session()?.map(Verifier::new);
    let verified: Vec<Verified> = chosen
        .into_iter()
        .map(|(key, snapshot)| Verified {
            workload: format!("{}/{}", key.namespace, key.name),
            assurance: check(&snapshot, QUESTIONS_MAX),
            symbolic: verifier.as_mut().map(|verifier| Symbolic {
                solver: verifier.solver(),
                equality: verifier.verify(&key, &snapshot),
            }),
        })
        .collect();
    let exit = if verified.iter().any(Verified::differs) {
        Exit::Failure
    } else if verified.iter().any(Verified::is_unknown) {
        Exit::Undecidable
    } else {
        Exit::Ok
    };
    output.value(args.format(), &verified, |output, verified| {
        verified.iter().try_for_each(|one| print(one, output))
    })?;
    Ok(exit)
}

fn print(verified: &Verified, output: &mut Output) -> Result<(), Fault> {
    let workload = &verified.workload;
    output.line(match &verified.assurance {
        Assurance::Exhaustive { grants, questions } => {
            format!("{workload}: matcher = Cedar on all {questions} cases of {grants} grants")
        }
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
    let Some(Symbolic { solver, equality }) = &verified.symbolic else {
        return Ok(());
    };
    let solver = printable(solver);
    match equality {
        Equality::Equal { policies, formulas } => output.line(format_args!(
            "  {solver}: compiled = Cedar for all requests, {policies} policies ({formulas} formulas)"
        )),
        Equality::Unknown { why } => {
            output.line(format_args!("  {solver}: unknown: {}", printable(why)))
        }
        Equality::Differs { why, request } => {
            output.line(format_args!("  {solver}: DIFFERS: {}", printable(why)))?;
            let record = serde_json::to_string(request).unwrap_or_default();
            output.line(format_args!("    e.g. {}", printable(&record)))
        }
    }
}
