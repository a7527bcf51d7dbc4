//! What may leave the mesh, and what may not.

mod by_name;

use super::*;
use crate::decide::Verdict;
use crate::fixtures::{at, route};
use crate::request::Head;
use proptest::prelude::*;

fn network(name: &str, layer: Layer, traffic: TrafficPolicy, blocks: &[&str]) -> EgressNetwork {
    let block = |text: &&str| Network {
        cidr: text.parse().unwrap(),
        except: Vec::new(),
    };
    EgressNetwork {
        namespace: match layer {
            Layer::Mesh => "mesh-system".to_owned(),
            Layer::Namespace => "shop".to_owned(),
        },
        name: name.to_owned(),
        layer,
        traffic,
        networks: blocks.iter().map(block).collect(),
        ports: BTreeMap::new(),
        yields: false,
        invalid: None,
        source: at(1),
    }
}

fn deny(layer: Layer, blocks: &[&str]) -> EgressNetwork {
    network("no", layer, TrafficPolicy::Deny, blocks)
}

fn allow(layer: Layer, blocks: &[&str]) -> EgressNetwork {
    network("yes", layer, TrafficPolicy::Allow, blocks)
}

impl EgressNetwork {
    fn with(mut self, port: u16, speaks: Speaks, hostnames: &[&str]) -> Self {
        let mut one = route(&format!("r{port}"), "/");
        one.kind = match speaks {
            Speaks::Http => "HTTPRoute",
            Speaks::Tls => "TLSRoute",
            Speaks::Tcp => "TCPRoute",
        }
        .to_owned();
        one.hostnames = hostnames.iter().map(ToString::to_string).collect();
        let of = EgressPort {
            speaks,
            routes: Vec::new(),
            tls: BTreeMap::new(),
            unbound: BTreeSet::new(),
        };
        self.ports.entry(port).or_insert(of).routes.push(one);
        self
    }

    /// The last route of a port begins TLS.
    fn begins_tls(mut self, port: u16, origin: &TlsOrigin) -> Self {
        let of = self.ports.get_mut(&port).expect("a port with routes");
        let last = u32::try_from(of.routes.len()).unwrap() - 1;
        of.tls.insert(last, origin.clone());
        self
    }
}

fn to_port(port: u16) -> TlsOrigin {
    TlsOrigin {
        port,
        roots: TlsRoots::System,
        min_version: TlsVersion::V1_3,
    }
}

fn decided(networks: &[EgressNetwork], to: &str, seen: &Seen<'_>) -> EgressDecision {
    let (egress, _) = Egress::compile(networks, Generation(7));
    egress.at(to.parse().unwrap()).decide(seen)
}

