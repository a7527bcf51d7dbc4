//! The solver: a program that reads SMT-LIB on its standard input and answers on its standard output.

use crate::limits::{ANSWER_BYTES_MAX, START, VERSION_MIN};
use cedar_policy_symcc::err::SolverError;
use cedar_policy_symcc::solver::{Decision, DecisionWithModel, Solver};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Why no solver is at hand.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SolverFault {
    /// It does not start, or says nothing that can be read.
    #[error("the solver `{}` cannot be used: {why}", program.display())]
    #[diagnostic(
        code("MESH-0647"),
        help(
            "install cvc5 and name it with `--solver PROGRAM`; docs/guides/questions.md says where from"
        )
    )]
    Unusable {
        /// The program.
        program: PathBuf,
        /// What happened.
        why: String,
    },
    /// It is none that a proof may rest on.
    #[error("the solver `{}` is not believed: {why}", program.display())]
    #[diagnostic(
        code("MESH-0648"),
        help("use cvc5 1.3.1 or newer, as its makers publish it")
    )]
    Unbelieved {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A running solver. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a solver says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Process {
    /// Starts `program`, asks what it is, and puts two questions to it whose answers are known.
    ///
    /// # Errors
    /// [`SolverFault`].
    pub(crate) async fn start(program: &Path) -> Result<(Self, Version), SolverFault> {
        let unusable = |why: String| SolverFault::Unusable {
            program: program.to_owned(),
            why,
        };
        let mut process = Self::spawn(program).map_err(|error| unusable(error.to_string()))?;
        let asked = tokio::time::timeout(START, process.introduce()).await;
        let version = match asked {
            Ok(Ok(Ok(version))) => version,
            Ok(Ok(Err(why))) => {
                return Err(SolverFault::Unbelieved {
                    program: program.to_owned(),
                    why,
                });
            }
            Ok(Err(error)) => return Err(unusable(reason(&error))),
            Err(_) => {
                let why = format!("it did not say what it is within {} s", START.as_secs());
                return Err(unusable(why));
            }
        };
        Ok((process, version))
    }

    fn spawn(program: &Path) -> std::io::Result<Self> {
        let mut child = Command::new(program)
            .args(["--lang", "smt"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("it has no input and output"));
        };
        Ok(Self {
            child,
            input: BufWriter::new(input),
            output: BufReader::new(output),
        })
    }

    /// What it is; or why it is not believed.
    async fn introduce(&mut self) -> Result<Result<Version, String>, SolverError> {
        self.say("(get-info :name)").await?;
        let name = self.line().await?;
        if !name.contains("\"cvc5\"") {
            return Ok(Err(format!("it calls itself {}", clipped(&name))));
        }
        self.say("(get-info :version)").await?;
        let text = self.line().await?;
        let Some(version) = version(&text) else {
            return Ok(Err(format!("its version is {}", clipped(&text))));
        };
        let (major, minor, patch) = VERSION_MIN;
        if (version.0, version.1, version.2) < VERSION_MIN {
            return Ok(Err(format!(
                "it is version {version}; {major}.{minor}.{patch} is the oldest that is understood"
            )));
        }
        for (question, answer) in KNOWN {
            self.say("(reset)").await?;
            self.say("(set-logic ALL)").await?;
            self.say(question).await?;
            if self.check_sat().await? != *answer {
                return Ok(Err(format!("it answers `{question}` wrongly")));
            }
        }
        Ok(Ok(version))
    }

    async fn say(&mut self, command: &str) -> Result<(), SolverError> {
        self.input.write_all(command.as_bytes()).await?;
        self.input.write_all(b"\n").await?;
        self.input.flush().await?;
        Ok(())
    }

    /// One line of output without its end.
    async fn line(&mut self) -> Result<String, SolverError> {
        let mut line = Vec::new();
        loop {
            let read = self.output.fill_buf().await?;
            if read.is_empty() {
                return Err(SolverError::Solver(self.end().await));
            }
            let (taken, whole) = match read.iter().position(|&byte| byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (read.len(), false),
            };
            line.extend_from_slice(read.get(..taken).unwrap_or_default());
            self.output.consume(taken);
            if line.len() > ANSWER_BYTES_MAX {
                return Err(too_long());
            }
            if whole {
                let text = String::from_utf8(line);
                let text =
                    text.map_err(|_| SolverError::Solver("it answers in no UTF-8".into()))?;
                return Ok(text.trim().to_owned());
            }
        }
    }

    /// How it ended.
    async fn end(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("it ended ({status})"),
            Err(error) => format!("it ended ({error})"),
        }
    }
}

