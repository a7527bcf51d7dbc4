//! What is added to a pod, as an expression that makes a JSON patch.
//!
//! It is [`super::super::Addition::patch`] of a pod with placeholders. JSON's objects become CEL's typed ones, which may hold
//! fields of several types; only where the API has a mapping of strings there is a map.

use super::cel::{Filling, Hole, condition, filled, literal};
use serde_json::{Map, Value};

/// Fields of the API that map strings to strings, among those that are added.
const MAPS: [&str; 2] = ["requests", "limits"];

/// Fields that the patch adds to, in the order in which they are made where they do not stand.
const PARENTS: [(&str, &str); 4] = [
    ("metadata.annotations", "{}"),
    ("metadata.labels", "{}"),
    ("spec.volumes", "[]"),
    ("spec.initContainers", "[]"),
];

/// One operation of the patch, and the expression without which it is left out.
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) only_if: Option<String>,
}

/// The list of all operations, for a pod of which nothing is known.
pub(super) fn expression(operations: &[Operation], holes: &[Hole]) -> String {
    let mut parts = Vec::new();
    for (field, empty) in PARENTS {
        let path = literal(&format!("/{}", field.replace('.', "/")));
        parts.push(format!(
            "(has(object.{field}) ? [] : [JSONPatch{{op: \"add\", path: {path}, value: {empty}}}])"
        ));
    }
    for operation in operations {
        let made = format!(
            "[JSONPatch{{op: \"add\", path: {}, value: {}}}]",
            literal(&operation.path),
            value(&operation.value, &type_of(&operation.path), holes, 1)
        );
        parts.push(match &operation.only_if {
            None => made,
            Some(condition) => format!("({condition} ? {made} : [])"),
        });
    }
    parts.join(" +\n")
}

/// `/spec/volumes/-` is of type `Object.spec.volumes`.
fn type_of(path: &str) -> String {
    let fields = path.split('/').filter(|part| {
        !part.is_empty() && *part != "-" && !part.bytes().all(|b| b.is_ascii_digit())
    });
    fields.fold("Object".to_owned(), |out, field| format!("{out}.{field}"))
}

fn value(json: &Value, of: &str, holes: &[Hole], depth: usize) -> String {
    match json {
        Value::Null | Value::Bool(_) => json.to_string(),
        Value::Number(number) => {
            let number = number.to_string();
            let hole = holes.iter().find(|hole| hole.token == number);
            match hole.map(|hole| &hole.filling) {
                Some(Filling::Number(expression)) => expression.clone(),
                _ => number,
            }
        }
        Value::String(text) => filled(text, holes),
        Value::Array(items) => list(items, of, holes, depth),
        Value::Object(fields) => object(fields, of, holes, depth),
    }
}

fn list(items: &[Value], of: &str, holes: &[Hole], depth: usize) -> String {
    let (mut certain, mut parts) = (Vec::new(), Vec::new());
    for item in items {
        let made = value(item, of, holes, depth + 1);
        match item.as_str().and_then(|text| condition(text, holes)) {
            None => certain.push(made),
            Some(condition) => {
                if !certain.is_empty() {
                    parts.push(bracketed("[", &certain, "]", depth));
                    certain.clear();
                }
                parts.push(format!("({condition} != \"\" ? [{made}] : [])"));
            }
        }
    }
    if !certain.is_empty() || parts.is_empty() {
        parts.push(bracketed("[", &certain, "]", depth));
    }
    parts.join(" + ")
}

fn object(fields: &Map<String, Value>, of: &str, holes: &[Hole], depth: usize) -> String {
    let is_map = is_map(of);
    let entries: Vec<String> = fields
        .iter()
        .map(|(name, below)| {
            let made = value(below, &format!("{of}.{name}"), holes, depth + 1);
            let name = match is_map {
                true => literal(name),
                false => name.clone(),
            };
            match may_be_empty(below, &name, holes) {
                true => format!("?{name}: optional.ofNonZeroValue({made})"),
                false => format!("{name}: {made}"),
            }
        })
        .collect();
    let open = match is_map {
        true => "{".to_owned(),
        false => format!("{of}{{"),
    };
    bracketed(&open, &entries, "}", depth)
}

fn is_map(of: &str) -> bool {
    of.rsplit('.')
        .next()
        .is_some_and(|last| MAPS.contains(&last))
}

/// Whether a field is left out where it is empty: a text that is only a placeholder of what may be, or a mapping of such.
fn may_be_empty(json: &Value, name: &str, holes: &[Hole]) -> bool {
    match json {
        Value::String(text) => condition(text, holes).is_some(),
        Value::Object(fields) => {
            MAPS.contains(&name)
                && fields
                    .iter()
                    .all(|(name, below)| may_be_empty(below, name, holes))
        }
        _ => false,
    }
}

/// On one line if it is short, else an entry a line.
fn bracketed(open: &str, entries: &[String], close: &str, depth: usize) -> String {
    let flat = format!("{open}{}{close}", entries.join(", "));
    if flat.len() <= 100 && !flat.contains('\n') {
        return flat;
    }
    let (inner, outer) = ("  ".repeat(depth), "  ".repeat(depth.saturating_sub(1)));
    let entries: Vec<String> = entries.iter().map(|e| format!("{inner}{e}")).collect();
    format!("{open}\n{}\n{outer}{close}", entries.join(",\n"))
}
