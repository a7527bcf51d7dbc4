//! Random meshes with EgressNetworks, two at a time, and random departures: whatever the two decide differently is in a
//! class that is reported, and whatever is reported they decide differently.

use mesh_policy::Snapshot;
use mesh_policy::canonical::{self, CanonicalPath};
use mesh_policy::decide::Verdict;
use mesh_policy::egress::{Cause, EgressNetwork, EgressPort, Seen, Speaks};
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy::snapshot::{PathMatch, PathOptions, RouteMatch, TextMatch, ValueMatch};
use mesh_policy_analysis::outside::Scope;
use mesh_policy_analysis::outside::change::{Difference, differences};
use mesh_policy_analysis::world::AskedPort;
use mesh_policy_index::Index;
use mesh_policy_trials::departures::{Departure, departure};
use mesh_policy_trials::mesh::{Make, Mesh, Names};
use mesh_policy_trials::objects;
use mesh_policy_trials::random::Random;
use std::net::SocketAddr;

/// What was tried.
#[derive(Debug, Default)]
struct Tally {
    /// Departures that two meshes decide differently.
    differed: u64,
    /// Classes that were reported.
    reported: u64,
    /// Departures that no class covers, where the answer says that it is not exact.
    sampled: u64,
    /// Pairs of policies.
    pairs: u64,
    /// Those that are compared exactly.
    exact: u64,
}

#[test]
fn whatever_two_meshes_let_out_differently_is_in_a_reported_class() {
    let mut tally = Tally::default();
    for seed in 1..=120 {
        let mut random = Random::new(seed);
        let base = Mesh::of(&random.bytes(600), Names::default(), Make::WithoutCedar, 0);
        let one = with_egress(&base, &random.bytes(300));
        // Every second time a change of one byte, which may be a small change; else another mesh.
        let other = match seed % 2 {
            0 => changed(&one, &random.bytes(8)),
            _ => with_egress(&base, &random.bytes(300)),
        };
        compare(seed, [&one, &other], &mut random, &mut tally);
    }
    assert!(tally.differed > 2_000, "{tally:?}");
    assert!(tally.reported > 2_000, "{tally:?}");
    assert!(tally.exact > tally.pairs / 2, "{tally:?}");
    assert!(tally.sampled * 200 < tally.differed, "{tally:?}");
}

fn with_egress(base: &Mesh, bytes: &[u8]) -> Mesh {
    let mut mesh = base.clone();
    mesh.objects
        .extend(objects::egress(Names::default(), &mut Choices::of(bytes)));
    mesh
}

/// The mesh without one object of those that say what leaves, or with another traffic policy there.
fn changed(mesh: &Mesh, bytes: &[u8]) -> Mesh {
    let mut mesh = mesh.clone();
    let mut choices = Choices::of(bytes);
    let is_egress = |object: &serde_json::Value| object.to_string().contains("EgressNetwork");
    let places: Vec<usize> = (0..mesh.objects.len())
        .filter(|at| is_egress(&mesh.objects[*at]))
        .collect();
    let Some(at) = choices.pick(&places) else {
        return mesh;
    };
    match mesh.objects[at]["spec"].get("trafficPolicy").is_some() && choices.below(2) == 0 {
        true => mesh.objects[at]["spec"]["trafficPolicy"] = "Allow".into(),
        false => drop(mesh.objects.remove(at)),
    }
    mesh
}

fn compare(seed: u64, meshes: [&Mesh; 2], random: &mut Random, tally: &mut Tally) {
    let worlds: Vec<Index> = meshes.iter().map(|mesh| mesh.index(1).unwrap()).collect();
    // What is outside is the same for both, and somebody may speak for the cluster's addresses all the same.
    let scope = Scope {
        cluster: &worlds[0].config().cluster_networks,
        ..Scope::default()
    };
    for (key, _) in worlds[0].workloads() {
        let views: Vec<Snapshot> = worlds
            .iter()
            .map(|world| {
                Snapshot::compile(world.snapshot(key, Default::default()).unwrap()).unwrap()
            })
            .collect();
        let (found, inexact) = differences(Some(&views[0]), Some(&views[1]), scope);
        tally.pairs += 1;
        tally.exact += u64::from(inexact.0.is_empty());
        tally.reported += found.len() as u64;
        let fail = |what: String| {
            panic!(
                "seed {seed}, {key:?}: {what}\n{}\n======\n{}",
                meshes[0].text(),
                meshes[1].text()
            )
        };
        for one in &found {
            let to = SocketAddr::new(one.addresses.address, one.port.number());
            let says: Vec<bool> = views
                .iter()
                .map(|view| lets_out(view, to, &one.class.sent.seen()))
                .collect();
            let want = match one.in_manner {
                true => [true, true],
                false => [!one.gained, one.gained],
            };
            if says != want {
                fail(format!("reported and not so: {one:?}"));
            }
        }
        for _ in 0..400 {
            let leaves = departure(&mut Choices::of(&random.bytes(12)));
            let says: Vec<bool> = views
                .iter()
                .map(|view| lets_out(view, leaves.to, &leaves.seen()))
                .collect();
            if says[0] == says[1] {
                continue;
            }
            tally.differed += 1;
            let networks = speaking(&views, leaves.to);
            let covered = found.iter().any(|one| {
                !one.in_manner && one.gained == says[1] && covers(one, &networks, &leaves)
            });
            match (covered, inexact.0.is_empty()) {
                (true, _) => {}
                (false, true) => fail(format!("{leaves:?} is in no class; {says:?}")),
                (false, false) => tally.sampled += 1,
            }
        }
    }
}

