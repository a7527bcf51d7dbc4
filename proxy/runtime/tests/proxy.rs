//! Real pairs of proxies on loopback: application → client's proxy → mutual TLS → server's proxy → application.

mod proxy {
    pub(crate) mod world;

    mod authorization;
    mod bytes;
    mod faults;
    mod identity;
    mod requests;
    mod revocation;
    mod streams;
}
