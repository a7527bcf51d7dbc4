//! Logs as an auditor has them: proved, proved line by line, witnessed, redacted; on a machine that has only public keys.

use crate::run::{json_of, mesh, stderr, stdout};
use mesh_audits::Entry;
use mesh_audits::entry::Action;
use mesh_audits::redact::Redactable;
use mesh_platform::System;
use mesh_platform::audit_log::{AuditLog, AuditLogConfig};
use mesh_policy::decide::Generation;
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::RequestRecord;
use mesh_trust::Timestamp;
use std::path::{Path, PathBuf};

/// Writes a log of a start and decisions; `view` tells two histories apart.
fn log(folder: &Path, decisions: u64, view: &str) -> PathBuf {
    let directory = folder.join("audit");
    let config = AuditLogConfig {
        redactable: vec![Redactable::ClientIp],
        ..AuditLogConfig::new(directory.clone(), "shop.cart", "0.1.0")
    };
    let log = AuditLog::open(&config, System::new()).expect("a log");
    let request: RequestRecord = serde_json::from_str(
        r#"{"client":{"ip":"10.0.0.9"},"server":{"namespace":"shop","pod":"cart","port":1}}"#,
    )
    .expect("a request");
    for number in 0..decisions {
        let record = DecisionRecord::unknown_target(&request, Generation(number));
        assert!(log.handle().record(Entry::Decision(Box::new(record))));
    }
    let action = Action {
        time: Timestamp::from_unix_secs(0),
        action: view.to_owned(),
        by: String::new(),
        detail: String::new(),
    };
    assert!(log.handle().record(Entry::Admin(action)));
    drop(log);
    directory.join("shop.cart.jsonl")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("a file");
    let edited = text.replacen(from, to, 1);
    assert_ne!(edited, text);
    std::fs::write(file, edited).expect("written");
}

#[test]
fn a_second_machine_proves_a_log_with_the_public_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = log(folder.path(), 300, "a");
    let other = tempfile::tempdir().expect("a folder");
    copy(&folder.path().join("audit"), &other.path().join("logs"));
    for secret in ["key", "pub", "lock"] {
        let name = format!("logs/shop.cart.{secret}");
        std::fs::remove_file(other.path().join(name)).expect("there");
    }
    std::fs::copy(lines.with_extension("pub"), other.path().join("trusted")).expect("a copy");
    let verify = ["audit", "verify", "logs", "--key", "trusted", "-o", "json"];
    let output = mesh(other.path(), &verify);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = &json_of(&output)[0];
    assert_eq!(report["lines"], 302);
    assert_eq!(report["kinds"]["decision"], 300);
    assert_eq!(report["sealed_through"], 301);
    // The first bad line is named, and what is proved in spite of it.
    edit(
        &other.path().join("logs/shop.cart.jsonl"),
        r#""generation":42"#,
        r#""generation":43"#,
    );
    let output = mesh(other.path(), &verify[..5]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(
        said.contains("MESH-0511") && said.contains("shop.cart.jsonl:44"),
        "{said}"
    );
    // A key of another log, and none at all.
    std::fs::write(other.path().join("trusted"), "").expect("written");
    let output = mesh(other.path(), &verify);
    assert_eq!(json_of(&output)[0]["error"]["code"], "MESH-0547");
    let output = mesh(other.path(), &verify[..3]);
    assert!(stdout(&output).contains("MESH-08"), "{}", stdout(&output));
}

