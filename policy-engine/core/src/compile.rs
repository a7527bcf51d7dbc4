//! The compiled snapshot: what every decision reads, built once per generation.

use crate::cedar::{self, GeneratedPolicy, Generator, KnownPolicies, Object, Slice, Vocabulary};
use crate::decide::Generation;
use crate::limits::{GRANTS_MAX, MATCHES_MAX, MEMBERS_MAX, PORT_GRANTS_MAX, PORTS_MAX};
use crate::route::{RouteTable, RouteTaken};
use crate::snapshot::{
    Finding, Network, ObjectRef, PathOptions, PortPolicy, Probe, ServerInfo, ServerProtocol,
    Severity, SnapshotData, Source, WorkloadInfo,
};
use mesh_trust::TrustDomain;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Policy for one workload, ready to decide. Cheap to clone; share it freely between threads.
#[derive(Clone)]
pub struct Snapshot(Arc<Compiled>);

/// Why data is no snapshot. Whoever gets this keeps the snapshot it has, or denies everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Larger than a proxy will hold.
    #[error("the policy of one workload has {count} {what}; the limit is {limit}")]
    #[diagnostic(
        code("MESH-0310"),
        help(
            "merge grants that differ only in who: one MeshTLSAuthentication may list many identities"
        )
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A port refers to a grant that is not there.
    #[error("port {port} refers to grant number {grant}, which the snapshot does not have")]
    #[diagnostic(
        code("MESH-0310"),
        help("the snapshot was cut or altered on its way: fetch it again")
    )]
    NoSuchGrant {
        /// The port; 0 stands for all other ports.
        port: u16,
        /// Index of the grant.
        grant: u32,
    },
    /// The schema that is compiled in cannot be read.
    #[error("the policy schema cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0313"),
        help("this is a defect of the mesh: report it with its version")
    )]
    Schema {
        /// What the reader says.
        why: String,
    },
}

pub(crate) struct Compiled {
    pub(crate) vocabulary: &'static Vocabulary,
    pub(crate) data: SnapshotData,
    pub(crate) workload: Arc<WorkloadInfo>,
    /// By port; the value indexes `policies`.
    by_port: HashMap<u16, u32>,
    policies: Vec<Port>,
    /// Policy of every other port.
    other: Port,
    findings: Vec<Finding>,
    known: KnownPolicies,
    generated: OnceLock<Vec<GeneratedPolicy>>,
    /// Ids of identity sets, by who is in them.
    pub(crate) identities: crate::connection::IdentityIndex,
}

/// What applies to one port, compiled.
pub(crate) struct Port {
    pub(crate) index: u32,
    pub(crate) policy: PortPolicy,
    pub(crate) server: Arc<ServerInfo>,
    pub(crate) routes: RouteTable,
    pub(crate) slice: Arc<Slice>,
    pub(crate) bytes: Object,
    pub(crate) default_route: Arc<RouteTaken>,
    pub(crate) probe_route: Arc<RouteTaken>,
}

impl Port {
    /// Namespace and name of the Server; `None` for the default policy.
    pub(crate) fn named(&self) -> Option<(&str, &str)> {
        (!self.server.default)
            .then_some((self.server.namespace.as_str(), self.server.name.as_str()))
    }

    /// Whether requests are read as bytes here, whatever they are.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(
            self.server.protocol,
            ServerProtocol::Opaque | ServerProtocol::Tls
        )
    }

    /// Whether raw bytes would pass by rules that are made for requests.
    pub(crate) fn wants_requests(&self) -> bool {
        match self.server.protocol {
            ServerProtocol::Http1 | ServerProtocol::Http2 | ServerProtocol::Grpc => true,
            ServerProtocol::Unknown => {
                !self.policy.routes.is_empty()
                    || self.policy.l7_limits
                    || self.policy.rate_limit.is_some()
            }
            ServerProtocol::Opaque | ServerProtocol::Tls => false,
        }
    }
}

