//! The control plane: the chart's templates, rendered with values, as Helm renders them.
//!
//! `charts/mesh` is the one source. `mesh install` renders it here, `helm` on its own, and the kustomize base is what
//! `mesh install` prints; tests hold all three against each other.
//!
//! - [`values`]: what can be set, and what may not
//! - [`template`]: the part of Helm's language that the templates use
//! - [`prune`]: what a cluster has of older versions
//! - [`files`]: the files below `charts/` that are made from code

pub mod files;
pub mod prune;
mod template;
pub mod values;

pub use values::{Values, ValuesError};

use crate::crds::{self, Which};
use crate::yaml;
use serde_json::Value;
use template::{Context, TemplateError};

/// The version that the chart has, and the tag of its image unless another is set.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The chart's templates, in the order in which their objects are applied: the webhooks last, so that what they call is
/// there first. Those named `policies` are made from code.
const TEMPLATES: &[(&str, &str)] = &[
    (
        "namespace",
        include_str!("../../../charts/mesh/templates/namespace.yaml"),
    ),
    (
        "config",
        include_str!("../../../charts/mesh/templates/config.yaml"),
    ),
    (
        "identity",
        include_str!("../../../charts/mesh/templates/identity.yaml"),
    ),
    (
        "requests",
        include_str!("../../../charts/mesh/templates/requests.yaml"),
    ),
    (
        "cni",
        include_str!("../../../charts/mesh/templates/cni.yaml"),
    ),
    (
        "controller",
        include_str!("../../../charts/mesh/templates/controller.yaml"),
    ),
    (
        "injector",
        include_str!("../../../charts/mesh/templates/injector.yaml"),
    ),
    (
        "network",
        include_str!("../../../charts/mesh/templates/network.yaml"),
    ),
    (
        "webhooks",
        include_str!("../../../charts/mesh/templates/webhooks.yaml"),
    ),
    (
        "policies",
        include_str!("../../../charts/mesh/templates/policies.yaml"),
    ),
];

/// Why the control plane cannot be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum InstallError {
    /// The values are wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Values(#[from] ValuesError),
    /// A template of ours is wrong.
    #[error("template `{name}` of the chart cannot be rendered: {why}")]
    #[diagnostic(
        code("MESH-0732"),
        help("this is a fault of ours: report it with the values that were set")
    )]
    Template {
        /// Its file, without `.yaml`.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The objects of the control plane, as YAML documents.
///
/// # Errors
/// [`InstallError::Values`] if a value is not allowed.
pub fn render(values: &Values) -> Result<String, InstallError> {
    values.check()?;
    let context = Context::new(values);
    let mut out = String::new();
    for (name, text) in TEMPLATES {
        let fault = |why: String| InstallError::Template { name, why };
        let text = template::render(text, &context).map_err(|TemplateError(why)| fault(why))?;
        if !text.trim().is_empty() {
            out.push_str("---\n");
            out.push_str(text.trim_start_matches('\n'));
        }
    }
    Ok(out)
}

/// The same, parsed.
///
/// # Errors
/// As [`render`].
pub fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    let text = render(values)?;
    serde_saphyr::from_multiple(&text).map_err(|error| InstallError::Template {
        name: "all",
        why: error.to_string(),
    })
}

/// The definitions, as YAML documents.
pub fn render_crds(which: Which) -> String {
    let documents = crds::all(which);
    let texts = documents
        .iter()
        .map(|crd| format!("---\n{}", yaml::write(crd)));
    texts.collect()
}

/// What names each object for `kubectl delete`, the webhooks first: once they are gone pods and policies are nobody's
/// business, and nothing can be stuck behind them.
///
/// # Errors
/// As [`render`].
pub fn render_removal(values: &Values) -> Result<String, InstallError> {
    let mut objects = objects(values)?;
    objects.reverse();
    Ok(objects
        .iter()
        .filter_map(reference)
        .map(|o| format!("---\n{}", yaml::write(&o)))
        .collect())
}

/// An object without all but its name.
fn reference(object: &Value) -> Option<Value> {
    let name = object.pointer("/metadata/name")?;
    let mut metadata = serde_json::json!({ "name": name });
    if let (Some(namespace), Some(map)) = (
        object.pointer("/metadata/namespace"),
        metadata.as_object_mut(),
    ) {
        map.insert("namespace".to_owned(), namespace.clone());
    }
    Some(serde_json::json!({
        "apiVersion": object.get("apiVersion")?,
        "kind": object.get("kind")?,
        "metadata": metadata,
    }))
}

#[cfg(test)]
mod tests;
