//! Three opinions on random policies and requests: the matcher, Cedar, and the plain reading.

use super::*;
use crate::fixtures::*;
use crate::plain::{Reading, reading};
use crate::snapshot::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const IPS: [&str; 5] = [
    "10.0.0.1",
    "10.1.0.1",
    "192.168.0.1",
    "::ffff:10.0.0.1",
    "2001:db8::1",
];
const IDS: [&str; 6] = [
    "spiffe://cluster.local/ns/shop/sa/web",
    "spiffe://cluster.local/ns/shop/sa/api",
    "spiffe://cluster.local/ns/pay/sa/web",
    "spiffe://partner.example/ns/shop/sa/web",
    "spiffe://evil.example/ns/shop/sa/web",
    "spiffe://cluster.local/other",
];
const TARGETS: [&str; 9] = [
    "/",
    "/a",
    "/a/b",
    "/b/../a",
    "/healthz",
    "//healthz",
    "/c?x",
    "/%2f",
    "/grpc.health.v1.Health/Check",
];

fn pattern() -> impl Strategy<Value = IdentityPattern> {
    prop_oneof![
        Just(IdentityPattern::Any),
        prop::sample::select(&IDS[..])
            .prop_map(|id| IdentityPattern::Exact(mesh_trust::SpiffeId::parse(id).unwrap())),
        prop::sample::select(&["shop", "pay"][..]).prop_map(|namespace| {
            IdentityPattern::Namespace {
                trust_domain: domain("cluster.local"),
                namespace: namespace.to_owned(),
            }
        }),
        Just(IdentityPattern::Nobody("*.elsewhere".to_owned())),
    ]
}

