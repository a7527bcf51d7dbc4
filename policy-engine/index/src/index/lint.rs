//! What is wrong or doubtful between objects: references to nothing, objects without effect, routes that undo each other.

mod surplus;

use super::annotations::{DEFAULT_POLICY, OPAQUE_PORTS, REQUIRE_IDENTITY, default_policy};
use super::routes::{canonical_path, takes};
use super::snapshot::{claims, in_force};
use super::{Index, route_key};
use crate::finding::{Code, finding};
use crate::manifest::resource::{
    Key, KeyRef, Object, ProbeTarget, RateLimit, Route, Selects, Server, Target,
};
use crate::map::{HashMap, HashSet};
use mesh_policy::snapshot::{
    Finding, PathMatch, PathOptions, RouteMatch, ServerProtocol, TextMatch,
};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use surplus::surplus;

/// Adds the findings of the whole.
pub(crate) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    let mut lint = Lint::new(index, findings);
    lint.annotations();
    lint.servers();
    lint.policies();
    lint.server_authorizations();
    lint.routes();
    lint.rate_limits();
    lint.faults();
    lint.probes();
    lint.other_protocols();
}

/// Port of UDP at which names are asked for.
const DNS: u16 = 53;

struct Lint<'a> {
    index: &'a Index,
    findings: &'a mut Vec<Finding>,
    servers: HashMap<&'a Key, &'a Object<Server>>,
}

impl<'a> Lint<'a> {
    fn new(index: &'a Index, findings: &'a mut Vec<Finding>) -> Self {
        let mut servers = HashMap::default();
        for server in &index.resources.servers {
            servers.entry(&server.key).or_insert(&**server);
        }
        Self {
            index,
            findings,
            servers,
        }
    }

    fn note<T>(&mut self, code: Code, object: &Object<T>, message: String) {
        Index::note(self.findings, code, object, message);
    }

    fn annotations(&mut self) {
        for namespace in &self.index.resources.namespaces {
            for setting in [DEFAULT_POLICY, REQUIRE_IDENTITY, OPAQUE_PORTS] {
                if let Some(said) = setting.said(&namespace.annotations) {
                    setting.compare(said, namespace, self.findings);
                }
            }
            let said = DEFAULT_POLICY.said(&namespace.annotations);
            if let Some(Err(why)) = said.map(default_policy) {
                let message = format!("{why}: the default policy of this namespace is `deny`");
                self.note(Code::BadDefault, namespace, message);
            }
        }
        for service in &self.index.resources.services {
            if let Some(said) = OPAQUE_PORTS.said(&service.annotations) {
                OPAQUE_PORTS.compare(said, service, self.findings);
            }
        }
    }

    fn servers(&mut self) {
        let index = self.index;
        let mut effective: HashSet<&Key> = HashSet::default();
        let mut lost: HashMap<&Key, String> = HashMap::default();
        for workload in &index.workloads {
            for (port, claimed) in claims(index, workload) {
                let Some((winner, others)) = claimed.split_first() else {
                    continue;
                };
                effective.insert(&winner.key);
                for other in others {
                    lost.entry(&other.key).or_insert_with(|| {
                        format!("{} speaks for port {port} of {}/{} first: it is older, or earlier by name", winner.title(), workload.key.namespace, workload.key.name)
                    });
                }
            }
        }
        for server in &index.resources.servers {
            if let Some(why) = &server.invalid
                && server.spec.selects.is_some()
                && server.spec.port.is_some()
            {
                let message = format!(
                    "{} is invalid and denies everything on the ports that it selects: {why}",
                    server.title()
                );
                self.note(Code::ServerDenies, server, message);
            }
            if let Some(why) = lost.get(&server.key) {
                self.note(
                    Code::ShadowedServer,
                    server,
                    format!("{} is shadowed: {why}", server.title()),
                );
            } else if server.spec.selects == Some(Selects::External) {
                let message = format!(
                    "{} selects ExternalWorkloads, to which no policy is served",
                    server.title()
                );
                self.note(Code::NotEnforced, server, message);
            } else if !effective.contains(&server.key) {
                self.note(
                    Code::IdleServer,
                    server,
                    format!("{} selects no port of any pod", server.title()),
                );
            }
        }
    }

