//! The command as people and programs use it: exit codes, places in messages, order of answers.

use crate::run::{mesh, shop, stderr, stdout};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn explain(extra: &[&str]) -> Output {
    let shop = shop();
    let arguments: Vec<&str> = ["authz", "explain", "-f", &shop]
        .iter()
        .chain(extra)
        .copied()
        .collect();
    mesh(&std::env::temp_dir(), &arguments)
}

#[test]
fn every_allowed_pair_of_the_shop_ends_with_0() {
    for arguments in [
        [
            "--from",
            "shop/web",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "shop/orders",
            "--to",
            "shop/payments:9090",
            "--path",
            "/shop.v1.Payments/Charge",
        ],
        [
            "--from",
            "shop/payments",
            "--to",
            "shop/svc/ledger:7070",
            "--protocol",
            "tcp",
        ],
    ] {
        let output = explain(&arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        assert!(
            stdout(&output).starts_with("ALLOWED"),
            "{}",
            stdout(&output)
        );
    }
}

#[test]
fn everybody_else_ends_with_10() {
    for arguments in [
        [
            "--from",
            "shop/intruder",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "shop/intruder",
            "--to",
            "shop/payments:9090",
            "--path",
            "/shop.v1.Payments/Charge",
        ],
        [
            "--from",
            "shop/intruder",
            "--to",
            "shop/ledger:7070",
            "--protocol",
            "tcp",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/payments:9090",
            "--path",
            "/shop.v1.Payments/Charge",
        ],
        [
            "--from",
            "none",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "none",
            "--to",
            "shop/ledger:7070",
            "--protocol",
            "tcp",
        ],
        [
            "--from",
            "other/web",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "spiffe://other.example/ns/shop/sa/web",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "spiffe://MALFORMED//",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/1",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/orders:8080",
            "--path",
            "/admin",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/orders:8080",
            "--path",
            "/orders/%2fadmin",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/orders:8080",
            "--method",
            "DELETE",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/orders:9",
            "--path",
            "/orders",
        ],
        [
            "--from",
            "shop/web",
            "--to",
            "shop/nobody:8080",
            "--path",
            "/orders",
        ],
    ] {
        let output = explain(&arguments);
        assert_eq!(
            output.status.code(),
            Some(10),
            "{arguments:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        assert!(stdout(&output).starts_with("DENIED"), "{}", stdout(&output));
    }
}

#[test]
fn a_denial_names_file_and_line_of_what_nearly_matched() {
    let output = explain(&[
        "--from",
        "shop/intruder",
        "--to",
        "shop/orders:8080",
        "--path",
        "/orders",
    ]);
    let text = stdout(&output);
    assert!(text.contains("orders-authorization.yaml:"), "{text}");
    assert!(text.contains("AuthorizationPolicy"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "a line is wider than 100 columns:\n{text}"
    );
    assert!(!text.contains('\u{1b}'), "colour without a terminal");
}

#[test]
fn the_json_of_an_explanation_is_a_decision_record_with_layers() {
    let output = explain(&[
        "--from",
        "shop/intruder",
        "--to",
        "shop/orders:8080",
        "--path",
        "/orders?x=1",
        "-o",
        "json",
    ]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (value["verdict"].as_str(), value["status"].as_u64()),
        (Some("deny"), Some(403))
    );
    assert_eq!(value["request"]["path"], "/orders");
    assert!(
        value["near_misses"][0]["source"]
            .as_str()
            .is_some_and(|source| source.contains(".yaml:")),
        "{value}"
    );
    assert!(
        value["layers"]
            .as_array()
            .is_some_and(|layers| !layers.is_empty())
    );
}

#[test]
fn a_question_about_no_running_mesh_is_undecidable() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = mesh(
        folder.path(),
        &[
            "authz",
            "explain",
            "--from",
            "shop/web",
            "--to",
            "shop/orders:8080",
        ],
    );
    assert_eq!(output.status.code(), Some(11));
    assert!(stderr(&output).contains("MESH-0607"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn errors_are_objects_under_o_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = mesh(folder.path(), &["stat", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(error["code"], "MESH-0607");
    assert!(
        error["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("mesh up"))
    );
}

#[test]
fn what_cannot_be_understood_ends_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["--no-such-flag"][..],
        &["authz", "explain", "--from", "nobody", "--to", "a/b:1"],
        &["authz", "explain", "--from", "a/b", "--to", "a/b"],
        &[
            "authz", "explain", "-f", "missing", "--from", "a/b", "--to", "a/b:1",
        ],
        &[
            "authz", "explain", "-f", ".", "--from", "a/b", "--to", "a/b:1",
        ],
        &[
            "authz",
            "explain",
            "-f",
            ".",
            "--from",
            "a/b",
            "--to",
            "a/b:1",
            "--default-policy",
            "open",
        ],
        &["authz", "lint", "missing"],
        &["top", "-l", "app=cart"],
        &["top", "-A", "-n", "shop"],
        &["top", "--routes", "--all"],
        &["top", "--every", "0"],
        &["top", "--sort", "name"],
        &["top", "--paths", "--routes"],
        &["top", "--paths", "-l", "app=cart"],
        &["tap", "-l", "app=cart"],
        &["tap", "-l", "app=cart", "shop/web"],
        &["tap", "--cluster", "shop/web"],
        &["tap", "--status", "99"],
        &["tap", "--rate", "1001"],
        &["tap", "--from", "web"],
        &["tap", "--for", "soon"],
        &["explain", "MESH-9999"],
        &["identity", "show", "--file", "missing.pem"],
        &["audit", "verify", "."],
    ] {
        let output = mesh(folder.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("MESH-"),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_unknown_code_names_the_nearest() {
    let output = mesh(&std::env::temp_dir(), &["explain", "MESH-0101x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("MESH-"), "{}", stderr(&output));
}

const VALID: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  port: 80
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}
";

fn lint(text: &str, extra: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("policy.yaml"), text).expect("a manifest");
    let arguments: Vec<&str> = ["authz", "lint", "."]
        .iter()
        .chain(extra)
        .copied()
        .collect();
    mesh(folder.path(), &arguments)
}

#[test]
fn lint_ends_by_the_worst_that_it_finds() {
    let unknown_field = VALID.replace("podSelector:", "podSelectors:");
    let broken = "kind: [Server\n";
    let idle = VALID.split("---").next().expect("the Server");
    for (text, extra, code) in [
        (VALID, &[][..], 0),
        (VALID, &["--fail-on", "warn"], 0),
        (idle, &[], 0),
        (idle, &["--fail-on", "warn"], 3),
        (&unknown_field, &[], 1),
        (broken, &[], 2),
    ] {
        let output = lint(text, extra);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{extra:?} {text}\n{}{}",
            stdout(&output),
            stderr(&output)
        );
    }
}

#[test]
fn lint_names_file_line_and_column() {
    let text = stdout(&lint(&VALID.replace("podSelector:", "podSelectors:"), &[]));
    assert!(text.contains("policy.yaml:5:3: error MESH-"), "{text}");
    assert!(text.contains("help: "), "{text}");
}

#[test]
fn lint_speaks_sarif() {
    let output = lint(
        &VALID.replace("podSelector:", "podSelectors:"),
        &["-o", "sarif"],
    );
    let log: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let results = log["runs"][0]["results"].as_array().expect("a list");
    let line = |result: &serde_json::Value| {
        result["locations"][0]["physicalLocation"]["region"]["startLine"].clone()
    };
    assert!(results.iter().any(|result| line(result) == 5), "{log}");
}

#[test]
fn the_shop_has_nothing_to_lint() {
    let shop = shop();
    let output = mesh(
        &std::env::temp_dir(),
        &["authz", "lint", &shop, "--fail-on", "warn"],
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
}

fn replay(requests: &str) -> Output {
    let shop = shop();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args([
            "authz",
            "replay",
            "-f",
            &shop,
            "--requests",
            "-",
            "-o",
            "jsonl",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mesh runs");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(requests.as_bytes())
        .expect("requests are read");
    child.wait_with_output().expect("mesh ends")
}

fn request(account: &str, path: &str) -> String {
    format!(
        r#"{{"client":{{"spiffe_id":"spiffe://cluster.local/ns/shop/sa/{account}"}},"server":{{"namespace":"shop","pod":"orders","port":8080}},"method":"GET","path":"{path}"}}"#
    )
}

#[test]
fn replay_answers_each_record_in_order() {
    let requests: Vec<_> = [
        ("web", "/orders"),
        ("intruder", "/orders"),
        ("web", "/other"),
        ("web", "/orders/%00"),
    ]
    .map(|(account, path)| request(account, path))
    .into();
    let output = replay(&format!("{}\n", requests.join("\n")));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let statuses: Vec<_> = stdout(&output)
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("a record")["status"].clone()
        })
        .collect();
    assert_eq!(statuses, [200, 403, 404, 400]);
}

#[test]
fn a_record_that_cannot_be_read_ends_the_replay_at_its_place() {
    let good = request("web", "/orders");
    let output = replay(&format!(
        "{good}\n\n{{\"client\":{{}},\"sever\":1}}\n{good}\n"
    ));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).lines().count(), 1, "{}", stdout(&output));
    assert!(stderr(&output).contains("`-:3:"), "{}", stderr(&output));
}

#[test]
fn cedar_policies_come_with_their_places() {
    let shop = shop();
    let output = mesh(
        &std::env::temp_dir(),
        &["policy", "cedar", "-f", &shop, "--workload", "shop/orders"],
    );
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        text.contains("permit") && text.contains("orders-authorization.yaml:"),
        "{text}"
    );
    let output = mesh(
        &std::env::temp_dir(),
        &["policy", "cedar", "-f", &shop, "--workload", "shop/nobody"],
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shop = shop();
    let script = format!(
        "'{}' authz explain -f '{}' --from shop/web --to shop/orders:8080 --path /orders | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_mesh"),
        shop
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("bash runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn version_and_completions_are_printed() {
    let output = mesh(&std::env::temp_dir(), &["version", "-o", "json"]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(version["name"], "mesh");
    for shell in ["bash", "zsh", "fish"] {
        let output = mesh(&std::env::temp_dir(), &["completion", shell]);
        assert!(
            output.status.success() && stdout(&output).contains("mesh"),
            "{shell}"
        );
    }
}

#[test]
fn launch_becomes_its_command() {
    let output = mesh(
        &std::env::temp_dir(),
        &["launch", "--", "sh", "-c", "exit 7"],
    );
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let output = mesh(&std::env::temp_dir(), &["launch", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("MESH-0616"), "{}", stderr(&output));
}