#[test]
fn a_proof_of_one_line_stands_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = log(folder.path(), 300, "a");
    let name = lines.to_str().expect("a path");
    let output = mesh(
        folder.path(),
        &["audit", "prove", name, "42", "--out", "proof"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    std::fs::copy(lines.with_extension("pub"), folder.path().join("trusted")).expect("a copy");
    let check = [
        "audit",
        "check-proof",
        "proof",
        "--key",
        "trusted",
        "-o",
        "json",
    ];
    let output = mesh(folder.path(), &check);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = json_of(&output);
    assert_eq!(shown["seq"], 42);
    assert_eq!(shown["size"], 302);
    assert!(
        shown["entry"]
            .as_str()
            .expect("text")
            .contains(r#""generation":41"#)
    );
    // A line that is beyond, a proof of another line, and a witness that nobody is.
    let output = mesh(folder.path(), &["audit", "prove", name, "302"]);
    assert!(stderr(&output).contains("MESH-0545"), "{}", stderr(&output));
    let output = mesh(folder.path(), &[&check[..], &["--witnesses", "1"]].concat());
    assert!(stdout(&output).contains("MESH-0535") || stderr(&output).contains("MESH-0535"));
    edit(&folder.path().join("proof"), "index 42", "index 43");
    let output = mesh(folder.path(), &check[..5]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("MESH-0522"), "{}", stderr(&output));
}

#[test]
fn a_witness_finds_what_the_log_alone_cannot_show() {
    let folder = tempfile::tempdir().expect("a folder");
    log(folder.path(), 20, "a");
    let old = tempfile::tempdir().expect("a folder");
    copy(&folder.path().join("audit"), &old.path().join("audit"));
    log(folder.path(), 20, "a");
    let witness = ["audit", "witness", "audit", "--dir", "witness", "--once"];
    let verify = ["audit", "verify", "audit", "--witness", "witness"];
    for _ in 0..2 {
        let output = mesh(folder.path(), &witness);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let output = mesh(folder.path(), &verify);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(
        stdout(&output).contains("witnessed through line 44"),
        "{}",
        stdout(&output)
    );

    // Put back to an older state: whole in itself.
    std::fs::remove_dir_all(folder.path().join("audit")).expect("removed");
    copy(&old.path().join("audit"), &folder.path().join("audit"));
    assert_eq!(
        mesh(folder.path(), &["audit", "verify", "audit"])
            .status
            .code(),
        Some(0)
    );
    let output = mesh(folder.path(), &verify);
    assert!(stdout(&output).contains("MESH-0514"), "{}", stdout(&output));
    let output = mesh(folder.path(), &witness);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("MESH-0537"), "{}", stderr(&output));

    // And written on to more than was seen, by who holds the key.
    log(folder.path(), 60, "b");
    assert_eq!(
        mesh(folder.path(), &["audit", "verify", "audit"])
            .status
            .code(),
        Some(0)
    );
    let output = mesh(folder.path(), &verify);
    assert!(stdout(&output).contains("MESH-0541"), "{}", stdout(&output));
    let output = mesh(folder.path(), &witness);
    assert!(stderr(&output).contains("MESH-0538"), "{}", stderr(&output));
    assert!(folder.path().join("witness/shop.cart.refused").exists());

    // What the witness kept is no witness any more once it was edited.
    edit(
        &folder.path().join("witness/shop.cart.checkpoint"),
        "witness ",
        "witnesx ",
    );
    let output = mesh(folder.path(), &verify);
    assert!(stdout(&output).contains("MESH-05"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn texts_are_taken_out_and_the_log_stays_proved_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = log(folder.path(), 30, "a");
    let name = lines.to_str().expect("a path");
    let text = || std::fs::read_to_string(&lines).expect("a log");
    assert_eq!(text().matches("10.0.0.9").count(), 30);
    let redact = [
        "audit",
        "redact",
        name,
        "--field",
        "client.ip",
        "--from",
        "5",
        "--through",
        "14",
        "--by",
        "an auditor",
        "--why",
        "a request under data protection law",
    ];
    let output = mesh(folder.path(), &redact);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("10 lines"), "{}", stdout(&output));
    assert_eq!(text().matches("10.0.0.9").count(), 20);
    assert!(text().contains(r#""kind":"redaction""#) && text().contains("an auditor"));
    let verify = ["audit", "verify", "audit"];
    let output = mesh(folder.path(), &verify);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    // Nothing is left to take out: nothing is said.
    let before = text();
    assert!(stdout(&mesh(folder.path(), &redact)).contains("0 lines"));
    assert_eq!(text(), before);
    // A text put in the place of one that is there.
    edit(&lines, r#","10.0.0.9"]"#, r#","10.0.0.8"]"#);
    let output = mesh(folder.path(), &verify);
    assert!(stdout(&output).contains("MESH-0543"), "{}", stdout(&output));
    let output = mesh(
        folder.path(),
        &[
            "audit",
            "redact",
            name,
            "--field",
            "client.id",
            "--by",
            "x",
            "--why",
            "y",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
}
