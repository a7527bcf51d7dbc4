//! The coded error object: every failure that a person or a program sees, in one shape.

use crate::terminal::steers;
use miette::Diagnostic;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};

/// Code of a failure that names none of its own.
pub const UNCODED: &str = "MESH-0800";

/// Causes that are printed below a failure; deeper ones say nothing new.
const CAUSES_MAX: usize = 8;

/// One failure or finding: a stable code, what, where, why, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedError {
    /// `MESH-nnnn`; `mesh explain CODE` prints its page.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What, in one sentence.
    pub message: String,
    /// Where: `file:line`, or `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Why: the causes, outermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a [`CodedError`] is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It did not work.
    #[default]
    Error,
    /// It works, perhaps not as meant.
    Warning,
    /// Worth knowing.
    Info,
}

impl CodedError {
    /// A failure with these words.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            severity: Severity::Error,
            message: message.into(),
            place: None,
            why: None,
            hint: None,
        }
    }

    /// The same, at `place`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Several lines of plain text, without a final line feed. Control characters are escaped: a message may quote
    /// what a stranger sent.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} {}: {}",
            self.severity,
            self.code,
            printable(&self.message)
        );
        for (label, part) in [
            ("at", &self.place),
            ("why", &self.why),
            ("help", &self.hint),
        ] {
            if let Some(part) = part {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n  {label}: {}", printable(part));
            }
        }
        text
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        // Strings and an enum always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for CodedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl std::error::Error for CodedError {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

impl From<&dyn Diagnostic> for CodedError {
    fn from(diagnostic: &dyn Diagnostic) -> Self {
        Self {
            code: code_of(diagnostic).unwrap_or_else(|| UNCODED.to_owned()),
            severity: match diagnostic.severity() {
                None | Some(miette::Severity::Error) => Severity::Error,
                Some(miette::Severity::Warning) => Severity::Warning,
                Some(miette::Severity::Advice) => Severity::Info,
            },
            message: diagnostic.to_string(),
            place: place_of(diagnostic),
            why: causes_of(diagnostic),
            hint: hint_of(diagnostic),
        }
    }
}

/// Any error type that carries a code, so that `?` and `.map_err(CodedError::from_diagnostic)` are enough.
impl CodedError {
    /// The same as `From<&dyn Diagnostic>`, by value.
    pub fn from_diagnostic(diagnostic: impl Diagnostic) -> Self {
        Self::from(&diagnostic as &dyn Diagnostic)
    }
}

/// The outermost code: its own, else that of the diagnostic it wraps.
fn code_of(diagnostic: &dyn Diagnostic) -> Option<String> {
    match diagnostic.code() {
        Some(code) => Some(code.to_string()),
        None => code_of(diagnostic.diagnostic_source()?),
    }
}

fn hint_of(diagnostic: &dyn Diagnostic) -> Option<String> {
    match diagnostic.help() {
        Some(help) => Some(help.to_string()),
        None => hint_of(diagnostic.diagnostic_source()?),
    }
}

/// `name:line:column` of the first label, if the diagnostic carries its source text.
fn place_of(diagnostic: &dyn Diagnostic) -> Option<String> {
    let label = diagnostic.labels()?.next()?;
    let contents = diagnostic
        .source_code()?
        .read_span(label.inner(), 0, 0)
        .ok()?;
    let name = contents.name().unwrap_or("<input>");
    Some(format!(
        "{name}:{}:{}",
        contents.line() + 1,
        contents.column() + 1
    ))
}

/// Texts of the causes below, each once, outermost first.
fn causes_of(diagnostic: &dyn Diagnostic) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = diagnostic.source();
    while let (Some(cause), true) = (next, texts.len() < CAUSES_MAX) {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// `text` with what steers a terminal escaped; line feeds become indented lines.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\n    "),
            c if steers(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error, miette::Diagnostic)]
    enum Sample {
        #[error("cannot read `{0}`")]
        #[diagnostic(code("MESH-0801"), help("look there"))]
        Coded(String, #[source] std::io::Error),
        #[error("outer")]
        Outer(#[diagnostic_source] Inner),
        #[error("bad word")]
        #[diagnostic(code("MESH-0803"), severity(Warning))]
        Placed {
            #[source_code]
            text: miette::NamedSource<String>,
            #[label]
            at: miette::SourceSpan,
        },
        #[error("nothing known")]
        Bare,
    }

    #[derive(Debug, thiserror::Error, miette::Diagnostic)]
    #[error("inner")]
    #[diagnostic(code("MESH-0802"), help("do that"))]
    struct Inner;

    #[test]
    fn a_diagnostic_keeps_code_cause_and_hint() {
        let error = CodedError::from_diagnostic(Sample::Coded(
            "x".into(),
            std::io::Error::other("disk on fire"),
        ));
        assert_eq!(
            error.to_text(),
            "error MESH-0801: cannot read `x`\n  why: disk on fire\n  help: look there"
        );
        let back: CodedError = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(back, error);
    }

    #[test]
    fn a_wrapped_diagnostic_lends_its_code_and_a_bare_one_gets_the_common_code() {
        let error = CodedError::from_diagnostic(Sample::Outer(Inner));
        assert_eq!(
            (error.code.as_str(), error.hint.as_deref()),
            ("MESH-0802", Some("do that"))
        );
        assert_eq!(CodedError::from_diagnostic(Sample::Bare).code, UNCODED);
    }

    #[test]
    fn a_label_becomes_file_line_and_column() {
        let text = miette::NamedSource::new("a.yaml", "one\ntwo three\n".to_owned());
        let error = CodedError::from_diagnostic(Sample::Placed {
            text,
            at: (8, 5).into(),
        });
        assert_eq!(error.place.as_deref(), Some("a.yaml:2:5"));
        assert_eq!(error.severity, Severity::Warning);
    }

    #[test]
    fn what_a_stranger_sent_cannot_drive_the_terminal() {
        let error = CodedError::new(
            "MESH-0822",
            "\u{1b}[2J\r\u{202e}x\u{200b}\nerror MESH-0801: forged",
        );
        let text = error.to_text();
        assert!(
            !text.contains(['\u{1b}', '\r', '\u{202e}', '\u{200b}']),
            "{text:?}"
        );
        assert!(
            text.lines().skip(1).all(|line| line.starts_with("  ")),
            "{text}"
        );
    }
}
