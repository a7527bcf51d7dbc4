//! What is written into the status of routes, and when nothing is.

use super::entries::desired;
use super::*;
use mesh_policy_index::{Condition, ParentStatus};
use serde_json::{Value, json};

const THEN: &str = "2026-01-01T00:00:00.000000Z";
const NOW: &str = "2026-02-01T00:00:00.000000Z";
const NAME: &str = "HTTPRoute.gateway.networking.k8s.io/shop/r";

fn condition(reason: &'static str, message: &str) -> Condition {
    Condition {
        holds: message.is_empty(),
        reason,
        message: message.to_owned(),
    }
}

fn parent(name: &str) -> ParentStatus {
    ParentStatus {
        group: String::new(),
        namespace: None,
        name: name.to_owned(),
        port: Some(80),
        section: None,
        accepted: condition("Accepted", ""),
        resolved: condition("ResolvedRefs", ""),
    }
}

fn status(parents: Vec<ParentStatus>) -> RouteStatus {
    RouteStatus {
        group: "gateway.networking.k8s.io",
        kind: "HTTPRoute",
        namespace: "shop".to_owned(),
        name: "r".to_owned(),
        generation: Some(3),
        parents,
    }
}

fn another() -> Value {
    json!({ "parentRef": { "name": "edge" }, "controllerName": "example.com/gateway", "conditions": [] })
}

fn seen(generation: i64, version: &str, parents: Vec<Value>) -> Change {
    let json = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "r", "namespace": "shop", "generation": generation, "resourceVersion": version },
        "status": { "parents": parents },
    });
    Change::Applied {
        name: NAME.to_owned(),
        json: json.to_string().into_bytes(),
        revision: 1,
    }
}

