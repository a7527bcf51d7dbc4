//! What a workload may reach outside of the mesh: EgressNetworks as data, and the decision.
//!
//! The proxy of the workload decides, for nobody stands at the other end. A connection is judged by the address that was
//! dialled; where routes name hosts, by the server name of its TLS or the host of its requests as well. Two layers speak
//! for an address: the networks of the whole mesh, and those of the workload's own namespace. In each layer one network
//! does: the smallest block that covers the address, then the first in the list; an invalid one before all. *Every* layer
//! that speaks must allow, so that nobody opens in a namespace what is closed for the mesh, unless the mesh's network
//! says that namespaces decide. An address that nobody speaks for is not restricted.
//!
//! A route may say that the proxy begins TLS for what it takes ([`TlsOrigin`]). What leaves then is TLS to another port, so
//! whoever else speaks for the address must allow that too.
//!
//! This is a table and no Cedar (`docs/decisions/0062-egress-is-a-table.md`). `plain` is a second, plain reading of the
//! same rules, to compare with.

mod decision;
mod origin;
#[cfg(test)]
mod plain;
mod special;
#[cfg(test)]
mod tests;

pub use decision::{Cause, EgressDecision, EgressPermit, Seen};
pub use origin::{Origination, TlsOrigin, TlsRoots, TlsVersion};

use crate::decide::Generation;
use crate::route::{RouteProblem, RouteTable};
use crate::snapshot::{Network, Route, Source};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One EgressNetwork, as far as it concerns a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressNetwork {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub layer: Layer,
    /// What is done to what no route takes.
    pub traffic: TrafficPolicy,
    /// Addresses that it speaks for.
    pub networks: Vec<Network>,
    /// Routes attached to it, by port. Where it allows, only ports at which some route begins TLS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, EgressPort>,
    /// Of a network of the mesh: where the workload's namespace has a network for the address, that one decides alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yields: bool,
    /// Why it denies everything that it speaks for, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// Where it is declared.
    pub source: Source,
}

/// Whose a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The whole mesh's.
    Mesh,
    /// The namespace's of the workload.
    Namespace,
}

/// `spec.trafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficPolicy {
    /// What no route takes passes too.
    Allow,
    /// What a route takes passes, and nothing else.
    Deny,
}

/// Routes of one port of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressPort {
    /// What they are about.
    pub speaks: Speaks,
    /// In the order that breaks ties. Those of TLS and TCP have one rule, for every path.
    pub routes: Vec<Route>,
    /// TLS that is begun for what a route takes, by its index in `routes`; of routes of requests only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<u32, TlsOrigin>,
    /// Routes, by their index, whose names let out to whatever address was dialled.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unbound: BTreeSet<u32>,
}

/// What the routes of a port judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// Requests, by host and what else a match names: HTTPRoute, GRPCRoute.
    Http,
    /// TLS that passes through, by the server name that the client asks for: TLSRoute.
    Tls,
    /// Bytes, whatever they are: TCPRoute.
    Tcp,
}

/// All networks that concern a workload, ready to decide.
#[derive(Debug, Default)]
pub struct Egress {
    networks: Vec<Compiled>,
    generation: Generation,
}

/// One network, compiled.
#[derive(Debug)]
struct Compiled {
    /// In the list that it was compiled from.
    place: usize,
    namespace: String,
    name: String,
    layer: Layer,
    traffic: TrafficPolicy,
    networks: Vec<Network>,
    ports: BTreeMap<u16, CompiledPort>,
    yields: bool,
    invalid: Option<Arc<str>>,
}

/// The routes of a port, compiled.
#[derive(Debug)]
struct CompiledPort {
    speaks: Speaks,
    table: RouteTable,
    /// By the index of the route.
    tls: BTreeMap<u32, Arc<TlsOrigin>>,
    /// Routes whose names are held against addresses.
    bound: BTreeSet<u32>,
}

/// A route of a network that cannot be read in full.
#[derive(Clone, Debug)]
pub(crate) struct EgressProblem {
    pub(crate) route: Route,
    pub(crate) why: String,
}

impl Egress {
    /// Compiles networks, in the order that breaks ties, with what could not be read of their routes.
    pub(crate) fn compile(
        networks: &[EgressNetwork],
        generation: Generation,
    ) -> (Self, Vec<EgressProblem>) {
        let mut problems = Vec::new();
        let mut port = |of: &EgressPort| {
            let (table, unread) = RouteTable::compile(&of.routes);
            let of_route = |problem: RouteProblem| {
                let at = usize::try_from(problem.route).ok()?;
                Some(EgressProblem {
                    route: of.routes.get(at)?.clone(),
                    why: problem.why,
                })
            };
            problems.extend(unread.into_iter().filter_map(of_route));
            let tls = of.tls.iter();
            CompiledPort {
                speaks: of.speaks,
                table,
                tls: tls.map(|(at, of)| (*at, Arc::new(of.clone()))).collect(),
                bound: bound(of),
            }
        };
        let networks = networks.iter().enumerate().map(|(place, one)| Compiled {
            place,
            namespace: one.namespace.clone(),
            name: one.name.clone(),
            layer: one.layer,
            traffic: one.traffic,
            networks: one.networks.clone(),
            ports: one.ports.iter().map(|(at, of)| (*at, port(of))).collect(),
            yields: one.yields,
            invalid: one.invalid.as_deref().map(Arc::from),
        });
        let networks = networks.collect();
        let compiled = Self {
            networks,
            generation,
        };
        (compiled, problems)
    }

