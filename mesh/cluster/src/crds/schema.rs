//! Words for structural schemas: each returns a node of OpenAPI v3 as an API server takes it.

use serde_json::{Map, Value, json};

/// Entries of a list, unless its field says otherwise (policy-engine/index/src/limits.rs, `LIST_MAX`).
pub(super) const LIST_MAX: u64 = 4096;

/// Entries of lists that rules of CEL walk: an API server estimates their cost from this.
pub(super) const WALKED_MAX: u64 = 64;

/// An object with these fields; those in `required` must stand.
pub(super) fn object(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let fields: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut out = json!({
        "type": "object",
        // See the head of `crds`: what is misspelt must reach those who refuse it.
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": fields,
    });
    if !required.is_empty() {
        set(&mut out, "required", json!(required));
    }
    out
}

/// A list of at most [`LIST_MAX`] such items.
pub(super) fn list(items: Value) -> Value {
    list_of(items, 0, LIST_MAX)
}

/// A list of `min` to `max` items.
pub(super) fn list_of(items: Value, min: u64, max: u64) -> Value {
    let mut out = json!({ "type": "array", "items": items, "maxItems": max });
    if min > 0 {
        set(&mut out, "minItems", min.into());
    }
    out
}

/// A string that is not empty.
pub(super) fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// A string of 1 to `max` characters.
pub(super) fn text_of(max: u64) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": max })
}

/// Any string.
pub(super) fn any_text() -> Value {
    json!({ "type": "string" })
}

/// One of these words.
pub(super) fn choice(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// True or false.
pub(super) fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// A whole number from `min` to `max`.
pub(super) fn integer(min: i64, max: i64) -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": min, "maximum": max })
}

/// The number of a port.
pub(super) fn port_number() -> Value {
    json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65_535 })
}

/// The number of a port, or the name of a container port: lower case, at least one letter.
pub(super) fn port() -> Value {
    json!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 65_535,
        "maxLength": 15,
        "pattern": "^[a-z0-9-]*[a-z][a-z0-9-]*$",
    })
}

/// Whatever it is, it is kept.
pub(super) fn anything() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The same node, described.
pub(super) fn described(mut schema: Value, text: &str) -> Value {
    set(&mut schema, "description", text.into());
    schema
}

/// The same node with a rule of CEL that must hold, and what is said where it does not.
pub(super) fn rule(mut schema: Value, cel: &str, message: &str) -> Value {
    let rule = json!({ "rule": cel, "message": message });
    match schema
        .get_mut("x-kubernetes-validations")
        .and_then(Value::as_array_mut)
    {
        Some(rules) => rules.push(rule),
        None => set(&mut schema, "x-kubernetes-validations", json!([rule])),
    }
    schema
}

/// A selector of labels.
pub(super) fn selector() -> Value {
    let values = list_of(any_text(), 0, LIST_MAX);
    let expression = object(
        &[
            ("key", text_of(317)),
            (
                "operator",
                choice(&["In", "NotIn", "Exists", "DoesNotExist"]),
            ),
            ("values", values),
        ],
        &["key", "operator"],
    );
    let expression = rule(
        expression,
        "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
        "In and NotIn need values, Exists and DoesNotExist have none",
    );
    let labels = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    object(
        &[
            ("matchLabels", labels),
            ("matchExpressions", list_of(expression, 0, WALKED_MAX)),
        ],
        &[],
    )
}

/// Blocks of addresses, each with exceptions.
pub(super) fn networks(min: u64) -> Value {
    let network = object(
        &[("cidr", text_of(64)), ("except", list(text_of(64)))],
        &["cidr"],
    );
    list_of(network, min, LIST_MAX)
}

/// The schema of a whole object.
pub(super) fn root(spec: &Value, route: bool) -> Value {
    let status = if route { route_status() } else { status() };
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
            "status": status,
        },
    })
}

/// Conditions, one of each type: `Accepted`, `ResolvedRefs`, `Enforced`.
fn conditions() -> Value {
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": { "type": "string", "maxLength": 316 },
            "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
            "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            "lastTransitionTime": { "type": "string", "format": "date-time" },
            "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
            "message": { "type": "string", "maxLength": 32_768 },
        },
    });
    json!({
        "type": "array",
        "items": condition,
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

fn status() -> Value {
    described(
        object(&[("conditions", conditions())], &[]),
        "What the controller made of the object.",
    )
}

/// Gateway API's form: conditions for each parent, by controller.
fn route_status() -> Value {
    let parent = object(
        &[
            ("parentRef", anything()),
            ("controllerName", text_of(253)),
            ("conditions", conditions()),
        ],
        &["parentRef", "controllerName"],
    );
    let fields = [
        ("parents", list_of(parent, 0, 32)),
        ("conditions", conditions()),
    ];
    described(
        object(&fields, &[]),
        "What each controller made of the route.",
    )
}

fn set(schema: &mut Value, key: &str, value: Value) {
    if let Some(map) = schema.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}
