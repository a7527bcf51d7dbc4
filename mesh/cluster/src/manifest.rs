//! Workloads in YAML: which part of each is the pod, and the same documents with pods changed.

use crate::inject::addition;
use crate::names::{INJECT, LINKERD_INJECT};
use crate::yaml;
use serde_json::{Value, json};

/// Kinds whose pods are made from a template, and where in them that stands.
const TEMPLATES: &[(&str, &str)] = &[
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// Documents that cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ManifestError {
    /// No YAML.
    #[error("the manifests are no YAML that can be read: {why}")]
    #[diagnostic(
        code("MESH-0734"),
        help(
            "mend the syntax; `kubectl create --dry-run=client -o yaml -f FILE` says what it reads"
        )
    )]
    Syntax {
        /// The place and what is wrong there.
        why: String,
    },
    /// A workload without a pod.
    #[error("{object} has no pod at `{path}`")]
    #[diagnostic(
        code("MESH-0735"),
        help("a workload has `spec.template` with the metadata and spec of its pods")
    )]
    NoPod {
        /// Kind and name.
        object: String,
        /// Where it should be.
        path: String,
    },
}

/// A workload found in a document.
pub struct Workload<'a> {
    /// Kind and name: `Deployment shop/orders`.
    pub title: String,
    /// Its namespace; `default` if none stands.
    pub namespace: String,
    /// The pod, or the template of its pods.
    pub pod: &'a mut Value,
}

/// Runs `change` on each workload of the documents, in their order, items of lists among them. Documents that `change`
/// leaves as they are come out byte for byte, with their comments; the others are written anew.
///
/// # Errors
/// [`ManifestError`], or what `change` returns.
pub fn each<E: From<ManifestError>>(
    text: &str,
    mut change: impl FnMut(&mut Workload<'_>) -> Result<(), E>,
) -> Result<String, E> {
    let mut out = String::with_capacity(text.len());
    for document in documents(text) {
        let syntax = |error: serde_saphyr::Error| ManifestError::Syntax {
            why: error.to_string(),
        };
        let read: Vec<Value> = serde_saphyr::from_multiple(document).map_err(syntax)?;
        for mut value in read {
            let before = value.clone();
            object(&mut value, &mut change)?;
            if !out.is_empty() {
                out.push_str("---\n");
            }
            if value == before {
                out.push_str(document.trim_end());
                out.push('\n');
            } else {
                out.push_str(&yaml::write(&value));
            }
        }
    }
    Ok(out)
}

/// The documents of a stream: what stands between lines that begin with `---`.
fn documents(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']));
        if marker {
            out.extend(text.get(start..at));
            // What stands behind the marker on its line belongs to the document: `--- # comment`, `--- {a: 1}`.
            start = at + "---".len();
        }
        at = end;
    }
    out.extend(text.get(start..));
    out.retain(|document| !document.trim().is_empty());
    out
}

fn object<E: From<ManifestError>>(
    value: &mut Value,
    change: &mut impl FnMut(&mut Workload<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if kind.ends_with("List")
        && let Some(items) = value.get_mut("items").and_then(Value::as_array_mut)
    {
        return items.iter_mut().try_for_each(|item| object(item, change));
    }
    let Some((_, path)) = TEMPLATES.iter().find(|(known, _)| *known == kind) else {
        return Ok(());
    };
    let text = |path| {
        value
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let namespace = if namespace.is_empty() {
        "default".to_owned()
    } else {
        namespace
    };
    let title = format!("{kind} {namespace}/{name}");
    match value
        .pointer_mut(path)
        .filter(|pod| pod.get("spec").is_some_and(Value::is_object))
    {
        Some(pod) => change(&mut Workload {
            title,
            namespace,
            pod,
        }),
        None => Err(ManifestError::NoPod {
            object: title,
            path: format!("{path}/spec"),
        }
        .into()),
    }
}

/// Asks for a proxy, or says that none is wanted, by annotation; Linkerd's spelling of the same is taken away. Whether that
/// changed anything.
pub fn annotate(pod: &mut Value, value: &str) -> bool {
    let before = pod.clone();
    let metadata = field(pod, "metadata");
    let annotations = field(metadata, "annotations");
    if let Some(map) = annotations.as_object_mut() {
        map.shift_remove(LINKERD_INJECT);
        map.insert(INJECT.to_owned(), value.into());
    }
    *pod != before
}

/// Takes away the annotation that asks for a proxy, and the proxy if it is there. Whether that changed anything.
pub fn uninject(pod: &mut Value) -> bool {
    let removed = addition::remove(pod);
    let map = pod
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    let asked = map.is_some_and(|map| {
        [INJECT, LINKERD_INJECT]
            .map(|key| map.shift_remove(key).is_some())
            .contains(&true)
    });
    let empty = pod
        .pointer("/metadata/annotations")
        .is_some_and(|v| v == &json!({}));
    if asked
        && empty
        && let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.shift_remove("annotations");
    }
    removed || asked
}

fn field<'v>(of: &'v mut Value, key: &str) -> &'v mut Value {
    if !of.is_object() {
        *of = json!({});
    }
    let slot = &mut of[key];
    if slot.is_null() {
        *slot = json!({});
    }
    slot
}

#[cfg(test)]
mod tests;
