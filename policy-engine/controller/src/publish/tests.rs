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

/// Of each workload, the JSON of its snapshot as the index has it: what was sent before anything was kept in pieces.
#[test]
fn what_is_sent_is_the_snapshot_as_it_is_written_whole() {
    let (mut seen, mut candidates) = (0, 0);
    for seed in 0..30 {
        let files = files(seed, Make::WithCedar, 50);
        let sources = sources(&files);
        let before = publish(&sources, 3, None);
        let mut more = sources.clone();
        let text = format!(
            "---\n{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: more, namespace: a-bank, annotations: {{mesh.internal/shadow: add}}}}, spec: {{podSelector: {{}}, port: {seed}}}}}\n"
        );
        more.files
            .insert("more".to_owned(), SourceFile::new(text.into_bytes()));
        let after = publish(&more, 4, Some(&before));
        for (published, sources) in [(&before, &sources), (&after, &more)] {
            let files = sources.files.iter();
            let loaded = manifest::load(files.map(|(name, file)| (name.clone(), &file.bytes)));
            let (index, candidate) = (
                Index::build(&loaded, &publishing().index),
                Index::candidate(&loaded, &publishing().index),
            );
            for (key, policy) in &published.workloads {
                let generation = Generation(policy.update.generation);
                let whole = index.snapshot(key, generation).unwrap();
                let sent = policy.update.message(key, Bytes::from_static(b"there"));
                assert_eq!(sent.snapshot_json, json(&whole), "{seed} {key:?}");
                let tried = candidate.as_ref();
                let tried = tried.and_then(|index| index.snapshot(key, generation));
                let tried = tried.and_then(|tried| beside(tried, &whole));
                let tried = tried.as_ref().map_or_else(Vec::new, json);
                assert_eq!(sent.candidate_json, tried, "{seed} {key:?}");
                let told = (sent.generation, &sent.zone, &sent.discovery_json[..]);
                assert_eq!(told, (generation.0, &policy.update.zone, &b"there"[..]));
                seen += 1;
                candidates += usize::from(!tried.is_empty());
            }
        }
    }
    assert!(seen > 500 && candidates > 20, "{seen}, {candidates}");
}

/// A Deployment's pods with probes, each an object of its own, and many who may call them.
fn replicas(pods: usize, policies: usize) -> Sources {
    let mut out = Sources::default();
    let mut put = |name: String, text: String| {
        out.files.insert(name, SourceFile::new(text.into_bytes()));
    };
    for pod in 0..pods {
        put(
            format!("Pod/shop/cart-{pod}"),
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"cart-{pod}","namespace":"shop","labels":{{"app":"cart"}}}},
                "spec":{{"serviceAccountName":"cart","containers":[{{"name":"app","ports":[{{"containerPort":80}}],"readinessProbe":{{"httpGet":{{"path":"/ready","port":80}}}}}}],"initContainers":[{{"name":"mesh-proxy"}}]}},
                "status":{{"podIP":"10.0.{}.{}","hostIP":"192.0.2.1","conditions":[{{"type":"Ready","status":"True"}}]}}}}"#,
                pod / 200,
                pod % 200 + 1
            ),
        );
    }
    put("Server.policy.linkerd.io/shop/cart".to_owned(), r#"{"apiVersion":"policy.linkerd.io/v1beta3","kind":"Server","metadata":{"name":"cart","namespace":"shop"},"spec":{"podSelector":{},"port":80}}"#.to_owned());
    for policy in 0..policies {
        put(
            format!("AuthorizationPolicy.policy.linkerd.io/shop/p{policy}"),
            format!(
                r#"{{"apiVersion":"policy.linkerd.io/v1alpha1","kind":"AuthorizationPolicy","metadata":{{"name":"p{policy}","namespace":"shop"}},"spec":{{"targetRef":{{"group":"policy.linkerd.io","kind":"Server","name":"cart"}},"requiredAuthenticationRefs":[{{"kind":"ServiceAccount","name":"client-{policy}"}}]}}}}"#
            ),
        );
    }
    out
}

fn in_cluster() -> Publishing {
    Publishing {
        index: IndexConfig {
            proxied: Proxied::WithContainer,
            ..publishing().index
        },
        ..publishing()
    }
}

/// Bytes that all updates take, each piece once; and those that they are when sent.
fn kept_and_sent(published: &Published) -> (usize, usize) {
    let updates = published.workloads.values().map(|one| &one.update.policy);
    let pieces = updates.clone().flat_map(Encoded::pieces);
    let once: BTreeMap<*const u8, usize> =
        pieces.map(|piece| (piece.as_ptr(), piece.len())).collect();
    (once.values().sum(), updates.map(Encoded::len).sum())
}

#[test]
fn what_pods_have_in_common_is_kept_once_and_each_is_sent_its_own() {
    let digest = |name: &str| (0, name.to_owned());
    let first = in_cluster().publish(&replicas(50, 20), digest("a"), Timestamp::default(), None);
    // Another pod comes later; what it has in common with the others is theirs.
    let more = replicas(51, 20);
    let second = in_cluster().publish(&more, digest("b"), Timestamp::default(), Some(&first));
    assert_eq!(second.changed_workloads(Some(&first)), 1);
    let (kept, sent) = kept_and_sent(&second);
    assert!(kept * 5 < sent, "{kept} bytes for {sent}");
    for (key, policy) in &second.workloads {
        let sent = String::from_utf8(policy.update.policy.json()).unwrap();
        for other in 0..51 {
            let name = format!("cart-{other}");
            assert_eq!(sent.contains(&format!("\"{name}\"")), name == key.name);
        }
    }
    let mut carried = second.workloads.values().map(|one| &one.carried);
    let one = carried.next().unwrap();
    assert_eq!(one.len(), 21, "{one:?}");
    assert!(carried.all(|other| Arc::ptr_eq(one, other)));
    // Another generation of the same: the number is another, and nothing large.
    let last = in_cluster().publish(
        &replicas(51, 19),
        digest("c"),
        Timestamp::default(),
        Some(&second),
    );
    assert_eq!(last.changed_workloads(Some(&second)), 51);
    let had = second.pieces.count().0;
    drop((first, second));
    let later = in_cluster().publish(
        &replicas(51, 19),
        digest("d"),
        Timestamp::default(),
        Some(&last),
    );
    let now = later.pieces.count().0;
    assert!(
        now <= had,
        "{now} pieces, not {had}: what is gone is forgotten"
    );
}

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<u64>().unwrap() / 1_024
}

#[test]
#[ignore = "a measurement"]
fn memory_of_ten_thousand_policies() {
    let sources = replicas(10_000, 20);
    println!("sources: {} MiB", resident());
    let published = in_cluster().publish(&sources, (1, "a".to_owned()), Timestamp::default(), None);
    println!(
        "published: {} MiB, {:?}",
        resident(),
        kept_and_sent(&published)
    );
    let (workloads, parts) = (published.workloads, published.parts);
    drop((
        published.discovery,
        published.findings,
        published.object_statuses,
    ));
    std::thread::sleep(std::time::Duration::from_secs(1));
    println!("of that, workloads and parts: {} MiB", resident());
    drop(workloads);
    println!("of that, parts: {} MiB", resident());
    drop(parts);
    println!("after all: {} MiB", resident());
}