/// Questions whose answers are known: one that calls everything possible, or impossible, is found out.
const KNOWN: &[(&str, Decision)] = &[
    (
        "(declare-const x String) (assert (and (= (str.len x) 3) (str.prefixof \"ab\" x)))",
        Decision::Sat,
    ),
    (
        "(declare-const x String) (assert (and (= (str.len x) 1) (str.prefixof \"ab\" x)))",
        Decision::Unsat,
    ),
];

fn too_long() -> SolverError {
    let why = format!("it answered with more than {ANSWER_BYTES_MAX} bytes");
    SolverError::Solver(why)
}

/// An error of a solver in one line.
pub(crate) fn reason(error: &SolverError) -> String {
    match error {
        SolverError::Solver(why) => why.clone(),
        SolverError::Io(error) => error.to_string(),
        SolverError::UnrecognizedSolverOutput(text) => {
            format!("it answered {}", clipped(text))
        }
        other => other.to_string(),
    }
}

/// What somebody else wrote, short enough to be shown.
pub(crate) fn clipped(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `(:version "1.4.2-modified")`
fn version(text: &str) -> Option<Version> {
    let (_, quoted) = text.split_once('"')?;
    let (quoted, _) = quoted.split_once('"')?;
    let mut numbers = quoted.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some(Version(next()?, next()?, next()?))
}

impl Solver for Process {
    fn smtlib_input(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        &mut self.input
    }

    async fn enable_models(&mut self) -> Result<(), SolverError> {
        let option = b"(set-option :produce-models true)\n";
        Ok(self.input.write_all(option).await?)
    }

    async fn check_sat(&mut self) -> Result<Decision, SolverError> {
        self.say("(check-sat)").await?;
        match self.line().await?.as_str() {
            "sat" => Ok(Decision::Sat),
            "unsat" => Ok(Decision::Unsat),
            "unknown" => Ok(Decision::Unknown),
            // Also an error about what was written before.
            other => Err(SolverError::UnrecognizedSolverOutput(other.to_owned())),
        }
    }

    async fn check_sat_with_model(&mut self) -> Result<DecisionWithModel, SolverError> {
        match self.check_sat().await? {
            Decision::Unsat => return Ok(DecisionWithModel::Unsat),
            Decision::Unknown => return Ok(DecisionWithModel::Unknown),
            Decision::Sat => {}
        }
        self.say("(get-model)").await?;
        let mut model = self.line().await?;
        if model != "(" {
            return Err(SolverError::UnrecognizedSolverOutput(model));
        }
        loop {
            let line = self.line().await?;
            model.push('\n');
            model.push_str(&line);
            if line == ")" {
                model.push('\n');
                return Ok(DecisionWithModel::Sat { model });
            }
            if model.len() > ANSWER_BYTES_MAX {
                return Err(too_long());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_solvers_write_them() {
        for (text, want) in [
            (r#"(:version "1.4.2-modified")"#, Some(Version(1, 4, 2))),
            (r#"(:version "1.0.3")"#, Some(Version(1, 0, 3))),
            (r#"(:version "cvc5")"#, None),
            (r#"(:version "1.4")"#, None),
            ("(:version 1.4.2)", None),
            ("", None),
        ] {
            assert_eq!(version(text), want, "{text}");
        }
    }

    #[test]
    fn what_others_wrote_is_cut() {
        assert_eq!(clipped("x"), "`x`");
        assert!(clipped(&"ü".repeat(500)).chars().count() < 130);
    }
}
