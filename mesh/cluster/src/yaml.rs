//! YAML that every reader understands alike: Kubernetes reads YAML 1.1, where `yes`, `on`, `1:30` and `0o7` are no strings.

use serde_json::Value;
use std::fmt::Write as _;

/// Spaces of one level.
const STEP: usize = 2;

/// `value` as one YAML document, without `---`. Strings are quoted as JSON unless no reader could take them for anything else.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        other => {
            scalar(other, &mut out);
            out.push('\n');
        }
    }
    out
}

fn block(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                indent(level, out);
                string(key, out);
                out.push(':');
                after(below, level, out);
            }
        }
        Value::Array(list) => {
            for item in list {
                indent(level, out);
                out.push('-');
                item_of(item, level, out);
            }
        }
        other => scalar(other, out),
    }
}

/// What stands after `key:`.
fn after(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, level + 1, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            block(value, level, out);
        }
        Value::String(text) if is_literal(text) => literal(text, level + 1, out),
        other => {
            out.push(' ');
            scalar(other, out);
            out.push('\n');
        }
    }
}

/// What stands after `-`: a mapping begins on the same line.
fn item_of(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut inner = String::new();
            block(value, level + 1, &mut inner);
            out.push(' ');
            out.push_str(inner.trim_start_matches(' '));
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            block(value, level + 1, out);
        }
        other => after(other, level, out),
    }
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', level * STEP));
}

/// Whether a text of several lines can stand as it is, below `|`.
fn is_literal(text: &str) -> bool {
    let plain = |line: &str| !line.ends_with([' ', '\t']) && !line.chars().any(char::is_control);
    text.len() > 1
        && text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n'])
        && text.lines().all(plain)
}

fn literal(text: &str, level: usize, out: &mut String) {
    out.push_str(" |\n");
    for line in text.lines() {
        if !line.is_empty() {
            indent(level, out);
            out.push_str(line);
        }
        out.push('\n');
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => string(text, out),
        // Writing to a String cannot fail; null, booleans and numbers of JSON are those of YAML.
        other => drop(write!(out, "{other}")),
    }
}

fn string(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        // JSON's strings are YAML's, but for characters that YAML allows only escaped.
        for c in Value::from(text).to_string().chars() {
            match c {
                '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
    }
}

/// Whether a text is a string to every version of YAML, unquoted: words that begin with a letter, and none that mean
/// a boolean or null.
fn is_plain(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let word = text.to_ascii_lowercase();
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(inner)
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "kind": "X",
            "empty": {"list": [], "map": {}, "text": "", "none": null},
            "words": ["yes", "No", "on", "y", "~", "null", "0o7", "1:30", "1e3", "-1", ".inf", "=", "<<", "#x", "a: b", "a #b", " a", "a ", "\u{2028}\u{85}", "é", "*", "&a", "!t", "|", "%", "@", "`", "2020-01-01"],
            "nested": [[1, 2], [], [{"a": [true, {"b": "c\nd"}]}], "x\ny\n", "\n", "x\n\n", " x\n", "x \n", "a\tb\n"],
            "text": "one\n\n  two\n",
            "number": 1.5, "big": 9_007_199_254_740_993_i64,
            "key with: colon": 1, "yes": 2, "1": 3,
        });
        let text = write(&value);
        let back: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn words_that_old_readers_take_for_booleans_are_quoted() {
        for word in [
            "yes", "NO", "on", "Off", "y", "N", "true", "null", "1", "0x1", "1.2", "", "-",
        ] {
            let text = write(&json!({ "a": word }));
            assert_eq!(text, format!("a: \"{word}\"\n"));
        }
        assert_eq!(write(&json!({"a": "mesh-system"})), "a: mesh-system\n");
    }

    #[test]
    fn lists_and_mappings_look_as_people_write_them() {
        let value = json!({"a": [{"b": 1, "c": [2]}, {"d": {"e": "f\ng\n"}}]});
        assert_eq!(
            write(&value),
            "a:\n- b: 1\n  c:\n  - 2\n- d:\n    e: |\n      f\n      g\n"
        );
    }
}
