//! HTTPFault: what of it is read, and that whatever is wrong disturbs nobody and changes no decision.

use crate::world::{Ask, SERVER, SHOP, World, policy};
use mesh_policy::snapshot::{Fault, FaultAbort, FaultBandwidth, FaultDelay};

const CLIENTS: &str = "identities: ['spiffe://cluster.local/ns/shop/sa/web']";
const UNTIL: &str = "until: '2027-01-31T18:00:00Z'";
const ABORT: &str = "abort: {percent: 5, httpStatus: 503}";
const TARGET: &str = "targetRef: {group: policy.linkerd.io, kind: Server, name: cart}";

fn named(name: &str, meta: &str, fields: &[&str]) -> String {
    format!(
        "apiVersion: mesh.internal/v1alpha1\nkind: HTTPFault\nmetadata: {{name: {name}, namespace: shop{meta}}}\nspec: {{{}}}\n",
        fields.join(", ")
    )
}

fn fault(fields: &[&str]) -> String {
    named("f", "", fields)
}

fn grant() -> String {
    policy("p", "Server cart", &["ServiceAccount web"])
}

/// The faults on port 8080, and the codes of what lint says.
fn read(parts: &[&str]) -> (Vec<Fault>, Vec<String>) {
    let grant = grant();
    let world = World::of(&[&[SHOP, &*grant], parts].concat());
    let faults = world.snapshot("shop", "cart").ports[&8080].faults.clone();
    let findings = world.index.findings().iter();
    (faults, findings.map(|one| one.code.clone()).collect())
}

#[test]
fn a_fault_is_read_with_all_its_parts() {
    let text = fault(&[
        TARGET,
        "identities: ['spiffe://cluster.local/ns/shop/sa/web', 'web.shop.serviceaccount.identity.linkerd.cluster.local', 'spiffe://other.example/a']",
        UNTIL,
        "delay: {percent: 20, duration: 1m30s}",
        "abort: {percent: 100, httpStatus: 599, grpcStatus: 16}",
        "bandwidth: {percent: 1, bytesPerSecond: 4294967295}",
    ]);
    let (faults, codes) = read(&[SERVER, &text]);
    assert_eq!(codes, ["MESH-0449"], "it is said that it is in force");
    let [fault] = &faults[..] else {
        panic!("{faults:?}");
    };
    let clients: Vec<&str> = fault.clients.iter().map(|id| id.as_str()).collect();
    assert_eq!(
        clients,
        [
            "spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://other.example/a"
        ]
    );
    assert_eq!(fault.until, "2027-01-31T18:00:00Z".parse().unwrap());
    let delay = FaultDelay {
        percent: 20,
        ms: 90_000,
    };
    let abort = FaultAbort {
        percent: 100,
        status: Some(599),
        grpc_status: Some(16),
    };
    let bandwidth = FaultBandwidth {
        percent: 1,
        bytes_per_second: u32::MAX,
    };
    assert_eq!(
        (fault.delay, fault.abort, fault.bandwidth),
        (Some(delay), Some(abort), Some(bandwidth))
    );
}

