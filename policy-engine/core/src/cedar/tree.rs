//! Cedar expressions, written as they are read: for a solver alone.

use cedar_policy::EntityUid;
use cedar_policy::pst::{
    self, BinaryOp, Expr, Literal, NonEmpty, PatternElem, SmolStr, UnaryOp, Var,
};
use std::sync::Arc;

/// An expression; cheap to clone.
pub(crate) type Tree = Arc<Expr>;

fn literal(literal: Literal) -> Tree {
    Arc::new(Expr::Literal(literal))
}

pub(crate) fn variable(variable: Var) -> Tree {
    Arc::new(Expr::Var(variable))
}

pub(crate) fn truth(truth: bool) -> Tree {
    literal(Literal::Bool(truth))
}

pub(crate) fn number(number: i64) -> Tree {
    literal(Literal::Long(number))
}

pub(crate) fn text(text: &str) -> Tree {
    literal(Literal::String(SmolStr::from(text)))
}

pub(crate) fn entity(uid: &EntityUid) -> Tree {
    uid_of(uid.clone().into())
}

/// A literal entity, given in the syntax tree's own form.
pub(crate) fn uid_of(uid: pst::EntityUID) -> Tree {
    literal(Literal::EntityUID(uid))
}

pub(crate) fn principal() -> Tree {
    variable(Var::Principal)
}

pub(crate) fn resource() -> Tree {
    variable(Var::Resource)
}

/// `context.<fields>`
pub(crate) fn context(fields: &[&str]) -> Tree {
    fields
        .iter()
        .fold(variable(Var::Context), |of, field| get(of, field))
}

pub(crate) fn get(expr: Tree, attr: &str) -> Tree {
    let attr = SmolStr::from(attr);
    Arc::new(Expr::GetAttr { expr, attr })
}

pub(crate) fn has(expr: Tree, attr: &str) -> Tree {
    let attrs = NonEmpty::new(SmolStr::from(attr));
    Arc::new(Expr::HasAttr { expr, attrs })
}

/// `if <cond> then <then> else <otherwise>`
pub(crate) fn choice(cond: Tree, then_expr: Tree, else_expr: Tree) -> Tree {
    Arc::new(Expr::IfThenElse {
        cond,
        then_expr,
        else_expr,
    })
}

pub(crate) fn set(elements: Vec<Tree>) -> Tree {
    Arc::new(Expr::Set(elements))
}

pub(crate) fn is_a(expr: Tree, entity_type: pst::EntityType) -> Tree {
    Arc::new(Expr::Is {
        expr,
        entity_type,
        in_expr: None,
    })
}

pub(crate) fn like(expr: Tree, pattern: Vec<PatternElem>) -> Tree {
    Arc::new(Expr::Like { expr, pattern })
}

pub(crate) fn unary(op: UnaryOp, expr: Tree) -> Tree {
    Arc::new(Expr::UnaryOp { op, expr })
}

pub(crate) fn binary(op: BinaryOp, left: Tree, right: Tree) -> Tree {
    Arc::new(Expr::BinaryOp { op, left, right })
}

pub(crate) fn eq(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::Eq, left, right)
}

/// Whether two truth values differ.
pub(crate) fn differ(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::NotEq, left, right)
}

pub(crate) fn is_in(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::In, left, right)
}

pub(crate) fn contains(set: Tree, element: Tree) -> Tree {
    binary(BinaryOp::Contains, set, element)
}

pub(crate) fn and(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::And, left, right)
}

pub(crate) fn or(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::Or, left, right)
}

pub(crate) fn not(expr: Tree) -> Tree {
    unary(UnaryOp::Not, expr)
}

/// `if <cond> then <then> else true`
pub(crate) fn implies(cond: Tree, then: Tree) -> Tree {
    choice(cond, then, truth(true))
}

/// `address.isInRange(ip("<block>"))`
pub(crate) fn in_range(address: Tree, block: &str) -> Tree {
    binary(
        BinaryOp::IsInRange,
        address,
        unary(UnaryOp::Ip, text(block)),
    )
}

/// `datetime("<text>")`
pub(crate) fn datetime(when: &str) -> Tree {
    unary(UnaryOp::Datetime, text(when))
}

/// `expr like "<beginning>*"`, the beginning taken character for character.
pub(crate) fn begins(expr: Tree, beginning: &str) -> Tree {
    let pattern = beginning.chars().map(PatternElem::Char);
    like(expr, pattern.chain([PatternElem::Wildcard]).collect())
}

/// Whether one of these holds: none of nothing does.
pub(crate) fn any(all: Vec<Tree>) -> Tree {
    joined(BinaryOp::Or, all).unwrap_or_else(|| truth(false))
}

/// Whether all of these hold: of nothing they do.
pub(crate) fn every(all: Vec<Tree>) -> Tree {
    joined(BinaryOp::And, all).unwrap_or_else(|| truth(true))
}

/// As a balanced tree: a long list must not nest deeply.
fn joined(op: BinaryOp, mut all: Vec<Tree>) -> Option<Tree> {
    while all.len() > 1 {
        let mut next = Vec::with_capacity(all.len().div_ceil(2));
        let mut rest = all.into_iter();
        while let Some(left) = rest.next() {
            next.push(match rest.next() {
                Some(right) => binary(op, left, right),
                None => left,
            });
        }
        all = next;
    }
    all.pop()
}
