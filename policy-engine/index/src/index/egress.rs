//! EgressNetworks and the routes attached to them: which concern a workload, and what they say of what it may reach.
//!
//! Networks of the control plane's namespace, and of Linkerd's `linkerd-egress`, are the whole mesh's; others are their
//! own namespace's. Routes only open what a network denies, so they count in the namespace of their network alone: a
//! namespace adds nothing to what the mesh allows. An invalid network denies what it speaks for, and one that cannot be
//! read speaks for everything outside of the cluster.

mod names;
mod origin;

use super::Index;
use super::routes::{core_route, shown_kind};
use super::workloads::Workload;
use crate::finding::{Code, finding};
use crate::manifest::identity::is_label;
use crate::manifest::network::canonical_block;
use crate::manifest::resource::{EgressNetwork, Key, NetworkEntry, Object, Route};
use crate::manifest::traffic::EgressParent;
use ipnet::IpNet;
use mesh_policy::egress::{self as core, EgressPort, Layer, Speaks, TrafficPolicy};
use mesh_policy::snapshot::{Finding, Network, PathOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Where Linkerd keeps the networks of a whole cluster, unless an installation says otherwise.
const LINKERDS_NAMESPACE: &str = "linkerd-egress";

/// Workloads of its namespace that a network, or a route on one, is for: names of service accounts, with commas.
const FOR_ACCOUNTS: &str = "mesh.internal/service-accounts";

/// Of a network of the whole mesh: namespaces decide themselves about the addresses that they have a network for.
const NAMESPACES_DECIDE: &str = "mesh.internal/namespaces-decide";

/// Why a network does not take a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// There is no such network.
    NoNetwork,
    /// It is another namespace's.
    Elsewhere,
    /// Routes of this kind are attached to the same port, and come first.
    Behind(&'static str),
}

impl NotTaken {
    pub(super) fn message(&self, parent: &EgressParent) -> String {
        let Key { namespace, name } = &parent.key;
        match self {
            Self::NoNetwork => {
                format!("there is no EgressNetwork `{namespace}/{name}` to attach to")
            }
            Self::Elsewhere => format!(
                "EgressNetwork `{namespace}/{name}` takes routes of its own namespace alone: others would open what it closes"
            ),
            Self::Behind(kind) => format!(
                "port {} of EgressNetwork `{namespace}/{name}` has a {kind}, which comes first: this route has no effect there",
                parent.port
            ),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoNetwork | Self::Elsewhere => Code::NotAttached,
            Self::Behind(_) => Code::IdleEgressRoute,
        }
    }
}

/// What a route judges, by its kind.
fn speaks(route: &Object<Route>) -> Speaks {
    match route.kind {
        "TLSRoute" => Speaks::Tls,
        "TCPRoute" => Speaks::Tcp,
        _ => Speaks::Http,
    }
}

/// Kinds of routes on one port: the first of these that is there counts, as with Linkerd.
fn rank(speaks: Speaks) -> u8 {
    match speaks {
        Speaks::Http => 0,
        Speaks::Tls => 1,
        Speaks::Tcp => 2,
    }
}

/// Bits of `169.254.0.0/16`: who writes a block within it means it.
const LINK_LOCAL_BITS: u8 = 16;

/// Where clouds tell the credentials of a machine to whoever asks on it. No route to the internet leads there, so nobody
/// thinks of it who writes `0.0.0.0/0`.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// Which workloads an object is for; an error says why that cannot be read.
enum For<'a> {
    All,
    Accounts(Vec<&'a str>),
}

impl<'a> For<'a> {
    fn of<T>(object: &'a Object<T>) -> Result<Self, String> {
        let Some(text) = object.annotations.get(FOR_ACCOUNTS) else {
            return Ok(Self::All);
        };
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        match names.iter().find(|name| !name.split('.').all(is_label)) {
            Some(name) => Err(format!(
                "`{FOR_ACCOUNTS}: {text}`: `{name}` is not the name of a service account"
            )),
            None => Ok(Self::Accounts(names)),
        }
    }

    fn includes(&self, account: &str) -> bool {
        match self {
            Self::All => true,
            Self::Accounts(names) => names.contains(&account),
        }
    }
}

impl Index {
    /// Whether networks of a namespace are the whole mesh's.
    fn is_whole_meshs(&self, namespace: &str) -> bool {
        namespace == self.config.control_plane_namespace || namespace == LINKERDS_NAMESPACE
    }

    /// The networks that concern a workload, in the order that breaks ties, and what each was made of.
    pub(super) fn egress_of(&self, workload: &Workload) -> Vec<core::EgressNetwork> {
        let own = &workload.key.namespace;
        let account = workload.info.service_account.as_str();
        let layer_of = |namespace: &str| match self.is_whole_meshs(namespace) {
            true => Some(Layer::Mesh),
            false => (namespace == own).then_some(Layer::Namespace),
        };
        let closed = self.resources.egress_closed.iter().filter_map(|closed| {
            let layer = match &closed.namespace {
                None => Layer::Mesh,
                Some(namespace) => layer_of(namespace)?,
            };
            let namespace = closed.namespace.as_deref().unwrap_or_default();
            let source = closed.source.clone();
            let all = self.outside();
            Some(core::closed(layer, namespace, &closed.why, source, all))
        });
        let networks = self.egress_order.iter().filter_map(|at| {
            let network = self.resources.egress_networks.get(*at)?;
            let layer = layer_of(&network.key.namespace)?;
            let concerns = For::of(network).map_or(true, |all| all.includes(account));
            concerns.then(|| self.egress_network(network, layer, account))
        });
        closed.chain(networks).collect()
    }

    fn egress_network(
        &self,
        network: &Object<EgressNetwork>,
        layer: Layer,
        account: &str,
    ) -> core::EgressNetwork {
        let unreadable = For::of(network).err();
        let overlap = overlap(self, &network.spec).map(|(cidr, block)| overlaps(cidr, block));
        let invalid = network.invalid.clone().or(unreadable).or(overlap);
        let blocks = network.spec.networks.as_ref();
        let networks = blocks.map(|all| all.iter().map(NetworkEntry::to_network).collect());
        let deny = !network.spec.allows;
        core::EgressNetwork {
            namespace: network.key.namespace.clone(),
            name: network.key.name.clone(),
            layer,
            traffic: if deny {
                TrafficPolicy::Deny
            } else {
                TrafficPolicy::Allow
            },
            networks: networks.unwrap_or_else(|| self.outside()),
            ports: match invalid {
                None => self.egress_ports(network, account),
                Some(_) => BTreeMap::new(),
            },
            yields: network
                .annotations
                .get(NAMESPACES_DECIDE)
                .map(String::as_str)
                == Some("true"),
            invalid,
            source: network.source.clone(),
        }
    }

    /// Every address but the cluster's.
    fn outside(&self) -> Vec<Network> {
        let cluster: Vec<IpNet> = self
            .config
            .cluster_networks
            .iter()
            .map(canonical_block)
            .collect();
        core::everything_but(&cluster)
    }

    /// Routes of a network by port, of the kind that counts there; those that are for this service account. A network that
    /// allows has those of ports where one of them is to begin TLS.
    fn egress_ports(
        &self,
        network: &Object<EgressNetwork>,
        account: &str,
    ) -> BTreeMap<u16, EgressPort> {
        let mut out: BTreeMap<u16, EgressPort> = BTreeMap::new();
        let first = self.first_on(&network.key);
        for (route, parent) in self.own_routes_on(&network.key) {
            if behind(&first, route, parent).is_err() {
                continue;
            }
            if network.spec.allows && !self.asks_tls_on(&network.key, parent.port, Some(account)) {
                continue;
            }
            let reading = For::of(route);
            if reading.as_ref().is_ok_and(|all| !all.includes(account)) {
                continue;
            }
            let mut core = core_route(route, shown_kind(self, route), PathOptions::default());
            let tls = origin::of(route);
            let unusable = unusable(route, network);
            core.invalid = core.invalid.or(reading.err()).or(unusable);
            let unbound = names::are_unbound(route).unwrap_or_else(|why| {
                core.invalid.get_or_insert(why);
                false
            });
            let tls = tls.unwrap_or_else(|why| {
                core.invalid.get_or_insert(why);
                None
            });
            core.rules.iter_mut().for_each(|rule| rule.filters.clear());
            let port = out.entry(parent.port).or_insert_with(|| EgressPort {
                speaks: speaks(route),
                routes: Vec::new(),
                tls: BTreeMap::new(),
                unbound: BTreeSet::new(),
            });
            if let Ok(at) = u32::try_from(port.routes.len()) {
                port.tls.extend(tls.map(|tls| (at, tls)));
                port.unbound.extend(unbound.then_some(at));
            }
            port.routes.push(core);
        }
        out
    }

    /// Routes that name a network, oldest first, with each reference.
    fn routes_on<'i>(
        &'i self,
        network: &'i Key,
    ) -> impl Iterator<Item = (&'i Object<Route>, &'i EgressParent)> {
        let numbers = self.egress_routes.get(network).into_iter().flatten();
        let routes = numbers.filter_map(|at| self.resources.routes.get(*at));
        routes.flat_map(move |route| {
            let mut ports = Vec::new();
            let parents = route.spec.egress.iter();
            let parents = parents.filter(move |parent| parent.key == *network);
            let once = parents.filter(move |parent| {
                let first = !ports.contains(&parent.port);
                ports.push(parent.port);
                first
            });
            once.map(move |parent| (&**route, parent))
        })
    }

    /// [`Self::routes_on`], of the network's own namespace.
    fn own_routes_on<'i>(
        &'i self,
        network: &'i Key,
    ) -> impl Iterator<Item = (&'i Object<Route>, &'i EgressParent)> {
        let routes = self.routes_on(network);
        routes.filter(|(route, _)| route.key.namespace == network.namespace)
    }

    /// Whether a route that counts at a port of a network is to begin TLS, for this service account or for any: then all of
    /// that port count.
    fn asks_tls_on(&self, network: &Key, port: u16, account: Option<&str>) -> bool {
        let first = self.first_on(network);
        let mut routes = self.own_routes_on(network);
        let concerns = |route: &Object<Route>| match (For::of(route), account) {
            (Ok(all), Some(account)) => all.includes(account),
            (Ok(_), None) | (Err(_), _) => true,
        };
        routes.any(|(route, parent)| {
            parent.port == port
                && origin::asks(&route.annotations)
                && behind(&first, route, parent).is_ok()
                && concerns(route)
        })
    }

    /// On each port of a network the oldest route of the kind that counts there.
    fn first_on<'i>(&'i self, network: &'i Key) -> BTreeMap<u16, &'i Object<Route>> {
        let mut first = BTreeMap::new();
        for (route, parent) in self.own_routes_on(network) {
            let held = first.entry(parent.port).or_insert(route);
            if rank(speaks(route)) < rank(speaks(held)) {
                *held = route;
            }
        }
        first
    }

    /// Whether a network takes a route, valid or not.
    pub(super) fn takes_egress(
        &self,
        route: &Object<Route>,
        parent: &EgressParent,
    ) -> Result<(), NotTaken> {
        let mut networks = self.resources.egress_networks.iter();
        if !networks.any(|network| network.key == parent.key) {
            return Err(NotTaken::NoNetwork);
        }
        if route.key.namespace != parent.key.namespace {
            return Err(NotTaken::Elsewhere);
        }
        behind(&self.first_on(&parent.key), route, parent)
    }

    /// Objects that are part of what a workload may reach.
    pub(super) fn egress_objects(&self, networks: &[core::EgressNetwork]) -> Vec<[String; 3]> {
        let mut out = Vec::new();
        for network in networks {
            let object =
                |kind: &str, name: &str| [kind, &network.namespace, name].map(str::to_owned);
            out.push(object("EgressNetwork", &network.name));
            let routes = network.ports.values().flat_map(|port| &port.routes);
            out.extend(routes.map(|route| {
                let kind = route.kind.split('.').next().unwrap_or_default();
                object(kind, &route.name)
            }));
        }
        out
    }
}

