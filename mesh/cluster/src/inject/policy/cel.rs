//! CEL as text: literals, and what code of ours made with placeholders in it.
//!
//! A placeholder is a text (or number) that nothing else contains. It stands where a pod's own value will, so that the code
//! that makes an addition or a message is run once, with placeholders, and not written a second time in CEL.

use std::fmt::Write as _;

/// What comes in the place of a placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// A CEL expression, of type string.
    Text(String),
    /// The same; where it is empty, the element or entry that it is in does not stand.
    Optional(String),
    /// A CEL expression of type int.
    Number(String),
    /// A value of the chart, as its template language names it: it becomes part of the literal. `Values::check` and the
    /// chart's schema let none have a quote, a backslash or a line break.
    Chart(&'static str),
}

/// A placeholder with what comes in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// What stands in what code made.
    pub(super) token: String,
    /// What comes there.
    pub(super) filling: Filling,
}

impl Hole {
    pub(super) fn new(token: impl Into<String>, filling: Filling) -> Self {
        Self {
            token: token.into(),
            filling,
        }
    }
}

/// A placeholder of that name: letters and digits, which any value may be.
pub(super) fn token(name: &str) -> String {
    format!("Xq0{name}0qX")
}

/// A literal of type string. It holds no `{{`, with which Helm would begin.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    push_escaped(&mut out, text);
    out.push('"');
    out
}

fn push_escaped(out: &mut String, text: &str) {
    let mut last = ' ';
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '{' if last == '{' => out.push_str("\\u007b"),
            ' '..='~' => out.push(c),
            c => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
        last = c;
    }
}

/// A list of literals.
pub(super) fn literals<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let all: Vec<String> = texts.into_iter().map(literal).collect();
    format!("[{}]", all.join(", "))
}

/// An expression of type string for a text with placeholders.
pub(super) fn filled(text: &str, holes: &[Hole]) -> String {
    let mut parts: Vec<String> = Vec::new();
    // An open literal, without its last quote.
    let mut open: Option<String> = None;
    let mut rest = text;
    while !rest.is_empty() {
        let next = holes
            .iter()
            .filter_map(|hole| Some((rest.find(&hole.token)?, hole)))
            .min_by_key(|(at, _)| *at);
        let (before, found) = match next {
            Some((at, hole)) => (rest.get(..at).unwrap_or_default(), Some(hole)),
            None => (rest, None),
        };
        if !before.is_empty() {
            push_escaped(open.get_or_insert_with(|| "\"".to_owned()), before);
        }
        let Some(hole) = found else { break };
        match &hole.filling {
            Filling::Chart(value) => open.get_or_insert_with(|| "\"".to_owned()).push_str(value),
            filling => {
                parts.extend(open.take().map(|literal| literal + "\""));
                parts.push(match filling {
                    Filling::Number(expression) => format!("string({expression})"),
                    Filling::Text(expression) | Filling::Optional(expression) => expression.clone(),
                    Filling::Chart(_) => continue,
                });
            }
        }
        rest = rest
            .get(before.len() + hole.token.len()..)
            .unwrap_or_default();
    }
    parts.extend(open.map(|literal| literal + "\""));
    if parts.is_empty() {
        return "\"\"".to_owned();
    }
    parts.join(" + ")
}

/// The expression without which a text does not stand, if there is one.
pub(super) fn condition(text: &str, holes: &[Hole]) -> Option<String> {
    holes.iter().find_map(|hole| match &hole.filling {
        Filling::Optional(expression) if text.contains(&hole.token) => Some(expression.clone()),
        _ => None,
    })
}

/// The text with `…` in the place of each placeholder: what is said where an expression cannot say it.
pub(super) fn elided(text: &str, holes: &[Hole]) -> String {
    holes
        .iter()
        .fold(text.to_owned(), |text, hole| text.replace(&hole.token, "…"))
}