    /// Ports of UDP and SCTP, for which there is no policy.
    fn other_protocols(&mut self) {
        let index = self.index;
        // Few pods have any.
        let odd: Vec<_> = index
            .workloads
            .iter()
            .filter(|workload| !workload.pod.other_ports.is_empty())
            .collect();
        for server in &index.resources.servers {
            let (Some(Selects::Pods(selector)), Some(port)) =
                (&server.spec.selects, &server.spec.port)
            else {
                continue;
            };
            let mut pods = odd.iter().filter(|workload| {
                workload.key.namespace == server.key.namespace && selector.matches(&workload.labels)
            });
            let found = pods.find_map(|workload| Some((workload, workload.other_port(port)?)));
            if let Some((workload, other)) = found {
                let message = format!(
                    "{} selects port {} of {}/{}, which is declared as {}: policy is for TCP alone, and datagrams are refused where connections are captured",
                    server.title(),
                    other.port,
                    workload.key.namespace,
                    workload.key.name,
                    other.protocol
                );
                self.note(Code::OtherProtocol, server, message);
            }
        }
        for service in &index.resources.services {
            // Everybody asks for names.
            let ports = service.spec.other_ports.iter();
            for other in ports.filter(|other| (other.protocol, other.port) != ("UDP", DNS)) {
                let name = other
                    .name
                    .as_ref()
                    .map_or(String::new(), |name| format!(" (`{name}`)"));
                let message = format!(
                    "{}: port {}{name} is of {}: what is sent there has no identity, no policy sees it, and captured workloads do not send it",
                    service.title(),
                    other.port,
                    other.protocol
                );
                self.note(Code::OtherProtocol, service, message);
            }
        }
    }

    /// An object of nearly that name, for the hint.
    fn near_name(&self, key: KeyRef<'_>, names: impl Iterator<Item = &'a Key>) -> String {
        let near = names
            .filter(|k| k.namespace == key.namespace)
            .find(|k| k.name.eq_ignore_ascii_case(key.name));
        near.map_or(String::new(), |k| format!(" (there is `{}`)", k.name))
    }

    fn dangling<T>(&mut self, object: &Object<T>, kind: &str, key: KeyRef<'_>, near: &str) {
        let message = format!(
            "{} refers to {kind} {}/{}, which does not exist{near}",
            object.title(),
            key.namespace,
            key.name
        );
        self.findings.push(finding(
            Code::Dangling,
            message,
            Some(object.reference()),
            object.source.clone(),
        ));
    }

    fn policies(&mut self) {
        let index = self.index;
        let routes: HashSet<_> = index
            .resources
            .routes
            .iter()
            .map(|route| route_key(route))
            .collect();
        for policy in &index.resources.authorization_policies {
            match &policy.spec.target {
                Some(Target::Server(name)) => {
                    let key = KeyRef::new(&policy.key.namespace, name);
                    if !self.servers.contains_key(&key) {
                        let near = self.near_name(key, self.servers.keys().copied());
                        self.dangling(policy, "Server", key, &near);
                    }
                }
                Some(Target::Route { group, kind, name }) => {
                    let key = Key::new(&policy.key.namespace, name);
                    if !routes.contains(&(*group, *kind, key.clone())) {
                        let key = KeyRef::from(&key);
                        let near =
                            self.near_name(key, index.resources.routes.iter().map(|r| &r.key));
                        self.dangling(policy, &format!("{kind}.{group}"), key, &near);
                    }
                }
                Some(Target::Namespace) if !index.servers.contains_key(&policy.key.namespace) => {
                    let message = format!(
                        "{} covers the Servers of its namespace, which has none: it grants nothing",
                        policy.title()
                    );
                    self.note(Code::NoServer, policy, message);
                }
                _ => {}
            }
        }
    }

    fn server_authorizations(&mut self) {
        let index = self.index;
        for policy in &index.resources.server_authorizations {
            match &policy.spec.target {
                Some(Target::Server(name)) => {
                    let key = KeyRef::new(&policy.key.namespace, name);
                    if !self.servers.contains_key(&key) {
                        let near = self.near_name(key, self.servers.keys().copied());
                        self.dangling(policy, "Server", key, &near);
                    }
                }
                Some(Target::Servers(selector)) => {
                    let mut servers = index
                        .resources
                        .servers
                        .iter()
                        .filter(|s| s.key.namespace == policy.key.namespace);
                    if !servers.any(|s| selector.matches(&s.labels)) {
                        self.note(
                            Code::NoServer,
                            policy,
                            format!("{} selects no Server: it grants nothing", policy.title()),
                        );
                    }
                }
                _ => {}
            }
        }
    }

    fn routes(&mut self) {
        let index = self.index;
        for route in &index.resources.routes {
            for parent in &route.spec.servers {
                let key = KeyRef::new(&route.key.namespace, &parent.name);
                let Some(server) = self.servers.get(&key).copied() else {
                    let near = self.near_name(key, self.servers.keys().copied());
                    self.dangling(route, "Server", key, &near);
                    continue;
                };
                if !takes(server.spec.protocol, route) {
                    let protocol = protocol_name(server.spec.protocol);
                    let message = format!(
                        "{} has no effect on {}, whose protocol is `{protocol}`",
                        route.title(),
                        server.title()
                    );
                    self.findings.push(finding(
                        Code::IdleRoute,
                        message,
                        Some(route.reference()),
                        parent.source.clone(),
                    ));
                    continue;
                }
                self.dead_paths(route, server.spec.paths, server);
            }
        }
        let mut attached: Vec<(&Key, &Vec<usize>)> = index.routes.iter().collect();
        attached.sort();
        for (key, numbers) in attached {
            let Some(server) = self.servers.get(key).copied() else {
                continue;
            };
            let routes = attached_routes(index, numbers, server);
            // Pairs: bounded, so that a thousand routes on one Server do not cost a million comparisons.
            for winner in routes.iter().take(64) {
                for loser in routes.iter().take(64) {
                    self.shadow(winner, loser, server);
                }
            }
        }
    }

