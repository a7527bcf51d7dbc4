//! What workloads reach outside of the mesh, in the finite classes that EgressNetworks and their routes tell apart.
//!
//! Addresses are told apart by the networks that speak for them, ports by the routes that these have there, and what is
//! sent by what those routes look at. One of each class is decided, by the code of the data path.
//!
//! - [`places`]: classes of addresses and ports
//! - [`sent`]: classes of what is sent: bytes, server names, requests
//! - [`requests`]: the requests among these
//! - [`change`]: what two policies let out differently
//! - [`access`]: who gets out, where to, and by what

pub mod access;
pub mod change;
pub mod places;
mod requests;
pub mod sent;

use crate::survey::Reason;
use crate::world::AskedPort;
use ipnet::IpNet;
use mesh_policy::Snapshot;
use mesh_policy::egress::{EgressDecision, EgressNetwork, EgressPort};
use mesh_policy::snapshot::{SnapshotData, Source};
use places::{Addresses, addresses, ports};
use sent::{Sent, SentClass, classes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Decisions that the questions about one policy, or one pair of them, may cost: some seconds.
pub const DECISIONS_MAX: usize = 2_000_000;

/// One connection or request to outside, as `mesh authz egress` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Whose: `namespace/workload`.
    pub from: String,
    /// Where to.
    pub to: SocketAddr,
    /// What is sent.
    #[serde(flatten)]
    pub sent: Sent,
}

/// One class, and what each policy says of it.
struct Question<'q> {
    /// Addresses.
    addresses: &'q Addresses,
    /// Port.
    port: AskedPort,
    /// What is sent.
    class: &'q SentClass,
    /// Classes of what can be sent there.
    classes: usize,
    /// Classes of ports of these addresses.
    ports: usize,
    /// One of the addresses and ports.
    to: SocketAddr,
    /// Decisions, in the order of the policies.
    decisions: Vec<EgressDecision>,
}

/// What keeps an answer from being exact; empty: it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inexact(pub Vec<String>);

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'c> {
    /// Addresses of the cluster. What nobody speaks for there does not leave the mesh, and is no access to outside.
    pub cluster: &'c [IpNet],
    /// Only what goes there; the cluster's addresses too, then. In canonical form.
    pub only: Option<SocketAddr>,
    /// Decisions that the answer may cost.
    pub decisions_max: usize,
}

impl Default for Scope<'_> {
    /// Everything, the cluster included.
    fn default() -> Self {
        Self {
            cluster: &[],
            only: None,
            decisions_max: DECISIONS_MAX,
        }
    }
}

