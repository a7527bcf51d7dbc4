//! A candidate that comes with a policy, in every state that it may come in: the policy is in force whatever it is. And what
//! an update leaves out.

use super::controller::take;
use super::*;
use crate::audit::Records;
use crate::config::file::parse;
use mesh_api::discovery::Discovery;
use mesh_api::proto::WorkloadUpdate;
use mesh_platform::System;
use mesh_policy::snapshot::{CedarText, Effect, Source};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, manifest};
use mesh_trust::TrustDomain;

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: { name: cart, namespace: shop, labels: { app: cart } }
spec: { serviceAccountName: cart, containers: [{ name: app, ports: [{ containerPort: 8080 }] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop }
spec: { serviceAccountName: web, containers: [{ name: app }] }
";

pub(super) fn shared() -> Shared {
    let config = parse(include_str!("../../sample.yaml"), "proxy.yaml").expect("valid");
    assert_eq!(config.workload_name(), "shop/cart");
    Shared::new(config, System::new(), Records::default())
}

fn data(name: &str, generation: u64) -> SnapshotData {
    let loaded = manifest::load([("a.yaml".to_owned(), MANIFESTS)]);
    let config = IndexConfig::new(TrustDomain::parse("cluster.local").expect("a domain"));
    let key = WorkloadKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    let index = Index::build(&loaded, &config);
    let generation = Generation(generation);
    index.snapshot(&key, generation).expect("a policy")
}

/// A policy that no proxy takes: a port refers to a grant that there is not.
fn unusable(generation: u64) -> SnapshotData {
    let mut data = data("cart", generation);
    data.other_ports.grants.push(99);
    data
}

/// A policy that is told from the others.
fn tried(generation: u64) -> SnapshotData {
    let mut data = data("cart", generation);
    data.cedar_policies.push(CedarText {
        id: "CedarPolicy/shop/x/0".to_owned(),
        effect: Effect::Forbid,
        text: "forbid(principal, action, resource);".to_owned(),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: Default::default(),
        source: Source::BuiltIn("test".to_owned()),
    });
    data
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

fn update(policy: &SnapshotData, candidate_json: Vec<u8>) -> WorkloadUpdate {
    WorkloadUpdate {
        generation: policy.generation.0,
        snapshot_json: json(policy),
        discovery_json: json(&Discovery::default()).into(),
        candidate_json,
        zone: String::new(),
    }
}

/// Generation of the policy in force, whether a candidate is beside it, and how many were refused.
fn state(shared: &Shared) -> (u64, bool, bool) {
    let policy = shared.policy.load_full().expect("a policy");
    let text = mesh_proxy_core::exposition::render(&shared.telemetry.merged());
    (
        policy.generation().0,
        policy.candidate.is_some(),
        text.contains("mesh_shadow_refused_total 1"),
    )
}

#[test]
fn a_candidate_comes_changes_and_goes_with_the_policy_as_it_is() {
    let shared = shared();
    let none = |generation| update(&data("cart", generation), Vec::new());
    let with = |generation| update(&data("cart", generation), json(&tried(generation)));
    let steps = [
        (none(1), (1, false, false)),
        (with(2), (2, true, false)),
        (with(3), (3, true, false)),
        (none(4), (4, false, false)),
    ];
    for (update, want) in steps {
        take(&shared, &update).expect("a policy that can be used");
        assert_eq!(state(&shared), want);
    }
    // The same policy with another candidate is a change too.
    take(&shared, &with(4)).expect("a policy that can be used");
    assert_eq!(state(&shared), (4, true, false));
}

#[test]
fn a_candidate_that_cannot_be_used_is_left_out_and_the_policy_is_in_force() {
    for (what, candidate) in [
        ("no JSON", b"{".to_vec()),
        ("no policy", b"{}".to_vec()),
        ("past what compiles", json(&unusable(2))),
        ("of another workload", json(&data("web", 2))),
    ] {
        let shared = shared();
        take(&shared, &update(&data("cart", 1), json(&tried(1)))).expect("a policy");
        assert_eq!(state(&shared), (1, true, false), "{what}");
        take(&shared, &update(&data("cart", 2), candidate)).expect("a policy");
        assert_eq!(state(&shared), (2, false, true), "{what}");
    }
}

#[test]
fn a_candidate_is_never_in_force_though_the_policy_cannot_be_used() {
    let shared = shared();
    take(&shared, &update(&unusable(1), json(&tried(1)))).expect("closed");
    let policy = shared.policy.load_full().expect("a policy");
    assert!(policy.candidate.is_none());
    assert!(policy.data().other_ports.grants.is_empty(), "all is denied");
}

#[test]
fn discovery_that_is_left_out_stays_whatever_became_of_the_policy_beside_it() {
    const ONE: &str = r#"{"services":[{"namespace":"shop","name":"db","port":1,"protocol":"detect","endpoints":[]}]}"#;
    let shared = shared();
    let with = |generation, discovery: &str, zone: &str| WorkloadUpdate {
        discovery_json: discovery.to_owned().into(),
        zone: zone.to_owned(),
        ..update(&data("cart", generation), Vec::new())
    };
    let known = || {
        let all = shared.discovery.load();
        let zone = all.zone.clone().unwrap_or_default();
        (all.slices.services().count(), zone, all.version)
    };
    for (update, want) in [
        (with(1, ONE, ""), (1, "", 1)),
        (with(2, "", ""), (1, "", 1)),
        (with(3, "", "east"), (1, "east", 2)),
        (with(4, "", "east"), (1, "east", 2)),
        (with(5, "", ""), (1, "", 3)),
    ] {
        take(&shared, &update).expect("an update that can be used");
        let (services, zone, version) = known();
        let generation = update.generation;
        assert_eq!((services, zone.as_str(), version), want, "{generation}");
    }
    let mut broken = with(6, r#"{"services":[]}"#, "");
    broken.snapshot_json = b"{".to_vec();
    let why = take(&shared, &broken).expect_err("a policy that cannot be read");
    assert!(why.starts_with("policy: "), "{why}");
    assert_eq!(known().0, 0, "later updates build on it");
    let why = take(&shared, &with(7, "{", "")).expect_err("a discovery that cannot be read");
    assert!(why.starts_with("discovery: "), "{why}");
    assert_eq!((known().0, state(&shared).0), (0, 7), "the policy counts");
}
