//! HTTPRoute and GRPCRoute of both groups.
//!
//! An invalid route stays attached with the matches that can be read, so that it takes their requests and denies them.
//! A match whose path can be read, but whose headers, query or method cannot, is kept without those: it denies more.

use super::core_kinds::Locate;
use super::identity::is_subdomain;
use super::policy_kinds::{GATEWAY_GROUP, POLICY_GROUP, Version, since};
use super::read::{Fields, Reading};
use super::resource::{Route, Rule};
use super::route_filter::read_filter;
use super::tree::Node;
use crate::finding::Code;
use crate::limits::MATCH_VALUE_BYTES_MAX;
use mesh_policy::route::{RegexRefusal, check_regex};
use mesh_policy::snapshot::{PathMatch, RouteMatch, TextMatch, ValueMatch};

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
            matches: vec![every_path()],
            filters: Vec::new(),
        });
    }
    spec.finish(reading);
    out
}

fn every_path() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

/// The Server that a parent reference names, if it names one.
fn read_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    own: &str,
    kind: RouteKind,
) -> Option<String> {
    let group = fields.optional_text(reading, "group").unwrap_or(kind.group);
    let parent = fields.optional_text(reading, "kind").unwrap_or("Gateway");
    let name = fields.required_text(reading, "name");
    let namespace = fields.optional_text(reading, "namespace");
    let port = fields
        .optional(reading, "port")
        .map(|n| (n, reading.port(n, &format!("{path}.port"))));
    let section = fields.optional(reading, "sectionName");
    match (group, parent) {
        (POLICY_GROUP, "Server") => {
            for (what, node) in [("port", port.map(|(n, _)| n)), ("sectionName", section)] {
                if let Some(node) = node {
                    let message =
                        format!("`{path}.{what}` may not stand in a reference to a Server");
                    reading.problem(node.at, Code::Conflict, message);
                }
            }
            if namespace.is_some_and(|n| n != own) {
                let message = format!(
                    "`{path}` refers to a Server of another namespace; a route attaches in its own only"
                );
                reading.doubt(fields.at, Code::IdleRoute, message);
                return None;
            }
            name.map(str::to_owned)
        }
        (POLICY_GROUP, "EgressNetwork") => {
            if port.is_none() {
                reading.problem(
                    fields.at,
                    Code::Missing,
                    format!("`{path}.port` is missing: an EgressNetwork parent needs one"),
                );
            }
            reading.doubt(
                fields.at,
                Code::NotEnforced,
                "routes on an EgressNetwork are checked, but not applied",
            );
            None
        }
        ("" | "core", "Service") => {
            reading.doubt(
                fields.at,
                Code::NotEnforced,
                "routes on a Service are checked, but not applied",
            );
            None
        }
        (other, "Server") => {
            let message = format!(
                "`{path}` refers to a Server of group `{other}`; Servers are of `{POLICY_GROUP}`"
            );
            reading.doubt(fields.at, Code::IdleRoute, message);
            None
        }
        _ => None,
    }
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
        rule.matches.push(every_path());
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
    fields.optional_list(reading, "backendRefs");
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

fn read_timeouts(reading: &mut Reading, node: &Node, path: &str) {
    let Some(mut fields) = reading.fields(node, path) else {
        return;
    };
    for key in ["request", "backendRequest"] {
        let path = fields.path(key);
        let Some(node) = fields.optional(reading, key) else {
            continue;
        };
        if let Some(text) = reading.text(node, &path)
            && !is_duration(text)
        {
            reading.problem(
                node.at,
                Code::BadValue,
                format!("`{path}: {text}` is not a duration such as `10s` or `500ms`"),
            );
        }
    }
    fields.finish(reading);
}

/// Gateway API durations: up to four groups of digits with `h`, `m`, `s` or `ms`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    let mut groups = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some(unit) = rest.get(digits..) else {
            return false;
        };
        let length = ["ms", "h", "m", "s"]
            .iter()
            .find(|u| unit.starts_with(**u))
            .map(|u| u.len());
        match length {
            Some(length) if (1..=5).contains(&digits) => {
                rest = unit.get(length..).unwrap_or_default()
            }
            _ => return false,
        }
        groups += 1;
    }
    (1..=4).contains(&groups)
}

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// `None` if no path can be told: the match is unreadable then.
fn read_http_match(reading: &mut Reading, node: &Node, path: &str) -> Option<RouteMatch> {
    let problems = reading.problems.len();
    let spoiled = std::mem::take(&mut reading.spoiled);
    let mut fields = reading.fields(node, path)?;
    let path_stands = fields.stands("path");
    let path_node = fields.optional(reading, "path");
    let read_path = path_node.and_then(|n| read_path_match(reading, n, &format!("{path}.path")));
    let method = fields
        .choice(reading, "method", &METHODS)
        .map(str::to_owned);
    let headers = read_values(reading, &mut fields, "headers", true);
    let query = read_values(reading, &mut fields, "queryParams", false);
    fields.finish(reading);
    let whole = reading.problems.len() == problems && !reading.spoiled;
    reading.spoiled |= spoiled;
    let path = match read_path {
        Some(path) => path,
        None if !path_stands && whole => PathMatch::Prefix("/".into()),
        None => return None,
    };
    Some(RouteMatch {
        path,
        method,
        headers,
        query,
    })
}

