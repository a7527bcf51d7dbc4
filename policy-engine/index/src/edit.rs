//! Changes to manifests, made in their text so that comments and order stay.
//!
//! Each edit is checked by reading the document again: it must differ from the old one in exactly what was asked for. An
//! edit that cannot be made so (an alias, a style that is rare) is not made at all.
//!
//! - [`Document`]: one document of a file; start at [`Document::find`]
//! - [`Change`]: a document that takes the place of another, or comes as a new one; [`crate::Index::with`] compiles it
//! - [`scalar`], [`flow`]: values as YAML

mod place;
mod write;

pub use write::{flow, scalar};

use crate::manifest::tree::{self, Node, Place, Value as Tree};
use mesh_policy::snapshot::Source;
use place::{Step, Text, differs_only, is, path_of_entry, path_to, same};
use serde_json::Value;

/// One document of a file: the lines between two `---`, or the whole of a JSON file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Line of its first character, from 1; its `---` is not part of it.
    pub line: u32,
    /// Its last line.
    pub end_line: u32,
    /// Its text.
    pub text: String,
}

/// A document that is to be read from other text than what stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub file: String,
    /// Line that the text is read from, from 1.
    pub line: u32,
    /// Last of the lines from `line` on whose text this takes the place of; `None`: it takes no one's place.
    pub replaces_to: Option<u32>,
    /// The text, without `---`.
    pub text: String,
}

/// One edit of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// An item more in a list, at its start or its end.
    Add {
        /// Keys from the object to the list; in a list, the number of an item.
        list: Vec<String>,
        /// The item.
        item: Value,
    },
    /// Another value of a key, or a key more.
    Set {
        /// Keys from the object to the mapping.
        map: Vec<String>,
        /// The key.
        key: String,
        /// Its value; a value that stands can only be replaced if both are scalars.
        value: Value,
    },
    /// Another name for the key at this place of the file.
    Rename {
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
        /// The new name.
        to: String,
    },
    /// Text more in a string, right before the last `;` up to the end of this line of the file.
    Splice {
        /// Keys from the object to the string.
        text: Vec<String>,
        /// Line, from 1.
        line: u32,
        /// What is put in.
        insert: String,
    },
}

impl Document {
    /// The document of a file that holds this line; `None` if the file is no text, or no document is there.
    pub fn find(bytes: &[u8], line: u32) -> Option<Self> {
        let (before, text) = tree::document_at(bytes, line)?;
        let document = Self::of(before, text);
        (document.line..=document.end_line)
            .contains(&line)
            .then_some(document)
    }

    fn of(lines_before: u32, chunk: &str) -> Self {
        let (skipped, text) = match chunk.strip_prefix("---") {
            Some(rest) => match rest.split_once('\n') {
                Some((marker, text)) if marker.trim().is_empty() => (1, text),
                _ => (0, chunk),
            },
            None => (0, chunk),
        };
        let kept = text.trim_end();
        let text = if kept.is_empty() { text } else { kept };
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        let line = lines_before.saturating_add(1 + skipped);
        Self {
            line,
            end_line: line.saturating_add(lines.max(1) - 1),
            text: format!("{text}\n"),
        }
    }

    /// This document after an edit of the object, or the mapping in one, that stands at a place of it; `None` if the edit
    /// cannot be made.
    pub fn edited(&self, object: &Source, edit: &Edit) -> Option<Self> {
        let Source::File { line, column, .. } = object else {
            return None;
        };
        let place = Place {
            line: *line,
            column: *column,
        };
        let root = self.root()?;
        let path = path_to(&root, place)?;
        let text = Text::new(&self.text, self.line);
        let candidates = match edit {
            Edit::Add { list, item } => {
                let (path, node) = below(&root, path, list)?;
                let wanted = move |old: &Node, new: &Node| has_more(old, new, item);
                self.tried(&root, text.added(node, item)?, &path, &wanted)
            }
            Edit::Set { map, key, value } => {
                let (path, node) = below(&root, path, map)?;
                let wanted = move |old: &Node, new: &Node| has_set(old, new, key, value);
                self.tried(&root, text.set(node, key, value)?, &path, &wanted)
            }
            Edit::Rename { line, column, to } => {
                let at = Place {
                    line: *line,
                    column: *column,
                };
                let (path, old) = path_of_entry(&root, at)?;
                let from = old.clone();
                let wanted = move |old: &Node, new: &Node| has_renamed(old, new, &from, to);
                self.tried(&root, text.renamed(at, &old, to)?, &path, &wanted)
            }
            Edit::Splice {
                text: keys,
                line,
                insert,
            } => {
                let (path, _) = below(&root, path, keys)?;
                let wanted = move |old: &Node, new: &Node| has_spliced(old, new, insert);
                self.tried(&root, text.spliced(*line, insert)?, &path, &wanted)
            }
        };
        candidates.map(|text| {
            let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
            Self {
                line: self.line,
                end_line: self.line.saturating_add(lines.max(1) - 1),
                text,
            }
        })
    }

