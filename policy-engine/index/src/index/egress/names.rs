//! The annotation of a route on an EgressNetwork that lets its names lead anywhere.

use super::super::Index;
use crate::finding::Code;
use crate::manifest::resource::{Object, Route};
use mesh_policy::snapshot::Finding;

/// Whether what a route lets out by name goes to addresses of that name alone: it does, unless this says `false`.
const BIND: &str = "mesh.internal/bind-names";

/// Whether the names of a route lead to whatever address was dialled; an error says why that cannot be read.
pub(super) fn are_unbound(route: &Object<Route>) -> Result<bool, String> {
    match route.annotations.get(BIND).map(String::as_str) {
        None | Some("true") => Ok(false),
        Some("false") => Ok(true),
        Some(other) => Err(format!("`{BIND}: {other}` is neither `true` nor `false`")),
    }
}

/// What is wrong with it, or opens more than it seems to.
pub(super) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    for route in index
        .resources
        .routes
        .iter()
        .filter(|route| !route.spec.egress.is_empty())
    {
        match are_unbound(route) {
            Err(why) => Index::note(findings, Code::BadValue, route, why),
            Ok(true) if !route.spec.hostnames.is_empty() => {
                let message = format!(
                    "{}: `{BIND}: false` lets out to every address of the network, whoever is there, by one of its names",
                    route.title()
                );
                Index::note(findings, Code::WideEgress, route, message);
            }
            Ok(_) => {}
        }
    }
}
