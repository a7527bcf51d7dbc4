//! Objects to policy: who is a workload, which Server speaks for which port, which grants count there.
//!
//! An invalid object closes and never opens. An invalid Server denies on the ports that it selects, or closes the default
//! policy of its namespace if it cannot be read; an invalid route denies what it would have taken; an invalid
//! policy or authentication grants nothing; an invalid pod denies on every port; an invalid namespace has default policy
//! `deny`; an invalid Service has no endpoints; a Cedar object that cannot be read whole denies all that it might forbid.

mod about;
mod annotations;
mod authority;
mod balancing;
mod breaker;
mod candidate;
mod cedar_texts;
mod change;
mod egress;
mod faults;
mod invariants;
mod lint;
mod object_status;
mod patience;
mod ports;
mod route_status;
mod routes;
mod services;
mod snapshot;
mod terms;
mod traffic;
mod workloads;
mod zones;

pub use about::BrokenGrant;
pub use candidate::beside;
pub use change::{Concern, Slice};
pub use invariants::{Claim, ClaimText, Invariant};
pub use object_status::{ObjectStatus, Reach, Refusal, Standing};
pub use route_status::{Condition, ParentStatus, RouteStatus};
pub use services::{PodAddress, ResolveError, ServiceEndpoint, ServiceEndpoints};
pub use workloads::WorkloadKey;

use crate::Mode;
use crate::finding::{Code, finding};
use crate::manifest::Loaded;
use crate::manifest::resource::{Key, KeyRef, Object, Resources, Route, Target};
use crate::map::{HashMap, HashSet};
use authority::Authorities;
use cedar_texts::CedarTexts;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_policy::decide::Generation;
use mesh_policy::snapshot::{Finding, ObjectRef, SnapshotData, Source, Term, WorkloadInfo};
use mesh_trust::TrustDomain;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
pub(crate) use workloads::Workload;

/// Settings of the whole mesh that policy depends on.
#[derive(Clone, Debug)]
pub struct IndexConfig {
    /// Default policy where no annotation sets another; `deny` unless someone asks for another.
    pub default_policy: Mode,
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// Namespace of the control plane.
    pub control_plane_namespace: String,
    /// What the `cluster-*` modes and a ServerAuthorization without networks mean.
    pub cluster_networks: Vec<IpNet>,
    /// Where probes may come from if the node of a pod is not known.
    pub probe_networks: Vec<IpNet>,
    /// Which pods have a proxy.
    pub proxied: Proxied,
}

/// Which pods have a proxy in front of them. Discovery says so to others; policy does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Proxied {
    /// All: whoever starts them gives them one.
    #[default]
    All,
    /// Those with a container of the name [`PROXY_CONTAINER`].
    WithContainer,
}

/// Name of the container that a proxy is injected as.
pub const PROXY_CONTAINER: &str = "mesh-proxy";

impl IndexConfig {
    /// The settings of a mesh that was told nothing but its trust domain: default policy `deny`, private networks as
    /// cluster networks, probes from anywhere.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            default_policy: Mode::Deny,
            trust_domain,
            control_plane_namespace: "mesh-system".to_owned(),
            cluster_networks: Self::private_networks(),
            probe_networks: [v4(0, 0, 0), v6(0, 0)].into_iter().flatten().collect(),
            proxied: Proxied::All,
        }
    }

    /// Private networks: the cluster's, unless an installation says otherwise.
    pub fn private_networks() -> Vec<IpNet> {
        let cluster = [
            v4(10, 0, 8),
            v4(100, 64, 10),
            v4(172, 16, 12),
            v4(192, 168, 16),
            v6(0xfd00, 8),
        ];
        cluster.into_iter().flatten().collect()
    }
}

fn v4(a: u8, b: u8, length: u8) -> Option<IpNet> {
    let net = Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length);
    net.map(IpNet::V4).ok()
}

fn v6(first: u16, length: u8) -> Option<IpNet> {
    let net = Ipv6Net::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length);
    net.map(IpNet::V6).ok()
}

