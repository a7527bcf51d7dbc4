//! YAML for people: block style, keys in the order they are given, strings quoted only where a reader could take them
//! for something else.

use std::fmt::Write as _;

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Yaml {
    Text(String),
    Number(i64),
    List(Vec<Yaml>),
    Map(Vec<(&'static str, Yaml)>),
    /// A mapping whose keys are data: labels, annotations.
    Labels(Vec<(String, String)>),
    /// Several lines of text, as a literal block.
    Lines(String),
}

impl Yaml {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The document, without `---`.
    pub(crate) fn print(&self) -> String {
        let mut out = String::new();
        self.block(&mut out, 0);
        out
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Labels(entries) => entries.is_empty(),
            Self::Text(_) | Self::Number(_) | Self::Lines(_) => false,
        }
    }

    /// Writes it on lines of its own.
    fn block(&self, out: &mut String, indent: usize) {
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    entry(out, indent, key, value);
                }
            }
            Self::Labels(entries) => {
                for (key, value) in entries {
                    entry(out, indent, &scalar(key), &Self::text(value.clone()));
                }
            }
            Self::List(items) => {
                for item in items {
                    if item.is_empty() {
                        let _ = writeln!(out, "{:indent$}- {}", "", item.inline());
                        continue;
                    }
                    let mut inner = String::new();
                    item.block(&mut inner, indent + 2);
                    // The dash takes the place of the first line's indent.
                    let _ = write!(
                        out,
                        "{:indent$}- {}",
                        "",
                        inner.get(indent + 2..).unwrap_or_default()
                    );
                }
            }
            Self::Text(_) | Self::Number(_) | Self::Lines(_) => {
                let _ = writeln!(out, "{:indent$}{}", "", self.inline());
            }
        }
    }

    /// Its form behind a key or a dash, for what takes no lines of its own.
    fn inline(&self) -> String {
        match self {
            Self::Text(text) | Self::Lines(text) => scalar(text),
            Self::Number(number) => number.to_string(),
            Self::List(_) => "[]".to_owned(),
            Self::Map(_) | Self::Labels(_) => "{}".to_owned(),
        }
    }
}

fn entry(out: &mut String, indent: usize, key: &str, value: &Yaml) {
    match value {
        Yaml::Lines(text) => {
            let _ = writeln!(out, "{:indent$}{key}: |", "");
            for line in text.lines() {
                let line = format!("{:width$}{line}", "", width = indent + 2);
                let _ = writeln!(out, "{}", line.trim_end());
            }
        }
        Yaml::Text(_) | Yaml::Number(_) => {
            let _ = writeln!(out, "{:indent$}{key}: {}", "", value.inline());
        }
        nested if nested.is_empty() => {
            let _ = writeln!(out, "{:indent$}{key}: {}", "", value.inline());
        }
        nested => {
            let _ = writeln!(out, "{:indent$}{key}:", "");
            nested.block(out, indent + 2);
        }
    }
}

