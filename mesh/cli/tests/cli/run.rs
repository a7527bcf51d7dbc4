//! The command and what it prints.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// `mesh` in a folder, where no running mesh is found.
pub(crate) fn mesh(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("MESH_STATE")
        .output()
        .expect("mesh runs")
}

/// `mesh authz`.
pub(crate) fn authz(folder: &Path, arguments: &[&str]) -> Output {
    mesh(folder, &[&["authz"], arguments].concat())
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it prints, as JSON.
pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The folder of the example.
pub(crate) fn shop() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    path.to_str().expect("a path of text").to_owned()
}

/// Copies the example to `to`.
pub(crate) fn copy_shop(to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(shop()).arg(to).status();
    assert!(copied.expect("cp runs").success());
}
