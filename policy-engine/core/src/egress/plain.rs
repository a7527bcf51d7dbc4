//! The same rules, read plainly: what the compiled form is compared with. Hosts are canonical, routes are for every path.

use super::{EgressNetwork, EgressPort, Layer, Seen, Speaks, TrafficPolicy};
use crate::snapshot::Route;
use std::net::{IpAddr, SocketAddr};

/// Whether all layers that speak for `to` allow what is seen.
pub(super) fn allows(networks: &[EgressNetwork], to: SocketAddr, seen: &Seen<'_>) -> bool {
    let own = speaker(networks, Layer::Namespace, to.ip());
    let mesh = speaker(networks, Layer::Mesh, to.ip());
    let (asks_mesh, asks_own) = match (mesh, own) {
        (Some(mesh), Some(_)) if mesh.yields && mesh.invalid.is_none() => (false, true),
        _ => (true, true),
    };
    let says =
        |network: Option<&EgressNetwork>| network.is_none_or(|one| lets(one, to.port(), seen));
    (!asks_mesh || says(mesh)) && (!asks_own || says(own))
}

fn speaker(networks: &[EgressNetwork], layer: Layer, ip: IpAddr) -> Option<&EgressNetwork> {
    let mut best: Option<(&EgressNetwork, u8)> = None;
    for network in networks.iter().filter(|one| one.layer == layer) {
        let mut smallest = None;
        for block in &network.networks {
            let inside = block.cidr.contains(&ip);
            let hole = block.except.iter().any(|hole| hole.contains(&ip));
            if inside && !hole {
                smallest = smallest.max(Some(block.cidr.prefix_len()));
            }
        }
        let Some(length) = smallest else { continue };
        let better = best.is_none_or(|(one, its)| {
            let (mine, theirs) = (network.invalid.is_some(), one.invalid.is_some());
            (mine && !theirs) || (mine == theirs && length > its)
        });
        if better {
            best = Some((network, length));
        }
    }
    best.map(|(network, _)| network)
}

fn lets(network: &EgressNetwork, port: u16, seen: &Seen<'_>) -> bool {
    if network.invalid.is_some() {
        return false;
    }
    if network.traffic == TrafficPolicy::Allow {
        return true;
    }
    let Some(EgressPort { speaks, routes }) = network.ports.get(&port) else {
        return false;
    };
    let host = match (speaks, seen) {
        (Speaks::Tcp, _) => return routes.first().is_some_and(|one| one.invalid.is_none()),
        (Speaks::Tls, Seen::Tls(name)) => *name,
        (Speaks::Http, Seen::Http(head)) => head.host,
        _ => return false,
    };
    let mut best: Option<(&Route, (u8, usize))> = None;
    for route in routes {
        let ranks = route.hostnames.iter().filter_map(|name| rank(name, host?));
        let rank = match route.hostnames.is_empty() {
            true => Some((0, 0)),
            false => ranks.max(),
        };
        let Some(rank) = rank else { continue };
        if best.is_none_or(|(_, its)| rank > its) {
            best = Some((route, rank));
        }
    }
    best.is_some_and(|(route, _)| route.invalid.is_none())
}

fn rank(hostname: &str, host: &str) -> Option<(u8, usize)> {
    match hostname.strip_prefix('*') {
        Some(suffix) => {
            (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len()))
        }
        None => (hostname == host).then_some((2, hostname.len())),
    }
}
