//! Cedar expressions, written as they are read.

use cedar_policy::EntityUid;
use cedar_policy::pst::{BinaryOp, Expr, Literal, NonEmpty, PatternElem, SmolStr, UnaryOp, Var};
use std::sync::Arc;

/// An expression; cheap to clone.
pub(crate) type Tree = Arc<Expr>;

fn literal(literal: Literal) -> Tree {
    Arc::new(Expr::Literal(literal))
}

pub(super) fn truth(truth: bool) -> Tree {
    literal(Literal::Bool(truth))
}

pub(super) fn number(number: i64) -> Tree {
    literal(Literal::Long(number))
}

pub(super) fn text(text: &str) -> Tree {
    literal(Literal::String(SmolStr::from(text)))
}

pub(super) fn entity(uid: &EntityUid) -> Tree {
    literal(Literal::EntityUID(uid.clone().into()))
}

pub(super) fn principal() -> Tree {
    Arc::new(Expr::Var(Var::Principal))
}

pub(super) fn resource() -> Tree {
    Arc::new(Expr::Var(Var::Resource))
}

/// `context.<fields>`
pub(super) fn context(fields: &[&str]) -> Tree {
    let context = Arc::new(Expr::Var(Var::Context));
    fields.iter().fold(context, |of, field| get(of, field))
}

pub(super) fn get(expr: Tree, attr: &str) -> Tree {
    let attr = SmolStr::from(attr);
    Arc::new(Expr::GetAttr { expr, attr })
}

pub(super) fn has(expr: Tree, attr: &str) -> Tree {
    let attrs = NonEmpty::new(SmolStr::from(attr));
    Arc::new(Expr::HasAttr { expr, attrs })
}

fn binary(op: BinaryOp, left: Tree, right: Tree) -> Tree {
    Arc::new(Expr::BinaryOp { op, left, right })
}

pub(super) fn eq(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::Eq, left, right)
}

pub(super) fn is_in(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::In, left, right)
}

pub(super) fn contains(set: Tree, element: Tree) -> Tree {
    binary(BinaryOp::Contains, set, element)
}

pub(super) fn and(left: Tree, right: Tree) -> Tree {
    binary(BinaryOp::And, left, right)
}

pub(super) fn not(expr: Tree) -> Tree {
    let op = UnaryOp::Not;
    Arc::new(Expr::UnaryOp { op, expr })
}

/// `if <cond> then <then> else true`
pub(super) fn implies(cond: Tree, then: Tree) -> Tree {
    Arc::new(Expr::IfThenElse {
        cond,
        then_expr: then,
        else_expr: truth(true),
    })
}

/// `address.isInRange(ip("<block>"))`
pub(super) fn in_range(address: Tree, block: &str) -> Tree {
    let block = Arc::new(Expr::UnaryOp {
        op: UnaryOp::Ip,
        expr: text(block),
    });
    binary(BinaryOp::IsInRange, address, block)
}

/// `datetime("<text>")`
pub(super) fn datetime(when: &str) -> Tree {
    Arc::new(Expr::UnaryOp {
        op: UnaryOp::Datetime,
        expr: text(when),
    })
}

/// `expr like "<beginning>*"`, the beginning taken character for character.
pub(super) fn begins(expr: Tree, beginning: &str) -> Tree {
    let pattern = beginning.chars().map(PatternElem::Char);
    let pattern = pattern.chain([PatternElem::Wildcard]).collect();
    Arc::new(Expr::Like { expr, pattern })
}

/// Whether one of these holds: none of nothing does.
pub(super) fn any(all: Vec<Tree>) -> Tree {
    joined(BinaryOp::Or, all).unwrap_or_else(|| truth(false))
}

/// Whether all of these hold: of nothing they do.
pub(super) fn every(all: Vec<Tree>) -> Tree {
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
