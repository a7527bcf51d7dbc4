//! `mesh install`, `mesh inject` and what takes both away, as they are used in a pipe.

use crate::run::{mesh, stderr, stdout};
use std::path::Path;
use std::process::Output;

const WORKLOADS: &str = "\
# the shop
kind: Service
metadata: {name: a}
---
kind: Deployment
metadata: {name: a, namespace: shop}
spec: {template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: app:1}]}}}
";

/// The command, with a file of manifests as its last argument.
fn on(text: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.yaml"), text).expect("a file");
    mesh(folder.path(), &[arguments, &["app.yaml"]].concat())
}

fn install(arguments: &[&str]) -> Output {
    mesh(Path::new("."), &[&["install"], arguments].concat())
}

fn kinds(output: &Output) -> Vec<String> {
    let text = stdout(output);
    let lines = text.lines().filter_map(|line| line.strip_prefix("kind: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn install_prints_definitions_control_plane_or_both() {
    let crd = "CustomResourceDefinition".to_owned();
    let (all, crds, plane) = (
        install(&[]),
        install(&["--crds"]),
        install(&["--skip-crds"]),
    );
    assert!(kinds(&crds).iter().all(|kind| *kind == crd));
    assert!(!kinds(&plane).contains(&crd));
    assert_eq!(stdout(&all), stdout(&crds) + &stdout(&plane));
    assert!(kinds(&install(&["--crds", "--own-crds"])).len() < kinds(&crds).len());
}

#[test]
fn values_are_checked_before_anything_is_printed() {
    for (arguments, code) in [
        (&["--set", "nothing=1"][..], "MESH-0730"),
        (&["--set", "proxy.uid=0"][..], "MESH-0731"),
        (&["--set", "trustDomain=UPPER"][..], "MESH-0731"),
        (&["-f", "missing.yaml"][..], "MESH-08"),
    ] {
        let output = install(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(code), "{output:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_values_prints_is_a_file_of_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let values = stdout(&install(&["--values"]));
    std::fs::write(folder.path().join("values.yaml"), values).expect("a file");
    let same = mesh(folder.path(), &["install", "-f", "values.yaml"]);
    assert_eq!(stdout(&same), stdout(&install(&[])));
    let ha = mesh(folder.path(), &["install", "-f", "values.yaml", "--ha"]);
    assert_eq!(stdout(&ha).matches("  replicas: 3\n").count(), 2);
}

#[test]
fn uninstall_names_what_install_made_and_keeps_policies_unless_told() {
    let output = mesh(Path::new("."), &["uninstall"]);
    let (made, named) = (kinds(&install(&["--skip-crds"])), kinds(&output));
    assert_eq!(made.len(), named.len());
    assert_eq!(named[0], "ValidatingWebhookConfiguration");
    let crds = mesh(Path::new("."), &["uninstall", "--crds"]);
    assert!(kinds(&crds).contains(&"CustomResourceDefinition".to_owned()));
}

#[test]
fn inject_asks_and_uninject_takes_it_back() {
    let asked = on(WORKLOADS, &["inject"]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let text = stdout(&asked);
    assert!(
        text.starts_with("# the shop\nkind: Service\nmetadata: {name: a}\n---\n"),
        "{text}"
    );
    assert!(text.contains("mesh.internal/inject: enabled"), "{text}");
    assert!(
        stderr(&asked).contains("Deployment shop/a: asks for a proxy"),
        "{asked:?}"
    );
    let back = stdout(&on(&text, &["uninject"]));
    assert!(!back.contains("mesh.internal"), "{back}");

    let manual = stdout(&on(
        WORKLOADS,
        &["inject", "--manual", "--set", "proxy.uid=2102"],
    ));
    assert!(
        manual.contains("--uid=2102") && manual.contains("restartPolicy: Always"),
        "{manual}"
    );
    assert_eq!(stdout(&on(&manual, &["uninject"])), back);
}

#[test]
fn what_the_webhook_would_refuse_is_refused_and_nothing_is_printed() {
    let host = WORKLOADS.replace("{containers", "{hostNetwork: true, containers");
    let output = on(&host, &["inject"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).is_empty());
    let talk = stderr(&output);
    assert!(
        talk.contains("MESH-0757") && talk.contains("MESH-0742") && talk.contains("shop/a"),
        "{talk}"
    );
}

#[test]
fn input_that_nothing_can_be_done_with_is_an_error_and_not_an_empty_answer() {
    for (text, code) in [
        ("kind: Service\nmetadata: {name: a}\n", "MESH-0758"),
        ("", "MESH-0758"),
        ("kind: [Pod\n", "MESH-0734"),
        (
            "kind: Deployment\nmetadata: {name: a}\nspec: {}\n",
            "MESH-0735",
        ),
    ] {
        for command in ["inject", "uninject"] {
            let output = on(text, &[command]);
            assert!(
                !output.status.success() && stdout(&output).is_empty(),
                "{command} {text}: {output:?}"
            );
            assert!(
                stderr(&output).contains(code),
                "{command} {text}: {output:?}"
            );
        }
    }
}

#[test]
fn the_injector_does_not_start_without_its_settings() {
    let address = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let start = |config: &str| {
        mesh(
            Path::new("."),
            &[&["injector"], &address[..], &["--config", config]].concat(),
        )
    };
    let output = start("env:MESH_NOT_SET_ANYWHERE");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("MESH-0759"), "{output:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("settings.yaml");
    std::fs::write(
        &path,
        "image: x\ntrustDomain: cluster.local\nimagePullPolicy: Never\nproxy: {uid: 0}\n",
    )
    .expect("a file");
    let output = start(path.to_str().expect("text"));
    assert!(stderr(&output).contains("MESH-0733"), "{output:?}");
}
