//! What ten thousand pods, ten thousand policies and a thousand proxies cost one controller: a measurement. The controller is
//! a process of its own; the proxies are clients that drop what they are told.

use super::world::{World, config};
use mesh_policy_index::IndexConfig;
use mesh_policy_index::index::Proxied;
use mesh_trust::TrustDomain;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const NAMESPACES: usize = 50;
const PODS: usize = 200;
const SERVICES: usize = 10;
/// Of each Service.
const POLICIES: usize = 20;
/// Of each namespace.
const PROXIES: usize = 20;

/// What a proxy heard: of which namespace it is, and whether it was policy, or discovery that is whole with it.
type Heard = (usize, News, Instant);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Policy,
    Discovery,
}

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

/// A Server for the pods of each Service, and those who may call it; the first of them is `client`.
fn policy(namespace: usize, client: &str) -> String {
    let mut out = String::new();
    for service in 0..SERVICES {
        let _ = writeln!(
            out,
            "---\n{{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {{name: app-{service}, namespace: team-{namespace}}}, spec: {{podSelector: {{matchLabels: {{app: app-{service}}}}}, port: http, proxyProtocol: HTTP/1}}}}"
        );
        for number in 0..POLICIES {
            let client = match number {
                0 => client.to_owned(),
                _ => format!("client-{number}"),
            };
            let _ = writeln!(
                out,
                "---\n{{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: app-{service}-{number}, namespace: team-{namespace}}}, spec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: app-{service}}}, requiredAuthenticationRefs: [{{kind: ServiceAccount, name: {client}}}]}}}}"
            );
        }
    }
    out
}

/// Resident memory of a process, now and at its most, in MiB.
fn memory(of: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap();
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

/// One proxy: follows policy and discovery, and keeps neither.
async fn follow(
    world: &World,
    namespace: usize,
    number: usize,
    tell: &mpsc::UnboundedSender<Heard>,
) {
    let id = format!("spiffe://cluster.local/ns/team-{namespace}/sa/app");
    let of = format!("team-{namespace}");
    let name = format!("app-{number}-7d9c5b6f4-x2x4z");
    let place = (of.as_str(), name.as_str());
    let (mut policy, client) = world.watch_apart(&id, place).await.unwrap();
    let mut places = World::places_of(client, place).await.unwrap();
    let told = tell.clone();
    tokio::spawn(async move {
        while policy.message().await.is_some() {
            _ = told.send((namespace, News::Policy, Instant::now()));
        }
    });
    let told = tell.clone();
    tokio::spawn(async move {
        while let Ok(Some(message)) = places.message().await {
            if !message.digest.is_empty() {
                _ = told.send((namespace, News::Discovery, Instant::now()));
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the measurement: its controller"]
async fn the_controller_of_the_measurement() {
    let Ok(listen) = std::fs::read_to_string("listen") else {
        return;
    };
    let index = IndexConfig {
        proxied: Proxied::WithContainer,
        ..IndexConfig::new(TrustDomain::parse("cluster.local").unwrap())
    };
    let here = Path::new(".").canonicalize().unwrap();
    let config = config(&here, listen.parse().unwrap(), index);
    let system = mesh_platform::System::new();
    crate::run(config, system, std::future::pending())
        .await
        .unwrap();
}

/// Ended with the measurement, however that ends.
struct Apart(std::process::Child);

impl Drop for Apart {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
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
    let begun = Instant::now();
    let controller = world.start_apart("tests::scale::the_controller_of_the_measurement");
    let controller = Apart(controller);
    let its_memory = || memory(controller.0.id());
    while !world.is_ready().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("ready after {:?}: {}", begun.elapsed(), its_memory());

    let (tell, mut heard) = mpsc::unbounded_channel::<Heard>();
    let begun = Instant::now();
    for namespace in 0..NAMESPACES {
        for number in 0..PROXIES {
            follow(&world, namespace, number, &tell).await;
        }
    }
    println!("connected after {:?}: {}", begun.elapsed(), its_memory());
    let all_of_them = NAMESPACES * PROXIES;
    all(&mut heard, 2 * all_of_them, begun, |_| true).await;
    println!(
        "{all_of_them} proxies have all after {:?}: {}; the proxies: {}",
        begun.elapsed(),
        its_memory(),
        memory(std::process::id())
    );

    let mut last = Vec::new();
    for round in 0..10 {
        let client = if round % 2 == 0 { "mobile" } else { "web" };
        let begun = Instant::now();
        world.put("policy-7.yaml", &policy(7, client));
        let of_it = |word: &Heard| (word.0, word.1) == (7, News::Policy);
        let took = all(&mut heard, PROXIES, begun, of_it).await;
        last.extend(took.last().copied());
    }
    last.sort();
    println!(
        "a policy of one namespace is at its {PROXIES} proxies after {:?}, of ten at most {:?}: {}",
        last[5],
        last[9],
        its_memory()
    );
    let mut last = Vec::new();
    for round in 0..10 {
        let begun = Instant::now();
        world.put("one-more.yaml", &pod(7, PODS + round));
        let took = all(&mut heard, all_of_them, begun, |word| {
            word.1 == News::Discovery
        })
        .await;
        last.extend(took.last().copied());
    }
    last.sort();
    println!(
        "another pod is known to all after {:?}, of ten at most {:?}: {}",
        last[5],
        last[9],
        its_memory()
    );

    // As many again, all at once, that read nothing of discovery.
    let mut silent = Vec::new();
    for namespace in 0..NAMESPACES {
        let id = format!("spiffe://cluster.local/ns/team-{namespace}/sa/app");
        for number in 0..PROXIES {
            let of = format!("team-{namespace}");
            let name = format!("app-{number}-7d9c5b6f4-x2x4z");
            let client = world.connect_to(world.listen(), &id).await.unwrap();
            silent.push(World::places_of(client, (&of, &name)).await.unwrap());
        }
    }
    for round in 0..10 {
        let begun = Instant::now();
        world.put("one-more.yaml", &pod(7, PODS + round));
        all(&mut heard, all_of_them, begun, |word| {
            word.1 == News::Discovery
        })
        .await;
    }
    println!("with {} that do not read: {}", silent.len(), its_memory());
}
