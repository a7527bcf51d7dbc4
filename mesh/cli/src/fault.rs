//! How commands fail: a coded error, and the exit code that goes with it.

use crate::exit::Exit;
use crate::output::{Tone, coloured};
use mesh_api::error::CodedError;
use miette::Diagnostic;

/// Why a command ended early. Made by `?` from any coded error; the exit code is then 1.
#[derive(Debug)]
pub(crate) struct Fault {
    exit: Exit,
    error: Box<CodedError>,
}

impl<E: Diagnostic> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::ending(Exit::Failure, &error)
    }
}

impl Fault {
    /// A failure that ends the command with `exit`.
    pub(crate) fn ending(exit: Exit, error: &dyn Diagnostic) -> Self {
        Self {
            exit,
            error: Box::new(CodedError::from(error)),
        }
    }

    /// A failure that another process has put into words.
    pub(crate) fn coded(error: CodedError) -> Self {
        Self {
            exit: Exit::Failure,
            error: Box::new(error),
        }
    }

    /// The command line, or input that it names, cannot be understood.
    pub(crate) fn usage(error: &dyn Diagnostic) -> Self {
        Self::ending(Exit::Usage, error)
    }

    /// No verdict can be given.
    pub(crate) fn undecidable(error: &dyn Diagnostic) -> Self {
        Self::ending(Exit::Undecidable, error)
    }

    /// The same, ending the command with `exit`.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// What went wrong, in one sentence.
    pub(crate) fn message(&self) -> &str {
        &self.error.message
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Code, what, where, why, what to do; several lines.
    pub(crate) fn text(&self, colour: bool) -> String {
        let text = self.error.to_text();
        let severity = self.error.severity.to_string();
        let rest = text.strip_prefix(&severity).unwrap_or(&text);
        let head = coloured(colour, Tone::Bad, &severity);
        format!("{head}{rest}\n  more: mesh explain {}", self.error.code)
    }

    /// The same as one line of JSON.
    pub(crate) fn json(&self) -> String {
        self.error.to_json()
    }
}
