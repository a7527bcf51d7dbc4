//! A candidate that comes with a policy, in every state that it may come in: the policy is in force whatever it is. And what
//! an update leaves out.

use super::controller::{pause_after, take as take_on};
use super::*;
use crate::audit::Records;
use crate::config::file::parse;
use crate::limits::{CONTROL_RETRY_MAX, CONTROL_RETRY_MIN};
use mesh_api::discovery::Discovery;
use mesh_api::proto::WorkloadUpdate;
use mesh_platform::System;
use mesh_policy::snapshot::{CedarText, Effect, Finding, Severity, Source};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, manifest};
use mesh_trust::TrustDomain;
use std::time::Duration;

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

/// As the first update of a stream.
fn take(shared: &Shared, update: &WorkloadUpdate) -> Result<(), String> {
    take_on(shared, update, &mut Generation::default())
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
    assert_eq!(
        known().0,
        1,
        "who asks may be unknown: no word of who is in the mesh"
    );
    let two = ONE.replace("]}]", "]},{\"namespace\":\"shop\",\"name\":\"web\",\"port\":1,\"protocol\":\"detect\",\"endpoints\":[]}]");
    broken.discovery_json = two.into();
    take(&shared, &broken).expect_err("a policy that cannot be read");
    assert_eq!(known().0, 2, "later updates build on it");
    let why = take(&shared, &with(7, "{", "")).expect_err("a discovery that cannot be read");
    assert!(why.starts_with("discovery: "), "{why}");
    assert_eq!((known().0, state(&shared).0), (2, 7), "the policy counts");
}

/// As a controller tells it to a workload that it does not know.
fn of_no_manifest(generation: u64) -> SnapshotData {
    let mut data = data("cart", generation);
    data.grants.clear();
    data.ports.clear();
    data.other_ports.grants.clear();
    data.other_ports.routes.clear();
    data.other_ports.probes.clear();
    data.findings.push(Finding {
        code: "MESH-0712".to_owned(),
        severity: Severity::Error,
        message: "in no manifest".to_owned(),
        hint: None,
        object: None,
        source: Source::BuiltIn("workload in no manifest".to_owned()),
    });
    data
}

#[test]
fn nothing_anywhere_is_no_word_from_a_controller_that_does_not_know_the_workload() {
    const ONE: &str = r#"{"services":[{"namespace":"shop","name":"db","port":1,"protocol":"detect","endpoints":[]}]}"#;
    let shared = shared();
    let known = || {
        let all = shared.discovery.load();
        (all.version, all.slices.services().count())
    };
    take(&shared, &update(&of_no_manifest(1), Vec::new())).expect("denied");
    assert_eq!(known(), (0, 0), "nobody is known to be outside");
    let mut unread = update(&of_no_manifest(1), Vec::new());
    unread.snapshot_json = b"{".to_vec();
    take(&shared, &unread).expect_err("a policy that cannot be read");
    assert_eq!(known(), (0, 0));
    let one = WorkloadUpdate {
        discovery_json: ONE.into(),
        ..update(&data("cart", 2), Vec::new())
    };
    take(&shared, &one).expect("a policy");
    assert_eq!(known(), (1, 1));
    take(&shared, &update(&of_no_manifest(3), Vec::new())).expect("denied");
    assert_eq!(known(), (1, 1), "what is in force stays");
    assert_eq!(state(&shared).0, 3, "the policy counts");
    // One that knows it has a word to say, though there is nothing in it.
    take(&shared, &update(&data("cart", 4), Vec::new())).expect("a policy");
    assert_eq!(known(), (2, 0));
}

#[test]
fn another_controller_may_count_from_elsewhere_but_none_goes_back() {
    let shared = shared();
    let with = |generation| update(&data("cart", generation), json(&tried(generation)));
    take(&shared, &with(9)).expect("a policy");
    let since = shared.policy.load_full().expect("a policy");
    let mut newest = Generation::default();
    take_on(&shared, &with(5), &mut newest).expect("the same policy");
    let now = shared.policy.load_full().expect("a policy");
    assert!(Arc::ptr_eq(&since, &now), "nothing is decided anew");
    // The next change of this controller is one, though its number is lower than that in force.
    take_on(&shared, &update(&data("cart", 6), Vec::new()), &mut newest).expect("a policy");
    assert_eq!(state(&shared), (6, false, false));
    for older in [with(5), update(&data("cart", 5), Vec::new())] {
        let why = take_on(&shared, &older, &mut newest).expect_err("older");
        assert!(why.contains("5 is older than 6"), "{why}");
    }
    assert_eq!(state(&shared), (6, false, false));

    take(&shared, &update(&of_no_manifest(9), Vec::new())).expect("denied");
    take(&shared, &with(5)).expect("the policy of a controller that knows the workload");
    assert_eq!(state(&shared), (5, true, false));
}

#[test]
fn only_a_connection_that_lasted_is_followed_by_another_at_once() {
    let (long, short) = (Duration::from_secs(3), Duration::from_secs(1));
    assert_eq!(pause_after(long, None), long);
    assert_eq!(pause_after(long, Some(short)), long);
    assert_eq!(pause_after(long, Some(CONTROL_RETRY_MAX)), long);
    let lasted = CONTROL_RETRY_MAX + short;
    assert_eq!(pause_after(long, Some(lasted)), CONTROL_RETRY_MIN);
}
