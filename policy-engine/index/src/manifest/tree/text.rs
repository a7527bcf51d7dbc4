//! Bytes to texts of single documents.

use super::{Defect, Place, narrow};
use crate::finding::Code;
use crate::limits::FILE_BYTES_MAX;

pub(crate) fn defect(line: u32, column: u32, code: Code, message: impl Into<String>) -> Defect {
    Defect {
        at: Place { line, column },
        code,
        message: message.into(),
    }
}

/// The text without its byte order mark, if it is UTF-8 without control characters. The scanner takes NUL for the end.
pub(crate) fn checked_text(bytes: &[u8]) -> Result<&str, Defect> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(defect(
            1,
            1,
            Code::Limit,
            format!(
                "the file has {} bytes; the limit is {FILE_BYTES_MAX}",
                bytes.len()
            ),
        ));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let place = |offset: usize| {
        let before = bytes.get(..offset).unwrap_or(bytes);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |n| n + 1);
        let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default())
            .chars()
            .count()
            + 1;
        (narrow(line), narrow(column))
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let (line, column) = place(e.valid_up_to());
        defect(line, column, Code::Syntax, "the text is not UTF-8")
    })?;
    let control = |c: char| {
        (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || c == '\u{FEFF}'
    };
    match text.char_indices().find(|(_, c)| control(*c)) {
        Some((offset, c)) => {
            let (line, column) = place(offset);
            Err(defect(
                line,
                column,
                Code::Syntax,
                format!("control character U+{:04X} in the text", u32::from(c)),
            ))
        }
        None => Ok(text),
    }
}

/// JSON as YAML: valid JSON may indent with tabs, which YAML refuses; one space each keeps the columns.
pub(crate) fn as_json(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(text.replace('\t', " "))
}

/// Whether a line begins a document.
pub(super) fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// The document that holds a line, as [`chunks`] cuts it, and the number of lines before it.
pub(crate) fn chunk_at(text: &str, line: u32) -> Option<(u32, &str)> {
    let (mut start, mut start_line) = (0, 0);
    let (mut offset, mut found) = (0, false);
    for (number, content) in text.split_inclusive('\n').enumerate() {
        let number = narrow(number);
        if is_marker(content) && offset > start {
            if found {
                break;
            }
            (start, start_line) = (offset, number);
        }
        found |= number + 1 == line;
        offset += content.len();
    }
    found
        .then(|| text.get(start..offset))?
        .map(|chunk| (start_line, chunk))
}

/// Documents by their `---` lines, each with the number of lines before it. The rest of a `---` line belongs to its document.
pub(crate) fn chunks(text: &str) -> Vec<(u32, &str)> {
    let mut out = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) && offset > start {
            out.push((start_line, text.get(start..offset).unwrap_or_default()));
            (start, start_line) = (offset, narrow(number));
        }
        offset += line.len();
    }
    out.push((start_line, text.get(start..).unwrap_or_default()));
    let has_content = |chunk: &str| {
        chunk.lines().any(|l| {
            let l = l.strip_prefix("---").unwrap_or(l).trim();
            !l.is_empty() && !l.starts_with('#') && !l.starts_with('%')
        })
    };
    out.retain(|(_, chunk)| has_content(chunk));
    out
}
