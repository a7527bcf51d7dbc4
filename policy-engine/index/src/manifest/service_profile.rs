//! ServiceProfile: checked as Linkerd's validator does, but not enforced by this version; a finding says so.

use super::read::{Fields, Reading};
use super::route_match::{METHODS, regex_is_usable};
use super::tree::Value;
use crate::finding::Code;

/// Checks a ServiceProfile.
pub(crate) fn check_service_profile(reading: &mut Reading, root: &mut Fields<'_>) {
    reading.doubt(
        root.at,
        Code::NotEnforced,
        "ServiceProfile is checked, but its routes and retries are not applied",
    );
    let Some(mut spec) = root.optional_fields(reading, "spec") else {
        return;
    };
    each(reading, &mut spec, "routes", |reading, mut route| {
        route.required_text(reading, "name");
        if let Some(condition) = route.required_fields(reading, "condition") {
            check_request_condition(reading, condition);
        }
        each(
            reading,
            &mut route,
            "responseClasses",
            |reading, mut class| {
                if let Some(condition) = class.required_fields(reading, "condition") {
                    check_response_condition(reading, condition);
                }
                check_boolean(reading, &mut class, "isFailure");
                class.finish(reading);
            },
        );
        check_boolean(reading, &mut route, "isRetryable");
        check_go_duration(reading, &mut route, "timeout");
        route.finish(reading);
    });
    if let Some(budget) = spec.optional_fields(reading, "retryBudget") {
        check_retry_budget(reading, budget);
    }
    each(reading, &mut spec, "dstOverrides", |reading, mut fields| {
        fields.required_text(reading, "authority");
        fields.required(reading, "weight");
        fields.finish(reading);
    });
    spec.optional_list(reading, "opaquePorts");
    spec.finish(reading);
}

/// Each mapping of a list.
fn each(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    key: &'static str,
    check: impl Fn(&mut Reading, Fields<'_>),
) {
    let path = fields.path(key);
    let items = fields.optional_list(reading, key).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        if let Some(fields) = reading.fields(item, &format!("{path}[{index}]")) {
            check(reading, fields);
        }
    }
}

fn check_boolean(reading: &mut Reading, fields: &mut Fields<'_>, key: &'static str) {
    let path = fields.path(key);
    if let Some(node) = fields.optional(reading, key) {
        reading.boolean(node, &path);
    }
}

/// A condition on requests: `all`, `any`, `not`, or what is asked for.
fn check_request_condition(reading: &mut Reading, mut fields: Fields<'_>) {
    check_nested(reading, &mut fields, check_request_condition);
    let path = fields.path("pathRegex");
    if let Some(node) = fields.optional(reading, "pathRegex")
        && let Some(text) = reading.text(node, &path)
    {
        regex_is_usable(reading, node, &path, text);
    }
    fields.choice(reading, "method", &METHODS);
    fields.finish(reading);
}

fn check_nested(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    check: fn(&mut Reading, Fields<'_>),
) {
    for key in ["all", "any"] {
        each(reading, fields, key, check);
    }
    if let Some(inner) = fields.optional_fields(reading, "not") {
        check(reading, inner);
    }
}

/// A condition on responses: a range of statuses from 100 to 599.
fn check_response_condition(reading: &mut Reading, mut fields: Fields<'_>) {
    check_nested(reading, &mut fields, check_response_condition);
    if let Some(mut status) = fields.optional_fields(reading, "status") {
        let [min, max] = ["min", "max"].map(|key| {
            let path = status.path(key);
            let node = status.optional(reading, key)?;
            reading.integer(node, &path, 100..=599)
        });
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            let message = format!("`{}` is greater than `max`", status.path("min"));
            reading.problem(status.at, Code::Conflict, message);
        }
        status.finish(reading);
    }
    fields.finish(reading);
}

fn check_retry_budget(reading: &mut Reading, mut budget: Fields<'_>) {
    if budget.required(reading, "ttl").is_some() {
        check_go_duration(reading, &mut budget, "ttl");
    }
    for (key, whole) in [("retryRatio", false), ("minRetriesPerSecond", true)] {
        let path = budget.path(key);
        let Some(node) = budget.optional(reading, key) else {
            continue;
        };
        let fits = match node.value {
            Value::Int(number) => number >= 0,
            Value::Float(number) => !whole && number >= 0.0,
            _ => false,
        };
        if !fits {
            let message = format!("`{path}` must be a number that is not negative");
            reading.problem(node.at, Code::BadValue, message);
        }
    }
    budget.finish(reading);
}

/// A duration in the form of Go: decimal numbers with a unit.
fn check_go_duration(reading: &mut Reading, fields: &mut Fields<'_>, key: &'static str) {
    let path = fields.path(key);
    let Some(node) = fields.optional(reading, key) else {
        return;
    };
    if let Some(text) = reading.text(node, &path)
        && !is_go_duration(text)
    {
        let message = format!("`{path}: {text}` is not a duration such as `10s` or `1m30s`");
        reading.problem(node.at, Code::BadValue, message);
    }
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text;
    while let Some((number, unit)) = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .and_then(|at| rest.split_at_checked(at))
    {
        let length = ["ns", "us", "ms", "s", "m", "h"]
            .iter()
            .find(|u| unit.starts_with(**u))
            .map(|u| u.len());
        let Some(after) = length.and_then(|length| unit.get(length..)) else {
            return false;
        };
        if number.parse::<f64>().is_err() {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && !text.is_empty()
}
