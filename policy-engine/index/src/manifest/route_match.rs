//! Matches of routes: path, method, headers and query of HTTPRoute, service and method of GRPCRoute.
//!
//! A match whose path can be read, but whose headers, query or method cannot, is kept without those: it denies more.

use super::read::{Fields, Reading};
use super::tree::Node;
use crate::finding::Code;
use crate::limits::MATCH_VALUE_BYTES_MAX;
use mesh_policy::route::{RegexRefusal, check_regex};
use mesh_policy::snapshot::{PathMatch, RouteMatch, TextMatch, ValueMatch};

/// What a rule without matches matches: every path, or every gRPC call.
pub(crate) fn every_request(grpc: bool) -> RouteMatch {
    if grpc {
        return rpc_match(None, None, Vec::new());
    }
    RouteMatch {
        path: PathMatch::Prefix("/".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

/// gRPC is spoken with `POST` alone.
fn rpc_match(
    service: Option<TextMatch>,
    method: Option<TextMatch>,
    headers: Vec<ValueMatch>,
) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Rpc { service, method },
        method: Some("POST".to_owned()),
        headers,
        query: Vec::new(),
    }
}

/// The methods that a route may name.
pub(crate) const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// `None` if no path can be told: the match is unreadable then.
pub(crate) fn read_http_match(
    reading: &mut Reading,
    node: &Node,
    path: &str,
) -> Option<RouteMatch> {
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
pub(crate) fn regex_is_usable(reading: &mut Reading, node: &Node, path: &str, text: &str) -> bool {
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

pub(crate) fn read_grpc_match(
    reading: &mut Reading,
    node: &Node,
    path: &str,
) -> Option<RouteMatch> {
    let problems = reading.problems.len();
    let spoiled = std::mem::take(&mut reading.spoiled);
    let mut fields = reading.fields(node, path)?;
    let method_stands = fields.stands("method");
    let method = fields.optional(reading, "method");
    let read = method.and_then(|n| read_grpc_method(reading, n, &format!("{path}.method")));
    let headers = read_values(reading, &mut fields, "headers", true);
    fields.finish(reading);
    let whole = reading.problems.len() == problems && !reading.spoiled;
    reading.spoiled |= spoiled;
    match read {
        Some((service, method)) => Some(rpc_match(service, method, headers)),
        None if !method_stands && whole => Some(rpc_match(None, None, headers)),
        None => None,
    }
}

/// Service and method of a gRPC match.
type RpcParts = (Option<TextMatch>, Option<TextMatch>);

fn read_grpc_method(reading: &mut Reading, node: &Node, path: &str) -> Option<RpcParts> {
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
        let part = |text: Option<&str>| text.map(|t| TextMatch::Regex(t.to_owned()));
        return usable.then(|| (part(service), part(method)));
    }
    if service.is_some_and(|s| !s.split('.').all(is_grpc_name))
        || method.is_some_and(|m| !is_grpc_name(m))
    {
        reading.problem(
            node.at,
            Code::BadValue,
            format!("`{path}` is not the name of a gRPC service and method"),
        );
        return None;
    }
    let part = |text: Option<&str>| text.map(|t| TextMatch::Exact(t.to_owned()));
    Some((part(service), part(method)))
}

fn is_grpc_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
