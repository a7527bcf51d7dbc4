//! Which network sets an address is in, looked up once per connection.
//!
//! One table of blocks for each prefix length that occurs: an address is looked up under each of these lengths, so the
//! cost follows the lengths in use (33 at most for IPv4), not the number of blocks or sets.

use crate::snapshot::NetworkSet;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Blocks of all network sets of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct NetworkIndex {
    v4: Tables,
    v6: Tables,
}

/// By prefix length; then by the bits of the block.
type Tables = Vec<(u8, HashMap<u128, Vec<Block>>)>;

/// A block of a set, with its holes.
#[derive(Debug)]
struct Block {
    /// Place of the set.
    set: u32,
    except: Box<[IpNet]>,
}

impl NetworkIndex {
    /// Indexes sets in the order of their names: a set's place is its number in that order.
    pub(crate) fn build<'s>(sets: impl Iterator<Item = &'s NetworkSet>) -> Self {
        let (mut v4, mut v6): (BTreeMap<u8, HashMap<_, Vec<_>>>, BTreeMap<_, _>) =
            (BTreeMap::new(), BTreeMap::new());
        for (place, set) in (0u32..).zip(sets) {
            for network in &set.networks {
                let tables = match network.cidr {
                    IpNet::V4(_) => &mut v4,
                    IpNet::V6(_) => &mut v6,
                };
                let length = network.cidr.prefix_len();
                let key = leading(network.cidr.network(), length);
                let blocks: &mut Vec<Block> =
                    tables.entry(length).or_default().entry(key).or_default();
                blocks.push(Block {
                    set: place,
                    except: network.except.clone().into(),
                });
            }
        }
        Self {
            v4: v4.into_iter().collect(),
            v6: v6.into_iter().collect(),
        }
    }

    /// Places of the sets that `ip` is in, ascending.
    pub(crate) fn sets_of(&self, ip: IpAddr) -> Vec<u32> {
        let tables = match ip {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let mut sets = Vec::new();
        for (length, blocks) in tables {
            let here = blocks.get(&leading(ip, *length)).into_iter().flatten();
            sets.extend(
                here.filter(|block| !block.except.iter().any(|hole| hole.contains(&ip)))
                    .map(|block| block.set),
            );
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

/// The first `length` bits of an address, as a number; 0 for length 0.
fn leading(ip: IpAddr, length: u8) -> u128 {
    let (bits, width) = match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32u32),
        IpAddr::V6(ip) => (u128::from(ip), 128u32),
    };
    bits.checked_shr(width.saturating_sub(u32::from(length)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use crate::snapshot::Network;
    use proptest::prelude::*;

    /// As [`NetworkIndex::sets_of`], plainly.
    fn plainly(sets: &[NetworkSet], ip: IpAddr) -> Vec<u32> {
        let covers = |network: &Network| {
            network.cidr.contains(&ip) && !network.except.iter().any(|hole| hole.contains(&ip))
        };
        (0u32..)
            .zip(sets)
            .filter(|(_, set)| set.networks.iter().any(covers))
            .map(|(place, _)| place)
            .collect()
    }

    fn block() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that blocks nest and touch often.
        let v4 = (0u32..4, 0u8..=32).prop_map(|(bits, length)| {
            IpNet::new(IpAddr::from((bits << 30).to_be_bytes()), length).unwrap()
        });
        let v6 = (0u128..4, 0u8..=128).prop_map(|(bits, length)| {
            IpNet::new(IpAddr::from((bits << 126).to_be_bytes()), length).unwrap()
        });
        prop_oneof![v4, v6].prop_map(|block| block.trunc())
    }

    proptest! {
        #[test]
        fn the_index_finds_the_sets_that_a_scan_finds(
            sets in prop::collection::vec(prop::collection::vec((block(), prop::collection::vec(block(), 0..3)), 0..4), 0..6),
            picks in prop::collection::vec((block(), any::<bool>()), 1..20),
        ) {
            let sets: Vec<NetworkSet> = sets
                .into_iter()
                .map(|networks| NetworkSet {
                    networks: networks.into_iter().map(|(cidr, except)| Network { cidr, except }).collect(),
                    source: at(1),
                })
                .collect();
            let index = NetworkIndex::build(sets.iter());
            for (block, last) in picks {
                let ip = if last { block.broadcast() } else { block.network() };
                prop_assert_eq!(index.sets_of(ip), plainly(&sets, ip), "{}", ip);
            }
        }
    }

    #[test]
    fn the_whole_address_space_is_a_block_of_length_zero() {
        let all = |text: &str| NetworkSet {
            networks: vec![Network {
                cidr: text.parse().unwrap(),
                except: Vec::new(),
            }],
            source: at(1),
        };
        let sets = [all("0.0.0.0/0"), all("::/0")];
        let index = NetworkIndex::build(sets.iter());
        assert_eq!(index.sets_of("255.255.255.255".parse().unwrap()), [0]);
        assert_eq!(index.sets_of("::1".parse().unwrap()), [1]);
    }
}
