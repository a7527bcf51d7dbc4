//! What is published after a change is what would be published had nothing been kept from before.

use super::*;
use mesh_policy_trials::mesh::{Make, Mesh, Names};
use mesh_policy_trials::random::Random;
use std::collections::BTreeSet;

const PREFIXES: [&str; 3] = ["a-", "b-", "c-"];

fn publishing() -> Publishing {
    Publishing {
        index: IndexConfig::new(TrustDomain::parse("cluster.local").unwrap()),
        proxy_port: 4143,
    }
}

/// The objects of some namespaces, a file for each; two and two of them refer to each other. Objects of the cluster have
/// a file of their own.
fn files(seed: u64, make: Make, soundness: usize) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (place, prefix) in PREFIXES.into_iter().enumerate() {
        let bytes = Random::new(seed * 7 + place as u64).bytes(2_048);
        for object in Mesh::of(&bytes, Names { prefix }, make, soundness).objects {
            let meta = &object["metadata"];
            let of = match object["kind"].as_str() {
                Some("Namespace") => meta["name"].as_str(),
                _ => meta["namespace"].as_str(),
            };
            let file = format!("{}.yaml", of.unwrap_or("cluster"));
            // The guard rails of three meshes have one name; one is enough.
            if of.is_none() && files.contains_key(&file) {
                continue;
            }
            let text = files.entry(file).or_default();
            text.extend_from_slice(format!("---\n{object}\n").as_bytes());
        }
    }
    files
}

fn sources(files: &BTreeMap<String, Vec<u8>>) -> Sources {
    let files = files.clone().into_iter();
    Sources {
        files: files
            .map(|(name, bytes)| (name, SourceFile::new(bytes)))
            .collect(),
        ..Sources::default()
    }
}

fn publish(sources: &Sources, generation: u64, before: Option<&Published>) -> Published {
    publishing().publish(
        sources,
        (generation, generation.to_string()),
        Timestamp::default(),
        before,
    )
}

/// A file replaced by that of another mesh, gone, or with a part that nobody can read.
fn change(files: &mut BTreeMap<String, Vec<u8>>, seed: u64, others: BTreeMap<String, Vec<u8>>) {
    let bytes = Random::new(seed).bytes(4);
    let names: Vec<String> = files.keys().chain(others.keys()).cloned().collect();
    let name = &names[usize::from(bytes[0]) % names.len()];
    match bytes[1] % 8 {
        0 => drop(files.remove(name)),
        1 => files
            .entry(name.clone())
            .or_default()
            .extend_from_slice(b"---\nkind: {\n"),
        2 => files
            .entry(name.clone())
            .or_default()
            .extend_from_slice(b"---\n{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {namespace: a-bank}, spec: 1}\n"),
        _ => drop(match others.get(name) {
            Some(other) => files.insert(name.clone(), other.clone()),
            None => files.remove(name),
        }),
    }
}

#[test]
fn what_is_kept_from_before_is_what_would_be_made_anew() {
    let (mut kept, mut changed) = (0, 0);
    for seed in 0..60 {
        let make = if seed % 4 == 0 {
            Make::WithCedar
        } else {
            Make::WithoutCedar
        };
        let mut now = files(seed, make, 50);
        let mut before = publish(&sources(&now), 1, None);
        for step in 0..4 {
            change(
                &mut now,
                seed * 10 + step,
                files(seed + 1_000 + step, make, 50),
            );
            let sources = sources(&now);
            let incremental = publish(&sources, step + 2, Some(&before));
            let anew = publish(&sources, step + 2, None);
            let keys = |published: &Published| -> BTreeSet<_> {
                published.workloads.keys().cloned().collect()
            };
            assert_eq!(keys(&incremental), keys(&anew));
            assert_eq!(
                incremental.discovery.discovery(),
                anew.discovery.discovery()
            );
            assert_eq!(incremental.findings, anew.findings);
            for (key, policy) in &incremental.workloads {
                assert_eq!(
                    policy.digest, anew.workloads[key].digest,
                    "{seed} {step} {key:?}"
                );
                assert_eq!(policy.identity, anew.workloads[key].identity);
                let old = before.workloads.get(key);
                match old.is_some_and(|old| Arc::ptr_eq(&old.update, &policy.update)) {
                    true => kept += 1,
                    false => changed += 1,
                }
            }
            before = incremental;
        }
    }
    assert!(
        kept > 500 && changed > 300,
        "{kept} kept, {changed} changed"
    );
}

#[test]
fn a_change_in_one_namespace_makes_only_its_workloads_anew() {
    let mut now = files(3, Make::WithoutCedar, 0);
    let before = publish(&sources(&now), 1, None);
    let added = b"---\n{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {name: more, namespace: a-bank}, spec: {podSelector: {}, port: 99}}\n";
    now.get_mut("a-bank.yaml").unwrap().extend_from_slice(added);
    let parts = read_parts(&sources(&now), Some(&before));
    let reached = affected(&before, &parts);
    assert!(reached.includes("a-bank"), "{reached:?}");
    for other in ["b-bank", "b-shop", "c-bank", "c-shop"] {
        assert!(!reached.includes(other), "{other} {reached:?}");
    }
    // The parts of the files that did not change are the ones that were there.
    let same = parts
        .iter()
        .filter(|(name, (_, part))| Arc::ptr_eq(part, &before.parts[*name].1));
    assert_eq!(same.count(), parts.len() - 1);
}

