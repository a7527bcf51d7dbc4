//! What `mesh up` takes over from the user's manifests: pod templates of Deployments, and which Services exist.
//!
//! Read leniently, as a file that cannot be read here is reported by the controller, with its place.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Deployments and Services found in manifests.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    deployments: BTreeMap<(String, String), Value>,
    services: BTreeSet<(String, String)>,
}

impl Templates {
    /// Reads all manifests under `paths`.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for file in paths.iter().flat_map(|path| yaml_files(path)) {
            if let Ok(text) = std::fs::read_to_string(&file) {
                found.add(&text);
            }
        }
        found
    }

    fn add(&mut self, text: &str) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_default();
        for document in documents {
            let name = |field: &str| {
                document
                    .pointer(field)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            let Some(object) = name("/metadata/name") else {
                continue;
            };
            let key = (
                name("/metadata/namespace").unwrap_or_else(|| "default".to_owned()),
                object,
            );
            match document.get("kind").and_then(Value::as_str) {
                Some("Deployment") => {
                    if let Some(template) = document
                        .pointer("/spec/template")
                        .filter(|t| t.get("metadata").is_some())
                    {
                        self.deployments.insert(key, template.clone());
                    }
                }
                Some("Service") => {
                    self.services.insert(key);
                }
                _ => {}
            }
        }
    }

    /// The pod template of a Deployment.
    pub(crate) fn deployment(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.deployments
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether the manifests have this Service.
    pub(crate) fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services
            .contains(&(namespace.to_owned(), name.to_owned()))
    }
}

fn yaml_files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|file| is_yaml(file))
        .collect();
    files.sort();
    files
}

fn is_yaml(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_services_are_found_in_a_file_of_several_documents() {
        let mut found = Templates::default();
        found.add("kind: Service\nmetadata: {name: a, namespace: shop}\n---\nkind: Deployment\nmetadata: {name: b, namespace: shop}\nspec: {template: {metadata: {labels: {app: b}}, spec: {}}}\n");
        assert!(found.has_service("shop", "a") && !found.has_service("shop", "b"));
        assert_eq!(
            found
                .deployment("shop", "b")
                .and_then(|t| t.pointer("/metadata/labels/app")),
            Some(&Value::from("b"))
        );
    }

    #[test]
    fn a_broken_file_gives_nothing() {
        let mut found = Templates::default();
        found.add("kind: [Service\n");
        assert!(found.services.is_empty());
    }
}
