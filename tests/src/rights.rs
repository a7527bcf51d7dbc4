//! The controller may read what it watches, and the definitions store what it asks for.

use mesh_cluster::crds::{self, Which};
use mesh_cluster::install::{self, Values};
use mesh_kubernetes::kinds::{POLICY_SOURCES, WITH_STATUS};
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
    needed.extend(POLICY_SOURCES.iter().map(|kind| (kind.group, kind.plural)));
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
