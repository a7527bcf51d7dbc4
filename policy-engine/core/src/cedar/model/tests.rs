//! Whether the facts hold of every question: each that is put to Cedar in these tests is tried against them.

use super::*;
use crate::cedar::Setting;
use crate::connection::ConnectionAtoms;
use crate::decide::oracle::{any_client, any_data};
use crate::decide::{decide_by_cedar, decide_on};
use crate::equivalence::{Pairs, differing};
use crate::fixtures::*;
use crate::question::{Question, SetNames};
use crate::request::{Call, Head};
use crate::snapshot::{CedarText, IdentityPattern, ProbeKind, ServerProtocol, Source, Term, Who};
use cedar_policy::{Authorizer, Decision};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static SEEN: Cell<usize> = const { Cell::new(0) };
    /// Pairs of policies that had two answers to a question.
    static DIFFERENCES: Cell<usize> = const { Cell::new(0) };
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
        headers: &snapshot.compiled().headers,
    };
    let vocabulary = vocabulary().unwrap();
    let (request, entities) = setting.put(vocabulary, question).unwrap();
    let ask = |policy: Policy| {
        let alone = PolicySet::from_policies([policy]).unwrap();
        let answer = Authorizer::new().is_authorized(&request, &alone, &entities);
        match answer.diagnostics().errors().next() {
            Some(error) => Err(error.to_string()),
            None => Ok(answer.decision() == Decision::Allow),
        }
    };
    let holds = |target: &&Target| {
        if target.is_request() != question.request.is_some() {
            return false;
        }
        let facts = target
            .facts(asker, &data, Some(question.now), &named)
            .unwrap();
        ask(facts.alone().unwrap()).expect("a fact can be evaluated")
    };
    let of: Vec<&Target> = model.targets.iter().filter(holds).collect();
    assert!(!of.is_empty(), "{request:?} is none of {:?}", model.targets);
    for target in of.into_iter().filter(|_| model.closed.is_none()) {
        let pairs = Pairs::of(snapshot, port, target).unwrap();
        let mut found = usize::from(ask(differing(&pairs.grants).unwrap()).unwrap());
        for pair in &pairs.texts {
            let can = pair.evaluated().unwrap();
            found += usize::from(ask(pair.cedar.clone()).ok() != ask(pair.compiled.clone()).ok());
            found += usize::from(ask(can.cedar) != Ok(true) && ask(can.compiled) == Ok(true));
        }
        DIFFERENCES.set(DIFFERENCES.get() + found);
    }
}

fn watching(test: impl FnOnce()) {
    assert_eq!(differences(test), 0, "compiled policies and Cedar's");
}

/// How often two forms of one policy had two answers.
fn differences(test: impl FnOnce()) -> usize {
    WATCHING.set(true);
    SEEN.set(0);
    DIFFERENCES.set(0);
    test();
    WATCHING.set(false);
    assert!(SEEN.get() > 0, "nothing was put to Cedar");
    DIFFERENCES.get()
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
                let facts = target.facts(asker, &world.0, Some(NOW), &[&names]).unwrap();
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
        .facts(Asker::Anonymous, &data, Some(NOW.plus_secs(1)), &[])
        .unwrap();
    let now = target
        .facts(Asker::Anonymous, &data, Some(NOW), &[])
        .unwrap();
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

fn text(condition: &str) -> CedarText {
    CedarText {
        id: "CedarPolicy/shop/x/0".to_owned(),
        effect: Effect::Permit,
        text: format!(
            "permit(principal, action == Mesh::Action::\"request\", resource) when {{ {condition} }};"
        ),
        confined_to: Some("shop".to_owned()),
        invalid: None,
        audit: false,
        term: Term::default(),
        source: Source::BuiltIn("test".to_owned()),
    }
}

#[test]
fn what_a_wrong_compiler_would_make_has_two_answers() {
    let mut right = World::http()
        .route(route("cart", "/cart"))
        .route(route("all", "/"))
        .networks("nets", &[("10.0.0.0/8", &[])])
        .web_may("all", on_server("http"))
        .web_may("cart", on_route("cart"));
    right
        .0
        .cedar_policies
        .push(text("context.req.path like \"/cart*\""));
    let asked = |snapshot: &Snapshot| {
        differences(|| {
            let elsewhere = caller(&account("web"), "192.0.2.1");
            for client in [meshed("web"), elsewhere, meshed("pay"), anonymous_tls()] {
                ask_everything(snapshot, &client, &["cart"]);
            }
        })
    };
    assert_eq!(asked(&right.compile()), 0);
    let changes: [fn(&mut SnapshotData); 10] = [
        |data| data.grants[0].effect = Effect::Forbid,
        |data| data.grants[0].audit = true,
        |data| data.grants[1].term.break_glass = Some("why".to_owned()),
        |data| data.grants[0].scope = on_server("other"),
        |data| data.grants[1].scope = on_server("http"),
        |data| data.grants[0].who = Who::AnyTls,
        |data| data.grants[1].who = Who::Anyone,
        |data| data.grants[0].networks = Some("nets".to_owned()),
        |data| data.grants[1].term.expires = Some(NOW),
        |data| data.cedar_policies[0] = text("context.req.path like \"/cart/*\""),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut other = right.clone();
        change(&mut other.0);
        let wrong = right.compile().with_compiled_of(&other.compile()).unwrap();
        assert!(asked(&wrong) > 0, "change {number}");
    }
}

#[test]
fn a_policy_with_a_boundary_holds_of_nothing_outside_it() {
    let mut world = World::http().route(route("cart", "/cart"));
    world.0.cedar_policies.push(text("true"));
    let [policy] = &bounded(&world.compile()).unwrap()[..] else {
        panic!("one policy")
    };
    let written = policy.outside.to_cedar().unwrap();
    assert!(
        written.contains("!(resource in Mesh::Namespace::\"cluster.local/shop\")"),
        "{written}"
    );
    let mut everywhere = world.clone();
    everywhere.0.cedar_policies[0].confined_to = None;
    assert!(bounded(&everywhere.compile()).unwrap().is_empty());
}

#[test]
fn a_closed_port_has_no_policies() {
    let broken = CedarText {
        effect: Effect::Forbid,
        text: "forbid(principal, action, resource) when { nonsense };".to_owned(),
        ..text("true")
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
        DIFFERENCES.set(0);
        for port in [PORT, 1] {
            for call in [Call::Tcp, Call::Http(head)] {
                let cedar = decide_by_cedar(&atoms, port, &call, NOW);
                prop_assert_eq!(short(&cedar), short(&decide_on(&atoms, port, &call, NOW)));
            }
        }
        WATCHING.set(false);
        prop_assert_eq!(DIFFERENCES.get(), 0);
    }
}
