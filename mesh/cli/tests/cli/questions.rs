//! Questions beyond one request, as people and pipelines ask them: exit codes, witnesses, and input that is refused.

use crate::run::{authz, copy_shop, json_of, shop, stderr, stdout};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The shop, and the shop with a grant to the intruder.
fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    for side in [&before, &after] {
        copy_shop(side);
    }
    let grant = "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: oops, namespace: shop}\nspec:\n  targetRef: {group: policy.linkerd.io, kind: Server, name: ledger-post}\n  requiredAuthenticationRefs: [{group: '', kind: ServiceAccount, name: intruder}]\n";
    let server = stdout(&authz(
        folder.path(),
        &[
            "who-can",
            "-f",
            &shop(),
            "--to",
            "shop/ledger:7070",
            "-o",
            "json",
        ],
    ));
    assert!(server.contains("shop/payments"), "{server}");
    let explained = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args([
            "authz",
            "explain",
            "-f",
            &shop(),
            "--from",
            "none",
            "--to",
            "shop/ledger:7070",
            "-o",
            "json",
        ])
        .output()
        .expect("mesh runs");
    let name = json_of(&explained)["server"]["name"]
        .as_str()
        .expect("a Server")
        .to_owned();
    std::fs::write(
        after.join("policy/oops.yaml"),
        grant.replace("ledger-post", &name),
    )
    .expect("a file");
    (folder, before, after)
}

fn diff(folder: &Path, before: &Path, after: &Path, more: &[&str]) -> Output {
    let sides = [
        before.to_str().expect("text"),
        after.to_str().expect("text"),
    ];
    let arguments: Vec<&str> = ["diff"].iter().chain(&sides).chain(more).copied().collect();
    authz(folder, &arguments)
}

#[test]
fn who_can_names_everybody_and_the_place_of_what_lets_them_in() {
    let folder = std::env::temp_dir();
    let output = authz(
        &folder,
        &[
            "who-can",
            "-f",
            &shop(),
            "--to",
            "shop/orders:8080",
            "-o",
            "json",
        ],
    );
    let value = json_of(&output);
    assert_eq!(
        (output.status.code(), &value[0]["exact"]),
        (Some(0), &Value::Bool(true))
    );
    assert_eq!(
        value[0]["access"][0]["who"],
        serde_json::json!(["shop/web"])
    );
    assert!(
        value[0]["access"][0]["reasons"][0]["source"]
            .as_str()
            .is_some_and(|place| place.contains(".yaml:"))
    );
    // One request alone.
    for (path, want) in [("/orders/1", true), ("/admin", false)] {
        let output = authz(
            &folder,
            &[
                "who-can",
                "-f",
                &shop(),
                "--to",
                "shop/orders:8080",
                "--path",
                path,
            ],
        );
        assert_eq!(stdout(&output).contains("shop/web"), want, "{path}");
    }
}

#[test]
fn what_can_and_the_matrix_agree() {
    let folder = std::env::temp_dir();
    let text = stdout(&authz(
        &folder,
        &["what-can", "-f", &shop(), "--from", "shop/web"],
    ));
    assert!(
        text.contains("shop/orders:8080") && !text.contains("shop/ledger"),
        "{text}"
    );
    let text = stdout(&authz(
        &folder,
        &["what-can", "-f", &shop(), "--from", "shop/intruder"],
    ));
    assert_eq!(text, "nothing is allowed\n");
    let csv = stdout(&authz(&folder, &["matrix", "-f", &shop(), "-o", "csv"]));
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    assert_eq!(
        rows.iter()
            .skip(1)
            .flat_map(|row| &row[1..])
            .filter(|cell| !cell.is_empty())
            .count(),
        3
    );
    assert!(
        stdout(&authz(
            &folder,
            &["matrix", "-f", &shop(), "-o", "markdown"]
        ))
        .lines()
        .nth(1)
        .is_some_and(|l| l.starts_with("|---"))
    );
}

