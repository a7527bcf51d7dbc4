//! Filters of routes: what the proxy of a Server applies, and what that of a client applies where the route attaches to a
//! Service. What one of the sides that a route is for cannot do makes the route invalid.

use super::core_kinds::Locate;
use super::read::{Fields, Reading};
use super::route::{RouteKind, read_hostname};
use super::route_backend::{read_mirror_target, read_share};
use super::route_match::is_token;
use super::traffic::OutboundFilter;
use super::tree::{Node, Value};
use crate::finding::Code;
use crate::limits::MATCH_VALUE_BYTES_MAX;
use mesh_policy::fields::may_change;
use mesh_policy::snapshot::Filter;
use mesh_policy::traffic::{HeaderChange, PathChange, TrafficFilter};

/// What a filter is on either side.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) inbound: Option<Filter>,
    pub(crate) outbound: Option<OutboundFilter>,
}

/// Reads a filter of a rule.
pub(crate) fn read_filter(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<Read> {
    let mut fields = reading.fields(node, path)?;
    let name = fields.required_text(reading, "type")?;
    let plain = |filter| Some(OutboundFilter::Plain(filter));
    let out = match name {
        "RequestHeaderModifier" => {
            let change = fields
                .required_fields(reading, "requestHeaderModifier")
                .map(|m| read_header_modifier(reading, m));
            Read {
                inbound: change.clone().map(inbound_change),
                outbound: change.and_then(|c| plain(TrafficFilter::RequestHeaders(c))),
            }
        }
        "ResponseHeaderModifier" => {
            let change = fields
                .required_fields(reading, "responseHeaderModifier")
                .map(|m| read_header_modifier(reading, m));
            if kind.inbound {
                reading.doubt(
                    node.at,
                    Code::NotEnforced,
                    "ResponseHeaderModifier has no effect on inbound requests",
                );
            }
            Read {
                inbound: None,
                outbound: change.and_then(|c| plain(TrafficFilter::ResponseHeaders(c))),
            }
        }
        "RequestRedirect" if !kind.grpc => {
            let redirect = fields.required_fields(reading, "requestRedirect");
            redirect.map_or_else(Read::default, |r| read_redirect(reading, r, kind))
        }
        "URLRewrite" if !kind.grpc && !kind.inbound => {
            let rewrite = fields.required_fields(reading, "urlRewrite");
            Read {
                inbound: None,
                outbound: rewrite.and_then(|r| plain(read_rewrite(reading, r))),
            }
        }
        "RequestMirror" if !kind.inbound => {
            let mirror = fields.required_fields(reading, "requestMirror");
            Read {
                inbound: None,
                outbound: mirror.and_then(|m| read_mirror(reading, m, kind, locate)),
            }
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
            // On a Gateway it is somebody else's.
            if kind.inbound {
                let message = format!("`{path}.type: {name}` is not supported on inbound requests");
                reading.problem(node.at, Code::BadValue, message);
            } else if kind.outbound {
                let message = format!("`{path}.type: {name}` is not supported on a Service");
                reading.problem(node.at, Code::BadValue, message);
            }
            Read::default()
        }
    };
    fields.finish(reading);
    Some(out)
}

/// Reads a filter of one backend. It is too late there to answer the client, or to choose another path.
pub(crate) fn read_backend_filter(
    reading: &mut Reading,
    node: &Node,
    path: &str,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<OutboundFilter> {
    let filter = read_filter(reading, node, path, kind, locate)?.outbound?;
    if kind.outbound
        && matches!(
            filter,
            OutboundFilter::Plain(TrafficFilter::Redirect { .. })
        )
    {
        let message =
            format!("`{path}`: a backend does not redirect; write the filter in the rule");
        reading.problem(node.at, Code::BadValue, message);
        return None;
    }
    Some(filter)
}

/// Filters of one rule that may not stand together, or not beside its backends and matches (Gateway API).
pub(crate) fn check_together(
    reading: &mut Reading,
    at: super::tree::Place,
    path: &str,
    filters: &[OutboundFilter],
    (has_backends, prefixes_only): (bool, bool),
) {
    let (mut redirects, mut rewrites, mut by_prefix) = (0, 0, false);
    for filter in filters {
        let changed = match filter {
            OutboundFilter::Plain(TrafficFilter::Redirect { path, .. }) => {
                redirects += 1;
                path
            }
            OutboundFilter::Plain(TrafficFilter::Rewrite { path, .. }) => {
                rewrites += 1;
                path
            }
            _ => continue,
        };
        by_prefix |= matches!(changed, Some(PathChange::Prefix(_)));
    }
    let mut conflict = |message: String| reading.problem(at, Code::Conflict, message);
    if redirects + rewrites > 1 {
        conflict(format!(
            "`{path}.filters` redirect or rewrite more than once"
        ));
    }
    if redirects > 0 && has_backends {
        conflict(format!(
            "`{path}` redirects, so that its `backendRefs` get no request"
        ));
    }
    if by_prefix && !prefixes_only {
        conflict(format!(
            "`{path}.filters` replace a prefix, but not every match is a `PathPrefix`"
        ));
    }
}

fn inbound_change(change: HeaderChange) -> Filter {
    Filter::RequestHeaderModifier {
        set: change.set,
        add: change.add,
        remove: change.remove,
    }
}

fn read_header_modifier(reading: &mut Reading, mut fields: Fields<'_>) -> HeaderChange {
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
    HeaderChange { set, add, remove }
}

/// A filter may not forge what the proxy says about the client, nor break the head of a request apart.
fn check_header(reading: &mut Reading, node: &Node, name: &str, value: &str) {
    let lower = name.to_ascii_lowercase();
    let message = if !is_token(name) || value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7F)
    {
        format!("`{name}` and its value are no header")
    } else if !may_change(&lower) {
        format!("a filter may not change the header `{lower}`")
    } else {
        return;
    };
    reading.problem(node.at, Code::BadValue, message);
}

fn read_redirect(reading: &mut Reading, mut fields: Fields<'_>, kind: RouteKind<'_>) -> Read {
    let scheme = fields
        .choice(reading, "scheme", &["http", "https"])
        .map(str::to_owned);
    let hostname = read_one_hostname(reading, &mut fields);
    let port_path = fields.path("port");
    let port = fields
        .optional(reading, "port")
        .and_then(|n| reading.port(n, &port_path));
    let path = fields
        .optional_fields(reading, "path")
        .and_then(|modifier| {
            let at = modifier.at;
            let path = read_path_change(reading, modifier)?;
            if kind.inbound && matches!(path, PathChange::Prefix(_)) {
                let message =
                    "only `ReplaceFullPath` is supported in a redirect on inbound requests";
                reading.problem(at, Code::BadValue, message);
                return None;
            }
            Some(path)
        });
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
    let inbound = Filter::RequestRedirect {
        scheme: scheme.clone(),
        hostname: hostname.clone(),
        port,
        path: match &path {
            Some(PathChange::Full(path)) => Some(path.clone()),
            Some(PathChange::Prefix(_)) | None => None,
        },
        status,
    };
    let outbound = TrafficFilter::Redirect {
        scheme,
        hostname,
        port,
        path,
        status,
    };
    Read {
        inbound: Some(inbound),
        outbound: Some(OutboundFilter::Plain(outbound)),
    }
}

fn read_rewrite(reading: &mut Reading, mut fields: Fields<'_>) -> TrafficFilter {
    let hostname = read_one_hostname(reading, &mut fields);
    let path = fields
        .optional_fields(reading, "path")
        .and_then(|modifier| read_path_change(reading, modifier));
    fields.finish(reading);
    TrafficFilter::Rewrite { hostname, path }
}

/// `hostname`, without wildcard.
fn read_one_hostname(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<String> {
    let path = fields.path("hostname");
    let node = fields.optional(reading, "hostname")?;
    let name = read_hostname(reading, node, &path)?;
    if name.starts_with('*') {
        let message = format!("`{path}` must be one name");
        reading.problem(node.at, Code::BadValue, message);
    }
    Some(name)
}

/// `path` of a redirect or rewrite.
fn read_path_change(reading: &mut Reading, mut fields: Fields<'_>) -> Option<PathChange> {
    let at = fields.at;
    let kinds = ["ReplaceFullPath", "ReplacePrefixMatch"];
    fields.required(reading, "type");
    let kind = fields.choice(reading, "type", &kinds);
    let (key, change): (_, fn(String) -> PathChange) = match kind {
        Some("ReplaceFullPath") => ("replaceFullPath", PathChange::Full),
        Some(_) => ("replacePrefixMatch", PathChange::Prefix),
        None => {
            fields.ignore(&["replaceFullPath", "replacePrefixMatch"]);
            fields.finish(reading);
            return None;
        }
    };
    let path = fields.path(key);
    let text = fields.required_text(reading, key);
    fields.finish(reading);
    let text = text?;
    // An empty prefix takes the prefix away.
    let fits = text.starts_with('/') || text.is_empty() && key == "replacePrefixMatch";
    let clean = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#');
    if !fits || !text.bytes().all(clean) || text.len() > MATCH_VALUE_BYTES_MAX {
        let message = format!(
            "`{path}: {text}` must be a path that begins with `/`, without query, at most {MATCH_VALUE_BYTES_MAX} bytes"
        );
        reading.problem(at, Code::BadValue, message);
        return None;
    }
    Some(change(text.to_owned()))
}

fn read_mirror(
    reading: &mut Reading,
    mut fields: Fields<'_>,
    kind: RouteKind<'_>,
    locate: Locate<'_>,
) -> Option<OutboundFilter> {
    let path = fields.path("backendRef");
    let to = fields
        .required(reading, "backendRef")
        .and_then(|node| read_mirror_target(reading, node, &path, kind, locate));
    let share = read_share(reading, &mut fields);
    fields.finish(reading);
    let (numerator, denominator) = share?;
    Some(OutboundFilter::Mirror {
        to: to?,
        numerator,
        denominator,
    })
}
