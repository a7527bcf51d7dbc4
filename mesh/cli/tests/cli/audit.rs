//! `mesh audit` over a bundle alone: reports whole or not at all, and refusals with code and place. What needs a running
//! mesh is in tests/audit.

use crate::run::{json_of, mesh, stderr, stdout};
use mesh_compliance::bundle::{self, Bundle, ManifestFile, Scope, Workload};
use mesh_trust::{Timestamp, TrustDomain};
use std::path::{Path, PathBuf};

/// A folder with `bundle.jsonl` of a mesh whose one workload nobody may reach.
fn folder() -> (tempfile::TempDir, Vec<u8>) {
    let until = Timestamp::from_unix_secs(1_800_000_000);
    let mut made = Bundle::of(Scope {
        since: Timestamp::from_unix_secs(1_799_900_000),
        until,
        trust_domain: TrustDomain::parse("cluster.local").expect("a domain"),
        default_policy: "deny".to_owned(),
        generation: 1,
        collected_from: "state".to_owned(),
        collector: "0".to_owned(),
        leaf_lifetime_secs_max: 86_400,
    });
    made.files.push(ManifestFile {
        name: "pods.yaml".to_owned(),
        text: "{ apiVersion: v1, kind: Pod, metadata: { name: a, namespace: shop }, spec: { serviceAccountName: a } }\n".to_owned(),
    });
    made.workloads.push(Workload {
        namespace: "shop".to_owned(),
        name: "a".to_owned(),
        service_account: "a".to_owned(),
        meshed: true,
        allow_sample_ppm: 1_000_000,
    });
    let bytes = bundle::write(&made).expect("a bundle");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bundle.jsonl"), &bytes).expect("a file");
    (folder, bytes)
}

fn audit(folder: &Path, arguments: &[&str]) -> std::process::Output {
    mesh(folder, &[&["audit"], arguments].concat())
}

/// What a folder holds, but for the bundle that the test put there.
fn left(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| !path.ends_with("bundle.jsonl"))
        .collect()
}

#[test]
fn a_report_over_a_bundle_is_written_checked_and_compared() {
    let (folder, _) = folder();
    let here = folder.path();
    let run = [
        "run",
        "--bundle",
        "bundle.jsonl",
        "--framework",
        "soc2,hipaa",
        "-o",
    ];
    let first = audit(
        here,
        &[&run[..], &["html,pdf,csv,sarif,oscal", "--out", "one"]].concat(),
    );
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let said = stdout(&first);
    assert!(
        said.contains("MISSING: there is no decision log of shop/a"),
        "{said}"
    );
    for name in [
        "report.html",
        "report.pdf",
        "report.csv",
        "report.sarif",
        "report.json",
        "bundle.jsonl",
        "statement.json",
    ] {
        assert!(here.join("one").join(name).is_file(), "{name}");
    }
    let checked = audit(here, &["verify", "one"]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert!(
        stdout(&checked).contains("not signed"),
        "a report that nobody signed says so"
    );
    let again = audit(here, &[&run[..], &["html", "--out", "one"]].concat());
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("MESH-0670"));
    let failing = audit(
        here,
        &[&run[..], &["csv", "--out", "two", "--fail"]].concat(),
    );
    assert_eq!(failing.status.code(), Some(1), "controls are not satisfied");
    let same = audit(here, &["diff", "one", "two", "-o", "json"]);
    assert_eq!(json_of(&same)["new"], serde_json::json!([]));
    std::fs::write(here.join("one/report.csv"), "edited").expect("a file");
    let edited = audit(here, &["verify", "one"]);
    assert_eq!(edited.status.code(), Some(1));
    assert!(stderr(&edited).contains("MESH-0562") && stderr(&edited).contains("report.csv"));
}

#[test]
fn what_cannot_be_reported_on_leaves_nothing_behind() {
    let (folder, bytes) = folder();
    let here = folder.path();
    let refused = |arguments: &[&str], code: &str| {
        let output = audit(here, &[arguments, &["--out", "out"]].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(code),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(left(here), Vec::<PathBuf>::new(), "{arguments:?}");
    };
    refused(
        &["run", "--bundle", "bundle.jsonl", "--framework", "none"],
        "MESH-0556",
    );
    refused(
        &["run", "--bundle", "bundle.jsonl", "--sign", "bundle.jsonl"],
        "MESH-0566",
    );
    refused(
        &["run", "--bundle", "bundle.jsonl", "--since", "1d"],
        "MESH-0600",
    );
    refused(&["run", "--kubernetes", "--state", "."], "MESH-0600");
    refused(&["run", "--since", "1w"], "MESH-0600");
    let mut flipped = bytes;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(here.join("bundle.jsonl"), flipped).expect("a file");
    refused(&["run", "--bundle", "bundle.jsonl"], "MESH-055");
}

#[test]
fn evidence_and_controls_answer_for_programs() {
    let (folder, _) = folder();
    let here = folder.path();
    let rows = audit(
        here,
        &["evidence", "e3", "--bundle", "bundle.jsonl", "-o", "json"],
    );
    assert_eq!(json_of(&rows)["table"]["rows"][0][0], "shop/a");
    let none = audit(here, &["evidence", "E13", "--bundle", "bundle.jsonl"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("MESH-0675"));
    let controls = json_of(&audit(
        here,
        &["controls", "--framework", "soc2", "-o", "json"],
    ));
    let all = controls[0]["controls"].as_array().expect("controls");
    assert!(all.iter().all(|one| {
        one["not_covered"]
            .as_str()
            .is_some_and(|text| text.len() > 10)
    }));
}
