//! What the kernel says of a redirected connection: where it was going. What follows from that is decided in
//! `mesh_proxy_core::redirect`.

use socket2::{Domain, SockRef, Socket, Type};
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// Where `stream` was going before it was redirected; `None` if the kernel knows of no redirection. A connection that was
/// not redirected may also have its own listener as destination.
pub(crate) fn destination(stream: &TcpStream) -> Option<SocketAddr> {
    of_socket(&SockRef::from(stream))
}

/// The same of any socket.
pub(crate) fn of_socket(socket: &Socket) -> Option<SocketAddr> {
    let here = socket.local_addr().ok()?.as_socket()?;
    // A listener for both families carries IPv4 in mapped addresses, but the kernel keeps it with IPv4.
    let original = if here.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.ok()?.as_socket()
}

/// Which addresses are this pod's own.
#[derive(Default)]
pub(crate) struct Locals(RefCell<HashSet<IpAddr>>);

impl Locals {
    /// Whether `ip` is an address of this network namespace: a socket can be bound to it. What was found once is not
    /// asked again; there are few, and an address that went away meanwhile receives nothing.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        if self.0.borrow().contains(&ip) {
            return true;
        }
        let address = SocketAddr::new(ip, 0);
        let bound = Socket::new(Domain::for_address(address), Type::STREAM, None)
            .and_then(|socket| socket.bind(&address.into()));
        let found = bound.is_ok();
        if found {
            self.0.borrow_mut().insert(ip);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_addresses_are_known_and_others_are_not() {
        let locals = Locals::default();
        for (ip, own) in [
            ("127.0.0.1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("127.0.0.1", true),
        ] {
            assert_eq!(locals.contain(ip.parse().unwrap()), own, "{ip}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_has_no_other_destination() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let client = TcpStream::connect(here);
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (stream, _) = accepted.unwrap();
        assert!(destination(&stream).is_none_or(|to| to == here), "RD2");
        drop(client);
    }
}
