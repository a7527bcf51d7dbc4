//! Sets: of literals, of terms, of a header's values, of network sets; and how two of them compare.
//!
//! Of two sets that are compared one must be literal. It is prepared at compile time and the other is gone through once,
//! so that a client cannot make a comparison quadratic by sending many headers.

use super::eval::same;
use super::node::{Entity, Literal, Term, Value};
use super::{EvalError, Unsupported};
use crate::limits::PROGRAM_SET_MAX;
use crate::question::Question;
use std::cmp::Ordering;

/// Literal members that a comparison can tell apart: bits of the word that remembers which were seen.
const SEEN_MAX: usize = 64;

/// A set.
#[derive(Debug)]
pub(super) enum Bag {
    Constant(Constant),
    Items(Box<[Term]>),
    /// Values of a header that must be there.
    Header(Box<str>),
    /// `context.conn.nets`
    Networks,
}

/// Literals, each once.
#[derive(Debug)]
pub(super) enum Constant {
    /// Sorted by [`shorter_first`].
    Texts(Box<[Box<str>]>),
    /// Sorted.
    Longs(Box<[i64]>),
    Others(Box<[Literal]>),
}

/// A relation between a set and a literal one.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) relation: Relation,
    pub(super) bag: Bag,
    pub(super) constant: Constant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The bag has every literal.
    Covers,
    /// The bag has nothing but literals of the set.
    Within,
    /// The bag has one of the literals.
    Meets,
    Equals,
}

impl Constant {
    pub(super) fn new(literals: Vec<Literal>) -> Result<Self, Unsupported> {
        let texts = literals.iter().map(|literal| match literal {
            Literal::Text(text) => Some(text.clone()),
            _ => None,
        });
        if let Some(mut texts) = texts.collect::<Option<Vec<_>>>() {
            texts.sort_unstable_by(|left, right| shorter_first(left, right));
            texts.dedup();
            return Ok(Self::Texts(texts.into()));
        }
        let longs = literals.iter().map(|literal| match literal {
            Literal::Long(number) => Some(*number),
            _ => None,
        });
        if let Some(mut longs) = longs.collect::<Option<Vec<_>>>() {
            longs.sort_unstable();
            longs.dedup();
            return Ok(Self::Longs(longs.into()));
        }
        if literals.len() > PROGRAM_SET_MAX {
            return Err(Unsupported("a large set of entities, times or addresses"));
        }
        let mut others: Vec<Literal> = Vec::with_capacity(literals.len());
        for literal in literals {
            if !others.contains(&literal) {
                others.push(literal);
            }
        }
        Ok(Self::Others(others.into()))
    }

    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Longs(longs) => longs.len(),
            Self::Others(others) => others.len(),
        }
    }

    /// Place of a member.
    pub(super) fn find(&self, value: Value<'_>, question: &Question<'_>) -> Option<usize> {
        match (self, value) {
            (Self::Texts(texts), Value::Text(text)) => texts
                .binary_search_by(|known| shorter_first(known, text))
                .ok(),
            (Self::Longs(longs), Value::Long(number)) => longs.binary_search(&number).ok(),
            (Self::Others(others), value) => others
                .iter()
                .position(|known| same(known.value(), value, question)),
            (Self::Texts(_) | Self::Longs(_), _) => None,
        }
    }
}

/// An order that most comparisons settle without looking at a character.
fn shorter_first(left: &str, right: &str) -> Ordering {
    let by_length = left.len().cmp(&right.len());
    by_length.then_with(|| left.cmp(right))
}

