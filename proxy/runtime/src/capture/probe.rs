//! One connection to an address that nobody has: if it arrives at the proxy's port, so would any other. And a datagram, which
//! must not leave.

use super::{CaptureError, Proof};
use crate::original;
use mesh_proxy_core::capture::{Capture, NAMES};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Addresses of documentation (RFC 5737, RFC 3849): routers do not carry them, so only a redirected connection succeeds.
const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Time for the connection. A redirected one takes less than a millisecond.
const CONNECT: Duration = Duration::from_secs(1);

/// What became of one connection.
enum Seen {
    Redirected,
    NoRoute,
    Escaped(String),
}

/// Tries both families: each that has a way out must be redirected.
pub(super) fn run(capture: &Capture) -> Result<Proof, CaptureError> {
    let mut redirected = [false; 2];
    for (ip, redirected) in NOBODY.into_iter().zip(&mut redirected) {
        let to = SocketAddr::new(ip, probe_port(capture));
        if capture
            .skip_subnets
            .iter()
            .any(|skipped| skipped.contains(ip))
        {
            continue; // a family of which everything is skipped proves nothing
        }
        match connect(capture, to) {
            Seen::Redirected => *redirected = true,
            Seen::NoRoute => {}
            Seen::Escaped(why) => {
                let to = to.to_string();
                return Err(CaptureError::Escaped { to, why });
            }
        }
    }
    let [ipv4, ipv6] = redirected;
    if !(ipv4 || ipv6) {
        return Err(CaptureError::NoRoute);
    }
    Ok(Proof { ipv4, ipv6 })
}

/// Sends a datagram along each family that has a way out: the kernel must refuse it to its sender.
pub(super) fn datagrams(capture: &Capture) -> Result<(), CaptureError> {
    let skipped = |port: &u16| capture.skip_udp.iter().any(|range| range.contains(*port));
    let port = (1..=u16::MAX)
        .rev()
        .find(|port| *port != NAMES && !skipped(port));
    // Where all ports are skipped everything may leave.
    let Some(port) = port else { return Ok(()) };
    for ip in NOBODY {
        if capture
            .skip_subnets
            .iter()
            .any(|subnet| subnet.contains(ip))
        {
            continue;
        }
        let to = SocketAddr::new(ip, port);
        let sent = Socket::new(Domain::for_address(to), Type::DGRAM, None)
            .and_then(|socket| socket.send_to(b"mesh", &SockAddr::from(to)));
        match sent {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {}
            Err(error) if is_unreachable(&error) => {}
            sent => {
                let why = sent.map_or_else(
                    |error| error.to_string(),
                    |_| "left as a datagram".to_owned(),
                );
                let to = to.to_string();
                return Err(CaptureError::Escaped { to, why });
            }
        }
    }
    Ok(())
}

/// The highest port that is not skipped.
fn probe_port(capture: &Capture) -> u16 {
    let skipped = |port: &u16| {
        capture
            .skip_outbound
            .iter()
            .any(|range| range.contains(*port))
    };
    (1..=u16::MAX)
        .rev()
        .find(|port| !skipped(port))
        .unwrap_or(u16::MAX)
}

fn connect(capture: &Capture, to: SocketAddr) -> Seen {
    let escaped = |error: io::Error| Seen::Escaped(error.to_string());
    // Before the proxy runs, its place is taken here. If it runs, the connection reaches it.
    let listener = match listen(capture.outbound, to.is_ipv4()) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) if is_unreachable(&error) => return Seen::NoRoute,
        Err(error) => return escaped(error),
    };
    let client = match Socket::new(Domain::for_address(to), Type::STREAM, None) {
        Ok(client) => client,
        Err(error) if is_unreachable(&error) => return Seen::NoRoute,
        Err(error) => return escaped(error),
    };
    match client.connect_timeout(&SockAddr::from(to), CONNECT) {
        Ok(()) => {}
        Err(error) if is_unreachable(&error) => return Seen::NoRoute,
        Err(error) => return escaped(error),
    }
    let Some(listener) = listener else {
        return Seen::Redirected;
    };
    match listener.accept() {
        Ok((accepted, _)) if original::of_socket(&SockRef::from(&accepted)) == Some(to) => {
            Seen::Redirected
        }
        Ok(_) => Seen::Escaped("it arrived without its destination".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Seen::Escaped("somebody else answered it".to_owned())
        }
        Err(error) => escaped(error),
    }
}

fn listen(port: u16, ipv4: bool) -> io::Result<Socket> {
    let ip: IpAddr = if ipv4 {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let at = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// Nothing can leave along this family: no route, no address, no such protocol.
fn is_unreachable(error: &io::Error) -> bool {
    let none = [Errno::NETUNREACH, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
    none.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
