//! HTTPRoute and GRPCRoute of both groups.
//!
//! An invalid route stays attached with the matches that can be read, so that it takes their requests and denies them.

use super::core_kinds::Locate;
use super::identity::is_subdomain;
use super::policy_kinds::{GATEWAY_GROUP, POLICY_GROUP, Version, since};
use super::read::{Fields, Reading};
use super::refs::read_namespace;
use super::resource::{Route, Rule};
use super::route_filter::read_filter;
use super::route_match::{every_request, read_grpc_match, read_http_match};
use super::tree::Node;
use crate::finding::Code;

/// Which route kind is read, of which group and version.
#[derive(Clone, Copy)]
pub(crate) struct RouteKind {
    pub(crate) grpc: bool,
    pub(crate) group: &'static str,
    pub(crate) version: Version,
}

/// Reads a route.
pub(crate) fn read_route(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: &str,
    kind: RouteKind,
    locate: Locate<'_>,
) -> Route {
    let mut out = Route {
        servers: Vec::new(),
        hostnames: Vec::new(),
        rules: Vec::new(),
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    for (index, item) in spec
        .optional_list(reading, "parentRefs")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("spec.parentRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        if let Some(name) = read_parent(reading, &mut fields, &path, own, kind) {
            out.servers.push((name, locate(item.at, item.end_line)));
        }
        fields.finish(reading);
    }
    for (index, item) in spec
        .optional_list(reading, "hostnames")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        out.hostnames.extend(read_hostname(
            reading,
            item,
            &format!("spec.hostnames[{index}]"),
        ));
    }
    if kind.group == GATEWAY_GROUP {
        spec.ignore(&["useDefaultGateways"]);
    }
    if spec.stands("rules") {
        let rules = spec.optional_list(reading, "rules");
        for (index, item) in rules.unwrap_or_default().iter().enumerate() {
            out.rules.extend(read_rule(
                reading,
                item,
                &format!("spec.rules[{index}]"),
                kind,
            ));
        }
    } else {
        spec.ignore(&["rules"]);
        out.rules.push(Rule {
            matches: vec![every_request(kind.grpc)],
            filters: Vec::new(),
        });
    }
    spec.finish(reading);
    out
}

/// The Server that a parent reference names, if it names one. A reference whose group or kind cannot be read might name
/// one, and counts as if it did: the route is invalid and only denies.
fn read_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    own: &str,
    kind: RouteKind,
) -> Option<String> {
    let group = fields.optional_text(reading, "group");
    let parent = fields.optional_text(reading, "kind");
    let unclear =
        (group.is_none() && fields.stands("group")) || (parent.is_none() && fields.stands("kind"));
    let (group, parent) = if unclear {
        (POLICY_GROUP, "Server")
    } else {
        (group.unwrap_or(kind.group), parent.unwrap_or("Gateway"))
    };
    let name = fields.required_text(reading, "name");
    let namespace = fields.optional_text(reading, "namespace");
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    port.and_then(|n| reading.port(n, &port_path));
    let section = fields.optional(reading, "sectionName");
    let doubt = match (group, parent) {
        (POLICY_GROUP, "Server") => {
            for (what, node) in [("port", port), ("sectionName", section)] {
                if let Some(node) = node {
                    let message =
                        format!("`{path}.{what}` may not stand in a reference to a Server");
                    reading.problem(node.at, Code::Conflict, message);
                }
            }
            if namespace.is_none_or(|n| n == own) {
                return name.map(str::to_owned);
            }
            let message = format!(
                "`{path}` refers to a Server of another namespace; a route attaches in its own only"
            );
            (Code::IdleRoute, message)
        }
        (POLICY_GROUP, "EgressNetwork") => {
            if port.is_none() {
                let message =
                    format!("`{path}.port` is missing: an EgressNetwork parent needs one");
                reading.problem(fields.at, Code::Missing, message);
            }
            let message = "routes on an EgressNetwork are checked, but not applied".to_owned();
            (Code::NotEnforced, message)
        }
        ("" | "core", "Service") => {
            let message = "routes on a Service are checked, but not applied".to_owned();
            (Code::NotEnforced, message)
        }
        (other, "Server") => {
            let message = format!(
                "`{path}` refers to a Server of group `{other}`; Servers are of `{POLICY_GROUP}`"
            );
            (Code::IdleRoute, message)
        }
        (POLICY_GROUP, other) => {
            let message = format!(
                "`{path}` refers to kind `{other}` of `{POLICY_GROUP}`, to which no route attaches; write `kind: Server`"
            );
            (Code::IdleRoute, message)
        }
        _ => return None,
    };
    reading.doubt(fields.at, doubt.0, doubt.1);
    None
}

