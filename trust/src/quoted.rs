//! Hostile text, made fit for an error message or a log line.

use std::fmt;

/// Characters of a refused text that a message repeats. A whole SPIFFE ID may have 2,048 bytes; the start tells which it is.
const CHARS_MAX: usize = 128;

/// A text that was refused, for a message: control and non-ASCII characters escaped, cut after 128 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quoted(Box<str>);

impl Quoted {
    /// Keeps what a message may show of `text`.
    pub fn new(text: &str) -> Self {
        let mut shown: String = text
            .chars()
            .take(CHARS_MAX)
            .flat_map(char::escape_default)
            .collect();
        if text.chars().nth(CHARS_MAX).is_some() {
            shown.push_str("...");
        }
        Self(shown.into())
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn control_characters_and_direction_marks_are_escaped() {
        assert_eq!(
            Quoted::new("a\r\n\0\x1b[2J\u{202e}b").as_str(),
            r"a\r\n\u{0}\u{1b}[2J\u{202e}b"
        );
    }

    #[test]
    fn long_text_is_cut() {
        let shown = Quoted::new(&"x".repeat(1_000_000));
        assert_eq!(shown.as_str().len(), 131);
        assert!(shown.as_str().ends_with("x..."));
    }
}
