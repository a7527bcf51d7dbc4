//! Conditions: what ours should be, beside those of others. Pure.

use mesh_policy_index::Condition;
use serde_json::{Value, json};

/// Characters of a message. What is wrong stands in its first sentence.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// Conditions of one object, as our definitions bound them.
const CONDITIONS_MAX: usize = 8;

/// What `status.conditions` should be instead of `now`; `None` if it is that. Conditions of other types stay.
pub(super) fn desired(
    now: &[Value],
    wanted: &[(&str, &Condition)],
    generation: Option<i64>,
    time: &str,
) -> Option<Vec<Value>> {
    let is_ours = |one: &&Value| wanted.iter().any(|(kind, _)| type_of(one) == Some(kind));
    let mut out: Vec<Value> = now
        .iter()
        .filter(|one| !is_ours(one))
        .take(CONDITIONS_MAX.saturating_sub(wanted.len()))
        .cloned()
        .collect();
    out.extend(
        wanted
            .iter()
            .map(|(kind, one)| condition(now, kind, one, generation, time)),
    );
    // Their order means nothing.
    let same = out.len() == now.len() && out.iter().all(|one| now.contains(one));
    (!same).then_some(out)
}

/// A condition, with the time of its last transition: that of the one in `before` as long as it holds or does not.
pub(super) fn condition(
    before: &[Value],
    kind: &str,
    condition: &Condition,
    generation: Option<i64>,
    time: &str,
) -> Value {
    let state = if condition.holds { "True" } else { "False" };
    let since = before
        .iter()
        .find(|one| type_of(one) == Some(kind))
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

fn type_of(condition: &Value) -> Option<&str> {
    condition.get("type").and_then(Value::as_str)
}