#[test]
fn what_is_wrong_is_said_and_disturbs_nobody() {
    for (fields, code, what) in [
        (vec![CLIENTS, UNTIL, ABORT], "MESH-0357", "no target"),
        (
            vec![
                "targetRef: {kind: Service, name: cart}",
                CLIENTS,
                UNTIL,
                ABORT,
            ],
            "MESH-0359",
            "a target of another kind",
        ),
        (vec![TARGET, UNTIL, ABORT], "MESH-0357", "no clients"),
        (
            vec![TARGET, "identities: []", UNTIL, ABORT],
            "MESH-0359",
            "an empty list of clients",
        ),
        (
            vec![TARGET, "identities: ['*']", UNTIL, ABORT],
            "MESH-0359",
            "everybody",
        ),
        (
            vec![
                TARGET,
                "identities: ['*.shop.serviceaccount.identity.linkerd.cluster.local']",
                UNTIL,
                ABORT,
            ],
            "MESH-0359",
            "a namespace",
        ),
        (
            vec![
                TARGET,
                "identities: ['spiffe://cluster.local/ns/shop/*']",
                UNTIL,
                ABORT,
            ],
            "MESH-0359",
            "a namespace as a SPIFFE ID",
        ),
        (
            vec![
                TARGET,
                "identities: ['spiffe://cluster.local']",
                UNTIL,
                ABORT,
            ],
            "MESH-0359",
            "a trust domain",
        ),
        (vec![TARGET, CLIENTS, ABORT], "MESH-0357", "no end"),
        (
            vec![TARGET, CLIENTS, "until: tomorrow", ABORT],
            "MESH-0359",
            "no time",
        ),
        (
            vec![TARGET, CLIENTS, "until: 1801418400", ABORT],
            "MESH-0356",
            "a number",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL],
            "MESH-0357",
            "nothing injected",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL, "abort: {percent: 5}"],
            "MESH-0357",
            "no status",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL, "abort: {httpStatus: 503}"],
            "MESH-0357",
            "no share",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "abort: {percent: 0, httpStatus: 503}",
            ],
            "MESH-0359",
            "a share of nothing",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "abort: {percent: 101, httpStatus: 503}",
            ],
            "MESH-0359",
            "more than all",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "abort: {percent: 5, httpStatus: 200}",
            ],
            "MESH-0359",
            "a success",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "abort: {percent: 5, httpStatus: 307}",
            ],
            "MESH-0359",
            "a redirect",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL, "abort: {percent: 5, grpcStatus: 0}"],
            "MESH-0359",
            "a success of gRPC",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "delay: {percent: 5, duration: 301s}",
            ],
            "MESH-0359",
            "a long wait",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL, "delay: {percent: 5, duration: 0s}"],
            "MESH-0359",
            "no wait",
        ),
        (
            vec![
                TARGET,
                CLIENTS,
                UNTIL,
                "bandwidth: {percent: 5, bytesPerSecond: 0}",
            ],
            "MESH-0359",
            "no bytes at all",
        ),
        (
            vec![TARGET, CLIENTS, UNTIL, ABORT, "jitter: 5ms"],
            "MESH-0358",
            "an unknown field",
        ),
    ] {
        let (faults, codes) = read(&[SERVER, &fault(&fields)]);
        assert_eq!(faults, [], "{what}");
        assert!(codes.contains(&code.to_owned()), "{what}: {codes:?}");
        assert!(!codes.contains(&"MESH-0449".to_owned()), "{what}");
        let grant = grant();
        let text = fault(&fields);
        let world = World::of(&[SHOP, SERVER, &grant, &text]);
        assert_eq!(world.answer(&Ask::meshed("shop/web")), "allow", "{what}");
    }
}

#[test]
fn the_end_is_at_most_a_week_after_the_object_was_made() {
    let made = |until: &str| {
        let until = format!("until: '{until}'");
        let meta = ", creationTimestamp: '2027-01-01T00:00:00Z'";
        read(&[SERVER, &named("f", meta, &[TARGET, CLIENTS, &until, ABORT])])
    };
    assert_eq!(made("2027-01-08T00:00:00Z").0.len(), 1);
    let (faults, codes) = made("2027-01-08T00:00:00.001Z");
    assert_eq!((faults.len(), codes), (0, vec!["MESH-0359".to_owned()]));
}

#[test]
fn a_fault_that_does_nothing_says_so() {
    let whole = fault(&[TARGET, CLIENTS, UNTIL, ABORT]);
    let opaque = SERVER.replace("HTTP/1", "opaque");
    let (faults, codes) = read(&[&opaque, &whole]);
    assert_eq!(faults, []);
    assert!(codes.contains(&"MESH-0458".to_owned()), "{codes:?}");
    let nobody = "identities: ['web.shop.serviceaccount.identity.linkerd.other.example']";
    let (faults, codes) = read(&[SERVER, &fault(&[TARGET, nobody, UNTIL, ABORT])]);
    assert_eq!((faults.len(), codes), (0, vec!["MESH-0458".to_owned()]));
    let elsewhere = whole.replace("name: cart", "name: kart");
    let (faults, codes) = read(&[SERVER, &elsewhere]);
    assert_eq!((faults.len(), codes), (0, vec!["MESH-0364".to_owned()]));
    let (faults, codes) = read(&[SERVER, &whole, &whole]);
    assert_eq!(faults, [], "the same object twice");
    assert!(codes.contains(&"MESH-0361".to_owned()), "{codes:?}");
}

#[test]
fn the_older_comes_first_and_past_the_bound_they_do_nothing() {
    let all: Vec<String> = (0..18)
        .map(|number| {
            let meta = format!(
                ", creationTimestamp: '2027-01-25T00:00:{:02}Z'",
                59 - number
            );
            named(
                &format!("f{number}"),
                &meta,
                &[TARGET, CLIENTS, UNTIL, ABORT],
            )
        })
        .collect();
    let mut parts = vec![SERVER];
    parts.extend(all.iter().map(String::as_str));
    let (faults, codes) = read(&parts);
    let names: Vec<&str> = faults.iter().map(|fault| &*fault.name).collect();
    assert_eq!((names.len(), names[0], names[15]), (16, "f17", "f2"));
    let idle = codes.iter().filter(|code| *code == "MESH-0458");
    assert_eq!(idle.count(), 2);
}

#[test]
fn a_candidate_has_no_faults_of_its_own() {
    let meta = ", annotations: {mesh.internal/shadow: add}";
    let (faults, codes) = read(&[SERVER, &named("f", meta, &[TARGET, CLIENTS, UNTIL, ABORT])]);
    assert_eq!((faults.len(), codes), (0, vec!["MESH-0339".to_owned()]));
}
