//! Addresses that names of the world do not have: those of one network, of one link, of one machine.

use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::LazyLock;

/// Blocks that are not addresses of the world (RFC 6890, RFC 4291, RFC 6052, RFC 2765, RFC 3056), but for those of documentation.
const BLOCKS: [&str; 24] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    // One of the world's by number; on machines of Azure it is the host's, and tells their secrets as 169.254.169.254 does.
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // The unspecified address, loopback, and addresses of IPv4 in a form that nobody uses.
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    // Addresses of IPv4 behind a translator: of the world's ones, those that are special themselves are found below.
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2002::/16",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    BLOCKS
        .iter()
        .filter_map(|block| block.parse().ok())
        .collect()
});

/// Addresses of IPv4 that IPv6 reaches through a translator (RFC 6052).
const TRANSLATED: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/// Bits of the block of such addresses that this one is in; `None`: it is an address of the world.
pub(super) fn special(ip: IpAddr) -> Option<u8> {
    if let IpAddr::V6(six) = ip
        && let Some(four) = six.octets().strip_prefix(&TRANSLATED)
        && let Ok(four) = <[u8; 4]>::try_from(four)
    {
        let bits = special(IpAddr::from(four))?;
        return Some(96 + bits);
    }
    let block = SPECIAL.iter().find(|block| block.contains(&ip));
    block.map(IpNet::prefix_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_one() {
        assert_eq!(SPECIAL.len(), BLOCKS.len());
    }

    #[test]
    fn addresses_of_the_world_are_told_from_others() {
        for (ip, bits) in [
            ("203.0.113.7", None),
            ("8.8.8.8", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("172.32.0.1", None),
            ("192.167.255.255", None),
            ("2001:db8::1", None),
            ("2606:4700::1111", None),
            ("64:ff9b::808:808", None),
            ("10.1.2.3", Some(8)),
            ("100.127.255.255", Some(10)),
            ("127.0.0.1", Some(8)),
            ("168.63.129.15", None),
            ("168.63.129.16", Some(32)),
            ("64:ff9b::a83f:8110", Some(128)),
            ("169.254.169.254", Some(16)),
            ("172.31.0.1", Some(12)),
            ("192.168.0.1", Some(16)),
            ("0.0.0.0", Some(8)),
            ("224.0.0.1", Some(4)),
            ("255.255.255.255", Some(4)),
            ("::", Some(96)),
            ("::1", Some(96)),
            ("::ffff:10.0.0.1", Some(96)),
            ("::ffff:0:a00:1", Some(96)),
            ("64:ff9b::a9fe:a9fe", Some(112)),
            ("64:ff9b:1::1", Some(48)),
            ("fd00:ec2::254", Some(7)),
            ("fe80::1", Some(10)),
            ("ff02::1", Some(8)),
            ("2002:a00:1::", Some(16)),
        ] {
            assert_eq!(special(ip.parse().unwrap()), bits, "{ip}");
        }
    }
}
