//! HTTPLocalRateLimitPolicy and Federation.

use super::read::{Fields, Reading};
use super::refs::{read_kind, read_name, read_namespace, read_server_target, refuse_kind};
use super::resource::{Federation, Key, RateLimit};
use crate::finding::Code;
use crate::limits::RATE_MAX;
use mesh_trust::TrustDomain;

/// Reads an HTTPLocalRateLimitPolicy. What can be read of an invalid one still limits.
pub(crate) fn read_rate_limit(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    own: &str,
) -> RateLimit {
    let mut out = RateLimit {
        server: None,
        total: None,
        identity: None,
        overrides: Vec::new(),
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    out.server = read_server_target(reading, &mut spec);
    for (key, slot) in [("total", &mut out.total), ("identity", &mut out.identity)] {
        if let Some(mut fields) = spec.optional_fields(reading, key) {
            *slot = read_rate(reading, &mut fields);
            fields.finish(reading);
        }
    }
    for (index, item) in spec
        .optional_list(reading, "overrides")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let Some(mut fields) = reading.fields(item, &format!("spec.overrides[{index}]")) else {
            continue;
        };
        let rate = read_rate(reading, &mut fields);
        let clients = read_clients(reading, &mut fields, own);
        fields.finish(reading);
        out.overrides.extend(rate.map(|rate| (clients, rate)));
    }
    let over = |rate: u32| out.total.is_some_and(|total| rate > total);
    if out.identity.is_some_and(over) {
        reading.problem(
            spec.at,
            Code::Conflict,
            "`spec.identity.requestsPerSecond` is larger than `spec.total.requestsPerSecond`",
        );
    }
    if out.overrides.iter().any(|(_, rate)| over(*rate)) {
        reading.problem(
            spec.at,
            Code::Conflict,
            "an override is larger than `spec.total.requestsPerSecond`",
        );
    }
    spec.finish(reading);
    out
}

fn read_rate(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<u32> {
    let path = fields.path("requestsPerSecond");
    let node = fields.required(reading, "requestsPerSecond")?;
    reading
        .integer(node, &path, 1..=RATE_MAX)
        .and_then(|n| u32::try_from(n).ok())
}

fn read_clients(reading: &mut Reading, fields: &mut Fields<'_>, own: &str) -> Vec<Key> {
    let path = fields.path("clientRefs");
    let mut out = Vec::new();
    for (index, item) in fields
        .required_list(reading, "clientRefs")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{path}[{index}]");
        let Some(mut client) = reading.fields(item, &path) else {
            continue;
        };
        let kind = read_kind(reading, &mut client);
        let name = read_name(reading, &mut client, "name", true);
        let namespace = read_namespace(reading, &mut client).map(|n| n.unwrap_or(own));
        match (kind, namespace, name) {
            (Some(("", "ServiceAccount")), Some(namespace), Some(name)) => {
                out.push(Key::new(namespace, name))
            }
            (Some((group, kind)), _, _) if (group, kind) != ("", "ServiceAccount") => {
                refuse_kind(reading, &client, &path, group, kind, "a ServiceAccount");
            }
            _ => {}
        }
        client.finish(reading);
    }
    out
}

/// Reads a Federation.
pub(crate) fn read_federation(reading: &mut Reading, root: &mut Fields<'_>) -> Federation {
    let mut out = Federation {
        domain: None,
        in_wildcards: false,
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    let at = spec.at;
    if let Some(text) = spec.required_text(reading, "trustDomain") {
        match TrustDomain::parse(text) {
            Ok(domain) => out.domain = Some(domain),
            Err(error) => {
                reading.problem(at, Code::BadValue, format!("`spec.trustDomain`: {error}"))
            }
        }
    }
    let wildcards = spec.optional(reading, "includeInWildcards");
    out.in_wildcards =
        wildcards.and_then(|n| reading.boolean(n, "spec.includeInWildcards")) == Some(true);
    // How its trust bundle is fetched is the identity authority's to check.
    spec.ignore(&[
        "bundle",
        "bundleEndpoint",
        "bundleEndpointURL",
        "bundleEndpointProfile",
        "endpointSPIFFEID",
    ]);
    spec.finish(reading);
    out
}
