//! The two ways of noticing that matcher and Cedar differ.

use super::*;
use crate::decide::decide_on;
use crate::fixtures::*;
use crate::snapshot::*;

fn world() -> World {
    let end = Term {
        expires: Some(NOW),
        break_glass: None,
    };
    World::http()
        .networks("nets", &[("10.0.0.0/8", &["10.1.0.0/16"])])
        .route(route("r", "/r"))
        .route(route("other", "/other"))
        .web_may("web", on_server("http"))
        .web_may("routed", on_route("r"))
        .grant(Grant {
            networks: Some("nets".to_owned()),
            term: end,
            ..grant(
                "AuthorizationPolicy/shop/nets/0",
                on_route("other"),
                Who::AnyTls,
            )
        })
        .grant(grant("default/audit", Scope::Default, Who::Anyone))
        .grant(grant(
            "AuthorizationPolicy/shop/all/0",
            Scope::NamespaceServers {
                namespace: "shop".to_owned(),
            },
            Who::Anyone,
        ))
}

#[test]
fn every_grant_is_tried_on_every_port_and_none_differs() {
    let Assurance::Exhaustive { grants, questions } = check(&world().compile(), u64::MAX) else {
        panic!("the two differ");
    };
    assert_eq!(grants, 10, "five grants on two ports");
    assert!(questions > 80, "{questions}");
}

#[test]
fn many_grants_are_tried_part_by_part_and_none_is_left_out() {
    let mut one = World::http();
    for number in 0..600 {
        one = one.web_may(&format!("g{number}"), on_server("http"));
    }
    let Assurance::Exhaustive { grants, .. } = check(&one.compile(), u64::MAX) else {
        panic!("the two differ");
    };
    assert_eq!(grants, 600 * 2, "on two ports");
    for wrong in [0, 255, 256, 599] {
        let mut other = one.clone();
        other.0.grants[wrong].effect = Effect::Forbid;
        other.0.grants[wrong].scope = on_server("other");
        let compiled = one.compile().with_compiled_of(&other.compile()).unwrap();
        let found = check(&compiled, u64::MAX);
        let id = &one.0.grants[wrong].id;
        assert!(
            matches!(&found, Assurance::Differs { grant, .. } if grant == id),
            "{found:?}"
        );
    }
}

#[test]
fn what_could_not_be_asked_is_said() {
    let assurance = check(&world().compile(), 1);
    assert!(
        matches!(
            assurance,
            Assurance::Sampled {
                grants: 1,
                of: 10,
                ..
            }
        ),
        "{assurance:?}"
    );
}

#[test]
fn a_snapshot_whose_matcher_is_that_of_other_grants_is_found_out() {
    let one = world();
    let mut other = one.clone();
    other.0.grants[0].scope = on_route("r");
    other.0.grants[2].term = Term::default();
    let compiled = one.compile().with_compiled_of(&other.compile()).unwrap();
    let Assurance::Differs { grant, case, .. } = check(&compiled, u64::MAX) else {
        panic!("not noticed");
    };
    assert_eq!(grant, "AuthorizationPolicy/shop/web/0");
    assert!(case.starts_with("matcher: false, Cedar: true"), "{case}");
}

fn sample(snapshot: &Snapshot) -> Sample {
    let headers = BTreeMap::new();
    let call = Call::Http(Head {
        method: "GET",
        target: "/other/../r?x",
        host: Some("Cart:80"),
        grpc: false,
        headers: &headers,
    });
    let client = meshed("web");
    let atoms = ConnectionAtoms::of(snapshot, &client);
    let decision = decide_on(&atoms, PORT, &call, NOW);
    Sample::of(&decision, &client, &call, NOW)
}

#[test]
fn a_live_decision_is_decided_again_by_cedar() {
    let one = world();
    assert!(sample(&one.compile()).check().is_ok());
    let mut other = one.clone();
    other.0.grants[4].who = Who::Identities("MeshTLSAuthentication/shop/web".to_owned());
    other.0.grants.truncate(2);
    other.0.ports.get_mut(&PORT).unwrap().grants.truncate(2);
    other.0.other_ports.grants.clear();
    let wrong = one.compile().with_compiled_of(&other.compile()).unwrap();
    let mismatch = sample(&wrong).check().unwrap_err();
    assert_eq!(
        mismatch.matcher.reasons.len() + 1,
        mismatch.cedar.reasons.len()
    );
}

#[test]
fn a_port_that_was_caught_denies_everything_and_says_why() {
    let snapshot = world().compile();
    snapshot.distrust(PORT);
    let decision = crate::decide::decide(&snapshot, PORT, &meshed("web"), &Call::Tcp, NOW);
    assert_eq!(short(&decision), "deny forbid - []");
    assert!(
        decision
            .cause
            .to_string()
            .contains("another answer than Cedar")
    );
}