fn lets_out(view: &Snapshot, to: SocketAddr, seen: &Seen<'_>) -> bool {
    let decision = view.egress().at(to).decide(seen);
    decision.verdict() == Verdict::Allow && !matches!(decision.cause, Cause::Refused(_))
}

/// The networks that speak for an address under each of the policies.
fn speaking(views: &[Snapshot], to: SocketAddr) -> Vec<EgressNetwork> {
    let of = |view: &Snapshot| {
        let data = view.data();
        let places = view.egress().at(to).places().into_iter().flatten();
        places
            .map(|place| data.egress[place].clone())
            .collect::<Vec<_>>()
    };
    views.iter().flat_map(of).collect()
}

/// Whether a departure is one of a class: the same address class, the same port, and equal in all that routes look at.
fn covers(one: &Difference, networks: &[EgressNetwork], leaves: &Departure) -> bool {
    let at = leaves.to.port();
    let tables: Vec<&EgressPort> = networks
        .iter()
        .filter_map(|network| network.ports.get(&at))
        .collect();
    let port = match one.port {
        AskedPort::Own(number) => number == at,
        AskedPort::Other(_) => !networks
            .iter()
            .any(|network| network.ports.contains_key(&at)),
    };
    one.addresses.has(leaves.to.ip())
        && port
        && facts(&tables, &one.class.sent.seen()) == facts(&tables, &leaves.seen())
}

/// Everything that routes look at, each by itself and read plainly.
fn facts(tables: &[&EgressPort], seen: &Seen<'_>) -> Vec<String> {
    let (kind, speaks, host) = match seen {
        Seen::Bytes => ("bytes", None, None),
        Seen::Tls(name) => ("tls", Some(Speaks::Tls), *name),
        Seen::Http(head) => ("http", Some(Speaks::Http), head.host),
    };
    let mut out = vec![kind.to_owned()];
    let host = host.map(|host| match canonical::host(host) {
        Ok(host) => host.name().to_owned(),
        Err(_) => "<none>".to_owned(),
    });
    for (at, table) in tables
        .iter()
        .enumerate()
        .filter(|(_, table)| Some(table.speaks) == speaks)
    {
        for route in &table.routes {
            for (number, hostname) in route.hostnames.iter().enumerate() {
                let holds = host
                    .as_ref()
                    .is_some_and(|host| names(&hostname.to_ascii_lowercase(), host));
                out.push(format!("{at} {} {number}: {holds}", route.name));
            }
            let Seen::Http(head) = seen else { continue };
            // What routes for other hosts look at does not matter.
            let taken = route.hostnames.is_empty()
                || route.hostnames.iter().any(|name| {
                    host.as_ref()
                        .is_some_and(|host| names(&name.to_ascii_lowercase(), host))
                });
            let Ok(path) = canonical::path(head.target, head.method, PathOptions::default()) else {
                out.push("refused".to_owned());
                continue;
            };
            for one in route
                .rules
                .iter()
                .flat_map(|rule| &rule.matches)
                .filter(|_| taken)
            {
                out.push(format!("{:?}", match_facts(one, &path, head)));
            }
        }
    }
    out
}

fn names(hostname: &str, host: &str) -> bool {
    match hostname.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == hostname,
    }
}

fn match_facts(
    one: &RouteMatch,
    path: &CanonicalPath<'_>,
    head: &mesh_policy::request::Head<'_>,
) -> Vec<bool> {
    let text = path.as_str();
    let on_path = match &one.path {
        PathMatch::Exact(exact) => exact == text,
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            text == prefix || text.starts_with(&format!("{prefix}/"))
        }
        PathMatch::Regex(pattern) => {
            assert_eq!(pattern, "/a(/.*)?");
            text == "/a" || text.starts_with("/a/")
        }
        PathMatch::Rpc { service, method } => {
            let parts: Vec<&str> = text.split('/').collect();
            let part = |wanted: &Option<TextMatch>, part: &str| match wanted {
                Some(TextMatch::Exact(exact)) => exact == part,
                _ => true,
            };
            parts.len() == 3
                && parts[1..].iter().all(|part| !part.is_empty())
                && part(service, parts[1])
                && part(method, parts[2])
        }
    };
    let method = one
        .method
        .as_ref()
        .is_none_or(|method| method == head.method);
    let exact = |value: &ValueMatch| match &value.value {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Regex(pattern) => panic!("{pattern}"),
    };
    let headers = one.headers.iter().map(|header| {
        let mut values = Vec::new();
        let name = header.name.to_ascii_lowercase();
        head.headers
            .for_each_value(&name, &mut |value| values.push(value.to_vec()));
        !values.is_empty()
            && values
                .iter()
                .all(|value| *value == exact(header).as_bytes())
    });
    let query = one.query.iter().map(|wanted| {
        let pairs = path.query().unwrap_or_default().split('&');
        let values: Vec<&str> = pairs
            .filter_map(|pair| pair.strip_prefix(&format!("{}=", wanted.name)))
            .collect();
        !values.is_empty() && values.iter().all(|value| **value == *exact(wanted))
    });
    [on_path, method]
        .into_iter()
        .chain(headers)
        .chain(query)
        .collect()
}
