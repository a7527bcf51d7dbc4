//! Addresses cut into the classes that the networks of a policy tell apart.
//!
//! Every block becomes the ranges that it covers, its exceptions taken out; between two neighbouring ends of ranges all
//! addresses are in the same sets. Regions in the same sets are one class.

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use mesh_policy::snapshot::Network;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that no network set tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkClass {
    /// One of them.
    pub address: IpAddr,
    /// All of them, as blocks, sorted.
    pub blocks: Vec<IpNet>,
}

/// Inclusive ends.
type Range = (u128, u128);

/// IPv4 addresses written as IPv6 (`::ffff:0:0/96`) are IPv4 to every decision: that range has no address of its own.
const MAPPED: Range = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// Addresses that people know, tried as representatives before the first of a region.
const FAMILIAR: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
];

/// The classes of all addresses under `sets`.
pub fn network_classes<'s>(sets: impl Iterator<Item = &'s [Network]>) -> Vec<NetworkClass> {
    let sets: Vec<&[Network]> = sets.collect();
    let mut classes: BTreeMap<Vec<usize>, Vec<(bool, Range)>> = BTreeMap::new();
    for v4 in [true, false] {
        for (members, range) in regions(&sets, v4) {
            classes.entry(members).or_default().push((v4, range));
        }
    }
    classes
        .into_values()
        .filter_map(|ranges| class(&ranges))
        .collect()
}

fn class(ranges: &[(bool, Range)]) -> Option<NetworkClass> {
    let within = |address: &IpAddr| {
        let (v4, at) = number(*address);
        ranges
            .iter()
            .any(|(family, (start, end))| *family == v4 && *start <= at && at <= *end)
    };
    let first = ranges
        .first()
        .map(|(v4, (start, _))| address(*v4, *start))?;
    let mut blocks = Vec::new();
    for (v4, (start, end)) in ranges {
        match (address(*v4, *start), address(*v4, *end)) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                blocks.extend(Ipv4Subnets::new(start, end, 0).map(IpNet::V4));
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                blocks.extend(Ipv6Subnets::new(start, end, 0).map(IpNet::V6));
            }
            _ => {}
        }
    }
    Some(NetworkClass {
        address: FAMILIAR.into_iter().find(within).unwrap_or(first),
        blocks,
    })
}

/// The regions of one family, each with the sets that its addresses are in.
fn regions(sets: &[&[Network]], v4: bool) -> Vec<(Vec<usize>, Range)> {
    let last = if v4 { u128::from(u32::MAX) } else { u128::MAX };
    let mut starts: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    let mut ends: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    let mut edges = BTreeSet::from([0]);
    if !v4 {
        edges.extend([MAPPED.0, MAPPED.1 + 1]);
    }
    for (place, set) in sets.iter().enumerate() {
        for (start, end) in covered(set, v4) {
            edges.insert(start);
            starts.entry(start).or_default().push(place);
            if let Some(after) = end.checked_add(1).filter(|_| end < last) {
                edges.insert(after);
                ends.entry(after).or_default().push(place);
            }
        }
    }
    let edges: Vec<u128> = edges.into_iter().collect();
    let mut inside: BTreeSet<usize> = BTreeSet::new();
    let mut out = Vec::with_capacity(edges.len());
    for (number, edge) in edges.iter().enumerate() {
        for place in ends.get(edge).into_iter().flatten() {
            inside.remove(place);
        }
        inside.extend(starts.get(edge).into_iter().flatten());
        let end = edges.get(number + 1).map_or(last, |next| next - 1);
        if v4 || *edge != MAPPED.0 {
            out.push((inside.iter().copied().collect(), (*edge, end)));
        }
    }
    out
}

/// The ranges of one family that a set covers, sorted, none touching another.
fn covered(set: &[Network], v4: bool) -> Vec<Range> {
    let mut all: Vec<Range> = Vec::new();
    for network in set.iter().filter(|one| is_v4(&one.cidr) == v4) {
        let mut rest = vec![range(&network.cidr)];
        for hole in network.except.iter().filter(|hole| is_v4(hole) == v4) {
            let (from, to) = range(hole);
            rest = rest
                .into_iter()
                .flat_map(|(start, end)| {
                    let before = (start < from).then(|| (start, end.min(from.saturating_sub(1))));
                    let after = (end > to).then(|| (start.max(to.saturating_add(1)), end));
                    before.into_iter().chain(after)
                })
                .collect();
        }
        all.extend(rest);
    }
    all.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(all.len());
    for (start, end) in all {
        match merged.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn is_v4(block: &IpNet) -> bool {
    matches!(block, IpNet::V4(_))
}

fn range(block: &IpNet) -> Range {
    (number(block.network()).1, number(block.broadcast()).1)
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (true, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (false, u128::from(v6)),
    }
}

fn address(v4: bool, number: u128) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if v4 => IpAddr::V4(Ipv4Addr::from(bits)),
        _ => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(cidr: &str, except: &[&str]) -> Network {
        Network {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
        }
    }

    fn contains(set: &[Network], ip: IpAddr) -> bool {
        set.iter()
            .any(|one| one.cidr.contains(&ip) && !one.except.iter().any(|hole| hole.contains(&ip)))
    }

    #[test]
    fn without_networks_there_is_one_class_of_all_addresses() {
        let classes = network_classes(std::iter::empty());
        assert_eq!(classes.len(), 1);
        assert_eq!(classes[0].address.to_string(), "10.0.0.9");
        assert!(classes[0].blocks.contains(&"0.0.0.0/0".parse().unwrap()));
    }

    #[test]
    fn an_exception_is_a_class_of_its_own_only_if_nothing_else_is_like_it() {
        let set = [network("10.0.0.0/8", &["10.1.0.0/16"])];
        let classes = network_classes([&set[..]].into_iter());
        // Inside, and everything else with the hole.
        assert_eq!(classes.len(), 2, "{classes:?}");
        let outside = classes.iter().find(|c| !contains(&set, c.address)).unwrap();
        assert!(outside.blocks.contains(&"10.1.0.0/16".parse().unwrap()));
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        let set = [
            network("0.0.0.0/0", &["255.255.255.255/32", "0.0.0.0/32"]),
            network("::/0", &[]),
        ];
        let classes = network_classes([&set[..]].into_iter());
        assert_eq!(classes.len(), 2, "{classes:?}");
    }

    fn block() -> impl Strategy<Value = IpNet> {
        (0u32..16, 0u8..=32).prop_map(|(bits, length)| {
            IpNet::new(IpAddr::from((bits << 28).to_be_bytes()), length)
                .unwrap()
                .trunc()
        })
    }

    proptest! {
        #[test]
        fn every_address_is_in_exactly_one_class_and_in_the_sets_of_its_representative(
            sets in prop::collection::vec(prop::collection::vec((block(), prop::collection::vec(block(), 0..3)), 0..3), 0..4),
            picks in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let sets: Vec<Vec<Network>> = sets
                .into_iter()
                .map(|set| set.into_iter().map(|(cidr, except)| Network { cidr, except }).collect())
                .collect();
            let classes = network_classes(sets.iter().map(Vec::as_slice));
            for pick in picks {
                let ip = IpAddr::from(pick.to_be_bytes());
                let homes: Vec<_> = classes.iter().filter(|c| c.blocks.iter().any(|b| b.contains(&ip))).collect();
                prop_assert_eq!(homes.len(), 1, "{} in {:?}", ip, homes);
                for set in &sets {
                    prop_assert_eq!(contains(set, ip), contains(set, homes[0].address), "{}", ip);
                }
            }
        }
    }
}
