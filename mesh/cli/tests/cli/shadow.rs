//! `mesh authz shadow` where the candidate is made by annotations: decided here, and read from what proxies recorded.

use crate::run::{authz, copy_shop, json_of, stderr, stdout};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The shop, with the grant of the ledger annotated.
fn annotated(folder: &Path, value: &str) -> PathBuf {
    let copy = folder.join(value);
    copy_shop(&copy);
    let grant = copy.join("policy/ledger-authorization.yaml");
    let text = std::fs::read_to_string(&grant).expect("a file of the shop");
    let text = text.replace(
        "metadata:\n",
        &format!("metadata:\n  annotations: {{ mesh.internal/shadow: {value} }}\n"),
    );
    std::fs::write(&grant, text).expect("a file");
    copy
}

/// A decision of the ledger's proxy, with what a candidate decides.
fn record(account: &str, verdict: &str, shadow: Value) -> String {
    let reasons = match verdict {
        "allow" => json!(["AuthorizationPolicy/shop/ledger-post/0"]),
        _ => json!([]),
    };
    let record = json!({
        "time": "2026-01-01T00:00:00.000000Z", "generation": 3,
        "client": { "spiffe_id": format!("spiffe://cluster.local/ns/shop/sa/{account}"), "ip": "10.0.0.9", "tls": true, "serial": null, "expires": null },
        "server": { "namespace": "shop", "name": "ledger-tcp", "workload": "ledger", "port": 7070, "default": false },
        "route": null, "request": null, "verdict": verdict, "status": null, "grpc_status": null, "phase": "permit",
        "reasons": reasons, "audit": false, "near_misses": [], "shadow": shadow,
    });
    format!("{record}\n")
}

fn denies() -> Value {
    json!({ "verdict": "deny", "phase": "permit", "reasons": [] })
}

fn written(folder: &Path, lines: &[String]) -> String {
    let file = folder.join("records.jsonl");
    std::fs::write(&file, lines.concat()).expect("a file");
    file.to_str().expect("text").to_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn the_candidate_of_annotations_is_decided_without_another_folder() {
    let folder = folder();
    let records = written(folder.path(), &[record("payments", "allow", json!(null))]);
    for (value, turn, differing) in [("remove", "lost", 1), ("add", "gained", 1)] {
        let copy = annotated(folder.path(), value);
        let copy = copy.to_str().expect("text");
        let output = authz(
            folder.path(),
            &["shadow", "-f", copy, "--records", &records, "-o", "json"],
        );
        assert_eq!(
            output.status.code(),
            Some(1),
            "{value}: {}",
            stderr(&output)
        );
        let found = json_of(&output);
        let found = found["differences"].as_array().expect("a list");
        assert_eq!((found.len(), &found[0]["turn"]), (differing, &json!(turn)));
    }
}

#[test]
fn without_a_candidate_nothing_is_compared() {
    let folder = folder();
    let copy = folder.path().join("copy");
    copy_shop(&copy);
    let records = written(folder.path(), &[record("payments", "allow", json!(null))]);
    let copy = copy.to_str().expect("text");
    let output = authz(
        folder.path(),
        &["shadow", "-f", copy, "--records", &records],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("MESH-0669"), "{}", stderr(&output));
}

#[test]
fn what_proxies_recorded_of_a_candidate_is_counted_with_both_sides_and_an_example() {
    let folder = folder();
    let granted = json!({ "verdict": "allow", "phase": "permit", "status": 200, "reasons": ["AuthorizationPolicy/shop/new/0"] });
    let lines = [
        record("payments", "allow", json!(null)),
        record("payments", "allow", denies()),
        record("payments", "allow", denies()),
        record("intruder", "deny", granted),
    ];
    let records = written(folder.path(), &lines);
    let shadow = |more: &[&str]| {
        let arguments = [&["shadow", "--recorded", "--records", &records], more].concat();
        authz(folder.path(), &arguments)
    };
    let output = shadow(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let value = json_of(&output);
    assert_eq!(value["requests"], 4);
    let (gained, lost) = (&value["differences"][0], &value["differences"][1]);
    assert_eq!(
        (&gained["turn"], &gained["count"]),
        (&json!("gained"), &json!(1))
    );
    assert_eq!(
        gained["candidate"]["reasons"],
        json!(["AuthorizationPolicy/shop/new/0"])
    );
    assert_eq!((&lost["turn"], &lost["count"]), (&json!("lost"), &json!(2)));
    assert_eq!(
        lost["live"]["reasons"],
        json!(["AuthorizationPolicy/shop/ledger-post/0"])
    );
    assert_eq!(
        lost["witness"]["client"]["spiffe_id"],
        "spiffe://cluster.local/ns/shop/sa/payments"
    );
    let text = stdout(&shadow(&[]));
    assert!(
        text.contains("4 requests: 1 gain access, 2 lose it"),
        "{text}"
    );
    // Records of a candidate that decides alike end with 0.
    written(folder.path(), &lines[..1]);
    assert_eq!(shadow(&[]).status.code(), Some(0));
}

#[test]
fn what_is_recorded_of_a_candidate_is_refused_in_any_other_form() {
    let folder = folder();
    for shadow in [
        json!({ "verdict": "deny" }),
        json!({ "verdict": "maybe", "phase": "permit", "reasons": [] }),
        json!({ "verdict": "deny", "phase": "permit", "reasons": [], "more": 1 }),
        json!(true),
    ] {
        let records = written(
            folder.path(),
            &[record("payments", "allow", shadow.clone())],
        );
        let output = authz(
            folder.path(),
            &["shadow", "--recorded", "--records", &records],
        );
        assert_eq!(output.status.code(), Some(2), "{shadow}");
        assert!(stderr(&output).contains("MESH-0664"), "{}", stderr(&output));
    }
}

#[test]
fn other_commands_read_such_records_and_lint_lists_such_objects() {
    let folder = folder();
    let copy = annotated(folder.path(), "remove");
    let copy = copy.to_str().expect("text");
    let records = written(folder.path(), &[record("payments", "allow", denies())]);
    let output = authz(
        folder.path(),
        &["unused", "-f", copy, "--records", &records],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        !stdout(&output).contains("AuthorizationPolicy/shop/ledger-post"),
        "{}",
        stdout(&output)
    );
    let output = authz(folder.path(), &["lint", copy]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let text = stdout(&output);
    assert!(
        text.contains("note MESH-0338: `mesh.internal/shadow: remove`"),
        "{text}"
    );
    let bad = annotated(folder.path(), "perhaps");
    let output = authz(folder.path(), &["lint", bad.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("error MESH-0339"),
        "{}",
        stdout(&output)
    );
}