/// Whether a route is of the kind that counts at its port, `first` being the first of each port.
fn behind(
    first: &BTreeMap<u16, &Object<Route>>,
    route: &Object<Route>,
    parent: &EgressParent,
) -> Result<(), NotTaken> {
    match first.get(&parent.port) {
        Some(first) if rank(speaks(first)) < rank(speaks(route)) => {
            Err(NotTaken::Behind(first.kind))
        }
        _ => Ok(()),
    }
}

/// What a route asks for that nobody does to what leaves the mesh: its requests are denied.
fn unusable(route: &Object<Route>, network: &Object<EgressNetwork>) -> Option<String> {
    for rule in &route.spec.rules {
        let outbound = &rule.outbound;
        if !outbound.filters.is_empty() {
            return Some("filters are not applied to what leaves the mesh".to_owned());
        }
        let itself = |backend: &&crate::manifest::traffic::BackendRef| {
            backend.kind == "EgressNetwork"
                && backend.key == network.key
                && backend.filters.is_empty()
        };
        let mut backends = outbound.backends.iter().flatten();
        if let Some(other) = backends.find(|backend| !itself(backend)) {
            let Key { namespace, name } = &other.key;
            return Some(format!(
                "backend `{namespace}/{name}` is not the EgressNetwork that the route is attached to"
            ));
        }
    }
    None
}

