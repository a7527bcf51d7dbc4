//! Questions to one solver, one after the other; each has its time, and one that goes wrong ends the solver.

use crate::solver::{Process, SolverFault, Version, reason};
use cedar_policy_symcc::{CedarSymCompiler, Env, WellFormedAsserts, err::Error};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A solver at work. A new process takes the place of one that failed.
pub struct Session {
    program: PathBuf,
    patience: Duration,
    runtime: tokio::runtime::Runtime,
    running: Option<CedarSymCompiler<Process>>,
    version: Version,
    asked: usize,
}

/// What is known of a formula.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing satisfies it.
    Impossible,
    /// This does, the solver says.
    Possible(Box<Env>),
    /// It is not known.
    Unknown(String),
}

impl Session {
    /// Starts the solver; each question may take as long as `patience`.
    ///
    /// # Errors
    /// [`SolverFault`] if it is none that can be used.
    pub fn open(program: &Path, patience: Duration) -> Result<Self, SolverFault> {
        let unusable = |why: String| SolverFault::Unusable {
            program: program.to_owned(),
            why,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let (process, version) = runtime.block_on(Process::start(program))?;
        let compiler =
            CedarSymCompiler::new(process).map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            program: program.to_owned(),
            patience,
            runtime,
            running: Some(compiler),
            version,
            asked: 0,
        })
    }

    /// `cvc5 1.4.2`.
    pub fn title(&self) -> String {
        format!("cvc5 {}", self.version)
    }

    /// How many formulas were asked about.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Whether anything satisfies a formula. What is settled without a solver is not asked.
    pub(crate) fn ask(&mut self, formula: &WellFormedAsserts<'_>) -> Answer {
        let mut compiler = match self.ready() {
            Ok(compiler) => compiler,
            Err(fault) => return Answer::Unknown(fault.to_string()),
        };
        self.asked += 1;
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(self.patience, compiler.check_sat(formula)).await
        });
        match answer {
            Ok(Ok(None)) => {
                self.running = Some(compiler);
                Answer::Impossible
            }
            Ok(Ok(Some(found))) => {
                self.running = Some(compiler);
                Answer::Possible(Box::new(found))
            }
            // Whatever it would still say belongs to this question: the compiler, and with it the process, ends here.
            Ok(Err(error)) => Answer::Unknown(why(&error)),
            Err(_) => Answer::Unknown(format!(
                "the solver gave no answer within {} ms",
                self.patience.as_millis()
            )),
        }
    }

    fn ready(&mut self) -> Result<CedarSymCompiler<Process>, SolverFault> {
        if let Some(compiler) = self.running.take() {
            return Ok(compiler);
        }
        let (process, _) = self.runtime.block_on(Process::start(&self.program))?;
        CedarSymCompiler::new(process).map_err(|error| SolverFault::Unusable {
            program: self.program.clone(),
            why: error.to_string(),
        })
    }
}

/// An error on the way to an answer, in one line.
fn why(error: &Error) -> String {
    match error {
        Error::SolverUnknown => "the solver says that it does not know".to_owned(),
        Error::SolverError(error) => format!("the solver failed: {}", reason(error)),
        Error::DecodeModel(_) | Error::ConcretizeError(_) | Error::ModelInvalid { .. } => {
            format!("the solver found something that is no request: {error}")
        }
        other => other.to_string(),
    }
}
