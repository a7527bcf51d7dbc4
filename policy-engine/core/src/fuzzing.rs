//! Checks of this crate by random input, for `fuzz/` and for tests; no part of the interface.
//!
//! - [`residual_vs_cedar`]: compiled programs beside Cedar's own evaluator
//! - [`miscompiled`]: snapshots that must be found out
//! - [`cedar_world`]: a question as Cedar sees it
//! - [`choices`]: decisions taken from bytes
//! - [`policies`], [`questions`]: random ones, from the same small words, so that they meet

use crate::cedar::model::permit_where;
use crate::compile::Snapshot;
use crate::question::Question;
use crate::residual::{EvalError, Kinds, Program};
use cedar_policy::{
    AuthorizationError, Authorizer, EvaluationError, Policy, PolicySet, Schema, ValidationMode,
    Validator, pst,
};
use choices::Choices;
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(crate) mod cedar_world;
pub mod choices;
pub(crate) mod policies;
pub(crate) mod questions;

/// Questions put to one policy.
const QUESTIONS: usize = 4;

static SCHEMA: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let text = include_str!("mesh.cedarschema");
    Schema::from_cedarschema_str(text).ok().map(|both| both.0)
});

/// The mesh's schema.
pub(crate) fn schema() -> Option<&'static Schema> {
    SCHEMA.as_ref()
}

/// What was seen, so that tests can tell whether they tested anything.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) policies: u64,
    /// Policies that pass strict validation.
    pub(crate) valid: u64,
    /// Valid ones that were not compiled, by reason.
    pub(crate) unsupported: BTreeMap<String, u64>,
    /// Valid ones whose program could not be written as an expression, by reason.
    pub(crate) unwritten: BTreeMap<String, u64>,
    /// Questions compared, by answer.
    pub(crate) answers: BTreeMap<String, u64>,
}

/// What became of a question. Errors are compared by their kind: their texts are Cedar's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Holds(bool),
    Absent,
    Overflow,
    Extension,
    Type,
    /// Something that no policy and question here should bring about.
    Unexpected,
}

/// A policy made of the bytes, and questions made of the rest: the program must answer each as Cedar does.
pub fn residual_vs_cedar(data: &[u8]) {
    compare(data, &mut Tally::default());
}

/// A snapshot as a wrong compiler would make it: with the compiled forms of another one, of the same ports and policies.
/// `None` if one of the two cannot be compiled.
pub fn miscompiled(snapshot: &Snapshot, as_if: &Snapshot) -> Option<Snapshot> {
    snapshot.with_compiled_of(as_if)
}

/// [`residual_vs_cedar`], counted. Each policy is asked as it is, and with a scope that keeps nothing away from its
/// conditions: then they also meet what validation would have spared them.
pub(crate) fn compare(data: &[u8], tally: &mut Tally) {
    let mut choices = Choices::of(data);
    let Some(scoped) = policies::policy(&mut choices) else {
        return;
    };
    let mut unscoped = scoped.clone();
    unscoped.principal = pst::PrincipalConstraint::Any;
    unscoped.action = pst::ActionConstraint::Any;
    unscoped.resource = pst::ResourceConstraint::Any;
    compare_policy(&scoped, choices, tally);
    compare_policy(&unscoped, choices, tally);
}

