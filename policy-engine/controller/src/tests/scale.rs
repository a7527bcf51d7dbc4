//! What ten thousand pods and a thousand proxies cost one controller: a measurement. Controller and proxies are one process,
//! so what it says of memory is the most that the controller can have.

use super::world::World;
use mesh_policy_index::IndexConfig;
use mesh_policy_index::index::Proxied;
use mesh_trust::TrustDomain;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const NAMESPACES: usize = 50;
const PODS: usize = 200;
const SERVICES: usize = 10;
const PROXIES: usize = 20;

/// What a proxy heard: of which namespace it is, and whether discovery was in it.
type Heard = (usize, bool, Instant);

fn pod(namespace: usize, number: usize) -> String {
    let service = number % SERVICES;
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: app-{number}-7d9c5b6f4-x2x4z, namespace: team-{namespace}, labels: {{app: app-{service}}}}}, spec: {{serviceAccountName: app, nodeName: n1, initContainers: [{{name: mesh-proxy}}], containers: [{{name: app, ports: [{{containerPort: 8080, name: http}}]}}]}}, status: {{podIP: 10.{namespace}.{}.{}, hostIP: 192.0.2.1, conditions: [{{type: Ready, status: 'True'}}]}}}}\n",
        number / 250,
        number % 250 + 1
    )
}

fn team(namespace: usize) -> String {
    let mut out = String::new();
    for service in 0..SERVICES {
        let _ = writeln!(
            out,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: app-{service}, namespace: team-{namespace}}}, spec: {{clusterIP: 10.96.{namespace}.{}, selector: {{app: app-{service}}}, ports: [{{port: 80, targetPort: http}}]}}}}",
            service + 1
        );
    }
    (0..PODS).for_each(|number| out.push_str(&pod(namespace, number)));
    out
}

fn policy(namespace: usize, client: &str) -> String {
    format!(
        "{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: app, namespace: team-{namespace}}}, spec: {{podSelector: {{}}, port: http, proxyProtocol: HTTP/1}}}}\n---\n{{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: app, namespace: team-{namespace}}}, spec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: app}}, requiredAuthenticationRefs: [{{kind: ServiceAccount, name: {client}}}]}}}}\n"
    )
}

/// Resident memory of this process, now and at its most, in MiB.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1_024
    };
    format!("{} MiB, {} at most", of("VmRSS:"), of("VmHWM:"))
}

/// Waits for `count` words that `counts`; how long the last one took since `begun`, and those in between.
async fn all(
    heard: &mut mpsc::UnboundedReceiver<Heard>,
    count: usize,
    begun: Instant,
    counts: impl Fn(&Heard) -> bool,
) -> Vec<Duration> {
    let mut took = Vec::new();
    while took.len() < count {
        let word = tokio::time::timeout(Duration::from_secs(120), heard.recv()).await;
        let word = word.expect("nothing for two minutes").unwrap();
        if counts(&word) {
            took.push(word.2.duration_since(begun));
        }
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn ten_thousand_pods_and_a_thousand_proxies() {
    let world = World::new();
    for namespace in 0..NAMESPACES {
        world.put(&format!("team-{namespace}.yaml"), &team(namespace));
        let name = format!("policy-{namespace}.yaml");
        world.put(&name, &policy(namespace, "web"));
    }
    let index = IndexConfig {
        proxied: Proxied::WithContainer,
        ..IndexConfig::new(TrustDomain::parse("cluster.local").unwrap())
    };
    println!("before: {}", memory());
    let begun = Instant::now();
    let controller = world.start_with(index).await;
    world.until_status(|status| status.ready).await;
    println!("ready after {:?}: {}", begun.elapsed(), memory());

    let (tell, mut heard) = mpsc::unbounded_channel::<Heard>();
    let begun = Instant::now();
    for namespace in 0..NAMESPACES {
        let id = format!("spiffe://cluster.local/ns/team-{namespace}/sa/app");
        for number in 0..PROXIES {
            let of = format!("team-{namespace}");
            let name = format!("app-{number}-7d9c5b6f4-x2x4z");
            let place = (of.as_str(), name.as_str());
            let mut watching = world.watch_keeping(&id, place, true).await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                while let Some(update) = watching.message().await {
                    let whole = !update.discovery_json.is_empty();
                    _ = tell.send((namespace, whole, Instant::now()));
                }
            });
        }
    }
    let all_of_them = NAMESPACES * PROXIES;
    all(&mut heard, all_of_them, begun, |_| true).await;
    println!(
        "{all_of_them} proxies have all after {:?}: {}",
        begun.elapsed(),
        memory()
    );

    let mut last = Vec::new();
    for round in 0..10 {
        let client = if round % 2 == 0 { "mobile" } else { "web" };
        let begun = Instant::now();
        world.put("policy-7.yaml", &policy(7, client));
        let took = all(&mut heard, PROXIES, begun, |word| word.0 == 7 && !word.1).await;
        last.extend(took.last().copied());
    }
    last.sort();
    println!(
        "a policy of one namespace is at its {PROXIES} proxies after {:?}, of ten at most {:?}: {}",
        last[5],
        last[9],
        memory()
    );
    let begun = Instant::now();
    world.put("one-more.yaml", &pod(7, PODS));
    let took = all(&mut heard, all_of_them, begun, |word| word.1).await;
    println!(
        "a pod more is known to half of them after {:?}, to all after {:?}: {}",
        took[all_of_them / 2],
        took[all_of_them - 1],
        memory()
    );
    controller.stop().await;
}