    /// Its tree, if it is exactly one and nothing is wrong with its text.
    fn root(&self) -> Option<Node> {
        one_tree(&self.text, self.line)
    }

    /// The first of these texts that says exactly what is wanted.
    fn tried(
        &self,
        root: &Node,
        texts: Vec<String>,
        path: &[Step],
        wanted: &dyn Fn(&Node, &Node) -> bool,
    ) -> Option<String> {
        texts.into_iter().find(|text| {
            one_tree(text, self.line).is_some_and(|new| differs_only(root, &new, path, wanted))
        })
    }
}

impl Change {
    /// A file's text with changes made: those of `changes` that are about it. New documents go to its end.
    pub fn apply(file: &str, bytes: &[u8], changes: &[Self]) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        let mut mine: Vec<&Self> = changes.iter().filter(|one| one.file == file).collect();
        mine.sort_by_key(|one| (one.replaces_to.is_none(), one.line));
        let mut out = String::new();
        let mut lines = text.split_inclusive('\n').zip(1u32..).peekable();
        for change in &mine {
            let Some(end) = change.replaces_to else {
                out.extend(lines.by_ref().map(|(line, _)| line));
                if !out.is_empty() && !out.ends_with('\n') {
                    out.push('\n');
                }
                out.push_str("---\n");
                out.push_str(&change.text);
                continue;
            };
            while let Some((line, _)) = lines.next_if(|(_, number)| *number < change.line) {
                out.push_str(line);
            }
            while lines.next_if(|(_, number)| *number <= end).is_some() {}
            out.push_str(&change.text);
        }
        out.extend(lines.map(|(line, _)| line));
        out.into_bytes()
    }
}

/// The one tree of a text, if nothing is wrong with it.
fn one_tree(text: &str, line: u32) -> Option<Node> {
    let mut documents = tree::read_at(text, line.saturating_sub(1));
    let document = documents.pop()?;
    (documents.is_empty() && document.complete && document.defects.is_empty())
        .then_some(document.root)
}

/// The node that keys lead to, and the whole way to it. In a list a key is a number, from 0.
fn below<'n>(
    root: &'n Node,
    mut path: Vec<Step>,
    keys: &[String],
) -> Option<(Vec<Step>, &'n Node)> {
    let mut node = path.iter().try_fold(root, |node, step| step.taken(node))?;
    for key in keys {
        let step = match &node.value {
            Tree::List(_) => Step::At(key.parse().ok()?),
            _ => Step::Key(key.clone()),
        };
        node = step.taken(node)?;
        path.push(step);
    }
    Some((path, node))
}

fn has_more(old: &Node, new: &Node, item: &Value) -> bool {
    let (Tree::List(old), Tree::List(new)) = (&old.value, &new.value) else {
        return false;
    };
    let alike = |rest: &[Node]| {
        rest.len() == old.len() && rest.iter().zip(old).all(|(one, other)| same(one, other))
    };
    let first = new.split_first();
    let last = new.split_last();
    first.is_some_and(|(one, rest)| is(one, item) && alike(rest))
        || last.is_some_and(|(one, rest)| is(one, item) && alike(rest))
}

fn has_set(old: &Node, new: &Node, key: &str, value: &Value) -> bool {
    let (Tree::Map(before), Tree::Map(after)) = (&old.value, &new.value) else {
        return false;
    };
    let others = |entries: &[tree::Entry]| entries.iter().filter(|e| e.key != key).count();
    others(before) == others(after)
        && new.get(key).is_some_and(|node| is(node, value))
        && before.iter().filter(|entry| entry.key != key).all(|entry| {
            new.get(&entry.key)
                .is_some_and(|node| same(&entry.value, node))
        })
}

fn has_renamed(old: &Node, new: &Node, from: &str, to: &str) -> bool {
    let (Tree::Map(before), Tree::Map(after)) = (&old.value, &new.value) else {
        return false;
    };
    let name = |key: &str| {
        if key == from {
            to.to_owned()
        } else {
            key.to_owned()
        }
    };
    before.len() == after.len()
        && old.get(to).is_none()
        && before.iter().all(|entry| {
            new.get(&name(&entry.key))
                .is_some_and(|node| same(&entry.value, node))
        })
}

fn has_spliced(old: &Node, new: &Node, insert: &str) -> bool {
    let (Some(old), Some(new)) = (old.as_text(), new.as_text()) else {
        return false;
    };
    new.len() == old.len() + insert.len()
        && new.match_indices(insert).any(|(at, _)| {
            new.get(..at)
                .zip(new.get(at + insert.len()..))
                .is_some_and(|(before, after)| old.strip_prefix(before) == Some(after))
        })
}

#[cfg(test)]
mod tests;