fn said(networks: &[EgressNetwork], to: &str, seen: &Seen<'_>) -> &'static str {
    decided(networks, to, seen).cause.word()
}

static NOTHING: BTreeMap<String, Vec<String>> = BTreeMap::new();

fn get<'a>(host: Option<&'a str>, target: &'a str) -> Seen<'a> {
    Seen::Http(Head {
        method: "GET",
        target,
        host,
        grpc: false,
        headers: &NOTHING,
    })
}

const ALL: &[&str] = &["0.0.0.0/0", "::/0"];

#[test]
fn nobody_speaks_for_an_address_that_no_block_covers() {
    let mut holed = deny(Layer::Mesh, &["198.51.100.0/24"]);
    holed.networks[0].except = vec!["198.51.100.128/25".parse().unwrap()];
    let networks = [holed];
    for (to, want) in [
        ("198.51.100.7:443", "egress-denied"),
        ("198.51.100.128:443", "unrestricted"),
        ("203.0.113.1:443", "unrestricted"),
        ("[2001:db8::1]:443", "unrestricted"),
    ] {
        assert_eq!(said(&networks, to, &Seen::Bytes), want, "{to}");
    }
}

#[test]
fn the_smallest_block_decides_within_a_layer_then_the_first_in_the_list() {
    let own = Layer::Namespace;
    let wide = deny(own, ALL);
    let narrow = allow(own, &["203.0.113.0/24"]);
    for networks in [
        [wide.clone(), narrow.clone()],
        [narrow.clone(), wide.clone()],
    ] {
        assert_eq!(said(&networks, "203.0.113.9:80", &Seen::Bytes), "granted");
        assert_eq!(
            said(&networks, "203.0.114.9:80", &Seen::Bytes),
            "egress-denied"
        );
    }
    let equal = [deny(own, &["203.0.113.0/24"]), narrow];
    assert_eq!(
        said(&equal, "203.0.113.9:80", &Seen::Bytes),
        "egress-denied"
    );
}

#[test]
fn a_namespace_does_not_open_what_the_mesh_closes_unless_the_mesh_says_so() {
    let to = "203.0.113.9:443";
    let own = allow(Layer::Namespace, &["203.0.113.9/32"]);
    let mesh = deny(Layer::Mesh, ALL);
    let closed = decided(&[mesh.clone(), own.clone()], to, &Seen::Bytes);
    assert_eq!(closed.verdict(), Verdict::Deny);
    assert_eq!(closed.reasons, ["EgressNetwork/mesh-system/no/deny"]);
    let mut yields = mesh;
    yields.yields = true;
    assert_eq!(said(&[yields.clone(), own], to, &Seen::Bytes), "granted");
    assert_eq!(
        said(std::slice::from_ref(&yields), to, &Seen::Bytes),
        "egress-denied",
        "nobody stands in for it"
    );
    yields.invalid = Some("torn".to_owned());
    let own = allow(Layer::Namespace, &["203.0.113.9/32"]);
    assert_eq!(
        said(&[yields, own], to, &Seen::Bytes),
        "egress-invalid-network"
    );
}

#[test]
fn a_namespace_closes_what_the_mesh_opens_and_both_are_reasons_of_an_allow() {
    let to = "203.0.113.9:443";
    let mesh = allow(Layer::Mesh, ALL);
    let closed = [mesh.clone(), deny(Layer::Namespace, ALL)];
    let denied = decided(&closed, to, &Seen::Bytes);
    assert_eq!(denied.reasons, ["EgressNetwork/shop/no/deny"]);
    let open = decided(&[mesh, allow(Layer::Namespace, ALL)], to, &Seen::Bytes);
    assert_eq!(
        open.reasons,
        [
            "EgressNetwork/mesh-system/yes/allow",
            "EgressNetwork/shop/yes/allow"
        ]
    );
}

#[test]
fn an_invalid_network_denies_before_any_other_of_its_layer() {
    let mut torn = allow(Layer::Namespace, ALL);
    torn.invalid = Some("torn".to_owned());
    let narrow = allow(Layer::Namespace, &["203.0.113.9/32"]);
    let networks = [narrow, torn];
    assert_eq!(
        said(&networks, "203.0.113.9:1", &Seen::Bytes),
        "egress-invalid-network"
    );
    let all = closed_to_all("no policy", at(1));
    for to in ["203.0.113.9:1", "10.0.0.1:1", "[::1]:1"] {
        assert_eq!(
            said(std::slice::from_ref(&all), to, &Seen::Bytes),
            "egress-invalid-network"
        );
    }
}

#[test]
fn tls_is_judged_by_the_name_that_it_asks_for() {
    let networks =
        [
            deny(Layer::Namespace, ALL).with(
                443,
                Speaks::Tls,
                &["api.example.com", "*.cdn.example"],
            ),
        ];
    for (name, want) in [
        (Some("api.example.com"), "granted"),
        (Some("API.Example.com"), "granted"),
        (Some("api.example.com."), "granted"),
        (Some("a.cdn.example"), "granted"),
        (Some("a.b.cdn.example"), "granted"),
        (Some("cdn.example"), "egress-no-route"),
        (Some("xcdn.example"), "egress-no-route"),
        (Some("api.example.com.evil.example"), "egress-no-route"),
        (Some("evil.example"), "egress-no-route"),
        (Some("api.example.com:443"), "egress-bad-server-name"),
        (Some("api..example.com"), "egress-bad-server-name"),
        (Some(""), "egress-bad-server-name"),
        (None, "egress-no-server-name"),
    ] {
        let seen = Seen::Tls(name);
        assert_eq!(said(&networks, "203.0.113.9:443", &seen), want, "{name:?}");
    }
    for (seen, what) in [
        (Seen::Bytes, "bytes"),
        (get(Some("api.example.com"), "/"), "HTTP in plaintext"),
    ] {
        assert_eq!(
            said(&networks, "203.0.113.9:443", &seen),
            "egress-wrong-protocol",
            "{what}"
        );
    }
    let name = Seen::Tls(Some("api.example.com"));
    assert_eq!(
        said(&networks, "203.0.113.9:8443", &name),
        "egress-denied",
        "another port"
    );
    let open = [allow(Layer::Namespace, ALL)];
    for name in [None, Some(""), Some("x")] {
        assert_eq!(said(&open, "203.0.113.9:443", &Seen::Tls(name)), "granted");
    }
}

#[test]
fn a_tls_route_without_names_asks_for_none() {
    let networks = [deny(Layer::Namespace, ALL).with(443, Speaks::Tls, &[])];
    assert_eq!(
        said(&networks, "203.0.113.9:443", &Seen::Tls(None)),
        "granted"
    );
    assert_eq!(
        said(&networks, "203.0.113.9:443", &Seen::Bytes),
        "egress-wrong-protocol"
    );
}

#[test]
fn requests_are_judged_by_their_canonical_host() {
    let networks =
        [
            deny(Layer::Namespace, ALL).with(
                80,
                Speaks::Http,
                &["api.example.com", "*.cdn.example"],
            ),
        ];
    for (host, want) in [
        (Some("api.example.com"), "granted"),
        (Some("api.example.com:80"), "granted"),
        (Some("API.example.com."), "granted"),
        (Some("x.cdn.example"), "granted"),
        (Some("evil.example"), "egress-no-route"),
        (Some("203.0.113.9"), "egress-no-route"),
        (Some("api.example.com@evil.example"), "refused"),
        (Some("api.example.com, evil.example"), "refused"),
        (Some(""), "refused"),
        (None, "egress-no-route"),
    ] {
        let seen = get(host, "/");
        assert_eq!(said(&networks, "203.0.113.9:80", &seen), want, "{host:?}");
    }
    let (egress, _) = Egress::compile(&networks, Generation(7));
    let seen = get(Some("API.example.com."), "/a/../b?q");
    let decision = egress.at("203.0.113.9:80".parse().unwrap()).decide(&seen);
    let permit = decision.permit().expect("a permit");
    assert_eq!(
        permit.host(),
        Some("api.example.com"),
        "what was judged is forwarded"
    );
    assert_eq!(permit.path(), Some("/b"));
    let tls = Seen::Tls(Some("api.example.com"));
    assert_eq!(
        said(&networks, "203.0.113.9:80", &tls),
        "egress-wrong-protocol"
    );
}

#[test]
fn a_tcp_route_opens_its_port_for_whatever_comes() {
    let networks = [deny(Layer::Namespace, ALL).with(5432, Speaks::Tcp, &[])];
    let asterisk = Seen::Http(Head {
        method: "OPTIONS",
        target: "*",
        host: None,
        grpc: false,
        headers: &NOTHING,
    });
    for seen in [Seen::Bytes, Seen::Tls(None), get(Some("x"), "/y"), asterisk] {
        assert_eq!(
            said(&networks, "203.0.113.9:5432", &seen),
            "granted",
            "{seen:?}"
        );
        assert_eq!(
            said(&networks, "203.0.113.9:5433", &seen),
            "egress-denied",
            "{seen:?}"
        );
    }
}

#[test]
fn an_invalid_route_takes_what_it_names_and_denies_it() {
    let mut network = deny(Layer::Namespace, ALL)
        .with(443, Speaks::Tls, &["api.example.com"])
        .with(443, Speaks::Tls, &["*.example.com"]);
    network.ports.get_mut(&443).unwrap().routes[0].invalid = Some("torn".to_owned());
    let networks = [network];
    let of = |name| said(&networks, "203.0.113.9:443", &Seen::Tls(Some(name)));
    assert_eq!(of("api.example.com"), "egress-invalid-route");
    assert_eq!(of("b.example.com"), "granted");
}

#[test]
fn an_unreadable_hostname_names_nobody_and_is_found() {
    let network = deny(Layer::Namespace, ALL).with(443, Speaks::Tls, &["ex ample.com"]);
    let (_, problems) = Egress::compile(std::slice::from_ref(&network), Generation(7));
    assert_eq!(problems.len(), 1);
    let name = Seen::Tls(Some("example.com"));
    assert_eq!(
        said(&[network], "203.0.113.9:443", &name),
        "egress-no-route"
    );
}

#[test]
fn nothing_is_read_where_it_does_not_matter_what_comes() {
    let (mesh, own) = (allow(Layer::Mesh, ALL), allow(Layer::Namespace, ALL));
    let unread = |networks: &[EgressNetwork]| {
        let (egress, _) = Egress::compile(networks, Generation(7));
        egress
            .at("203.0.113.9:443".parse().unwrap())
            .need_no_reading()
    };
    assert!(unread(&[]));
    assert!(unread(&[mesh.clone(), own.clone()]));
    let opened = |speaks| deny(Layer::Namespace, ALL).with(443, speaks, &[]);
    assert!(unread(&[mesh.clone(), opened(Speaks::Tcp)]));
    assert!(!unread(&[mesh.clone(), opened(Speaks::Tls)]));
    assert!(!unread(&[mesh.clone(), opened(Speaks::Http)]));
    assert!(!unread(&[mesh.clone(), deny(Layer::Namespace, ALL)]));
    assert!(!unread(&[deny(Layer::Mesh, ALL), own]));
    let mut torn = mesh;
    torn.invalid = Some("torn".to_owned());
    assert!(!unread(&[torn]));
}

#[test]
fn a_record_says_where_to_by_which_network_and_why_not() {
    let networks = [deny(Layer::Namespace, ALL).with(443, Speaks::Tls, &["api.example.com"])];
    let seen = Seen::Tls(Some("evil.example"));
    let denied = decided(&networks, "203.0.113.9:443", &seen);
    let record = denied.record(None, crate::record::RecordClient::default(), "shop", &seen);
    let text = serde_json::to_value(&record).unwrap();
    assert_eq!(text["phase"], "egress");
    assert_eq!(text["verdict"], "deny");
    assert_eq!(text["status"], serde_json::Value::Null);
    assert_eq!(text["egress"]["to"], "203.0.113.9:443");
    assert_eq!(text["egress"]["server_name"], "evil.example");
    assert_eq!(text["server"]["name"], "no");
    assert_eq!(text["server"]["workload"], serde_json::Value::Null);
    assert_eq!(text["reasons"][0], "EgressNetwork/shop/no/deny");
    assert_eq!(text["route"], serde_json::Value::Null);
    let back: crate::record::DecisionRecord = serde_json::from_value(text).unwrap();
    assert_eq!(back, record);
    let seen = get(Some("x.example"), "/");
    let record = decided(&networks, "203.0.113.9:443", &seen).record(
        None,
        crate::record::RecordClient::default(),
        "shop",
        &seen,
    );
    assert_eq!(record.status, Some(403));
}

#[test]
fn an_allow_names_its_route_and_has_the_status_of_one() {
    let networks = [deny(Layer::Namespace, ALL).with(80, Speaks::Http, &["api.example.com"])];
    for (host, route, status) in [
        ("api.example.com", Some("r80"), 200),
        ("evil.example", None, 403),
        ("two hosts", None, 400),
    ] {
        let decision = decided(&networks, "203.0.113.9:80", &get(Some(host), "/"));
        let taken = decision.route.as_ref().map(|taken| taken.name.as_str());
        assert_eq!((taken, decision.status()), (route, status), "{host}");
    }
    let nobody = decided(&[], "203.0.113.9:80", &get(Some("any.example"), "/"));
    assert_eq!(nobody.status(), 200);
}

#[test]
fn who_speaks_is_said_with_layer_and_policy_and_found_in_the_list() {
    let mut torn = deny(Layer::Namespace, &["203.0.113.0/24"]);
    torn.invalid = Some("torn".to_owned());
    let networks = [
        deny(Layer::Namespace, ALL),
        allow(Layer::Mesh, ALL),
        torn,
        deny(Layer::Mesh, &["198.51.100.0/24"]),
    ];
    let (egress, _) = Egress::compile(&networks, Generation(7));
    assert!(!egress.is_empty());
    for (to, places, titles) in [
        (
            "192.0.2.1:1",
            [Some(1), Some(0)],
            [
                "EgressNetwork mesh-system/yes of the mesh, which allows",
                "EgressNetwork shop/no of the namespace, which denies what no route takes",
            ],
        ),
        (
            "203.0.113.1:1",
            [Some(1), Some(2)],
            [
                "EgressNetwork mesh-system/yes of the mesh, which allows",
                "EgressNetwork shop/no of the namespace, which is invalid",
            ],
        ),
        (
            "198.51.100.1:1",
            [Some(3), Some(0)],
            [
                "EgressNetwork mesh-system/no of the mesh, which denies what no route takes",
                "EgressNetwork shop/no of the namespace, which denies what no route takes",
            ],
        ),
    ] {
        let speaking = egress.at(to.parse().unwrap());
        assert_eq!(speaking.places(), places, "{to}");
        assert_eq!(speaking.titles(), titles, "{to}");
    }
    let (none, _) = Egress::compile(&[], Generation(7));
    assert_eq!(
        none.at("192.0.2.1:1".parse().unwrap()).places(),
        [None, None]
    );
}

#[test]
fn snapshots_of_before_have_no_egress_and_those_without_any_say_nothing_of_it() {
    let data = crate::fixtures::World::http().0;
    let text = serde_json::to_string(&data).unwrap();
    assert!(!text.contains("egress"), "{text}");
    let snapshot = crate::Snapshot::compile(serde_json::from_str(&text).unwrap()).unwrap();
    assert!(snapshot.egress().is_empty());
}

const NAMES: &[&str] = &["a.example", "b.a.example", "c.example", "d"];

fn blocks() -> impl Strategy<Value = Vec<Network>> {
    let block = (
        0u32..4,
        0u8..4,
        prop::collection::vec((0u32..4, 2u8..5), 0..2),
    )
        .prop_map(|(bits, length, holes)| {
            let net = |bits: u32, length: u8| {
                IpNet::new(IpAddr::from((bits << 30).to_be_bytes()), length)
                    .unwrap()
                    .trunc()
            };
            Network {
                cidr: net(bits, length),
                except: holes
                    .into_iter()
                    .map(|(bits, length)| net(bits, length))
                    .collect(),
            }
        });
    prop::collection::vec(block, 0..3)
}

fn routes() -> impl Strategy<Value = EgressPort> {
    let hostname = (0..NAMES.len(), any::<bool>())
        .prop_map(|(name, wild)| format!("{}{}", if wild { "*." } else { "" }, NAMES[name]));
    let one = (
        prop::collection::vec(hostname, 0..3),
        prop::bool::weighted(0.2),
    );
    let speaks = prop_oneof![Just(Speaks::Http), Just(Speaks::Tls), Just(Speaks::Tcp)];
    let tls = prop::collection::btree_map(0..3u32, prop_oneof![Just(443u16), Just(80)], 0..3);
    let unbound = prop::collection::btree_set(0..3u32, 0..3);
    let routes = prop::collection::vec(one, 1..4);
    (speaks, routes, tls, unbound).prop_map(|(speaks, routes, tls, unbound)| {
        let tls = tls.iter().filter(|_| speaks == Speaks::Http);
        let tls = tls.map(|(at, port)| (*at, to_port(*port))).collect();
        let routes = (0..).zip(routes).map(|(number, (hostnames, torn))| Route {
            hostnames: if speaks == Speaks::Tcp {
                Vec::new()
            } else {
                hostnames
            },
            invalid: torn.then(|| "torn".to_owned()),
            ..route(&format!("r{number}"), "/")
        });
        EgressPort {
            speaks,
            routes: routes.collect(),
            tls,
            unbound,
        }
    })
}

fn networks() -> impl Strategy<Value = Vec<EgressNetwork>> {
    let one = (
        (
            any::<bool>(),
            any::<bool>(),
            prop::bool::weighted(0.3),
            prop::bool::weighted(0.1),
        ),
        blocks(),
        prop::option::of(routes()),
        prop::option::of(routes()),
    );
    let one = one.prop_map(|((mesh, allows, yields, torn), blocks, routes, others)| {
        let layer = if mesh { Layer::Mesh } else { Layer::Namespace };
        let mut made = if allows {
            allow(layer, &[])
        } else {
            deny(layer, &[])
        };
        made.networks = blocks;
        made.yields = yields && mesh;
        made.invalid = torn.then(|| "torn".to_owned());
        made.ports.extend(routes.map(|routes| (443, routes)));
        made.ports.extend(others.map(|routes| (80, routes)));
        made
    });
    prop::collection::vec(one, 0..5)
}

proptest! {
    #[test]
    fn the_compiled_form_decides_as_the_plain_reading(
        networks in networks(),
        bits in 0u32..64,
        host in prop::option::of(0..NAMES.len()),
        kind in 0..3,
        port in prop_oneof![3 => Just(443u16), 1 => Just(80u16)],
    ) {
        let to = SocketAddr::new(IpAddr::from((bits << 26).to_be_bytes()), port);
        let name = host.map(|at| NAMES[at]);
        let seen = match kind {
            0 => Seen::Bytes,
            1 => Seen::Tls(name),
            _ => get(name, "/"),
        };
        let (egress, _) = Egress::compile(&networks, Generation(1));
        let decision = egress.at(to).decide(&seen);
        let allowed = decision.verdict() == Verdict::Allow;
        let begun = decision.tls().map(|tls| tls.origin.port);
        prop_assert_eq!((allowed, begun), plain::allows(&networks, to, &seen), "{:?}", decision);
        prop_assert!(begun.is_none() || matches!(seen, Seen::Http(_)), "TLS in TLS");
        // Where nothing needs to be read, the answer is that for bytes.
        let unread = egress.at(to).decide(&Seen::Bytes);
        prop_assert!(!egress.at(to).need_no_reading() || unread.cause == decision.cause);
        // One more network of the namespace's opens nothing, where no network of the mesh leaves it to the namespace
        // and none of its own spoke before.
        let spoke = networks.iter().any(|one| one.layer == Layer::Namespace);
        if !allowed && !spoke && networks.iter().all(|one| !one.yields) {
            let mut more = networks;
            more.push(allow(Layer::Namespace, ALL));
            let (egress, _) = Egress::compile(&more, Generation(1));
            prop_assert_eq!(egress.at(to).decide(&seen).verdict(), Verdict::Deny);
        }
    }
}
