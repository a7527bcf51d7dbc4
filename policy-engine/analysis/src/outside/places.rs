//! Addresses by the networks that speak for them, and ports by their routes.

use crate::classes::network_classes;
use crate::world::AskedPort;
use ipnet::IpNet;
use mesh_policy::Snapshot;
use mesh_policy::egress::EgressNetwork;
use mesh_policy::snapshot::Network;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Places of the networks that speak, in the list of each policy: the mesh's, then the namespace's.
type Speakers = Vec<[Option<usize>; 2]>;

/// Addresses for which the same networks speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// One of them.
    pub address: IpAddr,
    /// All of them.
    pub blocks: Vec<IpNet>,
    /// Whether it is every address outside of the cluster.
    pub all: bool,
    pub(super) speaking: Speakers,
}

impl Addresses {
    /// Whether an address is one of these.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(&ip))
    }

    /// Its blocks as text; none if it is all.
    pub(super) fn text_all(&self) -> Vec<String> {
        let blocks = self.blocks.iter().filter(|_| !self.all);
        blocks.map(ToString::to_string).collect()
    }

    /// For people: some blocks.
    pub(super) fn text(&self) -> String {
        match self.blocks.as_slice() {
            _ if self.all => "any address".to_owned(),
            [one] => one.to_string(),
            [one, ..] => format!("{one} and others"),
            [] => "no address".to_owned(),
        }
    }
}

/// All addresses, in classes. Whose block covers an address is found by its regions, who speaks for it by the data path.
/// The addresses of the cluster for which nobody speaks come last, if at all.
pub(super) fn addresses(
    views: &[&Snapshot],
    lists: &[Vec<EgressNetwork>],
    cluster: &[IpNet],
) -> (Vec<Addresses>, Option<Addresses>) {
    let within = cluster.iter().map(|block| Network {
        cidr: *block,
        except: Vec::new(),
    });
    let networks = lists.iter().flatten();
    let mut sets: Vec<Network> = within.collect();
    for block in networks.flat_map(|network| &network.networks) {
        if !sets.contains(block) {
            sets.push(block.clone());
        }
    }
    let mut found: BTreeMap<(bool, Speakers), Addresses> = BTreeMap::new();
    for class in network_classes(sets.iter().map(std::slice::from_ref)) {
        let to = SocketAddr::new(class.address, 0);
        let speaking = views.iter().map(|view| view.egress().at(to).places());
        let speaking: Speakers = speaking.collect();
        let unspoken = speaking.iter().flatten().all(Option::is_none);
        let inside = unspoken && cluster.iter().any(|block| block.contains(&class.address));
        let known = found.entry((inside, speaking.clone()));
        let known = known.or_insert_with(|| Addresses {
            address: class.address,
            blocks: Vec::new(),
            all: false,
            speaking,
        });
        known.blocks.extend(class.blocks);
    }
    for one in found.values_mut() {
        one.blocks = IpNet::aggregate(&one.blocks);
    }
    let (inside, mut outside): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|((inside, _), _)| *inside);
    if let [(_, all)] = outside.as_mut_slice() {
        all.all = true;
    }
    let inside = inside.into_iter().next();
    let outside = outside.into_iter().map(|(_, one)| one);
    (outside.collect(), inside.map(|(_, one)| one))
}

/// Ports at which some network has routes, and one that stands for the others.
pub(super) fn ports(networks: &[&EgressNetwork]) -> Vec<AskedPort> {
    let own: BTreeSet<u16> = networks
        .iter()
        .flat_map(|network| network.ports.keys().copied())
        .collect();
    let other = (1..=u16::MAX).rev().find(|port| !own.contains(port));
    let own = own.into_iter().map(AskedPort::Own);
    own.chain(other.map(AskedPort::Other)).collect()
}
