//! The controller may read what it watches, and the definitions store what it asks for.

use mesh_cluster::crds::{self, Which};
use mesh_cluster::install::{self, Values};
use mesh_issuance::adoption::request::guard::{EXPRESSIONS, guarded_since};
use mesh_issuance::attestation::pod_certificate::SIGNER;
use mesh_kubernetes::kinds::{
    CERTIFICATE_REQUESTS, NODES, POD_CERTIFICATE_REQUEST, POLICY_SOURCES, WITH_STATUS,
};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn the_controller_may_watch_what_policy_is_made_of_and_nothing_else() {
    let objects = install::objects(&Values::default()).expect("objects");
    let role = objects
        .iter()
        .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "mesh-controller")
        .expect("the role");
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        let words = |field: &str| -> Vec<&str> {
            let list = rule[field].as_array().expect("a list");
            list.iter().filter_map(Value::as_str).collect()
        };
        if words("verbs") == ["list", "watch"] {
            for group in words("apiGroups") {
                granted.extend(words("resources").into_iter().map(|name| (group, name)));
            }
        }
    }
    // Whichever kinds there are, it must see appear.
    let mut needed = BTreeSet::from([("apiextensions.k8s.io", "customresourcedefinitions")]);
    let watched = POLICY_SOURCES.iter().chain(NODES);
    needed.extend(watched.map(|kind| (kind.group, kind.plural)));
    assert_eq!(granted, needed);
}

#[test]
fn the_controller_may_write_the_status_of_policy_and_routes_and_of_nothing_else() {
    let objects = install::objects(&Values::default()).expect("objects");
    let mut granted = BTreeSet::new();
    for role in objects
        .iter()
        .filter(|o| o["metadata"]["name"] == "mesh-controller")
    {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let words = |field: &str| -> Vec<&str> {
                let list = rule[field].as_array().expect("a list");
                list.iter().filter_map(Value::as_str).collect()
            };
            if words("resources").iter().any(|name| name.contains('/')) {
                assert_eq!(words("verbs"), ["patch"]);
                for group in words("apiGroups") {
                    granted.extend(words("resources").into_iter().map(|name| (group, name)));
                }
            }
        }
    }
    let names: Vec<String> = WITH_STATUS
        .iter()
        .map(|kind| format!("{}/status", kind.plural))
        .collect();
    let needed: BTreeSet<(&str, &str)> = WITH_STATUS
        .iter()
        .zip(&names)
        .map(|(kind, name)| (kind.group, name.as_str()))
        .collect();
    assert_eq!(granted, needed);
}

#[test]
fn kinds_are_stored_in_the_version_that_is_asked_for_first() {
    let crds = crds::all(Which::All);
    let mut compared = 0;
    for kind in POLICY_SOURCES {
        let Some(crd) = crds
            .iter()
            .find(|crd| crd["metadata"]["name"] == kind.resource())
        else {
            continue;
        };
        compared += 1;
        let versions = crd["spec"]["versions"].as_array().expect("versions");
        let names: Vec<&str> = versions
            .iter()
            .filter_map(|v| v["name"].as_str())
            .rev()
            .collect();
        assert_eq!(names, kind.versions, "{}", kind.resource());
        assert_eq!(crd["spec"]["names"]["kind"], kind.kind);
    }
    assert!(compared >= 12, "{compared}");
}

/// The installation with cert-manager's requests answered.
fn with_issuer() -> Vec<Value> {
    let values = Values::default().set("identity.externalIssuer=true");
    install::objects(&values.expect("allowed")).expect("objects")
}

#[test]
fn the_policy_that_is_installed_is_the_one_that_the_ca_demands() {
    let installed = |kind: &str| {
        let objects = with_issuer();
        let mut found = objects.into_iter().find(|o| o["kind"] == kind).expect(kind);
        found["metadata"]["creationTimestamp"] = "2026-11-30T10:00:00Z".into();
        found
    };
    let policy = installed("ValidatingAdmissionPolicy");
    let binding = installed("ValidatingAdmissionPolicyBinding");
    guarded_since(Some(&policy), Some(&binding)).expect("guarded");
    let validations = policy["spec"]["validations"].as_array().expect("a list");
    assert_eq!(validations.len(), EXPRESSIONS.len());
    let without = install::objects(&Values::default()).expect("objects");
    assert!(without.iter().all(|o| o["kind"] != policy["kind"]));
}

#[test]
fn the_ca_may_answer_requests_and_approve_none() {
    let rights = |objects: &[Value]| -> BTreeSet<(String, String, String)> {
        let role = objects
            .iter()
            .find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "mesh-identity")
            .expect("the role");
        let words = |rule: &Value, field: &str| -> Vec<String> {
            let list = rule[field].as_array().cloned().unwrap_or_default();
            list.iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect()
        };
        let mut all = BTreeSet::new();
        for rule in role["rules"].as_array().expect("rules") {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    for verb in words(rule, "verbs") {
                        all.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
        all
    };
    let plain = rights(&install::objects(&Values::default()).expect("objects"));
    let more: BTreeSet<_> = rights(&with_issuer()).difference(&plain).cloned().collect();
    let mut wanted = BTreeSet::new();
    let mut want = |group: &str, resource: &str, verbs: &[&str]| {
        for verb in verbs {
            wanted.insert((group.to_owned(), resource.to_owned(), (*verb).to_owned()));
        }
    };
    want(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        &["list", "watch"],
    );
    want("", "serviceaccounts", &["get"]);
    for kind in [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ] {
        want("admissionregistration.k8s.io", kind, &["get"]);
    }
    for kind in CERTIFICATE_REQUESTS {
        want(kind.group, kind.plural, &["list", "watch"]);
        want(kind.group, &format!("{}/status", kind.plural), &["patch"]);
    }
    assert_eq!(more, wanted);
    let has = |resource: &str, verb: &str| {
        let group = POD_CERTIFICATE_REQUEST.group.to_owned();
        plain.contains(&(group, resource.to_owned(), verb.to_owned()))
    };
    assert!(
        has("podcertificaterequests", "watch") && has("podcertificaterequests/status", "patch")
    );
    assert!(has("signers", "sign") && has("signers", "attest") && !has("signers", "approve"));
    let fields = POD_CERTIFICATE_REQUEST.fields.expect("a selector");
    assert_eq!(fields, format!("spec.signerName={SIGNER}"));
}
