//! Whether the facts hold of every question: each that is put to Cedar in these tests is tried against them.

use super::*;
use crate::cedar::Setting;
use crate::connection::ConnectionAtoms;
use crate::decide::oracle::{any_client, any_data};
use crate::decide::{decide_by_cedar, decide_on};
use crate::fixtures::*;
use crate::question::{HeaderNames, Question, SetNames};
use crate::request::{Call, Head};
use crate::snapshot::{CedarText, IdentityPattern, ProbeKind, ServerProtocol, Source, Term};
use cedar_policy::{Authorizer, Decision};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static SEEN: Cell<usize> = const { Cell::new(0) };
}

/// Names all that questions of these tests may be about, so that facts speak of it.
const NAMES: &str = r#"permit(principal, action, resource) when {
    principal == Mesh::Workload::"spiffe://cluster.local/ns/shop/sa/web" || principal == Mesh::Workload::"spiffe://cluster.local/other"
    || principal == Mesh::Workload::"no identity"
    || principal in Mesh::Namespace::"cluster.local/shop" || principal in Mesh::Namespace::"partner.example/shop"
    || principal in Mesh::Namespace::"shop" || principal in Mesh::TrustDomain::"cluster.local" || principal in Mesh::TrustDomain::"evil.example"
    || principal in Mesh::IdentitySet::"set0" || principal in Mesh::IdentitySet::"set1" || principal in Mesh::IdentitySet::"set2"
    || principal in Mesh::IdentitySet::"missing"
    || context.conn.nets.contains(Mesh::NetSet::"set0") || context.conn.nets.contains(Mesh::NetSet::"set1")
    || context.conn.nets.contains(Mesh::NetSet::"missing")
    || resource in Mesh::Namespace::"cluster.local/shop" || resource in Mesh::Namespace::"cluster.local/pay"
    || resource in Mesh::TrustDomain::"cluster.local" || resource in Mesh::NamedServers::"shop" || resource in Mesh::NamedServers::"pay"
    || resource in Mesh::Server::"shop/http" || resource in Mesh::Server::"default" || resource in Mesh::Server::"shop/other"
    || resource in Mesh::RouteObj::"HTTPRoute/shop/a" || resource in Mesh::RouteObj::"default//probe"
};"#;

/// As [`NAMES`], with what looks at the text of an ID.
const LOOKS: &str =
    r#"permit(principal is Mesh::Workload, action, resource) when { principal.id like "*web" };"#;

/// Tries a question that is put to Cedar against the facts about it, if this thread wants that.
pub(crate) fn watch(snapshot: &Snapshot, port: u16, question: &Question<'_>) {
    if !WATCHING.get() {
        return;
    }
    SEEN.set(SEEN.get() + 1);
    let data = snapshot.data();
    let model = PortModel::of(snapshot, port).unwrap();
    let further = [NAMES, LOOKS].map(|text| Policy::parse(None, text).unwrap());
    let named: Vec<&Policy> = model.policies.iter().chain(&further).collect();
    let asker = match question.asker.id {
        Some(_) => Asker::Workload,
        None => Asker::Anonymous,
    };
    let setting = Setting {
        names: &SetNames::of(&data),
        headers: &HeaderNames::new(),
    };
    let vocabulary = vocabulary().unwrap();
    let (request, entities) = setting.put(vocabulary, question).unwrap();
    let holds = |target: &Target| {
        let facts = target.facts(asker, &data, question.now, &named).unwrap();
        let policy = facts.alone().unwrap();
        let answer = Authorizer::new().is_authorized(
            &request,
            &PolicySet::from_policies([policy]).unwrap(),
            &entities,
        );
        let errors: Vec<String> = answer
            .diagnostics()
            .errors()
            .map(ToString::to_string)
            .collect();
        assert_eq!(errors, [""; 0], "a fact cannot be evaluated");
        answer.decision() == Decision::Allow
    };
    assert!(
        model.targets.iter().any(holds),
        "{request:?} is none of {:?}",
        model.targets
    );
}

fn watching(test: impl FnOnce()) {
    WATCHING.set(true);
    SEEN.set(0);
    test();
    WATCHING.set(false);
    assert!(SEEN.get() > 0, "nothing was put to Cedar");
}

#[test]
fn the_facts_can_be_read() {
    for asker in Asker::ALL {
        assert!(standing(asker, false).unwrap().len() < standing(asker, true).unwrap().len());
    }
}

#[test]
fn facts_are_valid_policies_in_their_environment() {
    let world = World::http()
        .route(route("cart", "/cart"))
        .probe(ProbeKind::Grpc);
    let snapshot = world.compile();
    let names = Policy::parse(None, NAMES).unwrap();
    for port in [PORT, 1] {
        for target in PortModel::of(&snapshot, port).unwrap().targets {
            for asker in Asker::ALL {
                let facts = target.facts(asker, &world.0, NOW, &[&names]).unwrap();
                let environment = target.environment(asker).unwrap();
                let policy = facts.alone().unwrap();
                let all = policy
                    .get_valid_request_envs(schema().unwrap())
                    .collect::<Vec<_>>();
                assert!(
                    all.contains(&environment),
                    "{} {asker:?} {}",
                    target.what,
                    policy.to_cedar().unwrap()
                );
            }
        }
    }
}

