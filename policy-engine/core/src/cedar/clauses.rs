//! A policy that was written in Cedar, in clauses: which of them hold for a question. For explain, never for a decision.

use super::{Answer, PolicyRef, Setting, Vocabulary, answer};
use crate::question::{Question, SetNames};
use crate::residual::Program;
use crate::snapshot::Effect;
use cedar_policy::{Policy, pst};
use mesh_trust::TrustDomain;
use std::sync::Arc;

/// Clauses of one policy that are shown; the rest of a longer one counts as one clause.
const CLAUSES_MAX: usize = 64;

/// One condition of a policy: a part of its scope, or one operand of the `&&` in a `when`.
pub(crate) struct Clause {
    /// As Cedar writes it.
    pub(crate) text: String,
    policy: Policy,
    program: Option<Program>,
}

/// The clauses of a policy; all of them together are its condition. None if it cannot be taken apart.
pub(crate) fn clauses(policy: &Policy, names: &SetNames, domain: &TrustDomain) -> Vec<Clause> {
    let Ok(pst::Policy::Static(fixed)) = policy.to_pst() else {
        return Vec::new();
    };
    let body = fixed.body();
    let any = || {
        pst::Template::new(
            body.id.clone(),
            pst::Effect::Permit,
            pst::PrincipalConstraint::Any,
            pst::ActionConstraint::Any,
            pst::ResourceConstraint::Any,
        )
    };
    let mut parts = Vec::new();
    if body.principal != pst::PrincipalConstraint::Any {
        let mut part = any();
        part.principal = body.principal.clone();
        parts.push((format!("principal {}", body.principal), Some(part)));
    }
    if body.action != pst::ActionConstraint::Any {
        let mut part = any();
        part.action = body.action.clone();
        parts.push((format!("action {}", body.action), Some(part)));
    }
    if body.resource != pst::ResourceConstraint::Any {
        let mut part = any();
        part.resource = body.resource.clone();
        parts.push((format!("resource {}", body.resource), Some(part)));
    }
    for clause in body.clauses() {
        for operand in operands(clause) {
            let text = match &operand {
                pst::Clause::When(expr) => expr.to_string(),
                pst::Clause::Unless(expr) => format!("unless {expr}"),
            };
            parts.push((text, any().try_with_clauses([operand]).ok()));
        }
    }
    let built = parts
        .into_iter()
        .take(CLAUSES_MAX)
        .filter_map(|(text, part)| {
            let fixed = pst::StaticPolicy::try_from(part?).ok()?;
            let program = Program::compile(fixed.body(), names, domain).ok();
            Some(Clause {
                text,
                policy: Policy::from_pst(pst::Policy::Static(fixed)).ok()?,
                program,
            })
        });
    built.collect()
}

/// `when { a && b }` as `when { a } when { b }`, `unless { a || b }` as `unless { a } unless { b }`.
fn operands(clause: &pst::Clause) -> Vec<pst::Clause> {
    let (whole, joint, make): (_, _, fn(Arc<pst::Expr>) -> pst::Clause) = match clause {
        pst::Clause::When(expr) => (expr, pst::BinaryOp::And, pst::Clause::When),
        pst::Clause::Unless(expr) => (expr, pst::BinaryOp::Or, pst::Clause::Unless),
    };
    let mut waiting = vec![Arc::clone(whole)];
    let mut out = Vec::new();
    while let Some(expr) = waiting.pop() {
        match &*expr {
            pst::Expr::BinaryOp { op, left, right } if *op == joint => {
                waiting.push(Arc::clone(right));
                waiting.push(Arc::clone(left));
            }
            _ => out.push(make(expr)),
        }
    }
    out
}

impl Clause {
    /// Whether it holds alone.
    ///
    /// # Errors
    /// Why it has no truth value: an attribute that the question does not have, say.
    pub(crate) fn holds(
        &self,
        vocabulary: &Vocabulary,
        setting: &Setting<'_>,
        question: &Question<'_>,
    ) -> Result<bool, String> {
        if let Some(program) = &self.program {
            return program.holds(question).map_err(|error| error.to_string());
        }
        let reference = PolicyRef {
            id: Arc::from(self.text.as_str()),
            audit: false,
            break_glass: false,
            effect: Effect::Permit,
        };
        let policies = [(&self.policy, &reference)];
        match answer(vocabulary, setting, question, policies.into_iter()) {
            Answer::Permitted { .. } | Answer::Forbidden { .. } => Ok(true),
            Answer::NoPermit => Ok(false),
            Answer::Undecidable { why } => Err(why.to_string()),
        }
    }
}
