//! The objects that we read, in our own types. A field is `None` where it could not be read.
//!
//! An invalid object stays here with whatever of it could be read: a Server that cannot be trusted must still close its
//! port (see [`crate::index`]).

use super::cedar_kinds::CedarPolicies;
use super::identity::Identity;
use super::invariant_kind::InvariantSpec;
use super::shadow::Shadow;
use super::traffic::{EgressParent, Outbound, ReferenceGrant, ServerParent, ServiceParent};
use crate::Mode;
use crate::map::HashSet;
use hashbrown::Equivalent;
use ipnet::IpNet;
use mesh_policy::snapshot::{
    FaultAbort, FaultBandwidth, FaultDelay, Filter, Network, ObjectRef, PathOptions, RouteMatch,
    ServerProtocol, Source,
};
use mesh_trust::{Timestamp, TrustDomain};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Objects of a kind. Shared: what a file holds is read once, and stays in the next load if the file does not change.
pub(crate) type All<T> = Vec<Arc<Object<T>>>;

/// All objects of a load, each list sorted by namespace, name and place.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    pub(crate) namespaces: All<()>,
    pub(crate) service_accounts: All<()>,
    pub(crate) pods: All<Pod>,
    pub(crate) nodes: All<Node>,
    pub(crate) templates: All<Template>,
    pub(crate) services: All<Service>,
    pub(crate) endpoint_slices: All<EndpointSlice>,
    pub(crate) servers: All<Server>,
    pub(crate) server_authorizations: All<ServerAuthorization>,
    pub(crate) authorization_policies: All<AuthorizationPolicy>,
    pub(crate) mesh_tls: All<MeshTls>,
    pub(crate) network_authentications: All<Vec<NetworkEntry>>,
    pub(crate) routes: All<Route>,
    pub(crate) rate_limits: All<RateLimit>,
    pub(crate) faults: All<HttpFault>,
    pub(crate) federations: All<Federation>,
    pub(crate) egress_networks: All<EgressNetwork>,
    /// CedarPolicies and ClusterCedarPolicies.
    pub(crate) cedar_policies: All<CedarPolicies>,
    pub(crate) invariants: All<InvariantSpec>,
    /// Which namespaces let routes of others name their Services.
    pub(crate) reference_grants: All<ReferenceGrant>,
    /// Documents that may have held a Server, and of which namespace (`None`: any).
    pub(crate) closed: Vec<Closed>,
    /// Documents that may have held a policy in Cedar, and for which namespace (`None`: any).
    pub(crate) cedar_closed: Vec<Closed>,
    /// Documents that may have held an EgressNetwork, and of which namespace (`None`: any).
    pub(crate) egress_closed: Vec<Closed>,
    /// Whether some object is, or was, part of one set alone: what is in force, or the candidate.
    pub(crate) shadowed: bool,
}

/// Does the same to every list of objects.
macro_rules! each_list {
    ($resources:expr, $list:ident => $do:expr) => {{
        let Resources {
            namespaces,
            service_accounts,
            pods,
            nodes,
            templates,
            services,
            endpoint_slices,
            servers,
            server_authorizations,
            authorization_policies,
            mesh_tls,
            network_authentications,
            routes,
            rate_limits,
            faults,
            federations,
            egress_networks,
            cedar_policies,
            invariants,
            reference_grants,
            closed: _,
            cedar_closed: _,
            egress_closed: _,
            shadowed: _,
        } = $resources;
        {
            let $list = namespaces;
            $do
        }
        {
            let $list = service_accounts;
            $do
        }
        {
            let $list = pods;
            $do
        }
        {
            let $list = nodes;
            $do
        }
        {
            let $list = templates;
            $do
        }
        {
            let $list = services;
            $do
        }
        {
            let $list = endpoint_slices;
            $do
        }
        {
            let $list = servers;
            $do
        }
        {
            let $list = server_authorizations;
            $do
        }
        {
            let $list = authorization_policies;
            $do
        }
        {
            let $list = mesh_tls;
            $do
        }
        {
            let $list = network_authentications;
            $do
        }
        {
            let $list = routes;
            $do
        }
        {
            let $list = rate_limits;
            $do
        }
        {
            let $list = faults;
            $do
        }
        {
            let $list = federations;
            $do
        }
        {
            let $list = egress_networks;
            $do
        }
        {
            let $list = cedar_policies;
            $do
        }
        {
            let $list = invariants;
            $do
        }
        {
            let $list = reference_grants;
            $do
        }
    }};
}
pub(crate) use each_list;