impl Bag {
    /// Calls `each` with every member, some perhaps more than once.
    pub(super) fn for_each(
        &self,
        question: &Question<'_>,
        each: &mut dyn FnMut(Value<'_>),
    ) -> Result<(), EvalError> {
        match self {
            Self::Constant(Constant::Texts(texts)) => {
                texts.iter().for_each(|text| each(Value::Text(text)));
            }
            Self::Constant(Constant::Longs(longs)) => {
                longs.iter().for_each(|long| each(Value::Long(*long)));
            }
            Self::Constant(Constant::Others(others)) => {
                others.iter().for_each(|literal| each(literal.value()));
            }
            Self::Items(items) => {
                for item in items {
                    each(item.value(question)?);
                }
            }
            Self::Header(name) => return for_each_value(name, question, each),
            Self::Networks => question
                .asker
                .network_sets
                .iter()
                .for_each(|place| each(Value::Entity(Entity::NetworkSet(*place)))),
        }
        Ok(())
    }

    pub(super) fn is_empty(&self, question: &Question<'_>) -> Result<bool, EvalError> {
        if let Self::Constant(constant) = self {
            return Ok(constant.len() == 0);
        }
        let mut empty = true;
        self.for_each(question, &mut |_| empty = false)?;
        Ok(empty)
    }

    pub(super) fn contains(&self, item: &Term, question: &Question<'_>) -> Result<bool, EvalError> {
        // The set comes first: if both fail, its error is the one to report.
        let item = item.value(question);
        if let Self::Constant(constant) = self {
            return Ok(constant.find(item?, question).is_some());
        }
        let mut found = false;
        self.for_each(question, &mut |member| {
            found |= item.is_ok_and(|item| same(member, item, question));
        })?;
        item.map(|_| found)
    }
}

/// Values of a header; whether there is one is asked by whether there is a value.
fn for_each_value(
    name: &str,
    question: &Question<'_>,
    each: &mut dyn FnMut(Value<'_>),
) -> Result<(), EvalError> {
    let Some(request) = question.request else {
        return Err(EvalError::Absent("context.req"));
    };
    let mut outcome = Err(EvalError::NoHeader);
    let mut visit = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) => {
            if outcome == Err(EvalError::NoHeader) {
                outcome = Ok(());
            }
            each(Value::Text(text));
        }
        Err(_) => outcome = Err(EvalError::UnreadableHeader),
    };
    request.headers.for_each_value(name, &mut visit);
    outcome
}

/// Whether the request has the header.
pub(super) fn has_header(name: &str, question: &Question<'_>) -> Result<bool, EvalError> {
    match for_each_value(name, question, &mut |_| ()) {
        Ok(()) => Ok(true),
        Err(EvalError::NoHeader) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Comparison {
    pub(super) fn new(
        relation: Relation,
        bag: Bag,
        constant: Constant,
    ) -> Result<Self, Unsupported> {
        let counts = matches!(relation, Relation::Covers | Relation::Equals);
        if counts && constant.len() > SEEN_MAX {
            return Err(Unsupported("a comparison with a large set"));
        }
        Ok(Self {
            relation,
            bag,
            constant,
        })
    }

    pub(super) fn holds(&self, question: &Question<'_>) -> Result<bool, EvalError> {
        let (mut seen, mut strangers) = (0u64, false);
        self.bag.for_each(
            question,
            &mut |value| match self.constant.find(value, question) {
                Some(place) => seen |= bit(place),
                None => strangers = true,
            },
        )?;
        let all = seen == all_bits(self.constant.len());
        Ok(match self.relation {
            Relation::Covers => all,
            Relation::Within => !strangers,
            Relation::Meets => seen != 0,
            Relation::Equals => all && !strangers,
        })
    }
}

/// One bit for each place. Places from [`SEEN_MAX`] on share the last one: relations that count do not have them.
fn bit(place: usize) -> u64 {
    1 << place.min(SEEN_MAX - 1)
}

/// The bits of the first `count` places.
fn all_bits(count: usize) -> u64 {
    let unused = SEEN_MAX.saturating_sub(count);
    u32::try_from(unused)
        .ok()
        .and_then(|unused| u64::MAX.checked_shr(unused))
        .unwrap_or(0)
}
