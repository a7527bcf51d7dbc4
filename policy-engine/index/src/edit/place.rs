//! Where in a text an edit goes, and whether two trees differ in it alone.

use super::write::flow;
use crate::manifest::tree::{Entry, Node, Place, Value as Tree};
use serde_json::Value;

/// One step from a tree to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    At(usize),
}

impl Step {
    /// The part of a node that it leads to.
    pub(super) fn taken<'n>(&self, node: &'n Node) -> Option<&'n Node> {
        match (self, &node.value) {
            (Self::Key(key), _) => node.get(key),
            (Self::At(at), Tree::List(items)) => items.get(*at),
            (Self::At(_), _) => None,
        }
    }
}

/// The way to the outermost mapping at a place.
pub(super) fn path_to(node: &Node, place: Place) -> Option<Vec<Step>> {
    let below = |step: Step, node: &Node| {
        let mut path = path_to(node, place)?;
        path.insert(0, step);
        Some(path)
    };
    match &node.value {
        Tree::Map(_) if node.at == place => Some(Vec::new()),
        Tree::Map(entries) => entries
            .iter()
            .find_map(|entry| below(Step::Key(entry.key.clone()), &entry.value)),
        Tree::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(at, item)| below(Step::At(at), item)),
        _ => None,
    }
}

/// The way to the mapping that has an entry at this place, and the key there.
pub(super) fn path_of_entry(node: &Node, place: Place) -> Option<(Vec<Step>, String)> {
    let below = |step: Step, node: &Node| {
        let (mut path, key) = path_of_entry(node, place)?;
        path.insert(0, step);
        Some((path, key))
    };
    match &node.value {
        Tree::Map(entries) => entries.iter().find_map(|entry| {
            if entry.at == place {
                return Some((Vec::new(), entry.key.clone()));
            }
            below(Step::Key(entry.key.clone()), &entry.value)
        }),
        Tree::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(at, item)| below(Step::At(at), item)),
        _ => None,
    }
}

/// Whether two trees hold the same, wherever it stands.
pub(super) fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Tree::List(one), Tree::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
        }
        (Tree::Map(entries), Tree::Map(others)) => {
            let has = |entry: &Entry| other.get(&entry.key).is_some_and(|o| same(&entry.value, o));
            entries.len() == others.len() && entries.iter().all(has)
        }
        (one, other) => one == other,
    }
}

/// Whether a tree holds a value.
pub(super) fn is(node: &Node, value: &Value) -> bool {
    match (&node.value, value) {
        (Tree::Null, Value::Null) => true,
        (Tree::Bool(one), Value::Bool(other)) => one == other,
        (Tree::Int(one), Value::Number(other)) => other.as_i64() == Some(*one),
        (Tree::Text(one), Value::String(other)) => one == other,
        (Tree::List(items), Value::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(a, b)| is(a, b))
        }
        (Tree::Map(entries), Value::Object(fields)) => {
            entries.len() == fields.len()
                && fields
                    .iter()
                    .all(|(key, value)| node.get(key).is_some_and(|n| is(n, value)))
        }
        _ => false,
    }
}

/// Whether two trees are the same but for the part at the end of `path`, and that is as `wanted`.
pub(super) fn differs_only(
    old: &Node,
    new: &Node,
    path: &[Step],
    wanted: &dyn Fn(&Node, &Node) -> bool,
) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return wanted(old, new);
    };
    match (step, &old.value, &new.value) {
        (Step::Key(key), Tree::Map(entries), Tree::Map(others)) => {
            entries.len() == others.len()
                && entries.iter().all(|entry| {
                    new.get(&entry.key)
                        .is_some_and(|other| match entry.key == *key {
                            true => differs_only(&entry.value, other, rest, wanted),
                            false => same(&entry.value, other),
                        })
                })
        }
        (Step::At(place), Tree::List(items), Tree::List(others)) => {
            items.len() == others.len()
                && items
                    .iter()
                    .zip(others)
                    .enumerate()
                    .all(|(at, (one, other))| match at == *place {
                        true => differs_only(one, other, rest, wanted),
                        false => same(one, other),
                    })
        }
        _ => false,
    }
}