/// Policy of the whole mesh, ready to be cut into snapshots.
#[derive(Clone, Debug)]
pub struct Index {
    config: IndexConfig,
    resources: Resources,
    workloads: Vec<Workload>,
    by_key: HashMap<WorkloadKey, usize>,
    by_namespace: HashMap<String, Vec<usize>>,
    /// Workloads by namespace and name of their owner.
    by_owner: HashMap<Key, Vec<usize>>,
    /// Servers of a namespace, oldest first.
    servers: HashMap<String, Vec<usize>>,
    /// Routes that name a Server, in the order that breaks ties.
    routes: HashMap<Key, Vec<usize>>,
    /// Routes that name a Service as their parent, oldest first, then by namespace and name.
    service_routes: HashMap<Key, Vec<usize>>,
    /// Routes that name an EgressNetwork as their parent, likewise.
    egress_routes: HashMap<Key, Vec<usize>>,
    /// EgressNetworks in the order that breaks ties.
    egress_order: Vec<usize>,
    /// ReferenceGrants of a namespace.
    reference_grants: HashMap<String, Vec<usize>>,
    /// Routes that have a namesake of the same kind in the other group.
    twins: HashSet<(Key, &'static str)>,
    services: HashMap<Key, usize>,
    /// Slices of each Service.
    endpoint_slices: HashMap<Key, Vec<usize>>,
    /// Zones of nodes, by the names of these.
    zones: HashMap<String, String>,
    /// Pods by the addresses that they share with nobody.
    by_address: HashMap<IpAddr, usize>,
    /// Rate limits that name a Server, oldest first.
    rate_limits: HashMap<Key, Vec<usize>>,
    /// Faults that name a Server, oldest first.
    faults: HashMap<Key, Vec<usize>>,
    policies: Policies,
    authorities: Authorities,
    cedar: CedarTexts,
    invariants: Vec<Invariant>,
    findings: Vec<Finding>,
    /// Indexes of the findings that close a namespace, or all.
    closing: Vec<usize>,
    /// Indexes into `findings` by kind, namespace and name of their object.
    findings_of: HashMap<(String, String, String), Vec<usize>>,
}

/// A grant or policy that ends, or is broken glass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTerm {
    /// Id of the grant or policy, as decisions give it as a reason.
    pub id: String,
    /// Its term.
    pub term: Term,
    /// Where it is declared.
    pub source: Source,
}

/// AuthorizationPolicies and ServerAuthorizations by what they target.
#[derive(Clone, Debug, Default)]
struct Policies {
    by_server: HashMap<Key, Vec<usize>>,
    by_namespace: HashMap<String, Vec<usize>>,
    by_route: HashMap<RouteKey, Vec<usize>>,
    /// ServerAuthorizations by the name of a Server.
    named: HashMap<Key, Vec<usize>>,
    /// ServerAuthorizations with a selector, by namespace.
    selecting: HashMap<String, Vec<usize>>,
}

/// Group, kind and key of a route.
type RouteKey = (&'static str, &'static str, Key);

fn route_key(route: &Object<Route>) -> RouteKey {
    (route.group, route.kind, route.key.clone())
}

/// What a Namespace says about defaults.
#[derive(Clone, Debug, Default)]
struct NamespaceDefaults {
    annotations: BTreeMap<String, String>,
    /// The Namespace object, or an unreadable document, closes it.
    closed: Option<(String, Source)>,
    source: Option<Source>,
}

impl Index {
    /// Builds the index of what is in force. Nothing here fails: what is wrong is a finding and closes.
    pub fn build(loaded: &Loaded, config: &IndexConfig) -> Self {
        Self::of(loaded.in_force(), config)
    }