#[test]
fn an_entry_has_the_reference_as_it_is_written_and_both_conditions() {
    let mut front = parent("front");
    front.namespace = Some("shop".to_owned());
    front.section = Some("http".to_owned());
    front.resolved = condition("BackendNotFound", "there is no Service");
    let entries = desired(&vec![another()], &status(vec![front]), NOW).expect("a change");
    assert_eq!(
        entries,
        [
            another(),
            json!({
                "parentRef": { "group": "", "kind": "Service", "namespace": "shop", "name": "front", "sectionName": "http", "port": 80 },
                "controllerName": "mesh.internal/controller",
                "conditions": [
                    { "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                      "observedGeneration": 3, "lastTransitionTime": NOW },
                    { "type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "there is no Service",
                      "observedGeneration": 3, "lastTransitionTime": NOW },
                ],
            })
        ]
    );
}

#[test]
fn what_stands_there_already_is_not_written_again() {
    let status = status(vec![parent("a"), parent("b")]);
    let mut entries = desired(&Vec::new(), &status, THEN).expect("a change");
    assert_eq!(desired(&entries, &status, NOW), None);
    entries.reverse();
    entries.push(another());
    assert_eq!(desired(&entries, &status, NOW), None, "order means nothing");
}

#[test]
fn a_condition_keeps_the_time_of_its_last_transition() {
    let before = desired(&Vec::new(), &status(vec![parent("a")]), THEN).expect("a change");
    let mut changed = status(vec![parent("a")]);
    changed.generation = Some(4);
    changed.parents[0].resolved = condition("InvalidKind", "no Service");
    let after = desired(&before, &changed, NOW).expect("a change");
    let of = |kind: usize, field: &str| after[0]["conditions"][kind][field].clone();
    assert_eq!(of(0, "lastTransitionTime"), THEN);
    assert_eq!(of(0, "observedGeneration"), 4);
    assert_eq!(of(1, "lastTransitionTime"), NOW);
    changed.parents[0].resolved = condition("BackendNotFound", "no such Service");
    let last = desired(&after, &changed, THEN).expect("a change");
    assert_eq!(
        last[0]["conditions"][1]["lastTransitionTime"], NOW,
        "false before and after"
    );
}

#[test]
fn entries_of_parents_that_are_gone_go_and_those_of_others_stay() {
    let mut entries =
        desired(&Vec::new(), &status(vec![parent("a"), parent("b")]), THEN).expect("a change");
    entries.push(another());
    let after = desired(&entries, &status(vec![parent("b")]), NOW).expect("a change");
    assert_eq!(after.len(), 2);
    assert_eq!(after[1]["parentRef"]["name"], "b");
    assert_eq!(
        desired(&entries, &status(Vec::new()), NOW),
        Some(vec![another()])
    );
    assert_eq!(desired(&vec![another()], &status(Vec::new()), NOW), None);
}

#[test]
fn entries_stay_within_the_limit_of_gateway_api_and_name_a_parent_once() {
    let twice =
        desired(&Vec::new(), &status(vec![parent("a"), parent("a")]), NOW).expect("a change");
    assert_eq!(twice.len(), 1);
    let many: Vec<Value> = (0..31).map(|_| another()).collect();
    let full = desired(&many, &status(vec![parent("a"), parent("b")]), NOW).expect("a change");
    assert_eq!(full.len(), 32);
    let mut long = status(vec![parent("a")]);
    long.parents[0].accepted = condition("UnsupportedValue", &"ü".repeat(5_000));
    let entries = desired(&Vec::new(), &long, NOW).expect("a change");
    let message = entries[0]["conditions"][0]["message"]
        .as_str()
        .expect("text");
    assert_eq!(message.chars().count(), 1_024);
}

#[test]
fn a_status_is_written_for_the_spec_that_is_in_force_and_once_for_a_version() {
    let statuses = [status(vec![parent("a")])];
    let due = |writer: &Writer| -> Vec<String> {
        let due = writer.due(&statuses, || NOW.to_owned());
        due.into_iter().map(|one| one.version).collect()
    };
    let mut writer = Writer::default();
    assert_eq!(due(&writer), [""; 0], "nothing is known of the route");
    writer.take(seen(4, "11", Vec::new()));
    assert_eq!(due(&writer), [""; 0], "of a spec that is not in force yet");
    writer.take(seen(2, "9", Vec::new()));
    assert_eq!(
        due(&writer),
        [""; 0],
        "of a spec that is not in force any more"
    );
    writer.take(seen(3, "12", vec![another()]));
    assert_eq!(due(&writer), ["12"]);
    writer.written.insert(NAME.to_owned(), "12".to_owned());
    assert_eq!(
        due(&writer),
        [""; 0],
        "the watch has not told yet what came of it"
    );
    writer.take(seen(3, "13", Vec::new()));
    assert_eq!(due(&writer), ["13"], "somebody took it away");
    writer.take(Change::Removed {
        name: NAME.to_owned(),
        revision: 14,
    });
    assert_eq!(due(&writer), [""; 0]);
}

#[test]
fn a_status_that_cannot_be_read_is_left_alone() {
    let mut writer = Writer::default();
    writer.take(seen(3, "1", Vec::new()));
    writer.take(Change::Applied {
        name: NAME.to_owned(),
        json: br#"{"apiVersion":"gateway.networking.k8s.io/v1","metadata":{"name":"r","namespace":"shop","generation":3,"resourceVersion":"2"},"status":{"parents":"all"}}"#.to_vec(),
        revision: 2,
    });
    assert_eq!(
        writer.due(&[status(vec![parent("a")])], || NOW.to_owned()),
        []
    );
}

#[test]
fn a_list_replaces_the_routes_of_its_kind() {
    let mut writer = Writer::default();
    writer.take(seen(3, "1", Vec::new()));
    let kind = |group: &str| {
        ROUTES
            .iter()
            .find(|one| one.group == group && one.kind == "HTTPRoute")
            .expect("a kind")
    };
    let listed = |group| Change::Listed {
        kind: kind(group),
        objects: BTreeMap::new(),
        revision: 2,
    };
    writer.take(listed("policy.linkerd.io"));
    assert_eq!(writer.seen.len(), 1);
    writer.take(listed("gateway.networking.k8s.io"));
    assert!(writer.seen.is_empty());
}
