//! Values as YAML.

use crate::manifest::tree::{Value as Tree, plain};
use serde_json::Value;

/// A string as a YAML scalar: bare where nothing could take it for something else, else in double quotes.
pub fn scalar(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
    // Words that some reader of YAML 1.1 takes for a Boolean.
    let word = |text: &str| {
        let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
        words.contains(&text.to_ascii_lowercase().as_str())
    };
    let plain_text = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(bare)
        && !word(text)
        && matches!(plain(text), Some(Tree::Text(_)));
    if plain_text {
        text.to_owned()
    } else {
        // JSON's strings are YAML's strings in double quotes.
        Value::from(text).to_string()
    }
}

/// A value on one line, in brackets if it is a collection.
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", scalar(key), flow(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