impl Snapshot {
    /// Compiles data. What cannot be compiled in a single object denies there and is a finding; see [`Self::findings`].
    ///
    /// # Errors
    /// [`SnapshotError`] if the data as a whole cannot be trusted: too large, or inconsistent.
    pub fn compile(data: SnapshotData) -> Result<Self, SnapshotError> {
        Self::build(data, &KnownPolicies::new())
    }

    /// As [`Snapshot::compile`], but takes over from `self` the policies of grants that did not change: the cost is
    /// that of what did change. The result is the same.
    ///
    /// # Errors
    /// As [`Snapshot::compile`]; `self` stays as it is.
    pub fn update(&self, data: SnapshotData) -> Result<Self, SnapshotError> {
        Self::build(data, &self.0.known)
    }

    fn build(data: SnapshotData, known: &KnownPolicies) -> Result<Self, SnapshotError> {
        check_limits(&data)?;
        let vocabulary = cedar::vocabulary().map_err(|why| SnapshotError::Schema { why })?;
        let mut generator = Generator::new(vocabulary, &data, known);
        let mut problems = Vec::new();
        let mut policies = Vec::with_capacity(data.ports.len());
        let mut by_port = HashMap::with_capacity(data.ports.len());
        for ((&port, policy), index) in data.ports.iter().zip(1..) {
            policies.push(compile_port(
                &mut generator,
                &mut problems,
                index,
                port,
                policy,
            )?);
            by_port.insert(port, index - 1);
        }
        let other = compile_port(&mut generator, &mut problems, 0, 0, &data.other_ports)?;
        let mut findings = data.findings.clone();
        findings.extend(generator.findings());
        findings.append(&mut problems);
        findings.sort();
        findings.dedup();
        let identities = crate::connection::IdentityIndex::build(&data);
        let workload = Arc::new(data.workload.clone());
        Ok(Self(Arc::new(Compiled {
            vocabulary,
            data,
            workload,
            by_port,
            policies,
            other,
            findings,
            known: generator.into_known(),
            generated: OnceLock::new(),
            identities,
        })))
    }

    /// The snapshot of a proxy that has no policy: every port is denied.
    ///
    /// # Errors
    /// [`SnapshotError::Schema`] alone.
    pub fn deny_all(
        workload: WorkloadInfo,
        trust_domain: TrustDomain,
    ) -> Result<Self, SnapshotError> {
        let source = Source::BuiltIn("no policy yet".to_owned());
        let server = ServerInfo {
            namespace: workload.namespace.clone(),
            name: "default".to_owned(),
            default: true,
            mode: "deny".to_owned(),
            protocol: ServerProtocol::Unknown,
            invalid: Some("the proxy has received no policy yet".to_owned()),
            source,
            shadowed: Vec::new(),
        };
        Self::compile(SnapshotData {
            generation: Generation::default(),
            workload,
            trust_domain,
            wildcard_domains: Vec::new(),
            ports: BTreeMap::new(),
            other_ports: PortPolicy {
                server,
                routes: Vec::new(),
                probes: Vec::new(),
                grants: Vec::new(),
                rate_limit: None,
                paths: PathOptions::default(),
                l7_limits: false,
            },
            grants: Vec::new(),
            identity_sets: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            cedar_policies: Vec::new(),
            findings: Vec::new(),
        })
    }

    /// What it was compiled from.
    pub fn data(&self) -> &SnapshotData {
        &self.0.data
    }

    /// Which policy this is.
    pub fn generation(&self) -> Generation {
        self.0.data.generation
    }

    /// What is wrong: the findings of the data, and what compiling found.
    pub fn findings(&self) -> &[Finding] {
        &self.0.findings
    }

    /// What applies to `port`: its own policy, or that of all other ports.
    pub fn port(&self, port: u16) -> &PortPolicy {
        &self.compiled_port(port).policy
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.0
    }

