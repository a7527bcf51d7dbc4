//! `mesh up` with the CA's keys in a PKCS #11 token. Needs Debian's `softhsm2`; without it the tests say so and pass.

use crate::run::stderr;
use std::path::Path;
use std::process::{Command, Output};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const MESH: &str = "\
apiVersion: mesh.internal/v1alpha1
kind: LocalMesh
metadata: {name: token}
spec:
  trustDomain: token.example
  workloads:
    - {name: idle, namespace: shop, command: [sleep, infinity]}
";

/// A folder with a token, its PIN, and a mesh in a folder of its own; none without SoftHSM.
fn folder() -> Option<tempfile::TempDir> {
    if !Path::new(MODULE).exists() {
        println!("skipped: Debian's softhsm2 is not installed");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["tokens", "east"] {
        std::fs::create_dir(path(name)).expect("a folder");
    }
    let conf = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        path("tokens").display()
    );
    for (name, text) in [
        ("softhsm2.conf", conf.as_str()),
        ("pin", "1234\n"),
        ("wrong", "4321"),
        ("east/mesh.yaml", MESH),
    ] {
        mesh_platform::files::write_atomic(&path(name), text.as_bytes(), 0o600).expect("a file");
    }
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "prod 1"])
        .args(["--pin", "1234", "--so-pin", "5678"])
        .env("SOFTHSM2_CONF", path("softhsm2.conf"))
        .output()
        .expect("softhsm2-util runs");
    assert!(made.status.success(), "{made:?}");
    Some(folder)
}

/// The mesh for some seconds; files of the token are named from where the command is given.
fn up(folder: &Path, pin: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["up", "-f", "east/mesh.yaml", "--state", "state"])
        .args(["--for", "2s"])
        .args(["--pkcs11-module", MODULE, "--pkcs11-token", "prod 1"])
        .args(["--pkcs11-key", "mesh ca", "--pkcs11-pin", pin])
        .args(["--pkcs11-files", "."])
        .current_dir(folder)
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .env_remove("MESH_STATE")
        .output()
        .expect("mesh runs")
}

#[test]
fn the_ca_of_a_local_mesh_has_its_keys_in_the_token_that_was_named() {
    let Some(folder) = folder() else { return };
    let output = up(folder.path(), "pin");
    assert!(output.status.success(), "{}", stderr(&output));
    for name in ["root.key", "issuer.key"] {
        let text = std::fs::read_to_string(folder.path().join("state/ca").join(name));
        let text = text.expect("the name of a key");
        let begin = "pkcs11:token=prod%201;object=mesh%20ca;id=%";
        assert!(text.starts_with(begin), "{text}");
    }
}

#[test]
fn a_wrong_pin_stops_a_local_mesh_and_is_named() {
    let Some(folder) = folder() else { return };
    let output = up(folder.path(), "wrong");
    assert!(!output.status.success());
    assert!(stderr(&output).contains("MESH-0228"), "{output:?}");
    assert!(!folder.path().join("state/ca/root.key").exists());
}
