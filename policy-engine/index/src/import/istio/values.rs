//! Fields and conditions of Istio's rules by the attribute that they ask for, and the values that each takes.

use super::model::{Attribute, Want};
use super::pattern::{PathText, Text};
use crate::manifest::network::parse_block;
use crate::manifest::route_match::is_token;
use ipnet::IpNet;

/// Fields of a source and their opposites.
pub(super) const SOURCE: &[(&str, &str)] = &[
    ("principals", "notPrincipals"),
    ("requestPrincipals", "notRequestPrincipals"),
    ("namespaces", "notNamespaces"),
    ("serviceAccounts", "notServiceAccounts"),
    ("ipBlocks", "notIpBlocks"),
    ("remoteIpBlocks", "notRemoteIpBlocks"),
];

/// Fields of an operation and their opposites.
pub(super) const OPERATION: &[(&str, &str)] = &[
    ("hosts", "notHosts"),
    ("ports", "notPorts"),
    ("methods", "notMethods"),
    ("paths", "notPaths"),
];

pub(super) fn attribute_of(field: &str) -> Attribute {
    match field {
        "principals" => Attribute::Principal,
        "namespaces" => Attribute::Namespace,
        "serviceAccounts" => Attribute::ServiceAccount,
        "ipBlocks" => Attribute::SourceIp,
        "remoteIpBlocks" => Attribute::Foreign("remote.ip".to_owned(), false),
        "hosts" => Attribute::Host,
        "ports" => Attribute::Port,
        "methods" => Attribute::Method,
        "paths" => Attribute::Path,
        _ => Attribute::Foreign("request.auth.principal".to_owned(), true),
    }
}

/// The attribute that the key of a condition names; `None` if Istio knows no such key.
pub(super) fn attribute_of_condition(key: &str) -> Option<Attribute> {
    let foreign = |of_requests| Some(Attribute::Foreign(key.to_owned(), of_requests));
    match key {
        "source.ip" => Some(Attribute::SourceIp),
        "source.namespace" => Some(Attribute::Namespace),
        "source.principal" => Some(Attribute::Principal),
        "source.serviceAccount" => Some(Attribute::ServiceAccount),
        "destination.port" => Some(Attribute::Port),
        "remote.ip" | "destination.ip" | "connection.sni" => foreign(false),
        "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter" => {
            foreign(true)
        }
        _ if key.starts_with("experimental.envoy.filters.") => foreign(false),
        _ if bracketed(key, "request.auth.claims").is_some() => foreign(true),
        _ => {
            let name = bracketed(key, "request.headers")?;
            // Names that HTTP/2 or the proxies give a meaning of their own are not what a Cedar policy sees.
            let ordinary =
                is_token(name) && !name.eq_ignore_ascii_case("host") && !name.starts_with(':');
            if ordinary {
                Some(Attribute::Header(name.to_ascii_lowercase()))
            } else {
                foreign(true)
            }
        }
    }
}

/// `x` of `prefix[x]`, with further brackets or not.
fn bracketed<'k>(key: &'k str, prefix: &str) -> Option<&'k str> {
    let name = key
        .strip_prefix(prefix)?
        .strip_prefix('[')?
        .strip_suffix(']')?;
    (!name.is_empty()).then_some(name)
}

/// Reads one value of an attribute.
pub(super) fn want(attribute: &Attribute, text: &str, namespace: &str) -> Result<Want, String> {
    if text.is_empty() {
        return Err("a value may not be empty".into());
    }
    match attribute {
        // Istio compares an IPv4-mapped block with no IPv4 address, as this mesh would.
        Attribute::SourceIp => match parse_block(text)? {
            IpNet::V4(_) if text.contains(':') => {
                Err("an IPv4-mapped block: write it as IPv4".into())
            }
            block => Ok(Want::Block(block)),
        },
        Attribute::Port => port(text)
            .map(Want::Port)
            .ok_or_else(|| "expected a port from 1 to 65535, in quotes".into()),
        Attribute::Path => PathText::parse(text).map(Want::Path),
        Attribute::ServiceAccount => {
            let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
            if [namespace, name]
                .iter()
                .any(|part| part.is_empty() || part.contains(['/', '*']))
            {
                return Err("expected `<namespace>/<service account>` or `<service account>`, without wildcards".into());
            }
            Ok(Want::Account {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        Attribute::Host => Ok(Want::Text(Text::parse(&text.to_ascii_lowercase()))),
        _ => Ok(Want::Text(Text::parse(text))),
    }
}

pub(super) fn port(text: &str) -> Option<u16> {
    let digits = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port != 0)
}
