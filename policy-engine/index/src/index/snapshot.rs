//! One workload's snapshot: its ports, and on each the Server, routes, grants, probes and limits that count.

use super::authority::{AUTHENTICATED, Authority, CLUSTER_NETWORKS, PROBE_NETWORKS};
use super::routes::{core_route, shown_kind, takes};
use super::terms::{grant_id, term_of};
use super::workloads::Workload;
use super::{Index, route_key};
use crate::Mode;
use crate::finding::Code;
use crate::manifest::resource::{Key, Object, ProbeTarget, RateLimit, Selects, Server, Target};
use crate::map::{HashMap, HashSet};
use ipnet::IpNet;
use mesh_policy::decide::Generation;
use mesh_policy::egress::EgressNetwork;
use mesh_policy::snapshot::{
    self as core, Effect, Grant, Network, NetworkSet, PathOptions, PortPolicy, ProbeKind, Scope,
    ServerInfo, ServerProtocol, SnapshotData, Term, Who,
};
use mesh_trust::SpiffeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The node of a pod, as the network that its probes come from.
const PROBE_NODE: &str = "probe/node";

/// Builds the snapshot of a workload.
pub(crate) fn assemble(index: &Index, workload: &Workload, generation: Generation) -> SnapshotData {
    let mut assembly = Assembly {
        index,
        workload,
        grants: BTreeMap::new(),
        bearing: HashSet::default(),
    };
    assembly.bears(
        workload.kind,
        &workload.key.namespace,
        &workload.object_name,
    );
    assembly.bears("Namespace", "", &workload.key.namespace);
    let own = index.cedar.objects_of.get(&workload.key.namespace);
    for object in own
        .into_iter()
        .flatten()
        .chain(&index.cedar.objects_everywhere)
    {
        assembly.bears(&object.kind, &object.namespace, &object.name);
    }
    let mut ports: BTreeMap<u16, Draft> = BTreeMap::new();
    for (port, claims) in claims(index, workload) {
        ports.insert(port, assembly.port(port, &claims));
    }
    let single = workload.pod.ports.iter().map(|p| p.port);
    let single = single
        .chain(workload.require_identity.single())
        .chain(workload.opaque.single());
    let probed = workload
        .pod
        .probes
        .iter()
        .filter_map(|p| workload.probe_port(p));
    for port in single.chain(probed) {
        if let std::collections::btree_map::Entry::Vacant(entry) = ports.entry(port) {
            entry.insert(assembly.default_port(Some(port)));
        }
    }
    let other = assembly.default_port(None);
    let egress = index.egress_of(workload);
    for [kind, namespace, name] in index.egress_objects(&egress) {
        assembly.bears(&kind, &namespace, &name);
    }
    assembly.finish(generation, (ports, other), egress)
}

/// Servers by the port they claim, the one that speaks for it first.
pub(crate) fn claims<'i>(
    index: &'i Index,
    workload: &Workload,
) -> BTreeMap<u16, Vec<&'i Object<Server>>> {
    let mut out: BTreeMap<u16, Vec<&Object<Server>>> = BTreeMap::new();
    for at in index
        .servers
        .get(&workload.key.namespace)
        .into_iter()
        .flatten()
    {
        let Some(server) = index.resources.servers.get(*at) else {
            continue;
        };
        let (Some(Selects::Pods(selector)), Some(port)) = (&server.spec.selects, &server.spec.port)
        else {
            continue;
        };
        if selector.matches(&workload.labels) {
            for port in workload.ports_of(port) {
                out.entry(port).or_default().push(server);
            }
        }
    }
    out
}

/// Grants are sorted by id, then scope.
type GrantKey = (String, Scope);

/// A port's policy. Its grants are numbered in the order they were found until all are known.
struct Draft {
    policy: PortPolicy,
    grants: BTreeSet<u32>,
}

struct Assembly<'a> {
    index: &'a Index,
    workload: &'a Workload,
    /// Each with the number it was found as.
    grants: BTreeMap<GrantKey, (u32, Grant)>,
    /// Objects that bear on this workload: kind, namespace, name.
    bearing: HashSet<(String, String, String)>,
}