    /// Whether nothing restricts the workload.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Who speaks for `to`, a canonical address.
    pub fn at(&self, to: SocketAddr) -> Speakers<'_> {
        let mesh = self.speaker(Layer::Mesh, to.ip());
        let own = self.speaker(Layer::Namespace, to.ip());
        let mesh = mesh.filter(|mesh| !(mesh.yields && mesh.invalid.is_none() && own.is_some()));
        Speakers {
            networks: [mesh, own],
            to,
            generation: self.generation,
        }
    }

    fn speaker(&self, layer: Layer, ip: IpAddr) -> Option<&Compiled> {
        let networks = self.networks.iter().enumerate();
        let covering = networks.filter(|(_, network)| network.layer == layer);
        let covering = covering.filter_map(|(at, network)| {
            let block = network.smallest_block(ip)?;
            Some((network.invalid.is_some(), block, Reverse(at), network))
        });
        let best = covering.max_by_key(|(invalid, block, at, _)| (*invalid, *block, *at));
        best.map(|(.., network)| network)
    }
}

impl Compiled {
    /// Length of the prefix of the smallest block that covers the address.
    fn smallest_block(&self, ip: IpAddr) -> Option<u8> {
        let covers = |network: &&Network| {
            network.cidr.contains(&ip) && !network.except.iter().any(|hole| hole.contains(&ip))
        };
        let covering = self.networks.iter().filter(covers);
        covering.map(|network| network.cidr.prefix_len()).max()
    }

    /// Whether it says the same of whatever comes at a port: then the bytes need not be read.
    fn needs_no_reading(&self, port: u16) -> bool {
        self.invalid.is_none()
            && match self.ports.get(&port) {
                Some(routes) => routes.speaks == Speaks::Tcp,
                None => self.traffic == TrafficPolicy::Allow,
            }
    }
}

/// Routes of a port that let out by name, to the addresses of that name.
fn bound(port: &EgressPort) -> BTreeSet<u32> {
    let routes = (0..).zip(&port.routes);
    let named = routes.filter(|(_, route)| !route.hostnames.is_empty());
    let named = named.map(|(at, _)| at);
    named.filter(|at| !port.unbound.contains(at)).collect()
}

/// The networks that speak for one address: the mesh's, then the namespace's.
#[derive(Clone, Copy, Debug)]
pub struct Speakers<'e> {
    networks: [Option<&'e Compiled>; 2],
    to: SocketAddr,
    generation: Generation,
}

impl Speakers<'_> {
    /// Their places in the list of the snapshot: the mesh's, then the namespace's.
    pub fn places(&self) -> [Option<usize>; 2] {
        self.networks.map(|network| Some(network?.place))
    }

    /// Who they are: layer, name and traffic policy.
    pub fn titles(&self) -> Vec<String> {
        let title = |network: &&Compiled| {
            let Compiled {
                namespace, name, ..
            } = network;
            let layer = match network.layer {
                Layer::Mesh => "the mesh",
                Layer::Namespace => "the namespace",
            };
            let says = match (&network.invalid, network.traffic) {
                (Some(_), _) => "is invalid",
                (None, TrafficPolicy::Allow) => "allows",
                (None, TrafficPolicy::Deny) => "denies what no route takes",
            };
            format!("EgressNetwork {namespace}/{name} of {layer}, which {says}")
        };
        self.networks.iter().flatten().map(title).collect()
    }

    /// Whether it may be the address of a name of the world: it is one of the world, or everybody who speaks for it does so
    /// by a block of such addresses alone.
    pub fn expect_names(&self) -> bool {
        let Some(bits) = special::special(self.to.ip()) else {
            return true;
        };
        let mut networks = self.networks.iter().flatten().peekable();
        networks.peek().is_some()
            && networks.all(|network| network.smallest_block(self.to.ip()) >= Some(bits))
    }

    /// Whether it does not matter what comes: the answer is that for [`Seen::Bytes`]. A denial that is told to a client of
    /// HTTP needs its request.
    pub fn need_no_reading(&self) -> bool {
        let mut speaking = self.networks.iter().flatten();
        speaking.all(|network| network.needs_no_reading(self.to.port()))
    }
}

/// A network that speaks for every address and denies: what stands in place of one that cannot be read.
pub fn closed(
    layer: Layer,
    namespace: &str,
    why: &str,
    source: Source,
    networks: Vec<Network>,
) -> EgressNetwork {
    EgressNetwork {
        namespace: namespace.to_owned(),
        name: "<unreadable>".to_owned(),
        layer,
        traffic: TrafficPolicy::Deny,
        networks,
        ports: BTreeMap::new(),
        yields: false,
        invalid: Some(why.to_owned()),
        source,
    }
}

/// A network that denies every address there is: for a workload that has no policy.
pub fn closed_to_all(why: &str, source: Source) -> EgressNetwork {
    closed(Layer::Mesh, "", why, source, everything_but(&[]))
}

/// Every address but those of `blocks`.
pub fn everything_but(blocks: &[IpNet]) -> Vec<Network> {
    let all = [
        IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(ipnet::Ipv6Net::default()),
    ];
    let without = |cidr: IpNet| Network {
        except: blocks
            .iter()
            .copied()
            .filter(|block| cidr.contains(block))
            .collect(),
        cidr,
    };
    all.map(without).into()
}
