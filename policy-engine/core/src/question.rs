//! One question to the policies: who asks, from where, for what, when.
//!
//! Cedar ([`crate::cedar`]) and the compiled programs ([`crate::residual`]) read the same question, so that neither can
//! know something that the other does not. Everything in it is canonical.

use crate::request::Headers;
use crate::snapshot::SnapshotData;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What one policy is evaluated on.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) asker: Asker<'a>,
    pub(crate) target: Target<'a>,
    /// What is known of the request; `None` for bytes.
    pub(crate) request: Option<RequestFacts<'a>>,
    /// The time of the decision.
    pub(crate) now: Timestamp,
}

/// The client's side: constant for a connection.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// Verified identity.
    pub(crate) id: Option<&'a SpiffeId>,
    /// Address, IPv4-mapped ones as IPv4.
    pub(crate) ip: IpAddr,
    /// Whether the proxy terminated TLS.
    pub(crate) tls: bool,
    /// End of the client certificate's validity.
    pub(crate) cert_not_after: Option<Timestamp>,
    /// The identity sets it is in, as places in [`SetNames::identity`]; ascending.
    pub(crate) identity_sets: &'a [u32],
    /// The network sets it is in, as places in [`SetNames::network`]; ascending.
    pub(crate) network_sets: &'a [u32],
}

/// What is asked for: a port of the workload, and the route that took the request there.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Our trust domain.
    pub(crate) trust_domain: &'a TrustDomain,
    /// Namespace of the workload, and so of its Servers.
    pub(crate) namespace: &'a str,
    /// Name of the Server; `None`: the default policy.
    pub(crate) server: Option<&'a str>,
    /// Port of the workload.
    pub(crate) port: u16,
    /// The route rule; `None` for bytes.
    pub(crate) route: Option<RouteFacts<'a>>,
}

/// The route rule that took a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteFacts<'a> {
    /// `HTTPRoute`, `GRPCRoute`; `default` for a built-in one.
    pub(crate) kind: &'a str,
    /// Empty for a built-in one.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) rule: u32,
}

/// The head of a request, canonical.
#[derive(Clone, Copy)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) method: &'a str,
    /// Without query.
    pub(crate) path: &'a str,
    /// With its port, if one was named.
    pub(crate) host: Option<&'a str>,
    pub(crate) headers: &'a dyn Headers,
    pub(crate) grpc: bool,
}

impl<'a> RequestFacts<'a> {
    /// gRPC service and method, if the request is gRPC and its path has exactly the two.
    pub(crate) fn grpc_names(&self) -> Option<(&'a str, &'a str)> {
        let (service, method) = self.path.strip_prefix('/')?.split_once('/')?;
        let sound = self.grpc && !service.is_empty() && !method.is_empty();
        (sound && !method.contains('/')).then_some((service, method))
    }
}

/// Names of the identity and network sets of one snapshot, each sorted; a place in the list stands for the set.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetNames {
    pub(crate) identity: Vec<Arc<str>>,
    pub(crate) network: Vec<Arc<str>>,
}

impl SetNames {
    pub(crate) fn of(data: &SnapshotData) -> Self {
        let names = |keys: &mut dyn Iterator<Item = &String>| {
            keys.map(|name| Arc::from(name.as_str())).collect()
        };
        Self {
            identity: names(&mut data.identity_sets.keys()),
            network: names(&mut data.network_sets.keys()),
        }
    }

    /// Place of an identity set.
    pub(crate) fn identity_place(&self, name: &str) -> Option<u32> {
        place(&self.identity, name)
    }

    /// Place of a network set.
    pub(crate) fn network_place(&self, name: &str) -> Option<u32> {
        place(&self.network, name)
    }
}

fn place(names: &[Arc<str>], name: &str) -> Option<u32> {
    let found = names.binary_search_by(|known| (**known).cmp(name)).ok()?;
    u32::try_from(found).ok()
}

/// A time in whole milliseconds since the epoch, rounded down: what Cedar's `datetime` can hold.
pub(crate) fn millis(time: Timestamp) -> i64 {
    time.unix_micros().div_euclid(1_000)
}

/// Names of headers, lower case, that some policy looks at.
pub(crate) type HeaderNames = BTreeSet<Arc<str>>;

/// The first of these headers that has a value which is not UTF-8. No policy can look at such a value, so a request that
/// has one cannot be judged by policies that would.
pub(crate) fn unreadable_header<'n>(
    headers: &dyn Headers,
    names: &'n HeaderNames,
) -> Option<&'n str> {
    names.iter().map(|name| &**name).find(|name| {
        let mut readable = true;
        headers.for_each_value(name, &mut |value| {
            readable &= std::str::from_utf8(value).is_ok();
        });
        !readable
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_grpc_path_has_a_service_and_a_method_and_nothing_else() {
        let headers = BTreeMap::new();
        let names = |path, grpc| {
            let facts = RequestFacts {
                method: "POST",
                path,
                host: None,
                headers: &headers,
                grpc,
            };
            facts.grpc_names()
        };
        assert_eq!(names("/shop.Cart/Add", true), Some(("shop.Cart", "Add")));
        for path in [
            "/shop.Cart/Add/",
            "/shop.Cart/Add/x",
            "/shop.Cart/",
            "//Add",
            "/shop.Cart",
            "/",
            "*",
        ] {
            assert_eq!(names(path, true), None, "{path}");
        }
        assert_eq!(names("/shop.Cart/Add", false), None, "no gRPC");
    }
}