    /// The index of all that `loaded` holds.
    fn of(loaded: Loaded, config: &IndexConfig) -> Self {
        let Loaded {
            resources,
            mut findings,
        } = loaded;
        let namespaces = namespaces(&resources);
        let workloads = workloads::collect(&resources, &namespaces, config, &mut findings);
        let authorities = Authorities::resolve(&resources, config, &mut findings);
        let cedar = CedarTexts::resolve(&resources, &authorities, &mut findings);
        let domain = &config.trust_domain;
        let invariants = invariants::resolve(&resources, &authorities, domain, &mut findings);
        let mut index = Self {
            by_key: workloads
                .iter()
                .enumerate()
                .map(|(i, w)| (w.key.clone(), i))
                .collect(),
            by_owner: workloads::by_owner(&workloads),
            by_namespace: workloads::by_namespace(&workloads),
            twins: twins(&resources.routes),
            services: resources
                .services
                .iter()
                .enumerate()
                .map(|(at, s)| (s.key.clone(), at))
                .collect(),
            endpoint_slices: by(&resources.endpoint_slices, |slice| {
                let service = slice.spec.service.iter();
                service
                    .map(|name| Key::new(&slice.key.namespace, name))
                    .collect()
            }),
            zones: resources
                .nodes
                .iter()
                .filter_map(|node| Some((node.key.name.clone(), node.spec.zone.clone()?)))
                .collect(),
            by_address: workloads::by_address(&workloads),
            servers: by(&resources.servers, |s| vec![s.key.namespace.clone()]),
            routes: by(&resources.routes, |r| {
                let mut servers: Vec<Key> = r
                    .spec
                    .servers
                    .iter()
                    .map(|parent| Key::new(&r.key.namespace, &parent.name))
                    .collect();
                servers.sort();
                servers.dedup();
                servers
            }),
            service_routes: by(&resources.routes, |r| {
                let services = r.spec.services.iter().map(|parent| parent.key.clone());
                services.collect::<BTreeSet<Key>>().into_iter().collect()
            }),
            egress_routes: by(&resources.routes, |r| {
                let networks = r.spec.egress.iter().map(|parent| parent.key.clone());
                networks.collect::<BTreeSet<Key>>().into_iter().collect()
            }),
            egress_order: in_order(&resources.egress_networks),
            reference_grants: by(&resources.reference_grants, |grant| {
                vec![grant.key.namespace.clone()]
            }),
            rate_limits: by(&resources.rate_limits, |l| {
                l.spec
                    .server
                    .iter()
                    .map(|name| Key::new(&l.key.namespace, name))
                    .collect()
            }),
            faults: by(&resources.faults, |fault| {
                let server = fault.spec.server.iter();
                server
                    .map(|name| Key::new(&fault.key.namespace, name))
                    .collect()
            }),
            policies: Policies::of(&resources),
            config: config.clone(),
            resources,
            workloads,
            authorities,
            cedar,
            invariants,
            findings: Vec::new(),
            closing: Vec::new(),
            findings_of: HashMap::default(),
        };
        lint::lint(&index, &mut findings);
        route_status::lint(&index, &mut findings);
        egress::lint(&index, &mut findings);
        cedar_texts::lint(&index, &mut findings);
        findings.sort();
        findings.dedup();
        for (number, found) in findings.iter().enumerate() {
            if let Some(object) = &found.object {
                let key = (
                    object.kind.clone(),
                    object.namespace.clone(),
                    object.name.clone(),
                );
                index.findings_of.entry(key).or_default().push(number);
            } else if [
                Code::UnknownDocument,
                Code::NamespaceClosed,
                Code::CedarCloses,
                Code::EgressCloses,
            ]
            .iter()
            .any(|c| c.text() == found.code)
            {
                index.closing.push(number);
            }
        }
        index.findings = findings;
        index
    }

    /// Every workload, sorted by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = (&WorkloadKey, &WorkloadInfo)> {
        self.workloads.iter().map(|w| (&w.key, &w.info))
    }

    /// The workloads themselves, for who reads more of them than a snapshot tells.
    pub(crate) fn workload_list(&self) -> &[Workload] {
        &self.workloads
    }

    /// Everything that is wrong or doubtful, sorted.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Grants and routes that change nothing while the rest stands, sorted: made anew for each call.
    pub fn surplus(&self) -> Vec<Finding> {
        lint::surplus(self)
    }

    /// What must hold of the whole, sorted by namespace and name: for whoever proves it, never evaluated.
    pub fn invariants(&self) -> &[Invariant] {
        &self.invariants
    }

    /// Every grant and policy in force that ends or is broken glass, sorted by id. The index has no clock: whether one
    /// has expired is for its reader to say.
    pub fn terms(&self) -> Vec<NamedTerm> {
        terms::terms(self)
    }

    /// The settings it was built with.
    pub fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// Every Server, route, policy and authentication that the manifests hold, in force or not.
    pub fn policy_objects(&self) -> Vec<ObjectRef> {
        fn all<T>(objects: &[Arc<Object<T>>]) -> impl Iterator<Item = ObjectRef> {
            objects.iter().map(|object| object.reference())
        }
        let resources = &self.resources;
        all(&resources.servers)
            .chain(all(&resources.routes))
            .chain(all(&resources.authorization_policies))
            .chain(all(&resources.server_authorizations))
            .chain(all(&resources.mesh_tls))
            .chain(all(&resources.network_authentications))
            .chain(all(&resources.cedar_policies))
            .chain(all(&resources.egress_networks))
            .collect()
    }

    /// Policy of one workload.
    pub fn snapshot(&self, workload: &WorkloadKey, generation: Generation) -> Option<SnapshotData> {
        let workload = self
            .by_key
            .get(workload)
            .and_then(|at| self.workloads.get(*at))?;
        Some(snapshot::assemble(self, workload, generation))
    }

    /// Policy of the workload at a place in [`Index::workloads`].
    pub(crate) fn snapshot_at(&self, at: usize, generation: Generation) -> Option<SnapshotData> {
        self.workloads
            .get(at)
            .map(|workload| snapshot::assemble(self, workload, generation))
    }

    /// A finding and the object it is about, pushed.
    fn note<T>(findings: &mut Vec<Finding>, code: Code, object: &Object<T>, message: String) {
        findings.push(finding(
            code,
            message,
            Some(object.reference()),
            object.source.clone(),
        ));
    }
}