    pub(crate) fn compiled_port(&self, port: u16) -> &Port {
        let index = self
            .0
            .by_port
            .get(&port)
            .and_then(|&index| usize::try_from(index).ok());
        index
            .and_then(|index| self.0.policies.get(index))
            .unwrap_or(&self.0.other)
    }

    pub(crate) fn generated(&self) -> &[GeneratedPolicy] {
        self.0
            .generated
            .get_or_init(|| cedar::texts(&self.0.data, &self.0.known))
    }

    /// Whether `ip` is in the network set of this id; an id that there is not holds nobody.
    pub(crate) fn in_network(&self, set: &str, ip: IpAddr) -> bool {
        self.0
            .data
            .network_sets
            .get(set)
            .is_some_and(|set| set.networks.iter().any(|network| covers(network, ip)))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let workload = &self.0.workload;
        write!(
            f,
            "Snapshot({}/{} at generation {})",
            workload.namespace,
            workload.name,
            self.generation().0
        )
    }
}

fn covers(network: &Network, ip: IpAddr) -> bool {
    network.cidr.contains(&ip) && !network.except.iter().any(|except| except.contains(&ip))
}

fn check_limits(data: &SnapshotData) -> Result<(), SnapshotError> {
    let ports = || data.ports.values().chain([&data.other_ports]);
    let matches = |policy: &PortPolicy| -> usize {
        policy
            .routes
            .iter()
            .flat_map(|route| &route.rules)
            .map(|rule| rule.matches.len().max(1))
            .sum()
    };
    let members = data
        .identity_sets
        .values()
        .map(|set| set.members.len())
        .sum::<usize>()
        + data
            .network_sets
            .values()
            .flat_map(|set| &set.networks)
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
        ("route matches", ports().map(matches).sum(), MATCHES_MAX),
        ("members of identity and network sets", members, MEMBERS_MAX),
    ] {
        if count > limit {
            return Err(SnapshotError::TooLarge { what, count, limit });
        }
    }
    Ok(())
}

fn compile_port(
    generator: &mut Generator,
    problems: &mut Vec<Finding>,
    index: u32,
    port: u16,
    policy: &PortPolicy,
) -> Result<Port, SnapshotError> {
    let slice = generator
        .slice(&policy.grants)
        .map_err(|grant| SnapshotError::NoSuchGrant { port, grant })?;
    let (routes, unreadable) = RouteTable::compile(&policy.routes);
    for problem in unreadable {
        let route = usize::try_from(problem.route)
            .ok()
            .and_then(|index| policy.routes.get(index));
        problems.extend(route.map(|route| Finding {
            code: "MESH-0312".to_owned(),
            severity: Severity::Error,
            message: format!(
                "requests that {} {}/{} takes are denied: {}",
                route.kind, route.namespace, route.name, problem.why
            ),
            hint: Some("mend the route; until then its requests stay denied".to_owned()),
            object: Some(ObjectRef {
                kind: route.kind.clone(),
                namespace: route.namespace.clone(),
                name: route.name.clone(),
                source: route.source.clone(),
            }),
            source: route.source.clone(),
        }));
    }
    let server = Arc::new(policy.server.clone());
    let named = (!server.default).then_some((server.namespace.as_str(), server.name.as_str()));
    let bytes = Object::server(generator.vocabulary(), named);
    Ok(Port {
        index,
        policy: policy.clone(),
        server: Arc::clone(&server),
        routes,
        slice,
        bytes,
        default_route: Arc::new(RouteTaken::built_in("default")),
        probe_route: Arc::new(RouteTaken::built_in("probe")),
    })
}

/// Whether a probe endpoint may be asked from `ip`.
pub(crate) fn probe_is_open(snapshot: &Snapshot, probe: &Probe, ip: IpAddr) -> bool {
    snapshot.in_network(&probe.networks, ip)
}

/// Every policy that was generated for this snapshot, in the order of its grants, as Cedar text for printing.
pub fn generated(snapshot: &Snapshot) -> &[GeneratedPolicy] {
    snapshot.generated()
}

#[cfg(test)]
mod tests;
