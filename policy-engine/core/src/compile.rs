//! The compiled snapshot: what every decision reads, built once per generation. What is wrong with the data it is built
//! from is told by `faults`.

mod faults;

use crate::cedar::raw::{self, Raw};
use crate::cedar::{self, GeneratedPolicy, Setting, Vocabulary};
use crate::connection::IdentityIndex;
use crate::decide::Generation;
use crate::egress::{self, Egress};
use crate::matcher::{Matcher, Reachable};
use crate::networks::NetworkIndex;
use crate::original::{Data, Kept};
use crate::question::{HeaderNames, SetNames};
use crate::route::{RouteTable, RouteTaken};
use crate::snapshot::{
    Finding, PathOptions, PortPolicy, ServerInfo, ServerProtocol, SnapshotData, Source,
    WorkloadInfo,
};
use crate::texts::Texts;
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use faults::{check_limits, missing_set, text_findings, unread_route};

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
    /// More text than numbers of 32 bits can find their way in.
    #[error("the {what} of one workload's policy are longer than 4 GiB")]
    #[diagnostic(code("MESH-0310"), help("shorten names"))]
    TooLong {
        /// Of what.
        what: &'static str,
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
    generation: Generation,
    workload: WorkloadInfo,
    pub(crate) trust_domain: TrustDomain,
    /// What it was compiled from. No decision looks at it.
    original: Kept,
    /// Ends of grants and policies, ascending.
    ends: Box<[Timestamp]>,
    /// By port; the value indexes `policies`.
    /// Each with its port, in the order of these: few, and asked about several times a request.
    policies: Vec<(u16, Port)>,
    /// Policy of every other port.
    other: Port,
    findings: Vec<Finding>,
    /// What the workload may reach outside of the mesh.
    egress: Egress,
    /// What set places stand for, if decisions need Cedar: it knows sets by their names.
    names: SetNames,
    /// Identity sets, by who is in them.
    pub(crate) identities: IdentityIndex,
    /// Network sets, by what is in them.
    pub(crate) networks: NetworkIndex,
    /// Policies that were written in Cedar.
    pub(crate) texts: Vec<Raw>,
    /// A forbid among them that cannot be evaluated: everything is denied.
    pub(crate) broken_text: Option<Arc<str>>,
    /// Headers that some of them look at.
    pub(crate) headers: HeaderNames,
    /// What is printed of the policies, once somebody asks.
    generated: OnceLock<Vec<GeneratedPolicy>>,
}

/// Where the policy of a port is in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PortAt {
    /// A port with a policy of its own.
    Own(usize),
    /// Every other port.
    Other,
}

/// What applies to one port, compiled.
pub(crate) struct Port {
    pub(crate) policy: PortPolicy,
    pub(crate) routes: RouteTable,
    /// For each probe of the policy the place of the network set that it may come from.
    pub(crate) probe_networks: Box<[Option<u32>]>,
    pub(crate) matcher: Arc<Matcher>,
    pub(crate) default_route: Arc<RouteTaken>,
    pub(crate) probe_route: Arc<RouteTaken>,
    /// Cedar gave another answer than the matcher: nothing is allowed here any more under this snapshot.
    distrusted: AtomicBool,
}

impl Port {
    /// Namespace and name of the Server; `None` for the default policy.
    pub(crate) fn named(&self) -> Option<(&str, &str)> {
        let server = &self.policy.server;
        (!server.default).then_some((server.namespace.as_str(), server.name.as_str()))
    }

    /// Whether the matcher was caught giving another answer than Cedar here.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }

    /// Whether requests are read as bytes here, whatever they are.
    pub(crate) fn is_bytes(&self) -> bool {
        self.policy.server.protocol.carries_bytes()
    }

