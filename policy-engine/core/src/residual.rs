//! Policies written in Cedar, compiled: one policy becomes a small program that answers as Cedar's evaluator would.
//!
//! Cedar rebuilds a policy's condition, its sets and its addresses at every evaluation and asks an entity store; here
//! all of that is read once, and evaluation borrows from the question: no allocation, no lock. Most of the language is
//! covered; what is not is [`Unsupported`], and such a policy goes to Cedar itself. Nothing is approximated: on every
//! question a program has the truth value, or the kind of error, that Cedar has (compared in [`crate::fuzzing`]).
//!
//! - [`compile`]: from Cedar's syntax tree to a program
//! - [`node`]: what a program is made of
//! - [`eval`]: its value
//! - [`entity`]: which entity a question's principal, action and resource are, and what they are in
//! - [`set`]: sets and their relations
//! - [`literal`], [`pattern`]: texts that are read at compile time
//! - [`written`]: a program as an expression again, for a solver

use crate::cedar::tree::Tree;
use crate::question::{Question, SetNames};
use cedar_policy::pst;
use mesh_trust::TrustDomain;

mod compile;
mod entity;
mod eval;
mod literal;
mod node;
mod pattern;
mod set;
mod written;

pub(crate) use written::{Kinds, Unwritten};

/// One compiled policy: its scope and its conditions, whatever its effect.
#[derive(Debug)]
pub(crate) struct Program {
    test: node::Test,
    headers: Box<[Box<str>]>,
    looks_at_request: bool,
    looks_at_time: bool,
}

impl Program {
    /// Compiles a static policy. `names` are those that the questions' set places refer to; `trust_domain` is that of
    /// their targets.
    ///
    /// # Errors
    /// [`Unsupported`]: the policy may be sound, but only Cedar can evaluate it.
    pub(crate) fn compile(
        policy: &pst::Template,
        names: &SetNames,
        trust_domain: &TrustDomain,
    ) -> Result<Self, Unsupported> {
        compile::program(policy, names, trust_domain)
    }

    /// Whether the policy's scope and all its conditions hold.
    ///
    /// # Errors
    /// [`EvalError`] exactly where Cedar's evaluator reports an error.
    pub(crate) fn holds(&self, question: &Question<'_>) -> Result<bool, EvalError> {
        self.test.holds(question)
    }

    /// What the program computes about questions of these kinds, as a Cedar expression: it has the program's truth value,
    /// and fails where the program does.
    ///
    /// # Errors
    /// [`Unwritten`]: Cedar has no expression for some part of it.
    pub(crate) fn written(&self, kinds: &Kinds<'_>) -> Result<Tree, Unwritten> {
        self.test.written(kinds)
    }

    /// Names (lower case, sorted) of the headers that it may look at.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|name| &**name)
    }

    /// Whether it looks at the request beyond the route that took it. If it does so neither at the time, its answer is
    /// constant for a connection and a route.
    pub(crate) fn looks_at_request(&self) -> bool {
        self.looks_at_request
    }

    /// Whether it looks at the time of the decision.
    pub(crate) fn looks_at_time(&self) -> bool {
        self.looks_at_time
    }
}

/// Why a policy needs Cedar itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be compiled")]
pub(crate) struct Unsupported(&'static str);

/// Why a policy has no truth value on a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvalError {
    /// An attribute that is not there.
    #[error("`{0}` is absent")]
    Absent(&'static str),
    /// `getTag` of a header that the request does not have.
    #[error("a header is absent")]
    NoHeader,
    /// A header value that is no text. The caller refuses such requests before (`unreadable_header`).
    #[error("a header value is not UTF-8")]
    UnreadableHeader,
    /// A Long out of range.
    #[error("integer overflow")]
    Overflow,
    /// A `datetime`, `duration` or `ip` that does not exist or is out of range.
    #[error("{0}")]
    Extension(&'static str),
    /// A value of another type than its operator takes. Strict validation leaves none.
    #[error("a value has another type than its operator takes")]
    Type,
}

#[cfg(test)]
mod tests;
