//! Questions about what leaves the mesh: exit codes of a difference, its forms, and that `authz egress` agrees with each
//! witness.

use crate::run::{authz, json_of, stdout};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {serviceAccountName: web, containers: [{name: app}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: guard, namespace: mesh-system}
spec: {trafficPolicy: Deny}
";

const ROUTE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bank, namespace: mesh-system}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: guard, port: 80}]
  hostnames: [api.bank.example]
  rules: [{matches: [{path: {value: /pay}, method: POST, headers: [{name: x-team, value: it's}]}]}]
";

/// A folder with the guard alone, and with a route on it.
fn two() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    write("closed.yaml", POD);
    write("open.yaml", &format!("{POD}{ROUTE}"));
    folder
}

fn diff(folder: &Path, before: &str, after: &str, more: &[&str]) -> Output {
    authz(folder, &[&["diff", before, after], more].concat())
}

#[test]
fn what_opens_the_outside_ends_with_1_in_every_form() {
    let folder = two();
    let folder = folder.path();
    let gained = ["--fail-on", "gained"];
    let code = |output: Output| output.status.code();
    assert_eq!(
        code(diff(folder, "closed.yaml", "closed.yaml", &[])),
        Some(0)
    );
    assert_eq!(
        code(diff(folder, "closed.yaml", "open.yaml", &gained)),
        Some(1)
    );
    assert_eq!(code(diff(folder, "open.yaml", "closed.yaml", &[])), Some(1));
    assert_eq!(
        code(diff(folder, "open.yaml", "closed.yaml", &gained)),
        Some(0)
    );
    let value = json_of(&diff(folder, "closed.yaml", "open.yaml", &["-o", "json"]));
    assert_eq!(value["gained"], serde_json::json!([]));
    let change = &value["outside"]["gained"][0];
    assert_eq!(change["ports"], serde_json::json!(["80"]));
    assert_eq!(change["before"]["decision"]["verdict"], "deny");
    let sarif = json_of(&diff(folder, "closed.yaml", "open.yaml", &["-o", "sarif"]));
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "egress-gained");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "open.yaml");
    let sarif = json_of(&diff(folder, "open.yaml", "closed.yaml", &["-o", "sarif"]));
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "egress-lost");
    let text = stdout(&diff(
        folder,
        "closed.yaml",
        "open.yaml",
        &["-o", "markdown"],
    ));
    assert!(text.contains("1 gained, 0 lost"), "{text}");
    assert!(
        text.contains("| shop/web | outside any address port 80 |"),
        "{text}"
    );
}

#[test]
fn the_command_that_a_difference_prints_is_decided_so() {
    let folder = two();
    let folder = folder.path();
    let text = stdout(&diff(folder, "closed.yaml", "open.yaml", &[]));
    let lines: Vec<&str> = text.lines().collect();
    let commands = lines
        .iter()
        .filter_map(|line| line.trim().strip_prefix("e.g. mesh authz "));
    let commands: Vec<&str> = commands.collect();
    assert!(!commands.is_empty(), "{text}");
    for command in commands {
        for (file, code) in [("closed.yaml", 10), ("open.yaml", 0)] {
            let program = env!("CARGO_BIN_EXE_mesh");
            let shell = format!("{program} authz {command} -f {file}");
            let mut run = std::process::Command::new("sh");
            let output = run.args(["-c", &shell]).current_dir(folder).output();
            let output = output.expect("sh runs");
            assert_eq!(output.status.code(), Some(code), "{shell}: {output:?}");
        }
    }
}

#[test]
fn who_gets_out_and_where_to() {
    let folder = two();
    let folder = folder.path();
    let who = |more: &[&str]| {
        let first = ["who-can", "-f", "open.yaml", "-o", "json", "--outside"];
        json_of(&authz(folder, &[&first, more].concat()))
    };
    let all = who(&["203.0.113.7:80"]);
    assert_eq!(all[0]["workloads"], serde_json::json!(["shop/web"]));
    assert_eq!(
        all[0]["access"][0]["reasons"][0]["policy"],
        "HTTPRoute/mesh-system/bank/0"
    );
    let nobody = Value::Array(Vec::new());
    assert_eq!(who(&["203.0.113.7:443"]), nobody);
    assert_eq!(
        who(&["203.0.113.7:80", "--sni", "api.bank.example"]),
        nobody
    );
    assert_eq!(who(&["203.0.113.7:80", "--host", "evil.example"]), nobody);
    // The address as some programs write it.
    assert_eq!(
        who(&["[::ffff:203.0.113.7]:80"])[0]["workloads"],
        all[0]["workloads"]
    );
    let to = [
        "what-can",
        "-f",
        "open.yaml",
        "--outside",
        "--from",
        "shop/web",
    ];
    let text = stdout(&authz(folder, &to));
    assert!(text.contains("outside any address port 80"), "{text}");
    let stranger = [
        "what-can",
        "-f",
        "open.yaml",
        "--outside",
        "--from",
        "shop/nobody",
    ];
    assert_eq!(authz(folder, &stranger).status.code(), Some(2));
    let both = [
        "who-can",
        "-f",
        "open.yaml",
        "--outside",
        "203.0.113.7:80",
        "--to",
        "shop/web:80",
    ];
    assert_eq!(authz(folder, &both).status.code(), Some(2));
    assert_eq!(
        authz(folder, &["who-can", "-f", "open.yaml"]).status.code(),
        Some(2)
    );
    let graph = ["graph", "-f", "open.yaml", "--outside", "-o", "dot"];
    let dot = stdout(&authz(folder, &graph));
    assert!(
        dot.contains("\"shop/web\" -> \"outside\" [label=\"HTTPRoute/mesh-system/bank/0\"]"),
        "{dot}"
    );
}
