//! The files of examples/shop, built in, so that `mesh up` works outside a checkout.

/// Path below the folder of the shop, and content.
pub(crate) const FILES: &[(&str, &str)] = &[
    (
        "mesh.yaml",
        include_str!("../../../../examples/shop/mesh.yaml"),
    ),
    (
        "workloads.yaml",
        include_str!("../../../../examples/shop/workloads.yaml"),
    ),
    (
        "policy/servers.yaml",
        include_str!("../../../../examples/shop/policy/servers.yaml"),
    ),
    (
        "policy/orders-routes.yaml",
        include_str!("../../../../examples/shop/policy/orders-routes.yaml"),
    ),
    (
        "policy/orders-authorization.yaml",
        include_str!("../../../../examples/shop/policy/orders-authorization.yaml"),
    ),
    (
        "policy/payments-authentication.yaml",
        include_str!("../../../../examples/shop/policy/payments-authentication.yaml"),
    ),
    (
        "policy/payments-authorization.yaml",
        include_str!("../../../../examples/shop/policy/payments-authorization.yaml"),
    ),
    (
        "policy/ledger-authorization.yaml",
        include_str!("../../../../examples/shop/policy/ledger-authorization.yaml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_mesh::LocalMesh;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop")
    }

    #[test]
    fn every_yaml_of_the_example_is_built_in() {
        let mut found = BTreeSet::new();
        for (below, prefix) in [(folder(), ""), (folder().join("policy"), "policy/")] {
            for entry in std::fs::read_dir(below)
                .expect("a folder of the example")
                .flatten()
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".yaml") {
                    found.insert(format!("{prefix}{name}"));
                }
            }
        }
        let built_in: BTreeSet<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(built_in, found);
    }

    #[test]
    fn its_mesh_yaml_is_valid_and_expects_something_of_every_caller() {
        let (path, text) = FILES[0];
        let mesh = LocalMesh::parse(path, text).expect("a valid mesh.yaml");
        for workload in &mesh.workloads {
            for upstream in &workload.upstreams {
                let expected = mesh
                    .expectations
                    .iter()
                    .any(|e| e.from == workload.name && e.to == upstream.name);
                assert!(
                    expected,
                    "nothing is expected of {} to {}",
                    workload.name, upstream.name
                );
            }
        }
    }

    #[test]
    fn the_grant_of_payments_stands_alone_in_its_file() {
        let (_, text) = FILES
            .iter()
            .find(|(path, _)| *path == "policy/payments-authorization.yaml")
            .expect("the file");
        assert_eq!(text.matches("\nkind:").count(), 1);
    }
}