    /// Whether raw bytes would pass by rules that are made for requests.
    pub(crate) fn wants_requests(&self) -> bool {
        match self.policy.server.protocol {
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
        check_limits(&data)?;
        let vocabulary = cedar::vocabulary().map_err(|why| SnapshotError::Schema { why })?;
        let data = Data::new(data);
        let names = data.names();
        let build_text = |text| Raw::build(vocabulary, text, names, &data.trust_domain);
        let texts: Vec<Raw> = data.cedar_policies.iter().map(build_text).collect();
        let mut findings = data.findings.clone();
        findings.extend(text_findings(&data.cedar_policies, &texts));
        findings.extend(
            data.grants
                .iter()
                .filter_map(|grant| missing_set(names, grant)),
        );
        let ids = data.grants.iter().map(|grant| grant.id.as_str()).collect();
        let reasons = Arc::new(Texts::of(ids).map_err(|_| too_long("ids of grants"))?);
        let compiling = Compiling {
            data: &data,
            reasons: &reasons,
        };
        let mut policies = Vec::with_capacity(data.ports.len());
        for (&port, policy) in &data.ports {
            policies.push((port, compiling.port(&mut findings, port, policy)?));
        }
        let other = compiling.port(&mut findings, 0, &data.other_ports)?;
        let (egress, unread) = Egress::compile(&data.egress, data.generation);
        findings.extend(unread.iter().map(|one| unread_route(&one.route, &one.why)));
        findings.sort();
        findings.dedup();
        Ok(Self(Arc::new(Compiled {
            vocabulary,
            generation: data.generation,
            workload: data.workload.clone(),
            trust_domain: data.trust_domain.clone(),
            ends: ends(&data),
            policies,
            other,
            findings,
            egress,
            identities: IdentityIndex::build(&data).map_err(|_| too_long("identities"))?,
            networks: NetworkIndex::build(data.network_sets.values()),
            broken_text: raw::broken_forbid(&texts).cloned(),
            headers: texts.iter().flat_map(Raw::headers).cloned().collect(),
            names: match texts.iter().any(Raw::needs_cedar) {
                true => names.clone(),
                false => SetNames::default(),
            },
            texts,
            original: Kept::new(data),
            generated: OnceLock::new(),
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
                faults: Vec::new(),
            },
            grants: Vec::new(),
            identity_sets: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            cedar_policies: Vec::new(),
            egress: vec![egress::closed_to_all(
                "the proxy has received no policy yet",
                Source::BuiltIn("no policy yet".to_owned()),
            )],
            findings: Vec::new(),
        })
    }

    /// Denies everything on `port` from now on, under this snapshot and no other: Cedar gave another answer there.
    pub fn distrust(&self, port: u16) {
        let port = self.compiled_port(port);
        port.distrusted.store(true, Ordering::Relaxed);
    }

    /// Whether [`Snapshot::distrust`] closed this port.
    pub fn is_distrusted(&self, port: u16) -> bool {
        self.compiled_port(port).is_distrusted()
    }

    /// When the answer to a question may next change without a new snapshot, if ever: the first end of a grant or policy
    /// after `now`. Where a policy looks at the time, that is a second from now.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        if self.0.texts.iter().any(Raw::looks_at_time) {
            return Some(now.plus_secs(1));
        }
        let next = self.0.ends.partition_point(|end| *end <= now);
        self.0.ends.get(next).copied()
    }

    /// What it was compiled from: read again if it was packed. Hold it as long as you look at it, not longer.
    pub fn data(&self) -> Data {
        self.0.original.data()
    }

    /// Packs what [`Snapshot::data`] gives, for who holds the snapshot and seldom asks for it: some 50 to 100 bytes of a
    /// grant stay instead of 1.5 KiB. Answers stay the same. Takes about as long as compiling; says whether it is packed.
    pub fn pack(&self) -> bool {
        self.0.original.pack()
    }

    /// Whose policy this is.
    pub fn workload(&self) -> &WorkloadInfo {
        &self.0.workload
    }

    /// Which policy this is.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// What the workload may reach outside of the mesh.
    pub fn egress(&self) -> &Egress {
        &self.0.egress
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

    /// Where the policy of a port is.
    pub(crate) fn port_at(&self, port: u16) -> PortAt {
        let policies = &self.0.policies;
        let found = policies.binary_search_by_key(&port, |(port, _)| *port);
        found.map_or(PortAt::Other, PortAt::Own)
    }

    pub(crate) fn compiled_port(&self, port: u16) -> &Port {
        self.0.port(self.port_at(port))
    }

    /// This snapshot with the matchers and programs of another one of the same ports and policies: what a wrong compiler
    /// would make. For tests of who must notice.
    pub(crate) fn with_compiled_of(&self, other: &Self) -> Option<Self> {
        let mut made = Self::compile(self.data().clone()).ok()?;
        let mut wrong = Self::compile(other.data().clone()).ok()?;
        let compiled = Arc::get_mut(&mut made.0)?;
        let wrong = Arc::get_mut(&mut wrong.0)?;
        let ports = compiled.policies.iter_mut().map(|(_, port)| port);
        let others = wrong.policies.iter().map(|(_, port)| port);
        let pairs = ports
            .zip(others)
            .chain([(&mut compiled.other, &wrong.other)]);
        for (port, other) in pairs {
            port.matcher = Arc::clone(&other.matcher);
        }
        for (text, other) in compiled.texts.iter_mut().zip(&mut wrong.texts) {
            text.take_program_of(other);
        }
        Some(made)
    }

    /// Whether the two are one and the same snapshot.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn generated(&self) -> &[GeneratedPolicy] {
        self.0.generated.get_or_init(|| {
            let data = self.data();
            let written = self.0.texts.iter().zip(&data.cedar_policies);
            cedar::texts(self.0.vocabulary, &data)
                .into_iter()
                .chain(written.filter_map(|(raw, text)| raw.generated(text)))
                .collect()
        })
    }
}