impl Assembly<'_> {
    fn bears(&mut self, kind: &str, namespace: &str, name: &str) {
        self.bearing
            .insert((kind.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    fn bears_object<T>(&mut self, object: &Object<T>) {
        let reference = object.reference();
        self.bearing
            .insert((reference.kind, reference.namespace, reference.name));
    }

    fn default_port(&mut self, port: Option<u16>) -> Draft {
        let workload = self.workload;
        let upgraded = match port {
            Some(port) => workload.require_identity.contains(port),
            None => workload.require_identity.covers_others(),
        };
        let opaque = match port {
            Some(port) => workload.opaque.contains(port),
            None => workload.opaque.covers_others(),
        };
        let mode = if upgraded {
            workload.mode.requiring_identity()
        } else {
            workload.mode
        };
        let server = ServerInfo {
            namespace: workload.key.namespace.clone(),
            name: "default".to_owned(),
            default: true,
            mode: mode.to_string(),
            protocol: if opaque {
                ServerProtocol::Opaque
            } else {
                ServerProtocol::Unknown
            },
            invalid: workload
                .invalid
                .as_ref()
                .map(|why| format!("the pod is invalid: {why}")),
            source: workload.mode_source.clone(),
            shadowed: Vec::new(),
        };
        let mut draft = Draft::new(server, PathOptions::default());
        if workload.invalid.is_none() {
            self.mode_grant(&mut draft, mode, Scope::Default);
            draft.policy.probes = self.probes(port);
        }
        draft
    }

    fn port(&mut self, port: u16, claims: &[&Object<Server>]) -> Draft {
        let Some((server, shadowed)) = claims.split_first() else {
            return self.default_port(Some(port));
        };
        for claim in claims {
            self.bears_object(claim);
        }
        let upgraded = self.workload.require_identity.contains(port);
        let mode = if upgraded {
            server.spec.access.requiring_identity()
        } else {
            server.spec.access
        };
        let pod_invalid = self
            .workload
            .invalid
            .as_ref()
            .map(|why| format!("the pod is invalid: {why}"));
        let info = ServerInfo {
            namespace: server.key.namespace.clone(),
            name: server.key.name.clone(),
            default: false,
            mode: mode.to_string(),
            protocol: server.spec.protocol,
            invalid: server.invalid.clone().or(pod_invalid),
            source: server.source.clone(),
            shadowed: shadowed.iter().map(|s| s.reference()).collect(),
        };
        let mut draft = Draft::new(info, server.spec.paths);
        if draft.policy.server.invalid.is_some() {
            return draft;
        }
        let scope = Scope::Server {
            namespace: server.key.namespace.clone(),
            name: server.key.name.clone(),
        };
        self.mode_grant(&mut draft, mode, scope.clone());
        self.server_grants(&mut draft, server, &scope);
        self.routes(&mut draft, server);
        self.limits(&mut draft, server);
        self.faults(&mut draft, server);
        draft.policy.probes = self.probes(Some(port));
        draft
    }

    fn grant(&mut self, draft: &mut Draft, grant: Grant) {
        let key = (grant.id.clone(), grant.scope.clone());
        // A workload has far fewer grants than numbers (GRANTS_MAX).
        let next = u32::try_from(self.grants.len()).unwrap_or(u32::MAX);
        let (number, _) = self.grants.entry(key).or_insert((next, grant));
        draft.grants.insert(*number);
    }

    fn mode_grant(&mut self, draft: &mut Draft, mode: Mode, scope: Scope) {
        if mode == Mode::Deny {
            return;
        }
        let source = draft.policy.server.source.clone();
        let grant = Grant {
            id: format!("default/{mode}"),
            effect: Effect::Permit,
            scope,
            who: if mode.authenticated() {
                Who::Identities(AUTHENTICATED.to_owned())
            } else {
                Who::Anyone
            },
            networks: mode.cluster_only().then(|| CLUSTER_NETWORKS.to_owned()),
            audit: mode == Mode::Audit,
            term: Term::default(),
            source,
        };
        self.grant(draft, grant);
    }

    fn server_grants(&mut self, draft: &mut Draft, server: &Object<Server>, scope: &Scope) {
        let index = self.index;
        let key = &server.key;
        let everywhere = Scope::NamespaceServers {
            namespace: key.namespace.clone(),
        };
        let targets = [
            (index.policies.by_server.get(key), scope),
            (index.policies.by_namespace.get(&key.namespace), &everywhere),
        ];
        for (numbers, scope) in targets {
            for number in numbers.into_iter().flatten() {
                self.policy_grant(draft, *number, scope.clone());
            }
        }
        let selecting = index.policies.selecting.get(&key.namespace).into_iter().flatten().filter(|number| {
            let policy = index.resources.server_authorizations.get(**number);
            policy.is_some_and(|p| matches!(&p.spec.target, Some(Target::Servers(s)) if s.matches(&server.labels)))
        });
        for number in index
            .policies
            .named
            .get(key)
            .into_iter()
            .flatten()
            .chain(selecting)
        {
            let Some(policy) = index.resources.server_authorizations.get(*number) else {
                continue;
            };
            self.bears_object(policy);
            let authority = index
                .authorities
                .server_authorizations
                .get(*number)
                .and_then(Option::as_ref);
            self.policy_object_grant(draft, policy, authority, scope.clone());
        }
    }

    fn policy_grant(&mut self, draft: &mut Draft, number: usize, scope: Scope) {
        let index = self.index;
        let Some(policy) = index.resources.authorization_policies.get(number) else {
            return;
        };
        self.bears_object(policy);
        for reference in &policy.spec.authentications {
            for kind in ["MeshTLSAuthentication", "NetworkAuthentication"] {
                self.bears(kind, &reference.key.namespace, &reference.key.name);
            }
        }
        let authority = index
            .authorities
            .policies
            .get(number)
            .and_then(Option::as_ref);
        self.policy_object_grant(draft, policy, authority, scope);
    }

    fn policy_object_grant<T>(
        &mut self,
        draft: &mut Draft,
        policy: &Object<T>,
        authority: Option<&Authority>,
        scope: Scope,
    ) {
        let Some(authority) = authority else { return };
        let grant = Grant {
            id: grant_id(policy),
            effect: Effect::Permit,
            scope,
            who: authority.who.clone(),
            networks: authority.networks.clone(),
            audit: false,
            term: term_of(policy),
            source: policy.source.clone(),
        };
        self.grant(draft, grant);
    }

    fn routes(&mut self, draft: &mut Draft, server: &Object<Server>) {
        let index = self.index;
        for number in index.routes.get(&server.key).into_iter().flatten() {
            let Some(route) = index.resources.routes.get(*number) else {
                continue;
            };
            self.bears_object(route);
            if !takes(server.spec.protocol, route) {
                continue;
            }
            let kind = shown_kind(index, route);
            let scope = Scope::Route {
                kind: kind.clone(),
                namespace: route.key.namespace.clone(),
                name: route.key.name.clone(),
            };
            for number in index
                .policies
                .by_route
                .get(&route_key(route))
                .into_iter()
                .flatten()
            {
                self.policy_grant(draft, *number, scope.clone());
            }
            draft
                .policy
                .routes
                .push(core_route(route, kind, server.spec.paths));
        }
    }

    fn limits(&mut self, draft: &mut Draft, server: &Object<Server>) {
        let index = self.index;
        let limits = index.rate_limits.get(&server.key).into_iter().flatten();
        let limits: Vec<&Object<RateLimit>> = limits
            .filter_map(|at| index.resources.rate_limits.get(*at))
            .map(Arc::as_ref)
            .collect();
        for limit in &limits {
            self.bears_object(limit);
        }
        draft.policy.l7_limits = !limits.is_empty();
        if !server.spec.protocol.carries_bytes() {
            draft.policy.rate_limit = in_force(&limits).map(|limit| self.rate_limit(limit));
        }
    }

    fn faults(&mut self, draft: &mut Draft, server: &Object<Server>) {
        let index = self.index;
        for number in index.faults.get(&server.key).into_iter().flatten() {
            if let Some(fault) = index.resources.faults.get(*number) {
                self.bears_object(fault);
            }
        }
        draft.policy.faults = index.faults_of(server);
    }

    fn rate_limit(&self, limit: &Object<RateLimit>) -> core::RateLimit {
        let domain = &self.index.config.trust_domain;
        let ids = |clients: &[Key]| {
            clients
                .iter()
                .filter_map(|c| SpiffeId::for_service_account(domain, &c.namespace, &c.name).ok())
                .collect()
        };
        core::RateLimit {
            namespace: limit.key.namespace.clone(),
            name: limit.key.name.clone(),
            total: limit.spec.total,
            identity: limit.spec.identity,
            overrides: limit
                .spec
                .overrides
                .iter()
                .map(|(clients, rate)| (ids(clients), *rate))
                .collect(),
        }
    }

    /// Declared probes on a port; ports that nobody names have none.
    fn probes(&self, port: Option<u16>) -> Vec<core::Probe> {
        let networks = if self.workload.pod.host_ips.is_empty() {
            PROBE_NETWORKS
        } else {
            PROBE_NODE
        };
        let mut out: Vec<core::Probe> = Vec::new();
        for probe in &self.workload.pod.probes {
            if port.is_none() || self.workload.probe_port(probe) != port {
                continue;
            }
            let kind = match &probe.kind {
                ProbeTarget::Http(path) => ProbeKind::Http(path.clone()),
                ProbeTarget::Grpc => ProbeKind::Grpc,
                ProbeTarget::Tcp => ProbeKind::Tcp,
            };
            if !out.iter().any(|p| p.kind == kind) {
                out.push(core::Probe {
                    kind,
                    networks: networks.to_owned(),
                    source: probe.source.clone(),
                });
            }
        }
        out.sort_by(|a, b| a.source.cmp(&b.source));
        out
    }

    fn finish(
        self,
        generation: Generation,
        (drafts, other): (BTreeMap<u16, Draft>, Draft),
        egress: Vec<EgressNetwork>,
    ) -> SnapshotData {
        let index = self.index;
        let found = self.grants.values().map(|(found, _)| *found);
        let numbers: HashMap<u32, u32> = found.zip(0..).collect();
        let number = |mut draft: Draft| {
            let found = draft.grants.iter();
            let mut grants: Vec<u32> = found.filter_map(|at| numbers.get(at).copied()).collect();
            grants.sort_unstable();
            draft.policy.grants = grants;
            draft.policy
        };
        let ports: BTreeMap<u16, PortPolicy> = drafts
            .into_iter()
            .map(|(port, draft)| (port, number(draft)))
            .collect();
        let other_ports = number(other);
        let grants: Vec<Grant> = self.grants.into_values().map(|(_, grant)| grant).collect();
        let mut identity_sets = BTreeMap::new();
        let mut network_sets = BTreeMap::new();
        for grant in &grants {
            if let Who::Identities(id) = &grant.who {
                identity_sets.extend(
                    index
                        .authorities
                        .identity_sets
                        .get(id)
                        .map(|set| (id.clone(), set.clone())),
                );
            }
            if let Some(id) = &grant.networks {
                network_sets.extend(
                    index
                        .authorities
                        .network_sets
                        .get(id)
                        .map(|set| (id.clone(), set.clone())),
                );
            }
        }
        if ports.values().any(|p| !p.probes.is_empty()) {
            let node = self.workload.pod.host_ips.iter().map(|ip| Network {
                cidr: IpNet::from(*ip),
                except: Vec::new(),
            });
            let networks: Vec<Network> = node.collect();
            if networks.is_empty() {
                let everywhere = index.authorities.network_sets.get(PROBE_NETWORKS);
                network_sets.extend(everywhere.map(|s| (PROBE_NETWORKS.to_owned(), s.clone())));
            } else {
                let source = self.workload.info.source.clone();
                network_sets.insert(PROBE_NODE.to_owned(), NetworkSet { networks, source });
            }
        }
        let federations = index
            .resources
            .federations
            .iter()
            .filter(|f| f.invalid.is_none() && f.spec.in_wildcards);
        let mut wildcard_domains: Vec<_> =
            federations.filter_map(|f| f.spec.domain.clone()).collect();
        wildcard_domains.sort();
        wildcard_domains.dedup();
        let mut data = SnapshotData {
            generation,
            workload: self.workload.info.clone(),
            trust_domain: index.config.trust_domain.clone(),
            wildcard_domains,
            ports,
            other_ports,
            grants,
            identity_sets,
            network_sets,
            cedar_policies: Vec::new(),
            egress,
            findings: findings(index, &self.bearing, &self.workload.key.namespace),
        };
        index.cedar.add_to(&mut data, &index.authorities);
        data
    }
}

impl Draft {
    fn new(server: ServerInfo, paths: PathOptions) -> Self {
        let policy = PortPolicy {
            server,
            routes: Vec::new(),
            probes: Vec::new(),
            grants: Vec::new(),
            rate_limit: None,
            paths,
            l7_limits: false,
            faults: Vec::new(),
        };
        Self {
            policy,
            grants: BTreeSet::new(),
        }
    }
}

/// The rate limit that counts: the oldest valid one, else what can be read of the oldest.
pub(crate) fn in_force<'a>(limits: &[&'a Object<RateLimit>]) -> Option<&'a Object<RateLimit>> {
    limits
        .iter()
        .find(|l| l.invalid.is_none())
        .or(limits.first())
        .copied()
}

fn findings(
    index: &Index,
    bearing: &HashSet<(String, String, String)>,
    namespace: &str,
) -> Vec<core::Finding> {
    let mut numbers: Vec<usize> = bearing
        .iter()
        .filter_map(|key| index.findings_of.get(key))
        .flatten()
        .copied()
        .collect();
    numbers.sort_unstable();
    let mut out: Vec<core::Finding> = numbers
        .into_iter()
        .filter_map(|n| index.findings.get(n))
        .cloned()
        .collect();
    let here = format!("`{namespace}`");
    let closing = index.closing.iter().filter_map(|n| index.findings.get(*n));
    out.extend(
        closing
            .filter(|f| {
                f.code == Code::UnknownDocument.text()
                    || f.message.contains("every namespace")
                    || f.message.contains(&here)
            })
            .cloned(),
    );
    out.sort();
    out.dedup();
    out
}