impl Resources {
    /// Namespaces of its objects, and those that it closes or sets defaults of.
    pub(crate) fn namespaces_named(&self) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        each_list!(self, list => out.extend(list.iter().filter(|one| one.namespaced).map(|one| one.key.namespace.clone())));
        out.extend(self.namespaces.iter().map(|one| one.key.name.clone()));
        let closed = self.all_closed();
        out.extend(closed.filter_map(|one| one.namespace.clone()));
        out
    }

    /// Adds the objects of another load.
    pub(crate) fn add(&mut self, other: &Self) {
        self.namespaces.extend_from_slice(&other.namespaces);
        self.service_accounts
            .extend_from_slice(&other.service_accounts);
        self.pods.extend_from_slice(&other.pods);
        self.nodes.extend_from_slice(&other.nodes);
        self.templates.extend_from_slice(&other.templates);
        self.services.extend_from_slice(&other.services);
        self.endpoint_slices
            .extend_from_slice(&other.endpoint_slices);
        self.servers.extend_from_slice(&other.servers);
        self.server_authorizations
            .extend_from_slice(&other.server_authorizations);
        self.authorization_policies
            .extend_from_slice(&other.authorization_policies);
        self.mesh_tls.extend_from_slice(&other.mesh_tls);
        self.network_authentications
            .extend_from_slice(&other.network_authentications);
        self.routes.extend_from_slice(&other.routes);
        self.rate_limits.extend_from_slice(&other.rate_limits);
        self.faults.extend_from_slice(&other.faults);
        self.federations.extend_from_slice(&other.federations);
        self.egress_networks
            .extend_from_slice(&other.egress_networks);
        self.cedar_policies.extend_from_slice(&other.cedar_policies);
        self.invariants.extend_from_slice(&other.invariants);
        self.reference_grants
            .extend_from_slice(&other.reference_grants);
        self.closed.extend_from_slice(&other.closed);
        self.cedar_closed.extend_from_slice(&other.cedar_closed);
        self.egress_closed.extend_from_slice(&other.egress_closed);
        self.shadowed |= other.shadowed;
    }

    /// Takes out what is part of one set alone, with what it closes, and says where it stood.
    pub(crate) fn take_out(&mut self, shadow: Shadow) -> HashSet<Source> {
        let mut gone = HashSet::default();
        each_list!(&mut *self, list => {
            let out = list.iter().filter(|one| one.shadow == shadow);
            gone.extend(out.map(|one| one.source.clone()));
            list.retain(|one| one.shadow != shadow);
        });
        let stays = |one: &Closed| !gone.contains(&one.source);
        self.closed.retain(stays);
        self.cedar_closed.retain(stays);
        self.egress_closed.retain(stays);
        gone
    }

    /// Documents that close something because they cannot be read.
    pub(crate) fn all_closed(&self) -> impl Iterator<Item = &Closed> {
        let policy = self.closed.iter().chain(&self.cedar_closed);
        policy.chain(&self.egress_closed)
    }

    /// Whether it says anything of what leaves the mesh: a network of one namespace may be the whole mesh's.
    pub(crate) fn speaks_of_egress(&self) -> bool {
        !self.egress_networks.is_empty()
            || !self.egress_closed.is_empty()
            || self
                .routes
                .iter()
                .any(|route| !route.spec.egress.is_empty())
    }
}

/// A namespace that something unreadable closes.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) namespace: Option<String>,
    pub(crate) why: String,
    pub(crate) source: Source,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// A key that is looked up, and made only where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> KeyRef<'a> {
    pub(crate) fn new(namespace: &'a str, name: &'a str) -> Self {
        Self { namespace, name }
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    fn from(key: &'a Key) -> Self {
        Self::new(&key.namespace, &key.name)
    }
}

// Hashes as a key does: both hash two texts, in this order.
impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.namespace, self.name) == (&key.namespace, &key.name)
    }
}

impl Equivalent<&Key> for KeyRef<'_> {
    fn equivalent(&self, key: &&Key) -> bool {
        Equivalent::<Key>::equivalent(self, key)
    }
}

impl From<&KeyRef<'_>> for Key {
    fn from(key: &KeyRef<'_>) -> Self {
        Self::new(key.namespace, key.name)
    }
}

/// Age of an object, oldest first. An unreadable time might be the oldest; objects without one are the youngest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Created {
    Unreadable,
    At(Timestamp),
    Unknown,
}

impl Created {
    pub(crate) fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::Unreadable | Self::Unknown => None,
        }
    }
}

/// What all objects have.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    pub(crate) key: Key,
    pub(crate) kind: &'static str,
    pub(crate) group: &'static str,
    /// Whether the kind has namespaces.
    pub(crate) namespaced: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) created: Created,
    /// `metadata.generation`: how often an API server saw the spec change.
    pub(crate) generation: Option<i64>,
    /// `kind/name` of the owners.
    pub(crate) owners: Vec<(String, String)>,
    /// Which sets it is part of.
    pub(crate) shadow: Shadow,
    pub(crate) source: Source,
    /// Why nothing it says may open access, if so.
    pub(crate) invalid: Option<String>,
    pub(crate) spec: T,
}

