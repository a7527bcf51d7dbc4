//! What is written into statuses, and when nothing is.

use super::conditions;
use super::writer::{Due, Pass, Writer};
use crate::publish::{Published, Publishing};
use crate::reports::Held;
use crate::sources::{SourceFile, Sources};
use mesh_kubernetes::kinds::ROUTES;
use mesh_kubernetes::watch::Change;
use mesh_policy_index::index::{Proxied, WorkloadKey};
use mesh_policy_index::{Condition, IndexConfig, ParentStatus, RouteStatus};
use mesh_trust::{Timestamp, TrustDomain};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

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
        kind: "Service",
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

fn desired(now: &Vec<Value>, status: &RouteStatus, time: &str) -> Option<Vec<Value>> {
    super::entries::desired(now, status, &condition("Enforced", ""), time)
}

fn another() -> Value {
    json!({ "parentRef": { "name": "edge" }, "controllerName": "example.com/gateway", "conditions": [] })
}

fn seen(generation: i64, version: &str, parents: Vec<Value>) -> Change {
    let json = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "r", "namespace": "shop", "uid": "r1", "generation": generation, "resourceVersion": version },
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
fn at_a_server_it_is_told_too_whether_the_route_is_in_force() {
    let mut server = parent("web");
    (server.kind, server.port) = ("Server", None);
    server.group = "policy.linkerd.io".to_owned();
    let mut other = server.clone();
    other.name = "db".to_owned();
    other.accepted = condition("NoMatchingParent", "there is no Server");
    let entries = desired(&Vec::new(), &status(vec![server, other]), NOW).expect("a change");
    let enforced = |entry: &Value| entry["conditions"][2].clone();
    assert_eq!(
        entries[0]["parentRef"],
        json!({ "group": "policy.linkerd.io", "kind": "Server", "name": "web" })
    );
    assert_eq!(
        (
            enforced(&entries[0])["status"].clone(),
            enforced(&entries[0])["type"].clone()
        ),
        (json!("True"), json!("Enforced"))
    );
    assert_eq!(
        (
            enforced(&entries[1])["status"].clone(),
            enforced(&entries[1])["reason"].clone()
        ),
        (json!("False"), json!("NotAccepted"))
    );
}

#[test]
fn conditions_of_others_stay_beside_ours() {
    let theirs = json!({ "type": "Audited", "status": "True" });
    let (yes, no) = (condition("Accepted", ""), condition("Pending", "1 of 2"));
    let wanted = [("Accepted", &yes), ("Enforced", &no)];
    let first = conditions::desired(std::slice::from_ref(&theirs), &wanted, Some(2), THEN)
        .expect("a change");
    assert_eq!(first[0], theirs);
    assert_eq!(first[1]["status"], "True");
    assert_eq!(
        (&first[2]["status"], &first[2]["observedGeneration"]),
        (&json!("False"), &json!(2))
    );
    assert_eq!(conditions::desired(&first, &wanted, Some(2), NOW), None);
    let newer = conditions::desired(&first, &wanted, Some(3), NOW).expect("another spec");
    assert_eq!(newer[1]["lastTransitionTime"], THEN);
}

/// A namespace with a Server, a grant, and pods.
struct Shop(BTreeMap<String, Value>);

const SERVER: &str = "Server.policy.linkerd.io/shop/web";
const POLICY: &str = "AuthorizationPolicy.policy.linkerd.io/shop/p";
const MESH_TLS: &str = "MeshTLSAuthentication.policy.linkerd.io/shop/a";
const LIMIT: &str = "HTTPLocalRateLimitPolicy.policy.linkerd.io/shop/l";

impl Shop {
    fn new() -> Self {
        let mut out = Self(BTreeMap::new());
        let linkerd = "policy.linkerd.io";
        out.put(
            SERVER,
            "policy.linkerd.io/v1beta3",
            json!({ "podSelector": {}, "port": 80, "proxyProtocol": "HTTP/1" }),
        );
        out.put(
            MESH_TLS,
            "policy.linkerd.io/v1alpha1",
            json!({ "identities": ["spiffe://cluster.local/ns/shop/sa/x"] }),
        );
        out.put(POLICY, "policy.linkerd.io/v1alpha1", json!({
            "targetRef": { "group": linkerd, "kind": "Server", "name": "web" },
            "requiredAuthenticationRefs": [{ "group": linkerd, "kind": "MeshTLSAuthentication", "name": "a" }] }));
        out.put(LIMIT, "policy.linkerd.io/v1alpha1", json!({
            "targetRef": { "group": linkerd, "kind": "Server", "name": "web" }, "total": { "requestsPerSecond": 5 } }));
        out
    }