/// In a cluster some pods have a proxy and some have none; discovery tells them apart, and never promises an identity
/// where nobody proves one.
#[test]
fn pods_without_a_proxy_are_endpoints_without_an_identity() {
    let pod = |name: &str, ip: &str, container: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"shop","labels":{{"app":"cart"}}}},
            "spec":{{"serviceAccountName":"cart","containers":[{{"name":"app"}}],"initContainers":[{{"name":"{container}"}}]}},
            "status":{{"phase":"Running","podIP":"{ip}","hostIP":"10.200.1.1","conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
        )
    };
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"cart","namespace":"shop"},
        "spec":{"selector":{"app":"cart"},"clusterIP":"10.111.0.7","clusterIPs":["10.111.0.7","fd00::7"],"ports":[{"port":80,"targetPort":8080}]}}"#;
    let mut sources = Sources::default();
    for (name, text) in [
        ("Pod/shop/meshed", pod("meshed", "10.241.1.2", "mesh-proxy")),
        ("Pod/shop/plain", pod("plain", "10.241.1.3", "setup")),
        ("Pod/shop/host", pod("host", "10.200.1.1", "mesh-proxy")),
        ("Service/shop/cart", service.to_owned()),
    ] {
        sources
            .files
            .insert(name.to_owned(), SourceFile::new(text.into_bytes()));
    }
    let publishing = Publishing {
        index: IndexConfig {
            proxied: Proxied::WithContainer,
            ..IndexConfig::new(TrustDomain::parse("cluster.local").unwrap())
        },
        proxy_port: 15_008,
    };
    let published = publishing.publish(
        &sources,
        (7, "digest".to_owned()),
        Timestamp::from_unix_secs(0),
        None,
    );
    let [port] = &published.discovery.discovery().services[..] else {
        panic!("{:?}", published.discovery.discovery().services);
    };
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.111.0.7", "fd00::7"]);
    let meshed: Vec<_> = port.endpoints.iter().map(|e| e.workload.as_str()).collect();
    assert!(
        meshed.contains(&"meshed") && !meshed.contains(&"plain"),
        "{meshed:?}"
    );
    assert_eq!(port.unmeshed, ["10.241.1.3:8080".parse().unwrap()]);
    let told = published.discovery.discovery();
    let pods: Vec<_> = told
        .pods
        .iter()
        .map(|pod| {
            (
                pod.workload.as_str(),
                pod.identity.is_some(),
                pod.proxy.is_some(),
            )
        })
        .collect();
    assert_eq!(
        pods,
        [("shop/meshed", true, true), ("shop/plain", false, false)],
        "a pod in the network of its node has no address of its own"
    );
}

#[test]
fn routes_of_a_service_are_in_discovery_and_what_became_of_them_beside_it() {
    let text = "
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop, annotations: {balancer.linkerd.io/failure-accrual: consecutive}}, spec: {ports: [{port: 80}, {port: 81}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, port: 81}]
  rules: [{backendRefs: [{name: ghost, port: 80}]}]
";
    let files = BTreeMap::from([("a.yaml".to_owned(), text.as_bytes().to_vec())]);
    let published = publish(&sources(&files), 1, None);
    let routes: Vec<usize> = published
        .discovery
        .discovery()
        .services
        .iter()
        .map(|one| one.routes.len())
        .collect();
    assert_eq!(routes, [0, 1]);
    let services = &published.discovery.discovery().services;
    assert!(services.iter().all(|one| one.failure_accrual.is_some()));
    let status = &published.route_statuses[0].parents[0];
    assert_eq!(
        (status.accepted.reason, status.resolved.reason),
        ("Accepted", "BackendNotFound")
    );
    let without = BTreeMap::from([(
        "a.yaml".to_owned(),
        text.replace("name: cart, port: 81", "name: cart, port: 82")
            .into_bytes(),
    )]);
    let changed = publish(&sources(&without), 2, Some(&published));
    assert!(
        changed
            .discovery
            .discovery()
            .services
            .iter()
            .all(|one| one.routes.is_empty())
    );
}

mod candidates;

/// A pod with a proxy on a node, of a Service that asks for zones.
fn zoned(zone: &str, labels: &str, pods: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut put = |name: &str, text: String| files.insert(name.to_owned(), text.into_bytes());
    put(
        "n1",
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1, labels: {{topology.kubernetes.io/zone: {zone}}}}}}}"
        ),
    );
    put(
        "n2",
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: n2, labels: {{{labels}}}}}}}"),
    );
    put("cart", "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, ports: [{port: 80}], trafficDistribution: PreferSameZone}}".to_owned());
    for (at, (name, node)) in pods.iter().enumerate() {
        put(
            name,
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}, spec: {{nodeName: {node}, containers: []}}, status: {{podIP: 10.0.0.{at}}}}}"
            ),
        );
    }
    put("web", "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: front}, spec: {nodeName: n1, containers: []}, status: {podIP: 10.0.1.1}}".to_owned());
    files
}

