//! `mesh authz import` as people use it, and every command of the guides to it.

use crate::run::{mesh, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::Output;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An empty folder with the examples in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let examples = root()
        .join("examples")
        .canonicalize()
        .expect("the examples");
    std::os::unix::fs::symlink(examples, folder.path().join("examples")).expect("a link");
    folder
}

fn import(folder: &Path, from: &str, arguments: &[&str]) -> Output {
    let head = ["authz", "import", "--from", from];
    mesh(
        folder,
        &head.iter().chain(arguments).copied().collect::<Vec<_>>(),
    )
}

#[track_caller]
fn ends_with(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{}",
        stdout(output),
        stderr(output)
    );
}

const ISTIO: &str = "examples/import/istio";

/// A policy that can be kept as it is, and the Deployment that it selects.
const EXACT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: cart, ports: [{containerPort: 8080}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]
";

/// A folder with a file of this text.
fn with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("istio.yaml"), text).expect("a file");
    folder
}

/// Files of a folder, by name.
fn files(path: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(path)
        .expect("a folder")
        .flatten()
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path()).expect("a file");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_command_of_the_guides_does_what_they_say() {
    for guide in ["migrate-from-istio", "migrate-from-linkerd"] {
        let text = std::fs::read_to_string(root().join(format!("docs/guides/{guide}.md")))
            .expect("a guide");
        let folder = folder();
        let mut commands = 0;
        let blocks = text
            .split("```console\n")
            .skip(1)
            .filter_map(|block| block.split("```").next());
        for line in blocks.flat_map(str::lines) {
            let line = line
                .strip_prefix("$ mesh ")
                .unwrap_or_else(|| panic!("{guide}: `{line}` is no command"));
            let (line, code) = match line.split_once("# ends with ") {
                Some((line, code)) => (line, code.trim().parse().expect("an exit code")),
                None => (line, 0),
            };
            let output = mesh(folder.path(), &line.split_whitespace().collect::<Vec<_>>());
            assert_eq!(
                output.status.code(),
                Some(code),
                "{guide}: {line}\n{}\n{}",
                stdout(&output),
                stderr(&output)
            );
            commands += 1;
        }
        assert!(commands >= 5, "{guide} has {commands} commands");
    }
}

#[test]
fn the_library_is_imported_as_it_stands_beside_it() {
    let folder = folder();
    let output = import(folder.path(), "istio", &["-f", ISTIO, "--out", "imported"]);
    ends_with(&output, 0);
    let (made, kept) = (
        files(&folder.path().join("imported")),
        files(&root().join("examples/import/istio-imported")),
    );
    assert_eq!(
        made, kept,
        "run `mesh authz import --from istio -f examples/import/istio --out ...` anew"
    );
    let report = stdout(&output);
    for (status, place) in [
        (
            "kept          examples/import/istio/policies.yaml:14:",
            "AuthorizationPolicy library/desk spec.rules[0]",
        ),
        (
            "not kept      examples/import/istio/tokens.yaml:16: MESH-0341",
            "requestPrincipals",
        ),
        (
            "not kept      examples/import/istio/tokens.yaml:2: MESH-0347",
            "RequestAuthentication library/cards",
        ),
    ] {
        assert!(
            report
                .lines()
                .any(|l| l.starts_with(status) && l.contains(place)),
            "{status} {place}\n{report}"
        );
    }
}

#[test]
fn what_is_imported_passes_the_lint_without_errors() {
    let folder = folder();
    ends_with(
        &import(folder.path(), "istio", &["-f", ISTIO, "--out", "imported"]),
        0,
    );
    ends_with(
        &mesh(
            folder.path(),
            &[
                "authz",
                "lint",
                "imported",
                "examples/import/istio/workloads.yaml",
            ],
        ),
        0,
    );
}

