//! Linkerd's resources, which this mesh reads as they are: where they mean something else here.
//!
//! The differences are the mesh's settled readings, each stricter than Linkerd or plainly named as wider. What a finding of
//! the index tells already is turned into words about the change; the rest is looked up in snapshots, so that a fact is
//! about what would be decided, and not about what the text looks like.

use super::report::{Fact, FactPlace, Report, Status};
use super::{ImportError, LinkerdConfig, OTHERWISE, describe_probe};
use crate::Mode;
use crate::finding::Code;
use crate::index::{Index, IndexConfig, Workload};
use crate::manifest::resource::{Object, ProbeTarget, Route, Selects, Server};
use crate::manifest::{Loaded, load};
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{
    Finding, PathMatch, PortPolicy, ServerProtocol, Severity, SnapshotData, Source, Who,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Less is allowed than under Linkerd.
const NARROWER: &str = "MESH-0348";

/// Findings that mean that a document cannot be read: they end the check.
const UNREADABLE: [Code; 5] = [
    Code::Syntax,
    Code::Limit,
    Code::DuplicateKey,
    Code::Refused,
    Code::UnknownDocument,
];

/// Compares the meaning of Linkerd's resources there and here.
///
/// # Errors
/// [`ImportError::Input`] if a document cannot be read at all.
pub(super) fn check(
    files: &[(String, Vec<u8>)],
    config: &LinkerdConfig,
) -> Result<Report, ImportError> {
    let loaded = load(files.iter().cloned());
    let unreadable = |f: &&Finding| UNREADABLE.iter().any(|code| code.text() == f.code);
    let findings: Vec<Finding> = loaded.findings.iter().filter(unreadable).cloned().collect();
    if !findings.is_empty() {
        return Err(ImportError::Input { findings });
    }
    let settings = IndexConfig {
        default_policy: config.default_policy,
        ..IndexConfig::new(config.trust_domain.clone())
    };
    let index = Index::build(&loaded, &settings);
    let mut checker = Checker {
        config,
        facts: Vec::new(),
    };
    for finding in index.findings() {
        checker.finding(finding);
    }
    checker.routes(&loaded);
    let mut servers = BTreeMap::new();
    for workload in index.workload_list() {
        if let Some(snapshot) = index.snapshot(&workload.key, Generation::default()) {
            checker.default_policy(workload, &snapshot);
            checker.probes(workload, &snapshot);
            servers_of(&snapshot, &mut servers);
        }
    }
    for server in &loaded.resources.servers {
        checker.server(server, &servers);
    }
    checker.unchanged(&loaded);
    Ok(Report::new("linkerd", checker.facts, Vec::new()))
}

/// What the snapshots say of one Server, over all ports that it speaks for.
#[derive(Default)]
struct InForce {
    /// Some grant covers the whole Server.
    granted: bool,
    /// Some grant covers it without identity, for the pod's own addresses.
    open_to_localhost: bool,
    routed: bool,
    limited: bool,
}

fn servers_of(snapshot: &SnapshotData, servers: &mut BTreeMap<(String, String), InForce>) {
    for policy in snapshot.ports.values().filter(|p| !p.server.default) {
        let key = (policy.server.namespace.clone(), policy.server.name.clone());
        let entry = servers.entry(key).or_default();
        entry.routed |= !policy.routes.is_empty();
        entry.limited |= policy.l7_limits;
        for grant in grants(snapshot, policy) {
            let of_route = matches!(grant.scope, mesh_policy::snapshot::Scope::Route { .. });
            entry.granted |= !of_route;
            let from_localhost = grant.networks.as_ref().is_none_or(|set| {
                snapshot.network_sets.get(set).is_some_and(|set| {
                    ["127.0.0.1", "::1"]
                        .iter()
                        .filter_map(|ip| ip.parse::<IpAddr>().ok())
                        .all(|ip| {
                            set.networks.iter().any(|n| {
                                n.cidr.contains(&ip) && !n.except.iter().any(|e| e.contains(&ip))
                            })
                        })
                })
            });
            entry.open_to_localhost |= !of_route && grant.who == Who::Anyone && from_localhost;
        }
    }
}

fn grants<'s>(
    snapshot: &'s SnapshotData,
    policy: &'s PortPolicy,
) -> impl Iterator<Item = &'s mesh_policy::snapshot::Grant> {
    policy
        .grants
        .iter()
        .filter_map(|at| snapshot.grants.get(usize::try_from(*at).ok()?))
}

