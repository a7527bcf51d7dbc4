//! The guide and the examples say nothing that lint would object to.

use crate::raw_cedar::object;
use crate::world::{MESHED, SERVER, SHOP, World, config};
use mesh_policy::snapshot::Severity;
use mesh_policy_index::{Index, WorkloadKey, load};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

#[test]
fn every_policy_of_the_guide_is_sound() {
    let network = "apiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {name: cluster, namespace: shop}\nspec: {networks: [{cidr: 10.0.0.0/8}]}\n";
    let guide = std::fs::read_to_string(root().join("docs/guides/raw-cedar.md")).unwrap();
    let (cedar, yaml) = (blocks(&guide, "cedar"), blocks(&guide, "yaml"));
    assert!(cedar.len() >= 4 && yaml.len() >= 4, "the guide was cut");
    let wrap = |text: &String| object("CedarPolicy", "name: g, namespace: shop", "", text);
    for block in cedar.iter().map(wrap).chain(yaml) {
        let world = World::of(&[SHOP, SERVER, MESHED, network, &block]);
        let wrong: Vec<_> = world
            .index
            .findings()
            .iter()
            .filter(|f| f.severity != Severity::Info)
            .collect();
        assert!(wrong.is_empty(), "{block}\n{wrong:?}");
        let texts = world.snapshot("shop", "cart").cedar_policies;
        assert!(texts.iter().all(|t| t.invalid.is_none()), "{block}");
        let invariants = world.index.invariants();
        assert!(invariants.iter().all(|i| i.claim.is_ok()), "{invariants:?}");
        assert!(!texts.is_empty() || !invariants.is_empty(), "{block}");
    }
}

fn files(folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            out.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn the_guard_rails_of_the_shop_lint_clean() {
    let (mut shop, mut all) = (Vec::new(), Vec::new());
    files(&root().join("examples/shop"), &mut shop);
    files(&root().join("examples/shop"), &mut all);
    files(&root().join("examples/guardrails"), &mut all);
    let build = |files| Index::build(&load(files), &config());
    let (before, after) = (build(shop), build(all));
    assert_eq!(
        after.findings(),
        before.findings(),
        "guard rails add no finding"
    );
    let worst = after.findings().iter().map(|f| f.severity).min();
    assert!(
        worst.is_none_or(|worst| worst == Severity::Info),
        "{:?}",
        after.findings()
    );
    let key = WorkloadKey {
        namespace: "shop".into(),
        name: "ledger".into(),
    };
    let texts = after
        .snapshot(&key, Default::default())
        .unwrap()
        .cedar_policies;
    let ids: Vec<&str> = texts.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "CedarPolicy/shop/ledger-freeze/frozen",
            "CedarPolicy/shop/payments/desk-hours",
            "CedarPolicy/shop/payments/exports-need-a-ticket",
            "ClusterCedarPolicy//mesh-wide/fresh-certificates",
            "ClusterCedarPolicy//mesh-wide/no-plaintext",
            "ClusterCedarPolicy//mesh-wide/own-domain",
        ]
    );
    assert!(texts.iter().all(|t| t.invalid.is_none()));
    assert_eq!(after.invariants().len(), 2);
    assert!(after.invariants().iter().all(|i| i.claim.is_ok()));
    let ends: Vec<String> = after.terms().into_iter().map(|t| t.id).collect();
    assert_eq!(ends, ["CedarPolicy/shop/ledger-freeze/frozen"]);
}
