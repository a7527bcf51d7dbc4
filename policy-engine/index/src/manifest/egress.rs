//! EgressNetwork, TLSRoute and TCPRoute: what workloads may reach outside of the mesh.
//!
//! An EgressNetwork that cannot be read whole may have closed anything that leaves the cluster: then it speaks for all of
//! that, and denies.

use super::core_kinds::Locate;
use super::network::read_networks;
use super::read::{Fields, Reading};
use super::refs::{read_name, read_namespace};
use super::resource::{EgressNetwork, Key, Route, Rule};
use super::route::{Parent, RouteKind, read_hostname, read_parent};
use super::route_backend::read_backends;
use super::route_match::every_request;
use super::traffic::{EgressParent, Outbound};
use super::tree::Node;
use crate::finding::Code;
use mesh_policy::snapshot::Source;

/// Reads an EgressNetwork. Whether its networks overlap the cluster's is the index's to say.
pub(crate) fn read_egress_network(reading: &mut Reading, root: &mut Fields<'_>) -> EgressNetwork {
    let mut out = EgressNetwork {
        allows: false,
        networks: None,
    };
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    let at = spec.at;
    if !spec.stands("trafficPolicy") {
        reading.problem(at, Code::Missing, "`spec.trafficPolicy` is missing");
    }
    let traffic = spec.choice(reading, "trafficPolicy", &["Allow", "Deny"]);
    out.allows = traffic == Some("Allow");
    let items = spec.optional_list(reading, "networks");
    if items.is_some_and(<[Node]>::is_empty) {
        reading.problem(
            at,
            Code::BadValue,
            "`spec.networks` is empty; leave it out to mean everything outside the cluster",
        );
    }
    let problems = reading.problems.len();
    out.networks = items
        .map(|items| read_networks(reading, items, "spec.networks"))
        .filter(|networks| !networks.is_empty() && reading.problems.len() == problems);
    spec.finish(reading);
    out
}

/// A reference of a route to an EgressNetwork. One whose name, namespace or port cannot be read refers to none.
pub(super) fn read_egress_parent(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    path: &str,
    own: &str,
    source: &Source,
) -> Option<EgressParent> {
    let name = read_name(reading, fields, "name", true);
    let namespace_written = fields.stands("namespace");
    let namespace = read_namespace(reading, fields);
    if !fields.stands("port") {
        let message = format!("`{path}.port` is missing: an EgressNetwork parent needs one");
        reading.problem(fields.at, Code::Missing, message);
    }
    let port_path = fields.path("port");
    let port = fields.optional(reading, "port");
    let port = port.and_then(|node| reading.port(node, &port_path));
    if let Some(section) = fields.optional(reading, "sectionName") {
        let message =
            format!("`{path}.sectionName` may not stand in a reference to an EgressNetwork");
        reading.problem(section.at, Code::Conflict, message);
    }
    Some(EgressParent {
        key: Key::new(namespace?.unwrap_or(own), name?),
        namespace_written,
        port: port?,
        source: source.clone(),
    })
}

/// Reads a TLSRoute or TCPRoute. Only EgressNetworks are parents that it applies to.
pub(crate) fn read_stream_route(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    kind: RouteKind<'_>,
    has_hostnames: bool,
    locate: Locate<'_>,
) -> Route {
    let mut out = Route::default();
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    let parents = spec.optional_list(reading, "parentRefs");
    for (index, item) in parents.unwrap_or_default().iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let source = locate(item.at, item.end_line);
        match read_parent(reading, &mut fields, &path, kind, &source) {
            Parent::Egress(parent) => out.egress.extend(parent),
            Parent::Server(_) | Parent::Service(_) => {
                let message =
                    format!("`{path}`: a route of this kind applies to EgressNetworks only");
                reading.doubt(fields.at, Code::NotEnforced, message);
            }
            Parent::NoServer | Parent::Other => {}
        }
        fields.finish(reading);
    }
    spec.ignore(&["useDefaultGateways"]);
    if has_hostnames {
        let names = spec.optional_list(reading, "hostnames").unwrap_or_default();
        for (index, item) in names.iter().enumerate() {
            let path = format!("spec.hostnames[{index}]");
            out.hostnames.extend(read_hostname(reading, item, &path));
        }
    }
    let rules = spec.required_list(reading, "rules").unwrap_or_default();
    for (index, item) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        fields.optional_text(reading, "name");
        out.rules.push(Rule {
            matches: vec![every_request(false)],
            filters: Vec::new(),
            outbound: Outbound {
                backends: read_backends(reading, &mut fields, kind, locate),
                ..Outbound::default()
            },
        });
        fields.finish(reading);
    }
    if out.rules.len() > 1 {
        let message = "`spec.rules` has more than one rule, and nothing tells them apart";
        reading.problem(spec.at, Code::Conflict, message);
    }
    spec.finish(reading);
    out
}