impl Compiled {
    /// The policy at a place that [`Snapshot::port_at`] gave.
    pub(crate) fn port(&self, at: PortAt) -> &Port {
        let own = match at {
            PortAt::Own(index) => self.policies.get(index),
            PortAt::Other => None,
        };
        own.map_or(&self.other, |(_, port)| port)
    }

    /// Whether any policy was written in Cedar.
    pub(crate) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Every port with a policy of its own, by number, then the others' as 0.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, &Port)> {
        let own = self.policies.iter().map(|(number, port)| (*number, port));
        own.chain([(0, &self.other)])
    }

    /// What Cedar needs to know of the snapshot besides its policies, for those that were written in Cedar and that
    /// nothing else can evaluate.
    pub(crate) fn setting(&self) -> Setting<'_> {
        self.setting_of(&self.names)
    }

    /// As [`Compiled::setting`], for any policy.
    pub(crate) fn setting_of<'a>(&'a self, names: &'a SetNames) -> Setting<'a> {
        Setting {
            names,
            headers: &self.headers,
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let workload = self.workload();
        write!(
            f,
            "Snapshot({}/{} at generation {})",
            workload.namespace,
            workload.name,
            self.generation().0
        )
    }
}

/// Ends of grants and policies, ascending.
fn ends(data: &SnapshotData) -> Box<[Timestamp]> {
    let grants = data.grants.iter().filter_map(|grant| grant.term.expires);
    let texts = data.cedar_policies.iter();
    let texts = texts.filter_map(|text| text.term.expires);
    let mut ends: Vec<Timestamp> = grants.chain(texts).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.into()
}

fn too_long(what: &'static str) -> SnapshotError {
    SnapshotError::TooLong { what }
}

/// What the ports of a snapshot are compiled from.
struct Compiling<'a> {
    data: &'a Data,
    /// Ids of its grants.
    reasons: &'a Arc<Texts>,
}

impl Compiling<'_> {
    fn port(
        &self,
        problems: &mut Vec<Finding>,
        port: u16,
        policy: &PortPolicy,
    ) -> Result<Port, SnapshotError> {
        let there = |grant: u32| usize::try_from(grant).is_ok_and(|at| at < self.data.grants.len());
        if let Some(&grant) = policy.grants.iter().find(|&&grant| !there(grant)) {
            return Err(SnapshotError::NoSuchGrant { port, grant });
        }
        let (routes, unreadable) = RouteTable::compile(&policy.routes);
        for problem in unreadable {
            let route = usize::try_from(problem.route)
                .ok()
                .and_then(|index| policy.routes.get(index));
            problems.extend(route.map(|route| unread_route(route, &problem.why)));
        }
        let server = &policy.server;
        let mut by_name: HashMap<_, Vec<u32>> = HashMap::new();
        for (index, route) in (0u32..).zip(&policy.routes) {
            let name = (
                route.kind.as_str(),
                route.namespace.as_str(),
                route.name.as_str(),
            );
            by_name.entry(name).or_default().push(index);
        }
        let reachable = Reachable {
            server: (!server.default).then_some((server.namespace.as_str(), server.name.as_str())),
            routes: by_name,
            route_count: policy.routes.len(),
        };
        Ok(Port {
            matcher: Arc::new(Matcher::compile(
                self.data,
                self.data.names(),
                self.reasons,
                &policy.grants,
                &reachable,
            )),
            probe_networks: policy
                .probes
                .iter()
                .map(|probe| self.data.names().network_place(&probe.networks))
                .collect(),
            policy: policy.clone(),
            routes,
            default_route: Arc::new(RouteTaken::built_in("default")),
            probe_route: Arc::new(RouteTaken::built_in("probe")),
            distrusted: AtomicBool::new(false),
        })
    }
}

/// Every policy that was generated for this snapshot, in the order of its grants, as Cedar text for printing.
pub fn generated(snapshot: &Snapshot) -> &[GeneratedPolicy] {
    snapshot.generated()
}

#[cfg(test)]
mod tests;