#[test]
fn a_workload_is_told_its_zone_and_those_of_endpoints() {
    let pods = [("p1", "n1"), ("p2", "n2")];
    let zone_b = "topology.kubernetes.io/zone: b";
    let first = publish(&sources(&zoned("a", zone_b, &pods)), 1, None);
    let zones = |published: &Published| published.discovery.discovery().services[0].zones.clone();
    assert_eq!(zones(&first), [["a"], ["b"]]);
    assert_eq!(
        first.discovery.discovery().zone,
        None,
        "it is the same for all"
    );
    let key = |namespace: &str, name: &str| WorkloadKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let told = |published: &Published, namespace: &str, name: &str| {
        published.workloads[&key(namespace, name)]
            .update
            .zone
            .clone()
    };
    assert_eq!(told(&first, "front", "web"), "a");
    assert_eq!(told(&first, "shop", "p2"), "b");

    // While one endpoint is for nobody's zone, no request stays.
    let half = publish(&sources(&zoned("a", "", &pods)), 2, Some(&first));
    assert_eq!(zones(&half), [[""; 0]; 0]);
    assert_eq!(told(&half, "shop", "p2"), "");
}

#[test]
fn a_node_that_moves_reaches_only_who_runs_there() {
    // Nobody but `web` runs on the node that moves, so that discovery stays as it is.
    let pods = [("p1", "n2"), ("p2", "n2")];
    let zone_b = "topology.kubernetes.io/zone: b";
    let first = publish(&sources(&zoned("a", zone_b, &pods)), 1, None);
    let second = publish(&sources(&zoned("c", zone_b, &pods)), 2, Some(&first));
    let third = publish(&sources(&zoned("c", zone_b, &pods)), 3, Some(&second));
    let update = |published: &Published, namespace: &str, name: &str| {
        let key = WorkloadKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Arc::clone(&published.workloads[&key].update)
    };
    assert_eq!(update(&second, "front", "web").zone, "c");
    assert_eq!(update(&second, "front", "web").generation, 2);
    assert!(Arc::ptr_eq(
        &update(&first, "shop", "p1"),
        &update(&second, "shop", "p1")
    ));
    assert_eq!(second.changed_workloads(Some(&first)), 1);
    assert_eq!(third.changed_workloads(Some(&second)), 0);
}

/// Ten thousand workloads with a discovery of megabytes each would be tens of gigabytes.
#[test]
fn discovery_is_kept_once_and_is_no_news_of_policy() {
    let pods = [("p1", "n1"), ("p2", "n2")];
    let zone_b = "topology.kubernetes.io/zone: b";
    let first = publish(&sources(&zoned("a", zone_b, &pods)), 1, None);
    let mut one_less = zoned("a", zone_b, &pods);
    one_less.remove("p2");
    let second = publish(&sources(&one_less), 2, Some(&first));
    assert!(!Arc::ptr_eq(&first.discovery, &second.discovery));
    assert_eq!(
        second.changed_workloads(Some(&first)),
        1,
        "the one that is gone"
    );
    one_less.insert("ns".to_owned(), b"{apiVersion: v1, kind: Namespace, metadata: {name: front, annotations: {mesh.internal/default-inbound-policy: all-unauthenticated}}}".to_vec());
    let third = publish(&sources(&one_less), 3, Some(&second));
    assert_eq!(third.changed_workloads(Some(&second)), 1);
    assert!(Arc::ptr_eq(&second.discovery, &third.discovery));
    for published in [&first, &second, &third] {
        let mut updates = published.workloads.values();
        assert!(updates.all(|one| one.update.discovery_json.is_empty()));
    }
}

/// States are kept for slow readers; in one piece each would be as large as all of a discovery.
#[test]
fn of_discovery_in_one_piece_none_is_kept_but_the_newest() {
    let recent = crate::discovery::Recent::default();
    let mut before: Option<Published> = None;
    let mut said = Vec::new();
    for change in 0..64 {
        let pod = format!("p{change}");
        let files = zoned("a", "topology.kubernetes.io/zone: b", &[(&*pod, "n1")]);
        let published = publish(&sources(&files), change + 1, before.as_ref());
        recent.keep(&published.discovery);
        if change == 0 {
            assert!(!published.whole().is_empty(), "an older proxy asks");
        }
        // Whatever was made is shared with this, and with nobody once it was let go.
        said.push(published.whole().clone());
        before = Some(published);
    }
    let different: BTreeSet<&[u8]> = said.iter().map(|json| &**json).collect();
    assert_eq!(different.len(), said.len(), "each state is another");
    let alive = said.iter().filter(|json| !json.is_unique()).count();
    assert!(alive <= 2, "{alive}");
}
