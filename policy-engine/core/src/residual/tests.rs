//! Programs beside Cedar: by random policies here, each operator alone in the modules below.
//!
//! Whatever a test asks is asked of Cedar too.

use super::{Program, Unsupported};
use crate::fuzzing::cedar_world::World;
use crate::fuzzing::questions::{Facts, Request, names, trust_domain};
use crate::fuzzing::{Answer, Tally, compare, policy_set};
use crate::question::RouteFacts;
use cedar_policy::{Policy, pst};
use mesh_trust::SpiffeId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;

mod limits;
mod logic;
mod sets;
mod speed;
mod values;

const TRUE: Answer = Answer::Holds(true);
const FALSE: Answer = Answer::Holds(false);

/// `GET /shop.Cart/Add` by `shop/web` from 10.1.2.3 on port 8080 of Server `shop/http`, at 2026-11-21T11:29:00Z.
fn facts() -> Facts {
    let values = |all: &[&str]| all.iter().map(|value| (*value).to_owned()).collect();
    let headers = BTreeMap::from([
        ("x-a".to_owned(), values(&["one"])),
        ("x-b".to_owned(), values(&["one", "two", "two"])),
    ]);
    Facts {
        id: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
        ip: "10.1.2.3".parse().unwrap(),
        tls: true,
        cert_not_after: Some("2026-11-22T00:00:00Z".parse().unwrap()),
        identity_sets: vec![1],
        network_sets: vec![0, 2],
        namespace: "shop",
        server: Some("http"),
        port: 8080,
        route: Some(RouteFacts {
            kind: "HTTPRoute",
            namespace: "pay",
            name: "cart",
            rule: 10,
        }),
        request: Some(Request {
            method: "GET",
            path: "/shop.Cart/Add",
            host: Some("cart:8080"),
            headers,
            grpc: true,
        }),
        now: "2026-11-21T11:29:00.000999Z".parse().unwrap(),
    }
}

/// Bytes on the same port, by nobody.
fn bytes() -> Facts {
    Facts {
        id: None,
        tls: false,
        cert_not_after: None,
        identity_sets: Vec::new(),
        network_sets: Vec::new(),
        route: None,
        request: None,
        ..facts()
    }
}

fn template(policy: &str) -> pst::Template {
    match Policy::parse(None, policy).unwrap().to_pst().unwrap() {
        pst::Policy::Static(policy) => policy.body().clone(),
        other => panic!("{other:?}"),
    }
}

fn compile(policy: &str) -> Result<Program, Unsupported> {
    Program::compile(&template(policy), &names(), &trust_domain())
}

/// The answer, which is Cedar's too.
fn ask_policy(policy: &str, facts: &Facts) -> Answer {
    let program = compile(policy).unwrap_or_else(|error| panic!("{policy}: {error}"));
    let domain = trust_domain();
    let question = facts.question(&domain);
    let ours = Answer::of(program.holds(&question));
    let world = World::of(&question, &names(), program.headers()).unwrap();
    let cedar = world.ask(&policy_set(template(policy)).unwrap());
    assert_eq!(ours, cedar, "ours and Cedar's answer to {policy}");
    ours
}

fn when(condition: &str) -> String {
    format!("permit(principal, action, resource) when {{ {condition} }};")
}

fn ask(condition: &str, facts: &Facts) -> Answer {
    ask_policy(&when(condition), facts)
}

/// Every condition with the answer on [`facts`].
fn table(rows: &[(&str, Answer)]) {
    for (condition, want) in rows {
        assert_eq!(ask(condition, &facts()), *want, "{condition}");
    }
}

/// Bytes that a random policy and its questions use up, about.
const BYTES: std::ops::Range<usize> = 0..320;

/// Random policies beside Cedar. Fails with the bytes, shrunk, and with both answers.
fn against_cedar(policies: u32) -> Tally {
    let config = Config {
        cases: policies,
        failure_persistence: None,
        ..Config::default()
    };
    let tally = std::cell::RefCell::new(Tally::default());
    TestRunner::new(config)
        .run(&proptest::collection::vec(any::<u8>(), BYTES), |bytes| {
            compare(&bytes, &mut tally.borrow_mut());
            Ok(())
        })
        .unwrap();
    tally.into_inner()
}

#[test]
fn programs_answer_as_cedar_does() {
    let tally = against_cedar(6_000);
    println!("{tally:#?}");
    let answers = |name: &str| tally.answers.get(name).copied().unwrap_or_default();
    assert!(tally.answers.values().sum::<u64>() >= 20_000, "too few");
    assert!(tally.valid * 2 > tally.policies, "most are valid");
    let unsupported: u64 = tally.unsupported.values().sum();
    assert!(unsupported * 20 < tally.valid, "most valid ones compile");
    let unwritten: u64 = tally.unwritten.values().sum();
    assert!(
        unwritten * 20 < tally.valid,
        "nearly all can be written again"
    );
    for kind in [
        "Holds(true)",
        "Holds(false)",
        "Absent",
        "Overflow",
        "Extension",
        "Type",
    ] {
        assert!(answers(kind) > 50, "{kind} was hardly seen");
    }
    assert_eq!(answers("Unexpected"), 0);
}

#[test]
#[ignore = "ten minutes"]
fn programs_answer_as_cedar_does_two_million_times() {
    let tally = against_cedar(280_000);
    println!("{tally:#?}");
    assert!(tally.answers.values().sum::<u64>() >= 2_000_000);
}