/// A block of a network, and one of the cluster that has addresses in common with it.
fn overlap(index: &Index, network: &EgressNetwork) -> Option<(IpNet, IpNet)> {
    let entries = network.networks.iter().flatten();
    let mut overlaps = entries.flat_map(|entry| {
        let cluster = index.config.cluster_networks.iter().map(canonical_block);
        cluster
            .filter(|block| entry.reaches(block))
            .map(move |block| (entry.cidr, block))
    });
    overlaps.next()
}

fn overlaps(cidr: IpNet, block: IpNet) -> String {
    format!("`{cidr}` and the cluster network `{block}` overlap")
}

/// What is wrong or idle between networks and routes.
pub(super) fn lint(index: &Index, findings: &mut Vec<Finding>) {
    for network in &index.resources.egress_networks {
        if let Some((cidr, block)) = overlap(index, &network.spec) {
            let message = format!(
                "{} covers addresses of the cluster: {}",
                network.title(),
                overlaps(cidr, block)
            );
            Index::note(findings, Code::EgressOverlap, network, message);
        }
        if let Err(why) = For::of(network) {
            Index::note(findings, Code::BadValue, network, why);
        }
        if opens_metadata(index, network) {
            let message = format!(
                "{} lets out to {METADATA} too, where clouds keep the credentials of the machine",
                network.title()
            );
            Index::note(findings, Code::WideEgress, network, message);
        }
        match network
            .annotations
            .get(NAMESPACES_DECIDE)
            .map(String::as_str)
        {
            None | Some("true") => {}
            Some(other) => {
                let message = format!("`{NAMESPACES_DECIDE}: {other}` is not `true`: they do not");
                Index::note(findings, Code::BadValue, network, message);
            }
        }
    }
    origin::lint(index, findings);
    names::lint(index, findings);
    let routes = index.resources.routes.iter();
    for route in routes.filter(|route| !route.spec.egress.is_empty()) {
        if let Err(why) = For::of(route) {
            Index::note(findings, Code::BadValue, route, why);
        }
        if let Some(name) = route.spec.hostnames.iter().find(|name| is_suffix(name)) {
            let message = format!(
                "{}: `{name}` takes every domain there, whoever owns it",
                route.title()
            );
            Index::note(findings, Code::WideEgress, route, message);
        }
        for parent in &route.spec.egress {
            route_on(index, route, parent, findings);
        }
    }
}

