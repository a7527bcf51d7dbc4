//! The arrows between our crates, read from cargo's own graph: pure crates never depend on edges or on the outside.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Every arrow that may exist between crates of ours (ARCHITECTURE.md, "Code map").
const ALLOWED: &[(&str, &[&str])] = &[
    ("mesh-trust", &[]),
    ("mesh-policy", &["mesh-trust"]),
    ("mesh-policy-index", &["mesh-trust", "mesh-policy"]),
    (
        "mesh-policy-analysis",
        &["mesh-trust", "mesh-policy", "mesh-policy-index"],
    ),
    (
        "mesh-policy-symbolic",
        &[
            "mesh-trust",
            "mesh-policy",
            "mesh-policy-index",
            "mesh-policy-analysis",
        ],
    ),
    (
        "mesh-policy-trials",
        &["mesh-trust", "mesh-policy", "mesh-policy-index"],
    ),
    ("mesh-issuance", &["mesh-trust"]),
    ("mesh-proxy-core", &["mesh-trust", "mesh-policy"]),
    ("mesh-tlog", &[]),
    ("mesh-audits", &["mesh-trust", "mesh-policy", "mesh-tlog"]),
    (
        "mesh-compliance",
        &[
            "mesh-trust",
            "mesh-policy",
            "mesh-policy-index",
            "mesh-policy-analysis",
        ],
    ),
    (
        "mesh-platform",
        &["mesh-trust", "mesh-policy", "mesh-audits", "mesh-tlog"],
    ),
    ("mesh-api", &["mesh-trust", "mesh-policy"]),
    ("mesh-pages", &[]),
    ("mesh-kubernetes", &[]),
    (
        "mesh-ca-client",
        &["mesh-trust", "mesh-issuance", "mesh-api", "mesh-platform"],
    ),
    (
        "mesh-cluster",
        &["mesh-trust", "mesh-policy", "mesh-policy-index"],
    ),
    (
        "mesh-injector",
        &[
            "mesh-policy",
            "mesh-cluster",
            "mesh-kubernetes",
            "mesh-platform",
        ],
    ),
    (
        "mesh-cni",
        &[
            "mesh-cluster",
            "mesh-kubernetes",
            "mesh-platform",
            // The rules, and how the kernel is told of them, are the proxy's own `capture`.
            "mesh-proxy",
            "mesh-proxy-core",
        ],
    ),
    (
        "mesh-controller",
        &[
            "mesh-trust",
            "mesh-policy",
            "mesh-policy-index",
            "mesh-policy-analysis",
            "mesh-audits",
            "mesh-tlog",
            "mesh-api",
            "mesh-platform",
            "mesh-ca-client",
            "mesh-kubernetes",
        ],
    ),
    (
        "mesh-ca",
        &[
            "mesh-trust",
            "mesh-issuance",
            "mesh-audits",
            "mesh-tlog",
            "mesh-api",
            "mesh-platform",
            "mesh-kubernetes",
            // The agent of a machine that joined asks a CA as others do.
            "mesh-ca-client",
        ],
    ),
    (
        "mesh-proxy",
        &[
            "mesh-trust",
            "mesh-policy",
            "mesh-policy-index",
            "mesh-proxy-core",
            "mesh-audits",
            "mesh-tlog",
            "mesh-api",
            "mesh-pages",
            "mesh-platform",
            "mesh-ca-client",
        ],
    ),
];

/// Who may use everything: the command, and these tests.
const TOPS: &[&str] = &["mesh-cli", "mesh-tests", "mesh-fuzz"];

/// Crates that decide and never act.
const PURE: &[&str] = &[
    "mesh-trust",
    "mesh-policy",
    "mesh-policy-index",
    "mesh-policy-analysis",
    "mesh-policy-trials",
    "mesh-issuance",
    "mesh-proxy-core",
    "mesh-audits",
    "mesh-tlog",
    "mesh-cluster",
    "mesh-compliance",
];

/// What no pure crate may name: runtimes, sockets, watchers.
const OUTSIDE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "tonic",
    "rustix",
    "socket2",
    "notify",
    "spiffe",
    "tokio-rustls",
    "kube",
];

fn direct_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|d| d.kind == DependencyKind::Normal);
            (
                package.name.to_string(),
                normal.map(|d| d.name.clone()).collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (package, dependencies) in direct_dependencies() {
        if TOPS.contains(&package.as_str()) {
            continue;
        }
        let may = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} is not in the table of arrows"));
        for dependency in dependencies.iter().filter(|d| d.starts_with("mesh-")) {
            assert!(
                may.contains(&dependency.as_str()),
                "{package} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn pure_crates_name_nothing_of_the_outside() {
    let graph = direct_dependencies();
    for package in PURE {
        for dependency in graph.get(*package).expect("a pure crate of the workspace") {
            assert!(
                !OUTSIDE.contains(&dependency.as_str()),
                "{package} is pure and must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_crate_of_the_workspace_is_in_the_table() {
    let named: BTreeSet<_> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .chain(TOPS.iter().copied())
        .collect();
    let existing: BTreeSet<_> = direct_dependencies().into_keys().collect();
    assert_eq!(named, existing.iter().map(String::as_str).collect());
}

#[test]
fn one_crate_and_no_other_may_hold_unsafe_code() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let read =
        |path: std::path::PathBuf| std::fs::read_to_string(path).expect("a file of the tree");
    let workspace = read(root.join("Cargo.toml"));
    assert!(workspace.contains("\nunsafe_code = \"forbid\"\n"));
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    for package in metadata.packages {
        let manifest = read(package.manifest_path.clone().into());
        let forbids = manifest.contains("\n[lints]\nworkspace = true\n");
        // libFuzzer's macro exports a symbol; nothing of that crate is shipped.
        let exempt = ["mesh-pages", "mesh-fuzz"].contains(&package.name.as_str());
        assert_eq!(forbids, !exempt, "{}", package.name);
    }
    assert!(!read(root.join("fuzz/src/lib.rs")).contains("unsafe"));
    let source = read(root.join("mesh/pages/src/lib.rs"));
    assert_eq!(source.matches("unsafe {").count(), 1);
}
