//! What a decision costs: the matcher beside Cedar's own authorizer on the same policies, and beside a plain loop.
//!
//! `cargo bench -p mesh-policy [-- FILTER]` prints a Markdown table: median and 99th percentile of one call, over batches of
//! calls so that the clock's own cost does not show, and heap allocations per call.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark measures the real clock, prints what it finds, and may stop"
)]

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request};
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Decision, Generation, Verdict, decide_by_cedar, decide_on};
use mesh_policy::plain;
use mesh_policy::request::{Call, Client, Head};
use mesh_policy::snapshot::*;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

const PORT: u16 = 8080;
const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let wanted = |name: &str| {
        filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
    };
    println!("| what | policies on the server | median | p99 | allocations |");
    println!("|---|---:|---:|---:|---:|");
    for policies in [1, 10, 1_000, 10_000] {
        let world = World::with(policies, 0);
        for (name, run) in MEASURES {
            if wanted(name) {
                run(name, &world);
            }
        }
    }
    if wanted("memory") {
        memory();
    }
    for texts in [1, 8, 64] {
        let world = World::with(10, texts);
        if wanted("raw Cedar") {
            hit(&format!("hit, {texts} raw Cedar policies"), &world);
            by_cedar(&format!("Cedar, {texts} raw Cedar policies"), &world);
        }
    }
}

