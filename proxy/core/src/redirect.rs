//! Whether a redirected connection may go on to where it was going, and by which way.
//!
//! The kernel says what a connection's destination was before it was redirected to the proxy; whoever connects to the
//! proxy's listener without having been redirected is told apart here. Nothing is ever dialled for a connection that was
//! meant for the proxy itself: there is one hop through a proxy, never a loop (threats RD1, RD2, RD3).

use std::net::{IpAddr, SocketAddr};

/// Ports of the proxy's own listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPorts(Vec<u16>);

impl OwnPorts {
    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl FromIterator<u16> for OwnPorts {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self(ports.into_iter().collect())
    }
}

/// Why a connection goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdirected {
    /// Nobody redirected it: the kernel knows no other destination than the listener.
    NotRedirected,
    /// It was meant for the proxy itself.
    OwnPort,
    /// It was meant for an address that nobody reaches from elsewhere: loopback, unspecified, multicast, broadcast.
    NoWorkload,
    /// It was meant for an address of another machine.
    NotHere,
}

impl Misdirected {
    /// As a metric counts it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRedirected => "not-redirected",
            Self::OwnPort => "own-port",
            Self::NoWorkload => "no-workload",
            Self::NotHere => "not-here",
        }
    }
}

/// The address as IPv4 if it is one in IPv6 clothes (`::ffff:10.0.0.9`), so that two spellings are one address (RD4).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Where a connection to the workload was going: `original` is what the kernel says, `is_here` whether an address is one
/// of this machine (or pod).
///
/// # Errors
/// [`Misdirected`]; `original` stands for the kernel's silence if it is `None`.
pub fn inbound(
    original: Option<SocketAddr>,
    own: &OwnPorts,
    is_here: impl FnOnce(IpAddr) -> bool,
) -> Result<SocketAddr, Misdirected> {
    let to = canonical(original.ok_or(Misdirected::NotRedirected)?);
    workload_port(to, own)?;
    // Whoever shares a wire with us can address a frame to us and the packet in it to anybody: we are no relay.
    if !is_here(to.ip()) {
        return Err(Misdirected::NotHere);
    }
    Ok(to)
}

/// Where a connection of the application was going, likewise.
///
/// # Errors
/// [`Misdirected`].
pub fn outbound(
    original: Option<SocketAddr>,
    own: &OwnPorts,
    is_here: impl FnOnce(IpAddr) -> bool,
) -> Result<SocketAddr, Misdirected> {
    let to = canonical(original.ok_or(Misdirected::NotRedirected)?);
    if to.port() == 0 {
        return Err(Misdirected::NotRedirected);
    }
    // Loopback is never redirected: who is here with such a destination dialled the listener itself.
    if to.ip().is_loopback() {
        return Err(Misdirected::NotRedirected);
    }
    if !names_one_host(to.ip()) {
        return Err(Misdirected::NoWorkload);
    }
    if own.contains(to.port()) && is_here(to.ip()) {
        return Err(Misdirected::OwnPort);
    }
    Ok(to)
}

/// Whether a port of the workload, at an address where it was reached, may be dialled for somebody.
///
/// # Errors
/// [`Misdirected`].
pub fn workload_port(to: SocketAddr, own: &OwnPorts) -> Result<(), Misdirected> {
    if to.port() == 0 {
        return Err(Misdirected::NotRedirected);
    }
    if own.contains(to.port()) {
        return Err(Misdirected::OwnPort);
    }
    let ip = to.ip().to_canonical();
    if ip.is_loopback() || !names_one_host(ip) {
        return Err(Misdirected::NoWorkload);
    }
    Ok(())
}

