//! Routes as a Server of one workload has them.

use super::Index;
use crate::manifest::resource::{Object, Route};
use mesh_policy::canonical;
use mesh_policy::snapshot::{self as core, PathMatch, PathOptions, RouteRule, ServerProtocol};

/// Whether a Server of this protocol takes this kind of route (settled reading 10).
pub(crate) fn takes(protocol: ServerProtocol, route: &Object<Route>) -> bool {
    match protocol {
        ServerProtocol::Opaque | ServerProtocol::Tls => false,
        ServerProtocol::Grpc => route.kind == "GRPCRoute",
        ServerProtocol::Unknown | ServerProtocol::Http1 | ServerProtocol::Http2 => {
            route.kind == "HTTPRoute"
        }
    }
}

/// Kind of a route, with its group where both groups have a route of that name: a grant on one is none on the other.
pub(crate) fn shown_kind(index: &Index, route: &Object<Route>) -> String {
    if index.twins.contains(&(route.key.clone(), route.kind)) {
        format!("{}.{}", route.kind, route.group)
    } else {
        route.kind.to_owned()
    }
}

pub(crate) fn core_route(route: &Object<Route>, kind: String, options: PathOptions) -> core::Route {
    let rules = route.spec.rules.iter().map(|rule| {
        let mut matches = rule.matches.clone();
        for one in &mut matches {
            if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &mut one.path
                && let Some(canonical) = canonical_path(path, options)
            {
                *path = canonical;
            }
        }
        RouteRule {
            matches,
            filters: rule.filters.clone(),
        }
    });
    core::Route {
        kind,
        namespace: route.key.namespace.clone(),
        name: route.key.name.clone(),
        created: route.created.time(),
        hostnames: route.spec.hostnames.clone(),
        rules: rules.collect(),
        invalid: route.invalid.clone(),
        source: route.source.clone(),
    }
}

/// The form of a path that requests have when they are matched; `None` if no request can have it.
pub(crate) fn canonical_path(path: &str, options: PathOptions) -> Option<String> {
    canonical::path(path, "GET", options)
        .ok()
        .map(|p| p.into_path().into_owned())
}