/// A name, and what prints its row.
type Measure = (&'static str, fn(&str, &World));

const MEASURES: &[Measure] = &[
    ("hit", hit),
    ("hit, path and host to be rewritten", rewritten),
    ("miss: first request on a route", miss),
    ("connection accepted", accept),
    ("plain loop", naive),
    ("Cedar, sliced to the client", by_cedar),
    ("Cedar, all policies", authorizer),
    ("snapshot compiled", compile),
];

/// One server with as many grants as asked, each to an identity and from a network of its own; the client has the last.
struct World {
    policies: usize,
    data: SnapshotData,
    snapshot: Snapshot,
    client: Client,
}

/// Whether grants have sets of their own.
#[derive(Clone, Copy, PartialEq)]
enum Sets {
    Own,
    Shared,
}

impl World {
    fn with(policies: usize, texts: usize) -> Self {
        let data = Self::data(policies, texts, Sets::Own);
        let last = policies - 1;
        Self {
            policies,
            snapshot: Snapshot::compile(data.clone()).expect("a snapshot"),
            data,
            client: Client {
                id: Some(identity(last)),
                ip: format!("10.{}.{}.7", last / 250 % 250, last % 250)
                    .parse()
                    .expect("an address"),
                tls: true,
                serial: None,
                expires: None,
            },
        }
    }

    fn data(policies: usize, texts: usize, sets: Sets) -> SnapshotData {
        let source = || Source::BuiltIn("benchmark".to_owned());
        let mut data = skeleton();
        for n in 0..policies {
            let of = if sets == Sets::Own { n } else { 0 };
            let (set, net) = (
                format!("MeshTLSAuthentication/shop/{of}"),
                format!("NetworkAuthentication/shop/{of}"),
            );
            let members = vec![IdentityPattern::Exact(identity(of))];
            data.identity_sets.insert(
                set.clone(),
                IdentitySet {
                    members,
                    source: source(),
                },
            );
            let cidr = format!("10.{}.{}.0/24", of / 250 % 250, of % 250)
                .parse()
                .expect("a block");
            let networks = vec![Network {
                cidr,
                except: Vec::new(),
            }];
            data.network_sets.insert(
                net.clone(),
                NetworkSet {
                    networks,
                    source: source(),
                },
            );
            data.grants.push(Grant {
                id: format!("AuthorizationPolicy/shop/g{n}/0"),
                effect: Effect::Permit,
                scope: Scope::Route {
                    kind: "HTTPRoute".to_owned(),
                    namespace: "shop".to_owned(),
                    name: "api".to_owned(),
                },
                who: Who::Identities(set),
                networks: Some(net),
                audit: false,
                term: Term::default(),
                source: source(),
            });
        }
        for n in 0..texts {
            data.cedar_policies.push(CedarText {
                id: format!("CedarPolicy/shop/c/{n}"),
                effect: Effect::Forbid,
                text: format!(
                    "forbid(principal, action, resource) when {{ context has req && context.req.path like \"/admin/{n}/*\" \
                     && context.req.method == \"POST\" }};"
                ),
                confined_to: Some("shop".to_owned()),
                invalid: None,
                audit: false,
                term: Term::default(),
                source: source(),
            });
        }
        let all = (0..u32::try_from(policies).expect("few")).collect();
        data.ports.get_mut(&PORT).expect("the port").grants = all;
        data
    }

    fn atoms(&self) -> ConnectionAtoms {
        ConnectionAtoms::of(&self.snapshot, &self.client)
    }
}

fn identity(number: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/c{number}")).expect("an identity")
}

fn skeleton() -> SnapshotData {
    let source = || Source::BuiltIn("benchmark".to_owned());
    let port = |name: &str, default| PortPolicy {
        server: ServerInfo {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            default,
            mode: "deny".to_owned(),
            protocol: ServerProtocol::Http1,
            invalid: None,
            source: source(),
            shadowed: Vec::new(),
        },
        routes: Vec::new(),
        probes: Vec::new(),
        grants: Vec::new(),
        rate_limit: None,
        paths: PathOptions::default(),
        l7_limits: false,
        faults: Vec::new(),
    };
    let prefix = |name: &str, path: &str| Route {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: None,
        hostnames: Vec::new(),
        rules: vec![RouteRule {
            matches: vec![RouteMatch {
                path: PathMatch::Prefix(path.to_owned()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            filters: Vec::new(),
        }],
        invalid: None,
        source: source(),
    };
    let mut http = port("http", false);
    http.routes = vec![
        prefix("api", "/v1"),
        prefix("admin", "/admin"),
        prefix("health", "/healthz"),
    ];
    SnapshotData {
        generation: Generation(1),
        workload: WorkloadInfo {
            namespace: "shop".to_owned(),
            name: "cart-0".to_owned(),
            owner: None,
            service_account: "cart".to_owned(),
            ips: Vec::new(),
            node_ip: None,
            source: source(),
        },
        trust_domain: TrustDomain::parse("cluster.local").expect("a trust domain"),
        wildcard_domains: Vec::new(),
        ports: BTreeMap::from([(PORT, http)]),
        other_ports: port("default", true),
        grants: Vec::new(),
        identity_sets: BTreeMap::new(),
        network_sets: BTreeMap::new(),
        cedar_policies: Vec::new(),
        egress: Vec::new(),
        findings: Vec::new(),
    }
}

fn call<'a>(
    headers: &'a BTreeMap<String, Vec<String>>,
    target: &'a str,
    host: &'a str,
) -> Call<'a> {
    Call::Http(Head {
        method: "GET",
        target,
        host: Some(host),
        grpc: false,
        headers,
    })
}

fn allowed(decision: &Decision) {
    assert_eq!(decision.verdict, Verdict::Allow);
}

fn hit(name: &str, world: &World) {
    let (atoms, headers) = (world.atoms(), BTreeMap::new());
    let call = call(&headers, "/v1/items/42?page=3", "cart.shop.svc:8080");
    let one = || decide_on(&atoms, PORT, &call, NOW);
    allowed(&one());
    report(name, world.policies, 64, || (), |()| drop(black_box(one())));
}

fn rewritten(name: &str, world: &World) {
    let (atoms, headers) = (world.atoms(), BTreeMap::new());
    let call = call(&headers, "/v1/./items/%7e42?page=3", "Cart.Shop.svc:8080");
    let one = || decide_on(&atoms, PORT, &call, NOW);
    allowed(&one());
    report(name, world.policies, 64, || (), |()| drop(black_box(one())));
}

/// The connection's atoms are there, and have been asked on another route; nothing is remembered of this one.
fn miss(name: &str, world: &World) {
    let headers = BTreeMap::new();
    let (other, this) = (
        call(&headers, "/admin", "cart"),
        call(&headers, "/v1/items", "cart"),
    );
    let prepared = || {
        let atoms = world.atoms();
        drop(decide_on(&atoms, PORT, &other, NOW));
        atoms
    };
    report(name, world.policies, 1, prepared, |atoms| {
        drop(black_box(decide_on(atoms, PORT, &this, NOW)));
    });
}

fn accept(name: &str, world: &World) {
    report(
        name,
        world.policies,
        8,
        || (),
        |()| drop(black_box(world.atoms())),
    );
}

fn naive(name: &str, world: &World) {
    let headers = BTreeMap::new();
    let call = call(&headers, "/v1/items/42", "cart");
    report(
        name,
        world.policies,
        1,
        || (),
        |()| {
            black_box(plain::reading(&world.data, PORT, &world.client, &call, NOW));
        },
    );
}

fn by_cedar(name: &str, world: &World) {
    let (atoms, headers) = (world.atoms(), BTreeMap::new());
    let call = call(&headers, "/v1/items/42", "cart");
    report(
        name,
        world.policies,
        1,
        || (),
        |()| {
            drop(black_box(decide_by_cedar(&atoms, PORT, &call, NOW)));
        },
    );
}

/// Cedar's authorizer alone, entities and request made beforehand.
fn authorizer(name: &str, world: &World) {
    let policies: String = mesh_policy::compile::generated(&world.snapshot)
        .iter()
        .map(|policy| policy.cedar.clone())
        .collect::<Vec<_>>()
        .join("\n");
    let policies: PolicySet = policies.parse().expect("policies");
    let last = world.policies - 1;
    let uid = |text: &str| text.parse::<EntityUid>().expect("an entity");
    let entities = serde_json::json!([
        {"uid": {"type": "Mesh::Workload", "id": format!("c{last}")}, "attrs": {},
         "parents": [{"type": "Mesh::IdentitySet", "id": format!("MeshTLSAuthentication/shop/{last}")}]},
        {"uid": {"type": "Mesh::Route", "id": "r"}, "attrs": {},
         "parents": [{"type": "Mesh::RouteObj", "id": "HTTPRoute/shop/api"}]},
    ]);
    let entities = Entities::from_json_value(entities, None).expect("entities");
    let context = serde_json::json!({"conn": {"tls": true, "nets": [
        {"__entity": {"type": "Mesh::NetSet", "id": format!("NetworkAuthentication/shop/{last}")}}]}});
    let context = Context::from_json_value(context, None).expect("a context");
    let request = Request::new(
        uid(&format!("Mesh::Workload::\"c{last}\"")),
        uid("Mesh::Action::\"request\""),
        uid("Mesh::Route::\"r\""),
        context,
        None,
    )
    .expect("a request");
    let authorizer = Authorizer::new();
    let one = || authorizer.is_authorized(&request, &policies, &entities);
    assert_eq!(one().decision(), cedar_policy::Decision::Allow);
    report(name, world.policies, 1, || (), |()| drop(black_box(one())));
}

fn compile(name: &str, world: &World) {
    report(
        name,
        world.policies,
        1,
        || world.data.clone(),
        |data| {
            drop(black_box(Snapshot::compile(data.clone())));
        },
    );
}

/// Heap that a proxy holds for each grant: what more grants add to a snapshot that came as JSON and was packed.
fn memory() {
    for (sets, what) in [
        (
            Sets::Own,
            "with an identity set and a network set of its own",
        ),
        (Sets::Shared, "that shares its sets"),
    ] {
        let held = |policies: usize| {
            let data = World::data(policies, 0, sets);
            Held::of(&serde_json::to_vec(&data).expect("JSON"))
        };
        let (few, many) = (held(1_000), held(10_000));
        for (when, of) in [
            ("", (|held| held.at_rest) as fn(&Held) -> i64),
            (", while Cedar or somebody looks at it", |held| held.read),
        ] {
            let bytes = (of(&many) - of(&few)) / 9_000;
            println!("| memory of a grant {what}{when} | 10000 | {bytes} B | | |");
        }
    }
}

/// Heap bytes that a snapshot holds.
struct Held {
    at_rest: i64,
    read: i64,
}

impl Held {
    fn of(json: &[u8]) -> Self {
        let (mut snapshot, mut data) = (None, None);
        let at_rest = allocation_counter::measure(|| {
            let data = serde_json::from_slice(json).expect("data");
            let compiled = Snapshot::compile(data).expect("a snapshot");
            assert!(compiled.pack());
            snapshot = Some(compiled);
        });
        let more = allocation_counter::measure(|| data = snapshot.as_ref().map(Snapshot::data));
        let at_rest = at_rest.bytes_current;
        Self {
            at_rest,
            read: at_rest + more.bytes_current,
        }
    }
}

/// Samples `run` in batches for about a second, and prints a row of the table.
fn report<T>(
    name: &str,
    policies: usize,
    batch: u32,
    mut prepare: impl FnMut() -> T,
    mut run: impl FnMut(&mut T),
) {
    let mut samples = Vec::new();
    let begun = Instant::now();
    while (begun.elapsed().as_millis() < 1_000 && samples.len() < 20_000) || samples.len() < 20 {
        let mut prepared = prepare();
        let start = Instant::now();
        for _ in 0..batch {
            run(&mut prepared);
        }
        samples.push(start.elapsed().as_nanos() as f64 / f64::from(batch));
    }
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((samples.len() - 1) as f64 * share) as usize;
        samples.get(index).copied().unwrap_or_default()
    };
    let mut prepared = prepare();
    let allocations = allocation_counter::measure(|| run(&mut prepared)).count_total;
    println!(
        "| {name} | {policies} | {} | {} | {allocations} |",
        readable(at(0.5)),
        readable(at(0.99))
    );
}

fn readable(nanos: f64) -> String {
    match nanos {
        n if n < 1_000.0 => format!("{n:.0} ns"),
        n if n < 1_000_000.0 => format!("{:.1} µs", n / 1_000.0),
        n => format!("{:.1} ms", n / 1_000_000.0),
    }
}
