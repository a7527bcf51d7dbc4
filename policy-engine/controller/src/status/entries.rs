//! Entries of `status.parents`: what ours should be, beside those of other controllers. Pure.

use super::CONTROLLER;
use super::conditions::condition;
use mesh_policy_index::{Condition, ParentStatus, RouteStatus};
use serde_json::{Map, Value, json};

/// `status.parents`.
pub(super) type Entries = Vec<Value>;

/// Entries of one route (Gateway API).
const ENTRIES_MAX: usize = 32;

/// What `status.parents` should be instead of `now`; `None` if it is that. Where the parent is a Server or an EgressNetwork,
/// it is said too whether the route is in force there: it belongs to the policy that proxies hold.
pub(super) fn desired(
    now: &Entries,
    status: &RouteStatus,
    enforced: &Condition,
    time: &str,
) -> Option<Entries> {
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
        let before = before
            .and_then(|entry| entry.get("conditions"))
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let one = |kind, one| condition(before, kind, one, status.generation, time);
        let mut conditions = vec![
            one("Accepted", &parent.accepted),
            one("ResolvedRefs", &parent.resolved),
        ];
        if parent.kind != "Service" {
            conditions.push(one("Enforced", &in_force(parent, enforced)));
        }
        out.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions,
        }));
    }
    // The order of entries means nothing.
    let same = out.len() == now.len() && out.iter().all(|entry| now.contains(entry));
    (!same).then_some(out)
}

/// A route is in force nowhere at a parent that does not take it.
fn in_force(parent: &ParentStatus, enforced: &Condition) -> Condition {
    if parent.accepted.holds {
        return enforced.clone();
    }
    Condition {
        holds: false,
        reason: "NotAccepted",
        message: format!("the {} does not take it", parent.kind),
    }
}

/// `parentRef` as the route has it.
fn reference(parent: &ParentStatus) -> Value {
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    set("group", Value::from(parent.group.as_str()));
    set("kind", Value::from(parent.kind));
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
