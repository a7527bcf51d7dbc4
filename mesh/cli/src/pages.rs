//! `mesh explain MESH-nnnn`: the pages of docs/errors.md, carried by the command.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Format, Output};
use clap::Args;
use serde::Serialize;

/// The book's list of errors, whole.
const ERRORS: &str = include_str!("../../../docs/errors.md");
/// How many neighbours of an unknown code are named.
const NEIGHBOURS: usize = 3;

/// Explains one code.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// `MESH-0607`, or just `607`; without one, all codes are listed.
    code: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// One entry of docs/errors.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Page {
    code: String,
    title: String,
    text: String,
}

/// Why no page can be shown.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum PageError {
    #[error("there is no error code `{asked}`")]
    #[diagnostic(code("MESH-0610"), help("{nearest}; `mesh explain` lists all"))]
    Unknown { asked: String, nearest: String },
}

/// Prints the page of a code, or the list of codes.
pub(crate) fn explain(args: &ExplainArgs, output: &mut Output) -> Result<Exit, Fault> {
    let pages = pages(ERRORS);
    let Some(asked) = &args.code else {
        output.value(args.output, &pages, |output, pages| {
            pages
                .iter()
                .try_for_each(|page| output.line(format_args!("{}  {}", page.code, page.title)))
        })?;
        return Ok(Exit::Ok);
    };
    let Some(page) =
        number(asked).and_then(|number| pages.iter().find(|page| page.number() == Some(number)))
    else {
        let error = PageError::Unknown {
            asked: asked.clone(),
            nearest: nearest(asked, &pages),
        };
        return Err(Fault::usage(&error));
    };
    output.value(args.output, page, |output, page| {
        output.line(format_args!(
            "{}: {}\n\n{}",
            page.code,
            page.title,
            plain(&page.text)
        ))
    })?;
    Ok(Exit::Ok)
}

impl Page {
    fn number(&self) -> Option<u32> {
        number(&self.code)
    }
}

/// Cuts the book into its entries.
fn pages(book: &str) -> Vec<Page> {
    let mut pages: Vec<Page> = book
        .split("\n## ")
        .skip(1)
        .filter_map(|entry| {
            let (head, text) = entry.split_once('\n').unwrap_or((entry, ""));
            let (code, title) = head.split_once(": ")?;
            // A chapter heading may follow the last entry of a chapter.
            let text = text.split("\n# ").next().unwrap_or(text);
            Some(Page {
                code: code.to_owned(),
                title: title.to_owned(),
                text: text.trim().to_owned(),
            })
        })
        .filter(|page| page.number().is_some())
        .collect();
    pages.sort_by(|a, b| a.code.cmp(&b.code));
    pages
}

/// The number of `MESH-0607`, `mesh-607`, `607`.
fn number(code: &str) -> Option<u32> {
    let code = code.trim();
    let digits = code
        .get(..5)
        .filter(|head| head.eq_ignore_ascii_case("mesh-"))
        .map_or(code, |head| code.trim_start_matches(head));
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Names the codes closest to what was asked.
fn nearest(asked: &str, pages: &[Page]) -> String {
    let digits: String = asked.chars().filter(char::is_ascii_digit).collect();
    let Ok(wanted) = digits.parse::<u32>() else {
        return "a code looks like `MESH-0607`".to_owned();
    };
    let mut near: Vec<&Page> = pages.iter().collect();
    near.sort_by_key(|page| page.number().unwrap_or(u32::MAX).abs_diff(wanted));
    let named: Vec<String> = near
        .iter()
        .take(NEIGHBOURS)
        .map(|page| format!("{} ({})", page.code, page.title))
        .collect();
    if named.is_empty() {
        "no codes are known".to_owned()
    } else {
        format!("the nearest are {}", named.join(", "))
    }
}

/// Markdown without its stars, for a terminal.
fn plain(text: &str) -> String {
    text.replace("**", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = "# Errors\n\n## MESH-0607: no mesh runs\nText.\n\n**What to do.** Start one.\n\n# Proxy\n\n## MESH-0412: other\nMore.\n";

    #[test]
    fn the_book_is_cut_into_pages() {
        let pages = pages(BOOK);
        let codes: Vec<_> = pages.iter().map(|page| page.code.as_str()).collect();
        assert_eq!(codes, ["MESH-0412", "MESH-0607"]);
        assert_eq!(pages[1].text, "Text.\n\n**What to do.** Start one.");
    }

    #[test]
    fn codes_are_read_in_short_form_too() {
        for (text, want) in [
            ("MESH-0607", Some(607)),
            ("mesh-607", Some(607)),
            ("607", Some(607)),
            ("MESH-", None),
            ("MESH-06070", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(number(text), want, "{text}");
        }
    }

    #[test]
    fn an_unknown_code_names_its_neighbours() {
        let text = nearest("MESH-0608", &pages(BOOK));
        assert!(text.starts_with("the nearest are MESH-0607"), "{text}");
    }
}
