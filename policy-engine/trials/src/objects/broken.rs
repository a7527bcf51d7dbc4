//! Objects as people break them.

use mesh_policy::fuzzing::choices::Choices;
use serde_json::{Value, json};

/// Breaks an object: a field that there is not, a value of the wrong type, a part that is missing, a reference to
/// nothing.
pub fn break_it(object: &mut Value, choices: &mut Choices<'_>) {
    let way = choices.below(5);
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let keys: Vec<String> = spec.keys().cloned().collect();
    let chosen = keys.get(choices.below(keys.len().max(1)));
    match (way, chosen) {
        (0, _) | (_, None) => {
            spec.insert("novelty".to_owned(), json!(1));
        }
        (1, Some(key)) => {
            spec.insert(key.clone(), json!(17.5));
        }
        (2, Some(key)) => {
            spec.remove(key);
        }
        (3, Some(key)) => {
            spec.insert(key.clone(), json!(null));
        }
        (_, Some(_)) => rename_references(object),
    }
}

/// Everything called `name` below `spec` names nothing any more.
fn rename_references(object: &mut Value) {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    match field {
                        Value::String(text) if key == "name" => "ghost".clone_into(text),
                        other => walk(other),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    if let Some(spec) = object.get_mut("spec") {
        walk(spec);
    }
}
