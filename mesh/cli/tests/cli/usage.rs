//! Policy from use, as people and pipelines have it: cases, what is unused, suggestions, a candidate beside the live policy.

use crate::run::{authz, copy_shop, json_of, shop, stderr, stdout};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, text).expect("a file");
    path
}

/// A copy of the shop without one of its files.
fn shop_without(folder: &Path, name: &str) -> PathBuf {
    let copy = folder.join("copy");
    copy_shop(&copy);
    std::fs::remove_file(copy.join(name)).expect("a file of the shop");
    copy
}

fn request(account: &str, pod: &str, port: u16, path: Option<&str>) -> Value {
    let mut record = json!({
        "client": { "spiffe_id": format!("spiffe://cluster.local/ns/shop/sa/{account}"), "ip": "10.0.0.9" },
        "server": { "namespace": "shop", "pod": pod, "port": port },
        "protocol": if path.is_some() { "http" } else { "tcp" },
    });
    if let Some(path) = path {
        record["path"] = json!(path);
    }
    record
}

/// Requests of the shop, some denied, as replay decides them.
fn records(folder: &Path) -> PathBuf {
    let mut lines = String::new();
    for n in 0..50 {
        let path = format!("/orders/{n}");
        for record in [
            request("web", "orders", 8080, Some(&path)),
            request("intruder", "orders", 8080, Some(&path)),
            request("payments", "ledger", 7070, None),
        ] {
            lines.push_str(&format!("{record}\n"));
        }
    }
    let requests = write(folder, "requests.jsonl", lines);
    let requests = requests.to_str().expect("text");
    let output = authz(folder, &["replay", "-f", &shop(), "--requests", requests]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    write(folder, "records.jsonl", &output.stdout)
}

// ---- test

#[test]
fn the_cases_of_the_shop_pass_cover_everything_and_notice_every_mistake() {
    let folder = folder();
    let cases = format!("{}/tests", shop());
    let output = authz(
        folder.path(),
        &[
            "test",
            &cases,
            "-f",
            &shop(),
            "--min-coverage",
            "100",
            "--min-score",
            "100",
            "--junit",
            "report.xml",
            "-o",
            "json",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value = json_of(&output);
    assert_eq!(
        (
            &value["failed"],
            &value["coverage"]["percent"],
            &value["mutation"]["score"]
        ),
        (&json!(0), &json!(100), &json!(100))
    );
    assert!(
        value["mutation"]["killed"]
            .as_u64()
            .is_some_and(|killed| killed >= 25)
    );
    let report = std::fs::read_to_string(folder.path().join("report.xml")).expect("a report");
    assert!(
        report.contains("failures=\"0\"") && report.contains("classname="),
        "{report}"
    );
}

#[test]
fn a_policy_that_is_gone_fails_its_case_with_place_and_reason() {
    let folder = folder();
    let copy = shop_without(folder.path(), "policy/payments-authorization.yaml");
    let copy = copy.to_str().expect("text");
    let output = authz(
        folder.path(),
        &[
            "test",
            &format!("{copy}/tests"),
            "-f",
            copy,
            "--junit",
            "report.xml",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("FAIL  orders charges") && text.contains("verdict is deny, expected allow"),
        "{text}"
    );
    assert!(text.contains("access.yaml:"), "{text}");
    let report = std::fs::read_to_string(folder.path().join("report.xml")).expect("a report");
    assert!(
        report.contains("failures=\"1\"") && report.contains("<failure"),
        "{report}"
    );
}

const HEAD: &str = "apiVersion: mesh.internal/v1alpha1\nkind: PolicyTest\nspec:\n  cases:\n";

#[test]
fn too_little_covered_or_noticed_ends_with_1_and_names_what_is_missing() {
    let folder = folder();
    let case =
        "    - {name: a, from: shop/web, to: 'shop/orders:8080', path: /orders, expect: allow}\n";
    let cases = write(folder.path(), "cases.yaml", format!("{HEAD}{case}"));
    let cases = cases.to_str().expect("text");
    let run = |more: &[&str]| {
        let shop = shop();
        let arguments = [&["test", cases, "-f", &shop], more].concat();
        authz(folder.path(), &arguments)
    };
    assert_eq!(run(&["--coverage", "--mutate"]).status.code(), Some(0));
    let output = run(&["--min-coverage", "90"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("never reached  server Server/shop/ledger-tcp"),
        "{text}"
    );
    assert!(
        text.contains("never failed  policy AuthorizationPolicy/shop/orders-read/0"),
        "{text}"
    );
    let output = run(&["--min-score", "90"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("unnoticed  AuthorizationPolicy/shop/orders-read")
            && text.contains("orders-authorization.yaml:"),
        "{text}"
    );
    assert!(
        text.contains("a case would: expect deny of {\"client\""),
        "{text}"
    );
}

#[test]
fn a_target_that_there_is_not_fails_even_where_a_denial_is_expected() {
    let folder = folder();
    let case =
        "    - {name: typo, from: shop/web, to: 'shop/ordrs:8080', path: /orders, expect: deny}\n";
    let cases = write(folder.path(), "cases.yaml", format!("{HEAD}{case}"));
    let output = authz(
        folder.path(),
        &["test", cases.to_str().expect("text"), "-f", &shop()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("there is no such target"),
        "{output:?}"
    );
}

#[test]
fn cases_that_cannot_be_read_end_with_2_and_their_place() {
    let folder = folder();
    let good = "    - {name: a, from: shop/web, to: 'shop/orders:8080', expect: allow}\n";
    for (text, code, why) in [
        (
            format!("{HEAD}{}", good.replace("expect", "expct")),
            "MESH-0660",
            "cases.yaml:5:",
        ),
        (
            format!("{HEAD}{}", good.replace("allow", "perhaps")),
            "MESH-0660",
            "perhaps",
        ),
        (
            format!("{HEAD}{}", good.replace(":8080", "")),
            "MESH-0661",
            "no target",
        ),
        (format!("{HEAD}    - [\n"), "MESH-0660", "cases.yaml"),
        (
            HEAD.replace("cases:", "cases: []"),
            "MESH-0662",
            "no test case",
        ),
        (String::new(), "MESH-0662", "no test case"),
        (
            "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n".to_owned(),
            "MESH-0660",
            "metadata",
        ),
    ] {
        let cases = write(folder.path(), "cases.yaml", &text);
        let output = authz(
            folder.path(),
            &["test", cases.to_str().expect("text"), "-f", &shop()],
        );
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(
            said.contains(code) && (why == "metadata" || said.contains(why)),
            "{text}: {said}"
        );
    }
    let cases = write(folder.path(), "cases.yaml", b"\xff\xfe\x00");
    let output = authz(
        folder.path(),
        &["test", cases.to_str().expect("text"), "-f", &shop()],
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = authz(folder.path(), &["test", "none.yaml", "-f", &shop()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // A report that cannot be written is not a run that passed.
    let cases = format!("{}/tests", shop());
    let output = authz(
        folder.path(),
        &["test", &cases, "-f", &shop(), "--junit", "none/report.xml"],
    );
    assert!(stderr(&output).contains("MESH-0663"), "{output:?}");
    assert_eq!(output.status.code(), Some(2));
}

// ---- records

#[test]
fn records_that_cannot_be_read_end_with_2_in_every_command() {
    let folder = folder();
    let good = std::fs::read_to_string(records(folder.path())).expect("records");
    let first = good.lines().next().expect("a record");
    let mut hostile: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "MESH-0665"),
        ("blank", b"\n\n".to_vec(), "MESH-0665"),
        (
            "request",
            request("web", "orders", 8080, None)
                .to_string()
                .into_bytes(),
            "MESH-0664",
        ),
        (
            "schema",
            first
                .replace("\"generation\"", "\"generations\"")
                .into_bytes(),
            "MESH-0664",
        ),
        (
            "cut",
            first.as_bytes()[..first.len() / 2].to_vec(),
            "MESH-0664",
        ),
        (
            "utf8",
            [first.as_bytes(), b"\n{\"a\":\"\xff\"}\n"].concat(),
            "MESH-0664",
        ),
        (
            "kind",
            br#"{"kind":"trace","record":{}}"#.to_vec(),
            "MESH-0664",
        ),
    ];
    hostile.push(("huge", vec![b'['; (4 << 20) + 10], "MESH-0664"));
    hostile.push(("deep", vec![b'['; 100_000], "MESH-0664"));
    for (name, bytes, code) in hostile {
        let file = write(folder.path(), "hostile.jsonl", bytes);
        let file = file.to_str().expect("text");
        for arguments in [
            vec!["unused"],
            vec!["suggest"],
            vec!["shadow", "--candidate"],
        ] {
            let shop = shop();
            let mut arguments = arguments;
            if arguments.len() == 2 {
                arguments.push(&shop);
            }
            arguments.extend(["-f", &shop, "--records", file]);
            let output = authz(folder.path(), &arguments);
            let said = stderr(&output);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{name} {arguments:?}: {said}"
            );
            assert!(said.contains(code), "{name} {arguments:?}: {said}");
        }
    }
    // A long line is refused for its length, before anything reads it.
    let long = format!(
        "{{\"kind\":\"start\",\"record\":\"{}\"}}",
        "x".repeat(4 << 20)
    );
    write(folder.path(), "long.jsonl", long);
    let output = authz(
        folder.path(),
        &["unused", "-f", &shop(), "--records", "long.jsonl"],
    );
    assert!(stderr(&output).contains("longer than"), "{output:?}");
    let output = authz(
        folder.path(),
        &["unused", "-f", &shop(), "--records", "none"],
    );
    assert_eq!(output.status.code(), Some(2));
}

// ---- unused

#[test]
fn what_traffic_did_not_use_is_listed_with_its_place() {
    let folder = folder();
    let records = records(folder.path());
    let records = records.to_str().expect("text");
    let output = authz(
        folder.path(),
        &["unused", "-f", &shop(), "--records", records],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(
        text.contains("never used  policy AuthorizationPolicy/shop/payments-charge/0")
            && text.contains("payments-authorization.yaml:"),
        "{text}"
    );
    assert!(
        !text.contains("orders-read") && !text.contains("ledger-post"),
        "{text}"
    );
    let output = authz(
        folder.path(),
        &[
            "unused",
            "-f",
            &shop(),
            "--records",
            records,
            "--fail-on",
            "warn",
            "-o",
            "json",
            "--all",
        ],
    );
    assert_eq!(output.status.code(), Some(3));
    let value = json_of(&output);
    assert_eq!(value["records"], 150);
    let parts = value["parts"].as_array().expect("parts");
    let used = parts
        .iter()
        .find(|one| one["name"] == "AuthorizationPolicy/shop/ledger-post/0");
    assert_eq!(used.expect("the grant")["count"], 50);
}

#[test]
fn a_log_with_gaps_says_so() {
    let folder = folder();
    let first = std::fs::read_to_string(records(folder.path())).expect("records");
    let first = first.lines().next().expect("a record").to_owned();
    let log = format!(
        "{{\"seq\":0,\"kind\":\"start\",\"record\":{{}}}}\n{{\"seq\":1,\"kind\":\"decision\",\"record\":{first}}}\n{{\"seq\":2,\"kind\":\"gap\",\"record\":{{\"lost\":7}}}}\n"
    );
    write(folder.path(), "audit/shop.orders.jsonl", log);
    let output = authz(
        folder.path(),
        &["unused", "-f", &shop(), "--records", "audit"],
    );
    assert_eq!(output.status.code(), Some(0));
    let said = stderr(&output);
    assert!(said.contains("7 records are missing"), "{said}");
    assert!(said.contains("of what was allowed a sample"), "{said}");
}

// ---- suggest

#[test]
fn a_suggestion_allows_what_was_seen_and_no_more() {
    let folder = folder();
    let records = records(folder.path());
    let records = records.to_str().expect("text");
    let output = authz(
        folder.path(),
        &["suggest", "-f", &shop(), "--records", records],
    );
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("0 of 30 records held back would be denied"),
        "{said}"
    );
    assert!(said.contains("0 beyond what was seen"), "{said}");
    let yaml = stdout(&output);
    assert!(
        yaml.contains("[0-9]+") && !yaml.contains("intruder"),
        "{yaml}"
    );
    // In the place of the shop's own grants it decides the recorded traffic as they did.
    let workloads = format!("{}/workloads.yaml", shop());
    let servers = format!("{}/policy/servers.yaml", shop());
    let suggested = write(folder.path(), "suggested.yaml", &yaml);
    let shop = shop();
    let arguments = [
        "shadow",
        "-f",
        &shop,
        "--candidate",
        &workloads,
        "--candidate",
        &servers,
        "--candidate",
        suggested.to_str().expect("text"),
        "--records",
        records,
    ];
    let output = authz(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("150 requests: 0 gain access, 0 lose it"));
}

#[test]
fn what_was_only_seen_later_is_said_to_be_denied() {
    let folder = folder();
    let mut lines = String::new();
    for n in 0..40 {
        let path = if n < 35 { "/orders/1" } else { "/orders/new" };
        lines.push_str(&format!("{}\n", request("web", "orders", 8080, Some(path))));
    }
    let requests = write(folder.path(), "requests.jsonl", lines);
    let requests = requests.to_str().expect("text");
    let output = authz(
        folder.path(),
        &["replay", "-f", &shop(), "--requests", requests],
    );
    let records = write(folder.path(), "later.jsonl", &output.stdout);
    let records = records.to_str().expect("text");
    let suggest = |more: &[&str]| {
        let shop = shop();
        let arguments = [
            &["suggest", "-f", &shop, "--records", records, "-o", "json"],
            more,
        ]
        .concat();
        authz(folder.path(), &arguments)
    };
    let value = json_of(&suggest(&["--hold-back", "25"]));
    assert_eq!(value["held_back"], 10);
    assert_eq!(value["held_back_denied"][0]["count"], 5);
    assert_eq!(
        value["held_back_denied"][0]["witness"]["path"],
        "/orders/new"
    );
    // Nothing held back: it is learned, and warned of as rarely seen under a higher bar.
    let value = json_of(&suggest(&["--hold-back", "0", "--few", "6"]));
    assert_eq!(
        (&value["held_back"], &value["held_back_denied"]),
        (&json!(0), &json!([]))
    );
    assert!(
        value["warnings"][0]
            .as_str()
            .is_some_and(|one| one.contains("only 5 times"))
    );
}

#[test]
fn denied_traffic_suggests_nothing() {
    let folder = folder();
    let all = std::fs::read_to_string(records(folder.path())).expect("records");
    let denied: Vec<&str> = all
        .lines()
        .filter(|line| line.contains("\"deny\""))
        .collect();
    assert_eq!(denied.len(), 50);
    let file = write(folder.path(), "denied.jsonl", denied.join("\n"));
    let file = file.to_str().expect("text");
    let output = authz(
        folder.path(),
        &["suggest", "-f", &shop(), "--records", file],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("MESH-0667") && stderr(&output).contains("40 denied"),
        "{output:?}"
    );
    assert_eq!(stdout(&output), "");
}

// ---- shadow and replay

#[test]
fn a_candidate_that_changes_access_ends_with_1_and_a_witness() {
    let folder = folder();
    let records = records(folder.path());
    let records = records.to_str().expect("text");
    let copy = shop_without(folder.path(), "policy/ledger-authorization.yaml");
    let copy = copy.to_str().expect("text");
    let shop = shop();
    let shadow = |live: &str, candidate: &str| {
        let arguments = [
            "shadow",
            "-f",
            live,
            "--candidate",
            candidate,
            "--records",
            records,
            "-o",
            "json",
        ];
        authz(folder.path(), &arguments)
    };
    assert_eq!(shadow(&shop, &shop).status.code(), Some(0));
    let output = shadow(&shop, copy);
    assert_eq!(output.status.code(), Some(1));
    let value = json_of(&output);
    let one = &value["differences"][0];
    assert_eq!((&one["turn"], &one["count"]), (&json!("lost"), &json!(50)));
    assert_eq!(
        one["live"]["reasons"],
        json!(["AuthorizationPolicy/shop/ledger-post/0"])
    );
    assert_eq!(
        (&one["candidate"]["phase"], &value["drifted"]),
        (&json!("permit"), &json!(0))
    );
    let output = shadow(copy, &shop);
    assert_eq!(output.status.code(), Some(1));
    let value = json_of(&output);
    assert_eq!(value["differences"][0]["turn"], "gained");
    // The live policy is not the one that was recorded.
    assert_eq!(value["drifted"], 50);
}

#[test]
fn replay_counts_classes() {
    let folder = folder();
    records(folder.path());
    let output = authz(
        folder.path(),
        &[
            "replay",
            "-f",
            &shop(),
            "--requests",
            "requests.jsonl",
            "--classes",
        ],
    );
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["count"] == 50));
    let denied = lines
        .iter()
        .find(|line| line["verdict"] == "deny")
        .expect("a class");
    assert_eq!(denied["from"], "spiffe://cluster.local/ns/shop/sa/intruder");
    assert_eq!(denied["example"]["path"], "/orders/0");
}
