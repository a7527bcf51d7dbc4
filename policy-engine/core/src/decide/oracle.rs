//! A slow, plain reading of the rules over [`SnapshotData`], with no Cedar in it, compared with the decision.
//!
//! It shares the canonicalizer and route choice (their own tests pin those) and nothing else.

use super::*;
use crate::fixtures::*;
use crate::request::canonical_ip;
use crate::route::RouteTable;
use crate::snapshot::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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

fn in_set(data: &SnapshotData, set: &str, id: &mesh_trust::SpiffeId) -> bool {
    data.identity_sets[set]
        .members
        .iter()
        .any(|member| match member {
            IdentityPattern::Any => {
                *id.trust_domain() == data.trust_domain
                    || data.wildcard_domains.contains(id.trust_domain())
            }
            IdentityPattern::Exact(exact) => exact == id,
            IdentityPattern::Namespace {
                trust_domain,
                namespace,
            } => id
                .as_str()
                .strip_prefix(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/"))
                .is_some_and(|rest| !rest.contains('/')),
            IdentityPattern::Nobody(_) => false,
        })
}

fn in_net(data: &SnapshotData, set: &str, ip: IpAddr) -> bool {
    data.network_sets[set].networks.iter().any(|network| {
        network.cidr.contains(&ip) && network.except.iter().all(|hole| !hole.contains(&ip))
    })
}

/// Whether a grant covers this client on this port, the request having taken `route`.
fn holds(
    data: &SnapshotData,
    server: &ServerInfo,
    grant: &Grant,
    client: &Client,
    route: Option<&RouteTaken>,
) -> bool {
    let who = match &grant.who {
        Who::Anyone => true,
        Who::AnyTls => client.tls,
        Who::Identities(set) if !data.identity_sets.contains_key(set) => return false,
        Who::Identities(set) => client.id.as_ref().is_some_and(|id| in_set(data, set, id)),
    };
    let network = match &grant.networks {
        None => true,
        Some(set) => {
            data.network_sets.contains_key(set) && in_net(data, set, canonical_ip(client.ip))
        }
    };
    let scope = match &grant.scope {
        Scope::Server { namespace, name } => {
            !server.default && (namespace, name) == (&server.namespace, &server.name)
        }
        Scope::NamespaceServers { namespace } => !server.default && *namespace == server.namespace,
        Scope::Default => server.default,
        Scope::Route {
            kind,
            namespace,
            name,
        } => route.is_some_and(|route| {
            (kind, namespace, name) == (&route.kind, &route.namespace, &route.name)
        }),
    };
    who && network && scope
}

/// What the decision must be: verdict, phase, status, reasons.
type Want = (Verdict, Phase, Option<u16>, BTreeSet<String>);

fn want(data: &SnapshotData, number: u16, client: &Client, call: &Call<'_>) -> Want {
    let port = data.ports.get(&number).unwrap_or(&data.other_ports);
    let server = &port.server;
    let bytes = matches!(call, Call::Tcp);
    let deny = |phase, status: u16| {
        let spoken = !(bytes || phase == Phase::Transport);
        (
            Verdict::Deny,
            phase,
            spoken.then_some(status),
            BTreeSet::new(),
        )
    };
    if client.id.is_some() && !client.tls {
        return deny(Phase::Transport, 0);
    }
    if server.invalid.is_some() {
        return deny(Phase::Server, 403);
    }
    let opaque = matches!(
        server.protocol,
        ServerProtocol::Opaque | ServerProtocol::Tls
    );
    let Call::Http(head) = call else {
        let unknown = server.protocol == ServerProtocol::Unknown;
        let raw = opaque
            || unknown && port.routes.is_empty() && !port.l7_limits && port.rate_limit.is_none();
        return if raw {
            permits(data, port, client, None, None)
        } else {
            deny(Phase::Server, 403)
        };
    };
    let path = canonical::path(head.target, head.method, port.paths);
    let probe = path.as_ref().is_ok_and(|path| {
        port.probes.iter().any(|probe| {
            in_net(data, &probe.networks, canonical_ip(client.ip))
                && head.target.split('?').next() == Some(path.as_str())
                && match &probe.kind {
                    ProbeKind::Http(text) => head.method == "GET" && text == path.as_str(),
                    ProbeKind::Grpc => {
                        head.grpc
                            && head.method == "POST"
                            && path.as_str() == "/grpc.health.v1.Health/Check"
                    }
                    ProbeKind::Tcp => false,
                }
        })
    });
    if probe {
        let (verdict, phase, status, mut reasons) = permits(data, port, client, None, Some(200));
        if phase == Phase::Permit {
            reasons.insert("default/probe".to_owned());
            return (Verdict::Allow, phase, Some(200), reasons);
        }
        return (verdict, phase, status, reasons);
    }
    if opaque {
        return permits(data, port, client, None, None);
    }
    let Ok(path) = path else {
        return deny(Phase::Request, 400);
    };
    if port.routes.is_empty() {
        return permits(data, port, client, None, Some(200));
    }
    let request = RouteRequest {
        method: head.method,
        path: path.as_str(),
        query: path.query(),
        host: None,
        headers: head.headers,
    };
    let (table, _) = RouteTable::compile(&port.routes);
    match table.choose(&request) {
        None => deny(Phase::Route, 404),
        Some(chosen) if chosen.invalid.is_some() => deny(Phase::Route, 403),
        Some(chosen) => permits(data, port, client, Some(chosen.taken), Some(200)),
    }
}

fn permits(
    data: &SnapshotData,
    port: &PortPolicy,
    client: &Client,
    route: Option<&RouteTaken>,
    ok: Option<u16>,
) -> Want {
    let grants: Vec<&Grant> = port
        .grants
        .iter()
        .map(|&index| &data.grants[usize::try_from(index).unwrap()])
        .collect();
    let that_hold = |effect| -> BTreeSet<String> {
        let held = grants.iter().filter(|grant| {
            grant.effect == effect && holds(data, &port.server, grant, client, route)
        });
        held.map(|grant| grant.id.clone()).collect()
    };
    let broken = |grant: &&&Grant| {
        grant.effect == Effect::Forbid
            && (matches!(&grant.who, Who::Identities(set) if !data.identity_sets.contains_key(set))
                || grant
                    .networks
                    .as_ref()
                    .is_some_and(|set| !data.network_sets.contains_key(set)))
    };
    let denied = ok.map(|_| 403);
    if grants.iter().any(|grant| broken(&grant)) {
        return (Verdict::Deny, Phase::Forbid, denied, BTreeSet::new());
    }
    let (forbids, permits) = (that_hold(Effect::Forbid), that_hold(Effect::Permit));
    match (forbids.is_empty(), permits.is_empty()) {
        (false, _) => (Verdict::Deny, Phase::Forbid, denied, forbids),
        (true, false) => (Verdict::Allow, Phase::Permit, ok, permits),
        (true, true) => (Verdict::Deny, Phase::Permit, denied, BTreeSet::new()),
    }
}

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
fn any_grant() -> impl Strategy<Value = (Effect, Scope, Who, Option<String>, bool)> {
    let set = || (0..4u8).prop_map(|n| format!("set{n}"));
    let who = prop_oneof![
        Just(Who::Anyone),
        Just(Who::AnyTls),
        set().prop_map(Who::Identities),
        set().prop_map(Who::Identities)
    ];
    let effect = prop_oneof![9 => Just(Effect::Permit), 1 => Just(Effect::Forbid)];
    (effect, scope(), who, prop::option::of(set()), any::<bool>())
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

fn any_data() -> impl Strategy<Value = SnapshotData> {
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
            for (index, (effect, scope, who, networks, audit)) in grants.into_iter().enumerate() {
                // Pairs share an id, as `default/<mode>` may.
                let id = format!("AuthorizationPolicy/shop/g{}/0", index / 2);
                world = world.grant(Grant {
                    effect,
                    networks,
                    audit,
                    ..grant(&id, scope, who)
                });
            }
            world.0
        })
}

fn any_client() -> impl Strategy<Value = Client> {
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
    fn cedar_and_a_plain_reading_agree(
        data in any_data(),
        client in any_client(),
        asks in prop::collection::vec((prop::sample::select(&TARGETS[..]), prop::sample::select(&["GET", "POST"][..]), any::<bool>(), any::<bool>()), 1..6),
    ) {
        let snapshot = Snapshot::compile(data.clone()).unwrap();
        let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        for (target, method, grpc, tcp) in asks {
            let head = Head { method, target, host: None, grpc, headers: &headers };
            let call = if tcp { Call::Tcp } else { Call::Http(head) };
            for port in [PORT, 1] {
                let decision = decide_on(&atoms, port, &call, NOW);
                let reasons: BTreeSet<String> = decision.reasons().iter().map(ToString::to_string).collect();
                prop_assert!(decision.reasons().is_sorted());
                let got = (decision.verdict, decision.phase, decision.status, reasons);
                prop_assert_eq!(got, want(&data, port, &client, &call), "{:?} on {}", call, port);
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
