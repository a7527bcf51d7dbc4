//! What is said of routes: findings for whoever reads manifests, conditions for whoever asks an API server (Gateway API's
//! `status.parents`). Both from one look, so that they never differ.

use super::Index;
use super::balancing::{self, ReadBalancing};
use super::breaker::Breaker;
use super::egress::NotTaken;
use super::patience::Patience;
use super::routes::takes;
use super::traffic::{NotAttached, Unresolved};
use super::zones;
use crate::finding::{Code, finding};
use crate::manifest::policy_kinds::POLICY_GROUP;
use crate::manifest::resource::{Key, Object, Route, Service};
use crate::manifest::traffic::{BackendRef, EgressParent, OutboundFilter, ServiceParent};
use mesh_policy::snapshot::Finding;
use mesh_policy::traffic::TrafficFilter;

/// What the Servers and Services that a route names make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// API group of the route.
    pub group: &'static str,
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.generation` of the route that was read, if an API server gave it one.
    pub generation: Option<i64>,
    /// By parent: Servers first, then Services and EgressNetworks, each in the order of `spec.parentRefs`.
    pub parents: Vec<ParentStatus>,
}

/// What one Server or Service makes of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// Group of the reference as it is written; empty or `core` for a Service.
    pub group: String,
    /// `Server`, `Service` or `EgressNetwork`.
    pub kind: &'static str,
    /// Its namespace, if it is written.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port, if it is written.
    pub port: Option<u16>,
    /// The name of its port, if it is written.
    pub section: Option<String>,
    /// Whether the route applies: condition `Accepted`.
    pub accepted: Condition,
    /// Whether all its backends can be used: condition `ResolvedRefs`.
    pub resolved: Condition,
}

/// A condition of Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub holds: bool,
    /// Gateway API's word for it.
    pub reason: &'static str,
    /// A sentence; empty if it holds.
    pub message: String,
}

impl Condition {
    pub(super) fn yes(reason: &'static str) -> Self {
        Self {
            holds: true,
            reason,
            message: String::new(),
        }
    }

    pub(super) fn no(reason: &'static str, message: String) -> Self {
        Self {
            holds: false,
            reason,
            message,
        }
    }
}

impl Index {
    /// Of every route, sorted by namespace, name, kind and group. One that names neither a Server nor a Service has no parents here.
    pub fn route_statuses(&self) -> Vec<RouteStatus> {
        let routes = self.resources.routes.iter();
        routes.map(|route| self.route_status(route)).collect()
    }

    pub(super) fn route_status(&self, route: &Object<Route>) -> RouteStatus {
        let servers = route.spec.servers.iter().map(|parent| ParentStatus {
            group: POLICY_GROUP.to_owned(),
            kind: "Server",
            namespace: parent
                .namespace_written
                .then(|| route.key.namespace.clone()),
            name: parent.name.clone(),
            port: None,
            section: None,
            accepted: self.taken(route, &parent.name),
            // Where requests go is nothing to a Server: it looks at no backend.
            resolved: Condition::yes("ResolvedRefs"),
        });
        let services = route.spec.services.iter().map(|parent| ParentStatus {
            kind: "Service",
            group: parent.group.clone(),
            namespace: parent
                .namespace_written
                .then(|| parent.key.namespace.clone()),
            name: parent.key.name.clone(),
            port: parent.port,
            section: parent.section.clone(),
            accepted: self.accepted(route, parent),
            resolved: self.resolved(route, parent),
        });
        let networks = route.spec.egress.iter().map(|parent| ParentStatus {
            group: POLICY_GROUP.to_owned(),
            kind: "EgressNetwork",
            namespace: parent
                .namespace_written
                .then(|| parent.key.namespace.clone()),
            name: parent.key.name.clone(),
            port: Some(parent.port),
            section: None,
            accepted: self.taken_by_network(route, parent),
            resolved: Condition::yes("ResolvedRefs"),
        });
        RouteStatus {
            group: route.group,
            kind: route.kind,
            namespace: route.key.namespace.clone(),
            name: route.key.name.clone(),
            generation: route.generation,
            parents: servers.chain(services).chain(networks).collect(),
        }
    }

    /// Whether a Server takes a route.
    fn taken(&self, route: &Object<Route>, server: &str) -> Condition {
        let namespace = &route.key.namespace;
        let in_namespace = self.servers.get(namespace).into_iter().flatten();
        let found = in_namespace
            .filter_map(|at| self.resources.servers.get(*at))
            .find(|one| one.key.name == server);
        match (found, &route.invalid) {
            (None, _) => Condition::no(
                "NoMatchingParent",
                format!("there is no Server `{namespace}/{server}`"),
            ),
            (Some(_), Some(why)) => Condition::no("UnsupportedValue", why.clone()),
            (Some(found), None) if !takes(found.spec.protocol, route) => Condition::no(
                "NotAllowedByParent",
                format!("the protocol of {} takes no {}", found.title(), route.kind),
            ),
            (Some(_), None) => Condition::yes("Accepted"),
        }
    }

    /// Whether an EgressNetwork takes a route.
    fn taken_by_network(&self, route: &Object<Route>, parent: &EgressParent) -> Condition {
        match (self.takes_egress(route, parent), &route.invalid) {
            (Err(why), _) => {
                let reason = match why {
                    NotTaken::NoNetwork => "NoMatchingParent",
                    NotTaken::Elsewhere => "NotAllowedByParent",
                    NotTaken::Behind(_) => "RouteReasonConflicted",
                };
                Condition::no(reason, why.message(parent))
            }
            (Ok(()), Some(why)) => Condition::no("UnsupportedValue", why.clone()),
            (Ok(()), None) => Condition::yes("Accepted"),
        }
    }

    fn accepted(&self, route: &Object<Route>, parent: &ServiceParent) -> Condition {
        match (self.attaches(route, parent), &route.invalid) {
            (Err(why), _) => {
                let reason = match why {
                    NotAttached::Full => "UnsupportedValue",
                    _ => "NoMatchingParent",
                };
                Condition::no(reason, why.message(parent))
            }
            (Ok(()), Some(why)) => Condition::no("UnsupportedValue", why.clone()),
            (Ok(()), None) => Condition::yes("Accepted"),
        }
    }

    /// The first backend that cannot be used says why.
    fn resolved(&self, route: &Object<Route>, parent: &ServiceParent) -> Condition {
        for backend in backends(route) {
            if let Err(why) = self.resolves(route, [&parent.key], backend) {
                let reason = match why {
                    Unresolved::Kind => "InvalidKind",
                    Unresolved::NotPermitted => "RefNotPermitted",
                    Unresolved::NoService | Unresolved::NoPort | Unresolved::InvalidService => {
                        "BackendNotFound"
                    }
                };
                return Condition::no(reason, why.message(backend));
            }
        }
        Condition::yes("ResolvedRefs")
    }
}

fn backends(route: &Object<Route>) -> impl Iterator<Item = &BackendRef> {
    let rules = route.spec.rules.iter();
    rules.flat_map(|rule| rule.outbound.backend_refs())
}

/// What is wrong with routes that attach to Services, and with the annotations of both.
pub(super) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    for service in &index.resources.services {
        patience(service, findings);
        breaker(service, findings);
        let problems = ReadBalancing::of(&service.annotations).problems;
        for problem in problems.into_iter().chain(zones::stays(service).err()) {
            Index::note(findings, Code::BadPatience, service, problem);
        }
    }
    for workload in &index.workloads {
        if let Err(problem) = balancing::weight(&workload.labels) {
            let object = workload.reference();
            let source = object.source.clone();
            findings.push(finding(Code::BadPatience, problem, Some(object), source));
        }
    }
    let routes = index.resources.routes.iter();
    for route in routes.filter(|route| !route.spec.services.is_empty()) {
        patience(route, findings);
        parents(index, route, findings);
        references(index, route, findings);
        rules(route, findings);
    }
}

fn patience<T>(object: &Object<T>, findings: &mut Vec<Finding>) {
    let read = Patience::of(&object.annotations);
    for problem in read.problems {
        Index::note(findings, Code::BadPatience, object, problem);
    }
    for name in read.not_applied {
        let message = format!("`{name}` is not applied");
        Index::note(findings, Code::NotEnforced, object, message);
    }
}

fn breaker(service: &Object<Service>, findings: &mut Vec<Finding>) {
    let read = Breaker::of(&service.annotations);
    for problem in read.problems {
        Index::note(findings, Code::BadPatience, service, problem);
    }
    for what in read.not_applied {
        let message = format!("{what} is not applied");
        Index::note(findings, Code::NotEnforced, service, message);
    }
}

fn parents(index: &Index, route: &Object<Route>, findings: &mut Vec<Finding>) {
    for parent in &route.spec.services {
        if let Err(why) = index.attaches(route, parent) {
            findings.push(finding(
                Code::NotAttached,
                why.message(parent),
                Some(route.reference()),
                parent.source.clone(),
            ));
        }
    }
    if !route.spec.hostnames.is_empty() {
        let message = "`spec.hostnames` says nothing on a Service: its requests are known by where they were sent";
        Index::note(findings, Code::NotEnforced, route, message.to_owned());
    }
}

fn references(index: &Index, route: &Object<Route>, findings: &mut Vec<Finding>) {
    let keys = || -> Vec<&Key> {
        route
            .spec
            .services
            .iter()
            .map(|parent| &parent.key)
            .collect()
    };
    for backend in backends(route) {
        if let Err(why) = index.resolves(route, keys(), backend) {
            findings.push(finding(
                why.code(),
                why.message(backend),
                Some(route.reference()),
                backend.source.clone(),
            ));
        }
    }
}

/// Rules that answer every request with an error.
fn rules(route: &Object<Route>, findings: &mut Vec<Finding>) {
    for (number, rule) in route.spec.rules.iter().enumerate() {
        let outbound = &rule.outbound;
        let redirects = outbound
            .filters
            .iter()
            .any(|one| matches!(one, OutboundFilter::Plain(TrafficFilter::Redirect { .. })));
        let nowhere = outbound
            .backends
            .as_ref()
            .is_some_and(|all| all.iter().all(|one| one.weight == 0));
        if outbound.session.is_some() && Patience::of(&route.annotations).hedges() {
            let message = format!(
                "rule {number} has sessions, which a second try would break: it is not hedged"
            );
            Index::note(findings, Code::NotEnforced, route, message);
        }
        if nowhere && !redirects {
            let message =
                format!("rule {number} has no backend with a weight: its requests get 500");
            Index::note(findings, Code::NoBackend, route, message);
        }
    }
}
