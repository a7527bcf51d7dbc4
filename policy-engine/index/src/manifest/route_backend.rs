//! Where a rule of a route sends requests, and how patiently: backends, timeouts, retries.

use super::core_kinds::Locate;
use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::resource::Key;
use super::route::RouteKind;
use super::route_filter::read_backend_filter;
use super::traffic::BackendRef;
use super::tree::Node;
use crate::finding::Code;
use crate::limits::RETRY_BACKOFF_MS;
use mesh_policy::limits::RETRY_ATTEMPTS_MAX;
use mesh_policy::traffic::{Retry, Timeouts};
use std::ops::RangeInclusive;

/// Largest weight of a backend (Gateway API).
const WEIGHT_MAX: i64 = 1_000_000;

/// Reads the backends of a rule; `None` if the field does not stand.
pub(crate) fn read_backends(
    reading: &mut Reading,
    rule: &mut Fields<'_>,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<Vec<BackendRef>> {
    let path = rule.path("backendRefs");
    let items = rule.optional_list(reading, "backendRefs")?;
    let read = items.iter().enumerate();
    Some(
        read.filter_map(|(index, item)| {
            read_backend(reading, item, &format!("{path}[{index}]"), kind, locate)
        })
        .collect(),
    )
}

/// One entry of `backendRefs`.
fn read_backend(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<BackendRef> {
    let mut fields = reading.fields(node, path)?;
    let mut out = read_reference(reading, &mut fields, kind, locate(node.at, node.end_line));
    let weight_path = fields.path("weight");
    if let Some(weight) = fields.optional(reading, "weight")
        && let Some(weight) = reading.integer(weight, &weight_path, 0..=WEIGHT_MAX)
        && let Some(out) = &mut out
    {
        out.weight = u32::try_from(weight).unwrap_or(0);
    }
    for (index, item) in fields
        .optional_list(reading, "filters")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}.filters[{index}]");
        let filter = read_backend_filter(reading, item, &path, kind, locate);
        if let Some(out) = &mut out {
            out.filters.extend(filter);
        }
    }
    fields.finish(reading);
    out
}