#[test]
fn without_a_folder_manifests_go_to_stdout_and_the_report_to_stderr() {
    let folder = folder();
    let output = import(folder.path(), "istio", &["-f", ISTIO, "-o", "json"]);
    ends_with(&output, 0);
    assert!(
        stdout(&output).starts_with("# Made by `mesh authz import")
            && stdout(&output).contains("kind: CedarPolicy")
    );
    let report = stderr(&output);
    let end = report.rfind("\n}").expect("a JSON object") + 2;
    let report: serde_json::Value = serde_json::from_str(&report[..end]).expect("JSON");
    assert_eq!(report["from"], "istio");
    assert!(report["summary"]["notKept"].as_u64() > Some(0));
    let facts = report["facts"].as_array().expect("facts");
    assert!(
        facts
            .iter()
            .all(|f| f["place"]["line"].as_u64() > Some(0) && f["status"].is_string())
    );
    assert!(
        report["written"]
            .as_array()
            .expect("objects")
            .iter()
            .any(|w| w["kind"] == "Server")
    );
}

#[test]
fn the_report_comes_as_yaml_too() {
    let folder = folder();
    let output = import(
        folder.path(),
        "istio",
        &["-f", ISTIO, "--out", "imported", "-o", "yaml"],
    );
    ends_with(&output, 0);
    assert!(
        stdout(&output).starts_with("from: istio\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn fail_on_warn_tells_whether_all_was_kept() {
    let folder = with(EXACT);
    ends_with(
        &import(folder.path(), "istio", &["-f", ".", "--fail-on", "warn"]),
        0,
    );
    let audit = EXACT.replace("ALLOW", "AUDIT");
    ends_with(
        &import(
            with(&audit).path(),
            "istio",
            &["-f", ".", "--fail-on", "warn"],
        ),
        3,
    );
    ends_with(&import(with(&audit).path(), "istio", &["-f", "."]), 0);
}

#[test]
fn input_that_cannot_be_understood_ends_with_2_and_writes_nothing() {
    let huge = format!("{EXACT}---\n# {}\n", "x".repeat(11 << 20));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..9 {
        bomb.push_str(&format!(
            "a{n}: &a{n} [{}]\n",
            vec![format!("*a{}", n - 1); 9].join(", ")
        ));
    }
    for (text, place, code) in [
        (
            format!("{EXACT}---\nkind: [x\n"),
            "istio.yaml:17:",
            "MESH-0350",
        ),
        (
            EXACT.replace("ALLOW", "PERMIT"),
            "istio.yaml:13:11",
            "MESH-0359",
        ),
        (
            EXACT.replace("ALLOW", "CUSTOM"),
            "istio.yaml:13:11",
            "MESH-0340",
        ),
        (
            EXACT.replace("principals", "principal"),
            "istio.yaml:14:",
            "MESH-0358",
        ),
        (bomb, "istio.yaml:", "MESH-0351"),
        (huge, "istio.yaml:1:1", "MESH-0351"),
        (
            EXACT.replace(
                "metadata: {name: cart, namespace: shop}\nspec:\n  action",
                "metadata: {name: cart, namespace: shop, labels: {a: 1}}\nspec:\n  action",
            ),
            "istio.yaml:11:",
            "MESH-0356",
        ),
    ] {
        let folder = with(&text);
        let output = import(folder.path(), "istio", &["-f", ".", "--out", "imported"]);
        ends_with(&output, 2);
        assert!(output.stdout.is_empty(), "{}", stdout(&output));
        let said = stderr(&output);
        assert!(
            said.contains("MESH-0640") && said.contains(place) && said.contains(code),
            "{place} {code}\n{said}"
        );
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(left, ["istio.yaml"], "nothing is written, not even in part");
    }
}

#[test]
fn one_broken_file_among_good_ones_ends_the_import() {
    let folder = folder();
    std::fs::write(folder.path().join("broken.yaml"), "a: [\n").expect("a file");
    let output = import(
        folder.path(),
        "istio",
        &[
            "-f",
            ISTIO,
            "-f",
            "broken.yaml",
            "--out",
            "imported",
            "-o",
            "json",
        ],
    );
    ends_with(&output, 2);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(error["code"], "MESH-0640");
    assert!(
        error["why"]
            .as_str()
            .is_some_and(|why| why.contains("broken.yaml:")),
        "{error}"
    );
    assert!(!folder.path().join("imported").exists());
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = with(EXACT);
    std::fs::create_dir(folder.path().join("full")).expect("a folder");
    std::fs::write(folder.path().join("full/precious"), "x").expect("a file");
    for out in ["full", "istio.yaml"] {
        let output = import(folder.path(), "istio", &["-f", "istio.yaml", "--out", out]);
        ends_with(&output, 2);
        assert!(stderr(&output).contains("MESH-0641"), "{}", stderr(&output));
    }
    assert_eq!(
        files(&folder.path().join("full")),
        [("precious".to_owned(), "x".to_owned())]
    );
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    ends_with(
        &import(
            folder.path(),
            "istio",
            &["-f", "istio.yaml", "--out", "empty"],
        ),
        0,
    );
    assert_eq!(files(&folder.path().join("empty")).len(), 1);
}

#[test]
fn an_import_beside_an_earlier_one_is_refused() {
    let folder = with(EXACT);
    ends_with(
        &import(
            folder.path(),
            "istio",
            &["-f", "istio.yaml", "--out", "imported"],
        ),
        0,
    );
    let output = import(folder.path(), "istio", &["-f", ".", "--out", "again"]);
    ends_with(&output, 1);
    assert!(
        stderr(&output).contains("MESH-0642") && stderr(&output).contains("MESH-0361"),
        "{}",
        stderr(&output)
    );
    assert!(!folder.path().join("again").exists());
}

#[test]
fn files_without_policies_are_no_import() {
    let folder = with("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    for from in ["istio", "linkerd"] {
        let output = import(folder.path(), from, &["-f", "."]);
        ends_with(&output, 2);
        assert!(stderr(&output).contains("MESH-0640"), "{}", stderr(&output));
    }
    ends_with(&import(folder.path(), "istio", &["-f", "missing"]), 2);
    ends_with(&import(folder.path(), "consul", &["-f", "."]), 2);
}

#[test]
fn the_root_namespace_is_the_one_that_is_named() {
    let everywhere = EXACT.replace(
        "name: cart, namespace: shop}\nspec:\n  action",
        "name: cart, namespace: mesh-root}\nspec:\n  action",
    );
    let folder = with(&everywhere);
    assert!(!stdout(&import(folder.path(), "istio", &["-f", "."])).contains("kind: Server"));
    let output = import(
        folder.path(),
        "istio",
        &["-f", ".", "--root-namespace", "mesh-root"],
    );
    assert!(
        stdout(&output).contains("kind: Server"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_provider_may_be_replaced_by_denial() {
    let custom = EXACT.replace(
        "action: ALLOW",
        "action: CUSTOM\n  provider: {name: oracle}",
    );
    let output = import(
        with(&custom).path(),
        "istio",
        &["-f", ".", "--custom", "deny"],
    );
    ends_with(&output, 0);
    assert!(stdout(&output).contains("forbid"), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("the provider `oracle` cannot be asked"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn linkerd_is_checked_and_not_rewritten() {
    let folder = folder();
    let output = import(folder.path(), "linkerd", &["-f", "examples/import/linkerd"]);
    ends_with(&output, 0);
    let report = stdout(&output);
    for words in [
        "policies.yaml:39: MESH-0348 AuthorizationPolicy bakery/metrics-open: an empty `requiredAuthenticationRefs`",
        "policies.yaml:46: MESH-0349 MeshTLSAuthentication bakery/everybody: `*` means",
        "workloads.yaml:20: MESH-0348 Deployment bakery/oven",
        "policies.yaml:1: MESH-0348 Server bakery/oven-http: clients at 127.0.0.1",
        "MESH-0349 Deployment bakery/oven: the probe `GET /live`",
        "kept          examples/import/linkerd/policies.yaml:23: AuthorizationPolicy bakery/counter-bakes: it means the same here",
    ] {
        assert!(report.contains(words), "{words}\n{report}");
    }
    ends_with(
        &import(
            folder.path(),
            "linkerd",
            &["-f", "examples/import/linkerd", "--fail-on", "warn"],
        ),
        3,
    );
    let output = import(
        folder.path(),
        "linkerd",
        &["-f", "examples/import/linkerd", "--out", "x"],
    );
    ends_with(&output, 2);
    assert!(stderr(&output).contains("MESH-0641") && !folder.path().join("x").exists());
    ends_with(
        &import(with("kind: [x\n").path(), "linkerd", &["-f", "."]),
        2,
    );
}

#[test]
fn linkerd_resources_that_mean_the_same_end_with_0() {
    let same = "apiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {name: near, namespace: shop}\nspec: {networks: [{cidr: 10.0.0.0/8}]}\n";
    ends_with(
        &import(
            with(same).path(),
            "linkerd",
            &["-f", ".", "--fail-on", "warn"],
        ),
        0,
    );
}

#[test]
fn folders_may_be_named_with_and_without_the_option() {
    let folder = with(EXACT);
    let bare = import(folder.path(), "istio", &["."]);
    ends_with(&bare, 0);
    let named = import(folder.path(), "istio", &["-f", "."]);
    assert_eq!(stdout(&bare), stdout(&named));
    ends_with(&import(folder.path(), "istio", &[]), 2);
    std::fs::create_dir(folder.path().join("more")).expect("a folder");
    std::fs::write(
        folder.path().join("more/no.yaml"),
        EXACT.split_once("---\n").expect("two").1,
    )
    .expect("a file");
    let twice = import(folder.path(), "istio", &["istio.yaml", "-f", "more"]);
    ends_with(&twice, 2);
    assert!(
        stderr(&twice).contains("MESH-0361"),
        "both are read: {}",
        stderr(&twice)
    );
}

/// Istio checks tokens, which may come in a header or in the query.
const CARDS: &str = "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: cards, namespace: shop}
spec: {jwtRules: [{issuer: https://cards.example}]}
";

#[test]
fn tokens_close_what_may_carry_them_and_less_only_if_that_is_said() {
    let folder = with(&format!("{EXACT}{CARDS}"));
    let output = import(folder.path(), "istio", &[".", "--fail-on", "warn"]);
    ends_with(&output, 3);
    let made = stdout(&output);
    assert!(
        made.contains("hasTag(\"authorization\")") && made.contains("forbid"),
        "{made}"
    );
    let line = "istio.yaml:19: MESH-0342 RequestAuthentication shop/cards spec.jwtRules[0]: this mesh cannot ask for `query parameter access_token`";
    assert!(stderr(&output).contains(line), "{}", stderr(&output));
    ends_with(
        &import(folder.path(), "istio", &[".", "--out", "closed"]),
        0,
    );
    ends_with(
        &import(
            folder.path(),
            "istio",
            &["istio.yaml", "--tokens", "in-headers", "--out", "open"],
        ),
        0,
    );
    for (made, code) in [("closed", 10), ("open", 0)] {
        let asked = [
            "authz",
            "explain",
            "-f",
            "istio.yaml",
            "-f",
            made,
            "--from",
            "shop/web",
            "--to",
            "shop/cart:8080",
        ];
        ends_with(&mesh(folder.path(), &asked), code);
        let with_token = [&asked[..], &["--header", "authorization=Bearer forged"]].concat();
        ends_with(&mesh(folder.path(), &with_token), 10);
    }
}

#[test]
fn an_open_default_policy_ends_the_import() {
    let folder = with(EXACT);
    let open = [".", "--default-policy", "all-unauthenticated", "--out", "x"];
    let output = import(folder.path(), "istio", &open);
    ends_with(&output, 2);
    let said = stderr(&output);
    assert!(
        said.contains("MESH-0360") && said.contains("istio.yaml:1"),
        "{said}"
    );
    assert!(!folder.path().join("x").exists());
}
