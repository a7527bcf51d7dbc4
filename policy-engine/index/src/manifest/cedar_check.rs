//! The Cedar text of one object: cut into policies, each judged, named and placed.
//!
//! INVARIANT: what is wrong with a policy never makes it disappear. Either it is surely a permit, which then grants
//! nothing, or it stays as a forbid that cannot be evaluated, which closes what it might cover.

use super::cedar_judge::{Judgement, Mention, judge};
use super::cedar_scan::{self, Piece};
use super::core_kinds::Locate;
use super::identity::is_label;
use super::read::Problem;
use super::tree::{Node, Place};
use crate::finding::Code;
use mesh_policy::snapshot::{Effect, Source};
use std::collections::HashSet;
use std::sync::Arc;

/// One policy of a Cedar text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// `<kind>/<namespace>/<name>/<id>`.
    pub(crate) id: String,
    pub(crate) effect: Effect,
    /// As its author wrote it.
    pub(crate) text: String,
    /// `@audit("true")`.
    pub(crate) audit: bool,
    /// Why it cannot be evaluated, if so.
    pub(crate) broken: Option<String>,
    pub(crate) mentions: Vec<Mention>,
    pub(crate) source: Source,
}

/// What a text holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) statements: Vec<Statement>,
    /// What is wrong with single policies.
    pub(crate) problems: Vec<Problem>,
    /// What leaves them valid.
    pub(crate) doubts: Vec<Problem>,
}

/// Reads the text of a node; `prefix` is what all ids begin with.
///
/// # Errors
/// The text cannot be cut into policies, or holds none: nothing is known of what it says.
pub(crate) fn check_text(
    node: &Node,
    text: &str,
    prefix: &str,
    locate: Locate<'_>,
) -> Result<Checked, Problem> {
    let fatal = |line, code, message| problem(place(node, line), code, message);
    let pieces = cedar_scan::policies(text).map_err(|r| fatal(r.line, r.code, r.message))?;
    if pieces.is_empty() {
        let message = "the Cedar text holds no policy".to_owned();
        return Err(fatal(0, Code::CedarSyntax, message));
    }
    let mut checker = Checker {
        node,
        prefix,
        locate,
        out: Checked::default(),
    };
    let judged: Vec<Judged<'_>> = pieces
        .iter()
        .map(|piece| Judged {
            judgement: judge(piece.text),
            piece,
        })
        .collect();
    let ids = checker.ids(&judged);
    for (judged, id) in judged.iter().zip(ids) {
        let statement = checker.statement(judged, &id);
        checker.out.statements.push(statement);
    }
    Ok(checker.out)
}

fn problem(at: Place, code: Code, message: String) -> Problem {
    Problem {
        at,
        code,
        message,
        hint: None,
    }
}

/// Where a line of a node's text stands in the file. Exact for literal blocks (`|`), whose place is that of their first
/// line that is not blank; within the value for other forms.
fn place(node: &Node, line: usize) -> Place {
    let text = node.as_text().unwrap_or_default();
    let blank = text.bytes().take_while(|b| *b == b'\n').count();
    let below = u32::try_from(line.saturating_sub(blank)).unwrap_or(u32::MAX);
    Place {
        line: node.at.line.saturating_add(below).min(node.end_line),
        column: node.at.column,
    }
}

/// A piece and what is said of it.
struct Judged<'t> {
    piece: &'t Piece<'t>,
    judgement: Arc<Judgement>,
}

struct Checker<'a> {
    node: &'a Node,
    prefix: &'a str,
    locate: Locate<'a>,
    out: Checked,
}

impl Checker<'_> {
    fn problem(&mut self, piece: &Piece<'_>, line: usize, code: Code, message: String) {
        let at = place(self.node, piece.line + line);
        self.out.problems.push(problem(at, code, message));
    }

    fn doubt(&mut self, piece: &Piece<'_>, line: usize, code: Code, message: String) {
        let at = place(self.node, piece.line + line);
        self.out.doubts.push(problem(at, code, message));
    }

    /// The last part of each policy's id: `@id`, else its place among the policies, else `#` and that place, which no
    /// `@id` can be.
    fn ids(&mut self, judged: &[Judged<'_>]) -> Vec<String> {
        let mut taken = HashSet::new();
        let mut out = Vec::with_capacity(judged.len());
        for (number, one) in judged.iter().enumerate() {
            let given = one.judgement.id.clone();
            let wanted = given.unwrap_or_else(|| number.to_string());
            let shown: String = wanted.chars().take(64).collect();
            let why = if !is_label(&wanted) {
                Some(format!(
                    "`@id(\"{}\")` is no id: lower-case letters, digits and inner hyphens, at most 63",
                    shown.escape_debug()
                ))
            } else if !taken.insert(wanted.clone()) {
                Some(format!(
                    "two policies of the object have the id `{wanted}`, given or by their place"
                ))
            } else {
                None
            };
            match why {
                None => out.push(wanted),
                Some(why) => {
                    self.problem(one.piece, 0, Code::CedarAnnotation, why);
                    out.push(format!("#{number}"));
                }
            }
        }
        out
    }

    fn statement(&mut self, judged: &Judged<'_>, id: &str) -> Statement {
        let (piece, judgement) = (judged.piece, &judged.judgement);
        let effect = match judgement.effect {
            Some(effect) => effect,
            None if piece.surely_permit => Effect::Permit,
            None => Effect::Forbid,
        };
        let id = format!("{}/{id}", self.prefix);
        for remark in &judgement.problems {
            let message = format!("`{id}`: {}", remark.message);
            self.problem(piece, remark.line, remark.code, message);
        }
        for remark in &judgement.doubts {
            let message = format!("`{id}`: {}", remark.message);
            self.doubt(piece, remark.line, remark.code, message);
        }
        if piece.calculates && effect == Effect::Forbid {
            let message = format!("`{id}` calculates, which fails on overflow: then it denies");
            self.doubt(piece, 0, Code::CedarMayFail, message);
        }
        let last = piece.line + piece.text.matches('\n').count();
        Statement {
            audit: self.audit(piece, judgement.audit.as_deref(), effect),
            effect,
            text: piece.text.to_owned(),
            broken: judgement.problems.first().map(|p| p.message.clone()),
            mentions: judgement.mentions.clone(),
            source: (self.locate)(place(self.node, piece.line), place(self.node, last).line),
            id,
        }
    }

    fn audit(&mut self, piece: &Piece<'_>, audit: Option<&str>, effect: Effect) -> bool {
        let why = match (audit, effect) {
            (None | Some("false"), _) => return false,
            (Some("true"), Effect::Permit) => return true,
            (Some("true"), Effect::Forbid) => {
                "`@audit` is for permits: a forbid is always enforced, and always recorded"
            }
            (Some(_), _) => "`@audit` must be \"true\" or \"false\"",
        };
        self.problem(piece, 0, Code::CedarAnnotation, why.to_owned());
        false
    }
}

#[cfg(test)]
mod tests;