    fn put(&mut self, name: &str, api_version: &str, spec: Value) {
        let (kind, rest) = name.split_once('/').unwrap();
        let (namespace, object) = rest.split_once('/').unwrap();
        self.0.insert(
            name.to_owned(),
            json!({
            "apiVersion": api_version, "kind": kind.split('.').next(), "spec": spec,
            "metadata": { "name": object, "namespace": namespace, "generation": 1 } }),
        );
    }

    fn pod(&mut self, name: &str, ready: &str, proxy: bool) {
        let mut containers = vec![json!({ "name": "app", "ports": [{ "containerPort": 80 }] })];
        if proxy {
            containers.push(json!({ "name": "mesh-proxy" }));
        }
        self.0.insert(format!("Pod/shop/{name}"), json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "serviceAccountName": "web", "containers": containers },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": ready }] } }));
    }

    fn published(&self) -> Published {
        let mut index = IndexConfig::new(TrustDomain::parse("cluster.local").unwrap());
        index.proxied = Proxied::WithContainer;
        let files = self.0.iter().map(|(name, value)| {
            (
                name.clone(),
                SourceFile::new(value.to_string().into_bytes()),
            )
        });
        let sources = Sources {
            files: files.collect(),
            ..Sources::default()
        };
        let publishing = Publishing {
            index,
            proxy_port: 15_008,
        };
        publishing.publish(&sources, (1, "d".to_owned()), Timestamp::default(), None)
    }

    /// What the watch of statuses tells of an object.
    fn seen(&self, name: &str, version: &str, status: &Value) -> Change {
        let mut json = self.0[name].clone();
        json["metadata"]["resourceVersion"] = version.into();
        json["metadata"]["uid"] = name.into();
        json["status"] = status.clone();
        Change::Applied {
            name: name.to_owned(),
            json: json.to_string().into_bytes(),
            revision: 1,
        }
    }
}

fn key(name: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

/// All proxies hold what is published.
fn all_hold(published: &Published) -> Held {
    let all = published.workloads.iter();
    all.map(|(key, policy)| (key.clone(), policy.policy_digest.clone()))
        .collect()
}

fn pass(writer: &mut Writer, published: &Published, held: &Held, now: Instant) -> Pass {
    writer.pass(published, (held, true), now, &|| NOW.to_owned())
}

/// A writer that has seen these objects without any status.
fn writer(shop: &Shop) -> Writer {
    let mut writer = Writer::new("test");
    for name in shop.0.keys().filter(|name| !name.starts_with("Pod/")) {
        writer.take(shop.seen(name, "7", &json!({})));
    }
    writer
}

/// `Enforced` of an object among what is due: its reason and message.
fn enforced(pass: &Pass, name: &str) -> Option<(String, String)> {
    let due = pass.due.iter().find(|due| due.name == name)?;
    let all = due.value.as_array().unwrap();
    let one = all.iter().find(|one| one["type"] == "Enforced").unwrap();
    let text = |field: &str| one[field].as_str().unwrap().to_owned();
    Some((text("reason"), text("message")))
}

fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[test]
fn what_every_proxy_holds_is_enforced_with_all_that_it_is_made_of() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let published = shop.published();
    let pass = pass(
        &mut writer(&shop),
        &published,
        &all_hold(&published),
        later(0),
    );
    for name in [SERVER, POLICY, MESH_TLS, LIMIT] {
        let (reason, _) = enforced(&pass, name).unwrap_or_else(|| panic!("{name}: {:?}", pass.due));
        assert_eq!(reason, "Enforced", "{name}");
    }
    assert_eq!(pass.events, []);
    assert_eq!(pass.again, None);
}