impl Policies {
    fn of(resources: &Resources) -> Self {
        let mut out = Self::default();
        for (number, policy) in resources.authorization_policies.iter().enumerate() {
            let namespace = &policy.key.namespace;
            match &policy.spec.target {
                Some(Target::Server(name)) => {
                    list(&mut out.by_server, KeyRef::new(namespace, name), number);
                }
                Some(Target::Namespace) => out
                    .by_namespace
                    .entry_ref(namespace)
                    .or_default()
                    .push(number),
                Some(Target::Route { group, kind, name }) => {
                    out.by_route
                        .entry((group, kind, Key::new(namespace, name)))
                        .or_default()
                        .push(number);
                }
                Some(Target::Servers(_)) | None => {}
            }
        }
        for (number, policy) in resources.server_authorizations.iter().enumerate() {
            let namespace = &policy.key.namespace;
            match &policy.spec.target {
                Some(Target::Server(name)) => {
                    list(&mut out.named, KeyRef::new(namespace, name), number);
                }
                Some(Target::Servers(_)) => out
                    .selecting
                    .entry(namespace.clone())
                    .or_default()
                    .push(number),
                _ => {}
            }
        }
        out
    }
}

/// Adds a number to the list of a key, which is made for the first of its list alone.
fn list(lists: &mut HashMap<Key, Vec<usize>>, key: KeyRef<'_>, number: usize) {
    if let Some(numbers) = lists.get_mut(&key) {
        numbers.push(number);
    } else {
        lists.insert(Key::from(&key), vec![number]);
    }
}

/// Objects by some key, oldest first, then by namespace, name and group.
fn by<T, K: std::hash::Hash + Eq>(
    objects: &[Arc<Object<T>>],
    keys: impl Fn(&Object<T>) -> Vec<K>,
) -> HashMap<K, Vec<usize>> {
    let mut out: HashMap<K, Vec<usize>> = HashMap::default();
    for at in in_order(objects) {
        for key in objects
            .get(at)
            .map(|object| keys(object))
            .unwrap_or_default()
        {
            out.entry(key).or_default().push(at);
        }
    }
    out
}

/// Places of objects, oldest first, then by namespace, name and group.
fn in_order<T>(objects: &[Arc<Object<T>>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by_key(|at| {
        objects
            .get(*at)
            .map(|o| (o.created, &o.key, o.group, &o.source))
    });
    order
}

fn twins(routes: &[Arc<Object<Route>>]) -> HashSet<(Key, &'static str)> {
    let mut groups: HashMap<(Key, &'static str), &'static str> = HashMap::default();
    let mut out = HashSet::default();
    for route in routes {
        let key = (route.key.clone(), route.kind);
        if *groups.entry(key.clone()).or_insert(route.group) != route.group {
            out.insert(key);
        }
    }
    out
}

fn namespaces(resources: &Resources) -> HashMap<String, NamespaceDefaults> {
    let mut out: HashMap<String, NamespaceDefaults> = HashMap::default();
    for object in &resources.namespaces {
        let entry = out.entry(object.key.name.clone()).or_default();
        entry.annotations.clone_from(&object.annotations);
        entry.source = Some(object.source.clone());
        if let Some(why) = &object.invalid {
            entry.closed = Some((why.clone(), object.source.clone()));
        }
    }
    for closed in &resources.closed {
        if let Some(namespace) = &closed.namespace {
            let entry = out.entry(namespace.clone()).or_default();
            entry.closed = Some((closed.why.clone(), closed.source.clone()));
        }
    }
    out
}
