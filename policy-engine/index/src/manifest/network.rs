//! Network blocks with exceptions, as NetworkAuthentication, ServerAuthorization and EgressNetwork write them.

use super::read::Reading;
use super::resource::NetworkEntry;
use super::tree::Node;
use crate::finding::Code;
use ipnet::{IpNet, Ipv4Net};
use mesh_policy::request::canonical_ip;
use std::net::IpAddr;

/// A block in the form that is matched: an address alone is its own block, host bits are masked, and a block of
/// IPv4-mapped addresses is an IPv4 block (settled reading 14).
///
/// # Errors
/// If the text is neither address nor block.
pub(crate) fn parse_block(text: &str) -> Result<IpNet, String> {
    let block = match text.parse::<IpNet>() {
        Ok(block) => block,
        Err(_) => text
            .parse::<IpAddr>()
            .map(|ip| IpNet::from(canonical_ip(ip)))
            .map_err(|_| "expected an address or a block such as `10.0.0.0/8`".to_owned())?,
    };
    Ok(canonical_block(&block))
}

/// A block in the form that is matched: masked, and IPv4 if it is one of IPv4-mapped addresses.
pub(crate) fn canonical_block(block: &IpNet) -> IpNet {
    let block = block.trunc();
    if let IpNet::V6(v6) = block
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(net) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(net);
    }
    block
}

fn read_block(reading: &mut Reading, node: &Node, path: &str) -> Option<IpNet> {
    let text = reading.text(node, path)?;
    match parse_block(text) {
        Ok(block) => {
            let written = text.parse::<IpNet>().ok();
            if written.is_some_and(|w| w != w.trunc()) {
                reading.doubt(
                    node.at,
                    Code::MaskedCidr,
                    format!("`{path}: {text}` has host bits and is read as `{block}`"),
                );
            }
            Some(block)
        }
        Err(why) => {
            reading.problem(
                node.at,
                Code::BadValue,
                format!("`{path}: {text}` is not a network: {why}"),
            );
            None
        }
    }
}

/// Reads a list of `{cidr, except}`.
pub(crate) fn read_networks(
    reading: &mut Reading,
    items: &[Node],
    path: &str,
) -> Vec<NetworkEntry> {
    let mut out = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(mut fields) = reading.fields(item, &path) else {
            continue;
        };
        let cidr = fields
            .required(reading, "cidr")
            .and_then(|n| read_block(reading, n, &format!("{path}.cidr")));
        let mut except = Vec::new();
        for (number, node) in fields
            .optional_list(reading, "except")
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let path = format!("{path}.except[{number}]");
            let (Some(block), Some(cidr)) = (read_block(reading, node, &path), cidr) else {
                continue;
            };
            if block.contains(&cidr) {
                reading.problem(
                    node.at,
                    Code::BadValue,
                    format!("`{path}: {block}` covers all of `{cidr}`"),
                );
            } else if !cidr.contains(&block) {
                reading.problem(
                    node.at,
                    Code::BadValue,
                    format!("`{path}: {block}` is not inside `{cidr}`"),
                );
            } else {
                except.push(block);
            }
        }
        fields.finish(reading);
        out.extend(cidr.map(|cidr| NetworkEntry { cidr, except }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_masked_and_mapped_addresses_are_ipv4() {
        for (text, want) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::ffff:10.1.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("fd00::1/8", "fd00::/8"),
        ] {
            assert_eq!(
                parse_block(text).map(|b| b.to_string()).as_deref(),
                Ok(want),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_no_blocks() {
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0/8",
            "010.0.0.1",
            "::/129",
            "a/8",
            "10.0.0.1 ",
            "localhost",
        ] {
            assert!(parse_block(text).is_err(), "{text}");
        }
    }
}
