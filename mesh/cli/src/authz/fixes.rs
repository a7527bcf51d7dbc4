//! Fixes of a denied request: what each changes, where, and how much it opens.

use crate::fault::Fault;
use crate::output::{Output, Tone, printable};
use mesh_policy_analysis::blast::Blast;
use mesh_policy_analysis::fixes::{Action, Fix, Fixes, Patch};

/// Why a fix cannot be printed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum FixError {
    /// No fix of that number.
    #[error("there is no fix {number}")]
    #[diagnostic(
        code("MESH-0680"),
        help("{known} are known; without `--fix` the answer says what stands in the way")
    )]
    NoSuch {
        /// What was asked for.
        number: usize,
        /// Fixes that there are.
        known: usize,
    },
}

/// Columns of a line of prose; the lines of documents stay as they are.
const WIDTH: usize = 100;
/// What stands below a fix.
const INDENT: &str = "         ";

/// The fixes as text, below an explanation. Each shows the lines that it changes.
pub(crate) fn print(
    found: &Fixes,
    files: &[(String, Vec<u8>)],
    output: &mut Output,
) -> Result<(), Fault> {
    for one in &found.hindrances {
        let place = match &one.source {
            Some(source) => format!("  ({source})"),
            None => String::new(),
        };
        prose(
            "  hindrance         ",
            &format!("{}{place}", one.text),
            output,
        )?;
    }
    for (fix, number) in found.fixes.iter().zip(1..) {
        // Colour takes no columns, so it comes after the lines are cut.
        let mut lines = wrapped(&format!("  fix {number}  "), &fix.what).into_iter();
        if let Some(first) = lines.next() {
            let title = format!("fix {number}");
            let shown = output.toned(Tone::Good, &title);
            output.line(first.replacen(&title, &shown, 1))?;
        }
        for line in lines {
            output.line(line)?;
        }
        prose(INDENT, &opens(&fix.blast), output)?;
        if let Some(owner) = &fix.needs_owner {
            prose(INDENT, &format!("needs its owner: {owner}"), output)?;
        }
        for patch in &fix.patches {
            print_patch(patch, files, output)?;
        }
    }
    if found.bounded {
        output.talk("not all changes were tried: there may be other fixes");
    }
    Ok(())
}

/// Text behind a head, on lines of at most [`WIDTH`] columns.
fn prose(head: &str, text: &str, output: &mut Output) -> Result<(), Fault> {
    let mut lines = wrapped(head, text).into_iter();
    lines.try_for_each(|line| output.line(line))
}

/// Lines of a text behind a head: broken at spaces, inside a word only if it alone is too long.
fn wrapped(head: &str, text: &str) -> Vec<String> {
    let indent = head.chars().count().min(20);
    let (mut out, mut line) = (Vec::new(), head.to_owned());
    let mut room = WIDTH.saturating_sub(head.chars().count());
    let start = |out: &mut Vec<String>, line: &mut String| {
        out.push(line.trim_end().to_owned());
        *line = " ".repeat(indent);
        WIDTH - indent
    };
    for word in printable(text).split_inclusive(' ') {
        let width = word.trim_end().chars().count();
        if width > room && width <= WIDTH - indent {
            room = start(&mut out, &mut line);
        }
        for c in word.chars() {
            if room == 0 && c != ' ' {
                room = start(&mut out, &mut line);
            }
            line.push(c);
            room = room.saturating_sub(1);
        }
    }
    out.push(line.trim_end().to_owned());
    out
}

fn opens(blast: &Blast) -> String {
    let least = if blast.exact { "" } else { "at least " };
    let pairs = match blast.gained {
        1 => "1 pair".to_owned(),
        many => format!("{many} pairs"),
    };
    let lost = match blast.lost {
        0 => String::new(),
        lost => format!(", closes {lost}"),
    };
    format!("opens {least}{pairs} of identity and request{lost}; decided again: allowed")
}

/// What a patch changes: the lines that differ, those that go first.
fn print_patch(
    patch: &Patch,
    files: &[(String, Vec<u8>)],
    output: &mut Output,
) -> Result<(), Fault> {
    let old = old_lines(patch, files);
    let new: Vec<&str> = patch.yaml.lines().collect();
    let head = old
        .iter()
        .zip(&new)
        .take_while(|(one, other)| one == other)
        .count();
    let room = old.len().min(new.len()).saturating_sub(head);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let tail = pairs
        .take(room)
        .take_while(|(one, other)| one == other)
        .count();
    let line = usize::try_from(patch.line).unwrap_or_default() + head;
    let action = match patch.action {
        Action::Replace => "change",
        Action::Append => "append to",
        Action::Create => "create",
    };
    prose(INDENT, &format!("{action} {}:{line}", patch.file), output)?;
    if patch.action == Action::Append {
        output.line("           + ---")?;
    }
    let middle = |lines: &[&str]| -> Vec<String> {
        let kept = lines.len().saturating_sub(head + tail);
        lines
            .iter()
            .skip(head)
            .take(kept)
            .map(|line| printable(line))
            .collect()
    };
    for line in middle(&old) {
        output.line(format_args!("           - {line}"))?;
    }
    for line in middle(&new) {
        output.line(format_args!("           + {line}"))?;
    }
    Ok(())
}

/// The lines whose place a patch takes.
fn old_lines<'f>(patch: &Patch, files: &'f [(String, Vec<u8>)]) -> Vec<&'f str> {
    let (Some(end), Some((_, content))) = (
        patch.end_line,
        files.iter().find(|(name, _)| *name == patch.file),
    ) else {
        return Vec::new();
    };
    let text = std::str::from_utf8(content).unwrap_or_default();
    let lines = text.lines().zip(1u32..);
    lines
        .filter(|(_, number)| (patch.line..=end).contains(number))
        .map(|(line, _)| line)
        .collect()
}

/// The whole documents of a fix, as one stream.
pub(crate) fn print_documents(fix: &Fix, output: &mut Output) -> Result<(), Fault> {
    for (patch, number) in fix.patches.iter().zip(0..) {
        if number > 0 {
            output.line("---")?;
        }
        output.text(&patch.yaml)?;
    }
    if let Some(owner) = &fix.needs_owner {
        output.talk(format_args!("needs its owner: {}", printable(owner)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_never_wider_than_a_hundred_columns_and_loses_nothing() {
        let long = "x".repeat(230);
        let texts = [
            String::new(),
            "a b".to_owned(),
            format!("a {long} b"),
            "word ".repeat(60),
            "ab ".repeat(40),
            long,
        ];
        for text in texts {
            let lines = wrapped("  fix 1  ", &text);
            let wide = |line: &String| line.chars().count() > WIDTH;
            assert!(!lines.iter().any(wide), "{lines:?}");
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&lines.concat()), squeeze(&format!("fix 1{text}")));
        }
    }
}
