//! Random questions, made of the words, addresses and times that random policies mention, and of their neighbours.

use super::choices::Choices;
use super::policies::{HEADERS, TEXTS};
use crate::question::{Asker, Question, RequestFacts, RouteFacts, SetNames, Target};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Addresses at the edges of the blocks in [`super::policies::IPS`].
const IPS: [&str; 26] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.0.0.0",
    "9.255.255.255",
    "10.255.255.255",
    "11.0.0.0",
    "127.0.0.1",
    "126.255.255.255",
    "128.0.0.0",
    "223.255.255.255",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "ff00::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::1",
    "2001:db8::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
];

/// Microseconds since the epoch of the datetimes in [`super::policies::DATETIMES`], and the ends of the range.
const TIMES: [i64; 9] = [
    1_795_260_540_000_000,
    1_795_260_540_001_000,
    1_795_256_940_000_000,
    0,
    -1_000,
    253_370_764_800_000_000,
    -62_167_219_200_000_000,
    i64::MAX,
    i64::MIN,
];

const IDS: [&str; 8] = [
    "spiffe://cluster.local/ns/shop/sa/web",
    "spiffe://cluster.local/ns/shop/sa/cart",
    "spiffe://cluster.local/ns/pay/sa/web",
    "spiffe://partner.example/ns/shop/sa/web",
    "spiffe://partner.example/web",
    "spiffe://partner.example",
    "spiffe://cluster.local/ns/shop/sa/web/x",
    "spiffe://cluster.local/ns/a/sa/GET",
];

const ROUTES: [(&str, &str, &str, u32); 8] = [
    ("HTTPRoute", "shop", "cart", 0),
    ("HTTPRoute", "shop", "cart", 1),
    ("HTTPRoute", "shop", "cart", 10),
    ("GRPCRoute", "pay", "cart", u32::MAX),
    ("HTTPRoute", "shop", "a", 3),
    ("default", "", "", 0),
    ("default", "", "probe", 0),
    ("HTTPRoute", "a", "default", 80),
];

const PATHS: [&str; 10] = [
    "/shop.Cart/Add",
    "/a",
    "/a/b",
    "/",
    "*",
    "/shop.Cart/Add/x",
    "/shop.Cart/",
    "//Add",
    "/a*b",
    "/é/aab",
];

/// Our trust domain.
#[expect(clippy::expect_used, reason = "a constant")]
pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

/// The sets of the snapshot.
pub(crate) fn names() -> SetNames {
    let names = |all: [&str; 3]| all.map(Arc::from).to_vec();
    SetNames {
        identity: names(["a", "shop", "web"]),
        network: names(["cart", "cluster", "lan"]),
    }
}

/// A question that owns its facts.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) id: Option<SpiffeId>,
    pub(crate) ip: IpAddr,
    pub(crate) tls: bool,
    pub(crate) cert_not_after: Option<Timestamp>,
    pub(crate) identity_sets: Vec<u32>,
    pub(crate) network_sets: Vec<u32>,
    pub(crate) namespace: &'static str,
    pub(crate) server: Option<&'static str>,
    pub(crate) port: u16,
    pub(crate) route: Option<RouteFacts<'static>>,
    pub(crate) request: Option<Request>,
    pub(crate) now: Timestamp,
}

/// The request of a question that owns its facts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) host: Option<&'static str>,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) grpc: bool,
}

impl Facts {
    pub(crate) fn random(choices: &mut Choices<'_>) -> Self {
        let id = choices
            .pick(&IDS)
            .filter(|_| !choices.once_in(4))
            .and_then(|id| SpiffeId::parse(id).ok());
        let is_request = !choices.once_in(3);
        Self {
            id,
            ip: ip(choices),
            tls: choices.below(2) == 0,
            cert_not_after: (!choices.once_in(3)).then(|| time(choices)),
            identity_sets: places(choices),
            network_sets: places(choices),
            namespace: choices.pick(&["shop", "pay", "a"]).unwrap_or_default(),
            server: choices
                .pick(&[Some("cart"), Some("http"), Some("default"), None])
                .flatten(),
            port: choices
                .pick(&[80, 8080, 443, 0, u16::MAX])
                .unwrap_or_default(),
            route: is_request.then(|| route(choices)).flatten(),
            request: is_request.then(|| Request::random(choices)),
            now: time(choices),
        }
    }

    pub(crate) fn question<'a>(&'a self, trust_domain: &'a TrustDomain) -> Question<'a> {
        Question {
            asker: Asker {
                id: self.id.as_ref(),
                ip: self.ip,
                tls: self.tls,
                cert_not_after: self.cert_not_after,
                identity_sets: &self.identity_sets,
                network_sets: &self.network_sets,
            },
            target: Target {
                trust_domain,
                namespace: self.namespace,
                server: self.server,
                port: self.port,
                route: self.route,
            },
            request: self.request.as_ref().map(Request::facts),
            now: self.now,
        }
    }
}

impl Request {
    fn random(choices: &mut Choices<'_>) -> Self {
        let mut headers = BTreeMap::new();
        for name in HEADERS.iter().filter(|name| name.starts_with('x')) {
            let values: Vec<String> = (0..choices.below(4))
                .filter_map(|_| choices.pick(&TEXTS).map(str::to_owned))
                .collect();
            // A header that is there has a value.
            if !values.is_empty() {
                headers.insert((*name).to_owned(), values);
            }
        }
        Self {
            method: choices.pick(&["GET", "POST", "a"]).unwrap_or_default(),
            path: choices.pick(&PATHS).unwrap_or_default(),
            host: choices
                .pick(&[Some("cart:8080"), Some("cart"), None])
                .flatten(),
            headers,
            grpc: choices.below(2) == 0,
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: self.method,
            path: self.path,
            host: self.host,
            headers: &self.headers,
            grpc: self.grpc,
        }
    }
}

fn ip(choices: &mut Choices<'_>) -> IpAddr {
    choices
        .pick(&IPS)
        .and_then(|ip| ip.parse().ok())
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// One of [`TIMES`], or up to a millisecond and some away from it.
fn time(choices: &mut Choices<'_>) -> Timestamp {
    let near = choices.pick(&[0, 1, -1, 999, 1_000, -1_000, 1_001, 86_400_000_000]);
    let micros = choices.pick(&TIMES).unwrap_or_default();
    Timestamp::from_unix_micros(micros.saturating_add(near.unwrap_or_default()))
}

/// Some of the three sets.
fn places(choices: &mut Choices<'_>) -> Vec<u32> {
    let bits = choices.byte();
    (0..3).filter(|place| bits >> place & 1 == 1).collect()
}

fn route(choices: &mut Choices<'_>) -> Option<RouteFacts<'static>> {
    let (kind, namespace, name, rule) = choices.pick(&ROUTES)?;
    Some(RouteFacts {
        kind,
        namespace,
        name,
        rule,
    })
}