#[test]
fn a_difference_ends_with_1_and_its_witness_is_decided_so_by_replay() {
    let (folder, before, after) = two();
    let folder = folder.path();
    assert_eq!(diff(folder, &before, &before, &[]).status.code(), Some(0));
    let output = diff(folder, &before, &after, &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let value = json_of(&output);
    assert_eq!(
        value["gained"][0]["who"],
        serde_json::json!(["shop/intruder"])
    );
    let witness = value["gained"][0]["witness"].to_string();
    for (side, verdict) in [(&before, "deny"), (&after, "allow")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(["authz", "replay", "--requests", "-", "-f"])
            .arg(side)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("mesh runs");
        writeln!(child.stdin.take().expect("a pipe"), "{witness}").expect("written");
        let record = json_of(&child.wait_with_output().expect("an answer"));
        assert_eq!(record["verdict"], verdict);
    }
    // Lost alone is no failure under --fail-on gained.
    assert_eq!(diff(folder, &after, &before, &[]).status.code(), Some(1));
    assert_eq!(
        diff(folder, &after, &before, &["--fail-on", "gained"])
            .status
            .code(),
        Some(0)
    );
    let sarif = json_of(&diff(folder, &before, &after, &["-o", "sarif"]));
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(
        (&sarif["version"], &result["ruleId"]),
        (&"2.1.0".into(), &"access-gained".into())
    );
    let place = &result["locations"][0]["physicalLocation"];
    assert!(
        place["artifactLocation"]["uri"]
            .as_str()
            .is_some_and(|uri| uri.ends_with("oops.yaml"))
    );
    assert_eq!(place["region"]["startLine"], 1);
    assert!(
        stdout(&diff(folder, &before, &after, &["-o", "markdown"])).contains("| shop/intruder |")
    );
}

#[test]
fn a_git_revision_is_compared_without_a_checkout() {
    let (folder, before, after) = two();
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("git runs");
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "before"]);
    git(&["commit", "-qm", "one"]);
    let after = after.to_str().expect("text");
    assert!(before.is_dir());
    for revision in ["git:HEAD", "git:HEAD:before"] {
        let output = authz(folder.path(), &["diff", revision, after]);
        assert_eq!(output.status.code(), Some(1), "{revision}: {output:?}");
        assert!(
            stdout(&output).starts_with("+ shop/intruder"),
            "{}",
            stdout(&output)
        );
    }
    for broken in [
        "git:nowhere",
        "git:",
        "git:--output=x",
        "git:HEAD:",
        "git:HEAD:none",
    ] {
        let output = authz(folder.path(), &["diff", broken, after]);
        assert_eq!(output.status.code(), Some(2), "{broken}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("MESH-0644"),
            "{broken}: {output:?}"
        );
    }
}

#[test]
fn a_proof_ends_with_0_1_or_11_and_never_holds_over_what_could_not_be_read() {
    let (folder, before, after) = two();
    let prove = |side: &Path, more: &[&str]| {
        let side = ["prove", "-f", side.to_str().expect("text")];
        let arguments: Vec<&str> = side.iter().chain(more).copied().collect();
        authz(folder.path(), &arguments)
    };
    let claim = ["--no-path", "shop/intruder", "shop/ledger"];
    let output = prove(&before, &claim);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).starts_with("holds"));
    let output = prove(&after, &claim);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("oops.yaml:1") && stdout(&output).starts_with("violated"));
    assert_eq!(prove(&after, &["--deny-anonymous"]).status.code(), Some(0));
    // Nothing to prove, and names that nobody has, are no proof.
    assert_eq!(prove(&before, &[]).status.code(), Some(2));
    assert_eq!(
        prove(&before, &["--no-path", "nobody", "shop"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        prove(&before, &["--no-path", "shop"]).status.code(),
        Some(2)
    );
    assert_eq!(
        prove(&before, &["--no-path", "outside", "shop"])
            .status
            .code(),
        Some(2),
        "nobody comes from there"
    );
    // Where nothing is said of what leaves, all do.
    let nobody_leaves = ["--no-path", "shop/intruder", "outside"];
    let output = prove(&before, &nobody_leaves);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let closed = "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: { name: none, namespace: shop }\nspec: { trafficPolicy: Deny }\n";
    std::fs::write(before.join("closed.yaml"), closed).expect("a file");
    let output = prove(&before, &nobody_leaves);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    std::fs::write(before.join("broken.yaml"), "kind: [").expect("a file");
    let output = prove(&before, &claim);
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("MESH-0646") && output.stdout.is_empty()
    );
}