impl<T> Object<T> {
    pub(crate) fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.to_owned(),
            namespace: if self.namespaced {
                self.key.namespace.clone()
            } else {
                String::new()
            },
            name: self.key.name.clone(),
            source: self.source.clone(),
        }
    }

    /// `Kind namespace/name`, for messages.
    pub(crate) fn title(&self) -> String {
        if self.namespaced {
            format!("{} {}/{}", self.kind, self.key.namespace, self.key.name)
        } else {
            format!("{} {}", self.kind, self.key.name)
        }
    }
}

/// Number or name of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortRef {
    Number(u16),
    Name(String),
}

/// A label query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) expressions: Vec<Expression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expression {
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: Vec<String>,
}

/// How an expression compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether labels satisfy every part, as Kubernetes has it (`NotIn` holds where the key is absent).
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.expressions.iter().all(|e| {
                let value = labels.get(&e.key);
                let listed = value.is_some_and(|v| e.values.contains(v));
                match e.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// A pod, or what a template would make one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pod {
    pub(crate) service_account: String,
    pub(crate) ports: Vec<ContainerPort>,
    /// Ports that are declared, and not of TCP: no policy is for them.
    pub(crate) other_ports: Vec<OtherPort>,
    pub(crate) probes: Vec<Probe>,
    pub(crate) ips: Vec<IpAddr>,
    /// Addresses of the node, if known: the only sources of probes then.
    pub(crate) host_ips: Vec<IpAddr>,
    /// No `Ready` condition that says otherwise, and neither finished nor failed.
    pub(crate) ready: bool,
    /// Whether a container is the mesh's proxy.
    pub(crate) has_proxy: bool,
    /// Where it runs, if that is settled.
    pub(crate) node: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The zone that it stands in, by its label.
    pub(crate) zone: Option<String>,
}

/// A TCP port that a container declares.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
    pub(crate) container: usize,
}

/// A port that a container or a Service declares for a protocol other than TCP.
#[derive(Clone, Debug)]
pub(crate) struct OtherPort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
    /// `UDP` or `SCTP`.
    pub(crate) protocol: &'static str,
}

impl OtherPort {
    pub(crate) fn new(name: Option<String>, port: u16, protocol: &str) -> Self {
        let protocol = if protocol == "UDP" { "UDP" } else { "SCTP" };
        Self {
            name,
            port,
            protocol,
        }
    }
}

/// A declared probe.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) kind: ProbeTarget,
    pub(crate) port: PortRef,
    pub(crate) container: usize,
    pub(crate) source: Source,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeTarget {
    /// Path without query.
    Http(String),
    Grpc,
    Tcp,
}

/// A workload kind with a pod template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) pod: Pod,
}

/// A Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service {
    /// `None` without selector.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    pub(crate) ports: Vec<ServicePort>,
    /// Ports that are not of TCP: nobody is sent there by the mesh.
    pub(crate) other_ports: Vec<OtherPort>,
    /// Its own addresses; none: headless, or not of a cluster.
    pub(crate) addresses: Vec<IpAddr>,
    /// `clusterIP: None`: clients dial its pods, so that nothing can be routed by its name.
    pub(crate) headless: bool,
    /// `trafficDistribution`, as it stands.
    pub(crate) traffic_distribution: Option<String>,
}

/// One TCP port of a Service.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
    pub(crate) target: PortRef,
    pub(crate) app_protocol: Option<String>,
}

/// Who stands behind a Service without selector, as its makers say.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointSlice {
    /// Name of the Service, in the slice's namespace; `None`: it belongs to none.
    pub(crate) service: Option<String>,
    /// TCP ports, by the names that the Service's ports have.
    pub(crate) ports: Vec<SlicePort>,
    /// Ready endpoints.
    pub(crate) ready: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug)]
pub(crate) struct SliceEndpoint {
    pub(crate) ip: IpAddr,
    /// Zones whose clients are to use it.
    pub(crate) for_zones: Vec<String>,
    /// The zone that it stands in.
    pub(crate) zone: Option<String>,
}

/// One port of all endpoints of a slice.
#[derive(Clone, Debug)]
pub(crate) struct SlicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
}

/// What a Server selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selects {
    Pods(Selector),
    External,
}

/// A Server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) selects: Option<Selects>,
    pub(crate) port: Option<PortRef>,
    pub(crate) protocol: ServerProtocol,
    pub(crate) access: Mode,
    pub(crate) paths: PathOptions,
}

