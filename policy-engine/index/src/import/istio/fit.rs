//! Policies in Cedar that are too large, cut into smaller ones that say the same together.
//!
//! A policy holds if any of its alternatives does, so alternatives may stand in policies of their own, for permits and
//! forbids alike. What cannot be cut that way is left out on the safe side.

use super::cedar::Statement;
use super::condition::{Ask, Cond, Glob, Side};
use cedar_policy::pst::Effect;

/// Bytes that one policy may have, estimated; the index takes objects of 64 KiB.
const BYTES_MAX: usize = 24 * 1024;
/// Depth that one policy may have, estimated; the index takes 64.
const DEPTH_MAX: usize = 40;

/// Policies that say what `statement` says, none too large; and whether they say all of it.
pub(crate) fn fit(statement: Statement) -> (Vec<Statement>, bool) {
    let side = if statement.effect == Effect::Permit {
        Side::Under
    } else {
        Side::Over
    };
    let mut whole = true;
    let mut fitting = Vec::new();
    let mut waiting = vec![statement.cond.clone()];
    while let Some(cond) = waiting.pop() {
        if bytes(&cond) <= BYTES_MAX && depth(&cond) <= DEPTH_MAX {
            fitting.push(cond);
        } else if let Some((first, second)) = halves(&cond) {
            // The first half is looked at first.
            waiting.extend([second, first]);
        } else {
            whole = false;
            let smaller = without_largest(&cond, side);
            if smaller != Cond::Never {
                waiting.push(smaller);
            }
        }
    }
    let many = fitting.len() > 1;
    let statements = fitting
        .into_iter()
        .zip(0..)
        .map(|(cond, number)| Statement {
            id: if many {
                format!("{}-part-{number}", statement.id)
            } else {
                statement.id.clone()
            },
            cond,
            ..statement.clone()
        });
    (statements.filter(Statement::is_possible).collect(), whole)
}

/// Two conditions of which one holds exactly if `cond` does: its longest list of alternatives, halved.
fn halves(cond: &Cond) -> Option<(Cond, Cond)> {
    match cond {
        Cond::Any(parts) if parts.len() > 1 => {
            let (first, second) = parts.split_at(parts.len() / 2);
            Some((Cond::any(first.to_vec()), Cond::any(second.to_vec())))
        }
        Cond::All(parts) => {
            let lists = parts
                .iter()
                .enumerate()
                .filter(|(_, p)| matches!(p, Cond::Any(_)));
            let (at, list) = lists.max_by_key(|(_, part)| (bytes(part), depth(part)))?;
            let (first, second) = halves(list)?;
            let with = |half: Cond| {
                let parts = parts.iter().enumerate();
                Cond::all(parts.map(|(n, part)| if n == at { half.clone() } else { part.clone() }))
            };
            Some((with(first), with(second)))
        }
        _ => None,
    }
}

/// The condition without its largest part, on the safe side.
fn without_largest(cond: &Cond, side: Side) -> Cond {
    let Cond::All(parts) = cond else {
        return side.safe();
    };
    let largest = parts
        .iter()
        .enumerate()
        .max_by_key(|(_, part)| (bytes(part), depth(part)));
    let largest = largest.map(|(at, _)| at);
    let parts = parts.iter().enumerate();
    Cond::all(parts.map(|(at, part)| {
        if Some(at) == largest {
            side.safe()
        } else {
            part.clone()
        }
    }))
}

/// About how many bytes a condition takes as text.
fn bytes(cond: &Cond) -> usize {
    match cond {
        Cond::Always | Cond::Never => 8,
        Cond::All(parts) | Cond::Any(parts) => parts.iter().map(|part| bytes(part) + 8).sum(),
        Cond::Not(part) => bytes(part) + 4,
        Cond::Ask(ask) => {
            let text = match ask {
                Ask::Principal(text)
                | Ask::Namespace(text)
                | Ask::Method(text)
                | Ask::Path(text)
                | Ask::Host(text) => text.literal().len(),
                Ask::Account { namespace, name } => namespace.len() + name.len(),
                Ask::PathLike(globs) | Ask::Identity(globs) => globs
                    .iter()
                    .map(|g| match g {
                        Glob::Text(text) => text.len(),
                        Glob::Star => 1,
                    })
                    .sum(),
                Ask::HeaderStands(name) | Ask::HeaderFilled(name) => 2 * name.len(),
                Ask::HeaderIs { name, value } | Ask::HeaderHas { name, value } => {
                    2 * name.len() + value.len()
                }
                Ask::SourceIn(_) => 40,
            };
            // Escapes may double a text.
            100 + 2 * text
        }
    }
}

/// About how deep a condition is as text, brackets and operators counted.
fn depth(cond: &Cond) -> usize {
    match cond {
        Cond::Always | Cond::Never => 1,
        Cond::All(parts) | Cond::Any(parts) => {
            let below = parts.iter().map(depth).max().unwrap_or(0);
            let doublings = usize::try_from((parts.len() / 8).checked_ilog2().map_or(0, |n| n + 1))
                .unwrap_or(usize::MAX);
            below + 1 + parts.len().min(8) + 2 * doublings
        }
        Cond::Not(part) => depth(part) + 2,
        Cond::Ask(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cedar::Action;
    use super::super::pattern::Text;
    use super::*;

    fn statement(effect: Effect, cond: Cond) -> Statement {
        Statement {
            id: "rule-0".into(),
            effect,
            action: Action::Requests,
            servers: std::collections::BTreeSet::from(["shop/cart".to_owned()]),
            verified: false,
            cond,
        }
    }

    fn paths(count: usize) -> Vec<Cond> {
        (0..count)
            .map(|n| Cond::Ask(Ask::Path(Text::Prefix(format!("/a/rather/long/path/{n}")))))
            .collect()
    }

    #[test]
    fn many_alternatives_are_cut_and_none_is_lost() {
        let get = Cond::Ask(Ask::Method(Text::Exact("GET".into())));
        let cond = Cond::all([get, Cond::any(paths(3000))]);
        let (parts, whole) = fit(statement(Effect::Forbid, cond));
        assert!(whole && parts.len() > 5, "{} parts", parts.len());
        let texts: Vec<String> = parts.iter().map(|p| p.text().unwrap()).collect();
        assert!(
            texts
                .iter()
                .all(|t| t.len() < 60 * 1024 && t.contains("GET"))
        );
        let all = texts.concat();
        assert!((0..3000).all(|n| all.contains(&format!("/a/rather/long/path/{n}*"))));
        let ids: std::collections::BTreeSet<&str> = parts.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids.len(), parts.len());
    }

    #[test]
    fn what_cannot_be_cut_allows_less_and_denies_more() {
        let none = Cond::not(Cond::any(paths(3000)));
        let (parts, whole) = fit(statement(Effect::Permit, none.clone()));
        assert!(!whole && parts.is_empty());
        let (parts, whole) = fit(statement(Effect::Forbid, none.clone()));
        assert!(!whole && parts.len() == 1 && parts[0].cond == Cond::Always);
        let get = Cond::Ask(Ask::Method(Text::Exact("GET".into())));
        let (parts, _) = fit(statement(Effect::Forbid, Cond::all([get.clone(), none])));
        assert_eq!(parts[0].cond, get);
    }

    #[test]
    fn small_ones_stay_as_they_are() {
        let small = statement(Effect::Permit, Cond::any(paths(3)));
        assert_eq!(fit(small.clone()), (vec![small], true));
    }
}