/// The text of a document, addressed by places of its file. Its methods propose; whoever calls them checks.
pub(super) struct Text<'t> {
    text: &'t str,
    first_line: u32,
    json: bool,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str, first_line: u32) -> Self {
        let json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        Self {
            text,
            first_line,
            json,
        }
    }

    fn value(&self, value: &Value) -> String {
        if self.json {
            value.to_string()
        } else {
            flow(value)
        }
    }

    /// Texts with an item more in a list.
    pub(super) fn added(&self, list: &Node, item: &Value) -> Option<Vec<String>> {
        let Tree::List(items) = &list.value else {
            return None;
        };
        if let Some(inside) = self.inside(list, '[') {
            let comma = if items.is_empty() { "" } else { ", " };
            return Some(vec![
                self.inserted(inside, &format!("{}{comma}", self.value(item)))?,
            ]);
        }
        let (first, last) = (items.first()?, items.last()?);
        let start = self.offset(Place {
            line: first.at.line,
            column: 1,
        })?;
        let before = self.text.get(start..self.offset(first.at)?)?;
        let indent = before.trim_end().strip_suffix('-')?;
        if !indent.trim().is_empty() {
            return None;
        }
        let line = format!("{indent}- {}\n", self.value(item));
        Some(self.after((last.at.line, last.end_line), &line))
    }

    /// Texts with a key set.
    pub(super) fn set(&self, map: &Node, key: &str, value: &Value) -> Option<Vec<String>> {
        let Tree::Map(entries) = &map.value else {
            return None;
        };
        if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
            return self.replaced(&entry.value, value);
        }
        let (name, value) = (self.value(&Value::from(key)), self.value(value));
        if let Some(inside) = self.inside(map, '{') {
            let comma = if entries.is_empty() { "" } else { ", " };
            return Some(vec![
                self.inserted(inside, &format!("{name}: {value}{comma}"))?,
            ]);
        }
        let (first, last) = (entries.first()?, entries.last()?);
        let indent = " ".repeat(usize::try_from(first.at.column).ok()?.checked_sub(1)?);
        let line = format!("{indent}{name}: {value}\n");
        Some(self.after((last.at.line, last.value.end_line), &line))
    }

    /// Texts with another scalar in the place of one.
    fn replaced(&self, node: &Node, value: &Value) -> Option<Vec<String>> {
        if matches!(node.value, Tree::List(_) | Tree::Map(_)) {
            return None;
        }
        let start = self.offset(node.at)?;
        let rest = self.text.get(start..)?;
        let line = rest.lines().next()?;
        let ends = match line.chars().next()? {
            quote @ ('"' | '\'') => vec![line.get(1..)?.find(quote)? + 2],
            _ => {
                let ends = [" #", ", ", "}", "]"].map(|mark| line.find(mark));
                let least = ends.into_iter().flatten().min();
                least.into_iter().chain([line.trim_end().len()]).collect()
            }
        };
        let put = |end: usize| {
            let (before, after) = (self.text.get(..start)?, rest.get(end..)?);
            Some(format!("{before}{}{after}", self.value(value)))
        };
        Some(ends.into_iter().filter_map(put).collect())
    }

    /// Texts with another name for a key.
    pub(super) fn renamed(&self, at: Place, from: &str, to: &str) -> Option<Vec<String>> {
        let start = self.offset(at)?;
        let (before, rest) = (self.text.get(..start)?, self.text.get(start..)?);
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let quote = quote.map(String::from).unwrap_or_default();
        let rest = rest.strip_prefix(&format!("{quote}{from}{quote}"))?;
        Some(vec![format!("{before}{quote}{to}{quote}{rest}")])
    }

    /// Texts with something put before the last `;` up to the end of a line.
    pub(super) fn spliced(&self, line: u32, insert: &str) -> Option<Vec<String>> {
        let end = self.line_end(line)?;
        let at = self.text.get(..end)?.rfind(';')?;
        Some(vec![self.inserted(at, insert)?])
    }

    /// Texts with a line more behind something: after its last line, the line before that (a block of text ends on the
    /// line that follows it), or its first.
    fn after(&self, (first, last): (u32, u32), more: &str) -> Vec<String> {
        let lines = [last, last.saturating_sub(1).max(first), first];
        let put = |line: u32| self.inserted(self.line_end(line)?, more);
        lines.into_iter().filter_map(put).collect()
    }

    fn inserted(&self, at: usize, what: &str) -> Option<String> {
        let (before, after) = (self.text.get(..at)?, self.text.get(at..)?);
        Some(format!("{before}{what}{after}"))
    }

    /// Behind the opening bracket of a collection that is written in brackets.
    fn inside(&self, node: &Node, bracket: char) -> Option<usize> {
        let at = self.offset(node.at)?;
        self.text.get(at..)?.starts_with(bracket).then_some(at + 1)
    }

    /// Behind the line break of a line.
    fn line_end(&self, line: u32) -> Option<usize> {
        let number = usize::try_from(line.checked_sub(self.first_line)?).ok()?;
        let lines = self.text.split_inclusive('\n').take(number + 1);
        let lengths: Vec<usize> = lines.map(str::len).collect();
        (lengths.len() == number + 1).then(|| lengths.iter().sum())
    }

    fn offset(&self, place: Place) -> Option<usize> {
        let number = usize::try_from(place.line.checked_sub(self.first_line)?).ok()?;
        let mut lines = self.text.split_inclusive('\n');
        let before: usize = lines.by_ref().take(number).map(str::len).sum();
        let line = lines.next()?;
        let column = usize::try_from(place.column).ok()?.checked_sub(1)?;
        let within: usize = line.chars().take(column).map(char::len_utf8).sum();
        Some(before + within)
    }
}
