//! Typed reading of trees: every reader returns what it could read and notes what it could not.
//!
//! A reader never guesses: a value of the wrong type is absent for the caller and a [`Problem`] for the user. Whoever
//! builds an object asks [`Reading::problems`] at the end; one problem makes the object invalid.

use super::tree::{Entry, Node, Place, Value};
use crate::finding::Code;
use crate::limits::LIST_MAX;
use std::collections::BTreeMap;

/// Something wrong with one object.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) at: Place,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What went wrong while one object was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) problems: Vec<Problem>,
    /// Doubts that leave the object valid.
    pub(crate) doubts: Vec<Problem>,
    /// A value was [`Value::Bad`]: reported with the document, but the object is no less invalid.
    pub(crate) spoiled: bool,
    /// Whether unknown fields and explicit nulls are problems: policy kinds and routes.
    pub(crate) strict: bool,
}

impl Reading {
    pub(crate) fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    pub(crate) fn problem(&mut self, at: Place, code: Code, message: impl Into<String>) {
        self.problems.push(Problem {
            at,
            code,
            message: message.into(),
            hint: None,
        });
    }

    pub(crate) fn problem_with_hint(
        &mut self,
        at: Place,
        code: Code,
        message: impl Into<String>,
        hint: String,
    ) {
        self.problems.push(Problem {
            at,
            code,
            message: message.into(),
            hint: Some(hint),
        });
    }

    pub(crate) fn doubt(&mut self, at: Place, code: Code, message: impl Into<String>) {
        self.doubts.push(Problem {
            at,
            code,
            message: message.into(),
            hint: None,
        });
    }

    /// Notes that `path` should have been `what`.
    pub(crate) fn expected(&mut self, node: &Node, path: &str, what: &str) {
        if node.value == Value::Bad {
            self.spoiled = true;
        } else {
            let message = format!("`{path}` must be {what}, not {}", node.describe());
            self.problem(node.at, Code::WrongType, message);
        }
    }

    pub(crate) fn fields<'n>(&mut self, node: &'n Node, path: &str) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Fields {
                entries,
                at: node.at,
                path: path.to_owned(),
                known: Vec::new(),
            }),
            _ => {
                self.expected(node, path, "a mapping");
                None
            }
        }
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        self.expected(node, path, "a string");
        None
    }

    pub(crate) fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.expected(node, path, "true or false");
        None
    }

    pub(crate) fn integer(
        &mut self,
        node: &Node,
        path: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        match node.value {
            Value::Int(value) if range.contains(&value) => Some(value),
            Value::Int(value) => {
                let message = format!(
                    "`{path}` must be from {} to {}, not {value}",
                    range.start(),
                    range.end()
                );
                self.problem(node.at, Code::BadValue, message);
                None
            }
            _ => {
                self.expected(node, path, "a whole number");
                None
            }
        }
    }

    pub(crate) fn port(&mut self, node: &Node, path: &str) -> Option<u16> {
        self.integer(node, path, 1..=65_535)
            .and_then(|n| u16::try_from(n).ok())
    }

    pub(crate) fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if self.strict && items.len() > LIST_MAX => {
                let message = format!(
                    "`{path}` has {} entries; the limit is {LIST_MAX}",
                    items.len()
                );
                self.problem(node.at, Code::Limit, message);
                None
            }
            Value::List(items) => Some(items),
            _ => {
                self.expected(node, path, "a list");
                None
            }
        }
    }

    /// A mapping of strings to strings; `None` if any part is not.
    pub(crate) fn text_map(&mut self, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, path, "a mapping");
            return None;
        };
        let mut out = BTreeMap::new();
        let mut whole = true;
        for entry in entries {
            match self.text(&entry.value, &format!("{path}.{}", entry.key)) {
                Some(text) => _ = out.insert(entry.key.clone(), text.to_owned()),
                None => whole = false,
            }
        }
        whole.then_some(out)
    }
}