#[test]
fn a_graph_has_edges_and_a_cut() {
    let folder = std::env::temp_dir();
    let graph = |more: &[&str]| {
        let shop = shop();
        let arguments: Vec<&str> = ["graph", "-f", &shop].iter().chain(more).copied().collect();
        authz(&folder, &arguments)
    };
    assert_eq!(stdout(&graph(&["--from", "shop/web"])).lines().count(), 3);
    assert_eq!(
        stdout(&graph(&["--from", "shop/web", "--depth", "1"]))
            .lines()
            .count(),
        1
    );
    assert!(stdout(&graph(&["-o", "dot"])).starts_with("digraph access {\n"));
    let value = json_of(&graph(&["--cut", "shop/web", "shop/ledger", "-o", "json"]));
    assert_eq!(
        (value["grants"].as_array().map(Vec::len), &value["smallest"]),
        (Some(1), &Value::Bool(true))
    );
    assert!(stdout(&graph(&["--cut", "shop/intruder", "shop/ledger"])).contains("no path"));
}

#[test]
fn targets_and_paths_that_there_are_not_end_with_2_and_no_mesh_with_11() {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = shop();
    for (arguments, code) in [
        (&["who-can", "-f", &shop, "--to", "shop/nobody:1"][..], 2),
        (&["who-can", "-f", &shop, "--to", "shop/orders"], 2),
        (&["who-can", "-f", "missing", "--to", "shop/orders:1"], 2),
        (&["what-can", "-f", &shop, "--from", "web"], 2),
        (&["what-can", "-f", &shop, "--from", "spiffe://UPPER/x"], 2),
        (&["matrix", "-f", "missing"], 2),
        (&["diff", &shop, "missing"], 2),
        (&["diff", &shop], 2),
        (&["prove", "--deny-anonymous"], 2),
        (&["graph", "-f", &shop, "--from", "nobody"], 2),
        (&["graph", "-f", &shop, "--cut", "shop/web", "nobody"], 2),
        (&["who-can", "--to", "shop/orders:8080"], 11),
        (&["matrix"], 11),
        (&["diff", &shop, "live"], 11),
    ] {
        let output = authz(folder.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// A solver that is none, of those that the prover is tested with.
fn fake(name: &str) -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../policy-engine/symbolic/tests/symbolic/fakes/"
    );
    format!("{folder}{name}")
}

#[test]
fn what_a_solver_does_not_prove_does_not_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_shop(&folder.path().join("shop"));
    let prove = |more: &[&str]| {
        let asked = ["prove", "-f", "shop", "--deny-anonymous", "-o", "json"];
        authz(folder.path(), &[&asked, more].concat())
    };
    let classes = json_of(&prove(&[]))[0]["verdict"].clone();
    for (name, said) in [
        ("unsat", "no request is possible at all"),
        ("unknown", "does not know"),
        ("crash", "ended"),
        ("rubbish", "no request"),
    ] {
        let output = prove(&["--symbolic", "--solver", &fake(name)]);
        let answer = json_of(&output)[0].clone();
        assert_eq!(answer["classes"]["verdict"], classes, "{name}: {answer}");
        assert_eq!(answer["solver"]["verdict"], "unknown", "{name}: {answer}");
        let why = answer["solver"]["why"].as_str().expect("a reason");
        assert!(why.contains(said), "{name}: {why}");
        if classes != "violated" {
            assert_eq!(answer["verdict"], "undecided", "{name}: {answer}");
            assert_eq!(output.status.code(), Some(11), "{name}");
        }
    }
    let begun = std::time::Instant::now();
    let hanging = ["--symbolic", "--solver-timeout", "200ms", "--solver"];
    let output = prove(&[&hanging[..], &[&fake("hang")]].concat());
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn who_is_no_solver_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_shop(&folder.path().join("shop"));
    for (name, code, said) in [
        ("none of this name", "MESH-0647", "cannot be used"),
        ("old", "MESH-0648", "version 1.0.3"),
        ("liar", "MESH-0648", "wrongly"),
        ("other", "MESH-0648", "Z3"),
    ] {
        let program = fake(name);
        let asked = ["prove", "-f", "shop", "--deny-anonymous", "--symbolic"];
        let output = authz(
            folder.path(),
            &[&asked[..], &["--solver", &program]].concat(),
        );
        assert_eq!(output.status.code(), Some(11), "{name}: {output:?}");
        let text = stderr(&output);
        assert!(text.contains(code) && text.contains(said), "{name}: {text}");
    }
    let asked = [
        "prove",
        "-f",
        "shop",
        "--deny-anonymous",
        "--solver",
        "cvc5",
    ];
    let output = authz(folder.path(), &asked);
    assert_eq!(output.status.code(), Some(2), "a solver alone asks nothing");
}