fn names_one_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::Misdirected::*;
    use super::*;

    fn own() -> OwnPorts {
        [15001, 15006, 15008, 15020].into_iter().collect()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn pod(ip: IpAddr) -> bool {
        ["10.0.0.9", "fd00::9"]
            .iter()
            .any(|own| own.parse::<IpAddr>() == Ok(ip))
    }

    #[test]
    fn only_ports_of_the_workload_are_reached_from_outside() {
        for (to, want, threat) in [
            ("10.0.0.9:8080", Ok("10.0.0.9:8080"), "plain"),
            ("[fd00::9]:8080", Ok("[fd00::9]:8080"), "IPv6"),
            ("[::ffff:10.0.0.9]:8080", Ok("10.0.0.9:8080"), "RD4"),
            ("10.0.0.9:15001", Err(OwnPort), "RD1"),
            (
                "10.0.0.9:15006",
                Err(OwnPort),
                "RD1, RD2: the listener itself",
            ),
            ("10.0.0.9:15008", Err(OwnPort), "RD1"),
            ("[::ffff:10.0.0.9]:15020", Err(OwnPort), "RD1, RD4"),
            ("127.0.0.1:8080", Err(NoWorkload), "RD3"),
            ("127.9.9.9:8080", Err(NoWorkload), "RD3"),
            ("[::1]:8080", Err(NoWorkload), "RD3"),
            ("[::ffff:127.0.0.1]:8080", Err(NoWorkload), "RD3"),
            ("0.0.0.0:8080", Err(NoWorkload), "RD3"),
            ("[::]:8080", Err(NoWorkload), "RD3"),
            ("224.0.0.1:8080", Err(NoWorkload), "multicast"),
            ("[ff02::1]:8080", Err(NoWorkload), "multicast"),
            ("255.255.255.255:8080", Err(NoWorkload), "broadcast"),
            ("10.0.0.10:8080", Err(NotHere), "no relay"),
            ("169.254.169.254:80", Err(NotHere), "no relay"),
            ("10.0.0.9:0", Err(NotRedirected), "no port"),
        ] {
            let went = inbound(Some(at(to)), &own(), pod);
            assert_eq!(went, want.map(at), "{threat}: {to}");
        }
        assert_eq!(inbound(None, &own(), pod), Err(NotRedirected), "RD2");
    }

    #[test]
    fn the_application_reaches_everybody_but_its_own_proxy() {
        for (to, want, threat) in [
            ("10.96.0.1:80", Ok("10.96.0.1:80"), "a service"),
            ("[::ffff:10.96.0.1]:80", Ok("10.96.0.1:80"), "RD4"),
            ("10.0.0.9:8080", Ok("10.0.0.9:8080"), "its own pod"),
            ("10.0.0.10:15001", Ok("10.0.0.10:15001"), "not ours"),
            ("10.0.0.9:15001", Err(OwnPort), "RD1: a loop"),
            ("[fd00::9]:15006", Err(OwnPort), "RD1: a loop"),
            ("127.0.0.1:15001", Err(NotRedirected), "RD2"),
            ("[::1]:15001", Err(NotRedirected), "RD2"),
            ("[::ffff:127.0.0.1]:80", Err(NotRedirected), "RD2"),
            ("0.0.0.0:80", Err(NoWorkload), "RD3"),
            ("239.1.1.1:80", Err(NoWorkload), "multicast"),
            ("10.96.0.1:0", Err(NotRedirected), "no port"),
        ] {
            let went = outbound(Some(at(to)), &own(), pod);
            assert_eq!(went, want.map(at), "{threat}: {to}");
        }
        assert_eq!(outbound(None, &own(), pod), Err(NotRedirected), "RD2");
    }

    #[test]
    fn a_tunnel_names_a_port_of_the_workload_or_nothing() {
        for (to, want, threat) in [
            ("10.0.0.9:8080", Ok(()), "GW11"),
            ("10.0.0.9:15006", Err(OwnPort), "GW11: back into the proxy"),
            ("10.0.0.9:15020", Err(OwnPort), "GW11: the admin port"),
            ("127.0.0.1:8080", Err(NoWorkload), "GW11, RD3"),
            ("[::ffff:127.0.0.1]:8080", Err(NoWorkload), "GW11, RD3"),
        ] {
            assert_eq!(workload_port(at(to), &own()), want, "{threat}: {to}");
        }
    }
}
