//! Counts are exact however often a connection is recognized, and whatever was handed over meanwhile.

use super::*;
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Generation, decide_on};
use mesh_policy::request::Head;
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, manifest};
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeMap;

const POLICY: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop}, spec: {containers: [{name: app, ports: [{containerPort: 80}]}]}}
---
{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {name: cart, namespace: shop}, spec: {podSelector: {}, port: 80, proxyProtocol: HTTP/1}}
---
{apiVersion: policy.linkerd.io/v1beta3, kind: HTTPRoute, metadata: {name: items, namespace: shop},
 spec: {parentRefs: [{group: policy.linkerd.io, kind: Server, name: cart}], rules: [{matches: [{path: {type: PathPrefix, value: /items}}]}, {}]}}
---
{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: all, namespace: shop},
 spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: all}]}}
---
{apiVersion: policy.linkerd.io/v1alpha1, kind: MeshTLSAuthentication, metadata: {name: all, namespace: shop}, spec: {identities: ['*']}}
";

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

fn client() -> Client {
    Client {
        id: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
        ip: "10.0.0.9".parse().unwrap(),
        tls: true,
        serial: None,
        expires: None,
    }
}

/// One connection to port 80, on a core.
struct Connection {
    classes: Classes,
    familiar: Familiar,
    atoms: ConnectionAtoms,
}

impl Connection {
    fn new() -> Self {
        Self {
            classes: Classes::new(0, NOW),
            familiar: Familiar::default(),
            atoms: ConnectionAtoms::of(&policy(1), &client()),
        }
    }

    /// Counts an allow as the data path does; whether it was recognized.
    fn allow(&mut self, method: &str, target: &str, now: Timestamp) -> bool {
        let call = Call::Http(Head {
            method,
            target,
            host: Some("cart"),
            grpc: false,
            headers: &BTreeMap::<String, Vec<String>>::new(),
        });
        let decision = decide_on(&self.atoms, 80, &call, now);
        assert_eq!(decision.verdict, mesh_policy::decide::Verdict::Allow);
        let place = self.familiar.recall(&decision, &call, now);
        if !place.is_some_and(|place| self.classes.count_at(place))
            && let Some(place) = self.classes.count(&decision, &client(), &call)
        {
            self.familiar.remember(&decision, &call, now, place);
        }
        place.is_some()
    }

    /// What is handed over at the end: generation, rule of the route, method and count; and all others.
    fn counted(&mut self) -> (Vec<(u64, u32, String, u64)>, u64) {
        let mut told = (Vec::new(), 0);
        self.classes.hand_over(NOW, true, |counts| {
            let class = |class: &AllowClass| {
                let rule = class.route.as_ref().unwrap().rule;
                let method = class.method.clone().unwrap();
                (class.generation, rule, method, class.count)
            };
            told = (counts.classes.iter().map(class).collect(), counts.other);
            told.0.sort();
            true
        });
        told
    }
}

fn policy(generation: u64) -> Snapshot {
    let loaded = manifest::load(vec![("policy.yaml".to_owned(), POLICY.as_bytes().to_vec())]);
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let index = Index::build(&loaded, &IndexConfig::new(domain));
    let key = WorkloadKey {
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
    };
    let data = index.snapshot(&key, Generation(generation)).unwrap();
    Snapshot::compile(data).unwrap()
}

fn class(generation: u64, rule: u32, method: &str, count: u64) -> (u64, u32, String, u64) {
    (generation, rule, method.to_owned(), count)
}

#[test]
fn each_method_and_route_is_counted_for_itself_also_beyond_what_is_remembered() {
    let mut one = Connection::new();
    let methods = ["GET", "PUT", "POST", "HEAD", "DELETE", "PATCH"];
    assert!(methods.len() > FAMILIAR_MAX);
    for round in 0..3 {
        for method in methods {
            one.allow(method, "/items/1", NOW);
            let again = one.allow(method, "/items/2", NOW);
            assert!(again, "{method} in round {round}");
            one.allow(method, "/other", NOW);
        }
    }
    let mut want: Vec<_> = methods
        .iter()
        .flat_map(|method| [class(1, 0, method, 6), class(1, 1, method, 3)])
        .collect();
    want.sort();
    assert_eq!(one.counted(), (want, 0));
}

#[test]
fn what_was_handed_over_is_not_counted_on() {
    let mut one = Connection::new();
    one.allow("GET", "/other", NOW);
    one.allow("GET", "/items", NOW);
    assert_eq!(one.counted().0.len(), 2);
    assert_eq!(one.counted(), (Vec::new(), 0));
    // Its place of before belongs to nobody now, and a moment later to another class.
    for _ in 0..2 {
        one.allow("PUT", "/items", NOW);
    }
    assert!(one.allow("GET", "/other", NOW));
    one.allow("GET", "/items", NOW);
    let want = vec![
        class(1, 0, "GET", 1),
        class(1, 0, "PUT", 2),
        class(1, 1, "GET", 1),
    ];
    assert_eq!(one.counted(), (want, 0));
}

#[test]
fn counts_that_the_log_does_not_take_go_on() {
    let mut one = Connection::new();
    one.allow("GET", "/items", NOW);
    one.classes.hand_over(NOW.plus_secs(60), false, |_| false);
    assert!(one.allow("GET", "/items", NOW));
    assert_eq!(one.counted(), (vec![class(1, 0, "GET", 2)], 0));
}

#[test]
fn another_policy_is_another_class_and_the_one_of_before_is_let_go() {
    let mut one = Connection::new();
    one.allow("GET", "/items", NOW);
    one.atoms = ConnectionAtoms::of(&policy(2), &client());
    assert!(!one.allow("GET", "/items", NOW));
    assert_eq!(one.familiar.0.borrow().len(), 1);
    let want = vec![class(1, 0, "GET", 1), class(2, 0, "GET", 1)];
    assert_eq!(one.counted(), (want, 0));
}

#[test]
fn an_hour_later_it_is_asked_again_whether_a_use_is_new() {
    let mut one = Connection::new();
    for (after, recognized) in [(0, false), (3_599, true), (3_600, false), (3_601, true)] {
        let at = NOW.plus_secs(after);
        assert_eq!(one.allow("GET", "/items", at), recognized, "{after}");
    }
    assert_eq!(one.counted(), (vec![class(1, 0, "GET", 4)], 0));
}

#[test]
fn classes_without_room_are_counted_together() {
    let mut one = Connection::new();
    for number in 0..CLASSES_MAX + 3 {
        for _ in 0..2 {
            one.allow(&format!("M{number}"), "/items", NOW);
        }
    }
    let (classes, other) = one.counted();
    assert_eq!((classes.len(), other), (CLASSES_MAX, 6));
    assert!(classes.iter().all(|(.., count)| *count == 2));
}
