//! The definitions beside what the book says is read.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// `group/Kind` to its versions.
fn defined() -> BTreeMap<String, BTreeSet<String>> {
    all(Which::All)
        .iter()
        .map(|crd| {
            let key = format!(
                "{}/{}",
                crd["spec"]["group"].as_str().unwrap(),
                crd["spec"]["names"]["kind"].as_str().unwrap()
            );
            let versions = crd["spec"]["versions"].as_array().unwrap();
            (
                key,
                versions
                    .iter()
                    .map(|v| v["name"].as_str().unwrap().to_owned())
                    .collect(),
            )
        })
        .collect()
}

/// The table of docs/reference/resources.md, which says what the index reads.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let book = include_str!("../../../../docs/reference/resources.md");
    let mut out = BTreeMap::<String, BTreeSet<String>>::new();
    for line in book.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, group, kinds, versions, _] = cells[..] else {
            continue;
        };
        let known = ["policy.linkerd.io", "mesh.internal"].contains(&group);
        let version =
            |text: &str| text.starts_with('v') && text.contains("alpha") || text.contains("beta");
        if !known || !version(versions) {
            continue;
        }
        let kinds = kinds.split(": [").next().unwrap_or_default();
        for kind in kinds.split(", ") {
            out.entry(format!("{group}/{kind}"))
                .or_default()
                .extend(versions.split(", ").map(str::to_owned));
        }
    }
    out
}

#[test]
fn what_is_read_is_defined_in_the_versions_in_which_it_is_read() {
    let (defined, documented) = (defined(), documented());
    assert!(documented.len() >= 11, "{documented:?}");
    for (kind, versions) in &documented {
        assert_eq!(defined.get(kind), Some(versions), "{kind}");
    }
    let checked = [
        "policy.linkerd.io/EgressNetwork",
        "linkerd.io/ServiceProfile",
        "workload.linkerd.io/ExternalWorkload",
    ];
    for kind in defined.keys() {
        assert!(
            documented.contains_key(kind) || checked.contains(&kind.as_str()),
            "{kind} is not in resources.md"
        );
    }
}

#[test]
fn where_linkerd_is_installed_only_ours_are_defined() {
    assert!(
        all(Which::Own)
            .iter()
            .all(|crd| crd["spec"]["group"] == "mesh.internal")
    );
    assert_eq!(all(Which::Own).len(), 7);
}

#[test]
fn one_version_is_stored_the_newest() {
    for crd in all(Which::All) {
        let versions = crd["spec"]["versions"].as_array().unwrap();
        let stored: Vec<bool> = versions
            .iter()
            .map(|v| v["storage"].as_bool().unwrap())
            .collect();
        assert!(
            stored.iter().filter(|s| **s).count() == 1 && *stored.last().unwrap(),
            "{}",
            crd["metadata"]["name"]
        );
        assert!(
            versions
                .iter()
                .all(|v| v["served"] == true && v["subresources"]["status"].is_object())
        );
    }
}

/// A misspelt field that an API server drops would be a condition that nobody misses.
#[test]
fn unknown_fields_reach_those_who_refuse_them() {
    fn walk(node: &Value, path: &str) {
        if node["type"] == "object" && node.get("additionalProperties").is_none() {
            assert_eq!(node["x-kubernetes-preserve-unknown-fields"], true, "{path}");
        }
        for (name, below) in node["properties"].as_object().into_iter().flatten() {
            walk(below, &format!("{path}.{name}"));
        }
        if let Some(items) = node.get("items") {
            walk(items, &format!("{path}[]"));
        }
    }
    for crd in all(Which::All) {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            walk(spec, crd["metadata"]["name"].as_str().unwrap());
        }
    }
}

#[test]
fn fields_stand_in_the_versions_that_have_them() {
    let crds = all(Which::All);
    let field = |crd: &str, version: &str, path: &str| {
        let crd = crds.iter().find(|c| c["metadata"]["name"] == crd).unwrap();
        let version = crd["spec"]["versions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == version)
            .unwrap();
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            .pointer(path)
            .is_some()
    };
    let (servers, routes) = ("servers.policy.linkerd.io", "httproutes.policy.linkerd.io");
    for (crd, version, path, stands) in [
        (servers, "v1beta3", "/properties/accessPolicy", true),
        (servers, "v1beta2", "/properties/accessPolicy", false),
        (
            servers,
            "v1beta2",
            "/properties/externalWorkloadSelector",
            true,
        ),
        (
            servers,
            "v1beta1",
            "/properties/externalWorkloadSelector",
            false,
        ),
        (
            routes,
            "v1beta3",
            "/properties/rules/items/properties/timeouts",
            true,
        ),
        (
            routes,
            "v1beta2",
            "/properties/rules/items/properties/timeouts",
            false,
        ),
        (
            "externalworkloads.workload.linkerd.io",
            "v1alpha1",
            "/properties/meshTls",
            true,
        ),
        (
            "externalworkloads.workload.linkerd.io",
            "v1beta1",
            "/properties/meshTls",
            false,
        ),
    ] {
        assert_eq!(field(crd, version, path), stands, "{crd} {version} {path}");
    }
}
