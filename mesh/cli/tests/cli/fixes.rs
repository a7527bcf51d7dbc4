//! `mesh authz explain` as people use it to mend a denial: what is printed, applied to the files, lets the request in.

use crate::run::{copy_shop, mesh, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// A copy of the shop.
fn shop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_shop(&folder.path().join("shop"));
    folder
}

const CHARGE: &[&str] = &[
    "authz",
    "explain",
    "-f",
    "shop",
    "--from",
    "shop/intruder",
    "--to",
    "shop/payments:9090",
    "--protocol",
    "grpc",
    "--path",
    "/shop.v1.Payments/Charge",
];

fn asked(folder: &Path, more: &[&str]) -> Output {
    mesh(folder, &[CHARGE, more].concat())
}

/// Writes the documents of a fix as its places say.
fn follow(folder: &Path, fix: &Value) {
    for patch in fix["patches"].as_array().expect("patches").iter().rev() {
        let path = folder.join(patch["file"].as_str().expect("a file"));
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let yaml = patch["yaml"].as_str().expect("a document");
        let lines: Vec<&str> = old.lines().collect();
        let number =
            |key: &str| usize::try_from(patch[key].as_u64().expect("a line")).expect("a line");
        let new = match patch["action"].as_str() {
            Some("replace") => {
                let (first, last) = (number("line"), number("end_line"));
                let (before, after) = (&lines[..first - 1], &lines[last..]);
                format!("{}\n{yaml}{}\n", before.join("\n"), after.join("\n"))
            }
            Some("append") => {
                assert_eq!(number("line"), lines.len() + 2, "behind the line `---`");
                format!("{}\n---\n{yaml}", lines.join("\n"))
            }
            other => panic!("{other:?}"),
        };
        std::fs::write(path, new).expect("a file");
    }
}

#[test]
fn each_fix_of_a_denial_lets_the_request_in_once_it_is_followed() {
    let folder = shop();
    let output = asked(folder.path(), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(10));
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let fixes = value["fixes"].as_array().expect("fixes").clone();
    assert_eq!(fixes.len(), 2, "{value}");
    assert_eq!(value["fixes_bounded"], Value::Bool(false));
    for fix in &fixes {
        assert_eq!(fix["blast"]["lost"], 0);
        assert!(fix["needs_owner"].is_null());
        let copy = shop();
        follow(copy.path(), fix);
        let after = asked(copy.path(), &[]);
        assert_eq!(after.status.code(), Some(0), "{fix}\n{}", stdout(&after));
    }
}

#[test]
fn text_shows_the_lines_that_change_and_fix_prints_the_documents() {
    let folder = shop();
    let output = stdout(&asked(folder.path(), &[]));
    assert!(
        output.contains("fix 1  add shop/intruder to MeshTLSAuthentication shop/orders"),
        "{output}"
    );
    assert!(
        output.contains("change shop/policy/payments-authentication.yaml:11"),
        "{output}"
    );
    assert!(
        output.contains("+     - {kind: ServiceAccount, name: intruder, namespace: shop}"),
        "{output}"
    );
    let printed = asked(folder.path(), &["--fix", "2"]);
    assert_eq!(printed.status.code(), Some(0));
    let yaml = stdout(&printed);
    assert!(
        yaml.starts_with("apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\n"),
        "{yaml}"
    );
    std::fs::write(folder.path().join("shop/policy/fix.yaml"), yaml).expect("a file");
    assert_eq!(asked(folder.path(), &[]).status.code(), Some(0));
}

#[test]
fn a_fix_that_there_is_not_is_refused() {
    let folder = shop();
    for number in ["0", "9"] {
        let output = asked(folder.path(), &["--fix", number]);
        assert_eq!(output.status.code(), Some(2), "{number}");
        assert!(stderr(&output).contains("MESH-0680"), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    // Manifests are what is fixed; a running mesh has none at hand.
    let live = mesh(
        folder.path(),
        &[
            "authz",
            "explain",
            "--from",
            "none",
            "--to",
            "shop/web:80",
            "--fix",
            "1",
        ],
    );
    assert_eq!(live.status.code(), Some(2));
}

#[test]
fn a_forbid_is_excepted_from_by_its_owner_alone() {
    let folder = shop();
    let guard = "apiVersion: mesh.internal/v1alpha1\nkind: ClusterCedarPolicy\nmetadata: {name: guard}\nspec:\n  cedar: |\n    @id(\"no-orders\")\n    forbid(principal, action, resource)\n    when { principal has sa && principal.sa == \"orders\" };\n";
    std::fs::write(folder.path().join("shop/policy/guard.yaml"), guard).expect("a file");
    let mut arguments = CHARGE.to_vec();
    arguments[5] = "shop/orders";
    let output = stdout(&mesh(folder.path(), &arguments));
    for wanted in [
        "ClusterCedarPolicy//guard/no-orders",
        "guard.yaml:6",
        "holds: principal.sa == \"orders\"",
        "fix 1  except shop/orders from ClusterCedarPolicy//guard/no-orders",
        "needs its owner",
    ] {
        assert!(output.contains(wanted), "{wanted}\n{output}");
    }
    let printed = mesh(folder.path(), &[&arguments[..], &["--fix", "1"]].concat());
    assert!(stderr(&printed).contains("needs its owner"));
}

#[test]
fn invariants_of_a_file_apart_are_proved_and_nothing_else_may_stand_there() {
    let folder = shop();
    let invariant = "apiVersion: mesh.internal/v1alpha1\nkind: Invariant\nmetadata: {name: apart, namespace: shop}\nspec:\n  description: the intruder reaches nothing\n  deny:\n    from: {identities: ['spiffe://cluster.local/ns/shop/sa/intruder']}\n";
    std::fs::write(folder.path().join("apart.yaml"), invariant).expect("a file");
    let prove = |file: &str| {
        mesh(
            folder.path(),
            &["authz", "prove", "-f", "shop", "--invariant", file],
        )
    };
    let output = prove("apart.yaml");
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(said.contains("Invariant/shop/apart"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    let other = prove("shop/policy/servers.yaml");
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("MESH-0682"), "{}", stderr(&other));
    assert_eq!(prove("gone.yaml").status.code(), Some(2));
}

#[test]
fn manifests_without_workloads_are_said_to_have_none() {
    let folder = shop();
    for command in ["cedar", "verify"] {
        let output = mesh(folder.path(), &["policy", command, "-f", "shop/policy"]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(
            said.contains("MESH-0681")
                && said.contains("there is no workload")
                && !said.contains("``"),
            "{said}"
        );
    }
}