    fn dead_paths(&mut self, route: &Object<Route>, options: PathOptions, server: &Object<Server>) {
        for one in route.spec.rules.iter().flat_map(|r| &r.matches) {
            if let PathMatch::Exact(path) | PathMatch::Prefix(path) = &one.path
                && canonical_path(path, options).is_none()
            {
                let message = format!(
                    "{} matches `{path}`, a path that every request to {} is refused for",
                    route.title(),
                    server.title()
                );
                self.note(Code::DeadPath, route, message);
            }
        }
    }

    /// Ids of policies that grant a route alone.
    fn grants_of(&self, route: &Object<Route>) -> BTreeSet<usize> {
        let numbers = self
            .index
            .policies
            .by_route
            .get(&route_key(route))
            .into_iter()
            .flatten()
            .copied();
        numbers
            .filter(|n| {
                self.index
                    .authorities
                    .policies
                    .get(*n)
                    .is_some_and(Option::is_some)
            })
            .collect()
    }

    /// Whom each of these policies admits, for comparison.
    fn admits(&self, route: &Object<Route>) -> BTreeSet<String> {
        let policies = self.grants_of(route);
        let authorities = policies
            .iter()
            .filter_map(|n| self.index.authorities.policies.get(*n)?.as_ref());
        authorities
            .map(|a| format!("{:?} {:?}", a.who, a.networks))
            .collect()
    }

    fn shadow(&mut self, winner: &Object<Route>, loser: &Object<Route>, server: &Object<Server>) {
        if winner.key == loser.key && winner.group == loser.group {
            return;
        }
        let why = winner
            .spec
            .rules
            .iter()
            .flat_map(|r| &r.matches)
            .take(32)
            .find_map(|w| {
                let mut others = loser.spec.rules.iter().flat_map(|r| &r.matches).take(32);
                others.find_map(|l| outranks(winner, w, loser, l))
            });
        let Some(why) = why else { return };
        let (more, less) = (self.admits(winner), self.admits(loser));
        if !more.is_subset(&less) {
            let message = format!(
                "on {}, {} takes requests that {} is written for ({why}), and admits others",
                server.title(),
                winner.title(),
                loser.title()
            );
            self.note(Code::RouteShadow, winner, message);
        }
    }

    fn rate_limits(&mut self) {
        let index = self.index;
        for limit in &index.resources.rate_limits {
            let Some(name) = &limit.spec.server else {
                continue;
            };
            let key = Key::new(&limit.key.namespace, name);
            let Some(server) = self.servers.get(&key).copied() else {
                let key = KeyRef::from(&key);
                let near = self.near_name(key, self.servers.keys().copied());
                self.dangling(limit, "Server", key, &near);
                continue;
            };
            let same: Vec<&Object<RateLimit>> = index
                .rate_limits
                .get(&key)
                .into_iter()
                .flatten()
                .filter_map(|n| index.resources.rate_limits.get(*n))
                .map(Arc::as_ref)
                .collect();
            let counts = in_force(&same).map(|l| &l.key);
            if counts != Some(&limit.key) {
                let other = in_force(&same).map(|l| l.title()).unwrap_or_default();
                self.note(
                    Code::IdleRateLimit,
                    limit,
                    format!(
                        "{} has no effect: {other} limits {} already",
                        limit.title(),
                        server.title()
                    ),
                );
            } else if server.spec.protocol.carries_bytes() {
                self.note(
                    Code::IdleRateLimit,
                    limit,
                    format!(
                        "{} has no effect: {} carries bytes, not requests",
                        limit.title(),
                        server.title()
                    ),
                );
            } else if limit.spec.total.is_none()
                && limit.spec.identity.is_none()
                && limit.spec.overrides.is_empty()
            {
                self.note(
                    Code::IdleRateLimit,
                    limit,
                    format!("{} sets no limit", limit.title()),
                );
            }
        }
    }

