//! Which network sets an address is in, looked up once per connection.
//!
//! One sorted table of blocks for each prefix length that occurs: an address is looked up under each of these lengths, so
//! the cost follows the lengths in use (33 at most for IPv4), not the number of blocks or sets. A block of IPv4 takes 12
//! bytes.

use crate::snapshot::NetworkSet;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Blocks of all network sets of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct NetworkIndex {
    v4: Box<[Table<u32>]>,
    v6: Box<[Table<u128>]>,
    /// Exceptions of blocks. The first entry is that of all blocks without any.
    holes: Box<[Box<[IpNet]>]>,
}

/// The blocks of one prefix length.
#[derive(Debug)]
struct Table<Bits> {
    length: u8,
    /// Sorted.
    blocks: Box<[Block<Bits>]>,
}

/// A block of a set, with its holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block<Bits> {
    /// The leading bits that addresses in it have, as a number.
    bits: Bits,
    /// Place of the set.
    set: u32,
    /// Place of its exceptions.
    holes: u32,
}

/// The blocks of each prefix length.
type Drafts<Bits> = BTreeMap<u8, Vec<Block<Bits>>>;

impl NetworkIndex {
    /// Indexes sets in the order of their names: a set's place is its number in that order.
    pub(crate) fn build<'s>(sets: impl Iterator<Item = &'s NetworkSet>) -> Self {
        let (mut v4, mut v6) = (Drafts::new(), Drafts::new());
        let mut holes = vec![Box::<[IpNet]>::default()];
        for (set, networks) in (0u32..).zip(sets.map(|set| &set.networks)) {
            for network in networks {
                let except = match network.except.is_empty() {
                    true => 0,
                    false => {
                        holes.push(network.except.clone().into());
                        // Members of a snapshot are counted before (`MEMBERS_MAX`), so this fits.
                        u32::try_from(holes.len().saturating_sub(1)).unwrap_or(u32::MAX)
                    }
                };
                let length = network.cidr.prefix_len();
                match network.cidr {
                    IpNet::V4(cidr) => v4.entry(length).or_default().push(Block {
                        bits: leading_v4(u32::from(cidr.network()), length),
                        set,
                        holes: except,
                    }),
                    IpNet::V6(cidr) => v6.entry(length).or_default().push(Block {
                        bits: leading_v6(u128::from(cidr.network()), length),
                        set,
                        holes: except,
                    }),
                }
            }
        }
        Self {
            v4: tables(v4),
            v6: tables(v6),
            holes: holes.into(),
        }
    }

    /// Places of the sets that `ip` is in, ascending.
    pub(crate) fn sets_of(&self, ip: IpAddr) -> Vec<u32> {
        let mut sets = Vec::new();
        let mut add = |set: u32, holes: u32| {
            let holes = usize::try_from(holes)
                .ok()
                .and_then(|at| self.holes.get(at));
            // Holes that are not there cannot be: then nobody is in the block.
            if holes.is_some_and(|holes| !holes.iter().any(|hole| hole.contains(&ip))) {
                sets.push(set);
            }
        };
        match ip {
            IpAddr::V4(ip) => {
                for table in &self.v4 {
                    for block in table.under(leading_v4(u32::from(ip), table.length)) {
                        add(block.set, block.holes);
                    }
                }
            }
            IpAddr::V6(ip) => {
                for table in &self.v6 {
                    for block in table.under(leading_v6(u128::from(ip), table.length)) {
                        add(block.set, block.holes);
                    }
                }
            }
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

impl<Bits: Ord + Copy> Table<Bits> {
    /// The blocks with these leading bits.
    fn under(&self, bits: Bits) -> impl Iterator<Item = &Block<Bits>> {
        let first = self.blocks.partition_point(|block| block.bits < bits);
        let from = self.blocks.get(first..).unwrap_or_default();
        from.iter().take_while(move |block| block.bits == bits)
    }
}

fn tables<Bits: Ord>(drafts: Drafts<Bits>) -> Box<[Table<Bits>]> {
    let table = |(length, mut blocks): (u8, Vec<Block<Bits>>)| {
        blocks.sort_unstable();
        let blocks = blocks.into();
        Table { length, blocks }
    };
    drafts.into_iter().map(table).collect()
}

/// The first `length` bits of an address, as a number; 0 for length 0.
fn leading_v4(bits: u32, length: u8) -> u32 {
    let dropped = 32u32.saturating_sub(u32::from(length));
    bits.checked_shr(dropped).unwrap_or(0)
}

/// As [`leading_v4`].
fn leading_v6(bits: u128, length: u8) -> u128 {
    let dropped = 128u32.saturating_sub(u32::from(length));
    bits.checked_shr(dropped).unwrap_or(0)
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
