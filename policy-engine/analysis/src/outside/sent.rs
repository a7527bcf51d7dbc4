//! What is sent to outside: bytes, TLS by its server name, requests; one of each class that routes tell apart.

use super::requests::Requests;
use mesh_policy::canonical;
use mesh_policy::egress::{EgressPort, Seen, Speaks};
use mesh_policy::request::Head;
use mesh_policy::snapshot::Route;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is sent, as the proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Sent {
    /// Bytes that are neither of the others.
    Bytes,
    /// TLS.
    Tls {
        /// The server that the client asks for (SNI).
        #[serde(skip_serializing_if = "Option::is_none")]
        server_name: Option<String>,
    },
    /// A request.
    Http(Request),
}

/// A request to outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target: path, and query if there is one.
    pub path: String,
    /// Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
}

/// What no route at a port tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentClass {
    /// For people.
    pub what: String,
    /// One of it.
    pub sent: Sent,
}

/// The classes of a port, and what keeps them from being exact.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    pub(super) classes: Vec<SentClass>,
    pub(super) inexact: Vec<String>,
}

/// Hosts that no route tells apart.
pub(super) struct HostClass {
    /// For people; empty if no route looks at hosts.
    pub(super) what: String,
    /// One of them; none: no host is named.
    pub(super) host: Option<String>,
}

impl Sent {
    /// As the decision wants it.
    pub fn seen(&self) -> Seen<'_> {
        match self {
            Self::Bytes => Seen::Bytes,
            Self::Tls { server_name } => Seen::Tls(server_name.as_deref()),
            Self::Http(request) => Seen::Http(Head {
                method: &request.method,
                target: &request.path,
                host: request.host.as_deref(),
                grpc: false,
                headers: &request.headers,
            }),
        }
    }
}

/// The classes of what is sent to a port where these routes are attached; `beyond`: those at the ports to which TLS is
/// begun from there, whose server names are hosts here.
pub(super) fn classes(tables: &[&EgressPort], beyond: &[&EgressPort]) -> Classes {
    fn that_speak<'t>(tables: &[&'t EgressPort], speaks: Speaks) -> Vec<&'t Route> {
        let tables = tables.iter().filter(|table| table.speaks == speaks);
        tables.flat_map(|table| &table.routes).collect()
    }
    let of = |speaks: Speaks| that_speak(tables, speaks);
    let word = unnamed(&[tables, beyond].concat());
    let mut out = Classes::default();
    out.classes.push(SentClass {
        what: "bytes".to_owned(),
        sent: Sent::Bytes,
    });
    for class in hosts(&of(Speaks::Tls), &word, &mut out.inexact) {
        let (what, server_name) = match class.host {
            None => ("TLS without a server name".to_owned(), None),
            Some(_) if class.what.is_empty() => ("TLS".to_owned(), class.host),
            Some(_) => (format!("TLS to {}", class.what), class.host),
        };
        let sent = Sent::Tls { server_name };
        out.classes.push(SentClass { what, sent });
    }
    let routes = of(Speaks::Http);
    let named = [routes.clone(), that_speak(beyond, Speaks::Tls)].concat();
    let mut hosts = hosts(&named, &word, &mut out.inexact);
    if tables.iter().any(|table| !table.tls.is_empty()) {
        hosts.push(HostClass {
            what: "an address as host".to_owned(),
            host: Some("192.0.2.1".to_owned()),
        });
    }
    let mut requests = Requests::new(&word, &mut out);
    for class in &hosts {
        let taking = routes.iter().filter(|route| takes(route, class));
        let rules = taking.flat_map(|route| &route.rules);
        let matches: Vec<_> = rules.flat_map(|rule| &rule.matches).collect();
        requests.of_host(class, &matches);
    }
    out
}

/// A label, path segment and method that no route names.
fn unnamed(tables: &[&EgressPort]) -> String {
    let routes = tables.iter().flat_map(|table| &table.routes);
    let named: String = routes
        .map(|route| format!("{:?} {:?}", route.hostnames, route.rules).to_ascii_lowercase())
        .collect();
    crate::classes::fresh("any-other", |word| named.contains(word))
}

/// Every name, what else is under each wildcard, what none of them names, and no name at all.
fn hosts(routes: &[&Route], word: &str, inexact: &mut Vec<String>) -> Vec<HostClass> {
    let names: BTreeSet<&str> = routes
        .iter()
        .flat_map(|route| &route.hostnames)
        .map(String::as_str)
        .collect();
    let mut out = Vec::new();
    for name in &names {
        let class = match name.strip_prefix("*.") {
            None => HostClass {
                what: (*name).to_owned(),
                host: Some((*name).to_owned()),
            },
            Some(suffix) => HostClass {
                what: format!("any other name under {name}"),
                host: Some(format!("{word}.{suffix}")),
            },
        };
        match class
            .host
            .as_deref()
            .is_some_and(|host| canonical::host(host).is_ok())
        {
            true => out.push(class),
            // A name that is none names nobody; but under a wildcard there may be shorter ones.
            false if canonical_name(name.trim_start_matches("*.")).is_none() => {}
            false => inexact.push(format!("no host was found under `{name}`")),
        }
    }
    let any = if names.is_empty() {
        ""
    } else {
        "any other host"
    };
    out.push(HostClass {
        what: any.to_owned(),
        host: Some(format!("{word}.invalid")),
    });
    out.push(HostClass {
        what: "no host".to_owned(),
        host: None,
    });
    out
}

/// Whether a route may take something to a host: what it looks at is asked about.
fn takes(route: &Route, class: &HostClass) -> bool {
    let host = class.host.as_deref().and_then(canonical_name);
    let named = |pattern: &String| {
        let Some(host) = &host else {
            return false;
        };
        match pattern.strip_prefix("*.") {
            None => canonical_name(pattern).as_ref() == Some(host),
            Some(suffix) => canonical_name(suffix).is_some_and(|suffix| host.ends_with(&suffix)),
        }
    };
    route.hostnames.is_empty() || route.hostnames.iter().any(named)
}

fn canonical_name(text: &str) -> Option<String> {
    let host = canonical::host(text).ok()?;
    Some(host.name().to_owned())
}
