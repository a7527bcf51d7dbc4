//! Requests, taken from bytes, made of what [`crate::mesh`] mentions and of its neighbours.

use crate::mesh::Names;
use crate::objects::ACCOUNTS;
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy::request::{ClientRecord, Protocol, RequestRecord, TargetRecord};
use std::collections::BTreeMap;

const IPS: [&str; 10] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.1.0.1",
    "10.1.0.2",
    "192.168.0.1",
    "::ffff:10.0.0.1",
    "2001:db8::1",
    "203.0.113.9",
    "not an address",
];

const PATHS: [&str; 14] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/ab",
    "/a/b/../c",
    "/%61",
    "/a%2fb",
    "//a",
    "/a?q=1",
    "/a/b?q=2&q=1",
    "/healthz",
    "/shop.Cart/Get",
    "/grpc.health.v1.Health/Check",
];

const GRPC_PATHS: [&str; 5] = [
    "/shop.Cart/Get",
    "/shop.Cart/Put",
    "/shop.Other/Get",
    "/grpc.health.v1.Health/Check",
    "/a",
];

const PORTS: [u16; 4] = [8080, 9090, 7, 443];

const HOSTS: [Option<&str>; 10] = [
    Some("cart"),
    Some("cart"),
    Some("cart"),
    Some("shop.example"),
    None,
    Some("CART:8080"),
    Some("shop.example"),
    Some("x.example"),
    None,
    Some("bad host"),
];

/// A request to a pod.
pub fn ask(choices: &mut Choices<'_>, names: Names) -> RequestRecord {
    let (namespace, pod) = (choices.below(2), choices.below(2));
    let mut record = RequestRecord {
        client: client(choices, names),
        server: TargetRecord {
            namespace: names.namespace(namespace),
            pod: Some(format!("pod{pod}")),
            service: None,
            port: choices.pick(&PORTS).unwrap_or_default(),
        },
        protocol: Protocol::Http,
        method: None,
        path: None,
        host: None,
        headers: BTreeMap::new(),
    };
    let paths: &[&str] = match choices.below(6) {
        0 => {
            record.protocol = Protocol::Tcp;
            return record;
        }
        1 => {
            record.protocol = Protocol::Grpc;
            record.method = Some("POST".to_owned());
            &GRPC_PATHS
        }
        _ => {
            let method = choices.pick(&[
                "GET", "GET", "GET", "GET", "POST", "POST", "POST", "PUT", "get", "G T",
            ]);
            record.method = method.map(str::to_owned);
            &PATHS
        }
    };
    record.path = choices.pick(paths).map(str::to_owned);
    record.host = choices.pick(&HOSTS).flatten().map(str::to_owned);
    if choices.once_in(3) {
        let teams: &[&str] = match choices.below(3) {
            0 => &["red"],
            1 => &["blue", "red"],
            _ => &["blue"],
        };
        let teams = teams.iter().map(|team| (*team).to_owned()).collect();
        record.headers.insert("x-team".to_owned(), teams);
    }
    record
}

fn client(choices: &mut Choices<'_>, names: Names) -> ClientRecord {
    let account = choices.pick(&ACCOUNTS).unwrap_or_default();
    let (spiffe_id, tls) = match choices.below(10) {
        0 => (None, None),
        1 => (None, Some(true)),
        2 => (Some("spiffe://partner.example/batch".to_owned()), None),
        3 => (
            Some("spiffe://evil.example/ns/shop/sa/web".to_owned()),
            None,
        ),
        4 => (Some("spiffe://cluster.local/other".to_owned()), None),
        // What no proxy would say: an identity without TLS.
        5 => (Some(names.id(0, account)), Some(false)),
        _ => (Some(names.id(choices.below(2), account)), None),
    };
    ClientRecord {
        spiffe_id,
        ip: choices.pick(&IPS).map(str::to_owned),
        tls,
    }
}
