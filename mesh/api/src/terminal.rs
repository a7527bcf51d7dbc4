//! Texts that others chose, made so that they steer no terminal: neither by control characters nor by characters that are
//! not seen and turn the order of those that are.

use std::fmt::Write as _;

/// Whether a character is shown as nothing, or as something else than itself: controls (C0, DEL, C1), whitespace but the
/// plain blank, and format characters of Unicode (general category Cf).
pub fn steers(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// `text` with those characters escaped as Rust writes them, `\u{1b}`.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// JSON as `serde_json` writes it, with those characters of its strings escaped as JSON has it (RFC 8259 §7): the same
/// value. Below U+007F the encoder has done so; beyond, nothing stands outside of strings.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c < '\u{7f}' || !steers(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into a String does not fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str =
        "\u{1b}\n\u{7f}\u{85}\u{9b}\u{a0}\u{200b}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}";

    #[test]
    fn what_steers_is_escaped_and_the_rest_stays() {
        let shown = printable(ODD);
        assert!(shown.is_ascii() && !shown.chars().any(steers), "{shown}");
        assert_eq!(printable("a b → ü"), "a b → ü");
    }

    #[test]
    fn json_that_is_escaped_is_the_same_value() {
        let value = serde_json::json!({ "path": ODD, "plain": "a → ü" });
        for text in [value.to_string(), format!("{value:#}")] {
            let shown = json(&text);
            assert!(!shown.chars().any(|c| steers(c) && c != '\n'), "{shown}");
            assert!(
                shown.contains("→ ü") && shown.contains("\\u009b"),
                "{shown}"
            );
            let same: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(same, value);
        }
    }
}