struct Checker<'a> {
    config: &'a LinkerdConfig,
    facts: Vec<Fact>,
}

impl Checker<'_> {
    fn add(
        &mut self,
        code: &'static str,
        object: String,
        source: &Source,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let status = if code == NARROWER {
            Status::KeptStricter
        } else {
            Status::NotKept
        };
        self.facts.push(Fact {
            place: FactPlace::from(source),
            status,
            code: Some(code),
            object,
            part: None,
            message: message.into(),
            became: Vec::new(),
            hint: Some(hint.into()),
        });
    }

    /// A finding of the index, as the change that it means.
    fn finding(&mut self, finding: &Finding) {
        let object = finding.object.as_ref().map_or_else(
            || "document".to_owned(),
            |o| {
                if o.namespace.is_empty() {
                    format!("{} {}", o.kind, o.name)
                } else {
                    format!("{} {}/{}", o.kind, o.namespace, o.name)
                }
            },
        );
        let kind = finding.object.as_ref().map_or("", |o| o.kind.as_str());
        let default = self.config.linkerd_default;
        let is = |code: Code| finding.code == code.text();
        let said = finding.message.as_str();
        let own_hint = finding.hint.clone().unwrap_or_default();
        let narrower = |message: String, hint: &str| Some((NARROWER, message, hint.to_owned()));
        let change = if is(Code::NoAuthentication) && kind == "AuthorizationPolicy" {
            narrower(
                "an empty `requiredAuthenticationRefs` admits everyone in Linkerd, and grants nothing here".to_owned(),
                "say that you mean it, in `metadata.annotations`: mesh.internal/allow-unauthenticated: \"<reason>\"",
            )
        } else if is(Code::NoAuthentication) {
            // Linkerd ignores a ServerAuthorization without clients too.
            None
        } else if is(Code::BadDefault) {
            narrower(
                format!(
                    "{said}; Linkerd warns and takes the cluster's default policy (`{default}`)"
                ),
                &format!("write config.linkerd.io/default-inbound-policy: {default}"),
            )
        } else if is(Code::BadPortList) && said.contains("identity") {
            narrower(
                format!("{said}; Linkerd takes the list for empty"),
                "write ports, ranges or names of container ports, or remove the annotation",
            )
        } else if is(Code::UnknownField) {
            narrower(
                format!(
                    "{said}: Kubernetes drops the field and Linkerd reads the rest; here the object is invalid, and grants nothing or closes"
                ),
                &own_hint,
            )
        } else if is(Code::MatchesNobody) {
            narrower(
                format!("{said}; Linkerd matches any text of DNS form, whatever its suffix"),
                &format!(
                    "write spiffe://{}/ns/<namespace>/* for a namespace, spiffe://<trust domain>/ns/<namespace>/sa/<account> for one workload",
                    self.config.trust_domain
                ),
            )
        } else if is(Code::Wildcard) {
            let message = "`*` means every client whose certificate has a DNS name in Linkerd; here it means every verified identity of the mesh's trust domain and of each Federation with `includeInWildcards`, those with a SPIFFE ID (external workloads) too";
            Some((
                OTHERWISE,
                message.to_owned(),
                "name identities, ServiceAccounts or a Namespace".to_owned(),
            ))
        } else if is(Code::DeadPath) {
            narrower(
                format!("{said}; Linkerd compares paths as they come"),
                &own_hint,
            )
        } else if is(Code::DeadProbe) {
            narrower(format!("{said}; Linkerd lets it through"), &own_hint)
        } else if is(Code::NotEnforced) {
            Some((
                OTHERWISE,
                format!("{said}; Linkerd enforces it"),
                own_hint.clone(),
            ))
        } else if is(Code::RouteShadow) {
            Some((
                OTHERWISE,
                format!("{said}; Linkerd ranks routes by the length that they match"),
                own_hint.clone(),
            ))
        } else if finding.severity == Severity::Error && is_of_policy(kind) && !is(Code::Dangling) {
            narrower(
                format!(
                    "{said}; Linkerd's admission may refuse it, or let it pass and keep what it had; here it grants nothing or closes"
                ),
                &own_hint,
            )
        } else if is(Code::NamespaceClosed) || is(Code::ServerDenies) {
            narrower(format!("{said}; Linkerd reads what it can"), &own_hint)
        } else {
            None
        };
        if let Some((code, message, hint)) = change {
            self.add(code, object, &finding.source, message, hint);
        }
    }

    /// Ports that no Server speaks for.
    fn default_policy(&mut self, workload: &Workload, snapshot: &SnapshotData) {
        let (ours, theirs) = (workload.mode, self.config.linkerd_default);
        let set_here = matches!(workload.mode_source, Source::BuiltIn(_));
        if !set_here || ours == theirs {
            return;
        }
        let open: Vec<String> = workload
            .pod
            .ports
            .iter()
            .filter(|p| {
                snapshot
                    .ports
                    .get(&p.port)
                    .is_some_and(|p| p.server.default)
            })
            .map(|p| p.port.to_string())
            .collect();
        let ports = if open.is_empty() {
            "ports that it does not declare".to_owned()
        } else {
            format!("{} and ports that it does not declare", open.join(", "))
        };
        let message = format!(
            "no Server speaks for {ports}: the default policy was `{theirs}` and is `{ours}` here"
        );
        let hint = format!(
            "write Servers and AuthorizationPolicies; for the old access, annotate its pods or namespace with config.linkerd.io/default-inbound-policy: {theirs}"
        );
        let narrower =
            ours == Mode::Deny || theirs == Mode::AllUnauthenticated || theirs == Mode::Audit;
        let code = if narrower { NARROWER } else { OTHERWISE };
        self.add(
            code,
            title_of(workload),
            &workload.info.source,
            message,
            hint,
        );
    }

    /// Probes: Linkerd knows those of HTTP, and only while no route is attached.
    fn probes(&mut self, workload: &Workload, snapshot: &SnapshotData) {
        for probe in &workload.pod.probes {
            let Some(port) = workload.probe_port(probe) else {
                continue;
            };
            let Some(policy) = snapshot.ports.get(&port) else {
                continue;
            };
            let title = title_of(workload);
            let what = describe_probe(&probe.kind, port);
            if policy.server.invalid.is_some() {
                continue;
            }
            if matches!(probe.kind, ProbeTarget::Http(_)) && !policy.routes.is_empty() {
                let message = format!(
                    "{what} stays open without identity though routes are attached to Server {}; Linkerd closes it then",
                    policy.server.name
                );
                self.add(OTHERWISE, title.clone(), &probe.source, message, "a route and NetworkAuthentication for it can go; to close it, take the probe out of the pod, or forbid its path in a CedarPolicy");
            } else if !matches!(probe.kind, ProbeTarget::Http(_))
                && policy.server.mode == Mode::Deny.as_str()
            {
                let message = format!(
                    "{what} is let through without identity; Linkerd knows probes of HTTP only"
                );
                self.add(
                    OTHERWISE,
                    title.clone(),
                    &probe.source,
                    message,
                    "nothing is to be done if the probe is meant",
                );
            }
            if !workload.pod.host_ips.is_empty() {
                let message = format!(
                    "{what} is let through from the node's address only; Linkerd takes it from the probe networks, by default from everywhere"
                );
                self.add(
                    NARROWER,
                    title,
                    &probe.source,
                    message,
                    "for probes from elsewhere, grant their path with a NetworkAuthentication",
                );
            }
        }
    }

    fn server(&mut self, server: &Object<Server>, servers: &BTreeMap<(String, String), InForce>) {
        let title = server.title();
        if server.spec.selects == Some(Selects::External) {
            let message = "Servers of external workloads are checked, but not enforced here; Linkerd enforces them";
            return self.add(
                OTHERWISE,
                title,
                &server.source,
                message,
                "write the policy for the machine's own proxy",
            );
        }
        let Some(found) = servers.get(&(server.key.namespace.clone(), server.key.name.clone()))
        else {
            return;
        };
        if server.invalid.is_some() {
            return;
        }
        if !found.open_to_localhost {
            let message = "clients at 127.0.0.1 and ::1 (other containers of the pod) are always admitted by Linkerd, and not here";
            let hint = "for the old access, write a NetworkAuthentication with 127.0.0.1/32 and ::1/128, and an AuthorizationPolicy on this Server that requires it";
            self.add(NARROWER, title.clone(), &server.source, message, hint);
        }
        if server.spec.protocol == ServerProtocol::Unknown
            && found.granted
            && (found.routed || found.limited)
        {
            let message = "bytes that are no HTTP request are refused, for routes or rate limits are attached; Linkerd lets them past both";
            self.add(
                NARROWER,
                title,
                &server.source,
                message,
                "if the port carries bytes, write `proxyProtocol: opaque` and remove the routes",
            );
        }
    }

    /// Linkerd ranks routes by the length that they match, whatever the kind of match.
    fn routes(&mut self, loaded: &Loaded) {
        let routes = &loaded.resources.routes;
        for route in routes.iter().filter(|r| r.invalid.is_none()) {
            let siblings =
                |other: &&Object<Route>| {
                    other.key.namespace == route.key.namespace
                        && (&other.key, other.group) != (&route.key, route.group)
                        && other.spec.servers.iter().any(|parent| {
                            route.spec.servers.iter().any(|own| own.name == parent.name)
                        })
                };
            let others: Vec<&Object<Route>> =
                routes.iter().map(Arc::as_ref).filter(siblings).collect();
            let paths = |route: &Object<Route>| -> Vec<PathMatch> {
                route
                    .spec
                    .rules
                    .iter()
                    .flat_map(|r| &r.matches)
                    .map(|m| m.path.clone())
                    .collect()
            };
            let own = paths(route);
            let regex = own.iter().any(|p| matches!(p, PathMatch::Regex(_)));
            if regex && !others.is_empty() {
                let message = "its regular expression ranks below every prefix of other routes on the Server; in Linkerd it ranks by the length that it matches";
                let hint = "write prefixes or exact paths, or one route with all matches";
                self.add(OTHERWISE, route.title(), &route.source, message, hint);
            }
        }
    }

    /// Policy objects of which nothing else was said.
    fn unchanged(&mut self, loaded: &Loaded) {
        let told: BTreeSet<String> = self.facts.iter().map(|f| f.object.clone()).collect();
        let resources = &loaded.resources;
        let mut objects: Vec<(String, &Source)> = Vec::new();
        objects.extend(resources.servers.iter().map(|o| (o.title(), &o.source)));
        objects.extend(
            resources
                .server_authorizations
                .iter()
                .map(|o| (o.title(), &o.source)),
        );
        objects.extend(
            resources
                .authorization_policies
                .iter()
                .map(|o| (o.title(), &o.source)),
        );
        objects.extend(resources.mesh_tls.iter().map(|o| (o.title(), &o.source)));
        objects.extend(
            resources
                .network_authentications
                .iter()
                .map(|o| (o.title(), &o.source)),
        );
        objects.extend(resources.routes.iter().map(|o| (o.title(), &o.source)));
        objects.extend(resources.rate_limits.iter().map(|o| (o.title(), &o.source)));
        for (object, source) in objects {
            if told.contains(&object) {
                continue;
            }
            self.facts.push(Fact {
                place: FactPlace::from(source),
                status: Status::Kept,
                code: None,
                object,
                part: None,
                message: "it means the same here".to_owned(),
                became: Vec::new(),
                hint: None,
            });
        }
    }
}

fn is_of_policy(kind: &str) -> bool {
    [
        "Server",
        "ServerAuthorization",
        "AuthorizationPolicy",
        "MeshTLSAuthentication",
        "NetworkAuthentication",
        "HTTPLocalRateLimitPolicy",
        "HTTPRoute",
        "GRPCRoute",
    ]
    .contains(&kind)
}

fn title_of(workload: &Workload) -> String {
    format!(
        "{} {}/{}",
        workload.kind, workload.key.namespace, workload.object_name
    )
}