/// Whether a network lets out to [`METADATA`] by a block that is not about such addresses, and no other one of its
/// namespace speaks for it more closely.
fn opens_metadata(index: &Index, network: &Object<EgressNetwork>) -> bool {
    let Some(own) = metadata_block(index, network).filter(|_| network.spec.allows) else {
        return false;
    };
    let mut others = index.resources.egress_networks.iter();
    let closer = |other: &&Arc<Object<EgressNetwork>>| {
        other.key.namespace == network.key.namespace
            && matches!(For::of(other), Ok(For::All))
            && metadata_block(index, other) > Some(own)
    };
    own < LINK_LOCAL_BITS && !others.any(|other| closer(&other))
}

/// Bits of the smallest block of a network that covers [`METADATA`].
fn metadata_block(index: &Index, network: &Object<EgressNetwork>) -> Option<u8> {
    let entries = network.spec.networks.as_ref();
    let blocks = entries.map(|all| all.iter().map(NetworkEntry::to_network).collect());
    let blocks: Vec<Network> = blocks.unwrap_or_else(|| index.outside());
    let covers = |block: &&Network| {
        block.cidr.contains(&METADATA) && !block.except.iter().any(|hole| hole.contains(&METADATA))
    };
    let covering = blocks.iter().filter(covers);
    covering.map(|block| block.cidr.prefix_len()).max()
}

/// Whether a hostname is a wildcard right below the root: `*.com`.
fn is_suffix(name: &str) -> bool {
    let below = name
        .strip_prefix("*.")
        .map(|rest| rest.trim_end_matches('.'));
    below.is_some_and(|rest| !rest.contains('.'))
}

fn route_on(
    index: &Index,
    route: &Object<Route>,
    parent: &EgressParent,
    findings: &mut Vec<Finding>,
) {
    let mut note = |code, message| {
        let object = Some(route.reference());
        findings.push(finding(code, message, object, parent.source.clone()));
    };
    if let Err(why) = index.takes_egress(route, parent) {
        return note(why.code(), why.message(parent));
    }
    let mut networks = index.resources.egress_networks.iter();
    let Some(network) = networks.find(|network| network.key == parent.key) else {
        return;
    };
    if let Some(why) = unusable(route, network) {
        note(
            Code::BadValue,
            format!("{}: {why}; what it takes is denied", route.title()),
        );
    }
    if network.spec.allows && !index.asks_tls_on(&network.key, parent.port, None) {
        let message = format!(
            "{} allows everything: the route changes nothing there",
            network.title()
        );
        note(Code::IdleEgressRoute, message);
    }
    let asks = |rule: &crate::manifest::resource::Rule| {
        rule.outbound.retry.is_some() || rule.outbound.timeouts != Default::default()
    };
    if route.spec.rules.iter().any(asks) {
        let message = "`timeouts` and `retry` are not applied to what leaves the mesh".to_owned();
        note(Code::NotEnforced, message);
    }
}
