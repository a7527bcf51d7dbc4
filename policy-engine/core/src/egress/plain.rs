//! The same rules, read plainly: what the compiled form is compared with. Hosts are canonical, routes are for every path.

use super::{EgressNetwork, EgressPort, Layer, Seen, Speaks, TlsOrigin, TrafficPolicy};
use crate::snapshot::Route;
use std::net::{IpAddr, SocketAddr};

/// What one network says of something.
enum Says<'n> {
    No,
    Yes,
    /// To the addresses of its name.
    ByName,
    /// If TLS is begun for it.
    WithTls(&'n TlsOrigin),
}

/// Whether all layers that speak for `to` allow what is seen, and to which port TLS is begun for it.
pub(super) fn allows(
    networks: &[EgressNetwork],
    to: SocketAddr,
    seen: &Seen<'_>,
) -> (bool, Option<u16>) {
    let asked = asked(networks, to.ip());
    let says: Vec<Says<'_>> = asked.iter().map(|one| lets(one, to.port(), seen)).collect();
    if says.iter().any(|says| matches!(says, Says::No)) {
        return (false, None);
    }
    let begun = |says: &Says<'_>| match says {
        Says::WithTls(origin) => Some((*origin).clone()),
        _ => None,
    };
    let Some(origin) = says.iter().find_map(begun) else {
        return (true, None);
    };
    let Seen::Http(head) = seen else {
        return (false, None);
    };
    let Some(host) = head.host.filter(|host| host.parse::<IpAddr>().is_err()) else {
        return (false, None);
    };
    let mut pairs = asked.iter().zip(&says);
    let by_mesh = pairs.any(|(one, says)| one.layer == Layer::Mesh && begun(says).is_some());
    for (network, says) in asked.iter().zip(&says) {
        let there = lets(network, origin.port, &Seen::Tls(Some(host)));
        let agrees = match begun(says) {
            Some(its) => its == origin,
            None => match there {
                Says::No => false,
                Says::ByName => by_mesh,
                Says::Yes | Says::WithTls(_) => by_mesh || !matches!(says, Says::ByName),
            },
        };
        if !agrees {
            return (false, None);
        }
    }
    (true, Some(origin.port))
}

/// The networks that are asked.
fn asked(networks: &[EgressNetwork], ip: IpAddr) -> Vec<&EgressNetwork> {
    let own = speaker(networks, Layer::Namespace, ip);
    let mesh = speaker(networks, Layer::Mesh, ip);
    match (mesh, own) {
        (Some(mesh), Some(own)) if mesh.yields && mesh.invalid.is_none() => vec![own],
        _ => mesh.into_iter().chain(own).collect(),
    }
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

fn lets<'n>(network: &'n EgressNetwork, port: u16, seen: &Seen<'_>) -> Says<'n> {
    if network.invalid.is_some() {
        return Says::No;
    }
    let allows = network.traffic == TrafficPolicy::Allow;
    let otherwise = if allows { Says::Yes } else { Says::No };
    let Some(EgressPort {
        speaks,
        routes,
        tls,
        unbound,
    }) = network.ports.get(&port)
    else {
        return otherwise;
    };
    let host = match (speaks, seen) {
        (Speaks::Tcp, _) => {
            return match routes.first().is_some_and(|one| one.invalid.is_none()) {
                true => Says::Yes,
                false => Says::No,
            };
        }
        (Speaks::Tls, Seen::Tls(name)) => *name,
        (Speaks::Http, Seen::Http(head)) => head.host,
        _ => return otherwise,
    };
    let mut best: Option<(u32, &Route, (u8, usize))> = None;
    for (at, route) in (0..).zip(routes) {
        let ranks = route.hostnames.iter().filter_map(|name| rank(name, host?));
        let rank = match route.hostnames.is_empty() {
            true => Some((0, 0)),
            false => ranks.max(),
        };
        let Some(rank) = rank else { continue };
        if best.is_none_or(|(_, _, its)| rank > its) {
            best = Some((at, route, rank));
        }
    }
    let Some((at, route, _)) = best else {
        return otherwise;
    };
    match (&route.invalid, tls.get(&at)) {
        (Some(_), _) => Says::No,
        (None, None) if !allows && !route.hostnames.is_empty() && !unbound.contains(&at) => {
            Says::ByName
        }
        (None, None) => Says::Yes,
        (None, Some(origin)) => Says::WithTls(origin),
    }
}

fn rank(hostname: &str, host: &str) -> Option<(u8, usize)> {
    match hostname.strip_prefix('*') {
        Some(suffix) => {
            (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len()))
        }
        None => (hostname == host).then_some((2, hostname.len())),
    }
}