/// The fields of one mapping, each asked for once, so that what nobody asked for is unknown.
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    pub(crate) at: Place,
    path: String,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Where a field stands, for messages: `spec.client.networks`.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The field, if it stands. Null is absent in core kinds and a problem in strict ones, for it may be a list whose
    /// entries were commented out.
    pub(crate) fn optional(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n Node> {
        self.known.push(key);
        let node = &self.entries.iter().find(|e| e.key == key)?.value;
        match node.value {
            Value::Null if reading.strict => {
                let path = self.path(key);
                reading.problem(
                    node.at,
                    Code::WrongType,
                    format!("`{path}` is empty; remove the field or give it a value"),
                );
                None
            }
            Value::Null => None,
            Value::Bad => {
                reading.spoiled = true;
                None
            }
            _ => Some(node),
        }
    }

    /// As [`Fields::optional`], but null is absent even in strict kinds (`metadata`, `status`).
    pub(crate) fn lenient(&mut self, reading: &mut Reading, key: &'static str) -> Option<&'n Node> {
        let strict = std::mem::replace(&mut reading.strict, false);
        let node = self.optional(reading, key);
        reading.strict = strict;
        node
    }

    pub(crate) fn required(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n Node> {
        let stands = self.entries.iter().any(|e| e.key == key);
        if !stands {
            let path = self.path(key);
            reading.problem(self.at, Code::Missing, format!("`{path}` is missing"));
        }
        self.optional(reading, key).or_else(|| {
            let null = self
                .entries
                .iter()
                .any(|e| e.key == key && e.value.value == Value::Null);
            if null && !reading.strict {
                let path = self.path(key);
                reading.problem(self.at, Code::Missing, format!("`{path}` is missing"));
            }
            None
        })
    }

    /// Whether the key stands, whatever it holds.
    pub(crate) fn stands(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Takes note that a field exists, without reading it.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend_from_slice(keys);
    }

    pub(crate) fn optional_text(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n str> {
        let path = self.path(key);
        self.optional(reading, key)
            .and_then(|node| reading.text(node, &path))
    }

    pub(crate) fn required_text(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n str> {
        let path = self.path(key);
        self.required(reading, key)
            .and_then(|node| reading.text(node, &path))
    }

    pub(crate) fn optional_list(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n [Node]> {
        let path = self.path(key);
        self.optional(reading, key)
            .and_then(|node| reading.list(node, &path))
    }

    pub(crate) fn required_list(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<&'n [Node]> {
        let path = self.path(key);
        self.required(reading, key)
            .and_then(|node| reading.list(node, &path))
    }

    pub(crate) fn optional_fields(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<Fields<'n>> {
        let path = self.path(key);
        self.optional(reading, key)
            .and_then(|node| reading.fields(node, &path))
    }

    pub(crate) fn required_fields(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
    ) -> Option<Fields<'n>> {
        let path = self.path(key);
        self.required(reading, key)
            .and_then(|node| reading.fields(node, &path))
    }

    /// A field that one of `values` must fill.
    pub(crate) fn choice(
        &mut self,
        reading: &mut Reading,
        key: &'static str,
        values: &[&'static str],
    ) -> Option<&'n str> {
        let path = self.path(key);
        let node = self.optional(reading, key)?;
        let text = reading.text(node, &path)?;
        if values.contains(&text) {
            return Some(text);
        }
        let message = format!(
            "`{path}` must be one of {}, not `{text}`",
            values.join(", ")
        );
        reading.problem(node.at, Code::BadValue, message);
        None
    }

    /// Reports the fields that nobody asked for; in core kinds they are ignored.
    pub(crate) fn finish(self, reading: &mut Reading) {
        if !reading.strict {
            return;
        }
        for entry in self.entries {
            if self.known.iter().any(|k| *k == entry.key) {
                continue;
            }
            let message = format!("unknown field `{}`", self.path(&entry.key));
            let near = self.known.iter().find(|k| near(k, &entry.key));
            match near {
                Some(near) => reading.problem_with_hint(
                    entry.at,
                    Code::UnknownField,
                    message,
                    format!("did you mean `{near}`?"),
                ),
                None => {
                    let known = self.known.join("`, `");
                    let hint = format!("the fields here are `{known}`");
                    reading.problem_with_hint(entry.at, Code::UnknownField, message, hint);
                }
            }
        }
    }
}

/// Whether two names differ by case, or by at most two edits.
pub(crate) fn near(known: &str, given: &str) -> bool {
    if known.eq_ignore_ascii_case(given) {
        return true;
    }
    if given.len() > 64 {
        return false;
    }
    let given: Vec<char> = given.chars().collect();
    let mut row: Vec<usize> = (0..=given.len()).collect();
    for (i, a) in known.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in given.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX);
            let change = get(&row, j) + usize::from(a != *b);
            next.push(change.min(get(&row, j + 1) + 1).min(get(&next, j) + 1));
        }
        row = next;
    }
    row.last().is_some_and(|distance| *distance <= 2)
}