fn read_path_match(reading: &mut Reading, node: &Node, path: &str) -> Option<PathMatch> {
    let mut fields = reading.fields(node, path)?;
    let typed = fields.stands("type");
    let kind = fields.choice(
        reading,
        "type",
        &["Exact", "PathPrefix", "RegularExpression"],
    );
    let valued = fields.stands("value");
    let value = fields.optional_text(reading, "value");
    fields.finish(reading);
    let kind = if typed { kind? } else { "PathPrefix" };
    let value = if valued { value? } else { "/" };
    if kind == "RegularExpression" {
        return regex_is_usable(reading, node, path, value)
            .then(|| PathMatch::Regex(value.to_owned()));
    }
    if !value.starts_with('/') {
        let message = format!("`{path}.value: {value}` must start with `/`");
        reading.problem(node.at, Code::BadValue, message);
        return None;
    }
    if value.len() > MATCH_VALUE_BYTES_MAX || value.contains(['?', '#']) {
        reading.problem(
            node.at,
            Code::BadValue,
            format!(
                "`{path}.value` must be a path without query, at most {MATCH_VALUE_BYTES_MAX} bytes"
            ),
        );
        return None;
    }
    Some(if kind == "Exact" {
        PathMatch::Exact(value.to_owned())
    } else {
        PathMatch::Prefix(value.to_owned())
    })
}

/// Whether the data path will compile a regular expression.
fn regex_is_usable(reading: &mut Reading, node: &Node, path: &str, text: &str) -> bool {
    match check_regex(text) {
        Ok(()) => true,
        Err(refusal) => {
            let code = if matches!(refusal, RegexRefusal::TooLong { .. }) {
                Code::Limit
            } else {
                Code::BadValue
            };
            reading.problem(node.at, code, format!("`{path}`: {refusal}"));
            false
        }
    }
}

