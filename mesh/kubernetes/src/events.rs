//! Events: what whoever looks at an object should know of it (`kubectl describe`, `kubectl events`).

use crate::error::KubernetesError;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::json;

/// Bytes of a note (Kubernetes: 1,024).
const NOTE_BYTES_MAX: usize = 1_024;

/// A warning about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The event's own name; one of a name is told once, until it is forgotten (an hour, unless the API server was told
    /// otherwise).
    pub name: String,
    /// Who tells it, and which of several.
    pub reporter: (&'static str, String),
    /// What happened, in one word.
    pub reason: &'static str,
    /// What was done about the object, in one word.
    pub action: &'static str,
    /// What and why, for people.
    pub note: String,
    /// When, RFC 3339 with six digits of a second.
    pub time: String,
    /// The object.
    pub about: About,
}

/// Which object an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects that have none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Resource version.
    pub resource_version: String,
}

/// Tells a warning, unless one of its name was told already.
///
/// # Errors
/// [`KubernetesError`] if the API server does not take it.
pub async fn warn(client: &Client, warning: &Warning) -> Result<(), KubernetesError> {
    let kind = GroupVersionKind::gvk("events.k8s.io", "v1", "Event");
    let resource = ApiResource::from_gvk_with_plural(&kind, "events");
    let about = &warning.about;
    // Events about objects without a namespace stand in this one.
    let namespace = match about.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut event = DynamicObject::new(&warning.name, &resource).within(namespace);
    let mut regarding = json!({
        "apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid,
        "resourceVersion": about.resource_version,
    });
    if let (false, Some(map)) = (about.namespace.is_empty(), regarding.as_object_mut()) {
        map.insert("namespace".to_owned(), about.namespace.as_str().into());
    }
    event.data = json!({
        "eventTime": warning.time,
        "type": "Warning",
        "reason": warning.reason,
        "action": warning.action,
        "note": shortened(&warning.note),
        "reportingController": warning.reporter.0,
        "reportingInstance": warning.reporter.1,
        "regarding": regarding,
    });
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        // The namespace is about to go, and the object with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            let what = format!("create an event in namespace {namespace}");
            Err(KubernetesError::of(what, &error))
        }
    }
}

fn shortened(note: &str) -> &str {
    let mut end = note.len().min(NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_ends_before_the_limit_and_never_within_a_character() {
        assert_eq!(shortened("short"), "short");
        let long = "ä".repeat(NOTE_BYTES_MAX);
        assert_eq!(shortened(&long).len(), NOTE_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), NOTE_BYTES_MAX - 1);
    }
}
