//! What a large mesh costs the controller: 10,000 AuthorizationPolicies on 1,000 workloads in 100 namespaces, from YAML to
//! the policy of every workload, and one policy changed.
//!
//! `cargo bench -p mesh-policy-index` prints a Markdown table: median of some runs, and the memory that stays.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark measures the real clock, prints what it finds, and may stop"
)]

use mesh_policy::decide::Generation;
use mesh_policy_index::manifest::{Affected, Part, join, read_part};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, load};
use mesh_trust::TrustDomain;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

const NAMESPACES: usize = 100;
const WORKLOADS: usize = 10;
const POLICIES: usize = 10;

/// The namespace whose policies change.
const CHANGED: usize = 17;

fn main() {
    let Ok(domain) = TrustDomain::parse("cluster.local") else {
        return;
    };
    let config = IndexConfig::new(domain);
    let files: Vec<(String, Vec<u8>)> = (0..NAMESPACES)
        .map(|n| (format!("{n}.yaml"), namespace(n, "").into_bytes()))
        .collect();
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    println!(
        "{} policies, {} workloads, {} KiB of YAML\n\n| step | median |\n|---|---:|",
        NAMESPACES * WORKLOADS * POLICIES,
        NAMESPACES * WORKLOADS,
        bytes / 1024
    );
    let before = resident();
    row("YAML read", 5, || load(files.clone()));
    let loaded = load(files.clone());
    row("index built", 5, || Index::build(&loaded, &config));
    let index = Index::build(&loaded, &config);
    let keys: Vec<WorkloadKey> = index.workloads().map(|(key, _)| key.clone()).collect();
    row("policy of each workload", 5, || {
        let all = keys.iter().map(|key| index.snapshot(key, Generation(1)));
        all.collect::<Vec<_>>()
    });
    let snapshots: Vec<_> = keys
        .iter()
        .filter_map(|key| index.snapshot(key, Generation(1)))
        .collect();
    row("as JSON", 5, || {
        let texts = snapshots.iter().map(serde_json::to_vec);
        texts.collect::<Vec<_>>()
    });
    let mut parts: Vec<Part> = files.iter().map(|(n, bytes)| read_part(n, bytes)).collect();
    let changed = (format!("{CHANGED}.yaml"), namespace(CHANGED, "-x"));
    row("one policy changed, to what its workloads get", 15, || {
        let new = read_part(&changed.0, changed.1.as_bytes());
        let old = std::mem::replace(&mut parts[CHANGED], new);
        let affected = Affected::by([&old, &parts[CHANGED]], &parts);
        let index = Index::build(&join(&parts), &config);
        let keys = index.workloads().map(|(key, _)| key);
        let mine = keys.filter(|key| affected.includes(&key.namespace));
        let all = mine.map(|key| serde_json::to_vec(&index.snapshot(key, Generation(2))));
        let all = all.collect::<Vec<_>>();
        assert_eq!(all.len(), WORKLOADS);
        parts[CHANGED] = old;
        all
    });
    println!(
        "\nresident memory grew by {} MiB with all of it held at once",
        (resident().saturating_sub(before)) / 1024
    );
}

fn row<T>(name: &str, runs: usize, mut run: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            let made = black_box(run());
            let took = start.elapsed();
            drop(made);
            took
        })
        .collect();
    times.sort();
    let median = times.get(runs / 2).copied().unwrap_or_default();
    println!("| {name} | {:.1} ms |", median.as_secs_f64() * 1e3);
}

/// One namespace: pods with a Server each, and policies on each Server, for the identities of a list and a network.
fn namespace(number: usize, change: &str) -> String {
    let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{number}}}\n");
    for pod in 0..WORKLOADS {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: w{pod}, namespace: ns{number}, labels: {{app: w{pod}}}}}\nspec:\n  serviceAccountName: w{pod}\n  containers: [{{name: app, ports: [{{name: http, containerPort: 8080}}]}}]\n---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: w{pod}, namespace: ns{number}}}\nspec: {{podSelector: {{matchLabels: {{app: w{pod}}}}}, port: http, proxyProtocol: HTTP/1}}\n"
        );
        for policy in 0..POLICIES {
            let _ = write!(
                text,
                "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: w{pod}-{policy}{change}, namespace: ns{number}}}\nspec:\n  targetRef: {{group: policy.linkerd.io, kind: Server, name: w{pod}}}\n  requiredAuthenticationRefs: [{{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: a{policy}}}]\n"
            );
        }
    }
    for policy in 0..POLICIES {
        let _ = write!(
            text,
            "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: MeshTLSAuthentication\nmetadata: {{name: a{policy}, namespace: ns{number}}}\nspec: {{identities: ['w{policy}.ns{number}.serviceaccount.identity.linkerd.cluster.local', '*.ns{policy}.serviceaccount.identity.linkerd.cluster.local']}}\n"
        );
    }
    text
}

/// Resident memory of this process, KiB; 0 where the system does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
