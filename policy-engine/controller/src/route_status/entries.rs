//! Entries of `status.parents`: what ours should be, beside those of other controllers. Pure.

use super::CONTROLLER;
use mesh_policy_index::{Condition, ParentStatus, RouteStatus};
use serde_json::{Map, Value, json};

/// `status.parents`.
pub(super) type Entries = Vec<Value>;

/// Entries of one route (Gateway API).
const ENTRIES_MAX: usize = 32;

/// Characters of a message. What is wrong stands in its first sentence.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// What `status.parents` should be instead of `now`; `None` if it is that. A condition keeps the time of its last
/// transition as long as it holds or does not.
pub(super) fn desired(now: &Entries, status: &RouteStatus, time: &str) -> Option<Entries> {
    let is_ours =
        |entry: &&Value| entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER);
    let others = now.iter().filter(|entry| !is_ours(entry)).cloned();
    let mut out: Entries = others.collect();
    for parent in &status.parents {
        let reference = reference(parent);
        // Two references that are one have one entry.
        let stands = |entry: &Value| entry.get("parentRef") == Some(&reference) && is_ours(&entry);
        if out.len() >= ENTRIES_MAX || out.iter().any(stands) {
            continue;
        }
        let before = now.iter().find(|entry| stands(entry));
        let condition =
            |kind, condition| entry_condition(before, kind, condition, status.generation, time);
        out.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": [
                condition("Accepted", &parent.accepted),
                condition("ResolvedRefs", &parent.resolved),
            ],
        }));
    }
    // The order of entries means nothing.
    let same = out.len() == now.len() && out.iter().all(|entry| now.contains(entry));
    (!same).then_some(out)
}

/// `parentRef` as the route has it.
fn reference(parent: &ParentStatus) -> Value {
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    set("group", Value::from(parent.group.as_str()));
    set("kind", Value::from("Service"));
    if let Some(namespace) = &parent.namespace {
        set("namespace", Value::from(namespace.as_str()));
    }
    set("name", Value::from(parent.name.as_str()));
    if let Some(section) = &parent.section {
        set("sectionName", Value::from(section.as_str()));
    }
    if let Some(port) = parent.port {
        set("port", Value::from(port));
    }
    Value::Object(out)
}

fn entry_condition(
    before: Option<&Value>,
    kind: &str,
    condition: &Condition,
    generation: Option<i64>,
    time: &str,
) -> Value {
    let state = if condition.holds { "True" } else { "False" };
    let old = before
        .and_then(|entry| entry.get("conditions"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|one| one.get("type").and_then(Value::as_str) == Some(kind));
    let since = old
        .filter(|one| one.get("status").and_then(Value::as_str) == Some(state))
        .and_then(|one| one.get("lastTransitionTime"))
        .cloned();
    let message: String = condition.message.chars().take(MESSAGE_CHARS_MAX).collect();
    let mut out = json!({
        "type": kind,
        "status": state,
        "reason": condition.reason,
        "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| Value::from(time)),
    });
    if let (Some(generation), Some(map)) = (generation, out.as_object_mut()) {
        map.insert("observedGeneration".to_owned(), Value::from(generation));
    }
    out
}
