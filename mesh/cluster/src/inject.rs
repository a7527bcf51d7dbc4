//! Whether a pod gets a proxy, and what is added to it then.
//!
//! The pod's own annotation decides, then its namespace's; a label decides nothing, and who wrote one where an annotation
//! belongs is told. A pod that asks for a proxy and could get around it is refused, not let in without.
//!
//! - [`settings`]: what the installation says, and what a pod's annotations may change
//! - [`refusal`]: pods that cannot be meshed, and why
//! - [`addition`]: what is added, as JSON patch or in place
//! - [`policy`]: the same as admission policies, which an API server carries out by itself

pub mod addition;
pub mod policy;
pub mod refusal;
pub mod settings;

pub use addition::Addition;
pub use refusal::Refusal;
pub use settings::Settings;

use crate::names::{CAPTURE, INJECT, LINKERD_INJECT, PROXY};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is known of the pod's namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it is changed.
    pub outcome: Outcome,
    /// What its author should know, in sentences without final stop.
    pub warnings: Vec<String>,
}

/// Whether a pod is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It gets a proxy.
    Inject(Box<Addition>),
    /// It stays as it is.
    Skip(Skip),
    /// It must not be made.
    Refuse(Refusal),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Nobody asked for a proxy.
    NotAsked,
    /// The pod or, where it says nothing, its namespace wants none.
    Disabled,
    /// It has one.
    AlreadyInjected,
}

impl Skip {
    /// The reason as one word, for metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Disabled => "disabled",
            Self::AlreadyInjected => "already-injected",
        }
    }
}

/// What `mesh.internal/inject` says at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    Silent,
    Enabled,
    Disabled,
}

/// Decides about a pod, or the template of pods, of `namespace`.
pub fn decide(pod: &Value, namespace: &Namespace, settings: &Settings) -> Decision {
    let mut warnings = Vec::new();
    let outcome = match outcome(pod, namespace, settings, &mut warnings) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Refuse(refusal),
    };
    Decision { outcome, warnings }
}

fn outcome(
    pod: &Value,
    namespace: &Namespace,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Outcome, Refusal> {
    let annotations = strings(pod, "/metadata/annotations")?;
    let labels = strings(pod, "/metadata/labels").unwrap_or_default();
    let own = switch(&annotations, "the pod")?;
    let from = match own {
        // An annotation that the pod overrules may say what it likes.
        Switch::Silent => switch(&namespace.annotations, "its namespace")?,
        own => own,
    };
    match from {
        Switch::Disabled => return Ok(Outcome::Skip(Skip::Disabled)),
        Switch::Silent => {
            warn_of_label(&labels, "pod", warnings);
            warn_of_label(&namespace.labels, "namespace", warnings);
            return Ok(Outcome::Skip(Skip::NotAsked));
        }
        Switch::Enabled => {}
    }
    if is_meshed(pod) {
        return Ok(Outcome::Skip(Skip::AlreadyInjected));
    }
    let proxy = settings.for_pod(&annotations, &namespace.annotations, warnings)?;
    refusal::check(pod, proxy.uid)?;
    let addition = Addition::new(pod, &proxy, settings);
    Ok(Outcome::Inject(Box::new(addition)))
}

/// Whether a pod has what [`decide`] adds: the proxy as native sidecar, and its capture before it.
pub fn is_meshed(pod: &Value) -> bool {
    let inits = pod
        .pointer("/spec/initContainers")
        .and_then(Value::as_array);
    let named = |name: &str| {
        inits
            .into_iter()
            .flatten()
            .find(|c| c.get("name").and_then(Value::as_str) == Some(name))
    };
    let sidecar = |c: &Value| c.get("restartPolicy").and_then(Value::as_str) == Some("Always");
    named(CAPTURE).is_some() && named(PROXY).is_some_and(sidecar)
}

/// The switch of one level. Ours comes before Linkerd's.
fn switch(annotations: &BTreeMap<String, String>, whose: &'static str) -> Result<Switch, Refusal> {
    let found = [INJECT, LINKERD_INJECT]
        .iter()
        .find_map(|key| Some((*key, annotations.get(*key)?)));
    match found.map(|(key, value)| (key, value.as_str())) {
        None => Ok(Switch::Silent),
        Some((_, "enabled")) => Ok(Switch::Enabled),
        // Linkerd's mode for ingress controllers; here they need none of their own.
        Some((LINKERD_INJECT, "ingress")) => Ok(Switch::Enabled),
        Some((_, "disabled")) => Ok(Switch::Disabled),
        Some((annotation, value)) => Err(Refusal::Switch {
            annotation,
            value: value.to_owned(),
            whose,
        }),
    }
}

/// Code of a label in the place of an annotation.
const LABEL: &str = "MESH-0739";

fn warn_of_label(labels: &BTreeMap<String, String>, what: &str, warnings: &mut Vec<String>) {
    for key in [INJECT, LINKERD_INJECT] {
        if let Some(value) = labels.get(key) {
            warnings.push(label_warning(key, value, what));
        }
    }
}

/// What is said of a label in the place of an annotation.
fn label_warning(key: &str, value: &str, what: &str) -> String {
    format!(
        "{LABEL}: the {what} has the label `{key}: {value}`, which does nothing: write it as an annotation"
    )
}

/// A mapping of strings; empty if it does not stand.
fn strings(pod: &Value, path: &str) -> Result<BTreeMap<String, String>, Refusal> {
    match pod.pointer(path) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => Ok(map
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()),
        Some(_) => Err(Refusal::Shape {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