/// A reference to a backend alone, as a mirror has it.
pub(crate) fn read_mirror_target(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<BackendRef> {
    let mut fields = reading.fields(node, path)?;
    let out = read_reference(reading, &mut fields, kind, locate(node.at, node.end_line));
    fields.finish(reading);
    out
}

fn read_reference(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    kind: RouteKind<'_>,
    source: mesh_policy::snapshot::Source,
) -> Option<BackendRef> {
    let path = fields.path("port");
    let group = fields.optional_text(reading, "group").unwrap_or("");
    let group = if group == "core" { "" } else { group };
    let what = fields.optional_text(reading, "kind").unwrap_or("Service");
    let name = read_name(reading, fields, "name", true);
    let namespace = read_namespace(reading, fields);
    let stands = fields.stands("port");
    let node = fields.optional(reading, "port");
    let port = node.and_then(|n| reading.port(n, &path));
    if group.is_empty() && what == "Service" && !stands {
        let message = format!("`{path}` is missing: a Service is referred to with its port");
        reading.problem(fields.at, Code::Missing, message);
    }
    Some(BackendRef {
        group: group.to_owned(),
        kind: what.to_owned(),
        key: Key::new(namespace?.unwrap_or(kind.namespace), name?),
        port,
        weight: 1,
        filters: Vec::new(),
        source,
    })
}

/// Reads `timeouts`.
pub(crate) fn read_timeouts(reading: &mut Reading, node: &Node, path: &str) -> Timeouts {
    let Some(mut fields) = reading.fields(node, path) else {
        return Timeouts::default();
    };
    let [request, backend] =
        ["request", "backendRequest"].map(|key| read_duration(reading, &mut fields, key));
    // Zero means no limit at all (Gateway API).
    if let (Some(request), Some(backend)) = (request, backend)
        && request > 0
        && backend > request
    {
        let message =
            format!("`{path}.backendRequest` is longer than `{path}.request`, which contains it");
        reading.problem(fields.at, Code::Conflict, message);
    }
    fields.finish(reading);
    Timeouts {
        request_ms: request,
        backend_request_ms: backend,
    }
}

/// Reads `retry` of Gateway API's HTTPRoute. Without codes only connections that fail are tried again.
pub(crate) fn read_retry(reading: &mut Reading, node: &Node, path: &str) -> Option<Retry> {
    let mut fields = reading.fields(node, path)?;
    let mut statuses = Vec::new();
    for item in fields.optional_list(reading, "codes").unwrap_or_default() {
        let code = reading.integer(item, &format!("{path}.codes"), 400..=599);
        statuses.extend(code.and_then(|code| u16::try_from(code).ok()));
    }
    statuses.sort_unstable();
    statuses.dedup();
    let attempts_path = fields.path("attempts");
    let attempts = fields
        .optional(reading, "attempts")
        .and_then(|n| reading.integer(n, &attempts_path, 1..=i64::from(RETRY_ATTEMPTS_MAX)));
    let backoff = read_duration(reading, &mut fields, "backoff");
    fields.finish(reading);
    Some(Retry {
        attempts: attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        statuses,
        grpc_codes: Vec::new(),
        backoff_ms: backoff.unwrap_or(RETRY_BACKOFF_MS),
    })
}

fn read_duration(reading: &mut Reading, fields: &mut Fields<'_>, key: &'static str) -> Option<u64> {
    let path = fields.path(key);
    let node = fields.optional(reading, key)?;
    let text = reading.text(node, &path)?;
    let duration = duration_ms(text);
    if duration.is_none() {
        let message = format!("`{path}: {text}` is not a duration such as `10s` or `500ms`");
        reading.problem(node.at, Code::BadValue, message);
    }
    duration
}

/// A duration within a range, in milliseconds; its ends are `shown` to people.
pub(crate) fn read_duration_of(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    range: RangeInclusive<u64>,
    shown: (&str, &str),
) -> Option<u64> {
    let text = reading.text(node, path)?;
    let ms = duration_ms(text).filter(|ms| range.contains(ms));
    if ms.is_none() {
        let (least, most) = shown;
        let message = format!("`{path}: {text}` is not a duration from `{least}` to `{most}`");
        reading.problem(node.at, Code::BadValue, message);
    }
    ms
}

/// Reads the share of requests that a mirror copies: `percent`, `fraction` or all.
pub(crate) fn read_share(reading: &mut Reading, mirror: &mut Fields<'_>) -> Option<(u32, u32)> {
    let (percent_path, path) = (mirror.path("percent"), mirror.path("fraction"));
    let percent = mirror.optional(reading, "percent");
    let fraction = mirror.optional(reading, "fraction");
    let number = |reading: &mut Reading, node: &Node, path: &str, range| {
        let number = reading.integer(node, path, range)?;
        u32::try_from(number).ok()
    };
    match (percent, fraction) {
        (None, None) => Some((1, 1)),
        (Some(node), None) => Some((number(reading, node, &percent_path, 0..=100)?, 100)),
        (None, Some(node)) => {
            let mut fields = reading.fields(node, &path)?;
            let [over, under] = ["numerator", "denominator"].map(|key| fields.path(key));
            let all = i64::from(i32::MAX);
            let numerator = fields.required(reading, "numerator");
            let numerator = numerator.and_then(|n| number(reading, n, &over, 0..=all));
            let stands = fields.stands("denominator");
            let denominator = fields.optional(reading, "denominator");
            let denominator = denominator.and_then(|n| number(reading, n, &under, 1..=all));
            let denominator = if stands { denominator? } else { 100 };
            fields.finish(reading);
            let numerator = numerator?;
            if numerator > denominator {
                let message = format!("`{over}` is greater than `denominator`");
                reading.problem(node.at, Code::Conflict, message);
            }
            Some((numerator, denominator))
        }
        (Some(node), Some(_)) => {
            let message = format!("`{percent_path}` and `fraction` say the same thing twice");
            reading.problem(node.at, Code::Conflict, message);
            None
        }
    }
}

/// Milliseconds of a Gateway API duration: up to four groups of digits with `h`, `m`, `s` or `ms`.
fn duration_ms(text: &str) -> Option<u64> {
    let (mut rest, mut groups, mut sum) = (text, 0, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at_checked(digits)?;
        let (name, factor) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find(|(name, _)| unit.starts_with(name))?;
        if !(1..=5).contains(&digits) {
            return None;
        }
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = unit.get(name.len()..)?;
        groups += 1;
    }
    (1..=4).contains(&groups).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gateway_api() {
        for (text, want) in [
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999h", Some(359_996_400_000)),
            ("", None),
            ("10", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("1 s", None),
            ("s", None),
        ] {
            assert_eq!(duration_ms(text), want, "{text}");
        }
    }
}
