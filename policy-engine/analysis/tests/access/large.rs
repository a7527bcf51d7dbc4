//! Ten thousand grants over a thousand workloads: a seeded violation is found, and in time.

use crate::world::{NOW, SETTING, clients, grant, home, index, key, large, pod, seeded};
use mesh_policy::Snapshot;
use mesh_policy::decide::{Generation, Verdict};
use mesh_policy::request::RequestRecord;
use mesh_policy_analysis::access::{matrix, who_can};
use mesh_policy_analysis::diff::diff;
use mesh_policy_analysis::fixes::{Denied, Place, fixes};
use mesh_policy_analysis::graph::Selector;
use mesh_policy_analysis::prove::{Proof, Question, prove};
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, IndexConfig, load};

#[test]
fn one_grant_among_ten_thousand_is_found_by_diff_and_by_prove() {
    let text = large(1_000, 10_000);
    let (before, after) = (index(&text), index(&(text + &seeded())));
    let found = diff(&before, &after, SETTING).unwrap();
    assert_eq!(
        (found.gained.len(), found.lost.len(), found.exact),
        (1, 0, true)
    );
    let gained = &found.gained[0].access;
    assert_eq!(gained.who, ["dev/laptop"]);
    assert_eq!(
        gained.reasons[0].policy,
        "AuthorizationPolicy/payments/quick-fix/0"
    );
    assert_eq!(
        Replay::new(&after, NOW).decide(&gained.witness).verdict,
        Verdict::Allow
    );
    assert_eq!(
        Replay::new(&before, NOW).decide(&gained.witness).verdict,
        Verdict::Deny
    );

    let question = Question::NoPath(
        Selector::parse("dev").unwrap(),
        Selector::parse("payments").unwrap(),
    );
    assert!(matches!(
        prove(&before, &question, NOW),
        Proof::Holds { .. }
    ));
    let Proof::Violated { witness, .. } = prove(&after, &question, NOW) else {
        panic!("not found")
    };
    assert_eq!(
        Replay::new(&after, NOW).decide(&witness[0].request).verdict,
        Verdict::Allow
    );
}

/// Ten thousand grants on one port, each with an authentication of its own.
fn narrow(count: usize) -> String {
    let mut text = pod("payments", "ledger");
    for n in 0..count {
        let id = format!("spiffe://cluster.local/ns/team/sa/app{n}");
        text += &clients("payments", &format!("c{n}"), &[&id]);
        text += &grant(
            "payments",
            &format!("g{n}"),
            "Server ledger",
            &[&format!("MeshTLSAuthentication c{n}")],
        );
    }
    text
}

#[test]
#[ignore = "prints times, asserts nothing"]
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the real clock"
)]
fn times_of_fixes_at_ten_thousand_grants() {
    let record: RequestRecord = serde_json::from_value(serde_json::json!({
        "client": {"spiffe_id": "spiffe://cluster.local/ns/dev/sa/laptop", "ip": "10.0.0.1"},
        "server": {"namespace": "payments", "pod": "ledger", "port": 8080},
        "protocol": "http", "method": "GET", "path": "/",
    }))
    .unwrap();
    for (what, text) in [
        ("over a thousand workloads", large(1_000, 10_000)),
        ("on one port", narrow(10_000)),
        (
            "over a hundred workloads of ten namespaces",
            large(100, 10_000),
        ),
    ] {
        let start = std::time::Instant::now();
        let files = [("all.yaml".to_owned(), text.clone().into_bytes())];
        let read = load(files.clone());
        let loaded = start.elapsed();
        let index = Index::build(&read, &IndexConfig::new(home()));
        let built = start.elapsed();
        let workload = key("payments", "ledger");
        let data = index.snapshot(&workload, Generation::default()).unwrap();
        let snapshot = Snapshot::compile(data).unwrap();
        let compiled = start.elapsed();
        let denied = Denied {
            index: &index,
            files: &files,
            record: &record,
            places: &[Place {
                workload,
                port: 8080,
                snapshot,
            }],
            now: NOW,
        };
        let found = fixes(&denied);
        let all = start.elapsed();
        println!(
            "{what}: read {loaded:.2?}, index {:.2?}, snapshot {:.2?}, {} fixes {:.2?}",
            built - loaded,
            compiled - built,
            found.fixes.len(),
            all - compiled
        );
    }
}

#[test]
#[ignore = "prints times, asserts nothing"]
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement needs the real clock"
)]
fn times_at_ten_thousand_grants() {
    let start = std::time::Instant::now();
    let at = |what: &str| {
        println!(
            "{what}: {:.2} s since the start",
            start.elapsed().as_secs_f64()
        )
    };
    let text = large(1_000, 10_000);
    let before = index(&text);
    at("first set read");
    let after = index(&(text.clone() + &seeded()));
    at("second set read");
    diff(&before, &after, SETTING).unwrap();
    at("diff, one grant more");
    let other = index(&large(1_000, 9_000));
    at("third set read");
    let found = diff(&before, &other, SETTING).unwrap();
    at(&format!(
        "diff, a thousand workloads changed ({} lost)",
        found.lost.len()
    ));
    let data = after
        .snapshot(&key("payments", "ledger"), Generation::default())
        .unwrap();
    who_can(
        &key("payments", "ledger"),
        &Snapshot::compile(data).unwrap(),
        8080,
        SETTING,
        None,
    )
    .unwrap();
    at("who can");
    let question = Question::NoPath(
        Selector::parse("dev").unwrap(),
        Selector::parse("payments").unwrap(),
    );
    prove(&before, &question, NOW);
    at("no path");
    matrix(&before, &home(), SETTING).unwrap();
    at("matrix");
}