#[test]
fn a_proxy_that_holds_something_else_is_waited_for_and_then_named() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    shop.pod("web-1", "True", true);
    let published = shop.published();
    let mut held = all_hold(&published);
    held.insert(key("web-1"), "older".to_owned());
    let mut writer = writer(&shop);
    let now = later(0);
    let first = pass(&mut writer, &published, &held, now);
    assert_eq!(first.due, [], "it may have it in a moment");
    assert!(
        first
            .again
            .is_some_and(|again| again <= Duration::from_secs(3)),
        "{:?}",
        first.again
    );
    let then = pass(&mut writer, &published, &held, now + Duration::from_secs(3));
    let (reason, message) = enforced(&then, POLICY).unwrap();
    assert_eq!(reason, "Pending");
    assert!(
        message.starts_with("1 of 2 proxies") && message.ends_with(": shop/web-1"),
        "{message}"
    );
    held.remove(&key("web-1"));
    let silent = pass(&mut writer, &published, &held, now + Duration::from_secs(4));
    assert_eq!(
        enforced(&silent, POLICY).unwrap().0,
        "Pending",
        "who says nothing holds nothing"
    );
}

#[test]
fn a_controller_among_several_says_how_far_it_hears() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    shop.pod("web-1", "True", true);
    let published = shop.published();
    let mut held = all_hold(&published);
    held.remove(&key("web-1"));
    let of = |writer: &mut Writer, held: &Held| {
        let now = later(0);
        writer.pass(&published, (held, false), now, &|| NOW.to_owned());
        writer.pass(
            &published,
            (held, false),
            now + Duration::from_secs(3),
            &|| NOW.to_owned(),
        )
    };
    let (reason, message) = enforced(&of(&mut writer(&shop), &held), POLICY).unwrap();
    assert_eq!(reason, "Enforced");
    assert!(message.contains("follows this controller"), "{message}");
    held.insert(key("web-1"), "older".to_owned());
    let (reason, _) = enforced(&of(&mut writer(&shop), &held), POLICY).unwrap();
    assert_eq!(reason, "Pending", "who is heard is not taken for another's");
}

#[test]
fn a_pod_without_proxy_makes_policy_unenforced_and_one_that_starts_does_not() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    shop.pod("web-1", "False", true);
    let published = shop.published();
    let mut held = all_hold(&published);
    held.remove(&key("web-1"));
    let now = later(0);
    let starting = pass(&mut writer(&shop), &published, &held, now);
    assert_eq!(enforced(&starting, SERVER).unwrap().0, "Enforced");
    shop.pod("plain", "True", false);
    let published = shop.published();
    let mut held = all_hold(&published);
    held.remove(&key("plain"));
    let plain = pass(&mut writer(&shop), &published, &held, now);
    let (reason, message) = enforced(&plain, SERVER).unwrap();
    assert_eq!(reason, "NoProxy");
    assert!(message.ends_with(": shop/plain"), "{message}");
}

#[test]
fn what_concerns_nobody_is_not_enforced() {
    let shop = Shop::new();
    let published = shop.published();
    let mut writer = writer(&shop);
    let now = later(0);
    assert_eq!(pass(&mut writer, &published, &Held::default(), now).due, []);
    let then = pass(
        &mut writer,
        &published,
        &Held::default(),
        now + Duration::from_secs(3),
    );
    let (reason, message) = enforced(&then, SERVER).unwrap();
    assert_eq!(reason, "NoWorkload");
    assert!(message.contains("MESH-0370"), "{message}");
}

#[test]
fn a_broken_object_is_refused_at_once_with_an_event_that_is_told_once() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let good = shop.published();
    shop.0.get_mut(POLICY).unwrap()["spec"]["requiredAuthenticationRefs"][0]["name"] =
        "ghost".into();
    let published = shop.published();
    let grants = |published: &Published| {
        let update = &published.workloads[&key("web-0")].update;
        let snapshot = String::from_utf8(update.policy.json()).unwrap();
        snapshot.contains("AuthorizationPolicy/shop/p")
    };
    assert!(grants(&good) && !grants(&published));
    let mut writer = writer(&shop);
    let pass = pass(&mut writer, &published, &all_hold(&published), later(0));
    assert_eq!(enforced(&pass, POLICY).unwrap().0, "UnresolvedRefs");
    let due = pass.due.iter().find(|due| due.name == POLICY).unwrap();
    assert_eq!(due.value[1]["reason"], "RefNotFound");
    let [event] = &pass.events[..] else {
        panic!("{:?}", pass.events);
    };
    assert!(event.note.starts_with("MESH-0364: "), "{}", event.note);
    assert_eq!(
        (event.about.kind.as_str(), event.about.uid.as_str()),
        ("AuthorizationPolicy", POLICY)
    );
    assert!(event.name.starts_with("p."), "{}", event.name);
}

