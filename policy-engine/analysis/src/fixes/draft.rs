//! Documents in the making: edits on top of edits, before anything is written.

use mesh_policy::snapshot::Source;
use mesh_policy_index::edit::{Change, Document, Edit};
use serde::Serialize;

/// A document to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Patch {
    /// The file.
    pub file: String,
    /// What to do there.
    pub action: Action,
    /// Line at which the document goes, from 1.
    pub line: u32,
    /// Last of the lines that it takes the place of.
    pub end_line: Option<u32>,
    /// The whole document, as `kubectl apply` takes it.
    pub yaml: String,
}

/// What a [`Patch`] does to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Takes the place of the lines from `line` to `end_line`.
    Replace,
    /// Goes to the end of the file, after a line `---`.
    Append,
    /// Is a file of its own.
    Create,
}

impl Patch {
    /// A file's content with patches made: those that are about it.
    pub fn apply(file: &str, content: &[u8], patches: &[Self]) -> Vec<u8> {
        let changes: Vec<Change> = patches
            .iter()
            .map(|patch| Change {
                file: patch.file.clone(),
                line: patch.line,
                replaces_to: patch.end_line,
                text: patch.yaml.clone(),
            })
            .collect();
        Change::apply(file, content, &changes)
    }
}

/// Changes to some documents of some files.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    changes: Vec<Change>,
    /// Files that are new.
    new_files: Vec<String>,
}

impl Draft {
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What is to be written, in the order of files and lines.
    pub(super) fn patches(&self) -> Vec<Patch> {
        let mut out: Vec<Patch> = self
            .changes
            .iter()
            .map(|change| Patch {
                file: change.file.clone(),
                action: match change.replaces_to {
                    Some(_) => Action::Replace,
                    None if self.new_files.contains(&change.file) => Action::Create,
                    None => Action::Append,
                },
                line: change.line,
                end_line: change.replaces_to,
                yaml: change.text.clone(),
            })
            .collect();
        out.sort();
        out
    }

    /// Edits the object that stands at a place; `None` if that cannot be done.
    pub(super) fn edit(
        &mut self,
        files: &[(String, Vec<u8>)],
        object: &Source,
        edit: &Edit,
    ) -> Option<()> {
        let Source::File { file, line, .. } = object else {
            return None;
        };
        for change in self
            .changes
            .iter_mut()
            .filter(|change| change.file == *file)
        {
            let drafted = Document {
                line: change.line,
                end_line: change.line,
                text: change.text.clone(),
            };
            if let Some(edited) = drafted.edited(object, edit) {
                change.text = edited.text;
                return Some(());
            }
        }
        let (_, content) = files.iter().find(|(name, _)| name == file)?;
        let old = Document::find(content, *line)?;
        let taken = self
            .changes
            .iter()
            .any(|change| change.file == *file && change.line == old.line);
        if taken {
            return None;
        }
        let new = old.edited(object, edit)?;
        self.changes.push(Change {
            file: file.clone(),
            line: old.line,
            replaces_to: Some(old.end_line),
            text: new.text,
        });
        Some(())
    }

    /// As [`Draft::edit`], with the first of several edits that can be done.
    pub(super) fn edit_one(
        &mut self,
        files: &[(String, Vec<u8>)],
        object: &Source,
        edits: &[Edit],
    ) -> Option<()> {
        edits.iter().find_map(|edit| self.edit(files, object, edit))
    }

    /// Puts a new document at the end of the file that something stands in; beside it, if that file is JSON.
    pub(super) fn append(
        &mut self,
        files: &[(String, Vec<u8>)],
        beside: &Source,
        text: String,
    ) -> Option<()> {
        let Source::File { file, .. } = beside else {
            return None;
        };
        let (_, content) = files.iter().find(|(name, _)| name == file)?;
        let json = content.trim_ascii_start().starts_with(b"{");
        let file = match json {
            true => format!("{}-fix.yaml", file.trim_end_matches(".json")),
            false => file.clone(),
        };
        let mut line = 1;
        if json {
            if files.iter().any(|(name, _)| *name == file) {
                return None;
            }
            if !self.new_files.contains(&file) {
                self.new_files.push(file.clone());
            }
        } else {
            line += lines(content) + 1;
        }
        let drafted = self
            .changes
            .iter()
            .filter(|c| c.file == file && c.replaces_to.is_none());
        line += drafted.map(|c| lines(c.text.as_bytes()) + 1).sum::<usize>();
        self.changes.push(Change {
            file,
            line: u32::try_from(line).ok()?,
            replaces_to: None,
            text,
        });
        Some(())
    }
}

/// Lines of a text; an unfinished one counts.
fn lines(text: &[u8]) -> usize {
    text.split_inclusive(|byte| *byte == b'\n').count()
}