    /// Says of each fault what it does, or why it does nothing.
    fn faults(&mut self) {
        let index = self.index;
        for fault in &index.resources.faults {
            let Some(name) = &fault.spec.server else {
                continue;
            };
            let key = KeyRef::new(&fault.key.namespace, name);
            let Some(server) = self.servers.get(&key).copied() else {
                let near = self.near_name(key, self.servers.keys().copied());
                self.dangling(fault, "Server", key, &near);
                continue;
            };
            if let Some((code, message)) = index.about_fault(fault, server) {
                self.note(code, fault, message);
            }
        }
    }

    fn probes(&mut self) {
        for workload in &self.index.workloads {
            for probe in &workload.pod.probes {
                let why = match &probe.kind {
                    _ if workload.probe_port(probe).is_none() => {
                        "its port is no port of its container".to_owned()
                    }
                    ProbeTarget::Http(path)
                        if canonical_path(path, PathOptions::default()).as_ref() != Some(path) =>
                    {
                        format!("its path `{path}` is not in canonical form")
                    }
                    _ => continue,
                };
                let message = format!(
                    "a probe of {}/{} is not let through unauthenticated: {why}",
                    workload.key.namespace, workload.key.name
                );
                self.findings.push(finding(
                    Code::DeadProbe,
                    message,
                    Some(workload.reference()),
                    probe.source.clone(),
                ));
            }
        }
    }
}

/// The valid routes among these that a Server takes.
fn attached_routes<'i>(
    index: &'i Index,
    numbers: &[usize],
    server: &Object<Server>,
) -> Vec<&'i Object<Route>> {
    let routes = numbers
        .iter()
        .filter_map(|n| index.resources.routes.get(*n));
    let routes = routes.map(Arc::as_ref);
    routes
        .filter(|r| r.invalid.is_none() && takes(server.spec.protocol, r))
        .collect()
}

fn protocol_name(protocol: ServerProtocol) -> &'static str {
    match protocol {
        ServerProtocol::Unknown => "unknown",
        ServerProtocol::Http1 => "HTTP/1",
        ServerProtocol::Http2 => "HTTP/2",
        ServerProtocol::Grpc => "gRPC",
        ServerProtocol::Opaque => "opaque",
        ServerProtocol::Tls => "TLS",
    }
}

/// Why the first match takes requests that the second is the closer description of, in the cases that surprise.
fn outranks(
    winner: &Object<Route>,
    w: &RouteMatch,
    loser: &Object<Route>,
    l: &RouteMatch,
) -> Option<&'static str> {
    if !is_path_alone(w) {
        return None;
    }
    let hosts_win = more_specific_hosts(&winner.spec.hostnames, &loser.spec.hostnames);
    let same_hosts =
        winner.spec.hostnames == loser.spec.hostnames || winner.spec.hostnames.is_empty();
    match (&w.path, &l.path) {
        (PathMatch::Prefix(broad), PathMatch::Exact(narrow) | PathMatch::Prefix(narrow))
            if hosts_win && covers(broad, narrow) =>
        {
            Some("its hostname is the more specific one, and hostnames come before paths")
        }
        (
            PathMatch::Rpc { service, method },
            PathMatch::Rpc {
                service: s,
                method: m,
            },
        ) if hosts_win && names(service, s) && names(method, m) => {
            Some("its hostname is the more specific one, and hostnames come before services")
        }
        (PathMatch::Prefix(broad), PathMatch::Regex(_))
            if (same_hosts || hosts_win) && broad == "/" =>
        {
            Some("a regular expression ranks below every prefix")
        }
        (PathMatch::Prefix(_), PathMatch::Prefix(_))
        | (PathMatch::Exact(_), PathMatch::Exact(_))
        | (PathMatch::Rpc { .. }, PathMatch::Rpc { .. })
            if w.path == l.path && same_hosts && !hosts_win && is_path_alone(l) =>
        {
            let older = (winner.created, &winner.key, winner.group)
                < (loser.created, &loser.key, loser.group);
            older.then_some("both match the same, and it is older or earlier by name")
        }
        _ => None,
    }
}

/// Whether a match looks at nothing but the path. Every gRPC call is a `POST`.
fn is_path_alone(one: &RouteMatch) -> bool {
    let any_method = one.method.is_none() || matches!(one.path, PathMatch::Rpc { .. });
    any_method && one.headers.is_empty() && one.query.is_empty()
}

/// Whether a part of a gRPC match takes all that another does: not named, or named alike.
fn names(broad: &Option<TextMatch>, narrow: &Option<TextMatch>) -> bool {
    broad.is_none() || broad == narrow
}

fn covers(broad: &str, narrow: &str) -> bool {
    let broad = broad.trim_end_matches('/');
    narrow
        .strip_prefix(broad)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn more_specific_hosts(a: &[String], b: &[String]) -> bool {
    !a.is_empty()
        && (b.is_empty()
            || (a.iter().all(|h| !h.starts_with('*')) && b.iter().all(|h| h.starts_with('*'))))
}
