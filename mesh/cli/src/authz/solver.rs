//! The solver that some questions are put to as well.

use crate::fault::Fault;
use clap::Args;
use mesh_policy_symbolic::Session;
use std::path::PathBuf;
use std::time::Duration;

/// Whether a solver is asked, and which.
#[derive(Args, Clone, Debug)]
pub(crate) struct SolverArgs {
    /// Asks a solver too, which reasons about all requests there can be: cvc5, 1.3.1 or newer. Then only what it proves
    /// holds.
    #[arg(long)]
    symbolic: bool,
    /// The solver, with `--symbolic`.
    #[arg(
        long,
        value_name = "PROGRAM",
        default_value = "cvc5",
        requires = "symbolic"
    )]
    solver: PathBuf,
    /// How long the solver may take over one question; what takes longer is unknown.
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "symbolic", value_parser = crate::arguments::duration)]
    solver_timeout: Duration,
}

impl SolverArgs {
    /// The solver at work; `None` if none is asked.
    ///
    /// # Errors
    /// Exit code 11 if it cannot be used: what it would have said is not known.
    pub(super) fn session(&self) -> Result<Option<Session>, Fault> {
        self.symbolic
            .then(|| Session::open(&self.solver, self.solver_timeout))
            .transpose()
            .map_err(|fault| Fault::undecidable(&fault))
    }
}
