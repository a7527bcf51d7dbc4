//! `like`: literal text with wildcards, each of which stands for any characters or none.
//!
//! Cedar compares characters; bytes give the same answer, because in UTF-8 whole characters are found only where
//! characters begin. The first place for each piece is the best one, so time is linear in the text for each piece.

use cedar_policy::pst::PatternElem;
use memchr::memmem::Finder;

/// A pattern, cut at its wildcards.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Before the first wildcard.
    first: Box<str>,
    /// What follows; `None`: there is no wildcard.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    /// Between two wildcards; none is empty.
    middle: Box<[Finder<'static>]>,
    /// After the last wildcard.
    last: Box<str>,
}

impl Pattern {
    pub(super) fn new(elements: &[PatternElem]) -> Self {
        let mut pieces = elements
            .split(|element| matches!(element, PatternElem::Wildcard))
            .map(literal_text);
        let first = pieces.next().unwrap_or_default();
        let mut others: Vec<Box<str>> = pieces.collect();
        let rest = others.pop().map(|last| {
            others.retain(|piece| !piece.is_empty());
            let finders = others
                .iter()
                .map(|piece| Finder::new(piece.as_bytes()).into_owned());
            Rest {
                middle: finders.collect(),
                last,
            }
        });
        Self { first, rest }
    }

    /// A pattern of the same meaning, as Cedar has them; `None` if a piece is no text.
    pub(super) fn elements(&self) -> Option<Vec<PatternElem>> {
        let mut elements: Vec<PatternElem> = self.first.chars().map(PatternElem::Char).collect();
        let Some(rest) = &self.rest else {
            return Some(elements);
        };
        for piece in &rest.middle {
            elements.push(PatternElem::Wildcard);
            let text = std::str::from_utf8(piece.needle()).ok()?;
            elements.extend(text.chars().map(PatternElem::Char));
        }
        elements.push(PatternElem::Wildcard);
        elements.extend(rest.last.chars().map(PatternElem::Char));
        Some(elements)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(rest) = &self.rest else {
            return text == &*self.first;
        };
        let inner = text
            .strip_prefix(&*self.first)
            .and_then(|text| text.strip_suffix(&*rest.last));
        let Some(mut inner) = inner.map(str::as_bytes) else {
            return false;
        };
        for piece in &rest.middle {
            let after = piece
                .find(inner)
                .and_then(|at| inner.get(at + piece.needle().len()..));
            let Some(after) = after else {
                return false;
            };
            inner = after;
        }
        true
    }
}

fn literal_text(elements: &[PatternElem]) -> Box<str> {
    let chars = elements.iter().filter_map(|element| match element {
        PatternElem::Char(char) => Some(*char),
        PatternElem::Wildcard => None,
    });
    chars.collect::<String>().into()
}