#[test]
fn facts_hold_of_questions_about_routes_probes_and_bytes() {
    let names = ["cart", "pay"];
    watching(|| {
        for protocol in [
            ServerProtocol::Unknown,
            ServerProtocol::Http1,
            ServerProtocol::Grpc,
            ServerProtocol::Opaque,
        ] {
            let plain = World::new(protocol).web_may("web", on_server("http"));
            let worlds = [
                plain,
                World::new(protocol)
                    .route(route("cart", "/cart/"))
                    .route(route("all", "/"))
                    .probe(ProbeKind::Http("/healthz".to_owned()))
                    .probe(ProbeKind::Grpc)
                    .identities("set0", vec![IdentityPattern::Any]),
            ];
            for world in worlds {
                let snapshot = world.compile();
                for client in [
                    meshed("web"),
                    meshed("pay"),
                    plaintext("2001:db8::1"),
                    anonymous_tls(),
                ] {
                    ask_everything(&snapshot, &client, &names);
                }
            }
        }
    });
}

fn ask_everything(snapshot: &Snapshot, client: &crate::request::Client, hosts: &[&str]) {
    let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let atoms = ConnectionAtoms::of(snapshot, client);
    for port in [PORT, 1, 65_535] {
        let _ = decide_by_cedar(&atoms, port, &Call::Tcp, NOW);
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/cart"),
            ("GET", "/cart/1/../2"),
            ("POST", "/cartoon"),
            ("GET", "/healthz"),
            ("POST", "/grpc.health.v1.Health/Check"),
            ("OPTIONS", "*"),
            ("POST", "/shop.Cart/Add"),
        ] {
            for grpc in [false, true] {
                for host in hosts.iter().copied().map(Some).chain([None]) {
                    let head = Head {
                        method,
                        target,
                        host,
                        grpc,
                        headers: &headers,
                    };
                    let _ = decide_by_cedar(&atoms, port, &Call::Http(head), NOW);
                }
            }
        }
    }
}

/// A fact that is not one is found: questions at another time than the facts speak of.
#[test]
fn a_wrong_fact_would_be_noticed() {
    let snapshot = World::new(ServerProtocol::Opaque).compile();
    let target = PortModel::of(&snapshot, PORT).unwrap().targets.remove(0);
    let data = snapshot.data();
    let later = target
        .facts(Asker::Anonymous, &data, NOW.plus_secs(1), &[])
        .unwrap();
    let now = target.facts(Asker::Anonymous, &data, NOW, &[]).unwrap();
    assert_ne!(
        later.alone().unwrap().to_cedar(),
        now.alone().unwrap().to_cedar()
    );
    let caught = std::panic::catch_unwind(|| {
        WATCHING.set(true);
        let client = anonymous_tls();
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        let port = snapshot.compiled_port(PORT);
        let mut question = atoms.question(
            PORT,
            port,
            &crate::connection::Query {
                asked: crate::matcher::Asked::Bytes,
                route: None,
                request: None,
                now: NOW,
            },
        );
        // Asked about a Server that is not the port's.
        question.target.server = Some("other");
        watch(&snapshot, PORT, &question);
    });
    WATCHING.set(false);
    assert!(caught.is_err());
}

#[test]
fn a_closed_port_has_no_policies() {
    let broken = CedarText {
        id: "CedarPolicy/shop/x/0".to_owned(),
        effect: Effect::Forbid,
        text: "forbid(principal, action, resource) when { nonsense };".to_owned(),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: Term::default(),
        source: Source::BuiltIn("test".to_owned()),
    };
    let mut world = World::http().web_may("web", on_server("http"));
    world.0.cedar_policies.push(broken);
    let model = PortModel::of(&world.compile(), PORT).unwrap();
    assert!(model.closed.is_some() && model.policies.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn facts_hold_of_every_question_that_is_asked(
        data in any_data(),
        client in any_client(),
        target in prop::sample::select(&["/", "/a/b", "/healthz", "/grpc.health.v1.Health/Check"][..]),
        method in prop::sample::select(&["GET", "POST"][..]),
        grpc in any::<bool>(),
    ) {
        let snapshot = Snapshot::compile(data).unwrap();
        let headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let atoms = ConnectionAtoms::of(&snapshot, &client);
        let head = Head { method, target, host: None, grpc, headers: &headers };
        WATCHING.set(true);
        for port in [PORT, 1] {
            for call in [Call::Tcp, Call::Http(head)] {
                let cedar = decide_by_cedar(&atoms, port, &call, NOW);
                prop_assert_eq!(short(&cedar), short(&decide_on(&atoms, port, &call, NOW)));
            }
        }
        WATCHING.set(false);
    }
}