#[test]
fn a_status_is_written_for_the_spec_that_is_in_force_and_not_again_when_it_stands() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let published = shop.published();
    let held = all_hold(&published);
    let mut writer = Writer::new("test");
    let of = |writer: &mut Writer| -> Vec<Due> {
        let all = pass(writer, &published, &held, later(0)).due;
        all.into_iter().filter(|due| due.name == SERVER).collect()
    };
    assert_eq!(of(&mut writer), [], "nothing is known of the object");
    let mut newer = Shop::new();
    newer.0.get_mut(SERVER).unwrap()["metadata"]["generation"] = 2.into();
    writer.take(newer.seen(SERVER, "8", &json!({})));
    assert_eq!(of(&mut writer), [], "of a spec that is not in force yet");
    writer.take(shop.seen(SERVER, "9", &json!({})));
    let due = of(&mut writer);
    assert_eq!((due[0].version.as_str(), due[0].field), ("9", "conditions"));
    let status = json!({ "conditions": due[0].value });
    writer.take(shop.seen(SERVER, "10", &status));
    assert_eq!(of(&mut writer), [], "it stands there");
    writer.take(shop.seen(SERVER, "11", &json!({})));
    assert_eq!(of(&mut writer).len(), 1, "somebody took it away");
}

#[test]
fn what_linkerds_controller_writes_is_left_to_it() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let published = shop.published();
    let mut writer = writer(&shop);
    let mut theirs = Shop::new();
    theirs.0.get_mut(LIMIT).unwrap()["metadata"]["statusWriters"] = json!(["policy.linkerd.io"]);
    writer.take(theirs.seen(
        LIMIT,
        "9",
        &json!({ "conditions": [{ "type": "Accepted", "status": "True" }] }),
    ));
    let pass = pass(&mut writer, &published, &all_hold(&published), later(0));
    assert!(enforced(&pass, LIMIT).is_none());
    assert!(enforced(&pass, SERVER).is_some());
}

#[test]
fn a_status_that_somebody_rewrites_all_the_time_is_let_go() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let published = shop.published();
    let held = all_hold(&published);
    let mut writer = Writer::new("test");
    let mut written = 0;
    for version in 0..20 {
        writer.take(shop.seen(SERVER, &version.to_string(), &json!({})));
        for due in pass(&mut writer, &published, &held, later(0)).due {
            writer.wrote(due);
            written += 1;
        }
    }
    assert_eq!(written, 5);
}

#[test]
fn a_status_that_cannot_be_read_is_left_alone() {
    let mut shop = Shop::new();
    shop.pod("web-0", "True", true);
    let published = shop.published();
    let mut writer = writer(&shop);
    writer.take(shop.seen(SERVER, "8", &json!({ "conditions": "all" })));
    let pass = pass(&mut writer, &published, &all_hold(&published), later(0));
    assert!(enforced(&pass, SERVER).is_none());
    assert!(enforced(&pass, POLICY).is_some());
}

#[test]
fn a_list_replaces_the_objects_of_its_kind() {
    let mut writer = Writer::new("test");
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
    assert!(writer.knows(NAME));
    writer.take(listed("gateway.networking.k8s.io"));
    assert!(!writer.knows(NAME));
}

#[test]
fn what_is_a_candidate_only_says_so_whether_it_is_refused_or_not() {
    for faulty in [false, true] {
        let mut shop = Shop::new();
        shop.pod("a", "True", true);
        let server = shop.0.get_mut(SERVER).unwrap();
        server["metadata"]["annotations"]["mesh.internal/shadow"] = json!("add");
        if faulty {
            server["spec"]["novelty"] = json!(1);
        }
        let published = shop.published();
        let held = all_hold(&published);
        let told = pass(&mut writer(&shop), &published, &held, later(0));
        let (reason, _) = enforced(&told, SERVER).unwrap();
        assert_eq!(reason, "Shadow");
        let due = told.due.iter().find(|due| due.name == SERVER).unwrap();
        let accepted = &due.value[0];
        assert_eq!(accepted["type"], "Accepted");
        let state = if faulty { "False" } else { "True" };
        assert_eq!(accepted["status"], state, "{accepted}");
        let message = accepted["message"].as_str().unwrap();
        assert_eq!(message.contains("a candidate only"), !faulty, "{message}");
    }
}
