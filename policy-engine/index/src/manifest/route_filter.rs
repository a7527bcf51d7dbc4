//! Filters of routes: those that an inbound proxy applies.

use super::read::{Fields, Reading};
use super::route::{RouteKind, read_hostname};
use super::route_match::is_token;
use super::tree::{Node, Value};
use crate::finding::Code;
use mesh_policy::snapshot::Filter;

pub(crate) fn read_filter(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind,
) -> Option<Filter> {
    let mut fields = reading.fields(node, path)?;
    let name = fields.required_text(reading, "type")?;
    let out = match name {
        "RequestHeaderModifier" => {
            let modifier = fields.required_fields(reading, "requestHeaderModifier");
            modifier.and_then(|m| read_header_modifier(reading, m))
        }
        "RequestRedirect" if !kind.grpc => {
            let redirect = fields.required_fields(reading, "requestRedirect");
            redirect.and_then(|r| read_redirect(reading, r))
        }
        "ResponseHeaderModifier" => {
            if let Some(modifier) = fields.required_fields(reading, "responseHeaderModifier") {
                read_header_modifier(reading, modifier);
            }
            reading.doubt(
                node.at,
                Code::NotEnforced,
                "ResponseHeaderModifier has no effect on inbound requests",
            );
            None
        }
        _ => {
            fields.ignore(&[
                "requestMirror",
                "urlRewrite",
                "extensionRef",
                "cors",
                "externalAuth",
                "requestRedirect",
            ]);
            let message = format!("`{path}.type: {name}` is not supported on inbound requests");
            reading.problem(node.at, Code::BadValue, message);
            None
        }
    };
    fields.finish(reading);
    out
}

fn read_header_modifier(reading: &mut Reading, mut fields: Fields<'_>) -> Option<Filter> {
    let pairs = |fields: &mut Fields<'_>, reading: &mut Reading, key: &'static str| {
        let path = fields.path(key);
        let mut out = Vec::new();
        for (index, item) in fields
            .optional_list(reading, key)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let Some(mut header) = reading.fields(item, &format!("{path}[{index}]")) else {
                continue;
            };
            let name = header.required_text(reading, "name");
            let value = header.required_text(reading, "value");
            header.finish(reading);
            if let (Some(name), Some(value)) = (name, value) {
                check_header(reading, item, name, value);
                out.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        out
    };
    let set = pairs(&mut fields, reading, "set");
    let add = pairs(&mut fields, reading, "add");
    let mut remove = Vec::new();
    for item in fields.optional_list(reading, "remove").unwrap_or_default() {
        if let Some(name) = reading.text(item, "remove") {
            check_header(reading, item, name, "");
            remove.push(name.to_ascii_lowercase());
        }
    }
    fields.finish(reading);
    Some(Filter::RequestHeaderModifier { set, add, remove })
}

/// A filter may not forge what the proxy says about the client, nor break the head of a request apart.
fn check_header(reading: &mut Reading, node: &Node, name: &str, value: &str) {
    let lower = name.to_ascii_lowercase();
    let reserved = ["mesh-", "mesh_", "l5d-", "l5d_"]
        .iter()
        .any(|p| lower.starts_with(p))
        || lower == "x-forwarded-client-cert";
    if !is_token(name) || value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7F) {
        reading.problem(
            node.at,
            Code::BadValue,
            format!("`{name}` and its value are no header"),
        );
    } else if reserved
        || matches!(
            lower.as_str(),
            "host" | "content-length" | "transfer-encoding" | "connection"
        )
    {
        reading.problem(
            node.at,
            Code::BadValue,
            format!("a filter may not change the header `{lower}`"),
        );
    }
}

fn read_redirect(reading: &mut Reading, mut fields: Fields<'_>) -> Option<Filter> {
    let scheme = fields
        .choice(reading, "scheme", &["http", "https"])
        .map(str::to_owned);
    let host_path = fields.path("hostname");
    let hostname = fields.optional(reading, "hostname").and_then(|n| {
        let name = read_hostname(reading, n, &host_path)?;
        if name.starts_with('*') {
            reading.problem(
                n.at,
                Code::BadValue,
                format!("`{host_path}` must be one name"),
            );
        }
        Some(name)
    });
    let port_path = fields.path("port");
    let port = fields
        .optional(reading, "port")
        .and_then(|n| reading.port(n, &port_path));
    let mut path = None;
    if let Some(mut modifier) = fields.optional_fields(reading, "path") {
        let at = modifier.at;
        if modifier.required_text(reading, "type") == Some("ReplaceFullPath") {
            path = modifier
                .required_text(reading, "replaceFullPath")
                .map(str::to_owned);
        } else {
            modifier.ignore(&["replacePrefixMatch"]);
            reading.problem(
                at,
                Code::BadValue,
                "only `ReplaceFullPath` is supported in a redirect",
            );
        }
        modifier.finish(reading);
    }
    let status_node = fields.optional(reading, "statusCode");
    let status = match status_node.map(|n| (n, &n.value)) {
        None => 302,
        Some((_, Value::Int(code @ (301 | 302 | 303 | 307 | 308)))) => {
            u16::try_from(*code).unwrap_or(302)
        }
        Some((node, _)) => {
            reading.problem(
                node.at,
                Code::BadValue,
                "`statusCode` must be 301, 302, 303, 307 or 308",
            );
            302
        }
    };
    fields.finish(reading);
    Some(Filter::RequestRedirect {
        scheme,
        hostname,
        port,
        path,
        status,
    })
}