fn compare_policy(template: &pst::Template, mut choices: Choices<'_>, tally: &mut Tally) {
    let Some(policies) = policy_set(template.clone()) else {
        return;
    };
    tally.policies += 1;
    let valid = schema().is_some_and(|schema| {
        Validator::new(schema.clone())
            .validate(&policies, ValidationMode::Strict)
            .validation_passed()
    });
    tally.valid += u64::from(valid);
    let (names, trust_domain) = (questions::names(), questions::trust_domain());
    let program = match Program::compile(template, &names, &trust_domain) {
        Ok(program) => program,
        Err(_) if !valid => return,
        Err(unsupported) => {
            *tally
                .unsupported
                .entry(unsupported.to_string())
                .or_default() += 1;
            return;
        }
    };
    let written = [false, true].map(|requests| {
        let kinds = Kinds {
            names: &names,
            trust_domain: &trust_domain,
            requests,
        };
        written(&program, &kinds, valid.then_some(&mut *tally))
    });
    for _ in 0..QUESTIONS {
        let facts = questions::Facts::random(&mut choices);
        let question = facts.question(&trust_domain);
        let world = cedar_world::World::of(&question, &names, program.headers());
        let cedar = world.as_ref().map(|world| world.ask(&policies));
        let ours = Answer::of(program.holds(&question));
        assert_eq!(
            Ok(ours),
            cedar,
            "program and Cedar differ\n{template}\n{facts:#?}\n{program:#?}"
        );
        let [of_bytes, of_requests] = &written;
        let of_kind = match question.target.route {
            None => of_bytes,
            Some(_) => of_requests,
        };
        if let (Ok(world), Some(written)) = (&world, of_kind) {
            let again = world.ask(written);
            assert_eq!(
                again.truth(),
                ours.truth(),
                "program and what was written of it differ\n{template}\n{facts:#?}\n{program:#?}\n{written}"
            );
        }
        *tally.answers.entry(format!("{ours:?}")).or_default() += 1;
        let other = questions::Facts::random(&mut choices);
        check_claims(&program, ours, question, other.question(&trust_domain));
    }
}

/// A program as an expression again, if it can be written.
fn written(program: &Program, kinds: &Kinds<'_>, tally: Option<&mut Tally>) -> Option<PolicySet> {
    match (program.written(kinds), tally) {
        (Ok(tree), _) => PolicySet::from_policies([permit_where("written", vec![tree]).ok()?]).ok(),
        (Err(why), Some(tally)) => {
            *tally.unwritten.entry(why.to_string()).or_default() += 1;
            None
        }
        (Err(_), None) => None,
    }
}

/// A program that says it does not look at the request, or at the time, answers the same with another, or with none.
fn check_claims(program: &Program, answer: Answer, question: Question<'_>, other: Question<'_>) {
    let mut changed = question;
    if !program.looks_at_time() {
        changed.now = other.now;
    }
    assert_eq!(Answer::of(program.holds(&changed)), answer, "{program:#?}");
    if !program.looks_at_request() {
        for request in [other.request, None] {
            changed.request = request;
            assert_eq!(Answer::of(program.holds(&changed)), answer, "{program:#?}");
        }
    }
}

/// One static policy as a set; `None` if Cedar does not take the tree.
pub(crate) fn policy_set(template: pst::Template) -> Option<PolicySet> {
    let policy = pst::Policy::Static(pst::StaticPolicy::try_from(template).ok()?);
    let mut policies = PolicySet::new();
    policies.add(Policy::from_pst(policy).ok()?).ok()?;
    Some(policies)
}

impl Answer {
    /// The truth value, if there is one, whatever the error.
    fn truth(self) -> Option<bool> {
        match self {
            Self::Holds(truth) => Some(truth),
            _ => None,
        }
    }

    pub(crate) fn of(outcome: Result<bool, EvalError>) -> Self {
        match outcome {
            Ok(truth) => Self::Holds(truth),
            Err(EvalError::Absent(_) | EvalError::NoHeader) => Self::Absent,
            Err(EvalError::Overflow) => Self::Overflow,
            Err(EvalError::Extension(_)) => Self::Extension,
            Err(EvalError::Type) => Self::Type,
            Err(EvalError::UnreadableHeader) => Self::Unexpected,
        }
    }
}

impl cedar_world::World {
    /// Cedar's answer on the one policy of the set.
    pub(crate) fn ask(&self, policies: &PolicySet) -> Answer {
        let response = Authorizer::new().is_authorized(&self.request, policies, &self.entities);
        match response.diagnostics().errors().next() {
            None => Answer::Holds(response.diagnostics().reason().next().is_some()),
            Some(AuthorizationError::PolicyEvaluationError(error)) => match error.inner() {
                EvaluationError::EntityDoesNotExist(_)
                | EvaluationError::EntityAttrDoesNotExist(_)
                | EvaluationError::RecordAttrDoesNotExist(_) => Answer::Absent,
                EvaluationError::IntegerOverflow(_) => Answer::Overflow,
                EvaluationError::FailedExtensionFunctionExecution(_) => Answer::Extension,
                EvaluationError::TypeError(_) => Answer::Type,
                _ => Answer::Unexpected,
            },
        }
    }
}