/// A string as a scalar: plain if no reader could take it for anything else, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        // Words that YAML 1.1 readers take for booleans or nothing.
        && !["true", "false", "yes", "no", "on", "off", "y", "n", "null"]
            .iter()
            .any(|w| text.eq_ignore_ascii_case(w));
    // `spiffe://` has a colon that no space follows: plain in every version of YAML.
    let identity = text
        .strip_prefix("spiffe://")
        .is_some_and(|rest| rest.chars().all(plain));
    if word || identity {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ('\u{7f}'..='\u{a0}').contains(&c) || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tree::{self, Node, Value};

    fn parsed(yaml: &Yaml) -> Node {
        let mut documents = tree::read(yaml.print().as_bytes());
        assert_eq!(documents.len(), 1, "{}", yaml.print());
        let document = documents.remove(0);
        assert!(document.defects.is_empty(), "{:?}", document.defects);
        document.root
    }

    #[test]
    fn an_item_without_content_has_a_line_of_its_own() {
        let empty = || Yaml::Map(Vec::new());
        let list = Yaml::List(vec![empty(), Yaml::List(Vec::new()), empty()]);
        let yaml = Yaml::Map(vec![("list", list), ("next", Yaml::Number(1))]);
        assert_eq!(yaml.print(), "list:\n  - {}\n  - []\n  - {}\nnext: 1\n");
        assert!(parsed(&yaml).get("next").is_some());
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for text in [
            "",
            "a",
            "a b",
            "*",
            "true",
            "No",
            "null",
            "12",
            "1.2",
            "0x10",
            "a: b",
            "a #b",
            "- a",
            "[x",
            "{x",
            "\"",
            "\\",
            "'",
            "é",
            "line\nline",
            " a",
            "a ",
            "spiffe://td/ns/a/*",
            "spiffe://td/ns/a/sa/b",
            "/x",
            "%",
            "@",
            "`",
            "&a",
            "!a",
            "|",
            ">",
            "~",
            "a\tb",
            "\u{1}",
            "=",
            "2001-01-01",
            "_",
            ".5",
            "-",
            "?",
            ":",
            "a:",
        ] {
            let yaml = Yaml::Map(vec![
                ("text", Yaml::text(text)),
                (
                    "list",
                    Yaml::List(vec![
                        Yaml::text(text),
                        Yaml::Map(vec![("k", Yaml::text(text))]),
                    ]),
                ),
            ]);
            let root = parsed(&yaml);
            assert_eq!(
                root.get("text").and_then(Node::as_text),
                Some(text),
                "{}",
                yaml.print()
            );
            let Some(Value::List(items)) = root.get("list").map(|n| &n.value) else {
                panic!("{}", yaml.print())
            };
            assert_eq!(items[0].as_text(), Some(text));
            assert_eq!(items[1].get("k").and_then(Node::as_text), Some(text));
        }
    }

    #[test]
    fn blocks_keep_their_lines() {
        let yaml = Yaml::Map(vec![(
            "spec",
            Yaml::Map(vec![("cedar", Yaml::Lines("a;\n\n  b\n".into()))]),
        )]);
        let root = parsed(&yaml);
        let text = root
            .get("spec")
            .and_then(|s| s.get("cedar"))
            .and_then(Node::as_text);
        assert_eq!(text, Some("a;\n\n  b\n"));
    }

    #[test]
    fn lists_and_mappings_nest() {
        let yaml = Yaml::Map(vec![
            ("empty", Yaml::List(vec![])),
            ("none", Yaml::Map(vec![])),
            (
                "labels",
                Yaml::Labels(vec![
                    ("a.b/c".into(), "1".into()),
                    ("on".into(), "x".into()),
                ]),
            ),
            (
                "list",
                Yaml::List(vec![Yaml::Map(vec![
                    ("a", Yaml::List(vec![Yaml::Number(1), Yaml::Number(2)])),
                    ("b", Yaml::Map(vec![("c", Yaml::text("d"))])),
                ])]),
            ),
        ]);
        let text = yaml.print();
        let root = parsed(&yaml);
        assert_eq!(
            root.get("empty").map(|n| &n.value),
            Some(&Value::List(vec![]))
        );
        assert_eq!(
            root.get("none").map(|n| &n.value),
            Some(&Value::Map(vec![]))
        );
        assert_eq!(
            root.get("labels")
                .and_then(|l| l.get("a.b/c"))
                .and_then(Node::as_text),
            Some("1")
        );
        assert_eq!(
            root.get("labels")
                .and_then(|l| l.get("on"))
                .and_then(Node::as_text),
            Some("x")
        );
        let Some(Value::List(items)) = root.get("list").map(|n| &n.value) else {
            panic!("{text}")
        };
        assert_eq!(
            items[0]
                .get("b")
                .and_then(|b| b.get("c"))
                .and_then(Node::as_text),
            Some("d"),
            "{text}"
        );
    }
}