pub(crate) fn read_hostname(reading: &mut Reading, node: &Node, path: &str) -> Option<String> {
    let text = reading.text(node, path)?;
    let name = text.strip_prefix("*.").unwrap_or(text);
    let address = name.parse::<std::net::IpAddr>().is_ok();
    if is_subdomain(name) && text.len() <= 253 && !address {
        return Some(text.to_owned());
    }
    let message = format!(
        "`{path}: {text}` is not a hostname: lower-case DNS name, `*.` in front or not, no address, no port"
    );
    reading.problem(node.at, Code::BadValue, message);
    None
}

fn read_rule(reading: &mut Reading, node: &Node, path: &str, kind: RouteKind) -> Option<Rule> {
    let mut fields = reading.fields(node, path)?;
    let mut rule = Rule {
        matches: Vec::new(),
        filters: Vec::new(),
    };
    if kind.group == GATEWAY_GROUP {
        fields.optional_text(reading, "name");
        fields.ignore(&["sessionPersistence"]);
    }
    let listed = fields.stands("matches");
    let items = fields.optional_list(reading, "matches");
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        let read = if kind.grpc {
            read_grpc_match
        } else {
            read_http_match
        };
        rule.matches.extend(read(reading, item, &path));
    }
    if !listed || items.is_some_and(<[Node]>::is_empty) {
        rule.matches.push(every_request(kind.grpc));
    }
    for (index, item) in fields
        .optional_list(reading, "filters")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        rule.filters.extend(read_filter(
            reading,
            item,
            &format!("{path}.filters[{index}]"),
            kind,
        ));
    }
    for (index, item) in fields
        .optional_list(reading, "backendRefs")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        read_backend(reading, item, &format!("{path}.backendRefs[{index}]"), kind);
    }
    if !kind.grpc
        && let Some(node) = fields.optional(reading, "timeouts")
    {
        if kind.group == POLICY_GROUP {
            since(
                reading,
                node,
                &format!("{path}.timeouts"),
                kind.version,
                Version::V1Beta3,
                "v1beta3",
            );
        }
        read_timeouts(reading, node, &format!("{path}.timeouts"));
    }
    if kind.group == GATEWAY_GROUP && !kind.grpc {
        fields.ignore(&["retry"]);
    }
    fields.finish(reading);
    Some(rule)
}

/// A backend matters to outbound traffic alone; here its form is checked, as admission does.
fn read_backend(reading: &mut Reading, node: &Node, path: &str, kind: RouteKind) {
    let Some(mut fields) = reading.fields(node, path) else {
        return;
    };
    let group = fields.optional_text(reading, "group").unwrap_or("");
    let what = fields.optional_text(reading, "kind").unwrap_or("Service");
    fields.required_text(reading, "name");
    read_namespace(reading, &mut fields);
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    let port_stands = fields.stands("port");
    port.and_then(|n| reading.port(n, &port_path));
    let weight_path = fields.path("weight");
    if let Some(weight) = fields.optional(reading, "weight") {
        reading.integer(weight, &weight_path, 0..=WEIGHT_MAX);
    }
    for (index, item) in fields
        .optional_list(reading, "filters")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        read_filter(reading, item, &format!("{path}.filters[{index}]"), kind);
    }
    if matches!(group, "" | "core") && what == "Service" && !port_stands {
        let message = format!("`{path}.port` is missing: a Service is referred to with its port");
        reading.problem(fields.at, Code::Missing, message);
    }
    fields.finish(reading);
}

/// Largest weight of a backend (Gateway API).
const WEIGHT_MAX: i64 = 1_000_000;

fn read_timeouts(reading: &mut Reading, node: &Node, path: &str) {
    let Some(mut fields) = reading.fields(node, path) else {
        return;
    };
    let [request, backend] = ["request", "backendRequest"].map(|key| {
        let path = fields.path(key);
        let node = fields.optional(reading, key)?;
        let text = reading.text(node, &path)?;
        let duration = duration_ms(text);
        if duration.is_none() {
            let message = format!("`{path}: {text}` is not a duration such as `10s` or `500ms`");
            reading.problem(node.at, Code::BadValue, message);
        }
        duration
    });
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