fn read_values(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    key: &'static str,
    header: bool,
) -> Vec<ValueMatch> {
    let path = fields.path(key);
    let mut out: Vec<ValueMatch> = Vec::new();
    for (index, item) in fields
        .optional_list(reading, key)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let typed = fields.stands("type");
        let kind = fields.choice(reading, "type", &["Exact", "RegularExpression"]);
        let name = fields.required_text(reading, "name");
        let value = fields.required_text(reading, "value");
        fields.finish(reading);
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        let Some(kind) = (if typed { kind } else { Some("Exact") }) else {
            continue;
        };
        if header && !is_token(name) {
            reading.problem(
                item.at,
                Code::BadValue,
                format!("`{path}.name: {name}` is not the name of a header"),
            );
            continue;
        }
        let name = if header {
            name.to_ascii_lowercase()
        } else {
            name.to_owned()
        };
        if out.iter().any(|v| v.name == name) {
            reading.problem(
                item.at,
                Code::Conflict,
                format!("`{path}.name: {name}` stands twice"),
            );
            continue;
        }
        if value.len() > MATCH_VALUE_BYTES_MAX {
            let message = format!(
                "`{path}.value` has {} bytes; the limit is {MATCH_VALUE_BYTES_MAX}",
                value.len()
            );
            reading.problem(item.at, Code::Limit, message);
            continue;
        }
        let value = if kind == "Exact" {
            TextMatch::Exact(value.to_owned())
        } else if regex_is_usable(reading, item, &format!("{path}.value"), value) {
            TextMatch::Regex(value.to_owned())
        } else {
            continue;
        };
        out.push(ValueMatch { name, value });
    }
    out
}

pub(crate) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(token)
}

fn read_grpc_match(reading: &mut Reading, node: &Node, path: &str) -> Option<RouteMatch> {
    let problems = reading.problems.len();
    let spoiled = std::mem::take(&mut reading.spoiled);
    let mut fields = reading.fields(node, path)?;
    let method_stands = fields.stands("method");
    let method = fields.optional(reading, "method");
    let read_path = method.and_then(|n| read_grpc_method(reading, n, &format!("{path}.method")));
    let headers = read_values(reading, &mut fields, "headers", true);
    fields.finish(reading);
    let whole = reading.problems.len() == problems && !reading.spoiled;
    reading.spoiled |= spoiled;
    let path = match read_path {
        Some(path) => path,
        None if !method_stands && whole => PathMatch::Prefix("/".into()),
        None => return None,
    };
    Some(RouteMatch {
        path,
        method: None,
        headers,
        query: Vec::new(),
    })
}

/// Service and method as the path that gRPC gives them: `/<service>/<method>`.
fn read_grpc_method(reading: &mut Reading, node: &Node, path: &str) -> Option<PathMatch> {
    let mut fields = reading.fields(node, path)?;
    let typed = fields.stands("type");
    let kind = fields.choice(reading, "type", &["Exact", "RegularExpression"]);
    let (service_stands, method_stands) = (fields.stands("service"), fields.stands("method"));
    let service = fields.optional_text(reading, "service");
    let method = fields.optional_text(reading, "method");
    fields.finish(reading);
    if (service_stands && service.is_none()) || (method_stands && method.is_none()) {
        return None;
    }
    if service.is_none() && method.is_none() {
        let message = format!("`{path}` must name a `service`, a `method` or both");
        reading.problem(node.at, Code::Missing, message);
        return None;
    }
    if (if typed { kind? } else { "Exact" }) == "RegularExpression" {
        let usable = [service, method]
            .into_iter()
            .flatten()
            .all(|text| regex_is_usable(reading, node, path, text));
        let part = |text: Option<&str>| text.map_or("[^/]+".to_owned(), |t| format!("(?:{t})"));
        let whole = format!("/{}/{}", part(service), part(method));
        return (usable && regex_is_usable(reading, node, path, &whole))
            .then_some(PathMatch::Regex(whole));
    }
    let name = |text: &str| {
        text.split('.')
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    };
    if service.is_some_and(|s| !name(s)) || method.is_some_and(|m| m.contains('.') || !name(m)) {
        reading.problem(
            node.at,
            Code::BadValue,
            format!("`{path}` is not the name of a gRPC service and method"),
        );
        return None;
    }
    Some(match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}")),
        (None, method) => PathMatch::Regex(format!(
            "/[^/]+/{}",
            regex::escape(method.unwrap_or_default())
        )),
    })
}
