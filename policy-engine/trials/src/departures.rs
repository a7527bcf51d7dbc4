//! What leaves a mesh, taken from bytes, made of what [`crate::objects::egress`] mentions and of its neighbours.

use mesh_policy::egress::Seen;
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy::request::Head;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const ADDRESSES: [&str; 16] = [
    "203.0.113.0",
    "203.0.113.6",
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.64",
    "203.0.113.127",
    "203.0.113.128",
    "203.0.113.255",
    "203.0.114.0",
    "198.51.100.1",
    "198.51.100.128",
    "2001:db8::1",
    "2001:db8:1::1",
    "2001:db8:1:2::1",
    "10.1.0.1",
    "192.0.2.1",
];

const PORTS: [u16; 5] = [443, 80, 5432, 8443, 65535];

const HOSTS: [Option<&str>; 10] = [
    Some("api.example"),
    Some("API.example."),
    Some("b.example"),
    Some("a.cdn.example"),
    Some("b.cdn.example"),
    Some("x.y.cdn.example"),
    Some("other.test"),
    Some("evil.test"),
    Some("bad host"),
    None,
];

const TARGETS: [&str; 14] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/c",
    "/a/c",
    "/ab",
    "/x/b",
    "/x/b/c",
    "/shop.Cart/Get",
    "/shop.Cart/Put",
    "/a?q=1",
    "/a/b?q=2&q=1",
    "*",
];

/// One connection or request to outside.
#[derive(Clone, Debug)]
pub struct Departure {
    /// Where to.
    pub to: SocketAddr,
    /// What is sent.
    pub sent: Sent,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Sent {
    /// Bytes.
    Bytes,
    /// TLS, with its server name.
    Tls(Option<&'static str>),
    /// A request.
    Http {
        /// Method.
        method: &'static str,
        /// Target.
        target: &'static str,
        /// Host.
        host: Option<&'static str>,
        /// Headers.
        headers: BTreeMap<String, Vec<String>>,
    },
}

impl Departure {
    /// As the decision wants it.
    pub fn seen(&self) -> Seen<'_> {
        match &self.sent {
            Sent::Bytes => Seen::Bytes,
            Sent::Tls(name) => Seen::Tls(*name),
            Sent::Http {
                method,
                target,
                host,
                headers,
            } => Seen::Http(Head {
                method,
                target,
                host: *host,
                grpc: false,
                headers,
            }),
        }
    }
}

/// Something that leaves.
pub fn departure(choices: &mut Choices<'_>) -> Departure {
    let ip = choices.pick(&ADDRESSES).and_then(|text| text.parse().ok());
    let ip = ip.unwrap_or(IpAddr::from([203, 0, 113, choices.byte()]));
    let to = SocketAddr::new(ip, choices.pick(&PORTS).unwrap_or_default());
    let sent = match choices.below(4) {
        0 => Sent::Bytes,
        1 => Sent::Tls(choices.pick(&HOSTS).flatten()),
        _ => Sent::Http {
            method: choices
                .pick(&["GET", "GET", "POST", "PUT", "OPTIONS"])
                .unwrap_or_default(),
            target: choices.pick(&TARGETS).unwrap_or_default(),
            host: choices.pick(&HOSTS).flatten(),
            headers: headers(choices),
        },
    };
    Departure { to, sent }
}

fn headers(choices: &mut Choices<'_>) -> BTreeMap<String, Vec<String>> {
    let teams: &[&str] = match choices.below(6) {
        0 => &["red"],
        1 => &["blue"],
        2 => &["blue", "red"],
        3 => &["green"],
        _ => return BTreeMap::new(),
    };
    let teams = teams.iter().map(|team| (*team).to_owned()).collect();
    BTreeMap::from([("x-team".to_owned(), teams)])
}