fn block() -> impl Strategy<Value = Network> {
    let cidr = prop::sample::select(
        &[
            "10.0.0.0/8",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "::/0",
            "192.168.0.0/16",
        ][..],
    );
    let except = prop::collection::vec(
        prop::sample::select(&["10.1.0.0/16", "10.0.0.1/32", "2001:db8::/32"][..]),
        0..2,
    );
    (cidr, except).prop_map(|(cidr, except)| Network {
        cidr: cidr.parse().unwrap(),
        except: except
            .into_iter()
            .map(|text| text.parse().unwrap())
            .collect(),
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(on_server("http")),
        Just(on_server("other")),
        Just(on_server("default")),
        Just(Scope::NamespaceServers {
            namespace: "shop".to_owned()
        }),
        Just(Scope::NamespaceServers {
            namespace: "pay".to_owned()
        }),
        Just(Scope::Default),
        Just(on_route("a")),
        Just(on_route("b")),
    ]
}

/// A grant; some refer to sets that do not exist.
fn any_grant() -> impl Strategy<Value = (Effect, Scope, Who, Option<String>, bool, Term)> {
    let set = || (0..4u8).prop_map(|n| format!("set{n}"));
    let who = prop_oneof![
        Just(Who::Anyone),
        Just(Who::AnyTls),
        set().prop_map(Who::Identities),
        set().prop_map(Who::Identities)
    ];
    let effect = prop_oneof![9 => Just(Effect::Permit), 1 => Just(Effect::Forbid)];
    let ends =
        prop_oneof![4 => Just(None), 1 => Just(Some(NOW)), 1 => Just(Some(NOW.plus_secs(1)))];
    let term = ends.prop_map(|expires| Term {
        expires,
        break_glass: None,
    });
    (
        effect,
        scope(),
        who,
        prop::option::of(set()),
        any::<bool>(),
        term,
    )
}

fn any_port() -> impl Strategy<Value = PortPolicy> {
    let protocol = prop::sample::select(
        &[
            ServerProtocol::Unknown,
            ServerProtocol::Http1,
            ServerProtocol::Http2,
            ServerProtocol::Grpc,
            ServerProtocol::Opaque,
            ServerProtocol::Tls,
        ][..],
    );
    let name = prop::sample::select(&["http", "other", "default"][..]);
    let routes = prop::collection::vec(
        (
            prop::sample::select(&["a", "b"][..]),
            prop::sample::select(&["/", "/a", "/healthz"][..]),
            prop::bool::weighted(0.1),
        ),
        0..3,
    );
    let probes = prop::collection::vec(
        prop_oneof![
            Just(ProbeKind::Http("/healthz".to_owned())),
            Just(ProbeKind::Grpc),
            Just(ProbeKind::Tcp)
        ],
        0..2,
    );
    (
        protocol,
        name,
        any::<bool>(),
        prop::bool::weighted(0.05),
        routes,
        probes,
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(protocol, name, default, invalid, routes, probes, l7_limits)| PortPolicy {
                server: ServerInfo {
                    default,
                    invalid: invalid.then(|| "broken".to_owned()),
                    ..server(name, protocol)
                },
                routes: routes
                    .into_iter()
                    .map(|(name, prefix, bad)| Route {
                        invalid: bad.then(|| "bad".to_owned()),
                        ..route(name, prefix)
                    })
                    .collect(),
                probes: probes
                    .into_iter()
                    .map(|kind| Probe {
                        kind,
                        networks: "set0".to_owned(),
                        source: at(9),
                    })
                    .collect(),
                l7_limits,
                ..port_of(default_server())
            },
        )
}

pub(crate) fn any_data() -> impl Strategy<Value = SnapshotData> {
    let sets = prop::collection::vec(prop::collection::vec(pattern(), 0..3), 3);
    let nets = prop::collection::vec(prop::collection::vec(block(), 0..3), 3);
    (
        any_port(),
        any_port(),
        prop::collection::vec(any_grant(), 0..8),
        sets,
        nets,
        any::<bool>(),
    )
        .prop_map(|(first, second, grants, sets, nets, federated)| {
            let mut world = World::http();
            world.0.ports = BTreeMap::from([(PORT, first)]);
            world.0.other_ports = second;
            world.0.wildcard_domains = federated
                .then(|| domain("partner.example"))
                .into_iter()
                .collect();
            for (index, members) in sets.into_iter().enumerate() {
                world = world.identities(&format!("set{index}"), members);
            }
            for (index, networks) in nets.into_iter().enumerate() {
                world.0.network_sets.insert(
                    format!("set{index}"),
                    NetworkSet {
                        networks,
                        source: at(3),
                    },
                );
            }
            for (index, (effect, scope, who, networks, audit, term)) in
                grants.into_iter().enumerate()
            {
                // Pairs share an id, as `default/<mode>` may.
                let id = format!("AuthorizationPolicy/shop/g{}/0", index / 2);
                world = world.grant(Grant {
                    effect,
                    networks,
                    audit,
                    term,
                    ..grant(&id, scope, who)
                });
            }
            world.0
        })
}

pub(crate) fn any_client() -> impl Strategy<Value = Client> {
    let id = prop::option::weighted(0.7, prop::sample::select(&IDS[..]));
    (
        id,
        prop::sample::select(&IPS[..]),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(id, ip, tls)| Client {
            id: id.map(|id| mesh_trust::SpiffeId::parse(id).unwrap()),
            tls,
            ..plaintext(ip)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matcher_cedar_and_a_plain_reading_agree(
        data in any_data(),
        packed in any::<bool>(),
        client in any_client(),
        asks in prop::collection::vec((prop::sample::select(&TARGETS[..]), prop::sample::select(&["GET", "POST"][..]), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let snapshot = Snapshot::compile(data.clone()).unwrap();
        if packed {
            prop_assert!(snapshot.pack() && snapshot.data() == data);
        }
        let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        for (target, method, grpc, tcp) in asks {
            let head = Head { method, target, host: None, grpc, headers: &headers };
            let call = if tcp { Call::Tcp } else { Call::Http(head) };
            for port in [PORT, 1] {
                let decision = decide_on(&atoms, port, &call, NOW);
                let reasons = decision.reasons().iter().map(ToString::to_string).collect();
                prop_assert!(decision.reasons().is_sorted());
                let got = Reading { verdict: decision.verdict, phase: decision.phase, status: decision.status, reasons };
                prop_assert_eq!(got, reading(&data, port, &client, &call, NOW), "{:?} on {}", call, port);
                let cedar = decide_by_cedar(&atoms, port, &call, NOW);
                prop_assert_eq!(short(&decision), short(&cedar), "Cedar on {:?} on {}", call, port);
            }
        }
    }

    #[test]
    fn taking_a_grant_or_an_authentication_away_never_opens_anything(
        data in any_data(),
        client in any_client(),
        target in prop::sample::select(&TARGETS[..]),
        choice in any::<prop::sample::Index>(),
    ) {
        let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let call = Call::Http(Head { method: "GET", target, host: None, grpc: false, headers: &headers });
        let allowed = |data: &SnapshotData| {
            decide(&Snapshot::compile(data.clone()).unwrap(), PORT, &client, &call, NOW).verdict == Verdict::Allow
        };
        let mut less = data.clone();
        match choice.index(3) {
            0 => { less.identity_sets.remove("set0"); }
            1 => { less.network_sets.remove("set1"); }
            _ => {
                let permits = |index: &u32| data.grants[usize::try_from(*index).unwrap()].effect == Effect::Forbid;
                less.ports.get_mut(&PORT).unwrap().grants.retain(permits);
            }
        }
        prop_assert!(allowed(&data) || !allowed(&less));
    }

    #[test]
    fn adding_a_forbid_never_allows(data in any_data(), client in any_client(), target in prop::sample::select(&TARGETS[..])) {
        let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let call = Call::Http(Head { method: "GET", target, host: None, grpc: false, headers: &headers });
        let allowed = |data: &SnapshotData| {
            decide(&Snapshot::compile(data.clone()).unwrap(), PORT, &client, &call, NOW).verdict == Verdict::Allow
        };
        let forbid = Grant { effect: Effect::Forbid, ..grant("CedarPolicy/shop/f/0", on_server("http"), Who::AnyTls) };
        let more = World(data.clone()).grant(forbid).0;
        prop_assert!(allowed(&data) || !allowed(&more));
    }
}
