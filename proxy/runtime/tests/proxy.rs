//! Real pairs of proxies on loopback: application → client's proxy → mutual TLS → server's proxy → application.
#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests write files and read clocks themselves"
)]

mod proxy {
    pub(crate) mod stage;
    pub(crate) mod ways;
    pub(crate) mod world;

    mod authorization;
    mod bytes;
    mod counts;
    mod deadlines;
    mod detection;
    mod egress;
    mod exact_answers;
    mod faults;
    mod framing;
    mod grpc;
    mod h2_floods;
    mod hedges;
    mod hygiene;
    mod identity;
    mod injected;
    mod leaving;
    mod originate;
    mod pushes;
    mod requests;
    mod revocation;
    mod routing;
    mod sessions;
    mod shadow;
    mod sharing;
    mod streams;
    mod taps;
    mod traces;
}
