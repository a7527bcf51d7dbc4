//! Which route of Linkerd takes a request, and which requests it knows as probes.

use super::{list, text};
use crate::world::Ask;
use serde_json::Value;
use std::cmp::Reverse;

/// Best host, then the length of the matched path whatever its kind, then headers, query, method; ties go to the older.
pub(super) fn best<'v>(routes: &[&'v Value], ask: &Ask) -> Option<&'v Value> {
    let mut ranked: Vec<_> = routes
        .iter()
        .filter_map(|r| Some((rank(r, ask)?, *r)))
        .collect();
    ranked.sort_by_key(|(rank, _)| Reverse(*rank));
    ranked.first().map(|(_, route)| *route)
}

type Rank = ((u8, usize), [usize; 4]);

fn rank(route: &Value, ask: &Ask) -> Option<Rank> {
    let host = ask
        .0
        .host
        .as_deref()
        .unwrap_or("")
        .split(':')
        .next()
        .unwrap()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let hosts: Vec<&str> = list(route, "/spec/hostnames")
        .filter_map(Value::as_str)
        .collect();
    let host = hosts.iter().filter_map(|h| match h.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix).then_some((1, suffix.len())),
        None => (host == *h).then_some((2, h.len())),
    });
    let host = if hosts.is_empty() {
        (0, 0)
    } else {
        host.max()?
    };
    let rules = list(route, "/spec/rules");
    let best = rules.filter_map(|rule| match rule.get("matches").and_then(Value::as_array) {
        Some(matches) => matches.iter().filter_map(|m| match_rank(m, ask)).max(),
        None => Some([1, 0, 0, 0]),
    });
    Some((host, best.max()?))
}

fn match_rank(one: &Value, ask: &Ask) -> Option<[usize; 4]> {
    let (path, query) = ask
        .0
        .path
        .as_deref()
        .unwrap()
        .split_once('?')
        .unwrap_or((ask.0.path.as_deref().unwrap(), ""));
    let value = text(one, "/path/value").unwrap_or("/");
    let length = match text(one, "/path/type").unwrap_or("PathPrefix") {
        "Exact" => (path == value).then_some(path.len()),
        "RegularExpression" => {
            let whole = regex::Regex::new(&format!("^(?:{value})$")).unwrap();
            whole.is_match(path).then_some(path.len())
        }
        _ => {
            let rest = path.strip_prefix(value.trim_end_matches('/'));
            rest.is_some_and(|r| r.is_empty() || r.starts_with('/'))
                .then_some(value.len())
        }
    }?;
    let method = text(one, "/method");
    let header = |h: &Value| {
        let values = ask
            .0
            .headers
            .get(&text(h, "/name").unwrap().to_ascii_lowercase());
        // One value that matches suffices.
        values.is_some_and(|all| all.iter().any(|v| Some(v.as_str()) == text(h, "/value")))
    };
    let parameter = |q: &Value| {
        let pair = format!(
            "{}={}",
            text(q, "/name").unwrap(),
            text(q, "/value").unwrap()
        );
        query.split('&').any(|p| p == pair)
    };
    let holds = method.is_none_or(|m| Some(m) == ask.0.method.as_deref())
        && list(one, "/headers").all(header)
        && list(one, "/queryParams").all(parameter);
    let counts = [
        list(one, "/headers").count(),
        list(one, "/queryParams").count(),
    ];
    holds.then_some([length, counts[0], counts[1], usize::from(method.is_some())])
}

/// Exact path and GET of a declared probe; Linkerd knows httpGet probes alone.
pub(super) fn is_probe(pod: &Value, port: u16, ask: &Ask) -> bool {
    let containers = list(pod, "/spec/containers").chain(list(pod, "/spec/initContainers"));
    let probes = containers.flat_map(|c| {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &c[p]["httpGet"]);
        probes.into_iter().map(move |p| (c, p))
    });
    let path = |path: &str| path.split('?').next().unwrap_or("").to_owned();
    ask.0.method.as_deref() == Some("GET")
        && probes
            .filter(|(_, p)| !p.is_null())
            .any(|(container, probe)| {
                let named = |p: &Value| {
                    p["name"] == probe["port"] && p["containerPort"].as_u64() == Some(port.into())
                };
                let on_port = probe["port"].as_u64() == Some(port.into())
                    || list(container, "/ports").any(named);
                on_port
                    && path(text(probe, "/path").unwrap_or("/"))
                        == path(ask.0.path.as_deref().unwrap())
            })
}