/// Asks `views` together about every class of what leaves the mesh. `matters` says of the networks that speak for an
/// address, under each view, whether it is asked about.
fn ask(
    views: &[&Snapshot],
    scope: Scope<'_>,
    matters: impl Fn(&[Speaking<'_>]) -> bool,
    mut each: impl FnMut(Question<'_>),
) -> Inexact {
    let only = scope.only;
    let lists: Vec<Vec<EgressNetwork>> = views.iter().map(|view| decisive(&view.data())).collect();
    let mut inexact = Inexact::default();
    let mut left = scope.decisions_max;
    let (outside, inside) = addresses(views, &lists, scope.cluster);
    for addresses in outside.into_iter().chain(inside.filter(|_| only.is_some())) {
        let speaking = speaking(&addresses, &lists);
        if !matters(&speaking) || only.is_some_and(|only| !addresses.has(only.ip())) {
            continue;
        }
        let networks: Vec<&EgressNetwork> = speaking.iter().flatten().flatten().copied().collect();
        let ports = ports(&networks);
        for port in ports
            .iter()
            .copied()
            .filter(|port| is_port(*port, only, &ports))
        {
            let tables = |at: u16| networks.iter().filter_map(move |one| one.ports.get(&at));
            let own: Vec<&EgressPort> = tables(port.number()).collect();
            let begun = own.iter().flat_map(|table| table.tls.values());
            // Where TLS is begun, the routes of that port are asked as well.
            let begun: BTreeSet<u16> = begun.map(|origin| origin.port).collect();
            let beyond: Vec<&EgressPort> = begun.into_iter().flat_map(tables).collect();
            let found = classes(&own, &beyond);
            let place = || format!("outside, {} port {}", addresses.text(), port.text());
            inexact.0.extend(
                found
                    .inexact
                    .iter()
                    .map(|why| format!("{}: {why}", place())),
            );
            let count = found.classes.len();
            let Some(rest) = left.checked_sub(count.saturating_mul(views.len())) else {
                inexact.0.push(format!(
                    "{}: {count} classes were not asked: the limit is {} decisions",
                    place(),
                    scope.decisions_max
                ));
                continue;
            };
            left = rest;
            let to = only.unwrap_or(SocketAddr::new(addresses.address, port.number()));
            for class in &found.classes {
                let seen = class.sent.seen();
                let decide = |view: &&Snapshot| view.egress().at(to).decide(&seen);
                each(Question {
                    addresses: &addresses,
                    port,
                    ports: ports.len(),
                    class,
                    classes: count,
                    to,
                    decisions: views.iter().map(decide).collect(),
                });
            }
        }
    }
    inexact
}

/// Whether a class of ports is asked about, `only` being the address that is.
fn is_port(port: AskedPort, only: Option<SocketAddr>, all: &[AskedPort]) -> bool {
    let Some(only) = only.map(|only| only.port()) else {
        return true;
    };
    match port {
        AskedPort::Own(number) => number == only,
        AskedPort::Other(_) => !all.contains(&AskedPort::Own(only)),
    }
}

/// The networks that speak for an address under one policy: the mesh's, then the namespace's.
type Speaking<'n> = [Option<&'n EgressNetwork>; 2];

fn speaking<'n>(addresses: &Addresses, lists: &'n [Vec<EgressNetwork>]) -> Vec<Speaking<'n>> {
    let views = addresses.speaking.iter().zip(lists);
    let networks = views.map(|(places, list)| places.map(|place| list.get(place?)));
    networks.collect()
}

/// The networks of a policy, without what no decision looks at: where they and their routes are declared.
fn decisive(data: &SnapshotData) -> Vec<EgressNetwork> {
    let mut networks = data.egress.clone();
    for network in &mut networks {
        network.source = nowhere();
        let routes = network.ports.values_mut().flat_map(|port| &mut port.routes);
        routes.for_each(|route| route.source = nowhere());
    }
    networks
}

fn nowhere() -> Source {
    Source::BuiltIn(String::new())
}

/// Where the networks and routes of some policies are declared, by the reasons that decisions give.
#[derive(Debug, Default)]
struct Sources(BTreeMap<String, String>);

impl Sources {
    fn of<'d>(policies: impl Iterator<Item = &'d SnapshotData>) -> Self {
        let mut out = BTreeMap::new();
        for network in policies.flat_map(|data| &data.egress) {
            for says in ["allow", "deny"] {
                let id = format!(
                    "EgressNetwork/{}/{}/{says}",
                    network.namespace, network.name
                );
                out.insert(id, network.source.to_string());
            }
            for route in network.ports.values().flat_map(|port| &port.routes) {
                for rule in 0..route.rules.len() {
                    let (kind, namespace, name) = (&route.kind, &route.namespace, &route.name);
                    let id = format!("{kind}/{namespace}/{name}/{rule}");
                    out.insert(id, route.source.to_string());
                }
            }
        }
        Self(out)
    }

    /// The reasons of a decision, with their places.
    fn reasons(&self, ids: &[String]) -> Vec<Reason> {
        let reason = |id: &String| Reason {
            policy: id.clone(),
            source: match self.0.get(id) {
                Some(source) => source.clone(),
                None => "<built in>".to_owned(),
            },
        };
        ids.iter().map(reason).collect()
    }
}
