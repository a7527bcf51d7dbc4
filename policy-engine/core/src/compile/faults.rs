//! What is wrong with the data of a snapshot: too much of it, which makes it none; and single policies that cannot be
//! evaluated, which grant nothing or close, and are findings.

use super::SnapshotError;
use crate::cedar::raw::Raw;
use crate::limits::{
    CEDAR_TEXTS_MAX, EGRESS_NETWORKS_MAX, FAULT_CLIENTS_MAX, FAULTS_MAX, GRANTS_MAX, MATCHES_MAX,
    MEMBERS_MAX, PORT_GRANTS_MAX, PORTS_MAX,
};
use crate::question::SetNames;
use crate::snapshot::{
    CedarText, Effect, Finding, Grant, ObjectRef, Route, Severity, SnapshotData, Source, Who,
};

pub(super) fn check_limits(data: &SnapshotData) -> Result<(), SnapshotError> {
    let ports = || data.ports.values().chain([&data.other_ports]);
    let matches = |routes: &[Route]| -> usize {
        routes
            .iter()
            .flat_map(|route| &route.rules)
            .map(|rule| rule.matches.len().max(1))
            .sum()
    };
    let outside = || data.egress.iter().flat_map(|one| one.ports.values());
    let all_matches = ports()
        .map(|policy| matches(&policy.routes))
        .chain(outside().map(|port| matches(&port.routes)));
    let blocks = data.egress.iter().flat_map(|one| &one.networks);
    let members = data
        .identity_sets
        .values()
        .map(|set| set.members.len())
        .sum::<usize>()
        + data
            .network_sets
            .values()
            .flat_map(|set| &set.networks)
            .chain(blocks)
            .map(|network| 1 + network.except.len())
            .sum::<usize>();
    for (what, count, limit) in [
        ("grants", data.grants.len(), GRANTS_MAX),
        (
            "ports with a policy of their own",
            data.ports.len(),
            PORTS_MAX,
        ),
        (
            "references from ports to grants",
            ports().map(|policy| policy.grants.len()).sum(),
            PORT_GRANTS_MAX,
        ),
        ("route matches", all_matches.sum(), MATCHES_MAX),
        ("EgressNetworks", data.egress.len(), EGRESS_NETWORKS_MAX),
        (
            "policies written in Cedar",
            data.cedar_policies.len(),
            CEDAR_TEXTS_MAX,
        ),
        ("members of identity and network sets", members, MEMBERS_MAX),
        (
            "faults on one Server",
            ports().map(|policy| policy.faults.len()).max().unwrap_or(0),
            FAULTS_MAX,
        ),
        (
            "clients of one fault",
            ports()
                .flat_map(|policy| &policy.faults)
                .map(|fault| fault.clients.len())
                .max()
                .unwrap_or(0),
            FAULT_CLIENTS_MAX,
        ),
    ] {
        if count > limit {
            return Err(SnapshotError::TooLarge { what, count, limit });
        }
    }
    Ok(())
}

/// A route of which something cannot be read: it takes its requests, and denies them.
pub(super) fn unread_route(route: &Route, why: &str) -> Finding {
    Finding {
        code: "MESH-0312".to_owned(),
        severity: Severity::Error,
        message: format!(
            "requests that {} {}/{} takes are denied: {why}",
            route.kind, route.namespace, route.name
        ),
        hint: Some("mend the route; until then its requests stay denied".to_owned()),
        object: Some(ObjectRef {
            kind: route.kind.clone(),
            namespace: route.namespace.clone(),
            name: route.name.clone(),
            source: route.source.clone(),
        }),
        source: route.source.clone(),
    }
}

/// Policies written in Cedar that cannot be evaluated.
pub(super) fn text_findings(texts: &[CedarText], compiled: &[Raw]) -> Vec<Finding> {
    let broken = texts.iter().zip(compiled);
    let broken = broken.filter_map(|(text, raw)| Some((text, raw.fault()?)));
    broken
        .map(|(text, why)| broken_policy(&text.id, text.effect, &text.source, why))
        .collect()
}

/// A grant that refers to a set that is not there.
pub(super) fn missing_set(names: &SetNames, grant: &Grant) -> Option<Finding> {
    let missing = match (&grant.who, &grant.networks) {
        (Who::Identities(set), _) if names.identity_place(set).is_none() => {
            format!("identity set `{set}` does not exist")
        }
        (_, Some(set)) if names.network_place(set).is_none() => {
            format!("network set `{set}` does not exist")
        }
        _ => return None,
    };
    Some(broken_policy(
        &grant.id,
        grant.effect,
        &grant.source,
        &missing,
    ))
}

/// A policy that cannot be evaluated: it grants nothing, or closes.
fn broken_policy(id: &str, effect: Effect, source: &Source, why: &str) -> Finding {
    let mut parts = id.split('/');
    let object = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(namespace), Some(name), Some(_)) => Some(ObjectRef {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: source.clone(),
        }),
        _ => None,
    };
    let (effect, hint) = match effect {
        Effect::Permit => ("grants nothing", "mend what it refers to"),
        Effect::Forbid => (
            "closes the ports it covers",
            "mend what it refers to, or remove it",
        ),
    };
    Finding {
        code: "MESH-0311".to_owned(),
        severity: Severity::Error,
        message: format!("`{id}` {effect}: {why}"),
        hint: Some(hint.to_owned()),
        object,
        source: source.clone(),
    }
}