/// What a ServerAuthorization or AuthorizationPolicy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server(String),
    Servers(Selector),
    Namespace,
    Route {
        group: &'static str,
        kind: &'static str,
        name: String,
    },
}

/// A ServerAuthorization.
#[derive(Clone, Debug)]
pub(crate) struct ServerAuthorization {
    pub(crate) target: Option<Target>,
    /// `None`: the cluster networks.
    pub(crate) networks: Option<Vec<NetworkEntry>>,
    pub(crate) client: SaClient,
}

/// Whom a ServerAuthorization admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SaClient {
    Nobody,
    Unauthenticated,
    AnyTls,
    Identities(Vec<Identity>),
}

/// An AuthorizationPolicy.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationPolicy {
    pub(crate) target: Option<Target>,
    pub(crate) authentications: Vec<AuthenticationRef>,
    /// The reason that `mesh.internal/allow-unauthenticated` gives.
    pub(crate) open: Option<String>,
}

/// One of `requiredAuthenticationRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthenticationRef {
    pub(crate) kind: AuthenticationKind,
    pub(crate) key: Key,
    pub(crate) source: Source,
}

/// Kind of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthenticationKind {
    MeshTls,
    Network,
    ServiceAccount,
}

impl AuthenticationKind {
    /// The kind's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MeshTls => "MeshTLSAuthentication",
            Self::Network => "NetworkAuthentication",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

/// A MeshTLSAuthentication.
#[derive(Clone, Debug)]
pub(crate) struct MeshTls {
    pub(crate) members: Vec<Identity>,
}

/// One network with its exceptions, masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkEntry {
    pub(crate) cidr: IpNet,
    pub(crate) except: Vec<IpNet>,
}

impl NetworkEntry {
    /// Whether some address of `block` is in it. Exceptions count if one of them alone covers what both share.
    pub(crate) fn reaches(&self, block: &IpNet) -> bool {
        let shared = if self.cidr.contains(block) {
            block
        } else if block.contains(&self.cidr) {
            &self.cidr
        } else {
            return false;
        };
        !self.except.iter().any(|except| except.contains(shared))
    }

    pub(crate) fn to_network(&self) -> Network {
        Network {
            cidr: self.cidr,
            except: self.except.clone(),
        }
    }
}

/// An EgressNetwork.
#[derive(Clone, Debug)]
pub(crate) struct EgressNetwork {
    /// Its traffic policy is `Allow`.
    pub(crate) allows: bool,
    /// What it speaks for; `None`: everything outside of the cluster, as where it cannot be read.
    pub(crate) networks: Option<Vec<NetworkEntry>>,
}

/// A route of any kind: HTTPRoute, GRPCRoute, TLSRoute, TCPRoute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    /// Servers it attaches to.
    pub(crate) servers: Vec<ServerParent>,
    /// Services it attaches to: there it says where requests go.
    pub(crate) services: Vec<ServiceParent>,
    /// EgressNetworks it attaches to: there it says what may be reached.
    pub(crate) egress: Vec<EgressParent>,
    pub(crate) hostnames: Vec<String>,
    pub(crate) rules: Vec<Rule>,
}

impl Route {
    /// Services that it names, as parents, backends and mirrors.
    pub(crate) fn service_keys(&self) -> Vec<&Key> {
        let parents = self.services.iter().map(|parent| &parent.key);
        let rules = self.rules.iter();
        let named = rules.flat_map(|rule| rule.outbound.backend_refs());
        let backends = named.filter(|one| one.is_service()).map(|one| &one.key);
        parents.chain(backends).collect()
    }
}

/// One rule of a route; the matches that could be read.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<RouteMatch>,
    /// What a Server's proxy does.
    pub(crate) filters: Vec<Filter>,
    /// What a client's proxy does, where the route attaches to a Service.
    pub(crate) outbound: Outbound,
}

/// An HTTPLocalRateLimitPolicy.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    pub(crate) server: Option<String>,
    pub(crate) total: Option<u32>,
    pub(crate) identity: Option<u32>,
    /// Service accounts and their rate.
    pub(crate) overrides: Vec<(Vec<Key>, u32)>,
}

/// An HTTPFault; what could not be read is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpFault {
    pub(crate) server: Option<String>,
    pub(crate) clients: Vec<Identity>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) delay: Option<FaultDelay>,
    pub(crate) abort: Option<FaultAbort>,
    pub(crate) bandwidth: Option<FaultBandwidth>,
}

/// A Federation.
#[derive(Clone, Debug)]
pub(crate) struct Federation {
    pub(crate) domain: Option<TrustDomain>,
    pub(crate) in_wildcards: bool,
}
